//! Looks at every picture of a set, whatever it is kept in.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use twoview_pixels::Format;

use crate::duplicates::duplicate_groups;
use crate::perceptual_hash::Look;
use crate::scan_report::empty_classes;
use crate::{
    BadFile, ClassCount, DuplicateGroup, Fingerprint, ReadBuffers, SampleError, ScanReport, SizeRange, Source,
};

/// What is kept of a picture that can be used.
struct Seen {
    /// Of the file, or of sides and pixels where there is no file.
    hash: Fingerprint,
    bytes: u64,
    format: Option<Format>,
    width: u32,
    height: u32,
    look: Option<Look>,
}

/// Reads every picture of `source` once, and tells which cannot be used and which are duplicates: those that are the same
/// byte for byte, then those that look the same within `near_bits`. `root` and `fingerprint` are what the report calls it.
///
/// [`FolderSource::check`](crate::FolderSource::check) does it for folders, and says more about the files around them.
///
/// # Cost
/// One decoding of every picture, on all threads; about 1 KiB of memory for each, most of it what near duplicates are
/// found by.
pub fn check_source(
    source: &dyn Source,
    root: &Path,
    fingerprint: Fingerprint,
    near_bits: u32,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> (ScanReport, Vec<DuplicateGroup>) {
    let n = source.len();
    let n_done = AtomicUsize::new(0);
    let outcomes: Vec<Result<Seen, SampleError>> = (0..n)
        .into_par_iter()
        .map_init(ReadBuffers::default, |buffers, i| {
            let seen = look_at(source, i, buffers);
            progress(n_done.fetch_add(1, Ordering::Relaxed) + 1, n);
            seen
        })
        .collect();

    let (mut widths, mut heights, mut looks, mut bad_files) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut classes: Vec<ClassCount> =
        source.classes().iter().map(|name| ClassCount { name: name.clone(), pictures: 0 }).collect();
    let (mut formats, mut first_of, mut same_as) = (BTreeMap::new(), HashMap::new(), HashMap::new());
    let (mut unlabelled, mut total_bytes) = (0, 0);
    for (i, outcome) in (0u32..).zip(outcomes) {
        let seen = match outcome {
            Ok(seen) => seen,
            Err(error) => {
                bad_files.push(BadFile::from(&error));
                continue;
            }
        };
        match source.label(i as usize) {
            Some(label) => classes[label as usize].pictures += 1,
            None => unlabelled += 1,
        }
        let format = seen.format.map_or_else(|| "pixels".to_owned(), |format| format.to_string().to_lowercase());
        *formats.entry(format).or_insert(0) += 1;
        let first = *first_of.entry(seen.hash.to_le_bytes()).or_insert(i);
        if first != i {
            same_as.insert(i, first);
        }
        total_bytes += seen.bytes;
        widths.push(seen.width);
        heights.push(seen.height);
        looks.extend(seen.look.map(|look| (i, look)));
    }
    let groups = duplicate_groups(source, &same_as, &looks, near_bits);
    let report = ScanReport {
        root: root.to_owned(),
        pictures: n - bad_files.len(),
        labelled: !classes.is_empty(),
        headers_only: false,
        notes: empty_classes(&classes),
        classes,
        unlabelled,
        width: SizeRange::of(widths),
        height: SizeRange::of(heights),
        formats,
        bad_files,
        duplicates: same_as.len(),
        total_bytes,
        files_seen: n,
        hidden: 0,
        repeated: 0,
        passed_over: BTreeMap::new(),
        fingerprint,
    };
    (report, groups)
}

fn look_at(source: &dyn Source, i: usize, buffers: &mut ReadBuffers) -> Result<Seen, SampleError> {
    let file = if source.read_file(i, buffers)? {
        let bytes = buffers.bytes.as_slice();
        Some((Fingerprint::of(bytes), bytes.len() as u64, Format::of(bytes)))
    } else {
        None
    };
    let image = source.read(i, buffers)?;
    let (width, height) = (image.width(), image.height());
    let (hash, bytes, format) = file.unwrap_or_else(|| {
        let pixels = image.as_rgb8();
        (Fingerprint::of_parts([&width.to_le_bytes()[..], pixels]), pixels.len() as u64, None)
    });
    Ok(Seen { hash, bytes, format, width, height, look: Look::of(image) })
}
