//! How many dimensions embeddings fill: singular values and the ranks that are made of them.

use burn::tensor::{FloatDType, Tensor};
use nalgebra::DMatrix;

/// Beyond this many dimensions (or rows, if fewer) a step's diagnostics leave the spectrum out: its cost is cubic.
const LARGEST_PER_STEP: usize = 256;

/// The singular values of some embeddings, largest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum {
    /// `min(rows, D)` values, none negative.
    pub singular_values: Vec<f64>,
}

impl Spectrum {
    /// Of the rows as they are, `[rows, D]`. Reads them from the device; takes time cubic in the smaller of both.
    ///
    /// The values are roots of the eigenvalues of a Gram matrix in f64: those below 1e-8 of the largest are rounding.
    pub fn of(rows: &Tensor<2>) -> Self {
        Self::of_matrix(matrix(rows))
    }

    /// Of the rows less their mean.
    pub fn centered(rows: &Tensor<2>) -> Self {
        let mut matrix = matrix(rows);
        for mut column in matrix.column_iter_mut() {
            let mean = column.mean();
            column.add_scalar_mut(-mean);
        }
        Self::of_matrix(matrix)
    }

    fn of_matrix(matrix: DMatrix<f64>) -> Self {
        let transposed = matrix.transpose();
        let gram = if matrix.nrows() < matrix.ncols() { matrix * transposed } else { transposed * matrix };
        let mut singular_values: Vec<f64> =
            gram.symmetric_eigenvalues().iter().map(|value| value.max(0.0).sqrt()).collect();
        singular_values.sort_unstable_by(|a, b| b.total_cmp(a));
        Self { singular_values }
    }

    /// `exp(−Σ p ln p)` with `p = σ / Σσ`: the number of equal singular values with the same entropy.
    ///
    /// # Source
    /// Roy and Vetterli, *The effective rank: a measure of effective dimensionality*, EUSIPCO 2007.
    pub fn effective_rank(&self) -> f64 {
        exp_entropy(shares(&self.singular_values).into_iter())
    }

    /// The same of the squared singular values: dimensions weighted by their variance.
    pub fn effective_rank_of_covariance(&self) -> f64 {
        let squares: Vec<f64> = self.singular_values.iter().map(|sigma| sigma * sigma).collect();
        exp_entropy(shares(&squares).into_iter())
    }

    /// RankMe: the effective rank with `p = σ / Σσ + 1e-7`.
    ///
    /// # Source
    /// Garrido et al., *RankMe: Assessing the downstream performance of pretrained self-supervised representations by their
    /// rank*, ICML 2023. <https://arxiv.org/abs/2210.02885>
    pub fn rank_me(&self) -> f64 {
        exp_entropy(shares(&self.singular_values).into_iter().map(|p| p + 1e-7))
    }
}

fn matrix(rows: &Tensor<2>) -> DMatrix<f64> {
    let [n_rows, n_dims] = rows.dims();
    let data = rows.clone().cast(FloatDType::F32).into_data();
    DMatrix::from_row_iterator(n_rows, n_dims, data.iter::<f64>())
}

fn shares(values: &[f64]) -> Vec<f64> {
    let sum: f64 = values.iter().sum();
    // Of nothing there are no shares.
    if sum == 0.0 { Vec::new() } else { values.iter().map(|value| value / sum).collect() }
}

fn exp_entropy(shares: impl Iterator<Item = f64>) -> f64 {
    let mut shares = shares.filter(|p| *p != 0.0).peekable();
    if shares.peek().is_none() {
        return 0.0;
    }
    shares.map(|p| -p * p.ln()).sum::<f64>().exp()
}

/// The effective rank of the covariance of a step's unit rows; None where it would cost too much.
pub(crate) fn effective_rank(unit_rows: &Tensor<2>) -> Option<f64> {
    let [n_rows, n_dims] = unit_rows.dims();
    let fits = n_rows.min(n_dims) <= LARGEST_PER_STEP;
    fits.then(|| Spectrum::centered(unit_rows).effective_rank_of_covariance())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn orthogonal_rows_fill_as_many_dimensions() {
        let eye = Tensor::<2>::eye(5, &Device::flex()) * 3.0;
        let spectrum = Spectrum::of(&eye);
        assert!(spectrum.singular_values.iter().all(|sigma| (sigma - 3.0).abs() < 1e-12));
        assert!((spectrum.effective_rank() - 5.0).abs() < 1e-9);
        assert!((spectrum.rank_me() - 5.0).abs() < 1e-4);
        // The mean takes one dimension away.
        assert!((Spectrum::centered(&eye).effective_rank_of_covariance() - 4.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_fills_no_dimension() {
        let spectrum = Spectrum::of(&Tensor::zeros([4, 3], &Device::flex()));
        assert_eq!(
            (spectrum.effective_rank(), spectrum.effective_rank_of_covariance(), spectrum.rank_me()),
            (0.0, 0.0, 0.0)
        );
    }

    #[test]
    fn more_dimensions_than_rows_make_no_difference() {
        let rows = Tensor::<2>::from_data([[1.0, 2.0, 0.0, -1.0], [0.5, 0.0, 1.0, 1.0]], &Device::flex());
        let (wide, tall) = (Spectrum::of(&rows), Spectrum::of(&rows.transpose()));
        assert_eq!(wide.singular_values.len(), 2);
        for (a, b) in wide.singular_values.iter().zip(&tall.singular_values) {
            assert!((a - b).abs() < 1e-12);
        }
    }
}
