//! Parts of pictures with zeros around them, so that no window of a kernel crosses a border.

use std::ops::Range;

use super::pixels::Extent;
use super::scratch::Aligned;
use super::vector::LANES;
use super::vectorized::vectorized;

/// Per channel `scale · (x − origin) + offset`, padded with zeros to whole vectors.
///
/// `x` enters as `x − origin`, which is nearly exact for values near the mean, so a large common offset costs no digits.
#[derive(Debug, Clone, Default)]
pub(super) struct Affine {
    pub(super) origin: Vec<f32>,
    pub(super) scale: Vec<f32>,
    pub(super) offset: Vec<f32>,
}

/// What a convolution reads: pictures as they are, or normalized and cut at zero on the way.
///
/// Normalizing while reading spares the network one tensor per normalization, in memory and in traffic.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) values: &'a [f32],
    pub(super) extent: Extent,
    /// Applied to every pixel, followed by a ReLU; the stride is then a multiple of [`LANES`].
    pub(super) normalize: Option<&'a Affine>,
}

/// A rectangle of picture positions, which may reach beyond the borders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// Row and column of the picture at the frame's first pixel.
    pub(super) first: [isize; 2],
    /// Rows and columns.
    pub(super) size: [usize; 2],
}

impl Window {
    /// Whether the window lies inside a picture.
    fn is_inside(&self, extent: Extent) -> bool {
        let end = |axis: usize| self.first[axis].saturating_add_unsigned(self.size[axis]);
        self.first.iter().all(|&first| first >= 0)
            && end(0) <= extent.height.cast_signed()
            && end(1) <= extent.width.cast_signed()
    }
}

/// A window of several pictures in memory.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    /// The values from the first pixel on.
    pub(super) values: &'a [f32],
    /// Distance of two pixels.
    pub(super) pixel: usize,
    /// Distance of two rows.
    pub(super) row: usize,
    /// Distance of two pictures.
    pub(super) picture: usize,
}

impl<'a> Frame<'a> {
    /// The window of some pictures and channels: where they lie if that serves, else a copy in `buffer`.
    pub(super) fn new(
        source: Source<'a>,
        images: Range<usize>,
        window: Window,
        channels: Range<usize>,
        buffer: &'a mut Aligned,
    ) -> Self {
        let Source { values, extent, normalize } = source;
        if normalize.is_none() && channels == (0..extent.stride) && window.is_inside(extent) {
            let row = extent.width * extent.stride;
            let [first_row, first_column] = window.first.map(isize::cast_unsigned);
            let start = images.start * extent.picture() + first_row * row + first_column * extent.stride;
            return Self { values: &values[start..], pixel: extent.stride, row, picture: extent.picture() };
        }
        let pixel = channels.len();
        let row = window.size[1] * pixel;
        let picture = window.size[0] * row;
        let frame = buffer.take(images.len() * picture);
        fill(source, images, window, channels, frame);
        Self { values: frame, pixel, row, picture }
    }
}

/// Writes `[images, rows, columns, channels]` of a source to `frame`, zero outside the pictures.
fn fill(source: Source<'_>, images: Range<usize>, window: Window, channels: Range<usize>, frame: &mut [f32]) {
    let extent = source.extent;
    let (width, row_len) = (channels.len(), window.size[1] * channels.len());
    let [first_row, first_column] = window.first;
    let (left, inside) = overlap(first_column, window.size[1], extent.width);
    let rows = images.flat_map(|image| (0..window.size[0]).map(move |row| (image, row)));
    for (out, (image, row)) in frame.chunks_exact_mut(row_len.max(1)).zip(rows) {
        let row = first_row + row.cast_signed();
        let inside = match usize::try_from(row) {
            Ok(row) if row < extent.height && !inside.is_empty() => inside.clone(),
            _ => {
                out.fill(0.0);
                continue;
            }
        };
        let row = row.cast_unsigned();
        out[..left * width].fill(0.0);
        out[(left + inside.len()) * width..].fill(0.0);
        let out = &mut out[left * width..][..inside.len() * width];
        let start = ((image * extent.height + row) * extent.width + inside.start) * extent.stride;
        let pixels = &source.values[start..][..inside.len() * extent.stride];
        match source.normalize {
            None if width == extent.stride => out.copy_from_slice(pixels),
            None => {
                for (out, pixel) in out.chunks_exact_mut(width).zip(pixels.chunks_exact(extent.stride)) {
                    out.copy_from_slice(&pixel[channels.clone()]);
                }
            }
            Some(affine) => normalize_row(pixels, extent.stride, channels.clone(), affine, out),
        }
    }
}

/// How many of `size` positions from `first` on come before a picture of `extent`, and which of the picture's follow.
fn overlap(first: isize, size: usize, extent: usize) -> (usize, Range<usize>) {
    let start = first.max(0).cast_unsigned();
    let before = start.saturating_add_signed(-first).min(size);
    let end = first.saturating_add_unsigned(size).max(0).cast_unsigned().min(extent);
    (before, start.min(end)..end)
}

vectorized! {
    /// Normalizes some channels of consecutive pixels, cutting at zero.
    fn normalize_row(pixels: &[f32], stride: usize, channels: Range<usize>, affine: &Affine, out: &mut [f32]) {
        // A function, because a closure cannot tie the result's life to the argument's.
        fn groups<'a>(values: &'a [f32], channels: &Range<usize>) -> &'a [[f32; LANES]] {
            values[channels.start..channels.end].as_chunks::<LANES>().0
        }
        let (origins, scales, offsets) = (
            groups(&affine.origin, &channels),
            groups(&affine.scale, &channels),
            groups(&affine.offset, &channels),
        );
        for (out, pixel) in out.chunks_exact_mut(channels.len()).zip(pixels.chunks_exact(stride)) {
            let (out, _) = out.as_chunks_mut::<LANES>();
            let coefficients = origins.iter().zip(scales).zip(offsets);
            for ((out, x), ((origin, scale), offset)) in out.iter_mut().zip(groups(pixel, &channels)).zip(coefficients) {
                for lane in 0..LANES {
                    let value = (x[lane] - origin[lane]) * scale[lane] + offset[lane];
                    // Unlike `max`, this keeps a NaN.
                    out[lane] = if value < 0.0 { 0.0 } else { value };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_covers_every_position_of_a_window() {
        for (first, size, extent) in [(-1, 4, 8), (0, 8, 8), (6, 4, 8), (-5, 3, 8), (9, 3, 8), (-2, 20, 3), (8, 1, 8)] {
            let (before, inside) = overlap(first, size, extent);
            let positions = (0..size).map(|i| usize::try_from(first + i.cast_signed()).ok().filter(|&at| at < extent));
            let want: Vec<_> = positions.collect();
            let got: Vec<_> = (0..size)
                .map(|i| i.checked_sub(before).map(|i| inside.start + i).filter(|at| inside.contains(at)))
                .collect();
            assert_eq!(got, want, "{first}, {size}, {extent}");
        }
    }

    #[test]
    fn a_frame_holds_the_window_and_zeros() {
        let extent = Extent { images: 2, height: 2, width: 2, stride: 1 };
        let values: Vec<f32> = (1u8..=8).map(f32::from).collect();
        let source = Source { values: &values, extent, normalize: None };
        let mut frame = [f32::NAN; 9];
        fill(source, 1..2, Window { first: [-1, 0], size: [3, 3] }, 0..1, &mut frame);
        assert_eq!(frame, [0.0, 0.0, 0.0, 5.0, 6.0, 0.0, 7.0, 8.0, 0.0]);
    }
}
