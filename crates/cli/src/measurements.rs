//! What a run has measured so far.

use std::fs;

use twoview_report::{StepRow, StepsError, read_steps};
use twoview_train::RunDir;

use crate::terminal::note;

/// The steps in a run's `metrics.jsonl`. Lines that cannot be read are no reason to stop: they are named and left out.
pub(crate) fn measurements(run_dir: &RunDir) -> Vec<StepRow> {
    let path = run_dir.metrics();
    let warn = |why: String| note(&format!("warning: {}: {why}", path.display()));
    let text = fs::read(&path).unwrap_or_else(|error| {
        warn(error.to_string());
        Vec::new()
    });
    let mut lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    let n_lines = lines.len();
    loop {
        match read_steps(&lines.join(&b'\n')[..]) {
            Ok(steps) => return steps,
            Err(StepsError::Line { line, reason }) => {
                // Those before it that were left out count as well.
                let number = line + n_lines - lines.len();
                warn(format!("line {number} cannot be read, and the curves go without it: {reason}"));
                lines.remove(line - 1);
            }
            Err(error) => {
                warn(error.to_string());
                return Vec::new();
            }
        }
    }
}
