//! `.sha256sums` in a fetched folder: what was unpacked there, and that it was unpacked whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::checksum::{is_sha256, sha256_of};
use crate::unpack::{Unpacked, relative_path};

/// The format is that of `sha256sum`, so that `sha256sum --check .sha256sums` in the folder answers without twoview. It
/// takes lines with `#` for remarks; the first one names the archive.
pub(crate) const NAME: &str = ".sha256sums";

/// The beginning of the first line; the archive's SHA-256 follows.
const HEAD: &str = "# unpacked from the archive with sha256 ";

/// What a fetched folder turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// No such file: not a folder of ours.
    Absent,
    /// Of another archive, with this SHA-256.
    Other(String),
    /// This file is missing or not what was unpacked, or the list itself is damaged.
    Damaged(String),
    /// Everything is as it was unpacked.
    Whole {
        /// Files.
        files: u64,
        /// Bytes of all files.
        bytes: u64,
    },
}

/// Writes the list into a folder.
pub(crate) fn write(folder: &Path, archive_sha256: &str, unpacked: &Unpacked) -> io::Result<()> {
    let mut text = format!("{HEAD}{archive_sha256}\n");
    for (path, sha256) in &unpacked.files {
        text.push_str(&format!("{sha256}  {path}\n"));
    }
    // `create_new`: a member of the archive with this name is no list of ours.
    File::create_new(folder.join(NAME))?.write_all(text.as_bytes())
}

/// Hashes every file of the list; `on_bytes` hears how many bytes of how many and ends the work by returning false.
///
/// # Errors
/// Of the operating system where a file is there and cannot be read, and `Interrupted` where `on_bytes` ended it.
pub(crate) fn check(
    folder: &Path,
    archive_sha256: &str,
    on_bytes: &mut dyn FnMut(u64, u64) -> bool,
) -> io::Result<Checked> {
    let text = match fs::read(folder.join(NAME)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Checked::Absent),
        Err(error) => return Err(error),
    };
    let damaged = || Ok(Checked::Damaged(NAME.to_owned()));
    let Ok(text) = String::from_utf8(text) else { return damaged() };
    let Some((head, list)) = text.split_once('\n') else { return damaged() };
    match head.strip_prefix(HEAD) {
        Some(sha256) if sha256 == archive_sha256 => {}
        Some(sha256) => return Ok(Checked::Other(sha256.to_owned())),
        None => return damaged(),
    }
    let mut files = Vec::new();
    let mut total = 0;
    for line in list.lines() {
        let Some((sha256, name)) = line.split_once("  ").filter(|(sha256, _)| is_sha256(sha256)) else {
            return damaged();
        };
        let Ok(relative) = relative_path(name.as_bytes()) else { return damaged() };
        match folder.join(&relative).symlink_metadata() {
            Ok(metadata) if metadata.is_file() => total += metadata.len(),
            _ => return Ok(Checked::Damaged(name.to_owned())),
        }
        files.push((relative, name, sha256));
    }
    let mut done = 0;
    for (relative, name, sha256) in &files {
        let got = sha256_of(&folder.join(relative), |n| {
            done += n;
            on_bytes(done, total)
        })?;
        if got != *sha256 {
            return Ok(Checked::Damaged((*name).to_owned()));
        }
    }
    Ok(Checked::Whole { files: files.len() as u64, bytes: done })
}
