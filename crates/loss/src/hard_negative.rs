//! The contrastive loss with hard negatives.

use serde::{Deserialize, Serialize};

use crate::{
    Objective, ObjectiveError, Partials, RowStatistics, TauPlus, debiased::Estimate, objective_error::check_temperature,
};

/// Concentrations whose multipliers stay apart in f32; 0 besides.
const BETAS: std::ops::RangeInclusive<f64> = 1e-6..=1e3;

/// Configuration of [`HardNegative`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HardNegativeConfig {
    /// Temperature T that divides the cosines: 0.5 in the paper.
    pub temperature: f64,
    /// Probability `τ⁺` that a random other image is a false negative.
    pub tau_plus: TauPlus,
    /// Concentration `β ≥ 0` on similar candidates: they weigh `e^{β·s/T}`.
    pub beta: f64,
    /// What `β` moves to, linearly, by the end of training; absent: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_beta: Option<f64>,
    /// How many of each anchor's most similar candidates are cancelled as probable false negatives.
    #[serde(default, skip_serializing_if = "crate::objective_config::is_zero")]
    pub n_cancelled: usize,
}

impl HardNegativeConfig {
    /// Checks the numbers and builds the objective, with `β` as at the beginning of training.
    ///
    /// # Errors
    /// [`ObjectiveError::Temperature`] unless `1e-6 ≤ T ≤ 1e6`, [`ObjectiveError::TauPlus`] unless `0 ≤ τ⁺ < 1`,
    /// [`ObjectiveError::Beta`] unless `β = 0` or `1e-6 ≤ β ≤ 1000`.
    pub fn init(&self) -> Result<HardNegative, ObjectiveError> {
        for got in [Some(self.beta), self.final_beta].into_iter().flatten() {
            if got != 0.0 && !BETAS.contains(&got) {
                return Err(ObjectiveError::Beta { got });
            }
        }
        Ok(HardNegative {
            temperature: check_temperature(self.temperature)?,
            tau_plus: self.tau_plus.value()?,
            first_beta: self.beta,
            final_beta: self.final_beta.unwrap_or(self.beta),
            beta: self.beta,
            n_cancelled: self.n_cancelled,
        })
    }
}

/// Contrastive loss whose negatives are weighted by their similarity to the anchor, debiased.
///
/// ```text
/// L_i as in the debiased loss, with  a → ln N + LSE_{β+1} − LSE_β        LSE_g = ln Σ_k e^{g·x_k} over N candidates
/// ```
/// That is the mean of `e^x` under weights `e^{β·x}`, times N. The gradient flows through the weights too. `β = 0` gives
/// [`crate::Debiased`], `β = τ⁺ = 0` NT-Xent. In logarithms nothing overflows.
///
/// # Shapes
/// - `views`: two `[N, D]` tensors of raw projections; rows are normalized here (norm floor 1e-12)
/// - returns: `[1]`, in nats. A collapsed encoder scores `ln(2N − 1)`.
///
/// # Conventions
/// The temperature is inside the weights: β = 1 at T = 0.5 means `e^{2s}`. The pseudocode of the paper's figure 13
/// leaves the exponential out; the authors' program, which this follows, does not.
///
/// # Errors
/// None: [`HardNegativeConfig::init`] checked the numbers, [`crate::PairedViews::new`] the views.
///
/// # Cost
/// That of [`Objective`], with two exponentials per logit in place of one.
///
/// # Source
/// Robinson et al., *Contrastive Learning with Hard Negative Samples*, ICLR 2021, eq. (4) and (5).
/// <https://arxiv.org/abs/2010.04592>
///
/// # Example
/// ```
/// # use twoview_loss::{HardNegativeConfig, Objective, TauPlus};
/// let config =
///     HardNegativeConfig { temperature: 0.5, tau_plus: TauPlus::Given(0.1), beta: 1.0, final_beta: Some(0.0), n_cancelled: 0 };
/// let objective = config.init()?;
/// assert_eq!(objective.multipliers(), [2.0, 1.0]);
/// assert_eq!(objective.annealed(0.5).map(|later| later.multipliers()), Some(vec![1.5, 0.5]));
/// # Ok::<(), twoview_loss::ObjectiveError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct HardNegative {
    temperature: f64,
    tau_plus: f64,
    first_beta: f64,
    final_beta: f64,
    beta: f64,
    n_cancelled: usize,
}

impl Objective for HardNegative {
    fn temperature(&self) -> f64 {
        self.temperature
    }

    fn multipliers(&self) -> Vec<f64> {
        // LSE_0 is ln N, which cancels.
        if self.beta == 0.0 { vec![1.0] } else { vec![self.beta + 1.0, self.beta] }
    }

    fn n_cancelled(&self) -> usize {
        self.n_cancelled
    }

    fn annealed(&self, progress: f64) -> Option<Box<dyn Objective>> {
        let beta = self.first_beta + (self.final_beta - self.first_beta) * progress.clamp(0.0, 1.0);
        // Below that the weights are even, to the last bit.
        let beta = if beta < *BETAS.start() { 0.0 } else { beta };
        (self.first_beta != self.final_beta).then(|| Box::new(Self { beta, ..self.clone() }) as Box<dyn Objective>)
    }

    fn partials(&self, rows: &RowStatistics) -> Partials {
        let mut partials = Partials { log_sums: vec![Vec::new(); self.multipliers().len()], ..Partials::default() };
        for (anchor, &n) in rows.n_candidates.iter().enumerate() {
            let a = match self.multipliers()[..] {
                [_] => rows.log_sums[0][anchor],
                _ => (n as f64).ln() + rows.log_sums[0][anchor] - rows.log_sums[1][anchor],
            };
            let estimate = Estimate::new(a, rows, anchor, self.tau_plus);
            estimate.push(&mut partials);
            for (slopes, sign) in partials.log_sums.iter_mut().zip([1.0, -1.0]) {
                slopes.push(sign * estimate.d_log_sum);
            }
        }
        partials
    }
}
