//! InfoNCE between two sets of embeddings, one way or both.

use serde::{Deserialize, Serialize};

use crate::{
    Field, Objective, ObjectiveError, Partials, RowStatistics, nt_xent::cross_entropy,
    objective_error::check_temperature,
};

/// Configuration of [`InfoNce`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct InfoNceConfig {
    /// Temperature τ that divides the cosines.
    pub temperature: f64,
    /// Whether second views look for their first views too.
    pub both_ways: bool,
    /// How many of each anchor's most similar candidates are cancelled as probable false negatives.
    #[serde(default, skip_serializing_if = "crate::objective_config::is_zero")]
    pub n_cancelled: usize,
}

impl InfoNceConfig {
    /// Checks the temperature and builds the objective.
    ///
    /// # Errors
    /// [`ObjectiveError::Temperature`] unless `1e-6 ≤ τ ≤ 1e6`.
    pub fn init(&self) -> Result<InfoNce, ObjectiveError> {
        let field = if self.both_ways { Field::BothWays } else { Field::FirstToSecond };
        Ok(InfoNce { temperature: check_temperature(self.temperature)?, field, n_cancelled: self.n_cancelled })
    }
}

/// InfoNCE: cross entropy of finding each first view's partner among the N second views, and perhaps the reverse.
///
/// ```text
/// L = 1/N · Σ_i [ ln Σ_k exp(s(1i,2k)/τ) − s(1i,2i)/τ ]        both ways: the mean of this and of the views exchanged
/// ```
/// Unlike in [`crate::NtXent`], views of one kind are no candidates of each other. Then the candidates are independent
/// draws, and `ln N − L` is a lower bound of the mutual information of the views (one way or both).
///
/// # Shapes
/// - `views`: two `[N, D]` tensors of raw projections; rows are normalized here (norm floor 1e-12)
/// - returns: `[1]`, in nats. A collapsed encoder scores `ln N`.
///
/// # Conventions
/// Mean over the N anchors one way, over `2N` both ways: CLIP's loss, with a fixed temperature.
///
/// # Errors
/// None: [`InfoNceConfig::init`] checked τ, [`crate::PairedViews::new`] equal shapes and `N ≥ 2`.
///
/// # Cost
/// That of [`Objective`], on a quarter of the matrix one way and on half of it both ways.
///
/// # Source
/// Van den Oord et al., *Representation Learning with Contrastive Predictive Coding*, 2018, eq. (4) and (5).
/// <https://arxiv.org/abs/1807.03748>
///
/// # Example
/// ```
/// # use twoview_loss::{Objective, InfoNceConfig, PairedViews}; let device = burn::tensor::Device::flex();
/// let views = PairedViews::from_rows([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], &device)?;
/// let objective = InfoNceConfig { temperature: 1.0, both_ways: false, n_cancelled: 0 }.init()?;
/// let loss = objective.forward(views).into_scalar::<f32>();
/// assert!((loss - (1.0 + (-1.0_f32).exp()).ln()).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct InfoNce {
    temperature: f64,
    field: Field,
    n_cancelled: usize,
}

impl Objective for InfoNce {
    fn temperature(&self) -> f64 {
        self.temperature
    }

    fn field(&self) -> Field {
        self.field
    }

    fn n_cancelled(&self) -> usize {
        self.n_cancelled
    }

    fn partials(&self, rows: &RowStatistics) -> Partials {
        cross_entropy(rows)
    }
}
