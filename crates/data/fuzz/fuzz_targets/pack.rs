//! twoview's own packs: header, index, names and pictures.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use twoview_data::PackSource;

mod read_some;

fuzz_target!(|bytes: &[u8]| {
    let dir = read_some::folder();
    let path = dir.path().join("set.pack");
    fs::write(&path, bytes).expect("a folder of ours");
    if let Ok(source) = PackSource::open(&path, read_some::OPTIONS) {
        read_some::read_some(&source);
    }
});
