//! `MatrixView`: a bounds-checked strided view, and the one place that calls the `gemm` crate.
//!
//! The crate's entry point takes raw pointers. Everything that makes the call sound is established here: a view
//! proves at construction that its last element lies inside its slice, and the destination is an exclusive slice
//! of exactly `rows × cols` elements. Products run on the calling thread; callers parallelize over fixed row
//! blocks, so that a result never depends on the number of threads.
#![allow(unsafe_code, reason = "gemm::gemm takes raw pointers; this module checks every extent before the call")]

/// An element type that the `gemm` crate multiplies with SIMD kernels.
pub(crate) trait Element: Copy + 'static {
    /// The additive identity.
    const ZERO: Self;
    /// The multiplicative identity.
    const ONE: Self;
}

impl Element for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

impl Element for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

/// A `[rows, cols]` matrix over a borrowed slice, row-major or its transpose.
#[derive(Clone, Copy)]
pub(crate) struct MatrixView<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T: Element> MatrixView<'a, T> {
    /// A row-major view. The slice must hold exactly `rows × cols` elements.
    pub(crate) fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        assert_eq!(Some(data.len()), rows.checked_mul(cols), "a {rows} x {cols} view of {} elements", data.len());
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The same elements with rows and columns exchanged; nothing is copied.
    pub(crate) fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    /// `n` columns from `first` on, of a row-major view.
    pub(crate) fn columns(self, first: usize, n: usize) -> Self {
        assert!(self.col_stride == 1 && first + n <= self.cols, "columns {first}..{} of {}", first + n, self.cols);
        // An empty view may have no element at `first`.
        Self { data: self.data.get(first..).unwrap_or_default(), cols: n, ..self }
    }

    /// Overwrites `out` (row-major `[self.rows, other.cols]`) with the product.
    pub(crate) fn multiply_into(self, other: Self, out: &mut [T]) {
        self.gemm(other, out, false);
    }

    /// Adds the product to `out` (row-major `[self.rows, other.cols]`).
    pub(crate) fn multiply_add_into(self, other: Self, out: &mut [T]) {
        self.gemm(other, out, true);
    }

    fn gemm(self, other: Self, out: &mut [T], accumulate: bool) {
        assert_eq!(self.cols, other.rows, "inner extents of a matrix product");
        assert_eq!(Some(out.len()), self.rows.checked_mul(other.cols), "extent of a matrix product");
        // SAFETY: `new` proved that `rows * cols` elements lie behind each operand in row-major order; `transposed`
        // addresses the same ones, and `columns` moved the start forward by as much as it shortened every row.
        // `out` holds `self.rows * other.cols` elements, addressed row-major, and being
        // `&mut` it overlaps neither operand. Strides fit `isize` because a slice's length does.
        unsafe {
            gemm::gemm(
                self.rows,
                other.cols,
                self.cols,
                out.as_mut_ptr(),
                1,
                other.cols.cast_signed(),
                accumulate,
                self.data.as_ptr(),
                self.col_stride.cast_signed(),
                self.row_stride.cast_signed(),
                other.data.as_ptr(),
                other.col_stride.cast_signed(),
                other.row_stride.cast_signed(),
                if accumulate { T::ONE } else { T::ZERO },
                T::ONE,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: usize) -> Vec<f64> {
        // Small integers: every product and sum is exact, so the comparison needs no tolerance.
        (0..n).map(|i| ((i * 7 + seed * 13) % 11) as f64 - 5.0).collect()
    }

    #[test]
    fn agrees_with_the_triple_loop_for_every_layout() {
        for (m, n, k) in [(1, 1, 1), (1, 5, 3), (4, 1, 7), (7, 10, 129), (33, 17, 65), (3, 4, 0)] {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let mut want = vec![2.0; m * n];
            for (i, out) in want.iter_mut().enumerate() {
                *out += (0..k).map(|l| a[i / n * k + l] * b[l * n + i % n]).sum::<f64>();
            }
            let a_view = MatrixView::new(&a, m, k);
            let b_view = MatrixView::new(&b, k, n);
            let mut got = vec![2.0; m * n];
            a_view.multiply_add_into(b_view, &mut got);
            assert_eq!(got, want, "{m} x {n} x {k}");

            // (BᵀAᵀ)ᵀ = AB, through transposed views of both operands; the old content must vanish.
            let mut transposed = vec![f64::NAN; m * n];
            b_view.transposed().multiply_into(a_view.transposed(), &mut transposed);
            for (i, &value) in transposed.iter().enumerate() {
                assert_eq!(value + 2.0, want[i % m * n + i / m], "{m} x {n} x {k}, transposed");
            }
        }
    }

    #[test]
    fn columns_of_a_view_are_those_of_the_matrix() {
        let a = numbers(4 * 6, 3);
        let picked: Vec<f64> = a.chunks(6).flat_map(|row| &row[2..5]).copied().collect();
        let (mut got, mut want) = (vec![0.0; 9], vec![0.0; 9]);
        let (part, whole) = (MatrixView::new(&a, 4, 6).columns(2, 3), MatrixView::new(&picked, 4, 3));
        part.transposed().multiply_into(part, &mut got);
        whole.transposed().multiply_into(whole, &mut want);
        assert_eq!(got, want);
    }

    #[test]
    #[should_panic(expected = "2 x 3 view of 5 elements")]
    fn refuses_a_slice_of_another_extent() {
        let _ = MatrixView::new(&[0.0_f32; 5], 2, 3);
    }
}
