//! `eval knn` and `eval linear`: how good an encoder is, beside everything it has to beat.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::tensor::Device;
use serde_json::{Value, json};
use twoview_data::{Source, Split as Part, escape_path};
use twoview_encoder::{EncoderConfig, FrozenEncoder};
use twoview_eval::{FeatureBank, KnnConfig, LinearFit, LinearProbeConfig, Rungs, Score, Split};
use twoview_pixels::Normalize;
use twoview_train::RunDir;

use crate::{
    args::{EvalArgs, EvalCommand},
    device,
    encoder_weights::EncoderWeights,
    failure::{Exit, Failure, OrExit},
    pictures::{self, Pictures},
    run_file::RunFile,
    run_plan,
    terminal::{Counter, note, result, result_json},
};

/// Labelled pictures to learn from and others to test on.
pub(crate) struct Labelled {
    train: Arc<dyn Source>,
    test: Test,
}

/// Which pictures test.
enum Test {
    /// Pictures of their own.
    Source(Arc<dyn Source>),
    /// Part of the labelled ones.
    HeldOut(Split),
}

/// Train and test features of one kind.
pub(crate) struct Banks {
    pub(crate) train: FeatureBank,
    pub(crate) test: FeatureBank,
}

/// How pictures become features.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) size_px: u32,
    pub(crate) normalize: Normalize,
}

/// Larger pictures say no more about their class pixel by pixel, and 224 x 224 of them fill the memory.
const PIXELS_PX: u32 = 32;

/// Held out for testing where no test pictures were given.
const HELD_OUT: f64 = 0.2;

impl Labelled {
    /// Labelled pictures with a test set of their own.
    ///
    /// # Errors
    /// [`Exit::Data`] where labels are missing or the test set has a class that the training set does not know.
    pub(crate) fn with_test(train: Arc<dyn Source>, test: Arc<dyn Source>) -> Result<Self, Failure> {
        require_labels(train.as_ref(), "--train")?;
        require_labels(test.as_ref(), "--test")?;
        if train.classes() != test.classes() {
            let only = |a: &dyn Source, b: &dyn Source| {
                a.classes().iter().filter(|class| !b.classes().contains(class)).cloned().collect::<Vec<_>>().join(", ")
            };
            return Err(Failure::new(
                Exit::Data,
                format!(
                    "the classes of the training and the test pictures differ: only in training: [{}]; only in test: [{}]",
                    only(train.as_ref(), test.as_ref()),
                    only(test.as_ref(), train.as_ref())
                ),
            ));
        }
        Ok(Self { train, test: Test::Source(test) })
    }

    /// Labelled pictures of which a part is held out, the same part every time.
    ///
    /// # Errors
    /// [`Exit::Data`] where labels are missing or nothing can be held out.
    pub(crate) fn held_out(all: Arc<dyn Source>) -> Result<Self, Failure> {
        require_labels(all.as_ref(), "--train")?;
        let labels: Vec<u32> = (0..all.len()).filter_map(|i| all.label(i)).collect();
        let split = Split::stratified(&labels, HELD_OUT, 0).or_exit(Exit::Data)?;
        Ok(Self { train: all, test: Test::HeldOut(split) })
    }

    /// What the pictures themselves say, without any encoder, at no more than [`PIXELS_PX`] pixels a side.
    ///
    /// # Errors
    /// [`Exit::Data`] where a picture cannot be read.
    pub(crate) fn pixels(&self, look: Look) -> Result<Banks, Failure> {
        self.banks("pixels", |source, counter| {
            let side = look.size_px.min(PIXELS_PX);
            FeatureBank::from_pixels(source, side, &|done, total| counter.at(done, total)).or_exit(Exit::Data)
        })
    }

    /// What a frozen encoder makes of them.
    ///
    /// # Errors
    /// [`Exit::Data`] where a picture cannot be read.
    pub(crate) fn features(&self, what: &'static str, encoder: &FrozenEncoder, look: Look) -> Result<Banks, Failure> {
        self.banks(what, |source, counter| {
            FeatureBank::from_encoder(source, encoder, look.size_px, look.normalize, &|done, total| {
                counter.at(done, total);
            })
            .or_exit(Exit::Data)
        })
    }

    fn banks(
        &self,
        what: &'static str,
        bank: impl Fn(&dyn Source, &Counter) -> Result<FeatureBank, Failure>,
    ) -> Result<Banks, Failure> {
        let counted = |source: &dyn Source| {
            let counter = Counter::start(what, source.len());
            let bank = bank(source, &counter)?;
            counter.end();
            Ok(bank)
        };
        let all = counted(self.train.as_ref())?;
        match &self.test {
            Test::Source(test) => Ok(Banks { train: all, test: counted(test.as_ref())? }),
            Test::HeldOut(split) => Ok(Banks {
                train: all.select(&split.train).or_exit(Exit::Bug)?,
                test: all.select(&split.test).or_exit(Exit::Bug)?,
            }),
        }
    }
}

impl Banks {
    /// Both banks minus the mean of the training features.
    ///
    /// # Errors
    /// [`Exit::Bug`]: both banks have the same dimensions.
    pub(crate) fn centred(&self) -> Result<Self, Failure> {
        let mean = self.train.mean();
        Ok(Self {
            train: self.train.clone().centered_by(&mean).or_exit(Exit::Bug)?,
            test: self.test.clone().centered_by(&mean).or_exit(Exit::Bug)?,
        })
    }

    /// Share of the largest class among the test pictures: what guessing reaches.
    pub(crate) fn chance(&self) -> f64 {
        self.test.majority_share()
    }

    /// Accuracy of the nearest neighbours.
    ///
    /// # Errors
    /// [`Exit::Data`] where the labels make no question.
    pub(crate) fn knn(&self, config: KnnConfig) -> Result<Score, Failure> {
        config.init(&self.train).or_exit(Exit::Data)?.evaluate(&self.test).or_exit(Exit::Data)
    }

    /// Accuracy of a linear classifier, with how it was found.
    ///
    /// # Errors
    /// [`Exit::Usage`] where the settings are impossible, [`Exit::Data`] where the labels are.
    pub(crate) fn linear(&self, config: &LinearProbeConfig) -> Result<(Score, LinearFit), Failure> {
        let classifier = config.clone().init().or_exit(Exit::Usage)?.fit(&self.train).or_exit(Exit::Data)?;
        let fit = classifier.fit().clone();
        if !fit.converged {
            note(&format!(
                "warning: the linear probe stopped after {} steps before it converged (gradient {:.1e}); raise \
                 eval.linear.max_iterations",
                fit.iterations, fit.gradient_max_abs
            ));
        }
        Ok((classifier.evaluate(&self.test).or_exit(Exit::Data)?, fit))
    }
}

/// `twoview eval knn` and `twoview eval linear`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn evaluate(command: &EvalCommand) -> Result<(), Failure> {
    let args = match command {
        EvalCommand::Knn(args) => &args.eval,
        EvalCommand::Linear(args) => &args.eval,
    };
    let path = args.run.clone().map_or_else(newest_run, Ok)?;
    let run_dir = RunDir::read_only(&path).or_exit(Exit::Run)?;
    let file = RunFile::from_path(&run_dir.config(), &[]).or_exit(Exit::Usage)?;
    let measure = match command {
        EvalCommand::Knn(args) => {
            let config = KnnConfig {
                k: args.k.unwrap_or(file.eval.knn.k),
                temperature: args.temperature.unwrap_or(file.eval.knn.temperature),
            };
            run_plan::check_knn(config).or_exit(Exit::Usage)?;
            Measure::Knn(config)
        }
        EvalCommand::Linear(_) => Measure::Linear(file.eval.linear.clone()),
    };
    let (_, device) = device::open(&args.device.device)?;
    // The encoders first: a run without a checkpoint should not make anyone wait for the pictures.
    let trained = trained_encoder(&run_dir, &file.encoder, &device)?;
    let untrained = untrained_encoder(&file, &device)?;
    let labelled = labelled(args, &file)?;
    let look = look(&file)?;

    // One kind of features at a time: a bank of pixels can be the largest thing in memory.
    let pixels = labelled.pixels(look)?;
    let raw_pixels = measure.of(&pixels)?;
    let centred_pixels = match &measure {
        // Standardizing takes the mean out of any features, so centred pixels would give the same fit again.
        Measure::Linear(config) if config.standardize => raw_pixels.clone(),
        _ => measure.of(&pixels.centred()?)?,
    };
    drop(pixels);
    let untrained = measure.of(&labelled.features("untrained encoder", &untrained, look)?)?;
    let features = labelled.features("trained encoder", &trained, look)?;
    let trained = measure.of(&features)?;
    let scores = Rungs {
        raw_pixels: raw_pixels.0,
        centred_pixels: centred_pixels.0,
        untrained: untrained.0,
        trained: trained.0,
    };
    let (title, settings) = match (&measure, &trained.1) {
        (Measure::Knn(knn), _) => (
            format!("kNN (k {}, temperature {})", knn.k, knn.temperature),
            json!({ "k": knn.k, "temperature": knn.temperature }),
        ),
        (Measure::Linear(_), fit) => (
            format!("linear probe (l2 {:e})", fit.as_ref().map_or(0.0, |fit| fit.l2)),
            json!({
                "l2": fit.as_ref().map(|fit| fit.l2),
                "iterations": fit.as_ref().map(|fit| fit.iterations),
                "converged": fit.as_ref().map(|fit| fit.converged),
            }),
        ),
    };
    report(&path, args.json, &title, settings, features.chance(), &scores)
}

/// How features are judged.
enum Measure {
    Knn(KnnConfig),
    Linear(LinearProbeConfig),
}

impl Measure {
    /// The accuracy, with how the classifier was found where one was fitted.
    fn of(&self, banks: &Banks) -> Result<(Score, Option<LinearFit>), Failure> {
        match self {
            Self::Knn(config) => Ok((banks.knn(*config)?, None)),
            Self::Linear(config) => banks.linear(config).map(|(score, fit)| (score, Some(fit))),
        }
    }
}

fn report(
    run: &Path,
    as_json: bool,
    title: &str,
    settings: Value,
    chance: f64,
    scores: &Rungs<Score>,
) -> Result<(), Failure> {
    if as_json {
        let mut line = json!({
            "top1": scores.trained.top1,
            "ci95": scores.trained.ci95,
            "n": scores.trained.n,
            "chance": chance,
            "raw_pixels": scores.raw_pixels.top1,
            "centred_pixels": scores.centred_pixels.top1,
            "untrained": scores.untrained.top1,
            "run": escape_path(run),
        });
        if let (Value::Object(line), Value::Object(settings)) = (&mut line, settings) {
            line.extend(settings);
        }
        return result_json(&line);
    }
    result(&format!("{title} on {} pictures, top-1 accuracy with its 95 % interval", scores.trained.n))?;
    result(&format!("  chance            {:5.1} %", 100.0 * chance))?;
    for (name, score) in [
        ("raw pixels", scores.raw_pixels),
        ("centred pixels", scores.centred_pixels),
        ("untrained encoder", scores.untrained),
        ("trained encoder", scores.trained),
    ] {
        result(&rung(name, &score))?;
    }
    Ok(())
}

/// One line of a ladder.
pub(crate) fn rung(name: &str, score: &Score) -> String {
    let [low, high] = score.ci95;
    format!("  {name:17} {:5.1} %  [{:.1}, {:.1}]", 100.0 * score.top1, 100.0 * low, 100.0 * high)
}

/// How the pictures of a run are looked at without chance.
///
/// # Errors
/// [`Exit::Usage`] where the configuration is not one.
pub(crate) fn look(file: &RunFile) -> Result<Look, Failure> {
    let augment = file.augment.clone().init().or_exit(Exit::Usage)?;
    let normalize = run_plan::normalize(&file.normalize).or_exit(Exit::Usage)?;
    Ok(Look { size_px: augment.size_px(), normalize })
}

/// The encoder as training left it, or as it was imported.
///
/// # Errors
/// [`Exit::Run`] where the run has no checkpoint, [`Exit::Model`] where the weights are damaged.
pub(crate) fn trained_encoder(
    run_dir: &RunDir,
    config: &EncoderConfig,
    device: &Device,
) -> Result<FrozenEncoder, Failure> {
    Ok(FrozenEncoder::new(&EncoderWeights::of_run(run_dir, config, device)?.encoder))
}

/// The same encoder with the weights that the run began with.
///
/// # Errors
/// [`Exit::Usage`] where the configuration makes no encoder.
pub(crate) fn untrained_encoder(file: &RunFile, device: &Device) -> Result<FrozenEncoder, Failure> {
    Ok(FrozenEncoder::new(&file.encoder.init(file.seed, device).or_exit(Exit::Usage)?))
}

fn labelled(args: &EvalArgs, file: &RunFile) -> Result<Labelled, Failure> {
    let source = &file.data.source;
    let open = |path: &Path, part| pictures::open_labelled(&pictures::source_at(path, source)?, part);
    let train: Pictures = match &args.train {
        Some(path) => open(path, Part::Train)?,
        None if source.is_nowhere() => {
            return Err(Failure::new(
                Exit::Usage,
                "the run has no pictures of its own; name labelled ones with --train",
            ));
        }
        None => pictures::open_labelled(source, Part::Train)?,
    };
    if let Some(path) = &args.test {
        return Labelled::with_test(train.source, open(path, Part::Test)?.source);
    }
    if args.train.is_none() && source.has_test() {
        return Labelled::with_test(train.source, pictures::open_labelled(source, Part::Test)?.source);
    }
    note("no --test given: a fifth of the labelled pictures is held out to test on");
    Labelled::held_out(train.source)
}

fn require_labels(source: &dyn Source, flag: &str) -> Result<(), Failure> {
    if source.classes().is_empty() {
        return Err(Failure::new(
            Exit::Data,
            format!(
                "the pictures have no labels: evaluation needs one sub-folder for each class; give such a folder with {flag}"
            ),
        ));
    }
    // A table of labels may have gaps.
    if let Some(i) = (0..source.len()).find(|&i| source.label(i).is_none()) {
        let message = format!("{} has no label: evaluation needs one for every picture", source.name(i));
        return Err(Failure::new(Exit::Data, message));
    }
    Ok(())
}

/// The run in runs/ that was configured last.
fn newest_run() -> Result<PathBuf, Failure> {
    let runs = fs::read_dir("runs").ok().into_iter().flatten().filter_map(Result::ok).filter_map(|entry| {
        let written = fs::metadata(entry.path().join("config.resolved.toml")).ok()?.modified().ok()?;
        Some((written, entry.path()))
    });
    let (_, path) = runs.max().ok_or_else(|| {
        Failure::new(Exit::Usage, "no run was named and runs/ has none; name one, or make one with `twoview pretrain`")
    })?;
    note(&format!("run: {} (the newest in runs/)", path.display()));
    Ok(path)
}
