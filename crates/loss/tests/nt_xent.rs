//! NT-Xent against closed forms, golden data, finite differences and its own invariants.

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use proptest::{prelude::*, test_runner::RngSeed};
use serde_json::Value;
use twoview_loss::{Contrast, NtXent, NtXentConfig, Objective, PairedViews, chance_line, floor};

mod golden;

/// Embeddings row by row.
type Rows = Vec<Vec<f32>>;

/// Everything the crate says about one pair of views.
struct Got {
    loss: f64,
    anchor_losses: Vec<f64>,
    /// Gradient by autodiff through `forward`: all rows of `z1`, then of `z2`.
    by_autodiff: Vec<f64>,
    contrast: Contrast,
    /// Gradient by `contrast`, in the same order.
    by_formula: Vec<f64>,
}

fn objective(temperature: f64) -> NtXent {
    NtXentConfig { temperature }.init().expect("a temperature in range")
}

fn tensor(rows: &Rows, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(rows.concat(), [rows.len(), rows[0].len()]), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// The only place that calls the crate.
fn nt_xent(z1: &Rows, z2: &Rows, temperature: f64, rows_are_unit: bool) -> Got {
    let objective = objective(temperature);
    let device = Device::flex().autodiff();
    let (z1, z2) = (tensor(z1, &device).require_grad(), tensor(z2, &device).require_grad());
    let pair = if rows_are_unit { PairedViews::from_unit_rows } else { PairedViews::new };
    let views = pair(z1.clone(), z2.clone()).expect("paired");

    let loss = objective.forward(views.clone());
    let grads = loss.backward();
    let by_autodiff = [z1, z2].iter().flat_map(|z| values(z.grad(&grads).expect("tracked"))).collect();
    let anchor_losses = values(objective.anchor_losses(views.clone()));
    let contrast = objective.contrast(views);
    let by_formula = [values(contrast.d_z1.clone()), values(contrast.d_z2.clone())].concat();
    Got { loss: values(loss)[0], anchor_losses, by_autodiff, contrast, by_formula }
}

#[track_caller]
fn check_near(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance, "{what} at {at}: got {got}, want {want} ± {tolerance:e}");
    }
}

/// At τ = 0.1 logits reach 10, where one f32 ulp is 1e-6: hence 1e-5.
#[track_caller]
fn check_loss(z1: &Rows, z2: &Rows, temperature: f64, want: f64) {
    let got = nt_xent(z1, z2, temperature, false);
    let tolerance = 1e-5 * want.max(1.0);
    check_near(&[got.loss, got.contrast.stats.loss], &[want, want], tolerance, &format!("loss, N = {}", z1.len()));
}

fn constant(n: usize) -> Rows {
    vec![vec![0.75, -0.5, 0.25]; n]
}

fn eye(n: usize) -> Rows {
    (0..n).map(|i| (0..n).map(|k| f32::from(i == k)).collect()).collect()
}

fn scaled(rows: &Rows, factor: f32) -> Rows {
    rows.iter().map(|row| row.iter().map(|x| x * factor).collect()).collect()
}

#[test]
fn agrees_with_closed_forms() {
    for (n, tau) in [(2, 0.1), (3, 0.5), (64, 1.0)] {
        let others = 2.0 * n as f64 - 2.0;
        check_loss(&constant(n), &constant(n), tau, (others + 1.0).ln()); // Collapsed: all logits equal.
        let aligned = (others * (-1.0 / tau).exp()).ln_1p(); // Partner at s = 1, the others at s = 0.
        check_loss(&eye(n), &eye(n), tau, aligned);
        check_loss(&scaled(&eye(n), 1e3), &eye(n), tau, aligned); // Row norms cancel.
        assert!((objective(tau).chance(n) - (others + 1.0).ln()).abs() < 1e-12);
        assert!((objective(tau).floor(n) - aligned).abs() < 1e-12);
    }
}

#[test]
fn a_tiny_loss_keeps_its_digits() {
    let want = floor(8, 0.04); // 1.9e-10, far below what f32 can add to 1.
    let got = nt_xent(&eye(8), &eye(8), 0.04, false);
    for got in [got.loss, got.contrast.stats.loss] {
        assert!((got / want - 1.0).abs() < 1e-4, "got {got:e}, want {want:e}");
    }
}

/// The tolerances of the golden data for f32, with the anchors held to those of their mean.
fn check_golden(case: &Value) {
    let name = case["name"].as_str().expect("name");
    let number = |value: &Value| value.as_f64().expect("a number");
    let temperature = number(&case["params"]["temperature"]);
    let (z1, z2) = (golden::rows(&case["z1"]), golden::rows(&case["z2"]));
    let got = nt_xent(&z1, &z2, temperature, case["normalized"] == true);

    let want = number(&case["loss"]);
    let guidance = &case["f32_guidance"];
    let loss_tolerance =
        |want: f64| 20.0 * number(&guidance["loss_abs_err"]) + 2e-6 * (1.0 + want.abs() + 1.0 / temperature);
    check_near(&[got.loss, got.contrast.stats.loss], &[want, want], loss_tolerance(want), &format!("{name}: loss"));
    let want = golden::numbers(&case["anchor_loss"]);
    let largest = want.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    check_near(&got.anchor_losses, &want, loss_tolerance(largest), &format!("{name}: anchor loss"));
    if let Some(want) = case["closed_form"].as_f64() {
        check_near(&[got.loss], &[want], loss_tolerance(want), &format!("{name}: closed form"));
    }

    let want = [golden::numbers(&case["grad_z1"]), golden::numbers(&case["grad_z2"])].concat();
    let shortest = z1.iter().chain(&z2).map(|row| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt());
    let tolerance = 20.0 * number(&guidance["grad_max_abs_err"])
        + 1e-5 * number(&case["grad_max_abs"])
        + 1e-6 / shortest.fold(f64::INFINITY, f64::min);
    check_near(&got.by_formula, &want, tolerance, &format!("{name}: gradient by formula"));
    check_near(&got.by_autodiff, &want, tolerance, &format!("{name}: gradient by autodiff"));
}

#[test]
fn agrees_with_golden_data() {
    let cases = golden::cases("losses/nt_xent.json", "nt_xent");
    assert!(cases.len() >= 10, "only {} cases", cases.len());
    cases.iter().for_each(check_golden);
}

#[test]
fn agrees_with_golden_data_at_the_extremes() {
    let cases = golden::cases("losses/extreme.json", "nt_xent");
    assert!(cases.len() >= 5, "only {} cases", cases.len());
    cases.iter().for_each(check_golden);
}

#[test]
fn the_lines_agree_with_golden_data() {
    let cases = golden::cases("losses/metrics.json", "loss_floor");
    assert!(!cases.is_empty());
    for case in cases {
        let n = usize::try_from(case["params"]["n"].as_u64().expect("n")).expect("fits");
        let temperature = case["params"]["temperature"].as_f64().expect("temperature");
        for (got, want) in [(chance_line(n), "chance"), (floor(n, temperature), "floor_orthogonal")] {
            let want = case["values"][want].as_f64().expect("a number");
            assert!((got - want).abs() <= 1e-12 * (1.0 + want), "{}: got {got}, want {want}", case["name"]);
        }
    }
}

#[test]
fn the_diagnostics_agree_with_golden_data() {
    let cases = golden::cases("losses/metrics.json", "metrics");
    assert!(!cases.is_empty());
    for case in cases {
        let temperature = case["params"]["temperature"].as_f64().expect("temperature");
        let stats = nt_xent(&golden::rows(&case["z1"]), &golden::rows(&case["z2"]), temperature, false).contrast.stats;
        let pairs = [
            (stats.loss, "nt_xent"),
            (stats.top1, "top1_all"),
            (stats.positive_similarity, "positive_similarity_mean"),
            (2.0 - 2.0 * stats.positive_similarity, "alignment"),
            (stats.feature_std, "feature_std_mean"),
        ];
        for (got, name) in pairs {
            let want = case["values"][name].as_f64().expect("a number");
            let tolerance = 1e-5 * (1.0 + want.abs());
            assert!((got - want).abs() <= tolerance, "{}, {name}: got {got}, want {want}", case["name"]);
        }
    }
}

#[test]
fn a_collapsed_batch_looks_collapsed() {
    let stats = nt_xent(&constant(7), &constant(7), 0.1, false).contrast.stats;
    assert_eq!(stats.top1, 0.0, "ties are not retrievals");
    assert!(stats.feature_std < 1e-6 && (stats.positive_similarity - 1.0).abs() < 1e-6, "{stats:?}");
    assert!((stats.loss - chance_line(7)).abs() < 1e-6, "{stats:?}");
}

#[test]
fn zero_rows_are_finite_and_get_no_gradient() {
    let mut z1 = eye(3);
    z1[1] = vec![0.0; 3];
    for (z1, z2, zero_rows) in [(z1, eye(3), 1..2), (vec![vec![0.0; 3]; 3], vec![vec![0.0; 3]; 3], 0..6)] {
        for temperature in [1e-4, 0.5, 1e3] {
            let got = nt_xent(&z1, &z2, temperature, false);
            assert!(got.loss.is_finite() && got.contrast.stats.loss.is_finite(), "τ = {temperature}");
            let size = got.by_formula.iter().fold(0.0, |size: f64, x| size.max(x.abs()));
            assert!(size.is_finite() && (size > 0.0 || zero_rows.len() == 6), "τ = {temperature}: {size}");
            check_near(&got.by_formula, &got.by_autodiff, 1e-5 * size, "gradient by autodiff");
            let at = zero_rows.start * 3..zero_rows.end * 3;
            check_near(&got.by_formula[at.clone()], &vec![0.0; at.len()], 0.0, "gradient of a zero row");
            check_near(&got.by_autodiff[at.clone()], &vec![0.0; at.len()], 0.0, "gradient of a zero row");
        }
    }
}

#[test]
fn a_number_that_is_not_finite_is_not_hidden() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut z1 = eye(3);
        z1[0][1] = bad;
        let got = nt_xent(&z1, &eye(3), 0.5, false);
        assert!(!got.loss.is_finite() && !got.contrast.stats.loss.is_finite(), "{bad}");
    }
}

#[test]
fn the_batch_may_be_sent_back_in_shards() {
    let (z1, z2) = (vec![vec![0.5, 1.0], vec![-1.0, 0.25], vec![0.125, -2.0]], eye(3));
    let z2: Rows = z2.into_iter().map(|row| row[..2].iter().map(|x| x + 0.5).collect()).collect();
    let got = nt_xent(&z1, &z2, 0.5, false);

    let device = Device::flex().autodiff();
    let weight = Tensor::<2>::from_data([[1.0, 0.5], [-0.25, 2.0]], &device).require_grad();
    let embed = |rows: &Rows| tensor(rows, &device).matmul(weight.clone());
    let views = || PairedViews::new(embed(&z1), embed(&z2)).expect("paired");
    let whole = weight.grad(&objective(0.5).forward(views()).backward()).expect("tracked");

    let Contrast { d_z1, d_z2, .. } = objective(0.5).contrast(views());
    assert!(!d_z1.is_autodiff(), "a graph would be kept alive");
    let mut in_shards = vec![0.0; 4];
    for (rows, d_z) in [(&z1, d_z1), (&z2, d_z2)] {
        for (at, row) in rows.iter().enumerate() {
            let shard = embed(&vec![row.clone()]) * Tensor::from_inner(d_z.clone().narrow(0, at, 1));
            let grad = weight.grad(&shard.sum().backward()).expect("tracked");
            in_shards.iter_mut().zip(values(grad)).for_each(|(sum, part)| *sum += part);
        }
    }
    check_near(&in_shards, &values(whole), 1e-6, "gradient of the weight");
    assert!(got.loss.is_finite());
}

#[test]
fn other_float_types_are_computed_in_f32_and_get_their_gradient_back() {
    let device = Device::flex();
    let (z1, z2) = (tensor(&eye(4), &device), tensor(&constant(4), &device));
    let z2 = Tensor::cat(vec![z2.clone(), z2.narrow(1, 0, 1)], 1);
    let in_type = |dtype: FloatDType| {
        let views = PairedViews::new(z1.clone().cast(dtype), z2.clone().cast(dtype)).expect("paired");
        objective(0.05).contrast(views)
    };
    let (f32s, f64s) = (in_type(FloatDType::F32), in_type(FloatDType::F64));
    assert_eq!(f64s.stats, f32s.stats);
    assert_eq!(f64s.d_z1.dtype(), FloatDType::F64.into());
    assert_eq!(values(f64s.d_z1), values(f32s.d_z1));
}

fn embeddings() -> impl Strategy<Value = (Rows, Rows)> {
    (2_usize..6, 1_usize..5).prop_flat_map(|(n, d)| {
        let rows =
            || prop::collection::vec(prop::collection::vec((-64_i16..64).prop_map(|x| f32::from(x) / 16.0), d), n);
        (rows(), rows())
    })
}

/// The same loss in f64, written as the paper writes it.
fn reference(z1: &Rows, z2: &Rows, temperature: f64, bump: Option<(usize, usize, f64)>) -> f64 {
    let n = z1.len();
    let mut z: Vec<Vec<f64>> = z1.iter().chain(z2).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
    if let Some((row, column, by)) = bump {
        z[row][column] += by;
    }
    let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
    let logit = |i: usize, k: usize| {
        z[i].iter().zip(&z[k]).map(|(a, b)| a * b).sum::<f64>() / norm(&z[i]) / norm(&z[k]) / temperature
    };
    let anchor = |i: usize| {
        let partner = logit(i, (i + n) % (2 * n));
        (0..2 * n).filter(|k| *k != i).map(|k| (logit(i, k) - partner).exp()).sum::<f64>().ln()
    };
    (0..2 * n).map(anchor).sum::<f64>() / (2.0 * n as f64)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        rng_seed: RngSeed::Fixed(2020),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_gradient_is_that_of_the_loss((z1, z2) in embeddings(), temperature in 0.1_f64..2.0) {
        let n = z1.len();
        let got = nt_xent(&z1, &z2, temperature, false);
        let want = reference(&z1, &z2, temperature, None);
        prop_assert!((got.loss - want).abs() <= 1e-5 * (1.0 + want), "got {}, want {want}", got.loss);
        // The gradient goes as 1/‖z‖ and so does its rounding; rows of norm 0 have none.
        let norm = |row: &Vec<f32>| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let shortest = z1.iter().chain(&z2).map(norm).filter(|norm| *norm > 0.0).fold(1.0, f64::min);
        let tolerance = 1e-5 * (1.0 + 1.0 / temperature) / shortest;
        check_near(&got.by_formula, &got.by_autodiff, tolerance, "autodiff");

        for (row, column) in (0..2 * n).flat_map(|row| (0..z1[0].len()).map(move |column| (row, column))) {
            let z = if row < n { &z1[row] } else { &z2[row - n] };
            if norm(z) > 0.5 {
                let step = 1e-6;
                let side = |by| reference(&z1, &z2, temperature, Some((row, column, by)));
                let slope = (side(step) - side(-step)) / (2.0 * step);
                let got = got.by_formula[row * z1[0].len() + column];
                prop_assert!((got - slope).abs() <= 1e-4, "row {row}, column {column}: got {got}, want {slope}");
            }
        }
    }

    #[test]
    fn order_and_scale_do_not_matter((z1, z2) in embeddings(), temperature in 0.05_f64..2.0, by in 1_usize..5) {
        let want = nt_xent(&z1, &z2, temperature, false);
        let turned = |rows: &Rows| { let mut rows = rows.clone(); let by = by % rows.len(); rows.rotate_left(by); rows };
        let tolerance = 1e-5 * (1.0 + 1.0 / temperature);
        for got in [
            nt_xent(&z2, &z1, temperature, false),
            nt_xent(&turned(&z1), &turned(&z2), temperature, false),
            nt_xent(&scaled(&z1, 1024.0), &scaled(&z2, 1.0 / 1024.0), temperature, false),
        ] {
            prop_assert!((got.loss - want.loss).abs() <= tolerance);
            prop_assert!((got.contrast.stats.loss - want.loss).abs() <= tolerance);
        }
    }

    #[test]
    fn every_temperature_is_finite((z1, z2) in embeddings(), exponent in -4.0_f64..3.0) {
        let got = nt_xent(&z1, &z2, 10_f64.powf(exponent), false);
        prop_assert!(got.loss.is_finite() && got.loss >= 0.0);
        prop_assert!(got.by_formula.iter().chain(&got.by_autodiff).all(|x| x.is_finite()));
    }

    #[test]
    fn the_same_batch_gives_the_same_bits((z1, z2) in embeddings(), temperature in 0.05_f64..2.0) {
        let (a, b) = (nt_xent(&z1, &z2, temperature, false), nt_xent(&z1, &z2, temperature, false));
        prop_assert_eq!(a.contrast.stats, b.contrast.stats);
        prop_assert_eq!(a.by_formula, b.by_formula);
    }
}
