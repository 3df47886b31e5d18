//! From bytes to the numbers a network reads.

use crate::instructions::vectorized;
use crate::{Instructions, Planes};

/// `(x / 255 − mean) / std` per channel.
///
/// The same constants must be used wherever an encoder is used, so they are part of its description.
///
/// # Example
/// ```
/// use twoview_pixels::{Image, Instructions, Normalize, Planes};
///
/// let planes = Planes::from(&Image::from_rgb8(2, 1, vec![0, 51, 102, 153, 204, 255])?);
/// let mut numbers = [0.0; 6];
/// Normalize::NONE.write_chw(&planes, &mut numbers, Instructions::best())?;
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
    /// # Conventions
    /// `x / 255` is rounded as a division rounds; then `mean` is subtracted and the difference multiplied by the rounded
    /// `1 / std`, which is within two units in the last place of the definition.
    ///
    /// # Errors
    /// [`NormalizeError`] if `out` does not hold exactly `3 · height · width` numbers.
    pub fn write_chw(
        &self,
        planes: &Planes,
        out: &mut [f32],
        instructions: Instructions,
    ) -> Result<(), NormalizeError> {
        let expected = planes.as_chw().len();
        if out.len() != expected {
            let (width, height) = (planes.width(), planes.height());
            return Err(NormalizeError { width, height, expected, got: out.len() });
        }
        let channels = out.chunks_exact_mut(planes.plane_len()).zip(planes.channels());
        for ((out, values), (&mean, &std)) in channels.zip(self.mean.iter().zip(&self.std)) {
            scale(instructions, values, mean, 1.0 / std, out);
        }
        Ok(())
    }
}

vectorized! {
    fn scale(values: &[u8], mean: f32, inverse_std: f32, out: &mut [f32]) {
        for (number, &value) in out.iter_mut().zip(values) {
            *number = (share(value) - mean) * inverse_std;
        }
    }
}

/// `value / 255`, rounded like that, without a division: a product, and what it lacks to give the value back (Markstein,
/// *Computation of elementary functions on the IBM RISC System/6000 processor*, 1990).
#[inline(always)]
fn share(value: u8) -> f32 {
    const INVERSE: f32 = 1.0 / 255.0;
    let value = f32::from(value);
    let near = value * INVERSE;
    (-near).mul_add(255.0, value).mul_add(INVERSE, near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_the_rounded_quotient() {
        for value in 0..=u8::MAX {
            assert_eq!(share(value), f32::from(value) / 255.0, "{value}");
        }
    }

    #[test]
    fn refuses_a_buffer_of_another_length() {
        let image = Planes::filled(3, 2, [0; 3]).expect("a valid size");
        let error = Normalize::NONE
            .write_chw(&image, &mut [0.0; 17], Instructions::BASELINE)
            .expect_err("one number is missing");
        assert_eq!(error.to_string(), "a 3x2 picture has 18 values, the buffer holds 17");
    }
}
