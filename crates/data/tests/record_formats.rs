//! CIFAR, STL-10 and IDX files against torchvision's readers, and what is said about files that are none.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up may panic")]

mod made_sets;

use std::fs;
use std::path::Path;

use made_sets::{
    CIFAR10, cifar, cifar10_binary, cifar10_python, cifar100_binary, gzip, idx, idx_bytes, noise, stl, write,
};
use serde_json::Value;
use twoview_data::{
    CifarConfig, CifarLabels, CifarSource, IdxSource, PickleError, RecordError, Source, Split, StlPart, StlSource,
};

const FINE: CifarConfig = CifarConfig { split: Split::Train, labels: CifarLabels::Fine };

/// Places, pixels and labels as torchvision reads the set `key`; `label` says what it calls label `n` here.
#[track_caller]
fn agrees_with_torchvision(key: &str, source: &dyn Source, label: impl Fn(u64) -> String) {
    let golden: Value = serde_json::from_str(&fs::read_to_string("tests/files/published.json").unwrap()).unwrap();
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let cases = golden[key].as_array().unwrap();
    assert!(cases.len() >= 4);
    for case in cases {
        let (i, x, y) = (number(&case[0]), number(&case[1]), number(&case[2]));
        let image = source.image(i).unwrap();
        let at = (y * image.width() as usize + x) * 3;
        let want: Vec<usize> = case[3].as_array().unwrap().iter().map(number).collect();
        let got: Vec<usize> = image.as_rgb8()[at..at + 3].iter().map(|value| usize::from(*value)).collect();
        assert_eq!(got, want, "{key}, picture {i}, x {x}, y {y}");
        let class = source.label(i).unwrap() as usize;
        assert_eq!(source.classes()[class], label(case[4].as_u64().unwrap()), "{key}, picture {i}");
    }
}

#[test]
fn reads_what_torchvision_reads() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);

    stl(&at("stl"), 0);
    let names = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"];
    let source = StlSource::open(&at("stl"), StlPart::Train).unwrap();
    agrees_with_torchvision("stl", &source, |label| names[usize::try_from(label).unwrap()].to_owned());

    let folder = at("mnist").join("MNIST").join("raw");
    write(&folder.join("train-images-idx3-ubyte.gz"), &gzip(&idx_bytes(&[2, 28, 28], &noise(2 * 784, 0))));
    write(&folder.join("train-labels-idx1-ubyte"), &idx_bytes(&[2], &[7, 2]));
    let source = IdxSource::open(&at("mnist"), Split::Train).unwrap();
    agrees_with_torchvision("mnist", &source, |label| label.to_string());

    // Pickles as Python 3 writes them, with the names of the classes in a pickle of protocol 0.
    for protocol in [2, 4] {
        let folder = at(&format!("c{protocol}")).join("cifar-10-batches-py");
        let batch = fs::read(format!("tests/files/cifar_batch_protocol{protocol}.pickle")).unwrap();
        (1..=5).for_each(|i| drop(write(&folder.join(format!("data_batch_{i}")), &batch)));
        write(&folder.join("batches.meta"), &fs::read("tests/files/cifar_meta_protocol0.pickle").unwrap());
        let source = CifarSource::open(&at(&format!("c{protocol}")), FINE).unwrap();
        agrees_with_torchvision("cifar", &source, |label| CIFAR10[usize::try_from(label).unwrap()].to_owned());
    }
}

#[test]
fn both_versions_of_cifar_10_are_the_same_pictures() {
    let root = tempfile::tempdir().unwrap();
    let (binary, python) = (root.path().join("bin"), root.path().join("py"));
    cifar10_binary(&binary, 0);
    cifar10_python(&python, 0);
    for (split, n) in [(Split::Train, 10), (Split::Test, 2)] {
        let (a, b) = (cifar(&binary, split, CifarLabels::Fine), cifar(&python, split, CifarLabels::Fine));
        assert_eq!((a.len(), b.len()), (n, n));
        for i in 0..n {
            assert_eq!(a.image(i).unwrap(), b.image(i).unwrap());
            assert_eq!(a.label(i), b.label(i));
        }
    }
    let train = cifar(&binary, Split::Train, CifarLabels::Fine);
    assert_eq!(train.classes(), CIFAR10);
    assert_eq!(train.name(3), "data_batch_2.bin/00001");
    assert_eq!(cifar(&python, Split::Train, CifarLabels::Fine).classes()[3], "3");
}

#[test]
fn cifar_100_has_the_coarse_label_first() {
    let root = tempfile::tempdir().unwrap();
    cifar100_binary(root.path(), 0);
    let labels = |kind| {
        let source = cifar(root.path(), Split::Train, kind);
        (source.classes().len(), (0..source.len()).map(|i| source.label(i).unwrap()).collect::<Vec<_>>())
    };
    assert_eq!(labels(CifarLabels::Coarse), (20, vec![0, 1, 2, 3]));
    assert_eq!(labels(CifarLabels::Fine), (100, vec![99, 98, 97, 96]));
}

#[test]
fn idx_of_three_channels_is_taken_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let pixels = noise(2 * 4 * 5 * 3, 3);
    write(&root.path().join("test-images-idx4-ubyte"), &idx_bytes(&[2, 4, 5, 3], &pixels));
    let source = IdxSource::open(root.path(), Split::Test).unwrap();
    let image = source.image(1).unwrap();
    assert_eq!((image.width(), image.height(), image.as_rgb8()), (5, 4, &pixels[60..]));
    assert!(source.classes().is_empty() && source.label(0).is_none());
}

/// 305 kB can unfold to half a gigabyte, and a header may promise any length.
#[test]
fn a_compressed_file_may_not_promise_what_it_cannot_sensibly_hold() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("train-images-idx3-ubyte.gz");
    let zeros = gzip(&idx_bytes(&[100, 900, 1000], &vec![0; 90_000_000]));
    assert!(zeros.len() < 100_000);
    for (bytes, want) in [
        (zeros, 90_000_000),
        (gzip(&idx_bytes(&[u32::MAX, 28, 28], &[0; 30])), u64::from(u32::MAX) * 784),
        (gzip(&idx_bytes(&[u32::MAX, 10_000, 10_000, u32::MAX], &[0; 30])), u64::MAX),
    ] {
        fs::write(&file, &bytes).unwrap();
        let error = IdxSource::open(root.path(), Split::Train).unwrap_err();
        let RecordError::Bomb { promised, packed, allowed, .. } = error else { panic!("{error}") };
        assert_eq!((promised, packed), (want, bytes.len() as u64));
        assert_eq!(allowed, (64 << 20) + 64 * packed);
    }
    // Well within: a promise that is not kept is called by its own name.
    fs::write(&file, gzip(&idx_bytes(&[1000, 28, 28], &[0; 30]))).unwrap();
    let error = IdxSource::open(root.path(), Split::Train).unwrap_err();
    assert!(matches!(error, RecordError::Length { got: 30, .. }), "{error}");
}

#[test]
fn unlabelled_pictures_of_stl_follow_the_labelled_ones() {
    let root = tempfile::tempdir().unwrap();
    stl(root.path(), 0);
    let source = StlSource::open(root.path(), StlPart::TrainAndUnlabeled).unwrap();
    assert_eq!((source.len(), source.label(0)), (5, None));
    assert_eq!(source.name(2), "unlabeled_X.bin/00000");
    let alone = StlSource::open(root.path(), StlPart::Unlabeled).unwrap();
    assert_eq!(source.image(4).unwrap(), alone.image(2).unwrap());
}

#[track_caller]
fn refused(result: Result<impl Sized, RecordError>, want: &str) -> RecordError {
    let error = result.err().expect("refused");
    assert!(error.to_string().contains(want), "{error}");
    error
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let root = tempfile::tempdir().unwrap();
    let fresh = |name: &str, make: &dyn Fn(&Path)| {
        let folder = root.path().join(name);
        make(&folder);
        folder
    };
    let open = |folder: &Path| CifarSource::open(folder, FINE);
    let c10 = |folder: &Path| cifar10_binary(folder, 0);

    refused(open(root.path()), "no files of CIFAR");
    let at = fresh("cut", &c10);
    fs::write(at.join("data_batch_2.bin"), [0; 5000]).unwrap();
    refused(open(&at), "expected a multiple of 3073 bytes, got 5000");
    let at = fresh("gap", &c10);
    fs::remove_file(at.join("data_batch_4.bin")).unwrap();
    refused(open(&at), "data_batch_4.bin cannot be read");
    let at = fresh("label", &c10);
    fs::write(at.join("data_batch_1.bin"), [vec![10], vec![0; 3072]].concat()).unwrap();
    refused(open(&at), "the label of record 0 must be from 0 to 9, got 10");
    let at = fresh("names", &c10);
    fs::write(at.join("batches.meta.txt"), "a\nb\n").unwrap();
    refused(open(&at), "expected 10 different names of classes, got 2");

    let at = fresh("evil", &|folder| cifar10_python(folder, 0));
    fs::write(at.join("data_batch_1"), b"cposix\nsystem\n(S'touch /tmp/owned'\ntR.").unwrap();
    let error = refused(open(&at), "wants to import posix.system");
    assert!(matches!(error, RecordError::Pickle { reason: PickleError::Forbidden { .. }, .. }));
    fs::write(at.join("data_batch_1"), b"\x80\x02}(U\x04data]U\x06labels]u.").unwrap();
    refused(open(&at), "no entry `data` that is a numpy array of bytes");

    let at = fresh("stl", &|folder| stl(folder, 0));
    fs::write(at.join("stl10_binary/train_y.bin"), [0, 1]).unwrap();
    refused(StlSource::open(&at, StlPart::Train), "the label of record 0 must be from 1 to 10, got 0");
    fs::write(at.join("stl10_binary/train_y.bin"), [1]).unwrap();
    refused(StlSource::open(&at, StlPart::Train), "1 labels for 2 pictures");
    refused(StlSource::open(&at, StlPart::Test), "test_X.bin cannot be read");

    let at = fresh("idx", &|folder| idx(folder, false, 0));
    let file = at.join("train-images-idx3-ubyte");
    refused(IdxSource::open(&at, Split::Test), "no file t10k-images-idx3-ubyte");
    fs::write(&file, idx_bytes(&[u32::MAX, u32::MAX, u32::MAX], &[0; 30])).unwrap();
    refused(IdxSource::open(&at, Split::Train), "pictures of 4294967295x4294967295 pixels, the limit is 100000000");
    fs::write(&file, idx_bytes(&[u32::MAX, 5000, 6000, 3], &[0; 30])).unwrap();
    refused(IdxSource::open(&at, Split::Train), "got 30 bytes");
    fs::write(&file, idx_bytes(&[4, 5, 7], &[0; 30])).unwrap();
    refused(IdxSource::open(&at, Split::Train), "expected 4 x 5 x 7 bytes behind the header, got 30 bytes");
    fs::write(&file, b"\x89PNG....").unwrap();
    refused(IdxSource::open(&at, Split::Train), "expected an IDX file of bytes");
}
