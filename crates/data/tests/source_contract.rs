//! What every source of pictures must hold, whatever its form.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up may panic")]

mod made_sets;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::thread;

use made_sets::{Case, OPTIONS, cases, folder, open_folder, pack, png, stl, tar_bytes, write};
use twoview_data::{
    Fingerprint, Likeness, NEAR_BITS, PackForm, PackSource, Problem, ReadBuffers, Source, Split, StlPart, StlSource,
    TarSource, check_source,
};
use twoview_pixels::Image;

fn every_case(check: impl Fn(&Case)) {
    let root = tempfile::tempdir().unwrap();
    let cases = cases(root.path(), 0);
    assert!(cases.len() > 12);
    for case in &cases {
        check(case);
    }
}

fn hash(image: &Image) -> Fingerprint {
    let mut bytes = [image.width().to_le_bytes(), image.height().to_le_bytes()].concat();
    bytes.extend(image.as_rgb8());
    Fingerprint::of(&bytes)
}

#[test]
fn the_same_answer_every_time_in_any_order_and_from_any_thread() {
    every_case(|case| {
        let source = &case.source;
        let first: Vec<Fingerprint> = (0..source.len()).map(|i| hash(&source.image(i).unwrap())).collect();
        let mut buffers = ReadBuffers::default();
        for i in (0..source.len()).rev().chain([0, source.len() / 2, 0]) {
            assert_eq!(hash(source.read(i, &mut buffers).unwrap()), first[i], "{}: {i}", case.name);
        }
        thread::scope(|scope| {
            for offset in 0..4 {
                let first = &first;
                scope.spawn(move || {
                    let mut buffers = ReadBuffers::default();
                    for turn in 0..3 * source.len() {
                        let i = (turn * 5 + offset) % source.len();
                        assert_eq!(hash(source.read(i, &mut buffers).unwrap()), first[i], "{}: {i}", case.name);
                    }
                });
            }
        });
    });
}

#[test]
fn names_are_unique_and_labels_are_classes() {
    every_case(|case| {
        let source = &case.source;
        assert!(!source.is_empty(), "{}", case.name);
        let names: HashSet<String> = (0..source.len()).map(|i| source.name(i).into_owned()).collect();
        assert_eq!(names.len(), source.len(), "{}", case.name);
        let paths: HashSet<_> = (0..source.len()).map(|i| source.path(i)).collect();
        assert_eq!(paths.len(), source.len(), "{}", case.name);
        assert!(source.classes().is_sorted(), "{}: {:?}", case.name, source.classes());
        for i in 0..source.len() {
            let label = source.label(i).map(|label| label as usize);
            assert_eq!(label.is_some(), !source.classes().is_empty(), "{}: {i}", case.name);
            assert!(label.is_none_or(|label| label < source.classes().len()), "{}: {i}", case.name);
        }
    });
}

#[test]
fn fingerprints_tell_contents_apart_and_nothing_else() {
    let roots: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let (first, again, changed) = (cases(roots[0].path(), 0), cases(roots[1].path(), 0), cases(roots[2].path(), 1));
    for ((first, again), changed) in first.iter().zip(&again).zip(&changed) {
        assert_eq!(first.fingerprint, again.fingerprint, "{}", first.name);
        assert_ne!(first.fingerprint, changed.fingerprint, "{}", first.name);
    }
}

/// Buffers that have grown to the largest picture are used again and not replaced.
#[test]
fn reading_reuses_the_buffers() {
    every_case(|case| {
        // Decoders of PNG allocate; what this crate hands out from its own memory or raw bytes must not.
        if !["cifar", "stl", "idx", "pack, decoded"].iter().any(|raw| case.name.starts_with(raw)) {
            return;
        }
        let mut buffers = ReadBuffers::default();
        let largest = (0..case.source.len()).max_by_key(|i| case.source.image(*i).unwrap().as_rgb8().len()).unwrap();
        case.source.read(largest, &mut buffers).unwrap();
        let place = buffers.image.as_rgb8().as_ptr();
        for i in 0..case.source.len() {
            let image = case.source.read(i, &mut buffers).unwrap();
            assert_eq!(image.as_rgb8().as_ptr(), place, "{}: {i}", case.name);
        }
    });
}

/// The stored file, where there is one, is the picture.
#[test]
fn files_decode_to_the_picture() {
    every_case(|case| {
        let mut buffers = ReadBuffers::default();
        for i in 0..case.source.len() {
            if case.source.read_file(i, &mut buffers).unwrap() {
                let decoded = twoview_pixels::decode(&buffers.bytes, &OPTIONS).unwrap();
                assert_eq!(decoded, case.source.image(i).unwrap(), "{}: {i}", case.name);
            }
        }
    });
}

#[test]
fn a_check_counts_what_is_there() {
    every_case(|case| {
        let (source, fingerprint) = (&*case.source, Fingerprint::of(b"its name"));
        let (report, _) = check_source(source, Path::new("set"), fingerprint, NEAR_BITS, &|_, _| ());
        let what = &case.name;
        assert_eq!((report.pictures, report.bad_files.len()), (source.len(), 0), "{what}");
        assert_eq!((report.fingerprint, report.root.as_path()), (fingerprint, Path::new("set")), "{what}");
        let labelled: usize = report.classes.iter().map(|class| class.pictures).sum();
        assert_eq!(labelled + report.unlabelled, source.len(), "{what}");
        assert_eq!(report.formats.values().sum::<usize>(), source.len(), "{what}");
        let widths: Vec<u32> = (0..source.len()).map(|i| source.image(i).unwrap().width()).collect();
        let (min, max) = (widths.iter().min().copied(), widths.iter().max().copied());
        assert_eq!((Some(report.width.min), Some(report.width.max)), (min, max), "{what}");
    });
}

#[test]
fn a_check_names_what_is_broken_and_what_is_there_twice() {
    let root = tempfile::tempdir().unwrap();
    let (one, other) = (png(0, 0), png(1, 0));
    let members: [(&str, &[u8]); 4] =
        [("a.png", &one), ("b.png", &other[..other.len() / 2]), ("c.png", &other), ("d.png", &one)];
    let file = root.path().join("set.tar");
    write(&file, &tar_bytes(&members));
    let source = TarSource::open(&file, Split::Train, OPTIONS).unwrap();
    let (report, groups) = check_source(&source, &file, source.fingerprint(), NEAR_BITS, &|_, _| ());
    assert_eq!((report.pictures, report.duplicates, report.formats["png"]), (3, 1, 3));
    let bad: Vec<_> = report.bad_files.iter().map(|bad| (bad.path.as_path(), bad.reason.as_str())).collect();
    assert_eq!(bad, [(file.join("b.png").as_path(), "the PNG file is truncated: its end is missing")]);
    let [group] = groups.as_slice() else { panic!("{groups:?}") };
    assert_eq!(
        (group.kind, group.paths.as_slice()),
        (Likeness::Exact, ["set.tar/a.png", "set.tar/d.png"].map(String::from).as_slice())
    );
}

#[test]
fn a_failing_picture_spoils_no_other() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);

    folder(&at("folder"), 0);
    let folder_source = open_folder(&at("folder"), 0);
    fs::write(folder_source.path(1), b"changed").unwrap();

    let good = png(0, 0);
    let members: [(&str, &[u8]); 3] = [("a.png", &good), ("b.png", &good[..good.len() / 2]), ("c.png", &good)];
    write(&at("set.tar"), &tar_bytes(&members));
    let tar = TarSource::open(&at("set.tar"), Split::Train, OPTIONS).unwrap();

    let packed = |name: &str, form| {
        let file = pack(&at(name), form, 0);
        let source = PackSource::open(&file, OPTIONS).unwrap();
        let first = if form == PackForm::Decoded { picture_bytes(0) } else { png(2, 0) };
        let mut bytes = fs::read(&file).unwrap();
        let place = bytes.windows(first.len()).position(|window| window == first).unwrap();
        bytes[place + first.len() / 2] ^= 4;
        fs::write(&file, bytes).unwrap();
        (source, form)
    };
    let (pack_source, _) = packed("pack", PackForm::Original);

    stl(&at("stl"), 0);
    let stl_source = StlSource::open(&at("stl"), StlPart::Train).unwrap();
    fs::OpenOptions::new().write(true).open(at("stl/stl10_binary/train_X.bin")).unwrap().set_len(30_000).unwrap();

    let sources: [(&str, &dyn Source, usize); 4] =
        [("folder", &folder_source, 1), ("tar", &tar, 1), ("pack", &pack_source, 1), ("stl", &stl_source, 1)];
    for (name, source, bad) in sources {
        let mut buffers = ReadBuffers::default();
        let before = source.read(0, &mut buffers).unwrap().clone();
        let error = source.read(bad, &mut buffers).unwrap_err();
        assert_eq!(error.path, source.path(bad), "{name}");
        assert_eq!(*source.read(0, &mut buffers).unwrap(), before, "{name}");
    }
    assert!(tar.path(1).ends_with("set.tar/b.png"));
    assert!(matches!(pack_source.image(1).unwrap_err().problem, Problem::Checksum { .. }));
    let (decoded, _) = packed("decoded", PackForm::Decoded);
    assert!(matches!(decoded.image(0).unwrap_err().problem, Problem::Checksum { .. }));
}

fn picture_bytes(i: u32) -> Vec<u8> {
    made_sets::picture(i, 0).into_rgb8()
}
