//! Cropping and resizing with Pillow's antialiased filters, bit for bit.
//!
//! Source: Pillow, `src/libImaging/Resample.c`. Its algorithm for eight-bit channels: a pass along the rows, rounded
//! to eight bits, then one along the columns, each with weights in fixed point. Pillow 13 runs the passes in the
//! other order where that is cheaper; older versions and torchvision's tensors never do, and neither do we.

use std::ops::Range;

use crate::instructions::vectorized;
use crate::transpose::{BLOCK, Rows, transpose};
use crate::{Image, Planes, Workspace};

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

/// Cuts out a box and resizes it, as torchvision's `resized_crop` does, and mirrors the result left and right where
/// `mirrored`, which costs nothing here.
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
/// pixels, then each of the result likewise. Nothing is allocated once the workspace has grown.
///
/// # Example
/// ```
/// use twoview_pixels::{CropBox, Filter, Image, Planes, Workspace, resized_crop};
///
/// let image = Image::from_rgb8(2, 1, vec![0, 0, 0, 255, 255, 255])?;
/// let whole = CropBox { top: 0, left: 0, height: 1, width: 2 };
/// let mut wider = Planes::default();
/// resized_crop(&image, whole, 4, 1, Filter::Bilinear, false, &mut Workspace::default(), &mut wider)?;
/// assert_eq!(wider.as_chw()[..4], [0, 64, 191, 255]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[allow(clippy::too_many_arguments, reason = "a picture, what to do with it, and where to")]
pub fn resized_crop(
    image: &Image,
    crop: CropBox,
    out_width: u32,
    out_height: u32,
    filter: Filter,
    mirrored: bool,
    workspace: &mut Workspace,
    out: &mut Planes,
) -> Result<(), CropError> {
    let (width, height) = (image.width(), image.height());
    let fits = |start: u32, length: u32, side: u32| length > 0 && start <= side && length <= side - start;
    if !fits(crop.left, crop.width, width) || !fits(crop.top, crop.height, height) {
        return Err(CropError::Outside { crop, width, height });
    }
    check_result(out_width, out_height)?;
    resample(image, crop, Side::whole(out_width), Side::whole(out_height), filter, mirrored, workspace, out)
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
/// use twoview_pixels::{Filter, Image, Planes, Workspace, resize_center_crop};
///
/// let image = Image::filled(640, 480, [1, 2, 3])?;
/// let mut middle = Planes::default();
/// resize_center_crop(&image, 256, 224, Filter::Bilinear, &mut Workspace::default(), &mut middle)?;
/// assert_eq!(middle, Planes::filled(224, 224, [1, 2, 3])?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn resize_center_crop(
    image: &Image,
    resize_px: u32,
    crop_px: u32,
    filter: Filter,
    workspace: &mut Workspace,
    out: &mut Planes,
) -> Result<(), CropError> {
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
    resample(image, whole, center(width), center(height), filter, false, workspace, out)
}

/// Refuses results that cannot be or that nobody means.
fn check_result(width: u32, height: u32) -> Result<(), CropError> {
    let sides = 1..=MAX_SIDE_PX;
    if sides.contains(&width) && sides.contains(&height) { Ok(()) } else { Err(CropError::Side { width, height }) }
}

/// What becomes of one side: it is scaled to `scaled` pixels, of which `length` from `start` on are wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
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

/// Rows of the box that go through the first pass together: few enough that what lies between the steps stays in the
/// second-level cache, and a multiple of [`LANES`].
const STRIP: usize = 64;
/// About how much of the turned strip is made at once, for the same reason; a single value of the result may need more.
const MAX_TURNED_BYTES: usize = 256 << 10;

/// Buffers of a [`resample`], each as large as the largest picture needed it.
#[derive(Debug, Default)]
pub(crate) struct ResampleBuffers {
    across: TapsCache,
    down: TapsCache,
    /// A part of a strip of the box, columns as rows: `[3 · columns, STRIP]`.
    turned: Vec<u8>,
    /// Its columns resampled: `[out_width, 3, STRIP]`.
    narrowed: Vec<u8>,
    /// All strips, rows as rows again: `[3, height, out_width]` with padding.
    between: Vec<u8>,
}

/// Both passes, over a box that lies within the picture.
///
/// Vector instructions want the neighbours of a value to be treated alike, which the values of a column are in the first
/// pass and those of a row in the second. So the first pass works on the turned picture; turning it there and back
/// costs less than picking pixels one by one, and separates the channels on the way.
#[allow(clippy::too_many_arguments, reason = "a picture, what to do with it, and where to")]
fn resample(
    image: &Image,
    crop: CropBox,
    across: Side,
    down: Side,
    filter: Filter,
    mirrored: bool,
    workspace: &mut Workspace,
    out: &mut Planes,
) -> Result<(), CropError> {
    let across = Scaling::new(crop.width, across, filter);
    let down = Scaling::new(crop.height, down, filter);
    let (out_width, out_height) = (across.side.length, down.side.length);

    // Only the rows that the second pass reads go through the first, and only the columns that the first one reads.
    let (rows, columns) = (down.reach(), across.reach());
    let between_stride = (out_width as usize).next_multiple_of(LANES);
    let bytes = 3 * between_stride as u128 * (rows.len() as u128).max(u128::from(out_height));
    if bytes > MAX_BUFFER_BYTES {
        return Err(CropError::TooLarge { bytes });
    }
    let Workspace { instructions, resample: buffers, .. } = workspace;
    let across = buffers.across.taps(&across, columns.start);
    let down = buffers.down.taps(&down, rows.start);
    out.reshape(out_width, out_height);

    let strip = STRIP.min(rows.len().next_multiple_of(LANES));
    let out_width = out_width as usize;
    // Turning back writes whole blocks of rows.
    let plane = rows.len().next_multiple_of(strip) * between_stride;
    grow(&mut buffers.narrowed, 3 * out_width * strip);
    grow(&mut buffers.between, 3 * plane);

    let image_stride = image.width() as usize * 3;
    let first_byte = (crop.top as usize + rows.start) * image_stride + (crop.left as usize + columns.start) * 3;
    for top in (0..rows.len()).step_by(strip) {
        let n_rows = strip.min(rows.len() - top);
        let mut done = 0;
        while done < out_width {
            let (part, reach) = across.part(done, MAX_TURNED_BYTES / (3 * strip));
            grow(&mut buffers.turned, (3 * reach.len()).next_multiple_of(BLOCK) * strip);
            let bytes = &image.as_rgb8()[first_byte + top * image_stride + 3 * reach.start..];
            transpose(Rows { bytes, stride: image_stride }, n_rows, 3 * reach.len(), &mut buffers.turned, strip);
            let turned = Rows { bytes: &buffers.turned, stride: 3 * strip };
            let narrowed = Output { bytes: &mut buffers.narrowed, length: 3 * strip, reversed: mirrored };
            weigh(*instructions, across, part.clone(), reach.start, turned, narrowed);
            done = part.end;
        }
        for channel in 0..3 {
            let narrowed = Rows { bytes: &buffers.narrowed[channel * strip..], stride: 3 * strip };
            let between = &mut buffers.between[channel * plane + top * between_stride..];
            transpose(narrowed, out_width, n_rows, between, between_stride);
        }
    }
    for (channel, out) in out.channels_mut().into_iter().enumerate() {
        let between = Rows { bytes: &buffers.between[channel * plane..][..plane], stride: between_stride };
        let out = Output { bytes: out, length: out_width, reversed: false };
        weigh(*instructions, down, 0..out_height as usize, 0, between, out);
    }
    Ok(())
}

/// Makes a buffer at least this long; it never shrinks.
pub(crate) fn grow<T: Clone + Default>(buffer: &mut Vec<T>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, T::default());
    }
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
}

/// Weights are integers in units of `2^-22`. A sum of weights times 255 stays below `2^31`, because the weights of a
/// pixel sum to 1 and the negative ones of the cubic filter to no less than -1/4.
const FRACTION_BITS: u32 = 22;
/// Every sum starts at one half, so that the final shift rounds.
const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// The weights of sides met before. Computing them costs more than using them where pictures are small, and random boxes
/// of pictures of the same size come back to the same few hundred lengths.
#[derive(Debug, Default)]
struct TapsCache {
    /// By the length of the side on its source, up to [`CACHED_LENGTHS`]; each with what it was computed for.
    kept: Vec<(Option<(Side, Filter)>, Taps)>,
    other: Taps,
}

/// Longest side whose weights are kept: then a cache holds at most about 20 MiB, and 20 KiB for pictures of 32 pixels.
const CACHED_LENGTHS: usize = 1024;

impl TapsCache {
    fn taps(&mut self, scaling: &Scaling, first: usize) -> &Taps {
        let length = scaling.length as usize;
        if length > CACHED_LENGTHS {
            self.other.fill(scaling, first);
            return &self.other;
        }
        if self.kept.len() <= length {
            self.kept.resize_with(length + 1, Default::default);
        }
        let (made_for, taps) = &mut self.kept[length];
        let wanted = Some((scaling.side, scaling.filter));
        if *made_for != wanted {
            taps.fill(scaling, first);
            *made_for = wanted;
        }
        taps
    }
}

/// For each wanted pixel of one side, the source pixels it weighs.
#[derive(Debug, Default)]
struct Taps {
    /// First source pixel of each, counted from the first that any of them weighs.
    starts: Vec<usize>,
    /// Where the weights of each end in `weights`.
    ends: Vec<usize>,
    weights: Vec<i32>,
    values: Vec<f64>,
}

impl Taps {
    /// Computes them anew for a scaled side, with source pixels counted from `first` on.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "as in Scaling")]
    fn fill(&mut self, scaling: &Scaling, first: usize) {
        self.starts.clear();
        self.ends.clear();
        self.weights.clear();
        let unit = f64::from(1 << FRACTION_BITS);
        for position in scaling.side.start..scaling.side.start + u64::from(scaling.side.length) {
            let window = scaling.window(position);
            self.starts.push(window.start - first);
            if scaling.is_copy() {
                self.weights.push(1 << FRACTION_BITS);
            } else {
                let center = scaling.center(position);
                let value = |x| scaling.filter.value((x as f64 - center + 0.5) / scaling.widening);
                self.values.clear();
                self.values.extend(window.map(value));
                let sum: f64 = self.values.iter().sum();
                self.weights.extend(self.values.iter().map(|value| {
                    let weight = value / sum * unit;
                    (weight + 0.5_f64.copysign(weight)) as i32
                }));
            }
            self.ends.push(self.weights.len());
        }
    }

    /// As many wanted pixels from `begin` on as weigh no more than `most` source pixels together, but at least one; and
    /// those source pixels.
    fn part(&self, begin: usize, most: usize) -> (Range<usize>, Range<usize>) {
        let first = self.starts[begin];
        let behind = |i: usize| self.starts[i] + self.weights_of(i).len();
        let more = (begin + 1..self.starts.len()).take_while(|&i| behind(i) - first <= most).count();
        let end = begin + 1 + more;
        // The last window ends last: windows of equal width in ascending order, cut off at the same border.
        (begin..end, first..behind(end - 1))
    }

    fn weights_of(&self, i: usize) -> &[i32] {
        let begin = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.weights[begin..self.ends[i]]
    }
}

/// Values computed together.
const LANES: usize = 32;

/// Where rows of a certain length are written, one after the other or in reverse order.
struct Output<'a> {
    bytes: &'a mut [u8],
    length: usize,
    reversed: bool,
}

vectorized! {
    /// Each row `i` of the output, for the wanted pixels `i` of a part, is the weighed sum of some rows of the source,
    /// rounded and clamped to eight bits. The source begins with row `first`.
    ///
    /// The rows of the source must be readable up to a multiple of [`LANES`].
    fn weigh(taps: &Taps, part: Range<usize>, first: usize, source: Rows<'_>, out: Output<'_>) {
        let n = taps.starts.len();
        for i in part {
            let weights = taps.weights_of(i);
            let row = if out.reversed { n - 1 - i } else { i };
            let out = &mut out.bytes[row * out.length..][..out.length];
            let rows = &source.bytes[(taps.starts[i] - first) * source.stride..];
            // Few weights are what enlarging and moderate shrinking need: their loops are unrolled.
            match *weights {
                [a] => weigh_few([a], rows, source.stride, out),
                [a, b] => weigh_few([a, b], rows, source.stride, out),
                [a, b, c] => weigh_few([a, b, c], rows, source.stride, out),
                [a, b, c, d] => weigh_few([a, b, c, d], rows, source.stride, out),
                _ => weigh_many(weights, rows, source.stride, out),
            }
        }
    }
}

/// A row from as many others as there are weights.
#[inline(always)]
fn weigh_few<const N: usize>(weights: [i32; N], rows: &[u8], stride: usize, out: &mut [u8]) {
    in_blocks(out, |at| {
        let mut columns = [&[0; LANES]; N];
        for (tap, column) in columns.iter_mut().enumerate() {
            *column = lanes(rows, tap * stride + at);
        }
        let mut levels = [0; LANES];
        for (i, level) in levels.iter_mut().enumerate() {
            let mut sum = HALF;
            for tap in 0..N {
                sum = sum.wrapping_add(weights[tap].wrapping_mul(i32::from(columns[tap][i])));
            }
            *level = to_level(sum);
        }
        levels
    });
}

/// The same for any number of weights.
#[inline(always)]
fn weigh_many(weights: &[i32], rows: &[u8], stride: usize, out: &mut [u8]) {
    in_blocks(out, |at| {
        let mut sums = [HALF; LANES];
        for (tap, &weight) in weights.iter().enumerate() {
            for (sum, &value) in sums.iter_mut().zip(lanes(rows, tap * stride + at)) {
                *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(value)));
            }
        }
        sums.map(to_level)
    });
}

/// Fills a row with blocks of values, each made from where it begins; of the last only what fits is used.
#[inline(always)]
fn in_blocks(out: &mut [u8], levels_at: impl Fn(usize) -> [u8; LANES]) {
    let (blocks, rest) = out.as_chunks_mut::<LANES>();
    let n_whole = blocks.len() * LANES;
    for (block, out) in blocks.iter_mut().enumerate() {
        *out = levels_at(block * LANES);
    }
    if !rest.is_empty() {
        rest.iter_mut().zip(levels_at(n_whole)).for_each(|(out, level)| *out = level);
    }
}

/// Values from `at` on.
#[inline(always)]
fn lanes(rows: &[u8], at: usize) -> &[u8; LANES] {
    rows[at..].first_chunk().expect("rows are padded to whole lanes")
}

/// From fixed point to eight bits; the cubic filter overshoots both ends.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 to 255")]
#[inline(always)]
fn to_level(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Instructions;

    /// A picture without symmetries.
    fn noise(width: u32, height: u32) -> Image {
        let n = width * height * 3;
        let pixels = (0..n).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        Image::from_rgb8(width, height, pixels).expect("a valid size")
    }

    fn resized(image: &Image, crop: CropBox, width: u32, height: u32, filter: Filter) -> Result<Image, CropError> {
        let mut out = Planes::default();
        resized_crop(image, crop, width, height, filter, false, &mut Workspace::default(), &mut out)?;
        Ok(out.to_image())
    }

    fn centre(image: &Image, resize_px: u32, crop_px: u32, filter: Filter) -> Result<Image, CropError> {
        let mut out = Planes::default();
        resize_center_crop(image, resize_px, crop_px, filter, &mut Workspace::default(), &mut out)?;
        Ok(out.to_image())
    }

    /// Pillow's algorithm as it is written down: a pass along the rows, then one along the columns, pixel by pixel.
    fn resized_plainly(image: &Image, crop: CropBox, width: u32, height: u32, filter: Filter) -> Image {
        let pass = |length: u32, scaled: u32, value: &dyn Fn(usize, usize) -> [u8; 3], lines: usize| {
            let mut taps = Taps::default();
            taps.fill(&Scaling::new(length, Side::whole(scaled), filter), 0);
            let mut out = Vec::new();
            for i in 0..scaled as usize {
                for line in 0..lines {
                    out.push(std::array::from_fn(|channel| {
                        let terms = taps.weights_of(i).iter().zip(taps.starts[i]..);
                        let sum: i32 = terms.map(|(weight, x)| weight * i32::from(value(x, line)[channel])).sum();
                        to_level(sum + HALF)
                    }));
                }
            }
            out
        };
        let (crop_height, stride) = (crop.height as usize, image.width() as usize);
        let pixel = |x, y| image.pixels()[(crop.top as usize + y) * stride + crop.left as usize + x];
        let between: Vec<[u8; 3]> = pass(crop.width, width, &pixel, crop_height);
        let pixels: Vec<[u8; 3]> = pass(crop.height, height, &|y, x| between[x * crop_height + y], width as usize);
        Image::from_kernel(width, height, pixels.into_flattened())
    }

    #[test]
    fn nothing_outside_the_box_enters() {
        let mut image = Image::filled(20, 20, [255, 0, 0]).expect("a valid size");
        for y in 5..12 {
            image.pixels_mut()[y * 20 + 3..][..8].fill([10, 20, 30]);
        }
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            let crop = CropBox { top: 5, left: 3, height: 7, width: 8 };
            let view = resized(&image, crop, 5, 16, filter).expect("the box is within");
            assert!(view == Image::filled(5, 16, [10, 20, 30]).expect("a valid size"));
        }
    }

    #[test]
    fn a_box_of_the_right_size_is_copied() {
        let image = noise(9, 7);
        let crop = CropBox { top: 2, left: 1, height: 4, width: 6 };
        let view = resized(&image, crop, 6, 4, Filter::Bicubic).expect("the box is within");
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
        let view = resized(&image, crop, 3, 1, Filter::Bilinear).expect("the box is within");
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
                let larger = resized(&image, whole, wide, high, filter).expect("the whole picture");
                let half_to_even = |excess: u32| if excess % 4 == 3 { excess / 2 + 1 } else { excess / 2 };
                let crop =
                    CropBox { top: half_to_even(high - 31), left: half_to_even(wide - 31), height: 31, width: 31 };
                let want = resized(&larger, crop, 31, 31, filter).expect("within the resized picture");
                assert!(centre(&image, 40, 31, filter) == Ok(want), "{width}x{height}, {filter:?}");
            }
        }
    }

    #[test]
    fn extreme_shapes_cost_little() {
        let view = centre(&noise(1, 100_000), 224, 224, Filter::Bicubic).expect("a valid crop");
        assert_eq!((view.width(), view.height()), (224, 224));
        let tower = Image::filled(1, 10_000_000, [7; 3]).expect("a valid size");
        let whole = CropBox { top: 0, left: 0, height: 10_000_000, width: 1 };
        assert!(matches!(resized(&tower, whole, 224, 224, Filter::Bilinear), Err(CropError::TooLarge { .. })));
        assert!(centre(&tower, 224, 224, Filter::Bilinear).is_ok());
    }

    #[test]
    fn extremely_wide_pictures_go_through_in_parts() {
        let image = noise(100_000, 3);
        let crop = CropBox { top: 0, left: 1, height: 3, width: 99_998 };
        let mut workspace = Workspace::default();
        let mut out = Planes::default();
        resized_crop(&image, crop, 40, 5, Filter::Bicubic, false, &mut workspace, &mut out).expect("within");
        assert!(out.to_image() == resized_plainly(&image, crop, 40, 5, Filter::Bicubic));
        assert!(workspace.resample.turned.len() < 2 << 20, "{} bytes", workspace.resample.turned.len());
    }

    #[test]
    fn impossible_crops_are_errors() {
        let image = noise(4, 3);
        let crop = |top, left, height, width| CropBox { top, left, height, width };
        for outside in [crop(0, 0, 4, 4), crop(0, 1, 3, 4), crop(3, 0, 1, 1), crop(0, 0, 0, 4), crop(u32::MAX, 0, 2, 1)]
        {
            let error = resized(&image, outside, 8, 8, Filter::Bilinear).expect_err("not within");
            assert_eq!(error, CropError::Outside { crop: outside, width: 4, height: 3 });
        }
        let whole = crop(0, 0, 3, 4);
        assert!(matches!(resized(&image, whole, 0, 8, Filter::Bilinear), Err(CropError::Side { .. })));
        let huge = resized(&image, whole, u32::MAX, 1, Filter::Bilinear);
        assert!(matches!(huge, Err(CropError::Side { .. })));
        assert!(matches!(centre(&image, 8, 9, Filter::Bilinear), Err(CropError::CenterTooLarge { .. })));
        assert!(matches!(centre(&image, 8, 0, Filter::Bilinear), Err(CropError::Side { .. })));
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
            let view = resized(&image, crop, out_width, out_height, filter).expect("the whole picture");
            prop_assert!(view == Image::filled(out_width, out_height, colour).expect("a valid size"));
        }

        /// Strips, parts, padding and mirroring change nothing, whatever the instructions.
        #[test]
        fn every_variant_is_the_plain_algorithm(
            (width, height) in (1_u32..400, 1_u32..400),
            (top, left, crop_height, crop_width) in (0_u32..400, 0_u32..400, 1_u32..400, 1_u32..400),
            (out_width, out_height) in (1_u32..80, 1_u32..80),
            bicubic: bool,
        ) {
            let filter = if bicubic { Filter::Bicubic } else { Filter::Bilinear };
            let image = noise(width, height);
            let (top, left) = (top % height, left % width);
            let crop = CropBox { top, left, height: crop_height.min(height - top), width: crop_width.min(width - left) };
            let want = resized_plainly(&image, crop, out_width, out_height, filter);
            let mut turned = want.clone();
            turned.pixels_mut().chunks_exact_mut(out_width as usize).for_each(<[_]>::reverse);
            for instructions in Instructions::available() {
                let mut workspace = Workspace::new(instructions);
                let mut out = Planes::default();
                for (mirrored, want) in [(false, &want), (true, &turned)] {
                    resized_crop(&image, crop, out_width, out_height, filter, mirrored, &mut workspace, &mut out)
                        .expect("the box is within");
                    prop_assert!(out.to_image() == *want, "{:?}, mirrored: {}", instructions, mirrored);
                }
            }
        }
    }
}
