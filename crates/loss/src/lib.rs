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
//! Every objective is a function, per anchor, of its positive logit and of the log-sum-exp over its negatives. The
//! engine in `row_statistics` computes both and carries their partial derivatives back to the embeddings; an
//! objective is its formula and two partials. A loss value alone says little: read it against [`chance_line`] and
//! [`floor`].
//!
//! ```
//! use burn::tensor::Device;
//! use twoview_loss::{NtXentConfig, Objective, PairedViews, chance_line};
//!
//! let device = Device::flex();
//! let views = PairedViews::from_rows([[1.0, 0.0], [0.0, 1.0]], [[0.8, 0.6], [-0.6, 0.8]], &device)?;
//! let contrast = NtXentConfig { temperature: 0.5 }.init()?.contrast(views);
//! assert!(contrast.stats.loss < chance_line(2));
//! assert_eq!(contrast.d_z1.dims(), [2, 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! This crate never sees an image or an encoder, and everything runs on the device its tensors live on.

mod contrast;
mod nt_xent;
mod objective;
mod paired_views;
mod reference_lines;
mod row_statistics;

pub use contrast::{Contrast, ContrastStats};
pub use nt_xent::{NtXent, NtXentConfig, NtXentError};
pub use objective::{Objective, ObjectiveConfig, ObjectiveError};
pub use paired_views::{PairedViews, PairedViewsError};
pub use reference_lines::{chance_line, floor};
