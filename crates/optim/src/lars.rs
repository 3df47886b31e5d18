//! LARS: momentum SGD whose step per tensor is scaled by the ratio of weight norm to gradient norm.

use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// Added to the denominator of [`LarsVariant::Lightly`], as in that library.
const LIGHTLY_EPS: f64 = 1e-8;

/// Layer-wise adaptive rate scaling, for batches so large that one learning rate does not suit every layer.
///
/// For a weight `w` with gradient `g`, decay `λ`, trust coefficient `η` and momentum `m`:
///
/// ```text
/// paper     d = g + λw    t = η‖w‖ / (‖g‖ + λ‖w‖)        v ← m v + lr t d      w ← w − v
/// google    d = g + λw    t = η‖w‖ / ‖g + λw‖            v ← m v + lr t d      w ← w − v
/// lightly   d = g + λw    t = η‖w‖ / (‖g‖ + λ‖w‖ + 1e-8)  v ← m v + t d         w ← w − lr v
/// ```
///
/// # Conventions
/// - Tensors of one dimension (biases, norms) get neither decay nor adaptation: `d = g`, `t = 1`.
/// - `t = 1` where `‖w‖` or the denominator is zero. `lightly` also drops the decay where `‖w‖` or `‖g‖` is zero.
/// - Nesterov steps by `lr t d + m v` (`lightly`: `lr (t d + m v)`) instead.
/// - With the learning rate inside `v`, as in `paper` and `google`, a falling rate does not reach the steps already
///   in the buffer; with it outside, it scales them too. At a constant rate the two agree.
/// - No dampening: the first `v` is the first step.
///
/// Norms stay on the device, so a step waits for nothing.
///
/// # Source
/// You, Gitman and Ginsburg, *Large Batch Training of Convolutional Networks*, 2017, algorithm 1
/// (<https://arxiv.org/abs/1708.03888>); google-research/simclr `lars_optimizer.py`; lightly `utils/lars.py`.
///
/// # Example
/// It is an ordinary Burn optimizer and serves in Burn's `ModuleOptimizer` as well:
/// ```
/// use burn::optim::ModuleOptimizer;
/// use twoview_optim::{Lars, LarsVariant};
///
/// let lars = Lars { momentum: 0.9, nesterov: false, weight_decay: 1e-6, trust: 1e-3, variant: LarsVariant::Google };
/// let optimizer = ModuleOptimizer::from(lars);
/// # let _ = optimizer;
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Lars {
    /// `m`, in `[0, 1)`.
    pub momentum: f64,
    /// Whether to look ahead along the momentum.
    pub nesterov: bool,
    /// `λ`, at least 0; spares tensors of one dimension.
    pub weight_decay: f64,
    /// `η`, above 0: 0.001 in the paper and in SimCLR.
    pub trust: f64,
    /// Which of the published definitions.
    pub variant: LarsVariant,
}

/// The published definitions of [`Lars`], which differ in the trust ratio and in the place of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LarsVariant {
    /// Of the lightly library and others descended from PyTorch Lightning Bolts: learning rate outside the momentum.
    Lightly,
    /// Algorithm 1 of You et al.
    Paper,
    /// google-research/simclr: like `paper`, with the norm of the sum in the denominator.
    Google,
}

/// The memory of [`Lars`] for one parameter.
#[derive(Clone, Debug)]
pub struct LarsState<const D: usize> {
    velocity: Tensor<D>,
}

impl<const D: usize> RecordState for LarsState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_tensor(prefix, "velocity", self.velocity.to_data());
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let velocity = Tensor::from_data(src.take_tensor(prefix, "velocity")?, device);
        Some(Self { velocity })
    }
}

impl Lars {
    /// `t d` for a weight.
    fn adapted<const D: usize>(&self, weight: Tensor<D>, grad: Tensor<D>) -> Tensor<D> {
        let weight_norm = norm(weight.clone());
        let grad_norm = norm(grad.clone());
        let no_weight = weight_norm.clone().equal_elem(0.0);
        let numerator = weight_norm.clone().mul_scalar(self.trust);
        let sum_of_norms = |weight_norm: Tensor<D>| grad_norm.clone() + weight_norm.mul_scalar(self.weight_decay);
        match self.variant {
            LarsVariant::Lightly => {
                let inactive = no_weight.bool_or(grad_norm.clone().equal_elem(0.0));
                let decay = weight_norm.full_like(self.weight_decay).mask_fill(inactive.clone(), 0.0);
                let ratio = numerator / sum_of_norms(weight_norm).add_scalar(LIGHTLY_EPS);
                (grad + weight * decay) * ratio.mask_fill(inactive, 1.0)
            }
            LarsVariant::Paper | LarsVariant::Google => {
                let decayed = grad + weight.mul_scalar(self.weight_decay);
                let denominator = match self.variant {
                    LarsVariant::Google => norm(decayed.clone()),
                    _ => sum_of_norms(weight_norm),
                };
                let inactive = no_weight.bool_or(denominator.clone().equal_elem(0.0));
                decayed * (numerator / denominator).mask_fill(inactive, 1.0)
            }
        }
    }
}

impl Optimizer for Lars {
    type State<const D: usize> = LarsState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let (lr_inside, lr_outside) = match self.variant {
            LarsVariant::Lightly => (1.0, lr),
            LarsVariant::Paper | LarsVariant::Google => (lr, 1.0),
        };
        let change = if D > 1 { self.adapted(tensor.clone(), grad) } else { grad };
        let change = change.mul_scalar(lr_inside);
        let velocity = match state {
            Some(state) => state.velocity.mul_scalar(self.momentum) + change.clone(),
            None => change.clone(),
        };
        let update = if self.nesterov { change + velocity.clone().mul_scalar(self.momentum) } else { velocity.clone() };
        (tensor - update.mul_scalar(lr_outside), Some(LarsState { velocity }))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        LarsState { velocity: state.velocity.to_device(device) }
    }
}

/// `‖x‖` as a tensor of one entry that broadcasts against `x`.
fn norm<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.square().sum().sqrt().reshape([1; D])
}
