//! The convolution of a ResNet: square kernel, no bias.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use twoview_kernels::{ConvBias, ConvNorm};

use crate::batch_norm::BatchNorm;
use crate::initial_values::InitialValues;

/// A convolution without bias, dilation or groups.
///
/// The weight is `[out, in, k, k]` as in torchvision. One forward takes
/// `N · out · out_height · out_width · in · k²` multiply-adds.
#[derive(Module, Debug)]
pub(crate) struct Conv2d {
    weight: Param<Tensor<4>>,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// A convolution padded with `k / 2` zeros on each side, so that stride 1 keeps the size of the picture.
    /// `name` is the full name of the module.
    pub(crate) fn new(
        [in_channels, out_channels]: [usize; 2],
        kernel: usize,
        stride: usize,
        name: &str,
        initial: &InitialValues<'_>,
    ) -> Self {
        let shape = [out_channels, in_channels, kernel, kernel];
        Self { weight: initial.conv_weight(&format!("{name}.weight"), shape), stride, padding: kernel / 2 }
    }

    /// The convolution with the normalization behind it, as the kernels take the pair for training.
    pub(crate) fn with_norm(&self, norm: &BatchNorm) -> ConvNorm {
        norm.behind(self.weight.val(), self.stride, self.padding)
    }

    /// The convolution with the normalization by running statistics folded into its weight and a bias.
    pub(crate) fn folded(&self, norm: &BatchNorm) -> ConvBias {
        let weight = self.weight.val();
        let (scale, bias) = norm.running_affine();
        let weight = weight * scale.reshape([-1, 1, 1, 1]);
        ConvBias { weight, bias, stride: [self.stride; 2], padding: [self.padding; 2] }
    }

    pub(crate) fn device(&self) -> Device {
        self.weight.device()
    }
}
