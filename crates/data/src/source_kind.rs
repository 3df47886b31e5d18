//! Telling from a path which kind of set lies there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::folder_listing::has_picture_extension;
use crate::pack_format::MAGIC;
use crate::tar_source::is_pattern;
use crate::{CifarSource, IdxSource, StlSource, escape_path};

/// The forms in which sets of pictures come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceKind {
    /// A folder of picture files: [`FolderSource`](crate::FolderSource).
    Folder,
    /// The files of CIFAR-10 or CIFAR-100: [`CifarSource`].
    Cifar,
    /// The files of STL-10: [`StlSource`].
    Stl,
    /// The files of MNIST and its relatives: [`IdxSource`].
    Idx,
    /// Tar shards: [`TarSource`](crate::TarSource).
    Tar,
    /// Parquet files: `ParquetSource`, with the feature `parquet`.
    Parquet,
    /// A pack: [`PackSource`](crate::PackSource).
    Pack,
}

/// Why a path is no set of pictures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// There is nothing at the path.
    #[error("there is nothing at {}", escape_path(path))]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// The operating system does not let us look.
    #[error("{} cannot be read: {reason}", escape_path(path))]
    Unreadable {
        /// The path as given.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// The file is none of those that hold a set.
    #[error(
        "expected a folder of pictures, a .tar, .parquet or .pack file, or a folder of them; {} is {seen}",
        escape_path(path)
    )]
    UnknownFile {
        /// The path as given.
        path: PathBuf,
        /// What it seems to be instead.
        seen: &'static str,
    },
    /// The folder holds sets of several kinds.
    #[error("{} holds {seen}: give the path of one of them", escape_path(path))]
    Ambiguous {
        /// The path as given.
        path: PathBuf,
        /// What was found, in words.
        seen: String,
    },
}

impl SourceKind {
    /// Looks at names, and at the first bytes of a single file; opens no set.
    ///
    /// A folder is one of CIFAR, STL-10 or IDX where files of these names lie in it or in the sub-folder they are
    /// published in, as long as nothing else that could be meant lies there: not two of these, and no picture file beside
    /// such a sub-folder. It is one of shards (or of a single pack) where such files and neither pictures nor sub-folders lie in
    /// it; for Parquet files a sub-folder `data` will do. Every other folder is a folder of picture files.
    ///
    /// # Errors
    /// [`DetectError`] when there is nothing, or a file or mixture that is none of these.
    pub fn detect(path: &Path) -> Result<Self, DetectError> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Self::of_folder(path),
            Ok(_) => Self::of_file(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_pattern(path) => Ok(Self::Tar),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(DetectError::Missing { path: path.to_owned() })
            }
            Err(reason) => Err(DetectError::Unreadable { path: path.to_owned(), reason }),
        }
    }

    /// The name of the kind in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::Cifar => "cifar",
            Self::Stl => "stl",
            Self::Idx => "idx",
            Self::Tar => "tar",
            Self::Parquet => "parquet",
            Self::Pack => "pack",
        }
    }

    /// The kind that files of this extension are shards of.
    fn of_extension(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "tar" => Some(Self::Tar),
            "parquet" => Some(Self::Parquet),
            "pack" => Some(Self::Pack),
            _ => None,
        }
    }

    fn of_file(path: &Path) -> Result<Self, DetectError> {
        if let Some(kind) = Self::of_extension(path) {
            return Ok(kind);
        }
        let mut start = Vec::new();
        let read = File::open(path).and_then(|file| file.take(512).read_to_end(&mut start));
        read.map_err(|reason| DetectError::Unreadable { path: path.to_owned(), reason })?;
        if start.starts_with(&MAGIC) {
            return Ok(Self::Pack);
        }
        if start.starts_with(b"PAR1") {
            return Ok(Self::Parquet);
        }
        if start.get(257..262) == Some(b"ustar") {
            return Ok(Self::Tar);
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        let seen = if CifarSource::is_in(folder) || StlSource::is_in(folder) || IdxSource::is_in(folder) {
            "one file of a set: give its folder"
        } else if twoview_pixels::Format::of(&start).is_some() {
            "a single picture: give its folder"
        } else if start.starts_with(b"PK\x03\x04") {
            "a ZIP archive: unpack it"
        } else if start.starts_with(&[0x1f, 0x8b]) {
            "a gzip archive: unpack it"
        } else if start.is_empty() {
            "an empty file"
        } else {
            "a file of another kind"
        };
        Err(DetectError::UnknownFile { path: path.to_owned(), seen })
    }

    fn of_folder(path: &Path) -> Result<Self, DetectError> {
        if let Some(kind) = Self::published_set(path)? {
            return Ok(kind);
        }
        let counted = Counted::of(path).map_err(|reason| DetectError::Unreadable { path: path.to_owned(), reason })?;
        if counted.has_pictures || counted.has_folders {
            let data = path.join("data");
            let of_data = if data.is_dir() { Counted::of(&data).ok() } else { None };
            let is_parquet =
                of_data.is_some_and(|data| data.shards.keys().copied().eq(["parquet"]) && !data.has_pictures);
            let is_alone = !counted.has_pictures && counted.shards.is_empty();
            return Ok(if is_parquet && is_alone { Self::Parquet } else { Self::Folder });
        }
        let mut kinds = counted.shards.iter();
        match (kinds.next(), kinds.next()) {
            (None, _) => Ok(Self::Folder),
            (Some((&"tar", _)), None) => Ok(Self::Tar),
            (Some((&"parquet", _)), None) => Ok(Self::Parquet),
            (Some((&"pack", 1)), None) => Ok(Self::Pack),
            _ => {
                let seen: Vec<String> = counted.shards.iter().map(|(kind, n)| format!("{n} .{kind}")).collect();
                let seen = seen.join(" and ") + ", and no picture files";
                Err(DetectError::Ambiguous { path: path.to_owned(), seen })
            }
        }
    }

    /// CIFAR, STL-10 or IDX, where the folder or the sub-folder of a published archive holds it and nothing else.
    fn published_set(path: &Path) -> Result<Option<Self>, DetectError> {
        let sets: Vec<(Self, PathBuf)> = [
            (Self::Cifar, CifarSource::folder_in(path)),
            (Self::Stl, StlSource::folder_in(path)),
            (Self::Idx, IdxSource::folder_in(path)),
        ]
        .into_iter()
        .filter_map(|(kind, folder)| Some((kind, folder?)))
        .collect();
        let ambiguous = |seen| Err(DetectError::Ambiguous { path: path.to_owned(), seen });
        match sets.as_slice() {
            [] => Ok(None),
            [(kind, folder)] => match picture_outside(path, folder) {
                Some(picture) if folder != path => {
                    let (set, picture) = (escape_path(folder), escape_path(&picture));
                    ambiguous(format!("both {set} ({} files) and picture files such as {picture}", kind.name()))
                }
                _ => Ok(Some(*kind)),
            },
            several => {
                let seen =
                    several.iter().map(|(kind, folder)| format!("{} ({} files)", escape_path(folder), kind.name()));
                ambiguous(seen.collect::<Vec<_>>().join(" and "))
            }
        }
    }
}

/// A picture file below `root` that does not lie below `set`.
fn picture_outside(root: &Path, set: &Path) -> Option<PathBuf> {
    let mut walk = WalkDir::new(root).into_iter();
    while let Some(step) = walk.next() {
        let Ok(entry) = step else { continue };
        let is_hidden = entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".");
        if entry.file_type().is_dir() && (is_hidden || entry.path() == set) {
            walk.skip_current_dir();
        } else if entry.file_type().is_file() && !is_hidden && has_picture_extension(entry.path()) {
            return Some(entry.into_path());
        }
    }
    None
}

/// What lies directly in a folder, hidden things apart.
#[derive(Default)]
struct Counted {
    has_pictures: bool,
    has_folders: bool,
    shards: BTreeMap<&'static str, usize>,
}

impl Counted {
    fn of(folder: &Path) -> io::Result<Self> {
        let mut counted = Self::default();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                continue;
            }
            if path.is_dir() {
                counted.has_folders = true;
            } else if let Some(kind) = SourceKind::of_extension(&path) {
                *counted.shards.entry(kind.name()).or_default() += 1;
            } else if has_picture_extension(&path) {
                counted.has_pictures = true;
            }
        }
        Ok(counted)
    }
}
