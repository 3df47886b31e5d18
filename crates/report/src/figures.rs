//! The curves and ladders of a report as files of their own.

use std::fmt::Write;

use crate::curves::curves;
use crate::escape::escape;
use crate::ladder_plot;
use crate::palette::standalone_figure_style;
use crate::plot::{HEIGHT, Steps, WIDTH};
use crate::report::Report;

/// A drawing that stands alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Small letters, digits and hyphens: a file's name without its ending, such as `loss`.
    pub name: String,
    /// The text of an SVG file, in light colours.
    pub svg: String,
}

/// Height of the title above a drawing.
const TITLE: f64 = 30.0;

/// Each curve and each score ladder of a report as an SVG file, drawn as in the page of [`html`](crate::html()).
///
/// The files name only common fonts and need no script. `figure_png`, with the feature `png`, makes pixels of one; the page
/// has a button for that at each figure.
///
/// # Example
/// ```
/// use twoview_report::{Report, Section, StepRow, figures};
///
/// let rows = vec![StepRow { step: 1, loss: Some(4.9), ..StepRow::default() }];
/// let figures = figures(&Report { steps: Section::Present(rows), ..Report::default() });
/// assert_eq!(figures[0].name, "loss");
/// ```
pub fn figures(report: &Report) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut add = |name: String, title: &str, height: f64, shapes: &str, words: &str| {
        let mut svg = String::new();
        let _ = writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" width=\"{WIDTH}\" height=\"{}\" \
             viewBox=\"0 -{TITLE} {WIDTH} {}\" role=\"img\"><title>{}</title><style>{}</style>\
             <rect y=\"-{TITLE}\" width=\"{WIDTH}\" height=\"{}\" fill=\"#fff\"/>\
             <text class=\"t\" x=\"12\" y=\"-10\">{}</text>{shapes}</svg>",
            height + TITLE,
            height + TITLE,
            escape(words),
            standalone_figure_style(),
            height + TITLE,
            escape(title),
        );
        figures.push(Figure { name, svg });
    };
    let rows = report.steps.present().map_or(&[][..], Vec::as_slice);
    let steps: Vec<u64> = rows.iter().map(|row| row.step).collect();
    let epochs: Vec<f32> = rows.iter().map(|row| row.epoch.unwrap_or(f32::NAN)).collect();
    for plot in curves(rows, &report.knn_references) {
        let drawing = plot.draw(Steps { steps: &steps, epochs: &epochs });
        add(plot.id.to_owned(), plot.title, HEIGHT, &drawing.shapes, &drawing.words);
    }
    for (ladder, at) in report.scores.present().into_iter().flatten().zip(1..) {
        let (shapes, words) = ladder_plot::draw(ladder);
        add(format!("scores-{at}"), &ladder.title, ladder_plot::height(ladder), &shapes, &words);
    }
    figures
}
