//! What a run has measured so far.

use std::{fs::File, io::BufReader};

use twoview_report::{StepRow, StepsError, read_steps};
use twoview_train::RunDir;

use crate::terminal::note;

/// The steps in a run's `metrics.jsonl`. What cannot be read is no reason to stop: it is said, and there are none.
pub(crate) fn measurements(run_dir: &RunDir) -> Vec<StepRow> {
    let path = run_dir.metrics();
    let steps = File::open(&path).map_err(StepsError::from).and_then(|file| read_steps(BufReader::new(file)));
    steps.unwrap_or_else(|error| {
        note(&format!(
            "warning: {}: {error}; the curves go without it, and mending or removing that line brings them back",
            path.display()
        ));
        Vec::new()
    })
}
