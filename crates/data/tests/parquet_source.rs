//! Parquet files as Hugging Face writes them, in several row groups, with nulls, and damaged.

#![cfg(feature = "parquet")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up may panic")]

mod made_sets;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use made_sets::{OPTIONS, picture, png, write};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use twoview_data::{ParquetError, ParquetSource, Problem, ReadBuffers, Source, SourceKind, Split};

const SCHEMA: &str = "message schema {
    OPTIONAL GROUP image { OPTIONAL BYTE_ARRAY bytes; OPTIONAL BYTE_ARRAY path (UTF8); }
    OPTIONAL INT64 label;
}";

/// The file of a picture, or nothing, and its label.
type Row = (Option<Vec<u8>>, i64);

/// A file of these row groups.
fn parquet_bytes(groups: &[Vec<Row>], names: Option<&str>, compression: Compression) -> Vec<u8> {
    let described = names.map(|names| {
        let text =
            format!(r#"{{"info": {{"features": {{"image": {{"_type": "Image"}}, "label": {{"names": {names}}}}}}}}}"#);
        vec![KeyValue::new("huggingface".to_owned(), text)]
    });
    let properties = WriterProperties::builder().set_compression(compression).set_key_value_metadata(described).build();
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let mut out = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut out, schema, Arc::new(properties)).unwrap();
    for rows in groups {
        let mut group = writer.next_row_group().unwrap();
        let values: Vec<ByteArray> = rows.iter().filter_map(|(bytes, _)| bytes.clone().map(ByteArray::from)).collect();
        let levels: Vec<i16> = rows.iter().map(|(bytes, _)| if bytes.is_some() { 2 } else { 1 }).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        let paths: Vec<ByteArray> = rows.iter().map(|_| ByteArray::from("x.png")).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&paths, Some(&vec![2; rows.len()]), None).unwrap();
        column.close().unwrap();
        let labels: Vec<i64> = rows.iter().map(|(_, label)| *label).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&labels, Some(&vec![1; rows.len()]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    out
}

/// Row groups of two rows, pictures `first..first + 2 * n`.
fn groups(first: u32, n: u32, flavour: u64) -> Vec<Vec<Row>> {
    let row = |i: u32| (Some(png(i, flavour)), i64::from(i % 3));
    (0..n).map(|g| (0..2).map(|r| row(first + 2 * g + r)).collect()).collect()
}

fn set(root: &Path, flavour: u64) {
    let zstd = Compression::ZSTD(parquet::basic::ZstdLevel::default());
    let names = Some(r#"["dog", "cat", "ant"]"#);
    write(&root.join("data/train-00000-of-00002.parquet"), &parquet_bytes(&groups(0, 3, flavour), names, zstd));
    write(
        &root.join("data/train-00001-of-00002.parquet"),
        &parquet_bytes(&groups(6, 2, flavour), names, Compression::SNAPPY),
    );
    write(&root.join("data/test-00000-of-00001.parquet"), &parquet_bytes(&groups(20, 1, flavour), names, zstd));
}

fn open(root: &Path, split: Split, cache_mib: u64) -> ParquetSource {
    ParquetSource::open(root, split, OPTIONS, cache_mib).unwrap()
}

#[test]
fn pictures_labels_and_names_are_read_from_several_files() {
    let root = tempfile::tempdir().unwrap();
    set(root.path(), 0);
    assert_eq!(SourceKind::detect(root.path()).unwrap(), SourceKind::Parquet);
    let source = open(root.path(), Split::Train, 16);
    assert_eq!((source.len(), open(root.path(), Split::Test, 16).len()), (10, 2));
    // The order that Hugging Face has them in gives way to that of the bytes.
    assert_eq!(source.classes(), ["ant", "cat", "dog"]);
    for i in 0..10u32 {
        assert_eq!(source.image(i as usize).unwrap(), picture(i, 0));
        assert_eq!(source.label(i as usize), Some(2 - i % 3));
    }
    assert_eq!(source.name(7), "train-00001-of-00002.parquet/000001");
    assert!(source.path(7).ends_with("data/train-00001-of-00002.parquet/000001"));
}

#[test]
fn threads_and_the_cache_change_nothing() {
    let root = tempfile::tempdir().unwrap();
    set(root.path(), 0);
    for cache_mib in [0, 16] {
        let source = open(root.path(), Split::Train, cache_mib);
        thread::scope(|scope| {
            for offset in 0..4u32 {
                let source = &source;
                scope.spawn(move || {
                    let mut buffers = ReadBuffers::default();
                    for turn in 0..40 {
                        let i = (turn * 7 + offset) % 10;
                        assert_eq!(*source.read(i as usize, &mut buffers).unwrap(), picture(i, 0));
                    }
                });
            }
        });
    }
}

#[test]
fn the_fingerprint_is_that_of_the_contents() {
    let roots: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let fingerprints: Vec<_> = [0, 0, 1]
        .iter()
        .zip(&roots)
        .map(|(flavour, root)| {
            set(root.path(), *flavour);
            open(root.path(), Split::Train, 1).fingerprint()
        })
        .collect();
    assert_eq!(fingerprints[0], fingerprints[1]);
    assert_ne!(fingerprints[0], fingerprints[2]);
}

#[test]
fn a_row_without_bytes_is_a_bad_picture_and_a_label_of_minus_one_is_none() {
    let root = tempfile::tempdir().unwrap();
    let rows = vec![(Some(png(0, 0)), -1), (None, -1), (Some(b"no picture".to_vec()), -1), (Some(png(3, 0)), -1)];
    let file = write(&root.path().join("a.parquet"), &parquet_bytes(&[rows], None, Compression::UNCOMPRESSED));
    let source = open(&file, Split::Train, 1);
    assert!(source.classes().is_empty() && source.label(0).is_none());
    let mut buffers = ReadBuffers::default();
    let error = source.read(1, &mut buffers).unwrap_err();
    assert_eq!(error.path, file.join("000001"));
    assert!(matches!(error.problem, Problem::Missing(_)), "{error}");
    assert!(matches!(source.read(2, &mut buffers).unwrap_err().problem, Problem::Decode(_)));
    assert_eq!(*source.read(3, &mut buffers).unwrap(), picture(3, 0));
    assert_eq!(*source.read(0, &mut buffers).unwrap(), picture(0, 0));
}

#[test]
fn files_that_are_none_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let refused = |name: &str| ParquetSource::open(&at(name), Split::Train, OPTIONS, 1).unwrap_err();
    write(&at("a.parquet"), b"PAR1 this is none PAR1");
    assert!(matches!(refused("a.parquet"), ParquetError::Invalid { .. }));
    assert!(matches!(refused("b.parquet"), ParquetError::Unreadable { .. }));
    fs::create_dir(at("empty")).unwrap();
    assert!(matches!(refused("empty"), ParquetError::NoFiles { .. }));
    write(&at("c.parquet"), &parquet_bytes(&[], None, Compression::UNCOMPRESSED));
    assert!(matches!(refused("c.parquet"), ParquetError::Empty { .. }));
}

/// Pages of zeros, as any writer makes them, which tells what they unfold to.
#[test]
fn a_row_group_out_of_all_proportion_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let rows = |n: usize| vec![vec![(Some(vec![0; 10_000_000]), 0); n]];
    let zstd = Compression::ZSTD(parquet::basic::ZstdLevel::default());
    let file = write(&root.path().join("a.parquet"), &parquet_bytes(&rows(8), None, zstd));
    let error = ParquetSource::open(&file, Split::Train, OPTIONS, 1).unwrap_err();
    let ParquetError::Bomb { group: 0, promised, packed, allowed, .. } = error else { panic!("{error}") };
    assert!(promised > 80_000_000 && packed < 100_000 && allowed == (64 << 20) + 64 * packed);
    let file = write(&root.path().join("b.parquet"), &parquet_bytes(&rows(2), None, zstd));
    assert_eq!(ParquetSource::open(&file, Split::Train, OPTIONS, 1).unwrap().len(), 2);
}

#[test]
fn damage_is_an_error_and_nothing_worse() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("a.parquet");
    let bytes = parquet_bytes(&groups(0, 2, 0), None, Compression::SNAPPY);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(200)
    });
    let flips = prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..4);
    let cut = prop::option::weighted(0.2, any::<prop::sample::Index>());
    // The footer is the smallest part and the one that the reader believes.
    let from = prop_oneof![Just(0), Just(bytes.len() - 600)];
    runner
        .run(&(flips, cut, from), |(flips, cut, from)| {
            let mut damaged = bytes.clone();
            flips.iter().for_each(|(at, bits)| damaged[from + at.index(bytes.len() - from)] ^= bits);
            if let Some(cut) = cut {
                damaged.truncate(cut.index(bytes.len()));
            }
            fs::write(&file, damaged).unwrap();
            match ParquetSource::open(&file, Split::Train, OPTIONS, 1) {
                Ok(source) => (0..source.len().min(20)).for_each(|i| drop(source.image(i))),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
            Ok(())
        })
        .unwrap();
}
