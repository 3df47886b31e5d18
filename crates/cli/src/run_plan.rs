//! A run file after every check: values that can no longer be wrong.

use std::{num::NonZeroU64, sync::Arc};

use burn::tensor::Device;
use twoview_augment::AugmentError;
use twoview_data::{Loader, LoaderConfig, LoaderError, OnBad, Source};
use twoview_eval::{KnnConfig, LinearProbeError, SupervisedConfig, SupervisedConfigError};
use twoview_loss::{Objective, ObjectiveConfig, ObjectiveError};
use twoview_optim::{OptimizerError, Schedule, ScheduleError, SpanError};
use twoview_pixels::Normalize;
use twoview_train::{NetworkConfig, NetworkError, TrainState};

use crate::{
    run_file::{NormalizeConfig, RunFile, SourceConfig},
    terminal::note,
};

/// What a run will do, with every part built from the run file and checked against the data.
pub(crate) struct RunPlan {
    pub(crate) loss: ObjectiveConfig,
    pub(crate) network: NetworkConfig,
    pub(crate) objective: Box<dyn Objective>,
    pub(crate) loader: Loader,
    pub(crate) schedule: Schedule,
    /// Steps between checkpoints.
    pub(crate) save_every: u64,
    /// Steps between looks at the encoder; 0 for none.
    pub(crate) knn_every: u64,
    pub(crate) max_bad_fraction: f64,
}

/// Why a run file and its data make no run. Each message begins with the key at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PlanError {
    #[error("augment")]
    Augment(#[from] AugmentError),
    #[error("normalize: expected a finite mean and std above 0, got mean = {mean:?}, std = {std:?}")]
    Normalize { mean: [f32; 3], std: [f32; 3] },
    #[error("loss")]
    Objective(#[from] ObjectiveError),
    #[error(
        "loss: this objective learns from labels, and the pictures have none: put each class into a folder of its own, or \
         choose another loss.kind"
    )]
    NoLabels,
    #[error(
        "data.batch_size: expected at most {pictures}, all pictures there are, got {got}; --set data.batch_size={pictures}, or write that"
    )]
    FewPictures { got: usize, pictures: usize },
    #[error("data")]
    Loader(#[source] LoaderError),
    #[error("{key}")]
    Span { key: &'static str, source: SpanError },
    #[error("schedule")]
    Schedule(#[from] ScheduleError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("optimizer")]
    Optimizer(#[from] OptimizerError),
    #[error("eval.linear")]
    Linear(#[from] LinearProbeError),
    #[error("eval.knn: expected k of at least 1 and a temperature above 0, got k = {}, temperature = {}", .0.k, .0.temperature)]
    Knn(KnnConfig),
    #[error("{key}")]
    Supervised { key: &'static str, source: SupervisedConfigError },
    #[error("data.source.max_bad_fraction: expected a number from 0 to 1, got {0}")]
    BadFraction(f64),
    #[error("every.save: expected at least one step between checkpoints, got none")]
    SaveSpan,
}

/// Views are rendered ahead of the training step into a queue of this many batches.
pub(crate) const PREFETCH: usize = 3;

/// Fewer negatives than this teach little; the run goes on, but says so.
const FEW_PICTURES: usize = 32;

/// Checks what can be checked before a picture is looked at, so that a slip costs no waiting.
///
/// # Errors
/// [`PlanError`].
pub(crate) fn check(file: &RunFile) -> Result<(), PlanError> {
    file.augment.clone().init()?;
    normalize(&file.normalize)?;
    file.loss.init()?;
    file.optimizer.init()?;
    file.eval.linear.clone().init()?;
    let supervised =
        |key, config: SupervisedConfig| config.check().map_err(|source| PlanError::Supervised { key, source });
    supervised("eval.linear_augmented", file.eval.linear_augmented)?;
    supervised("eval.finetune", file.eval.finetune)?;
    check_knn(file.eval.knn)?;
    let max_bad_fraction = file.data.source.max_bad_fraction();
    if (0.0..=1.0).contains(&max_bad_fraction) { Ok(()) } else { Err(PlanError::BadFraction(max_bad_fraction)) }
}

/// Checks the settings of the nearest neighbours, which otherwise show only when there are features to search.
///
/// # Errors
/// [`PlanError::Knn`].
pub(crate) fn check_knn(config: KnnConfig) -> Result<(), PlanError> {
    if config.k >= 1 && config.temperature > 0.0 && config.temperature.is_finite() {
        Ok(())
    } else {
        Err(PlanError::Knn(config))
    }
}

impl RunPlan {
    /// Checks `file` against `source` and builds everything but the weights.
    ///
    /// # Errors
    /// [`PlanError`].
    pub(crate) fn new(file: &RunFile, source: Arc<dyn Source>) -> Result<Self, PlanError> {
        let batch_size = file.data.batch_size;
        let objective = file.loss.init()?;
        if objective.is_supervised() && (0..source.len()).any(|i| source.label(i).is_none()) {
            return Err(PlanError::NoLabels);
        }
        let loader = Loader::new(
            source,
            Arc::new(file.augment.clone().init()?),
            normalize(&file.normalize)?,
            file.seed,
            LoaderConfig {
                batch_size,
                drop_last: true,
                workers: file.data.workers,
                prefetch: PREFETCH,
                pixels: file.data.pixels,
            },
        )
        .map_err(|error| match error {
            LoaderError::BatchLargerThanData { batch_size, pictures } => {
                PlanError::FewPictures { got: batch_size, pictures }
            }
            other => PlanError::Loader(other),
        })?;
        let per_epoch = loader.batches_per_epoch() as u64;
        let steps = |key, span: &twoview_optim::Span| {
            span.steps(per_epoch, batch_size as u64).map_err(|source| PlanError::Span { key, source })
        };
        let schedule = file.schedule.init(
            file.optimizer.peak_lr(batch_size as u64),
            steps("length", &file.length)?,
            per_epoch,
            batch_size as u64,
        )?;
        let (n_cancelled, n_candidates) = (objective.n_cancelled(), objective.field().n_candidates(batch_size));
        if n_cancelled > n_candidates / 4 {
            note(&format!(
                "warning: loss: n_cancelled = {n_cancelled} of at most {n_candidates} candidates: more than a quarter of what a view could be \
                 told from is left out, the most telling part first"
            ));
        }
        if let Some(warning) = file.loss.warning() {
            note(&format!("warning: loss: {warning}"));
        }
        if batch_size < FEW_PICTURES {
            note(&format!(
                "warning: data.batch_size = {batch_size}: each view has only {} others to be told from; \
                 {FEW_PICTURES} and more learn better",
                n_candidates + 1
            ));
        }
        let max_bad_fraction = match file.data.source {
            SourceConfig::Folder { on_bad: OnBad::Fail, .. } => 0.0,
            ref source => source.max_bad_fraction(),
        };
        Ok(Self {
            loss: file.loss.clone(),
            network: NetworkConfig { encoder: file.encoder, head: file.head },
            objective,
            save_every: NonZeroU64::new(steps("every.save", &file.every.save)?).ok_or(PlanError::SaveSpan)?.get(),
            knn_every: steps("every.knn", &file.every.knn)?,
            loader,
            schedule,
            max_bad_fraction,
        })
    }

    /// Fresh weights and an optimizer without memory.
    ///
    /// # Errors
    /// [`PlanError::Network`] or [`PlanError::Optimizer`].
    pub(crate) fn fresh_state(&self, file: &RunFile, device: &Device) -> Result<TrainState, PlanError> {
        Ok(TrainState { network: self.network.init(file.seed, device)?, optimizer: file.optimizer.init()?, step: 0 })
    }
}

/// The steps that a run over so many pictures comes to; `None` where it counts epochs and they are no whole batch.
pub(crate) fn total_steps(file: &RunFile, n_pictures: usize) -> Option<u64> {
    // The loader leaves out what fills no batch.
    let per_epoch = n_pictures.checked_div(file.data.batch_size)? as u64;
    file.length.steps(per_epoch, file.data.batch_size as u64).ok()
}

/// Checks channel statistics.
///
/// # Errors
/// [`PlanError::Normalize`].
pub(crate) fn normalize(config: &NormalizeConfig) -> Result<Normalize, PlanError> {
    if config.std.iter().all(|std| *std > 0.0 && std.is_finite()) && config.mean.iter().all(|mean| mean.is_finite()) {
        Ok(Normalize { mean: config.mean, std: config.std })
    } else {
        Err(PlanError::Normalize { mean: config.mean, std: config.std })
    }
}
