//! Burn's operations against the fast paths: single layers, then a ResNet-18 training step.
//!
//! Both variants alternate within one run, so that a change of the machine's load hits both; the figures are medians of
//! wall-clock times. Arguments: base width (16), source pictures per batch (64), repetitions (7). With the word
//! `fast` only the fast training step runs, for a profiler.

#![allow(clippy::print_stdout, reason = "the table is the purpose")]

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use twoview_kernels::{ConvNorm, Shortcut, conv2d, global_average_pool, residual_block, set_enabled};

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

/// A convolution with its normalization.
fn conv_norm(inputs: usize, outputs: usize, kernel: usize, stride: usize, device: &Device) -> ConvNorm {
    ConvNorm {
        weight: leaf([outputs, inputs, kernel, kernel], device),
        gamma: Tensor::ones([outputs], device).require_grad(),
        beta: Tensor::zeros([outputs], device).require_grad(),
        stride: [stride; 2],
        padding: [kernel / 2; 2],
        eps: 1e-5,
    }
}

/// A plain block; it projects where the shape changes.
fn block(inputs: usize, outputs: usize, stride: usize, device: &Device) -> (Vec<ConvNorm>, Shortcut) {
    let branch = vec![conv_norm(inputs, outputs, 3, stride, device), conv_norm(outputs, outputs, 3, 1, device)];
    let shortcut = match stride {
        1 => Shortcut::Identity,
        _ => Shortcut::Projection(conv_norm(inputs, outputs, 1, stride, device)),
    };
    (branch, shortcut)
}

/// The convolutional part of ResNet-18 with a CIFAR stem.
struct Network {
    blocks: Vec<(Vec<ConvNorm>, Shortcut)>,
}

impl Network {
    fn new(width: usize, device: &Device) -> Self {
        let mut blocks = vec![(vec![conv_norm(3, width, 3, 1, device)], Shortcut::None)];
        for stage in 0..4 {
            let outputs = width << stage;
            let (inputs, stride) = if stage > 0 { (outputs / 2, 2) } else { (width, 1) };
            blocks.extend([block(inputs, outputs, stride, device), block(outputs, outputs, 1, device)]);
        }
        Self { blocks }
    }

    fn step(&self, images: Tensor<4>) {
        let x = self
            .blocks
            .iter()
            .fold(images, |x, (branch, shortcut)| residual_block(x, branch.clone(), shortcut.clone(), false).output);
        let features = global_average_pool(x);
        let gradients = (features.clone() * features).sum().backward();
        assert!(self.blocks[0].0[0].weight.grad(&gradients).is_some());
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
    println!("{:<44}{:>12}{:>12}{:>10}", "forward and backward", "stock ms", "fast ms", "factor");

    let report = |name: &str, [stock, fast]: [f64; 2]| {
        println!("{name:<44}{:>12.2}{:>12.2}{:>10.1}", stock * 1e3, fast * 1e3, stock / fast);
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
            (leaf([views, inputs, side, side], &device), conv_norm(inputs, outputs, kernel, stride, &device));
        let times = compare(repetitions, || {
            let y = conv2d(x.clone(), layer.weight.clone(), [stride; 2], [kernel / 2; 2]);
            y.sum().backward();
        });
        let pixels = views * (side / stride) * (side / stride);
        // Forward and two gradients, as the definition counts them.
        let operations = 3 * 2 * pixels * outputs * inputs * kernel * kernel;
        let rate = operations as f64 / times[1] / 1e9;
        report(&format!("conv {inputs}→{outputs} {kernel}×{kernel}/{stride} @{side} {rate:5.0} GFLOP/s"), times);
    }
    for (channels, stride, side) in [(width, 1, 32), (2 * width, 2, 16), (8 * width, 1, 4)] {
        let (inputs, from) = (channels / stride, side * stride);
        let x = leaf([views, inputs, from, from], &device);
        let (branch, shortcut) = block(inputs, channels, stride, &device);
        let times = compare(repetitions, || {
            residual_block(x.clone(), branch.clone(), shortcut.clone(), false).output.sum().backward();
        });
        report(&format!("block {inputs}→{channels}/{stride} @{from}"), times);
    }

    let times = compare(repetitions, || network.step(images.clone()));
    report("ResNet-18 step, CIFAR stem", times);
    println!("pictures/s: stock {:.0}, fast {:.0}", pictures as f64 / times[0], pictures as f64 / times[1]);
}
