//! The classical estimators against golden data, each other and their own properties.

use burn::{
    module::Param,
    tensor::{Device, FloatDType, Tensor, TensorData},
};
use proptest::{prelude::*, test_runner::RngSeed};
use serde_json::Value;
use twoview_loss::{
    InBatchLogisticConfig, NoiseScores, NoiseScoresError, Objective, PairedViews, binary_nce, negative_sampling,
    noise_weights, ranking_nce,
};

mod support;

use support::{check_near, golden, tensor, values};

#[allow(clippy::cast_possible_truncation, reason = "the data is exact in f32, or rounded to it on purpose")]
fn vector(numbers: &[f64], device: &Device) -> Tensor<1> {
    let numbers: Vec<f32> = numbers.iter().map(|x| *x as f32).collect();
    let n = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [n]), device)
}

fn matrix(numbers: &[f64], k: usize, device: &Device) -> Tensor<2> {
    let n = numbers.len() / k;
    vector(numbers, device).reshape([n, k])
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

/// Loss and gradients within the tolerances of the golden data for f32.
fn check(case: &Value) {
    let (name, kind) = (case["name"].as_str().expect("name"), case["kind"].as_str().expect("kind"));
    let k = usize::try_from(case["params"]["k"].as_u64().expect("k")).expect("small");
    let device = Device::flex().autodiff();
    let of = |key: &str| golden::numbers(&case[key]);
    let s_data = vector(&of("s_data"), &device).require_grad();
    let s_noise = matrix(&of("s_noise"), k, &device).require_grad();
    let log_z = vector(&[case["log_z"].as_f64().unwrap_or(0.0)], &device).require_grad();
    let loss = if kind == "nce_binary" {
        let (q_data, q_noise) = (vector(&of("log_q_data"), &device), matrix(&of("log_q_noise"), k, &device));
        let scores = NoiseScores::new(s_data.clone(), s_noise.clone(), q_data, q_noise).expect("valid");
        binary_nce(scores.with_log_z(log_z.clone()).expect("finite"))
    } else {
        assert_eq!(kind, "negative_sampling");
        negative_sampling(s_data.clone(), s_noise.clone()).expect("valid")
    };

    let (want, guidance) = (number(&case["loss"]), &case["f32_guidance"]);
    let tolerance = 20.0 * number(&guidance["loss_abs_err"]) + 2e-6 * (1.0 + want.abs());
    check_near(&values(loss.clone()), &[want], tolerance, name);
    let grads = loss.backward();
    let tolerance = 20.0 * number(&guidance["grad_max_abs_err"]) + 1e-5 * number(&case["grad_max_abs"]) + 1e-6;
    let mut got = vec![
        (values(s_data.grad(&grads).expect("tracked")), "grad_s_data"),
        (values(s_noise.grad(&grads).expect("tracked")), "grad_s_noise"),
    ];
    if kind == "nce_binary" {
        got.push((values(log_z.grad(&grads).expect("tracked")), "grad_log_z"));
    }
    for (got, key) in got {
        check_near(&got, &golden::numbers(&case[key]), tolerance, &format!("{name}: {key}"));
    }
}

#[test]
fn golden_data_agree() {
    for kind in ["nce_binary", "negative_sampling"] {
        let cases = golden::cases(&format!("losses/{kind}.json"));
        assert!(!cases.is_empty(), "{kind}");
        cases.iter().for_each(check);
    }
    // Cases without embeddings may be among the extremes too.
    golden::cases("losses/extreme.json").iter().filter(|case| case["s_data"].is_array()).for_each(check);
}

fn scores() -> impl Strategy<Value = (Vec<f64>, Vec<f64>, Vec<f64>, Vec<f64>, usize)> {
    (1_usize..5, 1_usize..6).prop_flat_map(|(n, k)| {
        let numbers =
            |len: usize, range: i16| prop::collection::vec((-range..range).prop_map(|x| f64::from(x) / 16.0), len);
        (numbers(n, 160), numbers(n * k, 160), numbers(n, 96), numbers(n * k, 96), Just(k))
    })
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        rng_seed: RngSeed::Fixed(2012),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn values_and_slopes_follow_the_formulas((data, noise, q_data, q_noise, k) in scores(), c in -4.0_f64..4.0) {
        let device = Device::flex().autodiff();
        let s_noise = matrix(&noise, k, &device).require_grad();
        let pair = || NoiseScores::new(
            vector(&data, &device), s_noise.clone(), vector(&q_data, &device), matrix(&q_noise, k, &device),
        ).and_then(|scores| scores.with_log_z(vector(&[c], &device))).expect("valid");
        let n = data.len() as f64;
        let d = |s: f64, q: f64| s - c - (k as f64).ln() - q;
        let of_data: f64 = data.iter().zip(&q_data).map(|(s, q)| softplus(-d(*s, *q))).sum();
        let of_noise: f64 = noise.iter().zip(&q_noise).map(|(s, q)| softplus(d(*s, *q))).sum();
        let want = (of_data + of_noise) / n;
        let loss = binary_nce(pair());
        check_near(&values(loss.clone()), &[want], 1e-5 * (1.0 + want), "binary NCE");

        // The weights of the noise are the slopes of the loss, and none can dominate.
        let weights = values(noise_weights(pair()));
        prop_assert!(weights.iter().all(|weight| (0.0..=1.0).contains(weight)), "{weights:?}");
        let slopes: Vec<f64> = values(s_noise.grad(&loss.backward()).expect("tracked")).iter().map(|d| d * n).collect();
        check_near(&weights, &slopes, 1e-6, "weights");

        let ranked = |i: usize| {
            let r = |j: usize| noise[i * k + j] - q_noise[i * k + j];
            let hardest = (0..k).map(r).fold(f64::NEG_INFINITY, f64::max);
            softplus((0..k).map(|j| (r(j) - hardest).exp()).sum::<f64>().ln() + hardest - (data[i] - q_data[i]))
        };
        let want = (0..data.len()).map(ranked).sum::<f64>() / n;
        check_near(&values(ranking_nce(pair())), &[want], 1e-5 * (1.0 + want), "ranking NCE");
    }

    #[test]
    fn negative_sampling_is_binary_nce_of_uniform_noise_over_k_outcomes((data, noise, _, _, k) in scores()) {
        let device = Device::flex();
        let uniform = -(k as f64).ln();
        let with = NoiseScores::new(
            vector(&data, &device), matrix(&noise, k, &device),
            vector(&vec![uniform; data.len()], &device), matrix(&vec![uniform; noise.len()], k, &device),
        ).expect("valid");
        let without = negative_sampling(vector(&data, &device), matrix(&noise, k, &device)).expect("valid");
        let want = values(without);
        check_near(&values(binary_nce(with)), &want, 1e-5 * (1.0 + want[0]), "loss");
    }
}

#[test]
fn a_partition_may_be_one_or_one_per_context() {
    let device = Device::flex().autodiff();
    let pair = || {
        let (data, noise) = (vector(&[0.5, -1.0], &device), matrix(&[0.25, 1.0, -0.5, 2.0], 2, &device));
        let (q_data, q_noise) = (vector(&[-1.0, -2.0], &device), matrix(&[-1.0, -3.0, -2.0, -1.5], 2, &device));
        NoiseScores::new(data, noise, q_data, q_noise).expect("valid")
    };
    let per_context = vector(&[0.75, 0.75], &device).require_grad();
    let loss = binary_nce(pair().with_log_z(per_context.clone()).expect("one per context"));
    let one = vector(&[0.75], &device).require_grad();
    let same = binary_nce(pair().with_log_z(one.clone()).expect("one"));
    assert_eq!(values(loss.clone()), values(same.clone()));
    let of_contexts: f64 = values(per_context.grad(&loss.backward()).expect("tracked")).iter().sum();
    check_near(&values(one.grad(&same.backward()).expect("tracked")), &[of_contexts], 1e-6, "the slopes add up");

    let error = pair().with_log_z(vector(&[0.0; 3], &device)).expect_err("refused");
    assert_eq!(error, NoiseScoresError::Shape { what: "log_z", want: vec![2], got: vec![3] });
    let error = pair().with_log_z(vector(&[f64::NAN], &device)).expect_err("refused");
    assert!(error.to_string().contains("log_z must be finite, got NaN"), "{error}");
}

#[test]
fn half_precision_is_computed_in_f32() {
    let device = Device::flex();
    let numbers = [0.5, -1.0, 0.25, 2.0];
    let of = |dtype: FloatDType| {
        let (data, noise) = (vector(&numbers[..2], &device).cast(dtype), matrix(&numbers, 2, &device).cast(dtype));
        let scores =
            NoiseScores::new(data.clone(), noise.clone(), data.clone().neg(), noise.clone().neg()).expect("valid");
        let scores = scores.with_log_z(data.clone()).expect("one per context");
        let losses = [
            binary_nce(scores.clone()),
            ranking_nce(scores.clone()),
            negative_sampling(data, noise).expect("valid"),
            noise_weights(scores).sum(),
        ];
        losses.map(|loss| values(loss)[0])
    };
    // The numbers are exact in all of these types.
    for dtype in [FloatDType::F16, FloatDType::BF16, FloatDType::F64] {
        assert_eq!(of(dtype), of(FloatDType::F32), "{dtype:?}");
    }
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let device = Device::flex();
    let (one, two) = (vector(&[1.0], &device), vector(&[1.0, 2.0], &device));
    let noise = matrix(&[1.0, 2.0, 3.0, 4.0], 2, &device);
    let error = negative_sampling(one.clone(), noise.clone()).expect_err("refused");
    assert_eq!(error, NoiseScoresError::Shape { what: "s_noise", want: vec![1, 2], got: vec![2, 2] });
    let error = NoiseScores::new(two.clone(), noise.clone(), one, noise.clone()).expect_err("refused");
    assert!(error.to_string().contains("log_q_data must be [2], got [1]"), "{error}");
    let error = negative_sampling(two.clone(), Tensor::zeros([2, 0], &device)).expect_err("refused");
    assert_eq!(error, NoiseScoresError::Empty { n: 2, k: 0 });
    let bad = matrix(&[1.0, 2.0, 3.0, f64::NEG_INFINITY], 2, &device);
    let error = NoiseScores::new(two.clone(), noise, two, bad).expect_err("a noise that cannot make its own sample");
    let NoiseScoresError::NotFinite { what: "log_q_noise", at: [1, 1], .. } = error else { panic!("{error}") };
}

#[test]
fn in_batch_forms_are_the_estimators_on_the_batch() {
    let device = Device::flex().autodiff();
    let z1 = vec![vec![1.0, 0.5, -0.25], vec![-0.5, 1.0, 0.75], vec![0.25, -1.0, 1.0]];
    let z2 = vec![vec![0.75, 0.5, 0.0], vec![-0.25, 1.5, 0.5], vec![1.0, -0.5, 1.0]];
    let cosine = |i: usize, k: usize| {
        let (a, b): (&Vec<f32>, &Vec<f32>) = (&z1[i], &z2[k]);
        a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>() / support::norm(a) / support::norm(b)
    };
    let (temperature, bias) = (0.2, -1.5);
    let others = |i: usize| (0..3).filter(move |&k| k != i);
    let scaled = |i: usize, k: usize| cosine(i, k) / temperature;
    let data: Vec<f64> = (0..3).map(|i| scaled(i, i)).collect();
    let noise: Vec<f64> = (0..3).flat_map(|i| others(i).map(move |k| (i, k))).map(|(i, k)| scaled(i, k)).collect();
    let views = || PairedViews::new(tensor(&z1, &device), tensor(&z2, &device)).expect("paired");

    let of = |corrected: bool| {
        let config = InBatchLogisticConfig { corrected, ..InBatchLogisticConfig::new(temperature, bias) };
        config.init_learned(&device).expect("valid")
    };
    let sampling = of(false);
    let biased = |s: &[f64]| s.iter().map(|s| s + bias).collect::<Vec<_>>();
    let want = negative_sampling(vector(&biased(&data), &device), matrix(&biased(&noise), 2, &device));
    let want = values(want.expect("valid"));
    let loss = sampling.forward(views());
    check_near(&values(loss.clone()), &want, 1e-5, "negative sampling");
    let grads = loss.backward();
    let slope_of = |parameter: &Param<Tensor<1>>| values(parameter.val().grad(&grads).expect("tracked"))[0];
    let at = |log_scale: f64, bias: f64| {
        let config = InBatchLogisticConfig::new(temperature / log_scale.exp(), bias);
        config.init().expect("valid").contrast(views()).stats.loss
    };
    let step = 1e-4;
    let along_scale = (at(step, bias) - at(-step, bias)) / (2.0 * step);
    let along_bias = (at(0.0, bias + step) - at(0.0, bias - step)) / (2.0 * step);
    check_near(&[slope_of(&sampling.log_scale), slope_of(&sampling.bias)], &[along_scale, along_bias], 2e-3, "slopes");

    let log_q = -(3.0_f64).ln();
    let scores = NoiseScores::new(
        vector(&data, &device),
        matrix(&noise, 2, &device),
        vector(&[log_q; 3], &device),
        matrix(&[log_q; 6], 2, &device),
    );
    let want =
        values(binary_nce(scores.and_then(|scores| scores.with_log_z(vector(&[-bias], &device))).expect("valid")));
    check_near(&values(of(true).forward(views())), &want, 1e-5, "binary NCE");

    let apart = values(sampling.forward(views()))[0];
    let known = values(sampling.forward(views().with_sources(&[1, 1, 2]).expect("one per image")))[0];
    assert!(known < apart, "known false negatives are left out");
    assert!(InBatchLogisticConfig::new(temperature, f64::NAN).init_learned(&device).is_err());
}
