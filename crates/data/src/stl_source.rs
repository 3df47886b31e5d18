//! STL-10 in its binary version, read picture by picture.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use twoview_pixels::Image;

use crate::class_names::in_byte_order;
use crate::fixed_file::FixedFile;
use crate::record_files::RecordFiles;
use crate::{Fingerprint, Problem, ReadBuffers, RecordError, SampleError, Source};

const SIDE_PX: u32 = 96;
const SIDE: usize = SIDE_PX as usize;
const PLANE: usize = SIDE * SIDE;
const PICTURE: usize = 3 * PLANE;
const N_CLASSES: usize = 10;

/// Which of the pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StlPart {
    /// 5,000 labelled pictures.
    Train,
    /// 8,000 labelled pictures.
    Test,
    /// 100,000 pictures, also of other things than the ten classes.
    Unlabeled,
    /// Those of `train`, then those of `unlabeled`, all without labels.
    TrainAndUnlabeled,
}

/// STL-10, 96x96 pixels.
///
/// # Files
/// `train_X.bin`, `train_y.bin`, `test_X.bin`, `test_y.bin` and `unlabeled_X.bin`, in the folder or in its sub-folder
/// `stl10_binary`. `class_names.txt` names the classes, otherwise numbers do. The files hold planes column by
/// column and count labels from 1; here pictures stand upright and labels count from 0.
///
/// # Cost
/// Opening reads and hashes the files of the part, 2.8 GB for the unlabelled pictures, and keeps nothing but the labels.
/// A picture is one read of 27 KiB. Files are not locked: whoever overwrites them during a run changes its pictures.
///
/// # Source
/// Coates, Lee and Ng, *An Analysis of Single-Layer Networks in Unsupervised Feature Learning*, AISTATS 2011.
/// <https://cs.stanford.edu/~acoates/stl10/>
#[derive(Debug)]
pub struct StlSource {
    records: RecordFiles,
    files: Vec<FixedFile>,
    labels: Vec<u32>,
    classes: Vec<String>,
    fingerprint: Fingerprint,
}

/// Where the set lies, if it does: in `root` or in the folder it is published as.
fn find(root: &Path) -> Option<PathBuf> {
    let folders = [root.to_owned(), root.join("stl10_binary")];
    folders
        .into_iter()
        .find(|folder| ["train_X.bin", "test_X.bin", "unlabeled_X.bin"].iter().any(|name| folder.join(name).is_file()))
}

impl StlSource {
    /// Whether the folder holds a file of the set.
    pub fn is_in(root: &Path) -> bool {
        find(root).is_some()
    }

    /// The folder the files lie in: `root` or the sub-folder they are published in.
    pub(crate) fn folder_in(root: &Path) -> Option<PathBuf> {
        find(root)
    }

    /// Opens the files of one part.
    ///
    /// # Errors
    /// [`RecordError`] when the set is not there, a file is missing or has no whole number of pictures, or a label is
    /// not from 1 to 10.
    pub fn open(root: &Path, part: StlPart) -> Result<Self, RecordError> {
        const EXPECTED: &str = "files of STL-10 (train_X.bin, test_X.bin, unlabeled_X.bin)";
        let folder = find(root).ok_or_else(|| RecordError::NotASet { root: root.to_owned(), expected: EXPECTED })?;
        let (pictures, labels): (&[&str], Option<&str>) = match part {
            StlPart::Train => (&["train_X.bin"], Some("train_y.bin")),
            StlPart::Test => (&["test_X.bin"], Some("test_y.bin")),
            StlPart::Unlabeled => (&["unlabeled_X.bin"], None),
            StlPart::TrainAndUnlabeled => (&["train_X.bin", "unlabeled_X.bin"], None),
        };
        let (mut records, mut files, mut identity) = (RecordFiles::default(), Vec::new(), Vec::new());
        for name in pictures {
            let path = folder.join(name);
            let file = FixedFile::open(&path).map_err(RecordError::unreadable(&path))?;
            records.push(&path, n_pictures(&path, file.len())?);
            let content = Fingerprint::of_file(&file).map_err(RecordError::unreadable(&path))?;
            identity.extend(content.to_le_bytes());
            files.push(file);
        }
        let (labels, classes) = match labels {
            Some(name) => read_labels(&folder, name, records.len())?,
            None => (Vec::new(), Vec::new()),
        };
        let label_bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        let names = classes.join("\0");
        let record_names = records.identity();
        let parts = [b"stl10", record_names.as_slice(), &identity, &label_bytes, names.as_bytes()];
        Ok(Self { fingerprint: Fingerprint::of_parts(parts), records, files, labels, classes })
    }

    /// A name for this set of pictures that changes with any pixel, label or name in it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl Source for StlSource {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.labels.get(i).copied()
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        self.records.name(i).into()
    }

    fn path(&self, i: usize) -> PathBuf {
        self.records.path(i)
    }

    fn read<'a>(&'a self, i: usize, buffers: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
        let failed = |problem| SampleError { path: self.path(i), problem };
        let ReadBuffers { bytes, image } = buffers;
        let (file, record) = self.records.locate(i);
        let offset = record as u64 * PICTURE as u64;
        self.files[file].read_at(offset, PICTURE as u64, bytes).map_err(|error| failed(Problem::Read(error)))?;
        let rgb = image.overwrite(SIDE_PX, SIDE_PX).map_err(|error| failed(Problem::Shape(error)))?;
        stand_upright(bytes, rgb);
        Ok(image)
    }
}

fn n_pictures(path: &Path, bytes: u64) -> Result<usize, RecordError> {
    let n = usize::try_from(bytes / PICTURE as u64).ok().filter(|n| *n > 0 && bytes.is_multiple_of(PICTURE as u64));
    n.ok_or_else(|| RecordError::Length {
        path: path.to_owned(),
        expected: format!("a multiple of {PICTURE} bytes"),
        got: bytes,
    })
}

fn read_labels(folder: &Path, name: &str, pictures: usize) -> Result<(Vec<u32>, Vec<String>), RecordError> {
    let path = folder.join(name);
    let bytes = RecordError::read(&path)?;
    if bytes.len() != pictures {
        return Err(RecordError::Unpaired { path, pictures, labels: bytes.len() });
    }
    if let Some(record) = bytes.iter().position(|label| !(1..=N_CLASSES).contains(&usize::from(*label))) {
        let got = bytes[record].into();
        return Err(RecordError::Label { path, record, least: 1, most: N_CLASSES as u64, got });
    }
    let path = folder.join("class_names.txt");
    let names: Vec<String> = if path.exists() {
        let text = RecordError::read(&path)?;
        String::from_utf8_lossy(&text).lines().map(|line| line.trim().to_owned()).filter(|n| !n.is_empty()).collect()
    } else {
        (1..=N_CLASSES).map(|number| format!("{number:02}")).collect()
    };
    let got = names.len();
    let ordered = in_byte_order(names).filter(|(classes, _)| classes.len() == N_CLASSES);
    let (classes, places) = ordered.ok_or(RecordError::ClassNames { path, expected: N_CLASSES, got })?;
    Ok((bytes.iter().map(|label| places[usize::from(*label) - 1]).collect(), classes))
}

/// Planes column by column become pixels row by row.
fn stand_upright(planes: &[u8], rgb: &mut [u8]) {
    for (row, out) in rgb.as_chunks_mut::<{ 3 * SIDE }>().0.iter_mut().enumerate() {
        for (column, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let at = column * SIDE + row;
            *pixel = [planes[at], planes[PLANE + at], planes[2 * PLANE + at]];
        }
    }
}
