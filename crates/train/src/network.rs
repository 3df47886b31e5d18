//! The network that is trained: an encoder and the head that contrast works on.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};
use twoview_encoder::{EncoderConfig, EncoderError, HeadConfig, HeadError, ProjectionHead, ResNet};

/// Encoder and projection head. Only the encoder outlives training.
#[derive(Debug, Module)]
pub struct Network {
    /// Pictures to features `h`.
    pub encoder: ResNet,
    /// Features to embeddings `z`.
    pub head: ProjectionHead,
}

/// Shape of a [`Network`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Shape of the encoder.
    pub encoder: EncoderConfig,
    /// Shape of the head.
    pub head: HeadConfig,
}

/// Why a network cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The encoder's configuration.
    #[error("encoder")]
    Encoder(#[from] EncoderError),
    /// The head's configuration.
    #[error("head")]
    Head(#[from] HeadError),
}

impl NetworkConfig {
    /// A network with fresh weights, the same for the same seed on every device.
    ///
    /// # Errors
    /// [`NetworkError`] where a size makes no network.
    pub fn init(&self, seed: u64, device: &Device) -> Result<Network, NetworkError> {
        let encoder = self.encoder.init(seed, device)?;
        let head = self.head.init(encoder.feature_dim(), seed, device)?;
        Ok(Network { encoder, head })
    }
}

impl Network {
    /// Embeds pictures.
    ///
    /// # Shapes
    /// - `images`: `[N, 3, H, W]`
    /// - returns: `[N, D]`, not normalized
    #[must_use]
    pub fn embed(&self, images: Tensor<4>) -> Tensor<2> {
        self.head.forward(self.encoder.forward(images))
    }
}
