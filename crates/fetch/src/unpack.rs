//! Out of a gzipped tar file, and not one byte elsewhere.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType, PaxExtensions};

use crate::checksum::{CHUNK, hex};

/// Longest name of a member, and most bytes of the header that may hold one.
const MAX_NAME: usize = 1024;
const MAX_EXTENSION: u64 = 64 << 10;
/// Folders within folders.
const MAX_DEPTH: usize = 32;

/// How much may come out of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnpackLimits {
    /// Most members: files and folders together.
    pub max_files: u64,
    /// Most bytes of all files together.
    pub max_bytes: u64,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Relative path with `/` between its parts, and SHA-256, in the order of the archive.
    pub files: Vec<(String, String)>,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Why an archive was not unpacked, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// A member is called something that is not a plain path below the folder.
    #[error("the archive has a member called `{name}`: {reason}")]
    Name {
        /// The name, unprintable bytes escaped.
        name: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// A member is neither a file nor a folder.
    #[error("the archive's member `{name}` is {kind}; only files and folders are unpacked")]
    Kind {
        /// The member.
        name: String,
        /// What it is.
        kind: String,
    },
    /// Two members are the same file, or one is a file and another a folder of that name.
    #[error("the archive holds `{name}` twice")]
    Twice {
        /// The member.
        name: String,
    },
    /// More members than allowed.
    #[error("the archive has more than {max_files} files and folders, the limit")]
    TooManyFiles {
        /// The limit.
        max_files: u64,
    },
    /// More bytes than allowed.
    #[error("the archive's files have more than {max_bytes} bytes, the limit; `{name}` would exceed it")]
    TooLarge {
        /// The member that would break the limit.
        name: String,
        /// The limit.
        max_bytes: u64,
    },
    /// The bytes are not a gzipped tar file, or end early.
    #[error("the archive is corrupt after {n_files} files: {reason}")]
    Corrupt {
        /// Files that came out whole.
        n_files: usize,
        /// What the reader said.
        reason: io::Error,
    },
    /// The archive cannot be read from the disk.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The archive.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Whoever watches wanted it to end.
    #[error("stopped")]
    Stopped,
}

/// Unpacks a gzipped tar file into a folder that does not exist yet.
///
/// Only plain files and folders come out, without owners, permissions or times. Names must be relative UTF-8 without `..`,
/// backslashes, colons and control characters, links and devices are refused rather than skipped, no file is written twice,
/// and what the headers claim is held against `limits` before it is read. So nothing can be written outside `dest`,
/// whatever the archive says. `on_bytes` hears after every piece how many files and bytes there are and ends the work by
/// returning false.
///
/// # Errors
/// [`UnpackError`]. What was written so far stays; remove `dest`.
///
/// # Cost
/// Memory of 64 KiB for names and a piece, and the list of files.
///
/// # Example
/// ```no_run
/// use twoview_fetch::{UnpackLimits, unpack_tar_gz};
///
/// let limits = UnpackLimits { max_files: 20, max_bytes: 200_000_000 };
/// let unpacked = unpack_tar_gz("cifar-10-binary.tar.gz".as_ref(), "files".as_ref(), limits, &mut |_, _| true)?;
/// println!("{} files, {} bytes", unpacked.files.len(), unpacked.bytes);
/// # Ok::<(), twoview_fetch::UnpackError>(())
/// ```
pub fn unpack_tar_gz(
    archive: &Path,
    dest: &Path,
    limits: UnpackLimits,
    on_bytes: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Unpacked, UnpackError> {
    let unreadable = |source| UnpackError::Unreadable { path: archive.to_owned(), source };
    let file = File::open(archive).map_err(unreadable)?;
    fs::create_dir(dest).map_err(|source| UnpackError::Write { path: dest.to_owned(), source })?;
    let mut archive = Archive::new(MultiGzDecoder::new(BufReader::with_capacity(CHUNK, file)));
    let mut unpacking = Unpacking { dest, limits, on_bytes, done: Unpacked::default(), n_members: 0 };
    // Raw: the headers that carry long names are handled here, because the tar crate would read them whole, of any length.
    let entries = archive.entries().map_err(|reason| unpacking.corrupt(reason))?.raw(true);
    let mut long_name: Option<Vec<u8>> = None;
    for entry in entries {
        let mut entry = entry.map_err(|reason| unpacking.corrupt(reason))?;
        let kind = entry.header().entry_type();
        let size = entry.size();
        // Headers that only describe count as members, or an archive could consist of them without end.
        unpacking.count_member()?;
        if kind.is_gnu_longname() || kind.is_pax_local_extensions() {
            let bytes = unpacking.extension(&mut entry, size)?;
            let name = if kind.is_gnu_longname() { Some(bytes) } else { unpacking.pax_name(&bytes)? };
            long_name = name.or(long_name);
        } else if kind.is_pax_global_extensions() {
            // Remarks such as a commit; a name in it would be the same for all members.
            unpacking.extension(&mut entry, size)?;
        } else {
            let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
            unpacking.member(&name, kind, size, &mut entry)?;
        }
    }
    Ok(unpacking.done)
}

/// A member's name as a path below a folder.
pub(crate) fn relative_path(name: &[u8]) -> Result<PathBuf, UnpackError> {
    let wrong = |reason| Err(UnpackError::Name { name: name.escape_ascii().to_string(), reason });
    let name = name.strip_suffix(b"\0").unwrap_or(name);
    if name.len() > MAX_NAME {
        return wrong("it is longer than 1024 bytes");
    }
    let Ok(text) = str::from_utf8(name) else { return wrong("it is not UTF-8") };
    if text.chars().any(|c| c.is_control() || c == '\\' || c == ':') {
        return wrong("control characters, backslashes and colons are not allowed");
    }
    if text.starts_with('/') {
        return wrong("it is an absolute path");
    }
    let mut path = PathBuf::new();
    for part in text.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            return wrong("it leads out of the folder");
        }
        path.push(part);
    }
    if path.components().count() > MAX_DEPTH {
        return wrong("it has more than 32 folders within each other");
    }
    Ok(path)
}

struct Unpacking<'a> {
    dest: &'a Path,
    limits: UnpackLimits,
    on_bytes: &'a mut dyn FnMut(u64, u64) -> bool,
    done: Unpacked,
    n_members: u64,
}

impl Unpacking<'_> {
    fn corrupt(&self, reason: io::Error) -> UnpackError {
        UnpackError::Corrupt { n_files: self.done.files.len(), reason }
    }

    fn count_member(&mut self) -> Result<(), UnpackError> {
        self.n_members += 1;
        // Long names come as a member before the member.
        if self.n_members > self.limits.max_files.saturating_mul(2) {
            return Err(UnpackError::TooManyFiles { max_files: self.limits.max_files });
        }
        self.go_on()
    }

    fn go_on(&mut self) -> Result<(), UnpackError> {
        let go_on = (self.on_bytes)(self.done.files.len() as u64, self.done.bytes);
        if go_on { Ok(()) } else { Err(UnpackError::Stopped) }
    }

    /// The content of a header that describes the next member.
    fn extension(&self, entry: &mut impl Read, size: u64) -> Result<Vec<u8>, UnpackError> {
        if size > MAX_EXTENSION {
            let reason = format!("a header of {size} bytes describes a member; the limit is {MAX_EXTENSION}");
            return Err(self.corrupt(io::Error::other(reason)));
        }
        let mut bytes = Vec::new();
        entry.by_ref().take(size).read_to_end(&mut bytes).map_err(|reason| self.corrupt(reason))?;
        Ok(bytes)
    }

    /// The name in a pax header, if it has one.
    fn pax_name(&self, bytes: &[u8]) -> Result<Option<Vec<u8>>, UnpackError> {
        let mut name = None;
        for record in PaxExtensions::new(bytes) {
            let record = record.map_err(|reason| self.corrupt(reason))?;
            match record.key_bytes() {
                b"path" => name = Some(record.value_bytes().to_owned()),
                // It would overrule the size in the header, and readers that disagree see different archives.
                b"size" => return Err(self.corrupt(io::Error::other("a pax header gives a size of its own"))),
                _ => {}
            }
        }
        Ok(name)
    }

    fn member(&mut self, name: &[u8], kind: EntryType, size: u64, data: &mut impl Read) -> Result<(), UnpackError> {
        let relative = relative_path(name)?;
        let name = slashed(&relative);
        let path = self.dest.join(&relative);
        if kind.is_dir() {
            return self.create_folders(&path, &name);
        }
        if !kind.is_file() {
            return Err(UnpackError::Kind { name, kind: describe(kind) });
        }
        if relative.as_os_str().is_empty() {
            return Err(UnpackError::Name { name: ".".to_owned(), reason: "a file needs a name of its own" });
        }
        let max_bytes = self.limits.max_bytes;
        if size > max_bytes.saturating_sub(self.done.bytes) {
            return Err(UnpackError::TooLarge { name, max_bytes });
        }
        if self.done.files.len() as u64 >= self.limits.max_files {
            return Err(UnpackError::TooManyFiles { max_files: self.limits.max_files });
        }
        self.create_folders(path.parent().unwrap_or(self.dest), &name)?;
        let hash = self.write(&path, &name, size, data)?;
        self.done.files.push((name, hash));
        Ok(())
    }

    fn create_folders(&self, path: &Path, name: &str) -> Result<(), UnpackError> {
        fs::create_dir_all(path).map_err(|source| refused(source, path, name))
    }

    fn write(&mut self, path: &Path, name: &str, size: u64, data: &mut impl Read) -> Result<String, UnpackError> {
        // `create_new`, so that nothing that lies there is ever written through.
        let mut file = File::create_new(path).map_err(|source| refused(source, path, name))?;
        let mut hash = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            let n = match data.read(&mut chunk[..want]) {
                Ok(0) => return Err(self.corrupt(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.corrupt(error)),
            };
            hash.update(&chunk[..n]);
            let written = file.write_all(&chunk[..n]);
            written.map_err(|source| UnpackError::Write { path: path.to_owned(), source })?;
            left -= n as u64;
            self.done.bytes += n as u64;
            self.go_on()?;
        }
        Ok(hex(hash))
    }
}

/// Something lies there already, which only the archive can have put there; or the disk refuses.
fn refused(source: io::Error, path: &Path, name: &str) -> UnpackError {
    match source.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            UnpackError::Twice { name: name.to_owned() }
        }
        _ => UnpackError::Write { path: path.to_owned(), source },
    }
}

/// A relative path with `/` on every system. The parts came from UTF-8.
fn slashed(path: &Path) -> String {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

fn describe(kind: EntryType) -> String {
    match kind {
        EntryType::Link => "a hard link".to_owned(),
        EntryType::Symlink => "a symbolic link".to_owned(),
        EntryType::Char | EntryType::Block => "a device".to_owned(),
        EntryType::Fifo => "a pipe".to_owned(),
        EntryType::GNUSparse => "a sparse file".to_owned(),
        other => format!("of type {:?}", char::from(other.as_byte())),
    }
}
