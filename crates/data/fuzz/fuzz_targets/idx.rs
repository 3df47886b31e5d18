//! MNIST's IDX files: headers, pictures and labels.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use twoview_data::{IdxSource, Split};

mod read_some;

// One byte says whether the files are called compressed, the next two where the pictures end and the labels begin.
fuzz_target!(|input: (bool, u16, &[u8])| {
    let (is_compressed, n_pictures, bytes) = input;
    let dir = read_some::folder();
    let (pictures, labels) = bytes.split_at(usize::from(n_pictures).min(bytes.len()));
    let ending = if is_compressed { ".gz" } else { "" };
    fs::write(dir.path().join(format!("train-images-idx3-ubyte{ending}")), pictures).expect("a folder of ours");
    fs::write(dir.path().join(format!("train-labels-idx1-ubyte{ending}")), labels).expect("a folder of ours");
    if let Ok(source) = IdxSource::open(dir.path(), Split::Train) {
        read_some::read_some(&source);
    }
});
