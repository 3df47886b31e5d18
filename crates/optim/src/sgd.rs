//! Stochastic gradient descent with momentum, one pass over each parameter.

use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{Device, Tensor};
use twoview_kernels::SgdRule;

/// The name of the velocity among a parameter's saved tensors: that of Burn's own SGD.
const VELOCITY: &str = "momentum.velocity";

/// Stochastic gradient descent: `d = g + λw`, `v ← m v + d`, `w ← w − lr (nesterov ? d + m v : v)`.
///
/// The first `v` is `d`, and nothing dampens it, as in PyTorch. Without momentum nothing is remembered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sgd {
    pub(crate) momentum: f32,
    pub(crate) nesterov: bool,
    pub(crate) weight_decay: f32,
}

/// The memory of [`Sgd`] for one parameter.
#[derive(Clone, Debug)]
pub(crate) struct SgdState<const D: usize> {
    velocity: Option<Tensor<D>>,
}

impl<const D: usize> RecordState for SgdState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        if let Some(velocity) = &self.velocity {
            out.push_tensor(prefix, VELOCITY, velocity.to_data());
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let velocity = src.take_tensor(prefix, VELOCITY).map(|data| Tensor::from_data(data, device));
        Some(Self { velocity })
    }
}

impl Optimizer for Sgd {
    type State<const D: usize> = SgdState<D>;

    #[allow(clippy::cast_possible_truncation, reason = "the parameters are f32")]
    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let Self { momentum, nesterov, weight_decay } = *self;
        let rule = SgdRule { lr: lr as f32, momentum, nesterov, weight_decay };
        let velocity = state.and_then(|state| state.velocity);
        let (tensor, velocity) = twoview_kernels::sgd_step(tensor, grad, velocity, rule);
        (tensor, Some(SgdState { velocity }))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        SgdState { velocity: state.velocity.map(|velocity| velocity.to_device(device)) }
    }
}
