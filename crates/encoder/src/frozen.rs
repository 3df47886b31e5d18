//! An encoder that cannot learn.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::named_tensors::{NamedTensors, named_tensors};
use crate::resnet::{EncoderConfig, FoldedResNet, ResNet};

/// A copy of a [`ResNet`] that only evaluates: what probes and exports are handed.
///
/// It is a type and not a mode. The network sits on the plain device, where no gradient exists and normalization
/// can only use running statistics; nothing here gives access to it. Its running statistics are its own, so
/// training the original further changes nothing here.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use twoview_encoder::{Arch, EncoderConfig, FrozenEncoder, Stem};
///
/// let device = Device::flex().autodiff();
/// let config = EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 2 };
/// let encoder = config.init(0, &device)?;
/// let frozen = FrozenEncoder::new(&encoder);
/// let images = Tensor::<4>::ones([2, 3, 8, 8], &frozen.device());
///
/// let before = frozen.forward(images.clone());
/// encoder.forward(Tensor::ones([2, 3, 8, 8], &device)); // Moves the running statistics of `encoder`.
/// assert_eq!(before.into_data(), frozen.forward(images).into_data());
/// # Ok::<(), twoview_encoder::EncoderError>(())
/// ```
#[derive(Debug)]
pub struct FrozenEncoder {
    network: ResNet,
    folded: FoldedResNet,
}

impl FrozenEncoder {
    /// Copies the present weights and running statistics.
    ///
    /// Its convolutions are copies with the normalizations folded in; only the named tensors share memory with `encoder`.
    pub fn new(encoder: &ResNet) -> Self {
        let network = encoder.valid();
        let folded = network.folded();
        Self { network, folded }
    }

    /// The globally average-pooled features, normalized by the running statistics.
    ///
    /// # Shapes
    /// - `images`: `[N, 3, H, W]`; a graph they carry is left behind
    /// - returns: `[N, F]`, without a graph
    ///
    /// # Panics
    /// When `images` does not have three channels, which is a mistake in the calling code.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.folded.forward(images.without_autodiff())
    }

    /// The number of features `F`.
    pub fn feature_dim(&self) -> usize {
        self.network.feature_dim()
    }

    /// What the encoder was built from.
    pub fn config(&self) -> &EncoderConfig {
        self.network.config()
    }

    /// The plain device of the weights, where pictures are expected.
    pub fn device(&self) -> Device {
        self.network.device()
    }

    /// Weights and running statistics by torchvision's names; see [`named_tensors`].
    pub fn named_tensors(&self) -> NamedTensors {
        named_tensors(&self.network)
    }
}
