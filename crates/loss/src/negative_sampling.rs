//! Negative sampling, the estimator of word2vec.

use burn::tensor::Tensor;

use crate::{NoiseScoresError, binary_nce::logistic, noise_scores::checked_scores};

/// Negative sampling: the logistic loss of word2vec, which asks for neither the noise's density nor a partition.
///
/// ```text
/// L = 1/n · Σ_i [ softplus(−s(data_i)) + Σ_j softplus(s(noise_ij)) ]
/// ```
/// This is [`crate::binary_nce`] with `ln Z = 0` and `ln(k·q) = 0`: of a uniform noise over k outcomes it is the same. For any
/// other noise its optimum is not the data's log-density but `s = ln p(data) − ln q − ln k`, which with the
/// product of the marginals as noise is the pointwise mutual information less `ln k`.
///
/// # Shapes
/// - `s_data`: `[n]`, `s_noise`: `[n, k]`
/// - returns: `[1]`, in nats
///
/// # Conventions
/// Sum over the noise samples, mean over the data samples.
///
/// # Errors
/// [`NoiseScoresError`] unless the extents fit, `n ≥ 1`, `k ≥ 1` and all numbers are finite.
///
/// # Cost
/// `O(n·k)` time and memory.
///
/// # Source
/// Mikolov et al., *Distributed Representations of Words and Phrases and their Compositionality*, NeurIPS 2013, eq. (4). Levy and
/// Goldberg, *Neural Word Embedding as Implicit Matrix Factorization*, NeurIPS 2014, for the optimum.
pub fn negative_sampling(s_data: Tensor<1>, s_noise: Tensor<2>) -> Result<Tensor<1>, NoiseScoresError> {
    let (data, noise) = checked_scores(s_data, s_noise)?;
    let [n] = data.dims();
    Ok(logistic(data.reshape([n, 1]), noise))
}
