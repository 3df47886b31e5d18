//! What all contrastive objectives can do, and the configuration that selects one.

use std::fmt::Debug;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::{Contrast, NtXentConfig, NtXentError, PairedViews};

/// A loss over paired views.
///
/// The contract, which one test suite holds every objective to: the value and the gradient do not depend on the
/// order of the images or on which view comes first; [`forward`](Self::forward) and [`contrast`](Self::contrast)
/// agree with each other and with finite differences; finite embeddings, zero rows among them, give finite results.
pub trait Objective: Debug + Send + Sync {
    /// The loss of every anchor, `[2N]`: the rows of `z1`, then those of `z2`. Differentiable.
    fn anchor_losses(&self, views: PairedViews) -> Tensor<1>;

    /// The loss in nats, `[1]`: the mean over the 2N anchors. Differentiable.
    fn forward(&self, views: PairedViews) -> Tensor<1> {
        self.anchor_losses(views).mean()
    }

    /// The loss and its exact gradient at every embedding, computed without a graph, with diagnostics.
    ///
    /// The views may live on an autodiff device; the results do not. Waits for the device once, to read
    /// [`crate::ContrastStats`].
    fn contrast(&self, views: PairedViews) -> Contrast;

    /// The loss of a collapsed encoder on a batch of `n_images`, in nats.
    fn chance(&self, n_images: usize) -> f64;

    /// The loss of an ideal encoder on a batch of `n_images`, in nats: partners equal, other images orthogonal.
    fn floor(&self, n_images: usize) -> f64;
}

/// Selects an objective, e.g. `{ kind = "nt_xent", temperature = 0.5 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ObjectiveConfig {
    /// The objective of SimCLR, [`crate::NtXent`].
    NtXent(NtXentConfig),
}

/// Why an [`ObjectiveConfig`] is not an objective.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum ObjectiveError {
    /// From `kind = "nt_xent"`.
    #[error(transparent)]
    NtXent(#[from] NtXentError),
}

impl ObjectiveConfig {
    /// Checks the configuration and builds the objective.
    ///
    /// # Errors
    /// What the selected objective's own `init` reports.
    pub fn init(&self) -> Result<Box<dyn Objective>, ObjectiveError> {
        match self {
            Self::NtXent(config) => Ok(Box::new(config.init()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ObjectiveConfig, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_config_survives_the_round_trip() {
        let config = parse(r#"{"kind": "nt_xent", "temperature": 0.2}"#).expect("valid");
        assert_eq!(config, ObjectiveConfig::NtXent(NtXentConfig { temperature: 0.2 }));
        let text = serde_json::to_string(&config).expect("serializes");
        assert_eq!(parse(&text), Ok(config));
    }

    #[test]
    fn a_wrong_config_names_the_key() {
        let check = |text: &str, want: &str| {
            let error = parse(text).expect_err("rejected");
            assert!(error.contains(want), "{text}: {error}");
        };
        check(r#"{"kind": "nt_xent"}"#, "temperature");
        check(r#"{"kind": "nt_xent", "temperature": 0.2, "tau": 0.1}"#, "tau");
        check(r#"{"kind": "dcl", "temperature": 0.2}"#, "nt_xent");
        check(r#"{"temperature": 0.2}"#, "kind");
    }

    #[test]
    fn init_passes_the_range_check_on() {
        let config = ObjectiveConfig::NtXent(NtXentConfig { temperature: -1.0 });
        let error = config.init().expect_err("negative temperature").to_string();
        assert!(error.contains("-1"), "{error}");
    }
}
