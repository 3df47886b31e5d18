//! Convolution and its two gradients as products of small matrices.
//!
//! ```text
//! forward           Y[o, p]    = Σ_k W[o, k] · X[k, p]           X: patches of the input,           k = (c, u, v)
//! input gradient    dX[c, q]   = Σ_k W'[c, k] · G[k, q]          G: patches of the output gradient, k = (o, u, v)
//! weight gradient   dW[o, k]   = Σ_p dY[o, p] · X[k, p]          p runs over all pixels of all images
//! ```
//! `W'` is the kernel flipped in both directions with its channels swapped. The column matrices exist
//! only one tile of pixels at a time, in the cache of the core that uses them.
//!
//! Forward and input gradient are computed image by image. The weight gradient is cut into blocks of its
//! rows and, where these are few, the batch into chunks; the chunks' sums are added in order. How many there
//! are follows from the shapes, so the bits are the same whatever the number of threads.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::geometry::Geometry;
use super::patches::Patches;
use super::product::{LANES, Rows, Sizes, TILE, multiply};

/// Pixels that make a task worth its overhead, in images.
const TASK_PIXELS: usize = 512;

/// Tasks of a weight gradient, which bounds its parallelism.
const WEIGHT_TASKS: usize = 16;

/// Rows of the transposed weight gradient per task; their sums should stay in the second level cache.
const WEIGHT_ROWS: usize = 384;

/// Pixels per product of the weight gradient, deep enough to repay loading and storing the sums.
const WEIGHT_TILE: usize = 2 * TILE;

/// Buffers that a thread keeps from task to task.
#[derive(Default)]
struct Scratch {
    framed: Vec<f32>,
    columns: Vec<f32>,
    block: Vec<f32>,
    starts: Vec<usize>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// `[N, C, H, W] × [O, C, KH, KW] → [N, O, OH, OW]`.
pub(super) fn forward(geometry: &Geometry, x: &[f32], weight: &[f32]) -> Vec<f32> {
    correlate(&Patches::of_input(geometry), x, weight, geometry.out_channels)
}

/// The gradient of the input, `[N, C, H, W]`.
pub(super) fn input_gradient(geometry: &Geometry, output_gradient: &[f32], weight: &[f32]) -> Vec<f32> {
    let flipped = flip(weight, geometry.in_channels, geometry.kernel[0] * geometry.kernel[1]);
    let patches = Patches::of_output_gradient(geometry);
    correlate(&patches, output_gradient, &flipped, geometry.in_channels)
}

/// Swaps the channels of `[O, C, taps]` and reverses the taps.
fn flip(weight: &[f32], in_channels: usize, taps: usize) -> Vec<f32> {
    let mut flipped = Vec::with_capacity(weight.len());
    for channel in 0..in_channels {
        for kernels in weight.chunks_exact(in_channels * taps) {
            flipped.extend(kernels[channel * taps..][..taps].iter().rev());
        }
    }
    flipped
}

/// Multiplies `weight`, `[rows, depth]`, by the patches of every picture: `[N, rows, pixels]`.
fn correlate(patches: &Patches, pictures: &[f32], weight: &[f32], rows: usize) -> Vec<f32> {
    let (pixels, depth) = (patches.pixels(), patches.depth());
    let group = TASK_PIXELS.div_ceil(pixels);
    let mut out = vec![0.0; pictures.len() / patches.picture * rows * pixels];

    let tasks = out.par_chunks_mut(group * rows * pixels);
    tasks.zip(pictures.par_chunks(group * patches.picture)).for_each(|(out, pictures)| {
        SCRATCH.with_borrow_mut(|Scratch { framed, columns, block, starts }| {
            let framed = patches.place(pictures, framed);
            columns.resize(depth * TILE, 0.0);
            block.clear();
            block.resize(rows * TILE, 0.0);
            let total = pictures.len() / patches.picture * pixels;
            for start in (0..total).step_by(TILE) {
                let count = TILE.min(total - start);
                patches.gather(framed, 0..depth, start..start + count, starts, columns, TILE);
                let left = Rows { values: weight, stride: depth };
                let right = Rows { values: columns, stride: TILE };
                let sizes = Sizes { rows, columns: TILE, depth };

                let within = start % pixels;
                if within + TILE <= pixels {
                    let out = &mut out[start / pixels * rows * pixels + within..];
                    multiply(left, right, out, pixels, sizes, false);
                } else {
                    // The tile ends with the group or spans several pictures; columns past the end are left over
                    // from an earlier tile and are not copied.
                    multiply(left, right, block, TILE, sizes, false);
                    for (picture, first, column, len) in segments(start, count, pixels) {
                        for (row, values) in block.chunks_exact(TILE).enumerate() {
                            let at = (picture * rows + row) * pixels + first;
                            out[at..at + len].copy_from_slice(&values[column..column + len]);
                        }
                    }
                }
            }
        });
    });
    out
}

/// Cuts `start..start + count` at the borders of pictures: `(picture, first pixel, offset in the range, length)`.
fn segments(start: usize, count: usize, pixels: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let (picture, first) = ((start + done) / pixels, (start + done) % pixels);
        let len = (pixels - first).min(count - done);
        let offset = done;
        done += len;
        (len > 0).then_some((picture, first, offset, len))
    })
}

/// The gradient of the weight, `[O, C, KH, KW]`.
pub(super) fn weight_gradient(geometry: &Geometry, x: &[f32], output_gradient: &[f32]) -> Vec<f32> {
    let patches = Patches::of_input(geometry);
    let depth = patches.depth();
    // Transposed while it is summed, so that the output channels are the vectors.
    let width = geometry.out_channels.next_multiple_of(LANES);
    let row_blocks = depth.div_ceil(WEIGHT_ROWS);
    let images = geometry.images.div_ceil(WEIGHT_TASKS.div_ceil(row_blocks));
    let chunks = geometry.images.div_ceil(images);
    let mut sums = vec![0.0; chunks * depth * width]; // [chunks, depth, width]

    let tasks: Vec<_> = sums
        .chunks_mut(depth * width)
        .zip(x.chunks(images * patches.picture))
        .zip(output_gradient.chunks(images * geometry.out_picture()))
        .flat_map(|((sums, x), gradient)| {
            let blocks = sums.chunks_mut(WEIGHT_ROWS * width).enumerate();
            blocks.map(move |(block, sums)| (block * WEIGHT_ROWS, sums, x, gradient))
        })
        .collect();
    tasks.into_par_iter().for_each(|(first_tap, sums, x, gradient)| {
        let taps = first_tap..first_tap + sums.len() / width;
        add_weight_gradient(geometry, &patches, x, gradient, taps, sums, width);
    });

    let mut weight = vec![0.0; geometry.out_channels * depth];
    weight.par_chunks_mut(LANES * depth).enumerate().for_each(|(block, weight)| {
        for k in 0..depth {
            let mut total = [0.0; LANES];
            for chunk in sums.chunks_exact(depth * width) {
                let values = &chunk[k * width + block * LANES..][..LANES];
                total.iter_mut().zip(values).for_each(|(total, value)| *total += value);
            }
            for (row, total) in weight.chunks_exact_mut(depth).zip(total) {
                row[k] = total;
            }
        }
    });
    weight
}

/// Adds the gradient of the weight's `taps` over some images to `sums`, `[taps, width]`.
fn add_weight_gradient(
    geometry: &Geometry,
    patches: &Patches,
    x: &[f32],
    gradient: &[f32],
    taps: Range<usize>,
    sums: &mut [f32],
    width: usize,
) {
    let pixels = patches.pixels();
    let group = TASK_PIXELS.div_ceil(pixels);
    let pictures = x.chunks(group * patches.picture);
    SCRATCH.with_borrow_mut(|Scratch { framed, columns, block, starts }| {
        columns.resize(taps.len() * WEIGHT_TILE, 0.0);
        block.clear();
        block.resize(WEIGHT_TILE * width, 0.0);
        for (x, gradient) in pictures.zip(gradient.chunks(group * geometry.out_picture())) {
            let framed = patches.place(x, framed);
            let total = x.len() / patches.picture * pixels;
            for start in (0..total).step_by(WEIGHT_TILE) {
                let count = WEIGHT_TILE.min(total - start);
                patches.gather(framed, taps.clone(), start..start + count, starts, columns, WEIGHT_TILE);
                for (picture, first, offset, len) in segments(start, count, pixels) {
                    let gradient = &gradient[picture * geometry.out_picture()..][..geometry.out_picture()];
                    transpose(gradient, pixels, first, &mut block[offset * width..][..len * width], width);
                }
                multiply(
                    Rows { values: columns, stride: WEIGHT_TILE },
                    Rows { values: block, stride: width },
                    sums,
                    width,
                    Sizes { rows: taps.len(), columns: width, depth: count },
                    true,
                );
            }
        }
    });
}

/// Writes pixels from `first` on of every channel, `[O, pixels]`, as rows of `width` to `out`.
fn transpose(gradient: &[f32], pixels: usize, first: usize, out: &mut [f32], width: usize) {
    for (channel, plane) in gradient.chunks_exact(pixels).enumerate() {
        for (row, &value) in out.chunks_exact_mut(width).zip(&plane[first..]) {
            row[channel] = value;
        }
    }
}
