//! Reading the golden data: `tests/golden` of the repository, or the folder named by `TWOVIEW_GOLDEN`.

use std::path::PathBuf;

use serde_json::Value;

/// One JSON file.
pub(crate) fn file(path: &str) -> Value {
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

/// The items of an array.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not an array: {value}"))
}
