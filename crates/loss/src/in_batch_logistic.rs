//! Binary NCE and negative sampling with the other images of the batch as noise.

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData, activation},
};
use serde::{Deserialize, Serialize};

use crate::{ObjectiveError, PairedViews, engine::round, objective_error::check_temperature};

/// Configuration of [`InBatchLogistic`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InBatchLogisticConfig {
    /// The scale's first value is the inverse of this: 0.1 in the paper of the sigmoid loss.
    pub temperature: f64,
    /// The bias to begin with; −10 in that paper. For binary NCE with N images: minus the first `ln Z`.
    pub bias: f64,
    /// Whether the logits are corrected by the noise's density, which makes this binary NCE instead of negative sampling.
    pub corrected: bool,
}

impl InBatchLogisticConfig {
    /// Checks the numbers and builds the loss with its two parameters.
    ///
    /// # Errors
    /// [`ObjectiveError::Temperature`] unless `1e-6 ≤ T ≤ 1e6`, [`ObjectiveError::Bias`] unless the bias is finite.
    pub fn init(&self, device: &Device) -> Result<InBatchLogistic, ObjectiveError> {
        let temperature = check_temperature(self.temperature)?;
        if !self.bias.is_finite() {
            return Err(ObjectiveError::Bias { got: self.bias });
        }
        let scalar = |value: f64| Param::from_tensor(Tensor::from_data([round(value)], device));
        Ok(InBatchLogistic { log_scale: scalar(-temperature.ln()), bias: scalar(self.bias), corrected: self.corrected })
    }
}

/// Logistic loss over all pairs of first and second views, with the scale and the bias that cosines need.
///
/// ```text
/// x(i,k) = e^t · u1_i·u2_k + b − c       c = 0: negative sampling;  c = ln((N − 1)/N): binary NCE, with ln Z = −b
/// L = 1/N · Σ_i [ softplus(−x(i,i)) + Σ_{k≠i} softplus(x(i,k)) ]
/// ```
/// For binary NCE the other `N − 1` second views are noise samples from the marginal, whose density with respect to the empirical
/// one is `1/N` each, so that `ln(k·q) = ln((N − 1)/N)`. Cosines between −1 and 1 can say neither "data" nor "noise" firmly,
/// and nearly all pairs are noise: without scale and bias the loss is lost from the beginning.
///
/// # Shapes
/// - `views`: two `[N, D]` tensors of raw projections; rows are normalized here (norm floor 1e-12)
/// - returns: `[1]`, in nats, the mean over N images. Differentiable in the embeddings, the scale and the bias.
///
/// What is known of false negatives is heeded as by every [`crate::Objective`], but this is none: it has parameters.
///
/// # Cost
/// One `[N, N]` matrix of logits and its graph: a few times `4·N²` bytes.
///
/// # Source
/// Zhai et al., *Sigmoid Loss for Language Image Pre-Training*, ICCV 2023, eq. (1). <https://arxiv.org/abs/2303.15343>; the
/// correction is that of [`crate::binary_nce`].
#[derive(Debug, Module)]
pub struct InBatchLogistic {
    /// Logarithm t of the scale, `[1]`.
    pub log_scale: Param<Tensor<1>>,
    /// Bias b, `[1]`.
    pub bias: Param<Tensor<1>>,
    corrected: bool,
}

impl InBatchLogistic {
    /// The loss.
    pub fn forward(&self, views: PairedViews) -> Tensor<1> {
        let n = views.n_images();
        let left_out = views.roles().second_views_left_out();
        let rows = views.unit_rows().rows;
        let (u1, u2) = (rows.clone().narrow(0, 0, n), rows.narrow(0, n, n));
        let correction = if self.corrected { ((n as f64 - 1.0) / n as f64).ln() } else { 0.0 };
        let scale = self.log_scale.val().exp().reshape([1, 1]);
        let offset = self.bias.val().sub_scalar(correction).reshape([1, 1]);
        let positive = (u1.clone() * u2.clone()).sum_dim(1) * scale.clone() + offset.clone(); // [N, 1]
        let logits = u1.matmul(u2.transpose()) * scale + offset; // [N, N]
        let is_noise: Vec<f32> = left_out.into_iter().map(|left_out| f32::from(!left_out)).collect();
        let is_noise = Tensor::<2>::from_data(TensorData::new(is_noise, [n, n]), &logits.device());
        let noise = (activation::softplus(logits, 1.0) * is_noise).sum_dim(1);
        (activation::softplus(positive.neg(), 1.0) + noise).mean()
    }
}
