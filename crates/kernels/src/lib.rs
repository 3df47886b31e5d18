//! Fast CPU operations for convolutional networks, as an extension of Burn's flex backend.
//!
//! Three operations carry nearly all the time of a ResNet: convolution, batch normalization and the
//! residual addition. [`conv2d`], [`batch_norm_train`] and [`add_relu`] compute them, with gradients, on
//! any Burn device. On a flex device in f32, with the crate feature `flex`, they take hand-written
//! multi-threaded paths; everywhere else they are Burn's own operations with the same formulas. The
//! choice is made per call from the operands, so one binary may hold several backends.
//!
//! The fast paths use the rayon pool of the caller. Their results do not depend on the number of its
//! threads nor on timing: every sum has a partition and an order that follow from the shapes alone.
//!
//! Legend for shapes: `N` images, `C` channels, `H` rows, `W` columns.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::ops::ConvOptions;
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

/// Two-dimensional cross-correlation without bias, dilation or groups: PyTorch's `conv2d`.
///
/// ```text
/// y[n, o, i, j] = Σ_{c, u, v} weight[o, c, u, v] · x[n, c, i·stride₀ + u − padding₀, j·stride₁ + v − padding₁]
/// ```
/// with zeros outside the picture.
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

/// Addition followed by a ReLU, as at the end of a residual block: `max(a + b, 0)`.
///
/// The gradient is passed to both operands where the output is positive, and is zero elsewhere.
///
/// # Shapes
/// - `a`, `b`: `[N, C, H, W]`, equal
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
///
/// let device = Device::flex();
/// let a = Tensor::<1>::from_floats([1.0, -3.0], &device).reshape([1, 1, 1, 2]);
/// let b = Tensor::<1>::from_floats([1.0, 1.0], &device).reshape([1, 1, 1, 2]);
/// let sum = twoview_kernels::add_relu(a, b);
/// assert_eq!(sum.into_data().try_to_vec::<f32>().expect("f32"), [2.0, 0.0]);
/// ```
pub fn add_relu(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if a.dims() == b.dims() && on_flex(&a) && on_flex(&b) {
        return Tensor::from_dispatch(Dispatch::fast_add_relu(a.into_dispatch(), b.into_dispatch()));
    }
    activation::relu(a.add(b))
}

/// Whether the fast paths apply to an operand: flex, with or without autodiff, in f32.
#[cfg(feature = "flex")]
fn on_flex<const D: usize>(tensor: &Tensor<D>) -> bool {
    // Burn compares devices regardless of autodiff.
    enabled() && tensor.dtype() == DType::F32 && tensor.device() == Device::flex()
}
