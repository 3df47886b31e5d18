//! Why files of fixed-size records (CIFAR, STL-10, IDX) cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use crate::fixed_file::FixedFile;
use crate::{PickleError, escape_path};

/// A set of record files that cannot be opened: which file, what was expected and what is there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The operating system does not let us read the file.
    #[error("{} cannot be read: {reason}", escape_path(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// The folder holds no file of such a set.
    #[error("no {expected} in {}", escape_path(root))]
    NotASet {
        /// The folder as given.
        root: PathBuf,
        /// Which files there should be.
        expected: &'static str,
    },
    /// The folder holds several such sets.
    #[error("{} holds more than one set: {}; give a folder for each", escape_path(root), names.join(", "))]
    Ambiguous {
        /// The folder as given.
        root: PathBuf,
        /// Files of different sets.
        names: Vec<String>,
    },
    /// The length of the file fits no whole number of records, or not those that it promises.
    #[error("{}: expected {expected}, got {got} bytes; is the file complete?", escape_path(path))]
    Length {
        /// The file.
        path: PathBuf,
        /// Which length there should be.
        expected: String,
        /// The length there is.
        got: u64,
    },
    /// The beginning of the file says that it is something else.
    #[error("{}: expected {expected}, got {got}", escape_path(path))]
    Header {
        /// The file.
        path: PathBuf,
        /// What it should say.
        expected: &'static str,
        /// What it says.
        got: String,
    },
    /// The pictures are larger than any that is decoded.
    #[error("{} promises pictures of {width}x{height} pixels, the limit is {max_pixels} in total", escape_path(path))]
    TooManyPixels {
        /// The file.
        path: PathBuf,
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// The limit they broke.
        max_pixels: u64,
    },
    /// A compressed file promises so much that it may be made to exhaust the memory.
    #[error(
        "{} promises {promised} bytes of data, more than the {allowed} that a compressed file of {packed} bytes may: \
         refused as a decompression bomb; if you trust it, unpack it first (`gunzip`)",
        escape_path(path)
    )]
    Bomb {
        /// The file.
        path: PathBuf,
        /// Bytes that the header promises.
        promised: u64,
        /// Length of the file.
        packed: u64,
        /// Bytes that it may promise.
        allowed: u64,
    },
    /// A label names no class.
    #[error("{}: the label of record {record} must be from {least} to {most}, got {got}", escape_path(path))]
    Label {
        /// The file.
        path: PathBuf,
        /// Which record, from 0.
        record: usize,
        /// The smallest label there may be.
        least: u64,
        /// The largest label there may be.
        most: u64,
        /// The label there is.
        got: u64,
    },
    /// Pictures and labels are not equally many.
    #[error("{} has {labels} labels for {pictures} pictures", escape_path(path))]
    Unpaired {
        /// The file with the labels.
        path: PathBuf,
        /// Pictures of the set.
        pictures: usize,
        /// Labels of the set.
        labels: usize,
    },
    /// The file with the names of the classes does not name them.
    #[error("{}: expected {expected} different names of classes, got {got}", escape_path(path))]
    ClassNames {
        /// The file.
        path: PathBuf,
        /// How many classes there are.
        expected: usize,
        /// How many different names.
        got: usize,
    },
    /// The pickle is none that may be read.
    #[error("{}: {reason}", escape_path(path))]
    Pickle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: PickleError,
    },
}

impl RecordError {
    /// The whole of a file, or which file could not be read.
    pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Self> {
        FixedFile::open(path).and_then(|file| file.read_all()).map_err(Self::unreadable(path))
    }

    /// Names the file in an error of the operating system, which does not.
    pub(crate) fn unreadable(path: &Path) -> impl Fn(io::Error) -> Self {
        move |reason| Self::Unreadable { path: path.to_owned(), reason }
    }
}
