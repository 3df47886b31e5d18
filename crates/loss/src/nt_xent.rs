//! NT-Xent, the normalized temperature-scaled cross entropy of SimCLR.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

use crate::row_statistics::RowStatistics;
use crate::{Contrast, ContrastStats, Objective, PairedViews, chance_line, floor};

/// Temperatures for which every intermediate stays well inside f32. The useful ones are 0.05 to 1.
const TEMPERATURES: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

/// Configuration of [`NtXent`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NtXentConfig {
    /// Temperature τ that divides the cosines: 0.5 in the CIFAR-10 recipe of the paper, 0.1 in that for ImageNet.
    pub temperature: f64,
}

/// Why a [`NtXentConfig`] is not an objective.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum NtXentError {
    /// The temperature is not a number in the supported range.
    #[error("temperature must lie between 1e-6 and 1e6, got {got}; usual values are 0.05 to 1")]
    Temperature {
        /// The value given.
        got: f64,
    },
}

impl NtXentConfig {
    /// Checks the temperature and builds the objective.
    ///
    /// # Errors
    /// [`NtXentError::Temperature`] unless `1e-6 ≤ τ ≤ 1e6`.
    pub fn init(&self) -> Result<NtXent, NtXentError> {
        if !TEMPERATURES.contains(&self.temperature) {
            return Err(NtXentError::Temperature { got: self.temperature });
        }
        Ok(NtXent { temperature: self.temperature })
    }
}

/// NT-Xent: cross entropy of finding each view's partner among the other `2N − 1` views.
///
/// ```text
/// L = 1/(2N) · Σ_i [ ln Σ_{k≠i} exp(s(i,k)/τ) − s(i,p(i))/τ ]      s = cosine, p(i) = partner of i
///   = 1/(2N) · Σ_i softplus(a_i − p_i)      p_i = s(i,p(i))/τ,  a_i = ln Σ_{k≠i,p(i)} exp(s(i,k)/τ)
/// ```
/// The second line is what is computed. It needs no difference of nearly equal numbers, so a loss of 1e-9 is as
/// accurate as one of 5, and it never overflows.
///
/// # Shapes
/// - `views`: two `[N, D]` tensors of raw projections; rows are normalized here (norm floor 1e-12)
/// - returns: `[1]`, in nats. A collapsed encoder scores exactly `ln(2N − 1)`; read curves against that line.
///
/// # Conventions
/// Mean over all `2N` anchors, as in Algorithm 1. The authors' TensorFlow code adds two half-means
/// (google-research/simclr `objective.py:86`) and so logs twice this value. SupContrast multiplies by `τ/0.07`.
/// Both views of every other image are negatives; an anchor itself is excluded exactly, at any temperature.
///
/// # Errors
/// None: [`NtXentConfig::init`] checked τ, [`PairedViews::new`] equal shapes and `N ≥ 2`.
///
/// # Cost
/// One `[2N, 2N]` matrix of logits, `16·N²` bytes in f32, and its exponentials, as much again; three matrix
/// products of `8·N²·D` operations for loss and gradient. [`Objective::forward`] keeps a few more such matrices
/// for the backward pass.
///
/// # Source
/// Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations*, ICML 2020,
/// eq. (1) and Algorithm 1. <https://arxiv.org/abs/2002.05709>
///
/// # Example
/// ```
/// # use twoview_loss::{Objective, NtXentConfig, PairedViews}; let device = burn::tensor::Device::flex();
/// let views = PairedViews::from_rows([[1.0, 0.0], [0.0, 1.0]], [[0.8, 0.6], [-0.6, 0.8]], &device)?;
/// let loss = NtXentConfig { temperature: 0.5 }.init()?.forward(views).into_scalar::<f32>();
/// assert!((loss - 0.430_190).abs() < 1e-5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NtXent {
    temperature: f64,
}

impl NtXent {
    /// The temperature τ.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }
}

impl Objective for NtXent {
    fn anchor_losses(&self, views: PairedViews) -> Tensor<1> {
        let rows = RowStatistics::new(views, self.temperature);
        loss_of(rows.negatives - rows.positive).squeeze_dim(1)
    }

    fn contrast(&self, views: PairedViews) -> Contrast {
        let rows = RowStatistics::new(views.without_autodiff(), self.temperature);
        let n_anchors = rows.positive.dims()[0];
        let lead_of_negatives = rows.negatives.clone() - rows.positive.clone(); // [2N, 1]
        let loss = loss_of(lead_of_negatives.clone()).mean();
        let stats = ContrastStats::read(loss, &rows, self.temperature);
        // d softplus(a − p) is the share of the softmax that is not on the partner.
        let d_negatives = activation::sigmoid(lead_of_negatives).div_scalar(n_anchors as f64);
        let [d_z1, d_z2] = rows.gradient(d_negatives.clone().neg(), d_negatives);
        Contrast { d_z1, d_z2, stats }
    }

    fn chance(&self, n_images: usize) -> f64 {
        chance_line(n_images)
    }

    fn floor(&self, n_images: usize) -> f64 {
        floor(n_images, self.temperature)
    }
}

/// Loss of anchors whose negatives lead their partner by `a − p`.
fn loss_of(lead_of_negatives: Tensor<2>) -> Tensor<2> {
    activation::softplus(lead_of_negatives, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_temperatures_outside_its_range() {
        for got in [0.0, -0.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e-7, 1e7] {
            let error = NtXentConfig { temperature: got }.init().expect_err("out of range");
            assert!(error.to_string().contains("between 1e-6 and 1e6"), "{error}");
        }
        for temperature in [1e-6, 1e-4, 0.5, 1e3, 1e6] {
            assert!(NtXentConfig { temperature }.init().is_ok());
        }
    }
}
