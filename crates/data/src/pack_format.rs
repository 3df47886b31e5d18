//! The layout of a pack file.
//!
//! ```text
//! 0      header, 88 bytes, zeros up to 4096
//! 4096   blobs, one after the other; one of 64 KiB or more begins on a page of 4096 bytes
//!        index: n records of 40 bytes
//!        names: the names of all records, UTF-8, without anything between them
//!        meta:  JSON
//! ```
//!
//! All numbers are little-endian. Header: magic, version `u32`, zero `u32`, then as `u64` the length of the file, the
//! number of records, and offset and length of index, names and meta; last the XXH3-64 of everything but the blobs (the
//! header up to here, index, names, meta). Index record: offset `u64`, XXH3-64 of the blob `u64`, length `u32`, width
//! `u32`, height `u32`, label `u32` (all ones: none), length of the name `u32`, codec `u8`, three zeros.

use std::hash::Hasher as _;

use twox_hash::XxHash3_64;

/// The first bytes of every pack.
pub(crate) const MAGIC: [u8; 8] = *b"TWOVPACK";
/// Goes up when the layout changes in a way that older programs would read wrongly.
pub(crate) const VERSION: u32 = 1;
/// Where the blobs begin, and what large ones are aligned to.
pub(crate) const PAGE: u64 = 4096;
/// Blobs of at least this length begin on a page: at most a sixteenth is lost.
pub(crate) const ALIGNED_BYTES: u64 = 64 << 10;
pub(crate) const HEADER_BYTES: usize = 88;
pub(crate) const RECORD_BYTES: usize = 40;
/// The label of a picture without one.
pub(crate) const NO_LABEL: u32 = u32::MAX;

/// How a blob holds its picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// A picture file: JPEG, PNG, ...
    File = 0,
    /// `width * height * 3` bytes.
    Rgb8 = 1,
}

/// Where the parts of a pack lie, each as offset and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) file_bytes: u64,
    pub(crate) n: u64,
    pub(crate) index: (u64, u64),
    pub(crate) names: (u64, u64),
    pub(crate) meta: (u64, u64),
    pub(crate) checksum: u64,
}

/// What a pack says about itself before its parts are looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Header(Header),
    Foreign,
    OtherVersion(u32),
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let numbers = [
            self.file_bytes,
            self.n,
            self.index.0,
            self.index.1,
            self.names.0,
            self.names.1,
            self.meta.0,
            self.meta.1,
            self.checksum,
        ];
        for (field, number) in bytes[16..].as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *field = number.to_le_bytes();
        }
        bytes
    }

    pub(crate) fn read(bytes: &[u8; HEADER_BYTES]) -> Opening {
        if bytes[..8] != MAGIC {
            return Opening::Foreign;
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Opening::OtherVersion(version);
        }
        let number = |i: usize| u64_at(bytes, 16 + 8 * i);
        Opening::Header(Self {
            file_bytes: number(0),
            n: number(1),
            index: (number(2), number(3)),
            names: (number(4), number(5)),
            meta: (number(6), number(7)),
            checksum: number(8),
        })
    }

    /// The checksum that belongs to these parts.
    pub(crate) fn checksum_of(self, index: &[u8], names: &[u8], meta: &[u8]) -> u64 {
        let mut hasher = XxHash3_64::new();
        hasher.write(&self.to_bytes()[..HEADER_BYTES - 8]);
        [index, names, meta].into_iter().for_each(|part| hasher.write(part));
        hasher.finish()
    }
}

/// One picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) offset: u64,
    pub(crate) checksum: u64,
    pub(crate) bytes: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) label: u32,
    pub(crate) name_bytes: u32,
    pub(crate) codec: Codec,
}

impl Record {
    pub(crate) fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.checksum.to_le_bytes());
        let numbers = [self.bytes, self.width, self.height, self.label, self.name_bytes];
        for (field, number) in bytes[16..36].as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
            *field = number.to_le_bytes();
        }
        bytes[36] = self.codec as u8;
        bytes
    }

    /// `None` for a codec that does not exist.
    pub(crate) fn read(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let codec = match bytes[36] {
            0 => Codec::File,
            1 => Codec::Rgb8,
            _ => return None,
        };
        let number = |i: usize| u32_at(bytes, 16 + 4 * i);
        Some(Self {
            offset: u64_at(bytes, 0),
            checksum: u64_at(bytes, 8),
            bytes: number(0),
            width: number(1),
            height: number(2),
            label: number(3),
            name_bytes: number(4),
            codec,
        })
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_records_come_back() {
        let header =
            Header { file_bytes: 1, n: 2, index: (3, 4), names: (5, 6), meta: (7, 8), checksum: 0x0123_4567_89ab_cdef };
        assert_eq!(Header::read(&header.to_bytes()), Opening::Header(header));
        let record = Record {
            offset: u64::MAX - 1,
            checksum: 2,
            bytes: 3,
            width: 70_000,
            height: 4,
            label: NO_LABEL,
            name_bytes: 5,
            codec: Codec::Rgb8,
        };
        assert_eq!(Record::read(&record.to_bytes()), Some(record));
    }
}
