//! Products of small matrices that sit in the cache, without packing the left operand.
//!
//! All multiplications of the convolutions happen here. Pixels are rows and channels are columns, and the channels of a
//! pixel are neighbours in memory; so both products read one scalar of the left operand and broadcast it, read
//! whole vectors of the right one, and keep a block of the result in registers over the depth.
//!
//! ```text
//! multiply         out[i, j] (+)= Σ_s Σ_k left[i·stride + segment_s + k] · right[(s·depth + k)·width + j]
//! multiply_pairs   out[i, j]  += Σ_s Σ_p left[left_s + p·left_stride + i] · right[right_s + p·right_stride + j]
//! ```
//! The first is for outputs and input gradients, its segments being rows of a kernel's window. The second is for weight
//! gradients, its segments being rows of pixels.

#![allow(
    unsafe_code,
    reason = "register blocks need vector intrinsics on raw pointers; bounds are asserted once per product"
)]

use super::shared::Shared;
use super::vector::{LANES, Vector, with_vectors};

/// Columns of the widest register block, and so the best width of a right operand.
pub(super) const PANEL: usize = 4 * LANES;

/// The rows of the left operand of [`multiply`].
#[derive(Clone, Copy)]
pub(super) struct LeftRows<'a> {
    pub(super) values: &'a [f32],
    /// Distance of two rows.
    pub(super) stride: usize,
    /// Where each segment of the first row begins.
    pub(super) segments: &'a [usize],
    /// Elements of a segment.
    pub(super) depth: usize,
}

/// Where a product is written.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) values: Shared<'a>,
    /// Where the first row begins.
    pub(super) offset: usize,
    /// Distance of two rows.
    pub(super) stride: usize,
    pub(super) rows: usize,
    /// Columns, a multiple of [`LANES`].
    pub(super) width: usize,
}

impl Target<'_> {
    /// # Panics
    /// When the result does not fit into its slice.
    fn checked(&self) -> ResultBlock {
        let Self { offset, stride, rows, width, .. } = *self;
        assert!(width.is_multiple_of(LANES), "{width} columns are not whole vectors");
        assert!(stride >= width || rows <= 1, "rows of the result overlap");
        assert!(reach(offset, stride, rows, width) <= self.values.len(), "result exceeds its slice");
        ResultBlock { start: self.values.at(offset), stride, rows, width }
    }
}

/// The end of the last of `rows` rows of `width`, `stride` apart; saturates.
fn reach(offset: usize, stride: usize, rows: usize, width: usize) -> usize {
    rows.saturating_sub(1).saturating_mul(stride).saturating_add(offset).saturating_add(width)
}

/// Computes `out = left · right`, or `out += left · right` if `accumulate`; see the module.
///
/// Each element is one sum in ascending order of segments and depth, started from the old value or from zero; it
/// does not depend on where in the result it stands.
///
/// # Safety
/// No other task touches the target's elements meanwhile.
///
/// # Panics
/// When an operand does not fit into its slice.
pub(super) unsafe fn multiply(left: LeftRows<'_>, right: &[f32], out: Target<'_>, accumulate: bool) {
    if out.rows == 0 || out.width == 0 {
        return;
    }
    if let Some(&last) = left.segments.iter().max() {
        assert!(reach(last, left.stride, out.rows, left.depth) <= left.values.len(), "left operand exceeds its slice");
    }
    assert!(left.segments.len() * left.depth * out.width <= right.len(), "right operand exceeds its slice");
    let job = Multiply {
        left: left.values.as_ptr(),
        left_stride: left.stride,
        segments: left.segments,
        depth: left.depth,
        right: right.as_ptr(),
        right_stride: out.width,
        result: out.checked(),
        accumulate,
    };
    // SAFETY: the assertions keep every element inside its slice; exclusive use of the target is the caller's promise.
    unsafe { run_multiply(&job) }
}

/// Segments of pixels for [`multiply_pairs`].
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a> {
    pub(super) left: &'a [f32],
    pub(super) left_stride: usize,
    pub(super) right: &'a [f32],
    pub(super) right_stride: usize,
    /// Where each segment begins on the left and on the right.
    pub(super) segments: &'a [(usize, usize)],
    /// Pixels of a segment.
    pub(super) depth: usize,
}

/// Adds the products of pairs of pixels to `out`; see the module.
///
/// # Safety
/// No other task touches the target's elements meanwhile.
///
/// # Panics
/// When an operand does not fit into its slice.
pub(super) unsafe fn multiply_pairs(pairs: Pairs<'_>, out: Target<'_>) {
    if out.rows == 0 || out.width == 0 || pairs.depth == 0 {
        return;
    }
    let left = pairs.segments.iter().map(|pair| pair.0).max().unwrap_or(0);
    let right = pairs.segments.iter().map(|pair| pair.1).max().unwrap_or(0);
    let reach_of = |start, stride, width| reach(start, stride, pairs.depth, width);
    assert!(reach_of(left, pairs.left_stride, out.rows) <= pairs.left.len(), "left operand exceeds its slice");
    assert!(reach_of(right, pairs.right_stride, out.width) <= pairs.right.len(), "right operand exceeds its slice");
    let job = MultiplyPairs {
        left: pairs.left.as_ptr(),
        left_stride: pairs.left_stride,
        right: pairs.right.as_ptr(),
        right_stride: pairs.right_stride,
        segments: pairs.segments,
        depth: pairs.depth,
        result: out.checked(),
    };
    // SAFETY: the assertions keep every element inside its slice; exclusive use of the target is the caller's promise.
    unsafe { run_multiply_pairs(&job) }
}

/// A checked [`multiply`] on raw pointers.
struct Multiply<'a> {
    left: *const f32,
    left_stride: usize,
    segments: &'a [usize],
    depth: usize,
    right: *const f32,
    right_stride: usize,
    result: ResultBlock,
    accumulate: bool,
}

/// A checked [`multiply_pairs`] on raw pointers.
struct MultiplyPairs<'a> {
    left: *const f32,
    left_stride: usize,
    right: *const f32,
    right_stride: usize,
    segments: &'a [(usize, usize)],
    depth: usize,
    result: ResultBlock,
}

/// Where a checked product goes.
struct ResultBlock {
    start: *mut f32,
    stride: usize,
    rows: usize,
    width: usize,
}

with_vectors! {
    /// # Safety
    /// The operands must be valid for their sizes.
    unsafe fn run_multiply(job: &Multiply<'_>) = multiply_body
}

with_vectors! {
    /// # Safety
    /// The operands must be valid for their sizes.
    unsafe fn run_multiply_pairs(job: &MultiplyPairs<'_>) = multiply_pairs_body
}

#[inline(always)]
unsafe fn multiply_body<V: Vector>(job: &Multiply<'_>) {
    // SAFETY: passed on to the caller.
    unsafe { cover::<V, _>(job) }
}

#[inline(always)]
unsafe fn multiply_pairs_body<V: Vector>(job: &MultiplyPairs<'_>) {
    // SAFETY: passed on to the caller.
    unsafe { cover::<V, _>(job) }
}

/// A product whose result is computed in blocks.
trait Blocks {
    fn result(&self) -> &ResultBlock;

    /// Computes `R` rows and `N` vectors of columns.
    ///
    /// # Safety
    /// The block must lie inside the result, the operands must be valid, and the processor must have what `V` needs.
    unsafe fn block<V: Vector, const R: usize, const N: usize>(&self, row: usize, column: usize);
}

/// Computes the whole result, one strip of columns after the other.
///
/// # Safety
/// The operands must be valid for their sizes, and the processor must have what `V` needs.
#[inline(always)]
unsafe fn cover<V: Vector, B: Blocks>(job: &B) {
    let mut column = 0;
    while column < job.result().width {
        let vectors = ((job.result().width - column) / V::WIDTH).min(V::ROW);
        // SAFETY: passed on to the caller; the strip ends at or before the last column.
        unsafe {
            match vectors {
                1 => strip::<V, B, 1>(job, column),
                2 => strip::<V, B, 2>(job, column),
                3 => strip::<V, B, 3>(job, column),
                _ => strip::<V, B, 4>(job, column),
            }
        }
        column += vectors * V::WIDTH;
    }
}

/// Computes `N` vectors of columns of all rows, in the tallest blocks whose sums fit into the registers.
///
/// # Safety
/// As for [`cover`], and `N` vectors must remain from `column` on.
#[inline(always)]
unsafe fn strip<V: Vector, B: Blocks, const N: usize>(job: &B, column: usize) {
    let rows = job.result().rows;
    let mut row = 0;
    while row < rows {
        let left = rows - row;
        let fits = |height: usize| left >= height && height * N <= V::SUMS;
        // SAFETY: passed on to the caller; each block ends at or before the last row.
        row += unsafe {
            if fits(16) {
                job.block::<V, 16, N>(row, column);
                16
            } else if fits(12) {
                job.block::<V, 12, N>(row, column);
                12
            } else if fits(8) {
                job.block::<V, 8, N>(row, column);
                8
            } else if fits(6) {
                job.block::<V, 6, N>(row, column);
                6
            } else if fits(4) {
                job.block::<V, 4, N>(row, column);
                4
            } else if fits(2) {
                job.block::<V, 2, N>(row, column);
                2
            } else {
                job.block::<V, 1, N>(row, column);
                1
            }
        };
    }
}

/// Loads a block of sums.
///
/// # Safety
/// `from` must be valid for `R` rows of `N` vectors, and the processor must have what `V` needs.
#[inline(always)]
unsafe fn load_sums<V: Vector, const R: usize, const N: usize>(from: *const f32, stride: usize) -> [[V; N]; R] {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = V::load(from.add(r * stride + v * V::WIDTH));
            }
        }
        sums
    }
}

/// Stores a block of sums.
///
/// # Safety
/// As for [`load_sums`].
#[inline(always)]
unsafe fn store_sums<V: Vector, const R: usize, const N: usize>(sums: [[V; N]; R], to: *mut f32, stride: usize) {
    for (r, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: passed on to the caller.
            unsafe { sum.store(to.add(r * stride + v * V::WIDTH)) }
        }
    }
}

impl Blocks for Multiply<'_> {
    #[inline(always)]
    fn result(&self) -> &ResultBlock {
        &self.result
    }

    #[inline(always)]
    unsafe fn block<V: Vector, const R: usize, const N: usize>(&self, row: usize, column: usize) {
        // SAFETY: rows `row..row + R` and `N` vectors from `column` on lie inside the operands.
        unsafe {
            let out = self.result.start.add(row * self.result.stride + column);
            let mut sums: [[V; N]; R] =
                if self.accumulate { load_sums(out, self.result.stride) } else { [[V::splat(0.0); N]; R] };
            // Without segments there is nothing to the right, and nothing is read.
            let mut right = self.right.wrapping_add(column);
            for &segment in self.segments {
                let left = self.left.add(row * self.left_stride + segment);
                for k in 0..self.depth {
                    let mut vectors = [V::splat(0.0); N];
                    for (v, vector) in vectors.iter_mut().enumerate() {
                        *vector = V::load(right.add(v * V::WIDTH));
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let scalar = V::splat(*left.add(r * self.left_stride + k));
                        for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                            *sum = scalar.mul_add(vector, *sum);
                        }
                    }
                    right = right.wrapping_add(self.right_stride);
                }
            }
            store_sums(sums, out, self.result.stride);
        }
    }
}

impl Blocks for MultiplyPairs<'_> {
    #[inline(always)]
    fn result(&self) -> &ResultBlock {
        &self.result
    }

    #[inline(always)]
    unsafe fn block<V: Vector, const R: usize, const N: usize>(&self, row: usize, column: usize) {
        // SAFETY: rows `row..row + R` and `N` vectors from `column` on lie inside the operands.
        unsafe {
            let out = self.result.start.add(row * self.result.stride + column);
            let mut sums: [[V; N]; R] = load_sums(out, self.result.stride);
            for &(left, right) in self.segments {
                let mut left = self.left.add(left + row);
                let mut right = self.right.add(right + column);
                for _ in 0..self.depth {
                    let mut vectors = [V::splat(0.0); N];
                    for (v, vector) in vectors.iter_mut().enumerate() {
                        *vector = V::load(right.add(v * V::WIDTH));
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let scalar = V::splat(*left.add(r));
                        for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                            *sum = scalar.mul_add(vector, *sum);
                        }
                    }
                    left = left.wrapping_add(self.left_stride);
                    right = right.wrapping_add(self.right_stride);
                }
            }
            store_sums(sums, out, self.result.stride);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::{InstructionSet, limit_instruction_set};

    /// Small integers: products and sums are exact in f32, so every instruction set must give the same bits. The limit is
    /// the process's, so only one test at a time may set it.
    fn on_every_instruction_set(test: impl Fn()) {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        for limit in [InstructionSet::Baseline, InstructionSet::Avx2, InstructionSet::Avx512] {
            limit_instruction_set(limit);
            test();
        }
    }

    fn integers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i + seed) * 7 % 11) as f32 - 5.0).collect()
    }

    #[track_caller]
    fn check(out: &[f32], before: &[f32], stride: usize, width: usize, want: impl Fn(usize, usize) -> f32) {
        for (i, (&got, &old)) in out.iter().zip(before).enumerate() {
            let (row, column) = (i / stride, i % stride);
            // Between the rows nothing is written.
            let want = if column < width { want(row, column) } else { old };
            assert_eq!(got, want, "at [{row}, {column}] of width {width}");
        }
    }

    #[test]
    fn products_are_exact_on_integers() {
        on_every_instruction_set(|| {
            for rows in [1, 2, 3, 7, 13, 17, 31] {
                for width in [16, 32, 48, 64] {
                    for (segments, depth, accumulate) in
                        [(vec![0], 1, false), (vec![3, 0], 5, true), (vec![2, 9, 4], 8, false), (vec![], 3, false)]
                    {
                        let (left_stride, stride) = (23, width + 5);
                        let left = integers(rows * left_stride, 0);
                        let right = integers(segments.len() * depth * width, 3);
                        let before = integers(rows * stride, 5);
                        let mut out = before.clone();
                        let rows_of = LeftRows { values: &left, stride: left_stride, segments: &segments, depth };
                        let values = Shared::new(&mut out);
                        let target = Target { values, offset: 0, stride, rows, width };
                        // SAFETY: the result is this test's own.
                        unsafe { multiply(rows_of, &right, target, accumulate) };
                        check(&out, &before, stride, width, |row, column| {
                            let term = |s: usize, k: usize| {
                                left[row * left_stride + segments[s] + k] * right[(s * depth + k) * width + column]
                            };
                            let sum: f32 =
                                (0..segments.len()).map(|s| (0..depth).map(|k| term(s, k)).sum::<f32>()).sum();
                            if accumulate { before[row * stride + column] + sum } else { sum }
                        });
                    }
                }
            }
        });
    }

    #[test]
    fn products_of_pairs_are_exact_on_integers() {
        on_every_instruction_set(|| {
            for rows in [1, 3, 9, 16, 29] {
                for width in [16, 48, 64] {
                    for (segments, depth) in [(vec![(0, 0)], 3), (vec![(4, 70), (0, 1)], 2)] {
                        let (left_stride, right_stride, stride) = (rows + 2, width + 3, width + 1);
                        let left = integers(8 + depth * left_stride, 0);
                        let right = integers(80 + depth * right_stride, 3);
                        let before = integers(rows * stride, 5);
                        let mut out = before.clone();
                        let pairs =
                            Pairs { left: &left, left_stride, right: &right, right_stride, segments: &segments, depth };
                        let values = Shared::new(&mut out);
                        let target = Target { values, offset: 0, stride, rows, width };
                        // SAFETY: the result is this test's own.
                        unsafe { multiply_pairs(pairs, target) };
                        check(&out, &before, stride, width, |row, column| {
                            let term = |&(l, r): &(usize, usize), p: usize| {
                                left[l + p * left_stride + row] * right[r + p * right_stride + column]
                            };
                            let sum = segments.iter().map(|s| (0..depth).map(|p| term(s, p)).sum::<f32>()).sum::<f32>();
                            before[row * stride + column] + sum
                        });
                    }
                }
            }
        });
    }

    #[track_caller]
    fn multiply_of(left: usize, right: usize, out: usize, stride: usize) {
        let (left, right, mut out) = (vec![1.0; left], vec![1.0; right], vec![0.0; out]);
        let rows = LeftRows { values: &left, stride: 2, segments: &[0], depth: 2 };
        let target = Target { values: Shared::new(&mut out), offset: 0, stride, rows: 2, width: 16 };
        // SAFETY: the result is this test's own.
        unsafe { multiply(rows, &right, target, false) }
    }

    #[test]
    fn what_fits_exactly_is_accepted() {
        multiply_of(4, 32, 32, 16);
    }

    #[test]
    #[should_panic(expected = "left operand exceeds its slice")]
    fn a_short_left_operand_is_refused() {
        multiply_of(3, 32, 32, 16);
    }

    #[test]
    #[should_panic(expected = "right operand exceeds its slice")]
    fn a_short_right_operand_is_refused() {
        multiply_of(4, 31, 32, 16);
    }

    #[test]
    #[should_panic(expected = "result exceeds its slice")]
    fn a_short_result_is_refused() {
        multiply_of(4, 32, 31, 16);
    }

    #[test]
    #[should_panic(expected = "rows of the result overlap")]
    fn overlapping_rows_are_refused() {
        multiply_of(4, 32, 32, 15);
    }
}
