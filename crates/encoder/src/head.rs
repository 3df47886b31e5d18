//! The projection head that contrastive training puts behind the encoder.

use burn::module::Module;
use burn::tensor::{Device, Tensor, activation};
use serde::{Deserialize, Serialize};

use crate::batch_norm::BatchNorm;
use crate::initial_values::InitialValues;
use crate::linear::Linear;

/// Which projection head to build.
///
/// # Example
/// ```
/// use twoview_encoder::{HeadConfig, named_tensors};
///
/// let config = HeadConfig { n_layers: 2, hidden_dim: 16, output_dim: 4, batch_norm: false };
/// let head = config.init(8, 0, &burn::tensor::Device::flex())?;
/// let names: Vec<String> = named_tensors(&head).into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"]);
/// # Ok::<(), twoview_encoder::HeadError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {
    /// Linear layers; 0 leaves the features as they are, and then the other fields do not matter.
    pub n_layers: usize,
    /// Outputs of every linear layer but the last; does not matter for a single layer.
    pub hidden_dim: usize,
    /// Dimensions `D` of the embedding.
    pub output_dim: usize,
    /// Whether each hidden layer is normalized over the batch before its ReLU.
    pub batch_norm: bool,
}

/// Why a projection head cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// A dimension is zero or absurdly large.
    #[error("{field} of the projection head must be between 1 and {max}, got {got}", max = HeadConfig::MAX_DIM)]
    Dimension {
        /// `feature_dim`, `hidden_dim` or `output_dim`.
        field: &'static str,
        /// The value given.
        got: usize,
    },
    /// More layers than any published head by far.
    #[error("n_layers of the projection head must be at most {max}, got {got}", max = HeadConfig::MAX_LAYERS)]
    Layers {
        /// The number asked for.
        got: usize,
    },
}

impl HeadConfig {
    /// The largest accepted dimension, that of the features of the widest encoder.
    pub const MAX_DIM: usize = 1 << 15;
    /// The largest accepted number of layers.
    pub const MAX_LAYERS: usize = 16;

    /// Builds the head for features of `feature_dim` dimensions, with initial weights that depend on `seed` and
    /// the tensors' names alone: weight and bias uniform in `±1/√in`, PyTorch's default.
    ///
    /// # Errors
    /// [`HeadError`] when a dimension that is used is 0 or above [`MAX_DIM`](Self::MAX_DIM), or when there are
    /// more than [`MAX_LAYERS`](Self::MAX_LAYERS) layers.
    pub fn init(&self, feature_dim: usize, seed: u64, device: &Device) -> Result<ProjectionHead, HeadError> {
        self.check(feature_dim)?;
        let initial = InitialValues::new(seed, device);
        let mut layers = Vec::new();
        let mut in_features = feature_dim;
        for index in 1..=self.n_layers {
            let is_last = index == self.n_layers;
            let out_features = if is_last { self.output_dim } else { self.hidden_dim };
            // The bias of a normalized layer would be subtracted again.
            let has_bias = is_last || !self.batch_norm;
            let name = format!("head.layers.{}", layers.len());
            let linear = Linear::new([in_features, out_features], has_bias, &name, &initial);
            layers.push(HeadLayer::Linear(linear));
            if !is_last {
                if self.batch_norm {
                    layers.push(HeadLayer::BatchNorm(BatchNorm::new(out_features, &initial)));
                }
                layers.push(HeadLayer::Relu(Relu {}));
            }
            in_features = out_features;
        }
        Ok(ProjectionHead { layers, output_dim: in_features })
    }

    fn check(&self, feature_dim: usize) -> Result<(), HeadError> {
        if self.n_layers > Self::MAX_LAYERS {
            return Err(HeadError::Layers { got: self.n_layers });
        }
        // A dimension is checked if a head with at least this many layers uses it.
        let dimensions =
            [(0, "feature_dim", feature_dim), (1, "output_dim", self.output_dim), (2, "hidden_dim", self.hidden_dim)];
        for (first_used, field, got) in dimensions {
            if self.n_layers >= first_used && !(1..=Self::MAX_DIM).contains(&got) {
                return Err(HeadError::Dimension { field, got });
            }
        }
        Ok(())
    }
}

/// A small multi-layer perceptron from features to embeddings; built by [`HeadConfig::init`].
///
/// Each hidden layer is linear, batch normalization if asked for, ReLU; the last layer is linear alone. Hidden
/// layers have a bias unless they are normalized, the last one always has.
///
/// Tensors are named by position as in `nn.Sequential`, ReLU counting: `layers.0.weight`, then `layers.2.weight`
/// or, with normalization, `layers.1.running_mean` and `layers.3.weight`. A file that holds encoder and head puts
/// `head.` before them. Without normalization these are the names of lightly's `SimCLRProjectionHead`.
///
/// # Source
/// Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations*, ICML 2020, section 4.2.
/// <https://arxiv.org/abs/2002.05709>
#[derive(Module, Debug)]
pub struct ProjectionHead {
    layers: Vec<HeadLayer>,
    output_dim: usize,
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "a head has a handful of layers, and Burn has no module in a box")]
enum HeadLayer {
    Linear(Linear),
    BatchNorm(BatchNorm),
    Relu(Relu),
}

/// Holds the place of a ReLU, so that positions are those of `nn.Sequential`.
#[derive(Module, Debug)]
struct Relu {}

impl ProjectionHead {
    /// The raw embeddings; losses normalize them themselves.
    ///
    /// On an autodiff device the head trains as [`ResNet::forward`](crate::ResNet::forward) describes.
    ///
    /// # Shapes
    /// - `features`: `[N, F]`
    /// - returns: `[N, D]`
    ///
    /// # Cost
    /// `F · hidden + (n_layers − 2) · hidden² + hidden · D` multiply-adds per row for two layers or more.
    ///
    /// # Panics
    /// When the rows do not have the `feature_dim` given at [`HeadConfig::init`].
    pub fn forward(&self, features: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(features, |x, layer| match layer {
            HeadLayer::Linear(linear) => linear.forward(x),
            HeadLayer::BatchNorm(norm) => norm.forward_rows(x),
            HeadLayer::Relu(_) => activation::relu(x),
        })
    }

    /// Whether an embedding depends on the other rows of its batch, as it does through batch normalization.
    pub fn mixes_rows(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer, HeadLayer::BatchNorm(_)))
    }

    /// The dimensions `D` of an embedding; of an identity head those of the features.
    pub fn output_dim(&self) -> usize {
        self.output_dim
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{load_named, named_tensors};
    use burn::tensor::TensorData;

    const CONFIG: HeadConfig = HeadConfig { n_layers: 3, hidden_dim: 4, output_dim: 2, batch_norm: true };

    fn names(config: HeadConfig) -> Vec<String> {
        let head = config.init(8, 0, &Device::flex()).expect("valid");
        named_tensors(&head).into_iter().map(|(name, data)| format!("{name} {:?}", data.shape().as_slice())).collect()
    }

    #[test]
    fn names_and_shapes_are_those_of_a_sequential() {
        let normalized: Vec<String> = [
            "0.weight [4, 8]",
            "1.weight [4]",
            "1.bias [4]",
            "1.running_mean [4]",
            "1.running_var [4]",
            "3.weight [4, 4]",
            "4.weight [4]",
            "4.bias [4]",
            "4.running_mean [4]",
            "4.running_var [4]",
            "6.weight [2, 4]",
            "6.bias [2]",
        ]
        .map(|name| format!("layers.{name}"))
        .into();
        assert_eq!(names(CONFIG), normalized);
        let single = HeadConfig { n_layers: 1, hidden_dim: 0, ..CONFIG };
        assert_eq!(names(single), ["layers.0.weight [2, 8]", "layers.0.bias [2]"]);
    }

    #[test]
    fn without_layers_it_is_the_identity() {
        let device = Device::flex();
        let head = HeadConfig { n_layers: 0, hidden_dim: 0, output_dim: 0, batch_norm: true }
            .init(3, 0, &device)
            .expect("valid");
        let x = Tensor::<2>::from_floats([[1.0, -2.0, 3.0]], &device);
        assert_eq!(head.forward(x.clone()).into_data(), x.into_data());
        assert_eq!(head.output_dim(), 3);
    }

    #[test]
    fn two_layers_compute_their_formula() {
        let device = Device::flex();
        let config = HeadConfig { n_layers: 2, hidden_dim: 2, output_dim: 1, batch_norm: false };
        let head = config.init(2, 0, &device).expect("valid");
        let values: [(&str, TensorData); 4] = [
            ("layers.0.weight", TensorData::from([[1.0_f32, 2.0], [3.0, -4.0]])),
            ("layers.0.bias", TensorData::from([0.5_f32, 0.25])),
            ("layers.2.weight", TensorData::from([[2.0_f32, 8.0]])),
            ("layers.2.bias", TensorData::from([-1.0_f32])),
        ];
        let head = load_named(head, values.map(|(name, data)| (name.to_owned(), data))).expect("fits");
        // Hidden: relu(1 + 2 + 0.5), relu(3 − 4 + 0.25); the last layer has no ReLU.
        let z = head.forward(Tensor::from_floats([[1.0, 1.0], [-1.0, -1.0]], &device));
        assert_eq!(z.into_data(), TensorData::from([[6.0_f32], [9.0]]));
    }

    #[test]
    fn dimensions_that_are_used_are_checked() {
        let device = Device::flex();
        let error = |config: HeadConfig, feature_dim| config.init(feature_dim, 0, &device).err();
        let zero = |field| Some(HeadError::Dimension { field, got: 0 });
        assert_eq!(error(CONFIG, 0), zero("feature_dim"));
        assert_eq!(error(HeadConfig { hidden_dim: 0, ..CONFIG }, 8), zero("hidden_dim"));
        assert_eq!(error(HeadConfig { output_dim: 0, ..CONFIG }, 8), zero("output_dim"));
        assert_eq!(error(HeadConfig { n_layers: 99, ..CONFIG }, 8), Some(HeadError::Layers { got: 99 }));
    }
}
