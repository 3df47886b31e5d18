//! Parquet files with a column of pictures, as Hugging Face publishes data sets.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::basic::Type as PhysicalType;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError as ReaderError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, FileReader, Length};
use parquet::file::serialized_reader::SerializedFileReader;
use serde::Deserialize;
use twoview_pixels::{DecodeError, DecodeOptions, Image, decode_into};

use crate::class_names::{in_byte_order, of_numbers};
use crate::fixed_file::FixedFile;
use crate::shard_files::shards_in;
use crate::{Fingerprint, Problem, ReadBuffers, SampleError, Source, Split, escape_path};

/// Names of the column with the labels, the first that is there.
const LABELS: [&str; 5] = ["label", "labels", "fine_label", "class", "target"];
/// How much of each end of a column chunk goes into the fingerprint.
const SAMPLED_BYTES: u64 = 4096;

/// Pictures in Parquet files with a column `image: struct<bytes, path>` or `image: binary`.
///
/// # Files
/// A `.parquet` file, a folder of them, or a folder whose sub-folder `data` holds them. Where names say their part
/// (`train-00000-of-00002.parquet`) only those of the split are taken.
///
/// # Columns
/// The pictures are the bytes of the column `image`, else of the first struct with a field `bytes`. Labels are the whole
/// numbers in `label`, `labels`, `fine_label`, `class` or `target`, when every row has one that is not negative. Their names
/// come from the description that Hugging Face's library leaves in the file; without it they are called by their numbers.
///
/// # Groups
/// Every picture is a [group](Source::group) of its own: copies could only be found by unpacking every row group.
/// [`KnownDuplicates`](crate::KnownDuplicates) adds what [`check_source`](crate::check_source) found.
///
/// # Bad pictures
/// Nothing is decoded at opening. A picture without bytes (a file that only names paths elsewhere) or one that cannot be
/// decoded is an error when it is read, with the path `file.parquet/row`.
///
/// # Cost
/// Opening reads the footer and the labels. A picture costs its whole row group, which is read and unpacked at once and
/// kept while `cache_mib` allows: read in random order from a set larger than that, nearly every picture costs a row group
/// of often 100 to 1000 pictures. Pack such a set first ([`write_pack`](crate::write_pack) goes through it in order). A
/// picture that is edited in the middle of a row group without a change of any size goes unnoticed by the fingerprint.
///
/// A file whose footer says that the pictures or labels of a row group unfold to more than 64 MiB and 64 bytes for each of
/// their own is refused. Within its pages the reader believes what each claims, so a hostile file whose footer lies can
/// still cost 2 GiB a page.
///
/// # Source
/// <https://huggingface.co/docs/datasets/about_arrow>, <https://parquet.apache.org/docs/file-format/>
#[derive(Debug)]
pub struct ParquetSource {
    decode: DecodeOptions,
    files: Vec<Shard>,
    groups: Vec<Group>,
    labels: Vec<u32>,
    classes: Vec<String>,
    fingerprint: Fingerprint,
    cache: Mutex<Cache>,
}

/// Why Parquet files cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParquetError {
    /// The operating system does not let us read the file.
    #[error("{} cannot be read: {reason}", escape_path(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// The path leads to no such file.
    #[error("no .parquet files of this split in {}", escape_path(path))]
    NoFiles {
        /// The path as given.
        path: PathBuf,
    },
    /// The file breaks the rules of the format.
    #[error("{} is no Parquet file that can be read: {reason}", escape_path(path))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// A row group promises so much that it may be made to exhaust the memory.
    #[error(
        "row group {group} of {} promises {promised} bytes in a column, more than the {allowed} that {packed} compressed \
         bytes may: refused as a decompression bomb; if you trust it, write it again with smaller row groups or \
         uncompressed",
        escape_path(path)
    )]
    Bomb {
        /// The file.
        path: PathBuf,
        /// Number of the row group.
        group: usize,
        /// Bytes that it promises to unfold to.
        promised: u64,
        /// Bytes that it has.
        packed: u64,
        /// Bytes that it may promise.
        allowed: u64,
    },
    /// There is no column of pictures.
    #[error("{} has no column of pictures: expected `image` with the bytes of picture files, got {}", escape_path(path), columns.join(", "))]
    NoPictures {
        /// The file.
        path: PathBuf,
        /// The columns there are.
        columns: Vec<String>,
    },
    /// No file has a row.
    #[error("{} has no rows", escape_path(path))]
    Empty {
        /// The path as given.
        path: PathBuf,
    },
}

struct Shard {
    name: String,
    path: PathBuf,
    /// Holds the footer, which is read once.
    reader: SerializedFileReader<Chunks>,
    /// Which leaf holds the pictures.
    pictures: usize,
}

impl fmt::Debug for Shard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Shard({})", escape_path(&self.path))
    }
}

/// A row group, in the order of all files.
#[derive(Debug)]
struct Group {
    file: usize,
    number: usize,
    /// Rows in the groups before and in this one.
    end: usize,
    /// Rows of the same file in the groups before.
    before_in_file: usize,
}

impl ParquetSource {
    /// Reads footers and labels of the files that `path` names.
    ///
    /// # Errors
    /// [`ParquetError`] when there is no such file, one cannot be read, or has no column of pictures.
    pub fn open(path: &Path, split: Split, decode: DecodeOptions, cache_mib: u64) -> Result<Self, ParquetError> {
        let (mut files, mut groups, mut labels, mut identity) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut names = None;
        let mut end = 0;
        for path in files_of(path, split)? {
            let opened = guarded(|| open_file(&path))
                .unwrap_or_else(|reason| Err(ParquetError::Invalid { path: path.clone(), reason }))?;
            let mut before_in_file = 0;
            for (number, rows) in opened.rows.into_iter().enumerate() {
                end += rows;
                groups.push(Group { file: files.len(), number, end, before_in_file });
                before_in_file += rows;
            }
            identity.extend(opened.shard.name.bytes());
            identity.extend(opened.content.to_le_bytes());
            labels.extend(opened.labels.unwrap_or_else(|| vec![None; before_in_file]));
            names = names.or(opened.names);
            files.push(opened.shard);
        }
        if end == 0 {
            return Err(ParquetError::Empty { path: path.to_owned() });
        }
        // All of them or none: test sets are often labelled -1 throughout.
        let labels: Vec<u32> = labels.into_iter().collect::<Option<_>>().unwrap_or_default();
        let (labels, classes) = name_classes(labels, names);
        let cache = Cache { entries: Vec::new(), bytes: 0, most: cache_mib.saturating_mul(1 << 20), clock: 0 };
        let label_bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        let class_names = classes.join("\0");
        let parts = [b"parquet", identity.as_slice(), &label_bytes, class_names.as_bytes()];
        let fingerprint = Fingerprint::of_parts(parts);
        Ok(Self { decode, files, groups, labels, classes, fingerprint, cache: Mutex::new(cache) })
    }

    /// A name for this set of pictures that changes with any label, number or size in it and, as far as the ends of the
    /// row groups show them, with edits.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The row group of picture `i` and the row in it.
    fn locate(&self, i: usize) -> (usize, usize) {
        let at = self.groups.partition_point(|group| group.end <= i);
        let before = at.checked_sub(1).map_or(0, |before| self.groups[before].end);
        (at, i - before)
    }

    /// The stored bytes of picture `i`, handed to `then`.
    fn with_bytes<T>(&self, i: usize, then: impl FnOnce(&[u8]) -> Result<T, Problem>) -> Result<T, SampleError> {
        let (at, row) = self.locate(i);
        let read = || {
            let group = self.group(at)?;
            let picture = group.get(row).and_then(Option::as_ref);
            let bytes = picture.ok_or(Problem::Missing("its bytes are null, it only names a file elsewhere"))?.data();
            let max_file_bytes = self.decode.max_file_bytes;
            if bytes.len() as u64 > max_file_bytes {
                return Err(Problem::Decode(DecodeError::FileTooLarge { bytes: bytes.len() as u64, max_file_bytes }));
            }
            then(bytes)
        };
        read().map_err(|problem| SampleError { path: self.path(i), problem })
    }

    /// The pictures of a row group, from the cache or from the file.
    fn group(&self, at: usize) -> Result<Arc<Pictures>, Problem> {
        // Whoever panicked while holding the lock left at worst an entry too few.
        if let Some(found) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(at) {
            return Ok(found);
        }
        let group = &self.groups[at];
        let shard = &self.files[group.file];
        let read = guarded(|| read_pictures(shard, group.number)).unwrap_or_else(Err).map_err(Problem::Container)?;
        let read = Arc::new(read);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).put(at, &read);
        Ok(read)
    }
}

impl Source for ParquetSource {
    fn len(&self) -> usize {
        self.groups.last().map_or(0, |group| group.end)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.labels.get(i).copied()
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        let (at, row) = self.locate(i);
        let group = &self.groups[at];
        format!("{}/{:06}", self.files[group.file].name, group.before_in_file + row).into()
    }

    fn path(&self, i: usize) -> PathBuf {
        let (at, row) = self.locate(i);
        let group = &self.groups[at];
        self.files[group.file].path.join(format!("{:06}", group.before_in_file + row))
    }

    fn read<'a>(&'a self, i: usize, buffers: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
        let image = &mut buffers.image;
        self.with_bytes(i, |bytes| decode_into(bytes, &self.decode, image).map_err(Problem::Decode))?;
        Ok(image)
    }

    fn read_file(&self, i: usize, buffers: &mut ReadBuffers) -> Result<bool, SampleError> {
        self.with_bytes(i, |bytes| {
            buffers.bytes.clear();
            buffers.bytes.extend_from_slice(bytes);
            Ok(true)
        })
    }
}

type Pictures = Vec<Option<ByteArray>>;

/// Unpacked row groups, the last used ones.
#[derive(Debug)]
struct Cache {
    entries: Vec<Entry>,
    bytes: u64,
    most: u64,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    at: usize,
    pictures: Arc<Pictures>,
    bytes: u64,
    used: u64,
}

impl Cache {
    fn get(&mut self, at: usize) -> Option<Arc<Pictures>> {
        self.clock += 1;
        let entry = self.entries.iter_mut().find(|entry| entry.at == at)?;
        entry.used = self.clock;
        Some(entry.pictures.clone())
    }

    /// Keeps a row group and lets go of the longest unused ones; the newest stays even when it alone is too large.
    fn put(&mut self, at: usize, pictures: &Arc<Pictures>) {
        if self.entries.iter().any(|entry| entry.at == at) {
            return;
        }
        let bytes = pictures.iter().flatten().map(|picture| picture.len() as u64).sum();
        while self.bytes + bytes > self.most {
            let oldest = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.used).map(|(place, _)| place);
            let Some(oldest) = oldest else { break };
            self.bytes -= self.entries.swap_remove(oldest).bytes;
        }
        self.bytes += bytes;
        self.entries.push(Entry { at, pictures: pictures.clone(), bytes, used: self.clock });
    }
}

/// A file from which the reader takes ranges; its own way moves one shared position, which threads would fight over.
#[derive(Debug, Clone)]
struct Chunks(Arc<FixedFile>);

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Chunks {
    type T = RangeReader;

    fn get_read(&self, start: u64) -> Result<RangeReader, ReaderError> {
        Ok(RangeReader { file: self.0.clone(), at: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<bytes::Bytes, ReaderError> {
        let mut out = Vec::new();
        self.0.read_at(start, length as u64, &mut out)?;
        Ok(out.into())
    }
}

/// Reading on from a place.
struct RangeReader {
    file: Arc<FixedFile>,
    at: u64,
}

impl Read for RangeReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.file.len().saturating_sub(self.at);
        let n = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.file.read_exact_at(self.at, &mut out[..n])?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Runs the reader, which is known to panic on some damaged files.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    // Nothing that the closure changes is seen after a panic.
    panic::catch_unwind(AssertUnwindSafe(run)).map_err(|_| "the reader panicked".to_owned())
}

fn files_of(path: &Path, split: Split) -> Result<Vec<PathBuf>, ParquetError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    for folder in [path.to_owned(), path.join("data")] {
        let found = if folder.is_dir() { shards_in(&folder, "parquet", split) } else { Ok(Vec::new()) };
        let found = found.map_err(|reason| ParquetError::Unreadable { path: folder, reason })?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Err(ParquetError::NoFiles { path: path.to_owned() })
}

/// What one file tells at opening.
struct Opened {
    shard: Shard,
    /// Rows of each row group.
    rows: Vec<usize>,
    labels: Option<Vec<Option<u32>>>,
    names: Option<Vec<String>>,
    content: Fingerprint,
}

fn open_file(path: &Path) -> Result<Opened, ParquetError> {
    let unreadable = |reason| ParquetError::Unreadable { path: path.to_owned(), reason };
    let invalid = |reason: String| ParquetError::Invalid { path: path.to_owned(), reason };
    let chunks = Chunks(Arc::new(FixedFile::open(path).map_err(unreadable)?));
    let reader = SerializedFileReader::new(chunks.clone()).map_err(|error| invalid(error.to_string()))?;
    let metadata = reader.metadata();
    let schema = metadata.file_metadata().schema_descr();
    let columns: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
    let flat = |i: &usize| schema.column(*i).max_rep_level() == 0;
    let is_bytes = |i: &usize| schema.column(*i).physical_type() == PhysicalType::BYTE_ARRAY;
    let named = |name: &str| columns.iter().position(|column| column == name);
    let any_bytes = || columns.iter().position(|column| column.ends_with(".bytes"));
    let pictures = named("image.bytes").or_else(|| named("image")).or_else(|| named("img.bytes")).or_else(any_bytes);
    let pictures = pictures.filter(flat).filter(is_bytes);
    let pictures =
        pictures.ok_or_else(|| ParquetError::NoPictures { path: path.to_owned(), columns: columns.clone() })?;
    let rows = metadata.row_groups().iter().map(|group| usize::try_from(group.num_rows()).ok());
    let rows: Vec<usize> =
        rows.collect::<Option<_>>().ok_or_else(|| invalid("a negative number of rows".to_owned()))?;
    // Each row has at least a level in a page; a footer that promises more rows than bits would make labels of nothing.
    let n_rows = rows.iter().try_fold(0usize, |sum, rows| sum.checked_add(*rows));
    if n_rows.is_none_or(|n| n as u64 > chunks.len().saturating_mul(8)) {
        return Err(invalid("it promises more rows than it can hold".to_owned()));
    }
    let labels = LABELS.iter().find_map(|name| named(name)).filter(flat);
    [Some(pictures), labels].into_iter().flatten().try_for_each(|column| check_ratio(path, metadata, column))?;
    let labels = match labels {
        Some(column) => read_labels(&reader, column, &rows).map_err(invalid)?,
        None => None,
    };
    let content = content(&chunks.0, metadata, pictures).map_err(unreadable)?;
    let names = labels.as_ref().and_then(|_| label_names(metadata));
    let name = escape_path(path.file_name().unwrap_or_default().as_ref());
    Ok(Opened { shard: Shard { name, path: path.to_owned(), reader, pictures }, rows, labels, names, content })
}

/// What any column of a row group may unfold to.
const FREE_BYTES: u64 = 64 << 20;

/// What it may unfold to beyond that, for each of its bytes. Files of pictures are compressed already and unfold to little
/// more than themselves.
const MAX_RATIO: u64 = 64;

/// Refuses row groups that say of themselves that they are out of all proportion.
fn check_ratio(path: &Path, metadata: &ParquetMetaData, column: usize) -> Result<(), ParquetError> {
    for (group, column) in metadata.row_groups().iter().map(|group| group.column(column)).enumerate() {
        let bytes = |stated: i64| u64::try_from(stated).unwrap_or(0);
        let (promised, packed) = (bytes(column.uncompressed_size()), bytes(column.compressed_size()));
        let allowed = FREE_BYTES.saturating_add(packed.saturating_mul(MAX_RATIO));
        if promised > allowed {
            return Err(ParquetError::Bomb { path: path.to_owned(), group, promised, packed, allowed });
        }
    }
    Ok(())
}

/// Footer and the ends of every chunk of pictures.
fn content(file: &FixedFile, metadata: &ParquetMetaData, pictures: usize) -> io::Result<Fingerprint> {
    let mut parts = Vec::new();
    let mut bytes = Vec::new();
    file.read_at(file.len().saturating_sub(8), file.len().min(8), &mut bytes)?;
    let footer = bytes.first_chunk().map_or(0, |length| u64::from(u32::from_le_bytes(*length)));
    let footer = (footer + 8).min(file.len());
    file.read_at(file.len() - footer, footer, &mut bytes)?;
    parts.extend(Fingerprint::of(&bytes).to_le_bytes());
    parts.extend(file.len().to_le_bytes());
    for group in metadata.row_groups() {
        let (start, length) = group.column(pictures).byte_range();
        let start = start.min(file.len());
        let length = length.min(file.len() - start);
        let sample = length.min(SAMPLED_BYTES);
        for at in [start, start + length - sample] {
            file.read_at(at, sample, &mut bytes)?;
            parts.extend(Fingerprint::of(&bytes).to_le_bytes());
        }
    }
    Ok(Fingerprint::of(&parts))
}

/// All labels of a file, `None` where the column is not one of whole numbers.
fn read_labels(
    reader: &SerializedFileReader<Chunks>,
    column: usize,
    rows: &[usize],
) -> Result<Option<Vec<Option<u32>>>, String> {
    let said = |error: ReaderError| error.to_string();
    let mut labels = Vec::new();
    for (number, rows) in rows.iter().enumerate() {
        let group = reader.get_row_group(number).map_err(said)?;
        let numbers: Vec<Option<i64>> = match group.get_column_reader(column).map_err(said)? {
            ColumnReader::Int64ColumnReader(mut reader) => {
                all_rows(*rows, |most, levels, values| reader.read_records(most, Some(levels), None, values))?
                    .into_iter()
                    .collect()
            }
            ColumnReader::Int32ColumnReader(mut reader) => {
                all_rows(*rows, |most, levels, values| reader.read_records(most, Some(levels), None, values))?
                    .into_iter()
                    .map(|value: Option<i32>| value.map(i64::from))
                    .collect()
            }
            _ => return Ok(None),
        };
        labels.extend(numbers.into_iter().map(|number| number.and_then(|number| u32::try_from(number).ok())));
    }
    Ok(Some(labels))
}

/// The pictures of one row group.
fn read_pictures(shard: &Shard, number: usize) -> Result<Pictures, String> {
    let said = |error: ReaderError| error.to_string();
    let group = shard.reader.metadata().row_group(number);
    let rows = usize::try_from(group.num_rows()).map_err(|error| error.to_string())?;
    match shard.reader.get_row_group(number).and_then(|group| group.get_column_reader(shard.pictures)).map_err(said)? {
        ColumnReader::ByteArrayColumnReader(mut reader) => {
            all_rows(rows, |most, levels, values| reader.read_records(most, Some(levels), None, values))
        }
        _ => Err("the column of pictures holds no bytes".to_owned()),
    }
}

/// Reads one value or null for each row. In a column that cannot be null no levels come.
fn all_rows<T>(
    rows: usize,
    mut read: impl FnMut(usize, &mut Vec<i16>, &mut Vec<T>) -> Result<(usize, usize, usize), ReaderError>,
) -> Result<Vec<Option<T>>, String> {
    let mut out = Vec::new();
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    while out.len() < rows {
        levels.clear();
        values.clear();
        let (n_records, n_values, _) =
            read(rows - out.len(), &mut levels, &mut values).map_err(|error| error.to_string())?;
        if n_records == 0 {
            return Err(format!("it ends after {} of {rows} rows", out.len()));
        }
        if n_values == n_records {
            out.extend(values.drain(..).map(Some));
            continue;
        }
        // Where nulls are, the largest level marks a value, and there is one as soon as there are values.
        let most = levels.iter().copied().max().unwrap_or(0);
        let mut values = values.drain(..);
        let has_values = n_values > 0;
        out.extend(levels.iter().map(|level| if has_values && *level == most { values.next() } else { None }));
    }
    Ok(out)
}

/// What `datasets` writes into a file's metadata, as far as it names classes.
#[derive(Deserialize)]
struct HuggingFace {
    info: Info,
}

#[derive(Deserialize)]
struct Info {
    features: serde_json::Map<String, serde_json::Value>,
}

fn label_names(metadata: &ParquetMetaData) -> Option<Vec<String>> {
    let pairs = metadata.file_metadata().key_value_metadata()?;
    let text = pairs.iter().find(|pair| pair.key == "huggingface")?.value.as_ref()?;
    let described: HuggingFace = serde_json::from_str(text).ok()?;
    let feature = LABELS.iter().find_map(|name| described.info.features.get(*name))?;
    serde_json::from_value(feature.get("names")?.clone()).ok()
}

/// Labels and classes in byte order, by name where every label has one.
fn name_classes(mut labels: Vec<u32>, names: Option<Vec<String>>) -> (Vec<u32>, Vec<String>) {
    if labels.is_empty() {
        return (labels, Vec::new());
    }
    let named = names.and_then(in_byte_order).and_then(|(classes, places)| {
        let labels = labels.iter().map(|label| places.get(*label as usize).copied()).collect::<Option<Vec<u32>>>()?;
        Some((labels, classes))
    });
    named.unwrap_or_else(|| {
        let classes = of_numbers(&mut labels);
        (labels, classes)
    })
}
