//! A file of weights in either of the two forms that Python leaves: safetensors, or `torch.save`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};

use crate::safetensors_file::{SafetensorsError, load_safetensors};
use crate::torch_file::{TorchFile, TorchFileError};

/// Why a file of weights cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsFileError {
    /// The operating system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file of PyTorch before 1.6.
    #[error(
        "{} is in the form that torch.save had before PyTorch 1.6, which is not read; save it again in Python: \
         torch.save(torch.load(FILE, map_location=\"cpu\", weights_only=True), NEW)",
        path.display()
    )]
    Legacy {
        /// The file.
        path: PathBuf,
    },
    /// Neither of the two.
    #[error(
        "{} begins like no file of weights: expected a .safetensors file or one of torch.save (.pth, .pt, .ckpt)",
        path.display()
    )]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// A safetensors file that is none.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// A file of `torch.save` that cannot be read.
    #[error(transparent)]
    Torch(#[from] TorchFileError),
    /// The tensors that were asked for would take more memory than the file.
    #[error("{}: the tensors asked for have more numbers than the file; it is corrupt", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// What a file says of one of its tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Its name, the keys of nested dictionaries joined by dots.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Type of its elements.
    pub dtype: DType,
}

/// An open file of weights.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    /// Bytes of the file that tensors may still take.
    left: u64,
    content: Content,
    metadata: BTreeMap<String, String>,
}

#[derive(Debug)]
enum Content {
    Safetensors(BTreeMap<String, TensorData>),
    Torch(Box<TorchFile>),
}

impl WeightsFile {
    /// Opens a `.safetensors` file or one of `torch.save` (`.pth`, `.pt`, `.ckpt`), told apart by their first bytes.
    ///
    /// No code in a file can run: see the rules of `twoview-pickle` and of `torch_pickle.rs`. Memory stays within a small
    /// multiple of the file's size, however the file was made.
    ///
    /// # Errors
    /// [`WeightsFileError`].
    pub fn open(path: &Path) -> Result<Self, WeightsFileError> {
        let failed = |source| WeightsFileError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let left = file.metadata().map_err(failed)?.len();
        let mut head = Vec::new();
        file.by_ref().take(512).read_to_end(&mut head).map_err(failed)?;
        // A pickle begins with its protocol, where a safetensors file would claim a header of more than 4 MiB; a tar archive has
        // its name behind the first file's.
        let is_pickle = matches!(head[..], [0x80, 2..=5, 0x40..=0xff, ..]);
        if is_pickle || head.get(257..262) == Some(b"ustar") {
            return Err(WeightsFileError::Legacy { path: path.to_owned() });
        }
        let (content, metadata) = if head.starts_with(b"PK") {
            (Content::Torch(Box::new(TorchFile::open(path)?)), BTreeMap::new())
        } else {
            // The header is JSON, behind its length.
            if head.get(8).is_some_and(|&byte| byte != b'{') {
                return Err(WeightsFileError::Unknown { path: path.to_owned() });
            }
            let content = load_safetensors(path)?;
            (Content::Safetensors(content.tensors.into_iter().collect()), content.metadata)
        };
        Ok(Self { path: path.to_owned(), left, content, metadata })
    }

    /// Every tensor, in the order of their names.
    #[must_use]
    pub fn tensors(&self) -> Vec<TensorInfo> {
        match &self.content {
            Content::Safetensors(tensors) => tensors
                .iter()
                .map(|(name, data)| TensorInfo {
                    name: name.clone(),
                    shape: data.shape().as_slice().to_vec(),
                    dtype: data.dtype(),
                })
                .collect(),
            Content::Torch(file) => file
                .tensors()
                .map(|(name, shape, dtype)| TensorInfo { name: name.to_owned(), shape: shape.to_vec(), dtype })
                .collect(),
        }
    }

    /// The text metadata of a safetensors file.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Takes one of its [`tensors`](Self::tensors) out of the file; `None` where it has none of this name.
    ///
    /// # Errors
    /// [`WeightsFileError`].
    pub fn take(&mut self, name: &str) -> Result<Option<TensorData>, WeightsFileError> {
        let data = match &mut self.content {
            Content::Safetensors(tensors) => return Ok(tensors.remove(name)),
            Content::Torch(file) => match file.read(name) {
                Err(TorchFileError::NoSuchTensor { .. }) => return Ok(None),
                other => other?,
            },
        };
        // Many tensors may claim one and the same storage.
        let too_large = || WeightsFileError::TooLarge { path: self.path.clone() };
        self.left = self.left.checked_sub(data.as_bytes().len() as u64).ok_or_else(too_large)?;
        Ok(Some(data))
    }
}
