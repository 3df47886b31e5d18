//! The rungs of a score ladder as dots with whiskers.

use std::fmt::Write;

use crate::axis::{Unit, ticks};
use crate::escape::escape;
use crate::plot::WIDTH;
use crate::report::ScoreLadder;

const LEFT: f64 = 116.0;
const RIGHT: f64 = WIDTH - 158.0;
const ROW: f64 = 30.0;

/// The height of the drawing of a ladder.
pub(crate) fn height(ladder: &ScoreLadder) -> f64 {
    (0..ladder.rungs.len()).fold(50.0, |height, _| height + ROW)
}

/// The shapes within an `svg` element of [`WIDTH`] by [`height`], and the ladder in words.
pub(crate) fn draw(ladder: &ScoreLadder) -> (String, String) {
    let finite = ladder.rungs.iter().flat_map(|rung| {
        let ends = rung.interval.unwrap_or([rung.value; 2]);
        [rung.value, ends[0], ends[1]].into_iter().filter(|value| value.is_finite())
    });
    // Up to the next round tenth, and never past the whole.
    let most = finite.fold(0.0, f64::max).clamp(0.05, 1.0);
    let most = ((most * 10.0).ceil() / 10.0).min(1.0);
    let x = |value: f64| LEFT + (value / most).clamp(0.0, 1.0) * (RIGHT - LEFT);
    let bottom = height(ladder) - 42.0;

    let (mut shapes, mut words) = (String::new(), format!("{}.", ladder.title));
    let (values, step) = ticks(0.0, most, 5);
    for value in values {
        let _ = write!(
            shapes,
            r#"<path class="g" d="M{:.1} 4V{bottom}"/><text class="m c" x="{:.1}" y="{}">{}</text>"#,
            x(value),
            x(value),
            bottom + 17.0,
            Unit::Percent.tick(value, step),
        );
    }
    let middle = (LEFT + RIGHT) / 2.0;
    let _ = write!(
        shapes,
        r#"<text class="m c" x="{middle}" y="{}">right of all, 95 % interval</text>"#,
        height(ladder) - 8.0
    );
    let last = ladder.rungs.len().saturating_sub(1);
    let mut y = 4.0 + ROW / 2.0;
    for (at, rung) in ladder.rungs.iter().enumerate() {
        let (class, bold) = if at == last { ("c0", " w") } else { ("n", "") };
        let label = shortened(&rung.label, 18);
        let _ =
            write!(shapes, r#"<text class="e{bold}" x="{}" y="{}">{}</text>"#, LEFT - 12.0, y + 4.0, escape(&label));
        let _ = write!(words, " {}: ", rung.label);
        if rung.value.is_finite() {
            let value = Unit::Percent.value(rung.value);
            let mut range = String::new();
            if let Some([low, high]) = rung.interval.filter(|ends| ends.iter().all(|end| end.is_finite())) {
                let _ = write!(
                    shapes,
                    r#"<path class="k {class}" d="M{:.1} {y}H{:.1}M{:.1} {}v10M{:.1} {}v10"/>"#,
                    x(low),
                    x(high),
                    x(low),
                    y - 5.0,
                    x(high),
                    y - 5.0,
                );
                range = format!("({:.1}–{:.1})", low * 100.0, high * 100.0);
            }
            let _ = write!(
                shapes,
                r#"<circle class="p {class}" cx="{:.1}" cy="{y}" r="5"/><text class="{}" x="{}" y="{}">{value}<tspan class="m" dx="5">{range}</tspan></text>"#,
                x(rung.value),
                bold.trim(),
                RIGHT + 14.0,
                y + 4.0,
            );
            let _ = write!(words, "{value}{range}.");
        } else {
            words.push_str("not measured.");
        }
        y += ROW;
    }
    (shapes, words)
}

/// At most so many letters, with a sign that some are missing.
fn shortened(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars().take(letters - 1).chain(['…']).collect()
}
