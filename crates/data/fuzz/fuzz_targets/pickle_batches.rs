//! CIFAR's Python batches: a pickle reader that must never do anything but read.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use twoview_data::{CifarConfig, CifarLabels, CifarSource, Split};

mod read_some;

fuzz_target!(|bytes: &[u8]| {
    let dir = read_some::folder();
    for file in ["test_batch", "batches.meta", "data_batch_1"] {
        fs::write(dir.path().join(file), bytes).expect("a folder of ours");
    }
    let config = CifarConfig { split: Split::Test, labels: CifarLabels::Fine };
    if let Ok(source) = CifarSource::open(dir.path(), config) {
        read_some::read_some(&source);
    }
});
