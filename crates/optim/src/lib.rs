//! Optimizers for whole modules, learning rates as functions of the step, and spans of training.
//!
//! Three things a training loop asks for, each built from a checked configuration:
//!
//! - [`OptimizerConfig`] → [`Optimizer`]: SGD, AdamW or [`Lars`], which moves a Burn module against its gradient and
//!   whose memory can be written under the names of the module's parameters and read back bit for bit;
//! - [`ScheduleConfig`] → [`Schedule`]: the learning rate, a pure function of the step, so that there is nothing to
//!   save and nothing to get wrong when a run is resumed;
//! - [`Span`]: a stretch of training in steps, epochs or examples.
//!
//! [`gradient_norm`] reads one number per step that is not finite exactly if the gradient must not be used.
//!
//! ```
//! use burn::{nn::LinearConfig, optim::GradientsParams, tensor::{Device, Tensor}};
//! use twoview_optim::{OptimizerConfig, ScheduleConfig, Span, WarmupCosineVariant, gradient_norm};
//!
//! let config = OptimizerConfig::Sgd { lr_per_256: 0.06, momentum: 0.9, nesterov: false, weight_decay: 5e-4 };
//! let (total_steps, steps_per_epoch, batch_size) = (100, 10, 512);
//! let schedule = ScheduleConfig::WarmupCosine {
//!     warmup: Span::Epochs(1.0),
//!     variant: WarmupCosineVariant::Google,
//!     final_lr: 0.0,
//! }
//! .init(config.peak_lr(batch_size), total_steps, steps_per_epoch, batch_size)?;
//! let mut optimizer = config.init()?;
//!
//! let device = Device::flex().autodiff();
//! let mut layer = LinearConfig::new(3, 2).init(&device);
//! for step in 0..schedule.total_steps() {
//!     let loss = layer.forward(Tensor::<2>::ones([4, 3], &device)).square().mean();
//!     let grads = GradientsParams::from_grads(loss.backward(), &layer);
//!     assert!(gradient_norm(&layer, &grads).is_finite());
//!     layer = optimizer.step(schedule.lr(step), layer, grads);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod gradient_norm;
mod lars;
mod optimizer;
mod optimizer_config;
mod parameter_path;
mod schedule;
mod sgd;
mod span;
mod sparing;

pub use gradient_norm::gradient_norm;
pub use lars::{Lars, LarsState, LarsVariant};
pub use optimizer::{Optimizer, OptimizerStateError};
pub use optimizer_config::{OptimizerConfig, OptimizerError};
pub use schedule::{Schedule, ScheduleConfig, ScheduleError, WarmupCosineVariant};
pub use span::{Span, SpanError};
