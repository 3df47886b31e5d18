//! What a run has measured so far.

use std::fs;

use twoview_report::{StepRow, read_steps};
use twoview_train::RunDir;

use crate::terminal::{listed, note};

/// Lines that a warning names.
const NAMED: usize = 5;

/// The steps in a run's `metrics.jsonl`. Lines that cannot be read are no reason to stop: they are named and left out.
pub(crate) fn measurements(run_dir: &RunDir) -> Vec<StepRow> {
    let path = run_dir.metrics();
    let warn = |why: String| note(&format!("warning: {}: {why}", path.display()));
    let text = fs::read(&path).unwrap_or_else(|error| {
        warn(error.to_string());
        Vec::new()
    });
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    // A line on its own that cannot be read is taken for the torn end of a killed run, and gives nothing.
    let is_good = |line: &&[u8]| line.trim_ascii().is_empty() || read_steps(*line).is_ok_and(|rows| !rows.is_empty());
    let good: Vec<&[u8]> = lines.iter().copied().filter(is_good).collect();
    let mut bad: Vec<usize> = (0..lines.len()).filter(|&i| !is_good(&lines[i])).collect();
    // The last one may be torn.
    bad.pop_if(|last| *last == lines.len() - 1);
    if !bad.is_empty() {
        let numbers: Vec<String> = bad.iter().map(|i| (i + 1).to_string()).collect();
        let lines = if bad.len() == 1 { "line" } else { "lines" };
        warn(format!("{lines} {} cannot be read, and the curves go without", listed(&numbers, NAMED)));
    }
    read_steps(&good.join(&b'\n')[..]).unwrap_or_else(|error| {
        warn(error.to_string());
        Vec::new()
    })
}
