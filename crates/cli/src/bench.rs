//! `bench step` and `bench loss`: how fast this machine trains, and how fast it contrasts.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::json;
use twoview_augment::Stream;
use twoview_data::{ViewBatch, ViewPixels};
use twoview_encoder::{EncoderConfig, HeadConfig, Stem};
use twoview_loss::{NtXentConfig, Objective, ObjectiveConfig, PairedViews};
use twoview_optim::OptimizerConfig;
use twoview_train::{NetworkConfig, TrainState, step};

use crate::{
    args::{BenchLossArgs, BenchStepArgs},
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
    let objective = NtXentConfig::new(0.5).init().or_exit(Exit::Bug)?;
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
    let mut stream = Stream::new(0, 0, 0, 0, 0);
    let values = (0..2 * n * 3 * side * side).map(|_| stream.uniform_f32()).collect();
    Ok(ViewBatch {
        epoch: 0,
        index: 0,
        samples: (0..n as u64).collect(),
        groups: (0..n as u64).collect(),
        labels: Vec::new(),
        size_px,
        views: ViewPixels::F32(values),
        replaced: Vec::new(),
    })
}

/// `twoview bench loss`: loss and gradient at the embeddings, nothing embedded.
///
/// # Errors
/// [`Exit::Usage`] where the arguments make no objective or the device is not there.
pub(crate) fn bench_loss(args: &BenchLossArgs) -> Result<(), Failure> {
    let (name, device) = device::open(&args.device.device)?;
    let objective = usual(&args.objective, args.temperature)?.init().or_exit(Exit::Usage)?;
    let z = |view: u32| -> Tensor<2> {
        let mut stream = Stream::new(0, 0, 0, view, 0);
        // Directions are uniform if coordinates are normal; a sum of uniform numbers is near enough.
        let normal = |stream: &mut Stream| (0..4).map(|_| stream.uniform_f32()).sum::<f32>() - 2.0;
        let values: Vec<f32> = (0..args.pairs * args.dim).map(|_| normal(&mut stream)).collect();
        Tensor::from_data(TensorData::new(values, [args.pairs, args.dim]), &device)
    };
    let (z1, z2) = (z(0), z(1));
    let counter = Counter::start("passes", args.repeats + 1);
    let mut seconds = Vec::with_capacity(args.repeats);
    for number in 0..=args.repeats {
        let begun = Instant::now();
        let mut views = PairedViews::new(z1.clone(), z2.clone()).or_exit(Exit::Bug)?;
        if objective.is_supervised() {
            let labels: Vec<u64> = (0..args.pairs as u64).map(|image| image % 10).collect();
            views = views.with_labels(&labels).or_exit(Exit::Bug)?;
        }
        let contrast = objective.contrast(views);
        device.sync().or_exit(Exit::Bug)?;
        if number > 0 {
            seconds.push(begun.elapsed().as_secs_f64());
        }
        std::hint::black_box((contrast.d_z1, contrast.d_z2));
        counter.at(number + 1, args.repeats + 1);
    }
    counter.end();
    seconds.sort_by(f64::total_cmp);
    let forward_backward_ms = 1e3 * seconds[seconds.len() / 2];
    let peak_rss_mib = peak_rss_mib();
    if args.json {
        return result_json(&json!({
            "forward_backward_ms": forward_backward_ms,
            "forward_backward_ms_min": 1e3 * seconds[0],
            "peak_rss_mib": peak_rss_mib,
            "objective": args.objective,
            "pairs": args.pairs,
            "dim": args.dim,
            "temperature": args.temperature,
            "device": name,
            "repeats": args.repeats,
        }));
    }
    result(&format!("{forward_backward_ms:.1} ms for loss and gradient (median of {})", args.repeats))?;
    match peak_rss_mib {
        Some(mib) => result(&format!("{mib:.0} MiB at the peak")),
        None => Ok(()),
    }
}

/// An objective with the numbers that its paper uses, but for the temperature.
fn usual(kind: &str, temperature: f64) -> Result<ObjectiveConfig, Failure> {
    let mut config = json!({ "kind": kind, "temperature": temperature });
    let of_kind = match kind {
        "info_nce" => json!({ "both_ways": true }),
        "debiased" => json!({ "tau_plus": 0.1 }),
        "hard_negative" => json!({ "tau_plus": 0.1, "beta": 1.0 }),
        "in_batch_logistic" => json!({ "bias": -10.0 }),
        "decoupled_weighted" => json!({ "sigma": 0.5, "detach_weight": true }),
        _ => json!({}),
    };
    if let (Some(config), Some(of_kind)) = (config.as_object_mut(), of_kind.as_object()) {
        config.extend(of_kind.clone());
    }
    serde_json::from_value(config).map_err(|error| Failure::new(Exit::Usage, format!("--objective {kind}: {error}")))
}

/// The most memory this process ever held, in MiB, where the system tells.
pub(crate) fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
