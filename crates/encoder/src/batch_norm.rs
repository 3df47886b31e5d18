//! Batch normalization with PyTorch's conventions.

use burn::module::{Flag, Module, Param};
use burn::tensor::Tensor;
use twoview_kernels::ConvNorm;

use crate::initial_values::InitialValues;
use crate::running_stat::RunningStat;

const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// Normalization of each channel over the batch and all positions.
///
/// ```text
/// y = weight · (x − mean) / √(var + 1e-5) + bias
/// ```
/// While the layer trains, `mean` and biased `var` are those of the batch, and the running statistics move by
/// `running ← 0.9 · running + 0.1 · batch`, the batch variance being the unbiased one (`n / (n − 1)`), as in
/// PyTorch. Otherwise the running statistics normalize and nothing is written.
///
/// The layer trains iff its parameters live on an autodiff device and its flag is on: after `Module::valid` or
/// `Module::freeze` it evaluates. The mode is a property of the layer, so no input can switch it by accident.
///
/// # Source
/// Ioffe and Szegedy, *Batch Normalization*, ICML 2015. <https://arxiv.org/abs/1502.03167>; conventions of
/// `torch.nn.BatchNorm2d` and `BatchNorm1d`.
#[derive(Module, Debug)]
pub(crate) struct BatchNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: RunningStat,
    running_var: RunningStat,
    training: Param<Flag>,
}

impl BatchNorm {
    pub(crate) fn new(n_channels: usize, initial: &InitialValues<'_>) -> Self {
        Self {
            weight: initial.constant(n_channels, 1.0),
            bias: initial.constant(n_channels, 0.0),
            running_mean: RunningStat::new(Tensor::zeros([n_channels], initial.device())),
            running_var: RunningStat::new(Tensor::ones([n_channels], initial.device())),
            training: Param::<Flag>::from_bool(true),
        }
    }

    /// Whether a forward now uses the statistics of the batch.
    pub(crate) fn trains(&self) -> bool {
        self.weight.val().is_autodiff() && self.training.is_enabled()
    }

    /// The layer behind a convolution without bias, as the kernels take it.
    pub(crate) fn behind(&self, weight: Tensor<4>, stride: usize, padding: usize) -> ConvNorm {
        let (gamma, beta) = (self.weight.val(), self.bias.val());
        ConvNorm { weight, gamma, beta, stride: [stride; 2], padding: [padding; 2], eps: EPSILON }
    }

    /// `[N, C]` to the same shape, as `BatchNorm1d`.
    pub(crate) fn forward_rows(&self, x: Tensor<2>) -> Tensor<2> {
        let [n_rows, n_channels] = x.dims();
        if !self.trains() {
            let (scale, shift) = self.running_affine();
            return x * scale.unsqueeze() + shift.unsqueeze();
        }
        let x = x.reshape([n_rows, n_channels, 1, 1]);
        let batch = twoview_kernels::batch_norm_train(x, self.weight.val(), self.bias.val(), EPSILON, false);
        self.update([batch.mean, batch.var], n_rows);
        batch.output.reshape([n_rows, n_channels])
    }

    /// Moves the running statistics by mean and biased variance of `n` values of each channel.
    pub(crate) fn update(&self, [mean, var]: [Tensor<1>; 2], n: usize) {
        self.running_mean.update(mean, MOMENTUM);
        // A single value has no unbiased variance; its biased one, zero, keeps the statistic finite.
        let unbiased = n as f64 / (n as f64 - 1.0).max(1.0);
        self.running_var.update(var.without_autodiff().mul_scalar(unbiased), MOMENTUM);
    }

    /// Scale and shift, `[C]` each, of the normalization by the running statistics: `y = scale · x + shift`.
    pub(crate) fn running_affine(&self) -> (Tensor<1>, Tensor<1>) {
        let scale = self.weight.val() / (self.running_var.value() + EPSILON).sqrt();
        let shift = self.bias.val() - scale.clone() * self.running_mean.value();
        (scale, shift)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    const ROWS: [[f32; 2]; 4] = [[1.0, 0.0], [2.0, 0.0], [3.0, 4.0], [6.0, 4.0]];

    fn layer(device: &Device) -> BatchNorm {
        BatchNorm::new(2, &InitialValues::new(0, device))
    }

    #[track_caller]
    fn check(got: Tensor<1>, want: [f32; 2]) {
        let got: Vec<f32> = got.into_data().try_to_vec().expect("f32");
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-6, "got {got}, want {want}");
        }
    }

    #[test]
    fn running_statistics_follow_pytorch() {
        let device = Device::flex().autodiff();
        let norm = layer(&device);
        norm.forward_rows(Tensor::from_floats(ROWS, &device));
        // Means 3 and 2; squared deviations sum to 14 and 16, divided by n - 1 = 3.
        check(norm.running_mean.value(), [0.3, 0.2]);
        check(norm.running_var.value(), [0.9 + 0.1 * 14.0 / 3.0, 0.9 + 0.1 * 16.0 / 3.0]);
    }

    #[test]
    fn training_normalizes_by_the_biased_batch_variance() {
        let device = Device::flex().autodiff();
        let y = layer(&device).forward_rows(Tensor::from_floats(ROWS, &device));
        let first_row = [-2.0 / (3.5_f32 + 1e-5).sqrt(), -2.0 / (4.0_f32 + 1e-5).sqrt()];
        check(y.slice([0..1, 0..2]).reshape([2]), first_row);
    }

    #[test]
    fn evaluation_uses_running_statistics_and_writes_nothing() {
        let device = Device::flex().autodiff();
        let norm = layer(&device);
        norm.forward_rows(Tensor::from_floats(ROWS, &device));
        for eval in [norm.valid(), norm.clone().freeze()] {
            let device = eval.weight.device();
            let y = eval.forward_rows(Tensor::from_floats([[1.0, 0.0], [9.0, 9.0]], &device));
            let [mean, var] = [[0.3, 0.2], [0.9 + 1.4 / 3.0, 0.9 + 1.6 / 3.0]];
            let want = |c: usize, x: f32| (x - mean[c]) / (var[c] + 1e-5_f32).sqrt();
            check(y.slice([0..1, 0..2]).reshape([2]), [want(0, 1.0), want(1, 0.0)]);
            check(eval.running_mean.value(), mean);
        }
    }

    #[test]
    fn an_autodiff_input_cannot_switch_a_validation_layer_to_training() {
        let device = Device::flex().autodiff();
        let norm = layer(&device).valid();
        norm.forward_rows(Tensor::from_floats(ROWS, &device));
        check(norm.running_mean.value(), [0.0, 0.0]);
    }

    #[test]
    fn a_single_value_leaves_the_statistics_finite() {
        let device = Device::flex().autodiff();
        let norm = layer(&device);
        norm.forward_rows(Tensor::from_floats([[1.0, 2.0]], &device));
        check(norm.running_var.value(), [0.9, 0.9]);
    }
}
