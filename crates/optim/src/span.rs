//! A stretch of training in the unit that suits its author.

use serde::{Deserialize, Serialize};

/// Counts above this are not exact in f64, and no run is that long.
const MOST_STEPS: f64 = 9_007_199_254_740_992.0;

/// A stretch of training: exactly one of `{ steps = n }`, `{ epochs = x }` or `{ examples = n }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// Optimizer steps.
    Steps(u64),
    /// Passes over the data; fractions are allowed.
    Epochs(f64),
    /// Images, each counted whenever it is in a batch.
    Examples(u64),
}

/// Why a [`Span`] is no number of steps.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum SpanError {
    /// Not a stretch of time.
    #[error("epochs must be a finite number that is not negative, got {got}")]
    Epochs {
        /// The value given.
        got: f64,
    },
    /// An epoch without steps has no length.
    #[error("a span in epochs needs at least 1 step per epoch, got 0; the batch is larger than the data")]
    NoStepsPerEpoch,
    /// A batch without images is no step.
    #[error("a span in examples needs a batch size of at least 1, got 0")]
    EmptyBatch,
    /// Longer than can be counted.
    #[error("{epochs} epochs of {steps_per_epoch} steps are more steps than can be counted")]
    TooLong {
        /// The epochs given.
        epochs: f64,
        /// Steps per epoch.
        steps_per_epoch: u64,
    },
}

impl Span {
    /// The number of optimizer steps, rounded to the nearest.
    ///
    /// ```
    /// # use twoview_optim::Span;
    /// assert_eq!(Span::Epochs(2.5).steps(39, 128)?, 98);
    /// assert_eq!(Span::Examples(10_000).steps(39, 128)?, 78);
    /// # Ok::<(), twoview_optim::SpanError>(())
    /// ```
    ///
    /// # Errors
    /// [`SpanError`] if the unit has no length here or the result cannot be counted.
    #[allow(clippy::cast_possible_truncation, reason = "the product was checked to be a count that f64 holds exactly")]
    pub fn steps(&self, steps_per_epoch: u64, batch_size: u64) -> Result<u64, SpanError> {
        match *self {
            Self::Steps(steps) => Ok(steps),
            Self::Epochs(got) if !got.is_finite() || got < 0.0 => Err(SpanError::Epochs { got }),
            Self::Epochs(_) if steps_per_epoch == 0 => Err(SpanError::NoStepsPerEpoch),
            Self::Epochs(epochs) => {
                let steps = (epochs * steps_per_epoch as f64).round();
                if steps < MOST_STEPS { Ok(steps as u64) } else { Err(SpanError::TooLong { epochs, steps_per_epoch }) }
            }
            Self::Examples(_) if batch_size == 0 => Err(SpanError::EmptyBatch),
            Self::Examples(examples) => {
                let (steps, rest) = (examples / batch_size, examples % batch_size);
                Ok(steps + u64::from(rest >= batch_size.div_ceil(2)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Span, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn counts_steps_in_every_unit() {
        let check = |span: Span, want: u64| assert_eq!(span.steps(30, 64), Ok(want), "{span:?}");
        check(Span::Steps(7), 7);
        check(Span::Epochs(0.0), 0);
        check(Span::Epochs(10.0), 300);
        check(Span::Epochs(0.1), 3); // 3.0000000000000004 before rounding.
        check(Span::Epochs(0.01), 0);
        check(Span::Examples(64), 1);
        check(Span::Examples(95), 1);
        check(Span::Examples(96), 2);
        check(Span::Examples(u64::MAX), 1 << 58);
    }

    #[test]
    fn rejects_what_has_no_length() {
        for got in [-1.0, f64::INFINITY] {
            assert_eq!(Span::Epochs(got).steps(30, 64), Err(SpanError::Epochs { got }));
        }
        assert!(Span::Epochs(f64::NAN).steps(30, 64).is_err());
        assert_eq!(Span::Epochs(1.0).steps(0, 64), Err(SpanError::NoStepsPerEpoch));
        assert_eq!(Span::Examples(1).steps(30, 0), Err(SpanError::EmptyBatch));
        assert!(matches!(Span::Epochs(1e300).steps(30, 64), Err(SpanError::TooLong { .. })));
        assert_eq!(Span::Steps(1).steps(0, 0), Ok(1));
    }

    #[test]
    fn is_written_as_exactly_one_unit() {
        for (text, want) in [
            (r#"{"steps": 5}"#, Span::Steps(5)),
            (r#"{"epochs": 2}"#, Span::Epochs(2.0)),
            (r#"{"epochs": 0.5}"#, Span::Epochs(0.5)),
            (r#"{"examples": 9}"#, Span::Examples(9)),
        ] {
            assert_eq!(parse(text), Ok(want));
            assert_eq!(parse(&serde_json::to_string(&want).expect("serializes")), Ok(want));
        }
        for text in [r#"{"steps": 5, "epochs": 2}"#, "{}", r#"{"steps": -1}"#, r#"{"steps": 1.5}"#, "5"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let error = parse(r#"{"epoch": 2}"#).expect_err("unknown unit");
        assert!(error.contains("epoch") && error.contains("examples"), "{error}");
    }
}
