//! What one contrast of a batch yields: the loss, its gradient at the embeddings, and what the loss cannot say.

use std::fmt;

use burn::tensor::Tensor;
use serde::Serialize;

use crate::{Field, RowStatistics, engine::Contrasted, objective::Multipliers, spectrum::effective_rank};

/// A partner counts as retrieved only if its cosine leads by more than rounding; on exact ties it is not.
const RETRIEVAL_MARGIN: f64 = 1e-6;

/// Loss, gradient and diagnostics of one batch, computed without a graph.
///
/// To train on it, differentiate `(z * dL/dz).sum()` with `dL/dz` held constant: its gradient is that of the loss,
/// and the sum may be taken over any part of the rows, so a batch can be sent back in shards.
#[derive(Clone, Debug)]
#[must_use]
pub struct Contrast {
    /// `dL/dz1`, `[N, D]`, without autodiff, in the float type of `z1`.
    pub d_z1: Tensor<2>,
    /// `dL/dz2`, `[N, D]`, without autodiff, in the float type of `z2`.
    pub d_z2: Tensor<2>,
    /// Loss of every anchor, in nats: those of the first views, then those of the second where these are anchors too.
    pub anchor_losses: Vec<f64>,
    /// What the engine said of every anchor; its log-sum-exps are those the objective reads, and behind them that of `g = 1`
    /// where it is not among these.
    pub rows: RowStatistics,
    /// The loss and the diagnostics.
    pub stats: ContrastStats,
}

/// Numbers about one batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ContrastStats {
    /// The loss in nats: the mean over all anchors of the batch.
    pub loss: f64,
    /// InfoNCE of the same logits, in nats, whatever the objective is: where all views are contrasted it is NT-Xent.
    pub info_nce: f64,
    /// Lower bound of the mutual information of the two views, in nats: `ln(candidates + 1) − InfoNCE`, at most
    /// [`crate::chance_line`]. None where candidates were left out or cancelled, because the bound does not hold there.
    ///
    /// The proof asks for independent candidates. Between the kinds of views ([`crate::InfoNce`]) they are; where all views meet,
    /// the two of an image are not, and the number can exceed the truth by some thousandths of a nat.
    pub mutual_information: Option<f64>,
    /// Share of the anchors whose most similar other view, of those neither left out nor cancelled, is their partner. Chance
    /// is `1/(2N − 1)` or, between the kinds of views, `1/N`. A collapsed batch scores 0, and so does an anchor without
    /// candidates.
    pub top1: f64,
    /// Mean cosine of partners, in `[−1, 1]`.
    pub positive_similarity: f64,
    /// The 5th, 50th and 95th percentile of the cosines of partners.
    pub positive_percentiles: [f64; 3],
    /// The 5th, 50th and 95th percentile of the cosines of views of different images, from evenly spaced anchors.
    pub negative_percentiles: [f64; 3],
    /// Mean squared distance of partners, `2 − 2·positive_similarity`. Wang and Isola 2020, with α = 2.
    pub alignment: f64,
    /// `ln mean exp(−2·‖u_i − u_k‖²)` over pairs of the 2N rows; lower is more even. Wang and Isola 2020, with t = 2. None
    /// where pairs were left out, cancelled or are not all contrasted.
    pub uniformity: Option<f64>,
    /// Standard deviation of the normalized rows, averaged over dimensions. Directions spread evenly give `1/√D`;
    /// a value near 0 means collapse.
    pub feature_std: f64,
    /// How many dimensions the centred unit rows fill: the exponential of the entropy of their covariance's spectrum.
    /// None where both 2N and D exceed 256, because its cost is cubic: see [`crate::Spectrum`].
    pub effective_rank: Option<f64>,
    /// Whether there are many dimensions to fill, and reason to.
    #[serde(skip)]
    expects_rank: bool,
    /// Share of the anchors whose estimate was replaced by its bound, which leaves them no repulsion; None for objectives
    /// without one.
    pub clamped: Option<f64>,
}

impl ContrastStats {
    #[allow(clippy::too_many_arguments, reason = "they are what the numbers are made of")]
    pub(crate) fn new(
        contrasted: &Contrasted,
        unit_rows: &Tensor<2>,
        n_anchors: usize,
        multipliers: &Multipliers,
        field: Field,
        is_complete: bool,
        is_supervised: bool,
    ) -> Self {
        let (rows, partials) = (&contrasted.statistics, &contrasted.partials);
        let temperature = rows.inv_temperature.recip();
        let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / rows.n_anchors() as f64;

        let plain = rows.log_sums[multipliers.plain].iter();
        let info_nce = mean(&mut plain.zip(&rows.positive).map(|(a, p)| softplus(a - p)));
        let bound = mean(&mut rows.n_candidates.iter().map(|&n| (n as f64 + 1.0).ln())) - info_nce;
        let margin = RETRIEVAL_MARGIN / temperature;
        let is_found = |(p, hardest): (&f64, &f64)| hardest.is_finite() && p - hardest > margin;
        let top1 = mean(&mut rows.positive.iter().zip(&rows.hardest).map(|row| f64::from(is_found(row))));
        let mut cosines: Vec<f64> = rows.pairs.iter().map(|p| p * temperature).collect();
        let positive_similarity = cosines.iter().sum::<f64>() / cosines.len() as f64;

        // An anchor's partner is a pair too.
        let of_partners: f64 = rows.positive.iter().map(|p| (4.0 * p * temperature - 4.0).exp()).sum();
        let n_pairs: f64 = rows.n_candidates.iter().map(|&n| n as f64 + 1.0).sum();
        let uniformity =
            (is_complete && field == Field::AllViews).then(|| ((rows.evenness + of_partners) / n_pairs).ln());

        let clamped = (!partials.clamped.is_empty())
            .then(|| mean(&mut partials.clamped.iter().map(|&clamped| f64::from(clamped))));
        let (variance, _) = unit_rows.clone().var_mean_bias(0);
        let spread = variance.sqrt().mean().into_scalar::<f32>();
        Self {
            loss: partials.losses.iter().sum::<f64>() / n_anchors as f64,
            info_nce,
            mutual_information: is_complete.then_some(bound),
            top1,
            positive_similarity,
            positive_percentiles: percentiles(&mut cosines),
            negative_percentiles: percentiles(&mut sampled_negatives(unit_rows)),
            alignment: 2.0 - 2.0 * positive_similarity,
            uniformity,
            feature_std: f64::from(spread),
            effective_rank: effective_rank(unit_rows),
            expects_rank: !is_supervised && unit_rows.dims()[1] >= MANY_DIMENSIONS,
            clamped,
        }
    }
}

/// Embeddings that have given up telling pictures apart.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Collapse {
    /// All point the same way: the loss is at the chance line.
    OneDirection {
        /// Median cosine of views of different images.
        median_negative: f64,
    },
    /// They differ, but in hardly more than one dimension.
    FewDimensions {
        /// [`ContrastStats::effective_rank`].
        effective_rank: f64,
    },
}

impl fmt::Display for Collapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneDirection { median_negative } => {
                write!(
                    f,
                    "the embeddings have collapsed: the cosine of two pictures is {median_negative:.3} at the median"
                )
            }
            Self::FewDimensions { effective_rank } => {
                write!(f, "the embeddings fill only {effective_rank:.1} dimensions")
            }
        }
    }
}

impl ContrastStats {
    /// Whether the embeddings have collapsed. A single batch may look so, at the beginning of training above all: heed it
    /// when it stays.
    pub fn collapse(&self) -> Option<Collapse> {
        let [_, median_negative, _] = self.negative_percentiles;
        if self.feature_std < COLLAPSED_STD || median_negative > COLLAPSED_COSINE && self.top1 < COLLAPSED_TOP1 {
            return Some(Collapse::OneDirection { median_negative });
        }
        let effective_rank = self.effective_rank.filter(|&rank| self.expects_rank && rank < COLLAPSED_RANK)?;
        Some(Collapse::FewDimensions { effective_rank })
    }
}

/// Above this median cosine of different images all rows are one, but for rounding and noise.
const COLLAPSED_COSINE: f64 = 0.98;

/// Below this share of retrieved partners the little that differs says nothing.
const COLLAPSED_TOP1: f64 = 0.5;

/// Below this spread all rows are equal to rounding, or zero.
const COLLAPSED_STD: f64 = 1e-5;

/// Dimensions from which on an effective rank below two is a loss.
const MANY_DIMENSIONS: usize = 8;

/// Below this effective rank there is hardly more than a line.
const COLLAPSED_RANK: f64 = 2.0;

/// `ln(1 + eˣ)`, accurate for every `x`.
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `1 / (1 + e⁻ˣ)`.
pub(crate) fn sigmoid(x: f64) -> f64 {
    (1.0 + (-x).exp()).recip()
}

/// Anchors whose cosines with all other images are looked at.
const SAMPLED_ANCHORS: usize = 32;

/// The cosines of evenly spaced anchors with the views of all other images.
fn sampled_negatives(unit_rows: &Tensor<2>) -> Vec<f64> {
    let [n_views, n_dims] = unit_rows.dims();
    let n_anchors = n_views.min(SAMPLED_ANCHORS);
    let anchors: Vec<usize> = (0..n_anchors).map(|i| i * n_views / n_anchors).collect();
    let rows = anchors.iter().map(|&view| unit_rows.clone().narrow(0, view, 1)).collect();
    let cosines = Tensor::cat(rows, 0).matmul(unit_rows.clone().reshape([n_views, n_dims]).transpose()).into_data();
    let n_images = n_views / 2;
    let places = anchors.iter().flat_map(|&anchor| (0..n_views).map(move |other| (anchor, other)));
    let others = cosines.iter::<f64>().zip(places).filter(|(_, (a, b))| a % n_images != b % n_images);
    others.map(|(cosine, _)| cosine).collect()
}

/// The 5th, 50th and 95th percentile, each the nearest of the values.
fn percentiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_unstable_by(f64::total_cmp);
    [5, 50, 95].map(|percent| {
        let last = values.len().saturating_sub(1);
        values.get((last * percent + 50) / 100).copied().unwrap_or(f64::NAN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_values() {
        let mut values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!(percentiles(&mut values), [5.0, 50.0, 95.0]);
        assert_eq!(percentiles(&mut [7.0]), [7.0; 3]);
    }

    #[test]
    fn softplus_and_its_slope_keep_their_digits() {
        for (x, want) in [(0.0, 2.0_f64.ln()), (-40.0, (-40.0_f64).exp()), (800.0, 800.0), (f64::NEG_INFINITY, 0.0)] {
            assert!((softplus(x) - want).abs() <= 1e-15 * want, "{x}");
        }
        assert_eq!((sigmoid(f64::NEG_INFINITY), sigmoid(0.0), sigmoid(800.0)), (0.0, 0.5, 1.0));
    }
}
