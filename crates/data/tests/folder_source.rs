//! Folders of every shape, good and bad.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up may panic")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;
use twoview_data::{FolderConfig, FolderError, FolderSource, OnBad, PictureFiles, Problem, Source};
use twoview_pixels::{DecodeOptions, Image, encode_png};

/// A JPEG of 48x40 pixels.
const JPEG: &[u8] = include_bytes!("files/rings.jpg");

const CONFIG: FolderConfig = FolderConfig {
    decode: DecodeOptions::STANDARD,
    cache_mib: 16,
    full_scan_files: 1000,
    on_bad: OnBad::Skip,
    max_bad_fraction: 1.0,
};

/// A PNG of 4x3 pixels in one shade, so that pictures can be told apart.
fn png(shade: u8) -> Vec<u8> {
    encode_png(&Image::filled(4, 3, [shade; 3]).unwrap()).unwrap()
}

/// A folder with these files; each picture gets its own shade.
fn folder_of(names: &[&str]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (shade, name) in (0u8..).zip(names) {
        put(&folder, name, &png(shade));
    }
    folder
}

fn put(folder: &TempDir, name: impl AsRef<Path>, content: &[u8]) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn open(folder: &TempDir) -> FolderSource {
    FolderSource::open(folder.path(), &CONFIG, &|_, _| ()).unwrap()
}

fn open_error(root: &Path, config: &FolderConfig) -> FolderError {
    FolderSource::open(root, config, &|_, _| ()).unwrap_err()
}

fn names(source: &FolderSource) -> Vec<String> {
    (0..source.len()).map(|i| source.name(i).into_owned()).collect()
}

fn labels(source: &FolderSource) -> Vec<Option<u32>> {
    (0..source.len()).map(|i| source.label(i)).collect()
}

fn bad_names(source: &FolderSource) -> Vec<String> {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    source.report().bad_files.iter().map(|file| name(&file.path)).collect()
}

#[test]
fn class_folders_give_labels_by_the_first_component() {
    let folder = folder_of(&["dog/b.png", "cat/deep/er/z.png", "cat/a.png", "Ant/x.png"]);
    let source = open(&folder);
    assert_eq!(source.classes(), ["Ant", "cat", "dog"]);
    assert_eq!(names(&source), ["Ant/x.png", "cat/a.png", "cat/deep/er/z.png", "dog/b.png"]);
    assert_eq!(labels(&source), [Some(0), Some(1), Some(1), Some(2)]);
    let counts: Vec<_> = source.report().classes.iter().map(|class| class.pictures).collect();
    assert_eq!(counts, [1, 2, 1]);
    assert_eq!((source.report().labelled, source.report().unlabelled), (true, 0));
}

#[test]
fn other_layouts_are_unlabelled_and_say_why() {
    let cases: [(&[&str], &str); 4] = [
        (&["b.png", "a.png"], ""),
        (&["only/a.png", "only/b.png"], "all pictures lie in the one folder `only`"),
        (&["only/deep/a.png", "only/deeper/b.png"], "all pictures lie in the one folder `only`"),
        (&["a.png", "cat/b.png", "dog/c.png"], "pictures lie directly in the folder (1)"),
    ];
    for (files, note) in cases {
        let source = open(&folder_of(files));
        assert!(source.classes().is_empty(), "{files:?}");
        assert!(labels(&source).iter().all(Option::is_none), "{files:?}");
        assert_eq!(source.report().unlabelled, files.len());
        assert_eq!(source.report().notes.is_empty(), note.is_empty(), "{files:?}");
        assert!(source.report().notes.iter().all(|text| text.starts_with(note)), "{:?}", source.report().notes);
    }
}

#[test]
fn a_bad_file_in_the_root_takes_no_labels_away() {
    let folder = folder_of(&["cat/a.png", "dog/b.png"]);
    put(&folder, "broken.jpg", b"");
    let source = open(&folder);
    assert_eq!(source.classes(), ["cat", "dog"]);
    assert_eq!(bad_names(&source), ["broken.jpg"]);
}

#[test]
fn a_class_of_bad_files_keeps_its_number() {
    let folder = folder_of(&["ant/a.png", "dog/b.png"]);
    put(&folder, "cat/a.png", b"no picture");
    fs::create_dir(folder.path().join("eel")).unwrap();
    let source = open(&folder);
    assert_eq!(source.classes(), ["ant", "cat", "dog"]);
    assert_eq!(labels(&source), [Some(0), Some(2)]);
    let notes = &source.report().notes;
    assert_eq!(notes, &["folder `eel` holds no pictures and is no class", "class `cat` has no usable picture"]);
}

#[test]
fn parts_of_a_data_set_are_pointed_out() {
    let source = open(&folder_of(&["train/cat/a.png", "test/cat/b.png"]));
    assert_eq!(
        source.report().notes,
        ["the classes are named like parts of a data set (test, train): did you mean one of them?"]
    );
}

#[test]
fn neither_creation_order_nor_place_changes_order_or_fingerprint() {
    let files = ["a/2.png", "a-b/1.png", "a/10.png", "B/x.png", "a/1.png"];
    let first = TempDir::new().unwrap();
    let second = TempDir::new().unwrap();
    for (folder, order) in [(&first, [0, 1, 2, 3, 4]), (&second, [3, 4, 0, 2, 1])] {
        for i in order {
            put(folder, files[i], &png(u8::try_from(i).unwrap()));
        }
    }
    let (first, second) = (open(&first), open(&second));
    assert_eq!(names(&first), ["B/x.png", "a-b/1.png", "a/1.png", "a/10.png", "a/2.png"]);
    assert_eq!(first.classes(), ["B", "a", "a-b"]);
    assert_eq!(labels(&first), [Some(0), Some(2), Some(1), Some(1), Some(1)]);
    assert_eq!(names(&first), names(&second));
    assert_eq!(first.fingerprint(), second.fingerprint());
}

#[test]
fn fingerprint_sees_names_and_sizes() {
    let folder = folder_of(&["a.png", "b.png"]);
    let before = open(&folder).fingerprint();
    fs::rename(folder.path().join("a.png"), folder.path().join("c.png")).unwrap();
    let renamed = open(&folder).fingerprint();
    put(&folder, "c.png", JPEG);
    assert_ne!(before, renamed);
    assert_ne!(renamed, open(&folder).fingerprint());
}

#[test]
fn the_extension_selects_and_the_content_decides() {
    let folder = folder_of(&["really-png.jpg", "b.PNG", "notes.txt", "noextension", ".hidden.png", ".thumbs/c.png"]);
    put(&folder, "really-jpeg.TIFF", JPEG);
    put(&folder, "saved.jfif", JPEG);
    put(&folder, "scan.pbm", b"P4\n8 1\n\xAA");
    let source = open(&folder);
    assert_eq!(names(&source), ["b.PNG", "really-jpeg.TIFF", "really-png.jpg", "saved.jfif", "scan.pbm"]);
    assert_eq!(source.image(4).unwrap().as_rgb8()[..6], [0, 0, 0, 255, 255, 255]);
    let report = source.report();
    assert_eq!(
        report.formats.iter().map(|(name, n)| (name.as_str(), *n)).collect::<Vec<_>>(),
        [("jpeg", 2), ("png", 2), ("pnm", 1)]
    );
    assert_eq!((report.files_seen, report.hidden), (7, 2));
    assert_eq!(report.passed_over, [(String::new(), 1), ("txt".to_owned(), 1)].into());
    assert_eq!((report.width.min, report.width.median, report.width.max), (4, 8, 48));
    assert_eq!((report.height.min, report.height.max), (1, 40));
    assert!(report.notes.is_empty(), "{:?}", report.notes);
}

#[test]
fn pictures_that_cannot_be_read_are_remarked() {
    let folder = folder_of(&["a.png", "b.HEIC", "c.heic", "d.avif", "e.txt"]);
    let note = "3 pictures are in a format that is not read, and are left out: .avif (1), .heic (2); \
                convert them to JPEG or PNG";
    assert_eq!(open(&folder).report().notes, [note]);
}

#[test]
fn equal_files_are_counted_and_kept() {
    let folder = folder_of(&["a.png", "b.png"]);
    put(&folder, "copy-of-a.png", &png(0));
    let source = open(&folder);
    assert_eq!((source.len(), source.report().duplicates), (3, 1));
    let size = |i| fs::metadata(source.path(i)).unwrap().len();
    assert_eq!(source.report().total_bytes, (0..3).map(size).sum::<u64>());
}

#[test]
fn every_kind_of_bad_file_is_named_with_its_reason() {
    let folder = folder_of(&["good.png"]);
    put(&folder, "empty.png", b"");
    put(&folder, "half.png", &png(1)[..40]);
    put(&folder, "half.jpg", &JPEG[..JPEG.len() / 2]);
    put(&folder, "page.jpg", b"<!DOCTYPE html><html>Not Found</html>");
    fs::create_dir(folder.path().join("folder.jpg")).unwrap();
    let source = open(&folder);
    assert_eq!(names(&source), ["good.png"]);
    assert_eq!(bad_names(&source), ["empty.png", "half.jpg", "half.png", "page.jpg"]);
    assert!(source.report().bad_files.iter().all(|file| !file.reason.is_empty()));
}

/// Only the two bytes of the end marker may be missing from a JPEG: all its pixels are there then.
#[test]
fn no_truncation_passes_for_a_picture() {
    let folder = folder_of(&["good.png"]);
    let whole_png = png(9);
    for cut in 0..whole_png.len() {
        // The last 12 bytes, the closing chunk, hold no pixels; decoders differ in whether they ask for it.
        if cut < whole_png.len() - 12 {
            put(&folder, format!("png-{cut:04}.png"), &whole_png[..cut]);
        }
    }
    for cut in (0..JPEG.len() - 2).step_by(7) {
        put(&folder, format!("jpg-{cut:04}.jpg"), &JPEG[..cut]);
    }
    assert_eq!(names(&open(&folder)), ["good.png"]);
}

#[test]
fn limits_make_bad_files() {
    let folder = folder_of(&["small.png"]);
    put(&folder, "large.jpg", JPEG);
    let scan = |decode| {
        let source = FolderSource::open(folder.path(), &FolderConfig { decode, ..CONFIG }, &|_, _| ()).unwrap();
        assert_eq!(names(&source), ["small.png"]);
        source.report().bad_files[0].reason.clone()
    };
    let bytes = scan(DecodeOptions { max_file_bytes: 1000, ..DecodeOptions::STANDARD });
    assert!(bytes.contains("1000") && bytes.contains(&JPEG.len().to_string()), "{bytes}");
    let pixels = scan(DecodeOptions { max_pixels: 1919, ..DecodeOptions::STANDARD });
    assert!(pixels.contains("1919") && pixels.contains("48x40"), "{pixels}");
}

#[test]
fn errors_say_what_is_there_and_what_was_expected() {
    let folder = folder_of(&["good.png"]);
    let place = folder.path().display().to_string();
    let missing = open_error(&folder.path().join("nowhere"), &CONFIG);
    assert_eq!(missing.to_string(), format!("no such folder: {place}/nowhere"));
    let file = open_error(&folder.path().join("good.png"), &CONFIG);
    assert_eq!(file.to_string(), format!("expected a folder of pictures, got a file: {place}/good.png"));

    let texts = TempDir::new().unwrap();
    for name in ["e.txt", "a.TXT", "f.csv", "b/c.txt", "d", "g.txt", ".h.png"] {
        put(&texts, name, b"text");
    }
    assert_eq!(
        open_error(texts.path(), &CONFIG).to_string(),
        format!(
            "no pictures in {}: 6 files seen besides 1 hidden: without extension (1), .csv (1), .txt (4); \
             first: a.TXT, b/c.txt, d, e.txt, f.csv; \
             expected files named .jpg, .jpeg, .jpe, .jfif, .png, .bmp, .webp, .gif, .tif, .tiff, .ppm, .pgm, .pbm, .pnm",
            texts.path().display()
        )
    );
    let empty = TempDir::new().unwrap();
    assert!(open_error(empty.path(), &CONFIG).to_string().contains(": 0 files seen; expected files named .jpg"));
    let fraction = open_error(empty.path(), &FolderConfig { max_bad_fraction: f64::NAN, ..CONFIG });
    assert_eq!(fraction.to_string(), "max_bad_fraction must be from 0 to 1, got NaN");
}

#[test]
fn too_many_bad_files_are_an_error_that_names_them() {
    let folder = folder_of(&["1.png", "2.png", "3.png"]);
    put(&folder, "bad.png", b"");
    let allowing = |max_bad_fraction| FolderConfig { max_bad_fraction, ..CONFIG };
    assert!(FolderSource::open(folder.path(), &allowing(0.25), &|_, _| ()).is_ok());
    let place = folder.path().display();
    assert_eq!(
        open_error(folder.path(), &allowing(0.24)).to_string(),
        format!(
            "1 of 4 pictures in {place} cannot be used, more than max_bad_fraction = 0.24 allows: \
             {place}/bad.png: the file is empty"
        )
    );
    let none_good = TempDir::new().unwrap();
    for name in ["1.png", "2.png", "3.png", "4.png"] {
        put(&none_good, name, b"");
    }
    let message = open_error(none_good.path(), &CONFIG).to_string();
    assert!(message.starts_with("none of the 4 pictures in "), "{message}");
    assert!(message.ends_with("; and 1 more"), "{message}");
    // Whoever checks wants to know what is wrong with each of them.
    let files = PictureFiles::below(none_good.path());
    let (checked, _) = FolderSource::check(&files, &allowing(0.0), 6, &|_, _| ()).unwrap();
    assert_eq!((checked.len(), checked.report().bad_files.len()), (0, 4));
}

#[test]
fn shards_that_lie_among_other_things_are_pointed_at() {
    let folder = TempDir::new().unwrap();
    put(&folder, "a.tar", b"");
    put(&folder, "notes/b.txt", b"");
    let message = open_error(folder.path(), &CONFIG).to_string();
    assert!(message.contains("; a .tar file is a set of its own: give its path"), "{message}");
}

#[test]
fn pixels_are_the_same_with_and_without_cache() {
    let folder = folder_of(&["a.png", "b.png", "c.png"]);
    put(&folder, "d.jpg", JPEG);
    let cached = open(&folder);
    let uncached = FolderSource::open(folder.path(), &FolderConfig { cache_mib: 0, ..CONFIG }, &|_, _| ()).unwrap();
    assert_eq!((cached.n_cached(), uncached.n_cached()), (4, 0));
    for i in 0..4 {
        assert_eq!(cached.image(i).unwrap(), uncached.image(i).unwrap());
    }
    assert_eq!(cached.image(1).unwrap().as_rgb8()[0], 1);
}

#[test]
fn a_cache_that_is_too_small_is_never_exceeded() {
    let folder = TempDir::new().unwrap();
    for i in 0..5 {
        // 600x600 pixels are 1.03 MiB decoded.
        put(&folder, format!("{i}.png"), &encode_png(&Image::filled(600, 600, [i; 3]).unwrap()).unwrap());
    }
    let config = FolderConfig { cache_mib: 3, ..CONFIG };
    let source = FolderSource::open(folder.path(), &config, &|_, _| ()).unwrap();
    assert_eq!(source.n_cached(), 2);
    for i in 0..5u8 {
        assert_eq!(source.image(i.into()).unwrap().as_rgb8()[0], i);
    }
}

#[test]
fn files_that_change_after_the_scan_are_errors() {
    let folder = folder_of(&["gone.png", "other.png", "text.png"]);
    let source = FolderSource::open(folder.path(), &FolderConfig { cache_mib: 0, ..CONFIG }, &|_, _| ()).unwrap();
    fs::remove_file(folder.path().join("gone.png")).unwrap();
    put(&folder, "other.png", &png(77));
    put(&folder, "text.png", b"text");
    let error = |i| source.image(i).unwrap_err();
    assert!(matches!(error(0).problem, Problem::Read(_)), "{}", error(0));
    assert!(matches!(error(1).problem, Problem::Changed { .. }), "{}", error(1));
    assert!(matches!(error(2).problem, Problem::Changed { found_bytes: 4, .. }), "{}", error(2));
    assert!(error(2).to_string().starts_with(&format!("{}/text.png: changed since", folder.path().display())));
}

#[test]
fn progress_counts_every_candidate_once() {
    let folder = folder_of(&["a.png", "b.png", "c.png"]);
    put(&folder, "bad.png", b"");
    let (calls, highest) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let source = FolderSource::open(folder.path(), &CONFIG, &|done, total| {
        assert_eq!(total, 4);
        calls.fetch_add(1, Ordering::Relaxed);
        highest.fetch_max(done, Ordering::Relaxed);
    });
    assert!(source.is_ok());
    assert_eq!((calls.into_inner(), highest.into_inner()), (4, 4));
}

#[test]
fn the_config_is_typed() {
    let text = serde_json::to_string(&CONFIG).unwrap();
    assert_eq!(serde_json::from_str::<FolderConfig>(&text).unwrap(), CONFIG);
    let misspelt = text.replace("cache_mib", "cache_mb");
    assert!(serde_json::from_str::<FolderConfig>(&misspelt).unwrap_err().to_string().contains("cache_mb"));
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn links_are_followed_once_and_never_around() {
        let folder = folder_of(&["cat/a.png", "dog/b.png"]);
        let elsewhere = folder_of(&["linked.png"]);
        let link = |target: &Path, name: &str| symlink(target, folder.path().join(name)).unwrap();
        link(elsewhere.path(), "eel");
        link(&folder.path().join("cat/a.png"), "dog/same-as-a.png");
        link(folder.path(), "cat/loop");
        link(Path::new("."), "dog/self");
        link(Path::new("../dog"), "cat/to-dog");
        link(Path::new("/"), "everything");
        link(Path::new("ring-2"), "ring-1");
        link(Path::new("ring-1"), "ring-2");
        link(Path::new("/nowhere/x"), "dangling");
        link(Path::new("/nowhere/x.png"), "dog/dangling.png");
        let source = open(&folder);
        assert_eq!(names(&source), ["cat/a.png", "dog/b.png", "eel/linked.png"]);
        assert_eq!(source.classes(), ["cat", "dog", "eel"]);
        assert_eq!(bad_names(&source), ["dangling.png"]);
        // same-as-a, loop, self, to-dog, everything; the ring is broken rather than repeated.
        assert_eq!(source.report().repeated, 5);
    }

    /// Datasets kept as links into a store: the link's name counts where the store is hidden or names nothing.
    #[test]
    fn links_into_a_store_count_under_their_own_names() {
        let folder = folder_of(&[".store/1.png", "blobs/2"]);
        for (target, name) in [("../.store/1.png", "cat/a.png"), ("../blobs/2", "dog/b.png")] {
            fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            symlink(target, folder.path().join(name)).unwrap();
        }
        let source = open(&folder);
        assert_eq!(names(&source), ["cat/a.png", "dog/b.png"]);
        assert_eq!(source.report().repeated, 0);
    }

    #[test]
    fn folders_linked_crosswise_end() {
        let mesh = TempDir::new().unwrap();
        let n = 12;
        for i in 0..n {
            put(&mesh, format!("f{i:02}/x.png"), &png(i));
        }
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
            symlink(format!("../f{j:02}"), mesh.path().join(format!("f{i:02}/to{j:02}"))).unwrap();
        }
        let linked = TempDir::new().unwrap();
        symlink(mesh.path(), linked.path().join("mesh")).unwrap();
        // Without memory of what was entered there would be more than 12! paths.
        for folder in [&mesh, &linked] {
            assert_eq!(open(folder).len(), usize::from(n));
        }
    }

    #[test]
    fn odd_names_survive() {
        let odd: [&[u8]; 5] = [b"\xff\xfe.png", b"-rf.png", b"new\nline.png", b"back\\slash.png", "🐈.png".as_bytes()];
        let folder = TempDir::new().unwrap();
        for (shade, name) in (0u8..).zip(odd) {
            put(&folder, OsStr::from_bytes(name), &png(shade));
        }
        put(&folder, OsStr::from_bytes(b"bad\xfa.png"), b"");
        let source = open(&folder);
        let expected = ["-rf.png", r"back\\slash.png", r"new\nline.png", "🐈.png", r"\xff\xfe.png"];
        assert_eq!(names(&source), expected);
        assert_eq!(source.image(4).unwrap().as_rgb8()[0], 0);
        let json: serde_json::Value = serde_json::to_value(source.report()).unwrap();
        assert!(json["bad_files"][0]["path"].as_str().unwrap().ends_with(r"/bad\xfa.png"), "{json}");
        assert_eq!(json["fingerprint"].as_str().unwrap().len(), 32);
    }

    #[test]
    fn only_regular_files_are_opened() {
        let folder = folder_of(&["good.png"]);
        let _socket = UnixListener::bind(folder.path().join("socket.png")).unwrap();
        let source = open(&folder);
        assert_eq!(source.len(), 1);
        assert_eq!(source.report().bad_files[0].reason, "not a regular file");
    }

    /// Opening a pipe waits for a writer, so nothing may open one, whenever it got its name.
    #[test]
    fn pipes_are_never_opened() {
        let folder = folder_of(&["good.png", "later.png"]);
        let make_pipe = |name: &str| {
            let path = folder.path().join(name);
            assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        };
        make_pipe("pipe.jpg");
        let config = FolderConfig { cache_mib: 0, ..CONFIG };
        let source = FolderSource::open(folder.path(), &config, &|_, _| ()).unwrap();
        assert_eq!(source.report().bad_files[0].reason, "not a regular file");
        fs::remove_file(folder.path().join("later.png")).unwrap();
        make_pipe("later.png");
        assert!(matches!(source.image(1).unwrap_err().problem, Problem::NotAFile));
        put(&folder, "list.txt", b"good.png\npipe.jpg\n");
        let files = PictureFiles { list: Some(folder.path().join("list.txt")), ..PictureFiles::default() };
        let source = FolderSource::open_files(&files, &CONFIG, &|_, _| ()).unwrap();
        assert_eq!((source.len(), bad_names(&source)), (1, vec!["pipe.jpg".to_owned()]));
    }

    #[test]
    fn files_and_folders_that_may_not_be_read_are_named() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = folder_of(&["good.png", "secret.png", "closed/a.png"]);
        let permit = |name: &str, mode| {
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        permit("secret.png", 0);
        permit("closed", 0);
        // The superuser may read everything, and then there is nothing to see here.
        if fs::read(folder.path().join("secret.png")).is_err() {
            let source = open(&folder);
            assert_eq!(names(&source), ["good.png"]);
            assert_eq!(bad_names(&source), ["closed", "secret.png"]);
        }
        permit("closed", 0o700);
    }

    #[test]
    fn a_list_holds_any_bytes() {
        let folder = TempDir::new().unwrap();
        let name = OsStr::from_bytes(b"\xff\xfe.png");
        put(&folder, name, &png(5));
        put(&folder, "list.txt", b"\xff\xfe.png\n");
        let files = PictureFiles { list: Some(folder.path().join("list.txt")), ..PictureFiles::default() };
        let source = FolderSource::open_files(&files, &CONFIG, &|_, _| ()).unwrap();
        assert_eq!((names(&source), source.path(0)), (vec![r"\xff\xfe.png".to_owned()], folder.path().join(name)));
    }

    #[test]
    fn a_file_with_two_names_counts_once() {
        let folder = folder_of(&["a.png"]);
        fs::hard_link(folder.path().join("a.png"), folder.path().join("b.png")).unwrap();
        let source = open(&folder);
        assert_eq!((names(&source), source.report().repeated), (vec!["a.png".to_owned()], 1));
        let notes = &source.report().notes;
        assert!(notes.iter().any(|note| note.ends_with("count once: 1 passed over")), "{notes:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever subset of the files turns bad, the rest keep their order, their labels and their pixels.
    #[test]
    fn labels_never_shift(bad in prop::collection::vec(any::<bool>(), 12)) {
        let folder = TempDir::new().unwrap();
        let mut good = Vec::new();
        for (i, bad) in (0u8..).zip(&bad) {
            let (class, name) = (i / 4, format!("class{}/{i:02}.png", i / 4));
            put(&folder, &name, &if *bad { Vec::new() } else { png(i) });
            if !bad {
                good.push((name, Some(u32::from(class)), i));
            }
        }
        prop_assume!(!good.is_empty());
        let source = open(&folder);
        prop_assert_eq!(source.classes(), ["class0", "class1", "class2"]);
        let found: Vec<_> = (0..source.len())
            .map(|i| (source.name(i).into_owned(), source.label(i), source.image(i).unwrap().as_rgb8()[0]))
            .collect();
        prop_assert_eq!(found, good);
        prop_assert_eq!(source.report().bad_files.len(), bad.iter().filter(|bad| **bad).count());
    }
}

/// What a scan by headers differs in, and what it does not.
mod headers {
    use super::*;

    const HEADERS: FolderConfig = FolderConfig { full_scan_files: 0, ..CONFIG };

    fn open_headers(folder: &TempDir) -> FolderSource {
        FolderSource::open(folder.path(), &HEADERS, &|_, _| ()).unwrap()
    }

    #[test]
    fn the_pictures_are_the_same() {
        let folder = folder_of(&["cat/a.png", "cat/b.PNG", "dog/c.png"]);
        put(&folder, "dog/d.jpg", JPEG);
        put(&folder, "dog/empty.jpg", b"");
        put(&folder, "dog/page.jpg", b"<html>");
        let (whole, heads) = (open(&folder), open_headers(&folder));
        assert!(heads.report().headers_only && !whole.report().headers_only);
        assert_eq!(names(&whole), names(&heads));
        assert_eq!(labels(&whole), labels(&heads));
        assert_eq!(whole.report().bad_files, heads.report().bad_files);
        let sizes =
            |source: &FolderSource| (source.report().width, source.report().height, source.report().total_bytes);
        assert_eq!(sizes(&whole), sizes(&heads));
        assert_ne!(whole.fingerprint(), heads.fingerprint(), "the content is known to another depth");
        // Pixels are kept from the scan, or from the first reading.
        assert_eq!((whole.n_cached(), heads.n_cached()), (4, 0));
        for i in 0..4 {
            assert_eq!(whole.image(i).unwrap(), heads.image(i).unwrap());
        }
        assert_eq!(heads.n_cached(), 4);
        let note = heads.report().notes.last().unwrap();
        assert!(note.starts_with("6 files are more than full_scan_files"), "{note}");
    }

    /// The threshold counts files; one less than it is a complete scan.
    #[test]
    fn the_threshold_is_a_number_of_files() {
        let folder = folder_of(&["a.png", "b.png"]);
        for (full_scan_files, headers_only) in [(1, true), (2, false), (3, false)] {
            let config = FolderConfig { full_scan_files, ..CONFIG };
            let source = FolderSource::open(folder.path(), &config, &|_, _| ()).unwrap();
            assert_eq!(source.report().headers_only, headers_only);
        }
    }

    #[test]
    fn what_is_broken_behind_the_header_is_found_when_it_is_read() {
        let folder = folder_of(&["good.png"]);
        put(&folder, "half.jpg", &JPEG[..JPEG.len() / 2]);
        assert_eq!(names(&open(&folder)), ["good.png"]);
        let heads = open_headers(&folder);
        assert_eq!(names(&heads), ["good.png", "half.jpg"]);
        assert!(matches!(heads.image(1).unwrap_err().problem, Problem::Decode(_)));
    }

    #[test]
    fn a_header_behind_the_first_bytes_is_found() {
        let folder = TempDir::new().unwrap();
        // A comment longer than what is read at first stands before the header of the frame.
        let comment = [&[0xFF, 0xFE, 0xFF, 0xFF][..], &[7; 65_533]].concat();
        put(&folder, "late.jpg", &[&JPEG[..2], &comment, &JPEG[2..]].concat());
        let source = open_headers(&folder);
        assert_eq!((source.report().width.max, source.report().height.max), (48, 40));
        source.image(0).unwrap();
    }

    #[test]
    fn a_file_that_changed_is_noticed() {
        let folder = folder_of(&["longer.png", "touched.png"]);
        put(&folder, "same-size.jpg", JPEG);
        let source = FolderSource::open(folder.path(), &FolderConfig { cache_mib: 0, ..HEADERS }, &|_, _| ()).unwrap();
        (0..3).for_each(|i| drop(source.image(i).unwrap()));
        let touch = |name: &str, seconds: u64| {
            let file = fs::File::options().append(true).open(folder.path().join(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        };
        touch("touched.png", 1_000_000_000);
        let before = fs::metadata(folder.path().join("same-size.jpg")).unwrap().modified().unwrap();
        put(&folder, "same-size.jpg", &[&JPEG[..JPEG.len() - 3], &[0, 0xFF, 0xD9]].concat());
        let file = fs::File::options().append(true).open(folder.path().join("same-size.jpg")).unwrap();
        file.set_modified(before).unwrap();
        put(&folder, "longer.png", &[png(0), vec![0]].concat());
        for i in 0..3 {
            let problem = source.image(i).unwrap_err().problem;
            assert!(matches!(problem, Problem::Changed { .. }), "{}: {problem}", source.name(i));
        }
    }

    #[test]
    fn neither_times_nor_the_place_are_part_of_the_fingerprint() {
        let first = folder_of(&["a.png", "b.png"]);
        let second = folder_of(&["a.png", "b.png"]);
        let file = fs::File::options().append(true).open(second.path().join("a.png")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(open_headers(&first).fingerprint(), open_headers(&second).fingerprint());
        put(&second, "b.png", &png(9));
        assert_ne!(open_headers(&first).fingerprint(), open_headers(&second).fingerprint());
    }

    #[test]
    fn copies_are_known_at_both_depths() {
        // Larger than what is read of each, and different only behind it.
        let long = |end: u8| [JPEG, &vec![3; 20_000], &[end]].concat();
        let folder = folder_of(&["a.png", "b.png"]);
        put(&folder, "copy-of-b.png", &png(1));
        for (name, end) in [("x1.jpg", 1), ("x2.jpg", 2), ("x3.jpg", 1)] {
            put(&folder, name, &long(end));
        }
        for source in [open(&folder), open_headers(&folder)] {
            assert_eq!(names(&source), ["a.png", "b.png", "copy-of-b.png", "x1.jpg", "x2.jpg", "x3.jpg"]);
            assert_eq!((0..6).map(|i| source.group(i)).collect::<Vec<_>>(), [0, 1, 1, 3, 4, 3]);
            assert_eq!(source.report().duplicates, 2);
        }
    }
}

/// Folders beside each other, lists of files, tables of labels.
mod places {
    use super::*;

    fn open_files(files: &PictureFiles) -> FolderSource {
        FolderSource::open_files(files, &CONFIG, &|_, _| ()).unwrap()
    }

    fn files_error(files: &PictureFiles) -> String {
        FolderSource::open_files(files, &CONFIG, &|_, _| ()).unwrap_err().to_string()
    }

    fn roots(folders: &[&TempDir]) -> PictureFiles {
        let roots = folders.iter().map(|folder| folder.path().to_owned()).collect();
        PictureFiles { roots, ..PictureFiles::default() }
    }

    fn list(folder: &TempDir, text: impl AsRef<[u8]>) -> PictureFiles {
        put(folder, "list.txt", text.as_ref());
        PictureFiles { list: Some(folder.path().join("list.txt")), ..PictureFiles::default() }
    }

    fn table(folder: &TempDir, text: &str) -> Option<std::path::PathBuf> {
        put(folder, "labels.csv", text.as_bytes());
        Some(folder.path().join("labels.csv"))
    }

    #[test]
    fn several_roots_are_one_set() {
        let (first, second) = (folder_of(&["cat/a.png", "dog/b.png"]), folder_of(&["ant/a.png", "cat/a.png"]));
        let source = open_files(&roots(&[&first, &second]));
        assert_eq!(source.classes(), ["ant", "cat", "dog"]);
        assert_eq!(labels(&source), [Some(1), Some(2), Some(0), Some(1)]);
        let place = |folder: &TempDir| folder.path().display().to_string();
        assert_eq!(names(&source)[3], format!("{}/cat/a.png", place(&second)));
        assert_eq!(source.path(0), first.path().join("cat/a.png"));
        // cat/a.png of the second root is the same picture as dog/b.png, cat/a.png of the first as ant/a.png.
        assert_eq!((0..4).map(|i| source.group(i)).collect::<Vec<_>>(), [0, 1, 0, 1]);
        let same = open_files(&roots(&[&first, &first]));
        assert_eq!((same.len(), same.report().repeated), (2, 1));
        let missing = PictureFiles { roots: vec![first.path().into(), "/nowhere".into()], ..Default::default() };
        assert_eq!(files_error(&missing), "no such folder: /nowhere");
    }

    #[test]
    fn a_list_keeps_its_order_and_reports_what_is_missing() {
        let folder = folder_of(&["cat/b.png", "dog/a.png", "elsewhere/c.png"]);
        put(&folder, "cat/no-extension", &png(77));
        let absolute = folder.path().join("elsewhere/c.png").display().to_string();
        let text = format!(
            "dog/a.png\r\n\n./cat/b.png\ngone.png\n{absolute}\ncat/../cat/b.png\ndog\ngone.png\ncat/no-extension"
        );
        let source = open_files(&list(&folder, text));
        assert_eq!(names(&source), ["dog/a.png", "./cat/b.png", &absolute, "cat/no-extension"]);
        assert_eq!(source.image(3).unwrap().as_rgb8()[0], 77);
        assert_eq!(source.path(2), folder.path().join("elsewhere/c.png"));
        assert_eq!(bad_names(&source), ["dog", "gone.png"]);
        assert_eq!(source.report().bad_files[0].reason, "not a regular file");
        assert_eq!(source.report().repeated, 1);
        assert!(source.classes().is_empty(), "a path from elsewhere has no class folder");
        let labelled = open_files(&list(&folder, "dog/a.png\ncat/b.png\n"));
        assert_eq!((labelled.classes().len(), labels(&labelled)), (2, vec![Some(1), Some(0)]));
    }

    #[test]
    fn lists_and_tables_that_cannot_be_used_say_so() {
        let folder = folder_of(&["a.png"]);
        let message = files_error(&list(&folder, "\n \n"));
        assert!(message.ends_with("list.txt names no file"), "{message}");
        let both = PictureFiles { list: Some("x".into()), ..PictureFiles::below(folder.path()) };
        assert_eq!(
            files_error(&both),
            "expected either folders of pictures or a list of files, got 1 folders and 1 lists"
        );
        assert!(files_error(&PictureFiles::default()).ends_with("got 0 folders and 0 lists"));
        let labels = Some(folder.path().join("none.csv"));
        let message = files_error(&PictureFiles { labels, ..PictureFiles::below(folder.path()) });
        assert!(message.contains("none.csv cannot be read: "), "{message}");
        let labels = table(&folder, "a.png,cat\nb.png\n");
        let message = files_error(&PictureFiles { labels, ..PictureFiles::below(folder.path()) });
        assert!(
            message.ends_with("labels.csv, line 2: expected 2 columns, got 1; a table with others besides path and label begins with their names"),
            "{message}"
        );
    }

    #[test]
    fn rows_begin_below_the_root_or_at_the_table_or_at_the_top() {
        let folder = folder_of(&["photos/x/a.png", "photos/y/b.png"]);
        let root = folder.path().join("photos");
        let real = fs::canonicalize(&root).unwrap().display().to_string();
        for prefix in ["", "photos/", "./photos/", &(real + "/")] {
            let table = table(&folder, &format!("{prefix}x/a.png,cat\n{prefix}y/b.png,ant\n"));
            let source = open_files(&PictureFiles { labels: table, ..PictureFiles::below(&root) });
            assert_eq!(labels(&source), [Some(1), Some(0)], "{prefix}");
            assert!(source.report().bad_files.is_empty(), "{prefix}");
        }
        fs::create_dir(folder.path().join("tables")).unwrap();
        put(&folder, "tables/labels.csv", b"../photos/x/a.png,cat\n../photos/y/b.png,ant\n");
        let labels_file = Some(folder.path().join("tables/labels.csv"));
        let source = open_files(&PictureFiles { labels: labels_file, ..PictureFiles::below(&root) });
        assert_eq!(labels(&source), [Some(1), Some(0)]);
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&root, folder.path().join("link")).unwrap();
            let labels_file = table(&folder, "link/x/a.png,cat\nlink/y/b.png,ant\n");
            let source = open_files(&PictureFiles { labels: labels_file, ..PictureFiles::below(&root) });
            assert_eq!(labels(&source), [Some(1), Some(0)]);
            assert!(source.report().bad_files.is_empty(), "{:?}", source.report().bad_files);
        }
        let labels = table(&folder, "images/x/a.png,cat\nimages/y/b.png,ant\nimages/c.png,ant\nx/a.png,cat\n");
        let (files, config) =
            (PictureFiles { labels, ..PictureFiles::below(&root) }, FolderConfig { max_bad_fraction: 0.2, ..CONFIG });
        let message = FolderSource::open_files(&files, &config, &|_, _| ()).unwrap_err().to_string();
        assert!(
            message.contains(" cannot be used, 3 of them rows of the table of labels that fit no picture"),
            "{message}"
        );
    }

    #[test]
    fn labels_come_from_a_table() {
        let folder = folder_of(&["x/a.png", "x/b,c.png", "y/d.png", "y/extra.png"]);
        put(&folder, "y/broken.png", b"");
        let absolute = folder.path().join("y/d.png").display().to_string();
        let text = format!(
            "path,label\nx/a.png,zebra\n\"x/b,c.png\",ant\n{absolute},zebra\ny/broken.png,ant\nx/gone.png,eel\n"
        );
        let labels_file = table(&folder, &text);
        let source = open_files(&PictureFiles { labels: labels_file.clone(), ..PictureFiles::below(folder.path()) });
        assert_eq!(source.classes(), ["ant", "eel", "zebra"]);
        assert_eq!(names(&source), ["x/a.png", "x/b,c.png", "y/d.png", "y/extra.png"]);
        assert_eq!(labels(&source), [Some(2), Some(0), Some(2), None]);
        let report = source.report();
        assert_eq!((report.labelled, report.unlabelled), (true, 1));
        assert_eq!(bad_names(&source), ["gone.png", "broken.png"]);
        assert!(report.bad_files[0].reason.ends_with("labels.csv, but does not exist"), "{:?}", report.bad_files[0]);
        assert!(report.notes[0].starts_with("1 pictures have no row in "), "{:?}", report.notes);
        assert!(report.notes[0].ends_with("the first is y/extra.png"), "{:?}", report.notes);
        assert_eq!(report.notes[1], "class `eel` has no usable picture");

        // Another label is other data, though no picture changed.
        let before = source.fingerprint();
        table(&folder, &text.replace("ant", "ape"));
        let after = open_files(&PictureFiles { labels: labels_file.clone(), ..PictureFiles::below(folder.path()) });
        assert_eq!(before, after.fingerprint(), "the same partition under another name");
        table(&folder, &text.replace("a.png,zebra", "a.png,ant"));
        let after = open_files(&PictureFiles { labels: labels_file.clone(), ..PictureFiles::below(folder.path()) });
        assert_ne!(before, after.fingerprint());

        // Columns may have the names that people give them; others are known by their being no picture.
        table(&folder, "image_id,species\nx/a.png,zebra\n");
        let read = open_files(&PictureFiles { labels: labels_file.clone(), ..PictureFiles::below(folder.path()) });
        assert_eq!(read.classes(), ["zebra"]);
        let note = &read.report().notes[0];
        assert!(
            note.ends_with("the first row, `image_id,species`, is taken for the names of the columns path and label"),
            "{note}"
        );
        // Where nothing tells them apart there is a hint.
        table(&folder, "image_id,species\nx/a,zebra\nx/a.png,zebra\n");
        let misread = open_files(&PictureFiles { labels: labels_file.clone(), ..PictureFiles::below(folder.path()) });
        let hint = misread.report().bad_files.iter().find(|bad| bad.path.ends_with("image_id")).map(|bad| &bad.reason);
        assert!(
            hint.is_some_and(|hint| hint.ends_with("; if the row names columns, call them path and label")),
            "{hint:?}"
        );
        table(&folder, &text.replace("a.png,zebra", "a.png,ant"));

        // Alone, the table is the list.
        let alone = open_files(&PictureFiles { labels: labels_file, ..PictureFiles::default() });
        assert_eq!(names(&alone), ["x/a.png", "x/b,c.png", &absolute]);
        assert_eq!(labels(&alone), [Some(0), Some(0), Some(2)]);
    }

    #[test]
    fn the_places_are_typed() {
        let files = PictureFiles::below(Path::new("a"));
        assert_eq!(serde_json::from_str::<PictureFiles>(r#"{"roots": ["a"]}"#).unwrap(), files);
        assert!(serde_json::from_str::<PictureFiles>(r#"{"root": ["a"]}"#).is_err());
    }
}

#[test]
fn under_fail_the_first_bad_file_ends_it() {
    let strict = FolderConfig { on_bad: OnBad::Fail, ..CONFIG };
    let folder = folder_of(&["a.png", "b.png"]);
    assert!(FolderSource::open(folder.path(), &strict, &|_, _| ()).is_ok());
    put(&folder, "bad.png", b"");
    for config in [strict, FolderConfig { full_scan_files: 0, ..strict }] {
        let message = open_error(folder.path(), &config).to_string();
        assert_eq!(message, format!("{}/bad.png: the file is empty (on_bad = \"fail\")", folder.path().display()));
    }
    put(&folder, "list.txt", b"a.png\ngone.png");
    let files = PictureFiles { list: Some(folder.path().join("list.txt")), ..PictureFiles::default() };
    let error = FolderSource::open_files(&files, &strict, &|_, _| ()).unwrap_err();
    assert!(matches!(error, FolderError::Bad { .. }) && error.to_string().contains("gone.png"), "{error}");
}

#[test]
fn a_file_costs_fewer_than_two_hundred_bytes() {
    let folder = TempDir::new().unwrap();
    for i in 0..500 {
        let name = format!("a_class_with_a_long_name_{:03}/a_picture_with_a_long_name_{i:012}.png", i % 7);
        put(&folder, name, &png(u8::try_from(i % 250).unwrap()));
    }
    for config in [CONFIG, FolderConfig { full_scan_files: 0, cache_mib: 0, ..CONFIG }] {
        let source = FolderSource::open(folder.path(), &config, &|_, _| ()).unwrap();
        // The copies, half of the pictures here, are kept in a table of their own.
        assert!(source.manifest_bytes() < 200 * source.len(), "{} bytes", source.manifest_bytes());
    }
}
