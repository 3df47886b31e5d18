//! Gaussian blur, in the three definitions that published results were obtained with.

use crate::instructions::vectorized;
use crate::resample::grow;
use crate::transpose::{BLOCK, Rows, transpose};
use crate::{Planes, Workspace};

/// Whose blur. The three agree in the middle of smooth pictures and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlurKind {
    /// torchvision's: a Gaussian cut to the kernel, the picture mirrored at its border without repeating the edge
    /// pixel (`c b | a b c`), again and again where it is smaller than the kernel.
    Torchvision,
    /// That of the SimCLR authors' TensorFlow code: the same Gaussian, black beyond the border.
    Simclr,
    /// `ImageFilter.GaussianBlur` of Pillow, which lightly, solo-learn and MoCo v3 use: three box filters of fractional
    /// width along each side, the edge pixel repeated, rounded to eight bits after each. Its kernel has no size to choose.
    Pillow,
}

/// Blurs with a Gaussian of standard deviation `sigma` pixels.
///
/// ```text
/// Torchvision, Simclr:   w(d) = exp(−d² / 2σ²) / Σ,   d = −r ..= r,   r = kernel_px / 2
/// Pillow:                three boxes of half-width l + a around a pixel, chosen so that their variances sum to σ²
/// ```
/// # Conventions
/// The Gaussian is rounded half to even. Its kernel has an odd size; an even one counts as the next odd. A `sigma` that
/// is not positive leaves the picture as it is, the limit of small ones. Taps below `2^-20` are left out: together they
/// move a value by less than a hundredth of a level.
///
/// # Cost
/// Two passes of at most `kernel_px` multiplications per value, about `10 · sigma` where the kernel is longer; Pillow's
/// takes the same time for every `sigma`. Four bytes of workspace per pixel.
///
/// # Source
/// torchvision 0.29, `transforms/v2/functional/_misc.py`, which convolves in two dimensions at once, so that results
/// differ where rounding decides; google-research/simclr, `data_util.py`; Pillow, `src/libImaging/BoxBlur.c`, and
/// Gwosdek et al., *Theoretical Foundations of Gaussian Convolution by Extended Box Filtering*, SSVM 2011.
///
/// # Example
/// ```
/// use twoview_pixels::{BlurKind, Image, Planes, Workspace, gaussian_blur};
///
/// let mut image = Image::filled(5, 5, [0; 3])?;
/// image.as_rgb8_mut()[3 * 12] = 255; // A red point in the middle.
/// let mut planes = Planes::from(&image);
/// gaussian_blur(&mut planes, BlurKind::Torchvision, 3, 0.8, &mut Workspace::default());
/// assert_eq!(planes.as_chw()[10..15], [0, 32, 69, 32, 0]);
/// # Ok::<(), twoview_pixels::ImageError>(())
/// ```
pub fn gaussian_blur(planes: &mut Planes, kind: BlurKind, kernel_px: u32, sigma: f64, workspace: &mut Workspace) {
    if !(sigma > 0.0 && (kernel_px > 1 || kind == BlurKind::Pillow)) {
        return;
    }
    let (width, height) = (planes.width() as usize, planes.height() as usize);
    let Workspace { instructions, blur: buffers, .. } = workspace;
    if kind == BlurKind::Pillow {
        let boxes = BoxFilter::for_sigma(sigma);
        planes.channels_mut().into_iter().for_each(|plane| boxes.blur(*instructions, plane, width, height, buffers));
        return;
    }
    let BlurBuffers { weights, line, rows, border, .. } = buffers;
    fill_weights(weights, kernel_px as usize / 2, sigma);
    let radius = weights.len() / 2;
    let stride = width.next_multiple_of(LANES);
    grow(line, stride + 2 * radius);
    grow(rows, (height + 2 * radius) * stride);
    border.clear();
    if kind == BlurKind::Torchvision {
        border.extend((0..radius).chain(width + radius..width + 2 * radius).map(|x| mirrored(x, radius, width)));
    }
    let mirror = kind == BlurKind::Torchvision;
    for plane in planes.channels_mut() {
        blur_rows(*instructions, plane, width, weights, border, line, &mut rows[radius * stride..]);
        for y in (0..radius).chain(height + radius..height + 2 * radius) {
            let place = y * stride..(y + 1) * stride;
            if mirror {
                let source = (mirrored(y, radius, height) + radius) * stride;
                rows.copy_within(source..source + stride, place.start);
            } else {
                rows[place].fill(0.0);
            }
        }
        blur_columns(*instructions, rows, width, weights, plane);
    }
}

/// Buffers of [`gaussian_blur`].
#[derive(Debug, Default)]
pub(crate) struct BlurBuffers {
    weights: Vec<f32>,
    /// A row with its borders.
    line: Vec<f32>,
    /// All rows blurred along themselves, with borders above and below.
    rows: Vec<f32>,
    /// The columns that the borders of a row show, left then right.
    border: Vec<usize>,
    /// Two pictures of bytes, for boxes.
    bytes: [Vec<u8>; 2],
    sums: Vec<u32>,
}

/// Values computed together.
const LANES: usize = 32;

/// The taps that count, an odd number; all of the kernel's sum to 1.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "weights are rounded to f32")]
fn fill_weights(weights: &mut Vec<f32>, radius: usize, sigma: f64) {
    const LEAST: f64 = 1.0 / (1 << 20) as f64;
    // Divided before it is squared: the square of a tiny sigma is 0.
    let bell = |distance: usize| libm::exp(-0.5 * (distance as f64 / sigma) * (distance as f64 / sigma));
    let sum = 1.0 + 2.0 * (1..=radius).map(bell).take_while(|&weight| weight > 0.0).sum::<f64>();
    let kept = (1..=radius).take_while(|&distance| bell(distance) / sum >= LEAST).count();
    weights.clear();
    weights.extend((0..=2 * kept).map(|tap| (bell(tap.abs_diff(kept)) / sum) as f32));
}

vectorized! {
    /// The pass along the rows, not rounded. An empty border is black.
    fn blur_rows(
        plane: &[u8],
        width: usize,
        weights: &[f32],
        border: &[usize],
        line: &mut [f32],
        out: &mut [f32],
    ) {
        let radius = weights.len() / 2;
        let stride = width.next_multiple_of(LANES);
        let line = &mut line[..stride + 2 * radius];
        line.fill(0.0);
        for (row, out) in plane.chunks_exact(width).zip(out.chunks_exact_mut(stride)) {
            for (place, &value) in line[radius..].iter_mut().zip(row) {
                *place = f32::from(value);
            }
            if border.len() == 2 * radius {
                for (i, &column) in border.iter().enumerate() {
                    line[if i < radius { i } else { width + i }] = f32::from(row[column]);
                }
            }
            weigh(weights, line, 1, out);
        }
    }
}

vectorized! {
    /// The pass along the columns, rounded into `out`.
    fn blur_columns(rows: &[f32], width: usize, weights: &[f32], out: &mut [u8]) {
        let stride = width.next_multiple_of(LANES);
        for (y, out) in out.chunks_exact_mut(width).enumerate() {
            for (block, out) in out.chunks_mut(LANES).enumerate() {
                let mut sums = [0.0; LANES];
                weigh(weights, &rows[y * stride + block * LANES..], stride, &mut sums);
                let mut levels = [0; LANES];
                for (level, &sum) in levels.iter_mut().zip(&sums) {
                    *level = round_half_even(sum);
                }
                match out.first_chunk_mut::<LANES>() {
                    Some(out) => *out = levels,
                    None => out.copy_from_slice(&levels[..out.len()]),
                }
            }
        }
    }
}

/// `out[i] = Σ weights[t] · source[t · stride + i]`, for whole lanes of `out`.
#[inline(always)]
fn weigh(weights: &[f32], source: &[f32], stride: usize, out: &mut [f32]) {
    for (block, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let mut sums = [0.0; LANES];
        for (tap, &weight) in weights.iter().enumerate() {
            let values = source[tap * stride + block * LANES..].first_chunk::<LANES>();
            let values = values.expect("rows are padded to whole lanes");
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum = weight.mul_add(value, *sum);
            }
        }
        *out = sums;
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
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the lowest byte is the number")]
fn round_half_even(value: f32) -> u8 {
    // At 2^23 the spacing of f32 is 1, so that the addition rounds and leaves the number in the lowest bits; a conversion
    // with its rules for numbers out of range would cost more. A value just above 255 or just below 0 is next to it.
    const ROUNDER: f32 = 8_388_608.0;
    (value + ROUNDER).to_bits() as u8
}

/// A box filter of fractional width, in Pillow's fixed point.
struct BoxFilter {
    radius: usize,
    /// Weight of the whole pixels and of the two at the ends, in units of `2^-24`.
    whole: u32,
    end: u32,
}

impl BoxFilter {
    /// The box that, applied three times, has the variance of the Gaussian; with Pillow's roundings.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "Pillow's conversions")]
    fn for_sigma(sigma: f64) -> BoxFilter {
        // A box much wider than any picture does the same as a wider one.
        let sigma = sigma.min(16_384.0) as f32;
        let variance = sigma * sigma / 3.0;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let l = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
        let a = (f64::from(2.0 * l + 1.0) * (f64::from(l * (l + 1.0)) - 3.0 * f64::from(variance))) as f32;
        let radius = l + a / (6.0 * (variance - (l + 1.0) * (l + 1.0)));
        let whole = (16_777_216.0 / (radius * 2.0 + 1.0)) as u32;
        let n_whole = radius as u32 * 2 + 1;
        BoxFilter { radius: radius as usize, whole, end: ((1 << 24) - n_whole * whole) / 2 }
    }

    /// Three times along the rows, then three times along the columns.
    fn blur(
        &self,
        instructions: crate::Instructions,
        plane: &mut [u8],
        width: usize,
        height: usize,
        buffers: &mut BlurBuffers,
    ) {
        let BlurBuffers { bytes: [one, other], sums, .. } = buffers;
        // Turned, so that both directions are the one in which neighbours are treated alike.
        let turned = |from: &[u8], columns: usize, rows: usize, stride: usize, to: &mut Vec<u8>| {
            let to_stride = rows.next_multiple_of(BLOCK);
            grow(to, columns.next_multiple_of(BLOCK) * to_stride);
            transpose(Rows { bytes: from, stride }, rows, columns, to, to_stride);
            to_stride
        };
        let mut thrice = |from: &mut Vec<u8>, to: &mut Vec<u8>, stride: usize, n: usize| {
            grow(to, from.len());
            grow(sums, stride);
            for _ in 0..3 {
                box_pass(instructions, self.radius, self.whole, self.end, &from[..n * stride], stride, sums, to);
                std::mem::swap(from, to);
            }
        };
        let stride = turned(plane, width, height, width, one);
        thrice(one, other, stride, width);
        let stride = turned(one, height, width, stride, other);
        thrice(other, one, stride, height);
        for (out, row) in plane.chunks_exact_mut(width).zip(other.chunks_exact(stride)) {
            out.copy_from_slice(&row[..width]);
        }
    }
}

vectorized! {
    /// Along the columns: every row becomes the weighed sum of those around it, kept as a running sum.
    #[allow(clippy::too_many_arguments, reason = "a filter, what to do with it, and where to")]
    fn box_pass(
        radius: usize,
        whole: u32,
        end: u32,
        from: &[u8],
        stride: usize,
        sums: &mut [u32],
        to: &mut [u8],
    ) {
        let last = from.len() / stride - 1;
        let row = |i: usize| &from[i.min(last) * stride..][..stride];
        let sums = &mut sums[..stride];
        // The window of the row above the first: radius + 1 times the first, then the first `radius` rows.
        let repeat = |i: usize| if i < radius.min(last) { 1 } else if i == last { radius.saturating_sub(last) } else { 0 };
        sums.fill(0);
        for i in 0..=radius.min(last) {
            let times = repeat(i) + if i == 0 { radius + 1 } else { 0 };
            #[allow(clippy::cast_possible_truncation, reason = "a radius is at most some ten thousands")]
            let times = times as u32;
            sums.iter_mut().zip(row(i)).for_each(|(sum, &value)| *sum += times * u32::from(value));
        }
        for (y, out) in to.chunks_exact_mut(stride).take(last + 1).enumerate() {
            let (before, after) = (row(y.saturating_sub(radius + 1)), row(y + radius));
            let beyond = row(y + radius + 1);
            for ((((out, sum), &before), &after), &beyond) in
                out.iter_mut().zip(sums.iter_mut()).zip(before).zip(after).zip(beyond)
            {
                *sum = sum.wrapping_add(u32::from(after)).wrapping_sub(u32::from(before));
                let ends = u32::from(before) + u32::from(beyond);
                *out = (sum.wrapping_mul(whole).wrapping_add(ends * end).wrapping_add(1 << 23) >> 24) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Image, Instructions};

    /// The blurred picture, by every available variant.
    fn blurred(image: &Image, kind: BlurKind, kernel_px: u32, sigma: f64) -> Image {
        let of = |instructions| {
            let mut planes = Planes::from(image);
            gaussian_blur(&mut planes, kind, kernel_px, sigma, &mut Workspace::new(instructions));
            planes.to_image()
        };
        let want = of(Instructions::BASELINE);
        for instructions in Instructions::available() {
            assert!(of(instructions) == want, "{kind:?}, {kernel_px}, {sigma} by {instructions:?}");
        }
        want
    }

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
        let image = blurred(&image, BlurKind::Torchvision, 9, 1.5);
        let mut weights = Vec::new();
        fill_weights(&mut weights, 4, 1.5);
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
            prop_assert!(blurred(&uniform, BlurKind::Torchvision, kernel_px, sigma) == uniform);
            prop_assert!(blurred(&uniform, BlurKind::Pillow, kernel_px, sigma) == uniform);
            blurred(&uniform, BlurKind::Simclr, kernel_px, sigma);
        }
    }
}
