//! What every target of the sources shares: a folder of its own, and a few pictures read out of what opened.
#![allow(dead_code, reason = "each target is a program of its own and needs some of it")]

use tempfile::TempDir;
use twoview_data::{ReadBuffers, Source};
use twoview_pixels::DecodeOptions;

/// Small, so that a bomb stands out.
pub(crate) const OPTIONS: DecodeOptions = DecodeOptions { max_file_bytes: 1 << 20, max_pixels: 1 << 16, exif_rotate: false };

/// Best in memory: `TMPDIR=/dev/shm cargo fuzz run ...`.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a place for temporary files")
}

/// Whatever opened answers for each of its pictures, with one or with an error.
pub(crate) fn read_some(source: &dyn Source) {
    let mut buffers = ReadBuffers::default();
    for i in (0..source.len()).take(8) {
        if let Err(error) = source.read(i, &mut buffers) {
            assert!(!error.to_string().is_empty());
        }
        let _ = source.label(i);
    }
}
