//! `Predictions`: what a probe said about each test picture, and what can be read off it.

use std::collections::BTreeMap;

use serde::Serialize;
use thiserror::Error;

use crate::Score;
use crate::score::Z_95;

/// One predicted class for each test picture, beside the true one.
///
/// # Example
/// ```
/// use twoview_eval::Predictions;
/// let predictions = Predictions::new(vec![0, 1, 1, 1], vec![0, 0, 1, 1])?;
/// assert_eq!(predictions.score().hits, 3);
/// assert_eq!((predictions.classes()[1].precision(), predictions.classes()[0].recall.top1), (Some(2.0 / 3.0), 0.5));
/// # Ok::<(), twoview_eval::PredictionsError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predictions {
    predicted: Vec<u32>,
    labels: Vec<u32>,
}

/// Why predictions and labels do not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PredictionsError {
    /// There is no picture.
    #[error("predictions over no pictures say nothing: expected at least one test picture")]
    Empty,
    /// They are not equally many.
    #[error("expected one prediction for each of {labels} labels, got {predicted}")]
    Length {
        /// How many predictions.
        predicted: usize,
        /// How many labels.
        labels: usize,
    },
    /// Two sets of predictions speak about different pictures.
    #[error(
        "the two sets of predictions have different labels: a paired test needs the same pictures in the same order"
    )]
    Unpaired,
}

/// How one class fared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClassScore {
    /// The class.
    pub class: u32,
    /// Of its pictures, the share that was recognised, with its interval.
    pub recall: Score,
    /// How many pictures were taken for it, rightly or not.
    pub n_predicted: usize,
}

impl ClassScore {
    /// Of the pictures taken for this class, the share that belongs to it, in `[0, 1]`; `None` where there is none.
    pub fn precision(&self) -> Option<f64> {
        (self.n_predicted > 0).then(|| self.recall.hits as f64 / self.n_predicted as f64)
    }
}

/// Pictures of one class that were taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Confusion {
    /// Their class.
    pub class: u32,
    /// What they were taken for.
    pub predicted: u32,
    /// How many.
    pub n: usize,
}

/// Two sets of predictions on the same pictures, compared picture by picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PairedTest {
    /// Pictures that only the first got right.
    pub only_first: usize,
    /// Pictures that only the second got right.
    pub only_second: usize,
    /// Accuracy of the second minus that of the first, in `[-1, 1]`.
    pub difference: f64,
    /// 95 % interval of the difference.
    pub ci95: [f64; 2],
    /// How probable a split at least as uneven is if both are equally good: McNemar's exact test, two-sided.
    pub p_value: f64,
}

impl Predictions {
    /// Takes predictions and labels in the same order.
    ///
    /// # Errors
    /// [`PredictionsError`] where there are none, or not equally many.
    pub fn new(predicted: Vec<u32>, labels: Vec<u32>) -> Result<Self, PredictionsError> {
        if labels.is_empty() {
            return Err(PredictionsError::Empty);
        }
        if predicted.len() != labels.len() {
            return Err(PredictionsError::Length { predicted: predicted.len(), labels: labels.len() });
        }
        Ok(Self { predicted, labels })
    }

    /// The largest share that one class has of the labels: what constant guessing can reach at most.
    pub fn majority_share(&self) -> f64 {
        crate::feature_bank::majority_share(&self.labels)
    }

    /// The predicted class of each picture.
    pub fn predicted(&self) -> &[u32] {
        &self.predicted
    }

    /// The true class of each picture.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The share that is right.
    pub fn score(&self) -> Score {
        Score::tally(&self.predicted, &self.labels)
    }

    /// Every class that has a test picture, ascending.
    pub fn classes(&self) -> Vec<ClassScore> {
        let mut n_predicted: BTreeMap<u32, usize> = BTreeMap::new();
        self.predicted.iter().for_each(|&class| *n_predicted.entry(class).or_default() += 1);
        let mut counts: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
        for (&predicted, &label) in self.predicted.iter().zip(&self.labels) {
            let (hits, n) = counts.entry(label).or_default();
            *hits += usize::from(predicted == label);
            *n += 1;
        }
        counts
            .into_iter()
            .map(|(class, (hits, n))| ClassScore {
                class,
                recall: Score::of_counts(hits, n),
                n_predicted: n_predicted.get(&class).copied().unwrap_or(0),
            })
            .collect()
    }

    /// The mean of the classes' recalls, in `[0, 1]`: accuracy as if every class had as many pictures.
    pub fn balanced_accuracy(&self) -> f64 {
        let classes = self.classes();
        classes.iter().map(|class| class.recall.top1).sum::<f64>() / classes.len() as f64
    }

    /// Which classes are taken for which others, the most frequent first; those on the diagonal are no confusions. Memory
    /// goes with the confusions that occur and not with the square of the classes.
    pub fn confusions(&self) -> Vec<Confusion> {
        let mut counts: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        for (&predicted, &label) in self.predicted.iter().zip(&self.labels) {
            if predicted != label {
                *counts.entry((label, predicted)).or_default() += 1;
            }
        }
        let mut confusions: Vec<Confusion> =
            counts.into_iter().map(|((class, predicted), n)| Confusion { class, predicted, n }).collect();
        confusions.sort_by_key(|confusion| (std::cmp::Reverse(confusion.n), confusion.class, confusion.predicted));
        confusions
    }

    /// Whether `second` is better than these predictions on the same pictures.
    ///
    /// Only pictures on which the two disagree say anything. If both are equally good, each of the `m` of them falls to
    /// either side like a coin:
    /// ```text
    /// p = min(1, 2 · Σ_{i ≤ min(b, c)} C(m, i) / 2^m)
    /// difference ± z √( (b' + c') − (c' − b')² / n' ) / n',   b' = b + 1/2, c' = c + 1/2, n' = n + 2
    /// ```
    /// # Errors
    /// [`PredictionsError::Unpaired`] where the labels differ.
    /// # Source
    /// McNemar, *Note on the sampling error of the difference between correlated proportions*, Psychometrika 12 (1947), in its
    /// exact form; the interval of Agresti and Min, *Simple improved confidence intervals for comparing matched proportions*,
    /// Statistics in Medicine 24 (2005), centred on their adjusted difference.
    pub fn paired_with(&self, second: &Self) -> Result<PairedTest, PredictionsError> {
        if self.labels != second.labels {
            return Err(PredictionsError::Unpaired);
        }
        let (mut only_first, mut only_second) = (0, 0);
        for ((first, second), label) in self.predicted.iter().zip(&second.predicted).zip(&self.labels) {
            match (first == label, second == label) {
                (true, false) => only_first += 1,
                (false, true) => only_second += 1,
                _ => {}
            }
        }
        let n = self.labels.len() as f64;
        let (b, c, n_adjusted) = (only_first as f64 + 0.5, only_second as f64 + 0.5, n + 2.0);
        let centre = (c - b) / n_adjusted;
        let half_width = Z_95 * ((b + c) - (c - b).powi(2) / n_adjusted).max(0.0).sqrt() / n_adjusted;
        Ok(PairedTest {
            only_first,
            only_second,
            difference: (only_second as f64 - only_first as f64) / n,
            ci95: [(centre - half_width).max(-1.0), (centre + half_width).min(1.0)],
            p_value: coin_p_value(only_first, only_second),
        })
    }
}

/// How probable it is that of `b + c` coins at most `min(b, c)` fall to one side, whichever.
fn coin_p_value(b: usize, c: usize) -> f64 {
    let (least, m) = (b.min(c), b + c);
    // C(m, i) / 2^m by its ratio to the one before, in logarithms: 2^-m alone would underflow.
    let mut log_term = -(m as f64) * std::f64::consts::LN_2;
    let mut sum = log_term.exp();
    for i in 1..=least {
        log_term += ((m - i + 1) as f64 / i as f64).ln();
        sum += log_term.exp();
    }
    (2.0 * sum).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_agree_with_counting() {
        let predictions = Predictions::new(vec![0, 2, 2, 1, 0, 2, 5], vec![0, 0, 0, 1, 1, 2, 2]).expect("paired");
        let score = |hits, n| Score::from_hits(hits, n).expect("valid");
        assert_eq!(predictions.score(), score(3, 7));
        let classes = [(0, score(1, 3), 2), (1, score(1, 2), 1), (2, score(1, 2), 3)];
        assert_eq!(
            predictions.classes(),
            classes.map(|(class, recall, n_predicted)| ClassScore { class, recall, n_predicted })
        );
        assert!((predictions.balanced_accuracy() - (1.0 / 3.0 + 0.5 + 0.5) / 3.0).abs() < 1e-15);
        let confusions = [(0, 2, 2), (1, 0, 1), (2, 5, 1)];
        assert_eq!(predictions.confusions(), confusions.map(|(class, predicted, n)| Confusion { class, predicted, n }));
    }

    #[test]
    fn paired_tests_agree_with_closed_forms() {
        // Right answers are 0; the first errs on `b` pictures that the second knows, and the other way round.
        let test = |b: usize, c: usize, both: usize| {
            let make = |wrong: std::ops::Range<usize>| {
                let predicted = (0..b + c + both).map(|i| u32::from(wrong.contains(&i))).collect();
                Predictions::new(predicted, vec![0; b + c + both]).expect("paired")
            };
            make(b..b + c).paired_with(&make(0..b)).expect("the same pictures")
        };
        let none = test(0, 0, 5);
        assert_eq!((none.difference, none.p_value), (0.0, 1.0));
        // One-sided splits: 2 / 2^m. Even ones: 1.
        assert!((test(0, 6, 4).p_value - 2.0 / 64.0).abs() < 1e-15);
        assert_eq!(test(4, 4, 1).p_value, 1.0);
        // 2 · (1 + 10 + 45) / 1024, as any table of the binomial distribution has it.
        let some = test(2, 8, 90);
        assert!((some.p_value - 112.0 / 1024.0).abs() < 1e-14);
        assert_eq!((some.only_first, some.only_second, some.difference), (2, 8, 0.06));
        // (6 ± z √(11 − 36/102)) / 102.
        let half = Z_95 * (11.0_f64 - 36.0 / 102.0).sqrt() / 102.0;
        assert!(
            (some.ci95[0] - (6.0 / 102.0 - half)).abs() < 1e-15 && (some.ci95[1] - (6.0 / 102.0 + half)).abs() < 1e-15
        );
        // Far beyond what 2^-m can be written as.
        assert!(test(3000, 3000, 0).p_value > 0.98 && test(100, 3000, 0).p_value < 1e-300);
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        use PredictionsError as E;
        assert_eq!(Predictions::new(vec![], vec![]), Err(E::Empty));
        assert_eq!(Predictions::new(vec![1], vec![1, 2]), Err(E::Length { predicted: 1, labels: 2 }));
        let of = |labels| Predictions::new(vec![0, 0], labels).expect("paired");
        assert_eq!(of(vec![0, 1]).paired_with(&of(vec![1, 0])), Err(E::Unpaired));
    }
}
