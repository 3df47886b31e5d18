//! Where a million files are and how to tell whether they are still the same, in few bytes each.

use std::path::{Path, PathBuf};

/// The class of a file that has none.
const NO_LABEL: u32 = u32::MAX;

/// Files with their size, class and seal: one arena of bytes for all paths and a record of fixed size for each file.
///
/// A file costs 40 bytes and the bytes of its path below its root.
#[derive(Debug, Default)]
pub(crate) struct FileTable {
    paths: Vec<u8>,
    records: Vec<Record>,
}

#[derive(Debug)]
struct Record {
    /// End of its path in the arena; the one before ends where it starts.
    path_end: u64,
    bytes: u64,
    root: u32,
    label: u32,
    seal: [u8; 16],
}

impl FileTable {
    pub(crate) fn with_capacity(n_files: usize, path_bytes: usize) -> Self {
        Self { paths: Vec::with_capacity(path_bytes), records: Vec::with_capacity(n_files) }
    }

    /// Adds a file: which root it belongs to, its path below it, its class, its size, and what it is recognised by.
    pub(crate) fn push(&mut self, root: u32, relative: &Path, label: Option<u32>, bytes: u64, seal: [u8; 16]) {
        self.paths.extend_from_slice(relative.as_os_str().as_encoded_bytes());
        let (path_end, label) = (self.paths.len() as u64, label.unwrap_or(NO_LABEL));
        self.records.push(Record { path_end, bytes, root, label, seal });
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Memory for all files together, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.paths.capacity() + self.records.capacity() * size_of::<Record>()
    }

    pub(crate) fn root(&self, i: usize) -> usize {
        self.records[i].root as usize
    }

    /// The path below the root.
    pub(crate) fn relative(&self, i: usize) -> PathBuf {
        let start = if i == 0 { 0 } else { self.records[i - 1].path_end };
        // The arena is in memory, so its lengths fit.
        let range = |end: u64| usize::try_from(end).unwrap_or(usize::MAX);
        path_of(&self.paths[range(start)..range(self.records[i].path_end)])
    }

    pub(crate) fn label(&self, i: usize) -> Option<u32> {
        Some(self.records[i].label).filter(|&label| label != NO_LABEL)
    }

    pub(crate) fn bytes(&self, i: usize) -> u64 {
        self.records[i].bytes
    }

    pub(crate) fn seal(&self, i: usize) -> [u8; 16] {
        self.records[i].seal
    }
}

/// A path from its encoded bytes.
#[cfg(unix)]
pub(crate) fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// A path from its encoded bytes. A name that is no Unicode, which only a broken program makes on these systems, leads
/// nowhere and so to a bad file.
#[cfg(not(unix))]
pub(crate) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let mut table = FileTable::with_capacity(2, 8);
        table.push(0, Path::new("a/b.png"), Some(3), 99, [7; 16]);
        table.push(1, Path::new(""), None, u64::MAX, [0; 16]);
        table.push(2, Path::new("c"), Some(0), 0, [9; 16]);
        let of = |i| (table.root(i), table.relative(i), table.label(i), table.bytes(i), table.seal(i));
        assert_eq!(of(0), (0, PathBuf::from("a/b.png"), Some(3), 99, [7; 16]));
        assert_eq!(of(1), (1, PathBuf::new(), None, u64::MAX, [0; 16]));
        assert_eq!(of(2), (2, PathBuf::from("c"), Some(0), 0, [9; 16]));
        assert_eq!((table.len(), size_of::<Record>()), (3, 40));
    }
}
