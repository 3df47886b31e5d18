//! How much of a gradient is noise, and the batch size that follows.

use serde::Serialize;

/// The gradient noise scale, from the gradients of parts of a batch.
///
/// ```text
/// E|G_b|² = |G|² + tr Σ / b        G_b: mean gradient over b images, Σ: covariance of the gradient of one image
/// B = tr Σ / |G|²                  the batch at which noise and signal are equal
/// ```
/// Steps to a given loss go about as `1 + B / N`: far below B a larger batch saves as many steps as it costs, far above it
/// saves none. Both terms are unbiased, and single batches say little: average many with [`blend`](Self::blend) before
/// taking the ratio. In a contrastive loss images share their negatives, so that this is an approximation: parts of a
/// batch vary less than batches do.
///
/// # Source
/// McCandlish et al., *An Empirical Model of Large-Batch Training*, 2018, appendix A.1. <https://arxiv.org/abs/1812.06162>
///
/// # Example
/// ```
/// # use twoview_loss::GradientNoise;
/// // Two parts of 8 images with orthogonal gradients of norm 1: all noise.
/// let noise = GradientNoise::from_parts(&[vec![1.0, 0.0], vec![0.0, 1.0]], 8)?;
/// assert_eq!((noise.signal, noise.variance), (0.0, 8.0));
/// assert_eq!(noise.batch_size(), None);
/// # Ok::<(), twoview_loss::GradientNoiseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GradientNoise {
    /// Estimate of `|G|²`. It can be negative, where noise prevails.
    pub signal: f64,
    /// Estimate of `tr Σ`, the variance of the gradient of one image.
    pub variance: f64,
}

/// Why gradients give no estimate.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum GradientNoiseError {
    /// One part does not vary.
    #[error("at least 2 parts of at least 1 image are needed, got {parts} of {images}")]
    TooFew {
        /// Number of parts.
        parts: usize,
        /// Images of each.
        images: usize,
    },
    /// The parts are gradients of different things.
    #[error("all gradients must have {want} elements, got {got}")]
    Length {
        /// Of the first part.
        want: usize,
        /// Of another.
        got: usize,
    },
}

impl GradientNoise {
    /// Estimates from the mean gradients of equal parts of a batch, `images` in each.
    ///
    /// # Errors
    /// [`GradientNoiseError`] for fewer than two parts, empty parts, or gradients of different lengths.
    pub fn from_parts(parts: &[Vec<f32>], images: usize) -> Result<Self, GradientNoiseError> {
        let m = parts.len();
        if m < 2 || images == 0 {
            return Err(GradientNoiseError::TooFew { parts: m, images });
        }
        let want = parts[0].len();
        if let Some(part) = parts.iter().find(|part| part.len() != want) {
            return Err(GradientNoiseError::Length { want, got: part.len() });
        }
        let mean_of = |at: usize| parts.iter().map(|part| f64::from(part[at])).sum::<f64>() / m as f64;
        let of_mean: f64 = (0..want).map(|at| mean_of(at).powi(2)).sum();
        let of_parts: Vec<f64> = parts.iter().map(|part| part.iter().map(|x| f64::from(*x).powi(2)).sum()).collect();
        Self::from_squared_norms(&of_parts, of_mean, images)
    }

    /// The same from the squared norms of the parts' mean gradients, and that of the mean over all.
    ///
    /// # Errors
    /// [`GradientNoiseError::TooFew`] for fewer than two parts or empty ones.
    pub fn from_squared_norms(of_parts: &[f64], of_mean: f64, images: usize) -> Result<Self, GradientNoiseError> {
        let m = of_parts.len();
        if m < 2 || images == 0 {
            return Err(GradientNoiseError::TooFew { parts: m, images });
        }
        let squares = of_parts.iter().sum::<f64>() / m as f64;
        // Unbiased, as the variance of a sample is.
        let of_part = (squares - of_mean) * m as f64 / (m as f64 - 1.0);
        Ok(Self { signal: of_mean - of_part / m as f64, variance: of_part * images as f64 })
    }

    /// Moves this estimate towards a new one: `decay` of the old and the rest of the new.
    pub fn blend(&mut self, new: Self, decay: f64) {
        self.signal = decay * self.signal + (1.0 - decay) * new.signal;
        self.variance = decay * self.variance + (1.0 - decay) * new.variance;
    }

    /// The batch size B at which noise and signal are equal, in images; `None` where no signal is seen.
    pub fn batch_size(&self) -> Option<f64> {
        (self.signal > 0.0).then(|| self.variance / self.signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    #[test]
    fn a_known_noise_is_found() {
        let mut rng = StdRng::seed_from_u64(3);
        let (images, parts, dims) = (16, 4, 10);
        let mut average = GradientNoise { signal: 0.0, variance: 0.0 };
        for round in 0..2000 {
            // Gradients 0.5 in every dimension, with uniform noise of variance 1/3 in each and for each image.
            let part = |rng: &mut StdRng| -> Vec<f32> {
                let mean = |rng: &mut StdRng| -> f32 {
                    let sum: f32 = (0..images).map(|_| rng.random::<f32>() * 2.0 - 1.0).sum();
                    0.5 + sum / 16.0
                };
                (0..dims).map(|_| mean(rng)).collect()
            };
            let drawn: Vec<Vec<f32>> = (0..parts).map(|_| part(&mut rng)).collect();
            let new = GradientNoise::from_parts(&drawn, images).expect("valid");
            average.blend(new, f64::from(round) / f64::from(round + 1));
        }
        assert!((average.signal / 2.5 - 1.0).abs() < 0.02, "{average:?}");
        assert!((average.variance / (10.0 / 3.0) - 1.0).abs() < 0.02, "{average:?}");
        assert!((average.batch_size().expect("a signal") - 4.0 / 3.0).abs() < 0.05);
    }

    #[test]
    fn what_does_not_vary_is_refused() {
        let refused = |parts: &[Vec<f32>], images| GradientNoise::from_parts(parts, images).expect_err("refused");
        assert_eq!(refused(&[vec![1.0]], 4), GradientNoiseError::TooFew { parts: 1, images: 4 });
        assert_eq!(refused(&[vec![1.0], vec![1.0]], 0), GradientNoiseError::TooFew { parts: 2, images: 0 });
        assert_eq!(refused(&[vec![1.0], vec![]], 4), GradientNoiseError::Length { want: 1, got: 0 });
    }
}
