//! Features as a Parquet file: a row for each picture.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, FloatType},
    errors::ParquetError,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use twoview_data::Source;

const SCHEMA: &str = "
message pictures {
  required binary path (UTF8);
  optional binary label (UTF8);
  required group features (LIST) {
    repeated group list {
      required float element;
    }
  }
}";

/// Rows that are held in memory and written together.
const GROUP_ROWS: usize = 8192;

/// Writes path, label and features of every picture; `values` holds the features, row by row, little-endian.
///
/// # Errors
/// Where `out` cannot take it or `values` ends early.
pub(crate) fn write(
    out: &mut (impl Write + Send),
    source: &dyn Source,
    values: &mut impl Read,
    dim: usize,
) -> io::Result<()> {
    write_rows(out, source, values, dim).map_err(|error| match error {
        ParquetError::External(cause) => io::Error::other(cause),
        other => io::Error::other(other),
    })
}

fn write_rows(
    out: &mut (impl Write + Send),
    source: &dyn Source,
    values: &mut impl Read,
    dim: usize,
) -> Result<(), ParquetError> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut file = SerializedFileWriter::new(out, schema, Arc::new(properties))?;
    for begin in (0..source.len()).step_by(GROUP_ROWS) {
        let rows = begin..(begin + GROUP_ROWS).min(source.len());
        let mut group = file.next_row_group()?;
        let bytes = |text: &str| ByteArray::from(text.as_bytes().to_vec());

        let paths: Vec<ByteArray> = rows.clone().map(|i| bytes(&source.name(i))).collect();
        if let Some(mut column) = group.next_column()? {
            column.typed::<ByteArrayType>().write_batch(&paths, None, None)?;
            column.close()?;
        }
        let labels: Vec<Option<&String>> =
            rows.clone().map(|i| source.label(i).and_then(|label| source.classes().get(label as usize))).collect();
        let levels: Vec<i16> = labels.iter().map(|label| i16::from(label.is_some())).collect();
        let labels: Vec<ByteArray> = labels.into_iter().flatten().map(|label| bytes(label)).collect();
        if let Some(mut column) = group.next_column()? {
            column.typed::<ByteArrayType>().write_batch(&labels, Some(&levels), None)?;
            column.close()?;
        }
        let mut raw = vec![0; 4 * dim * rows.len()];
        values.read_exact(&mut raw).map_err(|error| ParquetError::External(Box::new(error)))?;
        let numbers: Vec<f32> =
            raw.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
        // Every value is there (level 1); the first of a row begins a list (0), the others go on with it (1).
        let definition = vec![1_i16; numbers.len()];
        let repetition: Vec<i16> = (0..numbers.len()).map(|i| i16::from(i % dim != 0)).collect();
        if let Some(mut column) = group.next_column()? {
            column.typed::<FloatType>().write_batch(&numbers, Some(&definition), Some(&repetition))?;
            column.close()?;
        }
        group.close()?;
    }
    file.close().map(drop)
}
