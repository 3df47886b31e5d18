//! How long a large folder takes to open and what its manifest weighs.
//!
//! ```text
//! cargo bench -p twoview-data --bench scan -- 1000000 [FOLDER]
//! ```
//!
//! Makes that many different PNG files of 8x8 pixels, a thousand to a class folder, below FOLDER (else the folder for
//! temporary files), opens them and removes them again. They need a block and an inode each: `df -i` first.
//!
//! # Measured
//! A million files on 2 cores of an AMD EPYC (family 25, AVX2), nothing else running, ext4, development profile:
//!
//! | scan | until the first picture | files/s | manifest | resident at most |
//! |---|---|---|---|---|
//! | headers, first opening after the files were made | 24 s | 41,577 | 69 bytes a file | 245 MiB |
//! | headers, again | 19 s | 51,795 | 69 bytes a file | 245 MiB |
//! | complete | 28 s | 35,693 | 69 bytes a file | 245 MiB |
//!
//! Of the 69 bytes 29 are the path. A cache adds 16. Decoding 8x8 pixels costs next to nothing, so these files show
//! what walking, opening and reading cost; with photographs the complete scan adds their decoding.

#![allow(clippy::print_stdout, reason = "a measurement is there to be read")]
#![allow(clippy::unwrap_used, reason = "a measurement that cannot set itself up may panic")]

use std::fs;
use std::path::Path;
use std::time::Instant;

use twoview_data::{FolderConfig, FolderSource, OnBad, ReadBuffers, Source as _};
use twoview_pixels::{DecodeOptions, Image, encode_png};

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let n_files: u32 = args.next().map_or(10_000, |n| n.parse().unwrap());
    let place = args.next().map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::TempDir::new_in(place).unwrap();
    let begun = Instant::now();
    make_files(folder.path(), n_files);
    println!("made {n_files} files in {:.1} s", begun.elapsed().as_secs_f64());

    for (what, full_scan_files) in [("headers", 0), ("headers again", 0), ("complete", usize::MAX)] {
        let config = FolderConfig {
            decode: DecodeOptions::STANDARD,
            cache_mib: 0,
            full_scan_files,
            on_bad: OnBad::Skip,
            max_bad_fraction: 0.0,
        };
        let begun = Instant::now();
        let source = FolderSource::open(folder.path(), &config, &|_, _| ()).unwrap();
        let seconds = begun.elapsed().as_secs_f64();
        assert_eq!((source.len(), source.report().duplicates), (n_files as usize, 0));
        source.read(source.len() / 2, &mut ReadBuffers::default()).unwrap();
        println!(
            "{what}: open after {seconds:.2} s, {:.0} files/s; manifest {:.1} bytes a file; resident at most {} MiB",
            f64::from(n_files) / seconds,
            source.manifest_bytes() as f64 / f64::from(n_files),
            peak_mib()
        );
    }
}

/// Files that all differ: each holds its number as pixels.
fn make_files(folder: &Path, n_files: u32) {
    for i in 0..n_files {
        let class = folder.join(format!("class_{:04}", i / 1000));
        if i % 1000 == 0 {
            fs::create_dir(&class).unwrap();
        }
        let mut pixels = vec![90; 8 * 8 * 3];
        pixels[..4].copy_from_slice(&i.to_le_bytes());
        let image = Image::from_rgb8(8, 8, pixels).unwrap();
        fs::write(class.join(format!("image_{i:08}.png")), encode_png(&image).unwrap()).unwrap();
    }
}

/// The most memory this program has had, where Linux tells.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) / 1024
}
