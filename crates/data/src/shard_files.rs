//! The files of a set that is cut into shards, told apart by the part of the set that their names say.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Split;

/// Files of `folder` with this extension, by the bytes of their names: those of `split` where any name says its part, else
/// all of them.
pub(crate) fn shards_in(folder: &Path, extension: &str, split: Split) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_shard = path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension));
        if is_shard && !is_hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    if files.iter().any(|file| part_of(file).is_some()) {
        let has_test = files.iter().any(|file| part_of(file) == Some(Part::Test));
        files.retain(|file| match (split, part_of(file)) {
            (Split::Train, part) => part == Some(Part::Train),
            (Split::Test, Some(Part::Test)) => true,
            // Many sets publish no labels of their test pictures, or no test pictures at all.
            (Split::Test, part) => part == Some(Part::Validation) && !has_test,
        });
    }
    Ok(files)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Train,
    Validation,
    Test,
}

/// The part that the first word of the name says: `train-00000-of-00002.parquet`, `imagenet-val-0003.tar`.
fn part_of(path: &Path) -> Option<Part> {
    let name = path.file_stem()?.to_str()?.to_ascii_lowercase();
    name.split(|c: char| !c.is_ascii_alphabetic()).find_map(|word| match word {
        "train" | "training" => Some(Part::Train),
        "val" | "valid" | "validation" | "dev" => Some(Part::Validation),
        "test" | "testing" => Some(Part::Test),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_their_part() {
        for (name, want) in [
            ("train-00000-of-00002.parquet", Some(Part::Train)),
            ("imagenet_val_0003.tar", Some(Part::Validation)),
            ("test.tar", Some(Part::Test)),
            ("trains-of-europe.tar", None),
            ("000000.tar", None),
        ] {
            assert_eq!(part_of(Path::new(name)), want, "{name}");
        }
    }
}
