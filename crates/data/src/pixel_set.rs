//! Pictures of one size, decoded and in memory: what small record files become.

use std::borrow::Cow;
use std::path::PathBuf;

use twoview_pixels::Image;

use crate::record_files::RecordFiles;
use crate::{Fingerprint, Problem, ReadBuffers, SampleError};

/// Pixels and labels of a whole set.
#[derive(Debug)]
pub(crate) struct PixelSet {
    pub(crate) files: RecordFiles,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// One to three channels, row by row, channels last.
    pub(crate) pixels: Vec<u8>,
    /// 1 (grey) or 3.
    pub(crate) channels: usize,
    /// As many as pictures, or none.
    pub(crate) labels: Vec<u32>,
    pub(crate) classes: Vec<String>,
}

impl PixelSet {
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn label(&self, i: usize) -> Option<u32> {
        self.labels.get(i).copied()
    }

    pub(crate) fn name(&self, i: usize) -> Cow<'_, str> {
        self.files.name(i).into()
    }

    pub(crate) fn path(&self, i: usize) -> PathBuf {
        self.files.path(i)
    }

    /// Copies picture `i` out; grey is repeated over the channels.
    pub(crate) fn read<'a>(&self, i: usize, buffers: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
        let failed = |problem| SampleError { path: self.path(i), problem };
        let ReadBuffers { image, .. } = buffers;
        let out = image.overwrite(self.width, self.height).map_err(|error| failed(Problem::Shape(error)))?;
        let bytes = out.len() / 3 * self.channels;
        let pixels = &self.pixels[i * bytes..][..bytes];
        if self.channels == 1 {
            repeat_grey(pixels, out);
        } else {
            out.copy_from_slice(pixels);
        }
        Ok(image)
    }

    /// A name over files, classes, labels and every pixel.
    pub(crate) fn fingerprint(&self, kind: &str) -> Fingerprint {
        let labels: Vec<u8> = self.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        let (files, classes) = (self.files.identity(), self.classes.join("\0"));
        Fingerprint::of_parts([kind.as_bytes(), &files, classes.as_bytes(), &labels, &self.pixels])
    }
}

/// One grey byte for each pixel becomes three.
fn repeat_grey(grey: &[u8], rgb: &mut [u8]) {
    for (pixel, &grey) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(grey) {
        *pixel = [grey; 3];
    }
}

/// One plane for each channel becomes three bytes for each pixel. `rgb` is three times as long as a plane.
pub(crate) fn interleave(planes: &[u8], rgb: &mut [u8]) {
    let n = planes.len() / 3;
    let (red, rest) = planes.split_at(n);
    let (green, blue) = rest.split_at(n);
    for (pixel, ((&red, &green), &blue)) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(red.iter().zip(green).zip(blue)) {
        *pixel = [red, green, blue];
    }
}
