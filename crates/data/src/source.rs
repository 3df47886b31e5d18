//! What every set of pictures can answer, and what it says when a picture cannot be had.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use twoview_augment::RenderError;
use twoview_pixels::{CropError, DecodeError, Image, ImageError};

use crate::escape_path;

/// A fixed, numbered set of pictures, with labels where they are known.
///
/// Implementations answer from any thread and give the same answer for the same `i` every time: the exactness of a
/// resumed run rests on it. All methods except [`len`](Self::len) and [`classes`](Self::classes) take `i < len()`.
pub trait Source: Send + Sync {
    /// How many pictures there are.
    fn len(&self) -> usize;

    /// Whether there is no picture at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the classes, byte-wise sorted; empty when the pictures carry no labels.
    fn classes(&self) -> &[String];

    /// The class of picture `i` as an index into [`classes`](Self::classes), or `None` without labels.
    fn label(&self, i: usize) -> Option<u32>;

    /// What picture `i` shows, as a number: pictures that are known to show the same thing share it, all others have
    /// one of their own, such as `i`. Objectives do not take pictures of one group for negatives of each other.
    fn group(&self, i: usize) -> u64 {
        i as u64
    }

    /// A name for picture `i` that is unique in this source, such as its path below the root.
    fn name(&self, i: usize) -> Cow<'_, str>;

    /// Where picture `i` lies; its name where there is no file.
    fn path(&self, i: usize) -> PathBuf {
        PathBuf::from(self.name(i).as_ref())
    }

    /// The pixels of picture `i`: those in memory where it is held decoded, else read and decoded into `buffers`.
    ///
    /// A caller that goes through many pictures hands over the same buffers every time, so that nothing is allocated
    /// once they have grown to the largest picture.
    ///
    /// # Errors
    /// [`SampleError`] when the file behind the picture vanished, changed or cannot be decoded.
    fn read<'a>(&'a self, i: usize, buffers: &'a mut ReadBuffers) -> Result<&'a Image, SampleError>;

    /// Fills `buffers.bytes` with the picture file as it is stored, for whoever copies the set; `false` where there are
    /// only pixels. Nothing is decoded, so the bytes may be no picture.
    ///
    /// # Errors
    /// [`SampleError`] when the file vanished or changed.
    fn read_file(&self, i: usize, buffers: &mut ReadBuffers) -> Result<bool, SampleError> {
        let _ = (i, buffers);
        Ok(false)
    }

    /// The pixels of picture `i` as a picture of its own, for callers that want only a few.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn image(&self, i: usize) -> Result<Image, SampleError> {
        self.read(i, &mut ReadBuffers::default()).cloned()
    }
}

/// The [group](Source::group) of picture `i`, where `first_of` holds the first of its group for those that have one before
/// them.
pub(crate) fn group_by_first(first_of: &HashMap<u32, u32>, i: usize) -> u64 {
    let first = u32::try_from(i).ok().and_then(|i| first_of.get(&i));
    first.map_or(i as u64, |&first| u64::from(first))
}

/// Memory that reading one picture after the other goes through; see [`Source::read`].
#[derive(Debug, Default)]
pub struct ReadBuffers {
    /// The bytes of a file.
    pub bytes: Vec<u8>,
    /// Its pixels.
    pub image: Image,
}

/// A picture that cannot be used: which file, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", escape_path(path))]
pub struct SampleError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it; its text is the reason in reports.
    pub problem: Problem,
}

/// What can be wrong with one file. The text says everything, so no variant hands its cause on as a second message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file could not be opened or read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// The bytes are not a complete picture within the limits.
    #[error("{0}")]
    Decode(DecodeError),
    /// The picture cannot be brought to the size that evaluation asks for.
    #[error("cannot be resized: {0}")]
    Resize(CropError),
    /// No view of the picture can be made, because its sides are extreme.
    #[error("no view can be made: {0}")]
    View(RenderError),
    /// The sides that a record states make no picture.
    #[error("{0}")]
    Shape(ImageError),
    /// The record has no picture in it.
    #[error("holds no picture: {0}")]
    Missing(&'static str),
    /// The bytes are not those that were written.
    #[error("the checksum of its bytes is {found:016x}, {expected:016x} was written: the file is damaged")]
    Checksum {
        /// What was written.
        expected: u64,
        /// What the bytes give now.
        found: u64,
    },
    /// The container around the picture cannot be decoded.
    #[error("cannot be unpacked: {0}")]
    Container(String),
    /// The path names a pipe, a socket or a device.
    #[error("not a regular file")]
    NotAFile,
    /// The file is not the one that was scanned.
    #[error("changed since the scan ({scanned_bytes} bytes then, {found_bytes} now)")]
    Changed {
        /// Its size in the scan.
        scanned_bytes: u64,
        /// Its size now, which may be the same.
        found_bytes: u64,
    },
}
