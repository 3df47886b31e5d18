//! The product of two small row-major matrices that sit in the cache.
//!
//! All arithmetic of the convolution happens here. The left matrix is read one scalar at a time and
//! broadcast, the right one a vector at a time, so neither needs packing; a block of the result stays in
//! registers over the whole depth. Callers cut their work so that the right matrix, `depth × 48`, is
//! in the first or second level cache while it is used once per block of rows.

#![allow(
    unsafe_code,
    reason = "register blocks need vector intrinsics on raw pointers; bounds are asserted once per product"
)]

/// Columns of the widest register block, and so the best width of a right matrix.
pub(super) const TILE: usize = 48;

/// The number of columns of every product is a multiple of this.
pub(super) const LANES: usize = 16;

/// A row-major matrix inside a longer slice: row `i` starts at `i · stride`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
}

/// Sizes of a product: `[rows, depth] × [depth, columns]`.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) depth: usize,
}

/// Computes `out = left · right`, or `out += left · right` if `accumulate`.
///
/// Each element is one sum over the depth in ascending order, started from the old value or from zero;
/// it does not depend on where in the matrix the element stands.
///
/// # Panics
/// When a matrix does not fit into its slice or `sizes.columns` is not a multiple of [`LANES`].
pub(super) fn multiply(
    left: Rows<'_>,
    right: Rows<'_>,
    out: &mut [f32],
    out_stride: usize,
    sizes: Sizes,
    accumulate: bool,
) {
    let Sizes { rows, columns, depth } = sizes;
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(columns.is_multiple_of(LANES), "{columns} columns are not whole vectors");
    assert!(fits(left.values.len(), left.stride, rows, depth), "left matrix exceeds its slice");
    assert!(fits(right.values.len(), right.stride, depth, columns), "right matrix exceeds its slice");
    assert!(fits(out.len(), out_stride, rows, columns), "result exceeds its slice");
    assert!(out_stride >= columns, "rows of the result overlap");

    let job = Job {
        left: left.values.as_ptr(),
        left_stride: left.stride,
        right: right.values.as_ptr(),
        right_stride: right.stride,
        out: out.as_mut_ptr(),
        out_stride,
        sizes,
        accumulate,
    };
    // SAFETY: the assertions above keep every element inside its slice, `out` is borrowed exclusively
    // and so overlaps neither operand, and a variant runs only where its features were detected.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if super::vectorized::has_avx512() {
            return x86::avx512(&job);
        } else if super::vectorized::has_avx2() {
            return x86::avx2(&job);
        }
        job.run::<[f32; 4]>();
    }
}

/// Whether a matrix of `rows` rows of `columns`, `stride` apart, fits into a slice of length `len`.
fn fits(len: usize, stride: usize, rows: usize, columns: usize) -> bool {
    let end = rows.saturating_sub(1).checked_mul(stride).and_then(|start| start.checked_add(columns));
    rows == 0 || end.is_some_and(|end| end <= len)
}

/// A checked product on raw pointers.
struct Job {
    left: *const f32,
    left_stride: usize,
    right: *const f32,
    right_stride: usize,
    out: *mut f32,
    out_stride: usize,
    sizes: Sizes,
    accumulate: bool,
}

impl Job {
    /// Walks over the result, one block of columns after the other.
    ///
    /// # Safety
    /// The matrices must be valid for the sizes, and the processor must have what `V` needs.
    #[inline(always)]
    unsafe fn run<V: Vector>(&self) {
        let mut column = 0;
        while column < self.sizes.columns {
            // SAFETY: as for this function; each call stays left of the last column.
            unsafe {
                match (self.sizes.columns - column) / V::WIDTH {
                    1 => self.block_column::<V, 1>(column),
                    2 => self.block_column::<V, 2>(column),
                    _ => self.block_column::<V, 3>(column),
                }
            }
            column += V::WIDTH * ((self.sizes.columns - column) / V::WIDTH).min(3);
        }
    }

    /// Computes `N` vectors of columns for all rows. Few columns leave registers for more rows.
    ///
    /// # Safety
    /// As for [`Job::run`], and `N` vectors must remain from `column` on.
    #[inline(always)]
    unsafe fn block_column<V: Vector, const N: usize>(&self, column: usize) {
        let mut row = 0;
        while row < self.sizes.rows {
            let left = self.sizes.rows - row;
            // SAFETY: as for this function; each call stays above the last row.
            row += unsafe {
                match left.min(if N == 1 { 2 * V::MAX_ROWS } else { V::MAX_ROWS }) {
                    16.. if N == 1 => self.block::<V, 16, N>(row, column),
                    8.. => self.block::<V, 8, N>(row, column),
                    4.. => self.block::<V, 4, N>(row, column),
                    2.. => self.block::<V, 2, N>(row, column),
                    _ => self.block::<V, 1, N>(row, column),
                }
            };
        }
    }

    /// Computes `R` rows by `N` vectors in registers and returns `R`.
    ///
    /// # Safety
    /// As for [`Job::run`], and the block must lie inside the result.
    #[inline(always)]
    unsafe fn block<V: Vector, const R: usize, const N: usize>(&self, row: usize, column: usize) -> usize {
        // SAFETY: rows `row..row + R` and `N` vectors from `column` on lie inside the matrices.
        unsafe {
            let left = self.left.add(row * self.left_stride);
            let right = self.right.add(column);
            let out = self.out.add(row * self.out_stride + column);

            let mut sums = [[V::splat(0.0); N]; R];
            if self.accumulate {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = V::load(out.add(r * self.out_stride + v * V::WIDTH));
                    }
                }
            }
            for k in 0..self.sizes.depth {
                let mut vectors = [V::splat(0.0); N];
                for (v, vector) in vectors.iter_mut().enumerate() {
                    *vector = V::load(right.add(k * self.right_stride + v * V::WIDTH));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let scalar = V::splat(*left.add(r * self.left_stride + k));
                    for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                        *sum = scalar.mul_add(vector, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    sum.store(out.add(r * self.out_stride + v * V::WIDTH));
                }
            }
        }
        R
    }
}

/// A vector register.
///
/// # Safety
/// The methods may only be called where the processor has the features behind the type, and with
/// pointers to `WIDTH` elements. [`LANES`] is a multiple of `WIDTH`.
unsafe trait Vector: Copy {
    /// Elements of a vector.
    const WIDTH: usize;
    /// Rows of a block of three vectors that fit into the registers.
    const MAX_ROWS: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
}

/// The baseline, which the compiler maps to what the target has.
// SAFETY: no feature beyond the target's baseline is used.
unsafe impl Vector for [f32; 4] {
    const WIDTH: usize = 4;
    const MAX_ROWS: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller passes a pointer to four elements; alignment is not assumed.
        unsafe { from.cast::<Self>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller passes a pointer to four elements; alignment is not assumed.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, mut term: Self) -> Self {
        for (term, (a, b)) in term.iter_mut().zip(self.into_iter().zip(factor)) {
            // A fused operation is a function call on targets that lack the instruction.
            *term = if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                a.mul_add(b, *term)
            } else {
                a * b + *term
            };
        }
        term
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! The vectors of x86-64 beyond the baseline.

    use super::{Job, Vector};
    use std::arch::x86_64::*;

    /// # Safety
    /// As for [`Job::run`].
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,fma")]
    pub(super) unsafe fn avx512(job: &Job) {
        // SAFETY: passed on to the caller.
        unsafe { job.run::<__m512>() }
    }

    /// # Safety
    /// As for [`Job::run`].
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2(job: &Job) {
        // SAFETY: passed on to the caller.
        unsafe { job.run::<__m256>() }
    }

    macro_rules! vector {
        ($type:ty, $width:literal, $max_rows:literal, $splat:ident, $load:ident, $store:ident, $mul_add:ident) => {
            // SAFETY: the intrinsics are unaligned; features and pointers are the caller's duty.
            unsafe impl Vector for $type {
                const WIDTH: usize = $width;
                const MAX_ROWS: usize = $max_rows;

                #[inline(always)]
                unsafe fn splat(value: f32) -> Self {
                    // SAFETY: see the implementation.
                    unsafe { $splat(value) }
                }
                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    // SAFETY: see the implementation.
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    // SAFETY: see the implementation.
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
                    // SAFETY: see the implementation.
                    unsafe { $mul_add(self, factor, term) }
                }
            }
        };
    }
    vector!(__m512, 16, 8, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps);
    vector!(__m256, 8, 4, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small integers: products and sums are exact in f32, so every variant must give the same bits.
    fn check(job: unsafe fn(&Job), rows: usize, columns: usize, depth: usize, accumulate: bool) {
        let (left_stride, right_stride, out_stride) = (depth + 3, columns + 5, columns + 2);
        let value = |i: usize| (i * 7 % 11) as f32 - 5.0;
        let left: Vec<f32> = (0..rows * left_stride).map(value).collect();
        let right: Vec<f32> = (0..depth * right_stride).map(|i| value(i + 3)).collect();
        let before: Vec<f32> = (0..rows * out_stride).map(|i| value(i + 5)).collect();
        let mut out = before.clone();
        let product = Job {
            left: left.as_ptr(),
            left_stride,
            right: right.as_ptr(),
            right_stride,
            out: out.as_mut_ptr(),
            out_stride,
            sizes: Sizes { rows, columns, depth },
            accumulate,
        };
        // SAFETY: the slices were sized for the strides; the caller checked the features.
        unsafe { job(&product) };

        for (i, (&got, &old)) in out.iter().zip(&before).enumerate() {
            let (row, column) = (i / out_stride, i % out_stride);
            let sum: f32 = (0..depth)
                .map(|k| left[row * left_stride + k] * right.get(k * right_stride + column).unwrap_or(&0.0))
                .sum();
            let want = match (column < columns, accumulate) {
                (false, _) => old, // Between the rows nothing is written.
                (true, false) => sum,
                (true, true) => old + sum,
            };
            assert_eq!(got, want, "{rows}×{depth}×{columns} at [{row}, {column}]");
        }
    }

    #[test]
    fn every_variant_is_exact_on_integers() {
        let mut variants: Vec<unsafe fn(&Job)> = vec![Job::run::<[f32; 4]>];
        #[cfg(target_arch = "x86_64")]
        {
            if crate::flex::vectorized::has_avx2() {
                variants.push(x86::avx2);
            }
            if crate::flex::vectorized::has_avx512() {
                variants.push(x86::avx512);
            }
        }
        for job in variants {
            for rows in [1, 2, 3, 7, 8, 9, 16, 31] {
                for columns in [16, 32, 48, 64, 80, 112] {
                    for (depth, accumulate) in [(0, false), (0, true), (1, false), (5, true), (40, false)] {
                        check(job, rows, columns, depth, accumulate);
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "right matrix exceeds its slice")]
    fn a_short_slice_is_refused() {
        let sizes = Sizes { rows: 1, columns: 16, depth: 2 };
        let left = Rows { values: &[1.0; 2], stride: 2 };
        let right = Rows { values: &[1.0; 31], stride: 16 };
        multiply(left, right, &mut [0.0; 16], 16, sizes, false);
    }
}
