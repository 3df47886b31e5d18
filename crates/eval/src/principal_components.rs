//! `PrincipalComponents`: the directions in which features vary most.

use nalgebra::{DMatrix, DVector};
use rayon::prelude::*;
use thiserror::Error;

use crate::split::hash;

/// Directions that are iterated beside those asked for; they make the iteration converge with a gap further down.
const EXTRA: usize = 8;

/// Steps after which the iteration ends with what it has: components this close in variance are any turn of each other.
const MAX_STEPS: usize = 300;

/// The mean of some features and the orthonormal directions of their largest variance.
#[derive(Clone, Debug, PartialEq)]
pub struct PrincipalComponents {
    /// The mean row, `[F]`.
    pub mean: Vec<f64>,
    /// `[n, F]`, row-major, the largest variance first; of each the entry with the largest absolute value is positive.
    pub components: Vec<f64>,
    /// The variance along each, with `N − 1` in the denominator.
    pub variances: Vec<f64>,
    /// The variance along all `F` directions together.
    pub total_variance: f64,
}

/// Why there are no components.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PrincipalComponentsError {
    /// Fewer than two rows, or no whole rows.
    #[error("expected at least two whole rows of {dim} values, got {values} values")]
    Shape {
        /// How many values.
        values: usize,
        /// How many make a row.
        dim: usize,
    },
    /// More components than dimensions, or none.
    #[error("expected from 1 to {dim} components, got {n}")]
    Components {
        /// What was asked for.
        n: usize,
        /// The dimensions of a row.
        dim: usize,
    },
}

impl PrincipalComponents {
    /// The first `n` components of `[N, F]` rows, row-major, with `F = dim`.
    ///
    /// Subspace iteration with a Rayleigh-Ritz step on the covariance, in f64, from a fixed start: a function of the rows
    /// alone.
    ///
    /// # Errors
    /// [`PrincipalComponentsError`].
    /// # Cost
    /// `N·F²` operations on all threads and `8·F²` bytes for the covariance, then `2·F²·(n + 8)` a step.
    /// # Source
    /// Golub and Van Loan, *Matrix Computations*, section 8.2.4 (orthogonal iteration).
    pub fn of(rows: &[f32], dim: usize, n: usize) -> Result<Self, PrincipalComponentsError> {
        if dim == 0 || !rows.len().is_multiple_of(dim) || rows.len() / dim < 2 {
            return Err(PrincipalComponentsError::Shape { values: rows.len(), dim });
        }
        if !(1..=dim).contains(&n) {
            return Err(PrincipalComponentsError::Components { n, dim });
        }
        let n_rows = rows.len() / dim;
        let mut mean = vec![0.0_f64; dim];
        for row in rows.chunks_exact(dim) {
            mean.iter_mut().zip(row).for_each(|(mean, &v)| *mean += f64::from(v));
        }
        mean.iter_mut().for_each(|mean| *mean /= n_rows as f64);
        let covariance = covariance(rows, dim, &mean);
        let total_variance = covariance.trace();

        let block = (n + EXTRA).min(dim);
        let start = |i: usize, j: usize| (hash(i as u64, j as u64) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5;
        let mut basis = DMatrix::from_fn(dim, block, start).qr().q();
        let mut variances = DVector::zeros(block);
        for _ in 0..MAX_STEPS {
            let image = &covariance * &basis;
            let small = basis.transpose() * &image;
            let eigen = ((&small + small.transpose()) * 0.5).symmetric_eigen();
            let mut order: Vec<usize> = (0..block).collect();
            order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
            let turn = DMatrix::from_fn(block, block, |i, j| eigen.eigenvectors[(i, order[j])]);
            variances = DVector::from_fn(block, |j, _| eigen.eigenvalues[order[j]]);
            let (ritz, image) = (basis * &turn, image * &turn);
            let residual =
                (0..n).map(|j| (image.column(j) - ritz.column(j) * variances[j]).norm()).fold(0.0_f64, f64::max);
            if residual <= 1e-13 * total_variance.max(f64::MIN_POSITIVE) {
                basis = ritz;
                break;
            }
            basis = image.qr().q();
        }
        let mut components = Vec::with_capacity(n * dim);
        for j in 0..n {
            let column = basis.column(j);
            let largest = column.iter().copied().reduce(|a, b| if b.abs() > a.abs() { b } else { a }).unwrap_or(1.0);
            components.extend(column.iter().map(|v| v * largest.signum()));
        }
        let variances = variances.iter().take(n).map(|variance| variance.max(0.0)).collect();
        Ok(Self { mean, components, variances, total_variance })
    }

    /// The rows in these coordinates, `[N, n]`, row-major.
    ///
    /// # Panics
    /// If the values are no whole rows of this many dimensions.
    pub fn project(&self, rows: &[f32]) -> Vec<f64> {
        let dim = self.mean.len();
        assert!(rows.len().is_multiple_of(dim), "{} values in rows of {dim}", rows.len());
        let project = |row: &[f32]| -> Vec<f64> {
            let along = |component: &[f64]| {
                row.iter().zip(&self.mean).zip(component).map(|((&v, mean), c)| (f64::from(v) - mean) * c).sum()
            };
            self.components.chunks_exact(dim).map(along).collect()
        };
        rows.par_chunks_exact(dim).flat_map_iter(project).collect()
    }
}

/// `[F, F]`, with `N − 1` in the denominator. Sums are over fixed blocks of rows, so that threads change nothing.
fn covariance(rows: &[f32], dim: usize, mean: &[f64]) -> DMatrix<f64> {
    const BLOCK: usize = 2048;
    let n_rows = rows.len() / dim;
    let mut sum = DMatrix::zeros(dim, dim);
    // A few blocks at once bound the memory by the number of threads.
    for blocks in rows.chunks(BLOCK * dim).collect::<Vec<_>>().chunks(rayon::current_num_threads()) {
        let products: Vec<DMatrix<f64>> = blocks
            .par_iter()
            .map(|block| {
                let centred = DMatrix::from_fn(dim, block.len() / dim, |d, i| f64::from(block[i * dim + d]) - mean[d]);
                &centred * centred.transpose()
            })
            .collect();
        products.into_iter().for_each(|product| sum += product);
    }
    sum / (n_rows - 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_the_axes_of_stretched_noise() {
        // Independent coordinates with the standard deviations 5, 3, 1, 1, ... about one mean.
        let noise = |i: usize, d: usize| {
            (0..12).map(|k| (hash(12 * d as u64 + k, i as u64) >> 40) as f64 / (1 << 24) as f64 - 0.5).sum::<f64>()
        };
        let rows: Vec<f32> = (0..4000)
            .flat_map(|i| {
                (0..16).map(move |d| {
                    let scale = if d == 9 {
                        5.0
                    } else if d == 2 {
                        3.0
                    } else {
                        1.0
                    };
                    crate::feature_bank::narrow(scale * noise(i, d) + 7.0)
                })
            })
            .collect();
        let found = PrincipalComponents::of(&rows, 16, 2).expect("components");
        assert!(found.components[9] > 0.99 && found.components[16 + 2] > 0.99, "{:?}", found.components);
        assert!((found.variances[0] - 25.0).abs() < 2.0 && (found.variances[1] - 9.0).abs() < 1.0);
        let projected = found.project(&rows);
        let mean: f64 = projected.iter().step_by(2).sum::<f64>() / 4000.0;
        let variance = projected.iter().step_by(2).map(|x| (x - mean).powi(2)).sum::<f64>() / 3999.0;
        assert!(mean.abs() < 1e-9 && (variance - found.variances[0]).abs() < 1e-9 * variance);
    }

    #[test]
    fn flat_features_have_no_variance_and_no_trouble() {
        let found = PrincipalComponents::of(&[2.5; 30], 3, 2).expect("components");
        assert_eq!((found.total_variance, found.variances), (0.0, vec![0.0, 0.0]));
        assert!(found.components.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn impossible_questions_are_refused() {
        use PrincipalComponentsError as E;
        let of = |rows: &[f32], dim, n| PrincipalComponents::of(rows, dim, n).map(|_| ());
        assert_eq!(of(&[1.0; 3], 3, 1), Err(E::Shape { values: 3, dim: 3 }));
        assert_eq!(of(&[1.0; 7], 3, 1), Err(E::Shape { values: 7, dim: 3 }));
        assert_eq!(of(&[1.0; 9], 3, 4), Err(E::Components { n: 4, dim: 3 }));
        assert_eq!(of(&[1.0; 9], 3, 0), Err(E::Components { n: 0, dim: 3 }));
    }
}
