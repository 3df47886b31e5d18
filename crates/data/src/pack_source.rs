//! A pack, our own single-file set of pictures, as a source.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use twoview_pixels::{DecodeError, DecodeOptions, Image, decode_into};
use twox_hash::XxHash3_64;

use crate::fixed_file::FixedFile;
use crate::pack_format::{Codec, HEADER_BYTES, Header, NO_LABEL, Opening, PAGE, RECORD_BYTES, Record, VERSION};
use crate::picture_at::{ByteRange, read_bytes};
use crate::source::group_by_first;
use crate::{Fingerprint, PackForm, Problem, ReadBuffers, SampleError, Source, escape_path};

/// Pictures in one file that [`write_pack`](crate::write_pack) wrote.
///
/// Names, labels and [groups](Source::group) are those of the set that was packed, and with [`PackForm::Original`] the
/// pictures are. With the other forms they are what was made of them, which cannot be turned any more: such a pack must be
/// opened with the [`DecodeOptions::exif_rotate`] that it was packed with.
///
/// Every picture is one read at its place, and its checksum is compared every time: damage is an error of that picture
/// and never another picture. The file is read with `pread` and not mapped, so that shortening it is an error as well and
/// not the end of the process. The layout is that of `pack_format.rs`.
///
/// # Cost
/// Opening reads the index and the names, which stay in memory: 48 bytes for a picture and its name, 50 to 100 MB for a
/// million pictures. No picture is looked at.
///
/// # Example
/// ```
/// use std::path::Path;
/// use twoview_data::{PackForm, PackSource, PatternsConfig, PatternsSource, Source, Split, write_pack};
/// use twoview_pixels::DecodeOptions;
///
/// let pictures = PatternsSource::new(PatternsConfig { seed: 0, split: Split::Train, per_class: 2 })?;
/// let folder = tempfile::tempdir()?;
/// let file = folder.path().join("patterns.pack");
/// let options = DecodeOptions::STANDARD;
/// write_pack(&pictures, &pictures.fingerprint().to_string(), &file, PackForm::Decoded, options, 0.0, &|_, _| {})?;
///
/// let pack = PackSource::open(&file, options)?;
/// assert_eq!((pack.len(), pack.name(17)), (20, "stripes/0001.png".into()));
/// assert_eq!(pack.image(17)?, pictures.image(17)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PackSource {
    file: FixedFile,
    decode: DecodeOptions,
    records: Vec<Record>,
    names: String,
    /// Where each name begins.
    name_starts: Vec<usize>,
    /// The first picture of its group, for those in a group of several.
    first_of: HashMap<u32, u32>,
    meta: PackMeta,
    fingerprint: Fingerprint,
}

/// What a pack says about its making.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackMeta {
    /// The classes, byte-wise sorted; empty without labels.
    pub classes: Vec<String>,
    /// Fingerprint of the set that was packed.
    pub source: String,
    /// What was done to the pictures.
    pub form: PackForm,
    /// Whether they were turned as their EXIF data say; `false` where the pack does not tell. Of
    /// [`PackForm::Original`] it says nothing, because the files still have their EXIF data.
    #[serde(default)]
    pub exif_rotate: bool,
    /// Pictures that show the same thing, by number and ascending: the [groups](Source::group) of more than one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Vec<u32>>,
    /// Program and version that wrote it.
    pub made_by: String,
}

/// Why a pack cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The operating system does not let us read the file.
    #[error("{} cannot be read: {reason}", escape_path(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// The file does not begin as a pack does.
    #[error("{} is no pack; make one with `twoview data pack`", escape_path(path))]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another version of the program wrote it.
    #[error(
        "{} has version {got} of the pack format, this program reads version {VERSION}; pack the pictures again",
        escape_path(path)
    )]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// The version it has.
        got: u32,
    },
    /// The file has another length than when it was written.
    #[error("{} has {got} bytes, {expected} were written: copy it again", escape_path(path))]
    Length {
        /// The file.
        path: PathBuf,
        /// The length it should have.
        expected: u64,
        /// The length it has.
        got: u64,
    },
    /// Header, index, names or meta are not those that were written.
    #[error("{} is damaged: {reason}; copy it again or pack the pictures again", escape_path(path))]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: &'static str,
    },
    /// Its pictures were made with another setting than they are asked for with, and can no longer be turned.
    #[error(
        "the pictures in {} were packed with exif_rotate = {packed} and are asked for with exif_rotate = {asked}; set \
         data.source.exif_rotate = {packed}, or pack them again {} --exif-rotate",
        escape_path(path), if *asked { "with" } else { "without" }
    )]
    Turned {
        /// The file.
        path: PathBuf,
        /// The setting that it was packed with.
        packed: bool,
        /// The setting that it was opened with.
        asked: bool,
    },
}

impl PackSource {
    /// Opens a pack and checks everything but its pictures.
    ///
    /// # Errors
    /// [`PackError`] when the file cannot be read, is no pack, is of another version, is truncated or damaged, or when
    /// what was made of its pictures is the other way up than `decode` asks for.
    pub fn open(path: &Path, decode: DecodeOptions) -> Result<Self, PackError> {
        // A folder that holds nothing but one pack is as good as the pack.
        let path = &only_pack_in(path).unwrap_or_else(|| path.to_owned());
        let unreadable = |reason| PackError::Unreadable { path: path.to_owned(), reason };
        let corrupt = |reason| PackError::Corrupt { path: path.to_owned(), reason };
        let file = FixedFile::open(path).map_err(unreadable)?;
        let header = read_header(&file)?;
        let part = |(offset, bytes): (u64, u64)| {
            let mut out = Vec::new();
            file.read_at(offset, bytes, &mut out).map_err(unreadable).map(|()| out)
        };
        let (index, names, meta) = (part(header.index)?, part(header.names)?, part(header.meta)?);
        if header.checksum_of(&index, &names, &meta) != header.checksum {
            return Err(corrupt("the checksum of its index does not fit"));
        }
        let fingerprint = Fingerprint::of_parts([b"pack", &index[..], &names, &meta]);
        let names = String::from_utf8(names).map_err(|_| corrupt("its names are no text"))?;
        let meta: PackMeta = serde_json::from_slice(&meta).map_err(|_| corrupt("its description cannot be read"))?;
        let records: Option<Vec<Record>> = index.as_chunks().0.iter().map(Record::read).collect();
        let records = records.ok_or_else(|| corrupt("a picture is held in a way that is not known"))?;
        let mut name_starts = Vec::with_capacity(records.len());
        let mut name_end = 0;
        for record in &records {
            name_starts.push(name_end);
            name_end += record.name_bytes as usize;
            check_record(record, header.index.0, meta.classes.len()).map_err(corrupt)?;
        }
        let first_of = first_of(&meta.groups, records.len()).ok_or_else(|| corrupt("its groups name no pictures"))?;
        let cuts_fit = name_starts.iter().all(|start| names.is_char_boundary(*start)) && name_end == names.len();
        if !cuts_fit {
            return Err(corrupt("its names do not fit its pictures"));
        }
        let (packed, asked) = (meta.exif_rotate, decode.exif_rotate);
        if meta.form != PackForm::Original && packed != asked {
            return Err(PackError::Turned { path: path.to_owned(), packed, asked });
        }
        // What was turned when it was packed must not be turned once more.
        let decode = DecodeOptions { exif_rotate: asked && meta.form == PackForm::Original, ..decode };
        Ok(Self { file, decode, records, names, name_starts, first_of, meta, fingerprint })
    }

    /// How the pack was made.
    pub fn meta(&self) -> &PackMeta {
        &self.meta
    }

    /// A name for this set of pictures that changes with any picture, label or name in it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The bytes of a record that are its picture, compared with their checksum.
    fn read_checked(&self, record: &Record, out: &mut Vec<u8>) -> Result<(), Problem> {
        read_bytes(&self.file, place(record), &self.decode, out)?;
        compare(record, out)
    }

    fn read_into(&self, record: &Record, buffers: &mut ReadBuffers) -> Result<(), Problem> {
        let ReadBuffers { bytes, image } = buffers;
        match record.codec {
            Codec::File => {
                self.read_checked(record, bytes)?;
                decode_into(bytes, &self.decode, image).map_err(Problem::Decode)
            }
            Codec::Rgb8 => {
                let (width, height, max_pixels) = (record.width, record.height, self.decode.max_pixels);
                if u64::from(width) * u64::from(height) > max_pixels {
                    return Err(Problem::Decode(DecodeError::TooManyPixels { width, height, max_pixels }));
                }
                let rgb = image.overwrite(width, height).map_err(Problem::Shape)?;
                self.file.read_exact_at(record.offset, rgb).map_err(Problem::Read)?;
                compare(record, rgb)
            }
        }
    }
}

impl Source for PackSource {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn classes(&self) -> &[String] {
        &self.meta.classes
    }

    fn label(&self, i: usize) -> Option<u32> {
        Some(self.records[i].label).filter(|label| *label != NO_LABEL)
    }

    fn group(&self, i: usize) -> u64 {
        group_by_first(&self.first_of, i)
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        let start = self.name_starts[i];
        self.names[start..start + self.records[i].name_bytes as usize].into()
    }

    fn path(&self, i: usize) -> PathBuf {
        let mut path = self.file.path().as_os_str().to_owned();
        path.push("/");
        path.push(&*self.name(i));
        path.into()
    }

    fn read<'a>(&'a self, i: usize, buffers: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
        self.read_into(&self.records[i], buffers).map_err(|problem| SampleError { path: self.path(i), problem })?;
        Ok(&buffers.image)
    }

    fn read_file(&self, i: usize, buffers: &mut ReadBuffers) -> Result<bool, SampleError> {
        let record = &self.records[i];
        if record.codec != Codec::File {
            return Ok(false);
        }
        self.read_checked(record, &mut buffers.bytes).map_err(|problem| SampleError { path: self.path(i), problem })?;
        Ok(true)
    }
}

fn place(record: &Record) -> ByteRange {
    ByteRange { offset: record.offset, bytes: record.bytes.into() }
}

fn compare(record: &Record, bytes: &[u8]) -> Result<(), Problem> {
    let (expected, found) = (record.checksum, XxHash3_64::oneshot(bytes));
    if expected == found { Ok(()) } else { Err(Problem::Checksum { expected, found }) }
}

/// The first of its group for every member; nothing where groups overlap or hold other than `n` pictures.
fn first_of(groups: &[Vec<u32>], n: usize) -> Option<HashMap<u32, u32>> {
    let mut first_of = HashMap::new();
    for group in groups {
        let first = *group.first()?;
        let is_sound = group.iter().all(|&i| first <= i && (i as usize) < n && first_of.insert(i, first).is_none());
        if !is_sound {
            return None;
        }
    }
    Some(first_of)
}

/// The pack in a folder, if there is exactly one.
fn only_pack_in(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let mut packs = entries.filter(|path| {
        path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."))
            && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("pack"))
    });
    packs.next().filter(|_| packs.next().is_none())
}

/// The header, with every part of it within the file.
fn read_header(file: &FixedFile) -> Result<Header, PackError> {
    let path = || file.path().to_owned();
    let mut bytes = [0; HEADER_BYTES];
    if file.len() < HEADER_BYTES as u64 {
        return Err(PackError::Foreign { path: path() });
    }
    file.read_exact_at(0, &mut bytes).map_err(|reason| PackError::Unreadable { path: path(), reason })?;
    let header = match Header::read(&bytes) {
        Opening::Header(header) => header,
        Opening::Foreign => return Err(PackError::Foreign { path: path() }),
        Opening::OtherVersion(got) => return Err(PackError::OtherVersion { path: path(), got }),
    };
    if header.file_bytes != file.len() {
        return Err(PackError::Length { path: path(), expected: header.file_bytes, got: file.len() });
    }
    let index_bytes = header.n.checked_mul(RECORD_BYTES as u64);
    let follows = |(offset, bytes): (u64, u64), next: u64| offset.checked_add(bytes) == Some(next);
    let fits = header.index.0 >= PAGE
        && index_bytes == Some(header.index.1)
        && follows(header.index, header.names.0)
        && follows(header.names, header.meta.0)
        && follows(header.meta, header.file_bytes);
    if fits { Ok(header) } else { Err(PackError::Corrupt { path: path(), reason: "its parts do not fit into it" }) }
}

/// Whether a record lies among the blobs and its fields agree.
fn check_record(record: &Record, blobs_end: u64, n_classes: usize) -> Result<(), &'static str> {
    let end = record.offset.checked_add(record.bytes.into());
    if record.offset < PAGE || end.is_none_or(|end| end > blobs_end) {
        return Err("a picture lies outside of it");
    }
    let rgb_bytes = u128::from(record.width) * u128::from(record.height) * 3;
    if record.codec == Codec::Rgb8 && (rgb_bytes != u128::from(record.bytes) || rgb_bytes == 0) {
        return Err("the sides of a picture do not fit its length");
    }
    if record.label != NO_LABEL && record.label as usize >= n_classes {
        return Err("a label names no class");
    }
    Ok(())
}
