//! One training step against plain autodiff, and what it promises besides: the same bits every time, statistics that
//! move once, nothing learned from a number that is not finite.

use burn::{
    optim::{GradientsParams, SgdConfig},
    tensor::{Device, Tensor, TensorData, activation},
};
use twoview_data::{ViewBatch, ViewPixels};
use twoview_encoder::{Arch, EncoderConfig, HeadConfig, NamedTensors, Stem, named_tensors};
use twoview_loss::{Contrast, NtXent, NtXentConfig, Objective, PairedViews, PairedViewsError, Partials, RowStatistics};
use twoview_optim::{OptimizerConfig, gradient_norm};
use twoview_pixels::Normalize;
use twoview_train::{Network, NetworkConfig, StepError, Stepped, TrainState, step};

const N_PICTURES: usize = 4;
const SIZE_PX: usize = 16;

/// What one step may differ from plain autodiff, as a share of the largest move of the tensor, and the loss and the
/// norm of the gradient as a share of themselves.
///
/// Both embed alike, bit for bit. Then `step` takes `dL/dz` from a formula and autodiff differentiates the loss, so
/// the two round differently by a few ulp of f32, 1e-7 each, and the way back through twenty layers magnifies that to
/// 5e-6. This is ten times as much; a gradient that is a thousandth too long is still found.
const TOLERANCE: f64 = 5e-5;

fn device() -> Device {
    Device::flex().autodiff()
}

fn network() -> Network {
    let config = NetworkConfig {
        encoder: EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 2 },
        head: HeadConfig { n_layers: 2, hidden_dim: 8, output_dim: 4, batch_norm: true },
    };
    config.init(0, &device()).expect("valid")
}

fn state(momentum: f64) -> TrainState {
    let config = OptimizerConfig::Sgd { lr_per_256: 1.0, momentum, nesterov: false, weight_decay: 0.0 };
    TrainState { network: network(), optimizer: config.init().expect("valid"), step: 0 }
}

fn nt_xent(temperature: f64) -> NtXent {
    NtXentConfig::new(temperature).init().expect("a temperature in range")
}

/// Deterministic numbers in `[-1, 1)`.
fn numbers(len: usize, seed: u64) -> impl Iterator<Item = f32> {
    (1..=len as u64).map(move |i| {
        let mut z = ((seed << 32) | i).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z >> 40) as f32 / 8_388_608.0 - 1.0
    })
}

fn numbers_of(batch: &mut ViewBatch) -> &mut [f32] {
    match &mut batch.views {
        ViewPixels::F32(values) => values,
        ViewPixels::U8 { .. } => panic!("the views are bytes"),
    }
}

/// Pictures of noise; the two views of one are alike but not equal.
fn batch_of(n_pictures: usize, seed: u64) -> ViewBatch {
    let len = n_pictures * 3 * SIZE_PX * SIZE_PX;
    let view = |view: u64| {
        let noise = numbers(len, 3 * seed + 1 + view);
        numbers(len, 3 * seed).zip(noise).map(|(picture, noise)| picture + 0.3 * noise).collect::<Vec<f32>>()
    };
    ViewBatch {
        epoch: 0,
        index: 0,
        samples: (0..n_pictures as u64).collect(),
        groups: (0..n_pictures as u64).collect(),
        labels: Vec::new(),
        size_px: u32::try_from(SIZE_PX).expect("small"),
        views: ViewPixels::F32([view(0), view(1)].concat()),
        replaced: Vec::new(),
    }
}

fn batch(seed: u64) -> ViewBatch {
    batch_of(N_PICTURES, seed)
}

fn is_running(name: &str) -> bool {
    name.contains("running_")
}

fn values(data: &TensorData) -> Vec<f64> {
    data.iter::<f64>().collect()
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[track_caller]
fn check_same_bits(got: &NamedTensors, want: &NamedTensors, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for ((name, got), (want_name, want)) in got.iter().zip(want) {
        assert_eq!(name, want_name, "{what}");
        assert!(got.as_bytes() == want.as_bytes(), "{what}: `{name}` has other bits");
    }
}

/// The textbook's NT-Xent of `[2N, D]`: one matrix of logits without its diagonal, and cross entropy.
fn nt_xent_by_autodiff(z: Tensor<2>, temperature: f64) -> Tensor<1> {
    let n_views = z.dims()[0];
    let unit = z.clone() / z.square().sum_dim(1).sqrt();
    let logits = unit.clone().matmul(unit.transpose()).div_scalar(temperature);
    let logits = logits - Tensor::<2>::eye(n_views, &device()) * 1e9;
    let log_shares = activation::log_softmax(logits, 1);
    let partners = Tensor::<2>::eye(n_views, &device()).roll_dim(i64::try_from(n_views / 2).expect("small"), 1);
    (log_shares * partners).sum().neg().div_scalar(n_views as f64)
}

#[test]
fn a_step_is_that_of_plain_autodiff_on_the_whole_batch() {
    for temperature in [0.1, 0.5, 2.0] {
        let (batch, objective, device) = (batch(0), nt_xent(temperature), device());
        let before = named_tensors(&network());
        // A rate of 1 makes the moves as large as the gradient, well above the ulp of a weight.
        let (moved, stepped) = step(state(0.0), &batch, &objective, 1.0, &device).expect("finite");
        assert_eq!(moved.step, 1);

        let plain = network();
        let both =
            TensorData::new(batch.views.as_f32().expect("numbers").to_vec(), [2 * N_PICTURES, 3, SIZE_PX, SIZE_PX]);
        let z = plain.embed(Tensor::from_data(both, &device));
        let loss = nt_xent_by_autodiff(z, temperature);
        let want_loss = f64::from(loss.clone().into_scalar::<f32>());
        let grads = GradientsParams::from_grads(loss.backward(), &plain);
        let want_norm = gradient_norm(&plain, &grads);
        let plain = SgdConfig::new().init().step(1.0, plain, grads);

        for (what, got, want) in
            [("loss", stepped.contrast.loss, want_loss), ("norm", stepped.gradient_norm, want_norm)]
        {
            assert!((got - want).abs() <= TOLERANCE * want, "τ={temperature}, {what}: got {got}, want {want}");
        }
        let (got, want) = (named_tensors(&moved.network), named_tensors(&plain));
        assert_eq!((got.len(), want.len()), (before.len(), before.len()));
        for (((name, old), (_, got)), (_, want)) in before.iter().zip(&got).zip(&want) {
            if is_running(name) {
                assert!(got.as_bytes() == want.as_bytes(), "τ={temperature}: `{name}` has other bits");
                continue;
            }
            let [old, got, want] = [old, got, want].map(values);
            let (way, error) = (largest_difference(&want, &old), largest_difference(&got, &want));
            assert!(way > 1e-3, "τ={temperature}: `{name}` moves by {way:e}, too little to compare");
            assert!(error <= TOLERANCE * way, "τ={temperature}: `{name}` moves by {way:e} and is off by {error:e}");
        }
    }
}

/// Views that travel as bytes make the same step, also where their number fills no whole words.
#[test]
fn bytes_train_as_the_numbers_they_stand_for() {
    let normalize = Normalize::IMAGENET;
    let (n_pictures, size_px, plane) = (3, 15, 15 * 15);
    let values: Vec<u8> = numbers(2 * n_pictures * 3 * plane, 5).map(|number| number.to_le_bytes()[1]).collect();
    let normalized = values.iter().enumerate().map(|(i, &value)| {
        let channel = i / plane % 3;
        (f32::from(value) / 255.0 - normalize.mean[channel]) * (1.0 / normalize.std[channel])
    });
    let views = [ViewPixels::F32(normalized.collect()), ViewPixels::U8 { values: values.clone(), normalize }];
    let [numbers, bytes] = views.map(|views| {
        let batch = ViewBatch { size_px, views, ..batch_of(n_pictures, 0) };
        step(state(0.0), &batch, &nt_xent(0.5), 1.0, &device()).expect("finite")
    });
    assert_eq!(values.len() % 4, 2);
    assert_eq!(bytes.1.contrast.loss, numbers.1.contrast.loss);
    check_same_bits(&named_tensors(&bytes.0.network), &named_tensors(&numbers.0.network), "bytes");
}

/// Pictures of one group are no negatives of each other: the loss of a batch whose pictures are all the same has none.
#[test]
fn groups_of_the_batch_reach_the_loss() {
    let (objective, device) = (nt_xent(0.5), device());
    let loss = |groups: Vec<u64>| {
        let batch = ViewBatch { groups, ..batch(0) };
        step(state(0.0), &batch, &objective, 0.0, &device).expect("finite").1.contrast.loss
    };
    let n = N_PICTURES as u64;
    let all_different = loss((0..n).collect());
    let two_alike = loss((0..n).map(|i| i.max(1)).collect());
    assert!(two_alike < all_different, "{two_alike} with two pictures of one thing, {all_different} without");
    // The names of the groups mean nothing.
    assert_eq!(all_different.to_bits(), loss((0..n).map(|i| 1000 - 7 * i).collect()).to_bits());
}

#[test]
fn the_same_batches_make_the_same_bits_on_any_number_of_threads() {
    let six_steps = || {
        let (mut state, mut measured) = (state(0.9), Vec::new());
        for seed in 0..6 {
            let (next, stepped) = step(state, &batch(seed), &nt_xent(0.5), 0.05, &device()).expect("finite");
            (state, measured) = (next, [measured, vec![stepped]].concat());
        }
        let tensors = [named_tensors(&state.network), state.optimizer.named_state()].concat();
        (tensors, measured)
    };
    let (tensors, measured) = six_steps();
    assert!(measured.windows(2).all(|two| two[0] != two[1]), "{measured:?}");

    let check = |(got, got_measured): (NamedTensors, Vec<Stepped>), what: &str| {
        check_same_bits(&got, &tensors, what);
        assert_eq!(got_measured, measured, "{what}");
    };
    check(six_steps(), "once more");
    for n_threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a few threads");
        check(pool.install(six_steps), &format!("{n_threads} threads"));
    }
}

#[test]
fn running_statistics_move_exactly_once_a_step() {
    // A rate of 0 keeps the weights, so that both steps see the same statistics x of the batch.
    let still_step = |state| step(state, &batch(0), &nt_xent(0.5), 0.0, &device()).expect("finite").0;
    let state = state(0.0);
    let before = named_tensors(&state.network);
    let state = still_step(state);
    let once = named_tensors(&state.network);
    let twice = named_tensors(&still_step(state).network);

    for (((name, old), (_, once)), (_, twice)) in before.iter().zip(&once).zip(&twice) {
        let [old, once, twice] = [old, once, twice].map(values);
        if !is_running(name) {
            assert_eq!(twice, old, "`{name}` moved at a rate of 0");
            continue;
        }
        // From r towards x: r + 0.1 (x − r), then r + 0.19 (x − r). Two updates a step would give a ratio of 1.81.
        assert!(largest_difference(&once, &old) > 1e-3, "`{name}` does not move");
        for ((old, once), twice) in old.iter().zip(&once).zip(&twice) {
            let want = old + 1.9 * (once - old);
            // Each of the values has been rounded to f32 a few times.
            assert!((twice - want).abs() <= 1e-6 * want.abs().max(1.0), "`{name}`: got {twice}, want {want}");
        }
    }
}

#[test]
fn the_loss_of_one_batch_goes_down() {
    let objective = nt_xent(0.5);
    let (mut state, mut losses) = (state(0.9), Vec::new());
    for done in 1..=15 {
        let (next, stepped) = step(state, &batch(0), &objective, 0.05, &device()).expect("finite");
        assert_eq!(next.step, done);
        (state, losses) = (next, [losses, vec![stepped.contrast.loss]].concat());
    }
    // An encoder that learns nothing stays where it was; this one has to come half of the way to the floor.
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    let half_way = f64::midpoint(first, objective.floor(N_PICTURES).expect("no labels"));
    assert!(last < half_way, "{losses:?} does not come below {half_way}");
}

#[track_caller]
fn check_not_finite(batch: &ViewBatch, objective: &dyn Objective, want_quantity: &str) -> f64 {
    let state = TrainState { step: 41, ..state(0.9) };
    let error = step(state, batch, objective, 0.05, &device()).expect_err("not finite");
    let message = error.to_string();
    match error {
        StepError::NonFinite { quantity, value, step } => {
            assert_eq!((quantity, step), (want_quantity, 42), "{message}");
            assert!(message.starts_with(&format!("{quantity} is {value} at step 42; ")), "{message}");
            assert!(!value.is_finite(), "{message}");
            value
        }
        other => panic!("expected a number that is not finite, got {other:?}"),
    }
}

#[test]
fn a_picture_that_is_not_finite_is_not_learned() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let len = batch(0).views.len() / 2;
        for (view, at) in [(0, 0), (0, len / 2), (1, len - 1)] {
            let mut batch = batch(0);
            numbers_of(&mut batch)[view * len + at] = bad;
            let value = check_not_finite(&batch, &nt_xent(0.5), "an embedding");
            assert!(value.is_nan(), "{bad} in view {view} at {at} makes an embedding of {value}");
        }
    }
}

/// NT-Xent that reports `loss` and multiplies the gradient of the second views by `factor`.
#[derive(Debug)]
struct Broken {
    loss: f64,
    factor: f64,
}

impl Objective for Broken {
    fn temperature(&self) -> f64 {
        0.5
    }

    fn partials(&self, rows: &RowStatistics) -> Partials {
        nt_xent(0.5).partials(rows)
    }

    fn contrast(&self, views: PairedViews) -> Contrast {
        let mut contrast = nt_xent(0.5).contrast(views);
        contrast.stats.loss = self.loss;
        contrast.d_z2 = contrast.d_z2.mul_scalar(self.factor);
        contrast
    }
}

#[test]
fn the_loss_and_the_gradient_are_both_looked_at() {
    for loss in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let value = check_not_finite(&batch(0), &Broken { loss, factor: 1.0 }, "the loss");
        assert_eq!(value.to_bits(), loss.to_bits());
    }
    for factor in [f64::NAN, f64::INFINITY, 1e30] {
        check_not_finite(&batch(0), &Broken { loss: 1.0, factor }, "the norm of the gradient");
    }
    let fine = step(state(0.9), &batch(0), &Broken { loss: 1.0, factor: 1.0 }, 0.05, &device());
    assert_eq!(fine.expect("finite").1.contrast.loss, 1.0);
}

#[test]
fn a_batch_of_one_picture_is_refused() {
    let error = step(state(0.9), &batch_of(1, 0), &nt_xent(0.5), 0.05, &device()).expect_err("no negatives");
    assert!(matches!(error, StepError::Views(PairedViewsError::TooFewImages { n_images: 1 })), "{error:?}");
}

#[test]
fn parts_that_are_copies_show_no_noise() {
    let network_of = |batch_norm: bool| {
        let config = NetworkConfig {
            encoder: EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 2 },
            head: HeadConfig { n_layers: 2, hidden_dim: 8, output_dim: 4, batch_norm },
        };
        config.init(0, &device()).expect("valid")
    };
    let noise_of = |batch: &ViewBatch, batch_norm: bool| {
        let state = TrainState { network: network_of(batch_norm), ..state(0.0) };
        step(state, batch, &nt_xent(0.5), 0.1, &device()).expect("finite").1.gradient_noise
    };
    let noise = noise_of(&batch_of(6, 5), false).expect("six pictures can be cut");
    assert!(noise.variance > 0.0 && noise.signal.is_finite(), "{noise:?}");

    let mut copies = batch_of(4, 5);
    let len = copies.views.len() / 2;
    for view in numbers_of(&mut copies).chunks_exact_mut(len) {
        let half = view.len() / 2;
        let (first, second) = view.split_at_mut(half);
        second.copy_from_slice(first);
    }
    let noise = noise_of(&copies, false).expect("four pictures can be cut");
    assert!(noise.signal > 0.0 && noise.variance.abs() < 1e-4 * noise.signal, "{noise:?}");

    assert_eq!(noise_of(&batch_of(4, 5), true), None, "batch normalization ties the rows of a head together");
    assert_eq!(noise_of(&batch_of(5, 5), false), None, "five pictures cannot be cut into equal parts");
}
