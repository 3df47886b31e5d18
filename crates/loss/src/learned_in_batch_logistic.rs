//! The logistic loss over a batch with a scale and a bias that are learned.

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};

use crate::{
    InBatchLogistic, Objective, PairedViews, contrast::sigmoid, engine::round, in_batch_logistic::LARGEST_BIAS,
    objective::sloped, objective_error::TEMPERATURES,
};

/// [`InBatchLogistic`] whose scale and bias are parameters, as the cosines' range asks for: they belong to the model's
/// optimizer. Built by [`crate::InBatchLogisticConfig::init_learned`].
///
/// # Cost
/// That of [`Objective`]; no `[N, N]` matrix and no graph of one.
///
/// # Source
/// That of [`InBatchLogistic`]: the paper learns `t = ln(1/τ)` and b.
///
/// # Example
/// ```
/// # use burn::tensor::Device; use twoview_loss::{InBatchLogisticConfig, PairedViews};
/// let device = Device::flex().autodiff();
/// let logistic = InBatchLogisticConfig::new(0.1, -10.0).init_learned(&device)?;
/// let views = PairedViews::from_rows([[1.0, 0.0], [0.0, 1.0]], [[0.8, 0.6], [-0.6, 0.8]], &device)?;
/// let grads = logistic.forward(views).backward();
/// assert!(logistic.bias.val().grad(&grads).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Module)]
pub struct LearnedInBatchLogistic {
    /// Logarithm t of the scale that multiplies the cosines, `[1]`.
    pub log_scale: Param<Tensor<1>>,
    /// Bias b, `[1]`.
    pub bias: Param<Tensor<1>>,
    corrected: bool,
    n_cancelled: usize,
}

impl LearnedInBatchLogistic {
    pub(crate) fn new(first: &InBatchLogistic, device: &Device) -> Self {
        let scalar = |value: f64| Param::from_tensor(Tensor::from_data([round(value)], device));
        let &InBatchLogistic { temperature, bias, corrected, n_cancelled } = first;
        Self { log_scale: scalar(-temperature.ln()), bias: scalar(bias), corrected, n_cancelled }
    }

    /// The objective with the scale and the bias of now. Waits for the device to read them. Numbers beyond what
    /// [`crate::InBatchLogisticConfig::init`] admits are brought back to its bounds.
    pub fn now(&self) -> InBatchLogistic {
        let of = |parameter: &Param<Tensor<1>>| f64::from(parameter.val().into_scalar::<f32>());
        let (corrected, n_cancelled) = (self.corrected, self.n_cancelled);
        let temperature = (-of(&self.log_scale)).exp().clamp(*TEMPERATURES.start(), *TEMPERATURES.end());
        let bias = of(&self.bias).clamp(-LARGEST_BIAS, LARGEST_BIAS);
        InBatchLogistic { temperature, bias, corrected, n_cancelled }
    }

    /// The loss in nats, `[1]`: the mean over the images. Differentiable once, in the embeddings, the scale and the bias.
    pub fn forward(&self, views: PairedViews) -> Tensor<1> {
        let [z1, z2] = views.tensors();
        let n = views.n_images();
        let contrast = self.now().contrast(views);
        let rows = &contrast.rows;
        let (mut d_log_scale, mut d_bias) = (0.0, 0.0);
        let offset = rows.logistic_bias.unwrap_or_default();
        for ((p, sums), _) in rows.positive.iter().zip(&rows.logistic).zip(&rows.n_candidates).filter(|(_, n)| **n > 0)
        {
            let attraction = sigmoid(-(p + offset));
            d_bias += sums.bias_slope - attraction;
            d_log_scale += sums.log_scale_slope - p * attraction;
        }
        let slope = |parameter: &Param<Tensor<1>>, d: f64| {
            let value = parameter.val();
            let d = TensorData::new(vec![round(d / n as f64)], [1]);
            let d = Tensor::from_data(d, &value.device().without_autodiff());
            sloped(value, d)
        };
        let of_views = sloped(z1, contrast.d_z1) + sloped(z2, contrast.d_z2);
        let of_parameters = slope(&self.log_scale, d_log_scale) + slope(&self.bias, d_bias);
        (of_views + of_parameters).add_scalar(contrast.stats.loss)
    }
}
