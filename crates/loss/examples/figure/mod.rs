//! Line charts as SVG, for the examples.
#![allow(dead_code, reason = "each example uses its part")]
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::path::PathBuf;

use plotters::{coord::ranged1d::AsRangedCoord, prelude::*};

/// A named line.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Line {
    pub(crate) fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self { name: name.into(), points: points.into_iter().collect() }
    }
}

/// How the axes run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axes {
    Linear,
    /// Horizontally by factors.
    LogX,
    /// Both by factors.
    LogBoth,
}

/// What a figure says.
pub(crate) struct Figure<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    pub(crate) axes: Axes,
    pub(crate) lines: Vec<Line>,
}

const COLORS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(90, 90, 90),
];

/// Draws to the path in the first argument, or to `target/figures/NAME.svg`, and says where.
pub(crate) fn draw(name: &str, figure: &Figure<'_>) {
    let default = || PathBuf::from("target/figures").join(format!("{name}.svg"));
    let path = std::env::args().nth(1).map_or_else(default, PathBuf::from);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }
    let text = svg(figure);
    std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    println!("drawn to {}", path.display());
}

/// The figure as SVG.
pub(crate) fn svg(figure: &Figure<'_>) -> String {
    let all = || figure.lines.iter().flat_map(|line| &line.points);
    let extent = |of: fn(&(f64, f64)) -> f64, by_factors: bool| {
        let (low, high) =
            all().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if by_factors { low / 1.1..high * 1.1 } else { low - 0.05 * (high - low)..high + 0.05 * (high - low) }
    };
    let x = extent(|point| point.0, figure.axes != Axes::Linear);
    let y = extent(|point| point.1, figure.axes == Axes::LogBoth);
    let mut text = String::new();
    match figure.axes {
        Axes::Linear => paint(&mut text, figure, x, y),
        Axes::LogX => paint(&mut text, figure, x.log_scale(), y),
        Axes::LogBoth => paint(&mut text, figure, x.log_scale(), y.log_scale()),
    }
    text
}

fn paint<X, Y>(text: &mut String, figure: &Figure<'_>, x: X, y: Y)
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: plotters::coord::ranged1d::ValueFormatter<f64>,
    Y::CoordDescType: plotters::coord::ranged1d::ValueFormatter<f64>,
{
    let area = SVGBackend::with_string(text, (720, 440)).into_drawing_area();
    let drawn = (|| {
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(figure.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(x, y)?;
        let short = |value: &f64| format!("{value}");
        chart
            .configure_mesh()
            .x_desc(figure.x)
            .y_desc(figure.y)
            .x_labels(6)
            .y_labels(8)
            .x_label_formatter(&short)
            .y_label_formatter(&|value| format!("{}", (value * 1e6).round() / 1e6))
            .light_line_style(WHITE)
            .draw()?;
        for (line, color) in figure.lines.iter().zip(COLORS.iter().cycle()) {
            let color = *color;
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)))?
                .label(line.name.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
        area.present()
    })();
    drawn.unwrap_or_else(|error| panic!("a figure is drawn into memory: {error}"));
}
