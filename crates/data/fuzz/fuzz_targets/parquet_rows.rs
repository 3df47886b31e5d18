//! Hugging Face's parquet files: footer, pages and image columns.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use twoview_data::{ParquetSource, Split};

mod read_some;

fuzz_target!(|bytes: &[u8]| {
    let dir = read_some::folder();
    let path = dir.path().join("train-00000-of-00001.parquet");
    fs::write(&path, bytes).expect("a folder of ours");
    if let Ok(source) = ParquetSource::open(&path, Split::Train, read_some::OPTIONS, 16) {
        read_some::read_some(&source);
    }
});
