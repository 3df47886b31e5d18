//! Files of pictures as a source: folders, lists of files, tables of labels.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use twoview_pixels::{DecodeError, DecodeOptions, Format, Header, Image, decode, decode_into, read_header};

use crate::duplicates::{DuplicateGroup, duplicate_groups};
use crate::escaped_path::{escape_relative, sort_key};
use crate::file_table::FileTable;
use crate::folder_listing::{EXTENSIONS, Listing, counted_extensions, has_picture_extension};
use crate::label_table::{LabelTable, TableError, spellings};
use crate::perceptual_hash::Look;
use crate::picture_files::{Gathered, PictureFiles};
use crate::scan_report::empty_classes;
use crate::source::{Problem, ReadBuffers, SampleError, Source, group_by_first};
use crate::{BadFile, ClassCount, Fingerprint, ScanReport, SizeRange, escape_path};

/// Folder names that are parts of a data set rather than classes.
const PARTS: [&str; 8] = ["test", "testing", "train", "training", "unlabeled", "val", "valid", "validation"];

/// How a folder is read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderConfig {
    /// Largest file and largest picture that are decoded; anything beyond is a bad file.
    #[serde(with = "DecodeFields")]
    pub decode: DecodeOptions,
    /// Memory for decoded pixels in MiB. Pictures that fit are kept once they have been decoded.
    pub cache_mib: u64,
    /// Up to this many files, each is read and decoded completely when the folder is opened. Of more files only the
    /// beginning of each is read and nothing is decoded; see [`FolderSource`] for what that gives up.
    pub full_scan_files: usize,
    /// What happens when a file cannot be used.
    pub on_bad: OnBad,
    /// Opening fails when a larger part of the candidates than this is bad, from 0 (none may be) to 1 (all but one may).
    pub max_bad_fraction: f64,
}

/// What to do about a file that should be a picture and cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnBad {
    /// Leave it out and name it, up to the share that is allowed.
    Skip,
    /// Stop at the first one that is found.
    Fail,
}

/// The fields of [`DecodeOptions`] as they stand in a config.
#[derive(Serialize, Deserialize)]
#[serde(remote = "DecodeOptions", deny_unknown_fields)]
struct DecodeFields {
    max_file_bytes: u64,
    max_pixels: u64,
    exif_rotate: bool,
}

/// Pictures in files: those below one or several folders, or those that a list names.
///
/// # Which files
/// Below a folder, regular files whose extension is one of jpg, jpeg, jpe, jfif, png, bmp, webp, gif, tif, tiff, ppm, pgm,
/// pbm and pnm in any case, at any depth. The extension selects, the content decides the format. Other files are counted by
/// their extensions. Files and folders whose name starts with a dot are passed over. Links are followed, and a file that is reached twice counts once: under its own name if that
/// lies below the root, else where a walk in byte order meets it first. A link that leads back to the root or above it
/// is not entered. For lists and tables see [`PictureFiles`].
///
/// # Labels
/// Without a table of labels, the first folder below the root is the class when
/// - no usable picture lies directly in a root, and
/// - candidates lie below at least two different first folders.
///
/// Otherwise the whole set is unlabelled: a single sub-folder is a place to keep pictures, and one class says nothing.
/// Classes are all first folders that hold a candidate, byte-wise sorted; those of several roots with the same name are
/// one. A class keeps its number when its files turn bad.
///
/// # Order
/// Pictures are numbered by root, then by the bytes of their path below it, with `/` between its components; those of a
/// list as they stand there. The order in which the operating system lists a folder has no influence.
///
/// # Two depths of the scan
/// Up to [`FolderConfig::full_scan_files`] candidates, the scan decodes every file completely. Of more it reads the first
/// 16 KiB of each, which is where the header is, and little more where it is not. What differs then:
/// - A file that is broken behind its header is found when it is first shown, and replaced and counted then.
/// - [`fingerprint`](Self::fingerprint) covers path, size and the first 16 KiB instead of all bytes, so an edit that
///   changes neither is not seen. Times are not part of it: a copied folder is the same data.
/// - A picture has changed since the scan when its size, its time of modification or its first 16 KiB have; after a
///   complete scan, when any byte has.
///
/// Files with the same bytes are known in both: where size and beginning agree, the whole files are compared.
///
/// # Bad files
/// A file that cannot be read or decoded is left out before the pictures are numbered, and named in
/// [`report`](Self::report). A picture that passed the scan and whose file later vanishes or holds other bytes is an
/// error of [`image`](Source::image).
///
/// # Cost
/// Opening works on all threads of rayon's pool. It keeps 40 bytes and the path for each picture, and 16 bytes where
/// there is a cache. Beyond the cache every call of [`image`](Source::image) reads, checks and decodes the file again.
#[derive(Debug)]
pub struct FolderSource {
    roots: Vec<PathBuf>,
    decode: DecodeOptions,
    files: FileTable,
    headers_only: bool,
    /// Pixels by number; empty without a cache.
    pixels: Vec<OnceLock<Box<Image>>>,
    /// What is left of the cache in bytes.
    free_bytes: AtomicU64,
    /// The first picture with the same bytes, for those that have one before them.
    same_as: HashMap<u32, u32>,
    classes: Vec<String>,
    report: ScanReport,
}

/// How much of a file a scan by headers reads.
const HEAD_BYTES: u64 = 16 << 10;

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
        "{} of {candidates} pictures in {} cannot be used{}, more than max_bad_fraction = {allowed} allows{}",
        bad_files.len(), escape_path(root), rows_among(*n_rows), first_of(bad_files)
    )]
    TooManyBad {
        /// The path as given.
        root: PathBuf,
        /// Files that should have been pictures.
        candidates: usize,
        /// The configured fraction.
        allowed: f64,
        /// How many of the bad ones are rows in the table of labels that fit none of the pictures.
        n_rows: usize,
        /// The bad ones with their reasons.
        bad_files: Vec<BadFile>,
    },
    /// A file is bad, and none may be.
    #[error("{}: {} (on_bad = \"fail\")", escape_path(&file.path), file.reason)]
    Bad {
        /// One that was found; there may be more.
        file: BadFile,
    },
    /// A list of files or a table of labels cannot be used.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Both folders and a list are given, or neither.
    #[error("expected either folders of pictures or a list of files, got {n_roots} folders and {n_lists} lists")]
    Sources {
        /// How many folders.
        n_roots: usize,
        /// How many lists, the table of labels among them where there is nothing else.
        n_lists: usize,
    },
    /// The configured fraction is no fraction.
    #[error("max_bad_fraction must be from 0 to 1, got {got}")]
    BadFraction {
        /// What was configured.
        got: f64,
    },
}

impl FolderSource {
    /// Opens everything below one folder; see [`open_files`](Self::open_files).
    ///
    /// # Errors
    /// See [`FolderError`]: the folder is missing, is no folder, holds no candidate, no good one, or too many bad ones.
    pub fn open(
        root: &Path,
        config: &FolderConfig,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Self, FolderError> {
        Self::open_files(&PictureFiles::below(root), config, progress)
    }

    /// Finds the files, scans every candidate once and keeps what is good.
    ///
    /// `progress` is told how many candidates are done and how many there are, from any thread and not always in
    /// ascending order.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn open_files(
        files: &PictureFiles,
        config: &FolderConfig,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Self, FolderError> {
        Ok(Self::scan(files, config, false, progress)?.0)
    }

    /// Opens as [`open_files`](Self::open_files) does, but decodes everything however many files there are, and tells
    /// which pictures are duplicates: those with the same bytes, then those that look the same within `near_bits`.
    /// However many files are bad, even all of them, they are in the report and not an error.
    ///
    /// Pictures without structure, such as one colour all over, look like nothing and are only compared by their bytes.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn check(
        files: &PictureFiles,
        config: &FolderConfig,
        near_bits: u32,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<(Self, Vec<DuplicateGroup>), FolderError> {
        let config = FolderConfig { full_scan_files: usize::MAX, ..*config };
        let (source, looks) = Self::scan(files, &config, true, progress)?;
        let groups = duplicate_groups(&source, &source.same_as, &looks, near_bits);
        Ok((source, groups))
    }

    fn scan(
        files: &PictureFiles,
        config: &FolderConfig,
        is_check: bool,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<(Self, Vec<(u32, Look)>), FolderError> {
        if !(0.0..=1.0).contains(&config.max_bad_fraction) {
            return Err(FolderError::BadFraction { got: config.max_bad_fraction });
        }
        let n_lists = usize::from(files.list.is_some() || (files.roots.is_empty() && files.labels.is_some()));
        if (n_lists == 1) != files.roots.is_empty() {
            return Err(FolderError::Sources { n_roots: files.roots.len(), n_lists });
        }
        files.roots.iter().try_for_each(|root| require_folder(root))?;
        let place = files.place();
        let Gathered { roots, candidates, unusable, listing, labels } = files.gather()?;
        if candidates.is_empty() && unusable.is_empty() {
            let (files_seen, seen) = (listing.n_files, what_was_seen(&listing));
            return Err(FolderError::NoCandidates { root: place, files_seen, seen });
        }
        if let (OnBad::Fail, Some((.., error))) = (config.on_bad, unusable.first()) {
            return Err(FolderError::Bad { file: error.into() });
        }

        let headers_only = candidates.len() > config.full_scan_files;
        let scanner = Scanner {
            roots: &roots,
            decode: config.decode,
            headers_only,
            with_looks: is_check,
            free_bytes: AtomicU64::new(config.cache_mib.saturating_mul(1 << 20)),
            n_done: AtomicUsize::new(0),
        };
        let scanned = scanner.scan_all(&candidates, config.on_bad, progress)?;
        let mut good = Vec::with_capacity(scanned.len());
        let mut bad: Vec<(u32, PathBuf, BadFile)> =
            unusable.into_iter().map(|(root, relative, error)| (root, relative, (&error).into())).collect();
        for ((root, relative), outcome) in candidates.iter().zip(scanned) {
            match outcome {
                Ok(scan) => good.push(Good { root: *root, relative, label: None, scan }),
                Err(error) => bad.push((*root, relative.clone(), (&*error).into())),
            }
        }
        let (mut remarks, n_unusable) = (Vec::new(), bad.len());
        let classes = match &labels {
            Some(table) => label_by_table(table, files, &roots, &candidates, &mut good, &mut bad, &mut remarks),
            None => label_by_folder(&candidates, &mut good),
        };
        let n_rows = bad.len() - n_unusable;
        if let (OnBad::Fail, Some((.., file))) = (config.on_bad, bad.first()) {
            return Err(FolderError::Bad { file: file.clone() });
        }
        bad.sort_by_cached_key(|(root, relative, _)| (*root, sort_key(relative)));
        let bad_files: Vec<BadFile> = bad.into_iter().map(|(.., file)| file).collect();
        if !is_check {
            check_fraction(&place, good.len(), &bad_files, n_rows, config.max_bad_fraction)?;
        }

        let same_as = same_as(&roots, &good, &scanner);
        let facts = Facts { place, listing: &listing, headers_only, by_table: labels.is_some(), remarks };
        let report = write_report(facts, &candidates, &good, bad_files, &classes, same_as.len());
        let path_bytes = good.iter().map(|good| good.relative.as_os_str().len()).sum();
        let mut table = FileTable::with_capacity(good.len(), path_bytes);
        let mut pixels = Vec::with_capacity(if config.cache_mib == 0 { 0 } else { good.len() });
        let mut looks = Vec::new();
        for (i, Good { root, relative, label, scan }) in (0..).zip(good) {
            table.push(root, relative, label, scan.bytes, scan.seal);
            looks.extend(scan.look.map(|look| (i, *look)));
            if config.cache_mib > 0 {
                pixels.push(scan.pixels.map(OnceLock::from).unwrap_or_default());
            }
        }
        let free_bytes = scanner.free_bytes;
        let decode = config.decode;
        let source = Self { roots, decode, files: table, headers_only, pixels, free_bytes, same_as, classes, report };
        Ok((source, looks))
    }

    /// What the scan found, with every file that was left out.
    pub fn report(&self) -> &ScanReport {
        &self.report
    }

    /// A name for this set of pictures: it changes with any path in it, and with the content as far as the scan went.
    pub fn fingerprint(&self) -> Fingerprint {
        self.report.fingerprint
    }

    /// How many pictures have their pixels in memory.
    ///
    /// When not all of them fit, which ones are kept depends on the order in which threads finished; what
    /// [`image`](Source::image) answers does not.
    pub fn n_cached(&self) -> usize {
        self.pixels.iter().filter(|pixels| pixels.get().is_some()).count()
    }

    /// Memory for what is known about the files, in bytes: paths, sizes, classes, seals and duplicates, not pixels.
    pub fn manifest_bytes(&self) -> usize {
        self.files.memory()
            + self.pixels.capacity() * size_of::<OnceLock<Box<Image>>>()
            + self.same_as.capacity() * size_of::<(u32, u32)>()
    }

    /// Keeps the pixels of picture `i` if there is room.
    fn keep(&self, i: usize, image: &Image) {
        let Some(place) = self.pixels.get(i) else { return };
        let needed = image.as_rgb8().len() as u64;
        if take(&self.free_bytes, needed) && place.set(Box::new(image.clone())).is_err() {
            // Another thread was first.
            self.free_bytes.fetch_add(needed, Ordering::Relaxed);
        }
    }
}

/// Takes `needed` bytes from what is free, if there are as many.
fn take(free_bytes: &AtomicU64, needed: u64) -> bool {
    free_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(needed)).is_ok()
}

impl Source for FolderSource {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.files.label(i)
    }

    fn group(&self, i: usize) -> u64 {
        group_by_first(&self.same_as, i)
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        let relative = self.files.relative(i);
        if relative.is_absolute() {
            return escape_path(&relative).into();
        }
        let below = escape_relative(&relative);
        if self.roots.len() == 1 {
            below.into()
        } else {
            // Two roots may hold files of the same name.
            format!("{}/{below}", escape_path(&self.roots[self.files.root(i)])).into()
        }
    }

    fn path(&self, i: usize) -> PathBuf {
        self.roots[self.files.root(i)].join(self.files.relative(i))
    }

    fn read<'a>(&'a self, i: usize, buffers: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
        if let Some(pixels) = self.pixels.get(i).and_then(OnceLock::get) {
            return Ok(pixels);
        }
        self.read_file(i, buffers)?;
        let ReadBuffers { bytes, image } = buffers;
        decode_into(bytes, &self.decode, image)
            .map_err(|error| SampleError { path: self.path(i), problem: Problem::Decode(error) })?;
        self.keep(i, image);
        Ok(image)
    }

    fn read_file(&self, i: usize, buffers: &mut ReadBuffers) -> Result<bool, SampleError> {
        let path = self.path(i);
        let bytes = &mut buffers.bytes;
        let read = read_file(&path, &self.decode, bytes).and_then(|modified| {
            let seal = if self.headers_only { seal_of_head(bytes, modified) } else { seal_of_all(bytes) };
            let (scanned_bytes, found_bytes) = (self.files.bytes(i), bytes.len() as u64);
            let is_same = scanned_bytes == found_bytes && self.files.seal(i) == seal;
            is_same.then_some(true).ok_or(Problem::Changed { scanned_bytes, found_bytes })
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

fn check_fraction(
    root: &Path,
    n_good: usize,
    bad_files: &[BadFile],
    n_rows: usize,
    allowed: f64,
) -> Result<(), FolderError> {
    let candidates = n_good + bad_files.len();
    let root = || root.to_owned();
    if n_good == 0 {
        return Err(FolderError::NoGoodPicture { root: root(), bad_files: bad_files.to_vec() });
    }
    if bad_files.len() as f64 > allowed * candidates as f64 {
        return Err(FolderError::TooManyBad {
            root: root(),
            candidates,
            allowed,
            n_rows,
            bad_files: bad_files.to_vec(),
        });
    }
    Ok(())
}

/// A file that passed the scan.
struct Good<'a> {
    root: u32,
    relative: &'a Path,
    label: Option<u32>,
    scan: Scan,
}

/// What one look at a candidate told.
struct Scan {
    width: u32,
    height: u32,
    format: Format,
    bytes: u64,
    /// What the file is recognised by when it is read again.
    seal: [u8; 16],
    pixels: Option<Box<Image>>,
    look: Option<Box<Look>>,
}

/// Everything the scan of a file depends on.
struct Scanner<'a> {
    roots: &'a [PathBuf],
    decode: DecodeOptions,
    headers_only: bool,
    with_looks: bool,
    free_bytes: AtomicU64,
    n_done: AtomicUsize,
}

impl Scanner<'_> {
    fn scan_all(
        &self,
        candidates: &[(u32, PathBuf)],
        on_bad: OnBad,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Vec<Result<Scan, Box<SampleError>>>, FolderError> {
        let scan = |(root, relative): &(u32, PathBuf)| {
            let path = self.roots[*root as usize].join(relative);
            let outcome = if self.headers_only { self.scan_head(&path) } else { self.scan_whole(&path) };
            progress(self.n_done.fetch_add(1, Ordering::Relaxed) + 1, candidates.len());
            outcome.map_err(|problem| Box::new(SampleError { path, problem }))
        };
        match on_bad {
            OnBad::Skip => Ok(candidates.par_iter().map(scan).collect()),
            OnBad::Fail => candidates
                .par_iter()
                .map(|candidate| match scan(candidate) {
                    Err(error) => Err(FolderError::Bad { file: (&*error).into() }),
                    good => Ok(good),
                })
                .collect(),
        }
    }

    fn scan_whole(&self, path: &Path) -> Result<Scan, Problem> {
        let mut bytes = Vec::new();
        read_file(path, &self.decode, &mut bytes)?;
        let Header { format, .. } = read_header(&bytes, &self.decode).map_err(Problem::Decode)?;
        let image = decode(&bytes, &self.decode).map_err(Problem::Decode)?;
        Ok(Scan {
            width: image.width(),
            height: image.height(),
            format,
            bytes: bytes.len() as u64,
            seal: seal_of_all(&bytes),
            look: if self.with_looks { Look::of(&image).map(Box::new) } else { None },
            pixels: take(&self.free_bytes, image.as_rgb8().len() as u64).then(|| Box::new(image)),
        })
    }

    fn scan_head(&self, path: &Path) -> Result<Scan, Problem> {
        use DecodeError as E;
        let (mut file, size, modified) = open_file(path, &self.decode)?;
        let mut bytes = Vec::new();
        file.by_ref().take(HEAD_BYTES).read_to_end(&mut bytes).map_err(Problem::Read)?;
        let seal = seal_of_head(&bytes, modified);
        let header = match read_header(&bytes, &self.decode) {
            // Some headers are longer, and a TIFF file may have its own at its end.
            Err(error) if size > HEAD_BYTES && !matches!(error, E::UnknownFormat { .. } | E::TooManyPixels { .. }) => {
                file.take(size - HEAD_BYTES).read_to_end(&mut bytes).map_err(Problem::Read)?;
                read_header(&bytes, &self.decode)
            }
            known => known,
        };
        let Header { format, width, height } = header.map_err(Problem::Decode)?;
        Ok(Scan { width, height, format, bytes: size, seal, pixels: None, look: None })
    }
}

/// What a file is recognised by whose bytes are all known.
fn seal_of_all(bytes: &[u8]) -> [u8; 16] {
    Fingerprint::of(bytes).to_le_bytes()
}

/// What a file is recognised by whose beginning is known: 64 bits of its hash, then the time of modification.
fn seal_of_head(bytes: &[u8], modified: i64) -> [u8; 16] {
    let head = usize::try_from(HEAD_BYTES).map_or(bytes, |end| &bytes[..bytes.len().min(end)]);
    let mut seal = seal_of_all(head);
    seal[8..].copy_from_slice(&modified.to_le_bytes());
    seal
}

/// Reads a whole file and never more than the limit, even when the file grows meanwhile; tells when it was modified.
fn read_file(path: &Path, decode: &DecodeOptions, bytes: &mut Vec<u8>) -> Result<i64, Problem> {
    let (file, _, modified) = open_file(path, decode)?;
    // One byte more than allowed is enough for the decoder to refuse a file that has grown since.
    bytes.clear();
    file.take(decode.max_file_bytes.saturating_add(1)).read_to_end(bytes).map_err(Problem::Read)?;
    Ok(modified)
}

/// Opens a regular file within the limit, with its size and time of modification.
fn open_file(path: &Path, decode: &DecodeOptions) -> Result<(File, u64, i64), Problem> {
    // Opening a pipe would wait for somebody to write to it.
    if !fs::metadata(path).map_err(Problem::Read)?.is_file() {
        return Err(Problem::NotAFile);
    }
    let file = File::open(path).map_err(Problem::Read)?;
    let metadata = file.metadata().map_err(Problem::Read)?;
    let (bytes, max_file_bytes) = (metadata.len(), decode.max_file_bytes);
    if bytes > max_file_bytes {
        return Err(Problem::Decode(DecodeError::FileTooLarge { bytes, max_file_bytes }));
    }
    Ok((file, bytes, metadata.modified().map_or(0, nanoseconds)))
}

/// Nanoseconds since 1970, the lower 64 bits: times are only compared for equality.
fn nanoseconds(time: SystemTime) -> i64 {
    let nanoseconds = |distance: std::time::Duration| i64::try_from(distance.as_nanos()).unwrap_or(i64::MAX);
    time.duration_since(UNIX_EPOCH).map_or_else(|before| -nanoseconds(before.duration()), nanoseconds)
}

/// For each picture whose bytes an earlier one has, that earlier one.
fn same_as(roots: &[PathBuf], good: &[Good<'_>], scanner: &Scanner<'_>) -> HashMap<u32, u32> {
    let seal = |good: &Good<'_>| -> ([u8; 16], u64) {
        let mut seal = good.scan.seal;
        if scanner.headers_only {
            // Copies have times of their own.
            seal[8..].fill(0);
        }
        (seal, good.scan.bytes)
    };
    let mut first_with = HashMap::with_capacity(good.len());
    let mut pairs = Vec::new();
    for (i, good) in (0u32..).zip(good) {
        let first = *first_with.entry(seal(good)).or_insert(i);
        if first != i {
            pairs.push((i, first));
        }
    }
    if !scanner.headers_only {
        return pairs.into_iter().collect();
    }
    // The beginning of these files is the same; whether the rest is has to be read.
    let mut members: Vec<u32> = pairs.iter().flat_map(|&(i, first)| [i, first]).collect();
    members.sort_unstable();
    members.dedup();
    let content = |&i: &u32| {
        let good = &good[i as usize];
        let mut bytes = Vec::new();
        let read = read_file(&roots[good.root as usize].join(good.relative), &scanner.decode, &mut bytes);
        (read.is_ok() && bytes.len() as u64 == good.scan.bytes).then(|| (i, seal_of_all(&bytes)))
    };
    let contents: Vec<(u32, [u8; 16])> = members.par_iter().filter_map(content).collect();
    let mut first_with = HashMap::new();
    let firsts = contents.iter().map(|&(i, content)| (i, *first_with.entry(content).or_insert(i)));
    firsts.filter(|(i, first)| i != first).collect()
}

/// Gives every picture the class of its row; returns the names of the classes.
fn label_by_table(
    table: &LabelTable,
    files: &PictureFiles,
    roots: &[PathBuf],
    candidates: &[(u32, PathBuf)],
    good: &mut [Good<'_>],
    bad: &mut Vec<(u32, PathBuf, BadFile)>,
    remarks: &mut Vec<String>,
) -> Vec<String> {
    let file = files.labels.as_deref().unwrap_or(Path::new(""));
    let spellings: Vec<Vec<PathBuf>> = roots.iter().map(|root| spellings(root, file)).collect();
    let as_written = |root: u32, relative: &Path| table.row_of(&spellings[root as usize], relative);
    let named = candidates.iter().map(|(root, relative)| (*root, relative.as_path()));
    let mut is_met = vec![false; table.rows.len()];
    named.clone().filter_map(|(root, relative)| as_written(root, relative)).for_each(|row| is_met[row] = true);
    // Rows that lead to a picture through links are found by where they lead.
    let folder = file.parent().unwrap_or(Path::new(""));
    let unmet = table.rows.iter().enumerate().filter(|(i, _)| !is_met[*i]);
    let by_place: HashMap<PathBuf, usize> =
        unmet.filter_map(|(i, row)| Some((fs::canonicalize(folder.join(&row.path)).ok()?, i))).collect();
    let row_of = |root: u32, relative: &Path| {
        let place = || fs::canonicalize(roots[root as usize].join(relative)).ok();
        let led_to = || if by_place.is_empty() { None } else { by_place.get(&place()?).copied() };
        as_written(root, relative).or_else(led_to)
    };
    let unusable: Vec<usize> = bad.iter().filter_map(|(root, relative, _)| row_of(*root, relative)).collect();
    named.filter_map(|(root, relative)| row_of(root, relative)).chain(unusable).for_each(|row| is_met[row] = true);
    for good in &mut *good {
        good.label = row_of(good.root, good.relative).map(|row| table.rows[row].label);
    }
    let place = escape_path(file);
    if let Some(names) = &table.unknown_names {
        remarks
            .push(format!("{place}: the first row, `{names}`, is taken for the names of the columns path and label"));
    }
    for (i, row) in table.rows.iter().enumerate().filter(|(i, _)| !is_met[*i]) {
        let places = roots.iter().map(PathBuf::as_path).chain(file.parent());
        let mut paths = places.map(|place| place.join(&row.path));
        let first = paths.next().unwrap_or_else(|| row.path.clone());
        let found = std::iter::once(first.clone()).chain(paths).find(|path| path.exists());
        let exists = found.is_some();
        let path = found.unwrap_or(first);
        let reason = if exists {
            format!("has a row in {place}, but is none of the pictures that were found")
        } else if i == 0 && !has_picture_extension(&row.path) {
            format!("has a row in {place}, but does not exist; if the row names columns, call them path and label")
        } else {
            format!("has a row in {place}, but does not exist")
        };
        bad.push((0, row.path.clone(), BadFile { path, reason }));
    }
    let without: Vec<&Good<'_>> = good.iter().filter(|good| good.label.is_none()).collect();
    if let Some(first) = without.first() {
        remarks.push(format!(
            "{} pictures have no row in {place} and so no label; the first is {}",
            without.len(),
            escape_relative(first.relative)
        ));
    }
    table.classes.clone()
}

/// Gives every picture the class of its folder, if folders are classes; returns the names of the classes.
fn label_by_folder(candidates: &[(u32, PathBuf)], good: &mut [Good<'_>]) -> Vec<String> {
    let classes = Classes::of(candidates, good);
    for good in good {
        good.label = classes.label(good.relative);
    }
    classes.names()
}

/// Class folders by the bytes of their names; none when the pictures are unlabelled.
struct Classes {
    by_name: BTreeMap<Vec<u8>, (u32, String)>,
}

impl Classes {
    fn of(candidates: &[(u32, PathBuf)], good: &[Good<'_>]) -> Self {
        let folders = first_folders(candidates);
        if good.iter().any(|good| first_folder(good.relative).is_none()) || folders.len() < 2 {
            return Self { by_name: BTreeMap::new() };
        }
        let numbered = (0u32..).zip(folders).map(|(label, (key, name))| (key, (label, name)));
        Self { by_name: numbered.collect() }
    }

    fn label(&self, relative: &Path) -> Option<u32> {
        let folder = first_folder(relative)?;
        self.by_name.get(folder.as_encoded_bytes()).map(|(label, _)| *label)
    }

    fn names(&self) -> Vec<String> {
        self.by_name.values().map(|(_, name)| name.clone()).collect()
    }
}

/// The first component of a path below the root, if a file name follows it. A path that begins elsewhere has none.
fn first_folder(relative: &Path) -> Option<&OsStr> {
    let mut components = relative.components().filter(|part| *part != Component::CurDir);
    match (components.next()?, components.next()?) {
        (Component::Normal(first), _) => Some(first),
        _ => None,
    }
}

fn first_folders(candidates: &[(u32, PathBuf)]) -> BTreeMap<Vec<u8>, String> {
    let mut folders = BTreeMap::new();
    let mut last = None;
    // In their order most candidates lie in the folder of the one before.
    for folder in candidates.iter().filter_map(|(_, candidate)| first_folder(candidate)) {
        if last != Some(folder) {
            folders.entry(folder.as_encoded_bytes().to_vec()).or_insert_with(|| escape_path(folder.as_ref()));
        }
        last = Some(folder);
    }
    folders
}

/// What a report says besides the pictures.
struct Facts<'a> {
    place: PathBuf,
    listing: &'a Listing,
    headers_only: bool,
    by_table: bool,
    remarks: Vec<String>,
}

fn write_report(
    facts: Facts<'_>,
    candidates: &[(u32, PathBuf)],
    good: &[Good<'_>],
    bad_files: Vec<BadFile>,
    classes: &[String],
    duplicates: usize,
) -> ScanReport {
    let Facts { place, listing, headers_only, by_table, remarks } = facts;
    let mut counts: Vec<ClassCount> =
        classes.iter().map(|name| ClassCount { name: name.clone(), pictures: 0 }).collect();
    let mut formats: Vec<(Format, usize)> = Vec::new();
    for Good { label, scan, .. } in good {
        if let Some(label) = label {
            counts[*label as usize].pictures += 1;
        }
        match formats.iter_mut().find(|(format, _)| *format == scan.format) {
            Some((_, count)) => *count += 1,
            None => formats.push((scan.format, 1)),
        }
    }
    let mut notes = if by_table { empty_classes(&counts) } else { notes(listing, candidates, good, &counts) };
    notes.splice(0..0, remarks.into_iter().chain(listing.unread_pictures()));
    if listing.n_repeated > 0 {
        notes.push(format!(
            "files and folders that were reached by another name before (by links, or named twice) count once: {} passed over",
            listing.n_repeated
        ));
    }
    if headers_only {
        notes.push(format!(
            "{} files are more than full_scan_files, so only their headers were read: files that are broken further \
             in are found when they are first used",
            candidates.len()
        ));
    }
    ScanReport {
        root: place,
        pictures: good.len(),
        labelled: !classes.is_empty(),
        headers_only,
        notes,
        classes: counts,
        unlabelled: good.iter().filter(|good| good.label.is_none()).count(),
        width: SizeRange::of(good.iter().map(|good| good.scan.width).collect()),
        height: SizeRange::of(good.iter().map(|good| good.scan.height).collect()),
        formats: formats.into_iter().map(|(format, n)| (format.to_string().to_lowercase(), n)).collect(),
        bad_files,
        duplicates,
        total_bytes: good.iter().map(|good| good.scan.bytes).sum(),
        files_seen: listing.n_files,
        hidden: listing.n_hidden,
        repeated: listing.n_repeated,
        passed_over: listing.other_extensions(),
        fingerprint: identity(good, headers_only, by_table),
    }
}

/// The hash over root, path, size and content of every picture; of the content as much as the scan has read. A label
/// counts where it does not follow from the path.
fn identity(good: &[Good<'_>], headers_only: bool, by_table: bool) -> Fingerprint {
    let mut record = Vec::new();
    let mut hashes = Vec::with_capacity(good.len() * 16);
    for Good { root, relative, label, scan } in good {
        record.clear();
        record.extend_from_slice(&scan.bytes.to_le_bytes());
        record.extend_from_slice(if headers_only { &scan.seal[..8] } else { &scan.seal });
        record.extend_from_slice(&root.to_le_bytes());
        if by_table {
            record.extend_from_slice(&label.unwrap_or(u32::MAX).to_le_bytes());
        }
        record.extend(sort_key(relative));
        hashes.extend(Fingerprint::of(&record).to_le_bytes());
    }
    Fingerprint::of(&hashes)
}

fn notes(listing: &Listing, candidates: &[(u32, PathBuf)], good: &[Good<'_>], counts: &[ClassCount]) -> Vec<String> {
    let mut notes = Vec::new();
    let with_candidates = first_folders(candidates);
    if counts.is_empty() {
        let n_in_root = good.iter().filter(|good| first_folder(good.relative).is_none()).count();
        if n_in_root > 0 && !with_candidates.is_empty() {
            notes.push(format!(
                "pictures lie directly in the folder ({n_in_root}), so its sub-folders are not read as classes"
            ));
        } else if let (1, Some(only)) = (with_candidates.len(), with_candidates.values().next()) {
            notes.push(format!("all pictures lie in the one folder `{only}`, so they are read as unlabelled"));
        }
        return notes;
    }
    for folder in &listing.top_folders {
        if !with_candidates.contains_key(folder.as_os_str().as_encoded_bytes()) {
            notes.push(format!("folder `{}` holds no pictures and is no class", escape_path(folder)));
        }
    }
    notes.extend(empty_classes(counts));
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
    if !listing.extensions.is_empty() {
        let counts = listing.extensions.iter().map(|(extension, count)| (extension.as_str(), *count));
        text += &format!(": {}", counted_extensions(counts));
    }
    let shards = ["tar", "parquet", "pack"];
    if let Some(kind) = shards.into_iter().find(|kind| listing.extensions.contains_key(*kind)) {
        text += &format!(
            "; a .{kind} file is a set of its own: give its path, or that of a folder with nothing else in it"
        );
    }
    if !listing.passed_over.is_empty() {
        text += &format!("; first: {}", listing.passed_over.join(", "));
    }
    text
}

/// How many bad files are rows of a table, where some are.
fn rows_among(n_rows: usize) -> String {
    match n_rows {
        0 => String::new(),
        n => format!(
            ", {n} of them rows of the table of labels that fit no picture (paths must begin below the folder of \
             pictures, at the folder of the table, or at the root of the file system)"
        ),
    }
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
