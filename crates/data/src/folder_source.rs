//! A folder of image files as a source of pictures.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use twoview_pixels::{DecodeError, DecodeLimits, Format, Image, decode, decode_into, read_header};

use crate::escaped_path::{escape_relative, sort_key};
use crate::folder_listing::{EXTENSIONS, Listing, list_folder};
use crate::source::{Problem, ReadBuffers, SampleError, Source};
use crate::{BadFile, ClassCount, Fingerprint, ScanReport, SizeRange, escape_path};

/// Folder names that are parts of a data set rather than classes.
const PARTS: [&str; 8] = ["test", "testing", "train", "training", "unlabeled", "val", "valid", "validation"];

/// How a folder is read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderConfig {
    /// Largest file and largest picture that are decoded; anything beyond is a bad file.
    #[serde(with = "LimitsFields")]
    pub limits: DecodeLimits,
    /// Memory for decoded pixels in MiB. Pictures that fit are kept from the scan and never decoded again.
    pub cache_mib: u64,
    /// Opening fails when a larger part of the candidates than this is bad, from 0 (none may be) to 1 (all but one may).
    pub max_bad_fraction: f64,
}

/// The fields of [`DecodeLimits`] as they stand in a config.
#[derive(Serialize, Deserialize)]
#[serde(remote = "DecodeLimits", deny_unknown_fields)]
struct LimitsFields {
    max_file_bytes: u64,
    max_pixels: u64,
}

/// Pictures below one folder, every one of them decoded once before the first is handed out.
///
/// # Which files
/// Regular files whose extension is one of jpg, jpeg, png, bmp, webp, gif, tif, tiff, ppm and pgm in any case, at
/// any depth. The extension selects, the content decides the format. Files and folders whose name starts with a dot
/// are passed over. Links are followed, and a file that is reached twice counts once: under its own name if that lies
/// below the root, else where a walk in byte order meets it first. A link that leads back to the root or above it is not
/// entered.
///
/// # Labels
/// The first folder below the root is the class when
/// - no usable picture lies directly in the root, and
/// - candidates lie below at least two different folders of the root.
///
/// Otherwise the whole set is unlabelled: a single sub-folder is a place to keep pictures, and one class says nothing.
/// Classes are all first folders that hold a candidate, byte-wise sorted. A class keeps its number when its
/// files turn bad.
///
/// # Order
/// Pictures are numbered by the bytes of their path below the root, with `/` between its components. The order in which
/// the operating system lists a folder has no influence.
///
/// # Bad files
/// A file that cannot be read or decoded is left out before the pictures are numbered, and named in
/// [`report`](Self::report). A picture that passed the scan and whose file later vanishes or holds other bytes is an
/// error of [`image`](Source::image).
///
/// # Cost
/// Opening reads and decodes every candidate once, on all threads of rayon's pool. Beyond the cache every call of
/// [`image`](Source::image) reads, hashes and decodes the file again.
#[derive(Debug)]
pub struct FolderSource {
    root: PathBuf,
    limits: DecodeLimits,
    pictures: Vec<Picture>,
    classes: Vec<String>,
    report: ScanReport,
}

#[derive(Debug)]
struct Picture {
    relative: PathBuf,
    label: Option<u32>,
    bytes: u64,
    content: Fingerprint,
    pixels: Option<Image>,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// There is nothing at this path.
    #[error("no such folder: {}", escape_path(root))]
    Missing {
        /// The path as given.
        root: PathBuf,
    },
    /// The path leads to a file.
    #[error("expected a folder of pictures, got a file: {}", escape_path(root))]
    NotAFolder {
        /// The path as given.
        root: PathBuf,
    },
    /// The operating system does not let us look.
    #[error("folder {} cannot be read: {reason}", escape_path(root))]
    Unreadable {
        /// The path as given.
        root: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// No file has the extension of a picture.
    #[error(
        "no pictures in {}: {files_seen} files seen{seen}; expected files named .{}",
        escape_path(root), EXTENSIONS.join(", .")
    )]
    NoCandidates {
        /// The path as given.
        root: PathBuf,
        /// How many regular files there are.
        files_seen: usize,
        /// Which extensions they have and what the first five are called, ready to follow a number of files.
        seen: String,
    },
    /// Every candidate is bad.
    #[error("none of the {} pictures in {} can be used{}", bad_files.len(), escape_path(root), first_of(bad_files))]
    NoGoodPicture {
        /// The path as given.
        root: PathBuf,
        /// All candidates with their reasons.
        bad_files: Vec<BadFile>,
    },
    /// More candidates are bad than allowed.
    #[error(
        "{} of {candidates} pictures in {} cannot be used, more than max_bad_fraction = {allowed} allows{}",
        bad_files.len(), escape_path(root), first_of(bad_files)
    )]
    TooManyBad {
        /// The path as given.
        root: PathBuf,
        /// Files that should have been pictures.
        candidates: usize,
        /// The configured fraction.
        allowed: f64,
        /// The bad ones with their reasons.
        bad_files: Vec<BadFile>,
    },
    /// The configured fraction is no fraction.
    #[error("max_bad_fraction must be from 0 to 1, got {got}")]
    BadFraction {
        /// What was configured.
        got: f64,
    },
}

impl FolderSource {
    /// Walks `root`, decodes every candidate once and keeps what is good.
    ///
    /// `progress` is told how many candidates are done and how many there are, from any thread and not always in
    /// ascending order.
    ///
    /// # Errors
    /// See [`FolderError`]: the folder is missing, is no folder, holds no candidate, no good one, or too many bad ones.
    pub fn open(
        root: &Path,
        config: &FolderConfig,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Self, FolderError> {
        if !(0.0..=1.0).contains(&config.max_bad_fraction) {
            return Err(FolderError::BadFraction { got: config.max_bad_fraction });
        }
        require_folder(root)?;
        let listing = list_folder(root);
        if listing.candidates.is_empty() && listing.unusable.is_empty() {
            let root = root.to_owned();
            return Err(FolderError::NoCandidates { root, files_seen: listing.n_files, seen: what_was_seen(&listing) });
        }

        let scanned = scan_all(root, &listing.candidates, config, progress);
        let mut good = Vec::with_capacity(scanned.len());
        let mut bad: Vec<(PathBuf, BadFile)> =
            listing.unusable.iter().map(|(relative, error)| (relative.clone(), error.into())).collect();
        for (candidate, outcome) in listing.candidates.iter().zip(scanned) {
            match outcome {
                Ok(scan) => good.push((candidate, scan)),
                Err(error) => bad.push((candidate.clone(), (&error).into())),
            }
        }
        bad.sort_by_cached_key(|(relative, _)| sort_key(relative));
        let bad_files: Vec<BadFile> = bad.into_iter().map(|(_, file)| file).collect();
        check_fraction(root, good.len(), &bad_files, config.max_bad_fraction)?;

        let classes = Classes::of(&listing.candidates, good.iter().map(|(candidate, _)| *candidate));
        let report = write_report(root, &listing, &good, bad_files, &classes);
        let pictures = good
            .into_iter()
            .map(|(candidate, scan)| Picture {
                label: classes.label(candidate),
                relative: candidate.clone(),
                bytes: scan.bytes,
                content: scan.content,
                pixels: scan.pixels,
            })
            .collect();
        Ok(Self { root: root.to_owned(), limits: config.limits, pictures, classes: classes.names(), report })
    }

    /// What the scan found, with every file that was left out.
    pub fn report(&self) -> &ScanReport {
        &self.report
    }

    /// A name for this set of pictures that changes with any path or size in it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.report.fingerprint
    }

    /// How many pictures have their pixels in memory.
    ///
    /// When not all of them fit, which ones are kept depends on the order in which threads finished; what
    /// [`image`](Source::image) answers does not.
    pub fn n_cached(&self) -> usize {
        self.pictures.iter().filter(|picture| picture.pixels.is_some()).count()
    }
}

impl Source for FolderSource {
    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.pictures[i].label
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        escape_relative(&self.pictures[i].relative).into()
    }

    fn path(&self, i: usize) -> PathBuf {
        self.root.join(&self.pictures[i].relative)
    }

    fn read<'a>(&'a self, i: usize, buffers: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
        let picture = &self.pictures[i];
        if let Some(pixels) = &picture.pixels {
            return Ok(pixels);
        }
        self.read_file(i, buffers)?;
        let ReadBuffers { bytes, image } = buffers;
        decode_into(bytes, &self.limits, image)
            .map_err(|error| SampleError { path: self.path(i), problem: Problem::Decode(error) })?;
        Ok(image)
    }

    fn read_file(&self, i: usize, buffers: &mut ReadBuffers) -> Result<bool, SampleError> {
        let picture = &self.pictures[i];
        let path = self.path(i);
        let bytes = &mut buffers.bytes;
        let read = read_file(&path, &self.limits, bytes).and_then(|()| {
            let is_same = Fingerprint::of(bytes) == picture.content;
            let found_bytes = bytes.len() as u64;
            is_same.then_some(true).ok_or(Problem::Changed { scanned_bytes: picture.bytes, found_bytes })
        });
        read.map_err(|problem| SampleError { path, problem })
    }
}

fn require_folder(root: &Path) -> Result<(), FolderError> {
    let owned = || root.to_owned();
    match fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => match fs::read_dir(root) {
            Ok(_) => Ok(()),
            Err(reason) => Err(FolderError::Unreadable { root: owned(), reason }),
        },
        Ok(_) => Err(FolderError::NotAFolder { root: owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(FolderError::Missing { root: owned() }),
        Err(reason) => Err(FolderError::Unreadable { root: owned(), reason }),
    }
}

fn check_fraction(root: &Path, n_good: usize, bad_files: &[BadFile], allowed: f64) -> Result<(), FolderError> {
    let candidates = n_good + bad_files.len();
    let root = || root.to_owned();
    if n_good == 0 {
        return Err(FolderError::NoGoodPicture { root: root(), bad_files: bad_files.to_vec() });
    }
    if bad_files.len() as f64 > allowed * candidates as f64 {
        return Err(FolderError::TooManyBad { root: root(), candidates, allowed, bad_files: bad_files.to_vec() });
    }
    Ok(())
}

/// What one decoding of a candidate told.
struct Scan {
    width: u32,
    height: u32,
    format: Format,
    bytes: u64,
    content: Fingerprint,
    pixels: Option<Image>,
}

fn scan_all(
    root: &Path,
    candidates: &[PathBuf],
    config: &FolderConfig,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Vec<Result<Scan, SampleError>> {
    let n_done = AtomicUsize::new(0);
    let free_bytes = AtomicU64::new(config.cache_mib.saturating_mul(1 << 20));
    let scan = |candidate: &PathBuf| {
        let path = root.join(candidate);
        let outcome = scan_one(&path, &config.limits, &free_bytes).map_err(|problem| SampleError { path, problem });
        progress(n_done.fetch_add(1, Ordering::Relaxed) + 1, candidates.len());
        outcome
    };
    candidates.par_iter().map(scan).collect()
}

fn scan_one(path: &Path, limits: &DecodeLimits, free_bytes: &AtomicU64) -> Result<Scan, Problem> {
    let mut bytes = Vec::new();
    read_file(path, limits, &mut bytes)?;
    let header = read_header(&bytes, limits).map_err(Problem::Decode)?;
    let image = decode(&bytes, limits).map_err(Problem::Decode)?;
    let needed = image.as_rgb8().len() as u64;
    let fits = free_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(needed)).is_ok();
    Ok(Scan {
        width: image.width(),
        height: image.height(),
        format: header.format,
        bytes: bytes.len() as u64,
        content: Fingerprint::of(&bytes),
        pixels: fits.then_some(image),
    })
}

/// Reads a whole file and never more than the limit, even when the file grows meanwhile.
fn read_file(path: &Path, limits: &DecodeLimits, bytes: &mut Vec<u8>) -> Result<(), Problem> {
    let max_file_bytes = limits.max_file_bytes;
    let file = File::open(path).map_err(Problem::Read)?;
    let size = file.metadata().map_err(Problem::Read)?.len();
    if size > max_file_bytes {
        return Err(Problem::Decode(DecodeError::FileTooLarge { bytes: size, max_file_bytes }));
    }
    // One byte more than allowed is enough for the decoder to refuse a file that has grown since.
    bytes.clear();
    file.take(max_file_bytes.saturating_add(1)).read_to_end(bytes).map_err(Problem::Read)?;
    Ok(())
}

/// Class folders by the bytes of their names; none when the pictures are unlabelled.
struct Classes {
    by_name: BTreeMap<Vec<u8>, (u32, String)>,
}

impl Classes {
    fn of<'a>(candidates: &[PathBuf], mut good: impl Iterator<Item = &'a PathBuf>) -> Self {
        let folders = first_folders(candidates);
        if good.any(|candidate| first_folder(candidate).is_none()) || folders.len() < 2 {
            return Self { by_name: BTreeMap::new() };
        }
        let numbered = (0u32..).zip(folders).map(|(label, (key, name))| (key, (label, name)));
        Self { by_name: numbered.collect() }
    }

    fn label(&self, relative: &Path) -> Option<u32> {
        let folder = first_folder(relative)?;
        self.by_name.get(folder.as_os_str().as_encoded_bytes()).map(|(label, _)| *label)
    }

    fn names(&self) -> Vec<String> {
        self.by_name.values().map(|(_, name)| name.clone()).collect()
    }
}

/// The first component of a path below the root, if a file name follows it.
fn first_folder(relative: &Path) -> Option<Component<'_>> {
    let mut components = relative.components();
    let first = components.next()?;
    components.next().map(|_| first)
}

fn first_folders(candidates: &[PathBuf]) -> BTreeMap<Vec<u8>, String> {
    let folders = candidates.iter().filter_map(|candidate| first_folder(candidate));
    folders.map(|folder| (folder.as_os_str().as_encoded_bytes().to_vec(), escape_path(folder.as_ref()))).collect()
}

fn write_report(
    root: &Path,
    listing: &Listing,
    good: &[(&PathBuf, Scan)],
    bad_files: Vec<BadFile>,
    classes: &Classes,
) -> ScanReport {
    let labelled = !classes.by_name.is_empty();
    let mut counts: Vec<ClassCount> =
        classes.names().into_iter().map(|name| ClassCount { name, pictures: 0 }).collect();
    let mut formats = BTreeMap::new();
    let mut contents = HashSet::new();
    let mut identity = Vec::new();
    for (candidate, scan) in good {
        if let Some(label) = classes.label(candidate) {
            counts[label as usize].pictures += 1;
        }
        *formats.entry(format_name(scan.format)).or_default() += 1;
        contents.insert((scan.content, scan.bytes));
        // Lengths first, so that no path can run into the size behind it.
        let key = sort_key(candidate);
        identity.extend((key.len() as u64).to_le_bytes());
        identity.extend(key);
        identity.extend(scan.bytes.to_le_bytes());
        identity.extend(scan.content.to_le_bytes());
    }
    ScanReport {
        root: root.to_owned(),
        pictures: good.len(),
        labelled,
        notes: notes(listing, good, &counts),
        classes: counts,
        unlabelled: if labelled { 0 } else { good.len() },
        width: SizeRange::of(good.iter().map(|(_, scan)| scan.width).collect()),
        height: SizeRange::of(good.iter().map(|(_, scan)| scan.height).collect()),
        formats,
        bad_files,
        duplicates: good.len() - contents.len(),
        total_bytes: good.iter().map(|(_, scan)| scan.bytes).sum(),
        files_seen: listing.n_files,
        hidden: listing.n_hidden,
        repeated: listing.n_repeated,
        fingerprint: Fingerprint::of(&identity),
    }
}

fn format_name(format: Format) -> String {
    format.to_string().to_lowercase()
}

fn notes(listing: &Listing, good: &[(&PathBuf, Scan)], counts: &[ClassCount]) -> Vec<String> {
    let mut notes = Vec::new();
    if counts.is_empty() {
        let n_in_root = good.iter().filter(|(candidate, _)| first_folder(candidate).is_none()).count();
        let folders = first_folders(&listing.candidates);
        if n_in_root > 0 && !folders.is_empty() {
            notes.push(format!(
                "pictures lie directly in the folder ({n_in_root}), so its sub-folders are not read as classes"
            ));
        } else if let (1, Some(only)) = (folders.len(), folders.values().next()) {
            notes.push(format!("all pictures lie in the one folder `{only}`, so they are read as unlabelled"));
        }
        return notes;
    }
    let with_candidates = first_folders(&listing.candidates);
    for folder in &listing.top_folders {
        if !with_candidates.contains_key(folder.as_os_str().as_encoded_bytes()) {
            notes.push(format!("folder `{}` holds no pictures and is no class", escape_path(folder)));
        }
    }
    for count in counts.iter().filter(|count| count.pictures == 0) {
        notes.push(format!("class `{}` has no usable picture", count.name));
    }
    if counts.iter().all(|count| PARTS.contains(&count.name.to_lowercase().as_str())) {
        let names: Vec<&str> = counts.iter().map(|count| count.name.as_str()).collect();
        notes.push(format!(
            "the classes are named like parts of a data set ({}): did you mean one of them?",
            names.join(", ")
        ));
    }
    notes
}

/// ", .txt (10), without extension (2); first: a.txt, b.txt" for the message about a folder without pictures.
fn what_was_seen(listing: &Listing) -> String {
    let mut text = String::new();
    if listing.n_hidden > 0 {
        text += &format!(" besides {} hidden", listing.n_hidden);
    }
    for (i, (extension, count)) in listing.extensions.iter().enumerate() {
        text += if i == 0 { ": " } else { ", " };
        text += &match extension.as_str() {
            "" => format!("without extension ({count})"),
            known => format!(".{} ({count})", known.escape_debug()),
        };
    }
    if !listing.passed_over.is_empty() {
        text += &format!("; first: {}", listing.passed_over.join(", "));
    }
    text
}

/// The first three bad files as the tail of a message.
fn first_of(bad_files: &[BadFile]) -> String {
    let mut text = String::new();
    for (i, file) in bad_files.iter().take(3).enumerate() {
        text += if i == 0 { ": " } else { "; " };
        text += &format!("{}: {}", escape_path(&file.path), file.reason);
    }
    if bad_files.len() > 3 {
        text += &format!("; and {} more", bad_files.len() - 3);
    }
    text
}
