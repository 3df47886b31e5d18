//! Noise-contrastive estimation as ranking.

use burn::tensor::{Tensor, activation};

use crate::NoiseScores;

/// Ranking NCE: the data sample has to be found among the noise samples; the partition cancels.
///
/// ```text
/// L = 1/n · Σ_i softplus( ln Σ_j e^{r(noise_ij)} − r(data_i) )        r = s − ln q
/// ```
/// The importance-weighted softmax over `k + 1` candidates. It needs no `ln Z`, and for conditional models it is
/// consistent without assuming that one constant normalizes every context. With negatives from the batch as noise it
/// is [`crate::InfoNce`].
///
/// # Shapes
/// - `scores`: n data samples and k noise samples for each
/// - returns: `[1]`, in nats. A model equal to the noise scores `ln(k + 1)`.
///
/// # Cost
/// `O(n·k)` time and memory.
///
/// # Source
/// Ma and Collins, *Noise Contrastive Estimation and Negative Sampling for Conditional Models: Consistency and Statistical
/// Efficiency*, EMNLP 2018, eq. (3). <https://arxiv.org/abs/1809.01812>; Jozefowicz et al. 2016.
pub fn ranking_nce(scores: NoiseScores) -> Tensor<1> {
    let (data, noise) = scores.ratios();
    let hardest = noise.clone().detach().max_dim(1);
    let log_sum = (noise - hardest.clone()).exp().sum_dim(1).log() + hardest;
    activation::softplus(log_sum - data, 1.0).mean()
}
