//! A chain of convolutions with batch normalization and ReLU, and the shortcut around it, as one operation.
//!
//! ```text
//! y₁ = conv(x), yᵢ = conv(relu(norm(yᵢ₋₁)))      out = relu(norm(yₙ) + shortcut)     shortcut: nothing, x, or norm(conv(x))
//! ```
//! As one operation the block keeps `x`, the `yᵢ` and `out`: a normalized value is computed anew wherever a convolution reads
//! it. Gradients replace what they were computed from, and the two that meet at `x` are added where the second is written.

#![allow(unsafe_code, reason = "the statistics of finished parts are taken while other tasks write the others")]

use burn::backend::{Flex, TensorMetadata, tensor::FloatTensor};

use super::batch_norm::{Gradient, Mask, Moments, Normalization, Shortcut, Statistics, normalize};
use super::buffer::Buffer;
use super::conv2d;
use super::frame::Source;
use super::geometry::Geometry;
use super::pixels::{Extent, Pixels, into_tensor, padded};

type FlexTensor = FloatTensor<Flex>;

/// The parameters of one convolution with its normalization.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) geometry: Geometry,
    /// `[O, C, KH, KW]`, contiguous.
    pub(super) weight: FlexTensor,
    pub(super) gamma: FlexTensor,
    pub(super) beta: FlexTensor,
    pub(super) eps: f64,
}

/// What is added to the chain's end.
#[derive(Debug, Clone)]
pub(super) enum Around<L> {
    Nothing,
    Identity,
    Projection(L),
}

/// A layer after its forward pass.
#[derive(Debug, Clone)]
struct Done {
    layer: Layer,
    norm: Normalization,
    /// The convolution's output; `None` where it is computed again when it is needed.
    y: Option<Buffer>,
}

/// The block after its forward pass: what the backward pass needs.
#[derive(Debug, Clone)]
pub(super) struct Block {
    x: Pixels,
    layers: Vec<Done>,
    around: Around<Done>,
    /// The output, whose sign is the mask of the last ReLU.
    out: Pixels,
}

/// The gradients of a layer's parameters.
pub(super) struct LayerGradients {
    pub(super) weight: Vec<f32>,
    pub(super) gamma: Vec<f32>,
    pub(super) beta: Vec<f32>,
}

impl Layer {
    fn extent(&self) -> Extent {
        self.geometry.output()
    }

    /// The convolution's output and its statistics.
    fn forward(self, source: Source<'_>) -> Done {
        let extent = self.extent();
        let mut y = Buffer::take(extent.elements());
        let moments = conv2d::forward(&self.geometry, source, self.weight.storage(), &mut y, &|y, pixels, columns| {
            // SAFETY: nobody writes the part until this returns.
            unsafe { Moments::new(y, extent.stride, pixels, columns) }
        });
        let statistics = Statistics::combine(self.geometry.out_channels, &moments);
        let norm = Normalization::new(statistics, self.gamma.storage(), self.beta.storage(), self.eps);
        Done { layer: self, norm, y: Some(y) }
    }
}

impl Done {
    /// The ReLU of the normalized output, as the next convolution reads it.
    fn activated(&self) -> Source<'_> {
        Source { normalize: Some(&self.norm.affine), ..self.output() }
    }

    fn output(&self) -> Source<'_> {
        Source { values: self.y.as_deref().unwrap_or_default(), extent: self.layer.extent(), normalize: None }
    }

    /// Computes the output again where it was not kept, to the same bits.
    fn restore(&mut self, source: Source<'_>) {
        if self.y.is_none() {
            let mut y = Buffer::take(self.layer.extent().elements());
            conv2d::forward(&self.layer.geometry, source, self.layer.weight.storage(), &mut y, &|_, _, _| ());
            self.y = Some(y);
        }
    }

    fn gradients(&self, source: Source<'_>, dy: &[f32], gradient: Gradient) -> LayerGradients {
        LayerGradients {
            weight: conv2d::weight_gradient(&self.layer.geometry, source, dy),
            gamma: gradient.gamma,
            beta: gradient.beta,
        }
    }
}

/// Runs the block on `x`, `[N, C, H, W]`. Returns the output and what the backward pass needs.
pub(super) fn forward(
    x: FlexTensor,
    layers: Vec<Layer>,
    around: Around<Layer>,
    recompute: bool,
) -> (FlexTensor, Block) {
    let Some((last, first)) = layers.last().map(|last| last.geometry).zip(layers.first().map(|first| first.geometry))
    else {
        unreachable!("a block has a layer")
    };
    let identity = matches!(around, Around::Identity);
    let stride = if identity { padded(first.in_channels) } else { first.in_stride() };
    let x = Pixels::new(x, stride);
    let input = Source { values: x.values(), extent: Extent { stride, ..first.input() }, normalize: None };

    let mut done: Vec<Done> = Vec::with_capacity(layers.len());
    for layer in layers {
        let next = layer.forward(done.last().map_or(input, Done::activated));
        done.push(next);
    }
    let mut around = match around {
        Around::Nothing => Around::Nothing,
        Around::Identity => Around::Identity,
        Around::Projection(layer) => Around::Projection(layer.forward(input)),
    };

    let extent = last.output();
    let mut out = Buffer::take(extent.elements());
    if let Some(Done { norm, y: Some(y), .. }) = done.last() {
        let shortcut = match &around {
            Around::Nothing => Shortcut::None,
            Around::Identity => Shortcut::Identity(x.values()),
            Around::Projection(done) => Shortcut::Normalized(done.output().values, &done.norm.affine),
        };
        normalize(y, &norm.affine, shortcut, true, &mut out);
    }
    if recompute {
        done.iter_mut().for_each(|done| done.y = None);
        if let Around::Projection(done) = &mut around {
            done.y = None;
        }
    }
    let out = into_tensor(out, extent, last.out_channels);
    let block = Block { x, layers: done, around, out: Pixels::new(out.clone(), extent.stride) };
    (out, block)
}

impl Block {
    /// All layers, the projection last.
    fn all(&self) -> impl Iterator<Item = &Done> {
        let projection = match &self.around {
            Around::Projection(done) => Some(done),
            _ => None,
        };
        self.layers.iter().chain(projection)
    }

    /// Shapes of the weights of all layers, the projection's last.
    pub(super) fn weight_shapes(&self) -> Vec<[usize; 4]> {
        self.all().map(|done| done.layer.weight.shape().dims()).collect()
    }

    /// Means and variances of all layers, the projection's last: `[2, channels of all layers]`, flat.
    pub(super) fn statistics(&self) -> Vec<f32> {
        let means = self.all().flat_map(|done| &done.norm.statistics.mean);
        let vars = self.all().flat_map(|done| &done.norm.statistics.var);
        means.chain(vars).copied().map(super::batch_norm::round).collect()
    }

    /// The gradient of `x`, if asked for, and those of the layers' parameters, the projection's last.
    pub(super) fn backward(self, d_out: FlexTensor, wants_input: bool) -> (Option<FlexTensor>, Vec<LayerGradients>) {
        let Self { x, mut layers, mut around, out } = self;
        let first = layers[0].layer.geometry;
        let stride = x.values().len() / first.input().pixels();
        let input = Source { values: x.values(), extent: Extent { stride, ..first.input() }, normalize: None };
        for i in 0..layers.len() {
            let (before, rest) = layers.split_at_mut(i);
            rest[0].restore(before.last().map_or(input, Done::activated));
        }
        if let Around::Projection(done) = &mut around {
            done.restore(input);
        }

        let Some(mut last) = layers.pop() else { unreachable!("a block has a layer") };
        let mut d = Pixels::new(d_out, last.layer.extent().stride).into_buffer();
        let mut y = last.y.take().unwrap_or_default();
        let mask = if matches!(around, Around::Nothing) { Mask::Own } else { Mask::Output(out.values()) };
        let mut gradient = Gradient::new(&y, &d, mask, &last.norm);
        let mut projection = None;
        let mut dy = match &mut around {
            Around::Nothing => {
                gradient.replace_gradient(&y, &mut d, mask, &last.norm.affine);
                std::mem::take(&mut d)
            }
            Around::Identity => {
                gradient.replace_input(&mut y, &mut d, mask, &last.norm.affine);
                y
            }
            Around::Projection(done) => {
                gradient.replace_input(&mut y, &mut d, mask, &last.norm.affine);
                let dz = std::mem::take(&mut d);
                projection = Some(project(done, input, dz));
                y
            }
        };
        drop(out.into_buffer()); // For the next step.

        let mut gradients = Vec::new();
        while let Some(before) = layers.pop() {
            let Done { layer, .. } = &last;
            let mut d = Buffer::take(layer.geometry.input_gradient().elements());
            conv2d::input_gradient(&layer.geometry, &dy, layer.weight.storage(), &mut d, false);
            gradients.push(last.gradients(before.activated(), &dy, gradient));
            let values = before.output().values;
            gradient = Gradient::new(values, &d, Mask::Own, &before.norm);
            gradient.replace_gradient(values, &mut d, Mask::Own, &before.norm.affine);
            (last, dy) = (before, d);
        }
        let geometry = &last.layer.geometry;
        let dx = wants_input.then(|| {
            // Through an identity, the gradient of the sum is already there.
            let identity = matches!(around, Around::Identity);
            let mut dx = if identity { d } else { Buffer::take(geometry.input_gradient().elements()) };
            conv2d::input_gradient(geometry, &dy, last.layer.weight.storage(), &mut dx, identity);
            if let (Around::Projection(done), Some((dy, _))) = (&around, &projection) {
                let Layer { geometry, weight, .. } = &done.layer;
                conv2d::input_gradient(geometry, dy, weight.storage(), &mut dx, true);
            }
            into_tensor(dx, geometry.input_gradient(), geometry.in_channels)
        });
        gradients.push(last.gradients(input, &dy, gradient));
        gradients.reverse();
        gradients.extend(projection.map(|(_, gradients)| gradients));
        (dx, gradients)
    }
}

/// The gradient of a projection's convolution, and those of its parameters.
fn project(done: &mut Done, input: Source<'_>, mut dz: Buffer) -> (Buffer, LayerGradients) {
    let mut y = done.y.take().unwrap_or_default();
    let gradient = Gradient::new(&y, &dz, Mask::None, &done.norm);
    gradient.replace_input(&mut y, &mut dz, Mask::None, &done.norm.affine);
    let gradients = done.gradients(input, &y, gradient);
    (y, gradients)
}
