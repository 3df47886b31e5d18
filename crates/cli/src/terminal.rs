//! The only place that writes to the terminal: results to stdout, everything else to stderr.

use std::{
    env,
    io::{self, IsTerminal, Write},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use twoview_loss::{GradientNoise, ObjectiveConfig};
use twoview_train::{MetricSink, OnlineScore, StepMetrics};

use crate::failure::{Exit, Failure, OrExit};

/// Writes one line of results to stdout.
///
/// # Errors
/// [`Exit::Io`] where stdout cannot take it. A closed pipe (`| head`) is not an error: the reader has what it wanted.
pub(crate) fn result(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.or_exit(Exit::Io),
    }
}

/// Writes one line of results as JSON to stdout.
///
/// # Errors
/// As [`result`].
pub(crate) fn result_json(value: &serde_json::Value) -> Result<(), Failure> {
    result(&value.to_string())
}

/// Messages that wait for the live view to end; `None` while there is none.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);

fn held_messages() -> MutexGuard<'static, Option<Vec<String>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps messages from now on, because the screen is drawn on.
#[cfg(feature = "live")]
pub(crate) fn hold() {
    held_messages().get_or_insert_default();
}

/// The last `n` messages that are kept.
#[cfg(feature = "live")]
pub(crate) fn held(n: usize) -> Vec<String> {
    held_messages().as_ref().map(|lines| lines[lines.len().saturating_sub(n)..].to_vec()).unwrap_or_default()
}

/// Writes the messages that were kept, and all later ones at once.
#[cfg(feature = "live")]
pub(crate) fn release() {
    let held = held_messages().take();
    held.into_iter().flatten().for_each(|line| note(&line));
}

/// Writes one message to stderr, or keeps it until the live view ends.
pub(crate) fn note(line: &str) {
    if let Some(held) = held_messages().as_mut() {
        held.push(line.to_owned());
        return;
    }
    // Nothing can be said about a stderr that does not work.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// How this program was called, for commands to copy: its path, or its name where that was enough.
pub(crate) fn program() -> String {
    env::args().next().map_or_else(|| "twoview".to_owned(), |name| quoted(Path::new(&name)))
}

/// A path as a shell reads it back.
pub(crate) fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if !path.is_empty() && path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

/// Between lines that say how far a long job is, where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// `1 group`, `2 groups`, `3 classes`.
pub(crate) fn counted(n: usize, one: &str) -> String {
    let ending = match n {
        1 => "",
        _ if one.ends_with('s') => "es",
        _ => "s",
    };
    format!("{n} {one}{ending}")
}

/// The first `n` names, and how many more there are: `a, b and 7 more`.
pub(crate) fn listed(names: &[impl AsRef<str>], n: usize) -> String {
    let (first, others) = names.split_at(names.len().min(n));
    let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
    let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
    first.join(", ") + &more
}

/// A bar that counts things on a terminal; without a terminal, a line now and then. A line at the end either way.
pub(crate) struct Counter {
    bar: ProgressBar,
    what: String,
    begun: Instant,
    /// When a line was last written, where there is no terminal for a bar.
    said: Mutex<Instant>,
}

impl Counter {
    /// Starts counting to `total`.
    pub(crate) fn start(what: impl Into<String>, total: usize) -> Self {
        let what = what.into();
        let bar = bar(total as u64, "{msg:22} {bar:30} {pos}/{len}  {per_sec}  {eta}");
        bar.set_message(what.clone());
        let begun = Instant::now();
        Self { bar, what, begun, said: Mutex::new(begun) }
    }

    /// Says how far it has come. Callable from any thread.
    pub(crate) fn at(&self, done: usize, total: usize) {
        if self.bar.length() != Some(total as u64) {
            self.bar.set_length(total as u64);
        }
        self.bar.set_position(done as u64);
        if !self.bar.is_hidden() {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.elapsed() >= BETWEEN_LINES {
            *said = Instant::now();
            note(&format!("{:22} {done} of {total} after {:.0} s", self.what, self.begun.elapsed().as_secs_f64()));
        }
    }

    /// Ends the bar and leaves one line saying what was done.
    pub(crate) fn end(self) {
        let total = self.bar.length().unwrap_or(0);
        self.bar.finish_and_clear();
        note(&format!("{:22} {total} in {:.1} s", self.what, self.begun.elapsed().as_secs_f64()));
    }
}

/// A bar that counts bytes on a terminal; without a terminal, a line every few seconds.
#[cfg(feature = "fetch")]
pub(crate) struct ByteBar {
    bar: ProgressBar,
    what: &'static str,
    said: Instant,
}

#[cfg(feature = "fetch")]
impl ByteBar {
    /// A bar that counts nothing yet.
    pub(crate) fn start() -> Self {
        let bar = bar(0, "{msg:12} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}");
        Self { bar, what: "", said: Instant::now() }
    }

    /// Says how far something has come.
    pub(crate) fn at(&mut self, what: &'static str, done: u64, total: u64) {
        if self.what != what {
            self.what = what;
            self.bar.set_message(what);
            self.bar.reset();
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        if self.bar.is_hidden() && self.said.elapsed() >= BETWEEN_LINES {
            self.said = Instant::now();
            note(&format!("{what:12} {:.0} of {:.0} MB", done as f64 / 1e6, total as f64 / 1e6));
        }
    }

    /// Writes a message without disturbing the bar.
    pub(crate) fn note(&self, line: &str) {
        self.bar.suspend(|| note(line));
    }

    /// Ends the bar.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Shows the training steps: a bar on a terminal, else a line every few seconds.
pub(crate) struct TrainingBar {
    bar: ProgressBar,
    total_steps: u64,
    lines: bool,
    said: Option<Instant>,
    smooth: Smooth,
    /// The newest look at the encoder.
    knn: Option<OnlineScore>,
    loss: ObjectiveConfig,
    collapse: Alarm,
    clamped: Alarm,
}

/// A condition that is worth a line once it has lasted.
#[derive(Debug, Default)]
struct Alarm {
    /// Steps in a row.
    lasted: u64,
}

/// Single batches may look bad, and the first ones do.
const ALARMING_STEPS: u64 = 50;

impl Alarm {
    /// Says `what` when it has been there for long, once each time.
    fn hear(&mut self, step: u64, what: Option<String>) {
        self.lasted = if what.is_some() { self.lasted + 1 } else { 0 };
        if let (ALARMING_STEPS, Some(what)) = (self.lasted, what) {
            note(&format!("warning: at step {step}, for {ALARMING_STEPS} steps: {what}"));
        }
    }
}

/// Exponential averages over about twenty steps, of the noise over a hundred: single steps are too noisy to read.
#[derive(Debug, Default)]
struct Smooth {
    loss: Option<f64>,
    images_per_s: Option<f64>,
    noise: Option<GradientNoise>,
}

/// A new value among those before it, the first where there are none.
fn blend(before: Option<f64>, new: f64) -> f64 {
    before.map_or(new, |before| 0.95 * before + 0.05 * new)
}

impl TrainingBar {
    /// A bar over `total_steps`, of which `done` were made before; one that is not `shown` only takes averages and warns.
    pub(crate) fn start(total_steps: u64, done: u64, loss: &ObjectiveConfig, shown: bool) -> Self {
        let template = "{msg}\n{bar:40} {pos}/{len} steps  eta {eta}";
        let bar = if shown { bar(total_steps, template) } else { ProgressBar::hidden() };
        let lines = shown && bar.is_hidden();
        bar.set_position(done);
        bar.reset_eta();
        Self {
            lines,
            bar,
            total_steps,
            said: None,
            smooth: Smooth::default(),
            knn: None,
            loss: loss.clone(),
            collapse: Alarm::default(),
            clamped: Alarm::default(),
        }
    }

    /// Ends the bar.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// Takes the loss of one more step into the average, as for a step that was made before the run was resumed.
    pub(crate) fn smooth_loss(&mut self, loss: f64) {
        self.smooth.loss = Some(blend(self.smooth.loss, loss));
    }

    /// The loss averaged over about the last twenty steps; `None` before the first.
    pub(crate) fn loss(&self) -> Option<f64> {
        self.smooth.loss
    }
}

impl MetricSink for TrainingBar {
    fn record(&mut self, m: &StepMetrics) -> io::Result<()> {
        self.smooth_loss(m.contrast.loss);
        let loss = self.smooth.loss.unwrap_or(m.contrast.loss);
        let images_per_s = blend(self.smooth.images_per_s, m.images_per_s);
        self.smooth.images_per_s = Some(images_per_s);
        match (&mut self.smooth.noise, m.gradient_noise) {
            (Some(noise), Some(new)) => noise.blend(new, 0.99),
            (noise, new) => *noise = noise.or(new),
        }
        let rank = m.contrast.effective_rank.map(|rank| format!("  rank {rank:.0}")).unwrap_or_default();
        let noise = self.smooth.noise.and_then(|noise| noise.batch_size());
        let noise = noise.map(|batch| format!("  noise {batch:.0}")).unwrap_or_default();
        self.knn = m.knn.or(self.knn);
        let knn = self
            .knn
            .map(|knn| format!("  kNN {:.1} % (chance {:.1})", 100.0 * knn.top1, 100.0 * knn.chance))
            .unwrap_or_default();
        let line = format!(
            "epoch {:.2}  loss {loss:.3} ({})  found {:.0} %{rank}{noise}{knn}  {images_per_s:.0} img/s",
            m.epoch,
            landmarks(m),
            100.0 * m.contrast.top1,
        );
        self.bar.set_position(m.step);
        if self.lines {
            if m.step == self.total_steps
                || m.knn.is_some()
                || self.said.is_none_or(|said| said.elapsed() >= BETWEEN_LINES)
            {
                self.said = Some(Instant::now());
                note(&format!("step {}/{}  {line}", m.step, self.total_steps));
            }
        } else {
            self.bar.set_message(line);
        }
        let advice = "raise loss.temperature or lower optimizer.lr_per_256";
        self.collapse.hear(m.step, m.contrast.collapse().map(|collapse| format!("{collapse}; {advice}")));
        self.clamped.hear(m.step, m.contrast.clamped.and_then(|clamped| self.loss.clamped_warning(clamped)));
        Ok(())
    }
}

/// What a loss lies between: chance, and the floor where it is known.
pub(crate) fn landmarks(m: &StepMetrics) -> String {
    let floor = m.floor.map(|floor| format!(", floor {floor:.3}")).unwrap_or_default();
    format!("chance {:.3}{floor}", m.chance)
}

fn bar(total: u64, template: &str) -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(template).map(|style| style.progress_chars("━╸─"));
    let bar = ProgressBar::with_draw_target(Some(total), target);
    // The templates are constants of this file; a wrong one would only lose its looks.
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_the_shell() {
        assert_eq!(quoted(Path::new("runs/a-1.b")), "runs/a-1.b");
        assert_eq!(quoted(Path::new("my pictures")), "'my pictures'");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
    }
}
