//! A run's measurements as a table.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use serde_json::Value;

use crate::{
    failure::{Failure, at},
    unfinished::Unfinished,
};

/// Writes the lines of `metrics` (JSON, one object for each step) as CSV with a column for each number in them, the step
/// first; `positive_percentiles.1` is the second number of the list of that name. What was not measured is empty.
///
/// # Errors
/// [`Exit::Io`](crate::failure::Exit::Io) where a file cannot be read or written.
/// # Cost
/// Two passes over the lines, memory for one.
pub(crate) fn write_metrics_csv(metrics: &Path, out: &Path) -> Result<(), Failure> {
    let open = || File::open(metrics).map(BufReader::new);
    let mut columns = BTreeSet::new();
    rows(open().map_err(at(metrics))?, |row| {
        columns.extend(row.into_keys());
        Ok(())
    })
    .map_err(at(metrics))?;
    columns.remove("step");
    let columns: Vec<String> = std::iter::once("step".to_owned()).chain(columns).collect();
    Unfinished::create(out)?.finish(|file| {
        let mut table = csv::Writer::from_writer(file);
        table.write_record(&columns)?;
        rows(open()?, |row| {
            let cells = columns.iter().map(|column| row.get(column).map_or("", String::as_str));
            table.write_record(cells).map_err(io::Error::from)
        })?;
        table.flush()
    })
}

fn rows(lines: impl BufRead, mut take: impl FnMut(BTreeMap<String, String>) -> io::Result<()>) -> io::Result<()> {
    for line in lines.split(b'\n') {
        // A run that was killed may have left half a line.
        let Ok(value) = serde_json::from_slice::<Value>(&line?) else { continue };
        let mut row = BTreeMap::new();
        flatten("", &value, &mut row);
        take(row)?;
    }
    Ok(())
}

fn flatten(name: &str, value: &Value, row: &mut BTreeMap<String, String>) {
    let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Object(keys) => keys.iter().for_each(|(key, value)| flatten(&below(key), value, row)),
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(i, value)| flatten(&below(&i.to_string()), value, row));
        }
        Value::Null => {}
        Value::String(text) => drop(row.insert(name.to_owned(), text.clone())),
        number => drop(row.insert(name.to_owned(), number.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_column_and_gaps_are_empty() {
        let dir = tempfile::tempdir().expect("a folder");
        let (metrics, out) = (dir.path().join("metrics.jsonl"), dir.path().join("metrics.csv"));
        let lines = "{\"step\":1,\"loss\":2.5,\"p\":[0.1,0.2],\"knn\":null}\n\
                     {\"step\":2,\"loss\":null,\"p\":[0.3,0.4],\"knn\":{\"top1\":0.5}}\n{\"step\":3,\"lo";
        let lines = [b"no \xFF text\n".as_slice(), lines.as_bytes()].concat();
        std::fs::write(&metrics, lines).expect("written");
        write_metrics_csv(&metrics, &out).map_err(|failure| failure.error).expect("written");
        let table = std::fs::read_to_string(&out).expect("there");
        assert_eq!(table, "step,knn.top1,loss,p.0,p.1\n1,,2.5,0.1,0.2\n2,0.5,,0.3,0.4\n");
    }
}
