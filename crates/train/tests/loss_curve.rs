//! A run on the kernels beside the same run on Burn's own operations, alone in its process because the switch is the
//! process's.

use burn::tensor::Device;
use twoview_data::ViewBatch;
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

/// One of eight batches of noise, whose two views are alike but not equal.
fn batch(index: u64) -> ViewBatch {
    let len = (N_PICTURES * 3 * SIZE_PX * SIZE_PX) as u64;
    let seed = (index % 8) * 3 * len;
    let view = |view: u64| (0..len).map(|i| number(seed + i) + 0.5 * number(seed + (1 + view) * len + i)).collect();
    ViewBatch {
        epoch: 0,
        index: 0,
        samples: (0..N_PICTURES as u64).collect(),
        size_px: u32::try_from(SIZE_PX).expect("small"),
        views: [view(0), view(1)],
        replaced: Vec::new(),
    }
}

fn losses(kernels: bool) -> Vec<f64> {
    twoview_kernels::set_enabled(kernels);
    let device = Device::flex().autodiff();
    let network = NetworkConfig {
        encoder: EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 4 },
        head: HeadConfig { n_layers: 2, hidden_dim: 32, output_dim: 16, batch_norm: false },
    };
    let optimizer = OptimizerConfig::Sgd { lr_per_256: 0.5, momentum: 0.9, nesterov: false, weight_decay: 5e-4 };
    let objective = NtXentConfig { temperature: 0.2 }.init().expect("valid");
    let mut state = TrainState {
        network: network.init(0, &device).expect("valid"),
        optimizer: optimizer.init().expect("valid"),
        step: 0,
    };
    let mut losses = Vec::with_capacity(N_STEPS);
    for index in 0..N_STEPS as u64 {
        let (next, stepped) = step(state, &batch(index), &objective, 0.03, &device).expect("finite");
        losses.push(stepped.contrast.loss);
        state = next;
    }
    losses
}

/// Training magnifies rounding: a difference of 1e-7 grows by a factor of ten every dozen steps until the two runs
/// are two samples of one process. So single losses must agree while that is young, and after it means over
/// the eight batches of a cycle must.
#[test]
fn the_loss_curve_follows_burns() {
    let (fast, stock) = (losses(true), losses(false));
    assert!(fast[N_STEPS - 1] < 0.7 * fast[0], "nothing was learned: {} to {}", fast[0], fast[N_STEPS - 1]);
    for (i, (fast, stock)) in fast.iter().zip(&stock).enumerate().take(20) {
        assert!((fast - stock).abs() <= 1e-3 * stock, "step {i}: {fast} instead of {stock}");
    }
    for (i, (fast, stock)) in fast.chunks(8).zip(stock.chunks(8)).enumerate() {
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let (fast, stock) = (mean(fast), mean(stock));
        assert!((fast - stock).abs() <= 0.1 * stock + 0.02, "cycle {i}: {fast} instead of {stock}");
    }
    assert_ne!(fast, stock, "equal to the last bit: the switch did nothing");
}
