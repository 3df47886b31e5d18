//! The decoupled contrastive loss, plain and weighted.

use serde::{Deserialize, Serialize};

use crate::{
    Objective, ObjectiveError, Partials, RowStatistics,
    objective_error::{TEMPERATURES, check_temperature},
};

/// Configuration of [`Decoupled`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DecoupledConfig {
    /// Temperature τ that divides the cosines: 0.1 in the paper.
    pub temperature: f64,
    /// How many of each anchor's most similar candidates are cancelled as probable false negatives.
    #[serde(default, skip_serializing_if = "crate::objective_config::is_zero")]
    pub n_cancelled: usize,
}

impl DecoupledConfig {
    /// Checks the temperature and builds the objective.
    ///
    /// # Errors
    /// [`ObjectiveError::Temperature`] unless `1e-6 ≤ τ ≤ 1e6`.
    pub fn init(&self) -> Result<Decoupled, ObjectiveError> {
        let temperature = check_temperature(self.temperature)?;
        Ok(Decoupled { temperature, weights: None, n_cancelled: self.n_cancelled })
    }
}

/// Configuration of the weighted [`Decoupled`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DecoupledWeightedConfig {
    /// Temperature τ that divides the cosines: 0.1 in the paper.
    pub temperature: f64,
    /// Width σ of the weights: 0.5 in the paper.
    pub sigma: f64,
    /// Whether the weights are constants for the gradient. They are in lightly; in the authors' program they are not.
    pub detach_weight: bool,
    /// How many of each anchor's most similar candidates are cancelled as probable false negatives.
    #[serde(default, skip_serializing_if = "crate::objective_config::is_zero")]
    pub n_cancelled: usize,
}

impl DecoupledWeightedConfig {
    /// Checks the numbers and builds the objective.
    ///
    /// # Errors
    /// [`ObjectiveError::Temperature`] unless `1e-6 ≤ τ ≤ 1e6`, [`ObjectiveError::Sigma`] unless `1e-6 ≤ σ ≤ 1e6`.
    pub fn init(&self) -> Result<Decoupled, ObjectiveError> {
        let (temperature, sigma) = (check_temperature(self.temperature)?, self.sigma);
        // It divides cosines, as a temperature does.
        if !TEMPERATURES.contains(&sigma) {
            return Err(ObjectiveError::Sigma { got: sigma });
        }
        let weights = Some(Weights { sigma, detached: self.detach_weight });
        Ok(Decoupled { temperature, weights, n_cancelled: self.n_cancelled })
    }
}

/// Decoupled contrastive loss: NT-Xent without the partner in the denominator, so that attraction does not fade with ease.
///
/// ```text
/// L_i = a_i − w_i·p_i        p = logit of the partner, a = ln Σ_k e^{x_k} over the candidates
/// w_i = 1                                               plain
/// w_i = 2 − N·q_i,  q = softmax over the N images of s(i,p(i))/σ        weighted; the mean weight is 1
/// dL_i/da_i = 1,  dL_i/dp_i = −w_i;  through the weights  dw_i/ds_j = −N·q_i·(δ_ij − q_j)/σ
/// ```
/// A weight can be negative, where one pair is much closer than the others. An anchor without candidates has no loss.
///
/// # Shapes
/// - `views`: two `[N, D]` tensors of raw projections; rows are normalized here (norm floor 1e-12)
/// - returns: `[1]`, in nats; it can be negative. A collapsed encoder scores `ln(2N − 2)`.
///
/// # Conventions
/// Mean over all `2N` anchors. Some programs add the two directions and so log twice this value. The bound of the
/// mutual information does not hold for this loss; [`crate::ContrastStats::mutual_information`] is that of InfoNCE.
///
/// # Errors
/// None: `init` checked the numbers, [`crate::PairedViews::new`] the views.
///
/// # Cost
/// That of [`Objective`].
///
/// # Source
/// Yeh et al., *Decoupled Contrastive Learning*, ECCV 2022, eq. (6) and (7). <https://arxiv.org/abs/2110.06848>
///
/// # Example
/// ```
/// # use twoview_loss::{DecoupledConfig, Objective, PairedViews}; let device = burn::tensor::Device::flex();
/// let views = PairedViews::from_rows([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], &device)?;
/// let loss = DecoupledConfig { temperature: 0.5, n_cancelled: 0 }.init()?.contrast(views).stats.loss;
/// assert!((loss - (2.0_f64.ln() - 2.0)).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Decoupled {
    temperature: f64,
    weights: Option<Weights>,
    n_cancelled: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Weights {
    sigma: f64,
    detached: bool,
}

impl Decoupled {
    /// The weight of each image's pair, from the logits of all pairs.
    fn weights(&self, rows: &RowStatistics) -> Vec<f64> {
        let Some(Weights { sigma, .. }) = self.weights else { return vec![1.0; rows.pairs.len()] };
        softmax(&rows.pairs, sigma * rows.inv_temperature).iter().map(|q| 2.0 - rows.pairs.len() as f64 * q).collect()
    }
}

/// `softmax(x / scale)`.
fn softmax(x: &[f64], scale: f64) -> Vec<f64> {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = x.iter().map(|x| ((x - largest) / scale).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|e| e / sum).collect()
}

impl Objective for Decoupled {
    fn temperature(&self) -> f64 {
        self.temperature
    }

    fn n_cancelled(&self) -> usize {
        self.n_cancelled
    }

    fn partials(&self, rows: &RowStatistics) -> Partials {
        let weights = self.weights(rows);
        let mut partials = Partials { log_sums: vec![Vec::new()], ..Partials::default() };
        // dL/dw of every image: minus the logits of its anchors here.
        let mut d_weights = vec![0.0; weights.len()];
        for ((&p, &a), &image) in rows.positive.iter().zip(&rows.log_sums[0]).zip(&rows.image) {
            let has_candidates = a != f64::NEG_INFINITY;
            let weight = weights[image];
            partials.losses.push(if has_candidates { a - weight * p } else { 0.0 });
            partials.positive.push(if has_candidates { -weight } else { 0.0 });
            partials.log_sums[0].push(f64::from(has_candidates));
            d_weights[image] -= if has_candidates { p } else { 0.0 };
        }
        if let Some(Weights { sigma, detached: false }) = self.weights {
            let q = softmax(&rows.pairs, sigma * rows.inv_temperature);
            let n = q.len() as f64;
            let mean: f64 = q.iter().zip(&d_weights).map(|(q, d)| q * d).sum();
            // With logits p = s/τ, dw_i/dp_j = −N·q_i·(δ_ij − q_j)·τ/σ.
            let per_logit = (sigma * rows.inv_temperature).recip();
            partials.pairs = q.iter().zip(&d_weights).map(|(q, d)| -n * q * (d - mean) * per_logit).collect();
        }
        partials
    }
}
