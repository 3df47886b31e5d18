//! A run's measurements as an event file that TensorBoard reads, in the folder `tb` of the run.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use twoview_report::{EventFile, StepRow};
use twoview_train::{MetricSink, RunDir, StepMetrics};

use crate::{
    failure::{Failure, at},
    unfinished::Unfinished,
};

/// Where the events of a run are.
pub(crate) fn path(run: &Path) -> PathBuf {
    run.join("tb").join("events.out.tfevents.0.twoview")
}

/// Writes all measurements so far. One file holds the whole run: made again, it replaces the one before.
///
/// # Errors
/// [`Exit::Io`](crate::failure::Exit::Io) where it cannot be written.
pub(crate) fn write_events(run: &Path, steps: &[StepRow]) -> Result<PathBuf, Failure> {
    let path = path(run);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let now = seconds_since_1970();
    Unfinished::create(&path)?.finish(|file| {
        let mut events = EventFile::new(file, now)?;
        steps.iter().try_for_each(|step| events.scalars(now, step.step, &scalars(step)))
    })?;
    Ok(path)
}

/// Writes the measurements of each step as it is made.
pub(crate) struct Events(EventFile<File>);

impl Events {
    /// Begins with the steps that a resumed run has made before its checkpoint.
    ///
    /// # Errors
    /// [`Exit::Io`](crate::failure::Exit::Io) where it cannot be written.
    pub(crate) fn start(run_dir: &RunDir, earlier: &[StepRow]) -> Result<Self, Failure> {
        let path = write_events(run_dir.path(), earlier)?;
        Ok(Self(EventFile::append(OpenOptions::new().append(true).open(&path).map_err(at(&path))?)))
    }
}

impl MetricSink for Events {
    fn record(&mut self, metrics: &StepMetrics) -> io::Result<()> {
        // A row is what a line of metrics.jsonl holds, so that both ways write the same numbers.
        let row: StepRow = serde_json::from_value(serde_json::to_value(metrics)?)?;
        self.0.scalars(seconds_since_1970(), row.step, &scalars(&row))
    }
}

fn scalars(step: &StepRow) -> Vec<(&'static str, f32)> {
    [
        ("loss/loss", step.loss),
        ("loss/chance", step.chance),
        ("loss/floor", step.floor),
        ("knn/top1", step.knn.and_then(|knn| knn.top1)),
        ("optimizer/lr", step.lr),
        ("optimizer/gradient_norm", step.gradient_norm),
        ("embeddings/alignment", step.alignment),
        ("embeddings/uniformity", step.uniformity),
        ("embeddings/effective_rank", step.effective_rank),
        ("embeddings/top1_in_batch", step.top1),
        ("speed/images_per_s", step.images_per_s),
    ]
    .into_iter()
    .filter_map(|(tag, value)| Some((tag, value?)))
    .collect()
}

fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
