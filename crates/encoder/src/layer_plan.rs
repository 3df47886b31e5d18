//! The layers of a ResNet by name and shape, without any weight.

use crate::resnet::{EncoderConfig, Stem};

/// A convolution without bias and the normalization behind it.
#[derive(Debug, Clone)]
pub(crate) struct LayerPlan {
    /// Name of the convolution, such as `layer2.0.downsample.0`.
    pub(crate) conv: String,
    /// Name of the normalization.
    pub(crate) norm: String,
    /// `[out, in, k, k]`
    pub(crate) shape: [usize; 4],
    pub(crate) stride: usize,
}

/// The layers of a residual block.
#[derive(Debug, Clone)]
pub(crate) struct BlockLayers {
    /// Such as `layer2.0`.
    pub(crate) name: String,
    pub(crate) branch: Vec<LayerPlan>,
    pub(crate) downsample: Option<LayerPlan>,
}

impl LayerPlan {
    /// Name and shape of every tensor of the two.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        let norms = ["weight", "bias", "running_mean", "running_var"];
        let norms = norms.into_iter().map(|part| (format!("{}.{part}", self.norm), vec![self.shape[0]]));
        std::iter::once((format!("{}.weight", self.conv), self.shape.to_vec())).chain(norms)
    }
}

impl EncoderConfig {
    /// The first layer.
    pub(crate) fn stem_layer(&self) -> LayerPlan {
        let (kernel, stride) = match self.stem {
            Stem::Imagenet => (7, 2),
            Stem::Cifar => (3, 1),
        };
        let shape = [self.width, 3, kernel, kernel];
        LayerPlan { conv: "conv1".to_owned(), norm: "bn1".to_owned(), shape, stride }
    }

    /// The blocks in their order.
    pub(crate) fn block_layers(&self) -> Vec<BlockLayers> {
        let mut channels = self.width;
        let mut blocks = Vec::new();
        for (stage, n_blocks) in self.arch.n_blocks().into_iter().enumerate() {
            for block in 0..n_blocks {
                let name = format!("layer{}.{block}", stage + 1);
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let inner = self.width << stage;
                let out = if self.arch.has_bottlenecks() { 4 * inner } else { inner };
                let layer = |number: usize, shape, stride| LayerPlan {
                    conv: format!("{name}.conv{number}"),
                    norm: format!("{name}.bn{number}"),
                    shape,
                    stride,
                };
                let branch = if self.arch.has_bottlenecks() {
                    vec![
                        layer(1, [inner, channels, 1, 1], 1),
                        layer(2, [inner, inner, 3, 3], stride),
                        layer(3, [out, inner, 1, 1], 1),
                    ]
                } else {
                    vec![layer(1, [inner, channels, 3, 3], stride), layer(2, [inner, inner, 3, 3], 1)]
                };
                let downsample = (stride != 1 || channels != out).then(|| LayerPlan {
                    conv: format!("{name}.downsample.0"),
                    norm: format!("{name}.downsample.1"),
                    shape: [out, channels, 1, 1],
                    stride,
                });
                channels = out;
                blocks.push(BlockLayers { name, branch, downsample });
            }
        }
        blocks
    }

    /// Name and shape of every tensor of the encoder.
    pub(crate) fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let blocks = self.block_layers().into_iter().flat_map(|block| block.branch.into_iter().chain(block.downsample));
        std::iter::once(self.stem_layer()).chain(blocks).flat_map(|layer| layer.tensors().collect::<Vec<_>>()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use burn::tensor::Device;

    use super::*;
    use crate::{Arch, named_tensors};

    #[test]
    fn the_plan_is_that_of_the_network() {
        for arch in [Arch::Resnet18, Arch::Resnet34, Arch::Resnet50] {
            for stem in [Stem::Imagenet, Stem::Cifar] {
                let config = EncoderConfig { arch, stem, width: 2 };
                let built = named_tensors(&config.init(0, &Device::flex()).expect("valid"));
                let built: BTreeMap<String, Vec<usize>> =
                    built.into_iter().map(|(name, data)| (name, data.shape().as_slice().to_vec())).collect();
                assert_eq!(config.tensor_shapes().into_iter().collect::<BTreeMap<_, _>>(), built, "{config:?}");
            }
        }
    }
}
