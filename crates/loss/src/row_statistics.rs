//! The engine under every objective: per anchor, the positive logit and the log-sum-exp over its negatives.
//!
//! Legend: N images, D dimensions; anchor `i` of 2N has the partner `p(i) = (i + N) mod 2N`.

use burn::tensor::{Bool, Device, Int, Tensor};

use crate::paired_views::{PairedViews, UnitRows};

/// Stands in for the logit of a view that is not a negative. `exp(EXCLUDED − m)` is exactly zero in f32 for every
/// logit `m` that [`crate::NtXentConfig`] admits, so nothing leaks, and unlike −∞ it is safe in shader languages
/// whose compilers assume that infinities do not occur.
const EXCLUDED: f32 = -1e30;

/// Row statistics of the similarity matrix `x(i,k) = u_i·u_k / τ`.
///
/// Two operations are enough for an objective: read `positive` and `negatives`, and hand the partial derivatives
/// of the loss with respect to both to [`gradient`](Self::gradient). On tensors with autodiff all fields are
/// differentiable, and the statistics need no hand-written derivative.
#[derive(Clone, Debug)]
pub(crate) struct RowStatistics {
    /// `p_i = x(i,p(i))`, `[2N, 1]`.
    pub(crate) positive: Tensor<2>,
    /// `a_i = ln Σ exp(x(i,k))` over the `2N − 2` views of other images, `[2N, 1]`.
    pub(crate) negatives: Tensor<2>,
    /// The largest negative logit, `[2N, 1]`; a constant for the gradient.
    pub(crate) hardest: Tensor<2>,
    /// The normalized rows.
    pub(crate) unit: UnitRows,
    /// `exp(x(i,k) − hardest_i)`, zero where `i` and `k` show one image, `[2N, 2N]`.
    weights: Tensor<2>,
    /// Row sums of `weights`, at least 1, `[2N, 1]`.
    weight_sums: Tensor<2>,
    temperature: f64,
}

impl RowStatistics {
    /// Computes the statistics: one `[2N, 2N]` product and a handful of passes over it.
    pub(crate) fn new(views: PairedViews, temperature: f64) -> Self {
        let n_images = views.n_images();
        let unit = views.unit_rows();
        let u = unit.rows.clone();
        // τ divides the [2N, D] factor, which is smaller than the product.
        let scaled = u.clone().div_scalar(temperature);

        let u2 = u.clone().narrow(0, n_images, n_images);
        let positive = (scaled.clone().narrow(0, 0, n_images) * u2).sum_dim(1); // [N, 1]
        let positive = Tensor::cat(vec![positive.clone(), positive], 0); // [2N, 1]

        let same_image = same_image(n_images, &u.device());
        let logits = scaled.matmul(u.transpose()).mask_fill(same_image, EXCLUDED); // [2N, 2N]
        // The maximum cancels out of the log-sum-exp, so no gradient flows through it.
        let hardest = logits.clone().detach().max_dim(1); // [2N, 1]
        let weights = (logits - hardest.clone()).exp();
        let weight_sums = weights.clone().sum_dim(1);
        let negatives = weight_sums.clone().log() + hardest.clone();
        Self { positive, negatives, hardest, unit, weights, weight_sums, temperature }
    }

    /// Carries the partials `dL/dp` and `dL/da`, both `[2N, 1]`, back to `dL/dz` of the two views.
    ///
    /// With `r_i = dL/da_i / Σ_k w(i,k)` the negatives contribute `(diag(r) W + Wᵀ diag(r)) U / τ`: scaling the
    /// thin factors leaves two matrix products and no further pass over `W`.
    pub(crate) fn gradient(self, d_positive: Tensor<2>, d_negatives: Tensor<2>) -> [Tensor<2>; 2] {
        let u = self.unit.rows.clone();
        let n_images = u.dims()[0] / 2;

        // p_i and p_p(i) are the same product of the same two rows.
        let of_view = |view: usize| d_positive.clone().narrow(0, view * n_images, n_images);
        let per_pair = of_view(0) + of_view(1); // [N, 1]
        let partners = Tensor::cat(vec![u.clone().narrow(0, n_images, n_images), u.clone().narrow(0, 0, n_images)], 0); // [2N, D]
        let through_positive = partners * Tensor::cat(vec![per_pair.clone(), per_pair], 0);

        let row_scale = d_negatives / self.weight_sums; // [2N, 1]
        let as_anchor = self.weights.clone().matmul(u.clone()) * row_scale.clone();
        let as_negative = self.weights.transpose().matmul(u * row_scale);

        let d_rows = (through_positive + as_anchor + as_negative).div_scalar(self.temperature);
        self.unit.gradient(d_rows)
    }
}

/// `[2N, 2N]`, true where row and column are views of one image: the anchor itself and its partner.
fn same_image(n_images: usize, device: &Device) -> Tensor<2, Bool> {
    let n_views = 2 * n_images;
    let image = Tensor::<1, Int>::arange(0..n_views as i64, device).remainder_scalar(n_images as i64);
    image.clone().reshape([n_views, 1]).equal(image.reshape([1, n_views]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_covers_each_view_and_its_partner() {
        let mask = same_image(3, &Device::flex()).into_data().try_to_vec::<bool>().expect("bool");
        for (at, excluded) in mask.into_iter().enumerate() {
            let (row, column) = (at / 6, at % 6);
            assert_eq!(excluded, row == column || row.abs_diff(column) == 3, "({row}, {column})");
        }
    }

    #[test]
    fn an_excluded_logit_weighs_exactly_nothing() {
        for hardest in [-1e6_f32, 0.0, 1e6] {
            assert_eq!((EXCLUDED - hardest).exp(), 0.0);
        }
    }
}
