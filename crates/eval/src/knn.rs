//! `KnnProbe`: exact weighted nearest neighbours by cosine similarity.
//!
//! `N` bank rows, `Q` queries, `F` feature dimensions, `k` neighbours.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{FeatureBank, NearestRows, Neighbour, Score};

/// The settings of a [`KnnProbe`].
///
/// Usual choices are `k = 200` and `temperature = 0.1`, or `k = 10`; both should be fixed before the test set is seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KnnConfig {
    /// How many neighbours vote; more than the bank holds means all of it.
    pub k: usize,
    /// `T` in the vote `exp(cos / T)`: small values trust the nearest, large ones count heads.
    pub temperature: f64,
}

/// Classifies by a weighted vote of the `k` most similar rows of a bank.
///
/// ```text
/// score(q, c) ∝ Σ_{i in top-k(q), label_i = c} exp( cos(q, x_i) / T )        Σ_c score(q, c) = 1
/// ```
/// # Conventions
/// Features are raw; [`NearestRows`] finds the neighbours. Of equally voted classes the smaller number wins: the result is a
/// pure function of the two banks.
/// # Cost
/// That of [`NearestRows`], whatever the number of classes.
/// # Source
/// Wu et al., *Unsupervised Feature Learning via Non-Parametric Instance Discrimination*, CVPR 2018, section 3.4.
/// <https://arxiv.org/abs/1805.01978>
/// # Example
/// ```
/// use twoview_eval::{FeatureBank, KnnConfig};
/// let bank = FeatureBank::new(vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0], 2, vec![0, 0, 1])?;
/// let queries = FeatureBank::new(vec![2.0, 0.1, -0.1, 3.0], 2, vec![0, 1])?;
/// let probe = KnnConfig { k: 1, temperature: 0.1 }.init(&bank)?;
/// assert_eq!(probe.evaluate(&queries)?.top1, 1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct KnnProbe<'a> {
    config: KnnConfig,
    bank: &'a FeatureBank,
    nearest: NearestRows<'a>,
}

/// The outcome of one vote.
#[derive(Clone, Debug, PartialEq)]
pub struct Vote {
    /// The class with the largest share.
    pub predicted: u32,
    /// The share of each class that got one, by ascending class; the shares sum to 1.
    pub shares: Vec<(u32, f64)>,
}

/// Why neighbours cannot be asked.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum KnnError {
    /// Nobody votes.
    #[error("k must be at least 1, got 0")]
    NoNeighbours,
    /// The temperature does not define a weight.
    #[error("the temperature of the vote must be positive and finite, got {0}")]
    Temperature(f64),
    /// Every answer would be right.
    #[error("all {rows} train pictures have the same label {label}: accuracy over one class is meaningless")]
    OneClass {
        /// The number of bank rows.
        rows: usize,
        /// Their label.
        label: u32,
    },
    /// Queries and bank come from different encoders.
    #[error("the bank has {expected} dimensions, the queries have {got}: both must come from the same encoder")]
    Dimension {
        /// The dimensions of the bank.
        expected: usize,
        /// The dimensions of the queries.
        got: usize,
    },
}

impl KnnConfig {
    /// A probe that asks `bank`.
    ///
    /// # Errors
    /// [`KnnError`] if `k` is 0, the temperature is not positive and finite, or the bank holds a single class.
    pub fn init(self, bank: &FeatureBank) -> Result<KnnProbe<'_>, KnnError> {
        if self.k == 0 {
            return Err(KnnError::NoNeighbours);
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(KnnError::Temperature(self.temperature));
        }
        if !bank.has_two_classes() {
            return Err(KnnError::OneClass { rows: bank.len(), label: bank.labels()[0] });
        }
        let nearest = NearestRows::new(bank.features(), bank.dim()).expect("a bank is whole rows");
        Ok(KnnProbe { config: self, bank, nearest })
    }
}

impl KnnProbe<'_> {
    /// The share of `queries` whose label wins the vote.
    ///
    /// # Errors
    /// [`KnnError::Dimension`].
    pub fn evaluate(&self, queries: &FeatureBank) -> Result<Score, KnnError> {
        let predicted: Vec<u32> = self.search(queries, |neighbours| self.vote(&neighbours).predicted)?;
        Ok(Score::tally(&predicted, queries.labels()))
    }

    /// The vote on each query, in order. The labels of `queries` are not looked at.
    ///
    /// # Errors
    /// [`KnnError::Dimension`].
    pub fn votes(&self, queries: &FeatureBank) -> Result<Vec<Vote>, KnnError> {
        self.search(queries, |neighbours| self.vote(&neighbours))
    }

    /// The `k` nearest bank rows of each query, nearest first. The labels of `queries` are not looked at.
    ///
    /// # Errors
    /// [`KnnError::Dimension`].
    pub fn neighbours(&self, queries: &FeatureBank) -> Result<Vec<Vec<Neighbour>>, KnnError> {
        self.search(queries, |neighbours| neighbours)
    }

    fn search<T: Send>(
        &self,
        queries: &FeatureBank,
        finish: impl Fn(Vec<Neighbour>) -> T + Sync,
    ) -> Result<Vec<T>, KnnError> {
        let dim = self.bank.dim();
        if queries.dim() != dim {
            return Err(KnnError::Dimension { expected: dim, got: queries.dim() });
        }
        Ok(self.nearest.search(queries.features(), self.config.k, finish))
    }

    /// Sums the weights per class over the neighbours only, so that the number of classes costs nothing.
    pub(crate) fn vote(&self, neighbours: &[Neighbour]) -> Vote {
        // Relative to the nearest: the shares are the same, and no temperature can overflow the exponential.
        let nearest = neighbours.first().map_or(0.0, |n| n.similarity);
        let mut votes: Vec<(u32, f64)> = neighbours
            .iter()
            .map(|n| (self.bank.labels()[n.index], ((n.similarity - nearest) / self.config.temperature).exp()))
            .collect();
        votes.sort_by_key(|&(class, _)| class);
        let mut shares: Vec<(u32, f64)> = votes
            .chunk_by(|a, b| a.0 == b.0)
            .map(|class| (class[0].0, class.iter().map(|&(_, weight)| weight).sum()))
            .collect();
        let total: f64 = shares.iter().map(|&(_, weight)| weight).sum();
        shares.iter_mut().for_each(|(_, weight)| *weight /= total);
        let winner = shares.iter().copied().reduce(|best, next| if next.1 > best.1 { next } else { best });
        Vote { predicted: winner.map_or(0, |(class, _)| class), shares }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feature_bank::narrow;

    #[test]
    fn equal_neighbours_and_equal_votes_go_to_the_smaller_number() {
        let bank = FeatureBank::new(vec![1.0, 2.0, 3.0, 4.0], 1, vec![7, 3, 3, 7]).expect("valid");
        let query = FeatureBank::new(vec![5.0], 1, vec![7]).expect("valid");
        let config = |k| KnnConfig { k, temperature: 0.5 };
        let nearest = config(1).init(&bank).expect("valid").votes(&query).expect("same dimension");
        assert_eq!(nearest, [Vote { predicted: 7, shares: vec![(7, 1.0)] }]);
        let all = config(9).init(&bank).expect("valid").votes(&query).expect("same dimension");
        assert_eq!(all, [Vote { predicted: 3, shares: vec![(3, 0.5), (7, 0.5)] }]);
    }

    #[test]
    fn the_smallest_temperature_asks_the_nearest() {
        let bank = FeatureBank::new(vec![1.0, 0.0, 0.0, 1.0], 2, vec![0, 1]).expect("valid");
        let query = FeatureBank::new(vec![0.6, 0.8], 2, vec![1]).expect("valid");
        let probe = KnnConfig { k: 2, temperature: f64::MIN_POSITIVE }.init(&bank).expect("valid");
        assert_eq!(probe.votes(&query).expect("same dimension")[0].shares, [(0, 0.0), (1, 1.0)]);
    }

    #[test]
    fn a_hundred_thousand_classes_cost_no_table() {
        // Row i points at the angle i·δ; a table of queries × classes would be 8 GB.
        let n = 100_000_u32;
        let angle = |i: u32| f64::from(i) * 6e-5;
        let row = |i: u32| [narrow(angle(i).cos()), narrow(angle(i).sin())];
        let features: Vec<f32> = (0..n).flat_map(row).collect();
        let bank = FeatureBank::new(features, 2, (0..n).collect()).expect("valid");
        let wanted: Vec<u32> = (0..10_000).map(|i| i * 10).collect();
        let queries = FeatureBank::new(wanted.iter().copied().flat_map(row).collect(), 2, wanted).expect("valid");
        let queries = queries.select(&(0..10_000).step_by(25).collect::<Vec<_>>()).expect("not empty");
        let score = KnnConfig { k: 20, temperature: 1e-9 }.init(&bank).expect("valid").evaluate(&queries);
        assert_eq!(score.expect("same dimension").hits, 400);
    }

    #[test]
    fn refuses_meaningless_questions() {
        let bank = FeatureBank::new(vec![1.0, 2.0], 1, vec![0, 1]).expect("valid");
        let init = |k, temperature| KnnConfig { k, temperature }.init(&bank).map(|_| ());
        assert_eq!(init(0, 0.1), Err(KnnError::NoNeighbours));
        for temperature in [0.0, -1.0, f64::INFINITY] {
            assert_eq!(init(1, temperature), Err(KnnError::Temperature(temperature)));
        }
        assert!(init(1, f64::NAN).is_err());
        let one_class = FeatureBank::new(vec![1.0, 2.0], 1, vec![4, 4]).expect("valid");
        let refused = KnnConfig { k: 1, temperature: 0.1 }.init(&one_class).map(|_| ());
        assert_eq!(refused, Err(KnnError::OneClass { rows: 2, label: 4 }));
        let wide = FeatureBank::new(vec![1.0, 2.0], 2, vec![0]).expect("valid");
        let refused = KnnConfig { k: 1, temperature: 0.1 }.init(&bank).expect("valid").evaluate(&wide);
        assert_eq!(refused, Err(KnnError::Dimension { expected: 1, got: 2 }));
    }
}
