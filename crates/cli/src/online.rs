//! The looks at an encoder while it trains: nearest neighbours on some of the labelled pictures.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use twoview_data::{Source, Split as Part, Subset};
use twoview_encoder::FrozenEncoder;
use twoview_eval::{ExtractError, FeatureBank, KnnConfig, Split};
use twoview_train::{OnlineScore, Watch};

use crate::{
    failure::{Exit, Failure, OrExit},
    labelled::{HELD_OUT, Look, PIXELS_PX, look},
    pictures,
    run_file::RunFile,
    spread::spread,
    subject::untrained_encoder,
    terminal::note,
    unfinished::Unfinished,
};

/// What the looks are to be compared with, on the same pictures, in the run's `online.json`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct OnlineReferences {
    pub(crate) untrained: f64,
    pub(crate) raw_pixels: f64,
}

impl OnlineReferences {
    fn path(run: &Path) -> PathBuf {
        run.join("online.json")
    }

    /// Those of a run; `None` where it never looked at its encoder.
    pub(crate) fn of_run(run: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(Self::path(run)).ok()?).ok()
    }
}

/// Asks the nearest neighbours every so many steps, and after the last one.
pub(crate) struct Online {
    train: Subset,
    test: Subset,
    look: Look,
    knn: KnnConfig,
    every: u64,
    /// What the untrained encoder is made of.
    file: RunFile,
    device: Device,
    run: PathBuf,
}

impl Online {
    /// The looks that a run file asks for; none where it asks for none or the pictures have no labels.
    ///
    /// # Errors
    /// [`Exit::Data`] where the set's test pictures cannot be opened.
    pub(crate) fn new(
        file: &RunFile,
        source: &Arc<dyn Source>,
        every: u64,
        device: &Device,
        run: &Path,
    ) -> Result<Option<Self>, Failure> {
        let labelled: Vec<usize> = (0..source.len()).filter(|&i| source.label(i).is_some()).collect();
        if every == 0 || source.classes().len() < 2 || labelled.is_empty() {
            return Ok(None);
        }
        let sizes = file.eval.online;
        let (train, test) = if file.data.source.has_test() {
            let test = pictures::open_labelled(&file.data.source, Part::Test)?.source;
            let all = (0..test.len()).collect();
            ((Arc::clone(source), labelled), (test, all))
        } else {
            let labels: Vec<u32> = labelled.iter().filter_map(|&i| source.label(i)).collect();
            let Ok(split) = Split::stratified(&labels, HELD_OUT, 0) else { return Ok(None) };
            let part = |rows: &[usize]| rows.iter().map(|&row| labelled[row]).collect::<Vec<usize>>();
            ((Arc::clone(source), part(&split.train)), (Arc::clone(source), part(&split.test)))
        };
        let some = |(source, members): (Arc<dyn Source>, Vec<usize>), n| Subset::new(source, spread(&members, n));
        let online = Self {
            file: file.clone(),
            device: device.clone(),
            run: run.to_owned(),
            train: some(train, sizes.train),
            test: some(test, sizes.test),
            look: look(file)?,
            knn: file.eval.knn,
            every,
        };
        if online.train.is_empty() || online.test.is_empty() {
            let message = "eval.online: expected at least one picture to train on and one to test on";
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(Some(online))
    }

    fn score(&self, encoder: &FrozenEncoder) -> Result<OnlineScore, Failure> {
        self.score_of(|source| {
            FeatureBank::from_encoder(source, encoder, self.look.size_px, self.look.normalize, &|_, _| {})
        })
    }

    fn score_of(&self, bank: impl Fn(&Subset) -> Result<FeatureBank, ExtractError>) -> Result<OnlineScore, Failure> {
        let (train, test) = (bank(&self.train).or_exit(Exit::Data)?, bank(&self.test).or_exit(Exit::Data)?);
        let score = self.knn.init(&train).or_exit(Exit::Data)?.evaluate(&test).or_exit(Exit::Data)?;
        Ok(OnlineScore { top1: score.top1, ci95: score.ci95, n: score.n, chance: test.majority_share() })
    }

    /// Answers the same question without training, once in a run.
    fn keep_references(&self) -> Result<(), Failure> {
        let path = OnlineReferences::path(&self.run);
        if path.exists() {
            return Ok(());
        }
        let untrained = self.score(&untrained_encoder(&self.file, &self.device)?)?.top1;
        let side = self.look.size_px.min(PIXELS_PX);
        let raw_pixels = self.score_of(|source| FeatureBank::from_pixels(source, side, &|_, _| {}))?.top1;
        let references = OnlineReferences { untrained, raw_pixels };
        let text = serde_json::to_string(&references).or_exit(Exit::Bug)?;
        Unfinished::create_own(&path)?.finish(|file| file.write_all(text.as_bytes()))
    }
}

impl Watch for Online {
    fn is_due(&self, step: u64, total: u64) -> bool {
        step.is_multiple_of(self.every) || step == total
    }

    fn look(&self, encoder: &FrozenEncoder) -> Option<OnlineScore> {
        if let Err(failure) = self.keep_references() {
            note(&format!("warning: nothing to compare the looks with: {:#}", failure.error));
        }
        self.score(encoder)
            .map_err(|failure| note(&format!("warning: no look at the encoder: {:#}", failure.error)))
            .ok()
    }
}
