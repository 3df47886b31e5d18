//! The bound of InfoNCE against a pair whose mutual information is known, and the ceiling that the batch sets.
//!
//! ```text
//! u ~ N(0, I), v = ρ·u + √(1 − ρ²)·ε in d dimensions        I(u; v) = −d/2 · ln(1 − ρ²)
//! ```
//! With the best critic there is, `ln p(v|u)/p(v)`, the bound `ln N − InfoNCE` is as tight as N allows. It never exceeds `ln N`
//! (for NT-Xent `ln(2N − 1)`): a batch of 64 cannot show more than 4.2 nats, whatever the encoder knows.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod figure;

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use twoview_loss::{InfoNceConfig, Objective, PairedViews};

use figure::{Axes, Figure, Line, draw};

const DIMS: usize = 4;

pub(crate) const BATCHES: [usize; 9] = [4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// The mutual information of the pairs, in nats.
pub(crate) const INFORMATION: [f64; 3] = [1.0, 3.0, 6.0];

fn normal(rng: &mut StdRng) -> f64 {
    let (radius, angle) = (1.0 - rng.random::<f64>(), rng.random::<f64>() * std::f64::consts::TAU);
    (-2.0 * radius.ln()).sqrt() * angle.cos()
}

/// The bound that batches of `n` pairs show on average, in nats.
pub(crate) fn bound(information: f64, n: usize) -> f64 {
    let mut rng = StdRng::seed_from_u64(2018);
    let device = Device::flex();
    let rho_2 = 1.0 - (-2.0 * information / DIMS as f64).exp();
    let (rho, rest) = (rho_2.sqrt(), 1.0 - rho_2);
    // The critic as a product of rows: [ρ·u/rest, −ρ²|u|²/(2·rest), 1] · [v, 1, −ρ²|v|²/(2·rest)]. What depends on u alone
    // cancels in the softmax over v, so it is left at 0.
    let objective = InfoNceConfig { temperature: 1.0, both_ways: false, n_cancelled: 0 }.init().expect("valid");
    let rounds = (4096 / n).max(4);
    let shown = (0..rounds).map(|_| {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let u: Vec<f64> = (0..DIMS).map(|_| normal(&mut rng)).collect();
            let v: Vec<f64> = u.iter().map(|u| rho * u + rest.sqrt() * normal(&mut rng)).collect();
            let square: f64 = v.iter().map(|v| v * v).sum();
            first.extend(u.iter().map(|u| rho * u / rest).chain([1.0]));
            second.extend(v.iter().copied().chain([-0.5 * rho_2 * square / rest]));
        }
        let tensor = |rows: Vec<f64>| -> Tensor<2> {
            Tensor::from_data(TensorData::new(rows, [n, DIMS + 1]).convert::<f32>(), &device)
        };
        // The rows are the critic's own, to be used as they are.
        let views = PairedViews::from_unit_rows(tensor(first), tensor(second)).expect("finite");
        objective.contrast(views).stats.mutual_information.expect("nothing is left out")
    });
    shown.sum::<f64>() / rounds as f64
}

fn main() {
    println!("    N   ln N{}", INFORMATION.map(|i| format!("   I = {i:.0}")).concat());
    let mut lines: Vec<Line> = INFORMATION.iter().map(|i| Line::new(format!("I = {i} nats"), [])).collect();
    for n in BATCHES {
        let ceiling = (n as f64).ln();
        let bounds = INFORMATION.map(|information| bound(information, n));
        println!("{n:5}  {ceiling:5.2}{}", bounds.map(|bound| format!("  {bound:6.2}")).concat());
        lines.iter_mut().zip(bounds).for_each(|(line, bound)| line.points.push((n as f64, bound)));
    }
    lines.push(Line::new("ceiling ln N", BATCHES.map(|n| (n as f64, (n as f64).ln()))));
    draw(
        "mutual_information_bound",
        &Figure {
            title: "What InfoNCE can say about the mutual information",
            x: "pairs in the batch",
            y: "bound, nats",
            axes: Axes::LogX,
            lines,
        },
    );
}
