//! Where pictures are: folders, a list of files, a table of labels.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::file_table::path_of;
use crate::folder_listing::{Identity, Listing, identity_of, list_folder};
use crate::label_table::{LabelTable, TableError};
use crate::source::{Problem, SampleError};

/// Which files are pictures: all below some folders, or those that a list or a table names.
///
/// - `roots` alone: every candidate below these folders; see [`FolderSource`](crate::FolderSource).
/// - `list`: a text file with one path per line, relative to the folder of the list or absolute. Blank lines are passed
///   over, a file named twice counts once, and the pictures keep the order of the list. No extension is asked for.
/// - `labels`: a table with the columns `path` and `label`, in the form of RFC 4180 (commas, quotes where a field holds
///   a comma, a quote or a line break). A first row that has both names is a header, and the columns may then stand in
///   any order among others; without a header there are exactly two. Beside `roots` or a `list` the paths are those
///   below a root or in the list, or from the folder of the table, or absolute, and the labels take the place of class
///   folders; pictures without a row stay in unlabelled, rows without a picture are bad files. Alone, the table is the list
///   as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PictureFiles {
    /// Folders to search.
    pub roots: Vec<PathBuf>,
    /// A list of files, instead of folders.
    pub list: Option<PathBuf>,
    /// A table of labels.
    pub labels: Option<PathBuf>,
}

impl PictureFiles {
    /// Everything below one folder.
    pub fn below(root: &Path) -> Self {
        Self { roots: vec![root.to_owned()], ..Self::default() }
    }

    /// What to call all of it in a message: its folders, or the file that names the pictures.
    pub(crate) fn place(&self) -> PathBuf {
        match (&self.list, &self.labels) {
            (Some(list), _) => list.clone(),
            (None, Some(labels)) if self.roots.is_empty() => labels.clone(),
            _ => {
                let roots: Vec<&std::ffi::OsStr> = self.roots.iter().map(|root| root.as_os_str()).collect();
                PathBuf::from(roots.join(&OsString::from(", ")))
            }
        }
    }

    /// Finds the files, and reads the labels.
    ///
    /// # Errors
    /// [`TableError`] for a list or table that cannot be read.
    pub(crate) fn gather(&self) -> Result<Gathered, TableError> {
        let labels = self.labels.as_deref().map(LabelTable::read).transpose()?;
        let mut gathered = if let Some(list) = &self.list {
            named(list, lines_of(list)?)
        } else if let (Some(file), Some(table), true) = (&self.labels, &labels, self.roots.is_empty()) {
            named(file, table.rows.iter().map(|row| row.path.clone()).collect())
        } else {
            let mut gathered = Gathered { roots: self.roots.clone(), ..Gathered::default() };
            let mut reached = HashSet::new();
            for (root, folder) in (0..).zip(&self.roots) {
                let listing = list_folder(folder, &mut reached);
                gathered.add(root, listing);
            }
            gathered
        };
        gathered.labels = labels;
        Ok(gathered)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// What the paths of candidates are relative to.
    pub(crate) roots: Vec<PathBuf>,
    /// Regular files that should be pictures: the number of their root and their path below it.
    pub(crate) candidates: Vec<(u32, PathBuf)>,
    /// Entries that should have been pictures or folders and cannot be used.
    pub(crate) unusable: Vec<(u32, PathBuf, SampleError)>,
    /// What else was met; its own candidates are moved out.
    pub(crate) listing: Listing,
    pub(crate) labels: Option<LabelTable>,
}

impl Gathered {
    fn add(&mut self, root: u32, mut found: Listing) {
        self.candidates.extend(found.candidates.drain(..).map(|path| (root, path)));
        self.unusable.extend(found.unusable.drain(..).map(|(path, error)| (root, path, error)));
        self.listing.take_in(found);
    }
}

/// The files that a list names; `list` says where relative paths begin.
fn named(list: &Path, paths: Vec<PathBuf>) -> Gathered {
    let folder = list.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut gathered = Gathered { roots: vec![folder.to_owned()], ..Gathered::default() };
    let mut reached: HashSet<Identity> = HashSet::new();
    let mut missing = HashSet::new();
    for relative in paths {
        let path = folder.join(&relative);
        let problem = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                gathered.listing.n_files += 1;
                if identity_of(&path, &metadata).is_none_or(|id| reached.insert(id)) {
                    gathered.candidates.push((0, relative));
                } else {
                    gathered.listing.n_repeated += 1;
                }
                continue;
            }
            Ok(_) => Problem::NotAFile,
            Err(error) => Problem::Read(error),
        };
        if missing.insert(relative.clone()) {
            gathered.unusable.push((0, relative, SampleError { path, problem }));
        }
    }
    gathered
}

fn lines_of(list: &Path) -> Result<Vec<PathBuf>, TableError> {
    let bytes = fs::read(list).map_err(|reason| TableError::Read { path: list.to_owned(), reason })?;
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let lines = bytes.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let paths: Vec<PathBuf> = lines.filter(|line| !line.trim_ascii().is_empty()).map(path_of).collect();
    if paths.is_empty() { Err(TableError::Empty { path: list.to_owned() }) } else { Ok(paths) }
}
