//! Products of small row-major matrices on the calling thread: the one place that calls the `gemm` crate.
//!
//! Its entry point takes raw pointers. What makes the call sound is established here: an operand is a slice of exactly
//! `rows × columns` elements, and so is the result, which being `&mut` overlaps neither.
#![allow(unsafe_code, reason = "gemm::gemm takes raw pointers; every extent is checked before the call")]

/// A row-major matrix, or the transpose of one.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Operand<'a> {
    /// # Panics
    /// Unless `values` holds whole rows.
    pub(super) fn new(values: &'a [f32], columns: usize) -> Self {
        let rows = values.len() / columns;
        assert_eq!(rows * columns, values.len(), "{} elements are no rows of {columns}", values.len());
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Writes `factor · a · b` to `out`, or adds it.
///
/// # Panics
/// Unless the extents fit.
pub(super) fn multiply(factor: f32, a: Operand<'_>, b: Operand<'_>, accumulate: bool, out: &mut [f32]) {
    assert_eq!(a.columns, b.rows, "inner extents of a product");
    assert_eq!(out.len(), a.rows * b.columns, "extent of a product");
    // SAFETY: `new` proved that rows · columns elements lie behind each operand in row-major order, and `transposed`
    // addresses the same ones. `out` holds a.rows · b.columns elements, addressed row-major, and being `&mut` it
    // overlaps neither operand. Strides fit `isize` because a slice's length does.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            b.columns.cast_signed(),
            accumulate,
            a.values.as_ptr(),
            a.column_stride.cast_signed(),
            a.row_stride.cast_signed(),
            b.values.as_ptr(),
            b.column_stride.cast_signed(),
            b.row_stride.cast_signed(),
            1.0,
            factor,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_triple_loop_for_every_layout() {
        // Small integers: every product and sum is exact, so the comparison needs no tolerance.
        let numbers = |n: usize, seed: usize| -> Vec<f32> {
            (0..n).map(|i| f32::from(u8::try_from((i * 7 + seed * 13) % 11).expect("small")) - 5.0).collect()
        };
        for (m, n, k) in [(1, 1, 1), (1, 5, 3), (4, 1, 7), (7, 10, 129), (33, 17, 65)] {
            let (a, b) = (numbers(m * k, 0), numbers(k * n, 1));
            let transpose = |values: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..columns * rows).map(|at| values[at % rows * columns + at / rows]).collect()
            };
            let (a_t, b_t) = (transpose(&a, m, k), transpose(&b, k, n));
            for (a_of, b_of) in [
                (Operand::new(&a, k), Operand::new(&b, n)),
                (Operand::new(&a_t, m).transposed(), Operand::new(&b, n)),
                (Operand::new(&a, k), Operand::new(&b_t, k).transposed()),
            ] {
                let mut out = vec![1.0; m * n];
                multiply(2.0, a_of, b_of, false, &mut out);
                multiply(-0.5, a_of, b_of, true, &mut out);
                for (at, got) in out.into_iter().enumerate() {
                    let sum: f32 = (0..k).map(|l| a[at / n * k + l] * b[l * n + at % n]).sum();
                    assert_eq!(got, 1.5 * sum, "{m} x {n} x {k} at {at}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "inner extents")]
    fn extents_that_do_not_fit_are_refused() {
        multiply(1.0, Operand::new(&[1.0; 6], 3), Operand::new(&[1.0; 4], 2), false, &mut [0.0; 4]);
    }
}
