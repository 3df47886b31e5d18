//! What every optimizer promises, checked for all of them alike.

use burn::module::{Module, Param};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use twoview_optim::{LarsVariant, Optimizer, OptimizerConfig, OptimizerStateError};

/// A module with nesting, a list, an optional parameter, a norm with buffers, and a weight that is zero.
#[derive(Module, Debug)]
struct Net {
    layers: Vec<Linear>,
    norm: BatchNorm,
    zero: Param<Tensor<2>>,
}

const N_PARAMETERS: usize = 7;

/// What a checkpoint file holds.
type NamedState = Vec<(String, TensorData)>;

/// Deterministic numbers in `[-1, 1)`.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mix = |i: u32| i.wrapping_add(seed).wrapping_mul(2_654_435_761).rotate_left(13).wrapping_mul(2_246_822_519);
    (1..).map(|i| f32::from(u16::try_from(mix(i) >> 16).expect("16 bits")) / 32768.0 - 1.0).take(len).collect()
}

fn numbered<const D: usize>(shape: [usize; D], seed: u32, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(numbers(shape.iter().product(), seed), shape), device)
}

/// The same values and new parameter ids at every call, as in a new process.
fn net(device: &Device) -> Net {
    let linear = |seed| {
        let mut linear = LinearConfig::new(3, 3).init(device);
        linear.weight = Param::from_tensor(numbered([3, 3], seed, device));
        linear.bias = Some(Param::from_tensor(numbered([3], seed + 1, device)));
        linear
    };
    Net {
        layers: vec![linear(10), linear(20)],
        norm: BatchNormConfig::new(3).init(device),
        zero: Param::from_tensor(Tensor::zeros([3, 2], device)),
    }
}

/// The gradient of step `step`, the same for every copy of the module; `scale` 0 makes it zero.
fn gradients(net: &Net, step: u32, scale: f32) -> GradientsParams {
    let device = Device::flex();
    let mut grads = GradientsParams::new();
    let mut seed = 1000 * (step + 1);
    let mut next = || {
        seed += 1;
        seed
    };
    for linear in &net.layers {
        grads.register(linear.weight.id, numbered([3, 3], next(), &device).mul_scalar(scale));
        let bias = linear.bias.as_ref().expect("a bias");
        grads.register(bias.id, numbered([3], next(), &device).mul_scalar(scale));
    }
    grads.register(net.norm.gamma.id, numbered([3], next(), &device).mul_scalar(scale));
    grads.register(net.norm.beta.id, numbered([3], next(), &device).mul_scalar(scale));
    grads.register(net.zero.id, numbered([3, 2], next(), &device).mul_scalar(scale));
    grads
}

/// The bits of all parameters of more than one dimension, and of the others.
fn bits(net: &Net) -> (Vec<u32>, Vec<u32>) {
    fn of<const D: usize>(param: &Param<Tensor<D>>) -> Vec<u32> {
        param.val().into_data().iter::<f32>().map(f32::to_bits).collect()
    }
    let weights = net.layers.iter().map(|linear| of(&linear.weight)).chain([of(&net.zero)]);
    let biases = net.layers.iter().map(|linear| of(linear.bias.as_ref().expect("a bias")));
    (weights.flatten().collect(), biases.chain([of(&net.norm.gamma), of(&net.norm.beta)]).flatten().collect())
}

/// Every optimizer with the given decay, with and without momentum.
fn all(weight_decay: f64) -> Vec<OptimizerConfig> {
    let lr_per_256 = 1.0;
    let mut all = vec![OptimizerConfig::AdamW { lr: 1.0, betas: [0.9, 0.999], eps: 1e-8, weight_decay }];
    for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
        all.push(OptimizerConfig::Sgd { lr_per_256, momentum, nesterov, weight_decay });
        for variant in [LarsVariant::Lightly, LarsVariant::Paper, LarsVariant::Google] {
            all.push(OptimizerConfig::Lars { lr_per_256, momentum, nesterov, weight_decay, trust: 1e-3, variant });
        }
    }
    all
}

const LR: f64 = 0.05;

fn run(optimizer: &mut Optimizer, mut net: Net, steps: std::ops::Range<u32>, scale: f32) -> Net {
    for step in steps {
        let grads = gradients(&net, step, scale);
        net = optimizer.step(LR, net, grads);
    }
    net
}

fn build(config: &OptimizerConfig) -> Optimizer {
    config.init().expect("valid")
}

#[test]
fn the_same_gradients_make_the_same_bits() {
    for config in all(0.01) {
        let twice = [(); 2].map(|()| bits(&run(&mut build(&config), net(&Device::flex()), 0..5, 1.0)));
        assert_eq!(twice[0], twice[1], "{config:?}");
        assert_ne!(twice[0], bits(&net(&Device::flex())), "{config:?} moved nothing");
    }
}

#[test]
fn no_gradient_and_no_decay_leave_every_bit() {
    for config in all(0.0) {
        let moved = run(&mut build(&config), net(&Device::flex()), 0..3, 0.0);
        assert_eq!(bits(&moved), bits(&net(&Device::flex())), "{config:?}");
    }
}

#[test]
fn decay_shrinks_weights_and_spares_biases_and_norms() {
    for config in all(0.5) {
        let moved = run(&mut build(&config), net(&Device::flex()), 0..3, 0.0);
        let ((weights, biases), (old_weights, old_biases)) = (bits(&moved), bits(&net(&Device::flex())));
        assert_eq!(biases, old_biases, "{config:?}");
        // Without a gradient lightly's LARS does not decay, by definition.
        if !matches!(config, OptimizerConfig::Lars { variant: LarsVariant::Lightly, .. }) {
            let size = |bits: &[u32]| bits.iter().map(|x| f32::from_bits(*x).abs()).sum::<f32>();
            assert!(size(&weights) < size(&old_weights), "{config:?}");
        }
    }
}

#[test]
fn zero_weights_and_zero_gradients_stay_finite() {
    for config in all(0.01) {
        let mut optimizer = build(&config);
        let mut moved = net(&Device::flex());
        for (step, scale) in [(0, 0.0), (1, 1.0), (2, 0.0), (3, 0.0), (4, 1.0)] {
            moved = run(&mut optimizer, moved, step..step + 1, scale);
            let (weights, biases) = bits(&moved);
            let finite = weights.iter().chain(&biases).all(|x| f32::from_bits(*x).is_finite());
            assert!(finite, "{config:?} at step {step}");
        }
    }
}

#[test]
fn saved_state_goes_on_with_the_same_bits_in_a_new_module() {
    for device in [Device::flex(), Device::flex().autodiff()] {
        for config in all(0.01) {
            let mut optimizer = build(&config);
            let halfway = run(&mut optimizer, net(&device), 0..4, 1.0);
            let saved = optimizer.named_state();

            // What a checkpoint does: the values into a module that was built anew, the state by name.
            let mut fresh = net(&device);
            for (fresh, old) in fresh.layers.iter_mut().zip(&halfway.layers) {
                fresh.weight = Param::from_tensor(old.weight.val());
                fresh.bias = old.bias.as_ref().map(|bias| Param::from_tensor(bias.val()));
            }
            fresh.norm.gamma = Param::from_tensor(halfway.norm.gamma.val());
            fresh.norm.beta = Param::from_tensor(halfway.norm.beta.val());
            fresh.zero = Param::from_tensor(halfway.zero.val());
            assert_ne!(fresh.zero.id, halfway.zero.id);
            let mut resumed = build(&config);
            resumed.load_named_state(&fresh, saved.clone()).expect("fits");

            assert_eq!(resumed.named_state(), saved, "{config:?}");
            assert_eq!(resumed.steps(), 4);
            let want = run(&mut optimizer, halfway, 4..8, 1.0);
            let got = run(&mut resumed, fresh, 4..8, 1.0);
            assert_eq!(bits(&got), bits(&want), "{config:?}");
            assert_eq!(resumed.named_state(), optimizer.named_state(), "{config:?}");
        }
    }
}

#[test]
fn state_is_named_after_the_parameters() {
    let names = |config: &OptimizerConfig| {
        let mut optimizer = build(config);
        let _net = run(&mut optimizer, net(&Device::flex()), 0..1, 1.0);
        optimizer.named_state().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let momentum = |momentum| OptimizerConfig::Sgd { lr_per_256: 1.0, momentum, nesterov: false, weight_decay: 0.0 };
    assert_eq!(
        names(&momentum(0.9)),
        [
            "layers.0.bias/momentum.velocity",
            "layers.0.weight/momentum.velocity",
            "layers.1.bias/momentum.velocity",
            "layers.1.weight/momentum.velocity",
            "norm.beta/momentum.velocity",
            "norm.gamma/momentum.velocity",
            "zero/momentum.velocity",
            "optimizer/parameters",
            "optimizer/steps",
        ]
    );
    assert_eq!(names(&momentum(0.0)), ["optimizer/parameters", "optimizer/steps"]);
    let adamw = names(&all(0.0)[0]);
    assert_eq!(adamw.len(), 2 + 3 * N_PARAMETERS);
    assert_eq!(adamw[..3], ["moment_1", "moment_2", "time"].map(|kind| format!("layers.0.bias/momentum.{kind}")));
}

#[test]
fn state_that_does_not_fit_is_refused_and_changes_nothing() {
    for config in all(0.01) {
        let mut optimizer = build(&config);
        let net = run(&mut optimizer, net(&Device::flex()), 0..2, 1.0);
        let saved = optimizer.named_state();
        let mut check = |what: &str, spoil: &dyn Fn(&mut NamedState), want: &str| {
            let mut spoiled = saved.clone();
            spoil(&mut spoiled);
            let error = optimizer.load_named_state(&net, spoiled).expect_err(what).to_string();
            assert!(error.contains(want), "{config:?}, {what}: {error}");
            assert_eq!(optimizer.named_state(), saved, "{config:?}, {what}");
        };
        for counter in ["optimizer/steps", "optimizer/parameters"] {
            check("no counter", &|saved| saved.retain(|(name, _)| name != counter), counter);
        }
        let stray = |name: &str| (name.to_owned(), TensorData::from([[0.5_f32; 3]; 3]));
        check("another network", &|saved| saved.push(stray("layers.7.weight/velocity")), "layers.7.weight");
        check("another optimizer", &|saved| saved.push(stray("layers.0.weight/exp_avg")), "exp_avg");
        if saved.len() > 2 {
            check("cut", &|saved| saved.retain(|(name, _)| !name.starts_with("zero/")), "covers 6");
            check("another shape", &|saved| saved[0].1 = TensorData::from([0.5_f32; 2]), "layers.0.bias/");
            check("another type", &|saved| saved[0].1 = TensorData::from([0.5_f64; 3]), "layers.0.bias/");
        }
    }
}

#[test]
fn the_state_of_another_kind_of_optimizer_is_refused() {
    let configs = all(0.01);
    let (adamw, sgd) = (&configs[0], &configs[5]);
    assert!(matches!(sgd, OptimizerConfig::Sgd { momentum: 0.9, .. }));
    let mut optimizer = build(sgd);
    let net = run(&mut optimizer, net(&Device::flex()), 0..1, 1.0);
    let error = build(adamw).load_named_state(&net, optimizer.named_state()).expect_err("of sgd");
    assert!(matches!(error, OptimizerStateError::OtherKind { .. }), "{error}");
}

#[test]
fn parameters_keep_their_identity_and_what_they_are_to_autodiff() {
    let device = Device::flex().autodiff().gradient_checkpointing();
    for config in all(0.01) {
        let mut before = net(&device);
        before.zero = before.zero.set_require_grad(false);
        let [ids_before, ids_after] = {
            let ids = |net: &Net| [net.layers[0].weight.id, net.norm.gamma.id, net.zero.id];
            let after = run(&mut build(&config), before.clone(), 0..1, 1.0);
            assert!(after.layers[0].weight.is_require_grad() && after.norm.beta.is_require_grad());
            assert!(!after.zero.is_require_grad(), "frozen parameters stay frozen");
            let strategy = |net: &Net| net.layers[0].weight.val().gradient_checkpointing_strategy();
            assert_eq!(strategy(&after), strategy(&before));
            [ids(&before), ids(&after)]
        };
        assert_eq!(ids_before, ids_after);
    }
}

#[test]
fn parameters_without_a_gradient_stay() {
    for config in all(0.5) {
        let before = net(&Device::flex());
        let mut optimizer = build(&config);
        let after = optimizer.step(LR, before.clone(), GradientsParams::new());
        assert_eq!(bits(&after), bits(&before), "{config:?}");
        assert_eq!(optimizer.named_state().len(), 2, "{config:?}");
    }
}
