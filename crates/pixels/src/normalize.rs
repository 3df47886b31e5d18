//! From bytes to the numbers a network reads.

use crate::Image;

/// `(x / 255 − mean) / std` per channel, written channel by channel.
///
/// The same constants must be used wherever an encoder is used, so they are part of its description.
///
/// # Example
/// ```
/// use twoview_pixels::{Image, Normalize};
///
/// let image = Image::from_rgb8(2, 1, vec![0, 51, 102, 153, 204, 255])?;
/// let mut numbers = [0.0; 6];
/// Normalize::NONE.write_chw(&image, &mut numbers)?;
/// assert_eq!(numbers, [0.0, 0.6, 0.2, 0.8, 0.4, 1.0]); // Both reds, both greens, both blues.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalize {
    /// Subtracted from red, green and blue, in units of the full range.
    pub mean: [f32; 3],
    /// Divides red, green and blue; finite and not zero.
    pub std: [f32; 3],
}

/// The buffer for the numbers has the wrong length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {width}x{height} picture has {expected} values, the buffer holds {got}")]
pub struct NormalizeError {
    /// Width of the picture in pixels.
    pub width: u32,
    /// Height of the picture in pixels.
    pub height: u32,
    /// `3 · height · width`.
    pub expected: usize,
    /// Length of the buffer.
    pub got: usize,
}

impl Normalize {
    /// Mean and standard deviation over the training pictures of CIFAR-10.
    pub const CIFAR10: Normalize = Normalize { mean: [0.4914, 0.4822, 0.4465], std: [0.2470, 0.2435, 0.2616] };
    /// The constants of torchvision's ImageNet models.
    pub const IMAGENET: Normalize = Normalize { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// Only the division by 255.
    pub const NONE: Normalize = Normalize { mean: [0.0; 3], std: [1.0; 3] };

    /// Writes the picture as `[3, height, width]`, row-major.
    ///
    /// # Errors
    /// [`NormalizeError`] if `out` does not hold exactly `3 · height · width` numbers.
    pub fn write_chw(&self, image: &Image, out: &mut [f32]) -> Result<(), NormalizeError> {
        let expected = image.as_rgb8().len();
        if out.len() != expected {
            let (width, height) = (image.width(), image.height());
            return Err(NormalizeError { width, height, expected, got: out.len() });
        }
        for (channel, plane) in out.chunks_exact_mut(image.pixels().len()).enumerate() {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            for (number, pixel) in plane.iter_mut().zip(image.pixels()) {
                *number = (f32::from(pixel[channel]) / 255.0 - mean) / std;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_buffer_of_another_length() {
        let image = Image::filled(3, 2, [0; 3]).expect("a valid size");
        let error = Normalize::NONE.write_chw(&image, &mut [0.0; 17]).expect_err("one number is missing");
        assert_eq!(error.to_string(), "a 3x2 picture has 18 values, the buffer holds 17");
    }
}
