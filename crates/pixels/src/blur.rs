//! Gaussian blur with torchvision's kernel, border and rounding.

use crate::Image;

/// Convolves with a Gaussian of standard deviation `sigma` pixels, cut to `kernel_px` taps per side.
///
/// ```text
/// w(d) = exp(−d² / 2σ²) / Σ,   d = −r ..= r,   r = kernel_px / 2
/// ```
/// # Conventions
/// At the border the picture is mirrored without repeating its edge pixel (`c b | a b c`), again and again where it
/// is smaller than the kernel. The result is rounded half to even. The kernel has an odd size; an even one counts as
/// the next odd. A `sigma` that is not positive leaves the picture as it is, the limit of small ones.
///
/// # Cost
/// Two passes of `kernel_px` multiplications per value and 12 bytes of memory per pixel.
///
/// # Source
/// torchvision 0.29, `transforms/v2/functional/_misc.py`, which convolves in two dimensions at once; the results
/// differ where rounding decides.
///
/// # Example
/// ```
/// use twoview_pixels::{Image, gaussian_blur};
///
/// let mut image = Image::filled(5, 5, [0; 3])?;
/// image.as_rgb8_mut()[3 * 12] = 255; // A red point in the middle.
/// gaussian_blur(&mut image, 3, 0.8);
/// let red: Vec<u8> = image.as_rgb8().iter().step_by(3).copied().collect();
/// assert_eq!(red[10..15], [0, 32, 69, 32, 0]);
/// # Ok::<(), twoview_pixels::ImageError>(())
/// ```
pub fn gaussian_blur(image: &mut Image, kernel_px: u32, sigma: f64) {
    if !(sigma > 0.0 && kernel_px > 1) {
        return;
    }
    let weights = weights(kernel_px as usize / 2, sigma);
    let (width, height) = (image.width() as usize, image.height() as usize);
    let across = blur_rows(image.pixels(), width, &weights);
    blur_columns(&across, height, &weights, image.as_rgb8_mut());
}

/// The `2 · radius + 1` taps, which sum to 1.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "weights are rounded to f32")]
fn weights(radius: usize, sigma: f64) -> Vec<f32> {
    // Divided before it is squared: the square of a tiny sigma is 0.
    let distance = |tap| (tap as f64 - radius as f64) / sigma;
    let bell: Vec<f64> = (0..=2 * radius).map(|tap| libm::exp(-0.5 * distance(tap) * distance(tap))).collect();
    let sum: f64 = bell.iter().sum();
    bell.iter().map(|weight| (weight / sum) as f32).collect()
}

/// The pass along the rows, not rounded.
fn blur_rows(pixels: &[[u8; 3]], width: usize, weights: &[f32]) -> Vec<f32> {
    let radius = weights.len() / 2;
    let sources: Vec<usize> = (0..width + 2 * radius).map(|x| mirrored(x, radius, width)).collect();
    let mut bordered = vec![0.0; sources.len() * 3];
    let mut blurred = vec![0.0; pixels.len() * 3];
    for (row, out) in pixels.chunks_exact(width).zip(blurred.chunks_exact_mut(width * 3)) {
        for (place, &source) in bordered.as_chunks_mut::<3>().0.iter_mut().zip(&sources) {
            *place = row[source].map(f32::from);
        }
        for (tap, &weight) in weights.iter().enumerate() {
            add_scaled(out, &bordered[3 * tap..], weight);
        }
    }
    blurred
}

/// The pass along the columns, a row of the result at a time, rounded into `out`.
fn blur_columns(rows: &[f32], height: usize, weights: &[f32], out: &mut [u8]) {
    let radius = weights.len() / 2;
    let length = rows.len() / height;
    let mut sum = vec![0.0; length];
    for (y, out_row) in out.chunks_exact_mut(length).enumerate() {
        sum.fill(0.0);
        for (tap, &weight) in weights.iter().enumerate() {
            let source = mirrored(y + tap, radius, height);
            add_scaled(&mut sum, &rows[source * length..][..length], weight);
        }
        for (value, &sum) in out_row.iter_mut().zip(&sum) {
            *value = round_half_even(sum);
        }
    }
}

/// `sum += weight · values`, over the length of `sum`.
fn add_scaled(sum: &mut [f32], values: &[f32], weight: f32) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += weight * value;
    }
}

/// The pixel seen at `position − radius` on a line of `length` pixels between two mirrors.
fn mirrored(position: usize, radius: usize, length: usize) -> usize {
    let period = 2 * (length - 1);
    if period == 0 {
        return 0;
    }
    // Shifted by whole periods, so that it is not negative.
    let phase = (position + period - radius % period) % period;
    phase.min(period - phase)
}

/// Of a value between 0 and 255, up to rounding errors of the sum of weights.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded and within range")]
fn round_half_even(value: f32) -> u8 {
    // At 1.5 · 2^23 the spacing of f32 is 1, so that the addition rounds; a library call would cost more.
    const ROUNDER: f32 = 12_582_912.0;
    ((value + ROUNDER) - ROUNDER) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mirrors_do_not_repeat_the_edge() {
        let line = |length, radius| -> Vec<usize> {
            (0..length + 2 * radius).map(|position| mirrored(position, radius, length)).collect()
        };
        assert_eq!(line(3, 2), [2, 1, 0, 1, 2, 1, 0]);
        assert_eq!(line(2, 3), [1, 0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(line(1, 2), [0; 5]);
    }

    #[test]
    fn rounds_half_to_even() {
        for (value, want) in [(0.5, 0), (1.5, 2), (2.5, 2), (2.501, 3), (-0.001, 0), (254.6, 255), (255.2, 255)] {
            assert_eq!(round_half_even(value), want, "{value}");
        }
    }

    #[test]
    fn a_wide_kernel_on_a_point_is_its_weights() {
        let mut image = Image::filled(17, 1, [0; 3]).expect("a valid size");
        image.pixels_mut()[8] = [255; 3];
        gaussian_blur(&mut image, 9, 1.5);
        let weights = weights(4, 1.5);
        // A single row is mirrored onto itself, so the pass along the columns changes nothing.
        for (pixel, weight) in image.pixels()[4..13].iter().zip(&weights) {
            assert!((f32::from(pixel[0]) - 255.0 * weight).abs() <= 0.5 + 1e-4, "{pixel:?}, {weight}");
        }
        assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn keeps_uniform_pictures_and_never_panics(
            width in 1_u32..40,
            height in 1_u32..40,
            kernel_px in 0_u32..60,
            sigma in prop_oneof![-1.0..20.0, Just(f64::NAN), Just(f64::MAX), Just(1e-30), Just(f64::MIN_POSITIVE)],
            colour: [u8; 3],
        ) {
            let uniform = Image::filled(width, height, colour).expect("a valid size");
            let mut image = uniform.clone();
            gaussian_blur(&mut image, kernel_px, sigma);
            prop_assert!(image == uniform);
        }
    }
}
