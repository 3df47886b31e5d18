//! Convolution of any kernel and stride as products of windows and weights.
//!
//! ```text
//! forward           Y[p, o]    = Σ_k X[p, k] · W[k, o]          X: windows of the input,            k = (u, v, c)
//! input gradient    dX[q, c]   = Σ_k G[q, k] · W'[k, c]         G: windows of the output gradient,  k = (u, v, o)
//! weight gradient   dW[k, o]   = Σ_p X[p, k] · dY[p, o]         p runs over all pixels of all images
//! ```
//! With the channels of a pixel side by side, a row of a window is one run in memory. So no matrix of windows is ever
//! built: the product reads the windows where they lie in a frame of zeros, and only the weights are reordered.
//!
//! The input gradient of a strided convolution is cut into phases: input pixels whose positions leave the same rest
//! by the stride meet the same taps, and each phase is a correlation of stride 1. No zero is multiplied.

#![allow(unsafe_code, reason = "tasks write interleaved columns of one result")]

use std::ops::Range;

use rayon::prelude::*;

use super::buffer::Buffer;
use super::conv2d::After;
use super::frame::{Frame, Source, Window};
use super::geometry::Geometry;
use super::pixels::Extent;
use super::product::{LeftRows, PANEL, Pairs, Target, multiply, multiply_pairs};
use super::region::{Region, column_blocks, image_chunks, regions};
use super::scratch::{Scratch, with_scratch};
use super::shared::Shared;
use super::vector::LANES;

/// Positions of a task.
const TASK_POSITIONS: usize = 512;

/// Depth of a product, so that its part of the weights stays in the first level cache.
const DEPTH: usize = 128;

/// Pixels of a product of the weight gradient.
const PAIR_PIXELS: usize = 96;

/// Correlates windows of pictures with weights, writing to some positions of a result.
#[derive(Debug, Clone)]
struct Correlation {
    /// Row and column of the picture under the first tap at the first position; may lie outside.
    first: [isize; 2],
    /// Distance in the picture of two positions.
    step: [usize; 2],
    kernel: [usize; 2],
    /// Positions, `[rows, columns]`.
    grid: [usize; 2],
    /// Row and column of the first position in the result.
    out_first: [usize; 2],
    /// Distance in the result of two positions.
    out_step: [usize; 2],
    /// Weights in panels of at most [`PANEL`] columns, each `[taps · stride, columns]`.
    weights: Buffer,
}

/// Orders weights into panels: `weight(tap, inner, column)` for all taps, inner indices and columns.
fn pack(
    taps: &[[usize; 2]],
    inner: usize,
    width: usize,
    weight: impl Fn([usize; 2], usize, usize) -> f32 + Sync,
) -> Buffer {
    let depth = taps.len() * inner;
    let mut packed = Buffer::take(depth * width);
    packed.par_chunks_mut((depth * PANEL).max(1)).enumerate().for_each(|(panel, packed)| {
        let columns = (width - panel * PANEL).min(PANEL);
        // Taps are neighbours in memory, so they come last.
        for i in 0..inner {
            for (number, &tap) in taps.iter().enumerate() {
                let row = &mut packed[(number * inner + i) * columns..][..columns];
                for (j, value) in row.iter_mut().enumerate() {
                    *value = weight(tap, i, panel * PANEL + j);
                }
            }
        }
    });
    packed
}

/// Reads `[O, C, KH, KW]`, zero beyond its channels.
fn reader(geometry: &Geometry, weight: &[f32]) -> impl Fn(usize, usize, [usize; 2]) -> f32 {
    let Geometry { in_channels, out_channels, kernel, .. } = *geometry;
    move |o, c, [u, v]| {
        if o < out_channels && c < in_channels {
            weight[((o * in_channels + c) * kernel[0] + u) * kernel[1] + v]
        } else {
            0.0
        }
    }
}

/// Writes the convolution of `source` to `out`, and hands each finished part to `after`, which is told its pixels and
/// columns. Returns what `after` returned, pixels ascending and columns ascending within them.
pub(super) fn forward<T: Send>(
    geometry: &Geometry,
    source: Source<'_>,
    weight: &[f32],
    out: &mut [f32],
    after: After<'_, T>,
) -> Vec<T> {
    let Geometry { kernel, stride, padding, out_size, .. } = *geometry;
    let taps: Vec<_> = (0..kernel[0]).flat_map(|u| (0..kernel[1]).map(move |v| [u, v])).collect();
    let read = reader(geometry, weight);
    let (inner, width) = (source.extent.stride, geometry.output().stride);
    let correlation = Correlation {
        first: padding.map(|padding| -padding.cast_signed()),
        step: stride,
        kernel,
        grid: out_size,
        out_first: [0, 0],
        out_step: [1, 1],
        weights: pack(&taps, inner, width, |tap, c, o| read(o, c, tap)),
    };
    correlate(&[correlation], source, geometry.output(), [1, 1], out, false, after)
}

/// Writes or adds the gradient of the input to `dx`.
pub(super) fn input_gradient(geometry: &Geometry, dy: Source<'_>, weight: &[f32], dx: &mut [f32], accumulate: bool) {
    let stride = geometry.stride;
    let phases: Vec<_> = (0..stride[0])
        .flat_map(|row| (0..stride[1]).map(move |column| [row, column]))
        .filter(|phase| (0..2).all(|axis| phase[axis] < geometry.in_size[axis]))
        .map(|phase| phase_of_input_gradient(geometry, weight, phase))
        .collect();
    correlate(&phases, dy, geometry.input_gradient(), stride, dx, accumulate, &|_, _, _| ());
}

/// The correlation of the output gradient that gives the input gradient at `phase`, `phase + stride`, ….
///
/// Input row `s·i + a` meets output row `i + (a + p − u)/s` through tap `u`, for the taps with `u ≡ a + p (mod s)`. The
/// last such tap meets the first output row; ascending output rows meet descending taps.
fn phase_of_input_gradient(geometry: &Geometry, weight: &[f32], phase: [usize; 2]) -> Correlation {
    let Geometry { kernel, stride, padding, in_size, .. } = *geometry;
    let taps_of = |axis: usize| -> Vec<usize> {
        let rest = (phase[axis] + padding[axis]) % stride[axis];
        (rest..kernel[axis]).step_by(stride[axis]).rev().collect()
    };
    let axes = [taps_of(0), taps_of(1)];
    let first = |axis: usize| {
        let last_tap = axes[axis].first().copied().unwrap_or(0).cast_signed();
        ((phase[axis] + padding[axis]).cast_signed() - last_tap).div_euclid(stride[axis].cast_signed())
    };
    let taps: Vec<_> = axes[0].iter().flat_map(|&u| axes[1].iter().map(move |&v| [u, v])).collect();
    let read = reader(geometry, weight);
    let (inner, width) = (geometry.output().stride, geometry.input_gradient().stride);
    Correlation {
        first: [first(0), first(1)],
        step: [1, 1],
        kernel: [axes[0].len(), axes[1].len()],
        grid: [0, 1].map(|axis| (in_size[axis] - phase[axis]).div_ceil(stride[axis])),
        out_first: phase,
        out_step: stride,
        weights: pack(&taps, inner, width, |tap, o, c| read(o, c, tap)),
    }
}

/// Computes correlations that together cover a result; a position of a grid stands for `block` rows and columns of it.
fn correlate<T: Send>(
    correlations: &[Correlation],
    source: Source<'_>,
    extent: Extent,
    block: [usize; 2],
    out: &mut [f32],
    accumulate: bool,
    after: After<'_, T>,
) -> Vec<T> {
    assert!(extent.elements() <= out.len(), "the result exceeds its slice");
    let out = Shared::new(out);
    let grid = [extent.height.div_ceil(block[0]), extent.width.div_ceil(block[1])];
    let regions = regions(extent.images, grid, TASK_POSITIONS, 1);
    let columns = column_blocks(extent.stride, regions.len());
    let tasks: Vec<_> =
        regions.iter().flat_map(|region| columns.iter().map(move |columns| (region, columns))).collect();
    let run = |(region, columns): (&Region, &Range<usize>)| {
        with_scratch(|scratch| {
            for correlation in correlations {
                // SAFETY: tasks differ in their pictures, rows or columns, so no two write the same element.
                unsafe { correlation.run(source, region, columns.clone(), extent, out, accumulate, scratch) }
            }
        });
        let rows = region.rows.start * block[0]..(region.rows.end * block[0]).min(extent.height);
        after(out, pixels(extent, &region.images, rows), columns.clone())
    };
    tasks.into_par_iter().map(run).collect()
}

/// The pixels of some pictures, or of some rows of one.
pub(super) fn pixels(extent: Extent, images: &Range<usize>, rows: Range<usize>) -> Range<usize> {
    let first = (images.start * extent.height + rows.start) * extent.width;
    first..((images.end - 1) * extent.height + rows.end) * extent.width
}

/// Part of the depth of a product.
struct Step {
    /// Where its segments begin in the frame, relative to a position's first tap.
    segments: Vec<usize>,
    /// Elements of a segment.
    depth: usize,
    /// Its first row of the weights.
    first: usize,
}

/// Cuts the depth of a window, whose rows are `row` apart and `segment` long, into steps of about [`DEPTH`].
fn steps(rows: usize, row: usize, segment: usize) -> Vec<Step> {
    if segment == 0 {
        return Vec::new();
    }
    if segment <= DEPTH {
        let group = DEPTH / segment;
        let starts: Vec<_> = (0..rows).collect();
        let groups = starts.chunks(group).map(|group| Step {
            segments: group.iter().map(|u| u * row).collect(),
            depth: segment,
            first: group[0] * segment,
        });
        return groups.collect();
    }
    // Equal parts, so that each is one product.
    let parts = (segment.div_ceil(DEPTH)..).find(|parts| segment.is_multiple_of(*parts)).unwrap_or(segment);
    let depth = segment / parts;
    let cut = |u: usize| {
        (0..parts).map(move |part| Step {
            segments: vec![u * row + part * depth],
            depth,
            first: u * segment + part * depth,
        })
    };
    (0..rows).flat_map(cut).collect()
}

impl Correlation {
    /// Computes some columns of a region.
    ///
    /// # Safety
    /// No other task touches these elements of `out` meanwhile.
    #[allow(clippy::too_many_arguments, reason = "they are the operands of one routine")]
    unsafe fn run(
        &self,
        source: Source<'_>,
        region: &Region,
        columns: Range<usize>,
        extent: Extent,
        out: Shared<'_>,
        accumulate: bool,
        scratch: &mut Scratch,
    ) {
        let rows = region.rows.start..region.rows.end.min(self.grid[0]);
        if rows.is_empty() {
            return;
        }
        let inner = source.extent.stride;
        let frame = Frame::new(source, region.images.clone(), self.window(&rows), 0..inner, &mut scratch.frame);
        let steps = steps(self.kernel[0], frame.row, self.kernel[1] * inner);
        let depth = self.kernel[0] * self.kernel[1] * inner;
        // One empty product writes the zeros of a phase that no tap reaches.
        let nothing = [Step { segments: Vec::new(), depth: 0, first: 0 }];
        let steps = if steps.is_empty() { &nothing } else { steps.as_slice() };
        for panel in columns.step_by(PANEL) {
            let width = (extent.stride - panel).min(PANEL);
            let weights = &self.weights[depth * panel..][..depth * width];
            for (number, step) in steps.iter().enumerate() {
                for (in_frame, image) in region.images.clone().enumerate() {
                    for (i, row) in rows.clone().enumerate() {
                        let start = in_frame * frame.picture + i * self.step[0] * frame.row;
                        let left = LeftRows {
                            values: frame.values.get(start..).unwrap_or_default(),
                            stride: self.step[1] * inner,
                            segments: &step.segments,
                            depth: step.depth,
                        };
                        let out_row = self.out_first[0] + row * self.out_step[0];
                        let pixel = (image * extent.height + out_row) * extent.width + self.out_first[1];
                        let target = Target {
                            values: out,
                            offset: pixel * extent.stride + panel,
                            stride: self.out_step[1] * extent.stride,
                            rows: self.grid[1],
                            width,
                        };
                        let weights = &weights[step.first * width..];
                        // SAFETY: passed on to the caller; positions and columns lie in the task's part.
                        unsafe { multiply(left, weights, target, accumulate || number > 0) }
                    }
                }
            }
        }
    }

    /// What the windows of some rows of positions cover.
    fn window(&self, rows: &Range<usize>) -> Window {
        let size = |axis: usize, positions: usize| {
            if self.kernel[axis] == 0 { 0 } else { (positions - 1) * self.step[axis] + self.kernel[axis] }
        };
        Window {
            first: [self.first[0] + (rows.start * self.step[0]).cast_signed(), self.first[1]],
            size: [size(0, rows.len()), size(1, self.grid[1])],
        }
    }
}

/// Writes the gradient of the weight, `[O, C, KH, KW]`.
pub(super) fn weight_gradient(geometry: &Geometry, source: Source<'_>, dy: &[f32], dw: &mut [f32]) {
    let Geometry { images, kernel, in_channels, .. } = *geometry;
    let (inner, width) = (source.extent.stride, geometry.output().stride);
    let depth = kernel[0] * kernel[1] * inner;
    let columns = column_blocks(width, images);
    let chunks = image_chunks(images, columns.len());
    let tasks: Vec<_> = columns.iter().flat_map(|columns| chunks.iter().map(move |chunk| (columns, chunk))).collect();
    let sums: Vec<Vec<f32>> = tasks
        .into_par_iter()
        .map(|(columns, chunk)| {
            let mut sums = vec![0.0; depth * columns.len()];
            with_scratch(|scratch| {
                add_weight_gradient(geometry, source, dy, chunk.clone(), columns.clone(), &mut sums, scratch);
            });
            sums
        })
        .collect();

    let taps = kernel[0] * kernel[1];
    let row = in_channels * taps;
    dw.par_chunks_mut(LANES * row).enumerate().for_each(|(group, dw)| {
        let o = group * LANES;
        let Some(block) = columns.iter().position(|block| block.contains(&o)) else { return };
        let parts = &sums[block * chunks.len()..][..chunks.len()];
        let width = columns[block].len();
        let place = |k: usize| Some(k % inner).filter(|&c| c < in_channels).map(|c| c * taps + k / inner);
        add_transposed(parts, width, o - columns[block].start, row, place, dw);
    });
}

/// Adds up parts `[K, width]` in their order and writes [`LANES`] of their columns, from `column` on, as rows of `dw`.
///
/// Row `k` of the parts goes to `place(k)` of a row of `dw`, which is `row` long, or nowhere.
pub(super) fn add_transposed(
    parts: &[Vec<f32>],
    width: usize,
    column: usize,
    row: usize,
    place: impl Fn(usize) -> Option<usize>,
    dw: &mut [f32],
) {
    let depth = parts.first().map_or(0, |part| part.len() / width);
    for k in 0..depth {
        let Some(at) = place(k) else { continue };
        let mut sums = [0.0; LANES];
        for part in parts {
            for (sum, value) in sums.iter_mut().zip(&part[k * width + column..][..LANES]) {
                *sum += value;
            }
        }
        for (dw, sum) in dw.chunks_exact_mut(row).zip(sums) {
            dw[at] = sum;
        }
    }
}

/// Adds the gradient over some images to `sums`, `[KH · KW · stride, columns]`.
fn add_weight_gradient(
    geometry: &Geometry,
    source: Source<'_>,
    dy: &[f32],
    images: Range<usize>,
    columns: Range<usize>,
    sums: &mut [f32],
    scratch: &mut Scratch,
) {
    let Geometry { kernel, stride, padding, out_size, .. } = *geometry;
    let inner = source.extent.stride;
    let out = geometry.output();
    let window_row = kernel[1] * inner;
    let sums = Shared::new(sums);
    for Region { images: pictures, rows } in regions(images.len(), out_size, TASK_POSITIONS, 1) {
        let pictures = images.start + pictures.start..images.start + pictures.end;
        let window = Window {
            first: [(rows.start * stride[0]).cast_signed() - padding[0].cast_signed(), -padding[1].cast_signed()],
            size: [(rows.len() - 1) * stride[0] + kernel[0], (out_size[1] - 1) * stride[1] + kernel[1]],
        };
        let frame = Frame::new(source, pictures.clone(), window, 0..inner, &mut scratch.frame);
        let start_of = |(number, image): (usize, usize), (i, row): (usize, usize)| {
            let left = number * frame.picture + i * stride[0] * frame.row;
            let right = (image * out_size[0] + row) * out_size[1] * out.stride;
            (left, right)
        };
        let segments: Vec<_> = pictures
            .enumerate()
            .flat_map(|image| rows.clone().enumerate().map(move |row| start_of(image, row)))
            .collect();
        for segments in segments.chunks(PAIR_PIXELS.div_ceil(out_size[1])) {
            for panel in columns.clone().step_by(PANEL) {
                for u in 0..kernel[0] {
                    let pairs = Pairs {
                        left: &frame.values[u * frame.row..],
                        left_stride: stride[1] * inner,
                        right: &dy[panel..],
                        right_stride: out.stride,
                        segments,
                        depth: out_size[1],
                    };
                    let target = Target {
                        values: sums,
                        offset: u * window_row * columns.len() + panel - columns.start,
                        stride: columns.len(),
                        rows: window_row,
                        width: (columns.end - panel).min(PANEL),
                    };
                    // SAFETY: the sums are this task's own.
                    unsafe { multiply_pairs(pairs, target) }
                }
            }
        }
    }
}
