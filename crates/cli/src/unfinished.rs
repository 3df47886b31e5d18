//! `Unfinished`: a file that appears complete or not at all.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use crate::failure::{Failure, at};

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
    /// [`Exit::Io`](crate::failure::Exit::Io) where nothing can be written there.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let unfinished = PathBuf::from(unfinished);
        let file = BufWriter::new(File::create(&unfinished).map_err(at(path))?);
        Ok(Self { file, unfinished, path: path.to_owned() })
    }

    /// Writes the content, makes it durable and gives it its name.
    ///
    /// # Errors
    /// [`Exit::Io`](crate::failure::Exit::Io) where it cannot be written.
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
