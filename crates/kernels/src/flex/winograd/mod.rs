//! Convolution 3×3 with stride 1 by Winograd's minimal filtering F(4×4, 3×3).
//!
//! ```text
//! forward           Y  = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A      d: 6×6 tile of the input, Y: 4×4 tile of the output
//! input gradient    the same on the output gradient, with the kernel flipped and its channels swapped
//! weight gradient   dg = Gᵀ [ Σ (Bᵀ d B) ⊙ (A dY Aᵀ) ] G   the sum runs over all tiles of all images
//! ```
//! A tile takes 36 multiplications per pair of channels in place of 144. Summed over channels, the `⊙` is one matrix
//! product for each of the 36 places in a tile.
//!
//! The interpolation points are `0, ±1/√2, ±√2, ∞`. The usual `0, ±1, ±2, ∞` lose three times as much: against float64, on
//! 64 channels of normal numbers, the largest error is 1.2e-6 of the largest output with these points, 3.6e-6 with the
//! usual ones and 1.1e-6 for the plain sum in f32 (a test of `tile.rs` prints them). These points also make the first
//! and last row of `Bᵀ` free of a factor.
//!
//! # Source
//! Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*, 2015. <https://arxiv.org/abs/1509.09308>; the
//! matrices for other points follow from Cook's and Toom's interpolation.

#![allow(unsafe_code, reason = "transforms take raw pointers, and tasks write interleaved columns")]

mod tile;

use std::ops::Range;

use rayon::prelude::*;

use tile::{IN, OUT, PLACES, filter_gradient_tile, filter_tile, gradient_tile, input_tile, output_tile};

use crate::flex::buffer::Buffer;
use crate::flex::conv2d::After;
use crate::flex::direct::{add_transposed, pixels};
use crate::flex::frame::{Frame, Source, Window};
use crate::flex::geometry::Geometry;
use crate::flex::pixels::Extent;
use crate::flex::product::{LeftRows, PANEL, Pairs, Target, multiply, multiply_pairs};
use crate::flex::region::{Region, column_blocks, image_chunks, regions};
use crate::flex::scratch::{Scratch, with_scratch};
use crate::flex::shared::Shared;
use crate::flex::vector::LANES;

/// Bytes of transformed tiles that are at work at once; they should fit into the second level cache with the filters.
const TILE_BYTES: usize = 448 << 10;

/// Output pixels of a task.
const TASK_PIXELS: usize = 1024;

/// Channels on either side of a block of the weight gradient. Its sums, 36 · 64 · 64 floats, stay in a core's second level
/// cache; and more blocks mean fewer chunks of the batch, each of which zeroes, transforms and adds sums of its own.
const BLOCK: usize = PANEL;

/// Whether the tiles save work: a 3×3 kernel of stride 1 on whole vectors of channels, and tiles that are mostly full.
pub(in crate::flex) fn applies(geometry: &Geometry) -> bool {
    let Geometry { kernel, stride, padding, in_size, out_size, .. } = *geometry;
    let fits = |[rows, columns]: [usize; 2]| {
        let tiles = rows.div_ceil(OUT) * columns.div_ceil(OUT);
        // Three fifths more stand for the transforms.
        8 * tiles * PLACES <= 5 * rows * columns * 9
    };
    kernel == [3, 3]
        && stride == [1, 1]
        && padding.iter().all(|&padding| padding <= 2)
        && geometry.in_stride().is_multiple_of(LANES)
        && fits(in_size)
        && fits(out_size)
}

/// Writes the convolution; see [`crate::flex::direct::forward`].
pub(in crate::flex) fn forward<T: Send>(
    geometry: &Geometry,
    source: Source<'_>,
    weight: &[f32],
    out: &mut [f32],
    after: After<'_, T>,
) -> Vec<T> {
    let extent = geometry.output();
    let filters = transform_filters(geometry, weight, Direction::Forward);
    let first = geometry.padding.map(|padding| -padding.cast_signed());
    correlate(source, first, &filters, extent, out, false, after)
}

/// Writes or adds the gradient of the input; see [`crate::flex::direct::input_gradient`].
pub(in crate::flex) fn input_gradient(
    geometry: &Geometry,
    dy: Source<'_>,
    weight: &[f32],
    dx: &mut [f32],
    accumulate: bool,
) {
    let extent = geometry.input_gradient();
    let filters = transform_filters(geometry, weight, Direction::Backward);
    let first = geometry.padding.map(|padding| padding.cast_signed() - 2);
    correlate(dy, first, &filters, extent, dx, accumulate, &|_, _, _| ());
}

/// Which way a convolution goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// From input channels to output channels.
    Forward,
    /// From output channels to input channels, with the kernel flipped.
    Backward,
}

/// Filters as `[36, panels, inner, columns]`: for each place the right operand of a product, in panels.
struct Filters {
    values: Buffer,
    inner: usize,
    width: usize,
}

impl Filters {
    /// The panel that begins at `column`, for one place.
    fn panel(&self, place: usize, column: usize) -> &[f32] {
        let width = (self.width - column).min(PANEL);
        &self.values[self.inner * (place * self.width + column)..][..self.inner * width]
    }
}

/// `G g Gᵀ` of all pairs of channels.
fn transform_filters(geometry: &Geometry, weight: &[f32], direction: Direction) -> Filters {
    let (inner, width) = match direction {
        Direction::Forward => (geometry.in_stride(), geometry.output().stride),
        Direction::Backward => (geometry.output().stride, geometry.input_gradient().stride),
    };
    let mut values = Buffer::take(PLACES * inner * width);
    let shared = Shared::new(&mut values);
    // A task is some rows of one panel; 64 rows repay its overhead.
    let panels = (0..width).step_by(PANEL);
    let tasks: Vec<_> = panels.flat_map(|panel| (0..inner).step_by(64).map(move |row| (panel, row))).collect();
    tasks.into_par_iter().for_each(|(panel, first)| {
        let columns = (width - panel).min(PANEL);
        for row in first..(first + 64).min(inner) {
            for group in (0..columns).step_by(LANES) {
                let filters = gather_filters(geometry, weight, direction, row, panel + group);
                let mut places = [[0.0; LANES]; PLACES];
                filter_tile(&filters, &mut places);
                for (place, lanes) in places.iter().enumerate() {
                    let at = inner * (place * width + panel) + row * columns + group;
                    // SAFETY: each task writes its own rows of its own panel.
                    unsafe { shared.range(at..at + LANES) }.copy_from_slice(lanes);
                }
            }
        }
    });
    Filters { values, inner, width }
}

#[allow(clippy::needless_range_loop, reason = "the lane is a column of the taps")]
/// The nine taps of the filters from channel `inner` to [`LANES`] channels from `outer` on, zero beyond the channels.
fn gather_filters(
    geometry: &Geometry,
    weight: &[f32],
    direction: Direction,
    inner: usize,
    outer: usize,
) -> [[f32; LANES]; 9] {
    let mut taps = [[0.0; LANES]; 9];
    for lane in 0..LANES {
        let (o, c) = match direction {
            Direction::Forward => (outer + lane, inner),
            Direction::Backward => (inner, outer + lane),
        };
        if o < geometry.out_channels && c < geometry.in_channels {
            let filter = &weight[(o * geometry.in_channels + c) * 9..][..9];
            for (tap, &value) in filter.iter().enumerate() {
                taps[if direction == Direction::Forward { tap } else { 8 - tap }][lane] = value;
            }
        }
    }
    taps
}

/// A tile of the output: where it begins and how much of it lies inside the picture.
#[derive(Clone, Copy)]
struct OutTile {
    offset: usize,
    rows: usize,
    columns: usize,
}

/// The tiles of a region, as offsets in its frame and in the output.
fn tiles_of(region: &Region, frame: &Frame<'_>, extent: Extent) -> Vec<(usize, OutTile)> {
    let mut tiles = Vec::new();
    for (in_frame, image) in region.images.clone().enumerate() {
        for row in region.rows.clone().step_by(OUT) {
            for column in (0..extent.width).step_by(OUT) {
                let offset = ((image * extent.height + row) * extent.width + column) * extent.stride;
                let start = in_frame * frame.picture + (row - region.rows.start) * frame.row + column * frame.pixel;
                let (rows, columns) = ((region.rows.end - row).min(OUT), (extent.width - column).min(OUT));
                tiles.push((start, OutTile { offset, rows, columns }));
            }
        }
    }
    tiles
}

/// The window that the tiles of some rows of outputs read.
fn window_of(first: [isize; 2], rows: &Range<usize>, width: usize) -> Window {
    Window {
        first: [first[0] + rows.start.cast_signed(), first[1]],
        size: [rows.len().next_multiple_of(OUT) + 2, width.next_multiple_of(OUT) + 2],
    }
}

/// Tiles that are transformed at once.
fn tiles_at_once(channels: usize) -> usize {
    (TILE_BYTES / (PLACES * channels * size_of::<f32>())).clamp(48, 96)
}

/// Distance of two places of `tiles` transformed tiles. One cache line more than they need: else the 36 places of
/// a tile would often share one set of the first level cache.
fn place_stride(tiles: usize, channels: usize) -> usize {
    tiles * channels + LANES
}

/// Correlates pictures with 3×3 filters; position `(0, 0)` has its first tap on `first`.
fn correlate<T: Send>(
    source: Source<'_>,
    first: [isize; 2],
    filters: &Filters,
    extent: Extent,
    out: &mut [f32],
    accumulate: bool,
    after: After<'_, T>,
) -> Vec<T> {
    assert!(extent.elements() <= out.len(), "the result exceeds its slice");
    let out = Shared::new(out);
    // Wide filters do not fit into a core's cache and are read once per task: more pixels share the reading.
    let target = if filters.inner * filters.width > 2 * PANEL * PANEL { 2 * TASK_PIXELS } else { TASK_PIXELS };
    let target = target.min((extent.pixels() / 8).max(24 * OUT * OUT));
    let regions = regions(extent.images, [extent.height, extent.width], target, OUT);
    let columns = column_blocks(extent.stride, regions.len());
    let tasks: Vec<_> =
        regions.iter().flat_map(|region| columns.iter().map(move |columns| (region, columns))).collect();
    let run = |(region, columns): (&Region, &Range<usize>)| {
        with_scratch(|scratch| {
            // SAFETY: tasks differ in their pictures, rows or columns, so no two write the same element.
            unsafe { correlate_region(source, first, filters, region, columns, extent, out, accumulate, scratch) }
        });
        after(out, pixels(extent, &region.images, region.rows.clone()), columns.clone())
    };
    tasks.into_par_iter().map(run).collect()
}

/// Computes some columns of a region.
///
/// # Safety
/// No other task touches these elements of `out` meanwhile.
#[allow(clippy::too_many_arguments, reason = "they are the operands of one routine")]
unsafe fn correlate_region(
    source: Source<'_>,
    first: [isize; 2],
    filters: &Filters,
    region: &Region,
    columns: &Range<usize>,
    extent: Extent,
    out: Shared<'_>,
    accumulate: bool,
    scratch: &mut Scratch,
) {
    let (inner, width) = (filters.inner, columns.len());
    let window = window_of(first, &region.rows, extent.width);
    let frame = Frame::new(source, region.images.clone(), window, 0..inner, &mut scratch.frame);
    let tiles = tiles_of(region, &frame, extent);
    let at_once = tiles_at_once(inner + width).min(tiles.len());
    let (in_stride, out_stride) = (place_stride(at_once, inner), place_stride(at_once, width));
    let transformed = scratch.left.take(PLACES * in_stride);
    let products = scratch.sums.take(PLACES * out_stride);
    for tiles in tiles.chunks(at_once) {
        transform_inputs(&frame, tiles, inner, transformed, in_stride);
        let shared = Shared::new(products);
        for place in 0..PLACES {
            let left =
                LeftRows { values: &transformed[place * in_stride..], stride: inner, segments: &[0], depth: inner };
            for panel in columns.clone().step_by(PANEL) {
                let right = filters.panel(place, panel);
                let target = Target {
                    values: shared,
                    offset: place * out_stride + panel - columns.start,
                    stride: width,
                    rows: tiles.len(),
                    width: (filters.width - panel).min(PANEL),
                };
                // SAFETY: the products are this task's own.
                unsafe { multiply(left, right, target, false) }
            }
        }
        for (number, (_, tile)) in tiles.iter().enumerate() {
            let products = &products[number * width..];
            // SAFETY: passed on to the caller; the tile lies in the task's region, the columns in its columns.
            unsafe { write_tile(products, out_stride, width, *tile, columns.start, extent, out, accumulate) }
        }
    }
}

/// Writes `Bᵀ d B` of tiles as `[36, tiles, channels]`, places `stride` apart.
fn transform_inputs(frame: &Frame<'_>, tiles: &[(usize, OutTile)], channels: usize, out: &mut [f32], stride: usize) {
    assert!(PLACES * stride <= out.len() && tiles.len() * channels <= stride, "tiles exceed their buffer");
    for (number, &(start, _)) in tiles.iter().enumerate() {
        let last = start + (IN - 1) * (frame.row + frame.pixel) + channels;
        assert!(last <= frame.values.len(), "a tile exceeds its frame");
        let from = frame.values[start..].as_ptr();
        let to = out[number * channels..].as_mut_ptr();
        // SAFETY: the tile's 36 pixels lie inside the frame and its 36 places inside the buffer, as asserted.
        unsafe { input_tile(from, [frame.row, frame.pixel], channels, to, stride) }
    }
}

/// Writes `Aᵀ M A` of one tile, cut at the borders.
///
/// # Safety
/// No other task touches the tile's pixels and columns meanwhile.
#[allow(clippy::too_many_arguments, reason = "they are the operands of one routine")]
unsafe fn write_tile(
    products: &[f32],
    stride: usize,
    width: usize,
    tile: OutTile,
    column: usize,
    extent: Extent,
    out: Shared<'_>,
    accumulate: bool,
) {
    assert!((PLACES - 1) * stride + width <= products.len(), "a tile exceeds its buffer");
    let row = extent.width * extent.stride;
    let last = tile.offset + column + (tile.rows - 1) * row + (tile.columns - 1) * extent.stride + width;
    assert!(last <= out.len(), "a tile exceeds the result");
    let to = out.at(tile.offset + column);
    // SAFETY: the places lie inside the buffer and the pixels inside the result, as asserted.
    unsafe {
        output_tile(products.as_ptr(), stride, width, to, [row, extent.stride], [tile.rows, tile.columns], accumulate);
    }
}

/// Writes the gradient of the weight, `[O, C, 3, 3]`.
///
/// A task is a block of input and output channels and, where blocks are few, a chunk of the batch; chunks are added in
/// order.
pub(in crate::flex) fn weight_gradient(geometry: &Geometry, source: Source<'_>, dy: &[f32], dw: &mut [f32]) {
    let (inner, width) = (source.extent.stride, geometry.output().stride);
    let cut = |size: usize| (0..size).step_by(BLOCK).map(move |start| start..(start + BLOCK).min(size));
    let blocks: Vec<_> = cut(inner).flat_map(|rows| cut(width).map(move |columns| (rows.clone(), columns))).collect();
    let chunks = image_chunks(geometry.images, blocks.len());
    let tasks: Vec<_> = blocks.iter().flat_map(|block| chunks.iter().map(move |chunk| (block, chunk))).collect();
    let parts: Vec<Vec<f32>> = tasks
        .into_par_iter()
        .map(|((rows, columns), chunk)| {
            with_scratch(|scratch| {
                weight_gradient_block(geometry, source, dy, chunk, rows.clone(), columns.clone(), scratch)
            })
        })
        .collect();

    let row = geometry.in_channels * 9;
    dw.par_chunks_mut(LANES * row).enumerate().for_each(|(group, dw)| {
        let o = group * LANES;
        for (number, (rows, columns)) in blocks.iter().enumerate().filter(|(_, block)| block.1.contains(&o)) {
            let parts = &parts[number * chunks.len()..][..chunks.len()];
            let place = |k: usize| Some(rows.start * 9 + k).filter(|&at| at < row);
            add_transposed(parts, columns.len(), o - columns.start, row, place, dw);
        }
    });
}

/// The gradient of a block of channels over some images, `[rows, 9, columns]`.
fn weight_gradient_block(
    geometry: &Geometry,
    source: Source<'_>,
    dy: &[f32],
    images: &Range<usize>,
    rows: Range<usize>,
    columns: Range<usize>,
    scratch: &mut Scratch,
) -> Vec<f32> {
    let extent = geometry.output();
    assert!(extent.elements() <= dy.len(), "the output gradient is too short");
    let (height, width) = (rows.len(), columns.len());
    let first = geometry.padding.map(|padding| -padding.cast_signed());
    let sum_stride = height * width + LANES;
    let sums = scratch.sums.zeros(PLACES * sum_stride);
    let at_once = tiles_at_once(height + width);
    let (left_stride, right_stride) = (place_stride(at_once, height), place_stride(at_once, width));
    let left = scratch.left.take(PLACES * left_stride);
    let right = scratch.right.take(PLACES * right_stride);
    let row = extent.width * extent.stride;
    for region in regions(images.len(), geometry.out_size, TASK_PIXELS, OUT) {
        let pictures = images.start + region.images.start..images.start + region.images.end;
        let region = Region { images: pictures, rows: region.rows };
        let window = window_of(first, &region.rows, extent.width);
        let frame = Frame::new(source, region.images.clone(), window, rows.clone(), &mut scratch.frame);
        let tiles = tiles_of(&region, &frame, extent);
        for tiles in tiles.chunks(at_once) {
            transform_inputs(&frame, tiles, height, left, left_stride);
            for (number, (_, tile)) in tiles.iter().enumerate() {
                let start = tile.offset + columns.start;
                let last = start + (tile.rows - 1) * row + (tile.columns - 1) * extent.stride + width;
                assert!(last <= dy.len(), "a tile exceeds the output gradient");
                let (from, to) = (dy[start..].as_ptr(), right[number * width..].as_mut_ptr());
                // SAFETY: the tile's pixels lie inside the gradient, as asserted, and the buffer was taken for
                // 36 places of `at_once` tiles.
                unsafe {
                    gradient_tile(from, [row, extent.stride], [tile.rows, tile.columns], width, to, right_stride);
                }
            }
            let shared = Shared::new(sums);
            for place in 0..PLACES {
                for panel in (0..width).step_by(PANEL) {
                    let pairs = Pairs {
                        left: &left[place * left_stride..],
                        left_stride: height,
                        right: &right[place * right_stride + panel..],
                        right_stride: width,
                        segments: &[(0, 0)],
                        depth: tiles.len(),
                    };
                    let target = Target {
                        values: shared,
                        offset: place * sum_stride + panel,
                        stride: width,
                        rows: height,
                        width: (width - panel).min(PANEL),
                    };
                    // SAFETY: the sums are this task's own.
                    unsafe { multiply_pairs(pairs, target) }
                }
            }
        }
    }

    let mut gradient = vec![0.0; height * 9 * width];
    for (r, taps) in gradient.chunks_exact_mut(9 * width).enumerate() {
        for group in (0..width).step_by(LANES) {
            let mut places = [[0.0; LANES]; PLACES];
            for (place, lanes) in places.iter_mut().enumerate() {
                lanes.copy_from_slice(&sums[place * sum_stride + r * width + group..][..LANES]);
            }
            let mut gathered = [[0.0; LANES]; 9];
            filter_gradient_tile(&places, &mut gathered);
            for (tap, lanes) in gathered.iter().enumerate() {
                taps[tap * width + group..][..LANES].copy_from_slice(lanes);
            }
        }
    }
    gradient
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_used_where_they_are_full() {
        let of = |side: usize, kernel: usize, stride: usize| {
            let geometry = Geometry::new([1, 16, side, side], [16, 16, kernel, kernel], [stride; 2], [kernel / 2; 2]);
            applies(&geometry.expect("fits"))
        };
        assert!(of(32, 3, 1) && of(7, 3, 1) && of(4, 3, 1));
        assert!(!of(2, 3, 1) && !of(32, 3, 2) && !of(32, 1, 1) && !of(32, 5, 1));
    }
}
