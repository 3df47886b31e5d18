//! The cost of a gradient step with a full softmax, which visits all V words, and with NCE, which visits k + 1.
//!
//! ```text
//! softmax  2·n·V·d multiplications forward, twice as many back        NCE  2·n·(k + 1)·d, and twice as many back
//! ```
//! Both start from n contexts of d dimensions. For NCE only the visited rows of the output matrix are read and get a gradient, as a
//! sparse update would have it.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod figure;

use std::time::Instant;

use burn::tensor::{Device, Distribution, Int, Tensor, TensorData, activation};
use rand::{SeedableRng, rngs::StdRng};
use twoview_loss::{Categorical, Noise, NoiseScores, binary_nce};

use figure::{Axes, Figure, Line, draw};

pub(crate) const VOCABULARIES: [usize; 5] = [1_000, 4_000, 16_000, 64_000, 256_000];

pub(crate) const CONTEXTS: usize = 64;
const DIMS: usize = 64;
pub(crate) const NOISE_SAMPLES: usize = 16;

/// Losses of one step, and how long loss and gradient took in milliseconds: the least of five.
pub(crate) struct Timed {
    pub(crate) softmax: (f64, f64),
    pub(crate) nce: (f64, f64),
    /// Scores that were computed, and rows of the output matrix that got a gradient: with a softmax, and with NCE.
    pub(crate) scores: [usize; 2],
    pub(crate) rows: [usize; 2],
}

impl Timed {
    /// Multiplications: every score takes d forward and twice as many back.
    pub(crate) fn multiplications(&self) -> [usize; 2] {
        self.scores.map(|scores| 3 * scores * DIMS)
    }
}

fn numbers(values: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values.iter().map(|value| i64::try_from(*value).expect("small")).collect();
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// Times both on one vocabulary.
pub(crate) fn run(vocabulary: usize) -> Timed {
    let (device, plain) = (Device::flex().autodiff(), Device::flex());
    plain.seed(2012);
    let contexts = Tensor::<2>::random([CONTEXTS, DIMS], Distribution::Normal(0.0, 0.1), &plain);
    let table = Tensor::<2>::random([vocabulary, DIMS], Distribution::Normal(0.0, 0.1), &plain);
    let mut rng = StdRng::seed_from_u64(2012);
    let noise = Categorical::new(&vec![1.0; vocabulary]).expect("uniform");
    let targets: Vec<usize> = (0..CONTEXTS).map(|_| noise.sample(&mut rng)).collect();
    let with_graph = |t: Tensor<2>| Tensor::<2>::from_inner(t).require_grad();
    let least = |step: &mut dyn FnMut() -> f64| {
        let mut least = (0.0, f64::INFINITY);
        for _ in 0..5 {
            let begun = Instant::now();
            let loss = step();
            least = (loss, least.1.min(1e3 * begun.elapsed().as_secs_f64()));
        }
        least
    };
    let (mut scores_of, mut rows_of) = ([0; 2], [0; 2]);
    let rows_with = |grad: Option<Tensor<2>>| grad.map_or(0, |grad| grad.dims()[0]);
    let softmax = least(&mut || {
        let (h, w) = (with_graph(contexts.clone()), with_graph(table.clone()));
        let log_shares = activation::log_softmax(h.clone().matmul(w.clone().transpose()), 1);
        scores_of[0] = log_shares.shape().num_elements();
        let loss = log_shares.gather(1, numbers(&targets, &device).reshape([CONTEXTS, 1])).mean().neg();
        let grads = loss.backward();
        std::hint::black_box(h.grad(&grads));
        rows_of[0] = rows_with(w.grad(&grads));
        f64::from(loss.into_scalar::<f32>())
    });
    let nce = least(&mut || {
        let drawn: Vec<usize> = (0..CONTEXTS * NOISE_SAMPLES).map(|_| noise.sample(&mut rng)).collect();
        let h = with_graph(contexts.clone());
        let rows = |visited: &[usize]| with_graph(table.clone().select(0, numbers(visited, &plain)));
        let (of_data, of_noise) = (rows(&targets), rows(&drawn));
        let s_data = (h.clone() * of_data.clone()).sum_dim(1).squeeze_dim::<1>(1);
        let by_context = of_noise.clone().reshape([CONTEXTS, NOISE_SAMPLES, DIMS]);
        let s_noise = (by_context * h.clone().unsqueeze_dim::<3>(1)).sum_dim(2).squeeze_dim::<2>(2);
        scores_of[1] = s_data.shape().num_elements() + s_noise.shape().num_elements();
        let log_q = noise.log_density(&0);
        let scores = NoiseScores::new(
            s_data,
            s_noise,
            Tensor::full([CONTEXTS], log_q, &device),
            Tensor::full([CONTEXTS, NOISE_SAMPLES], log_q, &device),
        );
        // The small scores make every word alike, so ln Z is ln V.
        let log_z = Tensor::full([1], (vocabulary as f64).ln(), &device);
        let loss = binary_nce(scores.and_then(|scores| scores.with_log_z(log_z)).expect("finite"));
        let grads = loss.backward();
        std::hint::black_box(h.grad(&grads));
        rows_of[1] = rows_with(of_data.grad(&grads)) + rows_with(of_noise.grad(&grads));
        f64::from(loss.into_scalar::<f32>())
    });
    Timed { softmax, nce, scores: scores_of, rows: rows_of }
}

fn main() {
    println!("words    multiplications    rows with a gradient    milliseconds");
    println!("         softmax      NCE     softmax      NCE       softmax      NCE");
    let mut lines = [Line::new("full softmax", []), Line::new("NCE with 16 noise samples", [])];
    for vocabulary in VOCABULARIES {
        let step = run(vocabulary);
        let [full, sampled] = step.multiplications();
        let Timed { softmax, nce, rows: [all, visited], .. } = step;
        println!("{vocabulary:7}  {full:.1e}  {sampled:.1e}  {all:10}  {visited:7}  {:12.2}  {:7.2}", softmax.1, nce.1);
        for (line, (_, ms)) in lines.iter_mut().zip([softmax, nce]) {
            line.points.push((vocabulary as f64, ms));
        }
    }
    draw(
        "cost_of_the_vocabulary",
        &Figure {
            title: "Loss and gradient of 64 contexts",
            x: "words",
            y: "milliseconds",
            axes: Axes::LogBoth,
            lines: lines.into(),
        },
    );
}
