//! The fast paths: operations on flex tensors, and their place in Burn's autodiff graph.

mod batch_norm;
mod buffer;
mod conv2d;
mod conv_bias;
mod direct;
mod frame;
mod geometry;
mod pixels;
mod pool;
mod product;
mod region;
mod residual_block;
mod scratch;
mod sgd;
mod shared;
mod vector;
pub(crate) mod vectorized;
mod winograd;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, ExtensionType, Flex, TensorMetadata, backend_extension};
use burn::tensor::TensorData;

use crate::SgdRule;
use batch_norm::{Gradient, Mask, Normalization, Shortcut, Statistics, normalize};
use buffer::Buffer;
use conv_bias::Finish;
use frame::Source;
pub(crate) use geometry::Geometry;
use pixels::{Extent, Pixels, into_tensor, padded};
pub(crate) use pool::Pooling;
use residual_block::{Around, Block, Layer};

type FlexTensor = FloatTensor<Flex>;

/// Parameters of a convolution with its normalization, `[O, C, KH, KW]`, `[O]` and `[O]`.
#[derive(ExtensionType)]
pub(crate) struct LayerTensors<B: Backend> {
    pub(crate) weight: FloatTensor<B>,
    pub(crate) gamma: FloatTensor<B>,
    pub(crate) beta: FloatTensor<B>,
    pub(crate) geometry: Geometry,
    pub(crate) eps: f64,
}

/// A layer that may be absent.
#[derive(ExtensionType)]
pub(crate) enum MaybeLayer<B: Backend> {
    Absent,
    Present(#[extension_type] LayerTensors<B>),
}

/// The layers of a block.
#[derive(ExtensionType)]
pub(crate) struct BlockTensors<B: Backend> {
    #[extension_type]
    pub(crate) first: LayerTensors<B>,
    #[extension_type]
    pub(crate) second: MaybeLayer<B>,
    #[extension_type]
    pub(crate) third: MaybeLayer<B>,
    #[extension_type]
    pub(crate) projection: MaybeLayer<B>,
    /// Whether the input itself is added where there is no projection.
    pub(crate) identity: bool,
    /// Whether the outputs of the convolutions are computed again in the backward pass.
    pub(crate) recompute: bool,
}

/// A tensor that may be absent.
#[derive(ExtensionType)]
pub(crate) enum MaybeTensor<B: Backend> {
    Absent,
    Present(FloatTensor<B>),
}

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

    /// See [`crate::residual_block`]: output, and the flat `[2, channels of all layers]` of means and variances.
    fn fast_residual_block(
        x: FloatTensor<Self>,
        #[extension_type] layers: BlockTensors<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// See [`crate::ConvBias::forward`].
    fn fast_conv_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        #[extension_type] shortcut: MaybeTensor<Self>,
        geometry: Geometry,
        relu: bool,
    ) -> FloatTensor<Self> {
        let channels = geometry.out_shape()[1];
        let bias = Self::float_reshape(bias, [1, channels, 1, 1].into());
        let mut y = Self::float_add(Self::fast_conv2d(x, weight, geometry), bias);
        if let MaybeTensor::Present(shortcut) = shortcut {
            y = Self::float_add(y, shortcut);
        }
        if relu { Self::relu(y) } else { y }
    }

    /// See [`crate::max_pool2d`].
    fn fast_max_pool2d(x: FloatTensor<Self>, size: [usize; 3]) -> FloatTensor<Self>;

    /// See [`crate::global_average_pool`].
    fn fast_global_average_pool(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`crate::sgd_step`]: weight and velocity. Only for tensors without a graph.
    fn fast_sgd_step(
        _weight: FloatTensor<Self>,
        _gradient: FloatTensor<Self>,
        #[extension_type] _velocity: MaybeTensor<Self>,
        _rule: SgdRule,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("called without a graph")
    }

    /// See [`crate::sum_of_squares`]. Only for tensors without a graph.
    fn fast_sum_of_squares(_x: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("called without a graph")
    }
}

/// A flex tensor that owns exactly `values`.
fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

fn per_channel(values: &[f64]) -> FlexTensor {
    tensor(values.iter().copied().map(batch_norm::round).collect(), [values.len()])
}

fn values(tensor: &FlexTensor) -> Vec<f32> {
    tensor.to_contiguous().storage::<f32>().to_vec()
}

/// A convolution with the pixels it read, as its backward pass needs them.
#[derive(Debug, Clone)]
struct Conv2d {
    x: Pixels,
    weight: FlexTensor,
    geometry: Geometry,
}

impl Conv2d {
    fn new(x: FlexTensor, weight: FlexTensor, geometry: Geometry) -> Self {
        Self { x: Pixels::new(x, geometry.in_stride()), weight: weight.to_contiguous(), geometry }
    }

    fn source(&self) -> Source<'_> {
        Source { values: self.x.values(), extent: self.geometry.input(), normalize: None }
    }

    fn forward(&self) -> FlexTensor {
        let extent = self.geometry.output();
        let mut y = Buffer::take(extent.elements());
        conv2d::forward(&self.geometry, self.source(), self.weight.storage(), &mut y, &|_, _, _| ());
        into_tensor(y, extent, self.geometry.out_channels)
    }

    fn input_gradient(&self, dy: &[f32]) -> FlexTensor {
        let extent = self.geometry.input_gradient();
        let mut dx = Buffer::take(extent.elements());
        conv2d::input_gradient(&self.geometry, dy, self.weight.storage(), &mut dx, false);
        into_tensor(dx, extent, self.geometry.in_channels)
    }

    fn weight_gradient(&self, dy: &[f32]) -> FlexTensor {
        let dw = conv2d::weight_gradient(&self.geometry, self.source(), dy);
        tensor(dw, self.weight.shape().dims::<4>())
    }
}

/// A batch normalization with the pixels it read, as its backward pass needs them.
#[derive(Debug, Clone)]
struct BatchNorm {
    x: Pixels,
    extent: Extent,
    channels: usize,
    norm: Normalization,
    relu: bool,
}

impl BatchNorm {
    fn new(x: FlexTensor, gamma: &FlexTensor, beta: &FlexTensor, eps: f64, relu: bool) -> Self {
        let [images, channels, height, width] = x.shape().dims();
        let extent = Extent { images, height, width, stride: padded(channels) };
        let x = Pixels::new(x, extent.stride);
        let statistics = Statistics::of(x.values(), extent.stride, channels);
        let norm = Normalization::new(statistics, &values(gamma), &values(beta), eps);
        Self { x, extent, channels, norm, relu }
    }

    fn forward(&self) -> FlexTensor {
        let mut y = Buffer::take(self.extent.elements());
        normalize(self.x.values(), &self.norm.affine, Shortcut::None, self.relu, &mut y);
        into_tensor(y, self.extent, self.channels)
    }

    /// The gradients of `x`, `gamma` and `beta`.
    fn backward(&self, dy: FlexTensor) -> [FlexTensor; 3] {
        let mask = if self.relu { Mask::Own } else { Mask::None };
        let mut d = Pixels::new(dy, self.extent.stride).into_buffer();
        let gradient = Gradient::new(self.x.values(), &d, mask, &self.norm);
        gradient.replace_gradient(self.x.values(), &mut d, mask, &self.norm.affine);
        [
            into_tensor(d, self.extent, self.channels),
            tensor(gradient.gamma, [self.channels]),
            tensor(gradient.beta, [self.channels]),
        ]
    }

    fn mean(&self) -> FlexTensor {
        per_channel(&self.norm.statistics.mean)
    }

    fn var(&self) -> FlexTensor {
        per_channel(&self.norm.statistics.var)
    }
}

impl LayerTensors<Flex> {
    fn into_layer(self) -> Layer {
        let Self { weight, gamma, beta, geometry, eps } = self;
        let [weight, gamma, beta] = [weight, gamma, beta].map(|tensor| tensor.to_contiguous());
        Layer { geometry, weight, gamma, beta, eps }
    }
}

impl<B: Backend> BlockTensors<B> {
    /// The branch's layers and the projection.
    fn into_layers(self) -> (Vec<LayerTensors<B>>, Option<LayerTensors<B>>) {
        let present = |layer| match layer {
            MaybeLayer::Present(layer) => Some(layer),
            MaybeLayer::Absent => None,
        };
        let branch = std::iter::once(self.first).chain(present(self.second)).chain(present(self.third));
        (branch.collect(), present(self.projection))
    }
}

fn run_block(x: FlexTensor, layers: BlockTensors<Flex>) -> (FlexTensor, FlexTensor, Block) {
    let (identity, recompute) = (layers.identity, layers.recompute);
    let (branch, projection) = layers.into_layers();
    let branch = branch.into_iter().map(LayerTensors::into_layer).collect();
    let around = match projection {
        Some(projection) => Around::Projection(projection.into_layer()),
        None if identity => Around::Identity,
        None => Around::Nothing,
    };
    let (out, block) = residual_block::forward(x, branch, around, recompute);
    let statistics = block.statistics();
    let channels = statistics.len() / 2;
    (out, tensor(statistics, [2, channels]), block)
}

impl FastOps for Flex {
    fn fast_conv2d(x: FlexTensor, weight: FlexTensor, geometry: Geometry) -> FlexTensor {
        Conv2d::new(x, weight, geometry).forward()
    }

    fn fast_batch_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        eps: f64,
        relu: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let norm = BatchNorm::new(x, &gamma, &beta, eps, relu);
        (norm.forward(), norm.mean(), norm.var())
    }

    fn fast_residual_block(x: FlexTensor, layers: BlockTensors<Self>) -> (FlexTensor, FlexTensor) {
        let (out, statistics, _) = run_block(x, layers);
        (out, statistics)
    }

    fn fast_conv_bias(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        shortcut: MaybeTensor<Self>,
        geometry: Geometry,
        relu: bool,
    ) -> FlexTensor {
        let conv = Conv2d::new(x, weight, geometry);
        let extent = geometry.output();
        let mut bias = values(&bias);
        bias.resize(extent.stride, 0.0);
        let shortcut = match shortcut {
            MaybeTensor::Present(shortcut) => Some(Pixels::new(shortcut, extent.stride)),
            MaybeTensor::Absent => None,
        };
        let finish = Finish { bias, shortcut: shortcut.as_ref().map(Pixels::values), relu };
        let mut y = Buffer::take(extent.elements());
        finish.behind(&conv, &mut y);
        into_tensor(y, extent, geometry.out_shape()[1])
    }

    fn fast_max_pool2d(x: FlexTensor, size: [usize; 3]) -> FlexTensor {
        MaxPool::new(x, size).0
    }

    fn fast_global_average_pool(x: FlexTensor) -> FlexTensor {
        let (extent, channels) = extent_of(&x);
        let means = pool::global_mean(Pixels::new(x, extent.stride).values(), extent, channels);
        tensor(means, [extent.images, channels])
    }

    fn fast_sgd_step(
        weight: FlexTensor,
        gradient: FlexTensor,
        velocity: MaybeTensor<Self>,
        rule: SgdRule,
    ) -> (FlexTensor, FlexTensor) {
        // Taken by value: a handle that lives on would make the update copy the weight.
        let contiguous = |tensor: FlexTensor| tensor.to_contiguous();
        let (mut weight, gradient) = (contiguous(weight), contiguous(gradient));
        let mut velocity = match velocity {
            MaybeTensor::Present(velocity) => contiguous(velocity),
            // One velocity past makes the first one the change itself.
            MaybeTensor::Absent => FlexTensor::zeros(weight.shape(), weight.dtype()),
        };
        sgd::step(weight.storage_mut(), gradient.storage(), velocity.storage_mut(), rule);
        (weight, velocity)
    }

    fn fast_sum_of_squares(x: FlexTensor) -> FlexTensor {
        let sum = sgd::sum_of_squares(x.to_contiguous().storage());
        tensor(vec![batch_norm::round(sum)], [1])
    }
}

/// A picture batch as pixels, padded to whole vectors, and its channels.
fn extent_of(x: &FlexTensor) -> (Extent, usize) {
    let [images, channels, height, width] = x.shape().dims();
    (Extent { images, height, width, stride: padded(channels) }, channels)
}

/// A maximum pooling as its backward pass needs it.
#[derive(Debug, Clone)]
struct MaxPool {
    pooling: Pooling,
    channels: usize,
    taps: Vec<u8>,
}

impl MaxPool {
    /// Pools with `[kernel, stride, padding]`.
    fn new(x: FlexTensor, [kernel, stride, padding]: [usize; 3]) -> (FlexTensor, Self) {
        let (input, channels) = extent_of(&x);
        let size = |size: usize| (size + 2 * padding - kernel) / stride + 1;
        let output = Extent { height: size(input.height), width: size(input.width), ..input };
        let pooling = Pooling { input, output, kernel, stride, padding };
        let (y, taps) = pooling.forward(Pixels::new(x, input.stride).values());
        (into_tensor(y, output, channels), Self { pooling, channels, taps })
    }

    fn backward(&self, dy: FlexTensor) -> FlexTensor {
        let dy = Pixels::new(dy, self.pooling.output.stride);
        into_tensor(self.pooling.backward(dy.values(), &self.taps), self.pooling.input, self.channels)
    }
}

impl<C: CheckpointStrategy> FastOps for Autodiff<Flex, C> {
    fn fast_conv2d(x: FloatTensor<Self>, weight: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Conv2dBackward;

        impl Backward<Flex, 2> for Conv2dBackward {
            type State = Conv2d;

            fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
                let [x_node, weight_node] = ops.parents;
                let conv = ops.state;
                let dy = Pixels::new(gradients.consume::<Flex>(&ops.node), conv.geometry.output().stride);
                if let Some(node) = x_node {
                    gradients.register::<Flex>(node.id, conv.input_gradient(dy.values()));
                }
                if let Some(node) = weight_node {
                    gradients.register::<Flex>(node.id, conv.weight_gradient(dy.values()));
                }
            }
        }

        let preparation = Conv2dBackward.prepare::<C>([x.node(), weight.node()]);
        let conv = Conv2d::new(x.into_primitive(), weight.into_primitive(), geometry);
        let y = conv.forward();
        match preparation.compute_bound().stateful() {
            OpsKind::Tracked(preparation) => preparation.finish(conv, y),
            OpsKind::UnTracked(preparation) => preparation.finish(y),
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
        let norm = BatchNorm::new(x.into_primitive(), gamma.primitive(), beta.primitive(), eps, relu);
        let (y, mean, var) = (norm.forward(), norm.mean(), norm.var());
        let y = match preparation.compute_bound().stateful() {
            OpsKind::Tracked(preparation) => preparation.finish(norm, y),
            OpsKind::UnTracked(preparation) => preparation.finish(y),
        };
        (y, Self::from_inner(mean), Self::from_inner(var))
    }

    fn fast_residual_block(x: FloatTensor<Self>, layers: BlockTensors<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let BlockTensors { first, second, third, projection, identity, recompute } = layers;
        let (x, node) = x.into_parts();
        let mut nodes = vec![node];
        let mut inner = |layer: LayerTensors<Self>| {
            let LayerTensors { weight, gamma, beta, geometry, eps } = layer;
            let [weight, gamma, beta] = [weight, gamma, beta].map(|tensor| {
                let (primitive, node) = tensor.into_parts();
                nodes.push(node);
                primitive
            });
            LayerTensors { weight, gamma, beta, geometry, eps }
        };
        let first = inner(first);
        let mut maybe = |layer| match layer {
            MaybeLayer::Present(layer) => MaybeLayer::Present(inner(layer)),
            MaybeLayer::Absent => MaybeLayer::Absent,
        };
        let (second, third, projection) = (maybe(second), maybe(third), maybe(projection));
        let layers = BlockTensors { first, second, third, projection, identity, recompute };
        let (out, statistics, block) = run_block(x, layers);
        // The input and three parameters of one to four layers.
        let out = match nodes.len() {
            4 => record::<C, 4>(nodes, block, out),
            7 => record::<C, 7>(nodes, block, out),
            10 => record::<C, 10>(nodes, block, out),
            _ => record::<C, 13>(nodes, block, out),
        };
        (out, Self::from_inner(statistics))
    }

    fn fast_max_pool2d(x: FloatTensor<Self>, size: [usize; 3]) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct MaxPoolBackward;

        impl Backward<Flex, 1> for MaxPoolBackward {
            type State = MaxPool;

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
                let dy = gradients.consume::<Flex>(&ops.node);
                if let [Some(node)] = ops.parents {
                    gradients.register::<Flex>(node.id, ops.state.backward(dy));
                }
            }
        }

        let preparation = MaxPoolBackward.prepare::<C>([x.node()]);
        let (y, pool) = MaxPool::new(x.into_primitive(), size);
        match preparation.compute_bound().stateful() {
            OpsKind::Tracked(preparation) => preparation.finish(pool, y),
            OpsKind::UnTracked(preparation) => preparation.finish(y),
        }
    }

    fn fast_global_average_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct MeanBackward;

        impl Backward<Flex, 1> for MeanBackward {
            type State = (Extent, usize);

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
                let d = gradients.consume::<Flex>(&ops.node).to_contiguous();
                let (extent, channels) = ops.state;
                if let [Some(node)] = ops.parents {
                    let dx = pool::global_mean_gradient(d.storage(), extent, channels);
                    gradients.register::<Flex>(node.id, into_tensor(dx, extent, channels));
                }
            }
        }

        let preparation = MeanBackward.prepare::<C>([x.node()]);
        let x = x.into_primitive();
        let state = extent_of(&x);
        let y = Flex::fast_global_average_pool(x);
        match preparation.compute_bound().stateful() {
            OpsKind::Tracked(preparation) => preparation.finish(state, y),
            OpsKind::UnTracked(preparation) => preparation.finish(y),
        }
    }
}

/// Puts a block into the graph behind its `N` inputs: `x`, then weight, gamma and beta of each layer.
fn record<C: CheckpointStrategy, const N: usize>(
    nodes: Vec<NodeGuard>,
    block: Block,
    out: FlexTensor,
) -> FloatTensor<Autodiff<Flex, C>> {
    #[derive(Debug)]
    struct BlockBackward;

    impl<const N: usize> Backward<Flex, N> for BlockBackward {
        type State = Block;

        fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
            let d_out = gradients.consume::<Flex>(&ops.node);
            let mut parents = ops.parents.into_iter();
            let x = parents.next().flatten();
            let shapes = ops.state.weight_shapes();
            let (dx, layers) = ops.state.backward(d_out, x.is_some());
            if let (Some(node), Some(dx)) = (x, dx) {
                gradients.register::<Flex>(node.id, dx);
            }
            for (layer, shape) in layers.into_iter().zip(shapes) {
                let channels = [shape[0]];
                let values = [tensor(layer.weight, shape), tensor(layer.gamma, channels), tensor(layer.beta, channels)];
                for (value, node) in values.into_iter().zip(parents.by_ref()) {
                    if let Some(node) = node {
                        gradients.register::<Flex>(node.id, value);
                    }
                }
            }
        }
    }

    let Ok(nodes) = <[NodeGuard; N]>::try_from(nodes) else { unreachable!("a block has one to four layers") };
    match BlockBackward.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(preparation) => preparation.finish(block, out),
        OpsKind::UnTracked(preparation) => preparation.finish(out),
    }
}
