//! `StepRow`: what a run measured at a step, and the reader of the file it writes them to.

use std::io::{self, BufRead};

use serde::Deserialize;

/// What was measured at one step; what was not measured, or was not finite, is `None`.
///
/// The fields are the keys of a line of `metrics.jsonl`. A value here is for a curve: `f32` keeps a run of a million
/// steps in 200 MB.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct StepRow {
    /// Steps done, from 1.
    pub step: u64,
    /// Passes over the data done, with fractions.
    pub epoch: Option<f32>,
    /// The loss of an encoder that maps all pictures to one point, in nats.
    pub chance: Option<f32>,
    /// The least loss that this batch size and temperature allow, in nats.
    pub floor: Option<f32>,
    /// The loss that was minimized, in nats.
    pub loss: Option<f32>,
    /// The learning rate of the step.
    pub lr: Option<f32>,
    /// Mean squared distance of the two views of a picture on the unit sphere: 0 is best.
    pub alignment: Option<f32>,
    /// Log of the mean Gaussian potential of all pairs: 0 for a single point, less is better spread.
    pub uniformity: Option<f32>,
    /// How many directions the embeddings use, from 1.
    pub effective_rank: Option<f32>,
    /// Share of views whose nearest view in the batch is their partner, in `[0, 1]`.
    pub top1: Option<f32>,
    /// The 5th, 50th and 95th percentile of the cosines of partners.
    pub positive_percentiles: Option<[Option<f32>; 3]>,
    /// The 5th, 50th and 95th percentile of the cosines of views of different pictures.
    pub negative_percentiles: Option<[Option<f32>; 3]>,
    /// Share of anchors whose debiased estimate was clamped, in `[0, 1]`.
    pub clamped: Option<f32>,
    /// Euclidean norm of the gradient before any clipping.
    pub gradient_norm: Option<f32>,
    /// Pictures per second.
    pub images_per_s: Option<f32>,
    /// The kNN evaluation after this step, if there was one.
    pub knn: Option<KnnRow>,
}

/// What the evaluation by nearest neighbours found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct KnnRow {
    /// Share of held-out pictures that were classified right, in `[0, 1]`.
    pub top1: Option<f32>,
    /// What guessing reaches on them, in `[0, 1]`.
    pub chance: Option<f32>,
}

/// Why measurements cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepsError {
    /// The source failed.
    #[error("cannot read the measurements: {0}")]
    Read(#[from] io::Error),
    /// A line that is not the last is no measurement.
    #[error("line {line} of the measurements cannot be read: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What the parser said.
        reason: serde_json::Error,
    },
}

/// Reads the lines of a `metrics.jsonl`, one JSON object each, in the order of their steps.
///
/// Keys that [`StepRow`] does not have are passed over. A last line that cannot be read is left out: a run that was
/// killed leaves one. A line that goes back in steps, as after a resume, replaces what came after its step.
///
/// # Errors
/// [`StepsError`] if the source fails, or any line but the last is not an object with a `step`.
///
/// # Example
/// ```
/// let lines = "{\"step\": 1, \"loss\": 4.9}\n{\"step\": 2, \"loss\": null}\n{\"step\": 3, \"lo";
/// let rows = twoview_report::read_steps(lines.as_bytes())?;
/// assert_eq!((rows.len(), rows[0].loss, rows[1].loss), (2, Some(4.9), None));
/// # Ok::<(), twoview_report::StepsError>(())
/// ```
pub fn read_steps(mut lines: impl BufRead) -> Result<Vec<StepRow>, StepsError> {
    let mut rows: Vec<StepRow> = Vec::new();
    let mut unreadable = None;
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if lines.read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        if let Some((line, reason)) = unreadable {
            return Err(StepsError::Line { line, reason });
        }
        match serde_json::from_slice::<StepRow>(&bytes) {
            Ok(row) => {
                while rows.last().is_some_and(|last| last.step >= row.step) {
                    rows.pop();
                }
                rows.push(row);
            }
            Err(reason) => unreadable = Some((line, reason)),
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_run_writes() {
        let line = r#"{"step":7,"epoch":0.5,"chance":4.84,"loss":4.1,"lr":0.0,"clamped":null,"knn":{"top1":0.25,"n":40,"chance":0.1},
            "positive_percentiles":[0.1,null,0.9],"gradient_noise":{"signal":1.0},"new":"key"}"#
            .replace('\n', " ");
        let rows = read_steps(line.as_bytes()).expect("a line");
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].step, rows[0].loss, rows[0].clamped), (7, Some(4.1), None));
        assert_eq!(rows[0].positive_percentiles, Some([Some(0.1), None, Some(0.9)]));
        assert_eq!(rows[0].knn, Some(KnnRow { top1: Some(0.25), chance: Some(0.1) }));
    }

    #[test]
    fn a_million_rows_fit_in_200_megabytes() {
        assert!(size_of::<StepRow>() <= 200, "{} bytes", size_of::<StepRow>());
    }

    #[test]
    fn only_the_last_line_may_be_torn() {
        assert_eq!(read_steps(&b"{\"step\":1}\n{\"step\":2}\n\0\0\0"[..]).expect("two lines").len(), 2);
        let error = read_steps(&b"{\"step\":1}\n{\"st\n{\"step\":3}\n"[..]).expect_err("a torn line in the middle");
        assert!(error.to_string().starts_with("line 2 of the measurements cannot be read: "), "{error}");
        assert!(read_steps(&b""[..]).expect("no line is no mistake").is_empty());
    }

    #[test]
    fn a_resumed_run_replaces_what_it_repeats() {
        let rows = read_steps(&b"{\"step\":1}\n{\"step\":2,\"loss\":1}\n{\"step\":3}\n{\"step\":2,\"loss\":5}\n"[..]);
        let rows = rows.expect("four lines");
        assert_eq!(rows.iter().map(|row| row.step).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(rows[1].loss, Some(5.0));
    }
}
