//! Noise that moves with the model teaches it nothing, if its density moves too.
//!
//! ```text
//! ln p(x) = ln N(x; μ, 1)        data N(2, 1), μ begins at 0
//! ```
//! Fixed noise leads μ to the data. So does noise drawn from a frozen copy of the model: its gradient is half that of maximum
//! likelihood. But where the noise's density is the model's own, the logit `ln p − ln q − ln k` is the same for every μ,
//! nothing can be told apart, and the loss stays at `2·ln 2` with no slope.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod figure;

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use twoview_loss::{NoiseScores, binary_nce};

use figure::{Axes, Figure, Line, draw};

const STEPS: usize = 60;
const SAMPLES: usize = 2000;

/// Where the data are.
pub(crate) const TRUTH: f64 = 2.0;

/// What the noise is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Fixed,
    /// Drawn from the model as it is, with that density as a constant.
    FrozenCopy,
    /// Drawn from the model, with the model's own density, slope and all.
    Moving,
}

/// μ and the loss at every step.
pub(crate) struct Course {
    pub(crate) mu: Vec<f64>,
    pub(crate) loss: Vec<f64>,
}

fn normal(rng: &mut StdRng) -> f64 {
    let (radius, angle) = (1.0 - rng.random::<f64>(), rng.random::<f64>() * std::f64::consts::TAU);
    (-2.0 * radius.ln()).sqrt() * angle.cos()
}

/// Gradient descent on μ.
pub(crate) fn run(kind: Kind) -> Course {
    let device = Device::flex().autodiff();
    let mut rng = StdRng::seed_from_u64(2014);
    let tensor = |values: Vec<f64>| -> Tensor<1> {
        let n = values.len();
        Tensor::from_data(TensorData::new(values, [n]).convert::<f32>(), &device)
    };
    let log_density = |x: Tensor<1>, mu: Tensor<1>, std: f64| {
        let distance = (x - mu).div_scalar(std);
        distance.square().mul_scalar(-0.5).sub_scalar(std.ln() + 0.5 * std::f64::consts::TAU.ln())
    };
    let mut mu = 0.0;
    let mut course = Course { mu: vec![mu], loss: Vec::new() };
    for _ in 0..STEPS {
        let centre = tensor(vec![mu]).require_grad();
        let data = tensor((0..SAMPLES).map(|_| TRUTH + normal(&mut rng)).collect());
        let (from, std) = if kind == Kind::Fixed { (0.0, 2.0) } else { (mu, 1.0) };
        let noise = tensor((0..SAMPLES).map(|_| from + std * normal(&mut rng)).collect());
        let of_noise = if kind == Kind::Moving { centre.clone() } else { tensor(vec![from]) };
        let q = |x: &Tensor<1>| log_density(x.clone(), of_noise.clone(), std);
        let p = |x: &Tensor<1>| log_density(x.clone(), centre.clone(), 1.0);
        let column = |t: Tensor<1>| t.reshape([SAMPLES, 1]);
        let scores = NoiseScores::new(p(&data), column(p(&noise)), q(&data), column(q(&noise))).expect("finite");
        let loss = binary_nce(scores);
        course.loss.push(f64::from(loss.clone().into_scalar::<f32>()));
        let slope = centre.grad(&loss.backward()).map_or(0.0, |slope| f64::from(slope.into_scalar::<f32>()));
        mu -= 0.2 * slope;
        course.mu.push(mu);
    }
    course
}

fn main() {
    let courses = [
        ("fixed noise", run(Kind::Fixed)),
        ("noise from a frozen copy", run(Kind::FrozenCopy)),
        ("noise that moves with the model", run(Kind::Moving)),
    ];
    for (name, course) in &courses {
        let (mu, loss) = (course.mu[STEPS], course.loss[STEPS - 1]);
        println!("{name:32}  μ = {mu:6.3} after {STEPS} steps, loss {loss:.4}");
    }
    let line = |(name, course): &(&str, Course)| Line::new(*name, (0..).map(f64::from).zip(course.mu.iter().copied()));
    draw(
        "moving_noise",
        &Figure {
            title: "A mean learned by NCE; the data are at 2",
            x: "step",
            y: "μ",
            axes: Axes::Linear,
            lines: courses.iter().map(line).collect(),
        },
    );
}
