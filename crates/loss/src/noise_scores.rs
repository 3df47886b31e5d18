//! The scores that a noise-contrastive estimator compares.
//!
//! Legend: n data samples, k noise samples for each.

use burn::tensor::{FloatDType, Tensor};

/// Unnormalised log-densities of data and noise under a model, with the log-density of the noise distribution at both.
///
/// ```text
/// s = log of the unnormalised model, q = density of the noise,  D = s − ln Z − ln(k·q)
/// ```
/// `D` is the logit of "this sample is data" where one data sample meets k noise samples.
///
/// # Shapes
/// - `s_data`, `log_q_data`: `[n]`
/// - `s_noise`, `log_q_noise`: `[n, k]`
///
/// Scores may carry a graph; densities of the noise should not: a noise whose density follows the model teaches it nothing.
#[derive(Clone, Debug)]
pub struct NoiseScores {
    s_data: Tensor<1>,
    s_noise: Tensor<2>,
    log_q: Option<(Tensor<1>, Tensor<2>)>,
}

/// Why tensors are not [`NoiseScores`].
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum NoiseScoresError {
    /// A tensor has another extent than the scores ask for.
    #[error("{what} must be {want:?}, got {got:?}")]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// The extents that follow from `s_data` and `s_noise`.
        want: Vec<usize>,
        /// The extents given.
        got: Vec<usize>,
    },
    /// There is nothing to compare.
    #[error("at least one data sample and k >= 1 noise samples are needed, got n = {n} and k = {k}")]
    Empty {
        /// Number of data samples.
        n: usize,
        /// Noise samples for each.
        k: usize,
    },
    /// A number is not finite.
    #[error("{what} must be finite, got {value} at {at:?}")]
    NotFinite {
        /// Which tensor.
        what: &'static str,
        /// Where: sample, and number of the noise sample.
        at: [usize; 2],
        /// The number.
        value: f32,
    },
}

impl NoiseScores {
    /// Pairs scores with the log-densities of the noise. Waits for the device once, to look for numbers that are not finite.
    ///
    /// # Errors
    /// [`NoiseScoresError`] unless the extents fit, `n ≥ 1`, `k ≥ 1` and all numbers are finite.
    pub fn new(
        s_data: Tensor<1>,
        s_noise: Tensor<2>,
        log_q_data: Tensor<1>,
        log_q_noise: Tensor<2>,
    ) -> Result<Self, NoiseScoresError> {
        let scores = Self::without_densities(s_data, s_noise)?;
        let [n, k] = scores.s_noise.dims();
        check_shape("log_q_data", &log_q_data.dims(), &[n])?;
        check_shape("log_q_noise", &log_q_noise.dims(), &[n, k])?;
        check_finite("log_q_data", &log_q_data.clone().reshape([n, 1]))?;
        check_finite("log_q_noise", &log_q_noise)?;
        Ok(Self { log_q: Some((log_q_data, log_q_noise)), ..scores })
    }

    /// Scores alone, for [`crate::negative_sampling`], which asks for no density.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn without_densities(s_data: Tensor<1>, s_noise: Tensor<2>) -> Result<Self, NoiseScoresError> {
        let ([n], [rows, k]) = (s_data.dims(), s_noise.dims());
        if n == 0 || k == 0 {
            return Err(NoiseScoresError::Empty { n, k });
        }
        check_shape("s_noise", &[rows, k], &[n, k])?;
        check_finite("s_data", &s_data.clone().reshape([n, 1]))?;
        check_finite("s_noise", &s_noise)?;
        let f32 = |t: Tensor<1>| t.cast(FloatDType::F32);
        Ok(Self { s_data: f32(s_data), s_noise: s_noise.cast(FloatDType::F32), log_q: None })
    }

    /// Number of data samples.
    pub fn n(&self) -> usize {
        self.s_data.dims()[0]
    }

    /// Noise samples for each of them.
    pub fn k(&self) -> usize {
        self.s_noise.dims()[1]
    }

    /// The scores of the data, `[n, 1]`, and of the noise, `[n, k]`.
    pub(crate) fn scores(self) -> (Tensor<2>, Tensor<2>) {
        let n = self.n();
        (self.s_data.reshape([n, 1]), self.s_noise)
    }

    /// `s − ln q` of the data, `[n, 1]`, and of the noise, `[n, k]`; without densities, `s` itself.
    pub(crate) fn ratios(self) -> (Tensor<2>, Tensor<2>) {
        let n = self.n();
        let log_q = self.log_q.clone();
        let (data, noise) = self.scores();
        match log_q {
            None => (data, noise),
            Some((of_data, of_noise)) => (data - of_data.reshape([n, 1]), noise - of_noise),
        }
    }
}

fn check_shape(what: &'static str, got: &[usize], want: &[usize]) -> Result<(), NoiseScoresError> {
    if got == want { Ok(()) } else { Err(NoiseScoresError::Shape { what, want: want.to_vec(), got: got.to_vec() }) }
}

fn check_finite(what: &'static str, values: &Tensor<2>) -> Result<(), NoiseScoresError> {
    let values = values.clone().without_autodiff();
    if values.clone().is_finite().all().into_scalar::<bool>() {
        return Ok(());
    }
    let [_, k] = values.dims();
    let data = values.into_data();
    let bad = data.iter::<f32>().enumerate().find(|(_, value)| !value.is_finite());
    bad.map_or(Ok(()), |(at, value)| Err(NoiseScoresError::NotFinite { what, at: [at / k, at % k], value }))
}
