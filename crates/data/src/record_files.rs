//! Numbering the records of several files through, and naming them.

use std::path::{Path, PathBuf};

/// The files of a set with the number of records in each.
#[derive(Debug, Default)]
pub(crate) struct RecordFiles(Vec<RecordFile>);

#[derive(Debug)]
struct RecordFile {
    path: PathBuf,
    name: String,
    /// Records in the files before and in this one.
    end: usize,
}

impl RecordFiles {
    /// Adds a file behind the others.
    pub(crate) fn push(&mut self, path: &Path, n_records: usize) {
        let name = path.file_name().unwrap_or_default();
        let name = crate::escape_path(name.as_ref());
        self.0.push(RecordFile { path: path.to_owned(), name, end: self.len() + n_records });
    }

    /// Records of all files.
    pub(crate) fn len(&self) -> usize {
        self.0.last().map_or(0, |file| file.end)
    }

    /// Which file record `i` lies in, and which record of it that is.
    pub(crate) fn locate(&self, i: usize) -> (usize, usize) {
        let at = self.0.partition_point(|file| file.end <= i);
        let before = at.checked_sub(1).map_or(0, |before| self.0[before].end);
        (at, i - before)
    }

    /// `data_batch_1.bin/00042`
    pub(crate) fn name(&self, i: usize) -> String {
        let (at, record) = self.locate(i);
        format!("{}/{record:05}", self.0[at].name)
    }

    /// The file and the number of the record below it, as if the file were a folder.
    pub(crate) fn path(&self, i: usize) -> PathBuf {
        let (at, record) = self.locate(i);
        self.0[at].path.join(format!("{record:05}"))
    }

    /// Name and number of records of every file, for a fingerprint.
    pub(crate) fn identity(&self) -> Vec<u8> {
        self.0.iter().flat_map(|file| format!("{}\0{}\0", file.name, file.end).into_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_numbered_through_and_empty_files_passed_over() {
        let mut files = RecordFiles::default();
        for (name, n) in [("a/1.bin", 2), ("a/2.bin", 0), ("a/3.bin", 1)] {
            files.push(Path::new(name), n);
        }
        let names: Vec<String> = (0..files.len()).map(|i| files.name(i)).collect();
        assert_eq!(names, ["1.bin/00000", "1.bin/00001", "3.bin/00000"]);
        assert_eq!(files.path(2), Path::new("a/3.bin/00000"));
    }
}
