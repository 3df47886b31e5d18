//! Labelled pictures, and the features that an encoder or the pictures themselves give of them.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, OnceLock},
};

use serde::Serialize;
use twoview_data::{Source, Split as Part, Subset};
use twoview_encoder::FrozenEncoder;
use twoview_eval::{
    FeatureBank, KnnChoice, KnnGrid, LinearFit, LinearProbeConfig, LinearProbeError, Predictions, Split,
};
use twoview_pixels::Normalize;

use crate::{
    args::EvalArgs,
    failure::{Exit, Failure, OrExit},
    pictures::{self, Pictures},
    run_file::{RunFile, SourceConfig},
    run_plan,
    terminal::{Counter, counted, listed, note},
};

/// Labelled pictures to learn from and others to test on.
pub(crate) struct Labelled {
    /// Whose pictures these are: of both sides where there are two, else of that from which a part is held out.
    sides: Vec<Side>,
    train: Arc<dyn Source>,
    test: Test,
    /// How many test pictures are training pictures too, once it was looked at.
    n_in_train: OnceLock<usize>,
}

/// Where pictures are, and which.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Side {
    place: String,
    fingerprint: String,
}

impl Side {
    fn of(config: &SourceConfig, pictures: &Pictures) -> Self {
        Self { place: config.place(), fingerprint: pictures.manifest.fingerprint.clone() }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.place, self.fingerprint.get(..8).unwrap_or(&self.fingerprint))
    }
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
pub(crate) const PIXELS_PX: u32 = 32;

/// Pictures whose pixels are in memory at a time when the two sides are compared.
const COMPARED: usize = 4096;

/// Classes that a message names; there may be thousands.
const CLASSES_NAMED: usize = 10;

/// Held out for testing where no test pictures were given.
pub(crate) const HELD_OUT: f64 = 0.2;

/// Operations of a step that takes about a minute on a few cores.
const LONG_STEP: f64 = 1e12;

impl Labelled {
    /// Labelled pictures with a test set of their own.
    ///
    /// # Errors
    /// [`Exit::Data`] where labels are missing, the test set has a class that the training set does not know, or there is one class.
    pub(crate) fn with_test(train: Arc<dyn Source>, test: Arc<dyn Source>) -> Result<Self, Failure> {
        require_labels(train.as_ref(), "--train", "--labels")?;
        require_labels(test.as_ref(), "--test", "--test-labels")?;
        let only = |a: &dyn Source, b: &dyn Source| {
            let known: HashSet<&String> = b.classes().iter().collect();
            let only: Vec<&str> =
                a.classes().iter().filter(|class| !known.contains(class)).map(String::as_str).collect();
            (!only.is_empty()).then(|| listed(&only, CLASSES_NAMED))
        };
        if let Some(unknown) = only(test.as_ref(), train.as_ref()) {
            let message = format!(
                "--test: no training picture is of the class {unknown}; the classes to learn from are those of --train, so add \
                 pictures there, or take these out of the test"
            );
            return Err(Failure::new(Exit::Data, message));
        }
        if let Some(untested) = only(train.as_ref(), test.as_ref()) {
            note(&format!("no test picture is of the class {untested}"));
        }
        let all = (0..test.len()).collect();
        let test = Subset::new(test, all).with_classes(train.classes());
        let test: Arc<dyn Source> = Arc::new(test.ok_or_else(|| Failure::new(Exit::Bug, "the classes were compared"))?);
        let labelled = Self { sides: Vec::new(), train, test: Test::Source(test), n_in_train: OnceLock::new() };
        labelled.require_two_classes()?;
        Ok(labelled)
    }

    /// Labelled pictures of which a part is held out, the same part every time.
    ///
    /// # Errors
    /// [`Exit::Data`] where labels are missing, nothing can be held out, or there is one class.
    pub(crate) fn held_out(all: Arc<dyn Source>) -> Result<Self, Failure> {
        require_labels(all.as_ref(), "--train", "--labels")?;
        let labels: Vec<u32> = (0..all.len()).filter_map(|i| all.label(i)).collect();
        let split = Split::stratified(&labels, HELD_OUT, 0).or_exit(Exit::Data)?;
        let labelled = Self { sides: Vec::new(), train: all, test: Test::HeldOut(split), n_in_train: OnceLock::new() };
        labelled.require_two_classes()?;
        Ok(labelled)
    }

    /// Of one class alone every answer would be right.
    fn require_two_classes(&self) -> Result<(), Failure> {
        let train = self.train_pictures();
        let mut labels = (0..train.len()).filter_map(|i| train.label(i));
        let Some(first) = labels.next() else { return Ok(()) };
        if labels.any(|label| label != first) {
            return Ok(());
        }
        let n = counted(train.len(), "labelled picture");
        let class = self.classes().get(first as usize).map_or("", String::as_str);
        let message = format!("the {n} to learn from are of one class, {class}: expected at least two classes");
        Err(Failure::new(Exit::Data, message))
    }

    /// Whose pictures these are: of both sides where there are two, else of that from which a part is held out.
    pub(crate) fn sides(&self) -> &[Side] {
        &self.sides
    }

    /// The names of the classes.
    pub(crate) fn classes(&self) -> &[String] {
        self.train.classes()
    }

    /// The pictures to learn from.
    pub(crate) fn train_pictures(&self) -> Subset {
        let members = match &self.test {
            Test::Source(_) => (0..self.train.len()).collect(),
            Test::HeldOut(split) => split.train.clone(),
        };
        Subset::new(Arc::clone(&self.train), members)
    }

    /// The pictures to test on.
    pub(crate) fn test_pictures(&self) -> Subset {
        match &self.test {
            Test::Source(test) => Subset::new(Arc::clone(test), (0..test.len()).collect()),
            Test::HeldOut(split) => Subset::new(Arc::clone(&self.train), split.test.clone()),
        }
    }

    /// What the pictures themselves say, without any encoder, at no more than [`PIXELS_PX`] pixels a side.
    ///
    /// # Errors
    /// [`Exit::Data`] where a picture cannot be read.
    pub(crate) fn pixels(&self, look: Look) -> Result<Banks, Failure> {
        let banks = self.banks("pixels", |source, counter| {
            let side = look.size_px.min(PIXELS_PX);
            FeatureBank::from_pixels(source, side, &|done, total| counter.at(done, total)).or_exit(Exit::Data)
        })?;
        self.n_in_train.get_or_init(|| n_in_train(banks.train.row_hashes(), &banks.test.row_hashes()));
        Ok(banks)
    }

    /// How many test pictures are training pictures too, by their pixels as [`pixels`](Self::pixels) sees them; the first time
    /// that this is asked, it is said aloud.
    ///
    /// # Errors
    /// As [`pixels`](Self::pixels).
    pub(crate) fn n_in_train(&self, look: Look) -> Result<usize, Failure> {
        if let Some(&known) = self.n_in_train.get() {
            return Ok(known);
        }
        let hashes = |pictures: Subset| -> Result<Vec<u64>, Failure> {
            let (n, pictures): (usize, Arc<dyn Source>) = (pictures.len(), Arc::new(pictures));
            let counter = Counter::start("comparing", n);
            let mut hashes = Vec::with_capacity(n);
            // Some at a time: their pixels are not needed for anything else.
            for first in (0..n).step_by(COMPARED) {
                let some = Subset::new(Arc::clone(&pictures), (first..n.min(first + COMPARED)).collect());
                let bank =
                    FeatureBank::from_pixels(&some, look.size_px.min(PIXELS_PX), &|_, _| {}).or_exit(Exit::Data)?;
                hashes.extend(bank.row_hashes());
                counter.at(hashes.len(), n);
            }
            counter.end();
            Ok(hashes)
        };
        let (train, test) = (hashes(self.train_pictures())?, hashes(self.test_pictures())?);
        Ok(*self.n_in_train.get_or_init(|| n_in_train(train, &test)))
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

/// How many of `test` are in `train`, said aloud where some are.
fn n_in_train(train: Vec<u64>, test: &[u64]) -> usize {
    let train: HashSet<u64> = train.into_iter().collect();
    let n = test.iter().filter(|&hash| train.contains(hash)).count();
    if n > 0 {
        note(&format!(
            "warning: {n} of {} test pictures are training pictures too, as far as their middle shows at {PIXELS_PX} px: the \
             answers flatter whatever remembers them",
            test.len()
        ));
    }
    n
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

    /// What the nearest neighbours say of each test picture, and by which settings.
    ///
    /// # Errors
    /// [`Exit::Data`] where the labels make no question.
    pub(crate) fn knn(&self, grid: &KnnGrid) -> Result<(Predictions, KnnChoice), Failure> {
        let choice = grid.choose(&self.train).or_exit(Exit::Data)?;
        let votes = choice.config.init(&self.train).or_exit(Exit::Data)?.votes(&self.test).or_exit(Exit::Data)?;
        Ok((self.predictions(votes.iter().map(|vote| vote.predicted).collect())?, choice))
    }

    /// What a linear classifier says of each test picture, and how it was found; `classes` are names for messages.
    ///
    /// # Errors
    /// [`Exit::Usage`] where the settings are impossible, [`Exit::Data`] where the labels are.
    pub(crate) fn linear(
        &self,
        config: &LinearProbeConfig,
        classes: &[String],
    ) -> Result<(Predictions, LinearFit), Failure> {
        let [n, c, f] = [self.train.len(), classes.len(), self.train.dim()].map(|n| n as f64);
        let step = 4.0 * n * c * f;
        if step > LONG_STEP {
            note(&format!(
                "warning: {n} pictures, {c} classes and {f} features take {step:.0e} operations for each step of the linear \
                 probe, and it makes some fifteen for each of {} strengths; `eval knn` answers far sooner",
                config.l2.len()
            ));
        }
        let fitted = config.clone().init().or_exit(Exit::Usage)?.fit(&self.train);
        let classifier = fitted.map_err(|error| match error {
            LinearProbeError::MissingClass { class, .. } => {
                let class = classes.get(class as usize).map_or("", String::as_str);
                let message = format!("class {class} has no picture to learn from: take the class out, or add some");
                Failure::new(Exit::Data, message)
            }
            LinearProbeError::HeldOut(why) => {
                let message =
                    format!("eval.linear.l2: nothing to choose among {:?} on: {why}; give one with --l2", config.l2);
                Failure::new(Exit::Data, message)
            }
            other => Failure { exit: Exit::Data, error: other.into() },
        })?;
        let fit = classifier.fit().clone();
        if !fit.converged {
            note(&format!(
                "warning: the linear probe stopped after {} steps before it converged (gradient {:.1e}); raise \
                 eval.linear.max_iterations",
                fit.iterations, fit.gradient_max_abs
            ));
        }
        Ok((self.predictions(classifier.predict(&self.test).or_exit(Exit::Data)?)?, fit))
    }

    fn predictions(&self, predicted: Vec<u32>) -> Result<Predictions, Failure> {
        Predictions::new(predicted, self.test.labels().to_vec()).or_exit(Exit::Bug)
    }
}

impl Labelled {
    /// The pictures that a command line names, else those of the run.
    ///
    /// # Errors
    /// [`Exit::Data`] where they cannot be used, [`Exit::Usage`] where labels are given for a set that has none of its own
    /// files.
    pub(crate) fn open(args: &EvalArgs, file: &RunFile) -> Result<Self, Failure> {
        let source = &file.data.source;
        let mut train = pictures::source_or_own(args.train.as_deref(), "--train", source)?;
        if let Some(table) = &args.labels {
            train.set_labels(table)?;
        }
        let pictures = pictures::open_labelled(&train, Part::Train)?;
        let mut sides = vec![Side::of(&train, &pictures)];
        let all = with_labels(pictures.source);
        let mut test = None;
        if let Some(path) = &args.test {
            let mut config = pictures::source_at(path, source)?;
            if let Some(table) = &args.test_labels {
                config.set_labels(table)?;
            }
            let pictures = pictures::open_labelled(&config, Part::Test)?;
            sides.push(Side::of(&config, &pictures));
            test = Some(with_labels(pictures.source));
        } else if args.train.is_none() && args.labels.is_none() && source.has_test() {
            let pictures = pictures::open_labelled(source, Part::Test)?;
            sides.push(Side::of(source, &pictures));
            test = Some(pictures.source);
        }
        let labelled = match test {
            Some(test) => Self::with_test(all, test)?,
            None => {
                note("no --test given: a fifth of the labelled pictures is held out to test on");
                Self::held_out(all)?
            }
        };
        Ok(Self { sides, ..labelled })
    }
}

/// The pictures that have a label: a table may name only some of them.
fn with_labels(all: Arc<dyn Source>) -> Arc<dyn Source> {
    let labelled: Vec<usize> = (0..all.len()).filter(|&i| all.label(i).is_some()).collect();
    let n_without = all.len() - labelled.len();
    if n_without == 0 || labelled.is_empty() {
        return all;
    }
    note(&format!("{n_without} of {} pictures have no label and take no part in the evaluation", all.len()));
    Arc::new(Subset::new(all, labelled))
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

fn require_labels(source: &dyn Source, folder_flag: &str, table_flag: &str) -> Result<(), Failure> {
    if source.classes().is_empty() {
        let which = if folder_flag == "--test" { "test pictures" } else { "pictures" };
        return Err(Failure::new(
            Exit::Data,
            format!(
                "the {which} have no labels: evaluation needs one sub-folder for each class, or a table; give such a folder \
                 with {folder_flag}, or a CSV file with the columns path and label with {table_flag}"
            ),
        ));
    }
    if (0..source.len()).all(|i| source.label(i).is_none()) {
        let message = format!("{table_flag}: none of the pictures has a row in the table; its first column names them");
        return Err(Failure::new(Exit::Data, message));
    }
    if let Some(i) = (0..source.len()).find(|&i| source.label(i).is_none()) {
        let message = format!("{} has no label: evaluation needs one for every picture", source.name(i));
        return Err(Failure::new(Exit::Data, message));
    }
    Ok(())
}
