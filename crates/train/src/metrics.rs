//! What a step measured, and where it goes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use twoview_data::Replaced;
use twoview_encoder::FrozenEncoder;
use twoview_loss::{ContrastStats, GradientNoise};

/// Measurements of one training step.
#[derive(Clone, Debug, Serialize)]
pub struct StepMetrics {
    /// Steps done, this one included: the first is 1.
    pub step: u64,
    /// Passes through the data, this step included.
    pub epoch: f64,
    /// The loss of an encoder that tells nothing apart, in nats: `ln(2N − 1)` for most objectives.
    pub chance: f64,
    /// The loss of a perfect encoder whose other pictures are orthogonal, in nats; null where it depends on labels.
    pub floor: Option<f64>,
    /// Loss and diagnostics of the batch, each a key of its own.
    #[serde(flatten)]
    pub contrast: ContrastStats,
    /// Learning rate of this step.
    pub lr: f64,
    /// Euclidean norm of the gradient of all parameters, before the update.
    pub gradient_norm: f64,
    /// How noisy the gradient of the head's parameters is: `signal` and `variance`, each of which wants averaging before their
    /// ratio says which batch size would do; null where it cannot be measured.
    pub gradient_noise: Option<GradientNoise>,
    /// Source pictures per second since the previous step, waiting for data included.
    pub images_per_s: f64,
    /// How good the encoder is so far, on the steps after which it was asked; null on all others.
    pub knn: Option<OnlineScore>,
    /// Share of the time since the previous step that was spent waiting for the loader, in `[0, 1]`.
    pub waited: f64,
}

/// What a look at the encoder in the middle of training found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnlineScore {
    /// Share of the test pictures that were classified correctly, in `[0, 1]`.
    pub top1: f64,
    /// Its 95 % interval.
    pub ci95: [f64; 2],
    /// How many test pictures.
    pub n: usize,
    /// The share of the commonest class among them: what guessing reaches.
    pub chance: f64,
}

/// Looks at the encoder now and then while it trains. It gets a frozen copy, so that nothing it does can change the run.
pub trait Watch {
    /// Whether to look after step `step`, of `total`.
    fn is_due(&self, step: u64, total: u64) -> bool;

    /// How good the encoder is; `None` where that cannot be said, which is no reason to end a run.
    fn look(&self, encoder: &FrozenEncoder) -> Option<OnlineScore>;
}

/// Takes the measurements of every step, in order.
pub trait MetricSink {
    /// Takes one step's measurements.
    ///
    /// # Errors
    /// Where the measurements cannot be kept.
    fn record(&mut self, metrics: &StepMetrics) -> io::Result<()>;

    /// Takes note of a picture that could not be read at this step and that another one stood in for.
    ///
    /// # Errors
    /// Where the note cannot be kept.
    fn replaced(&mut self, step: u64, replaced: &Replaced) -> io::Result<()> {
        let _ = (step, replaced);
        Ok(())
    }

    /// Bytes that have to be kept to hold all steps recorded so far, after making them durable; a checkpoint remembers it.
    ///
    /// # Errors
    /// Where the measurements cannot be made durable.
    fn mark(&mut self) -> io::Result<u64> {
        Ok(0)
    }
}

/// Appends each step as one line of JSON.
#[derive(Debug)]
pub struct JsonLines {
    file: File,
    bytes: u64,
    missing: u64,
}

impl JsonLines {
    /// Opens `path` and cuts it to its first `bytes` bytes, which drops the lines of steps that came after the checkpoint a
    /// run resumes from: they will be computed, and written, again.
    ///
    /// A shorter file, or none, or one that was written anew, has lost lines since, which is no reason to lose the training
    /// as well: what is whole of it is kept, and [`Self::missing`] says how much is not there.
    ///
    /// # Errors
    /// Where the file cannot be opened, read or cut.
    pub fn open(path: &Path, bytes: u64) -> io::Result<Self> {
        // Appending keeps every write at the end, whatever else has the file open.
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let found = file.metadata()?.len();
        let kept = whole_lines(&mut file, found.min(bytes))?;
        file.set_len(kept)?;
        Ok(Self { file, bytes: kept, missing: bytes - kept })
    }

    /// How many of the bytes that were asked for the file did not have.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.missing
    }
}

/// The bytes up to the end of the last whole line within the first `bytes`, which the file has.
fn whole_lines(file: &mut File, bytes: u64) -> io::Result<u64> {
    if bytes == 0 {
        return Ok(0);
    }
    let mut last = [0];
    file.seek(SeekFrom::Start(bytes - 1))?;
    file.read_exact(&mut last)?;
    if last == [b'\n'] {
        return Ok(bytes);
    }
    let mut text = Vec::new();
    file.rewind()?;
    file.take(bytes).read_to_end(&mut text)?;
    Ok(text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end as u64 + 1))
}

impl MetricSink for JsonLines {
    fn record(&mut self, metrics: &StepMetrics) -> io::Result<()> {
        let mut line = serde_json::to_vec(metrics)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn mark(&mut self) -> io::Result<u64> {
        self.file.sync_data()?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use twoview_loss::{NtXentConfig, Objective, PairedViews};

    fn metrics(step: u64) -> StepMetrics {
        let rows = [[1.0, 0.0], [0.0, 1.0]];
        let views = PairedViews::from_rows(rows, rows, &burn::tensor::Device::flex()).unwrap();
        StepMetrics {
            step,
            epoch: 0.5,
            chance: 2.0,
            floor: Some(0.5),
            contrast: NtXentConfig::new(0.5).init().unwrap().contrast(views).stats,
            lr: 0.1,
            gradient_norm: 1.0,
            gradient_noise: None,
            images_per_s: 100.0,
            knn: None,
            waited: 0.0,
        }
    }

    #[test]
    fn a_resumed_file_has_each_step_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut sink = JsonLines::open(&path, 0).unwrap();
        sink.record(&metrics(1)).unwrap();
        sink.record(&metrics(2)).unwrap();
        let mark = sink.mark().unwrap();
        sink.record(&metrics(3)).unwrap();
        drop(sink);
        let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
        torn.write_all(b"{\"step\":4,\"epo").unwrap();

        let mut sink = JsonLines::open(&path, mark).unwrap();
        sink.record(&metrics(3)).unwrap();
        let steps: Vec<u64> = std::fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, [1, 2, 3]);

        // What a loss cannot say is a key of its own, and null where nothing can be said.
        let text = std::fs::read_to_string(&path).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert!(line["loss"].is_f64() && line["mutual_information"].is_f64(), "{line}");
        assert!(line["negative_percentiles"][1].is_f64() && line["clamped"].is_null(), "{line}");
    }

    #[test]
    fn lost_lines_are_counted_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let sink = JsonLines::open(&path, 10).unwrap();
        assert_eq!(sink.missing(), 10);
        drop(sink);

        // Longer, but the checkpoint's end is in the middle of a line.
        std::fs::write(&path, "{\"step\": 1}\n{\"step\": 2}\n").unwrap();
        assert_eq!(JsonLines::open(&path, 22).unwrap().missing(), 22 - 12);
        std::fs::write(&path, "{\"step\":1}\n{\"step\"").unwrap();
        let mut sink = JsonLines::open(&path, 40).unwrap();
        assert_eq!(sink.missing(), 40 - 11);
        sink.record(&metrics(3)).unwrap();
        let mark = sink.mark().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.len() as u64, mark);
        assert_eq!(text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count(), 2);
    }
}
