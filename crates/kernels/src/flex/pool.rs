//! Maximum pooling and the mean over all positions, with their gradients.

use rayon::prelude::*;

use super::buffer::Buffer;
use super::pixels::Extent;
use super::vector::LANES;
use super::vectorized::vectorized;

/// The sizes of a maximum pooling over square windows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pooling {
    pub(super) input: Extent,
    pub(super) output: Extent,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
}

impl Pooling {
    /// The window's tap `u` of position `i` along an axis of `extent` pixels, unless it lies outside.
    fn at(&self, i: usize, u: usize, extent: usize) -> Option<usize> {
        (i * self.stride + u).checked_sub(self.padding).filter(|&at| at < extent)
    }

    /// The largest value of each window, and the number of the tap that holds it; of equal values the first.
    pub(super) fn forward(&self, x: &[f32]) -> (Buffer, Vec<u8>) {
        let mut y = Buffer::take(self.output.elements());
        let mut taps = vec![0; self.output.elements()];
        y.par_chunks_mut(self.output.picture())
            .zip(taps.par_chunks_mut(self.output.picture()))
            .zip(x.par_chunks(self.input.picture()))
            .for_each(|((y, taps), x)| largest(self, x, y, taps));
        (y, taps)
    }

    /// The gradient of the input.
    pub(super) fn backward(&self, dy: &[f32], taps: &[u8]) -> Buffer {
        let mut dx = Buffer::take(self.input.elements());
        dx.par_chunks_mut(self.input.picture())
            .zip(taps.par_chunks(self.output.picture()))
            .zip(dy.par_chunks(self.output.picture()))
            .for_each(|((dx, taps), dy)| scatter(self, dy, taps, dx));
        dx
    }
}

/// The number of a tap, which [`crate::max_pool2d`] keeps below 256.
#[allow(clippy::cast_possible_truncation, reason = "kernels are at most 15 wide")]
fn number(tap: usize) -> u8 {
    tap as u8
}

vectorized! {
    /// [`Pooling::forward`] of one picture.
    fn largest(pooling: &Pooling, x: &[f32], y: &mut [f32], taps: &mut [u8]) {
        let Pooling { input, output, kernel, .. } = *pooling;
        let stride = input.stride;
        let pixels = y.chunks_exact_mut(stride).zip(taps.chunks_exact_mut(stride));
        for (pixel, (y, taps)) in pixels.enumerate() {
            let (i, j) = (pixel / output.width, pixel % output.width);
            let mut is_first = true;
            let (y, _) = y.as_chunks_mut::<LANES>();
            let (taps, _) = taps.as_chunks_mut::<LANES>();
            for u in 0..kernel {
                let Some(row) = pooling.at(i, u, input.height) else { continue };
                for v in 0..kernel {
                    let Some(column) = pooling.at(j, v, input.width) else { continue };
                    let x = &x[(row * input.width + column) * stride..][..stride];
                    let tap = number(u * kernel + v);
                    for ((y, taps), x) in y.iter_mut().zip(taps.iter_mut()).zip(x.as_chunks::<LANES>().0) {
                        for lane in 0..LANES {
                            // A NaN wins and stays.
                            let wins = is_first || x[lane] > y[lane] || x[lane].is_nan();
                            y[lane] = if wins { x[lane] } else { y[lane] };
                            taps[lane] = if wins { tap } else { taps[lane] };
                        }
                    }
                    is_first = false;
                }
            }
        }
    }
}

vectorized! {
    /// [`Pooling::backward`] of one picture.
    fn scatter(pooling: &Pooling, dy: &[f32], taps: &[u8], dx: &mut [f32]) {
        let Pooling { input, output, kernel, .. } = *pooling;
        let stride = input.stride;
        dx.fill(0.0);
        for (pixel, (dy, taps)) in dy.chunks_exact(stride).zip(taps.chunks_exact(stride)).enumerate() {
            let (i, j) = (pixel / output.width, pixel % output.width);
            let (dy, taps) = (dy.as_chunks::<LANES>().0, taps.as_chunks::<LANES>().0);
            for u in 0..kernel {
                let Some(row) = pooling.at(i, u, input.height) else { continue };
                for v in 0..kernel {
                    let Some(column) = pooling.at(j, v, input.width) else { continue };
                    let dx = &mut dx[(row * input.width + column) * stride..][..stride];
                    let tap = number(u * kernel + v);
                    for ((dx, dy), taps) in dx.as_chunks_mut::<LANES>().0.iter_mut().zip(dy).zip(taps) {
                        for lane in 0..LANES {
                            dx[lane] += if taps[lane] == tap { dy[lane] } else { 0.0 };
                        }
                    }
                }
            }
        }
    }
}

/// The mean of each channel over the positions of each picture, `[N, channels]`.
pub(super) fn global_mean(x: &[f32], extent: Extent, channels: usize) -> Vec<f32> {
    let positions = extent.height * extent.width;
    let mut means = vec![0.0; extent.images * channels];
    means.par_chunks_mut(channels).zip(x.par_chunks(extent.picture())).for_each(|(means, x)| {
        let mut sums = vec![0.0f64; channels];
        for row in x.chunks_exact(extent.width * extent.stride) {
            let mut sum = vec![0.0f32; channels];
            for pixel in row.chunks_exact(extent.stride) {
                sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
            }
            sums.iter_mut().zip(sum).for_each(|(sums, sum)| *sums += f64::from(sum));
        }
        for (mean, sum) in means.iter_mut().zip(sums) {
            *mean = super::batch_norm::round(sum / positions as f64);
        }
    });
    means
}

/// The gradient of [`global_mean`]'s input.
pub(super) fn global_mean_gradient(d: &[f32], extent: Extent, channels: usize) -> Buffer {
    let share = super::batch_norm::round(1.0 / (extent.height * extent.width) as f64);
    let mut dx = Buffer::take(extent.elements());
    dx.par_chunks_mut(extent.picture()).zip(d.par_chunks(channels)).for_each(|(dx, d)| {
        for pixel in dx.chunks_exact_mut(extent.stride) {
            let (values, padding) = pixel.split_at_mut(channels);
            values.iter_mut().zip(d).for_each(|(dx, d)| *dx = d * share);
            padding.fill(0.0);
        }
    });
    dx
}
