//! `FewShot`: accuracy with a handful of labels for each class.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::score::wilson;
use crate::split::hash;
use crate::{FeatureBank, NearestError, NearestRows, Score};

/// How a few-shot curve is drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewShotConfig {
    /// Labelled pictures of each class, one point of the curve for each number.
    pub shots: Vec<usize>,
    /// Random choices of those pictures that are averaged over, at least 2.
    pub draws: u64,
}

/// One point of a few-shot curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FewShot {
    /// Labelled pictures of each class.
    pub shots: usize,
    /// Accuracy on the test pictures, the mean over all draws, in `[0, 1]`.
    pub top1: f64,
    /// 95 % interval of that mean over other draws of the labelled pictures; it says nothing about other test pictures.
    pub ci95: [f64; 2],
    /// 95 % interval over other test pictures, Wilson's for the mean accuracy; it says nothing about other draws.
    pub ci95_test: [f64; 2],
    /// The accuracy of each draw.
    pub draws: Vec<f64>,
}

/// Why a curve cannot be drawn.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FewShotError {
    /// There is nothing to draw.
    #[error("expected numbers of labelled pictures from 1 on, got {0:?}")]
    Shots(Vec<usize>),
    /// One draw has no spread.
    #[error("expected at least 2 draws to tell how much they differ, got {0}")]
    Draws(u64),
    /// A class has fewer pictures than shots, so that draws would not be of the same number for all.
    #[error(
        "class {class} has {pictures} labelled pictures, {shots} for each class were asked for; the most is {pictures}"
    )]
    TooFew {
        /// The smallest class.
        class: u32,
        /// Its pictures.
        pictures: usize,
        /// What was asked for.
        shots: usize,
    },
    /// Train and test features come from different encoders.
    #[error("the train features have {expected} dimensions, those of test {got}: both must come from the same encoder")]
    Dimension {
        /// Of train.
        expected: usize,
        /// Of test.
        got: usize,
    },
}

impl FewShotConfig {
    /// One point for each number of shots: each test picture goes to the class whose mean it is most similar to.
    ///
    /// The mean is over the chosen pictures' features at unit length, similarity is the cosine, and nothing is tuned. Which
    /// pictures are chosen is a function of their row, the draw and `seed` alone, so that all encoders get the same, and
    /// the first of a draw's pictures are those of the smaller numbers of shots.
    ///
    /// # Errors
    /// [`FewShotError`].
    /// # Cost
    /// `2·Q·C·F` operations for each draw of each point, for `Q` test pictures and `C` classes.
    /// # Source
    /// Nearest class means: Mensink, Verbeek, Perronnin, Csurka, *Distance-Based Image Classification*, TPAMI 35 (2013). Few
    /// labels as a measure of representations: Kolesnikov et al., *Big Transfer*, ECCV 2020.
    pub fn curve(&self, train: &FeatureBank, test: &FeatureBank, seed: u64) -> Result<Vec<FewShot>, FewShotError> {
        if self.shots.is_empty() || self.shots.contains(&0) {
            return Err(FewShotError::Shots(self.shots.clone()));
        }
        if self.draws < 2 {
            return Err(FewShotError::Draws(self.draws));
        }
        if train.dim() != test.dim() {
            return Err(FewShotError::Dimension { expected: train.dim(), got: test.dim() });
        }
        let mut by_class: Vec<usize> = (0..train.len()).collect();
        by_class.sort_by_key(|&row| train.labels()[row]);
        let mut classes: Vec<Vec<usize>> =
            by_class.chunk_by(|&a, &b| train.labels()[a] == train.labels()[b]).map(<[usize]>::to_vec).collect();
        let most = self.shots.iter().copied().max().unwrap_or(0);
        if let Some(rows) = classes.iter().filter(|rows| rows.len() < most).min_by_key(|rows| rows.len()) {
            let class = train.labels()[rows[0]];
            return Err(FewShotError::TooFew { class, pictures: rows.len(), shots: most });
        }
        let mut accuracies = vec![Vec::new(); self.shots.len()];
        for draw in 0..self.draws {
            let key = hash(seed, draw);
            classes.iter_mut().for_each(|rows| rows.sort_by_key(|&row| (hash(key, row as u64), row)));
            for (&shots, accuracies) in self.shots.iter().zip(&mut accuracies) {
                accuracies.push(
                    accuracy(train, test, &classes, shots)
                        .map_err(|_| FewShotError::Dimension { expected: train.dim(), got: test.dim() })?,
                );
            }
        }
        Ok(self.shots.iter().zip(accuracies).map(|(&shots, draws)| FewShot::of(shots, draws, test.len())).collect())
    }
}

/// Accuracy when the first `shots` rows of each class are the labelled ones.
fn accuracy(
    train: &FeatureBank,
    test: &FeatureBank,
    classes: &[Vec<usize>],
    shots: usize,
) -> Result<f64, NearestError> {
    let dim = train.dim();
    let mut means = Vec::with_capacity(classes.len() * dim);
    for rows in classes {
        let mut mean = vec![0.0_f64; dim];
        for &row in &rows[..shots] {
            let row = train.row(row);
            let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
            mean.iter_mut().zip(row).for_each(|(mean, &v)| *mean += f64::from(v) / norm);
        }
        means.extend(mean.into_iter().map(crate::feature_bank::narrow));
    }
    let nearest = NearestRows::new(&means, dim)?.search(test.features(), 1, |near| near[0].index);
    let predicted: Vec<u32> = nearest.into_iter().map(|class| train.labels()[classes[class][0]]).collect();
    Ok(Score::tally(&predicted, test.labels()).top1)
}

impl FewShot {
    fn of(shots: usize, draws: Vec<f64>, n_test: usize) -> Self {
        let n = draws.len() as f64;
        let mean = draws.iter().sum::<f64>() / n;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let half_width = student_t_975(draws.len() - 1) * (variance / n).sqrt();
        let ci95 = [(mean - half_width).max(0.0), (mean + half_width).min(1.0)];
        Self { shots, top1: mean, ci95, ci95_test: wilson(mean, n_test), draws }
    }
}

/// The 0.975 quantile of Student's distribution with `freedom` degrees of freedom, at least 1.
///
/// Exact to four figures: tabulated up to 10, beyond by the first terms of its expansion around the normal quantile
/// (Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.7.5).
fn student_t_975(freedom: usize) -> f64 {
    const TABLE: [f64; 10] = [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281];
    if let Some(quantile) = freedom.checked_sub(1).and_then(|i| TABLE.get(i)) {
        return *quantile;
    }
    let (z, f) = (crate::score::Z_95, freedom as f64);
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + first / f + second / f.powi(2) + third / f.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three classes around three axes, the further out the noisier.
    fn bank(n: u32, offset: u64) -> FeatureBank {
        let noise = |row: u32, d: u64| (hash(offset + d, u64::from(row)) >> 40) as f32 / (1 << 24) as f32 - 0.5;
        let row = |row: u32| (0..3).map(move |d| if row % 3 == d { 1.0 } else { 0.0 } + 1.6 * noise(row, u64::from(d)));
        FeatureBank::new((0..n).flat_map(row).collect(), 3, (0..n).map(|row| 10 * (row % 3)).collect()).expect("valid")
    }

    #[test]
    fn more_labels_help_and_all_labels_leave_no_choice() {
        let (train, test) = (bank(300, 1), bank(600, 2));
        let config = FewShotConfig { shots: vec![1, 10, 100], draws: 8 };
        let curve = config.curve(&train, &test, 0).expect("a curve");
        assert!(curve[0].top1 < curve[1].top1 && curve[1].top1 <= curve[2].top1 + 0.01, "{curve:?}");
        assert!(curve[0].ci95[1] - curve[0].ci95[0] > curve[1].ci95[1] - curve[1].ci95[0], "{curve:?}");
        // All 100 pictures of each class are the same pictures in every draw, in another order.
        assert!(curve[2].draws.iter().all(|accuracy| (accuracy - curve[2].draws[0]).abs() < 0.01), "{curve:?}");
        assert!(curve.iter().all(|point| point.ci95[0] <= point.top1 && point.top1 <= point.ci95[1]));
        assert_eq!(config.curve(&train, &test, 0), Ok(curve.clone()));
        assert_ne!(config.curve(&train, &test, 1).expect("a curve")[0].draws, curve[0].draws);
    }

    #[test]
    fn quantiles_agree_with_tables() {
        for (freedom, want) in [(1, 12.7062), (9, 2.2622), (10, 2.2281), (11, 2.2010), (20, 2.0860), (100, 1.9840)] {
            assert!((student_t_975(freedom) - want).abs() < 2e-4, "{freedom}: {}", student_t_975(freedom));
        }
    }

    #[test]
    fn impossible_curves_are_refused() {
        let (train, test) = (bank(30, 1), bank(30, 2));
        let curve = |shots: &[usize], draws| FewShotConfig { shots: shots.to_vec(), draws }.curve(&train, &test, 0);
        assert_eq!(curve(&[], 4), Err(FewShotError::Shots(vec![])));
        assert_eq!(curve(&[3, 0], 4), Err(FewShotError::Shots(vec![3, 0])));
        assert_eq!(curve(&[3], 1), Err(FewShotError::Draws(1)));
        assert_eq!(curve(&[11], 4), Err(FewShotError::TooFew { class: 0, pictures: 10, shots: 11 }));
        let wide = FeatureBank::new(vec![1.0, 2.0], 2, vec![0]).expect("valid");
        let refused = FewShotConfig { shots: vec![1], draws: 2 }.curve(&train, &wide, 0);
        assert_eq!(refused, Err(FewShotError::Dimension { expected: 3, got: 2 }));
    }
}
