//! The built-in pictures as files: a folder to look at, to copy the layout from, and to try `data check` on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use twoview_pixels::encode_png;

use crate::patterns::{N_CLASSES, draw_picture, file_name};
use crate::{Split, escape_path};

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternFolderConfig {
    /// Seed of every picture.
    pub seed: u64,
    /// Training pictures of each of the ten classes.
    pub train_per_class: u32,
    /// Test pictures of each class; with 0 there is no `test` folder.
    pub test_per_class: u32,
    /// Files to plant among the training pictures that are none: in turn a truncated PNG, an empty file and a text.
    pub bad_files: u32,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternFolder {
    /// Training pictures.
    pub train: usize,
    /// Test pictures.
    pub test: usize,
    /// Where the planted files lie.
    pub bad_files: Vec<PathBuf>,
}

/// Why the folder could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatternFolderError {
    /// Writing there could destroy something.
    #[error("{} exists and is not an empty folder; name a new one", escape_path(dest))]
    Occupied {
        /// The destination as given.
        dest: PathBuf,
    },
    /// The destination has no name of its own, such as `..`.
    #[error("{} does not name a new folder", escape_path(dest))]
    NoName {
        /// The destination as given.
        dest: PathBuf,
    },
    /// There would be no training picture, or more than can be numbered.
    #[error("pictures per class must be from 1 to {} (test: from 0), got {got}", u32::MAX / N_CLASSES)]
    Count {
        /// What was configured.
        got: u32,
    },
    /// The operating system refused.
    #[error("cannot write {}: {reason}", escape_path(path))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
}

/// Writes the built-in set as `dest/train/<class>/NNNN.png` and `dest/test/<class>/NNNN.png`.
///
/// Everything is written into a folder beside `dest` that takes its name at the end, so `dest` is complete or absent.
///
/// # Errors
/// See [`PatternFolderError`]. A destination that exists and is not an empty folder is refused untouched.
///
/// # Example
/// ```no_run
/// use twoview_data::{PatternFolderConfig, write_pattern_folder};
///
/// let config = PatternFolderConfig { seed: 0, train_per_class: 1000, test_per_class: 200, bad_files: 3 };
/// let written = write_pattern_folder("patterns".as_ref(), &config)?;
/// assert_eq!((written.train, written.test, written.bad_files.len()), (10_000, 2_000, 3));
/// # Ok::<(), twoview_data::PatternFolderError>(())
/// ```
pub fn write_pattern_folder(dest: &Path, config: &PatternFolderConfig) -> Result<PatternFolder, PatternFolderError> {
    let train = count(config.train_per_class)?;
    let test = count(config.test_per_class)?;
    if train == 0 {
        return Err(PatternFolderError::Count { got: 0 });
    }
    let Some(name) = dest.file_name() else { return Err(PatternFolderError::NoName { dest: dest.to_owned() }) };
    require_vacant(dest)?;
    let parent = dest.parent().unwrap_or(Path::new(""));
    create_folders(parent)?;
    let mut staged_name = std::ffi::OsString::from(".");
    staged_name.push(name);
    staged_name.push(format!(".partial-{}", std::process::id()));
    let staging = parent.join(staged_name);
    fs::create_dir(&staging).map_err(|reason| PatternFolderError::Write { path: staging.clone(), reason })?;

    let bad_files = fill(&staging, config.seed, [(Split::Train, train), (Split::Test, test)], config.bad_files)
        .and_then(|bad_files| move_into_place(&staging, dest).map(|()| bad_files))
        .inspect_err(|_| {
            // The error that matters is the first one; a leftover is named after the destination and hidden.
            let _ = fs::remove_dir_all(&staging);
        })?;
    let bad_files = bad_files.iter().map(|relative| dest.join(relative)).collect();
    Ok(PatternFolder { train: train as usize, test: test as usize, bad_files })
}

fn count(per_class: u32) -> Result<u32, PatternFolderError> {
    per_class.checked_mul(N_CLASSES).ok_or(PatternFolderError::Count { got: per_class })
}

fn require_vacant(dest: &Path) -> Result<(), PatternFolderError> {
    let occupied = match fs::read_dir(dest) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    if occupied { Err(PatternFolderError::Occupied { dest: dest.to_owned() }) } else { Ok(()) }
}

/// Writes all files below `root` and returns the relative paths of the planted ones.
fn fill(root: &Path, seed: u64, splits: [(Split, u32); 2], n_bad: u32) -> Result<Vec<PathBuf>, PatternFolderError> {
    for (split, n) in splits {
        // The first ten pictures are one of each class.
        for i in 0..n.min(N_CLASSES) {
            let path = root.join(split.name()).join(file_name(i as usize));
            create_folders(path.parent().unwrap_or(root))?;
        }
        (0..n).into_par_iter().try_for_each(|i| {
            write_file(&root.join(split.name()).join(file_name(i as usize)), &encoded(seed, split, i)?)
        })?;
    }
    (0..n_bad)
        .map(|i| {
            let (what, content) = match i % 3 {
                0 => {
                    let whole = encoded(seed, Split::Train, i)?;
                    ("truncated.png", whole[..whole.len() / 2].to_vec())
                }
                1 => ("empty.png", Vec::new()),
                _ => ("text.jpg", b"This file is called .jpg and holds text.\n".to_vec()),
            };
            let folder = Path::new(Split::Train.name()).join(file_name((i % N_CLASSES) as usize));
            let relative = folder.with_file_name(format!("bad-{i:04}-{what}"));
            write_file(&root.join(&relative), &content)?;
            Ok(relative)
        })
        .collect()
}

fn encoded(seed: u64, split: Split, i: u32) -> Result<Vec<u8>, PatternFolderError> {
    encode_png(&draw_picture(seed, split, i)).map_err(|error| PatternFolderError::Write {
        path: PathBuf::from(file_name(i as usize)),
        reason: io::Error::other(error),
    })
}

fn move_into_place(staging: &Path, dest: &Path) -> Result<(), PatternFolderError> {
    // An empty folder at the destination has to go first on some systems; this fails if it has been filled meanwhile.
    match fs::remove_dir(dest) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(PatternFolderError::Write { path: dest.to_owned(), reason: error })
        }
        _ => fs::rename(staging, dest).map_err(|reason| PatternFolderError::Write { path: dest.to_owned(), reason }),
    }
}

fn create_folders(path: &Path) -> Result<(), PatternFolderError> {
    fs::create_dir_all(path).map_err(|reason| PatternFolderError::Write { path: path.to_owned(), reason })
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), PatternFolderError> {
    fs::write(path, content).map_err(|reason| PatternFolderError::Write { path: path.to_owned(), reason })
}
