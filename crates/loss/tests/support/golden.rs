//! Reading the golden data: `tests/golden` of the repository, or the folder named by `TWOVIEW_GOLDEN`.

use std::path::PathBuf;

use serde_json::Value;

/// The cases in a file that holds a list of them.
pub(crate) fn cases(path: &str) -> Vec<Value> {
    let root = std::env::var_os("TWOVIEW_GOLDEN").map_or_else(|| PathBuf::from("../../tests/golden"), PathBuf::from);
    let path = root.join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All numbers of an array of any depth, in order.
pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        other => vec![other.as_f64().unwrap_or_else(|| panic!("not a number: {other}"))],
    }
}

/// A matrix, rounded to f32.
#[allow(clippy::cast_possible_truncation, reason = "the data says which values are exact in f32")]
pub(crate) fn rows(value: &Value) -> Vec<Vec<f32>> {
    let rows = value.as_array().unwrap_or_else(|| panic!("not a matrix: {value}"));
    rows.iter().map(|row| numbers(row).into_iter().map(|x| x as f32).collect()).collect()
}
