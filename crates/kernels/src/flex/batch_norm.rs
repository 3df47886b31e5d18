//! Batch normalization over `[N, C, H, W]`, optionally with a ReLU, and its gradient.
//!
//! ```text
//! forward     y  = a·(x − m) + b                        a = gamma/σ, σ = √(var + eps)
//! backward    dx = a·(dy − mean(dy) − x̂·mean(dy·x̂))     x̂ = (x − m)/σ
//! ```
//! Memory is the limit: each direction reads its tensors twice, once for sums and once for values. A sum
//! is taken per plane (one channel of one image) in f32 vectors of bounded length, and planes are added in
//! f64 in the order of the images. Mean and variance come from deviations from the plane's own approximate
//! mean, so a large common offset costs no digits.

use rayon::prelude::*;

use super::TASK_ELEMENTS;
use super::vectorized::vectorized;

/// Elements summed in f32 before the sum goes to f64.
const SUM_BLOCK: usize = 1024;

/// Statistics of each channel over the batch.
#[derive(Debug, Clone)]
pub(crate) struct Statistics {
    pub(super) mean: Vec<f64>,
    /// Biased, without epsilon.
    pub(super) var: Vec<f64>,
}

/// The shape of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch {
    pub(super) images: usize,
    pub(super) channels: usize,
    pub(super) pixels: usize,
}

impl Batch {
    /// Enough planes for a task to repay its overhead, as a whole number of images.
    fn planes_per_task(&self) -> usize {
        TASK_ELEMENTS.div_ceil(self.channels * self.pixels) * self.channels
    }
}

/// The coefficients of one channel; `x` enters every formula as `x − origin`, which is nearly exact.
#[derive(Debug, Clone, Copy, Default)]
struct Affine {
    /// The mean, rounded to f32.
    origin: f32,
    scale: f32,
    offset: f32,
}

/// `dx = scale·dy − slope·(x − origin) + constant` of one channel.
#[derive(Debug, Clone, Copy, Default)]
struct Gradient {
    scale: f32,
    slope: f32,
    constant: f32,
}

/// The gradients of [`backward`].
pub(super) struct Gradients {
    pub(super) x: Vec<f32>,
    pub(super) gamma: Vec<f32>,
    pub(super) beta: Vec<f32>,
}

/// Mean and variance of each channel.
pub(super) fn statistics(batch: Batch, x: &[f32]) -> Statistics {
    let task = batch.planes_per_task();
    let mut planes = vec![Moments::default(); batch.images * batch.channels];
    planes
        .par_chunks_mut(task)
        .zip(x.par_chunks(task * batch.pixels))
        .for_each(|(planes, x)| plane_moments(x, batch.pixels, planes));

    let (images, pixels) = (batch.images as f64, batch.pixels as f64);
    let of_channel = |channel: usize| planes[channel..].iter().step_by(batch.channels);
    let mut statistics = Statistics { mean: Vec::new(), var: Vec::new() };
    for channel in 0..batch.channels {
        let mean = of_channel(channel).map(|plane| plane.mean).sum::<f64>() / images;
        // Planes are equally long, so the squares within and between them simply add.
        let squares = |plane: &Moments| plane.squares + pixels * (plane.mean - mean).powi(2);
        let var = of_channel(channel).map(squares).sum::<f64>() / (images * pixels);
        statistics.mean.push(mean);
        statistics.var.push(var);
    }
    statistics
}

/// The normalized batch; negative values become zero if `relu`.
pub(super) fn forward(
    batch: Batch,
    x: &[f32],
    statistics: &Statistics,
    gamma: &[f32],
    beta: &[f32],
    eps: f64,
    relu: bool,
) -> Vec<f32> {
    let coefficients = affine(statistics, gamma, beta, eps);
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    let task = batch.planes_per_task() * batch.pixels;
    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .for_each(|(y, x)| normalize(x, batch.pixels, &coefficients, floor, y));
    y
}

/// The gradients of input, `gamma` and `beta` from that of the output.
///
/// Where the ReLU was zero is computed again from `x`, by the same instructions as in [`forward`]; so the
/// output need not be kept.
#[allow(clippy::too_many_arguments, reason = "they are the operands of one formula")]
pub(super) fn backward(
    batch: Batch,
    x: &[f32],
    dy: &[f32],
    statistics: &Statistics,
    gamma: &[f32],
    beta: &[f32],
    eps: f64,
    relu: bool,
) -> Gradients {
    let coefficients = affine(statistics, gamma, beta, eps);
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    let task = batch.planes_per_task();
    let mut planes = vec![[0.0; 2]; batch.images * batch.channels];
    planes
        .par_chunks_mut(task)
        .zip(x.par_chunks(task * batch.pixels).zip(dy.par_chunks(task * batch.pixels)))
        .for_each(|(planes, (x, dy))| plane_sums(x, dy, batch.pixels, &coefficients, floor, planes));

    let n = (batch.images * batch.pixels) as f64;
    let mut gradients = Gradients { x: vec![0.0; x.len()], gamma: Vec::new(), beta: Vec::new() };
    let mut linear = Vec::with_capacity(batch.channels);
    for channel in 0..batch.channels {
        let of_channel = planes[channel..].iter().step_by(batch.channels);
        let [sum, product] = of_channel.fold([0.0; 2], |[s, p], [ds, dp]| [s + ds, p + dp]);
        let inv_std = (statistics.var[channel] + eps).sqrt().recip();
        let rounding = statistics.mean[channel] - f64::from(coefficients[channel].origin);
        let normalized = inv_std * (product - rounding * sum); // Σ dy·x̂
        let scale = f64::from(gamma[channel]) * inv_std;
        let slope = scale * inv_std * normalized / n;
        linear.push(Gradient {
            scale: round(scale),
            slope: round(slope),
            constant: round(slope * rounding - scale * sum / n),
        });
        gradients.gamma.push(round(normalized));
        gradients.beta.push(round(sum));
    }

    let task = task * batch.pixels;
    gradients
        .x
        .par_chunks_mut(task)
        .zip(x.par_chunks(task).zip(dy.par_chunks(task)))
        .for_each(|(dx, (x, dy))| differentiate(x, dy, batch.pixels, &coefficients, floor, &linear, dx));
    gradients
}

fn affine(statistics: &Statistics, gamma: &[f32], beta: &[f32], eps: f64) -> Vec<Affine> {
    let moments = statistics.mean.iter().zip(&statistics.var);
    moments
        .zip(gamma.iter().zip(beta))
        .map(|((&mean, &var), (&gamma, &beta))| {
            let origin = round(mean);
            let scale = f64::from(gamma) / (var + eps).sqrt();
            let offset = f64::from(beta) + scale * (f64::from(origin) - mean);
            Affine { origin, scale: round(scale), offset: round(offset) }
        })
        .collect()
}

/// The nearest f32.
#[allow(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
pub(super) fn round(value: f64) -> f32 {
    value as f32
}

/// Mean and sum of squared deviations of one plane.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    mean: f64,
    squares: f64,
}

/// Adds up sixteen partial sums as a tree.
#[inline(always)]
fn total(mut lanes: [f32; 16]) -> f64 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    f64::from(lanes[0])
}

/// Sums the terms of a plane's elements: f32 in sixteen lanes within a block, f64 over the blocks.
#[inline(always)]
fn sums<const K: usize>(plane: &[f32], terms: impl Fn(f32) -> [f32; K]) -> [f64; K] {
    let mut sums = [0.0; K];
    for block in plane.chunks(SUM_BLOCK) {
        let (vectors, rest) = block.as_chunks::<16>();
        let mut lanes = [[0.0; 16]; K];
        for vector in vectors {
            for (lane, &value) in vector.iter().enumerate() {
                let terms = terms(value);
                for k in 0..K {
                    lanes[k][lane] += terms[k];
                }
            }
        }
        for (lane, &value) in rest.iter().enumerate() {
            let terms = terms(value);
            for k in 0..K {
                lanes[k][lane] += terms[k];
            }
        }
        for (sum, lanes) in sums.iter_mut().zip(lanes) {
            *sum += total(lanes);
        }
    }
    sums
}

vectorized! {
    /// The moments of consecutive planes.
    fn plane_moments(x: &[f32], pixels: usize, planes: &mut [Moments]) {
        let n = pixels as f64;
        for (moments, plane) in planes.iter_mut().zip(x.chunks_exact(pixels)) {
            // The first mean carries the rounding of large sums; deviations from it are small and nearly exact.
            let [sum] = sums(plane, |x| [x]);
            let origin = round(sum / n);
            let [sum, squares] = sums(plane, |x| [x - origin, (x - origin) * (x - origin)]);
            *moments = Moments { mean: f64::from(origin) + sum / n, squares: (squares - sum * sum / n).max(0.0) };
        }
    }
}

vectorized! {
    /// Applies the channels' coefficients in turn, beginning with the first, to consecutive planes.
    fn normalize(x: &[f32], pixels: usize, coefficients: &[Affine], floor: f32, y: &mut [f32]) {
        let planes = y.chunks_exact_mut(pixels).zip(x.chunks_exact(pixels));
        for ((y, x), &Affine { origin, scale, offset }) in planes.zip(coefficients.iter().cycle()) {
            for (y, &x) in y.iter_mut().zip(x) {
                let value = (x - origin) * scale + offset;
                // Unlike `max`, this keeps a NaN.
                *y = if value < floor { floor } else { value };
            }
        }
    }
}

vectorized! {
    /// `Σ dy` and `Σ dy·(x − origin)` of consecutive planes, over the elements that the ReLU let through.
    fn plane_sums(
        x: &[f32],
        dy: &[f32],
        pixels: usize,
        coefficients: &[Affine],
        floor: f32,
        planes: &mut [[f64; 2]],
    ) {
        let pairs = x.chunks_exact(pixels).zip(dy.chunks_exact(pixels));
        let channels = coefficients.iter().cycle();
        for ((sums, (x, dy)), &Affine { origin, scale, offset }) in planes.iter_mut().zip(pairs).zip(channels) {
            for (x, dy) in x.chunks(SUM_BLOCK).zip(dy.chunks(SUM_BLOCK)) {
                let (x, x_rest) = x.as_chunks::<16>();
                let (dy, dy_rest) = dy.as_chunks::<16>();
                let (mut lanes, mut products) = ([0.0; 16], [0.0; 16]);
                let mut add = |lane: usize, x: f32, dy: f32| {
                    let centred = x - origin;
                    let dy = if centred * scale + offset > floor { dy } else { 0.0 };
                    lanes[lane] += dy;
                    products[lane] += dy * centred;
                };
                for (x, dy) in x.iter().zip(dy) {
                    for lane in 0..16 {
                        add(lane, x[lane], dy[lane]);
                    }
                }
                for (lane, (&x, &dy)) in x_rest.iter().zip(dy_rest).enumerate() {
                    add(lane, x, dy);
                }
                sums[0] += total(lanes);
                sums[1] += total(products);
            }
        }
    }
}

vectorized! {
    /// The input gradient of consecutive planes.
    fn differentiate(
        x: &[f32],
        dy: &[f32],
        pixels: usize,
        coefficients: &[Affine],
        floor: f32,
        gradients: &[Gradient],
        dx: &mut [f32],
    ) {
        let pairs = x.chunks_exact(pixels).zip(dy.chunks_exact(pixels));
        let channels = coefficients.iter().zip(gradients).cycle();
        for ((dx, (x, dy)), (affine, gradient)) in dx.chunks_exact_mut(pixels).zip(pairs).zip(channels) {
            for (dx, (&x, &dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
                let centred = x - affine.origin;
                let dy = if centred * affine.scale + affine.offset > floor { dy } else { 0.0 };
                *dx = gradient.scale * dy - gradient.slope * centred + gradient.constant;
            }
        }
    }
}
