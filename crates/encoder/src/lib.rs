//! ResNet encoders and projection heads whose tensors carry torchvision's names.
//!
//! [`EncoderConfig`] makes a [`ResNet`], which turns pictures into features `h`, and [`HeadConfig`] a
//! [`ProjectionHead`], which turns features into the embeddings `z` that a contrastive loss compares. Both are
//! Burn modules: on an autodiff device they train, and every forward then moves the running statistics of their
//! normalization layers once. Evaluation goes through [`FrozenEncoder`], a type that has no way to train.
//!
//! [`named_tensors`] and [`load_named`] take weights out and put them in under torchvision's state-dict names;
//! [`save_safetensors`] and [`load_safetensors`] carry them to and from a file that Python reads and writes too.
//! [`save_onnx`] writes the whole network for other runtimes. [`WeightsFile`] and [`find_encoder`] take a ResNet out of the
//! files of other programs, those of `torch.save` included, without running anything in them.
//!
//! Initial weights are a pure function of `(seed, tensor name)`, computed on the host, so the same seed gives
//! the same network on every backend and platform.
//!
//! Legend for shapes: `N` images, `H` rows, `W` columns, `F` features, `D` dimensions of an embedding.
//!
//! # Example
//! ```
//! use burn::tensor::{Device, Tensor};
//! use twoview_encoder::{Arch, EncoderConfig, FrozenEncoder, HeadConfig, Stem};
//!
//! let device = Device::flex().autodiff();
//! let encoder = EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 4 }.init(0, &device)?;
//! let head = HeadConfig { n_layers: 2, hidden_dim: 32, output_dim: 8, batch_norm: true }
//!     .init(encoder.feature_dim(), 0, &device)?;
//!
//! let images = Tensor::<4>::ones([2, 3, 16, 16], &device);
//! let z = head.forward(encoder.forward(images)); // Differentiable; moves the running statistics.
//! assert_eq!(z.dims(), [2, 8]);
//!
//! let frozen = FrozenEncoder::new(&encoder);
//! let h = frozen.forward(Tensor::ones([2, 3, 16, 16], &frozen.device()));
//! assert_eq!(h.dims(), [2, 32]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch_norm;
mod block;
mod conv2d;
mod find_encoder;
mod frozen;
mod head;
mod initial_values;
mod layer_plan;
mod linear;
mod named_tensors;
mod onnx_file;
mod resnet;
mod running_stat;
mod safetensors_file;
mod stored_zip;
mod torch_file;
mod torch_pickle;
mod weights_file;
mod whole_file;

pub use find_encoder::{FindEncoderError, FoundEncoder, find_encoder, with_batch_counters};
pub use frozen::FrozenEncoder;
pub use head::{HeadConfig, HeadError, ProjectionHead};
pub use named_tensors::{NamedTensors, WeightsError, load_named, n_parameters, named_tensors};
pub use onnx_file::{ONNX_OPSET, OnnxError, save_onnx};
pub use resnet::{Arch, EncoderConfig, EncoderError, ResNet, Stem};
pub use safetensors_file::{
    MAX_HEADER_BYTES, SafetensorsContent, SafetensorsError, load_safetensors, save_safetensors,
};
pub use stored_zip::ZipError;
pub use torch_file::TorchFileError;
/// Why a pickle is not read, named here because [`TorchFileError`] holds one.
pub use twoview_pickle::PickleError;
pub use weights_file::{TensorInfo, WeightsFile, WeightsFileError};
