//! `bench step`: how fast this machine trains.

use std::time::Instant;

use burn::tensor::Device;
use serde_json::json;
use twoview_augment::Stream;
use twoview_data::ViewBatch;
use twoview_encoder::{EncoderConfig, HeadConfig, Stem};
use twoview_loss::{NtXentConfig, Objective};
use twoview_optim::OptimizerConfig;
use twoview_train::{NetworkConfig, TrainState, step};

use crate::{
    args::BenchStepArgs,
    device,
    failure::{Exit, Failure, OrExit},
    terminal::{Counter, result, result_json},
};

/// Up to this side the CIFAR stem keeps enough of the picture.
const CIFAR_STEM_PX: usize = 64;

/// Steps before the timed ones: the first also allocates, and on GPUs compiles; the second meets what the first left.
const UNCOUNTED: usize = 2;

/// `twoview bench step`: the whole training step on fixed random pictures, nothing loaded.
///
/// # Errors
/// [`Exit::Usage`] where the sizes make no network or the device is not there.
pub(crate) fn bench_step(args: &BenchStepArgs) -> Result<(), Failure> {
    twoview_kernels::set_enabled(!args.stock);
    let (name, device) = device::open(&args.device.device)?;
    let device = device.autodiff();
    let stem = if args.image <= CIFAR_STEM_PX { Stem::Cifar } else { Stem::Imagenet };
    let encoder = EncoderConfig { arch: args.arch, stem, width: args.width };
    // The shapes of common recipes: features, twice as many, 128.
    let hidden_dim = 2 * encoder.feature_dim();
    let mut network =
        NetworkConfig { encoder, head: HeadConfig { n_layers: 2, hidden_dim, output_dim: 128, batch_norm: false } }
            .init(0, &device)
            .or_exit(Exit::Usage)?;
    network.encoder = network.encoder.with_recompute(args.recompute);
    let optimizer =
        OptimizerConfig::Sgd { lr_per_256: 0.06, momentum: 0.9, nesterov: false, weight_decay: 5e-4 }.init();
    let objective = NtXentConfig { temperature: 0.5 }.init().or_exit(Exit::Bug)?;
    let state = TrainState { network, optimizer: optimizer.or_exit(Exit::Bug)?, step: 0 };
    let mut seconds = time_steps(args, state, &objective, &device)?;

    seconds.sort_by(f64::total_cmp);
    let images_per_s = args.batch as f64 / seconds[seconds.len() / 2];
    let peak_rss_mib = peak_rss_mib();
    if args.json {
        return result_json(&json!({
            "images_per_s": images_per_s,
            "images_per_s_min": args.batch as f64 / seconds[seconds.len() - 1],
            "images_per_s_max": args.batch as f64 / seconds[0],
            "peak_rss_mib": peak_rss_mib,
            "device": name,
            "arch": args.arch,
            "stem": stem,
            "width": args.width,
            "image": args.image,
            "batch": args.batch,
            "steps": args.steps,
            "kernels": !args.stock,
            "recompute": args.recompute,
        }));
    }
    result(&format!("{images_per_s:.1} img/s (median of {} steps; an image is two views)", args.steps))?;
    match peak_rss_mib {
        Some(mib) => result(&format!("{mib:.0} MiB at the peak")),
        None => Ok(()),
    }
}

fn time_steps(
    args: &BenchStepArgs,
    mut state: TrainState,
    objective: &dyn Objective,
    device: &Device,
) -> Result<Vec<f64>, Failure> {
    let batch = random_batch(args.batch, args.image)?;
    let counter = Counter::start("steps", args.steps + UNCOUNTED);
    let mut seconds = Vec::with_capacity(args.steps);
    for number in 0..args.steps + UNCOUNTED {
        let begun = Instant::now();
        let (next, _) = step(state, &batch, objective, 1e-3, device).or_exit(Exit::NonFinite)?;
        state = next;
        if number >= UNCOUNTED {
            seconds.push(begun.elapsed().as_secs_f64());
        }
        counter.at(number + 1, args.steps + UNCOUNTED);
    }
    counter.end();
    Ok(seconds)
}

fn random_batch(n: usize, side: usize) -> Result<ViewBatch, Failure> {
    let size_px = u32::try_from(side).or_exit(Exit::Usage)?;
    let view = |view: u32| -> Vec<f32> {
        let mut stream = Stream::new(0, 0, 0, view, 0);
        (0..n * 3 * side * side).map(|_| stream.uniform_f32()).collect()
    };
    Ok(ViewBatch {
        epoch: 0,
        index: 0,
        samples: (0..n as u64).collect(),
        size_px,
        views: [view(0), view(1)],
        replaced: Vec::new(),
    })
}

/// The most memory this process ever held, in MiB, where the system tells.
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
