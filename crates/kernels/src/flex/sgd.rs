//! The update of a parameter, and the size of its gradient, in one pass each.

use rayon::prelude::*;

use super::vectorized::vectorized;
use crate::SgdRule;

/// Elements of a task.
const TASK: usize = 1 << 15;

/// Moves `weight` and `velocity`; see [`crate::sgd_step`].
pub(super) fn step(weight: &mut [f32], gradient: &[f32], velocity: &mut [f32], rule: SgdRule) {
    weight
        .par_chunks_mut(TASK)
        .zip(gradient.par_chunks(TASK))
        .zip(velocity.par_chunks_mut(TASK))
        .for_each(|((weight, gradient), velocity)| step_part(weight, gradient, velocity, rule));
}

vectorized! {
    fn step_part(weight: &mut [f32], gradient: &[f32], velocity: &mut [f32], rule: SgdRule) {
        let SgdRule { lr, momentum, nesterov, weight_decay } = rule;
        for ((weight, gradient), velocity) in weight.iter_mut().zip(gradient).zip(velocity) {
            let change = gradient + weight_decay * *weight;
            *velocity = momentum * *velocity + change;
            let ahead = if nesterov { change + momentum * *velocity } else { *velocity };
            *weight -= lr * ahead;
        }
    }
}

/// `Σ x²`, in f32 over vectors of a thousand elements and in f64 beyond.
pub(super) fn sum_of_squares(x: &[f32]) -> f64 {
    // Collected, because a parallel sum has no fixed order.
    let parts: Vec<f64> = x.par_chunks(TASK).map(sum_of_squares_part).collect();
    parts.iter().sum()
}

vectorized! {
    fn sum_of_squares_part(x: &[f32]) -> f64 {
        let mut sum = 0.0;
        for block in x.chunks(1024) {
            let (vectors, rest) = block.as_chunks::<16>();
            let mut lanes = [0.0f32; 16];
            for vector in vectors {
                for lane in 0..16 {
                    lanes[lane] += vector[lane] * vector[lane];
                }
            }
            for &value in rest {
                lanes[0] += value * value;
            }
            for lane in lanes {
                sum += f64::from(lane);
            }
        }
        sum
    }
}
