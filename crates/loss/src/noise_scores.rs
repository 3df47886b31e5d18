//! The scores that a noise-contrastive estimator compares.
//!
//! Legend: n data samples, k noise samples for each.

use burn::tensor::{FloatDType, Tensor};

/// Unnormalised log-densities of data and noise under a model, with the log-density of the noise distribution at both, and the
/// model's log-partition.
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
/// Scores and partition may carry a graph; densities of the noise should not: a noise whose density follows the model teaches it
/// nothing. Everything is computed in f32, whatever the float type of the tensors.
#[derive(Clone, Debug)]
pub struct NoiseScores {
    s_data: Tensor<1>,
    s_noise: Tensor<2>,
    log_q_data: Tensor<1>,
    log_q_noise: Tensor<2>,
    log_z: Option<Tensor<1>>,
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
    /// Pairs scores with the log-densities of the noise; `ln Z` is 0. Waits for the device, to look for numbers that are not finite.
    ///
    /// # Errors
    /// [`NoiseScoresError`] unless the extents fit, `n ≥ 1`, `k ≥ 1` and all numbers are finite.
    pub fn new(
        s_data: Tensor<1>,
        s_noise: Tensor<2>,
        log_q_data: Tensor<1>,
        log_q_noise: Tensor<2>,
    ) -> Result<Self, NoiseScoresError> {
        let (s_data, s_noise) = checked_scores(s_data, s_noise)?;
        let [n, k] = s_noise.dims();
        check_shape("log_q_data", &log_q_data.dims(), &[n])?;
        check_shape("log_q_noise", &log_q_noise.dims(), &[n, k])?;
        check_finite("log_q_data", &log_q_data.clone().reshape([n, 1]))?;
        check_finite("log_q_noise", &log_q_noise)?;
        let (log_q_data, log_q_noise) = (log_q_data.cast(FloatDType::F32), log_q_noise.cast(FloatDType::F32));
        Ok(Self { s_data, s_noise, log_q_data, log_q_noise, log_z: None })
    }

    /// Sets the log-partition, in nats: `[1]`, or `[n]` with one for each data sample's context.
    ///
    /// # Errors
    /// [`NoiseScoresError`] unless it has one of these extents and is finite.
    pub fn with_log_z(self, log_z: Tensor<1>) -> Result<Self, NoiseScoresError> {
        let [given] = log_z.dims();
        check_shape("log_z", &[given], &[if given == 1 { 1 } else { self.n() }])?;
        check_finite("log_z", &log_z.clone().reshape([given, 1]))?;
        Ok(Self { log_z: Some(log_z.cast(FloatDType::F32)), ..self })
    }

    /// Number of data samples.
    pub fn n(&self) -> usize {
        self.s_data.dims()[0]
    }

    /// Noise samples for each of them.
    pub fn k(&self) -> usize {
        self.s_noise.dims()[1]
    }

    /// `s − ln q` of the data, `[n, 1]`, and of the noise, `[n, k]`.
    pub(crate) fn ratios(&self) -> (Tensor<2>, Tensor<2>) {
        let data = self.s_data.clone() - self.log_q_data.clone();
        (data.reshape([self.n(), 1]), self.s_noise.clone() - self.log_q_noise.clone())
    }

    /// The logits D of "this is data": of the data, `[n, 1]`, and of the noise, `[n, k]`.
    pub(crate) fn logits(&self) -> (Tensor<2>, Tensor<2>) {
        let (data, noise) = self.ratios();
        let log_k = (self.k() as f64).ln();
        let (data, noise) = (data.sub_scalar(log_k), noise.sub_scalar(log_k));
        match self.log_z.clone() {
            None => (data, noise),
            Some(log_z) => {
                let [given] = log_z.dims();
                let log_z = log_z.reshape([given, 1]); // [1 or n, 1]
                (data - log_z.clone(), noise - log_z)
            }
        }
    }
}

/// Scores `[n]` and `[n, k]` in f32.
pub(crate) fn checked_scores(
    s_data: Tensor<1>,
    s_noise: Tensor<2>,
) -> Result<(Tensor<1>, Tensor<2>), NoiseScoresError> {
    let ([n], [rows, k]) = (s_data.dims(), s_noise.dims());
    if n == 0 || k == 0 {
        return Err(NoiseScoresError::Empty { n, k });
    }
    check_shape("s_noise", &[rows, k], &[n, k])?;
    check_finite("s_data", &s_data.clone().reshape([n, 1]))?;
    check_finite("s_noise", &s_noise)?;
    Ok((s_data.cast(FloatDType::F32), s_noise.cast(FloatDType::F32)))
}

fn check_shape(what: &'static str, got: &[usize], want: &[usize]) -> Result<(), NoiseScoresError> {
    if got == want { Ok(()) } else { Err(NoiseScoresError::Shape { what, want: want.to_vec(), got: got.to_vec() }) }
}

fn check_finite(what: &'static str, values: &Tensor<2>) -> Result<(), NoiseScoresError> {
    // As f32, in which everything is computed.
    let values = values.clone().without_autodiff().cast(FloatDType::F32);
    if values.clone().is_finite().all().into_scalar::<bool>() {
        return Ok(());
    }
    let [_, k] = values.dims();
    let data = values.into_data();
    let bad = data.iter::<f32>().enumerate().find(|(_, value)| !value.is_finite());
    bad.map_or(Ok(()), |(at, value)| Err(NoiseScoresError::NotFinite { what, at: [at / k, at % k], value }))
}
