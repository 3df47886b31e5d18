//! `Score`: a share of hits with its 95 % interval.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Standard normal quantile of 0.975.
pub(crate) const Z_95: f64 = 1.959_963_984_540_054;

/// The share of test pictures that were classified correctly, with Wilson's 95 % score interval.
///
/// All shares are fractions in `[0, 1]`, never per cent.
///
/// ```text
/// p = hits / n,   interval = ( p + z²/2n ± z √( p(1−p)/n + z²/4n² ) ) / ( 1 + z²/n ),   z = 1.959964
/// ```
/// # Conventions
/// The interval speaks about other test pictures drawn like these. It says nothing about another seed of the
/// training, which usually moves the result more.
/// # Source
/// Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 22 (1927). Unlike the
/// textbook `p ± z √(p(1−p)/n)` it stays inside `[0, 1]` and keeps its width at `p = 0` and `p = 1`.
/// # Example
/// ```
/// let score = twoview_eval::Score::from_hits(5, 10)?;
/// assert_eq!(score.top1, 0.5);
/// assert!((score.ci95[0] - 0.2366).abs() < 5e-5 && (score.ci95[1] - 0.7634).abs() < 5e-5);
/// # Ok::<(), twoview_eval::ScoreError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Correct predictions divided by `n`, in `[0, 1]`.
    pub top1: f64,
    /// Lower and upper end of the 95 % interval, both in `[0, 1]`.
    pub ci95: [f64; 2],
    /// Number of correct predictions.
    pub hits: usize,
    /// Number of test pictures.
    pub n: usize,
}

/// Why a [`Score`] cannot be formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScoreError {
    /// There is nothing to average over.
    #[error("a score over no pictures is undefined: expected at least one test picture")]
    Empty,
    /// More successes than trials.
    #[error("expected at most {n} hits among {n} pictures, got {hits}")]
    MoreHitsThanPictures {
        /// The number of correct predictions.
        hits: usize,
        /// The number of predictions.
        n: usize,
    },
}

impl Score {
    /// The score of `hits` correct predictions among `n`.
    ///
    /// # Errors
    /// [`ScoreError`] if `n` is zero or smaller than `hits`.
    pub fn from_hits(hits: usize, n: usize) -> Result<Self, ScoreError> {
        if n == 0 {
            return Err(ScoreError::Empty);
        }
        if hits > n {
            return Err(ScoreError::MoreHitsThanPictures { hits, n });
        }
        Ok(Self { top1: hits as f64 / n as f64, ci95: wilson(hits as f64 / n as f64, n), hits, n })
    }

    /// Counts how often `predicted` meets `labels`. Both have the same length, at least one.
    pub(crate) fn tally(predicted: &[u32], labels: &[u32]) -> Self {
        assert!(!labels.is_empty() && predicted.len() == labels.len(), "a tally compares two non-empty equal lists");
        let hits = predicted.iter().zip(labels).filter(|(p, l)| p == l).count();
        Self::of_counts(hits, labels.len())
    }

    /// The score of `hits` among `n`, where `n` is at least 1 and `hits`.
    pub(crate) fn of_counts(hits: usize, n: usize) -> Self {
        Self { top1: hits as f64 / n as f64, ci95: wilson(hits as f64 / n as f64, n), hits, n }
    }
}

/// Wilson's 95 % interval for a share `p` seen among `n`.
pub(crate) fn wilson(p: f64, n: usize) -> [f64; 2] {
    let n = n as f64;
    let z2_n = Z_95 * Z_95 / n;
    let centre = p + z2_n / 2.0;
    let half_width = Z_95 * (p * (1.0 - p) / n + z2_n / (4.0 * n)).sqrt();
    // At p = 0 and p = 1 one end is exactly 0 or 1; rounding must not carry it outside.
    [((centre - half_width) / (1.0 + z2_n)).max(0.0), ((centre + half_width) / (1.0 + z2_n)).min(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(hits: usize, n: usize, want: [f64; 2]) {
        let got = Score::from_hits(hits, n).expect("valid counts");
        assert_eq!(got.top1, hits as f64 / n as f64);
        for (got, want) in got.ci95.iter().zip(want) {
            assert!((got - want).abs() < 5e-7, "{hits} of {n}: got {got}, want {want}");
        }
    }

    #[test]
    fn agrees_with_closed_forms() {
        let z2 = Z_95 * Z_95;
        // No hit: [0, z²/(n + z²)]; all hits: its mirror image.
        for n in [1, 10, 10_000] {
            let width = z2 / (n as f64 + z2);
            check(0, n, [0.0, width]);
            check(n, n, [1.0 - width, 1.0]);
        }
        // Half of them: 1/2 ± z / (2 √(n + z²)).
        let half = Z_95 / (2.0 * (10.0 + z2).sqrt());
        check(5, 10, [0.5 - half, 0.5 + half]);
        check(5, 10, [0.236_593, 0.763_407]);
        // The formula evaluated by other code, for an odd size and for a test set of CIFAR's.
        check(15, 148, [0.062_386_4, 0.160_487_2]);
        check(9_140, 10_000, [0.908_344_7, 0.919_337_3]);
    }

    #[test]
    fn refuses_impossible_counts() {
        assert_eq!(Score::from_hits(0, 0), Err(ScoreError::Empty));
        assert_eq!(Score::from_hits(3, 2), Err(ScoreError::MoreHitsThanPictures { hits: 3, n: 2 }));
    }
}
