//! `bench views` and `bench load`: how fast this machine makes views, with and without the loader around it.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use serde_json::{Map, json};
use twoview_augment::{Augment, PlannedOp, Recipe, Renderer, ViewKey, ViewPlan};
use twoview_data::{
    FolderConfig, FolderSource, Loader, LoaderConfig, OnBad, PatternsConfig, PatternsSource, PixelType, ReadBuffers,
    Source, SourceKind, Split,
};
use twoview_pixels::{DecodeOptions, Image, Instructions, Normalize, decode_into};

use crate::{
    args::{BenchLoadArgs, BenchViewsArgs, ViewsArgs},
    bench::peak_rss_mib,
    failure::{Exit, Failure, OrExit},
    pictures,
    run_file::RunFile,
    terminal::{Counter, result, result_json},
};

/// Decoded pictures kept in memory by `--decoded`, in MiB.
const DECODED_MIB: u64 = 16 << 10;
/// Up to this side the recipe of CIFAR is the usual one.
const SMALL_PX: u32 = 64;
/// Pictures that the stages are timed on.
const STAGE_PICTURES: usize = 200;
/// Parts that the time is cut into; the median counts.
const PARTS: u32 = 5;

/// What is measured on: pictures and how they become views.
struct Subject {
    source: Arc<dyn Source>,
    augment: Arc<Augment>,
    recipe: Recipe,
}

impl Subject {
    fn open(args: &ViewsArgs) -> Result<Self, Failure> {
        let usual = if args.image <= SMALL_PX { Recipe::Cifar } else { Recipe::Imagenet };
        let recipe = args.recipe.unwrap_or(usual);
        let augment = Arc::new(recipe.config(args.image).init().or_exit(Exit::Usage)?);
        let source: Arc<dyn Source> = match &args.data {
            None => {
                let config = PatternsConfig { seed: 0, split: Split::Train, per_class: 200 };
                Arc::new(PatternsSource::new(config).or_exit(Exit::Bug)?)
            }
            Some(root) if SourceKind::detect(root).or_exit(Exit::Data)? != SourceKind::Folder => {
                if args.decoded {
                    let message = "--decoded takes a folder of pictures; a pack made with `twoview data pack --decoded` needs no decoding either";
                    return Err(Failure::new(Exit::Usage, message));
                }
                let preset = RunFile::from_preset("small", &[]).or_exit(Exit::Bug)?.data.source;
                pictures::open(&pictures::source_at(root, &preset)?, Split::Train)?.source
            }
            Some(root) => {
                let counter = Counter::start("reading pictures", 0);
                let cache_mib = if args.decoded { DECODED_MIB } else { 0 };
                let config = FolderConfig {
                    decode: DecodeOptions::STANDARD,
                    cache_mib,
                    full_scan_files: usize::MAX,
                    on_bad: OnBad::Skip,
                    max_bad_fraction: 1.0,
                };
                let source = FolderSource::open(root, &config, &|done, total| counter.at(done, total));
                counter.end();
                Arc::new(source.or_exit(Exit::Data)?)
            }
        };
        Ok(Self { source, augment, recipe })
    }

    fn plan_into(&self, sample: usize, epoch: u32, view: u32, image: &Image, plan: &mut ViewPlan) {
        let key = ViewKey { seed: 0, epoch, sample: sample as u64, view };
        self.augment.plan_into(&key, image.width(), image.height(), plan);
    }
}

fn empty_plan() -> ViewPlan {
    ViewPlan { source_width: 1, source_height: 1, ops: Vec::new() }
}

/// `twoview bench views`: two normalized views of every picture, in threads that share nothing but the pictures.
///
/// # Errors
/// [`Exit::Usage`] where the size makes no views, [`Exit::Data`] where the pictures cannot be read.
pub(crate) fn bench_views(args: &BenchViewsArgs) -> Result<(), Failure> {
    let subject = Subject::open(&args.views)?;
    let counter = Counter::start("parts", PARTS as usize);
    let mut rates = Vec::new();
    for part in 0..=PARTS {
        let seconds = if part == 0 { 0.2 } else { args.views.seconds / f64::from(PARTS) };
        let rate = rate_of(&subject, args.threads, part, seconds)?;
        // The first part also fills the caches.
        if part > 0 {
            rates.push(rate);
        }
        counter.at(part as usize, PARTS as usize);
    }
    counter.end();
    // Before the stages, which hold pictures of their own.
    let peak_rss_mib = peak_rss_mib();
    let stages = stages(&subject, &args.views)?;
    rates.sort_by(f64::total_cmp);
    let images_per_s = rates[rates.len() / 2];
    let instructions = Instructions::best();
    if args.json {
        return result_json(&json!({
            "images_per_s": images_per_s,
            "images_per_s_min": rates[0],
            "images_per_s_max": rates[rates.len() - 1],
            "stages_us": stages.iter().map(|(name, us)| ((*name).to_owned(), json!(us))).collect::<Map<_, _>>(),
            "peak_rss_mib": peak_rss_mib,
            "threads": args.threads,
            "image": args.views.image,
            "recipe": subject.recipe.name(),
            "decoded": args.views.decoded || args.views.data.is_none(),
            "pictures": subject.source.len(),
            "instructions": instructions.name(),
        }));
    }
    result(&format!(
        "{images_per_s:.1} img/s, {:.1} to {:.1} in {PARTS} rounds ({} thread(s); an image is two views of {} px)",
        rates[0],
        rates[rates.len() - 1],
        args.threads,
        args.views.image
    ))?;
    for (name, us) in stages {
        result(&format!("  {name:8} {us:10.1} us"))?;
    }
    match peak_rss_mib {
        Some(mib) => result(&format!("{mib:.0} MiB at the peak")),
        None => Ok(()),
    }
}

/// Pictures per second over at least so many seconds.
fn rate_of(subject: &Subject, threads: usize, epoch: u32, seconds: f64) -> Result<f64, Failure> {
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    let work = || -> Result<usize, Failure> {
        let side = subject.augment.size_px() as usize;
        let (mut buffers, mut renderer, mut plan) = (ReadBuffers::default(), Renderer::default(), empty_plan());
        let mut out = vec![0.0; 2 * 3 * side * side];
        let mut done = 0;
        while begun.elapsed().as_secs_f64() < seconds {
            // A few at a time, so that the clock and the counter cost nothing.
            for _ in 0..16 {
                let sample = next.fetch_add(1, Ordering::Relaxed);
                let image = subject.source.read(sample % subject.source.len(), &mut buffers).or_exit(Exit::Data)?;
                for (view, out) in (0..).zip(out.chunks_exact_mut(3 * side * side)) {
                    subject.plan_into(sample, epoch, view, image, &mut plan);
                    let instructions = renderer.instructions();
                    let view = renderer.render(&plan, image).or_exit(Exit::Data)?;
                    Normalize::IMAGENET.write_chw(view, out, instructions).or_exit(Exit::Bug)?;
                }
                black_box(&mut out);
                done += 1;
            }
        }
        Ok(done)
    };
    let counts: Vec<Result<usize, Failure>> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ended = running.into_iter().map(|thread| thread.join());
        ended.map(|count| count.unwrap_or_else(|_| Err(Failure::new(Exit::Bug, "a thread panicked")))).collect()
    });
    let counts = counts.into_iter().collect::<Result<Vec<usize>, Failure>>()?;
    Ok(counts.iter().sum::<usize>() as f64 / begun.elapsed().as_secs_f64())
}

/// Microseconds of each stage for one picture with both its views, on one thread.
///
/// What a stage of rendering costs is the difference between plans that end with it and without it.
fn stages(subject: &Subject, args: &ViewsArgs) -> Result<Vec<(&'static str, f64)>, Failure> {
    let samples: Vec<usize> = (0..subject.source.len().min(STAGE_PICTURES)).collect();
    let (mut files, mut images) = (Vec::new(), Vec::new());
    let mut stages = Vec::new();
    let mut buffers = ReadBuffers::default();
    // Some sets are pixels to begin with.
    let from_files = !args.decoded && subject.source.read_file(0, &mut buffers).or_exit(Exit::Data)?;
    if from_files {
        stages.push((
            "read",
            fastest(&samples, |sample| {
                subject.source.read_file(sample, &mut buffers).or_exit(Exit::Data)?;
                black_box(&buffers);
                Ok(())
            })?,
        ));
        for &sample in &samples {
            subject.source.read_file(sample, &mut buffers).or_exit(Exit::Data)?;
            files.push(buffers.bytes.clone());
        }
        let mut image = Image::default();
        stages.push((
            "decode",
            fastest(&samples, |sample| {
                decode_into(&files[sample], &DecodeOptions::STANDARD, &mut image).or_exit(Exit::Data)
            })?,
        ));
    }
    for &sample in &samples {
        images.push(subject.source.image(sample).or_exit(Exit::Data)?);
    }
    let side = subject.augment.size_px() as usize;
    let (mut renderer, mut plan) = (Renderer::default(), empty_plan());
    let mut out = vec![0.0; 3 * side * side];
    let mut before = 0.0;
    for (stage, name) in ["plan", "crop", "color", "blur", "write"].into_iter().enumerate() {
        let total = fastest(&samples, |sample| {
            for view in 0..2 {
                let image = &images[sample];
                subject.plan_into(sample, 0, view, image, &mut plan);
                if stage == 0 {
                    black_box(&plan);
                    continue;
                }
                let is_moved = |op: &PlannedOp| {
                    use PlannedOp::{HorizontalFlip, QuarterTurns, ResizedCrop, VerticalFlip};
                    matches!(op, ResizedCrop { .. } | HorizontalFlip | VerticalFlip | QuarterTurns { .. })
                };
                match stage {
                    1 => plan.ops.retain(is_moved),
                    2 => plan.ops.retain(|op| !matches!(op, PlannedOp::GaussianBlur { .. })),
                    _ => {}
                }
                let instructions = renderer.instructions();
                let view = renderer.render(&plan, image).or_exit(Exit::Data)?;
                if stage == 4 {
                    Normalize::IMAGENET.write_chw(view, &mut out, instructions).or_exit(Exit::Bug)?;
                }
                black_box(&mut out);
            }
            Ok(())
        })?;
        stages.push((name, (total - before).max(0.0)));
        before = total;
    }
    Ok(stages)
}

/// The least microseconds per picture of several rounds: what the work takes when nothing disturbs it.
fn fastest(samples: &[usize], mut work: impl FnMut(usize) -> Result<(), Failure>) -> Result<f64, Failure> {
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        let begun = Instant::now();
        samples.iter().try_for_each(|&sample| work(sample))?;
        least = least.min(1e6 * begun.elapsed().as_secs_f64() / samples.len() as f64);
    }
    Ok(least)
}

/// `twoview bench load`: the loader as training sees it, emptied as fast as it fills.
///
/// # Errors
/// As [`bench_views`].
pub(crate) fn bench_load(args: &BenchLoadArgs) -> Result<(), Failure> {
    let subject = Subject::open(&args.views)?;
    let config = LoaderConfig {
        batch_size: args.batch,
        drop_last: true,
        workers: args.workers,
        prefetch: 2,
        pixels: if args.bytes { PixelType::U8 } else { PixelType::F32 },
    };
    let (source, augment) = (Arc::clone(&subject.source), Arc::clone(&subject.augment));
    let loader = Loader::new(source, augment, Normalize::IMAGENET, 0, config).or_exit(Exit::Usage)?;
    // The parts alone, on as many threads, before and after.
    let threads = args.workers.max(1);
    let seconds = args.views.seconds / 4.0;
    let mut parts = vec![rate_of(&subject, threads, 0, seconds)?];
    let begun = Instant::now();
    let (mut first_batch_ms, mut counted, mut counted_from) = (None, 0, Instant::now());
    'epochs: for epoch in 0.. {
        for batch in loader.epoch(epoch, 0) {
            let batch = batch.or_exit(Exit::Data)?;
            let n = batch.samples.len();
            loader.recycle(batch);
            if first_batch_ms.is_none() {
                first_batch_ms = Some(1e3 * begun.elapsed().as_secs_f64());
                counted_from = Instant::now();
            } else {
                counted += n;
            }
            if counted > 0 && counted_from.elapsed().as_secs_f64() > 2.0 * seconds {
                break 'epochs;
            }
        }
    }
    let images_per_s = counted as f64 / counted_from.elapsed().as_secs_f64();
    parts.push(rate_of(&subject, threads, 1, seconds)?);
    let parts_per_s = parts.iter().sum::<f64>() / 2.0;
    let peak_rss_mib = peak_rss_mib();
    if args.json {
        return result_json(&json!({
            "images_per_s": images_per_s,
            "parts_per_s": parts_per_s,
            "share_of_parts": images_per_s / parts_per_s,
            "first_batch_ms": first_batch_ms,
            "peak_rss_mib": peak_rss_mib,
            "workers": args.workers,
            "batch": args.batch,
            "image": args.views.image,
            "recipe": subject.recipe.name(),
            "bytes": args.bytes,
            "pictures": subject.source.len(),
        }));
    }
    result(&format!("{images_per_s:.1} img/s from the loader ({} workers, batches of {})", args.workers, args.batch))?;
    result(&format!(
        "{parts_per_s:.1} img/s from its parts alone: the loader keeps {:.0} %",
        100.0 * images_per_s / parts_per_s
    ))?;
    result(&format!("{:.0} ms to the first batch", first_batch_ms.unwrap_or(f64::NAN)))?;
    match peak_rss_mib {
        Some(mib) => result(&format!("{mib:.0} MiB at the peak")),
        None => Ok(()),
    }
}
