//! `Unfinished`: a file that appears complete or not at all.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use twoview_train::RunDir;

use crate::failure::{Exit, Failure, at};

/// Refuses a path that no output belongs at. A command that works for long asks this before it begins.
///
/// # Errors
/// [`Exit::Usage`] where `path` is no regular file, whose place a file would take, or belongs to the record of a run.
pub(crate) fn may_write(path: &Path) -> Result<(), Failure> {
    let refused = |why: &str| Failure::new(Exit::Usage, format!("cannot write {}: {why}", path.display()));
    if path.is_dir() {
        return Err(refused("it is a folder; name a file"));
    }
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(refused("it is a device or a pipe; name a file"));
    }
    if RunDir::is_record(path) {
        return Err(refused("a run keeps something of its own there; name another file"));
    }
    Ok(())
}

/// The file that a link leads to, which is the one that is meant; any other path as it is.
///
/// # Errors
/// The operating system's, where the link leads nowhere.
pub(crate) fn resolved(path: &Path) -> io::Result<PathBuf> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    if is_link { fs::canonicalize(path) } else { Ok(path.to_owned()) }
}

/// A file on its way: under another name until it is complete, removed if it never is.
pub(crate) struct Unfinished {
    file: BufWriter<File>,
    unfinished: PathBuf,
    path: PathBuf,
}

impl Unfinished {
    /// Begins the file at `path`, which stays untouched until the end.
    ///
    /// # Errors
    /// [`Exit::Io`] where nothing can be written there, else as [`may_write`].
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        may_write(path)?;
        Self::create_own(&resolved(path).map_err(at(path))?)
    }

    /// As [`create`](Self::create), for what belongs to the record of a run.
    ///
    /// # Errors
    /// [`Exit::Io`] where nothing can be written there.
    pub(crate) fn create_own(path: &Path) -> Result<Self, Failure> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let unfinished = PathBuf::from(unfinished);
        let file = BufWriter::new(File::create(&unfinished).map_err(at(path))?);
        Ok(Self { file, unfinished, path: path.to_owned() })
    }

    /// Writes a file that is in memory.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`finish`](Self::finish).
    pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), Failure> {
        Self::create(path)?.finish(|file| file.write_all(content.as_ref()))
    }

    /// Writes the content, makes it durable and gives it its name.
    ///
    /// # Errors
    /// [`Exit::Io`] where it cannot be written.
    pub(crate) fn finish(mut self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), Failure> {
        write(&mut self.file)
            .and_then(|()| self.file.flush())
            .and_then(|()| self.file.get_ref().sync_all())
            .and_then(|()| fs::rename(&self.unfinished, &self.path))
            .map_err(at(&self.path))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the rename there is nothing under this name; before it, there is nothing worth keeping.
        let _ = fs::remove_file(&self.unfinished);
    }
}
