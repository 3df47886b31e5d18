//! CIFAR-10 and CIFAR-100 as their authors publish them, the binary and the Python version.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use twoview_pixels::Image;

use crate::class_names::in_byte_order;
use crate::pickle::Pickle;
use crate::pixel_set::{PixelSet, interleave};
use crate::record_files::RecordFiles;
use crate::{Fingerprint, PickleError, ReadBuffers, RecordError, SampleError, Source, Split};

const SIDE: u32 = 32;
/// Bytes of one picture: three planes of 32x32.
const PICTURE: usize = 3 * 32 * 32;

/// Which of the pictures and labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CifarConfig {
    /// The 50,000 training or the 10,000 test pictures.
    pub split: Split,
    /// Which labels of CIFAR-100; CIFAR-10 has only one kind.
    pub labels: CifarLabels,
}

/// The two kinds of labels that CIFAR-100 has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CifarLabels {
    /// 100 classes.
    Fine,
    /// 20 groups of five classes.
    Coarse,
}

/// CIFAR-10 or CIFAR-100 in memory.
///
/// # Files
/// Those of one of the four archives, in the folder or in its sub-folder of the archive's own name:
///
/// | | training | test | names of the classes |
/// |---|---|---|---|
/// | `cifar-10-batches-bin` | `data_batch_1.bin` to `data_batch_5.bin` | `test_batch.bin` | `batches.meta.txt` |
/// | `cifar-100-binary` | `train.bin` | `test.bin` | `fine_label_names.txt`, `coarse_label_names.txt` |
/// | `cifar-10-batches-py` | `data_batch_1` to `data_batch_5` | `test_batch` | `batches.meta` |
/// | `cifar-100-python` | `train` | `test` | `meta` |
///
/// Without the file of names the classes are called by their numbers. The Python version consists of pickles; only data
/// is read from them, and whatever would run anything is a [`PickleError`].
///
/// # Order
/// That of the files. Classes are byte-wise sorted, as the authors' are already.
///
/// # Cost
/// 3 KiB of memory a picture; opening reads and hashes all files of the split.
///
/// # Source
/// Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009. <https://www.cs.toronto.edu/~kriz/cifar.html>
#[derive(Debug)]
pub struct CifarSource {
    set: PixelSet,
    fingerprint: Fingerprint,
}

/// One of the four archives.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Archive {
    folder: &'static str,
    train: &'static [&'static str],
    test: &'static [&'static str],
    is_binary: bool,
    n_fine: usize,
}

const ARCHIVES: [Archive; 4] = [
    Archive {
        folder: "cifar-10-batches-bin",
        train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
        test: &["test_batch.bin"],
        is_binary: true,
        n_fine: 10,
    },
    Archive { folder: "cifar-100-binary", train: &["train.bin"], test: &["test.bin"], is_binary: true, n_fine: 100 },
    Archive {
        folder: "cifar-10-batches-py",
        train: &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
        test: &["test_batch"],
        is_binary: false,
        n_fine: 10,
    },
    Archive { folder: "cifar-100-python", train: &["train"], test: &["test"], is_binary: false, n_fine: 100 },
];

impl Archive {
    fn files(&self, split: Split) -> &'static [&'static str] {
        match split {
            Split::Train => self.train,
            Split::Test => self.test,
        }
    }

    /// The classes and the file that names them.
    fn classes(&self, labels: CifarLabels) -> (usize, &'static str, &'static str) {
        match (self.n_fine, labels) {
            (10, _) => (10, if self.is_binary { "batches.meta.txt" } else { "batches.meta" }, "label_names"),
            (_, CifarLabels::Fine) => {
                (100, if self.is_binary { "fine_label_names.txt" } else { "meta" }, "fine_label_names")
            }
            (_, CifarLabels::Coarse) => {
                (20, if self.is_binary { "coarse_label_names.txt" } else { "meta" }, "coarse_label_names")
            }
        }
    }
}

/// Where an archive of CIFAR lies, if one does: in `root` or in the sub-folder it is published as.
fn find(root: &Path) -> Option<(Archive, PathBuf)> {
    ARCHIVES.into_iter().find_map(|archive| {
        let folders = [root.to_owned(), root.join(archive.folder)];
        let holds = |folder: &PathBuf| {
            let mut files = archive.train.iter().chain(archive.test).map(|name| folder.join(name));
            let any = files.any(|file| file.is_file());
            // `train` and `test` are names that other sets have as well.
            any && (archive.n_fine == 10 || archive.is_binary || folder.join("meta").is_file())
        };
        folders.into_iter().find(holds).map(|folder| (archive, folder))
    })
}

impl CifarSource {
    /// Whether the folder holds a file of one of the archives.
    pub fn is_in(root: &Path) -> bool {
        find(root).is_some()
    }

    /// The folder the files lie in: `root` or the sub-folder they are published in.
    pub(crate) fn folder_in(root: &Path) -> Option<PathBuf> {
        find(root).map(|(_, folder)| folder)
    }

    /// Reads the files of one split.
    ///
    /// # Errors
    /// [`RecordError`] when no archive is there, a file is missing, has another length than whole records, a label that
    /// is no class, or is a pickle that is refused.
    pub fn open(root: &Path, config: CifarConfig) -> Result<Self, RecordError> {
        const EXPECTED: &str = "files of CIFAR (data_batch_1.bin, train.bin, data_batch_1 or train with meta)";
        let not_there = || RecordError::NotASet { root: root.to_owned(), expected: EXPECTED };
        let (archive, folder) = find(root).ok_or_else(not_there)?;
        let (n_classes, names_file, names_key) = archive.classes(config.labels);
        let mut batch = Batch { pixels: Vec::new(), labels: Vec::new() };
        let mut files = RecordFiles::default();
        for name in archive.files(config.split) {
            let path = folder.join(name);
            let bytes = RecordError::read(&path)?;
            let before = batch.labels.len();
            if archive.is_binary {
                batch.add_binary(&path, &bytes, archive, config.labels)?;
            } else {
                batch.add_pickle(&path, &bytes, archive, config.labels)?;
            }
            check_labels(&path, &batch.labels[before..], n_classes)?;
            files.push(&path, batch.labels.len() - before);
        }
        let names = class_names(&folder.join(names_file), archive.is_binary, names_key, n_classes)?;
        let got = names.len();
        let (classes, places) = in_byte_order(names).ok_or_else(|| RecordError::ClassNames {
            path: folder.join(names_file),
            expected: n_classes,
            got: got.saturating_sub(1),
        })?;
        let labels = batch.labels.iter().map(|label| places[*label as usize]).collect();
        let pixels = batch.pixels;
        let set = PixelSet { files, width: SIDE, height: SIDE, pixels, channels: 3, labels, classes };
        let fingerprint = set.fingerprint("cifar");
        Ok(Self { set, fingerprint })
    }

    /// A name for this set of pictures that changes with any pixel, label or name in it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl Source for CifarSource {
    fn len(&self) -> usize {
        self.set.len()
    }

    fn classes(&self) -> &[String] {
        &self.set.classes
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.set.label(i)
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        self.set.name(i)
    }

    fn path(&self, i: usize) -> PathBuf {
        self.set.path(i)
    }

    fn read<'a>(&'a self, i: usize, buffers: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
        self.set.read(i, buffers)
    }
}

/// Pictures and labels read so far.
struct Batch {
    pixels: Vec<u8>,
    labels: Vec<u32>,
}

impl Batch {
    fn add_binary(
        &mut self,
        path: &Path,
        bytes: &[u8],
        archive: Archive,
        labels: CifarLabels,
    ) -> Result<(), RecordError> {
        let n_labels = if archive.n_fine == 10 { 1 } else { 2 };
        let record = n_labels + PICTURE;
        if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
            return Err(RecordError::Length {
                path: path.to_owned(),
                expected: format!("a multiple of {record} bytes"),
                got: bytes.len() as u64,
            });
        }
        // CIFAR-100 has the coarse label first.
        let place = if n_labels == 2 && labels == CifarLabels::Fine { 1 } else { 0 };
        self.pixels.reserve(bytes.len() / record * PICTURE);
        for record in bytes.chunks_exact(record) {
            self.labels.push(record[place].into());
            self.add_picture(&record[n_labels..]);
        }
        Ok(())
    }

    fn add_pickle(
        &mut self,
        path: &Path,
        bytes: &[u8],
        archive: Archive,
        labels: CifarLabels,
    ) -> Result<(), RecordError> {
        let refused = |reason| RecordError::Pickle { path: path.to_owned(), reason };
        let key = match (archive.n_fine, labels) {
            (10, _) => "labels",
            (_, CifarLabels::Fine) => "fine_labels",
            (_, CifarLabels::Coarse) => "coarse_labels",
        };
        let pickle = Pickle::read(bytes).map_err(refused)?;
        let (shape, data) = pickle.array("data").map_err(refused)?;
        let numbers = pickle.numbers(key).map_err(refused)?;
        if shape.len() != 2 || shape[1] != PICTURE as u64 || data.is_empty() {
            return Err(refused(PickleError::Entry { key: "data", expected: "an array of some rows of 3072 bytes" }));
        }
        let pictures = data.len() / PICTURE;
        if numbers.len() != pictures {
            return Err(RecordError::Unpaired { path: path.to_owned(), pictures, labels: numbers.len() });
        }
        self.labels.extend(numbers.iter().map(|label| u32::try_from(*label).unwrap_or(u32::MAX)));
        self.pixels.reserve(data.len());
        data.chunks_exact(PICTURE).for_each(|planes| self.add_picture(planes));
        Ok(())
    }

    fn add_picture(&mut self, planes: &[u8]) {
        let mut rgb = [0; PICTURE];
        interleave(planes, &mut rgb);
        self.pixels.extend_from_slice(&rgb);
    }
}

fn check_labels(path: &Path, labels: &[u32], n_classes: usize) -> Result<(), RecordError> {
    let most = n_classes as u64 - 1;
    match labels.iter().position(|label| u64::from(*label) > most) {
        None => Ok(()),
        Some(record) => {
            Err(RecordError::Label { path: path.to_owned(), record, least: 0, most, got: labels[record].into() })
        }
    }
}

/// The names in a file of theirs, or numbers where there is none.
fn class_names(path: &Path, is_text: bool, key: &'static str, n_classes: usize) -> Result<Vec<String>, RecordError> {
    if !path.exists() {
        let width = (n_classes - 1).to_string().len();
        return Ok((0..n_classes).map(|number| format!("{number:0width$}")).collect());
    }
    let bytes = RecordError::read(path)?;
    let names = if is_text {
        // The authors end the file with an empty line.
        let text = String::from_utf8_lossy(&bytes);
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    } else {
        let refused = |reason| RecordError::Pickle { path: path.to_owned(), reason };
        Pickle::read(&bytes).and_then(|pickle| pickle.texts(key)).map_err(refused)?
    };
    if names.len() == n_classes {
        Ok(names)
    } else {
        Err(RecordError::ClassNames { path: path.to_owned(), expected: n_classes, got: names.len() })
    }
}
