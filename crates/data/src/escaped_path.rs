//! Paths as one line of text that can be turned back into the same bytes.

use std::fmt::Write as _;
use std::path::Path;

/// Writes a path so that it survives a terminal, a log line and JSON, whatever bytes its names hold.
///
/// Printable text stays as it is. A control character becomes `\n`, `\r`, `\t` or `\u{1b}`, a byte that is not UTF-8
/// becomes `\xff`, and on systems where a backslash can be part of a name it becomes `\\`. Two different paths
/// therefore never look alike.
///
/// # Example
/// ```
/// # use std::path::Path;
/// assert_eq!(twoview_data::escape_path(Path::new("cats/a\nb.jpg")), r"cats/a\nb.jpg");
/// ```
pub fn escape_path(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            let is_backslash_in_name = character == '\\' && !cfg!(windows);
            if character.is_control() || is_backslash_in_name {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The path of a picture below its root as one name on every system: `/` between components, each escaped.
pub(crate) fn escape_relative(path: &Path) -> String {
    let parts: Vec<String> = path.components().map(|part| escape_path(part.as_ref())).collect();
    parts.join("/")
}

/// What pictures are sorted by: the encoded bytes of the relative path with `/` between components.
pub(crate) fn sort_key(path: &Path) -> Vec<u8> {
    let mut key = Vec::with_capacity(path.as_os_str().len());
    for part in path.components() {
        if !key.is_empty() {
            key.push(b'/');
        }
        key.extend_from_slice(part.as_os_str().as_encoded_bytes());
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_stay_readable() {
        for name in ["cats/0001.jpg", "-rf", "emoji 🐈/ü.png", "a'b\"c"] {
            assert_eq!(escape_path(Path::new(name)), name);
        }
    }

    #[cfg(unix)]
    #[test]
    fn odd_bytes_are_spelled_out_and_never_collide() {
        use std::os::unix::ffi::OsStrExt as _;
        let spelled = |bytes: &[u8]| escape_path(Path::new(std::ffi::OsStr::from_bytes(bytes)));
        assert_eq!(spelled(b"\xff.jpg"), r"\xff.jpg");
        assert_eq!(spelled(br"\xff.jpg"), r"\\xff.jpg");
        assert_eq!(spelled(b"a\x1b[31m\t"), r"a\u{1b}[31m\t");
        assert_eq!(spelled(b"\xe2\x82.png"), r"\xe2\x82.png");
    }

    #[test]
    fn sort_key_is_bytewise_over_the_whole_path() {
        let mut paths = ["b/1", "a/1", "a-b/1", "a/é", "B/1", "a/z"];
        paths.sort_by_key(|path| sort_key(Path::new(path)));
        assert_eq!(paths, ["B/1", "a-b/1", "a/1", "a/z", "a/é", "b/1"]);
    }
}
