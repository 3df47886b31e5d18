//! Weights in a file of `torch.save`, read as data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use twoview_pickle::PickleError;

use crate::stored_zip::{StoredZip, ZipError};
use crate::torch_pickle::{StoredTensor, stored_tensors};

/// The largest description of tensors that is read. A ResNet-50 with its optimizer's memory needs 200 kB.
const MAX_PICKLE_BYTES: u64 = 32 << 20;

/// Why a file of `torch.save` cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchFileError {
    /// The archive.
    #[error(transparent)]
    Zip(#[from] ZipError),
    /// The pickle in it.
    #[error("{}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PickleError,
    },
    /// A program for PyTorch's own interpreter, not a dictionary of weights.
    #[error(
        "{} is a TorchScript program, which is not run; save its weights instead: torch.save(torch.jit.load(FILE).state_dict(), NEW)",
        path.display()
    )]
    TorchScript {
        /// The file.
        path: PathBuf,
    },
    /// The numbers are stored in the order of another kind of processor.
    #[error("{} holds {got}-endian numbers, expected little; save the weights again on an ordinary machine", path.display())]
    ByteOrder {
        /// The file.
        path: PathBuf,
        /// What the file says.
        got: String,
    },
    /// There is no tensor of this name.
    #[error("{} has no tensor `{name}`", path.display())]
    NoSuchTensor {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A tensor's description reaches beyond its numbers, or would repeat them.
    #[error(
        "{}: tensor `{name}` of shape {shape:?} does not lie within its {stored} stored numbers, each used once; the file is corrupt, or \
         the tensor was expanded: save tensor.contiguous()",
        path.display()
    )]
    Bounds {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Numbers in its storage.
        stored: u64,
    },
}

/// An open file of `torch.save`: its tensors are known, their numbers not yet read.
#[derive(Debug)]
pub(crate) struct TorchFile {
    path: PathBuf,
    zip: StoredZip,
    /// The folder of all entries, with its slash.
    folder: String,
    tensors: BTreeMap<String, StoredTensor>,
    /// The storage that was read last: tensors may share one.
    last: Option<(String, Vec<u8>)>,
}

impl TorchFile {
    /// Reads what the file says of its tensors.
    pub(crate) fn open(path: &Path) -> Result<Self, TorchFileError> {
        let mut zip = StoredZip::open(path)?;
        let folder = |entry: &str| zip.names().find_map(|name| name.strip_suffix(entry)).map(str::to_owned);
        if folder("constants.pkl").is_some() {
            return Err(TorchFileError::TorchScript { path: path.to_owned() });
        }
        let missing = || ZipError::Missing { path: path.to_owned(), entry: "data.pkl".to_owned() };
        let folder = folder("data.pkl").ok_or_else(missing)?;
        let byteorder = format!("{folder}byteorder");
        if zip.names().any(|name| name == byteorder) {
            let got = String::from_utf8_lossy(&zip.read(&byteorder, 16)?).into_owned();
            if got != "little" {
                return Err(TorchFileError::ByteOrder { path: path.to_owned(), got });
            }
        }
        let pickle = zip.read(&format!("{folder}data.pkl"), MAX_PICKLE_BYTES)?;
        let tensors =
            stored_tensors(&pickle).map_err(|source| TorchFileError::Pickle { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), zip, folder, tensors: tensors.into_iter().collect(), last: None })
    }

    /// Name, shape and element type of every tensor.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (&str, &[usize], DType)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), &tensor.shape[..], tensor.dtype))
    }

    /// The numbers of one tensor, row-major whatever its strides.
    pub(crate) fn read(&mut self, name: &str) -> Result<TensorData, TorchFileError> {
        let no_tensor = || TorchFileError::NoSuchTensor { path: self.path.clone(), name: name.to_owned() };
        let tensor = self.tensors.get(name).ok_or_else(no_tensor)?.clone();
        let bounds = || TorchFileError::Bounds {
            path: self.path.clone(),
            name: name.to_owned(),
            shape: tensor.shape.clone(),
            stored: tensor.storage_len,
        };
        let element = tensor.dtype.size();
        let n = tensor.checked_len().ok_or_else(bounds)?;
        if self.last.as_ref().is_none_or(|(storage, _)| *storage != tensor.storage) {
            let bytes = self.zip.read(&format!("{}data/{}", self.folder, tensor.storage), u64::MAX)?;
            self.last = Some((tensor.storage.clone(), bytes));
        }
        let storage = self.last.as_ref().map(|(_, bytes)| bytes.as_slice()).unwrap_or_default();
        // The pickle's word on the length of a storage is only a word.
        if (storage.len() / element) as u64 != tensor.storage_len {
            return Err(bounds());
        }
        let bytes = gather(storage, element, &tensor, n).ok_or_else(bounds)?;
        TensorData::try_from_bytes_vec(bytes, tensor.shape.clone(), tensor.dtype).map_err(|_| bounds())
    }
}

impl StoredTensor {
    /// The number of elements, if all lie within the storage and there are no more of them than it has.
    fn checked_len(&self) -> Option<usize> {
        let n = self.shape.iter().try_fold(1_u64, |n, side| n.checked_mul(*side as u64))?;
        if n > self.storage_len {
            return None;
        }
        let mut last = self.offset;
        for (side, stride) in self.shape.iter().zip(&self.strides) {
            last = last.checked_add((*side as u64).saturating_sub(1).checked_mul(*stride)?)?;
        }
        (n == 0 || last < self.storage_len).then_some(())?;
        usize::try_from(n).ok()
    }
}

/// The elements in the order of the shape.
fn gather(storage: &[u8], element: usize, tensor: &StoredTensor, n: usize) -> Option<Vec<u8>> {
    let offset = usize::try_from(tensor.offset).ok()?;
    let strides: Vec<usize> = tensor.strides.iter().map(|s| usize::try_from(*s).ok()).collect::<Option<_>>()?;
    let mut dense = 1;
    let is_dense = tensor.shape.iter().zip(&strides).rev().all(|(side, stride)| {
        let fits = *side == 1 || *stride == dense;
        dense *= side;
        fits
    });
    if is_dense || n == 0 {
        return storage.get(offset * element..(offset + n) * element).map(<[u8]>::to_vec);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(n * element).ok()?;
    let mut index = vec![0; strides.len()];
    for _ in 0..n {
        let at = offset + index.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>();
        bytes.extend_from_slice(storage.get(at * element..(at + 1) * element)?);
        for (i, side) in index.iter_mut().zip(&tensor.shape).rev() {
            *i += 1;
            if *i < *side {
                break;
            }
            *i = 0;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], strides: &[u64], offset: u64) -> StoredTensor {
        let (shape, strides) = (shape.to_vec(), strides.to_vec());
        StoredTensor { storage: "0".into(), dtype: DType::U8, storage_len: 6, offset, shape, strides }
    }

    #[test]
    fn strides_are_followed() {
        let storage = [0, 1, 2, 3, 4, 5];
        let check = |shape: &[usize], strides: &[u64], offset, want: Option<&[u8]>| {
            let tensor = tensor(shape, strides, offset);
            let got = tensor.checked_len().and_then(|n| gather(&storage, 1, &tensor, n));
            assert_eq!(got.as_deref(), want, "{tensor:?}");
        };
        check(&[2, 3], &[3, 1], 0, Some(&[0, 1, 2, 3, 4, 5]));
        check(&[3, 2], &[1, 3], 0, Some(&[0, 3, 1, 4, 2, 5]));
        check(&[2, 1, 2], &[2, 77, 1], 1, Some(&[1, 2, 3, 4])); // A side of 1 is never stepped along.
        check(&[], &[], 5, Some(&[5]));
        check(&[0, 3], &[3, 1], 0, Some(&[]));
        // Beyond the end, repeated, or overflowing.
        check(&[2, 3], &[3, 1], 1, None);
        check(&[7], &[0], 0, None);
        check(&[2, 2], &[u64::MAX, 1], 0, None);
        check(&[usize::MAX, usize::MAX], &[1, 1], 0, None);
    }
}
