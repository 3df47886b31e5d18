//! The ResNet encoder: pictures in, pooled features out.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use twoview_kernels::{ConvBias, Shortcut};

use crate::batch_norm::BatchNorm;
use crate::block::{BlockPlan, FoldedBlock, ResidualBlock};
use crate::conv2d::Conv2d;
use crate::initial_values::InitialValues;

/// The depth of the network, by torchvision's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// Plain blocks, `2 + 2 + 2 + 2` of them.
    Resnet18,
    /// Plain blocks, `3 + 4 + 6 + 3` of them.
    Resnet34,
    /// Bottleneck blocks, `3 + 4 + 6 + 3` of them, with the stride on the 3×3 convolution.
    Resnet50,
}

impl Arch {
    pub(crate) fn n_blocks(self) -> [usize; 4] {
        match self {
            Self::Resnet18 => [2, 2, 2, 2],
            Self::Resnet34 | Self::Resnet50 => [3, 4, 6, 3],
        }
    }

    pub(crate) fn has_bottlenecks(self) -> bool {
        self == Self::Resnet50
    }
}

/// What stands before the first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// 7×7 convolution with stride 2, then 3×3 max-pooling with stride 2: pictures of about 224 pixels.
    Imagenet,
    /// 3×3 convolution with stride 1 and no pooling: pictures of about 32 pixels (appendix B.9 of the SimCLR paper).
    Cifar,
}

/// Which encoder to build.
///
/// # Example
/// ```
/// use twoview_encoder::{Arch, EncoderConfig, Stem, n_parameters};
///
/// let config = EncoderConfig { arch: Arch::Resnet18, stem: Stem::Imagenet, width: 64 };
/// let encoder = config.init(0, &burn::tensor::Device::flex())?;
/// assert_eq!(encoder.feature_dim(), 512);
/// assert_eq!(n_parameters(&encoder), 11_176_512); // torchvision's resnet18 without `fc`.
/// # Ok::<(), twoview_encoder::EncoderError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Depth and kind of block.
    pub arch: Arch,
    /// Input layer.
    pub stem: Stem,
    /// Channels of the first stage, 64 in torchvision; the later stages have two, four and eight times as many.
    pub width: usize,
}

/// Why an encoder cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// The first stage has no channels or absurdly many.
    #[error(
        "encoder width must be between 1 and {max}, got {got}; torchvision's networks have 64, small ones 8 to 32",
        max = EncoderConfig::MAX_WIDTH
    )]
    Width {
        /// The width asked for.
        got: usize,
    },
}

impl EncoderConfig {
    /// The largest accepted width, 16 times torchvision's. A ResNet-18 of this width has 2.9 billion parameters, so
    /// anything above is taken for a slip.
    pub const MAX_WIDTH: usize = 1024;

    /// The number of features `F` of the encoder: `8 · width`, with bottlenecks `32 · width`.
    pub fn feature_dim(&self) -> usize {
        let last_stage = 8 * self.width;
        if self.arch.has_bottlenecks() { 4 * last_stage } else { last_stage }
    }

    /// Builds the encoder with initial weights that depend on `seed` and the tensors' names alone.
    ///
    /// Convolutions start normal with variance `2 / (out · k²)`, normalization layers at weight 1 and bias 0, as
    /// in torchvision. On an autodiff device the encoder trains; see [`ResNet::forward`].
    ///
    /// # Errors
    /// [`EncoderError::Width`] when `width` is 0 or above [`MAX_WIDTH`](Self::MAX_WIDTH).
    pub fn init(&self, seed: u64, device: &Device) -> Result<ResNet, EncoderError> {
        if !(1..=Self::MAX_WIDTH).contains(&self.width) {
            return Err(EncoderError::Width { got: self.width });
        }
        let initial = InitialValues::new(seed, device);
        let (kernel, stride) = match self.stem {
            Stem::Imagenet => (7, 2),
            Stem::Cifar => (3, 1),
        };
        let mut in_channels = self.width;
        let mut stage = |index: usize| self.stage(index, &mut in_channels, &initial);
        Ok(ResNet {
            conv1: Conv2d::new([3, self.width], kernel, stride, "conv1", &initial),
            bn1: BatchNorm::new(self.width, &initial),
            layer1: stage(0),
            layer2: stage(1),
            layer3: stage(2),
            layer4: stage(3),
            config: *self,
            recompute: false,
        })
    }

    /// Stage `index` of four; `in_channels` is advanced to its output.
    fn stage(&self, index: usize, in_channels: &mut usize, initial: &InitialValues<'_>) -> Vec<ResidualBlock> {
        (0..self.arch.n_blocks()[index])
            .map(|block| {
                let plan = BlockPlan {
                    name: &format!("layer{}.{block}", index + 1),
                    in_channels: *in_channels,
                    inner_channels: self.width << index,
                    stride: if index > 0 && block == 0 { 2 } else { 1 },
                    bottleneck: self.arch.has_bottlenecks(),
                };
                *in_channels = plan.out_channels();
                ResidualBlock::new(&plan, initial)
            })
            .collect()
    }
}

/// A residual network without classifier; built by [`EncoderConfig::init`].
///
/// Its tensors have torchvision's state-dict names (`conv1.weight`, `layer2.0.downsample.1.running_var`), both
/// for Burn's visitors and for [`named_tensors`](crate::named_tensors).
///
/// # Cost
/// Multiply-adds of one forward of one picture at width 64, and trainable parameters. The cost goes with the
/// square of the width but for the first layer, and with the number of pixels; forward and backward together
/// take three times as much.
///
/// | | ImageNet stem, 224×224 | CIFAR stem, 32×32 | parameters (ImageNet, CIFAR stem) |
/// |---|---|---|---|
/// | ResNet-18 | 1.814 G | 0.555 G | 11,176,512 · 11,168,832 |
/// | ResNet-34 | 3.663 G | 1.159 G | 21,284,672 · 21,276,992 |
/// | ResNet-50 | 4.087 G | 1.298 G | 23,508,032 · 23,500,352 |
///
/// # Source
/// He et al., *Deep Residual Learning for Image Recognition*, 2015. <https://arxiv.org/abs/1512.03385>;
/// `torchvision/models/resnet.py`.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    layer1: Vec<ResidualBlock>,
    layer2: Vec<ResidualBlock>,
    layer3: Vec<ResidualBlock>,
    layer4: Vec<ResidualBlock>,
    #[module(skip)]
    config: EncoderConfig,
    #[module(skip)]
    recompute: bool,
}

impl ResNet {
    /// The globally average-pooled features of the last stage.
    ///
    /// On an autodiff device the encoder trains: normalization uses the statistics of the batch and moves the
    /// running statistics, once per forward and visible at once. Make the forwards of one encoder one after the
    /// other; from several threads their order, and so the running statistics, would be a matter of chance. After
    /// `Module::valid` or `Module::freeze`, and on a plain device, the running statistics are used and stay.
    /// For evaluation prefer [`FrozenEncoder`](crate::FrozenEncoder), which can do nothing else.
    ///
    /// # Shapes
    /// - `images`: `[N, 3, H, W]` with any `H, W ≥ 1`, on the encoder's [`device`](Self::device)
    /// - returns: `[N, F]`, `F` being [`feature_dim`](Self::feature_dim)
    ///
    /// # Panics
    /// When `images` does not have three channels, which is a mistake in the calling code.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        if !self.bn1.trains() {
            return self.folded().forward(images);
        }
        let stem = self.conv1.with_norm(&self.bn1);
        let mut stem = twoview_kernels::residual_block(images, vec![stem], Shortcut::None, self.recompute);
        self.bn1.update(stem.statistics.remove(0), stem.n_values[0]);
        let x = self.config.stem.pool(stem.output);
        twoview_kernels::global_average_pool(self.blocks().fold(x, |x, block| block.forward(x, self.recompute)))
    }

    /// The same network, which from now on computes intermediate values of its blocks again in the backward pass
    /// instead of keeping them: the same bits from less memory, for a third more convolutions.
    ///
    /// Where the kernels have no fast path it changes nothing.
    #[must_use]
    pub fn with_recompute(mut self, recompute: bool) -> Self {
        self.recompute = recompute;
        self
    }

    /// The network as it evaluates, its normalizations folded into the convolutions.
    pub(crate) fn folded(&self) -> FoldedResNet {
        FoldedResNet {
            stem: self.conv1.folded(&self.bn1),
            kind: self.config.stem,
            blocks: self.blocks().map(ResidualBlock::folded).collect(),
        }
    }

    fn blocks(&self) -> impl Iterator<Item = &ResidualBlock> {
        [&self.layer1, &self.layer2, &self.layer3, &self.layer4].into_iter().flatten()
    }

    /// The number of features `F`.
    pub fn feature_dim(&self) -> usize {
        self.config.feature_dim()
    }

    /// What the encoder was built from.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The device of the weights, where pictures are expected.
    pub fn device(&self) -> Device {
        self.conv1.device()
    }
}

/// A [`ResNet`] that evaluates.
#[derive(Debug, Clone)]
pub(crate) struct FoldedResNet {
    stem: ConvBias,
    kind: Stem,
    blocks: Vec<FoldedBlock>,
}

impl FoldedResNet {
    /// As [`ResNet::forward`].
    pub(crate) fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.kind.pool(self.stem.forward(images, None, true));
        twoview_kernels::global_average_pool(self.blocks.iter().fold(x, |x, block| block.forward(x)))
    }
}

impl Stem {
    /// What follows the first convolution.
    fn pool(self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Imagenet => twoview_kernels::max_pool2d(x, 3, 2, 1),
            Self::Cifar => x,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: EncoderConfig = EncoderConfig { arch: Arch::Resnet18, stem: Stem::Imagenet, width: 2 };

    #[test]
    fn absurd_widths_are_errors() {
        for got in [0, EncoderConfig::MAX_WIDTH + 1, usize::MAX] {
            let error = EncoderConfig { width: got, ..SMALL }.init(0, &Device::flex()).err();
            assert_eq!(error, Some(EncoderError::Width { got }));
        }
    }

    #[test]
    fn the_smallest_picture_and_the_smallest_width_pass() {
        let device = Device::flex();
        for arch in [Arch::Resnet18, Arch::Resnet34, Arch::Resnet50] {
            for stem in [Stem::Imagenet, Stem::Cifar] {
                let encoder = EncoderConfig { arch, stem, width: 1 }.init(0, &device).expect("valid");
                let features = encoder.forward(Tensor::ones([1, 3, 1, 1], &device));
                assert_eq!(features.dims(), [1, encoder.feature_dim()]);
            }
        }
    }

    #[test]
    fn unknown_keys_of_a_config_are_errors() {
        let json = r#"{"arch": "resnet50", "stem": "cifar", "width": 8}"#;
        let config: EncoderConfig = serde_json::from_str(json).expect("valid");
        assert_eq!(config, EncoderConfig { arch: Arch::Resnet50, stem: Stem::Cifar, width: 8 });
        assert!(serde_json::from_str::<EncoderConfig>(&json.replace("width", "wide")).is_err());
        assert!(serde_json::from_str::<EncoderConfig>(&json.replace("resnet50", "resnet51")).is_err());
    }
}
