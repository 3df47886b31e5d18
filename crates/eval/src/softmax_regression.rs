//! The objective of multinomial logistic regression over selected rows of a bank, with its gradient.
//!
//! `n` rows, `C` classes, `F` feature dimensions. Parameters are one vector: weights `[C, F]`, then biases `[C]`.

use rayon::prelude::*;

use crate::FeatureBank;
use crate::matrix::MatrixView;

/// Per-dimension mean and inverse standard deviation, applied to features on their way into a product.
#[derive(Clone, Debug)]
pub(crate) struct Standardizer {
    mean: Vec<f64>,        // [F]
    inverse_std: Vec<f64>, // [F]
}

impl Standardizer {
    /// Leaves features as they are.
    pub(crate) fn identity(dim: usize) -> Self {
        Self { mean: vec![0.0; dim], inverse_std: vec![1.0; dim] }
    }

    /// Mean 0 and population variance 1 over `rows` of `bank`. A constant dimension is only centred.
    pub(crate) fn fit(bank: &FeatureBank, rows: &[usize]) -> Self {
        let n = rows.len() as f64;
        let mut mean = vec![0.0; bank.dim()];
        for &row in rows {
            mean.iter_mut().zip(bank.row(row)).for_each(|(m, &v)| *m += f64::from(v));
        }
        mean.iter_mut().for_each(|m| *m /= n);
        let mut variance = vec![0.0; bank.dim()];
        for &row in rows {
            for ((s, m), &v) in variance.iter_mut().zip(&mean).zip(bank.row(row)) {
                *s += (f64::from(v) - m).powi(2);
            }
        }
        // A constant dimension has the variance of the mean's rounding error instead of 0.
        let inverse_std = variance
            .iter()
            .zip(&mean)
            .map(|(s, m)| {
                let std = (s / n).sqrt();
                if std <= 1e-12 * m.abs() || std < f64::MIN_POSITIVE { 1.0 } else { std.recip() }
            })
            .collect();
        Self { mean, inverse_std }
    }

    pub(crate) fn write(&self, row: &[f32], out: &mut [f64]) {
        for (((out, &v), mean), scale) in out.iter_mut().zip(row).zip(&self.mean).zip(&self.inverse_std) {
            *out = (f64::from(v) - mean) * scale;
        }
    }
}

/// Mean cross-entropy + `l2/2 · ‖W‖²` of a linear classifier.
///
/// Features are widened to f64 block by block, so the bank is never copied and the objective is good to 1e-12.
pub(crate) struct SoftmaxRegression<'a> {
    pub(crate) bank: &'a FeatureBank,
    pub(crate) rows: &'a [usize],
    pub(crate) standardizer: &'a Standardizer,
    pub(crate) n_classes: usize,
}

impl SoftmaxRegression<'_> {
    pub(crate) fn n_parameters(&self) -> usize {
        self.n_classes * (self.bank.dim() + 1)
    }

    /// The objective at `parameters`; its gradient goes to `gradient`.
    ///
    /// ```text
    /// L = 1/n Σ_i [ ln Σ_c exp(w_c·x_i + b_c) − (w_{y_i}·x_i + b_{y_i}) ] + l2/2 Σ w²
    /// ```
    pub(crate) fn evaluate(&self, parameters: &[f64], l2: f64, gradient: &mut [f64]) -> f64 {
        // Each segment sums its rows in order and the segments are added in order. Their number depends on the
        // problem alone, so that the rounding does not depend on how many threads there are.
        let partial: Vec<(f64, Vec<f64>)> =
            self.segments().into_par_iter().map(|rows| self.segment(rows, parameters)).collect();
        let mut cross_entropy = 0.0;
        gradient.fill(0.0);
        for (loss, partial_gradient) in &partial {
            cross_entropy += loss;
            gradient.iter_mut().zip(partial_gradient).for_each(|(g, p)| *g += p);
        }
        let n = self.rows.len() as f64;
        gradient.iter_mut().for_each(|g| *g /= n);
        let weights = &parameters[..self.n_classes * self.bank.dim()];
        gradient.iter_mut().zip(weights).for_each(|(g, w)| *g += l2 * w);
        cross_entropy / n + 0.5 * l2 * weights.iter().map(|w| w * w).sum::<f64>()
    }

    /// At most 32 runs of rows, fewer if their partial gradients would take more than 256 MiB.
    fn segments(&self) -> Vec<&[usize]> {
        let affordable = (32 << 20) / self.n_parameters().max(1);
        let n_segments = affordable.clamp(1, 32);
        self.rows.chunks(self.rows.len().div_ceil(n_segments).max(1)).collect()
    }

    /// Sums of the cross-entropy and its gradient over `rows`.
    fn segment(&self, rows: &[usize], parameters: &[f64]) -> (f64, Vec<f64>) {
        let (dim, n_classes) = (self.bank.dim(), self.n_classes);
        let mut loss = 0.0;
        let mut gradient = vec![0.0; self.n_parameters()];
        let (weight_gradient, bias_gradient) = gradient.split_at_mut(n_classes * dim);
        for_each_block(self.bank, rows, self.standardizer, parameters, n_classes, |rows, x, logits| {
            for (&row, logits) in rows.iter().zip(logits.chunks_exact_mut(n_classes)) {
                let label = self.bank.labels()[row] as usize;
                let logit = logits[label];
                loss += softmax_in_place(logits) - logit;
                logits[label] -= 1.0;
                bias_gradient.iter_mut().zip(&*logits).for_each(|(g, p)| *g += p);
            }
            let residuals = MatrixView::new(logits, rows.len(), n_classes);
            residuals.transposed().multiply_add_into(MatrixView::new(x, rows.len(), dim), weight_gradient);
        });
        (loss, gradient)
    }
}

/// Mean cross-entropy and the most probable class of each of `rows`; of equal logits the smaller class wins.
///
/// A label of `n_classes` or more has probability 0, and makes the cross-entropy infinite.
pub(crate) fn classify(
    bank: &FeatureBank,
    rows: &[usize],
    standardizer: &Standardizer,
    parameters: &[f64],
    n_classes: usize,
) -> (f64, Vec<u32>) {
    let (losses, predicted): (Vec<f64>, Vec<Vec<u32>>) = rows
        .par_chunks(1024)
        .map(|rows| {
            let (mut loss, mut predicted) = (0.0, Vec::with_capacity(rows.len()));
            for_each_block(bank, rows, standardizer, parameters, n_classes, |rows, _, logits| {
                for (&row, logits) in rows.iter().zip(logits.chunks_exact_mut(n_classes)) {
                    let winner = (0_u32..).zip(&*logits).reduce(|best, next| if next.1 > best.1 { next } else { best });
                    predicted.push(winner.map_or(0, |(class, _)| class));
                    let logit = logits.get(bank.labels()[row] as usize).copied().unwrap_or(f64::NEG_INFINITY);
                    loss += softmax_in_place(logits) - logit;
                }
            });
            (loss, predicted)
        })
        .unzip();
    (losses.iter().sum::<f64>() / rows.len() as f64, predicted.concat())
}

/// Calls `visit(rows, x, logits)` with a few rows at a time, their features `[b, F]` and logits `[b, C]`.
fn for_each_block(
    bank: &FeatureBank,
    rows: &[usize],
    standardizer: &Standardizer,
    parameters: &[f64],
    n_classes: usize,
    mut visit: impl FnMut(&[usize], &[f64], &mut [f64]),
) {
    let dim = bank.dim();
    // Half a MiB of widened features stays in the second-level cache between the two products that read it.
    let block = ((1 << 16) / dim).clamp(16, 256);
    let (weights, biases) = parameters.split_at(n_classes * dim);
    let weights = MatrixView::new(weights, n_classes, dim).transposed();
    let (mut x, mut logits) = (vec![0.0; block * dim], vec![0.0; block * n_classes]);
    for rows in rows.chunks(block) {
        let (x, logits) = (&mut x[..rows.len() * dim], &mut logits[..rows.len() * n_classes]);
        for (&row, x) in rows.iter().zip(x.chunks_exact_mut(dim)) {
            standardizer.write(bank.row(row), x);
        }
        for logits in logits.chunks_exact_mut(n_classes) {
            logits.copy_from_slice(biases);
        }
        MatrixView::new(x, rows.len(), dim).multiply_add_into(weights, logits);
        visit(rows, x, logits);
    }
}

/// Turns logits into probabilities and returns the log of the sum of their exponentials.
fn softmax_in_place(logits: &mut [f64]) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for logit in logits.iter_mut() {
        *logit = (*logit - largest).exp();
        sum += *logit;
    }
    logits.iter_mut().for_each(|p| *p /= sum);
    largest + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deterministic numbers in [-1, 1) without structure.
    fn noise(n: usize, salt: u64) -> Vec<f64> {
        (0..n as u64).map(|i| ((i * 2_654_435_761 + salt * 40_503) % 65_536) as f64 / 32_768.0 - 1.0).collect()
    }

    fn bank(rows: u32, dim: usize, n_classes: u32) -> FeatureBank {
        let features = noise(rows as usize * dim, 1).into_iter().map(crate::feature_bank::narrow).collect();
        FeatureBank::new(features, dim, (0..rows).map(|i| i * i % n_classes).collect()).expect("valid")
    }

    #[test]
    fn a_classifier_that_knows_nothing_has_entropy_ln_c() {
        let bank = bank(50, 3, 4);
        let rows: Vec<usize> = (0..50).collect();
        let standardizer = Standardizer::identity(3);
        let problem = SoftmaxRegression { bank: &bank, rows: &rows, standardizer: &standardizer, n_classes: 4 };
        let mut gradient = vec![f64::NAN; problem.n_parameters()];
        let value = problem.evaluate(&vec![0.0; problem.n_parameters()], 1.0, &mut gradient);
        assert!((value - 4_f64.ln()).abs() < 1e-14, "{value}");
        // The gradient by a bias is mean(p_c) − share of c.
        for class in 0..4_u32 {
            let share = bank.labels().iter().filter(|&&l| l == class).count() as f64 / 50.0;
            assert!((gradient[12 + class as usize] - (0.25 - share)).abs() < 1e-14);
        }
    }

    #[test]
    fn gradient_agrees_with_finite_differences() {
        // 700 rows of 600 dimensions take several blocks in each of several segments.
        for (n_rows, dim, n_classes) in [(40, 5, 3), (700, 600, 2)] {
            let bank = bank(n_rows, dim, n_classes);
            let n_classes = n_classes as usize;
            let rows: Vec<usize> = (0..bank.len()).filter(|r| r % 7 != 3).collect();
            let standardizer = Standardizer::fit(&bank, &rows);
            let problem = SoftmaxRegression { bank: &bank, rows: &rows, standardizer: &standardizer, n_classes };
            let parameters: Vec<f64> = noise(problem.n_parameters(), 9).iter().map(|v| 0.1 * v).collect();
            let mut gradient = vec![0.0; parameters.len()];
            problem.evaluate(&parameters, 0.3, &mut gradient);
            let mut scratch = gradient.clone();
            for i in (0..parameters.len()).step_by(parameters.len() / 12) {
                let mut shifted = |by: f64| {
                    let mut moved = parameters.clone();
                    moved[i] += by;
                    problem.evaluate(&moved, 0.3, &mut scratch)
                };
                // Central differences: error h² L‴/6 + 1e-16 L/h, about 1e-10 here.
                let want = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                assert!((gradient[i] - want).abs() < 1e-8, "parameter {i}: got {}, want {want}", gradient[i]);
            }
        }
    }

    #[test]
    fn logits_of_any_size_keep_the_loss_finite() {
        let bank = FeatureBank::new(vec![1e30, -1e30], 1, vec![0, 1]).expect("valid");
        let standardizer = Standardizer::identity(1);
        let problem = SoftmaxRegression { bank: &bank, rows: &[0, 1], standardizer: &standardizer, n_classes: 2 };
        let mut gradient = vec![0.0; 4];
        // Right by a margin of 2e30, then wrong by the same.
        assert_eq!(problem.evaluate(&[1.0, -1.0, 0.0, 0.0], 0.0, &mut gradient), 0.0);
        let wrong = problem.evaluate(&[-1.0, 1.0, 0.0, 0.0], 0.0, &mut gradient);
        assert!((wrong / 2e30 - 1.0).abs() < 1e-6 && gradient.iter().all(|g| g.is_finite()), "{wrong}");
    }

    #[test]
    fn a_constant_dimension_is_centred_and_not_blown_up() {
        let bank = FeatureBank::new(vec![0.1, 5.0, 0.1, 7.0, 0.1, 9.0], 2, vec![0, 1, 0]).expect("valid");
        let standardizer = Standardizer::fit(&bank, &[0, 1, 2]);
        let mut out = [0.0; 2];
        standardizer.write(bank.row(2), &mut out);
        assert!(out[0].abs() < 1e-15, "{out:?}");
        assert!((out[1] - 1.5_f64.sqrt()).abs() < 1e-12, "{out:?}");
    }
}
