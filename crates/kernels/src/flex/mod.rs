//! The fast paths: operations on flex tensors, and their place in Burn's autodiff graph.

mod add_relu;
mod batch_norm;
mod conv2d;
mod geometry;
mod patches;
mod product;
mod vectorized;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::TensorData;

use batch_norm::{Batch, Statistics};
pub(crate) use geometry::Geometry;

type FlexTensor = FloatTensor<Flex>;

/// Elements below which splitting an elementwise loop over threads does not pay.
const TASK_ELEMENTS: usize = 1 << 15;

/// The operations as Burn dispatches them. Callers have checked device, element type and shapes.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait FastOps: Backend {
    /// See [`crate::conv2d`].
    fn fast_conv2d(x: FloatTensor<Self>, weight: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self>;

    /// See [`crate::batch_norm_train`]: output, mean, variance.
    fn fast_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f64,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// See [`crate::add_relu`].
    fn fast_add_relu(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// A flex tensor that owns exactly `values`.
fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

impl FastOps for Flex {
    fn fast_conv2d(x: FlexTensor, weight: FlexTensor, geometry: Geometry) -> FlexTensor {
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        let y = conv2d::forward(&geometry, x.storage(), weight.storage());
        let [height, width] = geometry.out_size;
        tensor(y, [geometry.images, geometry.out_channels, height, width])
    }

    fn fast_batch_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        eps: f64,
        relu: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let norm = BatchNorm::new(x, gamma, beta, eps, relu);
        (norm.forward(), norm.mean(), norm.var())
    }

    fn fast_add_relu(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        let shape = a.shape().dims::<4>();
        let (a, b) = (a.to_contiguous(), b.to_contiguous());
        tensor(add_relu::forward(a.storage(), b.storage()), shape)
    }
}

/// What forward and backward of a batch normalization share.
#[derive(Debug, Clone)]
struct BatchNorm {
    x: FlexTensor,
    gamma: FlexTensor,
    beta: FlexTensor,
    statistics: Statistics,
    eps: f64,
    relu: bool,
}

impl BatchNorm {
    fn new(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, eps: f64, relu: bool) -> Self {
        let x = x.to_contiguous();
        let statistics = batch_norm::statistics(batch(&x), x.storage());
        let (gamma, beta) = (gamma.to_contiguous(), beta.to_contiguous());
        Self { x, gamma, beta, statistics, eps, relu }
    }

    fn forward(&self) -> FlexTensor {
        let y = batch_norm::forward(
            batch(&self.x),
            self.x.storage(),
            &self.statistics,
            self.gamma.storage(),
            self.beta.storage(),
            self.eps,
            self.relu,
        );
        tensor(y, self.x.shape().dims::<4>())
    }

    /// The gradients of `x`, `gamma` and `beta`.
    fn backward(&self, output_gradient: FlexTensor) -> [FlexTensor; 3] {
        let gradients = batch_norm::backward(
            batch(&self.x),
            self.x.storage(),
            output_gradient.to_contiguous().storage(),
            &self.statistics,
            self.gamma.storage(),
            self.beta.storage(),
            self.eps,
            self.relu,
        );
        let channels = gradients.gamma.len();
        [
            tensor(gradients.x, self.x.shape().dims::<4>()),
            tensor(gradients.gamma, [channels]),
            tensor(gradients.beta, [channels]),
        ]
    }

    fn mean(&self) -> FlexTensor {
        per_channel(&self.statistics.mean)
    }

    fn var(&self) -> FlexTensor {
        per_channel(&self.statistics.var)
    }
}

fn batch(x: &FlexTensor) -> Batch {
    let [images, channels, height, width] = x.shape().dims();
    Batch { images, channels, pixels: height * width }
}

fn per_channel(values: &[f64]) -> FlexTensor {
    tensor(values.iter().copied().map(batch_norm::round).collect(), [values.len()])
}

impl<C: CheckpointStrategy> FastOps for Autodiff<Flex, C> {
    fn fast_conv2d(x: FloatTensor<Self>, weight: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Conv2dBackward;

        impl Backward<Flex, 2> for Conv2dBackward {
            type State = (FlexTensor, FlexTensor, Geometry);

            fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
                let [x_node, weight_node] = ops.parents;
                let (x, weight, geometry) = ops.state;
                let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
                if let Some(node) = x_node {
                    let values = conv2d::input_gradient(&geometry, gradient.storage(), weight.storage());
                    gradients.register::<Flex>(node.id, tensor(values, x.shape().dims::<4>()));
                }
                if let Some(node) = weight_node {
                    let values = conv2d::weight_gradient(&geometry, x.storage(), gradient.storage());
                    gradients.register::<Flex>(node.id, tensor(values, weight.shape().dims::<4>()));
                }
            }
        }

        let preparation = Conv2dBackward.prepare::<C>([x.node(), weight.node()]);
        match preparation.compute_bound().stateful() {
            OpsKind::Tracked(preparation) => {
                let x = x.into_primitive().to_contiguous();
                let weight = weight.into_primitive().to_contiguous();
                let y = Flex::fast_conv2d(x.clone(), weight.clone(), geometry);
                preparation.finish((x, weight, geometry), y)
            }
            OpsKind::UnTracked(preparation) => {
                preparation.finish(Flex::fast_conv2d(x.into_primitive(), weight.into_primitive(), geometry))
            }
        }
    }

    fn fast_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f64,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        #[derive(Debug)]
        struct BatchNormBackward;

        impl Backward<Flex, 3> for BatchNormBackward {
            type State = BatchNorm;

            fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
                let values = ops.state.backward(gradients.consume::<Flex>(&ops.node));
                for (node, value) in ops.parents.into_iter().zip(values) {
                    if let Some(node) = node {
                        gradients.register::<Flex>(node.id, value);
                    }
                }
            }
        }

        let preparation = BatchNormBackward.prepare::<C>([x.node(), gamma.node(), beta.node()]);
        let norm = BatchNorm::new(x.into_primitive(), gamma.into_primitive(), beta.into_primitive(), eps, relu);
        let (y, mean, var) = (norm.forward(), norm.mean(), norm.var());
        let y = match preparation.compute_bound().stateful() {
            OpsKind::Tracked(preparation) => preparation.finish(norm, y),
            OpsKind::UnTracked(preparation) => preparation.finish(y),
        };
        (y, Self::from_inner(mean), Self::from_inner(var))
    }

    fn fast_add_relu(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct AddReluBackward;

        impl Backward<Flex, 2> for AddReluBackward {
            type State = FlexTensor;

            fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
                let y = ops.state;
                let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
                let values = add_relu::backward(y.storage(), gradient.storage());
                let gradient = tensor(values, y.shape().dims::<4>());
                for node in ops.parents.into_iter().flatten() {
                    gradients.register::<Flex>(node.id, gradient.clone());
                }
            }
        }

        let preparation = AddReluBackward.prepare::<C>([a.node(), b.node()]);
        let y = Flex::fast_add_relu(a.into_primitive(), b.into_primitive());
        match preparation.compute_bound().stateful() {
            OpsKind::Tracked(preparation) => preparation.finish(y.clone(), y),
            OpsKind::UnTracked(preparation) => preparation.finish(y),
        }
    }
}
