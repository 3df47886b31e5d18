//! The training loop.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use burn::tensor::Device;
use twoview_data::{LoadError, Loader};
use twoview_encoder::FrozenEncoder;
use twoview_loss::Objective;
use twoview_optim::Schedule;

use crate::{Checkpoint, CheckpointError, MetricSink, RunDir, StepError, StepMetrics, TrainState, Watch, step};

/// What [`run`] needs besides the state it changes.
pub struct Job<'a> {
    /// The batches, a pure function of epoch and index.
    pub loader: &'a Loader,
    /// What the embeddings are asked to do.
    pub objective: &'a dyn Objective,
    /// The learning rate of every step; it also knows how many there are.
    pub schedule: &'a Schedule,
    /// Steps between checkpoints.
    pub save_every: u64,
    /// Above this share of distinct pictures that had to be replaced the run ends with an error.
    pub max_bad_fraction: f64,
    /// Who looks at the encoder while it trains.
    pub watch: Option<&'a dyn Watch>,
    /// Where the network lives, with automatic differentiation.
    pub device: &'a Device,
    /// Where checkpoints go.
    pub run_dir: &'a RunDir,
    /// Set from outside to end the run after the step that is being made.
    pub stop: &'a AtomicBool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All steps are done.
    Finished,
    /// It was asked to stop; it can be resumed.
    Stopped,
}

/// Why a run ended early. The last checkpoint is whole in every case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The pictures.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Too many pictures could be read when the run began and cannot be read any more.
    #[error(
        "{bad} of {total} pictures can no longer be read, more than data.source.max_bad_fraction = {limit} allows; see bad_files.jsonl"
    )]
    TooManyBad {
        /// Distinct pictures that failed.
        bad: usize,
        /// All pictures.
        total: usize,
        /// The limit, as a share.
        limit: f64,
    },
    /// The step.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The measurements.
    #[error("cannot write the measurements of step {step}")]
    Metrics {
        /// The step that was made.
        step: u64,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Trains from `state` until the schedule ends or `job.stop` is set, and leaves a checkpoint either way.
///
/// The step alone says where in which epoch the run is, so a run that was resumed sees the same batches as one that was
/// not.
///
/// # Errors
/// [`TrainError`].
pub fn run(
    job: &Job<'_>,
    mut state: TrainState,
    sinks: &mut [&mut dyn MetricSink],
) -> Result<(TrainState, Ended), TrainError> {
    let per_epoch = job.loader.batches_per_epoch() as u64;
    let n = job.loader.batch_size();
    let mut replaced = std::collections::BTreeSet::new();
    while state.step < job.schedule.total_steps() {
        let (epoch, first) = place(state.step, per_epoch);
        let mut batches = job.loader.epoch(epoch, first);
        let mut begun = Instant::now();
        while let Some(batch) = batches.next().transpose()? {
            let waited = begun.elapsed();
            for sink in &mut *sinks {
                batch
                    .replaced
                    .iter()
                    .try_for_each(|replaced| sink.replaced(state.step + 1, replaced))
                    .map_err(unwritten(state.step + 1))?;
            }
            replaced.extend(batch.replaced.iter().map(|replaced| replaced.sample));
            check_bad(job, replaced.len())?;

            let lr = job.schedule.lr(state.step);
            let annealed = job.objective.annealed(progress(state.step, job.schedule.total_steps()));
            let objective = annealed.as_deref().unwrap_or(job.objective);
            // `step` ends in the run's only device-to-host sync: loss and gradient norm are read before the update.
            let (next, stepped) = step(state, &batch, objective, lr, job.device)?;
            state = next;
            job.loader.recycle(batch);

            let images_per_s = n as f64 / begun.elapsed().as_secs_f64();
            let waited = share(waited, begun.elapsed());
            let due = job.watch.filter(|watch| watch.is_due(state.step, job.schedule.total_steps()));
            let knn = due.and_then(|watch| watch.look(&FrozenEncoder::new(&state.network.encoder)));
            let metrics = StepMetrics {
                step: state.step,
                epoch: state.step as f64 / per_epoch as f64,
                chance: objective.chance(n),
                floor: objective.floor(n),
                contrast: stepped.contrast,
                lr,
                gradient_norm: stepped.gradient_norm,
                gradient_noise: stepped.gradient_noise,
                images_per_s,
                knn,
                waited,
            };
            begun = Instant::now();
            sinks.iter_mut().try_for_each(|sink| sink.record(&metrics)).map_err(unwritten(state.step))?;

            let stop = job.stop.load(Ordering::Relaxed);
            let last = state.step == job.schedule.total_steps();
            if stop || last || state.step.is_multiple_of(job.save_every) {
                let marks = sinks.iter_mut().map(|sink| sink.mark());
                let metrics_bytes = marks.sum::<io::Result<u64>>().map_err(unwritten(state.step))?;
                Checkpoint::save(job.run_dir, &state, metrics_bytes)?;
            }
            if last {
                return Ok((state, Ended::Finished));
            }
            if stop {
                return Ok((state, Ended::Stopped));
            }
        }
    }
    Ok((state, Ended::Finished))
}

/// The epoch and the batch in it that follow after `step` steps.
///
/// A loader that has more batches or epochs than these types count would run for ages; the casts saturate.
fn place(step: u64, per_epoch: u64) -> (u32, usize) {
    (u32::try_from(step / per_epoch).unwrap_or(u32::MAX), usize::try_from(step % per_epoch).unwrap_or(usize::MAX))
}

/// How far training is when `step` steps are done: 0 at the first step, 1 at the last.
fn progress(step: u64, total: u64) -> f64 {
    step as f64 / total.saturating_sub(1).max(1) as f64
}

fn unwritten(step: u64) -> impl Fn(io::Error) -> TrainError {
    move |source| TrainError::Metrics { step, source }
}

fn check_bad(job: &Job<'_>, bad: usize) -> Result<(), TrainError> {
    let total = job.loader.n_pictures();
    if bad as f64 > job.max_bad_fraction * total as f64 {
        return Err(TrainError::TooManyBad { bad, total, limit: job.max_bad_fraction });
    }
    Ok(())
}

fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() { 0.0 } else { part.as_secs_f64() / whole.as_secs_f64() }
}
