//! Skip-gram with negative sampling on a small text: words that keep the same company become neighbours.
//!
//! The text is made here, 4,000 sentences from a handful of patterns about four subjects, and belongs to nobody. A word's
//! vector learns to tell the words around it from words drawn by their flattened frequency.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod figure;

use burn::{
    module::{Module, Param},
    optim::{AdamConfig, GradientsParams},
    tensor::{Device, Distribution, Int, Tensor, TensorData},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use twoview_loss::{Categorical, Noise, negative_sampling};

use figure::{Axes, Figure, Line, draw};

/// Words that are used alike.
pub(crate) const GROUPS: [(&str, [&str; 5]); 6] = [
    ("animals", ["cat", "dog", "horse", "mouse", "fox"]),
    ("dishes", ["soup", "bread", "cheese", "rice", "cake"]),
    ("vehicles", ["train", "bus", "ship", "tram", "plane"]),
    ("instruments", ["piano", "violin", "drum", "flute", "harp"]),
    ("movements", ["runs", "jumps", "sleeps", "hides", "hunts"]),
    ("tastes", ["salty", "sweet", "warm", "fresh", "bitter"]),
];

/// Sentences; a number stands for a word of that group.
const PATTERNS: [&str; 8] = [
    "the 0 4 in the garden",
    "a small 0 4 near the old house",
    "we eat 5 1 for dinner",
    "this 1 tastes 5 today",
    "the 2 leaves the station at noon",
    "she took a 2 to the city",
    "he plays the 3 in the evening",
    "a 3 sounds softly in the hall",
];

const DIMS: usize = 16;
const WINDOW: usize = 2;
const NOISE_SAMPLES: usize = 5;

#[derive(Module, Debug)]
struct Model {
    words: Param<Tensor<2>>,
    contexts: Param<Tensor<2>>,
}

/// Vocabulary and vectors.
pub(crate) struct Outcome {
    pub(crate) words: Vec<String>,
    pub(crate) vectors: Vec<Vec<f32>>,
    pub(crate) losses: Vec<f64>,
}

impl Outcome {
    fn vector(&self, word: &str) -> &[f32] {
        let at = self.words.iter().position(|other| other == word).expect("a word of the text");
        &self.vectors[at]
    }

    /// The words with the largest cosine.
    pub(crate) fn neighbours(&self, word: &str, n: usize) -> Vec<&str> {
        let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
        let of = self.vector(word);
        let cosine = |other: &[f32]| of.iter().zip(other).map(|(a, b)| a * b).sum::<f32>() / norm(of) / norm(other);
        let mut others: Vec<(f32, &str)> =
            self.words.iter().zip(&self.vectors).map(|(w, v)| (cosine(v), w.as_str())).collect();
        others.retain(|(_, other)| *other != word);
        others.sort_by(|a, b| b.0.total_cmp(&a.0));
        others.into_iter().take(n).map(|(_, word)| word).collect()
    }
}

fn text(rng: &mut StdRng) -> Vec<Vec<&'static str>> {
    let word = |token: &'static str, rng: &mut StdRng| match token.parse::<usize>() {
        Ok(group) => GROUPS[group].1[rng.random_range(0..5)],
        Err(_) => token,
    };
    (0..4000)
        .map(|_| PATTERNS[rng.random_range(0..PATTERNS.len())].split(' ').map(|token| word(token, rng)).collect())
        .collect()
}

/// Learns the vectors.
pub(crate) fn run() -> Outcome {
    let mut rng = StdRng::seed_from_u64(2013);
    let sentences = text(&mut rng);
    let mut words: Vec<String> = sentences.iter().flatten().map(|word| (*word).to_owned()).collect();
    words.sort();
    words.dedup();
    let number = |word: &str| words.iter().position(|other| other == word).expect("in the vocabulary");
    let mut counts = vec![0.0; words.len()];
    let mut pairs = Vec::new();
    for sentence in &sentences {
        let numbers: Vec<usize> = sentence.iter().map(|word| number(word)).collect();
        for (at, &word) in numbers.iter().enumerate() {
            counts[word] += 1.0;
            let around = at.saturating_sub(WINDOW)..(at + WINDOW + 1).min(numbers.len());
            pairs.extend(around.filter(|&other| other != at).map(|other| (word, numbers[other])));
        }
    }
    let noise =
        Categorical::new(&counts.iter().map(|count: &f64| count.powf(0.75)).collect::<Vec<_>>()).expect("all occur");

    let device = Device::flex().autodiff();
    device.seed(2013);
    let table = || Param::from_tensor(Tensor::random([words.len(), DIMS], Distribution::Normal(0.0, 0.3), &device));
    let mut model = Model { words: table(), contexts: table() };
    let mut optimizer = AdamConfig::new().init();
    let mut losses = Vec::new();
    let batch = 1024;
    for _ in 0..250 {
        let chosen: Vec<(usize, usize)> = (0..batch).map(|_| pairs[rng.random_range(0..pairs.len())]).collect();
        let drawn: Vec<usize> = (0..batch * NOISE_SAMPLES).map(|_| noise.sample(&mut rng)).collect();
        let rows = |table: &Param<Tensor<2>>, numbers: Vec<usize>| {
            let n = numbers.len();
            let numbers: Vec<i64> = numbers.into_iter().map(|number| i64::try_from(number).expect("small")).collect();
            table.val().select(0, Tensor::<1, Int>::from_data(TensorData::new(numbers, [n]), &device))
        };
        let of_words = rows(&model.words, chosen.iter().map(|pair| pair.0).collect());
        let of_contexts = rows(&model.contexts, chosen.iter().map(|pair| pair.1).collect());
        let of_noise = rows(&model.contexts, drawn).reshape([batch, NOISE_SAMPLES, DIMS]);
        let s_data = (of_words.clone() * of_contexts).sum_dim(1).squeeze_dim::<1>(1);
        let s_noise = (of_noise * of_words.unsqueeze_dim::<3>(1)).sum_dim(2).squeeze_dim::<2>(2);
        let loss = negative_sampling(s_data, s_noise).expect("finite");
        losses.push(f64::from(loss.clone().into_scalar::<f32>()));
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(0.02, model, grads);
    }
    let data = model.words.val().without_autodiff().into_data();
    let vectors = data.try_to_vec::<f32>().expect("f32").chunks_exact(DIMS).map(<[f32]>::to_vec).collect();
    Outcome { words, vectors, losses }
}

fn main() {
    let outcome = run();
    for (group, members) in GROUPS {
        println!("{group}");
        for word in members {
            println!("  {word:8} {}", outcome.neighbours(word, 4).join(" "));
        }
    }
    draw(
        "skip_gram",
        &Figure {
            title: "Skip-gram with negative sampling",
            x: "step",
            y: "loss, nats",
            axes: Axes::Linear,
            lines: vec![
                Line::new("loss", (1..).map(f64::from).zip(outcome.losses)),
                Line::new("nothing learned, 6·ln 2", [(1.0, 6.0 * 2.0_f64.ln()), (250.0, 6.0 * 2.0_f64.ln())]),
            ],
        },
    );
}
