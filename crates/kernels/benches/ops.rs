//! Burn's operations against the fast paths: single layers, then a ResNet-18 training step.
//!
//! Both variants alternate within one run, so that a change of the machine's load hits both; the figures are medians of
//! wall-clock times. Arguments: base width (16), source pictures per batch (64), repetitions (7). With the word
//! `fast` only the fast training step runs, for a profiler.

#![allow(clippy::print_stdout, reason = "the table is the purpose")]

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use twoview_kernels::{add_relu, batch_norm_train, conv2d, set_enabled};

/// Median seconds of `stock` and `fast` runs of `step`, alternating, after one unmeasured pair.
fn compare(repetitions: usize, step: impl Fn()) -> [f64; 2] {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..=repetitions {
        for (fast, times) in times.iter_mut().enumerate() {
            set_enabled(fast == 1);
            let start = Instant::now();
            step();
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.map(|mut times| {
        times.remove(0);
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

fn noise<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 0.1), device)
}

fn leaf<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    noise(shape, device).require_grad()
}

/// Convolution followed by batch normalization with its parameters.
struct ConvNorm {
    weight: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    stride: usize,
}

impl ConvNorm {
    fn new(inputs: usize, outputs: usize, kernel: usize, stride: usize, device: &Device) -> Self {
        Self {
            weight: leaf([outputs, inputs, kernel, kernel], device),
            gamma: Tensor::ones([outputs], device).require_grad(),
            beta: Tensor::zeros([outputs], device).require_grad(),
            stride,
        }
    }

    fn forward(&self, x: Tensor<4>, relu: bool) -> Tensor<4> {
        let padding = self.weight.dims()[2] / 2;
        let y = conv2d(x, self.weight.clone(), [self.stride; 2], [padding; 2]);
        batch_norm_train(y, self.gamma.clone(), self.beta.clone(), 1e-5, relu).output
    }
}

/// The convolutional part of ResNet-18 with a CIFAR stem.
struct Network {
    stem: ConvNorm,
    blocks: Vec<(ConvNorm, ConvNorm, Option<ConvNorm>)>,
}

impl Network {
    fn new(width: usize, device: &Device) -> Self {
        let mut blocks = Vec::new();
        let mut inputs = width;
        for stage in 0..4 {
            for block in 0..2 {
                let outputs = width << stage;
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                blocks.push((
                    ConvNorm::new(inputs, outputs, 3, stride, device),
                    ConvNorm::new(outputs, outputs, 3, 1, device),
                    (stride == 2).then(|| ConvNorm::new(inputs, outputs, 1, 2, device)),
                ));
                inputs = outputs;
            }
        }
        Self { stem: ConvNorm::new(3, width, 3, 1, device), blocks }
    }

    fn step(&self, images: Tensor<4>) {
        let mut x = self.stem.forward(images, true);
        for (first, second, shortcut) in &self.blocks {
            let inner = second.forward(first.forward(x.clone(), true), false);
            let outer = shortcut.as_ref().map_or(x.clone(), |shortcut| shortcut.forward(x, false));
            x = add_relu(inner, outer);
        }
        let features = x.mean_dim(3).mean_dim(2);
        let gradients = (features.clone() * features).sum().backward();
        assert!(self.stem.weight.grad(&gradients).is_some());
    }
}

fn main() {
    // Cargo passes `--bench`.
    let sizes: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let at = |i: usize, default: usize| sizes.get(i).copied().unwrap_or(default);
    let (width, pictures, repetitions) = (at(0, 16), at(1, 64), at(2, 7));
    let views = 2 * pictures;
    let device = Device::flex().autodiff();
    let network = Network::new(width, &device);
    let images = noise([views, 3, 32, 32], &device);
    if std::env::args().any(|argument| argument == "fast") {
        return (0..repetitions).for_each(|_| network.step(images.clone()));
    }
    println!("{} threads, width {width}, {pictures} pictures, medians of {repetitions}", rayon::current_num_threads());
    println!("{:<34}{:>12}{:>12}{:>10}", "forward and backward", "stock ms", "fast ms", "factor");

    let report = |name: &str, [stock, fast]: [f64; 2]| {
        println!("{name:<34}{:>12.2}{:>12.2}{:>10.1}", stock * 1e3, fast * 1e3, stock / fast);
    };
    for (inputs, outputs, side, kernel, stride) in [
        (3, width, 32, 3, 1),
        (width, width, 32, 3, 1),
        (width, 2 * width, 32, 3, 2),
        (width, 2 * width, 32, 1, 2),
        (2 * width, 2 * width, 16, 3, 1),
        (4 * width, 4 * width, 8, 3, 1),
        (8 * width, 8 * width, 4, 3, 1),
    ] {
        let (x, layer) =
            (leaf([views, inputs, side, side], &device), ConvNorm::new(inputs, outputs, kernel, stride, &device));
        let times = compare(repetitions, || {
            let y = conv2d(x.clone(), layer.weight.clone(), [stride; 2], [kernel / 2; 2]);
            y.sum().backward();
        });
        report(&format!("conv {inputs}→{outputs} {kernel}×{kernel}/{stride} @{side}"), times);
    }
    for (channels, side) in [(width, 32), (8 * width, 4)] {
        let [x, other] = [0; 2].map(|_| leaf([views, channels, side, side], &device));
        let layer = ConvNorm::new(1, channels, 1, 1, &device);
        let times = compare(repetitions, || {
            batch_norm_train(x.clone(), layer.gamma.clone(), layer.beta.clone(), 1e-5, true).output.sum().backward();
        });
        report(&format!("batch norm + relu {channels} @{side}"), times);
        let times = compare(repetitions, || {
            add_relu(x.clone(), other.clone()).sum().backward();
        });
        report(&format!("add + relu {channels} @{side}"), times);
    }

    let times = compare(repetitions, || network.step(images.clone()));
    report("ResNet-18 step, CIFAR stem", times);
    println!("pictures/s: stock {:.0}, fast {:.0}", pictures as f64 / times[0], pictures as f64 / times[1]);
}
