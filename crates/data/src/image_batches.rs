//! Pictures in their own order and without chance, for evaluation and embedding.

use std::cell::RefCell;

use rayon::prelude::*;
use twoview_pixels::{Filter, Normalize, Planes, Workspace, resize_center_crop};

use crate::loader::MAX_SIDE_PX;
use crate::{LoaderError, Problem, ReadBuffers, SampleError, Source};

/// Consecutive pictures of a source, resized, normalized, ready to become a tensor.
///
/// # Shapes
/// `pixels` is `[len, 3, size_px, size_px]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageBatch {
    /// Number of the first picture in the source.
    pub first: usize,
    /// How many pictures the batch has.
    pub len: usize,
    /// Side in pixels.
    pub size_px: u32,
    /// The pictures.
    pub pixels: Vec<f32>,
}

/// Every picture of `source` once and in order: the shorter side resized to `size_px` (bilinear), the middle square
/// cut out. A picture that already has this size is not touched.
///
/// The pictures of a batch are decoded on all threads of rayon's pool. The last batch holds what is left.
///
/// # Errors
/// [`LoaderError`] when the source is empty, `batch_size` is 0 or `size_px` is 0 or above 8192.
/// While iterating, a picture that cannot be had is an error that names its file, and nothing follows it: a substitute
/// would falsify the evaluation.
///
/// # Example
/// ```
/// use twoview_data::{PatternsConfig, PatternsSource, Split, image_batches};
/// use twoview_pixels::Normalize;
///
/// let pictures = PatternsSource::new(PatternsConfig { seed: 0, split: Split::Test, per_class: 1 })?;
/// let lens: Vec<usize> = image_batches(&pictures, 32, Normalize::NONE, 4)?
///     .map(|batch| Ok(batch?.len))
///     .collect::<Result<_, twoview_data::SampleError>>()?;
/// assert_eq!(lens, [4, 4, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn image_batches(
    source: &dyn Source,
    size_px: u32,
    normalize: Normalize,
    batch_size: usize,
) -> Result<ImageBatches<'_>, LoaderError> {
    if source.is_empty() {
        return Err(LoaderError::TooFewPictures { least: 1, got: 0 });
    }
    if batch_size == 0 {
        return Err(LoaderError::BatchTooSmall { least: 1, got: 0 });
    }
    if !(1..=MAX_SIDE_PX).contains(&size_px) {
        return Err(LoaderError::Size { got: size_px });
    }
    Ok(ImageBatches { source, size_px, normalize, batch_size, next: 0 })
}

/// The iterator behind [`image_batches`].
pub struct ImageBatches<'a> {
    source: &'a dyn Source,
    size_px: u32,
    normalize: Normalize,
    batch_size: usize,
    next: usize,
}

impl Iterator for ImageBatches<'_> {
    type Item = Result<ImageBatch, SampleError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (first, end) = (self.next, self.source.len().min(self.next.saturating_add(self.batch_size)));
        if first >= end {
            return None;
        }
        let size_px = self.size_px;
        let row_len = 3 * size_px as usize * size_px as usize;
        let mut pixels = vec![0.0; (end - first) * row_len];
        let outcomes: Vec<Result<(), SampleError>> =
            pixels.par_chunks_mut(row_len).enumerate().map(|(row, out)| self.write_row(first + row, out)).collect();
        // The first failure in order, whichever thread met one first.
        if let Err(error) = outcomes.into_iter().collect::<Result<(), _>>() {
            self.next = self.source.len();
            return Some(Err(error));
        }
        self.next = end;
        Some(Ok(ImageBatch { first, len: end - first, size_px, pixels }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.source.len() - self.next).div_ceil(self.batch_size);
        (usize::from(left > 0), Some(left))
    }
}

thread_local! {
    /// Memory that a thread of rayon's pool uses from picture to picture.
    static BUFFERS: RefCell<(ReadBuffers, Workspace, Planes)> = RefCell::default();
}

impl ImageBatches<'_> {
    fn write_row(&self, i: usize, out: &mut [f32]) -> Result<(), SampleError> {
        BUFFERS.with_borrow_mut(|(buffers, workspace, planes)| {
            let image = self.source.read(i, buffers)?;
            resize_center_crop(image, self.size_px, self.size_px, Filter::Bilinear, workspace, planes)
                .map_err(|error| SampleError { path: self.source.path(i), problem: Problem::Resize(error) })?;
            let written = self.normalize.write_chw(planes, out, workspace.instructions());
            written.expect("a row has the size that was asked for");
            Ok(())
        })
    }
}
