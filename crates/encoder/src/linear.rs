//! The fully connected layer, stored the way PyTorch stores it.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::initial_values::InitialValues;

/// `y = x · weightᵀ + bias` with `weight` `[out, in]`, so that the stored tensor is PyTorch's without a transpose.
///
/// One forward takes `N · in · out` multiply-adds.
#[derive(Module, Debug)]
pub(crate) struct Linear {
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// PyTorch's default start: weight and bias uniform in `±1/√in`. `name` is the full name of the module.
    pub(crate) fn new(
        [in_features, out_features]: [usize; 2],
        has_bias: bool,
        name: &str,
        initial: &InitialValues<'_>,
    ) -> Self {
        let bound = 1.0 / (in_features as f64).sqrt();
        let bias = || initial.uniform(&format!("{name}.bias"), [out_features], bound);
        Self {
            weight: initial.uniform(&format!("{name}.weight"), [out_features, in_features], bound),
            bias: has_bias.then(bias),
        }
    }

    /// `[N, in]` to `[N, out]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = x.matmul(self.weight.val().transpose());
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        }
    }
}
