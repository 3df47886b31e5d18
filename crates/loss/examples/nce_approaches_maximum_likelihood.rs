//! With more noise samples, noise-contrastive estimates approach those of maximum likelihood; noise like the data does so
//! long before noise that nobody chose with care.
//!
//! ```text
//! ln p(x) = −λ·x²/2 − c        data N(0, 1), so λ = 1 and c = ln Z = ln(2π)/2
//! ```
//! For each k the model is fitted to 300 sets of 300 samples. Its error is compared with that of maximum likelihood on the same
//! sets. The expected gradient, by quadrature, approaches that of the likelihood too.
//!
//! With noise like the data the error is `1 + 1/k` times that of maximum likelihood. That is not the least there is: for this
//! parameter noise three times as wide is better while k is small (Chehab, Gramfort and Hyvärinen, *The Optimal Noise in
//! Noise-Contrastive Learning Is Not What You Think*, UAI 2022). Noise eight times as wide is worse at every k.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod figure;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use figure::{Axes, Figure, Line, draw};

pub(crate) const NOISE_SAMPLES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

const SETS: usize = 300;
const SAMPLES: usize = 300;

/// Standard deviation of noise that is wider than the data.
const WIDE: f64 = 3.0;

/// And of noise that nobody chose with care.
const NAIVE: f64 = 8.0;

/// By number of noise samples.
pub(crate) struct Outcome {
    /// Mean squared error of λ as a multiple of maximum likelihood's, with noise like the data.
    pub(crate) like_data: Vec<f64>,
    /// The same with noise three times as wide.
    pub(crate) wide: Vec<f64>,
    /// And eight times.
    pub(crate) naive: Vec<f64>,
    /// Distance of the expected gradient from the likelihood's, as a share of it.
    pub(crate) gradient_gap: Vec<f64>,
}

fn log_normal(x: f64, std: f64) -> f64 {
    -0.5 * (x / std).powi(2) - std.ln() - 0.5 * std::f64::consts::TAU.ln()
}

fn normal(rng: &mut StdRng) -> f64 {
    let (radius, angle) = (1.0 - rng.random::<f64>(), rng.random::<f64>() * std::f64::consts::TAU);
    (-2.0 * radius.ln()).sqrt() * angle.cos()
}

/// The λ and c that minimize the loss of [`twoview_loss::binary_nce`], by Newton's method: it is a logistic regression.
pub(crate) fn fit(data: &[f64], noise: &[f64], noise_std: f64) -> [f64; 2] {
    let k = noise.len() as f64 / data.len() as f64;
    let mut parameters = [1.0, 0.9];
    for _ in 0..25 {
        let (mut slope, mut curvature) = ([0.0; 2], [[0.0; 2]; 2]);
        let labelled = data.iter().map(|x| (x, 1.0)).chain(noise.iter().map(|x| (x, 0.0)));
        for (x, label) in labelled {
            let features = [-0.5 * x * x, -1.0];
            let score = parameters[0] * features[0] + parameters[1] * features[1];
            let d = score - k.ln() - log_normal(*x, noise_std);
            let p = 1.0 / (1.0 + (-d).exp());
            for i in 0..2 {
                slope[i] += (p - label) * features[i];
                for j in 0..2 {
                    curvature[i][j] += p * (1.0 - p) * features[i] * features[j];
                }
            }
        }
        let [[a, b], [c, d]] = curvature;
        let determinant = a * d - b * c;
        let step = [(d * slope[0] - b * slope[1]) / determinant, (a * slope[1] - c * slope[0]) / determinant];
        // Half steps where the model is far off.
        let length = step[0].abs().max(step[1].abs());
        let damping = if length > 0.5 { 0.5 / length } else { 1.0 };
        parameters[0] -= damping * step[0];
        parameters[1] -= damping * step[1];
        if length < 1e-10 {
            break;
        }
    }
    parameters
}

/// `n` samples of N(0, std²).
pub(crate) fn samples(rng: &mut StdRng, n: usize, std: f64) -> Vec<f64> {
    (0..n).map(|_| std * normal(rng)).collect()
}

/// Fits everything.
pub(crate) fn run() -> Outcome {
    let mut rng = StdRng::seed_from_u64(2012);
    let sets: Vec<Vec<f64>> = (0..SETS).map(|_| samples(&mut rng, SAMPLES, 1.0)).collect();
    let error = |estimates: &[f64]| estimates.iter().map(|lambda| (lambda - 1.0).powi(2)).sum::<f64>() / SETS as f64;
    let likelihood = |set: &Vec<f64>| SAMPLES as f64 / set.iter().map(|x| x * x).sum::<f64>();
    let of_likelihood = error(&sets.iter().map(likelihood).collect::<Vec<_>>());
    let mut errors = |std: f64| -> Vec<f64> {
        let of_k = |k: usize| {
            let estimates: Vec<f64> =
                sets.iter().map(|set| fit(set, &samples(&mut rng, k * SAMPLES, std), std)[0]).collect();
            error(&estimates) / of_likelihood
        };
        NOISE_SAMPLES.into_iter().map(of_k).collect()
    };
    let (like_data, wide, naive) = (errors(1.0), errors(WIDE), errors(NAIVE));
    Outcome { like_data, wide, naive, gradient_gap: NOISE_SAMPLES.into_iter().map(gradient_gap).collect() }
}

/// At λ = 1.5 with its own partition: how far the expected gradient in λ is from the likelihood's.
///
/// `∫ k·q/(p + k·q) · (p_data − p)·φ dx`, beside the same without the first factor.
fn gradient_gap(k: usize) -> f64 {
    let std = 1.5_f64.powf(-0.5);
    let (mut nce, mut likelihood) = (0.0, 0.0);
    for i in -10_000..=10_000 {
        let x = f64::from(i) * 1e-3;
        let (p, q) = (log_normal(x, std).exp(), k as f64 * log_normal(x, NAIVE).exp());
        let term = (log_normal(x, 1.0).exp() - p) * -0.5 * x * x;
        nce += q / (p + q) * term;
        likelihood += term;
    }
    (nce / likelihood - 1.0).abs()
}

fn main() {
    let Outcome { like_data, wide, naive, gradient_gap } = run();
    println!("     error as a multiple of maximum likelihood's, noise");
    println!("  k  like the data   3 times as wide   8 times as wide   expected gradient off by");
    for (i, k) in NOISE_SAMPLES.into_iter().enumerate() {
        let gap = 100.0 * gradient_gap[i];
        println!("{k:3}  {:13.2}  {:16.2}  {:16.2}  {gap:23.1} %", like_data[i], wide[i], naive[i]);
    }
    let line = |name: &str, values: &[f64]| {
        Line::new(name, NOISE_SAMPLES.into_iter().map(|k| k as f64).zip(values.iter().copied()))
    };
    draw(
        "nce_approaches_maximum_likelihood",
        &Figure {
            title: "Error of an estimate by NCE",
            x: "noise samples for each data sample",
            y: "mean squared error / maximum likelihood's",
            axes: Axes::LogBoth,
            lines: vec![
                line("noise like the data", &like_data),
                line("noise three times as wide", &wide),
                line("noise eight times as wide", &naive),
                Line::new("maximum likelihood", [(1.0, 1.0), (64.0, 1.0)]),
            ],
        },
    );
}
