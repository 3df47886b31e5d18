//! The probability that a candidate is a false negative.

use serde::{Deserialize, Serialize};

use crate::ObjectiveError;

/// `τ⁺`: the probability that a random other image shows what the anchor shows. Given, or from what it follows from.
///
/// ```
/// # use twoview_loss::TauPlus;
/// assert_eq!(TauPlus::Classes { classes: 10 }.value()?, 0.1);
/// assert!(TauPlus::Given(1.0).value().is_err());
/// # Ok::<(), twoview_loss::ObjectiveError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TauPlus {
    /// The number itself, at least 0 and below 1.
    Given(f64),
    /// Of a set with this many classes of one size: `1 / classes`.
    Classes {
        /// Number of classes.
        classes: u32,
    },
    /// Of a set in which this share of random pairs was found to be duplicates.
    DuplicateRate {
        /// The share.
        duplicate_rate: f64,
    },
}

impl TauPlus {
    /// The probability.
    ///
    /// # Errors
    /// [`ObjectiveError::TauPlus`] unless it lies in `[0, 1)`.
    pub fn value(self) -> Result<f64, ObjectiveError> {
        let got = match self {
            Self::Given(tau_plus) => tau_plus,
            Self::Classes { classes } => f64::from(classes).recip(),
            Self::DuplicateRate { duplicate_rate } => duplicate_rate,
        };
        if (0.0..1.0).contains(&got) { Ok(got) } else { Err(ObjectiveError::TauPlus { got }) }
    }
}
