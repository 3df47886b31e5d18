//! Which classes are found and which are taken for which, as tables of HTML.

use std::fmt::Write;

use crate::axis::whole;
use crate::escape::escape;
use crate::report::{Confusion, ReportError};

/// Up to so many classes, all pairs are shown.
const MOST_CLASSES: usize = 20;
/// Of more classes, so many pairs.
const MOST_PAIRS: usize = 25;

/// # Errors
/// [`ReportError::Confusion`] if the matrix is not one of the classes.
pub(crate) fn check(confusion: &Confusion, classes: &[String]) -> Result<(), ReportError> {
    let rows = confusion.counts.len();
    for (row, counts) in confusion.counts.iter().enumerate() {
        if rows != classes.len() || counts.len() != classes.len() {
            return Err(ReportError::Confusion { row, columns: counts.len(), rows, classes: classes.len() });
        }
    }
    Ok(())
}

/// How often each class was found, with its 95 % interval; all classes, the worst first.
pub(crate) fn per_class(confusion: &Confusion, classes: &[String]) -> String {
    let mut rows: Vec<(f64, usize, u64, u64)> = Vec::new();
    for (class, counts) in confusion.counts.iter().enumerate() {
        let (right, total) = (counts[class], counts.iter().sum());
        if total > 0 {
            rows.push((share(right, total), class, right, total));
        }
    }
    rows.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut out = String::from(
        "<table class=\"rows\"><thead><tr><th scope=\"col\">Class</th><th scope=\"col\" class=\"num\">Found</th>\
         <th scope=\"col\" class=\"num\">95 % interval</th><th scope=\"col\" class=\"num\">Pictures</th>\
         <th class=\"bar\"></th></tr></thead><tbody>",
    );
    for (found, class, right, total) in rows {
        let [low, high] = wilson(right, total);
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"num\">{:.1} %</td><td class=\"num\">{:.1}–{:.1}</td>\
             <td class=\"num\">{}</td><td class=\"bar\"><i style=\"width:{:.1}%\"></i></td></tr>",
            escape(&classes[class]),
            found * 100.0,
            low * 100.0,
            high * 100.0,
            whole(total),
            found * 100.0,
        );
    }
    out.push_str("</tbody></table>");
    out
}

/// All pairs of few classes, or the most frequent mistakes of many.
pub(crate) fn matrix(confusion: &Confusion, classes: &[String]) -> String {
    if classes.len() > MOST_CLASSES { mistakes(confusion, classes) } else { heat_map(confusion, classes) }
}

fn heat_map(confusion: &Confusion, classes: &[String]) -> String {
    let mut out = String::from("<table class=\"heat\"><thead><tr><td><span>is ↓ · taken for →</span></td>");
    for class in classes {
        let _ = write!(out, "<th scope=\"col\"><span>{}</span></th>", escape(class));
    }
    out.push_str("</tr></thead><tbody>");
    for (is, counts) in confusion.counts.iter().enumerate() {
        let total: u64 = counts.iter().sum();
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(&classes[is]));
        for (taken_for, count) in counts.iter().enumerate() {
            let share = share(*count, total);
            // Right answers have a border, so that the eye finds the diagonal where no colour is seen.
            let right = if is == taken_for { " right" } else { "" };
            let dark = if share > 0.5 { " dark" } else { "" };
            let shown = if *count == 0 { "·".to_owned() } else { whole(*count) };
            let _ = write!(out, "<td class=\"cell{right}{dark}\" style=\"--share:{share:.3}\">{shown}</td>");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table>");
    out
}

fn mistakes(confusion: &Confusion, classes: &[String]) -> String {
    let mut pairs: Vec<(f64, u64, usize, usize)> = Vec::new();
    for (is, counts) in confusion.counts.iter().enumerate() {
        let total: u64 = counts.iter().sum();
        let wrong = counts.iter().enumerate().filter(|(taken_for, count)| *taken_for != is && **count > 0);
        pairs.extend(wrong.map(|(taken_for, count)| (share(*count, total), *count, is, taken_for)));
    }
    pairs.sort_by(|a, b| b.1.cmp(&a.1).then(b.0.total_cmp(&a.0)).then((a.2, a.3).cmp(&(b.2, b.3))));
    let shown = pairs.len().min(MOST_PAIRS);
    let mut out = format!("<p class=\"note\">The {shown} most frequent of {} kinds of mistakes.</p>", pairs.len());
    out.push_str(
        "<table class=\"rows\"><thead><tr><th scope=\"col\">Is</th><th scope=\"col\">Taken for</th>\
         <th scope=\"col\" class=\"num\">Times</th><th scope=\"col\" class=\"num\">Of its class</th>\
         <th class=\"bar\"></th></tr></thead><tbody>",
    );
    for (share, count, is, taken_for) in pairs.into_iter().take(MOST_PAIRS) {
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"num\">{}</td><td class=\"num\">{:.1} %</td>\
             <td class=\"bar\"><i class=\"wrong\" style=\"width:{:.1}%\"></i></td></tr>",
            escape(&classes[is]),
            escape(&classes[taken_for]),
            whole(count),
            share * 100.0,
            share * 100.0,
        );
    }
    out.push_str("</tbody></table>");
    out
}

#[expect(clippy::cast_precision_loss, reason = "a share to three digits")]
fn share(part: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { part as f64 / total as f64 }
}

/// The 95 % interval of a share by Wilson's score, which stays within `[0, 1]`.
#[expect(clippy::cast_precision_loss, reason = "counts of pictures")]
fn wilson(right: u64, total: u64) -> [f64; 2] {
    let (n, z) = (total as f64, 1.96_f64);
    let p = right as f64 / n;
    let middle = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    [middle - half, middle + half].map(|end| (end / (1.0 + z * z / n)).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_published_one() {
        // Brown, Cai and DasGupta (2001), the Wilson interval for 10 of 20.
        let [low, high] = wilson(10, 20);
        assert!((low - 0.2993).abs() < 1e-4 && (high - 0.7007).abs() < 1e-4, "{low} {high}");
        assert_eq!(wilson(0, 5)[0], 0.0);
    }

    #[test]
    fn many_classes_show_their_mistakes_only() {
        let classes: Vec<String> = (0..30).map(|class| format!("class <{class}>")).collect();
        let mut counts = vec![vec![0; 30]; 30];
        counts[3][4] = 9;
        counts[3][3] = 1;
        let confusion = Confusion { of: String::new(), counts };
        assert_eq!(check(&confusion, &classes), Ok(()));
        let table = matrix(&confusion, &classes);
        assert!(table.contains("class &lt;3&gt;</th><td>class &lt;4&gt;</td><td class=\"num\">9</td>"), "{table}");
        assert!(check(&confusion, &classes[1..]).is_err());
    }
}
