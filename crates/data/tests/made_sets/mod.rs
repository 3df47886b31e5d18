//! Tiny sets in every form that a source can read, made on the spot.

#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up may panic")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::{Compression, write::GzEncoder};
use twoview_data::{
    CifarConfig, CifarLabels, CifarSource, FolderConfig, FolderSource, IdxSource, PackForm, PackSource, PatternsConfig,
    PatternsSource, Source, Split, StlPart, StlSource, TarSource, write_pack,
};
use twoview_pixels::{DecodeOptions, Image, encode_png};

pub(crate) const OPTIONS: DecodeOptions = DecodeOptions::STANDARD;

/// A source with what its contract needs.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) fingerprint: String,
}

/// The bytes that `files/make_published.py` makes by the same formula.
pub(crate) fn noise(n: usize, first: u64) -> Vec<u8> {
    (first..first + n as u64).map(|k| (k.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect()
}

/// Picture `i` of a set; `flavour` changes every one of them.
pub(crate) fn picture(i: u32, flavour: u64) -> Image {
    let (width, height) = (20 + i % 3, 16 + i % 2);
    let pixels = noise((width * height * 3) as usize, u64::from(i) * 1_000_003 + flavour * 7_919);
    Image::from_rgb8(width, height, pixels).unwrap()
}

pub(crate) fn png(i: u32, flavour: u64) -> Vec<u8> {
    encode_png(&picture(i, flavour)).unwrap()
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    path.to_owned()
}

pub(crate) fn folder(root: &Path, flavour: u64) {
    for i in 0..6 {
        write(&root.join(["cat", "dog"][i as usize % 2]).join(format!("{i}.png")), &png(i, flavour));
    }
}

pub(crate) fn open_folder(root: &Path, cache_mib: u64) -> FolderSource {
    let config = FolderConfig {
        decode: OPTIONS,
        cache_mib,
        full_scan_files: 1000,
        on_bad: twoview_data::OnBad::Skip,
        max_bad_fraction: 0.0,
    };
    FolderSource::open(root, &config, &|_, _| {}).unwrap()
}

/// Two pictures in each batch, with labels that the number of the picture gives.
pub(crate) fn cifar10_binary(root: &Path, flavour: u64) {
    let names = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];
    for (b, name) in names.iter().enumerate() {
        let records: Vec<u8> = (0..2)
            .flat_map(|r| {
                let i = (2 * b + r) as u64;
                let mut record = vec![(i % 10).to_le_bytes()[0]];
                record.extend(noise(3072, i * 3072 + flavour));
                record
            })
            .collect();
        write(&root.join(format!("{name}.bin")), &records);
    }
    write(&root.join("batches.meta.txt"), format!("{}\n\n", CIFAR10.join("\n")).as_bytes());
}

pub(crate) const CIFAR10: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

pub(crate) fn cifar100_binary(root: &Path, flavour: u64) {
    for (name, n) in [("train", 4u8), ("test", 2)] {
        let records: Vec<u8> = (0..n)
            .flat_map(|i| {
                let mut record = vec![i, 99 - i];
                record.extend(noise(3072, u64::from(i) * 3072 + flavour));
                record
            })
            .collect();
        write(&root.join(format!("{name}.bin")), &records);
    }
}

/// A batch as Python 2 pickled it: short byte strings, and the pixels as one long one.
pub(crate) fn python2_batch(first: u64, labels: &[u8], flavour: u64) -> Vec<u8> {
    let mut out =
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05(".to_vec();
    labels.iter().for_each(|label| out.extend([b'K', *label]));
    out.extend(
        b"eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09",
    );
    out.extend(b"(K\x01K");
    out.push(labels.len().to_le_bytes()[0]);
    out.extend(b"M\x00\x0c\x86cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T");
    let data = noise(3072 * labels.len(), first * 3072 + flavour);
    out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    out.extend(data);
    out.extend(b"tbU\x09filenamesq\x0c]q\x0d(U\x05a.pngU\x05b.pngeu.");
    out
}

pub(crate) fn cifar10_python(root: &Path, flavour: u64) {
    for b in 0..5u8 {
        let batch = python2_batch(u64::from(2 * b), &[2 * b, 2 * b + 1], flavour);
        write(&root.join(format!("data_batch_{}", b + 1)), &batch);
    }
    write(&root.join("test_batch"), &python2_batch(10, &[0, 1], flavour));
}

pub(crate) fn cifar(root: &Path, split: Split, labels: CifarLabels) -> CifarSource {
    CifarSource::open(root, CifarConfig { split, labels }).unwrap()
}

pub(crate) fn stl(root: &Path, flavour: u64) {
    let folder = root.join("stl10_binary");
    write(&folder.join("train_X.bin"), &noise(2 * 27_648, flavour));
    write(&folder.join("train_y.bin"), &[3, 10]);
    write(&folder.join("unlabeled_X.bin"), &noise(3 * 27_648, 99 + flavour));
    let names = "airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n";
    write(&folder.join("class_names.txt"), names.as_bytes());
}

pub(crate) fn idx_bytes(sides: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sides.len().to_le_bytes()[0]];
    sides.iter().for_each(|side| bytes.extend(side.to_be_bytes()));
    bytes.extend(data);
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn idx(root: &Path, compressed: bool, flavour: u64) {
    let pictures = idx_bytes(&[4, 5, 6], &noise(4 * 30, flavour));
    let labels = idx_bytes(&[4], &[7, 2, 7, 0]);
    let ending = if compressed { ".gz" } else { "" };
    let pack = |bytes: &[u8]| if compressed { gzip(bytes) } else { bytes.to_vec() };
    write(&root.join(format!("train-images-idx3-ubyte{ending}")), &pack(&pictures));
    write(&root.join(format!("train-labels-idx1-ubyte{ending}")), &pack(&labels));
}

/// A tar archive of these members, by the program's usual crate.
pub(crate) fn tar_bytes(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Two shards with three samples each.
pub(crate) fn tar_shards(root: &Path, flavour: u64) {
    for shard in 0..2u32 {
        let samples: Vec<(String, Vec<u8>)> = (0..3)
            .flat_map(|s| {
                let i = 3 * shard + s;
                let label = (i % 3 * 5).to_string().into_bytes();
                [(format!("{i:05}.png"), png(i, flavour)), (format!("{i:05}.cls"), label)]
            })
            .collect();
        let members: Vec<(&str, &[u8])> = samples.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
        write(&root.join(format!("train-{shard:03}.tar")), &tar_bytes(&members));
    }
}

pub(crate) fn pack(root: &Path, form: PackForm, flavour: u64) -> PathBuf {
    folder(&root.join("folder"), flavour);
    let source = open_folder(&root.join("folder"), 0);
    let out = root.join("set.pack");
    write_pack(&source, &source.fingerprint().to_string(), &out, form, OPTIONS, 0.0, &|_, _| {}).unwrap();
    out
}

/// One source of every kind, with pictures that `flavour` decides.
pub(crate) fn cases(root: &Path, flavour: u64) -> Vec<Case> {
    let mut cases = Vec::new();
    let place = |name: &str| root.join(name);
    macro_rules! case {
        ($name:literal, $source:expr) => {{
            let source = $source;
            let fingerprint = source.fingerprint().to_string();
            cases.push(Case { name: $name, source: Arc::new(source), fingerprint });
        }};
    }
    folder(&place("folder"), flavour);
    case!("folder", open_folder(&place("folder"), 0));
    case!("folder, cached", open_folder(&place("folder"), 16));
    let config = PatternsConfig { seed: flavour, split: Split::Train, per_class: 1 };
    case!("patterns", PatternsSource::new(config).unwrap());
    cifar10_binary(&place("c10"), flavour);
    case!("cifar-10 binary", cifar(&place("c10"), Split::Train, CifarLabels::Fine));
    cifar100_binary(&place("c100"), flavour);
    case!("cifar-100 binary, coarse", cifar(&place("c100"), Split::Train, CifarLabels::Coarse));
    cifar10_python(&place("c10py"), flavour);
    case!("cifar-10 python", cifar(&place("c10py"), Split::Train, CifarLabels::Fine));
    stl(&place("stl"), flavour);
    case!("stl train", StlSource::open(&place("stl"), StlPart::Train).unwrap());
    case!("stl both", StlSource::open(&place("stl"), StlPart::TrainAndUnlabeled).unwrap());
    idx(&place("idx"), false, flavour);
    case!("idx", IdxSource::open(&place("idx"), Split::Train).unwrap());
    idx(&place("idxgz"), true, flavour);
    case!("idx.gz", IdxSource::open(&place("idxgz"), Split::Train).unwrap());
    tar_shards(&place("tar"), flavour);
    case!("tar", TarSource::open(&place("tar"), Split::Train, OPTIONS).unwrap());
    case!("pack", PackSource::open(&pack(&place("pack1"), PackForm::Original, flavour), OPTIONS).unwrap());
    case!("pack, decoded", PackSource::open(&pack(&place("pack2"), PackForm::Decoded, flavour), OPTIONS).unwrap());
    let small = PackForm::MaxSide { px: 18 };
    case!("pack, shrunk", PackSource::open(&pack(&place("pack3"), small, flavour), OPTIONS).unwrap());
    cases
}
