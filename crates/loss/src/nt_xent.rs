//! NT-Xent, the normalized temperature-scaled cross entropy of SimCLR.

use serde::{Deserialize, Serialize};

use crate::{
    Objective, ObjectiveError, Partials, RowStatistics,
    contrast::{sigmoid, softplus},
    objective_error::check_temperature,
};

/// Configuration of [`NtXent`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NtXentConfig {
    /// Temperature τ that divides the cosines: 0.5 in the CIFAR-10 recipe of the paper, 0.1 in that for ImageNet.
    pub temperature: f64,
    /// How many of each anchor's most similar candidates are cancelled as probable false negatives.
    #[serde(default, skip_serializing_if = "crate::objective_config::is_zero")]
    pub n_cancelled: usize,
}

impl NtXentConfig {
    /// Without cancellation.
    pub fn new(temperature: f64) -> Self {
        Self { temperature, n_cancelled: 0 }
    }

    /// Checks the temperature and builds the objective.
    ///
    /// # Errors
    /// [`ObjectiveError::Temperature`] unless `1e-6 ≤ τ ≤ 1e6`.
    pub fn init(&self) -> Result<NtXent, ObjectiveError> {
        Ok(NtXent { temperature: check_temperature(self.temperature)?, n_cancelled: self.n_cancelled })
    }
}

/// NT-Xent: cross entropy of finding each view's partner among the other `2N − 1` views.
///
/// ```text
/// L = 1/(2N) · Σ_i [ ln Σ_{k≠i} exp(s(i,k)/τ) − s(i,p(i))/τ ]      s = cosine, p(i) = partner of i
///   = 1/(2N) · Σ_i softplus(a_i − p_i)      p_i = s(i,p(i))/τ,  a_i = ln Σ_{k≠i,p(i)} exp(s(i,k)/τ)
/// dL_i/da_i = −dL_i/dp_i = sigmoid(a_i − p_i)
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
/// None: [`NtXentConfig::init`] checked τ, [`crate::PairedViews::new`] equal shapes and `N ≥ 2`.
///
/// # Cost
/// That of [`Objective`].
///
/// # Source
/// Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations*, ICML 2020,
/// eq. (1) and Algorithm 1. <https://arxiv.org/abs/2002.05709>
///
/// # Example
/// ```
/// # use twoview_loss::{Objective, NtXentConfig, PairedViews}; let device = burn::tensor::Device::flex();
/// let views = PairedViews::from_rows([[1.0, 0.0], [0.0, 1.0]], [[0.8, 0.6], [-0.6, 0.8]], &device)?;
/// let loss = NtXentConfig::new(0.5).init()?.forward(views).into_scalar::<f32>();
/// assert!((loss - 0.430_190).abs() < 1e-5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NtXent {
    temperature: f64,
    n_cancelled: usize,
}

impl Objective for NtXent {
    fn temperature(&self) -> f64 {
        self.temperature
    }

    fn n_cancelled(&self) -> usize {
        self.n_cancelled
    }

    fn partials(&self, rows: &RowStatistics) -> Partials {
        cross_entropy(rows)
    }
}

/// Losses and partials of `softplus(a − p)`, the cross entropy of the partner among it and the candidates.
pub(crate) fn cross_entropy(rows: &RowStatistics) -> Partials {
    let leads: Vec<f64> = rows.log_sums[0].iter().zip(&rows.positive).map(|(a, p)| a - p).collect();
    // The share of the softmax that is not on the partner.
    let d_candidates: Vec<f64> = leads.iter().copied().map(sigmoid).collect();
    Partials {
        losses: leads.into_iter().map(softplus).collect(),
        positive: d_candidates.iter().map(|d| -d).collect(),
        log_sums: vec![d_candidates],
        ..Partials::default()
    }
}
