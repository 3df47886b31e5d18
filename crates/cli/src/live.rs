//! `LiveView`: the curves of a run in the terminal while it trains.
//!
//! It draws on stderr, on the terminal's second screen, and never puts the terminal into raw mode: signals work as ever, and
//! leaving the screen is one short write, which [`leave`] makes at the end, in a panic, and before a second signal ends the
//! program.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal as _, Stderr, Write as _},
    panic,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use ratatui::{
    Frame, Terminal, TerminalOptions, Viewport,
    backend::CrosstermBackend,
    crossterm::terminal as window,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    symbols::Marker,
    text::{Line, Span},
    widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph},
};
use twoview_report::{KnnRow, StepRow};
use twoview_train::{MetricSink, RunDir, StepMetrics};

use crate::{
    failure::{Exit, Failure, at},
    terminal::{held, hold, release},
};

/// Which of the terminal's screens is shown.
#[derive(Clone, Copy, PartialEq)]
enum Screen {
    /// The first one.
    First,
    /// The second one, empty since it was entered.
    Empty,
    /// The second one, which the live view has drawn on.
    Drawn,
    /// The first one, because the program was stopped for a while.
    Suspended,
}

impl Screen {
    fn is_second(self) -> bool {
        matches!(self, Self::Empty | Self::Drawn)
    }
}

/// Held while the second screen is drawn on, so that nobody leaves it halfway.
static SCREEN: Mutex<Screen> = Mutex::new(Screen::First);

const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
const CLEAR: &[u8] = b"\x1b[2J";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

const BETWEEN_DRAWINGS: Duration = Duration::from_millis(250);

/// What is typed is echoed by the terminal, and the program before this one may write: so all is drawn anew now and then.
const BETWEEN_CLEANINGS: Duration = Duration::from_secs(5);

fn screen() -> MutexGuard<'static, Screen> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(bytes: &[u8]) {
    let mut err = io::stderr().lock();
    // Nothing can be said about a terminal that does not work.
    let _ = err.write_all(bytes).and_then(|()| err.flush());
}

fn enter() {
    hold();
    *screen() = Screen::Empty;
    write(ENTER);
}

/// Shows the terminal's first screen again, if the second one is shown, and the messages that were kept meanwhile.
pub(crate) fn leave() {
    let mut shown = screen();
    if shown.is_second() {
        write(LEAVE);
    }
    *shown = Screen::First;
    drop(shown);
    release();
}

/// As [`leave`], for whoever cannot wait: the screen may be drawn on at this moment, by this very thread in a panic.
fn leave_at_once() {
    let shown = match SCREEN.try_lock() {
        Ok(mut shown) => std::mem::replace(&mut *shown, Screen::First).is_second(),
        Err(TryLockError::Poisoned(_) | TryLockError::WouldBlock) => true,
    };
    if shown {
        write(LEAVE);
    }
    release();
}

/// From now on a panic leaves the second screen before it says anything.
fn leave_in_a_panic() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        leave_at_once();
        before(info);
    }));
}

/// Shows the first screen until [`go_on`].
pub(crate) fn suspend() {
    let mut shown = screen();
    if shown.is_second() {
        write(LEAVE);
        *shown = Screen::Suspended;
    }
}

/// Shows the second screen again after [`suspend`].
pub(crate) fn go_on() {
    let mut shown = screen();
    if *shown == Screen::Suspended {
        write(ENTER);
        *shown = Screen::Empty;
    }
}

/// Draws what a run measures. The first screen is back as soon as it is dropped.
pub(crate) struct LiveView {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    /// Columns and rows.
    size: (u16, u16),
    curves: Curves,
    drawn: Option<Instant>,
    cleaned: Instant,
}

/// The size of the terminal that can be drawn on.
///
/// # Errors
/// [`Exit::Usage`] where stderr is none, or does not answer.
pub(crate) fn check_terminal() -> Result<(u16, u16), Failure> {
    let refused = |why: String| Failure::new(Exit::Usage, format!("--live draws on a terminal, {why}; leave it out"));
    if !io::stderr().is_terminal() {
        return Err(refused("and stderr is none".to_owned()));
    }
    size().map_err(|error| refused(format!("and this one does not answer ({error})")))
}

/// Columns and rows. A terminal that was never told its size says 0.
fn size() -> io::Result<(u16, u16)> {
    let (columns, rows) = window::size()?;
    Ok(if columns == 0 || rows == 0 { (80, 24) } else { (columns, rows) })
}

/// What draws on a screen that is empty now. It is told the size: asked to find it, and to clear the screen itself, it would
/// ask the terminal where its cursor is, and the answer would be taken for something typed.
fn drawing((columns, rows): (u16, u16)) -> io::Result<Terminal<CrosstermBackend<Stderr>>> {
    let options = TerminalOptions { viewport: Viewport::Fixed(Rect::new(0, 0, columns, rows)) };
    Terminal::with_options(CrosstermBackend::new(io::stderr()), options)
}

impl LiveView {
    /// Takes the terminal.
    ///
    /// # Errors
    /// [`Exit::Usage`] where stderr is none.
    pub(crate) fn start(run: &RunDir, total_steps: u64, done: u64, earlier: &[StepRow]) -> Result<Self, Failure> {
        let size = check_terminal()?;
        let terminal = drawing(size).map_err(at(Path::new("the terminal")))?;
        let mut curves = Curves::new(run.path().display().to_string(), total_steps, done);
        earlier.iter().for_each(|row| curves.take_earlier(row));
        leave_in_a_panic();
        enter();
        let mut view = Self { terminal, size, curves, drawn: None, cleaned: Instant::now() };
        view.draw().map_err(at(Path::new("the terminal")))?;
        Ok(view)
    }

    fn draw(&mut self) -> io::Result<()> {
        let mut shown = screen();
        if !shown.is_second() {
            return Ok(());
        }
        let size = size()?;
        // Only what changed is written, and an empty screen has nothing of what was there before.
        if *shown == Screen::Empty || size != self.size || self.cleaned.elapsed() >= BETWEEN_CLEANINGS {
            write(CLEAR);
            self.terminal = drawing(size)?;
            (self.size, self.cleaned) = (size, Instant::now());
        }
        self.terminal.draw(|frame| self.curves.draw(frame))?;
        *shown = Screen::Drawn;
        self.drawn = Some(Instant::now());
        Ok(())
    }
}

impl MetricSink for LiveView {
    fn record(&mut self, metrics: &StepMetrics) -> io::Result<()> {
        self.curves.take(metrics);
        let is_last = metrics.step == self.curves.total_steps;
        if is_last || self.drawn.is_none_or(|drawn| drawn.elapsed() >= BETWEEN_DRAWINGS) {
            // A terminal that went away is no reason to end a run.
            let _ = self.draw();
        }
        Ok(())
    }
}

impl Drop for LiveView {
    fn drop(&mut self) {
        leave();
    }
}

/// More points than a terminal has columns tell nothing.
const MOST_POINTS: usize = 512;

/// How many messages are shown.
const MESSAGES: u16 = 4;

/// What is drawn, and how.
struct Curves {
    run: String,
    total_steps: u64,
    first_step: u64,
    begun: Instant,
    loss: Curve,
    knn: Vec<(f64, f64)>,
    /// What guessing reaches, in percent.
    knn_chance: Option<f64>,
    rank: Curve,
    last: Option<StepMetrics>,
}

/// A curve of at most [`MOST_POINTS`] points, each the mean of as many steps as it takes.
struct Curve {
    points: VecDeque<(f64, f64)>,
    /// Steps in a point.
    stride: u32,
    sum: f64,
    n: u32,
}

impl Curve {
    fn new() -> Self {
        Self { points: VecDeque::new(), stride: 1, sum: 0.0, n: 0 }
    }

    fn push(&mut self, step: f64, value: f64) {
        self.sum += value;
        self.n += 1;
        if self.n < self.stride {
            return;
        }
        self.points.push_back((step, self.sum / f64::from(self.n)));
        (self.sum, self.n) = (0.0, 0);
        if self.points.len() == MOST_POINTS {
            let pairs = self.points.make_contiguous().chunks_exact(2);
            self.points = pairs.map(|pair| (pair[1].0, f64::midpoint(pair[0].1, pair[1].1))).collect();
            self.stride *= 2;
        }
    }

    fn points(&self) -> Vec<(f64, f64)> {
        self.points.iter().copied().collect()
    }
}

impl Curves {
    fn new(run: String, total_steps: u64, first_step: u64) -> Self {
        Self {
            run,
            total_steps,
            first_step,
            begun: Instant::now(),
            loss: Curve::new(),
            knn: Vec::new(),
            knn_chance: None,
            rank: Curve::new(),
            last: None,
        }
    }

    /// What was measured before the run was resumed.
    fn take_earlier(&mut self, row: &StepRow) {
        let step = row.step as f64;
        if let Some(loss) = row.loss {
            self.loss.push(step, loss.into());
        }
        if let Some(rank) = row.effective_rank {
            self.rank.push(step, rank.into());
        }
        if let Some(KnnRow { top1: Some(top1), .. }) = row.knn {
            self.knn.push((step, 100.0 * f64::from(top1)));
        }
    }

    fn take(&mut self, metrics: &StepMetrics) {
        let step = metrics.step as f64;
        self.loss.push(step, metrics.contrast.loss);
        if let Some(rank) = metrics.contrast.effective_rank {
            self.rank.push(step, rank);
        }
        if let Some(knn) = metrics.knn {
            self.knn.push((step, 100.0 * knn.top1));
            self.knn_chance = Some(100.0 * knn.chance);
        }
        self.last = Some(metrics.clone());
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let [title, curves, numbers, progress, messages] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(6),
            Constraint::Length(5),
            Constraint::Length(1),
            Constraint::Length(MESSAGES + 1),
        ])
        .areas(frame.area());
        frame.render_widget(Line::from(vec!["twoview ".bold(), Span::raw(&self.run)]), title);
        let [left, right] = Layout::horizontal([Constraint::Percentage(60), Constraint::Percentage(40)]).areas(curves);
        self.draw_loss(frame, left);
        if self.knn.is_empty() {
            draw_curve(frame, right, "effective rank of the embeddings", &[(Color::Green, &self.rank.points())]);
        } else {
            self.draw_knn(frame, right);
        }
        self.draw_numbers(frame, numbers);
        self.draw_progress(frame, progress);
        draw_messages(frame, messages);
    }

    fn draw_loss(&self, frame: &mut Frame<'_>, area: Rect) {
        let points = self.loss.points();
        let Some(last) = &self.last else {
            frame.render_widget(
                Paragraph::new("waiting for the first step").block(Block::bordered().title("loss")),
                area,
            );
            return;
        };
        let across = |value: f64| {
            let from = points.first().map_or(last.step as f64, |point| point.0);
            vec![(from, value), (last.step as f64, value)]
        };
        let chance = across(last.chance);
        // A floor far below would press the curve into a flat line.
        let least = points.iter().fold(last.chance, |least, point| least.min(point.1));
        let is_near = |floor: &f64| least - floor <= 2.0 * (last.chance - least);
        let floor = last.floor.filter(is_near).map(across);
        let mut curves = vec![(Color::DarkGray, chance.as_slice())];
        curves.extend(floor.as_ref().map(|floor| (Color::DarkGray, floor.as_slice())));
        // Last, and so above the others.
        curves.push((Color::Cyan, &points));
        let title = match last.floor {
            Some(floor) => {
                format!("loss {:.3}, between chance {:.3} and floor {floor:.3}", last.contrast.loss, last.chance)
            }
            None => format!("loss {:.3}, chance {:.3}", last.contrast.loss, last.chance),
        };
        draw_curve(frame, area, &title, &curves);
    }

    fn draw_knn(&self, frame: &mut Frame<'_>, area: Rect) {
        let knn = (Color::Green, self.knn.as_slice());
        let ends = [self.knn.first(), self.knn.last()].map(|point| point.map_or(0.0, |point| point.0));
        match self.knn_chance {
            Some(chance) => {
                let line = ends.map(|step| (step, chance));
                let title = format!("kNN, % right, chance {chance:.1}");
                draw_curve(frame, area, &title, &[(Color::DarkGray, &line), knn]);
            }
            None => draw_curve(frame, area, "kNN, % right", &[knn]),
        }
    }

    fn draw_numbers(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(m) = &self.last else { return };
        let or_dash = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
        let columns = [
            [
                format!("learning rate   {:.5}", m.lr),
                format!("gradient norm   {:.3}", m.gradient_norm),
                format!("found           {:.1} %", 100.0 * m.contrast.top1),
            ],
            [
                format!("alignment       {:.3}", m.contrast.alignment),
                format!("uniformity      {}", or_dash(m.contrast.uniformity, 3)),
                format!("effective rank  {}", or_dash(m.contrast.effective_rank, 1)),
            ],
            [
                format!("pictures/s      {:.0}", m.images_per_s),
                format!("waiting         {:.0} %", 100.0 * m.waited),
                format!("epoch           {:.2}", m.epoch),
            ],
        ];
        let areas: [Rect; 3] = Layout::horizontal([Constraint::Fill(1); 3]).areas(area);
        for (lines, area) in columns.into_iter().zip(areas) {
            let text: Vec<Line<'_>> = lines.into_iter().map(Line::from).collect();
            frame.render_widget(Paragraph::new(text).block(Block::bordered()), area);
        }
    }

    fn draw_progress(&self, frame: &mut Frame<'_>, area: Rect) {
        let step = self.last.as_ref().map_or(self.first_step, |m| m.step);
        let (done, left) = (step - self.first_step, self.total_steps.saturating_sub(step));
        let left = match done {
            0 => String::new(),
            done => {
                let seconds = self.begun.elapsed().as_secs_f64() / done as f64 * left as f64;
                // Durations beyond what the type holds are never seen.
                let left = Duration::try_from_secs_f64(seconds.round()).unwrap_or(Duration::MAX);
                format!(", {} left", indicatif::HumanDuration(left))
            }
        };
        let share = (step as f64 / self.total_steps.max(1) as f64).clamp(0.0, 1.0);
        let gauge = Gauge::default()
            .ratio(share)
            .label(format!("step {step} of {}{left}", self.total_steps))
            .gauge_style(Style::new().fg(Color::Blue).bg(Color::Black));
        frame.render_widget(gauge, area);
    }
}

fn draw_messages(frame: &mut Frame<'_>, area: Rect) {
    let mut lines = held(MESSAGES.into());
    lines.push("Ctrl-C ends the run after this step; it can be resumed".to_owned());
    let text: Vec<Line<'_>> = lines.into_iter().map(|line| Line::from(line).dim()).collect();
    frame.render_widget(Paragraph::new(text), area);
}

fn draw_curve(frame: &mut Frame<'_>, area: Rect, title: &str, curves: &[(Color, &[(f64, f64)])]) {
    let all = || curves.iter().flat_map(|(_, points)| points.iter());
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) = all().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        // A single value, or none, still needs an axis.
        if low < high {
            [low, high]
        } else if low.is_finite() {
            [low - 0.5, low + 0.5]
        } else {
            [0.0, 1.0]
        }
    };
    let (x, y) = (bounds(|point| point.0), bounds(|point| point.1));
    let marker = Marker::Braille;
    let datasets = curves.iter().map(|(color, points)| {
        Dataset::default().marker(marker).graph_type(GraphType::Line).style(Style::new().fg(*color)).data(points)
    });
    let chart = Chart::new(datasets.collect())
        .block(Block::bordered().title(title.to_owned()))
        .x_axis(Axis::default().bounds(x).labels(x.map(|step| format!("{step:.0}"))))
        .y_axis(Axis::default().bounds(y).labels(y.map(|value| format!("{value:.2}"))));
    frame.render_widget(chart, area);
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use ratatui::{backend::TestBackend, buffer::Buffer};
    use twoview_loss::{NtXentConfig, Objective as _, PairedViews};
    use twoview_train::OnlineScore;

    use super::*;

    fn text(buffer: &Buffer) -> String {
        let width = usize::from(buffer.area.width);
        let symbols: Vec<&str> = buffer.content.iter().map(ratatui::buffer::Cell::symbol).collect();
        symbols.chunks(width).map(|row| row.concat() + "\n").collect()
    }

    fn drawn(curves: &Curves, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal in memory");
        terminal.draw(|frame| curves.draw(frame)).expect("draws");
        text(terminal.backend().buffer())
    }

    #[test]
    fn a_panic_gives_the_terminal_back() {
        leave_in_a_panic();
        *screen() = Screen::Drawn;
        let panicked = panic::catch_unwind(|| panic!("on purpose"));
        assert!(panicked.is_err() && *screen() == Screen::First);
        // While it is drawn on, too.
        let panicked = panic::catch_unwind(|| {
            let _drawing = screen();
            panic!("on purpose");
        });
        assert!(panicked.is_err());
    }

    #[test]
    fn curves_halve_their_points_and_keep_their_mean() {
        let mut curve = Curve::new();
        (1..=5000).for_each(|step| curve.push(f64::from(step), f64::from(step)));
        let points = curve.points();
        assert!((MOST_POINTS / 4..MOST_POINTS).contains(&points.len()), "{}", points.len());
        let stride = f64::from(curve.stride);
        // A point stands at its last step and has the mean of its steps.
        assert!(points.iter().all(|(step, value)| (step - (stride - 1.0) / 2.0 - value).abs() < 1e-9), "{points:?}");
        assert!(points.is_sorted_by(|a, b| a.0 < b.0));
    }

    fn metrics(step: u64, loss: f64, knn: Option<OnlineScore>) -> StepMetrics {
        let rows = [[1.0, 0.0], [0.0, 1.0]];
        let views = PairedViews::from_rows(rows, rows, &Device::flex()).expect("two pictures");
        let mut contrast = NtXentConfig::new(0.5).init().expect("valid").contrast(views).stats;
        (contrast.loss, contrast.effective_rank, contrast.top1) = (loss, Some(12.5), 0.25);
        StepMetrics {
            step,
            epoch: step as f64 / 10.0,
            chance: 5.5,
            floor: Some(0.7),
            contrast,
            lr: 0.03,
            gradient_norm: 1.5,
            gradient_noise: None,
            images_per_s: 321.0,
            knn,
            waited: 0.02,
        }
    }

    #[test]
    fn a_run_is_drawn_with_its_landmarks() {
        let mut curves = Curves::new("runs/a-1".to_owned(), 100, 0);
        (1..=40).for_each(|step| curves.take(&metrics(step, 5.5 - 0.05 * step as f64, None)));
        let screen = drawn(&curves, 120, 30);
        for wanted in [
            "loss 3.500, between chance 5.500 and floor 0.700",
            "effective rank of the embeddings",
            "step 40 of 100",
            "pictures/s      321",
            "found           25.0 %",
            "Ctrl-C ends the run after this step",
        ] {
            assert!(screen.contains(wanted), "{wanted} is missing:\n{screen}");
        }
        assert!(screen.contains(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "no curve:\n{screen}");
        curves.take(&metrics(41, 3.4, Some(OnlineScore { top1: 0.42, ci95: [0.4, 0.44], n: 500, chance: 0.1 })));
        assert!(drawn(&curves, 120, 30).contains("kNN, % right, chance 10.0"));
    }

    #[test]
    fn a_resumed_run_shows_what_came_before() {
        let mut curves = Curves::new("runs/a-1".to_owned(), 100, 40);
        let row = |step: u16| StepRow {
            step: step.into(),
            loss: Some(5.5 - 0.05 * f32::from(step)),
            knn: step.is_multiple_of(20).then_some(KnnRow { top1: Some(0.2), chance: Some(0.1) }),
            ..StepRow::default()
        };
        (1..=40).for_each(|step| curves.take_earlier(&row(step)));
        curves.take(&metrics(41, 3.45, Some(OnlineScore { top1: 0.3, ci95: [0.2, 0.4], n: 500, chance: 0.1 })));
        assert_eq!((curves.loss.points().len(), curves.knn.len()), (41, 3));
        assert!(drawn(&curves, 120, 30).contains("step 41 of 100"));
    }

    #[test]
    fn a_floor_far_below_leaves_the_curve_its_height() {
        let axis_has = |loss: f64, wanted: &str| {
            let mut curves = Curves::new("runs/a-1".to_owned(), 100, 0);
            (1..=4).for_each(|step| curves.take(&metrics(step, loss, None)));
            drawn(&curves, 120, 30).lines().any(|line| line.contains(wanted) && !line.contains("floor"))
        };
        // Chance is 5.5 and the floor 0.7.
        assert!(axis_has(5.3, "5.30") && !axis_has(5.3, "0.70"));
        assert!(axis_has(2.0, "0.70"));
    }

    #[test]
    fn nothing_measured_yet_and_the_smallest_terminals_are_drawn() {
        let curves = Curves::new("runs/a-1".to_owned(), 100, 7);
        let screen = drawn(&curves, 100, 30);
        assert!(screen.contains("runs/a-1") && screen.contains("step 7 of 100"), "{screen}");
        for (width, height) in [(1, 1), (5, 40), (200, 3), (20, 12)] {
            drawn(&curves, width, height);
        }
    }
}
