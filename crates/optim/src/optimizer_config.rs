//! The configuration of an optimizer: every key that changes a result is written out.

use burn::optim::AdamWConfig;
use serde::{Deserialize, Serialize};

use crate::sgd::Sgd;
use crate::sparing::Sparing;
use crate::{Lars, LarsVariant, Optimizer};

/// The batch size for which SGD and LARS state their learning rate.
const REFERENCE_BATCH: f64 = 256.0;

/// Selects an optimizer, e.g.
/// `{ kind = "sgd", lr_per_256 = 0.06, momentum = 0.9, nesterov = false, weight_decay = 5e-4 }`.
///
/// Weight decay spares tensors of one dimension, which are biases and norms, in all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum OptimizerConfig {
    /// Stochastic gradient descent: `d = g + λw`, `v ← m v + d`, `w ← w − lr (nesterov ? d + m v : v)`. The first
    /// `v` is `d`; there is no dampening.
    Sgd {
        /// Learning rate per 256 images: the peak is this times `batch / 256`.
        lr_per_256: f64,
        /// `m`, in `[0, 1)`.
        momentum: f64,
        /// Whether to look ahead along the momentum.
        nesterov: bool,
        /// `λ`, part of the gradient and so of the momentum.
        weight_decay: f64,
    },
    /// AdamW: `w ← w (1 − lr λ) − lr m̂ / (√v̂ + ε)` with bias-corrected moments.
    #[serde(rename = "adamw")]
    AdamW {
        /// Peak learning rate, whatever the batch: Adam's steps hardly depend on the scale of the gradient.
        lr: f64,
        /// Decay of the first and second moment, each in `[0, 1)`.
        betas: [f64; 2],
        /// `ε`, outside the root.
        eps: f64,
        /// `λ`, apart from the gradient.
        weight_decay: f64,
    },
    /// [`Lars`], for batches of a thousand images and more.
    Lars {
        /// Learning rate per 256 images: the peak is this times `batch / 256`.
        lr_per_256: f64,
        /// `m`, in `[0, 1)`.
        momentum: f64,
        /// Whether to look ahead along the momentum.
        nesterov: bool,
        /// `λ`.
        weight_decay: f64,
        /// `η`, the trust coefficient: 0.001 in the paper and in SimCLR.
        trust: f64,
        /// Which of the published definitions.
        variant: LarsVariant,
    },
}

/// Why an [`OptimizerConfig`] is not an optimizer.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum OptimizerError {
    /// A number is outside its range.
    #[error("{key} must be {expected}, got {got}")]
    OutOfRange {
        /// The key of the configuration.
        key: &'static str,
        /// The range in words.
        expected: &'static str,
        /// The value given.
        got: f64,
    },
    /// There is no momentum to look ahead along.
    #[error("nesterov = true needs a momentum above 0, got 0; set momentum, or nesterov = false")]
    NesterovWithoutMomentum,
}

impl OptimizerConfig {
    /// The learning rate at the top of the schedule for a batch of `batch_size` images.
    ///
    /// SGD and LARS scale linearly, `lr_per_256 · batch / 256`, since their step is proportional to the gradient and
    /// a larger batch makes fewer of them. AdamW's `lr` is taken as it is.
    ///
    /// ```
    /// # use twoview_optim::OptimizerConfig;
    /// let sgd = OptimizerConfig::Sgd { lr_per_256: 0.06, momentum: 0.9, nesterov: false, weight_decay: 5e-4 };
    /// assert_eq!(sgd.peak_lr(512), 0.12);
    /// ```
    pub fn peak_lr(&self, batch_size: u64) -> f64 {
        match self {
            Self::Sgd { lr_per_256, .. } | Self::Lars { lr_per_256, .. } => {
                lr_per_256 * batch_size as f64 / REFERENCE_BATCH
            }
            Self::AdamW { lr, .. } => *lr,
        }
    }

    /// Checks the configuration and builds an optimizer without memory.
    ///
    /// # Errors
    /// [`OptimizerError`] if a number is not finite or outside its range, or Nesterov is asked for without momentum.
    pub fn init(&self) -> Result<Optimizer, OptimizerError> {
        match *self {
            Self::Sgd { lr_per_256, momentum, nesterov, weight_decay } => {
                positive("lr_per_256", lr_per_256)?;
                check_momentum(momentum, nesterov)?;
                not_negative("weight_decay", weight_decay)?;
                let rule = |weight_decay| Sgd { momentum: single(momentum), nesterov, weight_decay };
                Ok(Optimizer::new("sgd", Sparing { weights: rule(single(weight_decay)), spared: rule(0.0) }))
            }
            Self::AdamW { lr, betas: [beta_1, beta_2], eps, weight_decay } => {
                positive("lr", lr)?;
                fraction("betas[0]", beta_1)?;
                fraction("betas[1]", beta_2)?;
                positive("eps", eps)?;
                not_negative("weight_decay", weight_decay)?;
                let config = AdamWConfig::new()
                    .with_beta_1(single(beta_1))
                    .with_beta_2(single(beta_2))
                    .with_epsilon(single(eps))
                    .with_amsgrad(false)
                    .with_cautious_weight_decay(false);
                let with_decay = |decay| config.clone().with_weight_decay(decay).build();
                Ok(Optimizer::new(
                    "adamw",
                    Sparing { weights: with_decay(single(weight_decay)), spared: with_decay(0.0) },
                ))
            }
            Self::Lars { lr_per_256, momentum, nesterov, weight_decay, trust, variant } => {
                positive("lr_per_256", lr_per_256)?;
                check_momentum(momentum, nesterov)?;
                not_negative("weight_decay", weight_decay)?;
                positive("trust", trust)?;
                Ok(Optimizer::new("lars", Lars { momentum, nesterov, weight_decay, trust, variant }))
            }
        }
    }
}

fn positive(key: &'static str, got: f64) -> Result<(), OptimizerError> {
    in_range(got > 0.0 && got.is_finite(), key, "a number above 0", got)
}

fn not_negative(key: &'static str, got: f64) -> Result<(), OptimizerError> {
    in_range(got >= 0.0 && got.is_finite(), key, "0 or a number above 0", got)
}

fn fraction(key: &'static str, got: f64) -> Result<(), OptimizerError> {
    in_range((0.0..1.0).contains(&got), key, "at least 0 and below 1", got)
}

fn check_momentum(momentum: f64, nesterov: bool) -> Result<(), OptimizerError> {
    fraction("momentum", momentum)?;
    if nesterov && momentum == 0.0 { Err(OptimizerError::NesterovWithoutMomentum) } else { Ok(()) }
}

fn in_range(ok: bool, key: &'static str, expected: &'static str, got: f64) -> Result<(), OptimizerError> {
    if ok { Ok(()) } else { Err(OptimizerError::OutOfRange { key, expected, got }) }
}

/// The precision in which Burn keeps its hyper-parameters.
#[allow(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
fn single(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SGD: &str = r#"{"kind": "sgd", "lr_per_256": 0.06, "momentum": 0.9, "nesterov": true, "weight_decay": 5e-4}"#;
    const ADAMW: &str = r#"{"kind": "adamw", "lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.05}"#;
    const LARS: &str = r#"{"kind": "lars", "lr_per_256": 1.0, "momentum": 0.9, "nesterov": false,
        "weight_decay": 1e-4, "trust": 0.001, "variant": "google"}"#;

    fn parse(text: &str) -> Result<OptimizerConfig, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_config_survives_the_round_trip() {
        for text in [SGD, ADAMW, LARS] {
            let config = parse(text).expect("valid");
            let again = serde_json::to_string(&config).expect("serializes");
            assert_eq!(parse(&again), Ok(config.clone()));
            assert!(config.init().is_ok());
        }
    }

    #[test]
    fn no_key_may_be_left_out_or_added() {
        for text in [SGD, ADAMW, LARS] {
            let value: serde_json::Value = serde_json::from_str(text).expect("valid");
            let full = value.as_object().expect("an object");
            for key in full.keys() {
                let mut less = full.clone();
                less.remove(key);
                let error = parse(&serde_json::Value::from(less).to_string()).expect_err("a key is missing");
                assert!(error.contains(key), "{key}: {error}");
            }
            let mut more = full.clone();
            more.insert("dampening".to_owned(), 0.1.into());
            let error = parse(&serde_json::Value::from(more).to_string()).expect_err("an unknown key");
            assert!(error.contains("dampening"), "{error}");
        }
    }

    #[test]
    fn init_names_the_key_and_the_value() {
        let check = |text: &str, from: &str, to: &str, want: &str| {
            assert!(text.contains(from), "{from} is not in {text}");
            let error = parse(&text.replace(from, to)).expect("parses").init().expect_err("out of range");
            assert!(error.to_string().contains(want), "{error}");
        };
        check(SGD, "0.06", "0.0", "lr_per_256 must be a number above 0, got 0");
        check(SGD, "0.9", "1.0", "momentum must be at least 0 and below 1, got 1");
        check(SGD, "0.9", "0.0", "nesterov = true needs a momentum");
        check(SGD, "5e-4", "-5e-4", "weight_decay");
        check(ADAMW, "0.999", "1.5", "betas[1]");
        check(ADAMW, "1e-8", "0.0", "eps");
        check(ADAMW, "1e-3", "-1e-3", "lr must");
        check(LARS, "0.001", "0.0", "trust");
    }
}
