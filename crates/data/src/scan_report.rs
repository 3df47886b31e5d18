//! What a scan found out about a folder of pictures.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::{Fingerprint, SampleError, escape_path};

/// The result of opening a folder: what it holds, what was left out and why.
///
/// Serializes to JSON with paths as [`escape_path`] spells them.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ScanReport {
    /// The folder that was scanned; of several, all with commas between; or the file that names the pictures.
    #[serde(serialize_with = "as_escaped")]
    pub root: PathBuf,
    /// Pictures that can be used.
    pub pictures: usize,
    /// Whether there are labels: from a table, or because the first folder of each path was read as its class.
    pub labelled: bool,
    /// Whether only the beginning of each file was read.
    pub headers_only: bool,
    /// The classes, byte-wise sorted, with their pictures; empty when unlabelled.
    pub classes: Vec<ClassCount>,
    /// Pictures without a label: all of them or none, unless a table of labels has gaps.
    pub unlabelled: usize,
    /// Widths in pixels.
    pub width: SizeRange,
    /// Heights in pixels.
    pub height: SizeRange,
    /// How many pictures there are of each format, by content.
    pub formats: BTreeMap<String, usize>,
    /// Files that were left out, each with its reason, by the bytes of their path.
    pub bad_files: Vec<BadFile>,
    /// Pictures whose file is byte for byte that of an earlier picture. They stay in.
    pub duplicates: usize,
    /// Sum of the sizes of the usable files in bytes.
    pub total_bytes: u64,
    /// Regular files met on the way, pictures or not, hidden ones apart.
    pub files_seen: usize,
    /// Files and folders whose name starts with a dot; they are passed over.
    pub hidden: usize,
    /// Files, folders and links passed over because they lead to something already reached.
    pub repeated: usize,
    /// Regular files passed over because their extension is not that of a picture which can be read: how many of each
    /// extension, lower case, under the empty text those without one.
    pub passed_over: BTreeMap<String, usize>,
    /// Name of this set of pictures: a hash over relative path, size and content of every usable file in their order;
    /// of the content as much as was read.
    pub fingerprint: Fingerprint,
    /// Remarks a person should read, such as a class without pictures.
    pub notes: Vec<String>,
}

/// How many pictures a class has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// The name of its folder, or its label.
    pub name: String,
    /// Its usable pictures.
    pub pictures: usize,
}

/// A remark for every class that no picture is left of.
pub(crate) fn empty_classes(counts: &[ClassCount]) -> Vec<String> {
    let empty = counts.iter().filter(|count| count.pictures == 0);
    empty.map(|count| format!("class `{}` has no usable picture", count.name)).collect()
}

/// A file that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadFile {
    /// Where it is.
    #[serde(serialize_with = "as_escaped")]
    pub path: PathBuf,
    /// Why it cannot be used.
    pub reason: String,
}

impl From<&SampleError> for BadFile {
    fn from(error: &SampleError) -> Self {
        Self { path: error.path.clone(), reason: error.problem.to_string() }
    }
}

/// Smallest, middle and largest of a set of lengths in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SizeRange {
    /// The smallest.
    pub min: u32,
    /// The middle one, the lower of two.
    pub median: u32,
    /// The largest.
    pub max: u32,
}

impl SizeRange {
    /// The range of `lengths`; zeros when there are none.
    pub(crate) fn of(mut lengths: Vec<u32>) -> Self {
        lengths.sort_unstable();
        let at = |i: usize| lengths.get(i).copied().unwrap_or(0);
        let last = lengths.len().saturating_sub(1);
        Self { min: at(0), median: at(last / 2), max: at(last) }
    }
}

/// Writes a path the way [`escape_path`] spells it, because JSON has no word for arbitrary bytes.
pub(crate) fn as_escaped<S: Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&escape_path(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_range_takes_the_lower_middle() {
        assert_eq!(SizeRange::of(vec![5, 1, 9]), SizeRange { min: 1, median: 5, max: 9 });
        assert_eq!(SizeRange::of(vec![8, 2, 4, 6]), SizeRange { min: 2, median: 4, max: 8 });
        assert_eq!(SizeRange::of(vec![7]), SizeRange { min: 7, median: 7, max: 7 });
    }
}
