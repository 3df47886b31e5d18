//! Sets in the IDX format of MNIST, plain or compressed.

use std::borrow::Cow;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use twoview_pixels::{DecodeOptions, Image};

use crate::class_names::of_numbers;
use crate::pixel_set::PixelSet;
use crate::record_files::RecordFiles;
use crate::{Fingerprint, ReadBuffers, RecordError, SampleError, Source, Split, escape_path};

/// MNIST and its relatives (Fashion-MNIST, KMNIST, EMNIST) in memory.
///
/// # Files
/// A pair of `..train-images-idx3-ubyte` and `..train-labels-idx1-ubyte`, with `t10k` or `test` instead of `train` for
/// the test pictures, each plain or with `.gz`, in the folder or in its sub-folder `raw` or `MNIST/raw`. Where a file is
/// there in both forms, the plain one is read. Pictures may also be of the shape `[n, height, width, 3]` (`idx4`).
///
/// # Conventions
/// Grey is repeated over the channels. Without a file of labels the pictures are unlabelled. Classes are the numbers
/// that occur, padded with zeros to one length.
///
/// # Cost
/// One byte of memory for each byte of the pictures; opening reads and hashes everything. A compressed file is read only
/// if what its header promises is plausible: at most 64 MiB and 64 bytes for each of its own. MNIST has 4 to 1.
///
/// # Source
/// <https://yann.lecun.org/exdb/mnist/>, "the IDX file format"
#[derive(Debug)]
pub struct IdxSource {
    set: PixelSet,
    fingerprint: Fingerprint,
}

/// Names by which a split goes.
fn split_words(split: Split) -> &'static [&'static str] {
    match split {
        Split::Train => &["train"],
        Split::Test => &["t10k", "test"],
    }
}

/// The files of pictures of one split, below the folder where there are any.
fn find(root: &Path, split: Split) -> Vec<PathBuf> {
    for folder in [root.to_owned(), root.join("raw"), root.join("MNIST").join("raw")] {
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
        let mut found: Vec<PathBuf> = entries.filter(|path| is_pictures(path, split)).collect();
        if !found.is_empty() {
            found.sort();
            // The plain file comes directly before its compressed form.
            found.dedup_by(|next, before| without_gz(next) == without_gz(before));
            return found;
        }
    }
    Vec::new()
}

fn is_pictures(path: &Path, split: Split) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_idx = ["-images-idx3-ubyte", "-images.idx3-ubyte", "-images-idx4-ubyte", "-images.idx4-ubyte"]
        .iter()
        .any(|ending| name.strip_suffix(".gz").unwrap_or(name).ends_with(ending));
    is_idx && split_words(split).iter().any(|word| name.contains(word)) && path.is_file()
}

fn without_gz(path: &Path) -> String {
    let name = path.to_string_lossy();
    name.strip_suffix(".gz").unwrap_or(&name).to_owned()
}

impl IdxSource {
    /// Whether the folder holds pictures in this format.
    pub fn is_in(root: &Path) -> bool {
        Self::folder_in(root).is_some()
    }

    /// The folder the files lie in: `root` or the sub-folder they are published in.
    pub(crate) fn folder_in(root: &Path) -> Option<PathBuf> {
        let first = [Split::Train, Split::Test].into_iter().find_map(|split| find(root, split).into_iter().next());
        first.and_then(|file| file.parent().map(Path::to_owned))
    }

    /// Reads pictures and labels of one split.
    ///
    /// # Errors
    /// [`RecordError`] when the set is not there or not the only one, a header promises anything else than the file
    /// holds or more than is plausible, or labels and pictures are not equally many.
    pub fn open(root: &Path, split: Split) -> Result<Self, RecordError> {
        let expected = match split {
            Split::Train => "file train-images-idx3-ubyte or train-images-idx3-ubyte.gz",
            Split::Test => "file t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz",
        };
        let path = match find(root, split).as_slice() {
            [] => return Err(RecordError::NotASet { root: root.to_owned(), expected }),
            [one] => one.clone(),
            many => {
                let names = many.iter().map(|path| escape_path(path)).collect();
                return Err(RecordError::Ambiguous { root: root.to_owned(), names });
            }
        };
        let pictures = Idx::read(&path)?;
        let (n, height, width, channels) = match pictures.sides[..] {
            [n, height, width] => (n, height, width, 1),
            [n, height, width, channels @ (1 | 3)] => (n, height, width, channels),
            _ => return Err(header(&path, PICTURES, format!("the sides {:?}", pictures.sides))),
        };
        if n == 0 || height == 0 || width == 0 {
            return Err(header(&path, PICTURES, format!("the sides {:?}", pictures.sides)));
        }
        let mut labels = read_labels(&path, n as usize)?;
        let classes = of_numbers(&mut labels);
        let mut files = RecordFiles::default();
        files.push(&path, n as usize);
        let classes = if labels.is_empty() { Vec::new() } else { classes };
        let channels = if channels == 1 { 1 } else { 3 };
        let set = PixelSet { files, width, height, pixels: pictures.data, channels, labels, classes };
        let fingerprint = set.fingerprint(&format!("idx {width}x{height}x{channels}"));
        Ok(Self { set, fingerprint })
    }

    /// A name for this set of pictures that changes with any pixel, label or file name in it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl Source for IdxSource {
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

/// What any compressed file may unfold to.
const FREE_BYTES: u64 = 64 << 20;

/// What a compressed file may unfold to beyond that, for each of its bytes. Deflate reaches 1032 with nothing but zeros.
const MAX_RATIO: u64 = 64;

const PICTURES: &str = "an IDX file of bytes with the sides [n, height, width] or [n, height, width, 3]";

/// The labels that belong to a file of pictures; none where there is no such file.
fn read_labels(pictures: &Path, n: usize) -> Result<Vec<u32>, RecordError> {
    let name = without_gz(Path::new(pictures.file_name().unwrap_or_default()));
    let ending = name.len() - "images-idx3-ubyte".len();
    let separator = &name[ending + "images".len()..][..1];
    let plain = pictures.with_file_name(format!("{}labels{separator}idx1-ubyte", &name[..ending]));
    let compressed = PathBuf::from(format!("{}.gz", plain.display()));
    let Some(path) = [plain, compressed].into_iter().find(|path| path.is_file()) else { return Ok(Vec::new()) };
    let labels = Idx::read(&path)?;
    if labels.sides.len() != 1 {
        let got = format!("the sides {:?}", labels.sides);
        return Err(header(&path, "an IDX file of bytes with one side", got));
    }
    if labels.data.len() != n {
        return Err(RecordError::Unpaired { path, pictures: n, labels: labels.data.len() });
    }
    Ok(labels.data.into_iter().map(u32::from).collect())
}

fn header(path: &Path, expected: &'static str, got: String) -> RecordError {
    RecordError::Header { path: path.to_owned(), expected, got }
}

/// One file: its sides and its bytes.
struct Idx {
    sides: Vec<u32>,
    data: Vec<u8>,
}

impl Idx {
    fn read(path: &Path) -> Result<Self, RecordError> {
        let file = RecordError::read(path)?;
        if file.starts_with(&[0x1f, 0x8b]) {
            let packed = file.len() as u64;
            let allowed = FREE_BYTES + packed.saturating_mul(MAX_RATIO);
            Self::parse(path, MultiGzDecoder::new(&file[..]), |promised| {
                let promised = promised.unwrap_or(u64::MAX);
                let error = || RecordError::Bomb { path: path.to_owned(), promised, packed, allowed };
                if promised <= allowed { Ok(()) } else { Err(error()) }
            })
        } else {
            // Its own length bounds what is read of it.
            Self::parse(path, &file[..], |_| Ok(()))
        }
    }

    /// Reads a file whose data are as long as `check` allows; it is told the length, `None` where no 64 bits hold it.
    fn parse(
        path: &Path,
        mut bytes: impl std::io::Read,
        check: impl Fn(Option<u64>) -> Result<(), RecordError>,
    ) -> Result<Self, RecordError> {
        let unreadable = RecordError::unreadable(path);
        let mut magic = [0; 4];
        bytes.read_exact(&mut magic).map_err(&unreadable)?;
        let [0, 0, 8, n_sides @ 1..=4] = magic else {
            return Err(header(path, PICTURES, format!("the first bytes {magic:02x?}")));
        };
        let mut sides = Vec::new();
        for _ in 0..n_sides {
            let mut side = [0; 4];
            bytes.read_exact(&mut side).map_err(&unreadable)?;
            sides.push(u32::from_be_bytes(side));
        }
        if let [_, height, width, ..] = sides[..] {
            let max_pixels = DecodeOptions::STANDARD.max_pixels;
            if u64::from(height) * u64::from(width) > max_pixels {
                return Err(RecordError::TooManyPixels { path: path.to_owned(), width, height, max_pixels });
            }
        }
        let promised = sides.iter().try_fold(1u64, |product, side| product.checked_mul((*side).into()));
        check(promised)?;
        let mut data = Vec::new();
        let most = promised.unwrap_or(u64::MAX).saturating_add(1);
        bytes.take(most).read_to_end(&mut data).map_err(&unreadable)?;
        if promised == Some(data.len() as u64) {
            return Ok(Self { sides, data });
        }
        let product: Vec<String> = sides.iter().map(u32::to_string).collect();
        Err(RecordError::Length {
            path: path.to_owned(),
            expected: format!("{} bytes behind the header", product.join(" x ")),
            got: data.len() as u64,
        })
    }
}
