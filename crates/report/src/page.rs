//! The page of a run.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use twoview_pixels::Image;

use crate::atlas::{picture_address, png_address};
use crate::axis::{Unit, short, whole};
use crate::confusion_table;
use crate::curves::curves;
use crate::escape::{escape, script_json, with_code};
use crate::ladder_plot;
use crate::map_data::{check_class, map_data};
use crate::palette::{figure_style, standalone_figure_style, variables};
use crate::plot::{HEIGHT, Steps, WIDTH};
use crate::report::{Confusion, Fact, GalleryRow, PairList, Picture, Report, ReportError, ScoreLadder, Section};
use crate::steps::StepRow;
use crate::thin::{moving_mean, smoothing_window};

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
/// The longer side of a picture of the gallery in the page's file; shown at half of it or so.
const PICTURE_PX: u32 = 160;

/// The whole report as one HTML page.
///
/// The page holds everything it shows. It opens from a disk in any current browser, asks for nothing from anywhere
/// (its content policy forbids it), follows the reader's light or dark preference, prints, and shows all but the map
/// without its script too. Words from the report appear as they are, whatever signs they hold; numbers that are not
/// finite are gaps.
///
/// # Errors
/// [`ReportError`] if the report contradicts itself, such as a class without a name.
///
/// # Cost
/// The map's thumbnails take up to 8 MB as JPEG and so 10.7 MB of the page; they get smaller and coarser with their
/// number. The curves take 300 kB at most, a picture of the gallery about 5 kB, the augmentation sheet what it takes as
/// PNG. 10,000 pictures are written in about a second.
///
/// # Example
/// ```
/// use twoview_report::{Report, Section, html, read_steps};
///
/// let steps = read_steps(&b"{\"step\":1,\"loss\":4.9,\"chance\":4.84}\n{\"step\":2,\"loss\":4.6,\"chance\":4.84}\n"[..])?;
/// let report = Report {
///     name: "demo".to_owned(),
///     steps: Section::Present(steps),
///     scores: Section::Hint("`twoview eval knn runs/demo` adds the scores.".to_owned()),
///     ..Report::default()
/// };
/// assert!(html(&report)?.starts_with("<!doctype html>"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn html(report: &Report) -> Result<String, ReportError> {
    let classes = report.classes.as_slice();
    let mut plots = Vec::new();
    let map = report.map.present().filter(|map| !map.pictures.is_empty() && !map.projections.is_empty());
    let map = map.map(|map| map_data(map, classes)).transpose()?;
    let config = report.config.as_ref().map_or(Section::Absent, |config| Section::Present(config.clone()));
    let parts = [
        part("curves", "Curves", "Curves", &report.steps, |rows| Ok(curves_part(report, rows, &mut plots)))?,
        part("scores", "Scores", "Scores", &report.scores, |ladders| Ok(scores_part(ladders)))?,
        part("classes", "Classes", "Class by class", &report.confusion, |confusion| {
            confusion_table::check(confusion, classes)?;
            Ok(classes_part(confusion, classes))
        })?,
        part("map", "Map", "Map of the embeddings", &report.map, |of| {
            Ok(if map.is_some() { map_part(of.pictures.len()) } else { String::new() })
        })?,
        part("neighbours", "Neighbours", "Nearest neighbours", &report.neighbours, |rows| gallery_part(rows, classes))?,
        part("pairs", "Pairs", "Pairs worth a look", &report.pairs, |lists| pairs_part(lists, classes))?,
        part("views", "Views", "What the augmentations do", &report.augmentations, views_part)?,
        part("config", "Configuration", "Configuration", &config, |config| Ok(config_part(config)))?,
    ];
    let sections: Vec<Part> = parts.into_iter().flatten().collect();

    let data = json!({"plots": plots, "map": map.unwrap_or(Value::Null), "figureStyle": standalone_figure_style()});
    let hash = STANDARD.encode(Sha256::digest(SCRIPT.as_bytes()));
    let name = escape(&report.name);
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'sha256-{hash}'; \
         style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{name} · twoview</title>\n<style>\n{}{}{STYLE}</style></head>\n<body>\n",
        variables(),
        figure_style(),
    );
    let _ = write!(out, "<header><h1>{name}</h1>");
    if !report.about.is_empty() {
        let _ = write!(out, "<p class=\"about\">{}</p>", escape(&report.about));
    }
    let by: Vec<String> =
        [&report.made, &report.program].into_iter().filter(|s| !s.is_empty()).map(|s| escape(s)).collect();
    if !by.is_empty() {
        let _ = write!(out, "<p class=\"by\">{}</p>", by.join(" · "));
    }
    out.push_str(&overview(report));
    out.push_str("</header>\n<nav aria-label=\"Sections\"><ul>");
    for Part { id, link, .. } in &sections {
        let _ = write!(out, "<li><a href=\"#{id}\">{link}</a></li>");
    }
    out.push_str("</ul></nav>\n<main>\n");
    for Part { id, heading, body, .. } in &sections {
        let _ = writeln!(
            out,
            "<section id=\"{id}\" aria-labelledby=\"{id}-h\"><h2 id=\"{id}-h\">{heading}</h2>{body}</section>"
        );
    }
    let _ = write!(
        out,
        "</main>\n<footer>One file, nothing fetched: it can be kept, sent and opened offline.</footer>\n\
         <script type=\"application/json\" id=\"data\">{}</script>\n<script>{SCRIPT}</script>\n</body></html>\n",
        script_json(&data),
    );
    Ok(out)
}

/// A section of the page.
struct Part {
    id: &'static str,
    link: &'static str,
    heading: &'static str,
    body: String,
}

/// A section: the part itself, or the sentence in its place; none if its body is empty.
fn part<T>(
    id: &'static str,
    link: &'static str,
    heading: &'static str,
    section: &Section<T>,
    body: impl FnOnce(&T) -> Result<String, ReportError>,
) -> Result<Option<Part>, ReportError> {
    let body = match section {
        Section::Absent => return Ok(None),
        Section::Hint(hint) => format!("<p class=\"hint\">{}</p>", with_code(hint)),
        Section::Present(value) => body(value)?,
    };
    Ok((!body.is_empty()).then_some(Part { id, link, heading, body }))
}

/// Warnings, the numbers that matter most, and what the run was made of.
fn overview(report: &Report) -> String {
    let mut out = String::new();
    if !report.warnings.is_empty() {
        out.push_str("<ul class=\"warnings\">");
        for warning in &report.warnings {
            let _ = write!(out, "<li>{}</li>", with_code(warning));
        }
        out.push_str("</ul>");
    }
    let tiles = tiles(report);
    if !tiles.is_empty() {
        out.push_str("<dl class=\"tiles\">");
        for [name, big, sub] in tiles {
            let _ = write!(
                out,
                "<div class=\"tile panel\"><dt>{}</dt><dd class=\"big\">{}</dd><dd class=\"sub\">{}</dd></div>",
                escape(&name),
                escape(&big),
                escape(&sub),
            );
        }
        out.push_str("</dl>");
    }
    let lists = [("Data", &report.data), ("Environment", &report.environment)];
    if lists.iter().any(|(_, facts)| !facts.is_empty()) {
        out.push_str("<div class=\"facts\">");
        for (title, facts) in lists.into_iter().filter(|(_, facts)| !facts.is_empty()) {
            let _ = write!(out, "<div class=\"panel\"><h3>{title}</h3><dl>");
            for Fact { name, value } in facts {
                let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
            }
            out.push_str("</dl></div>");
        }
        out.push_str("</div>");
    }
    out
}

/// Name, value and explanation of the numbers at the top.
fn tiles(report: &Report) -> Vec<[String; 3]> {
    let mut tiles = Vec::new();
    let mut tile = |name: &str, big: String, sub: String| tiles.push([name.to_owned(), big, sub]);
    if let Some(ladder) = report.scores.present().and_then(|ladders| ladders.first())
        && let Some((trained, below)) = ladder.rungs.split_last()
    {
        let below = below.iter().rev().filter(|rung| rung.value.is_finite());
        let below: Vec<_> = below.map(|rung| format!("{} {}", rung.label, Unit::Percent.value(rung.value))).collect();
        tile(&ladder.title, percent(trained.value), below.join(" · "));
    }
    let rows = report.steps.present().map_or(&[][..], Vec::as_slice);
    if let Some(last) = rows.last() {
        let (level, over) = end_of(rows, |row| row.loss);
        if level.is_finite() {
            let line = |name, value: Option<f32>| {
                let value = value.filter(|value| value.is_finite());
                value.map(|value| format!("{name} {}", short(f64::from(value))))
            };
            let lines: Vec<_> =
                [line("chance", last.chance), line("floor", last.floor)].into_iter().flatten().collect();
            tile("Loss at the end", short(level), format!("{}{}", lines.join(" · "), over));
        }
        let (rank, over) = end_of(rows, |row| row.effective_rank);
        if rank.is_finite() {
            tile("Effective rank", format!("{rank:.1}"), format!("directions in use; 1 is collapse{over}"));
        }
        let epochs = last.epoch.filter(|epoch| epoch.is_finite());
        let epochs = epochs.map_or(String::new(), |epoch| format!("{} epochs", trimmed(f64::from(epoch))));
        tile("Steps", whole(last.step), epochs);
    }
    if let Some(seconds) = report.duration_s.filter(|seconds| seconds.is_finite() && *seconds >= 0.0) {
        let (speed, _) = end_of(rows, |row| row.images_per_s);
        let speed = if speed.is_finite() { format!("{} pictures per second", short(speed)) } else { String::new() };
        tile("Training time", duration(seconds), speed);
    }
    tiles
}

/// Where the smoothed curve of a quantity ends, and words on how many steps that is the mean of.
fn end_of(rows: &[StepRow], value: fn(&StepRow) -> Option<f32>) -> (f64, String) {
    let count = smoothing_window(rows.len()) / 2 + 1;
    let last = &rows[rows.len().saturating_sub(count)..];
    let last: Vec<f32> = last.iter().map(|row| value(row).unwrap_or(f32::NAN)).collect();
    let end = moving_mean(&last, 2 * count).pop().unwrap_or(f32::NAN);
    let over = if count > 1 { format!(" · mean of the last {} steps", whole(count as u64)) } else { String::new() };
    (f64::from(end), over)
}

fn percent(share: f64) -> String {
    if share.is_finite() { Unit::Percent.value(share) } else { "–".to_owned() }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Seconds as `48 s`, `12 min 5 s`, `3 h 12 min` or `2 d 4 h`.
fn duration(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked; a cast of too many saturates"
    )]
    let seconds = seconds.round() as u64;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

fn curves_part(report: &Report, rows: &[StepRow], data: &mut Vec<Value>) -> String {
    let plots = curves(rows, &report.knn_references);
    if plots.is_empty() {
        return String::new();
    }
    let steps: Vec<u64> = rows.iter().map(|row| row.step).collect();
    let epochs: Vec<f32> = rows.iter().map(|row| row.epoch.unwrap_or(f32::NAN)).collect();
    let mut out = String::from(
        "<p class=\"note\">What was measured at each step. Point at a curve for its values, or select it and use the \
         arrow keys.</p><div class=\"figures\">",
    );
    for plot in plots {
        let drawing = plot.draw(Steps { steps: &steps, epochs: &epochs });
        data.push(drawing.hover);
        let svg = format!(
            "<svg id=\"plot-{}\" class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">{}</svg>",
            plot.id,
            escape(&drawing.words),
            drawing.shapes,
        );
        figure(&mut out, plot.id, plot.title, &svg, plot.reading);
    }
    out.push_str("</div>");
    out
}

fn figure(out: &mut String, id: &str, title: &str, svg: &str, caption: &str) {
    let _ = write!(
        out,
        "<figure class=\"panel\" data-figure=\"{}\"><div class=\"head\"><h3>{}</h3></div>{svg}<figcaption>{}</figcaption></figure>",
        escape(id),
        escape(title),
        escape(caption),
    );
}

fn scores_part(ladders: &[ScoreLadder]) -> String {
    if ladders.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<p class=\"note\">Training has shown something only by its distance to the rungs below: raw pixels reach more \
         than chance, and an untrained network often more than either. Where whiskers overlap, the difference may be \
         luck.</p><div class=\"figures\">",
    );
    for (ladder, at) in ladders.iter().zip(1..) {
        let (shapes, words) = ladder_plot::draw(ladder);
        let svg = format!(
            "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">{shapes}</svg>",
            ladder_plot::height(ladder),
            escape(&words),
        );
        figure(&mut out, &format!("scores-{at}"), &ladder.title, &svg, &ladder.protocol);
    }
    out.push_str("</div>");
    out
}

fn classes_part(confusion: &Confusion, classes: &[String]) -> String {
    if classes.is_empty() {
        return String::new();
    }
    let of = if confusion.of.is_empty() { String::new() } else { format!(" Predicted by {}.", escape(&confusion.of)) };
    format!(
        "<p class=\"note\">Which classes are found and which are taken for which: a dark square off the framed diagonal \
         is a pair that the encoder hardly tells apart.{of}</p><div class=\"two\"><div class=\"panel\"><h3>Found, worst \
         first</h3><div class=\"scroll tall\">{}</div></div><div class=\"panel\"><h3>Taken for</h3>\
         <div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Confusion of classes\">{}</div></div></div>",
        confusion_table::per_class(confusion, classes),
        confusion_table::matrix(confusion, classes),
    )
}

fn map_part(pictures: usize) -> String {
    format!(
        "<p class=\"note\">Each mark is one of {} pictures; those that the encoder finds alike lie close together. Clear \
         clusters of one colour speak well of it, but distances between clusters mean little. <span id=\"map-note\"></span></p>\
         <noscript><p class=\"hint\">The map needs the script of this page, which your browser did not run.</p></noscript>\
         <div class=\"map panel\"><div class=\"bar-of-map\">\
         <label>Projection <select id=\"map-projection\"></select></label>\
         <label>Colour by <select id=\"map-color\"></select></label>\
         <label><input type=\"checkbox\" id=\"map-pictures\"> Show pictures</label>\
         <div class=\"search\"><input type=\"search\" id=\"map-search\" placeholder=\"Search names\" \
         aria-label=\"Search pictures by name\" autocomplete=\"off\"><ul class=\"found\" id=\"map-found\" hidden></ul></div>\
         <div class=\"zoom\"><button type=\"button\" id=\"map-in\" aria-label=\"Zoom in\">+</button>\
         <button type=\"button\" id=\"map-out\" aria-label=\"Zoom out\">−</button>\
         <button type=\"button\" id=\"map-reset\">Reset</button></div></div>\
         <div class=\"stage\"><div class=\"canvas\"><canvas class=\"dots\" tabindex=\"0\" role=\"application\" \
         aria-label=\"Map of the embeddings of {} pictures. Arrow keys move, plus and minus zoom, 0 resets, Enter pins \
         the picture in the middle, Escape unpins.\"></canvas></div>\
         <div class=\"side\"><div class=\"legend\" id=\"map-legend\"></div><div class=\"pinned\" id=\"map-pinned\"></div></div></div>\
         <p class=\"hidden\" id=\"map-said\" aria-live=\"polite\"></p></div>",
        whole(pictures as u64),
        whole(pictures as u64),
    )
}

/// A picture with its class, its name and more below it; `mark` is the class of its frame and the sign of its label.
fn picture(
    out: &mut String,
    picture: &Picture,
    classes: &[String],
    (class, sign): (&str, &str),
    below: &str,
) -> Result<(), ReportError> {
    check_class(picture.class, &picture.name, classes)?;
    let (address, [width, height]) = picture_address(&picture.image, PICTURE_PX)?;
    let label = picture.class.map_or("", |class| classes[class].as_str());
    let small = if width.max(height) <= 64 { " class=\"small\"" } else { "" };
    let name = escape(&picture.name);
    // Rather between folders than within a word.
    let broken = name.replace('/', "/<wbr>");
    let label = format!("{sign}{}", escape(label));
    let label =
        if label.is_empty() { label } else { format!("<span class=\"label\" title=\"{label}\">{label}</span>") };
    let _ = write!(
        out,
        "<div class=\"pic {class}\"><div class=\"frame\"><img{small} src=\"{address}\" width=\"{width}\" height=\"{height}\" \
         alt=\"{name}\" decoding=\"async\"></div>{label}<span class=\"name\" title=\"{name}\">{broken}</span>{below}</div>",
    );
    Ok(())
}

fn gallery_part(rows: &[GalleryRow], classes: &[String]) -> Result<String, ReportError> {
    if rows.is_empty() {
        return Ok(String::new());
    }
    let mut out = String::from(
        "<p class=\"note\">Each row: a picture and those whose embeddings are nearest to its own, with their cosines. \
         ✓ and a full frame: of the same class; ✗ and a dashed frame: of another.</p><ul class=\"gallery\">",
    );
    for row in rows {
        out.push_str("<li class=\"panel\" tabindex=\"0\">");
        picture(&mut out, &row.query, classes, ("query", ""), "")?;
        for (found, cosine) in &row.found {
            let mark = match (row.query.class, found.class) {
                (Some(a), Some(b)) if a == b => ("right", "✓ "),
                (Some(_), Some(_)) => ("wrong", "✗ "),
                _ => ("", ""),
            };
            let below = format!("<span class=\"cosine\">{}</span>", written_cosine(*cosine));
            picture(&mut out, found, classes, mark, &below)?;
        }
        out.push_str("</li>");
    }
    out.push_str("</ul>");
    Ok(out)
}

fn pairs_part(lists: &[PairList], classes: &[String]) -> Result<String, ReportError> {
    let mut out = String::new();
    for list in lists.iter().filter(|list| !list.pairs.is_empty()) {
        let _ = write!(
            out,
            "<div class=\"group\"><h3>{}</h3><p class=\"note\">{}</p><ul class=\"pairs\">",
            escape(&list.title),
            escape(&list.note),
        );
        for pair in &list.pairs {
            out.push_str("<li class=\"panel\">");
            for each in &pair.pictures {
                picture(&mut out, each, classes, ("", ""), "")?;
            }
            let _ = write!(out, "<span class=\"cos\">cosine {}</span></li>", written_cosine(pair.cosine));
        }
        out.push_str("</ul></div>");
    }
    Ok(out)
}

fn written_cosine(cosine: f32) -> String {
    if cosine.is_finite() { format!("{cosine:.3}") } else { "–".to_owned() }
}

fn views_part(sheet: &Image) -> Result<String, ReportError> {
    Ok(format!(
        "<p class=\"note\">Pictures beside the views that training makes of them: what stays the same in all views of a \
         picture is what the encoder learns to see.</p><div class=\"sheet panel\"><img src=\"{}\" width=\"{}\" \
         height=\"{}\" decoding=\"async\" alt=\"Pictures in rows, each with several augmented views of it\"></div>",
        png_address(sheet)?,
        sheet.width(),
        sheet.height(),
    ))
}

fn config_part(config: &str) -> String {
    format!(
        "<p class=\"note\">Every setting of the run, written out: it can be run again from this text.</p>\
         <details class=\"panel\"><summary>Show the configuration</summary><div class=\"config\"><pre tabindex=\"0\">\
         <code>{}</code></pre></div></details>",
        escape(config)
    )
}
