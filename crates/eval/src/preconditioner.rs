//! `SecondMoments` and the `Preconditioner` made of it: what makes a linear probe converge in tens of steps.
//!
//! `C` classes, `F` feature dimensions, `n` rows.
//!
//! Neighbouring pixels, and the features of an untrained encoder, are so strongly correlated that the objective of a
//! linear probe is a thousand times steeper in some directions than in others, and gradient methods crawl. Where all
//! classes are about equally probable its Hessian is, for the weights `(w_c, b_c)` of each class,
//!
//! ```text
//! H ≈ 1/C · M + l2 · I,     M = 1/n Σ_i (x_i, 1)(x_i, 1)ᵀ        [F + 1, F + 1]
//! ```
//! and steps taken in the metric of `H` see a problem that is steep by about the same amount everywhere. (Exact bounds
//! of this form: Böhning, *Multinomial logistic regression algorithm*, 1992.) The metric changes the way to the minimum
//! and not the minimum, so single precision and a sample of the rows are enough.

use rayon::prelude::*;

use crate::FeatureBank;
use crate::feature_bank::narrow;
use crate::matrix::MatrixView;
use crate::softmax_regression::Standardizer;

/// Rows that are sampled at most.
const MAX_ROWS: usize = 16_384;
/// Beyond this many dimensions (64 MiB of moments) the factorization would cost more than it saves.
const MAX_DIM: usize = 4096;
/// Rows standardized at a time.
const ROW_BLOCK: usize = 1024;
/// Rows of the matrix that one task of a product or one step of the factorization takes.
const BLOCK: usize = 64;

/// The second moments of standardized features and a constant 1.
pub(crate) struct SecondMoments {
    matrix: Vec<f32>, // [size, size], size = F + 1
    size: usize,
}

/// The lower Cholesky factor of `1/C · M + l2 · I`.
pub(crate) struct Preconditioner {
    lower: Vec<f32>, // [size, size]
    size: usize,
}

impl SecondMoments {
    /// The moments over evenly spaced rows of `bank`; none for more dimensions than pay.
    pub(crate) fn of(bank: &FeatureBank, standardizer: &Standardizer) -> Option<Self> {
        if bank.dim() > MAX_DIM {
            return None;
        }
        let (dim, size) = (bank.dim(), bank.dim() + 1);
        let n_rows = bank.len().min(MAX_ROWS);
        let rows: Vec<usize> = (0..n_rows).map(|i| i * bank.len() / n_rows).collect();
        let scale = (n_rows as f64).sqrt().recip();
        let mut matrix = vec![0.0_f32; size * size];
        let mut wide = vec![0.0; dim];
        let mut block = Vec::with_capacity(ROW_BLOCK.min(n_rows) * size);
        for rows in rows.chunks(ROW_BLOCK) {
            block.clear();
            for &row in rows {
                standardizer.write(bank.row(row), &mut wide);
                block.extend(wide.iter().map(|v| narrow(v * scale)));
                block.push(narrow(scale));
            }
            let all = MatrixView::new(&block, rows.len(), size);
            matrix.par_chunks_mut(BLOCK * size).enumerate().for_each(|(i, out)| {
                let some = all.columns(i * BLOCK, out.len() / size);
                some.transposed().multiply_add_into(all, out);
            });
        }
        Some(Self { matrix, size })
    }

    /// The preconditioner for one strength of the penalty; none if rounding made the matrix indefinite.
    pub(crate) fn factor(&self, l2: f64, n_classes: usize) -> Option<Preconditioner> {
        let size = self.size;
        let trace: f32 = (0..size).map(|i| self.matrix[i * size + i]).sum::<f32>() / n_classes as f32;
        // The products rounded at about 1e-7 of the largest eigenvalue, which the trace bounds.
        let ridge = narrow(l2) + 1e-6 * trace;
        let mut lower: Vec<f32> = self.matrix.iter().map(|m| m / n_classes as f32).collect();
        (0..size).for_each(|i| lower[i * size + i] += ridge);
        cholesky_in_place(&mut lower, size)?;
        Some(Preconditioner { lower, size })
    }
}

impl Preconditioner {
    /// Replaces the gradient `g` (weights `[C, F]`, then biases `[C]`) by `H⁻¹ g`.
    pub(crate) fn apply(&self, gradient: &mut [f64]) {
        let (size, dim) = (self.size, self.size - 1);
        let n_classes = gradient.len() / size;
        let (weights, biases) = gradient.split_at_mut(n_classes * dim);
        weights.par_chunks_exact_mut(dim).zip(biases).for_each(|(weights, bias)| {
            let mut solution = Vec::with_capacity(size);
            solution.extend_from_slice(weights);
            solution.push(*bias);
            self.solve(&mut solution);
            weights.copy_from_slice(&solution[..dim]);
            *bias = solution[dim];
        });
    }

    /// Solves `L Lᵀ x = b` in place.
    fn solve(&self, x: &mut [f64]) {
        for i in 0..self.size {
            let (known, rest) = x.split_at_mut(i);
            let row = &self.lower[i * self.size..][..=i];
            rest[0] = (rest[0] - dot(&row[..i], known)) / f64::from(row[i]);
        }
        for i in (0..self.size).rev() {
            let (open, rest) = x.split_at_mut(i);
            let row = &self.lower[i * self.size..][..=i];
            rest[0] /= f64::from(row[i]);
            open.iter_mut().zip(row).for_each(|(x, &l)| *x -= rest[0] * f64::from(l));
        }
    }
}

/// Turns the lower triangle of a symmetric `[size, size]` matrix into its Cholesky factor, a block of columns at a
/// time, so that nearly all work is matrix products. The upper triangle is left undefined.
fn cholesky_in_place(matrix: &mut [f32], size: usize) -> Option<()> {
    for start in (0..size).step_by(BLOCK) {
        let width = BLOCK.min(size - start);
        let (pivots, below) = matrix[start * size..].split_at_mut(width * size);
        // What the finished columns contribute to the pivot block, and its own factorization.
        let finished = finished_columns(pivots, width, size, start);
        subtract_product(pivots, &finished, &finished, size, start, width);
        for i in 0..width {
            for j in 0..=i {
                let product: f32 = (0..j).map(|k| pivots[i * size + start + k] * pivots[j * size + start + k]).sum();
                let value = pivots[i * size + start + j] - product;
                pivots[i * size + start + j] = if i > j {
                    value / pivots[j * size + start + j]
                } else if value > 0.0 {
                    value.sqrt()
                } else {
                    return None;
                };
            }
        }
        // The same columns of all rows below, independently of each other.
        let pivots = &*pivots;
        below.par_chunks_mut(BLOCK * size).for_each(|rows| {
            let own = finished_columns(rows, rows.len() / size, size, start);
            subtract_product(rows, &own, &finished, size, start, width);
            for row in rows.chunks_exact_mut(size) {
                for j in 0..width {
                    let pivot_row = &pivots[j * size + start..][..=j];
                    let product: f32 = row[start..].iter().zip(&pivot_row[..j]).map(|(a, b)| a * b).sum();
                    row[start + j] = (row[start + j] - product) / pivot_row[j];
                }
            }
        });
    }
    Some(())
}

/// A compact copy of the first `start` columns of `n_rows` rows.
fn finished_columns(rows: &[f32], n_rows: usize, size: usize, start: usize) -> Vec<f32> {
    rows.chunks_exact(size).take(n_rows).flat_map(|row| &row[..start]).copied().collect()
}

/// `rows[:, start..start + width] −= own · pivotsᵀ`, with `own` `[n, start]` and `pivots` `[width, start]`.
fn subtract_product(rows: &mut [f32], own: &[f32], pivots: &[f32], size: usize, start: usize, width: usize) {
    let n_rows = rows.len() / size;
    let mut product = vec![0.0; n_rows * width];
    MatrixView::new(own, n_rows, start).multiply_into(MatrixView::new(pivots, width, start).transposed(), &mut product);
    for (row, product) in rows.chunks_exact_mut(size).zip(product.chunks_exact(width)) {
        row[start..start + width].iter_mut().zip(product).for_each(|(r, p)| *r -= p);
    }
}

/// A dot product in f64, in eight fixed lanes so that it vectorizes.
fn dot(a: &[f32], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(&x, y)| f64::from(x) * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for (lane, (&x, y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
            *lane += f64::from(x) * y;
        }
    }
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deterministic numbers in [-1, 1) without structure.
    fn noise(n: usize) -> Vec<f32> {
        (0..n as u64).map(|i| narrow(((i * 2_654_435_761) % 65_521) as f64 / 32_760.5 - 1.0)).collect()
    }

    #[test]
    fn solves_the_system_it_stands_for() {
        // 150 + 1 dimensions make three blocks of columns, the last one narrow.
        let (n, dim, n_classes, l2) = (400, 150, 3, 0.01);
        let bank = FeatureBank::new(noise(n * dim), dim, vec![0; n]).expect("valid");
        let moments = SecondMoments::of(&bank, &Standardizer::identity(dim)).expect("few dimensions");
        let preconditioner = moments.factor(l2, n_classes).expect("positive definite");

        // H x by its definition, then back.
        let x: Vec<f64> = noise(n_classes * (dim + 1)).iter().map(|&v| f64::from(v)).collect();
        let mut product = vec![0.0; x.len()];
        for class in 0..n_classes {
            let (weights, bias) = (&x[class * dim..][..dim], x[n_classes * dim + class]);
            for row in 0..n {
                let features = bank.row(row);
                let projection = dot(features, weights) + bias;
                let scale = projection / (n * n_classes) as f64;
                product[class * dim..][..dim].iter_mut().zip(features).for_each(|(p, &f)| *p += scale * f64::from(f));
                product[n_classes * dim + class] += scale;
            }
            product[class * dim..][..dim].iter_mut().zip(weights).for_each(|(p, w)| *p += l2 * w);
            product[n_classes * dim + class] += l2 * bias;
        }
        preconditioner.apply(&mut product);
        // f32 rounding (6e-8) and the ridge (2e-5) against eigenvalues of at least 0.01.
        for (got, want) in product.iter().zip(&x) {
            assert!((got - want).abs() < 5e-3, "got {got}, want {want}");
        }
    }

    #[test]
    fn degenerate_features_are_no_obstacle() {
        // All dimensions equal, fewer rows than dimensions: a matrix of rank one.
        let bank = FeatureBank::new([1.0_f32, -2.0].iter().flat_map(|&v| [v; 70]).collect(), 70, vec![0, 1]);
        let moments = SecondMoments::of(&bank.expect("valid"), &Standardizer::identity(70)).expect("few dimensions");
        let mut gradient: Vec<f64> = noise(2 * 71).iter().map(|&v| f64::from(v)).collect();
        let before = gradient.clone();
        moments.factor(1e-6, 2).expect("the ridge makes it definite").apply(&mut gradient);
        // A positive definite map: the direction still descends.
        assert!(gradient.iter().zip(&before).map(|(a, b)| a * b).sum::<f64>() > 0.0);
        assert!(gradient.iter().all(|g| g.is_finite()));
    }

    #[test]
    fn too_many_dimensions_are_left_alone() {
        let dim = MAX_DIM + 1;
        let bank = FeatureBank::new(vec![1.0; dim], dim, vec![0]).expect("valid");
        assert!(SecondMoments::of(&bank, &Standardizer::identity(dim)).is_none());
    }
}
