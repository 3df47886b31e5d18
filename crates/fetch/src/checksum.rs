//! SHA-256 of what is read, in hexadecimal.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes read at once.
pub(crate) const CHUNK: usize = 1 << 16;

/// Whether a text is a SHA-256: 64 lower-case hexadecimal digits.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The digest as text.
pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Hashes a file; `on_bytes` is told how many bytes each piece had and ends the work by returning false.
///
/// # Errors
/// Of the operating system, and `Interrupted` where `on_bytes` ended it.
pub(crate) fn sha256_of(path: &Path, mut on_bytes: impl FnMut(u64) -> bool) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = match file.read(&mut chunk) {
            Ok(0) => return Ok(hex(hash)),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&chunk[..n]);
        if !on_bytes(n as u64) {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_standard() {
        // The examples of FIPS 180-2, appendix B.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(Sha256::new_with_prefix("abc")), abc);
        assert!(is_sha256(abc) && !is_sha256(&abc[1..]) && !is_sha256(&abc.to_uppercase()));
    }
}
