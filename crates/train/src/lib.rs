//! The training step in three phases, the loop around it, checkpoints and metrics.
//!
//! A batch of two views travels through [`step`]: **embed** it, **contrast** all embeddings at once for the loss and its
//! gradient with respect to every embedding, then go **backward** through the network from that gradient alone.
//! [`run`] repeats it until the run is over, someone asks it to stop, or a number stops being finite. Everything random is a
//! pure function of `(seed, epoch, sample, view)`, so a [`Checkpoint`] needs no generator state: weights, optimizer state
//! and the step make a resumed run equal, bit for bit, to one that was never stopped.
//!
//! # Example
//!
//! ```
//! use burn::tensor::Device;
//! use twoview_encoder::{Arch, EncoderConfig, HeadConfig, Stem};
//! use twoview_train::NetworkConfig;
//!
//! let config = NetworkConfig {
//!     encoder: EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 4 },
//!     head: HeadConfig { n_layers: 2, hidden_dim: 64, output_dim: 16, batch_norm: false },
//! };
//! let network = config.init(0, &Device::flex().autodiff())?;
//! assert_eq!(network.encoder.feature_dim(), 32);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod checkpoint;
mod metrics;
mod network;
mod run;
mod run_dir;
mod step;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use metrics::{JsonLines, MetricSink, OnlineScore, StepMetrics, Watch};
pub use network::{Network, NetworkConfig, NetworkError};
pub use run::{Ended, Job, TrainError, run};
pub use run_dir::{RunDir, RunDirError};
pub use step::{StepError, Stepped, TrainState, step};
