//! Colour operations with the semantics of torchvision's eight-bit tensors.

use crate::instructions::vectorized;
use crate::{Instructions, Planes};

/// One colour operation. Each computes in f32 and truncates to eight bits at once, so the order of several matters, as
/// it does in the reference.
///
/// A factor is a finite number of at least 0; 1 changes nothing. Any other number gives some picture, no panic.
/// Factors are f64 because the reference forms `1 − factor` before it rounds to f32: at a factor of 0.6 many
/// results are whole numbers, and the last bit decides whether truncation keeps them.
///
/// # Source
/// torchvision 0.29, `transforms/v2/functional/_color.py`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ColorOp {
    /// Multiplies every channel: `trunc(clamp(factor · x, 0, 255))`.
    Brightness(f64),
    /// Blends with the mean grey of the picture: `trunc(clamp(factor · x + (1 − factor) · m, 0, 255))`.
    ///
    /// `m` is the mean over all pixels of the truncated grey value (see [`Grayscale`](Self::Grayscale)), itself not
    /// rounded. Factor 0 leaves a uniform grey.
    Contrast(f64),
    /// Blends every pixel with its own grey value `l`: `trunc(clamp(factor · x + (1 − factor) · l, 0, 255))`.
    ///
    /// Factor 0 is [`Grayscale`](Self::Grayscale).
    Saturation(f64),
    /// Turns the hue by a share of the colour circle: 1/3 makes red green, ±1/2 makes it cyan.
    ///
    /// Hue, saturation and value are those of the hexagonal HSV model; only the hue changes, modulo 1. Back in RGB,
    /// with `x` in 0 to 1, a value becomes `trunc(255.999 · x)`.
    ///
    /// With `V` the largest and `C` the difference of the largest and smallest channel, the channels of a hue `H` in
    /// sextants are `V − C · clamp(min(k, 4 − k), 0, 1)`, `k = (n + H) mod 6`, `n = 5, 3, 1`. This is the reference's
    /// case distinction without its branches; they agree within one grey level.
    Hue(f64),
    /// Replaces every channel by the grey value `trunc(0.2989 R + 0.587 G + 0.114 B)`. The weights are the reference's
    /// and sum to 0.9999: white becomes 254.
    Grayscale,
    /// Inverts the bright values: `x` of at least the threshold becomes `255 − x`.
    Solarize(u8),
}

/// Applies colour operations one after the other.
///
/// # Cost
/// One pass over the picture for all operations, and one more for each contrast, which must know the whole picture as it
/// is by then. Within a pass some hundred pixels at a time go through all operations, so that they stay in the nearest
/// cache. Nothing is allocated.
///
/// # Example
/// ```
/// use twoview_pixels::{ColorOp, Instructions, Planes, apply_colors};
///
/// let mut planes = Planes::filled(4, 4, [100, 201, 3])?;
/// apply_colors(&mut planes, &[ColorOp::Brightness(1.5), ColorOp::Solarize(200)], Instructions::best());
/// assert_eq!(planes, Planes::filled(4, 4, [150, 0, 4])?);
/// # Ok::<(), twoview_pixels::ImageError>(())
/// ```
pub fn apply_colors(planes: &mut Planes, ops: &[ColorOp], instructions: Instructions) {
    let n_pixels = planes.plane_len();
    // A pass ends before a contrast; the next begins with it.
    let is_contrast = |op: &ColorOp| matches!(op, ColorOp::Contrast(_));
    let mut rest = ops;
    let mut grey_mean = None;
    loop {
        let begun = usize::from(grey_mean.is_some());
        let end = rest[begun..].iter().position(is_contrast).map_or(rest.len(), |place| begun + place);
        let (now, later) = rest.split_at(end);
        let wants_grey = !later.is_empty();
        let grey_sum = color_pass(instructions, planes.channels_mut(), now, grey_mean.unwrap_or(0.0), wants_grey);
        if !wants_grey {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "sums of real pictures are below 2^53")]
        let mean = grey_sum as f64 / n_pixels as f64;
        grey_mean = Some(to_f32(mean));
        rest = later;
    }
}

/// Pixels that go through all operations of a pass together.
const TILE: usize = 256;

type Tile = [[f32; TILE]; 3];

vectorized! {
    /// All operations over all pixels, of which only the first may be a contrast; it blends with `grey_mean`. Returns the
    /// sum of grey values afterwards if it is wanted, else 0.
    fn color_pass(channels: [&mut [u8]; 3], ops: &[ColorOp], grey_mean: f32, wants_grey: bool) -> u64 {
        let [red, green, blue] = channels;
        let tiles = red.chunks_mut(TILE).zip(green.chunks_mut(TILE)).zip(blue.chunks_mut(TILE));
        let mut grey_sum = 0;
        let mut tile: Tile = [[0.0; TILE]; 3];
        for ((red, green), blue) in tiles {
            for (place, values) in tile.iter_mut().zip([&*red, &*green, &*blue]) {
                load(place, values);
            }
            for op in ops {
                match *op {
                    ColorOp::Brightness(factor) => brightness(&mut tile, factor),
                    ColorOp::Contrast(factor) => contrast(&mut tile, factor, grey_mean),
                    ColorOp::Saturation(factor) => saturation(&mut tile, factor),
                    ColorOp::Hue(turns) => hue(&mut tile, turns),
                    ColorOp::Grayscale => grayscale(&mut tile),
                    ColorOp::Solarize(threshold) => solarize(&mut tile, threshold),
                }
            }
            if wants_grey {
                grey_sum += grey_of(&tile, red.len());
            }
            if !ops.is_empty() {
                for (place, values) in tile.iter().zip([red, green, blue]) {
                    store(place, values);
                }
            }
        }
        grey_sum
    }
}

#[inline(always)]
fn load(place: &mut [f32; TILE], values: &[u8]) {
    match values.first_chunk::<TILE>() {
        Some(values) => place.iter_mut().zip(values).for_each(|(place, &value)| *place = f32::from(value)),
        None => place.iter_mut().zip(values).for_each(|(place, &value)| *place = f32::from(value)),
    }
}

#[inline(always)]
fn store(place: &[f32; TILE], values: &mut [u8]) {
    match values.first_chunk_mut::<TILE>() {
        Some(values) => values.iter_mut().zip(place).for_each(|(value, &place)| *value = to_byte(place)),
        None => values.iter_mut().zip(place).for_each(|(value, &place)| *value = to_byte(place)),
    }
}

#[inline(always)]
fn grey_of(tile: &Tile, n_pixels: usize) -> u64 {
    let [red, green, blue] = tile;
    let mut sum = 0_u32; // At most 255 · TILE.
    for i in 0..n_pixels.min(TILE) {
        sum += u32::from(to_byte(luma(red[i], green[i], blue[i])));
    }
    sum.into()
}

#[inline(always)]
fn brightness(tile: &mut Tile, factor: f64) {
    let factor = to_f32(factor);
    for plane in tile {
        plane.iter_mut().for_each(|value| *value = truncate(factor * *value));
    }
}

#[inline(always)]
fn contrast(tile: &mut Tile, factor: f64, grey_mean: f32) {
    let (factor, rest) = (to_f32(factor), to_f32(1.0 - factor));
    for plane in tile {
        plane.iter_mut().for_each(|value| *value = blend(factor, *value, rest, grey_mean));
    }
}

#[inline(always)]
fn saturation(tile: &mut Tile, factor: f64) {
    let (factor, rest) = (to_f32(factor), to_f32(1.0 - factor));
    let [red, green, blue] = tile;
    for i in 0..TILE {
        let grey = luma(red[i], green[i], blue[i]);
        red[i] = blend(factor, red[i], rest, grey);
        green[i] = blend(factor, green[i], rest, grey);
        blue[i] = blend(factor, blue[i], rest, grey);
    }
}

#[inline(always)]
fn hue(tile: &mut Tile, turns: f64) {
    // trunc(255.999 · x) of the reference, for values that here still run to 255.
    const TO_LEVELS: f32 = 255.999 / 255.0;
    let shift = to_f32(6.0 * turns);
    let [red, green, blue] = tile;
    for i in 0..TILE {
        let (r, g, b) = (red[i], green[i], blue[i]);
        let max = larger(larger(r, g), b);
        let range = max - smaller(smaller(r, g), b);
        let divisor = if range == 0.0 { 1.0 } else { range };
        let (difference, start) = if max == r {
            (g - b, 0.0)
        } else if max == g {
            (b - r, 2.0)
        } else {
            (r - g, 4.0)
        };
        let turned = difference / divisor + start + shift;
        let channel = |n: f32| {
            let k = modulo_six(n + turned);
            let share = larger(smaller(smaller(k, 4.0 - k), 1.0), 0.0);
            truncate((max - range * share) * TO_LEVELS)
        };
        (red[i], green[i], blue[i]) = (channel(5.0), channel(3.0), channel(1.0));
    }
}

#[inline(always)]
fn grayscale(tile: &mut Tile) {
    let [red, green, blue] = tile;
    for i in 0..TILE {
        let grey = luma(red[i], green[i], blue[i]);
        (red[i], green[i], blue[i]) = (grey, grey, grey);
    }
}

#[inline(always)]
fn solarize(tile: &mut Tile, threshold: u8) {
    let threshold = f32::from(threshold);
    for plane in tile {
        plane.iter_mut().for_each(|value| *value = if *value >= threshold { 255.0 - *value } else { *value });
    }
}

/// Grey value of a pixel.
#[inline(always)]
fn luma(r: f32, g: f32, b: f32) -> f32 {
    (0.2989 * r + 0.587 * g + 0.114 * b).trunc()
}

/// `factor · value + rest · grey` with the roundings of the reference: the first product is rounded, the second is fused
/// with the sum.
#[inline(always)]
fn blend(factor: f32, value: f32, rest: f32, grey: f32) -> f32 {
    truncate(rest.mul_add(grey, factor * value))
}

/// The nearest f32.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "rounding is meant")]
fn to_f32(value: f64) -> f32 {
    value as f32
}

/// Clamped to 0 to 255 and cut towards zero; not a number becomes 0.
#[inline(always)]
fn truncate(value: f32) -> f32 {
    smaller(larger(value, 0.0), 255.0).trunc()
}

/// Of a whole number from 0 to 255.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the lowest byte is the number")]
fn to_byte(value: f32) -> u8 {
    // At 2^23 the spacing of f32 is 1, so that the sum has the number in its lowest bits. A conversion with its rules for
    // numbers out of range would not become vector instructions.
    (value + 8_388_608.0).to_bits() as u8
}

/// The remainder in `[0, 6]` of any number.
#[inline(always)]
fn modulo_six(value: f32) -> f32 {
    let rest = value - 6.0 * (value * (1.0 / 6.0)).trunc();
    if rest < 0.0 { rest + 6.0 } else { rest }
}

/// The larger of two; a single instruction, which `f32::max` with its rules for NaN is not.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller of two, likewise.
#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Image;

    /// The operations on a picture, by every available variant.
    fn changed(image: &Image, ops: &[ColorOp]) -> Image {
        let of = |instructions| {
            let mut planes = Planes::from(image);
            apply_colors(&mut planes, ops, instructions);
            planes.to_image()
        };
        let want = of(Instructions::BASELINE);
        for instructions in Instructions::available() {
            assert!(of(instructions) == want, "{ops:?} by {instructions:?}");
        }
        want
    }

    /// Every 17th value in each channel: all corners of the colour cube, its greys and 4,000 others.
    fn colours() -> Image {
        let level = |index: u32| u8::try_from(index % 16 * 17).expect("at most 255");
        let pixels = (0..4096).flat_map(|i| [level(i), level(i / 16), level(i / 256)]).collect();
        Image::from_rgb8(64, 64, pixels).expect("64x64 pixels")
    }

    #[track_caller]
    fn check(op: ColorOp, from: [u8; 3], want: [u8; 3]) {
        let image = Image::filled(3, 2, from).expect("a valid size");
        assert_eq!(changed(&image, &[op]).pixels(), [want; 6]);
    }

    #[test]
    fn neutral_parameters_change_nothing() {
        let neutral = [ColorOp::Brightness(1.0), ColorOp::Contrast(1.0), ColorOp::Saturation(1.0), ColorOp::Hue(0.0)];
        for op in neutral {
            assert!(changed(&colours(), &[op]) == colours());
        }
        assert!(changed(&colours(), &neutral) == colours());
        assert!(changed(&colours(), &[]) == colours());
    }

    /// Passes and tiles are invisible: operations together do what they do one by one.
    #[test]
    fn operations_together_are_operations_in_turn() {
        let all = [
            ColorOp::Contrast(0.6),
            ColorOp::Hue(0.17),
            ColorOp::Saturation(1.7),
            ColorOp::Contrast(1.4),
            ColorOp::Contrast(0.9),
            ColorOp::Brightness(0.8),
            ColorOp::Solarize(128),
            ColorOp::Grayscale,
            ColorOp::Contrast(1.3),
        ];
        // 63 pixels short of whole tiles.
        let image = Image::from_rgb8(63, 63, colours().as_rgb8()[..3 * 63 * 63].to_vec()).expect("63x63 pixels");
        for begin in 0..all.len() {
            let in_turn = all[begin..].iter().fold(image.clone(), |image, &op| changed(&image, &[op]));
            assert!(changed(&image, &all[begin..]) == in_turn, "from {begin}");
        }
    }

    #[test]
    fn pure_colours_turn_around_the_circle() {
        let circle = [[255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 255, 255], [0, 0, 255], [255, 0, 255]];
        for (index, &colour) in circle.iter().enumerate() {
            for (steps, turns) in [(1, 1.0 / 6.0), (2, 1.0 / 3.0), (3, 0.5), (3, -0.5), (4, -1.0 / 3.0), (0, 1.0)] {
                check(ColorOp::Hue(turns), colour, circle[(index + steps) % 6]);
            }
        }
        check(ColorOp::Hue(0.3), [77, 77, 77], [77, 77, 77]);
    }

    #[test]
    fn hue_keeps_the_largest_and_the_smallest_channel() {
        for turns in [-0.5, -0.217, 0.05, 0.123, 0.4, 0.5] {
            let image = changed(&colours(), &[ColorOp::Hue(turns)]);
            for (before, after) in colours().pixels().iter().zip(image.pixels()) {
                assert_eq!(before.iter().max(), after.iter().max(), "{before:?} turned by {turns}: {after:?}");
                assert_eq!(before.iter().min(), after.iter().min(), "{before:?} turned by {turns}: {after:?}");
            }
        }
    }

    #[test]
    fn closed_forms() {
        check(ColorOp::Brightness(0.0), [9, 99, 200], [0, 0, 0]);
        check(ColorOp::Contrast(0.0), [255, 255, 255], [254, 254, 254]);
        check(ColorOp::Contrast(2.0), [10, 200, 30], [0, 255, 0]);
        check(ColorOp::Saturation(0.0), [255, 0, 0], [76, 76, 76]);
        check(ColorOp::Grayscale, [255, 0, 0], [76, 76, 76]);
        check(ColorOp::Grayscale, [0, 255, 0], [149, 149, 149]);
        check(ColorOp::Grayscale, [0, 0, 255], [29, 29, 29]);
        check(ColorOp::Solarize(0), [0, 1, 255], [255, 254, 0]);
    }

    #[test]
    fn nonsense_parameters_do_not_panic() {
        for factor in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, -1.0] {
            for op in [ColorOp::Brightness, ColorOp::Contrast, ColorOp::Saturation, ColorOp::Hue] {
                changed(&colours(), &[op(factor)]);
            }
        }
    }
}
