//! WebDataset shards: the index of a tar file, and the pictures it points at.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use twoview_data::{Split, TarSource};

mod read_some;

fuzz_target!(|bytes: &[u8]| {
    let dir = read_some::folder();
    let path = dir.path().join("000000.tar");
    fs::write(&path, bytes).expect("a folder of ours");
    if let Ok(source) = TarSource::open(&path, Split::Train, read_some::OPTIONS) {
        read_some::read_some(&source);
    }
});
