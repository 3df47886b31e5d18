//! A batch of two views in host memory, as the training loop receives it.

use std::path::PathBuf;

use serde::Serialize;

use crate::scan_report::as_escaped;

/// Two views of each of `N` pictures, normalized, ready to become tensors.
///
/// # Shapes
/// Each of the two `views` is `[N, 3, size_px, size_px]`, row-major; row `i` of both shows picture `samples[i]`.
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
    /// The first and the second view of every picture.
    pub views: [Vec<f32>; 2],
    /// Pictures that could not be had and what stands in for them; empty as long as all is well.
    pub replaced: Vec<Replaced>,
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
