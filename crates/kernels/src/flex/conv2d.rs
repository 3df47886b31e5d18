//! Convolution and its two gradients, by the routine that suits the sizes.

use std::ops::Range;

use super::frame::Source;
use super::geometry::Geometry;
use super::shared::Shared;
use super::{direct, winograd};

/// Called with the result, and the pixels and columns of each finished part of it.
///
/// Until it returns, these elements are its own: no other task reads or writes them.
pub(super) type After<'a, T> = &'a (dyn Fn(Shared<'_>, Range<usize>, Range<usize>) -> T + Sync);

/// Writes the convolution of `source` to `out`, which are pixels of [`Geometry::output`].
///
/// `weight` is `[O, C, KH, KW]`. Each finished part is handed to `after` while it is in the cache; what that returns
/// comes back with pixels ascending and columns ascending within them.
pub(super) fn forward<T: Send>(
    geometry: &Geometry,
    source: Source<'_>,
    weight: &[f32],
    out: &mut [f32],
    after: After<'_, T>,
) -> Vec<T> {
    if winograd::applies(geometry) {
        winograd::forward(geometry, source, weight, out, after)
    } else {
        direct::forward(geometry, source, weight, out, after)
    }
}

/// Writes the gradient of the input to `dx`, pixels of [`Geometry::input_gradient`], or adds it if `accumulate`.
///
/// `dy` are pixels of [`Geometry::output`].
pub(super) fn input_gradient(geometry: &Geometry, dy: &[f32], weight: &[f32], dx: &mut [f32], accumulate: bool) {
    let dy = Source { values: dy, extent: geometry.output(), normalize: None };
    if winograd::applies(geometry) {
        winograd::input_gradient(geometry, dy, weight, dx, accumulate);
    } else {
        direct::input_gradient(geometry, dy, weight, dx, accumulate);
    }
}

/// The gradient of the weight, `[O, C, KH, KW]`, from the convolution's source and the output's gradient.
pub(super) fn weight_gradient(geometry: &Geometry, source: Source<'_>, dy: &[f32]) -> Vec<f32> {
    let mut dw = vec![0.0; geometry.weights()];
    if winograd::applies(geometry) {
        winograd::weight_gradient(geometry, source, dy, &mut dw);
    } else {
        direct::weight_gradient(geometry, source, dy, &mut dw);
    }
    dw
}
