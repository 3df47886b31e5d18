//! The learning rate as a pure function of the step.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::{Span, SpanError};

/// Selects a schedule, e.g.
/// `{ kind = "warmup_cosine", warmup = { epochs = 10 }, variant = "google", final_lr = 0.0 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ScheduleConfig {
    /// Up in a line, then down along half a cosine.
    WarmupCosine {
        /// Length of the rise; zero is allowed.
        warmup: Span,
        /// Which of the published definitions.
        variant: WarmupCosineVariant,
        /// Where the cosine ends, at most the peak.
        final_lr: f64,
    },
    // Braces, because serde lets unknown keys of a unit variant pass.
    /// The peak at every step.
    Constant {},
}

/// The published definitions, which differ by one step at either end.
///
/// With the step `t` counted from 0, `W` steps of warm-up and `N` steps in all:
/// ```text
/// google    t < W: peak · t/W          then  final + (peak − final) · (1 + cos(π (t − W)/(N − W)))/2
/// lightly   t < W: peak · (t + 1)/W    then  final + (peak − final) · (1 + cos(π (t − W)/(N − W − 1)))/2
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WarmupCosineVariant {
    /// google-research/simclr: the first step of a warm-up has rate 0, and the final rate would come one step after
    /// the last.
    Google,
    /// The lightly library: the first step already moves, and the last has the final rate.
    Lightly,
}

/// Why a [`ScheduleConfig`] is not a schedule.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum ScheduleError {
    /// Nothing to schedule.
    #[error("a run needs at least 1 step, got 0; make `length` longer")]
    NoSteps,
    /// The peak would never be left.
    #[error("warmup of {warmup_steps} steps must be shorter than the run of {total_steps} steps; shorten `warmup`")]
    WarmupTooLong {
        /// Steps of warm-up.
        warmup_steps: u64,
        /// Steps of the run.
        total_steps: u64,
    },
    /// The peak is no learning rate.
    #[error("the peak learning rate must be a number above 0, got {got}")]
    Peak {
        /// The value given.
        got: f64,
    },
    /// The cosine would rise or end below zero.
    #[error("final_lr must lie between 0 and the peak learning rate {peak_lr}, got {got}")]
    Final {
        /// The peak.
        peak_lr: f64,
        /// The value given.
        got: f64,
    },
    /// The warm-up has no length in steps.
    #[error("warmup")]
    Warmup(#[from] SpanError),
}

impl ScheduleConfig {
    /// Checks the configuration and settles it for a run of `total_steps`.
    ///
    /// `peak_lr` comes from [`crate::OptimizerConfig::peak_lr`]; `steps_per_epoch` and `batch_size` (images) give
    /// the warm-up its length.
    ///
    /// # Errors
    /// [`ScheduleError`] if the run has no steps, the warm-up is not shorter than it, or a rate is out of range.
    pub fn init(
        &self,
        peak_lr: f64,
        total_steps: u64,
        steps_per_epoch: u64,
        batch_size: u64,
    ) -> Result<Schedule, ScheduleError> {
        if total_steps == 0 {
            return Err(ScheduleError::NoSteps);
        }
        if !(peak_lr > 0.0 && peak_lr.is_finite()) {
            return Err(ScheduleError::Peak { got: peak_lr });
        }
        let curve = match *self {
            Self::Constant {} => Curve::Constant,
            Self::WarmupCosine { warmup, variant, final_lr } => {
                let warmup_steps = warmup.steps(steps_per_epoch, batch_size)?;
                if warmup_steps >= total_steps {
                    return Err(ScheduleError::WarmupTooLong { warmup_steps, total_steps });
                }
                if !(0.0..=peak_lr).contains(&final_lr) {
                    return Err(ScheduleError::Final { peak_lr, got: final_lr });
                }
                Curve::WarmupCosine { warmup_steps, variant, final_lr }
            }
        };
        Ok(Schedule { peak_lr, total_steps, curve })
    }
}

/// The learning rate of every step of a run. It has no state, so a resumed run needs nothing but its step.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    peak_lr: f64,
    total_steps: u64,
    curve: Curve,
}

#[derive(Clone, Debug, PartialEq)]
enum Curve {
    Constant,
    WarmupCosine { warmup_steps: u64, variant: WarmupCosineVariant, final_lr: f64 },
}

impl Schedule {
    /// The learning rate of `step`, counted from 0. Past the end it stays where the curve ends.
    ///
    /// ```
    /// # use twoview_optim::{ScheduleConfig, Span, WarmupCosineVariant};
    /// let warmup = Span::Epochs(1.0);
    /// let config = ScheduleConfig::WarmupCosine { warmup, variant: WarmupCosineVariant::Google, final_lr: 0.0 };
    /// let schedule = config.init(0.4, 100, 10, 256)?;
    /// assert_eq!([0, 5, 10, 55, 100].map(|step| schedule.lr(step)), [0.0, 0.2, 0.4, 0.2, 0.0]);
    /// # Ok::<(), twoview_optim::ScheduleError>(())
    /// ```
    pub fn lr(&self, step: u64) -> f64 {
        let Curve::WarmupCosine { warmup_steps, variant, final_lr } = self.curve else { return self.peak_lr };
        let lightly = variant == WarmupCosineVariant::Lightly;
        if step < warmup_steps {
            let done = if lightly { step + 1 } else { step };
            return self.peak_lr * done as f64 / warmup_steps as f64;
        }
        let end = if lightly { self.total_steps - 1 } else { self.total_steps };
        if step >= end {
            return final_lr;
        }
        let share = (step - warmup_steps) as f64 / (end - warmup_steps) as f64;
        final_lr + (self.peak_lr - final_lr) * (1.0 + (PI * share).cos()) / 2.0
    }

    /// Number of steps of the run.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// The highest learning rate.
    pub fn peak_lr(&self) -> f64 {
        self.peak_lr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warmup_cosine(variant: WarmupCosineVariant, warmup: u64, total: u64) -> Result<Schedule, ScheduleError> {
        ScheduleConfig::WarmupCosine { warmup: Span::Steps(warmup), variant, final_lr: 0.25 }.init(2.0, total, 10, 64)
    }

    const BOTH: [WarmupCosineVariant; 2] = [WarmupCosineVariant::Google, WarmupCosineVariant::Lightly];

    #[test]
    fn rises_once_falls_once_and_stays() {
        for variant in BOTH {
            for (warmup, total) in [(0, 2), (0, 17), (1, 3), (5, 6), (10, 100)] {
                let schedule = warmup_cosine(variant, warmup, total).expect("valid");
                let rates: Vec<f64> = (0..total).map(|step| schedule.lr(step)).collect();
                let top = usize::try_from(warmup).expect("small");
                assert!(rates[..top].is_sorted(), "{variant:?} {warmup}/{total}: {rates:?}");
                assert!(rates[top..].is_sorted_by(|a, b| a >= b), "{variant:?} {warmup}/{total}: {rates:?}");
                assert_eq!(rates.iter().copied().fold(0.0, f64::max), 2.0, "{variant:?} {warmup}/{total}");
                for step in [total, total + 1, 10 * total, u64::MAX] {
                    assert_eq!(schedule.lr(step), 0.25, "{variant:?} {warmup}/{total}");
                }
            }
        }
    }

    #[test]
    fn one_step_is_a_run() {
        let first = |variant| warmup_cosine(variant, 0, 1).expect("valid").lr(0);
        assert_eq!(BOTH.map(first), [2.0, 0.25]); // The last step of lightly has the final rate.
        let constant = ScheduleConfig::Constant {}.init(2.0, 1, 1, 1).expect("valid");
        assert_eq!([0, 1, u64::MAX].map(|step| constant.lr(step)), [2.0; 3]);
    }

    #[test]
    fn rejects_what_is_not_a_schedule() {
        let too_long = |warmup_steps, total_steps| Err(ScheduleError::WarmupTooLong { warmup_steps, total_steps });
        assert_eq!(warmup_cosine(BOTH[0], 5, 5), too_long(5, 5));
        assert_eq!(warmup_cosine(BOTH[0], 1, 1), too_long(1, 1));
        assert_eq!(warmup_cosine(BOTH[0], 0, 0), Err(ScheduleError::NoSteps));
        for got in [0.0, -1.0, f64::INFINITY] {
            assert_eq!(ScheduleConfig::Constant {}.init(got, 1, 1, 1), Err(ScheduleError::Peak { got }));
        }
        let config = |warmup, final_lr| ScheduleConfig::WarmupCosine { warmup, variant: BOTH[0], final_lr };
        let got = config(Span::Steps(0), 2.5).init(2.0, 10, 10, 64);
        assert_eq!(got, Err(ScheduleError::Final { peak_lr: 2.0, got: 2.5 }));
        let got = config(Span::Epochs(-1.0), 0.0).init(2.0, 10, 10, 64);
        assert_eq!(got, Err(ScheduleError::Warmup(SpanError::Epochs { got: -1.0 })));
    }

    #[test]
    fn a_config_is_strict_and_survives_the_round_trip() {
        let parse = |text: &str| serde_json::from_str::<ScheduleConfig>(text).map_err(|error| error.to_string());
        for text in [
            r#"{"kind": "warmup_cosine", "warmup": {"epochs": 10}, "variant": "google", "final_lr": 0.0}"#,
            r#"{"kind": "constant"}"#,
        ] {
            let config = parse(text).expect("valid");
            assert_eq!(parse(&serde_json::to_string(&config).expect("serializes")), Ok(config));
        }
        let check = |text: &str, want: &str| {
            let error = parse(text).expect_err("rejected");
            assert!(error.contains(want), "{text}: {error}");
        };
        check(r#"{"kind": "constant", "warmup": {"epochs": 10}}"#, "warmup");
        check(r#"{"kind": "warmup_cosine", "variant": "google", "final_lr": 0.0}"#, "warmup");
        check(r#"{"kind": "step"}"#, "warmup_cosine");
    }
}
