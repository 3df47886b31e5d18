//! The noise-contrastive loss family, and the numbers that say what a loss value means.
//!
//! The main types are [`PairedViews`], two embeddings of every image of a batch, and [`Objective`], a loss over
//! them. [`NtXent`] is the objective of SimCLR. An objective serves two callers:
//!
//! - [`Objective::forward`] is an ordinary differentiable tensor, for a program with a loop of its own;
//! - [`Objective::contrast`] returns the loss, `dL/dz` of every row and [`ContrastStats`] without recording a graph,
//!   for a training step that embeds its batch in shards and sends the gradient back through each of them. The
//!   negatives are then those of the whole batch, however it was cut.
//!
//! Every objective is a function, per anchor, of its partner's logit and of log-sum-exps over its candidates. The
//! engine computes these in tiles, without ever storing a `[2N, 2N]` matrix, and carries their partial derivatives back
//! to the embeddings; an objective is its formula and its partials, and another one takes a dozen lines. A loss value
//! alone says little: [`ContrastStats`] has what it cannot say, beside [`Objective::chance`] and [`Objective::floor`].
//!
//! ```
//! use burn::tensor::Device;
//! use twoview_loss::{NtXentConfig, Objective, PairedViews, chance_line};
//!
//! let device = Device::flex();
//! let views = PairedViews::from_rows([[1.0, 0.0], [0.0, 1.0]], [[0.8, 0.6], [-0.6, 0.8]], &device)?;
//! let contrast = NtXentConfig::new(0.5).init()?.contrast(views);
//! assert!(contrast.stats.loss < chance_line(2));
//! assert_eq!(contrast.d_z1.dims(), [2, 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The classical estimators stand beside the contrastive ones, as functions of scores: [`binary_nce`] with a learned, fixed or
//! per-context partition, [`ranking_nce`], [`negative_sampling`]. The objectives [`InBatchLogistic`] and [`InfoNce`] are
//! these with the batch as noise. Any [`Noise`] that can be sampled and tells its density will do.
//!
//! This crate never sees an image or an encoder, and everything runs on the device its tensors live on.

mod binary_nce;
mod contrast;
mod debiased;
mod decoupled;
mod engine;
mod gradient_noise;
mod hard_negative;
mod in_batch_logistic;
mod info_nce;
mod learned_in_batch_logistic;
mod negative_sampling;
mod noise;
mod noise_scores;
mod nt_xent;
mod objective;
mod objective_config;
mod objective_error;
mod paired_views;
mod ranking_nce;
mod reference_lines;
mod spectrum;
mod sup_con;
mod tau_plus;

pub use binary_nce::{binary_nce, noise_weights};
pub use contrast::{Collapse, Contrast, ContrastStats};
pub use debiased::{Debiased, DebiasedConfig, clamp_limit};
pub use decoupled::{Decoupled, DecoupledConfig, DecoupledWeightedConfig};
pub use engine::{Field, LogisticSums, Partials, RowStatistics};
pub use gradient_noise::{GradientNoise, GradientNoiseError};
pub use hard_negative::{HardNegative, HardNegativeConfig};
pub use in_batch_logistic::{InBatchLogistic, InBatchLogisticConfig};
pub use info_nce::{InfoNce, InfoNceConfig};
pub use learned_in_batch_logistic::LearnedInBatchLogistic;
pub use negative_sampling::negative_sampling;
pub use noise::{Categorical, CategoricalError, Noise};
pub use noise_scores::{NoiseScores, NoiseScoresError};
pub use nt_xent::{NtXent, NtXentConfig};
pub use objective::{Objective, ShardError};
pub use objective_config::ObjectiveConfig;
pub use objective_error::ObjectiveError;
pub use paired_views::{PairedViews, PairedViewsError};
pub use ranking_nce::ranking_nce;
pub use reference_lines::{chance_line, floor, simplex_floor};
pub use spectrum::Spectrum;
pub use sup_con::{SupCon, SupConConfig};
pub use tau_plus::{ClassCount, DuplicateRate, TauPlus};
