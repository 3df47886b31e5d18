//! What evaluations found, kept with the run.

use std::{fs, io::Write as _, path::PathBuf};

use serde_json::{Map, Value};
use twoview_train::RunDir;

use crate::{failure::Failure, terminal::note, unfinished::Unfinished};

/// Where the scores of a run are: one object with a key for each evaluation, the newest of its kind.
pub(crate) fn path(run_dir: &RunDir) -> PathBuf {
    run_dir.path().join("scores.json")
}

/// The scores of a run; empty where nothing has been evaluated.
pub(crate) fn read(run_dir: &RunDir) -> Map<String, Value> {
    let text = fs::read_to_string(path(run_dir)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Keeps the result of an evaluation. A run that cannot be written to loses nothing but this copy of what is printed, so
/// that is a warning.
pub(crate) fn remember(run_dir: &RunDir, evaluation: &str, scores: &Value) {
    let mut all = read(run_dir);
    all.insert(evaluation.to_owned(), scores.clone());
    let written = (|| -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(&all).unwrap_or_default();
        Unfinished::create(&path(run_dir))?.finish(|file| writeln!(file, "{text}"))
    })();
    if let Err(failure) = written {
        note(&format!("warning: the scores are not kept: {:#}", failure.error));
    }
}
