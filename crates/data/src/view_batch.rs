//! A batch of two views in host memory, as the training loop receives it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use twoview_pixels::Normalize;

use crate::scan_report::as_escaped;

/// Two views of each of `N` pictures, ready to become a tensor.
///
/// # Shapes
/// `views` is `[2, N, 3, size_px, size_px]`, row-major; row `i` of both halves shows picture `samples[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewBatch {
    /// The epoch the batch belongs to.
    pub epoch: u32,
    /// Its place in the epoch, from 0.
    pub index: usize,
    /// Which pictures are shown, as numbers of the source.
    pub samples: Vec<u64>,
    /// What these pictures show, by [`Source::group`](crate::Source::group): rows with the same number are no negatives of
    /// each other.
    pub groups: Vec<u64>,
    /// The classes of these pictures; empty unless all have one. Only supervised objectives look at them.
    pub labels: Vec<u64>,
    /// Side of a view in pixels.
    pub size_px: u32,
    /// The first view of every picture, then the second of every picture.
    pub views: ViewPixels,
    /// Pictures that could not be had and what stands in for them; empty as long as all is well.
    pub replaced: Vec<Replaced>,
}

/// The values of views.
#[derive(Debug, Clone, PartialEq)]
pub enum ViewPixels {
    /// Normalized, as a network reads them.
    F32(Vec<f32>),
    /// As the kernels leave them: a quarter of the memory and of the way to a device, where `normalize` makes the numbers.
    U8 {
        /// From 0 to 255.
        values: Vec<u8>,
        /// What is still to be applied.
        normalize: Normalize,
    },
}

/// Which of the [`ViewPixels`] a loader makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PixelType {
    /// Normalized numbers.
    #[default]
    F32,
    /// Bytes, to be normalized on the device.
    U8,
}

impl ViewPixels {
    /// How many values there are, `2 · N · 3 · size_px²`.
    pub fn len(&self) -> usize {
        match self {
            ViewPixels::F32(values) => values.len(),
            ViewPixels::U8 { values, .. } => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers, or nothing if they are bytes.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match self {
            ViewPixels::F32(values) => Some(values),
            ViewPixels::U8 { .. } => None,
        }
    }
}

/// A picture that passed the scan, failed later and was replaced by another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replaced {
    /// The row of the batch.
    pub position: usize,
    /// The picture that belongs there.
    pub sample: u64,
    /// Its file.
    #[serde(serialize_with = "as_escaped")]
    pub path: PathBuf,
    /// Why it could not be used.
    pub reason: String,
    /// The picture that stands there now.
    pub by: u64,
}
