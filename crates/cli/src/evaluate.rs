//! `eval knn`, `eval linear` and `eval fewshot`: how good a frozen encoder is, beside everything it has to beat.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use twoview_data::{Source, escape_path};
use twoview_eval::{
    FewShot, FewShotConfig, FewShotError, KnnConfig, KnnGrid, LinearFit, LinearProbeConfig, Predictions, Rungs, Score,
};

use crate::{
    args::{EvalArgs, EvalCommand, FewShotArgs, LinearProbeArgs, ProbeArgs},
    failure::{Exit, Failure, OrExit},
    labelled::{Banks, Labelled},
    run_file::RunFile,
    run_plan, scores,
    subject::Subject,
    terminal::{counted, note, result, result_json},
};

/// `twoview eval`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn evaluate(command: &EvalCommand) -> Result<(), Failure> {
    match command {
        EvalCommand::Knn(args) => probe(&args.eval, &Probe::Knn(args.probe.clone())),
        EvalCommand::Linear(args) if args.augmented => crate::supervised::linear_augmented(args),
        EvalCommand::Linear(args) => {
            crate::supervised::refuse_unused(&args.training)?;
            probe(&args.eval, &Probe::Linear(args.probe.clone()))
        }
        EvalCommand::Finetune(args) => crate::supervised::fine_tune(args),
        EvalCommand::Fewshot(args) => few_shot(args),
        EvalCommand::Compare(args) => crate::compare::compare(args),
    }
}

/// How features are judged.
pub(crate) enum Probe {
    /// By their nearest neighbours.
    Knn(ProbeArgs),
    /// By a linear classifier.
    Linear(LinearProbeArgs),
}

/// What a probe said, and by which settings.
#[derive(Clone)]
pub(crate) struct Outcome {
    pub(crate) predictions: Predictions,
    /// Its settings in words.
    pub(crate) how: String,
    settings: Value,
}

impl Probe {
    /// The settings of a neighbour probe, by the command line or else the run.
    ///
    /// # Errors
    /// [`Exit::Usage`] where a setting is impossible.
    pub(crate) fn grid(args: &ProbeArgs, file: &RunFile) -> Result<KnnGrid, Failure> {
        let or = |given: &[f64], standard: f64| if given.is_empty() { vec![standard] } else { given.to_vec() };
        let k = if args.k.is_empty() { vec![file.eval.knn.k] } else { args.k.clone() };
        let temperature = or(&args.temperature, file.eval.knn.temperature);
        for &k in &k {
            for &temperature in &temperature {
                run_plan::check_knn(KnnConfig { k, temperature })
                    .map_err(|error| Failure::new(Exit::Usage, format!("--k, --temperature, or else {error}")))?;
            }
        }
        Ok(KnnGrid { k, temperature, held_out: file.eval.linear.held_out })
    }

    /// The settings of a linear probe, by the command line or else the run.
    ///
    /// # Errors
    /// [`Exit::Usage`] where a setting is impossible.
    fn linear(args: &LinearProbeArgs, file: &RunFile) -> Result<LinearProbeConfig, Failure> {
        let mut config = file.eval.linear.clone();
        if !args.l2.is_empty() {
            config.l2.clone_from(&args.l2);
        }
        config.clone().init().map_err(|error| Failure::new(Exit::Usage, format!("--l2: {error}")))?;
        Ok(config)
    }

    /// Whether the settings can be asked with: before the pictures are read, because an impossible one should cost no
    /// waiting.
    ///
    /// # Errors
    /// [`Exit::Usage`].
    fn check(&self, file: &RunFile) -> Result<(), Failure> {
        match self {
            Self::Knn(args) => Self::grid(args, file).map(drop),
            Self::Linear(args) => Self::linear(args, file).map(drop),
        }
    }

    /// Asks about the test pictures; `classes` are names for messages.
    ///
    /// # Errors
    /// [`Exit::Usage`] where the settings are impossible, [`Exit::Data`] where the labels are.
    pub(crate) fn ask(&self, banks: &Banks, file: &RunFile, classes: &[String]) -> Result<Outcome, Failure> {
        match self {
            Self::Knn(args) => {
                let (predictions, choice) = banks.knn(&Self::grid(args, file)?)?;
                let KnnConfig { k, temperature } = choice.config;
                let chosen = match choice.tried.len() {
                    0 => String::new(),
                    n => format!(", the best of {n} settings on a slice of train"),
                };
                let n = banks.train.len();
                let all = if k > n { format!(" (all {n} there are)") } else { String::new() };
                Ok(Outcome {
                    predictions,
                    how: format!("kNN by cosine, k {k}{all}, temperature {temperature}{chosen}"),
                    settings: json!({ "k": k, "temperature": temperature, "tried": choice.tried }),
                })
            }
            Self::Linear(args) => {
                let config = Self::linear(args, file)?;
                let (predictions, fit) = banks.linear(&config, classes)?;
                let LinearProbeConfig { standardize, l2, held_out, .. } = &config;
                let (by, chosen) = (if *standardize { "standardized " } else { "" }, l2.len());
                let chosen = match chosen {
                    1 => String::new(),
                    n => format!(", the best of {n} on {held_out} of train"),
                };
                let LinearFit { l2, iterations, converged, .. } = &fit;
                Ok(Outcome {
                    predictions,
                    how: format!("logistic regression on {by}features by L-BFGS, l2 {l2:e}{chosen}"),
                    settings: json!({ "l2": l2, "iterations": iterations, "converged": converged, "fit": fit }),
                })
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Knn(_) => "knn",
            Self::Linear(_) => "linear",
        }
    }
}

fn probe(args: &EvalArgs, probe: &Probe) -> Result<(), Failure> {
    let subject = Subject::open(args.run.as_deref(), &args.device.device)?;
    probe.check(&subject.file)?;
    let labelled = Labelled::open(args, &subject.file)?;
    // Standardizing takes the mean out of any features, so centred pixels would give the same fit again.
    let centred_is_raw = matches!(probe, Probe::Linear(_)) && subject.file.eval.linear.standardize;
    let (outcomes, banks) =
        subject.climb(&labelled, centred_is_raw, |banks| probe.ask(banks, &subject.file, labelled.classes()))?;
    let Outcome { predictions, how, settings } = &outcomes.trained;
    let protocol = subject.protocol(how, &labelled)?;
    let score = |outcome: &Outcome| outcome.predictions.score();
    let scores = Rungs {
        raw_pixels: score(&outcomes.raw_pixels),
        centred_pixels: score(&outcomes.centred_pixels),
        untrained: score(&outcomes.untrained),
        trained: score(&outcomes.trained),
    };
    let beaten =
        [("raw_pixels", scores.raw_pixels), ("centred_pixels", scores.centred_pixels), ("untrained", scores.untrained)];
    let mut line = json_of(predictions, &beaten, banks.chance(), labelled.classes());
    line.extend(named(&subject, &labelled, &protocol)?);
    if let Value::Object(settings) = settings {
        line.extend(settings.clone());
    }
    let line = Value::Object(line);
    scores::remember(&subject.run_dir, probe.name(), &line);
    if args.json {
        return result_json(&line);
    }
    result(&format!("{how}: top-1 accuracy on {} pictures, with its 95 % interval", scores.trained.n))?;
    result(&format!("  chance            {:5.1} %", 100.0 * banks.chance()))?;
    for (name, score) in [
        ("raw pixels", scores.raw_pixels),
        ("centred pixels", scores.centred_pixels),
        ("untrained encoder", scores.untrained),
        ("trained encoder", scores.trained),
    ] {
        result(&rung(name, &score))?;
    }
    classes_table(predictions, labelled.classes(), args.classes)?;
    result(&format!("protocol {protocol}"))
}

/// Which run was asked at which step, about which pictures, and how.
///
/// # Errors
/// As [`Labelled::n_in_train`].
pub(crate) fn named(subject: &Subject, labelled: &Labelled, protocol: &str) -> Result<Map<String, Value>, Failure> {
    Ok(Map::from_iter([
        ("protocol".to_owned(), json!(protocol)),
        ("run".to_owned(), json!(escape_path(subject.run_dir.path()))),
        ("step".to_owned(), json!(subject.step())),
        ("data".to_owned(), json!(labelled.sides())),
        ("n_in_train".to_owned(), json!(labelled.n_in_train(subject.look())?)),
    ]))
}

/// What an evaluation found, and what it has to beat.
pub(crate) fn json_of(
    predictions: &Predictions,
    beaten: &[(&str, Score)],
    chance: f64,
    classes: &[String],
) -> Map<String, Value> {
    /// Beyond this many classes, or confusions, a report by class is longer than anyone reads.
    const MOST: usize = 1000;
    let name = |class: u32| classes.get(class as usize).cloned().unwrap_or_else(|| class.to_string());
    let per_class = predictions.classes();
    let rows = per_class.iter().take(MOST).map(|class| {
        json!({
            "class": name(class.class),
            "n": class.recall.n,
            "recall": class.recall.top1,
            "ci95": class.recall.ci95,
            "precision": class.precision(),
        })
    });
    let confusions = predictions.confusions();
    let pairs = confusions.iter().take(MOST).map(
        |confusion| json!({ "class": name(confusion.class), "predicted": name(confusion.predicted), "n": confusion.n }),
    );
    let score = predictions.score();
    let mut line = Map::from_iter([
        ("top1".to_owned(), json!(score.top1)),
        ("ci95".to_owned(), json!(score.ci95)),
        ("n".to_owned(), json!(score.n)),
        ("balanced".to_owned(), json!(predictions.balanced_accuracy())),
        ("chance".to_owned(), json!(chance)),
    ]);
    line.extend(beaten.iter().map(|(name, score)| ((*name).to_owned(), json!(score.top1))));
    let intervals = beaten.iter().map(|(name, score)| ((*name).to_owned(), json!(score.ci95)));
    line.insert("ci95_of".to_owned(), Value::Object(intervals.collect()));
    line.insert("classes".to_owned(), Value::Array(rows.collect()));
    line.insert("confusions".to_owned(), Value::Array(pairs.collect()));
    line
}

/// How each class fared, of many classes the worst, and which are taken for which.
pub(crate) fn classes_table(predictions: &Predictions, names: &[String], all: bool) -> Result<(), Failure> {
    const SHOWN: usize = 20;
    const CONFUSIONS: usize = 5;
    let name = |class: u32| names.get(class as usize).map_or_else(|| class.to_string(), Clone::clone);
    let mut classes = predictions.classes();
    let n = classes.len();
    let is_cut = n > SHOWN && !all;
    if is_cut {
        classes.sort_by(|a, b| a.recall.top1.total_cmp(&b.recall.top1).then(a.class.cmp(&b.class)));
        classes.truncate(SHOWN / 2);
        result(&format!("the {} worst of {n} classes (--classes shows them all)", classes.len()))?;
    }
    let width = classes.iter().map(|class| name(class.class).chars().count()).max().unwrap_or(0).max(5);
    result(&format!("  {:width$}  pictures  recognised            precision", "class"))?;
    for class in &classes {
        let Score { top1, ci95: [low, high], n, .. } = class.recall;
        let precision =
            class.precision().map_or_else(|| "      -".to_owned(), |share| format!("{:5.1} %", 100.0 * share));
        let interval = format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high);
        result(&format!("  {:width$}  {n:8}  {:5.1} %  {interval:13} {precision}", name(class.class), 100.0 * top1))?;
    }
    let confusions: Vec<String> = (predictions.confusions().iter().take(CONFUSIONS))
        .map(|confusion| format!("{} as {} ({})", name(confusion.class), name(confusion.predicted), confusion.n))
        .collect();
    if confusions.is_empty() { Ok(()) } else { result(&format!("most often taken: {}", confusions.join(", "))) }
}

fn few_shot(args: &FewShotArgs) -> Result<(), Failure> {
    let subject = Subject::open(args.eval.run.as_deref(), &args.eval.device.device)?;
    let labelled = Labelled::open(&args.eval, &subject.file)?;
    let shots = if args.shots.is_empty() { usual_shots(&labelled.train_pictures()) } else { args.shots.clone() };
    let config = FewShotConfig { shots, draws: args.draws };
    let (curves, banks) = subject.climb(&labelled, false, |banks| {
        config.curve(&banks.train, &banks.test, 0).map_err(|error| match error {
            FewShotError::TooFew { class, pictures, shots } => {
                let class = labelled.classes().get(class as usize).map_or("", String::as_str);
                let have = format!("class {class} has {} to learn from", counted(pictures, "labelled picture"));
                Failure::new(Exit::Data, format!("--shots {shots}: {have}; the most is --shots {pictures}"))
            }
            FewShotError::Shots(_) => Failure::new(Exit::Usage, format!("--shots: {error}")),
            FewShotError::Draws(_) => Failure::new(Exit::Usage, format!("--draws: {error}")),
            other => Failure { exit: Exit::Data, error: other.into() },
        })
    })?;
    let how = format!("nearest class mean by cosine, {} draws of the labelled pictures", args.draws);
    let protocol = subject.protocol(&how, &labelled)?;
    let points = |curve: &[FewShot]| serde_json::to_value(curve).or_exit(Exit::Bug);
    let mut line = Map::from_iter([
        ("trained".to_owned(), points(&curves.trained)?),
        ("untrained".to_owned(), points(&curves.untrained)?),
        ("centred_pixels".to_owned(), points(&curves.centred_pixels)?),
        ("raw_pixels".to_owned(), points(&curves.raw_pixels)?),
        ("chance".to_owned(), json!(banks.chance())),
        ("n".to_owned(), json!(banks.test.len())),
    ]);
    line.extend(named(&subject, &labelled, &protocol)?);
    let line = Value::Object(line);
    scores::remember(&subject.run_dir, "few_shot", &line);
    if args.eval.json {
        return result_json(&line);
    }
    result(&format!(
        "{how}: top-1 accuracy on {} pictures in %, with its 95 % intervals over other draws and over other test pictures; \
         chance {:.1}",
        banks.test.len(),
        100.0 * banks.chance()
    ))?;
    result(
        "  labels of each class  raw pixels  centred pixels  untrained encoder  trained encoder  [draws]       [test pictures]",
    )?;
    for (i, trained) in curves.trained.iter().enumerate() {
        let share = |curve: &[FewShot]| 100.0 * curve[i].top1;
        let interval = |[low, high]: [f64; 2]| format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high);
        result(&format!(
            "  {:20}  {:10.1}  {:14.1}  {:17.1}  {:15.1}  {:12}  {}",
            trained.shots,
            share(&curves.raw_pixels),
            share(&curves.centred_pixels),
            share(&curves.untrained),
            100.0 * trained.top1,
            interval(trained.ci95),
            interval(trained.ci95_test)
        ))?;
    }
    result(&format!("protocol {protocol}"))
}

/// The usual numbers of labels of a class, as far as the smallest class has them.
fn usual_shots(source: &dyn Source) -> Vec<usize> {
    const USUAL: [usize; 4] = [1, 2, 5, 10];
    let mut counts = BTreeMap::new();
    (0..source.len()).filter_map(|i| source.label(i)).for_each(|label| *counts.entry(label).or_insert(0) += 1);
    let smallest = counts.into_values().min().unwrap_or(0);
    let (shots, left_out): (Vec<usize>, Vec<usize>) = USUAL.into_iter().partition(|&n| n <= smallest.max(1));
    if let [first, ..] = left_out[..] {
        let have = counted(smallest, "labelled picture");
        note(&format!("the smallest class has {have} to learn from, so {first} and more of each are left out"));
    }
    shots
}

/// One line of a ladder.
pub(crate) fn rung(name: &str, score: &Score) -> String {
    let [low, high] = score.ci95;
    format!("  {name:17} {:5.1} %  [{:.1}, {:.1}]", 100.0 * score.top1, 100.0 * low, 100.0 * high)
}
