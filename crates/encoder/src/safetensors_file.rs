//! Named tensors in a safetensors file, written whole or not at all and read without trust.
//!
//! The `safetensors` crate defines the header types and checks that the tensors tile the data without overlap. Its
//! whole-file functions are not used: the one that reads adds up sizes from the file without a check for overflow,
//! so a crafted header makes it panic, and the one that writes orders the metadata by chance.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Serialize;

use crate::named_tensors::NamedTensors;
use crate::whole_file::write_whole;

#[cfg(target_endian = "big")]
compile_error!("safetensors files are little-endian and tensors are written as they lie in memory");

/// The largest header that [`load_safetensors`] accepts. ResNet-50 needs about 40 kB; parsing takes a small multiple
/// of the header's size, which this bounds.
pub const MAX_HEADER_BYTES: u64 = 4 << 20;

/// The key under which the format keeps its text metadata.
const METADATA_KEY: &str = "__metadata__";

/// What a safetensors file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct SafetensorsContent {
    /// The tensors in the order of the file.
    pub tensors: NamedTensors,
    /// The text metadata, empty if there is none.
    pub metadata: BTreeMap<String, String>,
}

/// Why a safetensors file cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// `read`, `create`, `write` or `rename`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The length that the file claims for its header is larger than the file or than [`MAX_HEADER_BYTES`].
    #[error(
        "{} is no safetensors file or is corrupt: its header claims {got} bytes, at most {max} are possible",
        path.display()
    )]
    HeaderLength {
        /// The file.
        path: PathBuf,
        /// The largest possible length.
        max: u64,
        /// The length claimed.
        got: u64,
    },
    /// The header is no valid description of tensors.
    #[error("{} is no safetensors file or is corrupt: its header is invalid", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Header and data disagree about the size, as after an interrupted copy.
    #[error("{} is corrupt: its header describes a file of {expected} bytes, got {got}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// The size according to the header; `u64::MAX` if it is not representable.
        expected: u64,
        /// The size of the file.
        got: u64,
    },
    /// The elements are of a type that this program does not handle.
    #[error("{}: tensor `{name}` has elements of type {got}, which is not supported; convert it to F32", path.display())]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The element type.
        got: String,
    },
    /// The names, shapes and metadata to write exceed [`MAX_HEADER_BYTES`], so the file could not be read again.
    #[error("cannot write {}: its header would have {got} bytes, at most {max} are read; shorten the metadata", path.display())]
    HeaderTooLong {
        /// The file.
        path: PathBuf,
        /// [`MAX_HEADER_BYTES`].
        max: u64,
        /// The length needed.
        got: u64,
    },
    /// A name that is given twice, or that the format reserves.
    #[error("cannot write {}: the tensor name `{name}` is reserved or given twice", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
}

/// Writes tensors and text metadata; an existing file is replaced in one step.
///
/// The content goes to a temporary file in the same folder, reaches the disk (fsync) and is then renamed, so that
/// under `path` there is at any time the old file or the complete new one. The bytes are a function of the
/// arguments. Python reads the file with `safetensors.torch.load_file`; some of its readers want the metadata
/// `format = "pt"`, which is the caller's to give.
///
/// # Errors
/// [`SafetensorsError::Io`] from the operating system, in which case the old file is untouched and the temporary
/// one removed; [`Name`](SafetensorsError::Name), [`ElementType`](SafetensorsError::ElementType) and
/// [`HeaderTooLong`](SafetensorsError::HeaderTooLong) for what the file cannot hold.
///
/// # Example
/// ```
/// use std::collections::BTreeMap;
/// use twoview_encoder::{Arch, EncoderConfig, Stem, load_named, load_safetensors, named_tensors, save_safetensors};
///
/// let config = EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 2 };
/// let device = burn::tensor::Device::flex();
/// let tensors = named_tensors(&config.init(1, &device)?);
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("encoder.safetensors");
/// save_safetensors(&path, &tensors, &BTreeMap::from([("format".into(), "pt".into())]))?;
/// let encoder = load_named(config.init(2, &device)?, load_safetensors(&path)?.tensors)?;
/// assert_eq!(named_tensors(&encoder), tensors);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save_safetensors(
    path: &Path,
    tensors: &[(String, TensorData)],
    metadata: &BTreeMap<String, String>,
) -> Result<(), SafetensorsError> {
    let (header, ordered) = layout(path, tensors, metadata)?;
    write_whole(path, |file| write_content(file, &header, &ordered)).map_err(|(action, source)| SafetensorsError::Io {
        action,
        path: path.to_owned(),
        source,
    })
}

/// Reads a file written by [`save_safetensors`] or by Python's `safetensors`.
///
/// Nothing in the file is trusted. Memory stays within the file's size for the tensors and a small multiple of
/// [`MAX_HEADER_BYTES`] for the header. No code in a file can run; the format has none.
///
/// # Errors
/// [`SafetensorsError`] when the file cannot be read, when it is not a complete safetensors file, or when it has
/// elements of a type other than F16, BF16, F32, F64 and the integers.
pub fn load_safetensors(path: &Path) -> Result<SafetensorsContent, SafetensorsError> {
    let failed = |source| SafetensorsError::Io { action: "read", path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let file_size = file.metadata().map_err(failed)?.len();

    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(failed)?;
    let header_size = u64::from_le_bytes(length);
    let max = file_size.saturating_sub(8).min(MAX_HEADER_BYTES);
    if header_size > max {
        return Err(SafetensorsError::HeaderLength { path: path.to_owned(), max, got: header_size });
    }
    let header = read_bytes(&mut file, header_size).map_err(failed)?;
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|source| SafetensorsError::Header { path: path.to_owned(), source })?;

    let expected = (header.data_len() as u64).saturating_add(8 + header_size);
    if expected != file_size {
        return Err(SafetensorsError::Size { path: path.to_owned(), expected, got: file_size });
    }

    // In the order of their offsets the tensors follow one another without a gap: deserializing checked it.
    let mut tensors = Vec::new();
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let Some(dtype) = burn_dtype(info.dtype) else {
            let got = info.dtype.to_string();
            return Err(SafetensorsError::ElementType { path: path.to_owned(), name, got });
        };
        let (start, end) = info.data_offsets;
        let bytes = read_bytes(&mut file, (end - start) as u64).map_err(failed)?;
        let data = TensorData::try_from_bytes_vec(bytes, info.shape.clone(), dtype)
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error.to_string())))?;
        tensors.push((name, data));
    }
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(SafetensorsContent { tensors, metadata })
}

/// The header of a file, in the order in which it is written.
#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__", skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<&'a str, TensorInfo>,
}

/// The header text and the tensors in the order of their data: large elements first, so that each is aligned.
fn layout<'a>(
    path: &Path,
    tensors: &'a [(String, TensorData)],
    metadata: &BTreeMap<String, String>,
) -> Result<(Vec<u8>, Vec<&'a TensorData>), SafetensorsError> {
    let mut entries = Vec::with_capacity(tensors.len());
    let mut seen = HashSet::new();
    for (name, data) in tensors {
        if name == METADATA_KEY || !seen.insert(name) {
            return Err(SafetensorsError::Name { path: path.to_owned(), name: name.clone() });
        }
        let Some(dtype) = file_dtype(data.dtype()) else {
            let got = format!("{:?}", data.dtype());
            return Err(SafetensorsError::ElementType { path: path.to_owned(), name: name.clone(), got });
        };
        entries.push((name.as_str(), dtype, data));
    }
    entries.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));

    let mut offset = 0;
    let mut infos = BTreeMap::new();
    for (name, dtype, data) in &entries {
        let end = offset + data.as_bytes().len();
        let shape = data.shape().as_slice().to_vec();
        infos.insert(*name, TensorInfo { dtype: *dtype, shape, data_offsets: (offset, end) });
        offset = end;
    }
    let mut header = serde_json::to_vec(&Header { metadata, tensors: infos })
        .map_err(|source| SafetensorsError::Header { path: path.to_owned(), source })?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let got = header.len() as u64;
    if got > MAX_HEADER_BYTES {
        return Err(SafetensorsError::HeaderTooLong { path: path.to_owned(), max: MAX_HEADER_BYTES, got });
    }
    Ok((header, entries.into_iter().map(|(_, _, data)| data).collect()))
}

fn write_content(file: &mut File, header: &[u8], ordered: &[&TensorData]) -> io::Result<()> {
    let mut writer = BufWriter::new(file);
    writer.write_all(&(header.len() as u64).to_le_bytes())?;
    writer.write_all(header)?;
    for data in ordered {
        writer.write_all(data.as_bytes())?;
    }
    writer.flush()
}

/// Exactly `n_bytes` from the file, or an error; never an allocation that aborts the process.
pub(crate) fn read_bytes(file: &mut File, n_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let capacity = usize::try_from(n_bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.try_reserve_exact(capacity).map_err(|_| io::ErrorKind::OutOfMemory)?;
    if file.take(n_bytes).read_to_end(&mut bytes)? < capacity {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

fn file_dtype(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        _ => return None,
    })
}

fn burn_dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U16 => DType::U16,
        Dtype::U8 => DType::U8,
        _ => return None,
    })
}
