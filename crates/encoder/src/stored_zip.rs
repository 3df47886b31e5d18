//! The zip archive that `torch.save` writes: every entry stored as it is.
//!
//! A reader of this one kind is small, and it cannot be made to unpack: an entry is never larger than the file. The
//! sizes come from the central directory, as the zip format wants it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::safetensors_file::read_bytes;

/// The largest central directory that is read: a hundred thousand entries, as many tensors.
const MAX_DIRECTORY_BYTES: u64 = 16 << 20;
/// Ends an archive, followed by at most 65,535 bytes of comment.
const END_BYTES: u64 = 22;
const LOCATOR_BYTES: u64 = 20;
const LOCAL_HEADER_BYTES: u64 = 30;

/// Why an archive or one of its entries cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZipError {
    /// The operating system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The bytes are no complete archive.
    #[error("{} is no complete zip archive: {reason}; was it copied or downloaded to the end?", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// An entry is packed, which could make it unpack to any size.
    #[error(
        "{}: the entry `{entry}` is compressed, which PyTorch never does; only stored entries are read. Save the weights again with \
         torch.save",
        path.display()
    )]
    Compressed {
        /// The file.
        path: PathBuf,
        /// Name of the entry.
        entry: String,
    },
    /// There is no such entry.
    #[error("{} has no entry `{entry}`: it is truncated, or no file of torch.save", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Name of the entry.
        entry: String,
    },
    /// An entry is larger than what it is read for may be.
    #[error("{}: the entry `{entry}` has {got} bytes, expected at most {max}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Name of the entry.
        entry: String,
        /// The limit.
        max: u64,
        /// Its size.
        got: u64,
    },
    /// The content is not what was written.
    #[error("{}: the entry `{entry}` is damaged: its checksum is {got:08x}, expected {expected:08x}", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Name of the entry.
        entry: String,
        /// CRC-32 in the directory.
        expected: u32,
        /// CRC-32 of the content.
        got: u32,
    },
}

/// An open archive with its directory.
#[derive(Debug)]
pub(crate) struct StoredZip {
    path: PathBuf,
    file: File,
    len: u64,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    stored: bool,
    crc32: u32,
    bytes: u64,
    /// Of the local header.
    at: u64,
}

impl StoredZip {
    /// Reads the directory of an archive.
    pub(crate) fn open(path: &Path) -> Result<Self, ZipError> {
        let failed = |source| ZipError::Io { path: path.to_owned(), source };
        let corrupt = |reason| ZipError::Corrupt { path: path.to_owned(), reason };
        let mut file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let mut read =
            |at: u64, n: u64| file.seek(SeekFrom::Start(at)).and_then(|_| read_bytes(&mut file, n)).map_err(failed);

        let tail_at = len.saturating_sub(END_BYTES + LOCATOR_BYTES + u64::from(u16::MAX));
        let tail = read(tail_at, len - tail_at)?;
        let end = (0..tail.len().saturating_sub(21))
            .rev()
            .find(|&i| {
                tail[i..].starts_with(b"PK\x05\x06") && i + 22 + usize::from(u16_at(&tail, i + 20)) == tail.len()
            })
            .ok_or_else(|| corrupt("its end is missing"))?;
        let mut n_bytes = u64::from(u32_at(&tail, end + 12));
        let mut begins = u64::from(u32_at(&tail, end + 16));
        // The same in 64 bits, where 32 do not suffice.
        if u16_at(&tail, end + 10) == u16::MAX || n_bytes == u64::from(u32::MAX) || begins == u64::from(u32::MAX) {
            let locator = end.checked_sub(20).filter(|&i| tail[i..].starts_with(b"PK\x06\x07"));
            let wide = u64_at(&tail, locator.ok_or_else(|| corrupt("its 64-bit end is missing"))? + 8);
            if wide.checked_add(56).is_none_or(|end| end > len) {
                return Err(corrupt("its 64-bit end lies outside"));
            }
            let wide = read(wide, 56)?;
            if !wide.starts_with(b"PK\x06\x06") {
                return Err(corrupt("its 64-bit end is missing"));
            }
            (n_bytes, begins) = (u64_at(&wide, 40), u64_at(&wide, 48));
        }
        if n_bytes > MAX_DIRECTORY_BYTES || begins.checked_add(n_bytes).is_none_or(|end| end > len) {
            return Err(corrupt("its directory lies outside or is too large"));
        }
        let entries = directory(&read(begins, n_bytes)?).map_err(corrupt)?;
        Ok(Self { path: path.to_owned(), file, len, entries })
    }

    /// The names of all entries.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The content of an entry of at most `max` bytes, checked against its checksum.
    pub(crate) fn read(&mut self, name: &str, max: u64) -> Result<Vec<u8>, ZipError> {
        let (path, entry) = (|| self.path.clone(), || name.to_owned());
        let failed = |source| ZipError::Io { path: self.path.clone(), source };
        let corrupt = |reason| ZipError::Corrupt { path: path(), reason };
        let found = *self.entries.get(name).ok_or_else(|| ZipError::Missing { path: path(), entry: entry() })?;
        if !found.stored {
            return Err(ZipError::Compressed { path: path(), entry: entry() });
        }
        if found.bytes > max {
            return Err(ZipError::TooLarge { path: path(), entry: entry(), max, got: found.bytes });
        }
        if found.at.checked_add(LOCAL_HEADER_BYTES).is_none_or(|end| end > self.len) {
            return Err(corrupt("an entry lies outside"));
        }
        self.file.seek(SeekFrom::Start(found.at)).map_err(failed)?;
        let mut header = [0; 30];
        self.file.read_exact(&mut header).map_err(failed)?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(corrupt("an entry has no header"));
        }
        let begins = found.at + LOCAL_HEADER_BYTES + u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
        if begins.checked_add(found.bytes).is_none_or(|end| end > self.len) {
            return Err(corrupt("an entry lies outside"));
        }
        self.file.seek(SeekFrom::Start(begins)).map_err(failed)?;
        let content = read_bytes(&mut self.file, found.bytes).map_err(failed)?;
        let got = crc32fast::hash(&content);
        if got != found.crc32 {
            return Err(ZipError::Checksum { path: path(), entry: entry(), expected: found.crc32, got });
        }
        Ok(content)
    }
}

fn directory(bytes: &[u8]) -> Result<BTreeMap<String, Entry>, &'static str> {
    let mut entries = BTreeMap::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if rest.len() < 46 || !rest.starts_with(b"PK\x01\x02") {
            return Err("its directory is damaged");
        }
        let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(u16_at(rest, at)));
        let record = rest.get(..46 + name + extra + comment).ok_or("its directory is damaged")?;
        rest = &rest[record.len()..];
        let mut wide = wide_numbers(&record[46 + name..46 + name + extra]);
        let mut number = |at: usize| match u32_at(record, at) {
            u32::MAX => wide.next().ok_or("its directory is damaged"),
            narrow => Ok(u64::from(narrow)),
        };
        // In the order in which their wide forms follow one another.
        let (unpacked, packed, at) = (number(24)?, number(20)?, number(42)?);
        let (encrypted, method) = (u16_at(record, 8) & 1 != 0, u16_at(record, 10));
        let stored = method == 0 && !encrypted;
        if stored && packed != unpacked {
            return Err("an entry has two sizes");
        }
        let entry = Entry { stored, crc32: u32_at(record, 16), bytes: unpacked, at };
        let name = String::from_utf8_lossy(&record[46..46 + name]).into_owned();
        if entries.insert(name, entry).is_some() {
            return Err("two entries have one name");
        }
    }
    Ok(entries)
}

/// The 64-bit numbers in the extra fields of a directory record.
fn wide_numbers(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut field: &[u8] = &[];
    while let [a, b, c, d, rest @ ..] = extra {
        let n = usize::from(u16::from_le_bytes([*c, *d])).min(rest.len());
        if u16::from_le_bytes([*a, *b]) == 1 {
            field = &rest[..n];
        }
        extra = &rest[n..];
    }
    field.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..].first_chunk().copied().unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(number(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(number(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(number(bytes, at))
}
