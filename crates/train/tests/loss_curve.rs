//! A run on the kernels beside the same run on Burn's own operations, alone in its process because the switch is the
//! process's.

use burn::tensor::Device;
use twoview_data::{ViewBatch, ViewPixels};
use twoview_encoder::{Arch, EncoderConfig, HeadConfig, Stem};
use twoview_loss::NtXentConfig;
use twoview_optim::OptimizerConfig;
use twoview_train::{NetworkConfig, TrainState, step};

const N_PICTURES: usize = 16;
const SIZE_PX: usize = 8;
const N_STEPS: usize = 200;

/// A fixed number in `[-1, 1)` for every index.
fn number(i: u64) -> f32 {
    let mut z = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z >> 40) as f32 / 8_388_608.0 - 1.0
}

/// One of eight batches of noise, whose two views are alike but not equal. Every value is off by up to `off` of itself.
fn batch(index: u64, off: f32) -> ViewBatch {
    let len = (N_PICTURES * 3 * SIZE_PX * SIZE_PX) as u64;
    let seed = (index % 8) * 3 * len;
    let value = |view: u64, i: u64| number(seed + i) + 0.5 * number(seed + (1 + view) * len + i);
    let view = |view: u64| {
        (0..len).map(|i| value(view, i) * (1.0 + off * number((1 << 40) + view * len + i))).collect::<Vec<f32>>()
    };
    ViewBatch {
        epoch: 0,
        index: 0,
        samples: (0..N_PICTURES as u64).collect(),
        groups: (0..N_PICTURES as u64).collect(),
        labels: Vec::new(),
        size_px: u32::try_from(SIZE_PX).expect("small"),
        views: ViewPixels::F32([view(0), view(1)].concat()),
        replaced: Vec::new(),
    }
}

fn losses(kernels: bool, off: f32) -> Vec<f64> {
    twoview_kernels::set_enabled(kernels);
    let device = Device::flex().autodiff();
    let network = NetworkConfig {
        encoder: EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 4 },
        head: HeadConfig { n_layers: 2, hidden_dim: 32, output_dim: 16, batch_norm: false },
    };
    let optimizer = OptimizerConfig::Sgd { lr_per_256: 0.5, momentum: 0.9, nesterov: false, weight_decay: 5e-4 };
    let objective = NtXentConfig::new(0.5).init().expect("valid");
    let mut state = TrainState {
        network: network.init(0, &device).expect("valid"),
        optimizer: optimizer.init().expect("valid"),
        step: 0,
    };
    let mut losses = Vec::with_capacity(N_STEPS);
    for index in 0..N_STEPS as u64 {
        let (next, stepped) = step(state, &batch(index, off), &objective, 1e-3, &device).expect("finite");
        losses.push(stepped.contrast.loss);
        state = next;
    }
    losses
}

/// Training magnifies rounding until two runs are two samples of one process, and how fast depends on the run. So
/// Burn's own runs give the bound: the kernels may be no further from the nearest of three, whose pictures differ in
/// their last digits, than twice the largest distance that two of these have had. While differences are young an
/// absolute bound holds besides.
#[test]
fn the_loss_curve_follows_burns() {
    let fast = losses(true, 0.0);
    let burns = [0.0, 1e-7, 1e-6].map(|off| losses(false, off));
    assert!(fast[N_STEPS - 1] < 0.7 * fast[0], "nothing was learned: {} to {}", fast[0], fast[N_STEPS - 1]);
    let mut spread: f64 = 0.0;
    for (i, fast) in fast.iter().enumerate() {
        let burns = [burns[0][i], burns[1][i], burns[2][i]];
        let [least, most] = [f64::min, f64::max].map(|pick| burns[1..].iter().copied().fold(burns[0], pick));
        spread = spread.max(most - least);
        let nearest = burns.iter().map(|burn| (fast - burn).abs()).fold(f64::INFINITY, f64::min);
        assert!(nearest <= 2.0 * spread + 1e-5, "step {i}: {fast} beside {burns:?}, spread {spread}");
        if i < 20 {
            assert!(nearest <= 1e-4 * fast, "step {i}: {fast} beside {burns:?}");
        }
    }
    assert_ne!(fast, burns[0], "equal to the last bit: the switch did nothing");
}
