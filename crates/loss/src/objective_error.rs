//! Why the numbers of a configuration make no objective, and the checks that say so.

/// Temperatures for which every intermediate stays well inside f32. The useful ones are 0.05 to 1.
pub(crate) const TEMPERATURES: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

/// Why a configuration is not an objective.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum ObjectiveError {
    /// The temperature is not a number in the supported range.
    #[error("temperature must lie between 1e-6 and 1e6, got {got}; usual values are 0.05 to 1")]
    Temperature {
        /// The value given.
        got: f64,
    },
    /// The class prior is not a share.
    #[error("tau_plus must be at least 0 and below 1, got {got}; 1 / (number of classes) is usual")]
    TauPlus {
        /// The value given, or the one that a count or a rate stands for.
        got: f64,
    },
    /// The concentration on hard negatives is not a number from 0 on.
    #[error("beta must be 0 or lie between 1e-6 and 1000, got {got}; usual values are 0.5 to 2")]
    Beta {
        /// The value given.
        got: f64,
    },
    /// The width of the weights is not in the supported range.
    #[error("sigma must lie between 1e-6 and 1e6, got {got}; 0.5 is usual")]
    Sigma {
        /// The value given.
        got: f64,
    },
    /// The bias is not a number in the supported range.
    #[error("bias must lie between -1e6 and 1e6, got {got}; -10 is usual with a temperature of 0.1")]
    Bias {
        /// The value given.
        got: f64,
    },
}

pub(crate) fn check_temperature(got: f64) -> Result<f64, ObjectiveError> {
    if TEMPERATURES.contains(&got) { Ok(got) } else { Err(ObjectiveError::Temperature { got }) }
}
