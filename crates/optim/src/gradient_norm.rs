//! The Euclidean norm of the gradient of all parameters together.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// `√(Σ g²)` over all entries of all gradients of `module`, read from the device in one transfer.
///
/// Not finite if any entry is not finite, which is what a training step asks before it touches the weights. Squares
/// are summed in f32 per tensor, so a norm above 1.8e19 counts as infinite too; it is lost for training anyway.
/// Parameters without a gradient count as zero. All gradients must be on one device.
///
/// ```
/// # use burn::{nn::LinearConfig, optim::GradientsParams, tensor::{Device, Tensor}};
/// let device = Device::flex().autodiff();
/// let layer = LinearConfig::new(2, 1).with_bias(false).init(&device);
/// let loss = layer.forward(Tensor::<2>::from_data([[3.0, 4.0]], &device)).sum();
/// let grads = GradientsParams::from_grads(loss.backward(), &layer);
/// assert_eq!(twoview_optim::gradient_norm(&layer, &grads), 5.0);
/// ```
pub fn gradient_norm<M: Module>(module: &M, grads: &GradientsParams) -> f64 {
    let mut visitor = SquareSums { grads, sums: Vec::new() };
    module.visit(&mut visitor);
    if visitor.sums.is_empty() {
        return 0.0;
    }
    Tensor::cat(visitor.sums, 0).into_data().iter::<f64>().sum::<f64>().sqrt()
}

/// Collects `Σ g²` per parameter, `[1]` each, without waiting for the device.
struct SquareSums<'a> {
    grads: &'a GradientsParams,
    sums: Vec<Tensor<1>>,
}

impl ModuleVisitor for SquareSums<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.sums.push(twoview_kernels::sum_of_squares(grad));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    use super::*;

    fn layer() -> Linear {
        LinearConfig::new(2, 3).init(&Device::flex())
    }

    /// The norm of a gradient that is `weight` everywhere on the weight and `bias` everywhere on the bias.
    fn norm(weight: f32, bias: f32) -> f64 {
        let (layer, device, mut grads) = (layer(), Device::flex(), GradientsParams::new());
        grads.register(layer.weight.id, Tensor::<2>::full([2, 3], weight, &device));
        grads.register(layer.bias.as_ref().expect("bias").id, Tensor::<1>::full([3], bias, &device));
        gradient_norm(&layer, &grads)
    }

    #[test]
    fn sums_over_all_parameters() {
        assert_eq!(norm(2.0, 0.0), 24.0_f64.sqrt());
        assert_eq!(norm(2.0, -5.0), 99.0_f64.sqrt());
        assert_eq!(gradient_norm(&layer(), &GradientsParams::new()), 0.0);
    }

    #[test]
    fn one_entry_that_is_not_finite_shows() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!norm(1.0, bad).is_finite(), "{bad}");
            assert!(!norm(bad, 1.0).is_finite(), "{bad}");
        }
    }
}
