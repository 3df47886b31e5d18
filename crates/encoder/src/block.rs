//! The residual block, plain and bottleneck.

use burn::module::Module;
use burn::tensor::Tensor;
use twoview_kernels::{ConvBias, Shortcut};

use crate::batch_norm::BatchNorm;
use crate::conv2d::Conv2d;
use crate::initial_values::InitialValues;

/// Where a block stands in the network.
pub(crate) struct BlockPlan<'a> {
    /// The full name of the block, such as `layer2.0`.
    pub(crate) name: &'a str,
    pub(crate) in_channels: usize,
    /// Channels of the 3×3 convolutions.
    pub(crate) inner_channels: usize,
    /// Stride of the first 3×3 convolution and of the shortcut.
    pub(crate) stride: usize,
    /// Three convolutions with a fourfold output instead of two.
    pub(crate) bottleneck: bool,
}

impl BlockPlan<'_> {
    pub(crate) fn out_channels(&self) -> usize {
        if self.bottleneck { 4 * self.inner_channels } else { self.inner_channels }
    }
}

/// `y = relu(branch(x) + shortcut(x))`.
///
/// The plain branch is 3×3, 3×3; the bottleneck is 1×1, 3×3, 1×1 with the stride on the 3×3, as in torchvision
/// ("ResNet v1.5"). The shortcut is a strided 1×1 convolution where the shape changes, otherwise the identity.
///
/// # Source
/// He et al., *Deep Residual Learning for Image Recognition*, 2015, figures 3 and 5. <https://arxiv.org/abs/1512.03385>
#[derive(Module, Debug)]
pub(crate) struct ResidualBlock {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    // Both of the third layer or neither: two fields because the names are torchvision's.
    conv3: Option<Conv2d>,
    bn3: Option<BatchNorm>,
    // A pair because torchvision numbers the two: `downsample.0` and `downsample.1`.
    downsample: Option<(Conv2d, BatchNorm)>,
}

impl ResidualBlock {
    pub(crate) fn new(plan: &BlockPlan<'_>, initial: &InitialValues<'_>) -> Self {
        let BlockPlan { name, in_channels, inner_channels: inner, stride, bottleneck } = *plan;
        let out_channels = plan.out_channels();
        let conv = |channels, kernel, stride, field: &str| {
            Conv2d::new(channels, kernel, stride, &format!("{name}.{field}"), initial)
        };
        let (conv1, conv2, conv3) = if bottleneck {
            (
                conv([in_channels, inner], 1, 1, "conv1"),
                conv([inner, inner], 3, stride, "conv2"),
                Some(conv([inner, out_channels], 1, 1, "conv3")),
            )
        } else {
            (conv([in_channels, inner], 3, stride, "conv1"), conv([inner, inner], 3, 1, "conv2"), None)
        };
        let changes_shape = stride != 1 || in_channels != out_channels;
        Self {
            conv1,
            bn1: BatchNorm::new(inner, initial),
            conv2,
            bn2: BatchNorm::new(inner, initial),
            bn3: conv3.is_some().then(|| BatchNorm::new(out_channels, initial)),
            conv3,
            downsample: changes_shape.then(|| {
                (conv([in_channels, out_channels], 1, stride, "downsample.0"), BatchNorm::new(out_channels, initial))
            }),
        }
    }

    /// `[N, in, H, W]` to `[N, out, ⌈H/stride⌉, ⌈W/stride⌉]`.
    ///
    /// Where it trains it keeps its intermediate values for the backward pass, or with `recompute` only its ends.
    pub(crate) fn forward(&self, x: Tensor<4>, recompute: bool) -> Tensor<4> {
        if !self.bn1.trains() {
            return self.folded().forward(x);
        }
        let branch = self.branch().map(|(conv, norm)| conv.with_norm(norm)).collect();
        let shortcut = match &self.downsample {
            Some((conv, norm)) => Shortcut::Projection(conv.with_norm(norm)),
            None => Shortcut::Identity,
        };
        let block = twoview_kernels::residual_block(x, branch, shortcut, recompute);
        let norms = self.branch().map(|(_, norm)| norm).chain(self.downsample.as_ref().map(|(_, norm)| norm));
        for (norm, (statistics, n)) in norms.zip(block.statistics.into_iter().zip(block.n_values)) {
            norm.update(statistics, n);
        }
        block.output
    }

    /// The block as it evaluates, its normalizations folded into the convolutions.
    pub(crate) fn folded(&self) -> FoldedBlock {
        FoldedBlock {
            branch: self.branch().map(|(conv, norm)| conv.folded(norm)).collect(),
            downsample: self.downsample.as_ref().map(|(conv, norm)| conv.folded(norm)),
        }
    }

    /// The layers of the branch in their order.
    fn branch(&self) -> impl Iterator<Item = (&Conv2d, &BatchNorm)> {
        let third = self.conv3.as_ref().zip(self.bn3.as_ref());
        [(&self.conv1, &self.bn1), (&self.conv2, &self.bn2)].into_iter().chain(third)
    }
}

/// A [`ResidualBlock`] that evaluates.
#[derive(Debug, Clone)]
pub(crate) struct FoldedBlock {
    branch: Vec<ConvBias>,
    downsample: Option<ConvBias>,
}

impl FoldedBlock {
    /// As [`ResidualBlock::forward`].
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let Some((last, first)) = self.branch.split_last() else { unreachable!("a branch has layers") };
        let branch = first.iter().fold(x.clone(), |x, conv| conv.forward(x, None, true));
        let shortcut = match &self.downsample {
            Some(conv) => conv.forward(x, None, false),
            None => x,
        };
        last.forward(branch, Some(shortcut), true)
    }
}
