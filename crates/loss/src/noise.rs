//! Noise distributions.

use rand::{Rng, RngExt};

/// What a noise-contrastive estimator asks of its noise: samples, and their log-density.
///
/// It should cover the data: where the noise has no mass, nothing is learned. The nearer it is to the data, the less the
/// estimate varies.
pub trait Noise {
    /// A sample.
    type Sample;

    /// Draws one sample.
    fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> Self::Sample;

    /// Natural logarithm of the density, or of the probability, at `sample`.
    fn log_density(&self, sample: &Self::Sample) -> f64;
}

/// A distribution over the numbers from 0 on, sampled in constant time.
///
/// # Source
/// The alias method in Vose's form: Vose, *A linear algorithm for generating random numbers with a given distribution*, 1991.
///
/// # Example
/// ```
/// # use twoview_loss::{Categorical, Noise};
/// let counts = [8.0, 1.0, 1.0];
/// let unigram = Categorical::new(&counts)?;
/// assert!((unigram.log_density(&0) - 0.8_f64.ln()).abs() < 1e-12);
/// // word2vec flattens the frequencies.
/// let flattened = Categorical::new(&counts.map(|count: f64| count.powf(0.75)))?;
/// assert!(flattened.log_density(&1) > unigram.log_density(&1));
/// # Ok::<(), twoview_loss::CategoricalError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Categorical {
    /// Of each column: the share that is its own, and whose the rest is.
    columns: Vec<(f64, usize)>,
    log_probabilities: Vec<f64>,
}

/// Why weights make no [`Categorical`].
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum CategoricalError {
    /// There is no outcome.
    #[error("at least one weight is needed")]
    Empty,
    /// A weight cannot be a share.
    #[error("weights must be finite and above 0, got {got} at {at}: what the noise never shows cannot be learned")]
    Weight {
        /// Which weight.
        at: usize,
        /// Its value.
        got: f64,
    },
}

impl Categorical {
    /// A distribution with probabilities proportional to `weights`.
    ///
    /// # Errors
    /// [`CategoricalError`] unless there are weights, all finite and above 0.
    pub fn new(weights: &[f64]) -> Result<Self, CategoricalError> {
        if weights.is_empty() {
            return Err(CategoricalError::Empty);
        }
        if let Some((at, &got)) = weights.iter().enumerate().find(|(_, weight)| !(weight.is_finite() && **weight > 0.0))
        {
            return Err(CategoricalError::Weight { at, got });
        }
        let n = weights.len();
        let total: f64 = weights.iter().sum();
        let mut shares: Vec<f64> = weights.iter().map(|weight| weight / total * n as f64).collect();
        let mut columns: Vec<(f64, usize)> = (0..n).map(|outcome| (1.0, outcome)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|&outcome| shares[outcome] < 1.0);
        while let (Some(less), Some(&more)) = (small.pop(), large.last()) {
            columns[less] = (shares[less], more);
            shares[more] -= 1.0 - shares[less];
            if shares[more] < 1.0 {
                large.pop();
                small.push(more);
            }
        }
        let log_probabilities = weights.iter().map(|weight| (weight / total).ln()).collect();
        Ok(Self { columns, log_probabilities })
    }

    /// Number of outcomes.
    pub fn n_outcomes(&self) -> usize {
        self.columns.len()
    }
}

impl Noise for Categorical {
    type Sample = usize;

    fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> usize {
        let column = rng.random_range(0..self.columns.len());
        let (own, other) = self.columns[column];
        if rng.random::<f64>() < own { column } else { other }
    }

    /// # Panics
    /// When `sample` is no outcome.
    fn log_density(&self, sample: &usize) -> f64 {
        self.log_probabilities[*sample]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn samples_come_as_often_as_their_density_says() {
        let weights = [5.0, 0.5, 2.0, 0.01, 1.0, 1.49];
        let noise = Categorical::new(&weights).expect("valid");
        let (draws, mut rng) = (200_000_u32, StdRng::seed_from_u64(1));
        let mut counts = [0_u32; 6];
        (0..draws).for_each(|_| counts[noise.sample(&mut rng)] += 1);
        for (outcome, count) in counts.into_iter().enumerate() {
            let p = noise.log_density(&outcome).exp();
            assert!((p - weights[outcome] / 10.0).abs() < 1e-12);
            let deviation = (f64::from(count) - p * f64::from(draws)) / (f64::from(draws) * p * (1.0 - p)).sqrt();
            assert!(deviation.abs() < 5.0, "{outcome}: {deviation} standard deviations");
        }
    }

    #[test]
    fn weights_that_are_no_shares_are_refused() {
        assert_eq!(Categorical::new(&[]), Err(CategoricalError::Empty));
        for got in [0.0, -1.0, f64::INFINITY] {
            assert_eq!(Categorical::new(&[1.0, got]), Err(CategoricalError::Weight { at: 1, got }));
        }
        assert!(Categorical::new(&[1.0, f64::NAN]).is_err());
    }
}
