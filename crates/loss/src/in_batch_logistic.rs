//! Binary NCE and negative sampling with the other images of the batch as noise.

use serde::{Deserialize, Serialize};

use crate::{
    Field, LearnedInBatchLogistic, Objective, ObjectiveError, Partials, RowStatistics,
    contrast::{sigmoid, softplus},
    objective_error::check_temperature,
};

/// Configuration of [`InBatchLogistic`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct InBatchLogisticConfig {
    /// Temperature τ that divides the cosines: 0.1 is the first one in the paper of the sigmoid loss.
    pub temperature: f64,
    /// The bias b of the logits: −10 is the first one in that paper. For binary NCE it is minus the `ln Z` over the batch.
    pub bias: f64,
    /// Whether the logits are corrected by the noise's density, which makes this binary NCE instead of negative sampling.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub corrected: bool,
    /// How many of each anchor's most similar candidates are cancelled as probable false negatives.
    #[serde(default, skip_serializing_if = "crate::objective_config::is_zero")]
    pub n_cancelled: usize,
}

impl InBatchLogisticConfig {
    /// Negative sampling, without cancellation.
    pub fn new(temperature: f64, bias: f64) -> Self {
        Self { temperature, bias, corrected: false, n_cancelled: 0 }
    }

    /// Checks the numbers and builds the objective.
    ///
    /// # Errors
    /// [`ObjectiveError::Temperature`] unless `1e-6 ≤ τ ≤ 1e6`, [`ObjectiveError::Bias`] unless `|b| ≤ 1e6`.
    pub fn init(&self) -> Result<InBatchLogistic, ObjectiveError> {
        let &Self { temperature, bias, corrected, n_cancelled } = self;
        let temperature = check_temperature(temperature)?;
        if !(-LARGEST_BIAS..=LARGEST_BIAS).contains(&bias) {
            return Err(ObjectiveError::Bias { got: bias });
        }
        Ok(InBatchLogistic { temperature, bias, corrected, n_cancelled })
    }

    /// The same with scale and bias as parameters that begin with these numbers.
    ///
    /// # Errors
    /// Those of [`init`](Self::init).
    pub fn init_learned(&self, device: &burn::tensor::Device) -> Result<LearnedInBatchLogistic, ObjectiveError> {
        self.init().map(|first| LearnedInBatchLogistic::new(&first, device))
    }
}

/// Beyond it nothing can be told from the logits in f32. Useful ones are −20 to 0.
pub(crate) const LARGEST_BIAS: f64 = 1e6;

/// Logistic loss over all pairs of first and second views: each is to be told a partner or a stranger, by itself.
///
/// ```text
/// x(i,k) = u1_i·u2_k / τ + b − c      c = 0: negative sampling;  c = ln((N − 1)/N): binary NCE, with ln Z = −b
/// L = 1/N · Σ_i [ softplus(−x(i,i)) + Σ_{k≠i} softplus(x(i,k)) ]
/// dL_i/dx(i,i) = −sigmoid(−x(i,i)),  dL_i/dx(i,k) = sigmoid(x(i,k))
/// ```
/// For binary NCE the other `N − 1` second views are noise samples from the marginal, whose density with respect to the
/// empirical one is `1/N` each, so that `ln(k·q) = ln((N − 1)/N)`; those that are left out or cancelled are counted in it.
/// Cosines between −1 and 1 can say neither "partner" nor "stranger" firmly, and nearly all pairs are strangers: without
/// scale and bias the loss is lost from the beginning. [`LearnedInBatchLogistic`] learns both.
///
/// # Shapes
/// - `views`: two `[N, D]` tensors of raw projections; rows are normalized here (norm floor 1e-12)
/// - returns: `[1]`, in nats. An encoder that tells nothing apart scores `ln N + (N − 1)·ln(N/(N − 1))` or more.
///
/// # Conventions
/// Mean over the N images; an anchor is a first view. The sum over pairs is the same with the views swapped, unless a
/// predicate or cancellation looks from the first views. An anchor without candidates has no loss.
///
/// # Errors
/// None: [`InBatchLogisticConfig::init`] checked the numbers, [`crate::PairedViews::new`] the views.
///
/// # Cost
/// That of [`Objective`].
///
/// # Source
/// Zhai et al., *Sigmoid Loss for Language Image Pre-Training*, ICCV 2023, eq. (1). <https://arxiv.org/abs/2303.15343>; the
/// correction is that of [`crate::binary_nce`].
///
/// # Example
/// ```
/// # use twoview_loss::{InBatchLogisticConfig, Objective, PairedViews}; let device = burn::tensor::Device::flex();
/// let views = PairedViews::from_rows([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], &device)?;
/// let loss = InBatchLogisticConfig::new(0.5, -1.0).init()?.contrast(views).stats.loss;
/// assert!((loss - 2.0 * (-1.0_f64).exp().ln_1p()).abs() < 1e-6); // logits 1 and −1
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct InBatchLogistic {
    pub(crate) temperature: f64,
    pub(crate) bias: f64,
    pub(crate) corrected: bool,
    pub(crate) n_cancelled: usize,
}

impl InBatchLogistic {
    /// What is added to the scaled cosines: `b − c`.
    fn offset(&self, n_images: usize) -> f64 {
        let n = n_images as f64;
        if self.corrected { self.bias - ((n - 1.0) / n).ln() } else { self.bias }
    }
}

impl Objective for InBatchLogistic {
    fn temperature(&self) -> f64 {
        self.temperature
    }

    fn field(&self) -> Field {
        Field::FirstToSecond
    }

    fn n_cancelled(&self) -> usize {
        self.n_cancelled
    }

    fn multipliers(&self) -> Vec<f64> {
        Vec::new()
    }

    fn logistic_bias(&self, n_images: usize) -> Option<f64> {
        Some(self.offset(n_images))
    }

    /// The least loss of one cosine for all: all logits are `−ln(N − 1)`, or as near to it as cosines reach. A collapsed
    /// encoder scores more.
    fn chance(&self, n_images: usize) -> f64 {
        let n_images = n_images.max(2);
        let (offset, scale) = (self.offset(n_images), self.temperature.recip());
        let n_candidates = self.field().n_candidates(n_images).saturating_sub(self.n_cancelled).max(1) as f64;
        let x = (-n_candidates.ln()).clamp(offset - scale, offset + scale);
        softplus(-x) + n_candidates * softplus(x)
    }

    fn partials(&self, rows: &RowStatistics) -> Partials {
        let Some(offset) = rows.logistic_bias else {
            unreachable!("the engine gives the sums that were asked for");
        };
        // An anchor without candidates has nothing to be told from.
        let counts: Vec<f64> = rows.n_candidates.iter().map(|&n| f64::from(n > 0)).collect();
        let of_partner = |of: fn(f64) -> f64| {
            rows.positive.iter().zip(&counts).map(move |(p, counts)| counts * of(-(p + offset))).collect::<Vec<f64>>()
        };
        let attraction = of_partner(sigmoid);
        Partials {
            losses: of_partner(softplus).iter().zip(&rows.logistic).map(|(of, sums)| of + sums.losses).collect(),
            positive: attraction.iter().map(|slope| -slope).collect(),
            logistic: counts,
            ..Partials::default()
        }
    }
}
