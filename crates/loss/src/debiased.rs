//! The debiased contrastive loss.

use serde::{Deserialize, Serialize};

use crate::{
    Objective, ObjectiveError, Partials, RowStatistics, TauPlus,
    contrast::{sigmoid, softplus},
    objective_error::check_temperature,
};

/// Configuration of [`Debiased`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DebiasedConfig {
    /// Temperature T that divides the cosines: 0.5 in the paper.
    pub temperature: f64,
    /// Probability `τ⁺` that a random other image is a false negative: 0.1 in the paper's CIFAR-10 recipe.
    pub tau_plus: TauPlus,
    /// How many of each anchor's most similar candidates are cancelled as probable false negatives.
    #[serde(default, skip_serializing_if = "crate::objective_config::is_zero")]
    pub n_cancelled: usize,
}

impl DebiasedConfig {
    /// Checks the numbers and builds the objective.
    ///
    /// # Errors
    /// [`ObjectiveError::Temperature`] unless `1e-6 ≤ T ≤ 1e6`, [`ObjectiveError::TauPlus`] unless `0 ≤ τ⁺ < 1`.
    pub fn init(&self) -> Result<Debiased, ObjectiveError> {
        Ok(Debiased {
            temperature: check_temperature(self.temperature)?,
            tau_plus: self.tau_plus.value()?,
            n_cancelled: self.n_cancelled,
        })
    }
}

/// Debiased contrastive loss: NT-Xent less the false negatives that its negatives are expected to hold.
///
/// ```text
/// L_i  = softplus(ln Ng − p)       N candidates, p = logit of the partner, a = ln Σ_k e^{x_k} over the candidates
/// Ng   = max( (e^a − τ⁺·N·e^p) / (1 − τ⁺),  N·e^{−1/T} )
/// ln Ng = a + ln(1 − u) − ln(1 − τ⁺),  u = τ⁺·N·e^{p − a}                               where the first is larger
/// dL/da = −dL/dp = sigmoid(ln Ng − p) / (1 − u)         clamped: dL/da = 0, dL/dp = −sigmoid(ln Ng − p)
/// ```
/// Everything is computed in logarithms, so no temperature overflows. `τ⁺ = 0` gives NT-Xent.
///
/// **The bound is the real hyper-parameter.** An anchor whose estimate falls below `N·e^{−1/T}` gets no repulsion at
/// all: [`crate::ContrastStats::clamped`] says how many do. `τ⁺ = 0.1` suits `T = 0.5`; at `T = 0.1` it clamps nearly every anchor
/// whose partner is close, see [`clamp_limit`].
///
/// # Shapes
/// - `views`: two `[N, D]` tensors of raw projections; rows are normalized here (norm floor 1e-12)
/// - returns: `[1]`, in nats. A collapsed encoder scores `ln(2N − 1)`.
///
/// # Conventions
/// One positive per anchor (the paper's M = 1), N = number of candidates, the mean over all `2N` anchors.
///
/// # Errors
/// None: [`DebiasedConfig::init`] checked the numbers, [`crate::PairedViews::new`] the views.
///
/// # Cost
/// That of [`Objective`].
///
/// # Source
/// Chuang et al., *Debiased Contrastive Learning*, NeurIPS 2020, eq. (7) and (8). <https://arxiv.org/abs/2007.00224>
///
/// # Example
/// ```
/// # use twoview_loss::{DebiasedConfig, NtXentConfig, Objective, PairedViews, TauPlus};
/// # let device = burn::tensor::Device::flex();
/// let views = PairedViews::from_rows([[1.0, 0.0], [0.0, 1.0]], [[0.8, 0.6], [-0.6, 0.8]], &device)?;
/// let config = DebiasedConfig { temperature: 0.5, tau_plus: TauPlus::Given(0.0), n_cancelled: 0 };
/// let plain = NtXentConfig::new(0.5).init()?.contrast(views.clone()).stats.loss;
/// assert!((config.init()?.contrast(views).stats.loss - plain).abs() < 1e-12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Debiased {
    temperature: f64,
    tau_plus: f64,
    n_cancelled: usize,
}

impl Objective for Debiased {
    fn temperature(&self) -> f64 {
        self.temperature
    }

    fn n_cancelled(&self) -> usize {
        self.n_cancelled
    }

    fn partials(&self, rows: &RowStatistics) -> Partials {
        let of = |anchor: usize, a: f64| Estimate::new(a, rows, anchor, self.tau_plus);
        let anchors = rows.log_sums[0].iter().enumerate().map(|(anchor, &a)| of(anchor, a));
        let mut partials = Partials { log_sums: vec![Vec::new()], ..Partials::default() };
        for estimate in anchors {
            estimate.push(&mut partials);
            partials.log_sums[0].push(estimate.d_log_sum);
        }
        partials
    }
}

/// The loss of an anchor with the false negatives taken out of its candidates, and its partials.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    loss: f64,
    d_positive: f64,
    pub(crate) d_log_sum: f64,
    clamped: bool,
}

impl Estimate {
    /// Corrects `ln Σ e^x = a` over an anchor's candidates.
    pub(crate) fn new(a: f64, rows: &RowStatistics, anchor: usize, tau_plus: f64) -> Self {
        let (p, n) = (rows.positive[anchor], rows.n_candidates[anchor] as f64);
        if n == 0.0 {
            return Self { loss: 0.0, d_positive: 0.0, d_log_sum: 0.0, clamped: false };
        }
        let u = (tau_plus.ln() + n.ln() + p - a).exp();
        let least = n.ln() - rows.inv_temperature;
        let corrected = if u < 1.0 { a + (-u).ln_1p() - (-tau_plus).ln_1p() } else { f64::NEG_INFINITY };
        // With τ⁺ = 0 nothing is corrected and nothing bounded: Σ e^x cannot be below its least value but for rounding.
        let clamped = tau_plus > 0.0 && corrected <= least;
        let lead = if clamped { least } else { corrected } - p;
        let slope = sigmoid(lead);
        let (d_positive, d_log_sum) = if clamped { (-slope, 0.0) } else { (-slope / (1.0 - u), slope / (1.0 - u)) };
        Self { loss: softplus(lead), d_positive, d_log_sum, clamped }
    }

    pub(crate) fn push(self, partials: &mut Partials) {
        partials.losses.push(self.loss);
        partials.positive.push(self.d_positive);
        partials.clamped.push(self.clamped);
    }
}

/// The cosine of an anchor and its partner from which on its estimate is clamped, were its negatives orthogonal to it.
///
/// ```text
/// τ⁺·(e^{s/T} − e^{−1/T}) = 1 − e^{−1/T}
/// ```
/// A limit below 1 means that the loss turns into pure attraction before it is won. Real negatives have a larger mean of
/// `e^x`, so this is the worst case, not a prediction.
///
/// ```
/// use twoview_loss::clamp_limit;
/// assert!(clamp_limit(0.5, 0.1) > 1.0);
/// assert!((clamp_limit(0.1, 0.1) - 0.23).abs() < 0.01);
/// ```
pub fn clamp_limit(temperature: f64, tau_plus: f64) -> f64 {
    let least = (-temperature.recip()).exp();
    temperature * ((1.0 - least) / tau_plus + least).ln()
}
