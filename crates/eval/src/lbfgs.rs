//! Limited-memory BFGS for smooth convex functions, in f64.

use std::collections::VecDeque;

/// How many pairs of steps and gradient changes approximate the curvature.
const MEMORY: usize = 12;
/// Sufficient decrease (first Wolfe condition).
const DECREASE: f64 = 1e-4;
/// Sufficient flattening of the slope (second Wolfe condition).
const CURVATURE: f64 = 0.9;
/// Relative rounding error of the objective: below it a decrease cannot be seen, and the slopes decide alone.
const VALUE_NOISE: f64 = 1e-12;
/// Evaluations of one line search. Bisection halves the interval each time, so this exhausts f64.
const MAX_TRIALS: usize = 60;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The largest absolute entry of the gradient at a minimum.
    pub(crate) tolerance: f64,
    /// The number of steps after which the search gives up.
    pub(crate) max_iterations: usize,
}

/// Where the search ended.
#[derive(Clone, Debug)]
pub(crate) struct Minimum {
    pub(crate) x: Vec<f64>,
    pub(crate) value: f64,
    /// The largest absolute entry of the gradient at `x`.
    pub(crate) gradient_max_abs: f64,
    /// Steps taken.
    pub(crate) iterations: usize,
    /// Whether the tolerance was reached.
    pub(crate) converged: bool,
}

/// Minimizes `objective` from `start`.
///
/// `objective(x, g)` returns the value at `x` and writes the gradient to `g`. The step length satisfies the weak Wolfe
/// conditions by bisection, which keeps every curvature pair positive; close to the minimum, where rounding hides the
/// decrease, the approximate condition of Hager and Zhang (2005) replaces the first. Fully deterministic.
///
/// `precondition(g)` replaces `g` by `P g`, where `P` is positive definite and resembles the inverse Hessian up to a factor.
pub(crate) fn minimize(
    mut objective: impl FnMut(&[f64], &mut [f64]) -> f64,
    precondition: impl Fn(&mut [f64]),
    start: Vec<f64>,
    limits: Limits,
) -> Minimum {
    let mut gradient = vec![0.0; start.len()];
    let mut value = objective(&start, &mut gradient);
    let mut x = start;
    let mut history = History::default();
    let mut iterations = 0;
    let mut converged = max_abs(&gradient) <= limits.tolerance;
    while !converged && iterations < limits.max_iterations {
        let direction = history.direction(&gradient, &precondition);
        let slope = dot(&gradient, &direction);
        // Without curvature information, move by a unit length at most.
        let length = dot(&direction, &direction).sqrt();
        let first_trial = if history.pairs.is_empty() { length.recip().min(1.0) } else { 1.0 };
        // Rounding can spoil a direction, never two in a row: the next one starts from the gradient alone.
        let descends = slope < 0.0;
        let search = || wolfe_step(&mut objective, &x, value, slope, &direction, first_trial);
        let Some(step) = descends.then(search).flatten() else {
            if history.pairs.is_empty() {
                break; // Not even along the plain direction: the value's resolution is exhausted.
            }
            history.pairs.clear();
            continue;
        };
        history.push(difference(&step.x, &x), difference(&step.gradient, &gradient), &precondition);
        (x, value, gradient) = (step.x, step.value, step.gradient);
        iterations += 1;
        converged = max_abs(&gradient) <= limits.tolerance;
    }
    Minimum { gradient_max_abs: max_abs(&gradient), x, value, iterations, converged }
}

struct Step {
    x: Vec<f64>,
    value: f64,
    gradient: Vec<f64>,
}

fn wolfe_step(
    objective: &mut impl FnMut(&[f64], &mut [f64]) -> f64,
    start: &[f64],
    start_value: f64,
    start_slope: f64,
    direction: &[f64],
    first_trial: f64,
) -> Option<Step> {
    let (mut low, mut high, mut t) = (0.0, f64::INFINITY, first_trial);
    let mut step = Step { x: vec![0.0; start.len()], value: 0.0, gradient: vec![0.0; start.len()] };
    for _ in 0..MAX_TRIALS {
        for ((x, s), d) in step.x.iter_mut().zip(start).zip(direction) {
            *x = s + t * d;
        }
        step.value = objective(&step.x, &mut step.gradient);
        let slope = dot(&step.gradient, direction);
        let decreased = step.value <= start_value + DECREASE * t * start_slope;
        let flat_within_noise = step.value <= start_value + VALUE_NOISE * start_value.abs()
            && slope <= (2.0 * DECREASE - 1.0) * start_slope;
        // Written so that a NaN, from a step into overflow, shortens the step.
        if !(decreased || flat_within_noise) || !slope.is_finite() {
            high = t;
        } else if slope < CURVATURE * start_slope {
            low = t;
        } else {
            return Some(step);
        }
        t = if high.is_finite() { f64::midpoint(low, high) } else { 2.0 * low };
    }
    None
}

/// What past steps say about the curvature.
#[derive(Default)]
struct History {
    /// The last [`MEMORY`] steps `s` and gradient changes `y`, oldest first, with `1 / s·y`.
    pairs: VecDeque<(Vec<f64>, Vec<f64>, f64)>,
    /// The factor that fits `P` to the latest pair: `s·y / y·P y`.
    scale: f64,
}

impl History {
    fn push(&mut self, s: Vec<f64>, y: Vec<f64>, precondition: impl Fn(&mut [f64])) {
        let curvature = dot(&s, &y);
        // The Wolfe conditions make it positive; only rounding at the very minimum can undo that.
        if curvature > f64::EPSILON * dot(&y, &y) * f64::EPSILON {
            if self.pairs.len() == MEMORY {
                self.pairs.pop_front();
            }
            let mut moved = y.clone();
            precondition(&mut moved);
            self.scale = curvature / dot(&y, &moved);
            self.pairs.push_back((s, y, curvature.recip()));
        }
    }

    /// `−H g` by the two-loop recursion (Nocedal and Wright, *Numerical Optimization*, algorithm 7.4), from `P` scaled
    /// to the latest curvature.
    fn direction(&self, gradient: &[f64], precondition: impl Fn(&mut [f64])) -> Vec<f64> {
        let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let mut alphas = Vec::with_capacity(self.pairs.len());
        for (s, y, rho) in self.pairs.iter().rev() {
            let alpha = rho * dot(s, &q);
            add_scaled(&mut q, -alpha, y);
            alphas.push(alpha);
        }
        precondition(&mut q);
        if !self.pairs.is_empty() {
            q.iter_mut().for_each(|v| *v *= self.scale);
        }
        for ((s, y, rho), alpha) in self.pairs.iter().zip(alphas.into_iter().rev()) {
            let beta = rho * dot(y, &q);
            add_scaled(&mut q, alpha - beta, s);
        }
        q
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn add_scaled(a: &mut [f64], scale: f64, b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(x, y)| *x += scale * y);
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(x, y)| x - y).collect()
}

fn max_abs(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest: f64, v| if largest.is_nan() || v.abs() <= largest { largest } else { v.abs() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIGHT: Limits = Limits { tolerance: 1e-10, max_iterations: 2000 };

    #[test]
    fn solves_an_ill_conditioned_quadratic() {
        // ½ Σ c_i (x_i − i)², condition number 1e4.
        let scales: Vec<f64> = (0..30).map(|i| 10_f64.powf(f64::from(i) / 29.0 * 4.0 - 2.0)).collect();
        let found = minimize(
            |x, g| {
                let mut value = 0.0;
                for (i, (x, g)) in x.iter().zip(g).enumerate() {
                    let distance = x - i as f64;
                    *g = scales[i] * distance;
                    value += 0.5 * scales[i] * distance * distance;
                }
                value
            },
            |_| {},
            vec![0.0; 30],
            TIGHT,
        );
        assert!(found.converged && found.gradient_max_abs <= 1e-10, "{found:?}");
        // |x − x*| ≤ |g| / c_min = 1e-10 / 1e-2.
        assert!(found.x.iter().enumerate().all(|(i, x)| (x - i as f64).abs() <= 1e-8), "{found:?}");
    }

    #[test]
    fn the_inverse_hessian_solves_a_quadratic_at_once() {
        let scales = [1e-6, 1.0, 1e6];
        let found = minimize(
            |x, g| {
                (0..3).for_each(|i| g[i] = scales[i] * (x[i] - 1.0));
                (0..3).map(|i| 0.5 * scales[i] * (x[i] - 1.0).powi(2)).sum()
            },
            |g| (0..3).for_each(|i| g[i] /= scales[i]),
            vec![0.5; 3],
            TIGHT,
        );
        assert_eq!((found.converged, found.iterations), (true, 1), "{found:?}");
    }

    #[test]
    fn solves_what_overflows_at_the_first_step() {
        // exp(40 x) − 40 x, minimum at 0; from x = 10 a step along the gradient meets infinities in between.
        let found = minimize(
            |x, g| {
                g[0] = 40.0 * (40.0 * x[0]).exp() - 40.0;
                (40.0 * x[0]).exp() - 40.0 * x[0]
            },
            |_| {},
            vec![-30.0],
            TIGHT,
        );
        assert!(found.converged && found.x[0].abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn says_when_it_gave_up() {
        // Flat around its minimum: each step only shortens x by some factor.
        let quartic = |x: &[f64], g: &mut [f64]| {
            g[0] = 4.0 * x[0].powi(3);
            x[0].powi(4)
        };
        let found = minimize(quartic, |_| {}, vec![3.0], Limits { tolerance: 0.0, max_iterations: 3 });
        assert_eq!((found.converged, found.iterations), (false, 3));
        let found = minimize(quartic, |_| {}, vec![0.0], Limits { tolerance: 0.0, max_iterations: 3 });
        assert_eq!((found.converged, found.iterations, found.value), (true, 0, 0.0));
    }
}
