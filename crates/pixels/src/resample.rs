//! Cropping and resizing with Pillow's antialiased filters, bit for bit.
//!
//! Source: Pillow, `src/libImaging/Resample.c`. Its algorithm for eight-bit channels: a pass along the rows, rounded
//! to eight bits, then one along the columns, each with weights in fixed point. Pillow 13 runs the passes in the
//! other order where that is cheaper; older versions and torchvision's tensors never do, and neither do we.

use std::ops::Range;

use crate::Image;

/// A rectangle of a picture, in pixels from its top left corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CropBox {
    /// Rows above the box.
    pub top: u32,
    /// Columns to the left of it.
    pub left: u32,
    /// Its rows, at least 1.
    pub height: u32,
    /// Its columns, at least 1.
    pub width: u32,
}

/// How a pixel of the result weighs the source pixels around it. Shrinking widens the filter (antialiasing).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// A triangle, torchvision's default.
    Bilinear,
    /// Keys' cubic with `a = −1/2`; sharper, and overshoots at edges.
    Bicubic,
}

/// Why there is no such crop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CropError {
    /// The box is empty or reaches beyond the picture.
    #[error("the crop {crop:?} does not lie within the {width}x{height} picture")]
    Outside {
        /// The box asked for.
        crop: CropBox,
        /// Width of the picture.
        width: u32,
        /// Height of the picture.
        height: u32,
    },
    /// A side of the result is zero or longer than [`MAX_SIDE_PX`].
    #[error("the sides of the result must be 1 to {MAX_SIDE_PX} pixels, got {width}x{height}")]
    Side {
        /// Width asked for.
        width: u32,
        /// Height asked for.
        height: u32,
    },
    /// The central square is larger than the resized picture.
    #[error("a centre crop of {crop_px} pixels needs the shorter side resized to at least that, got {resize_px}")]
    CenterTooLarge {
        /// Side of the square.
        crop_px: u32,
        /// Shorter side after resizing.
        resize_px: u32,
    },
    /// A buffer would exceed 2 GiB.
    #[error("the result or the picture between the two passes needs {bytes} bytes, the limit is {MAX_BUFFER_BYTES}")]
    TooLarge {
        /// Bytes of the larger of the two buffers.
        bytes: u128,
    },
}

/// Longest side of a result in pixels.
pub const MAX_SIDE_PX: u32 = 65_535;

const MAX_BUFFER_BYTES: u128 = 1 << 31;

impl Filter {
    /// Half the width of the filter, in source pixels where it is not widened.
    fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }

    /// The value at a distance from the centre.
    fn value(self, distance: f64) -> f64 {
        const A: f64 = -0.5;
        let x = distance.abs();
        match self {
            Filter::Bilinear if x < 1.0 => 1.0 - x,
            Filter::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            _ => 0.0,
        }
    }
}

/// Cuts out a box and resizes it, as torchvision's `resized_crop` does.
///
/// The box is cut first, so that nothing outside of it enters the result (unlike Pillow's `resize(box=..)`). A side
/// that has the right length already is copied and not filtered.
///
/// # Errors
/// [`CropError`] if the box is empty or not within the picture, if a side of the result is 0 or above
/// [`MAX_SIDE_PX`], or if a buffer would exceed 2 GiB.
///
/// # Cost
/// Each of the `out_width · height` values between the passes weighs about `2 · support · max(width / out_width, 1)`
/// pixels, then each of the result likewise.
///
/// # Example
/// ```
/// use twoview_pixels::{CropBox, Filter, Image, resized_crop};
///
/// let image = Image::from_rgb8(2, 1, vec![0, 0, 0, 255, 255, 255])?;
/// let whole = CropBox { top: 0, left: 0, height: 1, width: 2 };
/// let wider = resized_crop(&image, whole, 4, 1, Filter::Bilinear)?;
/// let red: Vec<u8> = wider.as_rgb8().iter().step_by(3).copied().collect();
/// assert_eq!(red, [0, 64, 191, 255]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn resized_crop(
    image: &Image,
    crop: CropBox,
    out_width: u32,
    out_height: u32,
    filter: Filter,
) -> Result<Image, CropError> {
    let (width, height) = (image.width(), image.height());
    let fits = |start: u32, length: u32, side: u32| length > 0 && start <= side && length <= side - start;
    if !fits(crop.left, crop.width, width) || !fits(crop.top, crop.height, height) {
        return Err(CropError::Outside { crop, width, height });
    }
    check_result(out_width, out_height)?;
    resample(image, crop, Side::whole(out_width), Side::whole(out_height), filter)
}

/// Resizes the shorter side to `resize_px`, then cuts out the central square: the usual view for evaluation.
///
/// The longer side becomes `⌊resize_px · long / short⌋`; the square begins at half the excess, rounded half to even
/// (torchvision's `Resize` and `CenterCrop`). Only what the square shows is computed, so a picture of 1 by 100,000
/// pixels costs no more than another.
///
/// # Errors
/// [`CropError`] if `crop_px` is 0, above [`MAX_SIDE_PX`] or larger than `resize_px`, or if a buffer would exceed 2 GiB.
///
/// # Example
/// ```
/// use twoview_pixels::{Filter, Image, resize_center_crop};
///
/// let image = Image::filled(640, 480, [1, 2, 3])?;
/// assert_eq!(resize_center_crop(&image, 256, 224, Filter::Bilinear)?, Image::filled(224, 224, [1, 2, 3])?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn resize_center_crop(image: &Image, resize_px: u32, crop_px: u32, filter: Filter) -> Result<Image, CropError> {
    check_result(crop_px, crop_px)?;
    if crop_px > resize_px {
        return Err(CropError::CenterTooLarge { crop_px, resize_px });
    }
    let (width, height) = (image.width(), image.height());
    let whole = CropBox { top: 0, left: 0, height, width };
    let center = |side: u32| {
        let scaled = u64::from(resize_px) * u64::from(side) / u64::from(width.min(height));
        let excess = scaled - u64::from(crop_px);
        let floor = excess / 2;
        Side { scaled, start: floor + (excess & 1 & floor), length: crop_px }
    };
    resample(image, whole, center(width), center(height), filter)
}

/// Refuses results that cannot be or that nobody means.
fn check_result(width: u32, height: u32) -> Result<(), CropError> {
    let sides = 1..=MAX_SIDE_PX;
    if sides.contains(&width) && sides.contains(&height) { Ok(()) } else { Err(CropError::Side { width, height }) }
}

/// What becomes of one side: it is scaled to `scaled` pixels, of which `length` from `start` on are wanted.
#[derive(Clone, Copy)]
struct Side {
    scaled: u64,
    start: u64,
    length: u32,
}

impl Side {
    fn whole(length: u32) -> Side {
        Side { scaled: u64::from(length), start: 0, length }
    }
}

/// Both passes, over a box that lies within the picture.
fn resample(image: &Image, crop: CropBox, across: Side, down: Side, filter: Filter) -> Result<Image, CropError> {
    let across = Scaling::new(crop.width, across, filter);
    let down = Scaling::new(crop.height, down, filter);
    let (out_width, out_height) = (across.side.length, down.side.length);

    // Only the rows that the second pass reads go through the first.
    let rows = down.reach();
    let bytes = 3 * u128::from(out_width) * (rows.len() as u128).max(u128::from(out_height));
    if bytes > MAX_BUFFER_BYTES {
        return Err(CropError::TooLarge { bytes });
    }

    let (out_width_px, columns) = (out_width as usize, across.taps());
    let mut between = vec![[0; 3]; out_width_px * rows.len()];
    let source_rows = image.pixels().chunks_exact(image.width() as usize).skip(crop.top as usize + rows.start);
    for (source, out) in source_rows.zip(between.chunks_exact_mut(out_width_px)) {
        columns.resample_row(&source[crop.left as usize..][..crop.width as usize], out);
    }
    let pixels = down.taps().resample_column(&between.into_flattened(), out_width_px * 3, rows.start);
    Ok(Image::from_kernel(out_width, out_height, pixels))
}

/// Where the pixels of a scaled side lie on its source.
struct Scaling {
    /// Source pixels.
    length: u32,
    side: Side,
    filter: Filter,
    /// Source pixels per scaled pixel.
    scale: f64,
    /// How much wider the filter is than its definition: it never gets narrower.
    widening: f64,
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "Pillow's conversions: positions are far below 2^53, truncation is meant"
)]
impl Scaling {
    fn new(length: u32, side: Side, filter: Filter) -> Scaling {
        let scale = f64::from(length) / side.scaled as f64;
        Scaling { length, side, filter, scale, widening: scale.max(1.0) }
    }

    /// The side keeps its length, and nothing is filtered.
    fn is_copy(&self) -> bool {
        u64::from(self.length) == self.side.scaled
    }

    /// Centre of a scaled pixel on the source.
    fn center(&self, position: u64) -> f64 {
        (position as f64 + 0.5) * self.scale
    }

    /// The source pixels that a scaled pixel weighs.
    fn window(&self, position: u64) -> Range<usize> {
        if self.is_copy() {
            return position as usize..position as usize + 1;
        }
        let (center, support) = (self.center(position), self.filter.support() * self.widening);
        // The conversion to an unsigned number also cuts at the left border.
        (center - support + 0.5) as usize..((center + support + 0.5) as usize).min(self.length as usize)
    }

    /// The source pixels that any wanted pixel weighs.
    fn reach(&self) -> Range<usize> {
        let last = self.side.start + u64::from(self.side.length) - 1;
        self.window(self.side.start).start..self.window(last).end
    }

    /// The weights of all wanted pixels.
    fn taps(&self) -> Taps {
        let wanted = self.side.start..self.side.start + u64::from(self.side.length);
        let mut taps = Taps { is_copy: self.is_copy(), starts: Vec::new(), offsets: vec![0], weights: Vec::new() };
        let mut values = Vec::new();
        for position in wanted {
            let (center, window) = (self.center(position), self.window(position));
            taps.starts.push(window.start);
            if !taps.is_copy {
                values.clear();
                values.extend(window.map(|x| self.filter.value((x as f64 - center + 0.5) / self.widening)));
                let sum: f64 = values.iter().sum();
                taps.weights.extend(values.iter().map(|value| {
                    let weight = value / sum * f64::from(1 << FRACTION_BITS);
                    (weight + 0.5_f64.copysign(weight)) as i32
                }));
            }
            taps.offsets.push(taps.weights.len());
        }
        taps
    }
}

/// Weights are integers in units of `2^-22`. A sum of weights times 255 stays below `2^31`, because the weights of a
/// pixel sum to 1 and the negative ones of the cubic filter to no less than -1/4.
const FRACTION_BITS: u32 = 22;
/// Every sum starts at one half, so that the final shift rounds.
const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// For each wanted pixel of one side, the source pixels it weighs.
struct Taps {
    /// Each is its first source pixel, and there are no weights.
    is_copy: bool,
    /// First source pixel of each.
    starts: Vec<usize>,
    /// Where the weights of each begin in `weights`; one more entry closes the last.
    offsets: Vec<usize>,
    weights: Vec<i32>,
}

impl Taps {
    /// The weighed source pixels and weights of each wanted pixel.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.starts.iter().zip(self.offsets.windows(2)).map(|(&start, ends)| (start, &self.weights[ends[0]..ends[1]]))
    }

    /// Fills one row of the result from its source row.
    fn resample_row(&self, source: &[[u8; 3]], out: &mut [[u8; 3]]) {
        if self.is_copy {
            out.copy_from_slice(&source[self.starts[0]..][..out.len()]);
            return;
        }
        for (pixel, (start, weights)) in out.iter_mut().zip(self.iter()) {
            let mut sums = [HALF; 3];
            for (&weight, values) in weights.iter().zip(&source[start..]) {
                for (sum, &value) in sums.iter_mut().zip(values) {
                    *sum += weight * i32::from(value);
                }
            }
            *pixel = sums.map(to_level);
        }
    }

    /// The rows of the result, each from source rows of `row_bytes`, of which `source` holds those from `first` on.
    fn resample_column(&self, source: &[u8], row_bytes: usize, first: usize) -> Vec<u8> {
        if self.is_copy {
            return source.to_vec();
        }
        let mut out = Vec::with_capacity(self.starts.len() * row_bytes);
        let mut sums = vec![0; row_bytes];
        for (start, weights) in self.iter() {
            sums.fill(HALF);
            for (&weight, row) in weights.iter().zip(source[(start - first) * row_bytes..].chunks_exact(row_bytes)) {
                for (sum, &value) in sums.iter_mut().zip(row) {
                    *sum += weight * i32::from(value);
                }
            }
            out.extend(sums.iter().map(|&sum| to_level(sum)));
        }
        out
    }
}

/// From fixed point to eight bits; the cubic filter overshoots both ends.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 to 255")]
fn to_level(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A picture without symmetries.
    fn noise(width: u32, height: u32) -> Image {
        let n = width * height * 3;
        let pixels = (0..n).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        Image::from_rgb8(width, height, pixels).expect("a valid size")
    }

    #[test]
    fn nothing_outside_the_box_enters() {
        let mut image = Image::filled(20, 20, [255, 0, 0]).expect("a valid size");
        for y in 5..12 {
            image.pixels_mut()[y * 20 + 3..][..8].fill([10, 20, 30]);
        }
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            let crop = CropBox { top: 5, left: 3, height: 7, width: 8 };
            let view = resized_crop(&image, crop, 5, 16, filter).expect("the box is within");
            assert!(view == Image::filled(5, 16, [10, 20, 30]).expect("a valid size"));
        }
    }

    #[test]
    fn a_box_of_the_right_size_is_copied() {
        let image = noise(9, 7);
        let crop = CropBox { top: 2, left: 1, height: 4, width: 6 };
        let view = resized_crop(&image, crop, 6, 4, Filter::Bicubic).expect("the box is within");
        for (y, row) in view.pixels().chunks_exact(6).enumerate() {
            assert_eq!(row, &image.pixels()[(y + 2) * 9 + 1..][..6]);
        }
    }

    #[test]
    fn halving_averages_what_it_covers() {
        // A triangle of half-width 2 sees four pixels with the weights 1, 3, 3, 1 out of 8.
        let values = [0, 80, 160, 240, 40, 120];
        let image = Image::from_rgb8(6, 1, values.into_iter().flat_map(|v| [v; 3]).collect()).expect("a valid size");
        let crop = CropBox { top: 0, left: 0, height: 1, width: 6 };
        let view = resized_crop(&image, crop, 3, 1, Filter::Bilinear).expect("the box is within");
        let middle = (80 + 3 * 160 + 3 * 240 + 40) / 8;
        assert_eq!(i32::from(view.pixels()[1][0]), middle);
    }

    #[test]
    fn a_centre_crop_is_a_window_of_the_resized_picture() {
        for (width, height) in [(97, 61), (61, 97), (50, 50), (33, 32)] {
            let image = noise(width, height);
            let whole = CropBox { top: 0, left: 0, height, width };
            let short = width.min(height);
            let (wide, high) = (40 * width / short, 40 * height / short);
            for filter in [Filter::Bilinear, Filter::Bicubic] {
                let resized = resized_crop(&image, whole, wide, high, filter).expect("the whole picture");
                let half_to_even = |excess: u32| if excess % 4 == 3 { excess / 2 + 1 } else { excess / 2 };
                let crop =
                    CropBox { top: half_to_even(high - 31), left: half_to_even(wide - 31), height: 31, width: 31 };
                let want = resized_crop(&resized, crop, 31, 31, filter).expect("within the resized picture");
                assert!(resize_center_crop(&image, 40, 31, filter) == Ok(want), "{width}x{height}, {filter:?}");
            }
        }
    }

    #[test]
    fn extreme_shapes_cost_little() {
        let view = resize_center_crop(&noise(1, 100_000), 224, 224, Filter::Bicubic).expect("a valid crop");
        assert_eq!((view.width(), view.height()), (224, 224));
        let tower = Image::filled(1, 10_000_000, [7; 3]).expect("a valid size");
        let whole = CropBox { top: 0, left: 0, height: 10_000_000, width: 1 };
        assert!(matches!(resized_crop(&tower, whole, 224, 224, Filter::Bilinear), Err(CropError::TooLarge { .. })));
        assert!(resize_center_crop(&tower, 224, 224, Filter::Bilinear).is_ok());
    }

    #[test]
    fn impossible_crops_are_errors() {
        let image = noise(4, 3);
        let crop = |top, left, height, width| CropBox { top, left, height, width };
        for outside in [crop(0, 0, 4, 4), crop(0, 1, 3, 4), crop(3, 0, 1, 1), crop(0, 0, 0, 4), crop(u32::MAX, 0, 2, 1)]
        {
            let error = resized_crop(&image, outside, 8, 8, Filter::Bilinear).expect_err("not within");
            assert_eq!(error, CropError::Outside { crop: outside, width: 4, height: 3 });
        }
        let whole = crop(0, 0, 3, 4);
        assert!(matches!(resized_crop(&image, whole, 0, 8, Filter::Bilinear), Err(CropError::Side { .. })));
        let huge = resized_crop(&image, whole, u32::MAX, 1, Filter::Bilinear);
        assert!(matches!(huge, Err(CropError::Side { .. })));
        assert!(matches!(resize_center_crop(&image, 8, 9, Filter::Bilinear), Err(CropError::CenterTooLarge { .. })));
        assert!(matches!(resize_center_crop(&image, 8, 0, Filter::Bilinear), Err(CropError::Side { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn uniform_pictures_stay_uniform(
            (width, height) in (1_u32..60, 1_u32..60),
            (out_width, out_height) in (1_u32..60, 1_u32..60),
            colour: [u8; 3],
            bicubic: bool,
        ) {
            let filter = if bicubic { Filter::Bicubic } else { Filter::Bilinear };
            let image = Image::filled(width, height, colour).expect("a valid size");
            let crop = CropBox { top: 0, left: 0, height, width };
            let view = resized_crop(&image, crop, out_width, out_height, filter).expect("the whole picture");
            prop_assert!(view == Image::filled(out_width, out_height, colour).expect("a valid size"));
        }
    }
}
