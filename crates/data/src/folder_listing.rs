//! Which files below a folder are candidates for pictures, in an order that no file system decides.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::escaped_path::{escape_relative, sort_key};
use crate::source::{Problem, SampleError};

/// Extensions that make a file a candidate, whatever their case. What the file is, its content decides.
pub(crate) const EXTENSIONS: [&str; 14] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "bmp", "webp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"];

/// Extensions of pictures that cannot be read, lower case: whoever has such files should hear of it.
const UNREAD_PICTURES: [&str; 22] = [
    "arw", "avif", "cr2", "cr3", "dcm", "dng", "exr", "hdr", "heic", "heif", "j2k", "jp2", "jxl", "nef", "orf", "psd",
    "qoi", "raf", "rw2", "svg", "tga", "xcf",
];

/// How many files that are no candidates are named.
const N_PASSED_OVER: usize = 5;

/// What a walk over a folder found.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Regular files with the extension of a picture: their paths below the root, sorted by their bytes.
    pub(crate) candidates: Vec<PathBuf>,
    /// Entries that should have been files or folders and could not be used, each with its path relative to the root.
    pub(crate) unusable: Vec<(PathBuf, SampleError)>,
    /// Regular files met, candidates or not, hidden ones apart.
    pub(crate) n_files: usize,
    /// Hidden files and folders passed over.
    pub(crate) n_hidden: usize,
    /// Files and folders reached a second time by a link, and links that lead back up; passed over.
    pub(crate) n_repeated: usize,
    /// How often each extension was met, lower case; a file without one counts under the empty text.
    pub(crate) extensions: BTreeMap<String, usize>,
    /// The first few files that are no candidates, for the message when there is no candidate at all.
    pub(crate) passed_over: Vec<String>,
    /// Names of the folders directly below the root, hidden ones apart.
    pub(crate) top_folders: Vec<PathBuf>,
}

impl Listing {
    /// The extensions of files that are no candidates, with how many there are.
    pub(crate) fn other_extensions(&self) -> BTreeMap<String, usize> {
        let others = self.extensions.iter().filter(|(extension, _)| !EXTENSIONS.contains(&extension.as_str()));
        others.map(|(extension, count)| (extension.clone(), *count)).collect()
    }

    /// A remark about files that are pictures by their names, in a format that is not read.
    pub(crate) fn unread_pictures(&self) -> Option<String> {
        let unread: Vec<_> = (self.extensions.iter())
            .filter(|(extension, _)| UNREAD_PICTURES.contains(&extension.as_str()))
            .map(|(extension, count)| (extension.as_str(), *count))
            .collect();
        let n: usize = unread.iter().map(|(_, count)| count).sum();
        (n > 0).then(|| {
            let which = counted_extensions(unread);
            format!(
                "{n} pictures are in a format that is not read, and are left out: {which}; convert them to JPEG or PNG"
            )
        })
    }

    /// Adds what another folder holds besides candidates and unusable files.
    pub(crate) fn take_in(&mut self, other: Self) {
        self.n_files += other.n_files;
        self.n_hidden += other.n_hidden;
        self.n_repeated += other.n_repeated;
        for (extension, count) in other.extensions {
            *self.extensions.entry(extension).or_default() += count;
        }
        self.passed_over.extend(other.passed_over);
        self.passed_over.truncate(N_PASSED_OVER);
        self.top_folders.extend(other.top_folders);
    }
}

/// Walks the folder `root`, following links.
///
/// A link to something that the walk reaches by its own name as well is passed over, so that the own name counts and
/// not the link's. What several links reach is taken where a walk in byte order of the names meets it first. Every
/// folder is therefore entered once, and no arrangement of links can make the walk long. A link to a folder that contains
/// `root` is not entered: it would drag in everything around the data.
///
/// `reached` remembers what was met, so that folders that overlap are not read twice.
pub(crate) fn list_folder(root: &Path, reached: &mut HashSet<Identity>) -> Listing {
    let mut listing = Listing::default();
    let real_root = fs::canonicalize(root).ok();
    let mut walk = WalkDir::new(root)
        .follow_links(true)
        .sort_by(|a, b| a.file_name().as_encoded_bytes().cmp(b.file_name().as_encoded_bytes()))
        .into_iter();
    while let Some(step) = walk.next() {
        let entry = match step {
            Ok(entry) => entry,
            Err(error) => {
                note_failed_step(&mut listing, root, error);
                continue;
            }
        };
        let is_folder = entry.file_type().is_dir();
        // Other files may be reached as often as they like: a link can give one of them the name of a picture.
        let counts_once = is_folder || has_picture_extension(entry.path());
        // The root itself may be hidden, as temporary folders are.
        let passed_over = if entry.depth() > 0 && is_hidden(entry.file_name()) {
            listing.n_hidden += 1;
            true
        } else if is_needless_link(&entry, real_root.as_deref())
            || (counts_once && !identity(&entry).is_none_or(|id| reached.insert(id)))
        {
            listing.n_repeated += 1;
            true
        } else {
            false
        };
        match (is_folder, passed_over) {
            (true, true) => walk.skip_current_dir(),
            (true, false) if entry.depth() == 1 => listing.top_folders.push(PathBuf::from(entry.file_name())),
            (false, false) => note_file(&mut listing, root, &entry),
            _ => {}
        }
    }
    listing.candidates.sort_by_cached_key(|candidate| sort_key(candidate));
    listing
}

/// ".txt (10), without extension (2)".
pub(crate) fn counted_extensions<'a>(counts: impl IntoIterator<Item = (&'a str, usize)>) -> String {
    let spelled = counts.into_iter().map(|(extension, count)| match extension {
        "" => format!("without extension ({count})"),
        known => format!(".{} ({count})", known.escape_debug()),
    });
    spelled.collect::<Vec<_>>().join(", ")
}

fn note_file(listing: &mut Listing, root: &Path, entry: &DirEntry) {
    let relative = relative_to(root, entry.path());
    let is_candidate = has_picture_extension(&relative);
    if !entry.file_type().is_file() {
        if is_candidate {
            let error = SampleError { path: entry.path().to_owned(), problem: Problem::NotAFile };
            listing.unusable.push((relative, error));
        }
        return;
    }
    listing.n_files += 1;
    let extension = relative.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    *listing.extensions.entry(extension).or_default() += 1;
    if !is_candidate {
        if listing.passed_over.len() < N_PASSED_OVER {
            listing.passed_over.push(escape_relative(&relative));
        }
        return;
    }
    listing.candidates.push(relative);
}

/// A folder that cannot be listed and a link named like a picture that leads nowhere are unusable; other broken links
/// are nobody's picture.
fn note_failed_step(listing: &mut Listing, root: &Path, error: walkdir::Error) {
    if error.loop_ancestor().is_some() {
        listing.n_repeated += 1;
        return;
    }
    let path = error.path().unwrap_or(root).to_owned();
    let relative = relative_to(root, &path);
    let hidden = relative.file_name().is_some_and(is_hidden);
    let is_link = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink());
    if hidden || (is_link && !has_picture_extension(&relative)) {
        return;
    }
    let problem = Problem::Read(error.into_io_error().unwrap_or_else(|| std::io::ErrorKind::Other.into()));
    listing.unusable.push((relative, SampleError { path, problem }));
}

fn relative_to(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_owned()
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Whether the name is that of a picture.
pub(crate) fn has_picture_extension(path: &Path) -> bool {
    path.extension().is_some_and(|found| EXTENSIONS.iter().any(|known| found.eq_ignore_ascii_case(known)))
}

/// Whether the entry is a link to a folder that contains the root, or to something the walk reaches without it.
fn is_needless_link(entry: &DirEntry, real_root: Option<&Path>) -> bool {
    if entry.depth() == 0 || !entry.path_is_symlink() {
        return false;
    }
    let (Ok(target), Some(real_root)) = (fs::canonicalize(entry.path()), real_root) else { return false };
    let is_folder = entry.file_type().is_dir();
    match target.strip_prefix(real_root) {
        Ok(below_root) => {
            let hidden = below_root.components().any(|part| is_hidden(part.as_os_str()));
            !hidden && (is_folder || has_picture_extension(below_root))
        }
        Err(_) => is_folder && real_root.starts_with(&target),
    }
}

fn identity(entry: &DirEntry) -> Option<Identity> {
    identity_of(entry.path(), &entry.metadata().ok()?)
}

/// What two paths to the same file or folder share: device and inode.
#[cfg(unix)]
pub(crate) type Identity = (u64, u64);

/// What two paths to the same file or folder share: where links end.
#[cfg(not(unix))]
pub(crate) type Identity = PathBuf;

#[cfg(unix)]
pub(crate) fn identity_of(_: &Path, metadata: &fs::Metadata) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
pub(crate) fn identity_of(path: &Path, _: &fs::Metadata) -> Option<Identity> {
    fs::canonicalize(path).ok()
}
