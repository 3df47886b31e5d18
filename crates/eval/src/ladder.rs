//! `Ladder`: one evaluation beside everything it has to beat.

use serde::{Deserialize, Serialize};

use crate::Score;

/// The rungs from guessing to the trained encoder, under one evaluation (kNN or linear probe).
///
/// A number without the rungs below it is not evidence: raw pixels reach far more than chance, mean-centred pixels
/// more than raw ones, and an untrained network with the right architecture is often better than either. Training
/// has shown something only by the distance to these.
///
/// All values are fractions in `[0, 1]`. A linear probe with a free bias cannot tell centred pixels from raw ones,
/// so there the two rungs coincide.
///
/// # Example
/// ```
/// use twoview_eval::{Ladder, Rungs, Score};
/// let score = |hits| Score::from_hits(hits, 2000);
/// let rungs = Rungs { raw_pixels: score(260)?, centred_pixels: score(280)?, untrained: score(320)?, trained: score(1160)? };
/// let ladder = Ladder::new(0.1, &rungs);
/// assert_eq!((ladder.chance, ladder.trained), (0.1, 0.58));
/// # Ok::<(), twoview_eval::ScoreError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ladder {
    /// The share of the most frequent class among the test labels: the most that guessing one class can reach
    /// ([`FeatureBank::majority_share`](crate::FeatureBank::majority_share)); `1 / classes` if they are balanced.
    pub chance: f64,
    /// Pixels in `[0, 1]` as features.
    pub raw_pixels: f64,
    /// Pixels minus the train mean.
    pub centred_pixels: f64,
    /// The same encoder with its initial weights.
    pub untrained: f64,
    /// The encoder as the training left it: its final state, never the best on test.
    pub trained: f64,
    /// The 95 % intervals of the measured rungs.
    pub ci95: Rungs<[f64; 2]>,
    /// The number of test pictures.
    pub n: usize,
}

/// One value for each measured rung of a [`Ladder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rungs<T> {
    /// For pixels in `[0, 1]` as features.
    pub raw_pixels: T,
    /// For pixels minus the train mean.
    pub centred_pixels: T,
    /// For the same encoder with its initial weights.
    pub untrained: T,
    /// For the encoder as the training left it.
    pub trained: T,
}

impl Ladder {
    /// Puts `chance` and four scores of the same test set together.
    pub fn new(chance: f64, rungs: &Rungs<Score>) -> Self {
        Self {
            chance,
            raw_pixels: rungs.raw_pixels.top1,
            centred_pixels: rungs.centred_pixels.top1,
            untrained: rungs.untrained.top1,
            trained: rungs.trained.top1,
            ci95: Rungs {
                raw_pixels: rungs.raw_pixels.ci95,
                centred_pixels: rungs.centred_pixels.ci95,
                untrained: rungs.untrained.ci95,
                trained: rungs.trained.ci95,
            },
            n: rungs.trained.n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serializes_as_plain_numbers_under_the_names_of_the_rungs() {
        let score = |hits| Score::from_hits(hits, 4).expect("valid counts");
        let rungs = Rungs { raw_pixels: score(0), centred_pixels: score(1), untrained: score(2), trained: score(3) };
        let ladder = Ladder::new(0.25, &rungs);
        let json = serde_json::to_value(ladder).expect("plain numbers");
        for (key, want) in
            [("chance", 0.25), ("raw_pixels", 0.0), ("centred_pixels", 0.25), ("untrained", 0.5), ("trained", 0.75)]
        {
            assert_eq!(json[key].as_f64(), Some(want), "{key}");
        }
        assert_eq!(json["ci95"]["trained"][1].as_f64(), Some(score(3).ci95[1]));
        assert_eq!(serde_json::from_value::<Ladder>(json).expect("round trip"), ladder);
    }
}
