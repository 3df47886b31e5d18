//! Writing a picture as PNG, for contact sheets and written-out sets.

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use crate::Image;

/// Why a picture could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {width}x{height} picture cannot be written as PNG: {reason}")]
pub struct EncodeError {
    /// Width of the picture in pixels.
    pub width: u32,
    /// Height of the picture in pixels.
    pub height: u32,
    /// What the encoder said.
    pub reason: String,
}

/// The bytes of an eight-bit RGB PNG file; [`decode`](crate::decode()) gives back the same picture.
///
/// # Errors
/// Only for a side longer than PNG can express, `2^31 − 1` pixels.
///
/// # Example
/// ```
/// use twoview_pixels::{DecodeOptions, Image, decode, encode_png};
///
/// let image = Image::filled(5, 4, [1, 2, 3])?;
/// assert_eq!(decode(&encode_png(&image)?, &DecodeOptions::STANDARD)?, image);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encode_png(image: &Image) -> Result<Vec<u8>, EncodeError> {
    let (width, height) = (image.width(), image.height());
    let mut file = Vec::new();
    PngEncoder::new(&mut file)
        .write_image(image.as_rgb8(), width, height, ExtendedColorType::Rgb8)
        .map_err(|error| EncodeError { width, height, reason: error.to_string() })?;
    Ok(file)
}
