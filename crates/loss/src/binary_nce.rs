//! Noise-contrastive estimation as binary classification.

use burn::tensor::{Tensor, activation};

use crate::NoiseScores;

/// Binary noise-contrastive estimation: logistic regression of data against noise, for a model that need not sum to 1.
///
/// ```text
/// D(s, q) = s − ln Z − ln k − ln q
/// L = 1/n · Σ_i [ softplus(−D(data_i)) + Σ_j softplus(D(noise_ij)) ]
/// dL/dθ = −1/n · Σ_i [ σ(−D(data_i)) · ∂s(data_i) − Σ_j σ(D(noise_ij)) · ∂s(noise_ij) ]
/// ```
/// At the optimum `s − ln Z` is the log-density of the data, whatever the noise, provided that it covers the data. Unlike
/// in maximum likelihood `ln Z` is a parameter like any other. The weights `σ(D)` of the noise's gradient lie in `[0, 1]`, so
/// no sample can dominate, unlike in importance sampling; as k grows the gradient becomes that of maximum likelihood.
///
/// [`NoiseScores::with_log_z`] says which estimator it is:
/// - a learned `[1]`: Gutmann and Hyvärinen's, for one unnormalised density;
/// - a learned `[n]`, one per sample: a conditional model with a partition per context;
/// - a constant, or the zero of scores without any: Mnih and Teh's, where a flexible model learns to normalize itself.
///
/// # Shapes
/// - `scores`: n data samples and k noise samples for each
/// - returns: `[1]`, in nats. A model equal to the noise scores `(k + 1)·ln(k + 1) − k·ln k`.
///
/// # Conventions
/// Sum over the noise samples, mean over the data samples.
///
/// # Errors
/// None: [`NoiseScores`] checked what is compared.
///
/// # Cost
/// `O(n·k)` time and memory.
///
/// # Source
/// Gutmann and Hyvärinen, *Noise-Contrastive Estimation of Unnormalized Statistical Models*, JMLR 2012, eq. (8). Mnih and Teh,
/// *A fast and simple algorithm for training neural probabilistic language models*, ICML 2012, eq. (10) and (11).
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use twoview_loss::{NoiseScores, binary_nce};
///
/// let device = Device::flex();
/// let (data, noise) = (Tensor::<1>::zeros([4], &device), Tensor::<2>::zeros([4, 3], &device));
/// let scores = NoiseScores::new(data.clone(), noise.clone(), data, noise)?;
/// let loss = binary_nce(scores.with_log_z(Tensor::zeros([1], &device))?).into_scalar::<f32>();
/// assert!((loss - (4.0 * 4.0_f32.ln() - 3.0 * 3.0_f32.ln())).abs() < 1e-6);
/// # Ok::<(), twoview_loss::NoiseScoresError>(())
/// ```
pub fn binary_nce(scores: NoiseScores) -> Tensor<1> {
    let (data, noise) = scores.logits();
    logistic(data, noise)
}

/// The weights `σ(D)` of the noise samples in the gradient of [`binary_nce`], `[n, k]`, each in `[0, 1]`.
///
/// Their mean says how well noise is told from data: near `1/(k + 1)` not at all, near 0 so easily that little is learned.
pub fn noise_weights(scores: NoiseScores) -> Tensor<2> {
    activation::sigmoid(scores.logits().1)
}

/// `softplus(−data)` and the sum of `softplus(noise)`, per data sample, averaged.
pub(crate) fn logistic(data: Tensor<2>, noise: Tensor<2>) -> Tensor<1> {
    (activation::softplus(data.neg(), 1.0) + activation::softplus(noise, 1.0).sum_dim(1)).mean()
}
