//! One training step in three phases: embed, contrast, backward.
//!
//! N pictures, two views each; C channels of S x S pixels; D dimensions of an embedding.

use burn::{
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData},
};
use twoview_data::ViewBatch;
use twoview_loss::{ContrastStats, Objective, PairedViews, PairedViewsError};
use twoview_optim::{Optimizer, gradient_norm};

use crate::Network;

/// Everything that training changes.
#[derive(Debug)]
pub struct TrainState {
    /// Encoder and head.
    pub network: Network,
    /// The optimizer with its memory.
    pub optimizer: Optimizer,
    /// Steps done.
    pub step: u64,
}

/// What one step measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stepped {
    /// Loss and diagnostics of the batch.
    pub contrast: ContrastStats,
    /// Euclidean norm of the gradient of all parameters.
    pub gradient_norm: f64,
}

/// Why a step was not made. The state that went in is as it was, on disk and in the caller's last checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// A number stopped being finite, found before the weights were touched.
    #[error(
        "{quantity} is {value} at step {step}; the last checkpoint is good. Lower optimizer.lr_per_256, or raise \
         loss.temperature or schedule.warmup"
    )]
    NonFinite {
        /// Which number.
        quantity: &'static str,
        /// What it was.
        value: f64,
        /// The step that would have been made, counted from 1.
        step: u64,
    },
    /// The batch is too small to contrast.
    #[error(transparent)]
    Views(#[from] PairedViewsError),
}

/// Makes one step: the weights move against the gradient of the loss over the whole batch.
///
/// 1. **embed**: both views go through the network in one pass, so that batch normalization sees all `2N` of them.
/// 2. **contrast**: the objective gives the loss and `dL/dz` for every row. No graph is needed for that.
/// 3. **backward**: the gradient of `Σ z · dL/dz` with `dL/dz` held fixed is the gradient of the loss.
///
/// Loss and gradient are checked before the update, so a number that is not finite never reaches the weights.
///
/// # Errors
/// [`StepError`].
pub fn step(
    state: TrainState,
    batch: &ViewBatch,
    objective: &dyn Objective,
    lr: f64,
    device: &Device,
) -> Result<(TrainState, Stepped), StepError> {
    let TrainState { network, mut optimizer, step } = state;
    let finite = |quantity, value: f64| {
        if value.is_finite() { Ok(value) } else { Err(StepError::NonFinite { quantity, value, step: step + 1 }) }
    };

    let z = network.embed(images(batch, device)); // [2N, D]

    let n = batch.samples.len();
    let rows = z.clone().inner();
    let views = match PairedViews::new(rows.clone().narrow(0, 0, n), rows.narrow(0, n, n)) {
        Err(PairedViewsError::NotFinite { value, .. }) => {
            return Err(StepError::NonFinite { quantity: "an embedding", value: f64::from(value), step: step + 1 });
        }
        views => views?,
    };
    // A picture that stands in for an unreadable one may be in the batch twice: it is no negative of itself.
    let mut views = views.with_sources(&batch.samples)?;
    if objective.is_supervised() {
        views = views.with_labels(&batch.labels)?;
    }
    let contrast = objective.contrast(views);
    finite("the loss", contrast.stats.loss)?;

    let d_z = Tensor::cat(vec![contrast.d_z1, contrast.d_z2], 0); // [2N, D]
    let grads = (z * Tensor::from_inner(d_z)).sum().backward();
    let grads = GradientsParams::from_grads(grads, &network);
    let gradient_norm = finite("the norm of the gradient", gradient_norm(&network, &grads))?;

    let network = optimizer.step(lr, network, grads);
    let stepped = Stepped { contrast: contrast.stats, gradient_norm };
    Ok((TrainState { network, optimizer, step: step + 1 }, stepped))
}

/// Both views of a batch, the first N rows view 0, the others view 1: `[2N, 3, S, S]`.
fn images(batch: &ViewBatch, device: &Device) -> Tensor<4> {
    let side = batch.size_px as usize;
    let values: Vec<f32> = batch.views.concat();
    Tensor::from_data(TensorData::new(values, [2 * batch.samples.len(), 3, side, side]), device)
}
