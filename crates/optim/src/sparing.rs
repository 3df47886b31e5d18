//! One rule for weights, another for biases and norms.

use burn::optim::{LearningRate, Optimizer};
use burn::tensor::{Device, Tensor};

/// Applies `weights` to tensors of two and more dimensions and `spared` to the others.
///
/// The two are one rule with and without weight decay. Tensors of one dimension are biases and the scales and shifts
/// of norms; pulling them to zero is no simplicity prior, and no published SimCLR recipe does it on purpose. The rank
/// tells them apart without names, so it holds for every architecture.
#[derive(Clone)]
pub(crate) struct Sparing<O> {
    pub(crate) weights: O,
    pub(crate) spared: O,
}

impl<O: Optimizer> Optimizer for Sparing<O> {
    type State<const D: usize> = O::State<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let rule = if D > 1 { &self.weights } else { &self.spared };
        rule.step(lr, tensor, grad, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        O::to_device(state, device)
    }
}
