//! The built-in set as files.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up may panic")]

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use twoview_data::{
    FolderConfig, FolderSource, OnBad, PatternFolderConfig, PatternFolderError, PatternsConfig, PatternsSource, Source,
    Split, write_pattern_folder,
};
use twoview_pixels::DecodeOptions;

const CONFIG: PatternFolderConfig =
    PatternFolderConfig { seed: 5, train_per_class: 3, test_per_class: 2, bad_files: 0 };

fn open(root: &Path) -> FolderSource {
    let config = FolderConfig {
        decode: DecodeOptions::STANDARD,
        cache_mib: 1,
        full_scan_files: 1000,
        on_bad: OnBad::Skip,
        max_bad_fraction: 0.5,
    };
    FolderSource::open(root, &config, &|_, _| ()).unwrap()
}

#[test]
fn written_pictures_are_those_in_memory() {
    let place = TempDir::new().unwrap();
    let dest = place.path().join("new/patterns");
    let written = write_pattern_folder(&dest, &CONFIG).unwrap();
    assert_eq!((written.train, written.test, written.bad_files.len()), (30, 20, 0));
    for (split, per_class) in [(Split::Train, 3), (Split::Test, 2)] {
        let files = open(&dest.join(split.name()));
        let memory = PatternsSource::new(PatternsConfig { seed: 5, split, per_class }).unwrap();
        assert_eq!(files.classes(), memory.classes());
        assert_eq!(files.len(), memory.len());
        for i in 0..memory.len() {
            let same = (0..files.len()).find(|&j| files.name(j) == memory.name(i)).unwrap();
            assert_eq!(files.label(same), memory.label(i));
            assert_eq!(files.image(same).unwrap(), memory.image(i).unwrap());
        }
    }
    let beside: Vec<_> = fs::read_dir(place.path().join("new")).unwrap().collect();
    assert_eq!(beside.len(), 1, "nothing is left beside the folder: {beside:?}");
}

#[test]
fn planted_files_are_what_the_scan_finds() {
    let place = TempDir::new().unwrap();
    let dest = place.path().join("patterns");
    let written = write_pattern_folder(&dest, &PatternFolderConfig { bad_files: 5, ..CONFIG }).unwrap();
    let source = open(&dest.join("train"));
    assert_eq!(source.len(), 30);
    let mut found: Vec<_> = source.report().bad_files.iter().map(|file| file.path.clone()).collect();
    let mut planted = written.bad_files;
    found.sort();
    planted.sort();
    assert_eq!(found, planted);
}

#[test]
fn an_occupied_destination_is_refused_untouched() {
    let place = TempDir::new().unwrap();
    let occupied = place.path().join("occupied");
    fs::create_dir(&occupied).unwrap();
    fs::write(occupied.join("mine.txt"), "mine").unwrap();
    let error = write_pattern_folder(&occupied, &CONFIG).unwrap_err();
    assert!(matches!(error, PatternFolderError::Occupied { .. }), "{error}");
    assert_eq!(fs::read_dir(&occupied).unwrap().count(), 1);
    let error = write_pattern_folder(&occupied.join("mine.txt"), &CONFIG).unwrap_err();
    assert!(matches!(error, PatternFolderError::Occupied { .. }), "{error}");

    let empty = place.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(write_pattern_folder(&empty, &CONFIG).is_ok());
}

#[test]
fn counts_and_names_are_checked() {
    let place = TempDir::new().unwrap();
    let write = |config| write_pattern_folder(&place.path().join("x"), &config).unwrap_err().to_string();
    let expected = "pictures per class must be from 1 to 429496729 (test: from 0), got ";
    assert_eq!(write(PatternFolderConfig { train_per_class: 0, ..CONFIG }), format!("{expected}0"));
    assert_eq!(write(PatternFolderConfig { test_per_class: u32::MAX, ..CONFIG }), format!("{expected}4294967295"));
    let error = write_pattern_folder(Path::new(".."), &CONFIG).unwrap_err();
    assert_eq!(error.to_string(), ".. does not name a new folder");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}
