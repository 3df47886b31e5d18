//! The sum of two tensors cut at zero, and its gradient.

use rayon::prelude::*;

use super::TASK_ELEMENTS;
use super::vectorized::vectorized;

/// `max(a + b, 0)`.
pub(super) fn forward(a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; a.len()];
    y.par_chunks_mut(TASK_ELEMENTS)
        .zip(a.par_chunks(TASK_ELEMENTS).zip(b.par_chunks(TASK_ELEMENTS)))
        .for_each(|(y, (a, b))| add(a, b, y));
    y
}

/// The gradient of both terms: that of the output where the output `y` is positive.
pub(super) fn backward(y: &[f32], dy: &[f32]) -> Vec<f32> {
    let mut dx = vec![0.0; y.len()];
    dx.par_chunks_mut(TASK_ELEMENTS)
        .zip(y.par_chunks(TASK_ELEMENTS).zip(dy.par_chunks(TASK_ELEMENTS)))
        .for_each(|(dx, (y, dy))| mask(y, dy, dx));
    dx
}

vectorized! {
    fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
        for (y, (&a, &b)) in y.iter_mut().zip(a.iter().zip(b)) {
            let sum = a + b;
            // Unlike `max`, this keeps a NaN.
            *y = if sum < 0.0 { 0.0 } else { sum };
        }
    }
}

vectorized! {
    fn mask(y: &[f32], dy: &[f32], dx: &mut [f32]) {
        for (dx, (&y, &dy)) in dx.iter_mut().zip(y.iter().zip(dy)) {
            *dx = if y > 0.0 { dy } else { 0.0 };
        }
    }
}
