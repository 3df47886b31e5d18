//! A file of which parts are read at any place and from any thread.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A regular file whose length was taken when it was opened. Reads name their place, so threads share it.
///
/// `pread` and not a memory map: a map of a file that someone shortens ends the process with a signal.
#[derive(Debug)]
pub(crate) struct FixedFile {
    path: PathBuf,
    bytes: u64,
    file: Option<File>,
}

impl FixedFile {
    /// Opens a file and keeps it open.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = open_regular(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), bytes, file: Some(file) })
    }

    /// Lets go of the handle; from now on every read opens the file anew. For sets of more files than a process may
    /// hold open.
    pub(crate) fn release(&mut self) {
        self.file = None;
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How long it was when it was opened.
    pub(crate) fn len(&self) -> u64 {
        self.bytes
    }

    /// Fills `out` from the bytes at `offset`.
    pub(crate) fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &self.file {
            Some(file) => read_exact_at(file, offset, out),
            None => read_exact_at(&open_regular(&self.path)?, offset, out),
        }
    }

    /// Makes `out` the `bytes` bytes at `offset`. Nothing is allocated for bytes that the file does not have.
    pub(crate) fn read_at(&self, offset: u64, bytes: u64, out: &mut Vec<u8>) -> io::Result<()> {
        let fits = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        let length = usize::try_from(bytes).ok().filter(|_| fits).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.resize(length, 0);
        self.read_exact_at(offset, out)
    }

    /// The whole file.
    pub(crate) fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_at(0, self.bytes, &mut bytes)?;
        Ok(bytes)
    }
}

/// Opens a file and nothing else: opening a pipe would wait for its writer.
fn open_regular(path: &Path) -> io::Result<File> {
    if fs::metadata(path)?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, out, offset)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (offset, out) = (offset + n as u64, &mut out[n..]);
    }
    Ok(())
}
