//! `eval finetune` and `eval linear --augmented`: classifiers trained by SGD on random crops and flips.

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
};

use serde_json::{Value, json};
use twoview_augment::{AugmentConfig, TransformConfig};
use twoview_data::{Loader, LoaderConfig, PixelType, Source, Subset};
use twoview_encoder::FrozenEncoder;
use twoview_eval::{Classifier, ExtractError, Predictions, Score, Split, SupervisedConfig, SupervisedError};

use crate::{
    args::{FineTuneArgs, LinearArgs, SupervisedArgs},
    evaluate::{classes_table, json_of, named, rung},
    failure::{Exit, Failure, OrExit},
    labelled::{Labelled, Look},
    run_file::RunFile,
    run_plan::PREFETCH,
    scores,
    signals::Signals,
    subject::{Subject, untrained_encoder},
    terminal::{Counter, result, result_json},
};

/// Settings of training have no meaning where nothing is trained by SGD.
///
/// # Errors
/// [`Exit::Usage`].
pub(crate) fn refuse_unused(args: &SupervisedArgs) -> Result<(), Failure> {
    let SupervisedArgs { epochs, lr_per_256, batch_size, seed } = args;
    if epochs.is_none() && lr_per_256.is_none() && batch_size.is_none() && seed.is_none() {
        return Ok(());
    }
    let message = "--epochs, --lr-per-256, --batch-size and --seed go with --augmented: without it, the classifier is \
                   fitted to its minimum and nothing is random";
    Err(Failure::new(Exit::Usage, message))
}

/// `twoview eval finetune`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn fine_tune(args: &FineTuneArgs) -> Result<(), Failure> {
    let subject = Subject::open(args.eval.run.as_deref(), &args.eval.device.device)?;
    let training = Training::new(subject.file.eval.finetune, &args.training, &subject)?;
    for &fraction in &args.fractions {
        Split::few_labels(&[], fraction, 0).or_exit(Exit::Usage)?;
    }
    let labelled = Labelled::open(&args.eval, &subject.file)?;
    let (all, test) = (Arc::new(labelled.train_pictures()), labelled.test_pictures());
    let labels: Vec<u32> = (0..all.len()).filter_map(|i| all.label(i)).collect();
    // Said before the long part.
    labelled.n_in_train(subject.look())?;
    let signals = Signals::listen().or_exit(Exit::Bug)?;
    let mut points = Vec::with_capacity(args.fractions.len());
    for &fraction in &args.fractions {
        let rows = Split::few_labels(&labels, fraction, training.seed).or_exit(Exit::Bug)?;
        let n_labels = rows.len();
        if let Some(same) = points.iter().find(|point: &&Point| point.n_labels == n_labels) {
            points.push(Point { fraction, ..same.clone() });
            continue;
        }
        let loader = training.loader(Arc::new(Subset::new(all.clone(), rows)))?;
        let tune = |what: &str, encoder| {
            let counter = Counter::start(format!("{what}, {n_labels} labels, steps"), 0);
            let n_classes = labelled.classes().len();
            let at = |done, total| counted_until(&signals, &counter, done, total);
            let classifier = training.config.fine_tune(encoder, &loader, n_classes, &at).map_err(failure(&signals))?;
            counter.end();
            training.judge(&classifier, &test)
        };
        let device = subject.device.clone().autodiff();
        let fresh = subject.file.encoder.init(subject.file.seed, &device).or_exit(Exit::Usage)?;
        let both = tune("from scratch", fresh)
            .and_then(|scratch| Ok((scratch, tune("fine-tuned", subject.trainable_encoder(&device)?)?)));
        match both {
            Ok((scratch, trained)) => points.push(Point { fraction, n_labels, scratch, trained }),
            // What was measured until then took its time, and is worth as much as it would be without the rest.
            Err(stopped) if is_stop(&stopped) && !points.is_empty() => {
                say_fine_tuned(args, &subject, &labelled, &training, &points)?;
                let (done, all) = (points.len(), args.fractions.len());
                let message = format!("stopped: {done} of {all} shares of the labels are measured and kept");
                return Err(Failure::new(stopped.exit, message));
            }
            Err(failure) => return Err(failure),
        }
    }
    say_fine_tuned(args, &subject, &labelled, &training, &points)
}

/// Keeps and prints what fine-tuning came to.
///
/// # Errors
/// [`Exit::Usage`] where there is no point.
fn say_fine_tuned(
    args: &FineTuneArgs,
    subject: &Subject,
    labelled: &Labelled,
    training: &Training,
    points: &[Point],
) -> Result<(), Failure> {
    let Some(last) = points.iter().max_by(|a, b| a.fraction.total_cmp(&b.fraction)) else {
        return Err(Failure::new(Exit::Usage, "--fractions: expected at least one share of the labels"));
    };
    let (n_train, n_test) = (labelled.train_pictures().len(), labelled.test_pictures().len());
    let how = format!(
        "the whole encoder and a linear classifier trained by {}, seed {}, beside the same from random initial weights",
        training.in_words(),
        training.seed
    );
    let protocol = subject.protocol_of(&how, "fine-tuned", labelled)?;
    let chance = last.trained.majority_share();
    let mut line = json_of(&last.trained, &[("scratch", last.scratch.score())], chance, labelled.classes());
    line.insert("fractions".to_owned(), points.iter().map(Point::json).collect());
    line.insert("settings".to_owned(), json!(training.config));
    line.extend(named(subject, labelled, &protocol)?);
    let line = Value::Object(line);
    scores::remember(&subject.run_dir, "finetune", &line);
    if args.eval.json {
        return result_json(&line);
    }
    result(&format!("fine-tuned: top-1 accuracy on {n_test} pictures, with its 95 % interval"))?;
    result(&format!("  chance            {:5.1} %", 100.0 * chance))?;
    for Point { fraction, n_labels, scratch, trained } in points {
        let asked = (1e8 * fraction).round() / 1e6;
        let share = 100.0 * *n_labels as f64 / n_train as f64;
        // Rounded up, and at least one of each class.
        let asked = if (share - asked).abs() < 0.05 { String::new() } else { format!(", {asked} % asked for") };
        result(&format!("{n_labels} labels ({share:.1} %{asked})"))?;
        result(&rung("from scratch", &scratch.score()))?;
        result(&rung("fine-tuned", &trained.score()))?;
    }
    result(&format!("with {} labels:", last.n_labels))?;
    classes_table(&last.trained, labelled.classes(), args.eval.classes)?;
    result(&format!("protocol {protocol}"))
}

/// `twoview eval linear --augmented`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn linear_augmented(args: &LinearArgs) -> Result<(), Failure> {
    if !args.probe.l2.is_empty() {
        let message = "--l2 goes without --augmented: eval.linear_augmented.weight_decay of the run is its penalty";
        return Err(Failure::new(Exit::Usage, message));
    }
    let subject = Subject::open(args.eval.run.as_deref(), &args.eval.device.device)?;
    let training = Training::new(subject.file.eval.linear_augmented, &args.training, &subject)?;
    let labelled = Labelled::open(&args.eval, &subject.file)?;
    let (all, test): (Arc<dyn Source>, Subset) = (Arc::new(labelled.train_pictures()), labelled.test_pictures());
    let loader = training.loader(all)?;
    labelled.n_in_train(subject.look())?;
    let signals = Signals::listen().or_exit(Exit::Bug)?;
    let train = |what: &str, encoder| {
        let counter = Counter::start(what, 0);
        let (n_classes, at) = (labelled.classes().len(), |done, total| counted_until(&signals, &counter, done, total));
        let classifier = training.config.train_on_frozen(encoder, &loader, n_classes, &at);
        let classifier = classifier.map_err(failure(&signals))?;
        counter.end();
        training.judge(&classifier, &test)
    };
    let untrained = train("on untrained, steps", untrained_encoder(&subject.file, &subject.device)?)?;
    let trained = train("on trained, steps", FrozenEncoder::new(&subject.trainable_encoder(&subject.device)?))?;
    let how = format!(
        "linear classifier on frozen features of augmented pictures: {}, seed {}",
        training.in_words(),
        training.seed
    );
    let protocol = subject.protocol_of(&how, "frozen", &labelled)?;
    let chance = trained.majority_share();
    let mut line = json_of(&trained, &[("untrained", untrained.score())], chance, labelled.classes());
    line.insert("settings".to_owned(), json!(training.config));
    line.extend(named(&subject, &labelled, &protocol)?);
    let line = Value::Object(line);
    scores::remember(&subject.run_dir, "linear_augmented", &line);
    if args.eval.json {
        return result_json(&line);
    }
    result(&format!("linear, augmented: top-1 accuracy on {} pictures, with its 95 % interval", test.len()))?;
    result(&format!("  chance            {:5.1} %", 100.0 * chance))?;
    result(&rung("untrained encoder", &untrained.score()))?;
    result(&rung("trained encoder", &trained.score()))?;
    classes_table(&trained, labelled.classes(), args.eval.classes)?;
    result(&format!("protocol {protocol}"))
}

/// What fine-tuning on some of the labels came to.
#[derive(Clone)]
struct Point {
    fraction: f64,
    n_labels: usize,
    scratch: Predictions,
    trained: Predictions,
}

impl Point {
    fn json(&self) -> Value {
        let of = |score: Score| json!({ "top1": score.top1, "ci95": score.ci95 });
        json!({
            "fraction": self.fraction,
            "labels": self.n_labels,
            "trained": of(self.trained.score()),
            "scratch": of(self.scratch.score()),
        })
    }
}

/// How classifiers are trained and tested.
struct Training {
    config: SupervisedConfig,
    augment: AugmentConfig,
    look: Look,
    seed: u64,
    workers: usize,
}

impl Training {
    /// The run's settings, or those of the command line.
    fn new(config: SupervisedConfig, args: &SupervisedArgs, subject: &Subject) -> Result<Self, Failure> {
        let config = SupervisedConfig {
            epochs: args.epochs.unwrap_or(config.epochs),
            lr_per_256: args.lr_per_256.unwrap_or(config.lr_per_256),
            batch_size: args.batch_size.unwrap_or(config.batch_size),
            // Whoever says how many epochs does not want more.
            min_steps: if args.epochs.is_some() { 0 } else { config.min_steps },
            ..config
        };
        config.check().or_exit(Exit::Usage)?;
        let RunFile { augment, data, .. } = &subject.file;
        Ok(Self {
            config,
            augment: crops_and_turns(augment),
            look: subject.look(),
            seed: args.seed.unwrap_or(0),
            workers: data.workers,
        })
    }

    fn loader(&self, source: Arc<dyn Source>) -> Result<Loader, Failure> {
        let config = LoaderConfig {
            batch_size: self.config.batch_size_for(source.len()),
            drop_last: true,
            workers: self.workers,
            prefetch: PREFETCH,
            pixels: PixelType::F32,
        };
        let augment = Arc::new(self.augment.init().or_exit(Exit::Usage)?);
        Loader::new(source, augment, self.look.normalize, self.seed, config).or_exit(Exit::Data)
    }

    fn judge(&self, classifier: &Classifier, test: &Subset) -> Result<Predictions, Failure> {
        let Look { size_px, normalize } = self.look;
        let predicted = classifier.predict(test, size_px, normalize, &|_, _| {}).map_err(|error| {
            let exit = if matches!(error, ExtractError::NotFinite { .. }) { Exit::NonFinite } else { Exit::Data };
            Failure { exit, error: error.into() }
        })?;
        let labels = (0..test.len()).filter_map(|i| test.label(i)).collect();
        Predictions::new(predicted, labels).or_exit(Exit::Bug)
    }

    fn in_words(&self) -> String {
        let SupervisedConfig { epochs, min_steps, batch_size, lr_per_256, momentum, weight_decay } = self.config;
        let least = if min_steps == 0 { String::new() } else { format!(" (but at least {min_steps} steps)") };
        format!(
            "SGD with Nesterov's momentum {momentum}, learning rate {lr_per_256} per 256 pictures falling along half a cosine, \
             weight decay {weight_decay}, {epochs} epochs{least}, batches of at most {batch_size} pictures with two views each by the run's crops and flips"
        )
    }
}

/// Of a run's transforms those that move pixels and leave colours alone, as supervised training uses them.
fn crops_and_turns(augment: &AugmentConfig) -> AugmentConfig {
    let moves = |transform: &&TransformConfig| {
        matches!(
            transform,
            TransformConfig::RandomResizedCrop { .. }
                | TransformConfig::HorizontalFlip { .. }
                | TransformConfig::VerticalFlip { .. }
                | TransformConfig::QuarterTurns { .. }
        )
    };
    AugmentConfig(augment.0.iter().filter(moves).cloned().collect())
}

/// Counts a step, and breaks off once a signal has come.
fn counted_until(signals: &Signals, counter: &Counter, done: usize, total: usize) -> ControlFlow<()> {
    counter.at(done, total);
    if signals.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn failure(signals: &Signals) -> impl Fn(SupervisedError) -> Failure {
    |error| {
        let exit = match error {
            SupervisedError::Stopped { step, n_steps } => {
                let message = format!(
                    "stopped after step {step} of {n_steps}; a classifier cannot go on where it was, so the same command \
                     begins it again"
                );
                return Failure::new(signals.exit(), message);
            }
            SupervisedError::NonFinite { .. } => Exit::NonFinite,
            SupervisedError::Load(_) | SupervisedError::Picture { .. } => Exit::Data,
            _ => Exit::Usage,
        };
        Failure { exit, error: error.into() }
    }
}

fn is_stop(failure: &Failure) -> bool {
    matches!(failure.exit, Exit::Interrupted | Exit::Terminated)
}
