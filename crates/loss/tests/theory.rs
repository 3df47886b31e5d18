//! What the examples show, asserted.

#![allow(dead_code, reason = "the examples' own main functions are not called here")]
#![allow(clippy::duplicate_mod, reason = "every example has the figures for itself")]

#[path = "../examples/batch_size.rs"]
mod batch_size;
#[path = "../examples/cost_of_the_vocabulary.rs"]
mod cost_of_the_vocabulary;
#[path = "../examples/moving_noise.rs"]
mod moving_noise;
#[path = "../examples/mutual_information_bound.rs"]
mod mutual_information_bound;
#[path = "../examples/nce_approaches_maximum_likelihood.rs"]
mod nce_approaches_maximum_likelihood;
#[path = "../examples/nce_recovers_a_density.rs"]
mod nce_recovers_a_density;
#[path = "../examples/skip_gram.rs"]
mod skip_gram;

#[test]
fn nce_recovers_parameters_and_partition() {
    let got = nce_recovers_a_density::run();
    for (got, want, what) in [(got.fitted[0], 0.5, "a"), (got.fitted[1], 1.5, "b"), (got.log_z, got.true_log_z, "ln Z")]
    {
        assert!((got - want).abs() < 0.06, "{what}: {got}, {want}");
    }
}

#[test]
fn nce_approaches_maximum_likelihood_with_k() {
    let nce_approaches_maximum_likelihood::Outcome { like_data, wide, naive, gradient_gap } =
        nce_approaches_maximum_likelihood::run();
    let last = like_data.len() - 1;
    for (got, k) in like_data.iter().zip(nce_approaches_maximum_likelihood::NOISE_SAMPLES) {
        // The error of 300 sets is itself known to about a tenth.
        assert!((got / (1.0 + 1.0 / k as f64) - 1.0).abs() < 0.12, "k = {k}: {got}");
    }
    for errors in [&like_data, &wide, &naive] {
        assert!(errors[last] < 1.1, "{errors:?}");
    }
    for (k, (like_data, naive)) in like_data.iter().zip(&naive).take(4).enumerate() {
        assert!(1.1 * like_data < *naive, "at place {k} noise like the data is the better");
    }
    assert!(wide[0] < like_data[0], "and yet it is not the best there is");
    assert!(gradient_gap.windows(2).all(|pair| pair[1] < 0.7 * pair[0]), "{gradient_gap:?}");
    assert!(gradient_gap[last] < 0.05, "{gradient_gap:?}");
}

/// The Newton fit of the example ends where the crate's loss has no slope.
#[test]
fn the_fit_is_a_minimum_of_the_loss() {
    use burn::tensor::{Device, Tensor, TensorData};
    use nce_approaches_maximum_likelihood::{fit, samples};
    use rand::SeedableRng;

    let mut rng = rand::rngs::StdRng::seed_from_u64(5);
    let (data, noise) = (samples(&mut rng, 200, 1.0), samples(&mut rng, 800, 2.0));
    let [lambda, c] = fit(&data, &noise, 2.0);
    let device = Device::flex().autodiff();
    let tensor = |values: Vec<f64>| -> Tensor<1> {
        let n = values.len();
        Tensor::from_data(TensorData::new(values, [n]).convert::<f32>(), &device)
    };
    let [lambda, c] = [lambda, c].map(|value| tensor(vec![value]).require_grad());
    let s = |x: &[f64]| tensor(x.iter().map(|x| -0.5 * x * x).collect()) * lambda.clone();
    let log_q = |x: &[f64]| {
        tensor(x.iter().map(|x| -0.125 * x * x - 2.0_f64.ln() - 0.5 * std::f64::consts::TAU.ln()).collect())
    };
    let scores = twoview_loss::NoiseScores::new(
        s(&data),
        s(&noise).reshape([200, 4]),
        log_q(&data),
        log_q(&noise).reshape([200, 4]),
    );
    let grads =
        twoview_loss::binary_nce(scores.and_then(|scores| scores.with_log_z(c.clone())).expect("finite")).backward();
    for parameter in [lambda, c] {
        let slope = parameter.grad(&grads).expect("tracked").into_scalar::<f32>();
        assert!(slope.abs() < 1e-5, "{slope}");
    }
}

#[test]
fn noise_that_moves_with_the_model_teaches_nothing() {
    use moving_noise::{Kind, TRUTH, run};
    let end = |kind| *run(kind).mu.last().expect("steps");
    assert!((end(Kind::Fixed) - TRUTH).abs() < 0.1);
    assert!((end(Kind::FrozenCopy) - TRUTH).abs() < 0.1);
    let moving = run(Kind::Moving);
    assert!(moving.mu.iter().all(|mu| mu.abs() < 1e-6), "{:?}", moving.mu.last());
    assert!(moving.loss.iter().all(|loss| (loss - 2.0 * 2.0_f64.ln()).abs() < 1e-6));
}

#[test]
fn the_bound_holds_is_tight_and_has_a_ceiling() {
    use mutual_information_bound::{INFORMATION, bound};
    for information in INFORMATION {
        let mut before = 0.0;
        for n in [8, 64, 512] {
            let (got, ceiling) = (bound(information, n), (n as f64).ln());
            // Averages of at least eight batches; their error is a few hundredths.
            assert!(got < information + 0.05 && got < ceiling, "I = {information}, N = {n}: {got}");
            assert!(got > before - 0.02, "I = {information}, N = {n}: {got} after {before}");
            before = got;
        }
    }
    assert!(bound(1.0, 512) > 0.95, "enough candidates make it tight");
    assert!(bound(6.0, 64) > 0.9 * 64.0_f64.ln(), "too few make it sit under its ceiling");

    // NT-Xent's ceiling, reached where partners are equal and nothing else is near.
    use burn::tensor::{Device, Tensor};
    use twoview_loss::{NtXentConfig, Objective, PairedViews, chance_line};
    let eye = || Tensor::<2>::eye(16, &Device::flex());
    let objective = NtXentConfig::new(0.02).init().expect("valid");
    let stats = objective.contrast(PairedViews::new(eye(), eye()).expect("finite")).stats;
    let bound = stats.mutual_information.expect("nothing is left out");
    assert!((bound - chance_line(16)).abs() < 1e-9, "{bound}");
}

#[test]
fn variance_falls_with_the_batch_and_the_cost_has_a_minimum() {
    let got = batch_size::run();
    let n = batch_size::BATCHES;
    let scaled: Vec<f64> = got.variance.iter().zip(n).map(|(variance, n)| variance * n as f64).collect();
    for pair in scaled[2..].windows(2) {
        assert!((0.6..1.6).contains(&(pair[1] / pair[0])), "not as 1/N: {scaled:?}");
    }
    let ratio = got.from_parts / got.noise_scale;
    assert!((0.5..2.0).contains(&ratio), "parts say {}, batches {}", got.from_parts, got.noise_scale);
    let least = got.cost.iter().position(|cost| *cost == 1.0).expect("a least");
    assert!(least > 0 && least < n.len() - 1, "{:?}", got.cost);
}

#[test]
fn neighbours_make_sense() {
    let outcome = skip_gram::run();
    let (mut right, mut all) = (0, 0);
    for (_, members) in skip_gram::GROUPS {
        for word in members {
            let neighbours = outcome.neighbours(word, 4);
            right += neighbours.iter().filter(|neighbour| members.contains(neighbour)).count();
            all += neighbours.len();
        }
    }
    assert!(right * 10 >= all * 9, "{right} of {all} neighbours are of the word's own group");
    assert!(outcome.losses.last().expect("steps") < &3.0, "{:?}", outcome.losses.last());
}

#[test]
fn nce_visits_the_same_few_words_of_any_vocabulary() {
    use cost_of_the_vocabulary::{CONTEXTS, NOISE_SAMPLES, run};
    let (step, larger) = (run(1_000), run(4_000));
    let visited = CONTEXTS * (NOISE_SAMPLES + 1);
    assert_eq!((step.scores, step.rows), ([CONTEXTS * 1_000, visited], [1_000, visited]));
    assert_eq!((larger.scores, larger.rows), ([CONTEXTS * 4_000, visited], [4_000, visited]));
    let [full, sampled] = step.multiplications();
    assert_eq!(larger.multiplications(), [4 * full, sampled]);
    // Of scores near 0 the softmax knows nothing, and NCE that all words are alike: data and noise are one.
    assert!((step.softmax.0 - 1_000.0_f64.ln()).abs() < 0.05, "{:?}", step.softmax);
    let k = NOISE_SAMPLES as f64;
    let alike = (k + 1.0) * (k + 1.0).ln() - k * k.ln();
    assert!((step.nce.0 - alike).abs() < 0.05, "{:?}, {alike}", step.nce);
}
