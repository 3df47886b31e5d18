//! Writing any source as a pack.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use twoview_pixels::{
    CropBox, DecodeOptions, EncodeError, Filter, Image, Planes, Workspace, encode_png, resized_crop, states_a_turn,
};
use twox_hash::XxHash3_64;

use crate::pack_format::{ALIGNED_BYTES, Codec, Header, NO_LABEL, PAGE, RECORD_BYTES, Record};
use crate::{BadFile, PackMeta, Problem, ReadBuffers, SampleError, Source, escape_path};

/// Pictures that are prepared at once on all threads before they are written.
const AT_ONCE: usize = 64;

/// What a pack holds of each picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum PackForm {
    /// Its file, byte for byte; the pixels of sources that have no files. Training sees the same pixels as without a pack.
    Original,
    /// Its pixels: the largest file, and nothing to decode.
    Decoded,
    /// As `Original` up to this many pixels on the longer side. A larger picture is shrunk to it with Pillow's bicubic filter
    /// and kept as PNG, without further loss. Crops then begin from a smaller picture, so training sees other pixels. With
    /// [`DecodeOptions::exif_rotate`] a smaller one whose EXIF data turn it is kept as PNG as well: all stand upright.
    MaxSide {
        /// Longest side, at least 1.
        px: u32,
    },
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PackReport {
    /// Pictures in the pack.
    pub pictures: usize,
    /// Of those, how many were shrunk.
    pub shrunk: usize,
    /// Length of the file.
    pub bytes: u64,
    /// Pictures that were left out, each with its reason.
    pub bad_files: Vec<BadFile>,
}

/// Why a pack cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WritePackError {
    /// There is something at the path already.
    #[error("{} exists already; remove it or choose another name", escape_path(path))]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("{} cannot be written: {reason}", escape_path(path))]
    Unwritable {
        /// The path.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// The longest side is none.
    #[error("the longest side must be at least 1 pixel, got 0")]
    NoSide,
    /// More pictures are bad than allowed, or all of them.
    #[error("{} of {pictures} pictures cannot be used, more than max_bad_fraction = {allowed} allows{}", bad_files.len(), first(bad_files))]
    TooManyBad {
        /// Pictures of the source.
        pictures: usize,
        /// The allowed fraction.
        allowed: f64,
        /// The bad ones with their reasons.
        bad_files: Vec<BadFile>,
    },
    /// A record does not fit the widths of the format.
    #[error("{name} cannot be packed: {reason}")]
    TooLarge {
        /// The picture.
        name: String,
        /// What is too large.
        reason: &'static str,
    },
}

/// Writes all pictures of `source` into the file `out`, in their order, with names, labels and groups.
///
/// Each picture is decoded once, with `decode` where the source has files; one that cannot be is left out and reported, as
/// long as no larger part than `max_bad_fraction` is bad. A group of which only one is left is none. `source_fingerprint`
/// is kept as [`PackMeta::source`]. `progress` is told how many pictures are done and how many there are.
///
/// The file is written beside `out` under a temporary name, synced and renamed: either all of it is there or nothing.
///
/// # Errors
/// [`WritePackError`] when `out` exists, cannot be written, or too many pictures are bad.
///
/// # Cost
/// One decode for each picture, on all threads. Memory for 64 pictures and the index; while it writes, some 20 bytes
/// more for each picture.
pub fn write_pack(
    source: &dyn Source,
    source_fingerprint: &str,
    out: &Path,
    form: PackForm,
    decode: DecodeOptions,
    max_bad_fraction: f64,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<PackReport, WritePackError> {
    if form == (PackForm::MaxSide { px: 0 }) {
        return Err(WritePackError::NoSide);
    }
    if fs::symlink_metadata(out).is_ok() {
        return Err(WritePackError::Exists { path: out.to_owned() });
    }
    let unwritable = |reason| WritePackError::Unwritable { path: out.to_owned(), reason };
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = temporary_file(folder).map_err(unwritable)?;
    let mut writer = PackWriter::begin(temporary.as_file_mut(), out)?;
    let mut bad_files = Vec::new();
    let mut groups = Groups::default();
    let mut shrunk = 0;
    let n = source.len();
    for begin in (0..n).step_by(AT_ONCE) {
        let end = (begin + AT_ONCE).min(n);
        let prepare = |buffers: &mut ReadBuffers, i| prepare(source, i, form, decode, buffers);
        let prepared: Vec<_> = (begin..end).into_par_iter().map_init(ReadBuffers::default, prepare).collect();
        for (i, prepared) in (begin..end).zip(prepared) {
            match prepared {
                Ok(blob) => {
                    shrunk += usize::from(blob.is_shrunk);
                    writer.add(&blob, &source.name(i), source.label(i))?;
                    groups.push(source.group(i));
                }
                Err(error) => bad_files.push(BadFile::from(&error)),
            }
        }
        progress(end, n);
    }
    let pictures = n - bad_files.len();
    if pictures == 0 || bad_files.len() as f64 > max_bad_fraction * n as f64 {
        return Err(WritePackError::TooManyBad { pictures: n, allowed: max_bad_fraction, bad_files });
    }
    let meta = PackMeta {
        classes: source.classes().to_vec(),
        source: source_fingerprint.to_owned(),
        form,
        exif_rotate: decode.exif_rotate,
        groups: groups.of_several(),
        made_by: concat!("twoview ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let bytes = writer.end(&meta)?;
    temporary.as_file().sync_all().map_err(unwritable)?;
    temporary.persist_noclobber(out).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => WritePackError::Exists { path: out.to_owned() },
        _ => unwritable(error.error),
    })?;
    Ok(PackReport { pictures, shrunk, bytes, bad_files })
}

/// Which of the pictures written so far share a group of their source.
#[derive(Default)]
struct Groups {
    n: u32,
    first_with: HashMap<u64, u32>,
    /// Groups of more than one, by their first.
    several: BTreeMap<u32, Vec<u32>>,
}

impl Groups {
    /// The next picture, by the group that its source gives it.
    fn push(&mut self, group: u64) {
        let first = *self.first_with.entry(group).or_insert(self.n);
        if first != self.n {
            self.several.entry(first).or_insert_with(|| vec![first]).push(self.n);
        }
        self.n += 1;
    }

    fn of_several(self) -> Vec<Vec<u32>> {
        self.several.into_values().collect()
    }
}

/// The first bad files as the tail of a message.
fn first(bad_files: &[BadFile]) -> String {
    let spelled = bad_files.iter().take(3).map(|file| format!("{}: {}", escape_path(&file.path), file.reason));
    let spelled: Vec<String> = spelled.collect();
    if spelled.is_empty() { String::new() } else { format!(": {}", spelled.join("; ")) }
}

/// A file of the usual permissions; temporary files are for their owner alone by default.
fn temporary_file(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".pack.partial");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// A picture as it will stand in the file.
struct Blob {
    bytes: Vec<u8>,
    width: u32,
    height: u32,
    codec: Codec,
    is_shrunk: bool,
}

fn prepare(
    source: &dyn Source,
    i: usize,
    form: PackForm,
    decode: DecodeOptions,
    buffers: &mut ReadBuffers,
) -> Result<Blob, SampleError> {
    let failed = |problem| SampleError { path: source.path(i), problem };
    if !source.read_file(i, buffers)? {
        let image = source.read(i, buffers)?;
        return Ok(shrink(image, form).map_err(failed)?.unwrap_or_else(|| as_pixels(image)));
    }
    let ReadBuffers { bytes, image } = buffers;
    twoview_pixels::decode_into(bytes, &decode, image).map_err(|error| failed(Problem::Decode(error)))?;
    let (width, height) = (image.width(), image.height());
    let as_file = |bytes| Blob { bytes, width, height, codec: Codec::File, is_shrunk: false };
    match form {
        PackForm::Decoded => Ok(as_pixels(image)),
        PackForm::Original => Ok(as_file(bytes.clone())),
        PackForm::MaxSide { .. } => match shrink(image, form).map_err(failed)? {
            Some(shrunk) => Ok(shrunk),
            // The file would be turned only by those who read it, the shrunk ones have nothing left to be turned by.
            None if decode.exif_rotate && states_a_turn(bytes) => Ok(as_file(as_png(image).map_err(failed)?)),
            None => Ok(as_file(bytes.clone())),
        },
    }
}

fn as_pixels(image: &Image) -> Blob {
    let (width, height) = (image.width(), image.height());
    Blob { bytes: image.as_rgb8().to_vec(), width, height, codec: Codec::Rgb8, is_shrunk: false }
}

fn as_png(image: &Image) -> Result<Vec<u8>, Problem> {
    encode_png(image).map_err(|error: EncodeError| Problem::Container(error.to_string()))
}

/// The picture at the longest side, where it is larger.
fn shrink(image: &Image, form: PackForm) -> Result<Option<Blob>, Problem> {
    let (width, height) = (image.width(), image.height());
    let PackForm::MaxSide { px } = form else { return Ok(None) };
    let longest = width.max(height);
    if longest <= px {
        return Ok(None);
    }
    // Rounded to the nearest; no side vanishes.
    let scaled = |side: u32| {
        let scaled = (u64::from(side) * u64::from(px) + u64::from(longest) / 2) / u64::from(longest);
        u32::try_from(scaled).unwrap_or(px).max(1)
    };
    let whole = CropBox { top: 0, left: 0, height, width };
    let mut small = Planes::default();
    let workspace = &mut Workspace::default();
    resized_crop(image, whole, scaled(width), scaled(height), Filter::Bicubic, false, workspace, &mut small)
        .map_err(Problem::Resize)?;
    let small = small.to_image();
    let bytes = as_png(&small)?;
    Ok(Some(Blob { bytes, width: small.width(), height: small.height(), codec: Codec::File, is_shrunk: true }))
}

/// The file while it grows.
struct PackWriter<'a> {
    file: BufWriter<&'a mut File>,
    out: &'a Path,
    at: u64,
    index: Vec<u8>,
    names: Vec<u8>,
}

impl<'a> PackWriter<'a> {
    fn begin(file: &'a mut File, out: &'a Path) -> Result<Self, WritePackError> {
        let file = BufWriter::with_capacity(1 << 20, file);
        let mut writer = Self { file, out, at: 0, index: Vec::new(), names: Vec::new() };
        writer.fill_to(PAGE)?;
        Ok(writer)
    }

    fn add(&mut self, blob: &Blob, name: &str, label: Option<u32>) -> Result<(), WritePackError> {
        let too_large = |reason| WritePackError::TooLarge { name: name.to_owned(), reason };
        let bytes = u32::try_from(blob.bytes.len()).map_err(|_| too_large("it has 4 GiB or more"))?;
        let name_bytes = u32::try_from(name.len()).map_err(|_| too_large("its name has 4 GiB or more"))?;
        if u64::from(bytes) >= ALIGNED_BYTES {
            self.fill_to(self.at.next_multiple_of(PAGE))?;
        }
        let record = Record {
            offset: self.at,
            checksum: XxHash3_64::oneshot(&blob.bytes),
            bytes,
            width: blob.width,
            height: blob.height,
            label: label.unwrap_or(NO_LABEL),
            name_bytes,
            codec: blob.codec,
        };
        self.index.extend(record.to_bytes());
        self.names.extend(name.bytes());
        self.write(&blob.bytes)
    }

    /// Writes what stands behind the blobs, then the header; the length of the file.
    fn end(mut self, meta: &PackMeta) -> Result<u64, WritePackError> {
        let out = self.out;
        let unwritable = |reason| WritePackError::Unwritable { path: out.to_owned(), reason };
        let meta = serde_json::to_vec(meta).map_err(|error| unwritable(error.into()))?;
        let (index, names) = (std::mem::take(&mut self.index), std::mem::take(&mut self.names));
        let part = |offset: u64, bytes: &[u8]| (offset, bytes.len() as u64);
        let index_at = part(self.at, &index);
        let names_at = part(index_at.0 + index_at.1, &names);
        let meta_at = part(names_at.0 + names_at.1, &meta);
        let header = Header {
            file_bytes: meta_at.0 + meta_at.1,
            n: (index.len() / RECORD_BYTES) as u64,
            index: index_at,
            names: names_at,
            meta: meta_at,
            checksum: 0,
        };
        let header = Header { checksum: header.checksum_of(&index, &names, &meta), ..header };
        for bytes in [&index, &names, &meta] {
            self.write(bytes)?;
        }
        self.file.seek(SeekFrom::Start(0)).map_err(unwritable)?;
        self.file.write_all(&header.to_bytes()).map_err(unwritable)?;
        self.file.flush().map_err(unwritable)?;
        Ok(header.file_bytes)
    }

    fn fill_to(&mut self, place: u64) -> Result<(), WritePackError> {
        let zeros = vec![0; usize::try_from(place - self.at).unwrap_or(0)];
        self.write(&zeros)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WritePackError> {
        let out = self.out;
        self.file.write_all(bytes).map_err(|reason| WritePackError::Unwritable { path: out.to_owned(), reason })?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}
