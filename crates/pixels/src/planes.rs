//! The picture that kernels change: eight-bit red, green and blue in one plane each.

use std::fmt;

use crate::{Image, ImageError};

/// An RGB picture of at least one pixel, channel by channel: `[3, height, width]`, row-major, the layout of a network's
/// input.
///
/// Whole planes are what vector instructions work on; files and decoders have their channels interleaved, as [`Image`]
/// has.
///
/// # Example
/// ```
/// use twoview_pixels::{Image, Planes};
///
/// let image = Image::from_rgb8(2, 1, vec![1, 2, 3, 4, 5, 6])?;
/// let planes = Planes::from(&image);
/// assert_eq!(planes.as_chw(), [1, 4, 2, 5, 3, 6]);
/// assert_eq!(planes.to_image(), image);
/// # Ok::<(), twoview_pixels::ImageError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Planes {
    width: u32,
    height: u32,
    values: Vec<u8>,
}

impl Planes {
    /// A picture of a single colour.
    ///
    /// # Errors
    /// As [`Image::filled`].
    pub fn filled(width: u32, height: u32, rgb: [u8; 3]) -> Result<Planes, ImageError> {
        Ok(Planes::from(&Image::filled(width, height, rgb)?))
    }

    /// Pixels per row, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Number of rows, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// All `3 · height · width` values: red, then green, then blue.
    pub fn as_chw(&self) -> &[u8] {
        &self.values
    }

    /// The same picture with its channels interleaved.
    pub fn to_image(&self) -> Image {
        let [red, green, blue] = self.channels();
        let pixels = red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [r, g, b]).collect();
        Image::from_kernel(self.width, self.height, pixels)
    }

    /// Makes this the same picture as another, in the memory it already has where that suffices.
    pub fn copy_from(&mut self, image: &Image) {
        self.reshape(image.width(), image.height());
        for (channel, plane) in self.channels_mut().into_iter().enumerate() {
            for (value, pixel) in plane.iter_mut().zip(image.pixels()) {
                *value = pixel[channel];
            }
        }
    }

    /// Makes this a picture of other sides and of no particular content, in the memory it already has where that
    /// suffices. Neither side may be 0.
    pub(crate) fn reshape(&mut self, width: u32, height: u32) {
        debug_assert!(width > 0 && height > 0);
        (self.width, self.height) = (width, height);
        self.values.resize(3 * width as usize * height as usize, 0);
    }

    /// Pixels of one plane.
    pub(crate) fn plane_len(&self) -> usize {
        self.width as usize * self.height as usize
    }

    pub(crate) fn channels(&self) -> [&[u8]; 3] {
        let (red, rest) = self.values.split_at(self.plane_len());
        let (green, blue) = rest.split_at(self.plane_len());
        [red, green, blue]
    }

    pub(crate) fn channels_mut(&mut self) -> [&mut [u8]; 3] {
        let length = self.plane_len();
        let (red, rest) = self.values.split_at_mut(length);
        let (green, blue) = rest.split_at_mut(length);
        [red, green, blue]
    }
}

/// A single black pixel: something to render into.
impl Default for Planes {
    fn default() -> Self {
        Planes { width: 1, height: 1, values: vec![0; 3] }
    }
}

impl From<&Image> for Planes {
    fn from(image: &Image) -> Self {
        let mut planes = Planes::default();
        planes.copy_from(image);
        planes
    }
}

/// Shows the sides and no values, so that a failed comparison stays readable.
impl fmt::Debug for Planes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Planes({}x{})", self.width, self.height)
    }
}
