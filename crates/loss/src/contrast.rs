//! What one contrast of a batch yields: the loss, its gradient at the embeddings, and what the loss cannot say.

use burn::tensor::Tensor;

use crate::row_statistics::RowStatistics;

/// A partner counts as retrieved only if its cosine leads by more than rounding; on exact ties it is not.
const RETRIEVAL_MARGIN: f64 = 1e-6;

/// Loss, gradient and diagnostics of one batch, computed without a graph.
///
/// To train on it, differentiate `(z * dL/dz).sum()` with `dL/dz` held constant: its gradient is that of the loss,
/// and the sum may be taken over any part of the rows, so a batch can be sent back in shards.
#[derive(Clone, Debug)]
#[must_use]
pub struct Contrast {
    /// `dL/dz1`, `[N, D]`, without autodiff, in the float type of `z1`.
    pub d_z1: Tensor<2>,
    /// `dL/dz2`, `[N, D]`, without autodiff, in the float type of `z2`.
    pub d_z2: Tensor<2>,
    /// The loss and the diagnostics, on the host.
    pub stats: ContrastStats,
}

/// Numbers about one batch, read back from the device in one transfer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContrastStats {
    /// The loss in nats; not finite if an embedding was not.
    pub loss: f64,
    /// Share of the 2N anchors whose most similar other view is their partner. Chance is `1/(2N − 1)`; a collapsed
    /// batch scores 0.
    pub top1: f64,
    /// Mean cosine of partners, in `[−1, 1]`. The alignment of Wang and Isola is `2 − 2·positive_similarity`.
    pub positive_similarity: f64,
    /// Standard deviation of the normalized rows, averaged over dimensions. Directions spread evenly give `1/√D`;
    /// a value near 0 means collapse.
    pub feature_std: f64,
}

impl ContrastStats {
    /// Gathers the numbers and reads them. `loss` is `[1]`. This is the only synchronization with the host.
    pub(crate) fn read(loss: Tensor<1>, rows: &RowStatistics, temperature: f64) -> Self {
        let lead = rows.positive.clone() - rows.hardest.clone();
        let top1 = lead.greater_elem(RETRIEVAL_MARGIN / temperature).float().mean();
        let positive_similarity = rows.positive.clone().mean().mul_scalar(temperature);
        let (variance, _) = rows.unit.rows.clone().var_mean_bias(0);
        let feature_std = variance.sqrt().mean();
        let numbers = Tensor::cat(vec![loss, top1, positive_similarity, feature_std], 0).into_data();
        let mut numbers = numbers.iter::<f64>();
        let mut next = || numbers.next().unwrap_or(f64::NAN);
        Self { loss: next(), top1: next(), positive_similarity: next(), feature_std: next() }
    }
}
