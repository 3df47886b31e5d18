//! The loops over one tile of logits, compiled for the processor's vectors.
//!
//! A logit of −∞ marks a view that is no candidate: its exponential is zero, whatever it is compared with.

use super::exp::{exp, mul_add};
use crate::contrast::{sigmoid, softplus};

/// A loop that is compiled for the processor's vectors. No closures: they would not be compiled with it.
trait VectorLoop {
    type Output;

    /// `FMA`: see [`exp`].
    fn run<const FMA: bool>(self) -> Self::Output;
}

struct OnVectors<L>(L);

impl<L: VectorLoop> pulp::WithSimd for OnVectors<L> {
    type Output = L::Output;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> L::Output {
        if S::IS_SCALAR { self.0.run::<false>() } else { self.0.run::<true>() }
    }
}

fn on_vectors<L: VectorLoop>(work: L) -> L::Output {
    pulp::Arch::new().dispatch(OnVectors(work))
}

/// What is summed over the candidates of every anchor.
#[derive(Clone, Debug, Default)]
pub(super) struct Summands {
    /// Each `g` of a sum of `exp(g·x)`.
    pub(super) multipliers: Vec<f32>,
    /// The b of sums of `softplus(x + b)` and its slopes; None without them.
    pub(super) bias: Option<f32>,
}

/// Sums over the candidates of an anchor that a logistic loss reads. `x` is a candidate's logit, b the bias.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LogisticSums {
    /// `Σ softplus(x + b)`.
    pub losses: f64,
    /// `Σ sigmoid(x + b)`: the slope of `losses` along b.
    pub bias_slope: f64,
    /// `Σ x·sigmoid(x + b)`: the slope of `losses` along the logarithm of the inverse temperature.
    pub log_scale_slope: f64,
}

impl LogisticSums {
    /// The sums over `n` candidates of one logit.
    pub(super) fn uniform(n: f64, x: f64, bias: f64) -> Self {
        let slope = sigmoid(x + bias);
        Self { losses: n * softplus(x + bias), bias_slope: n * slope, log_scale_slope: n * x * slope }
    }
}

/// Running sums of some anchors over their candidates.
#[derive(Clone, Debug)]
pub(super) struct AnchorSums {
    /// The largest logit, −∞ before the first candidate.
    pub(super) hardest: Vec<f32>,
    /// `Σ exp(g·(x − hardest))` per multiplier and anchor.
    pub(super) sums: Vec<Vec<f64>>,
    /// Per anchor; empty where there is no bias.
    pub(super) logistic: Vec<LogisticSums>,
    pub(super) n_candidates: Vec<u64>,
    /// Sum and number of the logits of other positives.
    pub(super) positives: Vec<(f64, u64)>,
    /// `Σ exp(4·cosine − 4)` over anchors and candidates.
    pub(super) evenness: f64,
}

impl AnchorSums {
    pub(super) fn new(n_anchors: usize, summands: &Summands) -> Self {
        Self {
            hardest: vec![f32::NEG_INFINITY; n_anchors],
            sums: vec![vec![0.0; n_anchors]; summands.multipliers.len()],
            logistic: summands.bias.map(|_| vec![LogisticSums::default(); n_anchors]).unwrap_or_default(),
            n_candidates: vec![0; n_anchors],
            positives: vec![(0.0, 0); n_anchors],
            evenness: 0.0,
        }
    }

    /// Takes the larger of the largest logits, to which the sums are moved.
    #[inline(always)]
    fn raise(&mut self, anchor: usize, largest: f32, multipliers: &[f32]) {
        let before = self.hardest[anchor];
        if largest > before {
            self.hardest[anchor] = largest;
            let lowered = f64::from(before) - f64::from(largest);
            for (sums, &g) in self.sums.iter_mut().zip(multipliers) {
                sums[anchor] *= (f64::from(g) * lowered).exp();
            }
        }
    }

    /// Adds a tile whose rows are the anchors.
    pub(super) fn add_rows(&mut self, logits: &[f32], width: usize, summands: &Summands) {
        on_vectors(RowSums { sums: self, logits, width, multipliers: &summands.multipliers });
        if let Some(bias) = summands.bias {
            on_vectors(LogisticRows { sums: &mut self.logistic, logits, width, bias });
        }
    }

    /// Adds a tile whose columns are the anchors.
    pub(super) fn add_columns(&mut self, logits: &[f32], summands: &Summands) {
        on_vectors(ColumnSums { sums: self, logits, multipliers: &summands.multipliers });
        if let Some(bias) = summands.bias {
            on_vectors(LogisticColumns { sums: &mut self.logistic, logits, bias });
        }
    }
}

struct RowSums<'a> {
    sums: &'a mut AnchorSums,
    logits: &'a [f32],
    width: usize,
    multipliers: &'a [f32],
}

impl VectorLoop for RowSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (anchor, row) in self.logits.chunks_exact(self.width).enumerate() {
            self.sums.raise(anchor, largest(row), self.multipliers);
            let origin = self.sums.hardest[anchor];
            if origin == f32::NEG_INFINITY {
                continue;
            }
            for (sums, &g) in self.sums.sums.iter_mut().zip(self.multipliers) {
                sums[anchor] += sum_of_exponentials::<FMA>(row, g, origin, 0.0);
            }
        }
    }
}

struct ColumnSums<'a> {
    sums: &'a mut AnchorSums,
    logits: &'a [f32],
    multipliers: &'a [f32],
}

impl VectorLoop for ColumnSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let width = self.sums.hardest.len();
        let (mut origins, mut partial) = (vec![f32::NEG_INFINITY; width], vec![0.0; width]);
        for row in self.logits.chunks_exact(width) {
            for (largest, &logit) in origins.iter_mut().zip(row) {
                *largest = if logit > *largest { logit } else { *largest };
            }
        }
        for (anchor, origin) in origins.iter_mut().enumerate() {
            self.sums.raise(anchor, *origin, self.multipliers);
            let hardest = self.sums.hardest[anchor];
            *origin = if hardest == f32::NEG_INFINITY { 0.0 } else { hardest };
        }
        for (sums, &g) in self.sums.sums.iter_mut().zip(self.multipliers) {
            partial.fill(0.0);
            for row in self.logits.chunks_exact(width) {
                for ((sum, &logit), &origin) in partial.iter_mut().zip(row).zip(&origins) {
                    *sum += exp::<FMA>(g * (logit - origin));
                }
            }
            for (sum, &part) in sums.iter_mut().zip(&partial) {
                *sum += f64::from(part);
            }
        }
    }
}

/// A candidate's part of [`LogisticSums`]: `max(x + b, 0)`, `1 + exp(−|x + b|)`, and `sigmoid(x + b)`.
///
/// Softplus is the first and the logarithm of the second. Those are multiplied and one logarithm is taken of many; in f64,
/// because next to 1 the small ones would be lost, and because a tile's product stays below 2²⁵⁶.
#[inline(always)]
fn logistic<const FMA: bool>(logit: f32, bias: f32) -> (f32, f64, f32) {
    let x = logit + bias;
    let decay = exp::<FMA>(-x.abs());
    let share = (1.0 + decay).recip();
    (if x > 0.0 { x } else { 0.0 }, 1.0 + f64::from(decay), if x > 0.0 { share } else { decay * share })
}

/// The logit, or zero in place of −∞, whose product with a slope of zero would be NaN.
#[inline(always)]
fn finite(logit: f32) -> f32 {
    if logit == f32::NEG_INFINITY { 0.0 } else { logit }
}

struct LogisticRows<'a> {
    sums: &'a mut [LogisticSums],
    logits: &'a [f32],
    width: usize,
    bias: f32,
}

impl VectorLoop for LogisticRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (sums, row) in self.sums.iter_mut().zip(self.logits.chunks_exact(self.width)) {
            let (mut linear, mut products) = ([0.0_f32; LANES], [1.0_f64; LANES]);
            let (mut slopes, mut scaled) = ([0.0_f32; LANES], [0.0_f32; LANES]);
            // What is left over at the end is no candidate.
            let mut add = |chunk: &[f32; LANES]| {
                for (lane, &logit) in chunk.iter().enumerate() {
                    let (part, factor, slope) = logistic::<FMA>(logit, self.bias);
                    linear[lane] += part;
                    products[lane] *= factor;
                    slopes[lane] += slope;
                    scaled[lane] += slope * finite(logit);
                }
            };
            let (chunks, rest) = row.as_chunks::<LANES>();
            chunks.iter().for_each(&mut add);
            let mut last = [f32::NEG_INFINITY; LANES];
            last[..rest.len()].copy_from_slice(rest);
            add(&last);
            let total = |lanes: [f32; LANES]| lanes.into_iter().map(f64::from).sum::<f64>();
            sums.losses += total(linear) + products.into_iter().product::<f64>().ln();
            sums.bias_slope += total(slopes);
            sums.log_scale_slope += total(scaled);
        }
    }
}

struct LogisticColumns<'a> {
    sums: &'a mut [LogisticSums],
    logits: &'a [f32],
    bias: f32,
}

impl VectorLoop for LogisticColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let width = self.sums.len();
        let (mut linear, mut products) = (vec![0.0_f32; width], vec![1.0_f64; width]);
        let (mut slopes, mut scaled) = (vec![0.0_f32; width], vec![0.0_f32; width]);
        for row in self.logits.chunks_exact(width) {
            let sums = linear.iter_mut().zip(&mut products).zip(slopes.iter_mut().zip(&mut scaled));
            for (((linear, product), (of_bias, of_scale)), &logit) in sums.zip(row) {
                let (part, factor, slope) = logistic::<FMA>(logit, self.bias);
                *linear += part;
                *product *= factor;
                *of_bias += slope;
                *of_scale += slope * finite(logit);
            }
        }
        for (column, sums) in self.sums.iter_mut().enumerate() {
            sums.losses += f64::from(linear[column]) + products[column].ln();
            sums.bias_slope += f64::from(slopes[column]);
            sums.log_scale_slope += f64::from(scaled[column]);
        }
    }
}

/// `Σ exp(g·x + offset)` over all logits of a tile.
pub(super) fn sum_of_all(logits: &[f32], g: f32, offset: f32) -> f64 {
    on_vectors(SumOfAll { logits, g, offset })
}

struct SumOfAll<'a> {
    logits: &'a [f32],
    g: f32,
    offset: f32,
}

impl VectorLoop for SumOfAll<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> f64 {
        let mut sum = 0.0;
        // In parts, because a sum in f32 should be short.
        for part in self.logits.chunks(1024) {
            sum += sum_of_exponentials::<FMA>(part, self.g, 0.0, self.offset);
        }
        sum
    }
}

/// Elements of a sum that are kept apart, so that it needs no order and fits into vectors.
const LANES: usize = 16;

#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (largest, &logit) in lanes.iter_mut().zip(chunk) {
            *largest = if logit > *largest { logit } else { *largest };
        }
    }
    let mut largest = f32::NEG_INFINITY;
    for &logit in lanes.iter().chain(rest) {
        largest = if logit > largest { logit } else { largest };
    }
    largest
}

/// `Σ exp(g·(x − origin) + offset)`.
#[inline(always)]
fn sum_of_exponentials<const FMA: bool>(row: &[f32], g: f32, origin: f32, offset: f32) -> f64 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, &logit) in lanes.iter_mut().zip(chunk) {
            *sum += exp::<FMA>(mul_add::<FMA>(g, logit - origin, offset));
        }
    }
    let mut total = 0.0;
    for &logit in rest {
        total += f64::from(exp::<FMA>(mul_add::<FMA>(g, logit - origin, offset)));
    }
    for sum in lanes {
        total += f64::from(sum);
    }
    total
}

/// How the loss of some anchors changes with their candidates:
/// `dL/dx = Σ_g weight_g · exp(g·(x − origin) − lead_g) + logistic · sigmoid(x + b)`.
///
/// The origin, the largest logit, is taken away first: at low temperatures the logits are so large that `g·x` would lose
/// what tells them apart.
#[derive(Clone, Debug)]
pub(super) struct AnchorWeights {
    /// Per multiplier and anchor: `g · dL/dLSE_g`, zero where there is no candidate.
    pub(super) weights: Vec<Vec<f32>>,
    /// Per multiplier and anchor `ln Σ exp(g·(x − origin))`, finite.
    pub(super) leads: Vec<Vec<f32>>,
    /// Per anchor, finite.
    pub(super) origins: Vec<f32>,
    /// Per anchor `dL/dΣ softplus`; empty without such sums.
    pub(super) logistic: Vec<f32>,
    /// Per anchor `dL/dx` of another positive; empty where there are none.
    pub(super) positives: Vec<f32>,
}

impl AnchorWeights {
    /// Writes `dL/dx` of a tile whose rows are the anchors.
    pub(super) fn write_rows(&self, logits: &[f32], width: usize, summands: &Summands, out: &mut [f32]) {
        on_vectors(RowSlopes { weights: self, logits, width, summands, out });
    }

    /// Adds `dL/dx` of a tile whose columns are the anchors.
    pub(super) fn add_columns(&self, logits: &[f32], width: usize, summands: &Summands, out: &mut [f32]) {
        on_vectors(ColumnSlopes { weights: self, logits, width, summands, out });
    }
}

struct RowSlopes<'a> {
    weights: &'a AnchorWeights,
    logits: &'a [f32],
    width: usize,
    summands: &'a Summands,
    out: &'a mut [f32],
}

impl VectorLoop for RowSlopes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let AnchorWeights { weights, leads, origins, logistic: logistic_weights, .. } = self.weights;
        let Summands { multipliers, bias } = self.summands;
        let rows = self.out.chunks_exact_mut(self.width).zip(self.logits.chunks_exact(self.width));
        for (anchor, (out, row)) in rows.enumerate() {
            out.fill(0.0);
            let origin = origins[anchor];
            for ((weights, leads), &g) in weights.iter().zip(leads).zip(multipliers) {
                let (weight, lead) = (weights[anchor], leads[anchor]);
                for (out, &logit) in out.iter_mut().zip(row) {
                    *out = mul_add::<FMA>(weight, exp::<FMA>(mul_add::<FMA>(g, logit - origin, -lead)), *out);
                }
            }
            if let (Some(bias), Some(&weight)) = (*bias, logistic_weights.get(anchor)) {
                for (out, &logit) in out.iter_mut().zip(row) {
                    let (_, _, slope) = logistic::<FMA>(logit, bias);
                    *out = mul_add::<FMA>(weight, slope, *out);
                }
            }
        }
    }
}

struct ColumnSlopes<'a> {
    weights: &'a AnchorWeights,
    logits: &'a [f32],
    width: usize,
    summands: &'a Summands,
    out: &'a mut [f32],
}

impl VectorLoop for ColumnSlopes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let AnchorWeights { weights, leads, origins, logistic: logistic_weights, .. } = self.weights;
        let Summands { multipliers, bias } = self.summands;
        let width = self.width;
        for (out, row) in self.out.chunks_exact_mut(width).zip(self.logits.chunks_exact(width)) {
            for ((weights, leads), &g) in weights.iter().zip(leads).zip(multipliers) {
                let anchors = weights[..width].iter().zip(&leads[..width]).zip(&origins[..width]);
                for ((out, &logit), ((&weight, &lead), &origin)) in out.iter_mut().zip(row).zip(anchors) {
                    *out = mul_add::<FMA>(weight, exp::<FMA>(mul_add::<FMA>(g, logit - origin, -lead)), *out);
                }
            }
            if let Some(bias) = *bias {
                for ((out, &logit), &weight) in out.iter_mut().zip(row).zip(logistic_weights) {
                    let (_, _, slope) = logistic::<FMA>(logit, bias);
                    *out = mul_add::<FMA>(weight, slope, *out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_by_rows_and_by_columns_agree_with_the_definition() {
        let logits: Vec<f32> = (0..15_u8).map(|i| f32::from(i * 7 % 11) * 9.0 - 40.0).collect();
        let with = |at: usize| if at == 4 { f32::NEG_INFINITY } else { logits[at] };
        let tile: Vec<f32> = (0..15).map(with).collect(); // [3, 5]
        let transposed: Vec<f32> = (0..15).map(|at| with(at % 3 * 5 + at / 3)).collect(); // [5, 3]
        let summands = Summands { multipliers: vec![1.0, 2.5], bias: Some(-1.5) };
        let (mut by_rows, mut by_columns) = (AnchorSums::new(3, &summands), AnchorSums::new(3, &summands));
        // In two parts, the larger logits last and first.
        let half = |tile: &[f32], columns: std::ops::Range<usize>| -> Vec<f32> {
            tile.chunks_exact(5).flat_map(|row| row[columns.clone()].to_vec()).collect()
        };
        by_rows.add_rows(&half(&tile, 0..2), 2, &summands);
        by_rows.add_rows(&half(&tile, 2..5), 3, &summands);
        by_columns.add_columns(&transposed[6..], &summands);
        by_columns.add_columns(&transposed[..6], &summands);
        for anchor in 0..3 {
            let row = &tile[anchor * 5..][..5];
            for (m, &g) in summands.multipliers.iter().enumerate() {
                let want = row.iter().map(|&x| (f64::from(g) * f64::from(x)).exp()).sum::<f64>().ln();
                for got in [&by_rows, &by_columns] {
                    let got = got.sums[m][anchor].ln() + f64::from(g * got.hardest[anchor]);
                    assert!((got - want).abs() < 1e-5, "{anchor}, {g}: {got}, {want}");
                }
            }
            let candidates = row.iter().filter(|x| x.is_finite()).map(|&x| LogisticSums::uniform(1.0, x.into(), -1.5));
            let want = candidates.fold(LogisticSums::default(), |a, b| LogisticSums {
                losses: a.losses + b.losses,
                bias_slope: a.bias_slope + b.bias_slope,
                log_scale_slope: a.log_scale_slope + b.log_scale_slope,
            });
            for got in [&by_rows.logistic[anchor], &by_columns.logistic[anchor]] {
                let numbers = |sums: &LogisticSums| [sums.losses, sums.bias_slope, sums.log_scale_slope];
                for (got, want) in numbers(got).into_iter().zip(numbers(&want)) {
                    assert!((got - want).abs() <= 2e-6 * want.abs(), "{anchor}: {got}, {want}");
                }
            }
        }
    }

    #[test]
    fn anchors_without_candidates_stay_empty() {
        let nothing = [f32::NEG_INFINITY; 4];
        let summands = Summands { multipliers: vec![1.0], bias: Some(3.0) };
        let mut sums = AnchorSums::new(2, &summands);
        sums.add_rows(&nothing, 2, &summands);
        sums.add_columns(&nothing, &summands);
        assert_eq!((sums.hardest, sums.sums), (vec![f32::NEG_INFINITY; 2], vec![vec![0.0; 2]]));
        assert_eq!(sums.logistic, [LogisticSums::default(); 2]);
    }
}
