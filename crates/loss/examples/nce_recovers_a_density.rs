//! Fits a density that cannot be normalized by hand, and recovers its parameters and its partition.
//!
//! ```text
//! ln p(x) = −a·x⁴ + b·x² − ln Z        two wells; Z has no closed form
//! ```
//! The data are 12,000 samples, the noise is a normal distribution, and `ln Z` is a parameter like the others.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod figure;

use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use twoview_loss::{Noise, NoiseScores, binary_nce};

use figure::{Axes, Figure, Line, draw};

/// What the data come from: a, b.
const TRUTH: [f64; 2] = [0.5, 1.5];

/// A normal distribution around 0.
struct Normal {
    std: f64,
}

impl Noise for Normal {
    type Sample = f64;

    fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> f64 {
        let (radius, angle) = (1.0 - rng.random::<f64>(), rng.random::<f64>() * std::f64::consts::TAU);
        self.std * (-2.0 * radius.ln()).sqrt() * angle.cos()
    }

    fn log_density(&self, x: &f64) -> f64 {
        -0.5 * (x / self.std).powi(2) - self.std.ln() - 0.5 * std::f64::consts::TAU.ln()
    }
}

fn log_unnormalised([a, b]: [f64; 2], x: f64) -> f64 {
    -a * x.powi(4) + b * x * x
}

/// `ln Z` by the trapezoidal rule, which is exact to rounding for such functions.
pub(crate) fn log_partition(parameters: [f64; 2]) -> f64 {
    let step = 1e-3;
    let sum: f64 = (-8_000..=8_000).map(|i| log_unnormalised(parameters, f64::from(i) * step).exp()).sum();
    (sum * step).ln()
}

/// What was fitted beside what it should be.
pub(crate) struct Outcome {
    pub(crate) fitted: [f64; 2],
    pub(crate) log_z: f64,
    pub(crate) true_log_z: f64,
}

/// Draws data, fits, and compares.
pub(crate) fn run() -> Outcome {
    let (n, k, device) = (12_000, 4, Device::flex().autodiff());
    let mut rng = StdRng::seed_from_u64(2010);
    let noise = Normal { std: 1.5 };
    // Rejection from the noise, whose density times 30 lies above the unnormalised one.
    let mut draw_data = || loop {
        let x = noise.sample(&mut rng);
        let ratio = (log_unnormalised(TRUTH, x) - noise.log_density(&x)).exp() / 30.0;
        assert!(ratio <= 1.0, "the envelope is too low at {x}");
        if rng.random::<f64>() < ratio {
            return x;
        }
    };
    let data: Vec<f64> = (0..n).map(|_| draw_data()).collect();
    let noise_samples: Vec<f64> = (0..n * k).map(|_| noise.sample(&mut rng)).collect();

    let tensor = |values: Vec<f64>| -> Tensor<1> {
        let n = values.len();
        Tensor::from_data(TensorData::new(values, [n]).convert::<f32>(), &device)
    };
    let log_q = |samples: &[f64]| tensor(samples.iter().map(|x| noise.log_density(x)).collect());
    let (x_data, x_noise) = (tensor(data.clone()), tensor(noise_samples.clone()));
    let (q_data, q_noise) = (log_q(&data), log_q(&noise_samples).reshape([n, k]));
    let score = |x: &Tensor<1>, a: &Tensor<1>, b: &Tensor<1>| {
        let squares = x.clone().square();
        squares.clone() * b.clone() - squares.square() * a.clone()
    };

    // Adam on three numbers: a, b, ln Z.
    let mut parameters = [0.1, 0.0, 0.0];
    let (mut mean, mut square) = ([0.0; 3], [0.0; 3]);
    for step in 1..=400 {
        let [a, b, log_z] = parameters.map(|value| tensor(vec![value]).require_grad());
        let scores = NoiseScores::new(
            score(&x_data, &a, &b),
            score(&x_noise, &a, &b).reshape([n, k]),
            q_data.clone(),
            q_noise.clone(),
        )
        .expect("finite");
        let grads = binary_nce(scores.with_log_z(log_z.clone()).expect("finite")).backward();
        let slopes = [&a, &b, &log_z].map(|t| f64::from(t.grad(&grads).expect("tracked").into_scalar::<f32>()));
        for (i, slope) in slopes.into_iter().enumerate() {
            mean[i] = 0.9 * mean[i] + 0.1 * slope;
            square[i] = 0.99 * square[i] + 0.01 * slope * slope;
            let (mean, square) = (mean[i] / (1.0 - 0.9_f64.powi(step)), square[i] / (1.0 - 0.99_f64.powi(step)));
            parameters[i] -= 0.02 * mean / (square.sqrt() + 1e-8);
        }
    }
    let [a, b, log_z] = parameters;
    Outcome { fitted: [a, b], log_z, true_log_z: log_partition(TRUTH) }
}

fn main() {
    let Outcome { fitted, log_z, true_log_z } = run();
    println!("            a      b     ln Z");
    println!("true    {:.3}  {:.3}  {true_log_z:.3}", TRUTH[0], TRUTH[1]);
    println!("fitted  {:.3}  {:.3}  {log_z:.3}", fitted[0], fitted[1]);
    let xs = (-300..=300).map(|i| f64::from(i) / 100.0);
    let density = |of: [f64; 2], log_z: f64| {
        let density = move |x| (x, (log_unnormalised(of, x) - log_z).exp());
        xs.clone().map(density).collect::<Vec<_>>()
    };
    let noise = Normal { std: 1.5 };
    draw(
        "nce_recovers_a_density",
        &Figure {
            title: "A density fitted by noise-contrastive estimation",
            x: "x",
            y: "density",
            axes: Axes::Linear,
            lines: vec![
                Line::new("true", density(TRUTH, true_log_z)),
                Line::new("fitted, with its own ln Z", density(fitted, log_z)),
                Line::new("noise", xs.clone().map(|x| (x, noise.log_density(&x).exp()))),
            ],
        },
    );
}
