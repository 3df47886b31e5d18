//! Round numbers along an axis, and numbers as words.

/// Round values within `[low, high]`, about `wanted` of them, with the step between them.
pub(crate) fn ticks(low: f64, high: f64, wanted: u32) -> (Vec<f64>, f64) {
    if !(low.is_finite() && high.is_finite() && high > low) {
        return (vec![low], 1.0);
    }
    let rough = (high - low) / f64::from(wanted.max(1));
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough * 0.999).unwrap_or(power);
    let first = (low / step - 1e-9).ceil();
    let values = (0..=100).map(|at| (first + f64::from(at)) * step).take_while(|v| *v <= high + step * 1e-9);
    // Minus zero would be written with its sign.
    (values.map(|v| v + 0.0).collect(), step)
}

/// Powers of ten within `[low, high]`, both positive; with 2 and 5 times them where the powers alone are few.
pub(crate) fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = (high / low).log10();
    let multiples: &[f64] = if decades < 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let stride = if decades > 6.0 { 2 } else { 1 };
    #[expect(clippy::cast_possible_truncation, reason = "exponents of finite numbers are below 400")]
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    (first..=last)
        .filter(|exponent| exponent % stride == 0)
        .flat_map(|exponent| multiples.iter().map(move |multiple| multiple * 10_f64.powi(exponent)))
        .filter(|value| (low * 0.999..=high * 1.001).contains(value))
        .collect()
}

/// How the numbers of an axis are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// As they are.
    Plain,
    /// A share of 1, written as a percentage.
    Percent,
}

impl Unit {
    /// The name that the script of the page knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unit::Plain => "plain",
            Unit::Percent => "percent",
        }
    }

    /// A tick's label; `step` decides the number of decimals.
    pub(crate) fn tick(self, value: f64, step: f64) -> String {
        let label = match self {
            Unit::Percent => format!("{} %", decimals(value * 100.0, step * 100.0)),
            Unit::Plain if value == 0.0 => "0".to_owned(),
            Unit::Plain if value.abs().max(step) < 1e-3 => scientific(value),
            Unit::Plain => decimals(value, step),
        };
        label.replacen('-', "−", usize::from(value < 0.0))
    }

    /// A single value, to three or four digits.
    pub(crate) fn value(self, value: f64) -> String {
        match self {
            Unit::Percent => format!("{:.1} %", value * 100.0),
            Unit::Plain => short(value),
        }
    }
}

/// A number with as many decimals as a step of that size needs.
fn decimals(value: f64, step: f64) -> String {
    let places = (0..=9).find(|places| {
        let scaled = step * 10_f64.powi(*places);
        (scaled - scaled.round()).abs() < 1e-6 * scaled.max(1.0) && scaled.round() >= 1.0
    });
    let text = format!("{value:.*}", usize::try_from(places.unwrap_or(3)).unwrap_or(3));
    if value.abs() >= 100_000.0 { thousands_or_millions(value) } else { grouped(&text) }
}

fn thousands_or_millions(value: f64) -> String {
    let (scaled, sign) = if value.abs() >= 1e6 { (value / 1e6, "M") } else { (value / 1e3, "k") };
    let text = format!("{scaled:.2}");
    format!("{}{sign}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Three or four significant digits.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if value == 0.0 => "0".to_owned(),
        _ if !value.is_finite() => "–".to_owned(),
        _ if size < 1e-3 => scientific(value),
        _ if size < 0.1 => format!("{value:.4}"),
        _ if size < 1.0 => format!("{value:.3}"),
        _ if size < 10.0 => format!("{value:.3}"),
        _ if size < 100.0 => format!("{value:.2}"),
        _ if size < 1000.0 => format!("{value:.1}"),
        _ => grouped(&format!("{value:.0}")),
    }
}

fn scientific(value: f64) -> String {
    let text = format!("{value:.1e}");
    text.replace(".0e", "e")
}

/// A whole number with its thousands apart.
pub(crate) fn whole(value: u64) -> String {
    grouped(&value.to_string())
}

/// Commas between thousands, from 1,000 on.
fn grouped(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (integer, fraction) = digits.split_once('.').map_or((digits, None), |(i, f)| (i, Some(f)));
    let mut out = String::from(sign);
    for (at, digit) in integer.chars().enumerate() {
        if at > 0 && (integer.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// A value with five significant digits as JSON, `null` if it is not finite.
pub(crate) fn json_number(value: f64) -> serde_json::Value {
    let rounded: f64 = format!("{value:.4e}").parse().unwrap_or(f64::NAN);
    // Whole numbers are written without `.0`, which halves the page of a long run's steps.
    #[expect(clippy::cast_possible_truncation, reason = "checked to be a small whole number")]
    if rounded.fract() == 0.0 && rounded.abs() < 1e9 { (rounded as i64).into() } else { rounded.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(ticks(0.0, 368.0, 5).0, [0.0, 100.0, 200.0, 300.0]);
        assert_eq!(ticks(-2.2, 1.4, 4).0, [-2.0, -1.0, 0.0, 1.0]);
        assert_eq!(ticks(1.0, 1.0, 4).0, [1.0]);
        assert_eq!(log_ticks(0.5, 2000.0), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(log_ticks(3.0, 30.0), [5.0, 10.0, 20.0]);
    }

    #[test]
    fn numbers_read_well() {
        let cases = [
            (Unit::Plain, 0.02, 0.02, "0.02"),
            (Unit::Plain, -2.0, 1.0, "−2"),
            (Unit::Plain, 0.0, 2e-4, "0"),
            (Unit::Plain, 4e-4, 2e-4, "4e-4"),
            (Unit::Plain, 2500.0, 500.0, "2,500"),
            (Unit::Plain, 1e6, 2e5, "1M"),
            (Unit::Plain, 200_000.0, 2e5, "200k"),
            (Unit::Percent, 0.25, 0.05, "25 %"),
            (Unit::Percent, 0.025, 0.005, "2.5 %"),
        ];
        for (unit, value, step, want) in cases {
            assert_eq!(unit.tick(value, step), want);
        }
        assert_eq!(short(0.0714), "0.0714");
        assert_eq!(short(f64::NAN), "–");
        assert_eq!(whole(1_234_567), "1,234,567");
        assert_eq!(json_number(f64::NAN), serde_json::Value::Null);
        assert_eq!(json_number(368.0).to_string(), "368");
    }
}
