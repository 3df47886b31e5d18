//! Fast CPU operations for convolutional networks, as an extension of Burn's flex backend.
//!
//! [`residual_block`] is what a ResNet trains with, [`ConvBias`] what it evaluates with; [`conv2d`],
//! [`batch_norm_train`], [`max_pool2d`] and [`global_average_pool`] are there for the rest. All of them compute, with
//! gradients, on any Burn device. On a flex device in f32, with the crate feature `flex`, they take hand-written
//! multi-threaded paths; everywhere else they are Burn's own operations with the same formulas. The
//! choice is made per call from the operands, so one binary may hold several backends.
//!
//! The fast paths use the rayon pool of the caller. Their results do not depend on the number of its
//! threads nor on timing: every sum has a partition and an order that follow from the shapes alone.
//!
//! Legend for shapes: `N` images, `C` channels, `H` rows, `W` columns.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{Tensor, activation, module};

#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "flex")]
use burn::{
    backend::Dispatch,
    tensor::{DType, Device},
};
#[cfg(feature = "flex")]
use flex::{FastOps, Geometry};

static ENABLED: AtomicBool = AtomicBool::new(true);

/// Switches the fast paths on or off for the whole process, for comparison and for bisecting a doubt.
///
/// Off, every operation is Burn's own. A graph recorded before the switch keeps the backward it was
/// recorded with. The initial state is on.
pub fn set_enabled(enabled: bool) {
    ENABLED.store(enabled, Ordering::Relaxed);
}

/// Whether the fast paths may be taken; see [`set_enabled`].
pub fn enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// Sets of vector instructions that the fast paths are compiled for, the narrowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum InstructionSet {
    /// What every processor of the target has: SSE2 on x86-64, NEON on aarch64.
    Baseline,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, VL and DQ.
    Avx512,
}

/// Keeps the fast paths from using more than `limit`, for comparison; by default they use all that the processor has.
///
/// Another instruction set adds in another order, so results differ by rounding.
#[cfg(feature = "flex")]
pub fn limit_instruction_set(limit: InstructionSet) {
    flex::vectorized::set_limit(limit);
}

/// The instruction set that the fast paths use in this process.
#[cfg(feature = "flex")]
pub fn instruction_set() -> InstructionSet {
    flex::vectorized::level()
}

/// Two-dimensional cross-correlation without bias, dilation or groups: PyTorch's `conv2d`.
///
/// ```text
/// y[n, o, i, j] = Σ_{c, u, v} weight[o, c, u, v] · x[n, c, i·stride₀ + u − padding₀, j·stride₁ + v − padding₁]
/// ```
/// with zeros outside the picture. Where the fast path uses tiles of 4×4 outputs, a value that is not finite makes the whole
/// tiles that it touches NaN.
///
/// # Shapes
/// - `x`: `[N, C, H, W]`
/// - `weight`: `[O, C, KH, KW]`
/// - returns: `[N, O, (H + 2·padding₀ − KH) / stride₀ + 1, (W + 2·padding₁ − KW) / stride₁ + 1]`
///
/// # Panics
/// As Burn's own convolution does, when the channels disagree or the kernel is larger than the padded picture.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
///
/// let device = Device::flex();
/// let y = twoview_kernels::conv2d(
///     Tensor::ones([1, 1, 3, 3], &device),
///     Tensor::ones([1, 1, 3, 3], &device),
///     [1, 1],
///     [1, 1],
/// );
/// let counts = y.into_data().try_to_vec::<f32>().expect("f32");
/// assert_eq!(counts, [4.0, 6.0, 4.0, 6.0, 9.0, 6.0, 4.0, 6.0, 4.0]);
/// ```
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, stride: [usize; 2], padding: [usize; 2]) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if on_flex(&x)
        && on_flex(&weight)
        && let Some(geometry) = Geometry::new(x.dims(), weight.dims(), stride, padding)
    {
        let y = Dispatch::fast_conv2d(x.into_dispatch(), weight.into_dispatch(), geometry);
        return Tensor::from_dispatch(y);
    }
    let options = ConvOptions::new(stride, padding, [1, 1], 1);
    module::conv2d(x, weight, None, options)
}

/// What [`batch_norm_train`] returns.
#[derive(Debug, Clone)]
pub struct BatchNormOutput {
    /// The normalized and scaled input, `[N, C, H, W]`, after the ReLU if one was asked for.
    pub output: Tensor<4>,
    /// Mean of each channel over the batch, `[C]`. No gradient flows through it.
    pub mean: Tensor<1>,
    /// Biased variance of each channel over the batch, `[C]`: the divisor is `N·H·W`, and `eps` is not in it.
    /// No gradient flows through it.
    pub var: Tensor<1>,
}

/// Batch normalization with the statistics of the batch itself, optionally followed by a ReLU.
///
/// ```text
/// y = gamma · (x − mean) / √(var + eps) + beta        mean, var over N, H and W
/// ```
/// The gradient accounts for the dependence of `mean` and `var` on `x`.
///
/// # Shapes
/// - `x`: `[N, C, H, W]`
/// - `gamma`, `beta`: `[C]`
///
/// # Conventions
/// `var` is biased, as used for the normalization. PyTorch's running variance is fed with the unbiased
/// one, `var · n / (n − 1)` with `n = N·H·W`: that is left to the caller.
///
/// # Panics
/// When `gamma` or `beta` is not `[C]`.
///
/// # Source
/// Ioffe and Szegedy, *Batch Normalization*, ICML 2015, Algorithm 1. <https://arxiv.org/abs/1502.03167>
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
///
/// let device = Device::flex();
/// let x = Tensor::<1>::from_floats([1.0, 3.0], &device).reshape([2, 1, 1, 1]);
/// let gamma = Tensor::ones([1], &device);
/// let beta = Tensor::zeros([1], &device);
/// let norm = twoview_kernels::batch_norm_train(x, gamma, beta, 0.0, true);
/// assert_eq!(norm.output.into_data().try_to_vec::<f32>().expect("f32"), [0.0, 1.0]);
/// assert_eq!(norm.mean.into_scalar::<f32>(), 2.0);
/// assert_eq!(norm.var.into_scalar::<f32>(), 1.0);
/// ```
pub fn batch_norm_train(x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>, eps: f64, relu: bool) -> BatchNormOutput {
    #[cfg(feature = "flex")]
    {
        let channels = [x.dims()[1]];
        let fits = gamma.dims() == channels && beta.dims() == channels && x.shape().num_elements() > 0;
        if fits && on_flex(&x) && on_flex(&gamma) && on_flex(&beta) {
            let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
            let (output, mean, var) = Dispatch::fast_batch_norm(x, gamma, beta, eps, relu);
            return BatchNormOutput {
                output: Tensor::from_dispatch(output),
                mean: Tensor::from_dispatch(mean),
                var: Tensor::from_dispatch(var),
            };
        }
    }
    let normalized = module::batch_norm_train(x, gamma, beta, eps);
    let output = normalized.output;
    BatchNormOutput {
        output: if relu { activation::relu(output) } else { output },
        mean: normalized.mean,
        var: normalized.variance,
    }
}

/// A convolution without bias, dilation or groups, and the normalization behind it.
#[derive(Debug, Clone)]
pub struct ConvNorm {
    /// `[O, C, KH, KW]`.
    pub weight: Tensor<4>,
    /// Scale of the normalization, `[O]`.
    pub gamma: Tensor<1>,
    /// Offset of the normalization, `[O]`.
    pub beta: Tensor<1>,
    /// Stride of the convolution, rows first.
    pub stride: [usize; 2],
    /// Zeros around the picture, rows first.
    pub padding: [usize; 2],
    /// Added to the variance.
    pub eps: f64,
}

/// What is added to a [`residual_block`] before its last ReLU.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one for each block, and only while it is called")]
pub enum Shortcut {
    /// Nothing.
    None,
    /// The input.
    Identity,
    /// The input after a convolution and its normalization.
    Projection(ConvNorm),
}

/// What [`residual_block`] returns.
#[derive(Debug, Clone)]
pub struct BlockOutput {
    /// `[N, O, OH, OW]`.
    pub output: Tensor<4>,
    /// Mean and biased variance, `[O]` each, of every layer of the branch and then of the projection. No gradient
    /// flows through them.
    pub statistics: Vec<[Tensor<1>; 2]>,
    /// How many values of each channel the statistics of each layer were taken of, `N·OH·OW`.
    pub n_values: Vec<usize>,
}

/// One to three convolutions with batch normalization by the statistics of the batch, and a shortcut around them.
///
/// ```text
/// y = relu(norm(conv(… relu(norm(conv(x))) …)) + shortcut(x))
/// ```
/// With one layer and [`Shortcut::None`] this is the stem of a ResNet; two layers make the plain block, three the
/// bottleneck. On the fast path it is one operation of the graph, which keeps only the input, the convolutions' outputs and
/// its own output for the backward pass. With `recompute` it keeps input and output alone, and the backward pass
/// computes the convolutions once more: fewer activations held, a third more convolutions, the same bits. Burn's own
/// operations, where there is no fast path, keep what they keep.
///
/// # Shapes
/// - `x`: `[N, C, H, W]`
/// - returns: see [`BlockOutput`]
///
/// # Panics
/// When `branch` is empty or longer than three, or shapes do not fit each other.
///
/// # Source
/// He et al., *Deep Residual Learning for Image Recognition*, 2015, figures 3 and 5. <https://arxiv.org/abs/1512.03385>
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use twoview_kernels::{ConvNorm, Shortcut, residual_block};
///
/// let device = Device::flex();
/// let layer = ConvNorm {
///     weight: Tensor::ones([1, 1, 1, 1], &device),
///     gamma: Tensor::ones([1], &device),
///     beta: Tensor::zeros([1], &device),
///     stride: [1, 1],
///     padding: [0, 0],
///     eps: 0.0,
/// };
/// let x = Tensor::<1>::from_floats([1.0, 3.0], &device).reshape([2, 1, 1, 1]);
/// let block = residual_block(x, vec![layer], Shortcut::Identity, false);
/// // Normalized to −1 and 1, then added to 1 and 3.
/// assert_eq!(block.output.into_data().try_to_vec::<f32>().expect("f32"), [0.0, 4.0]);
/// ```
#[cfg_attr(not(feature = "flex"), allow(unused_variables, reason = "only the fast path computes again"))]
pub fn residual_block(x: Tensor<4>, branch: Vec<ConvNorm>, shortcut: Shortcut, recompute: bool) -> BlockOutput {
    assert!((1..=3).contains(&branch.len()), "a block has one to three layers, got {}", branch.len());
    #[cfg(feature = "flex")]
    if let Some(geometries) = fast_geometries(&x, &branch, &shortcut) {
        return fast_residual_block(x, branch, shortcut, recompute, geometries);
    }
    let (mut statistics, mut n_values) = (Vec::new(), Vec::new());
    let mut layer = |x: Tensor<4>, layer: ConvNorm, relu: bool| {
        let y = conv2d(x, layer.weight, layer.stride, layer.padding);
        let norm = batch_norm_train(y, layer.gamma, layer.beta, layer.eps, relu);
        statistics.push([norm.mean, norm.var]);
        let [n, _, height, width] = norm.output.dims();
        n_values.push(n * height * width);
        norm.output
    };
    let last = branch.len() - 1;
    let mut y = x.clone();
    for (i, conv_norm) in branch.into_iter().enumerate() {
        y = layer(y, conv_norm, i < last);
    }
    let output = match shortcut {
        Shortcut::None => y,
        Shortcut::Identity => {
            assert_eq!(x.dims(), y.dims(), "an identity keeps the shape of the input");
            y + x
        }
        Shortcut::Projection(conv_norm) => {
            let projected = layer(x, conv_norm, false);
            assert_eq!(projected.dims(), y.dims(), "a projection has the shape of the branch");
            y + projected
        }
    };
    BlockOutput { output: activation::relu(output), statistics, n_values }
}

/// The sizes of all convolutions, the projection's last, if the fast path can take the block.
#[cfg(feature = "flex")]
fn fast_geometries(x: &Tensor<4>, branch: &[ConvNorm], shortcut: &Shortcut) -> Option<Vec<Geometry>> {
    let fits = |layer: &ConvNorm, x: [usize; 4]| {
        let channels = [layer.weight.dims()[0]];
        let fast = on_flex(&layer.weight) && on_flex(&layer.gamma) && on_flex(&layer.beta);
        let fits = layer.gamma.dims() == channels && layer.beta.dims() == channels;
        (fast && fits).then(|| Geometry::new(x, layer.weight.dims(), layer.stride, layer.padding)).flatten()
    };
    if !on_flex(x) {
        return None;
    }
    let mut geometries: Vec<Geometry> = Vec::new();
    for layer in branch {
        let shape = geometries.last().map_or(x.dims(), Geometry::out_shape);
        geometries.push(fits(layer, shape)?);
    }
    let out_shape = geometries.last()?.out_shape();
    match shortcut {
        Shortcut::None => Some(geometries),
        Shortcut::Identity => (x.dims() == out_shape).then_some(geometries),
        Shortcut::Projection(layer) => {
            let projection = fits(layer, x.dims())?;
            geometries.push(projection);
            (projection.out_shape() == out_shape).then_some(geometries)
        }
    }
}

#[cfg(feature = "flex")]
fn fast_residual_block(
    x: Tensor<4>,
    branch: Vec<ConvNorm>,
    shortcut: Shortcut,
    recompute: bool,
    geometries: Vec<Geometry>,
) -> BlockOutput {
    use flex::{BlockTensors, LayerTensors, MaybeLayer};

    let widths: Vec<_> = geometries.iter().map(|geometry| geometry.out_shape()[1]).collect();
    let n_values = geometries.iter().map(|geometry| {
        let [n, _, height, width] = geometry.out_shape();
        n * height * width
    });
    let n_values = n_values.collect();
    let mut geometries = geometries.into_iter();
    let mut layer = |conv_norm: Option<ConvNorm>| match (conv_norm, geometries.next()) {
        (Some(ConvNorm { weight, gamma, beta, eps, .. }), Some(geometry)) => MaybeLayer::Present(LayerTensors {
            weight: weight.into_dispatch(),
            gamma: gamma.into_dispatch(),
            beta: beta.into_dispatch(),
            geometry,
            eps,
        }),
        _ => MaybeLayer::Absent,
    };
    let mut branch = branch.into_iter();
    let MaybeLayer::Present(first) = layer(branch.next()) else { unreachable!("a block has a layer") };
    let mut next = || branch.next().map_or(MaybeLayer::Absent, |conv_norm| layer(Some(conv_norm)));
    let (second, third) = (next(), next());
    let (identity, projection) = match shortcut {
        Shortcut::None => (false, MaybeLayer::Absent),
        Shortcut::Identity => (true, MaybeLayer::Absent),
        Shortcut::Projection(conv_norm) => (false, layer(Some(conv_norm))),
    };
    let layers = BlockTensors { first, second, third, projection, identity, recompute };
    let (output, statistics) = Dispatch::fast_residual_block(x.into_dispatch(), layers);
    let statistics: Tensor<2> = Tensor::from_dispatch(statistics);
    let mut start = 0;
    let statistics = widths.into_iter().map(|width| {
        let part = |row: usize| statistics.clone().slice([row..row + 1, start..start + width]).reshape([width]);
        let pair = [part(0), part(1)];
        start += width;
        pair
    });
    let statistics = statistics.collect();
    BlockOutput { output: Tensor::from_dispatch(output), statistics, n_values }
}

/// A convolution with a bias, as remains of [`ConvNorm`] for evaluation once its normalization is folded in.
#[derive(Debug, Clone)]
pub struct ConvBias {
    /// `[O, C, KH, KW]`.
    pub weight: Tensor<4>,
    /// `[O]`.
    pub bias: Tensor<1>,
    /// Stride, rows first.
    pub stride: [usize; 2],
    /// Zeros around the picture, rows first.
    pub padding: [usize; 2],
}

impl ConvBias {
    /// The convolution of `x` plus bias and, if given, `shortcut`, cut at zero if `relu`.
    ///
    /// # Shapes
    /// - `x`: `[N, C, H, W]`
    /// - `shortcut`: that of the result
    /// - returns: `[N, O, OH, OW]`, see [`conv2d`]
    ///
    /// # Panics
    /// When shapes do not fit each other.
    pub fn forward(&self, x: Tensor<4>, shortcut: Option<Tensor<4>>, relu: bool) -> Tensor<4> {
        let Self { weight, bias, stride, padding } = self.clone();
        #[cfg(feature = "flex")]
        if on_flex(&x)
            && on_flex(&weight)
            && on_flex(&bias)
            && shortcut.as_ref().is_none_or(on_flex)
            && let Some(geometry) = Geometry::new(x.dims(), weight.dims(), stride, padding)
            && bias.dims() == [weight.dims()[0]]
            && shortcut.as_ref().is_none_or(|shortcut| shortcut.dims() == geometry.out_shape())
        {
            let shortcut = shortcut
                .map_or(flex::MaybeTensor::Absent, |shortcut| flex::MaybeTensor::Present(shortcut.into_dispatch()));
            let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
            return Tensor::from_dispatch(Dispatch::fast_conv_bias(x, weight, bias, shortcut, geometry, relu));
        }
        let mut y = module::conv2d(x, weight, Some(bias), ConvOptions::new(stride, padding, [1, 1], 1));
        if let Some(shortcut) = shortcut {
            assert_eq!(shortcut.dims(), y.dims(), "a shortcut has the shape of the result");
            y = y + shortcut;
        }
        if relu { activation::relu(y) } else { y }
    }
}

/// The largest value of each square window.
///
/// # Shapes
/// - `x`: `[N, C, H, W]`
/// - returns: `[N, C, (H + 2·padding − kernel) / stride + 1, (W + 2·padding − kernel) / stride + 1]`
///
/// # Panics
/// When `kernel` or `stride` is 0, or a window may lie in the padding alone (`2·padding > kernel`), or the kernel is
/// larger than the padded picture.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
///
/// let x = Tensor::<1>::from_floats([1.0, 4.0, 3.0], &Device::flex()).reshape([1, 1, 1, 3]);
/// let y = twoview_kernels::max_pool2d(x, 3, 2, 1);
/// assert_eq!(y.into_data().try_to_vec::<f32>().expect("f32"), [4.0, 4.0]);
/// ```
pub fn max_pool2d(x: Tensor<4>, kernel: usize, stride: usize, padding: usize) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    assert!(kernel > 0 && stride > 0 && 2 * padding <= kernel, "a window must hold a pixel");
    assert!(height.min(width) + 2 * padding >= kernel, "the kernel is larger than the padded picture");
    // The number of a tap is kept in a byte.
    #[cfg(feature = "flex")]
    if on_flex(&x) && kernel <= 15 && x.shape().num_elements() > 0 {
        return Tensor::from_dispatch(Dispatch::fast_max_pool2d(x.into_dispatch(), [kernel, stride, padding]));
    }
    let options = MaxPoolOptions::new([kernel; 2]).with_stride([stride; 2]).with_padding([padding; 2]);
    module::max_pool2d(x, options)
}

/// The mean of each channel over all positions.
///
/// # Shapes
/// - `x`: `[N, C, H, W]`
/// - returns: `[N, C]`
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
///
/// let x = Tensor::<1>::from_floats([1.0, 3.0, 5.0, 7.0], &Device::flex()).reshape([1, 2, 1, 2]);
/// let y = twoview_kernels::global_average_pool(x);
/// assert_eq!(y.into_data().try_to_vec::<f32>().expect("f32"), [2.0, 6.0]);
/// ```
pub fn global_average_pool(x: Tensor<4>) -> Tensor<2> {
    let [n, channels, height, width] = x.dims();
    #[cfg(feature = "flex")]
    if on_flex(&x) && x.shape().num_elements() > 0 {
        return Tensor::from_dispatch(Dispatch::fast_global_average_pool(x.into_dispatch()));
    }
    x.reshape([n, channels, height * width]).mean_dim(2).reshape([n, channels])
}

/// How [`sgd_step`] moves a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdRule {
    /// Learning rate.
    pub lr: f32,
    /// `m`, in `[0, 1)`.
    pub momentum: f32,
    /// Whether to look ahead along the momentum.
    pub nesterov: bool,
    /// `λ`, at least 0.
    pub weight_decay: f32,
}

/// A step of stochastic gradient descent: `d = g + λw`, `v ← m v + d`, `w ← w − lr (nesterov ? d + m v : v)`.
///
/// Without a velocity `v` is `d`; without momentum none is returned. On the fast path this is one pass, in place where
/// nobody else holds the tensors, on all threads.
///
/// # Shapes
/// - `weight`, `gradient`, `velocity`: equal
///
/// # Panics
/// When shapes differ.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use twoview_kernels::{SgdRule, sgd_step};
///
/// let one = |value: f32| Tensor::<1>::from_floats([value], &Device::flex());
/// let rule = SgdRule { lr: 0.5, momentum: 0.5, nesterov: false, weight_decay: 0.0 };
/// let (weight, velocity) = sgd_step(one(3.0), one(1.0), Some(one(2.0)), rule);
/// assert_eq!(velocity.expect("momentum").into_scalar::<f32>(), 2.0);
/// assert_eq!(weight.into_scalar::<f32>(), 2.0);
/// ```
pub fn sgd_step<const D: usize>(
    weight: Tensor<D>,
    gradient: Tensor<D>,
    velocity: Option<Tensor<D>>,
    rule: SgdRule,
) -> (Tensor<D>, Option<Tensor<D>>) {
    assert_eq!(weight.dims(), gradient.dims(), "a gradient has the shape of its parameter");
    let remembers = rule.momentum > 0.0;
    let velocity = velocity.filter(|_| remembers);
    if let Some(velocity) = &velocity {
        assert_eq!(weight.dims(), velocity.dims(), "a velocity has the shape of its parameter");
    }
    #[cfg(feature = "flex")]
    if on_flex(&weight)
        && on_flex(&gradient)
        && !weight.is_autodiff()
        && !gradient.is_autodiff()
        && velocity.as_ref().is_none_or(|velocity| on_flex(velocity) && !velocity.is_autodiff())
    {
        let velocity = velocity.map_or(flex::MaybeTensor::Absent, |v| flex::MaybeTensor::Present(v.into_dispatch()));
        let (weight, velocity) =
            Dispatch::fast_sgd_step(weight.into_dispatch(), gradient.into_dispatch(), velocity, rule);
        return (Tensor::from_dispatch(weight), remembers.then(|| Tensor::from_dispatch(velocity)));
    }
    let change = if rule.weight_decay > 0.0 { gradient + weight.clone() * rule.weight_decay } else { gradient };
    let velocity = match velocity {
        Some(velocity) => velocity * rule.momentum + change.clone(),
        None => change.clone(),
    };
    let ahead = if rule.nesterov { change + velocity.clone() * rule.momentum } else { velocity.clone() };
    (weight - ahead * rule.lr, remembers.then_some(velocity))
}

/// `Σ x²`, `[1]`; summed in f64 on the fast path.
pub fn sum_of_squares<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    #[cfg(feature = "flex")]
    if on_flex(&x) && !x.is_autodiff() && x.shape().num_elements() > 0 {
        return Tensor::from_dispatch(Dispatch::fast_sum_of_squares(x.into_dispatch()));
    }
    x.square().sum()
}

/// Whether the fast paths apply to an operand: flex, with or without autodiff, in f32.
#[cfg(feature = "flex")]
fn on_flex<const D: usize>(tensor: &Tensor<D>) -> bool {
    // Burn compares devices regardless of autodiff.
    enabled() && tensor.dtype() == DType::F32 && tensor.device() == Device::flex()
}
