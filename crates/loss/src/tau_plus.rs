//! The probability that a candidate is a false negative.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::ObjectiveError;

/// `τ⁺`: the probability that a random other image shows what the anchor shows. Given, or from what it follows from.
///
/// ```
/// # use twoview_loss::TauPlus;
/// assert_eq!(TauPlus::of_classes(10).value()?, 0.1);
/// assert!(TauPlus::Given(1.0).value().is_err());
/// # Ok::<(), twoview_loss::ObjectiveError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected a number, { classes = N } or { duplicate_rate = R }")]
pub enum TauPlus {
    /// The number itself, at least 0 and below 1.
    Given(f64),
    /// Of a set with this many classes of one size: `1 / classes`.
    Classes(ClassCount),
    /// Of a set in which this share of random pairs was found to be duplicates.
    DuplicateRate(DuplicateRate),
}

/// How many classes of one size a set has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ClassCount {
    /// Number of classes, at least 2.
    pub classes: NonZeroU32,
}

/// How often two pictures of a set are copies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DuplicateRate {
    /// Share of random pairs.
    pub duplicate_rate: f64,
}

impl TauPlus {
    /// Of a set with this many classes of one size; 0 counts as 1, which [`value`](Self::value) refuses.
    pub fn of_classes(classes: u32) -> Self {
        Self::Classes(ClassCount { classes: NonZeroU32::new(classes).unwrap_or(NonZeroU32::MIN) })
    }

    /// The probability.
    ///
    /// # Errors
    /// [`ObjectiveError::TauPlus`] unless it lies in `[0, 1)`.
    pub fn value(self) -> Result<f64, ObjectiveError> {
        let got = match self {
            Self::Given(tau_plus) => tau_plus,
            Self::Classes(ClassCount { classes }) => f64::from(classes.get()).recip(),
            Self::DuplicateRate(DuplicateRate { duplicate_rate }) => duplicate_rate,
        };
        if (0.0..1.0).contains(&got) { Ok(got) } else { Err(ObjectiveError::TauPlus { got }) }
    }
}
