//! Batch normalization of pixels, its ReLU, the residual addition, and their gradients.
//!
//! ```text
//! forward     y  = a·(x − m) + b                        a = gamma/σ, σ = √(var + eps)
//! backward    dx = a·(dy − mean(dy) − x̂·mean(dy·x̂))     x̂ = (x − m)/σ
//! ```
//! Memory is the limit, so each loop does all there is to do with what it reads. Sums run in f32 over at most
//! [`BLOCK`] pixels and in f64 beyond; mean and variance are taken of deviations from the first block's mean, so a large
//! common offset costs no digits.

#![allow(unsafe_code, reason = "the statistics of some columns are read while other tasks write the others")]

use std::ops::Range;

use rayon::prelude::*;

use super::frame::Affine;
use super::pixels::padded;
use super::shared::Shared;
use super::vector::LANES;
use super::vectorized::vectorized;

/// Pixels summed in f32 before the sum goes to f64.
const BLOCK: usize = 64;

/// Elements below which splitting a loop over threads does not pay.
const TASK_ELEMENTS: usize = 1 << 15;

/// Statistics of each channel over the batch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statistics {
    pub(super) mean: Vec<f64>,
    /// Biased, without epsilon.
    pub(super) var: Vec<f64>,
}

/// Mean and squared deviations of some channels over some pixels.
#[derive(Debug)]
pub(super) struct Moments {
    columns: Range<usize>,
    pixels: usize,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    /// Measures columns of pixels `stride` apart.
    ///
    /// # Safety
    /// Nobody writes these elements meanwhile.
    pub(super) unsafe fn new(values: Shared<'_>, stride: usize, pixels: Range<usize>, columns: Range<usize>) -> Self {
        let mut moments =
            Self { pixels: pixels.len(), mean: Vec::new(), squares: Vec::new(), columns: columns.clone() };
        for column in columns.step_by(LANES) {
            let (mean, squares) = lane_moments(&Lane { values, stride, column }, pixels.clone());
            moments.mean.extend(mean);
            moments.squares.extend(squares);
        }
        moments
    }
}

/// A vector of channels of every pixel. Whoever makes one promises that nobody writes them while it lives.
struct Lane<'a> {
    values: Shared<'a>,
    stride: usize,
    column: usize,
}

impl Lane<'_> {
    #[inline(always)]
    fn at(&self, pixel: usize) -> &[f32] {
        let start = pixel * self.stride + self.column;
        // SAFETY: promised by whoever made this.
        unsafe { self.values.read(start..start + LANES) }
    }
}

vectorized! {
    /// Mean and squared deviations of a vector of channels over some pixels.
    fn lane_moments(values: &Lane<'_>, pixels: Range<usize>) -> ([f64; LANES], [f64; LANES]) {
        let n = pixels.len() as f64;
        let mut origin = [0.0; LANES];
        let first = pixels.start..pixels.end.min(pixels.start + BLOCK);
        for pixel in first.clone() {
            let values = values.at(pixel);
            for lane in 0..LANES {
                origin[lane] += values[lane];
            }
        }
        let count = first.len() as f32;
        for origin in &mut origin {
            *origin /= count;
        }
        let (mut sums, mut squares) = ([0.0f64; LANES], [0.0f64; LANES]);
        for start in pixels.clone().step_by(BLOCK) {
            let (mut sum, mut square) = ([0.0f32; LANES], [0.0f32; LANES]);
            for pixel in start..pixels.end.min(start + BLOCK) {
                let values = values.at(pixel);
                for lane in 0..LANES {
                    let deviation = values[lane] - origin[lane];
                    sum[lane] += deviation;
                    square[lane] += deviation * deviation;
                }
            }
            for lane in 0..LANES {
                sums[lane] += f64::from(sum[lane]);
                squares[lane] += f64::from(square[lane]);
            }
        }
        for lane in 0..LANES {
            squares[lane] = (squares[lane] - sums[lane] * sums[lane] / n).max(0.0);
            sums[lane] = f64::from(origin[lane]) + sums[lane] / n;
        }
        (sums, squares)
    }
}

impl Statistics {
    /// Combines the moments of all parts in their order.
    ///
    /// # Source
    /// Chan, Golub and LeVeque, *Updating Formulae and a Pairwise Algorithm for Computing Sample Variances*, 1979.
    pub(super) fn combine(channels: usize, parts: &[Moments]) -> Self {
        let mut statistics = Self { mean: vec![0.0; channels], var: vec![0.0; channels] };
        let mut counts = vec![0.0; channels];
        for part in parts {
            let n = part.pixels as f64;
            let columns = part.columns.start..part.columns.end.min(channels);
            for (i, channel) in columns.enumerate() {
                let (mean, squares) = (&mut statistics.mean[channel], &mut statistics.var[channel]);
                let total = counts[channel] + n;
                let distance = part.mean[i] - *mean;
                *mean += distance * n / total;
                *squares += part.squares[i] + distance * distance * counts[channel] * n / total;
                counts[channel] = total;
            }
        }
        statistics.var.iter_mut().zip(counts).for_each(|(squares, count)| *squares /= count);
        statistics
    }

    /// Measures a whole batch of pixels `stride` apart.
    pub(super) fn of(values: &[f32], stride: usize, channels: usize) -> Self {
        let pixels = values.len() / stride;
        let per_task = TASK_ELEMENTS.div_ceil(stride);
        let shared = Shared::read_only(values);
        let starts: Vec<_> = (0..pixels).step_by(per_task).collect();
        let parts: Vec<_> = starts
            .into_par_iter()
            // SAFETY: the values are borrowed, so nobody writes them.
            .map(|start| unsafe { Moments::new(shared, stride, start..(start + per_task).min(pixels), 0..stride) })
            .collect();
        Self::combine(channels, &parts)
    }

    /// The normalization `gamma · (x − mean) / √(var + eps) + beta`, padded with zeros to whole vectors.
    pub(super) fn affine(&self, gamma: &[f32], beta: &[f32], eps: f64) -> Affine {
        let width = padded(self.mean.len());
        let mut affine = Affine { origin: vec![0.0; width], scale: vec![0.0; width], offset: vec![0.0; width] };
        for (channel, (&mean, &var)) in self.mean.iter().zip(&self.var).enumerate() {
            let origin = round(mean);
            let scale = f64::from(gamma[channel]) / (var + eps).sqrt();
            affine.origin[channel] = origin;
            affine.scale[channel] = round(scale);
            affine.offset[channel] = round(f64::from(beta[channel]) + scale * (f64::from(origin) - mean));
        }
        affine
    }
}

/// The nearest f32.
#[allow(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
pub(super) fn round(value: f64) -> f32 {
    value as f32
}

/// What is added to a normalization before its ReLU.
#[derive(Clone, Copy)]
pub(super) enum Shortcut<'a> {
    None,
    /// The values themselves.
    Identity(&'a [f32]),
    /// The values normalized.
    Normalized(&'a [f32], &'a Affine),
}

/// Writes the normalization of `x` plus the shortcut, cut at zero if `relu`.
pub(super) fn normalize(x: &[f32], affine: &Affine, shortcut: Shortcut<'_>, relu: bool, y: &mut [f32]) {
    let task = task(affine);
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    y.par_chunks_mut(task).zip(x.par_chunks(task)).enumerate().for_each(|(number, (y, x))| {
        let part = |values: &'_ [f32]| number * task..(number * task + y.len()).min(values.len());
        match shortcut {
            Shortcut::None => normalize_part::<NONE>(x, x, affine, affine, floor, y),
            Shortcut::Identity(other) => {
                let part = part(other);
                normalize_part::<IDENTITY>(x, &other[part], affine, affine, floor, y);
            }
            Shortcut::Normalized(other, normalization) => {
                let part = part(other);
                normalize_part::<NORMALIZED>(x, &other[part], affine, normalization, floor, y);
            }
        }
    });
}

/// Elements of a task: whole pixels.
fn task(affine: &Affine) -> usize {
    let stride = affine.scale.len();
    TASK_ELEMENTS.div_ceil(stride) * stride
}

const NONE: u8 = 0;
const IDENTITY: u8 = 1;
const NORMALIZED: u8 = 2;

vectorized! {
    /// See [`normalize`].
    fn normalize_part<const SHORTCUT: u8>(
        x: &[f32],
        other: &[f32],
        affine: &Affine,
        normalization: &Affine,
        floor: f32,
        y: &mut [f32],
    ) {
        let stride = affine.scale.len();
        let pixels = x.chunks_exact(stride).zip(other.chunks_exact(stride));
        for (y, (x, other)) in y.chunks_exact_mut(stride).zip(pixels) {
            let (y, _) = y.as_chunks_mut::<LANES>();
            let (x, other) = (x.as_chunks::<LANES>().0, other.as_chunks::<LANES>().0);
            let [own, others] = [lanes(affine), lanes(normalization)];
            for (group, (y, x)) in y.iter_mut().zip(x).enumerate() {
                let (other, own) = (&other[group], own.map(|values| &values[group]));
                let others = others.map(|values| &values[group]);
                for lane in 0..LANES {
                    let mut value = (x[lane] - own[0][lane]) * own[1][lane] + own[2][lane];
                    if SHORTCUT == IDENTITY {
                        value += other[lane];
                    }
                    if SHORTCUT == NORMALIZED {
                        value += (other[lane] - others[0][lane]) * others[1][lane] + others[2][lane];
                    }
                    // Unlike `max`, this keeps a NaN.
                    y[lane] = if value < floor { floor } else { value };
                }
            }
        }
    }
}

/// Origins, scales and offsets as vectors.
#[inline(always)]
fn lanes(affine: &Affine) -> [&[[f32; LANES]]; 3] {
    [&affine.origin, &affine.scale, &affine.offset].map(|values| values.as_chunks::<LANES>().0)
}

/// Where the gradient of a normalization's output passes a ReLU.
#[derive(Clone, Copy)]
pub(super) enum Mask<'a> {
    /// Everywhere: there is none.
    None,
    /// Where the normalization itself is positive or NaN, computed again by the instructions of [`normalize`].
    Own,
    /// Where these values, the ReLU's output, are positive or NaN.
    Output(&'a [f32]),
}

const PASS: u8 = 0;
const OWN: u8 = 1;
const OUTPUT: u8 = 2;

/// The gradients of a normalization's parameters, and the coefficients of its input's.
#[derive(Debug, Clone, Default)]
pub(super) struct Gradient {
    pub(super) gamma: Vec<f32>,
    pub(super) beta: Vec<f32>,
    /// `dx = scale·dz − slope·(x − origin) + constant`, padded with zeros to whole vectors.
    scale: Vec<f32>,
    slope: Vec<f32>,
    constant: Vec<f32>,
}

/// `Σ dz` and `Σ dz·(x − origin)` of each channel over some pixels.
pub(super) type Sums = Vec<[f64; 2]>;

impl Gradient {
    /// Sums the gradient `dz` of a normalization's output, which is `d` where the mask lets it pass.
    pub(super) fn new(x: &[f32], d: &[f32], mask: Mask<'_>, norm: &Normalization) -> Self {
        let task = task(&norm.affine);
        let starts: Vec<_> = (0..x.len()).step_by(task).collect();
        let parts: Vec<_> = starts
            .into_par_iter()
            .map(|start| {
                let part = start..(start + task).min(x.len());
                sums(&x[part.clone()], &d[part.clone()], mask, part, &norm.affine)
            })
            .collect();
        Self::combine(&parts, x.len() / norm.affine.scale.len(), norm)
    }

    /// Adds up the sums of all parts in their order; `pixels` is their number in all.
    pub(super) fn combine(parts: &[Sums], pixels: usize, norm: &Normalization) -> Self {
        let n = pixels as f64;
        let width = norm.affine.scale.len();
        let zeros = || vec![0.0; width];
        let mut gradient = Self { scale: zeros(), slope: zeros(), constant: zeros(), ..Self::default() };
        for (channel, &gamma) in norm.gamma.iter().enumerate() {
            let [sum, product] =
                parts.iter().fold([0.0; 2], |[s, p], part| [s + part[channel][0], p + part[channel][1]]);
            let inv_std = (norm.statistics.var[channel] + norm.eps).sqrt().recip();
            let rounding = norm.statistics.mean[channel] - f64::from(norm.affine.origin[channel]);
            let normalized = inv_std * (product - rounding * sum); // Σ dz·x̂
            let scale = f64::from(gamma) * inv_std;
            let slope = scale * inv_std * normalized / n;
            gradient.scale[channel] = round(scale);
            gradient.slope[channel] = round(slope);
            gradient.constant[channel] = round(slope * rounding - scale * sum / n);
            gradient.gamma.push(round(normalized));
            gradient.beta.push(round(sum));
        }
        gradient
    }

    /// Replaces `x` by its gradient, and `d` by `dz`.
    pub(super) fn replace_input(&self, x: &mut [f32], d: &mut [f32], mask: Mask<'_>, affine: &Affine) {
        let task = task(affine);
        x.par_chunks_mut(task).zip(d.par_chunks_mut(task)).enumerate().for_each(|(number, (x, d))| {
            let start = number * task;
            match mask {
                Mask::None => replace_input_part::<PASS>(x, d, &[], affine, self),
                Mask::Own => replace_input_part::<OWN>(x, d, &[], affine, self),
                Mask::Output(out) => {
                    replace_input_part::<OUTPUT>(x, d, &out[start..start + x.len()], affine, self);
                }
            }
        });
    }

    /// Replaces `d` by the gradient of `x`.
    pub(super) fn replace_gradient(&self, x: &[f32], d: &mut [f32], mask: Mask<'_>, affine: &Affine) {
        let task = task(affine);
        d.par_chunks_mut(task).zip(x.par_chunks(task)).enumerate().for_each(|(number, (d, x))| {
            let start = number * task;
            match mask {
                Mask::None => replace_gradient_part::<PASS>(x, d, &[], affine, self),
                Mask::Own => replace_gradient_part::<OWN>(x, d, &[], affine, self),
                Mask::Output(out) => {
                    replace_gradient_part::<OUTPUT>(x, d, &out[start..start + x.len()], affine, self);
                }
            }
        });
    }
}

/// A normalization by the batch's statistics, as forward and backward share it.
#[derive(Debug, Clone)]
pub(super) struct Normalization {
    pub(super) statistics: Statistics,
    pub(super) affine: Affine,
    pub(super) gamma: Vec<f32>,
    pub(super) eps: f64,
}

impl Normalization {
    pub(super) fn new(statistics: Statistics, gamma: &[f32], beta: &[f32], eps: f64) -> Self {
        let affine = statistics.affine(gamma, beta, eps);
        Self { statistics, affine, gamma: gamma.to_vec(), eps }
    }
}

/// The sums of some pixels; `part` is where they lie in the output that a mask may hold.
pub(super) fn sums(x: &[f32], d: &[f32], mask: Mask<'_>, part: Range<usize>, affine: &Affine) -> Sums {
    let mut sums = vec![[0.0; 2]; affine.scale.len()];
    match mask {
        Mask::None => sums_part::<PASS>(x, d, &[], affine, &mut sums),
        Mask::Own => sums_part::<OWN>(x, d, &[], affine, &mut sums),
        Mask::Output(out) => sums_part::<OUTPUT>(x, d, &out[part], affine, &mut sums),
    }
    sums
}

vectorized! {
    /// See [`sums`].
    fn sums_part<const MASK: u8>(x: &[f32], d: &[f32], out: &[f32], affine: &Affine, sums: &mut [[f64; 2]]) {
        let stride = affine.scale.len();
        let [origins, scales, offsets] = lanes(affine);
        let block = BLOCK * stride;
        // Of a mask that is not read, any slice of the right length serves.
        let out = if MASK == OUTPUT { out } else { d };
        for ((x, d), out) in x.chunks(block).zip(d.chunks(block)).zip(out.chunks(block)) {
            let coefficients = origins.iter().zip(scales).zip(offsets);
            for (group, (sums, ((origin, scale), offset))) in sums.chunks_exact_mut(LANES).zip(coefficients).enumerate() {
                // One group at a time, so that its sums stay in registers.
                let (mut sum, mut product) = ([0.0f32; LANES], [0.0f32; LANES]);
                let pixels = x.chunks_exact(stride).zip(d.chunks_exact(stride)).zip(out.chunks_exact(stride));
                for ((x, d), out) in pixels {
                    let [x, d, out] = [x, d, out].map(|values| &values.as_chunks::<LANES>().0[group]);
                    for lane in 0..LANES {
                        let centred = x[lane] - origin[lane];
                        let passes = match MASK {
                            OWN => !is_cut(centred * scale[lane] + offset[lane]),
                            OUTPUT => !is_cut(out[lane]),
                            _ => true,
                        };
                        let dz = kept(d[lane], passes);
                        sum[lane] += dz;
                        product[lane] += dz * centred;
                    }
                }
                for lane in 0..LANES {
                    sums[lane][0] += f64::from(sum[lane]);
                    sums[lane][1] += f64::from(product[lane]);
                }
            }
        }
    }
}

vectorized! {
    /// See [`Gradient::replace_input`].
    fn replace_input_part<const MASK: u8>(
        x: &mut [f32],
        d: &mut [f32],
        out: &[f32],
        affine: &Affine,
        gradient: &Gradient,
    ) {
        let stride = affine.scale.len();
        for (pixel, (x, d)) in x.chunks_exact_mut(stride).zip(d.chunks_exact_mut(stride)).enumerate() {
            let (x, d) = (x.as_chunks_mut::<LANES>().0, d.as_chunks_mut::<LANES>().0);
            let out = if MASK == OUTPUT { &out[pixel * stride..][..stride] } else { &[] };
            let out = out.as_chunks::<LANES>().0;
            for (group, (x, d)) in x.iter_mut().zip(d).enumerate() {
                let out = if MASK == OUTPUT { &out[group] } else { &[0.0; LANES] };
                let (dz, dx) = differentiate::<MASK>(x, d, out, affine, gradient, group);
                (*x, *d) = (dx, dz);
            }
        }
    }
}

vectorized! {
    /// See [`Gradient::replace_gradient`].
    fn replace_gradient_part<const MASK: u8>(
        x: &[f32],
        d: &mut [f32],
        out: &[f32],
        affine: &Affine,
        gradient: &Gradient,
    ) {
        let stride = affine.scale.len();
        for (pixel, (x, d)) in x.chunks_exact(stride).zip(d.chunks_exact_mut(stride)).enumerate() {
            let (x, d) = (x.as_chunks::<LANES>().0, d.as_chunks_mut::<LANES>().0);
            let out = if MASK == OUTPUT { &out[pixel * stride..][..stride] } else { &[] };
            let out = out.as_chunks::<LANES>().0;
            for (group, (x, d)) in x.iter().zip(d).enumerate() {
                let out = if MASK == OUTPUT { &out[group] } else { &[0.0; LANES] };
                (_, *d) = differentiate::<MASK>(x, d, out, affine, gradient, group);
            }
        }
    }
}

/// Whether a ReLU stops the gradient at a value. It passes at a NaN, as Burn's does, so that none is hidden.
#[inline(always)]
fn is_cut(value: f32) -> bool {
    value <= 0.0
}

/// The value or zero. Without a branch, which would keep the loops around it from becoming vectors.
#[inline(always)]
fn kept(value: f32, keep: bool) -> f32 {
    f32::from_bits(value.to_bits() & u32::from(keep).wrapping_neg())
}

/// `dz` and `dx` of one vector of channels.
#[inline(always)]
fn differentiate<const MASK: u8>(
    x: &[f32; LANES],
    d: &[f32; LANES],
    out: &[f32; LANES],
    affine: &Affine,
    gradient: &Gradient,
    group: usize,
) -> ([f32; LANES], [f32; LANES]) {
    let [origin, scale, offset] = lanes(affine).map(|values| &values[group]);
    let [factor, slope, constant] =
        [&gradient.scale, &gradient.slope, &gradient.constant].map(|values| &values.as_chunks::<LANES>().0[group]);
    let (mut dz, mut dx) = ([0.0; LANES], [0.0; LANES]);
    for lane in 0..LANES {
        let centred = x[lane] - origin[lane];
        let passes = match MASK {
            OWN => !is_cut(centred * scale[lane] + offset[lane]),
            OUTPUT => !is_cut(out[lane]),
            _ => true,
        };
        dz[lane] = kept(d[lane], passes);
        dx[lane] = factor[lane] * dz[lane] - slope[lane] * centred + constant[lane];
    }
    (dz, dx)
}
