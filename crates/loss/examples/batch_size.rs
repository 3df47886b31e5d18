//! Batch size against the variance and the cost of a contrastive gradient, and the optimum that both imply.
//!
//! A linear encoder of 24 inputs sees two noisy views of points around random centres. Its NT-Xent gradient is drawn from many
//! batches of each size; its variance falls about as `1/N`. Steps to a given loss go about as `1 + B/N`, with B the gradient
//! noise scale; a step costs `c₀ + c₁·N + c₂·N²`, for launching, embedding and contrasting. Their product has a minimum.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod figure;

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use twoview_loss::{GradientNoise, NtXentConfig, Objective, PairedViews};

use figure::{Axes, Figure, Line, draw};

pub(crate) const BATCHES: [usize; 7] = [8, 16, 32, 64, 128, 256, 512];

const INPUTS: usize = 24;
const DIMS: usize = 8;
const DRAWS: usize = 48;

/// Cost of a step, in multiplications: launching it, embedding an image (three passes through a ResNet-18 of width 16, say),
/// and a pair of images in the loss.
const COST: [f64; 3] = [1e9, 6e8, 2e3];

/// Gradients drawn from batches of every size.
pub(crate) struct Outcome {
    /// Trace of the covariance of the gradient of a batch, by batch size.
    pub(crate) variance: Vec<f64>,
    /// The noise scale from whole batches of the largest size, in images.
    pub(crate) noise_scale: f64,
    /// The same from four parts of batches of 128, as a training step can measure it.
    pub(crate) from_parts: f64,
    /// Cost to a given loss by batch size, as a multiple of the least.
    pub(crate) cost: Vec<f64>,
}

struct Problem {
    weight: Vec<f32>,
    rng: StdRng,
}

impl Problem {
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.rng.random::<f32>()).sum::<f32>() - 6.0
    }

    /// `dL/dW` of a batch, `[INPUTS, DIMS]`, image by image: they add up to the gradient of the mean.
    fn gradients(&mut self, n: usize) -> Vec<Vec<f32>> {
        let device = Device::flex();
        let points: Vec<f32> = (0..n * INPUTS).map(|_| self.normal()).collect();
        let mut view = || -> Vec<f32> { points.iter().map(|x| x + 0.7 * self.normal()).collect() };
        let (x1, x2) = (view(), view());
        let tensor = |values: &[f32], columns: usize| -> Tensor<2> {
            Tensor::from_data(TensorData::new(values.to_vec(), [values.len() / columns, columns]), &device)
        };
        let embed = |x: &[f32]| tensor(x, INPUTS).matmul(tensor(&self.weight, DIMS));
        let objective = NtXentConfig::new(0.5).init().expect("valid");
        let contrast = objective.contrast(PairedViews::new(embed(&x1), embed(&x2)).expect("finite"));
        let rows = |t: Tensor<2>| t.into_data().try_to_vec::<f32>().expect("f32");
        let (d1, d2) = (rows(contrast.d_z1), rows(contrast.d_z2));
        let of_image = |i: usize| {
            let mut d_weight = vec![0.0; INPUTS * DIMS];
            for (x, d) in [(&x1, &d1), (&x2, &d2)] {
                for (row, x) in d_weight.chunks_exact_mut(DIMS).zip(&x[i * INPUTS..][..INPUTS]) {
                    row.iter_mut().zip(&d[i * DIMS..][..DIMS]).for_each(|(sum, d)| *sum += x * d);
                }
            }
            d_weight
        };
        (0..n).map(of_image).collect()
    }

    fn gradient(&mut self, n: usize) -> Vec<f32> {
        let mut sum = vec![0.0; INPUTS * DIMS];
        for image in self.gradients(n) {
            sum.iter_mut().zip(image).for_each(|(sum, d)| *sum += d);
        }
        sum
    }
}

/// Draws gradients and estimates.
pub(crate) fn run() -> Outcome {
    let mut problem = Problem { weight: Vec::new(), rng: StdRng::seed_from_u64(2020) };
    problem.weight = (0..INPUTS * DIMS).map(|_| problem.normal() / 4.0).collect();
    let of_batches: Vec<GradientNoise> = BATCHES
        .into_iter()
        .map(|n| {
            let drawn: Vec<Vec<f32>> = (0..DRAWS).map(|_| problem.gradient(n)).collect();
            GradientNoise::from_parts(&drawn, n).expect("many")
        })
        .collect();
    let variance = of_batches.iter().zip(BATCHES).map(|(noise, n)| noise.variance / n as f64).collect();
    let noise_scale = of_batches.last().and_then(GradientNoise::batch_size).expect("a signal");

    let mut average = GradientNoise { signal: 0.0, variance: 0.0 };
    for round in 0..DRAWS {
        let images = problem.gradients(128);
        // The mean gradient of a part: its share of the sum, times the number of parts.
        let part = |part: &[Vec<f32>]| -> Vec<f32> {
            (0..INPUTS * DIMS).map(|at| 4.0 * part.iter().map(|image| image[at]).sum::<f32>()).collect()
        };
        let parts: Vec<Vec<f32>> = images.chunks(32).map(part).collect();
        average.blend(GradientNoise::from_parts(&parts, 32).expect("four"), round as f64 / (round as f64 + 1.0));
    }

    let cost_at = |n: f64| (1.0 + noise_scale / n) * (COST[0] + COST[1] * n + COST[2] * n * n);
    let costs = BATCHES.map(|n| cost_at(n as f64));
    let least = costs.into_iter().fold(f64::INFINITY, f64::min);
    Outcome {
        variance,
        noise_scale,
        from_parts: average.batch_size().expect("a signal"),
        cost: costs.into_iter().map(|cost| cost / least).collect(),
    }
}

fn main() {
    let Outcome { variance, noise_scale, from_parts, cost } = run();
    println!("    N  variance of the gradient  cost to a given loss");
    for (i, n) in BATCHES.into_iter().enumerate() {
        println!("{n:5}  {:24.2e}  {:20.2}", variance[i], cost[i]);
    }
    println!(
        "noise scale: {noise_scale:.0} images from whole batches, {from_parts:.0} from four parts of batches of 128"
    );
    let line =
        |name: &str, values: &[f64]| Line::new(name, BATCHES.map(|n| n as f64).into_iter().zip(values.iter().copied()));
    let relative: Vec<f64> = variance.iter().map(|v| v / variance[BATCHES.len() - 1]).collect();
    draw(
        "batch_size",
        &Figure {
            title: "What a larger batch buys and what it costs",
            x: "images in a batch",
            y: "multiple of the least",
            axes: Axes::LogBoth,
            lines: vec![line("variance of the gradient", &relative), line("cost to a given loss", &cost)],
        },
    );
}
