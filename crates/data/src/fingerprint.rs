//! A 128-bit name for a set of pictures or for the bytes of one file.

use std::num::ParseIntError;
use std::str::FromStr;
use std::{fmt, io};

use serde::{Serialize, Serializer};
use twox_hash::XxHash3_128;

use crate::fixed_file::FixedFile;

/// A 128-bit XXH3 hash with seed 0, printed as 32 hexadecimal digits.
///
/// XXH3 is specified byte for byte and gives the same value on every platform and in every version. It tells apart
/// what differs by accident: another file, another size, an edit. It is no defence against someone who
/// constructs two files with the same hash on purpose.
///
/// # Source
/// <https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(XxHash3_128::oneshot(bytes))
    }

    /// The hash of a sequence of byte strings, each preceded by its length, so that none can run into the next.
    pub(crate) fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = XxHash3_128::new();
        for part in parts {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part);
        }
        Self(hasher.finish_128())
    }

    /// The hash of a whole file, read in pieces.
    pub(crate) fn of_file(file: &FixedFile) -> io::Result<Self> {
        let mut hasher = XxHash3_128::new();
        let mut piece = Vec::new();
        let mut at = 0;
        while at < file.len() {
            let n = (file.len() - at).min(1 << 20);
            file.read_at(at, n, &mut piece)?;
            hasher.write(&piece);
            at += n;
        }
        Ok(Self(hasher.finish_128()))
    }

    /// The value as bytes, to be hashed into another one.
    pub(crate) fn to_le_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", self.0)
    }
}

/// Reads what [`Display`](fmt::Display) writes.
impl FromStr for Fingerprint {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Fingerprint({self})")
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value for empty input is the one published with the reference implementation (XXH3_128bits, seed 0).
    #[test]
    fn is_xxh3_with_128_bits() {
        assert_eq!(Fingerprint::of(b"").to_string(), "99aa06d3014798d86001c324468d497f");
        assert_ne!(Fingerprint::of(b"a"), Fingerprint::of(b"b"));
        let read = Fingerprint::of(b"a").to_string().parse();
        assert_eq!(read, Ok(Fingerprint::of(b"a")));
    }
}
