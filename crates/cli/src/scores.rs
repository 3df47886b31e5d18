//! What evaluations found, kept with the run.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
};

use serde_json::{Map, Value};
use twoview_train::RunDir;

use crate::{
    failure::{Failure, at},
    terminal::note,
    unfinished::Unfinished,
};

/// Where the scores of a run are: one object with a key for each evaluation, the newest of its kind.
pub(crate) fn path(run_dir: &RunDir) -> PathBuf {
    run_dir.path().join("scores.json")
}

/// The scores of a run; empty where nothing has been evaluated. A file that holds none is set aside, and said so.
pub(crate) fn read(run_dir: &RunDir) -> Map<String, Value> {
    let path = path(run_dir);
    let aside = |why: String| {
        let damaged = path.with_extension("json.damaged");
        let kept = fs::rename(&path, &damaged).map_or_else(
            |error| format!("it cannot be set aside: {error}"),
            |()| format!("it is kept as {}", damaged.display()),
        );
        note(&format!("warning: {} holds no scores ({why}); {kept}", path.display()));
        Map::new()
    };
    match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).unwrap_or_else(|error| aside(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
        Err(error) => aside(error.to_string()),
    }
}

/// Keeps the result of an evaluation. A run that cannot be written to loses nothing but this copy of what is printed, so
/// that is a warning.
pub(crate) fn remember(run_dir: &RunDir, evaluation: &str, scores: &Value) {
    let written = (|| -> Result<(), Failure> {
        // Two evaluations of a run may end at once, and each must find what the other kept.
        let lock_path = run_dir.path().join("scores.lock");
        let lock = File::create(&lock_path).map_err(at(&lock_path))?;
        lock.lock().map_err(at(&lock_path))?;
        let mut all = read(run_dir);
        all.insert(evaluation.to_owned(), scores.clone());
        let text = serde_json::to_string_pretty(&all).unwrap_or_default();
        Unfinished::create_own(&path(run_dir))?.finish(|file| writeln!(file, "{text}"))
    })();
    if let Err(failure) = written {
        note(&format!("warning: the scores are not kept: {:#}", failure.error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluations_that_end_at_once_lose_nothing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let run_dir = RunDir::create(&dir.path().join("run")).expect("a run");
        let names: Vec<String> = (0..16).map(|i| format!("score-{i}")).collect();
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| remember(&run_dir, name, &Value::Bool(true)));
            }
        });
        let kept = read(&run_dir);
        assert!(names.iter().all(|name| kept.contains_key(name)), "{kept:?}");
    }
}
