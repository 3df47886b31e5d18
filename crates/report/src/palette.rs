//! The colours of the page and the figures, for light and for dark surroundings.
//!
//! The series are told apart with any kind of colour vision (after Okabe and Ito) and by dashes as well; words have a
//! contrast of at least 4.5 to their ground.

use std::fmt::Write;

/// Names and light values.
pub(crate) const LIGHT: &[(&str, &str)] = &[
    ("ground", "#f6f7f8"),
    ("panel", "#ffffff"),
    ("ink", "#1c2126"),
    ("muted", "#5a636d"),
    ("grid", "#e9ecef"),
    ("axis", "#aab2ba"),
    ("rule", "#dde1e5"),
    ("accent", "#00639c"),
    ("warn-ground", "#fff4e0"),
    ("warn-rule", "#c97a00"),
    ("right", "#00704f"),
    ("wrong", "#b23c00"),
    ("series-0", "#0072b2"),
    ("series-1", "#d55e00"),
    ("series-2", "#008a65"),
    ("group-0", "#0072b2"),
    ("group-1", "#e09600"),
    ("group-2", "#009e73"),
    ("group-3", "#d55e00"),
    ("group-4", "#4aa8e0"),
    ("group-5", "#c66fa0"),
    ("group-6", "#7d7a12"),
    ("group-7", "#8a2a5b"),
    ("group-8", "#4b4bb5"),
    ("group-9", "#7a4a21"),
    ("group-none", "#9aa2aa"),
];

/// Names and dark values.
pub(crate) const DARK: &[(&str, &str)] = &[
    ("ground", "#121518"),
    ("panel", "#1a1e22"),
    ("ink", "#e7eaed"),
    ("muted", "#a2abb5"),
    ("grid", "#2a3036"),
    ("axis", "#59636d"),
    ("rule", "#30373e"),
    ("accent", "#6bbcf0"),
    ("warn-ground", "#33270f"),
    ("warn-rule", "#e5a63a"),
    ("right", "#43c79c"),
    ("wrong", "#f58a55"),
    ("series-0", "#57b0ea"),
    ("series-1", "#f28a45"),
    ("series-2", "#35c79d"),
    ("group-0", "#4a9fe0"),
    ("group-1", "#f0b43c"),
    ("group-2", "#2cc295"),
    ("group-3", "#f07f3c"),
    ("group-4", "#93d5fa"),
    ("group-5", "#e39bc4"),
    ("group-6", "#c9c24a"),
    ("group-7", "#d0588f"),
    ("group-8", "#9a9af5"),
    ("group-9", "#c08a58"),
    ("group-none", "#737c85"),
];

const FIGURE: &str = include_str!("page/figure.css");

/// The style of a figure that lies in a page which brings the colours.
pub(crate) fn figure_style() -> &'static str {
    FIGURE
}

/// The style of a figure on its own, with the light colours written out: not every viewer knows variables.
pub(crate) fn standalone_figure_style() -> String {
    LIGHT.iter().fold(FIGURE.to_owned(), |css, (name, value)| css.replace(&format!("var(--{name})"), value))
}

/// The colours as variables of the page.
pub(crate) fn variables() -> String {
    let list = |colors: &[(&str, &str)]| {
        colors.iter().fold(String::new(), |mut out, (name, value)| {
            let _ = write!(out, "--{name}:{value};");
            out
        })
    };
    // Paper is light whatever the screen is.
    format!(
        ":root{{color-scheme:light;{}}}\n@media screen and (prefers-color-scheme:dark){{:root{{color-scheme:dark;{}}}}}\n",
        list(LIGHT),
        list(DARK)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance of WCAG 2.2.
    fn luminance(hex: &str) -> f64 {
        let channel = |at: usize| {
            let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).expect("a hexadecimal colour")) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        (a / b).max(b / a)
    }

    #[test]
    fn words_and_marks_stand_out() {
        for colors in [LIGHT, DARK] {
            let color = |name: &str| colors.iter().find(|(other, _)| *other == name).expect("a colour").1;
            for ground in ["ground", "panel"] {
                for words in ["ink", "muted", "accent", "right", "wrong"] {
                    let contrast = contrast(color(words), color(ground));
                    assert!(contrast >= 4.5, "{words} on {ground}: {contrast:.2}");
                }
            }
            for marks in ["series-0", "series-1", "series-2", "warn-rule"] {
                let contrast = contrast(color(marks), color("panel"));
                assert!(contrast >= 3.0, "{marks}: {contrast:.2}");
            }
            assert!(contrast(color("ink"), color("warn-ground")) >= 4.5);
        }
        let names = |colors: &'static [(&str, &str)]| colors.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names(LIGHT), names(DARK));
        assert!(!standalone_figure_style().contains("var("));
    }
}
