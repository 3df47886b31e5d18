//! `Plot`: values over the steps of a run, drawn as SVG.
//!
//! The page and the standalone figures hold the same drawing: shapes carry classes, and the page or the figure
//! brings the colours.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::axis::{Unit, json_number, log_ticks, ticks, whole};
use crate::escape::escape;
use crate::thin::{buckets, extremes, moving_mean, smoothing_window};

/// Sides of a drawing, in units of which a page shows about one per pixel.
pub(crate) const WIDTH: f64 = 480.0;
/// See [`WIDTH`].
pub(crate) const HEIGHT: f64 = 280.0;
/// Buckets that a long run is thinned to; each keeps its least and its greatest value.
const BUCKETS: usize = 480;
const LEFT: f64 = 56.0;
const RIGHT: f64 = WIDTH - 10.0;
const BOTTOM: f64 = HEIGHT - 38.0;
const LEGEND_ROW: f64 = 17.0;
/// Mean width of a sign of the legend.
const SIGN: f64 = 6.8;

/// One quantity of a plot. Values are one for each step of the run, `NAN` where there is none.
#[derive(Clone, Debug)]
pub(crate) enum Series {
    /// A value at nearly every step: faint as it is, and a smooth line.
    Smoothed { label: &'static str, values: Vec<f32> },
    /// A value at every step that is smooth by itself.
    Exact { label: &'static str, values: Vec<f32> },
    /// A value at a few steps: dots, joined.
    Dots { label: &'static str, values: Vec<f32> },
    /// Two bounds and what lies in their middle, all smoothed.
    Band { label: &'static str, low: Vec<f32>, middle: Vec<f32>, high: Vec<f32> },
    /// A line to compare with, labelled where it ends.
    Level { label: String, values: Vec<f32> },
}

/// A quantity or a few over the steps of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    /// Letters and hyphens: the name of a file, and of the element.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// What the numbers are, such as `nats`; may be empty.
    pub(crate) measure: &'static str,
    /// How to read it, in a sentence.
    pub(crate) reading: &'static str,
    pub(crate) unit: Unit,
    /// Whether the axis must show zero.
    pub(crate) from_zero: bool,
    /// Whether each decade is as high as another, if all values are positive and they span a hundredfold.
    pub(crate) may_be_logarithmic: bool,
    pub(crate) series: Vec<Series>,
}

/// The steps that all series of a run share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps<'a> {
    pub(crate) steps: &'a [u64],
    pub(crate) epochs: &'a [f32],
}

/// A drawn plot.
pub(crate) struct Drawing {
    /// What belongs within an `svg` element of [`WIDTH`] by [`HEIGHT`].
    pub(crate) shapes: String,
    /// The drawing in words, for those who do not see it.
    pub(crate) words: String,
    /// What the page shows of the step under the pointer.
    pub(crate) hover: Value,
}

/// From values to places.
struct Frame {
    top: f64,
    x: [f64; 2],
    y: [f64; 2],
    logarithmic: bool,
}

impl Frame {
    fn x(&self, step: f64) -> f64 {
        LEFT + (step - self.x[0]) / (self.x[1] - self.x[0]).max(f64::MIN_POSITIVE) * (RIGHT - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        let along = |value: f64| if self.logarithmic { value.ln() } else { value };
        let share = (along(value) - along(self.y[0])) / (along(self.y[1]) - along(self.y[0]));
        BOTTOM - share * (BOTTOM - self.top)
    }
}

impl Plot {
    /// Without the quantities that were never measured, which a legend would promise; nothing where none was. Lines to
    /// compare with do not count.
    pub(crate) fn measured(mut self) -> Option<Self> {
        let any = |values: &[f32]| values.iter().any(|value| value.is_finite());
        let mut n_measured = 0;
        self.series.retain(|series| {
            let is_measured = match series {
                Series::Smoothed { values, .. } | Series::Exact { values, .. } | Series::Dots { values, .. } => {
                    any(values)
                }
                Series::Band { middle, .. } => any(middle),
                Series::Level { .. } => return true,
            };
            n_measured += usize::from(is_measured);
            is_measured
        });
        (n_measured > 0).then_some(self)
    }

    /// Draws it. Time grows with the steps, the size of the text does not beyond some 30 kB a series.
    pub(crate) fn draw(&self, run: Steps<'_>) -> Drawing {
        let window = smoothing_window(run.steps.len());
        let ranges = buckets(run.steps.len(), BUCKETS);
        let thinned = ranges.len() < run.steps.len();
        let smooth: Vec<Vec<f32>> = self.series.iter().map(|series| series.main(window)).collect();

        let mut shapes = String::new();
        let top = self.legend(run.steps.len(), window, thinned, &mut shapes);
        let frame = self.frame(run, top);
        self.axes(&frame, &mut shapes);
        // Lines to compare with lie below what is compared, their labels above everything.
        let (mut over, mut color) = (String::new(), 0);
        let mut taken = Vec::new();
        for series in &self.series {
            if let Series::Level { label, values } = series {
                level(label, values, run, &frame, &mut taken, (&mut shapes, &mut over));
            }
        }
        for (series, smooth) in self.series.iter().zip(&smooth) {
            let drawn = series.draw(smooth, run, &ranges, window, color, &frame, &mut shapes);
            color += usize::from(drawn);
        }
        shapes.push_str(&over);
        Drawing { shapes, words: self.words(run, &smooth), hover: self.hover(run, &ranges, &smooth, &frame) }
    }

    /// Writes what the colours and faint lines mean; returns where the plot itself begins.
    fn legend(&self, rows: usize, window: usize, thinned: bool, out: &mut String) -> f64 {
        let names: Vec<&str> = self.series.iter().filter_map(Series::name).collect();
        let (mut left, mut base) = (LEFT, 14.0);
        if names.len() > 1 {
            for (color, name) in names.iter().enumerate() {
                let dash = ["", " d"][usize::from(color % 2 == 1)];
                let _ = write!(
                    out,
                    r#"<path class="l c{color}{dash}" d="M{left} {}h18"/><text x="{}" y="{base}">{name}</text>"#,
                    base - 4.0,
                    left + 24.0,
                );
                left += 24.0 + number(name.len()) * SIGN + 18.0;
            }
            base += LEGEND_ROW;
        }
        let note = self.note(rows, window, thinned);
        if !note.is_empty() {
            let _ = write!(out, r#"<text class="m" x="{LEFT}" y="{base}">{}</text>"#, escape(&note));
            base += LEGEND_ROW;
        }
        base - 4.0
    }

    /// What was done to the values before they were drawn.
    fn note(&self, rows: usize, window: usize, thinned: bool) -> String {
        let every = match rows.div_ceil(BUCKETS) {
            _ if !thinned => "each step".to_owned(),
            bucket => format!("least and greatest of every {} steps", whole(bucket as u64)),
        };
        let smoothing = match window {
            1 => String::new(),
            window => format!("mean of {} steps", whole(window as u64)),
        };
        let kinds = |is: fn(&Series) -> bool| self.series.iter().any(is);
        if kinds(|series| matches!(series, Series::Band { .. })) {
            let smoothed = if smoothing.is_empty() { String::new() } else { format!(" · {smoothing}") };
            format!("line: median · band: 5th to 95th percentile{smoothed}")
        } else if kinds(|series| matches!(series, Series::Smoothed { .. })) {
            match smoothing.as_str() {
                "" => String::new(),
                smoothing => format!("faint: {every} · line: {smoothing}"),
            }
        } else if thinned && kinds(|series| matches!(series, Series::Exact { .. })) {
            every
        } else {
            String::new()
        }
    }

    /// The ranges of both axes: all that is drawn, with a little air.
    fn frame(&self, run: Steps<'_>, top: f64) -> Frame {
        let mut all = [f64::INFINITY, f64::NEG_INFINITY];
        let values = self.series.iter().flat_map(|series| match series {
            Series::Band { low, high, middle, .. } => [low.as_slice(), middle.as_slice(), high.as_slice()],
            Series::Smoothed { values, .. }
            | Series::Exact { values, .. }
            | Series::Dots { values, .. }
            | Series::Level { values, .. } => [values.as_slice(), &[], &[]],
        });
        for value in values.flatten().filter(|value| value.is_finite()) {
            all = [all[0].min(f64::from(*value)), all[1].max(f64::from(*value))];
        }
        if all[0] > all[1] {
            all = [0.0, 1.0];
        }
        let logarithmic = self.may_be_logarithmic && all[0] > 0.0 && all[1] > 100.0 * all[0];
        let y = if logarithmic {
            [all[0] / 1.2, all[1] * 1.2]
        } else {
            let low = if self.from_zero { all[0].min(0.0) } else { all[0] };
            // A constant has no extent of its own.
            let extent = if all[1] > low { all[1] - low } else { low.abs().max(1.0) };
            let below = if self.from_zero && low == 0.0 { 0.0 } else { 0.04 * extent };
            [low - below, all[1] + 0.06 * extent]
        };
        let first = run.steps.first().copied().unwrap_or(0);
        let last = run.steps.last().copied().unwrap_or(1);
        // A run that was seen from its beginning starts at zero.
        let first = if first * 20 <= last { 0 } else { first };
        Frame { top, x: [steps(first), steps(last.max(first + 1))], y, logarithmic }
    }

    fn axes(&self, frame: &Frame, out: &mut String) {
        let (values, step) = match frame.logarithmic {
            true => (log_ticks(frame.y[0], frame.y[1]), 0.0),
            false => ticks(frame.y[0], frame.y[1], 6),
        };
        for value in values {
            let y = frame.y(value);
            let label = if frame.logarithmic { self.unit.tick(value, value) } else { self.unit.tick(value, step) };
            let _ = write!(
                out,
                r#"<path class="g" d="M{LEFT} {y:.1}H{RIGHT}"/><text class="m e" x="{}" y="{:.1}">{label}</text>"#,
                LEFT - 7.0,
                y + 4.0,
            );
        }
        let (values, step) = ticks(frame.x[0], frame.x[1], 5);
        for value in values.into_iter().filter(|value| value.fract() == 0.0) {
            let x = frame.x(value);
            let label = Unit::Plain.tick(value, step.max(1.0));
            // A label at the border would stick out.
            let anchor = if x > RIGHT - 14.0 { "e" } else { "c" };
            let _ = write!(
                out,
                r#"<path class="a" d="M{x:.1} {BOTTOM}v4"/><text class="m {anchor}" x="{x:.1}" y="{}">{label}</text>"#,
                BOTTOM + 17.0,
            );
        }
        let middle = (LEFT + RIGHT) / 2.0;
        let _ = write!(
            out,
            r#"<path class="a" d="M{LEFT} {BOTTOM}H{RIGHT}"/><text class="m c" x="{middle}" y="{}">step</text>"#,
            HEIGHT - 5.0,
        );
        if !self.measure.is_empty() {
            let y = (frame.top + BOTTOM) / 2.0;
            let log = if frame.logarithmic { ", logarithmic" } else { "" };
            let _ = write!(
                out,
                r#"<text class="m c" transform="translate(11 {y:.1}) rotate(-90)">{}{log}</text>"#,
                self.measure
            );
        }
    }

    /// First, last and extreme values of each quantity, as a sentence.
    fn words(&self, run: Steps<'_>, smooth: &[Vec<f32>]) -> String {
        let mut words = format!("{} over {} steps.", self.title, whole(run.steps.last().copied().unwrap_or(0)));
        for (series, values) in self.series.iter().zip(smooth) {
            let finite = || values.iter().copied().filter(|value| value.is_finite());
            let value = |value: f32| self.unit.value(f64::from(value));
            if let Some(last) = finite().next_back() {
                let first = finite().next().unwrap_or(last);
                let least = finite().fold(last, f32::min);
                let most = finite().fold(last, f32::max);
                let _ = match series {
                    Series::Level { label, .. } => write!(words, " {label}: {}.", value(last)),
                    _ => write!(
                        words,
                        " {}: from {} to {}, between {} and {}.",
                        series.name().unwrap_or(self.title),
                        value(first),
                        value(last),
                        value(least),
                        value(most),
                    ),
                };
            }
        }
        words
    }

    fn hover(&self, run: Steps<'_>, ranges: &[std::ops::Range<usize>], smooth: &[Vec<f32>], frame: &Frame) -> Value {
        let middle = |range: &std::ops::Range<usize>| range.start + (range.len() - 1) / 2;
        let at_middles = |values: &[f32]| -> Vec<Value> {
            let mean = |range: &std::ops::Range<usize>| {
                // A value at a few steps only must not be missed between the middles.
                let at = middle(range);
                let there =
                    if values[at].is_finite() { Some(at) } else { range.clone().find(|i| values[*i].is_finite()) };
                there.map_or(Value::Null, |at| json_number(f64::from(values[at])))
            };
            ranges.iter().map(mean).collect()
        };
        let series: Vec<Value> = self
            .series
            .iter()
            .zip(smooth)
            .map(|(series, smooth)| {
                let raw = |values: &[f32], last: usize| -> Vec<Value> {
                    let extreme = |range: &std::ops::Range<usize>| {
                        let ends = extremes(values, range.clone())?.map(|at| f64::from(values[at]));
                        Some(json_number(if last == 0 { ends[0].min(ends[1]) } else { ends[0].max(ends[1]) }))
                    };
                    ranges.iter().map(|range| extreme(range).unwrap_or(Value::Null)).collect()
                };
                match series {
                    Series::Smoothed { label, values } => {
                        json!({"label": label, "line": at_middles(smooth), "low": raw(values, 0), "high": raw(values, 1)})
                    }
                    Series::Band { label, low, high, .. } => {
                        let window = smoothing_window(run.steps.len());
                        let bound = |values| at_middles(&moving_mean(values, window));
                        json!({"label": label, "line": at_middles(smooth), "low": bound(low), "high": bound(high)})
                    }
                    Series::Exact { label, .. } | Series::Dots { label, .. } => {
                        json!({"label": label, "line": at_middles(smooth)})
                    }
                    Series::Level { label, values } if is_constant(values) => {
                        json!({"label": label, "level": json_number(f64::from(last_finite(values)))})
                    }
                    Series::Level { label, .. } => json!({"label": label, "level": at_middles(smooth)}),
                }
            })
            .collect();
        json!({
            "id": self.id,
            "unit": self.unit.name(),
            "steps": ranges.iter().map(|range| run.steps[middle(range)]).collect::<Vec<_>>(),
            "epochs": ranges.iter().map(|range| json_number(f64::from(run.epochs[middle(range)]))).collect::<Vec<_>>(),
            "x": frame.x, "y": frame.y, "log": frame.logarithmic,
            "box": [LEFT, frame.top, RIGHT, BOTTOM],
            "series": series,
        })
    }
}

impl Series {
    /// Its name in the legend; lines to compare with are labelled where they lie.
    fn name(&self) -> Option<&'static str> {
        match self {
            Series::Smoothed { label, .. }
            | Series::Exact { label, .. }
            | Series::Dots { label, .. }
            | Series::Band { label, .. } => Some(label),
            Series::Level { .. } => None,
        }
    }

    /// The values of its line.
    fn main(&self, window: usize) -> Vec<f32> {
        match self {
            Series::Smoothed { values, .. } | Series::Band { middle: values, .. } => moving_mean(values, window),
            Series::Exact { values, .. } | Series::Dots { values, .. } | Series::Level { values, .. } => values.clone(),
        }
    }

    /// Draws all but a line to compare with; whether it took a colour.
    #[expect(clippy::too_many_arguments, reason = "one drawing, called once")]
    fn draw(
        &self,
        smooth: &[f32],
        run: Steps<'_>,
        ranges: &[std::ops::Range<usize>],
        window: usize,
        color: usize,
        frame: &Frame,
        out: &mut String,
    ) -> bool {
        let dash = ["", " d"][color % 2];
        let place = |at: usize, value: f32| (frame.x(steps(run.steps[at])), frame.y(f64::from(value)));
        let extreme_path = |values: &[f32]| {
            path(ranges.iter().flat_map(|range| match extremes(values, range.clone()) {
                Some([first, second]) if first == second => vec![Some(place(first, values[first]))],
                Some([first, second]) => vec![Some(place(first, values[first])), Some(place(second, values[second]))],
                None => vec![None],
            }))
        };
        let middle_path = |values: &[f32]| {
            path(ranges.iter().map(|range| {
                let at = range.start + (range.len() - 1) / 2;
                let at = if range.end == run.steps.len() { range.end - 1 } else { at };
                values[at].is_finite().then(|| place(at, values[at]))
            }))
        };
        let _ = match self {
            Series::Level { .. } => return false,
            Series::Smoothed { values, .. } if window > 1 => write!(
                out,
                r#"<path class="f c{color}" d="{}"/><path class="l c{color}{dash}" d="{}"/>"#,
                extreme_path(values),
                middle_path(smooth),
            ),
            Series::Smoothed { values, .. } | Series::Exact { values, .. } => {
                write!(out, r#"<path class="l c{color}{dash}" d="{}"/>"#, extreme_path(values))
            }
            Series::Dots { values, .. } => {
                let there: Vec<usize> = (0..values.len()).filter(|at| values[*at].is_finite()).collect();
                // Of very many, the least and greatest of each bucket.
                let there: Vec<usize> = if there.len() <= 2 * BUCKETS {
                    there
                } else {
                    let kept = ranges.iter().filter_map(|range| extremes(values, range.clone())).flatten();
                    let mut kept: Vec<usize> = kept.collect();
                    kept.dedup();
                    kept
                };
                let line = path(there.iter().map(|at| Some(place(*at, values[*at]))));
                let _ = write!(out, r#"<path class="l c{color}{dash}" d="{line}"/>"#);
                let dots = if there.len() <= 60 { there } else { Vec::new() };
                dots.into_iter().try_for_each(|at| {
                    let (x, y) = place(at, values[at]);
                    write!(out, r#"<circle class="p c{color}" cx="{x:.1}" cy="{y:.1}" r="3.2"/>"#)
                })
            }
            Series::Band { low, high, .. } => {
                let (low, high) = (moving_mean(low, window), moving_mean(high, window));
                let edge = |values: &[f32], at: usize| values[at].is_finite().then(|| place(at, values[at]));
                let middles: Vec<usize> = ranges
                    .iter()
                    .map(|range| if range.end == run.steps.len() { range.end - 1 } else { range.start })
                    .filter(|at| low[*at].is_finite() && high[*at].is_finite())
                    .collect();
                let around = middles.iter().map(|at| edge(&low, *at));
                let around = path(around.chain(middles.iter().rev().map(|at| edge(&high, *at))));
                write!(
                    out,
                    r#"<path class="b c{color}" d="{around}"/><path class="l c{color}{dash}" d="{}"/>"#,
                    middle_path(smooth)
                )
            }
        };
        true
    }
}

/// A dashed line at the last value, or along the values if they change, with its label at the right end.
fn level(
    label: &str,
    values: &[f32],
    run: Steps<'_>,
    frame: &Frame,
    taken: &mut Vec<f64>,
    (below, over): (&mut String, &mut String),
) {
    let last = f64::from(last_finite(values));
    if !last.is_finite() {
        return;
    }
    let line = if is_constant(values) {
        format!("M{LEFT} {:.1}H{RIGHT}", frame.y(last))
    } else {
        let place = |at: usize| (frame.x(steps(run.steps[at])), frame.y(f64::from(values[at])));
        let kept = buckets(values.len(), BUCKETS).into_iter().flat_map(|range| {
            let ends = extremes(values, range);
            ends.map_or([None, None], |ends| ends.map(|at| Some(place(at))))
        });
        path(kept)
    };
    let _ = write!(below, r#"<path class="r" d="{line}"/>"#);
    // Above its line, unless it would leave the plot or meet another label.
    let above = frame.y(last) - 5.0;
    let fits = |y: f64, taken: &[f64]| y > frame.top + 8.0 && taken.iter().all(|other| (other - y).abs() > 13.0);
    let y = if fits(above, taken) { above } else { above + 18.0 };
    taken.push(y);
    let _ = write!(over, r#"<text class="h e" x="{}" y="{y:.1}">{}</text>"#, RIGHT - 3.0, escape(label));
}

fn is_constant(values: &[f32]) -> bool {
    let last = last_finite(values);
    values.iter().filter(|value| value.is_finite()).all(|value| (value - last).abs() <= 1e-4 * last.abs())
}

fn last_finite(values: &[f32]) -> f32 {
    values.iter().rev().copied().find(|value| value.is_finite()).unwrap_or(f32::NAN)
}

/// The `d` of a path through places, interrupted where there is none.
fn path(places: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let (mut out, mut joined) = (String::new(), 0);
    // A lone place would draw nothing; a line of no length shows as a dot.
    let dot = |out: &mut String, joined: i32| out.push_str(if joined == 1 { "h0" } else { "" });
    for place in places {
        if let Some((x, y)) = place {
            let _ = write!(out, "{}{x:.1} {y:.1}", if joined == 0 { 'M' } else { 'L' });
            joined += 1;
        } else {
            dot(&mut out, joined);
            joined = 0;
        }
    }
    dot(&mut out, joined);
    out
}

#[expect(clippy::cast_precision_loss, reason = "a place on an axis; 2^53 steps are out of reach")]
fn steps(step: u64) -> f64 {
    step as f64
}

#[expect(clippy::cast_precision_loss, reason = "the length of a label")]
fn number(len: usize) -> f64 {
    len as f64
}
