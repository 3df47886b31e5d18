//! The engine on any Burn device: strips of the matrix, some rows by all columns.

use std::ops::Range;

use burn::tensor::{Bool, Int, Tensor, TensorData};

use super::{
    Grid, Partials, RowStatistics,
    host::{Cancelled, Nearest},
    roles::Roles,
    round,
    tile::{AnchorSums, LogisticSums, Summands},
};

/// Elements of a strip: 16 MiB in f32.
const STRIP: usize = 1 << 22;

/// Stands in for the logit of a view that is not a candidate. `exp(g·EXCLUDED − m)` is exactly zero in f32 for every
/// logit `m` that a temperature admits, and unlike −∞ it is safe in shader languages whose compilers assume that
/// infinities do not occur.
const EXCLUDED: f32 = -1e30;

/// The unit rows of all views on a device, and what is asked of them.
pub(super) struct Portable<'a> {
    /// `[2N, D]`.
    pub(super) views: Tensor<2>,
    pub(super) inv_temperature: f64,
    pub(super) roles: &'a Roles,
}

/// A strip of the matrix.
struct Strip {
    /// The anchors.
    rows: Range<usize>,
    /// The unit rows of the anchors and of the columns.
    of_rows: Tensor<2>,
    of_columns: Tensor<2>,
    /// The logits of candidates, [`EXCLUDED`] elsewhere: `[rows, columns]`.
    logits: Tensor<2>,
    /// Candidates with the anchor's label, where there are labels.
    positives: Option<Tensor<2, Bool>>,
}

impl Portable<'_> {
    fn strips<'g>(&'g self, grid: &'g Grid, cancelled: &'g Cancelled) -> impl Iterator<Item = Strip> + 'g {
        let n_columns = grid.columns.len();
        let height = (STRIP / n_columns).max(1);
        let starts = grid.rows.clone().step_by(height);
        starts.map(move |start| self.strip(grid, start..(start + height).min(grid.rows.end), cancelled))
    }

    fn strip(&self, grid: &Grid, rows: Range<usize>, cancelled: &Cancelled) -> Strip {
        let of_rows = self.views.clone().narrow(0, rows.start, rows.len());
        let of_columns = self.views.clone().narrow(0, grid.columns.start, grid.columns.len());
        let logits = of_rows.clone().mul_scalar(self.inv_temperature).matmul(of_columns.clone().transpose());

        let mut excluded = self.same_key(self.roles.sources(), &rows, &grid.columns);
        if self.roles.left_out().is_some() || !cancelled.is_empty() {
            excluded = excluded.bool_or(self.left_out(grid, &rows, &logits, cancelled));
        }
        let positives = self
            .roles
            .labels()
            .map(|labels| self.same_key(labels, &rows, &grid.columns).bool_and(excluded.clone().bool_not()));
        Strip { rows, of_rows, of_columns, logits: logits.mask_fill(excluded, EXCLUDED), positives }
    }

    /// `[rows, columns]`, true where both views have one key.
    fn same_key(&self, keys: &[u32], rows: &Range<usize>, columns: &Range<usize>) -> Tensor<2, Bool> {
        let device = self.views.device();
        let of = |views: &Range<usize>| -> Tensor<1, Int> {
            let keys: Vec<i64> = views.clone().map(|view| i64::from(keys[view])).collect();
            let len = keys.len();
            Tensor::from_data(TensorData::new(keys, [len]), &device)
        };
        let (n_rows, n_columns) = (rows.len(), columns.len());
        of(rows).reshape([n_rows, 1]).equal(of(columns).reshape([1, n_columns]))
    }

    /// What only the host can say: a caller's predicate, and the cancelled candidates.
    fn left_out(&self, grid: &Grid, rows: &Range<usize>, logits: &Tensor<2>, cancelled: &Cancelled) -> Tensor<2, Bool> {
        let n_columns = grid.columns.len();
        let logits = (!cancelled.is_empty()).then(|| super::values(logits.clone()));
        let mut left_out = vec![false; rows.len() * n_columns];
        for ((row, anchor), out) in rows.clone().enumerate().zip(left_out.chunks_exact_mut(n_columns)) {
            for (column, (out, other)) in out.iter_mut().zip(grid.columns.clone()).enumerate() {
                let sources = self.roles.sources();
                let said = sources[anchor] != sources[other]
                    && self.roles.left_out().is_some_and(|left_out| left_out(anchor, other));
                *out = said
                    || logits.as_ref().is_some_and(|logits| {
                        let logit = logits[row * n_columns + column];
                        cancelled.covers(grid.anchor_of(anchor), logit, other) && !self.roles.is_positive(anchor, other)
                    });
            }
        }
        Tensor::from_data(TensorData::new(left_out, [rows.len(), n_columns]), &self.views.device())
    }

    /// See [`super::host::Host::cancel`].
    pub(super) fn cancel(&self, grids: &[Grid], n: usize) -> Cancelled {
        let mut thresholds = Vec::new();
        let nothing = Cancelled::default();
        for grid in grids {
            for strip in self.strips(grid, &nothing) {
                let logits = super::values(strip.logits);
                for (anchor, logits) in strip.rows.clone().zip(logits.chunks_exact(grid.columns.len())) {
                    let candidates = logits.iter().copied().zip(grid.columns.clone());
                    let mut nearest = Nearest::default();
                    nearest.add(
                        candidates.filter(|&(logit, other)| logit > EXCLUDED && !self.roles.is_positive(anchor, other)),
                        n,
                    );
                    thresholds.push(nearest.threshold(n));
                }
            }
        }
        Cancelled::new(thresholds)
    }

    pub(super) fn statistics(&self, grids: &[Grid], summands: &Summands, cancelled: &Cancelled) -> RowStatistics {
        let mut statistics = RowStatistics::empty(summands);
        for grid in grids {
            for strip in self.strips(grid, cancelled) {
                let logits = strip.logits;
                let hardest = logits.clone().max_dim(1); // [rows, 1]
                let is_candidate = logits.clone().greater_elem(EXCLUDED);
                let mut columns = vec![hardest.clone(), is_candidate.float().sum_dim(1)];
                for &g in &summands.multipliers {
                    let lead = (logits.clone() - hardest.clone()).mul_scalar(g);
                    columns.push(lead.exp().sum_dim(1));
                }
                if let Some(bias) = summands.bias {
                    let (losses, slopes) = logistic(logits.clone().add_scalar(bias));
                    let scaled = slopes.clone() * logits.clone();
                    columns.extend([losses, slopes, scaled].map(|sums| sums.sum_dim(1)));
                }
                if let Some(positives) = strip.positives {
                    let weights = positives.float();
                    columns.extend([(logits.clone() * weights.clone()).sum_dim(1), weights.sum_dim(1)]);
                }
                let cosines = logits.clone().div_scalar(self.inv_temperature);
                columns.push((cosines.mul_scalar(4.0).sub_scalar(4.0)).exp().sum_dim(1));
                let n_numbers = columns.len();
                let numbers: Vec<f64> = Tensor::cat(columns, 1).into_data().iter::<f64>().collect();
                statistics.extend(&sums_of(&numbers, n_numbers, summands), summands);
            }
        }
        statistics
    }

    /// See [`super::host::Host::gradient`].
    pub(super) fn gradient(
        &self,
        grids: &[Grid],
        summands: &Summands,
        cancelled: &Cancelled,
        statistics: &RowStatistics,
        partials: &Partials,
    ) -> Tensor<2> {
        let device = self.views.device();
        let column = |values: &[f32]| -> Tensor<2> {
            Tensor::from_data(TensorData::new(values.to_vec(), [values.len(), 1]), &device)
        };
        let mut d_views = self.views.zeros_like();
        for grid in grids {
            for strip in self.strips(grid, cancelled) {
                let weights = partials.weights(statistics, summands, grid.anchors_of(&strip.rows));
                let mut slopes = strip.logits.zeros_like();
                let behind = strip.logits.clone() - column(&weights.origins);
                for ((weight, lead), &g) in weights.weights.iter().zip(&weights.leads).zip(&summands.multipliers) {
                    let share = (behind.clone().mul_scalar(g) - column(lead)).exp();
                    slopes = slopes + share * column(weight);
                }
                if let (Some(bias), false) = (summands.bias, weights.logistic.is_empty()) {
                    let (_, shares) = logistic(strip.logits.clone().add_scalar(bias));
                    slopes = slopes + shares * column(&weights.logistic);
                }
                if let (Some(positives), false) = (strip.positives, weights.positives.is_empty()) {
                    slopes = slopes + positives.float() * column(&weights.positives);
                }
                let slopes = slopes.mul_scalar(self.inv_temperature);
                let of_rows = slopes.clone().matmul(strip.of_columns);
                let of_columns = slopes.transpose().matmul(strip.of_rows);
                let added = |to: Tensor<2>, part: Tensor<2>, at: Range<usize>| {
                    let [_, n_dims] = to.dims();
                    let sum = to.clone().narrow(0, at.start, at.len()) + part;
                    to.slice_assign([at, 0..n_dims], sum)
                };
                d_views = added(d_views, of_rows, strip.rows);
                d_views = added(d_views, of_columns, grid.columns.clone());
            }
        }
        d_views
    }

    /// The gradient of the views through the logits of their pairs.
    pub(super) fn of_pairs(&self, of_pairs: &[f64]) -> Tensor<2> {
        let n = of_pairs.len();
        let slopes: Vec<f32> = of_pairs.iter().map(|slope| round(slope * self.inv_temperature)).collect();
        let slopes = Tensor::<2>::from_data(TensorData::new(slopes, [n, 1]), &self.views.device());
        let half = |view: usize| self.views.clone().narrow(0, view * n, n) * slopes.clone();
        Tensor::cat(vec![half(1), half(0)], 0)
    }
}

/// Softplus and sigmoid of every element. Of nothing that overflows, and with the digits of small results.
fn logistic(x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let decay = x.clone().abs().neg().exp();
    let share = decay.clone().add_scalar(1.0).recip();
    let is_positive = x.clone().greater_elem(0.0);
    let slopes = (decay.clone() * share.clone()).mask_where(is_positive, share);
    (x.clamp_min(0.0) + decay.log1p(), slopes)
}

/// Reads rows of: hardest, number of candidates, sums per multiplier, perhaps logistic sums, perhaps sum and number of
/// positives, evenness.
fn sums_of(numbers: &[f64], n_numbers: usize, summands: &Summands) -> AnchorSums {
    let n_anchors = numbers.len() / n_numbers;
    let mut sums = AnchorSums::new(n_anchors, summands);
    let n_multipliers = summands.multipliers.len();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts below 2²⁴ are exact in f32")]
    let count = |number: f64| number as u64;
    for (anchor, numbers) in numbers.chunks_exact(n_numbers).enumerate() {
        sums.evenness += numbers[n_numbers - 1];
        sums.n_candidates[anchor] = count(numbers[1]);
        if sums.n_candidates[anchor] == 0 {
            continue;
        }
        sums.hardest[anchor] = round(numbers[0]);
        for (m, &sum) in numbers[2..2 + n_multipliers].iter().enumerate() {
            sums.sums[m][anchor] = sum;
        }
        let mut rest = &numbers[2 + n_multipliers..];
        if let (Some(sums), [losses, bias_slope, log_scale_slope, after @ ..]) = (sums.logistic.get_mut(anchor), rest) {
            let [losses, bias_slope, log_scale_slope] = [*losses, *bias_slope, *log_scale_slope];
            *sums = LogisticSums { losses, bias_slope, log_scale_slope };
            rest = after;
        }
        if let [sum, n, _] = *rest {
            sums.positives[anchor] = (sum, count(n));
        }
    }
    sums
}
