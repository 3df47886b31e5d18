//! The picture every kernel works on: eight-bit RGB, rows from the top, channels interleaved.

use std::fmt;

/// An RGB picture of at least one pixel.
///
/// Three bytes per pixel in the order red, green, blue; pixels from left to right, rows from top to bottom, no
/// padding. The values are those of the file (usually sRGB encoded); no kernel converts to linear light.
///
/// # Example
/// ```
/// use twoview_pixels::Image;
///
/// let image = Image::from_rgb8(2, 1, vec![255, 0, 0, 0, 0, 255])?;
/// assert_eq!((image.width(), image.height()), (2, 1));
/// assert_eq!(&image.as_rgb8()[3..], [0, 0, 255]);
/// # Ok::<(), twoview_pixels::ImageError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

/// Why a buffer is not a picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A side is zero.
    #[error("a picture needs at least one pixel, got {width}x{height}")]
    Empty {
        /// Width asked for, in pixels.
        width: u32,
        /// Height asked for, in pixels.
        height: u32,
    },
    /// The buffer does not hold `width · height · 3` bytes, or no buffer can.
    #[error("a {width}x{height} picture needs {expected} bytes of RGB, got {got}")]
    Length {
        /// Width asked for, in pixels.
        width: u32,
        /// Height asked for, in pixels.
        height: u32,
        /// `width · height · 3`.
        expected: u128,
        /// Length of the buffer that was handed over, or the longest one possible on this machine.
        got: usize,
    },
}

impl Image {
    /// Takes a buffer of `width · height · 3` bytes.
    ///
    /// # Errors
    /// [`ImageError::Empty`] if a side is zero, [`ImageError::Length`] if the buffer has another length.
    pub fn from_rgb8(width: u32, height: u32, pixels: Vec<u8>) -> Result<Image, ImageError> {
        let expected = byte_count(width, height)?;
        if pixels.len() as u128 != expected {
            return Err(ImageError::Length { width, height, expected, got: pixels.len() });
        }
        Ok(Image { width, height, pixels })
    }

    /// A picture of a single colour.
    ///
    /// # Errors
    /// [`ImageError::Empty`] if a side is zero, [`ImageError::Length`] if no buffer of this machine can be that long.
    pub fn filled(width: u32, height: u32, rgb: [u8; 3]) -> Result<Image, ImageError> {
        let expected = byte_count(width, height)?;
        let longest = isize::MAX.unsigned_abs();
        if expected > longest as u128 {
            return Err(ImageError::Length { width, height, expected, got: longest });
        }
        Ok(Image { width, height, pixels: rgb.repeat(width as usize * height as usize) })
    }

    /// Makes this a picture of `width` by `height` pixels and hands out its bytes to be written over, in the memory
    /// it already has where that suffices. What they hold before that has no meaning.
    ///
    /// # Errors
    /// [`ImageError::Empty`] if a side is zero, [`ImageError::Length`] if no buffer of this machine can be that long.
    pub fn overwrite(&mut self, width: u32, height: u32) -> Result<&mut [u8], ImageError> {
        let expected = byte_count(width, height)?;
        let longest = isize::MAX.unsigned_abs();
        if expected > longest as u128 {
            return Err(ImageError::Length { width, height, expected, got: longest });
        }
        Ok(self.reshape(width, height))
    }

    /// Makes this a picture of `width` by `height` pixels of any colour, in the memory it already has where that
    /// suffices. Neither side may be 0.
    pub(crate) fn reshape(&mut self, width: u32, height: u32) -> &mut [u8] {
        debug_assert!(width > 0 && height > 0);
        (self.width, self.height) = (width, height);
        self.pixels.resize(width as usize * height as usize * 3, 0);
        &mut self.pixels
    }

    /// The result of a kernel that made `pixels` for these sides itself.
    pub(crate) fn from_kernel(width: u32, height: u32, pixels: Vec<u8>) -> Image {
        debug_assert_eq!(pixels.len(), width as usize * height as usize * 3);
        Image { width, height, pixels }
    }

    /// Pixels per row, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Number of rows, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// All `width · height · 3` bytes.
    pub fn as_rgb8(&self) -> &[u8] {
        &self.pixels
    }

    /// All `width · height · 3` bytes, to be changed in place.
    pub fn as_rgb8_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// The buffer itself, without a copy.
    pub fn into_rgb8(self) -> Vec<u8> {
        self.pixels
    }

    /// All pixels, row by row.
    pub(crate) fn pixels(&self) -> &[[u8; 3]] {
        self.pixels.as_chunks().0
    }

    /// All pixels, row by row, to be changed in place.
    #[cfg(test)]
    pub(crate) fn pixels_mut(&mut self) -> &mut [[u8; 3]] {
        self.pixels.as_chunks_mut().0
    }
}

/// `width · height · 3`, for sides that are not zero.
fn byte_count(width: u32, height: u32) -> Result<u128, ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::Empty { width, height });
    }
    Ok(u128::from(width) * u128::from(height) * 3)
}

/// A single black pixel: something to decode into.
impl Default for Image {
    fn default() -> Self {
        Image { width: 1, height: 1, pixels: vec![0; 3] }
    }
}

/// Shows the sides and no pixels, so that a failed comparison stays readable.
impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({}x{})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_buffers_of_the_wrong_length() {
        let error = Image::from_rgb8(2, 2, vec![0; 11]).expect_err("one byte is missing");
        assert_eq!(error.to_string(), "a 2x2 picture needs 12 bytes of RGB, got 11");
        assert_eq!(Image::from_rgb8(0, 7, Vec::new()), Err(ImageError::Empty { width: 0, height: 7 }));
        assert!(matches!(Image::filled(u32::MAX, u32::MAX, [0; 3]), Err(ImageError::Length { .. })));
    }

    #[test]
    fn debug_is_short() {
        let image = Image::filled(40, 30, [1, 2, 3]).expect("a valid size");
        assert_eq!(format!("{image:?}"), "Image(40x30)");
        assert_eq!(image.pixels(), [[1, 2, 3]; 1200]);
    }
}
