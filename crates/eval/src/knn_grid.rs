//! `KnnGrid`: `k` and temperature of a kNN probe, chosen on a slice of train.

use serde::Serialize;
use thiserror::Error;

use crate::{FeatureBank, KnnConfig, KnnError, Score, Split, SplitError};

/// The seed of the slice, one value for all encoders, so that they are compared on the same slice.
const HELD_OUT_SEED: u64 = 0;

/// Settings of a [`KnnProbe`](crate::KnnProbe) to choose from.
///
/// The best by accuracy on a stratified slice of *train*, asked of the rest of it, is chosen; equals go to the smaller
/// `k`, then to the smaller temperature. No test picture has a say.
///
/// # Example
/// ```
/// use twoview_eval::{FeatureBank, KnnGrid};
/// let train = FeatureBank::new(vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 0.9], 2, vec![0, 0, 1, 1])?;
/// let grid = KnnGrid { k: vec![1, 3], temperature: vec![0.1], held_out: 0.5 };
/// assert_eq!(grid.choose(&train)?.config.k, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct KnnGrid {
    /// Numbers of neighbours.
    pub k: Vec<usize>,
    /// Temperatures of the vote.
    pub temperature: Vec<f64>,
    /// The share of every train class on which the choice is made, strictly between 0 and 1.
    pub held_out: f64,
}

/// What was chosen from a [`KnnGrid`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KnnChoice {
    /// The setting.
    pub config: KnnConfig,
    /// Every setting with its accuracy on the slice; empty where there was no choice.
    pub tried: Vec<(KnnConfig, Score)>,
}

/// Why nothing can be chosen.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum KnnGridError {
    /// There is nothing to choose from.
    #[error("expected at least one k and one temperature, got {k} and {temperature}")]
    Empty {
        /// How many numbers of neighbours.
        k: usize,
        /// How many temperatures.
        temperature: usize,
    },
    /// A setting is impossible.
    #[error(transparent)]
    Knn(#[from] KnnError),
    /// No slice can be held out.
    #[error(transparent)]
    Split(#[from] SplitError),
}

impl From<KnnConfig> for KnnGrid {
    /// No choice at all.
    fn from(config: KnnConfig) -> Self {
        Self { k: vec![config.k], temperature: vec![config.temperature], held_out: 0.1 }
    }
}

impl KnnGrid {
    /// Chooses a setting by what it does on a slice of `train`; a single one is taken as it is.
    ///
    /// # Errors
    /// [`KnnGridError`].
    /// # Cost
    /// One search with the largest `k` for the slice, and a vote for each setting.
    pub fn choose(&self, train: &FeatureBank) -> Result<KnnChoice, KnnGridError> {
        let mut configs: Vec<KnnConfig> = (self.k.iter())
            .flat_map(|&k| self.temperature.iter().map(move |&temperature| KnnConfig { k, temperature }))
            .collect();
        configs.sort_by(|a, b| a.k.cmp(&b.k).then(a.temperature.total_cmp(&b.temperature)));
        configs.dedup();
        let Some(largest) = configs.last().copied() else {
            return Err(KnnGridError::Empty { k: self.k.len(), temperature: self.temperature.len() });
        };
        if let [config] = configs[..] {
            config.init(train)?;
            return Ok(KnnChoice { config, tried: Vec::new() });
        }
        let split = Split::stratified(train.labels(), self.held_out, HELD_OUT_SEED)?;
        // A part of a bank is a bank as long as it has a row, which both parts of a split have.
        let part = |rows: &[usize]| train.select(rows).expect("both parts of a split have rows");
        let (rest, slice) = (part(&split.train), part(&split.test));
        let neighbours = largest.init(&rest)?.neighbours(&slice)?;
        let mut tried = Vec::with_capacity(configs.len());
        for config in configs {
            let probe = config.init(&rest)?;
            let predicted: Vec<u32> =
                neighbours.iter().map(|near| probe.vote(&near[..near.len().min(config.k)]).predicted).collect();
            tried.push((config, Score::tally(&predicted, slice.labels())));
        }
        let best = tried.iter().copied().reduce(|best, next| if next.1.hits > best.1.hits { next } else { best });
        Ok(KnnChoice { config: best.map_or(largest, |(config, _)| config), tried })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two classes at the angles 0 and 1, with one stray row of class 1 amid class 0.
    fn bank() -> FeatureBank {
        let angles: Vec<(f32, u32)> = (0_u16..40)
            .map(|i| {
                let class = u32::from(i % 2);
                (f32::from(i) * 1e-3 + if i % 2 == 1 { 1.0 } else { 0.0 }, class)
            })
            .chain((0_u16..4).map(|i| (f32::from(i) * 9e-3 + 4e-3, 1)))
            .collect();
        let features = angles.iter().flat_map(|(angle, _)| [angle.cos(), angle.sin()]).collect();
        FeatureBank::new(features, 2, angles.iter().map(|&(_, class)| class).collect()).expect("valid")
    }

    #[test]
    fn the_best_on_the_slice_is_chosen_and_everything_is_reported() {
        let grid = KnnGrid { k: vec![9, 1, 9], temperature: vec![0.5, 0.1], held_out: 0.4 };
        let choice = grid.choose(&bank()).expect("a choice");
        let settings: Vec<(usize, f64)> = choice.tried.iter().map(|(c, _)| (c.k, c.temperature)).collect();
        assert_eq!(settings, [(1, 0.1), (1, 0.5), (9, 0.1), (9, 0.5)]);
        let most = choice.tried.iter().map(|(_, score)| score.hits).max();
        let first = choice.tried.iter().find(|(_, score)| Some(score.hits) == most).map(|(config, _)| *config);
        assert_eq!(Some(choice.config), first, "equals go to the smaller k, then to the smaller temperature");
        // What the search with the largest k finds is what each setting finds by itself.
        let split = Split::stratified(bank().labels(), 0.4, HELD_OUT_SEED).expect("a split");
        let part = |rows: &[usize]| bank().select(rows).expect("rows");
        for (config, score) in &choice.tried {
            let alone = config.init(&part(&split.train)).expect("valid").evaluate(&part(&split.test));
            assert_eq!(alone.as_ref(), Ok(score));
        }
        let single = KnnGrid { k: vec![3], temperature: vec![0.1], held_out: 0.4 }.choose(&bank()).expect("a choice");
        assert_eq!((single.config.k, single.tried.len()), (3, 0));
    }

    #[test]
    fn impossible_grids_are_refused() {
        let choose = |k: &[usize], temperature: &[f64], held_out| {
            KnnGrid { k: k.to_vec(), temperature: temperature.to_vec(), held_out }.choose(&bank()).map(|_| ())
        };
        assert_eq!(choose(&[], &[0.1], 0.1), Err(KnnGridError::Empty { k: 0, temperature: 1 }));
        assert_eq!(choose(&[0, 3], &[0.1], 0.1), Err(KnnGridError::Knn(KnnError::NoNeighbours)));
        assert_eq!(choose(&[3], &[-0.1], 0.1), Err(KnnGridError::Knn(KnnError::Temperature(-0.1))));
        assert_eq!(choose(&[1, 3], &[0.1], 1.0), Err(KnnGridError::Split(SplitError::Fraction(1.0))));
    }
}
