//! Supervised contrastive loss.

use serde::{Deserialize, Serialize};

use crate::{
    Objective, ObjectiveError, Partials, RowStatistics,
    contrast::{sigmoid, softplus},
    objective_error::check_temperature,
};

/// Configuration of [`SupCon`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SupConConfig {
    /// Temperature τ that divides the cosines: 0.1 in the paper.
    pub temperature: f64,
    /// How many of each anchor's most similar candidates with other labels are cancelled.
    #[serde(default, skip_serializing_if = "crate::objective_config::is_zero")]
    pub n_cancelled: usize,
}

impl SupConConfig {
    /// Checks the temperature and builds the objective.
    ///
    /// # Errors
    /// [`ObjectiveError::Temperature`] unless `1e-6 ≤ τ ≤ 1e6`.
    pub fn init(&self) -> Result<SupCon, ObjectiveError> {
        Ok(SupCon { temperature: check_temperature(self.temperature)?, n_cancelled: self.n_cancelled })
    }
}

/// Supervised contrastive loss: every view with the anchor's label is a positive.
///
/// ```text
/// L_i = −1/|P| · Σ_{j∈P} (x_ij − ln Σ_{k≠i} e^{x_ik})        P = {j ≠ i : label_j = label_i}, the partner among them
///     = p + softplus(a − p) − mean_{j∈P} x_ij                p = logit of the partner, a = LSE of all others
/// dL/da = sigmoid(a − p),   dL/dp = 1 − sigmoid(a − p) − 1/|P|,   dL/dx_ij = −1/|P| for the other positives
/// ```
/// Without labels ([`crate::PairedViews::with_labels`]) the partner is the only positive, and this is [`crate::NtXent`].
///
/// # Shapes
/// - `views`: two `[N, D]` tensors of raw projections; rows are normalized here (norm floor 1e-12)
/// - returns: `[1]`, in nats. A collapsed encoder scores `ln(2N − 1)`.
///
/// # Conventions
/// The mean over the positives is outside the logarithm (the paper's `L_out`). SupContrast multiplies by `τ/0.07`.
///
/// # Errors
/// None: [`SupConConfig::init`] checked τ, [`crate::PairedViews`] the views and labels.
///
/// # Cost
/// That of [`Objective`], and a comparison of labels per pair.
///
/// # Source
/// Khosla et al., *Supervised Contrastive Learning*, NeurIPS 2020, eq. (2). <https://arxiv.org/abs/2004.11362>
///
/// # Example
/// ```
/// # use twoview_loss::{Objective, SupConConfig, PairedViews}; let device = burn::tensor::Device::flex();
/// let views = PairedViews::from_rows([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], &device)?;
/// let objective = SupConConfig { temperature: 0.5, n_cancelled: 0 }.init()?;
/// let apart = objective.contrast(views.clone()).stats.loss;
/// assert!(objective.contrast(views.with_labels(&[3, 3])?).stats.loss > apart);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SupCon {
    temperature: f64,
    n_cancelled: usize,
}

impl Objective for SupCon {
    fn temperature(&self) -> f64 {
        self.temperature
    }

    fn n_cancelled(&self) -> usize {
        self.n_cancelled
    }

    fn is_supervised(&self) -> bool {
        true
    }

    fn partials(&self, rows: &RowStatistics) -> Partials {
        let mut partials = Partials { log_sums: vec![Vec::new()], ..Partials::default() };
        for ((&p, &a), &(sum, n)) in rows.positive.iter().zip(&rows.log_sums[0]).zip(&rows.other_positives) {
            let lead = a - p;
            let share = (n as f64 + 1.0).recip();
            // Of the other positives only; with none, this is softplus(a − p) to the last bit.
            partials.losses.push(softplus(lead) + (n as f64 * p - sum) * share);
            partials.positive.push((1.0 - share) - sigmoid(lead));
            partials.log_sums[0].push(sigmoid(lead));
            partials.other_positives.push(-share);
        }
        partials
    }
}
