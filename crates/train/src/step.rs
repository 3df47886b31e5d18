//! One training step in three phases: embed, contrast, backward.
//!
//! N pictures, two views each; C channels of S x S pixels; D dimensions of an embedding.

use burn::{
    optim::GradientsParams,
    tensor::{DType, Device, Int, Tensor, TensorData},
};
use twoview_data::{ViewBatch, ViewPixels};
use twoview_encoder::ProjectionHead;
use twoview_loss::{ContrastStats, GradientNoise, Objective, PairedViews, PairedViewsError};
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
    /// How noisy the gradient of the head's parameters is; None where parts of a batch cannot be embedded apart.
    pub gradient_noise: Option<GradientNoise>,
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

    let features = network.encoder.forward(images(batch, device)); // [2N, F]
    let z = network.head.forward(features.clone()); // [2N, D]

    let n = batch.samples.len();
    let rows = z.clone().inner();
    let views = match PairedViews::new(rows.clone().narrow(0, 0, n), rows.narrow(0, n, n)) {
        Err(PairedViewsError::NotFinite { value, .. }) => {
            return Err(StepError::NonFinite { quantity: "an embedding", value: f64::from(value), step: step + 1 });
        }
        views => views?,
    };
    // A picture that stands in for an unreadable one may be in the batch twice, and two pictures may be copies of each
    // other: what shows the same thing is no negative of itself.
    let mut views = views.with_sources(&batch.groups)?;
    if objective.is_supervised() {
        views = views.with_labels(&batch.labels)?;
    }
    let contrast = objective.contrast(views);
    finite("the loss", contrast.stats.loss)?;

    let d_z = Tensor::cat(vec![contrast.d_z1, contrast.d_z2], 0); // [2N, D]
    let grads = (z * Tensor::from_inner(d_z.clone())).sum().backward();
    let grads = GradientsParams::from_grads(grads, &network);
    let norm = finite("the norm of the gradient", gradient_norm(&network, &grads))?;
    let gradient_noise = head_noise(&network.head, &features.inner(), &d_z, gradient_norm(&network.head, &grads));

    let network = optimizer.step(lr, network, grads);
    let stepped = Stepped { contrast: contrast.stats, gradient_norm: norm, gradient_noise };
    Ok((TrainState { network, optimizer, step: step + 1 }, stepped))
}

/// Parts that a batch is cut into to see how much its gradient varies, the first that divides the batch.
const PARTS: [usize; 3] = [4, 3, 2];

/// The noise of the gradient of the head's parameters, from parts of the batch.
///
/// The head alone, because batch normalization ties the encoder's rows together; and because it is cheap, with well below a
/// hundredth of a step's work. `features` `[2N, F]` and `d_z` `[2N, D]` carry no graph.
fn head_noise(head: &ProjectionHead, features: &Tensor<2>, d_z: &Tensor<2>, norm: f64) -> Option<GradientNoise> {
    let n = features.dims()[0] / 2;
    let m = PARTS.into_iter().find(|m| n.is_multiple_of(*m) && n > *m)?;
    // A head without parameters has no gradient.
    if head.mixes_rows() || norm == 0.0 {
        return None;
    }
    let images = n / m;
    let of_parts: Vec<f64> = (0..m)
        .map(|part| {
            let rows = |all: &Tensor<2>| {
                let of_view = |view: usize| all.clone().narrow(0, view * n + part * images, images);
                Tensor::from_inner(Tensor::cat(vec![of_view(0), of_view(1)], 0))
            };
            let grads = (head.forward(rows(features)) * rows(d_z)).sum().backward();
            let norm = gradient_norm(head, &GradientsParams::from_grads(grads, head));
            // `d_z` is that of the mean over the batch: a part's own mean gradient is m times as long.
            (m as f64 * norm).powi(2)
        })
        .collect();
    GradientNoise::from_squared_norms(&of_parts, norm * norm, images).ok()
}

/// Both views of a batch, the first N rows view 0, the others view 1: `[2N, 3, S, S]`.
fn images(batch: &ViewBatch, device: &Device) -> Tensor<4> {
    let side = batch.size_px as usize;
    let shape = [2 * batch.samples.len(), 3, side, side];
    match &batch.views {
        ViewPixels::F32(values) => Tensor::from_data(TensorData::new(values.clone(), shape), device),
        ViewPixels::U8 { values, normalize } => {
            // The arithmetic of `Normalize`, so that bytes and numbers train alike.
            let per_channel = |of: [f32; 3]| Tensor::<4>::from_data(TensorData::new(of.to_vec(), [1, 3, 1, 1]), device);
            let inverse_std = normalize.std.map(|std| 1.0 / std);
            let share = from_bytes(values, shape, device).div_scalar(255.0);
            (share - per_channel(normalize.mean)) * per_channel(inverse_std)
        }
    }
}
/// Bytes as numbers from 0 to 255. They go to the device four to a word, because not every device knows bytes, and one word
/// each would take the way four times.
fn from_bytes(values: &[u8], shape: [usize; 4], device: &Device) -> Tensor<4> {
    let (whole, rest) = values.as_chunks();
    let mut words: Vec<i32> = whole.iter().map(|&four| i32::from_le_bytes(four)).collect();
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        words.push(i32::from_le_bytes(last));
    }
    let n_words = words.len();
    let words = Tensor::<1, Int>::from_data(TensorData::new(words, [n_words]), (device, DType::I32));
    let bytes = [0, 8, 16, 24].map(|bits| words.clone().bitwise_right_shift_scalar(bits).bitwise_and_scalar(0xFF));
    let bytes: Tensor<2, Int> = Tensor::stack(bytes.to_vec(), 1);
    bytes.reshape([4 * n_words]).slice(0..values.len()).reshape(shape).float()
}
