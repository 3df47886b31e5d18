//! Colour operations with the semantics of torchvision's eight-bit tensors.
//!
//! Each computes in f32 and truncates to eight bits at once, so the order of several matters, as it does there.
//! A factor is a finite number of at least 0; 1 changes nothing. Any other number gives some picture, no panic.
//! Factors are f64 because the reference forms `1 − factor` before it rounds to f32: at a factor of 0.6 many
//! results are whole numbers, and the last bit decides whether truncation keeps them.
//!
//! Source: torchvision 0.29, `transforms/v2/functional/_color.py`.

use crate::Image;

/// Multiplies every channel: `trunc(clamp(factor · x, 0, 255))`.
///
/// ```
/// use twoview_pixels::{Image, brightness};
///
/// let mut image = Image::filled(4, 4, [100, 201, 3])?;
/// brightness(&mut image, 1.5);
/// assert_eq!(image, Image::filled(4, 4, [150, 255, 4])?);
/// # Ok::<(), twoview_pixels::ImageError>(())
/// ```
pub fn brightness(image: &mut Image, factor: f64) {
    let factor = to_f32(factor);
    map_values(image, |value| truncate(factor * f32::from(value)));
}

/// Blends with the mean grey of the picture: `trunc(clamp(factor · x + (1 − factor) · m, 0, 255))`.
///
/// `m` is the mean over all pixels of the truncated grey value (see [`grayscale`]), itself not rounded. Factor 0
/// leaves a uniform grey.
pub fn contrast(image: &mut Image, factor: f64) {
    let sum: u64 = image.pixels().iter().map(|&pixel| u64::from(luma(pixel))).sum();
    #[allow(clippy::cast_precision_loss, reason = "sums of real pictures are below 2^53")]
    let mean = to_f32(sum as f64 / image.pixels().len() as f64);
    let blend = Blend::new(factor);
    let grey = blend.grey(mean);
    map_values(image, |value| blend.with(value, grey));
}

/// Blends every pixel with its own grey value `l`: `trunc(clamp(factor · x + (1 − factor) · l, 0, 255))`.
///
/// Factor 0 is [`grayscale`].
pub fn saturation(image: &mut Image, factor: f64) {
    let blend = Blend::new(factor);
    for pixel in image.pixels_mut() {
        let grey = blend.grey(f32::from(luma(*pixel)));
        *pixel = pixel.map(|value| blend.with(value, grey));
    }
}

/// Turns the hue by `turns` of the colour circle: 1/3 makes red green, ±1/2 makes it cyan.
///
/// Hue, saturation and value are those of the hexagonal HSV model; only the hue changes, modulo 1. Back in RGB,
/// with `x` in 0 to 1, a value becomes `trunc(255.999 · x)`.
///
/// # Conventions
/// With `V` the largest and `C` the difference of the largest and smallest channel, the channels of a hue `H` in
/// sextants are `V − C · clamp(min(k, 4 − k), 0, 1)`, `k = (n + H) mod 6`, `n = 5, 3, 1`. This is the reference's
/// case distinction without its branches; they agree within one grey level.
pub fn hue(image: &mut Image, turns: f64) {
    // trunc(255.999 · x) of the reference, for values that here still run to 255.
    const TO_LEVELS: f32 = 255.999 / 255.0;
    let shift = to_f32(6.0 * turns);
    for pixel in image.pixels_mut() {
        let [r, g, b] = pixel.map(f32::from);
        let max = larger(larger(r, g), b);
        let range = max - smaller(smaller(r, g), b);
        let divisor = if range == 0.0 { 1.0 } else { range };
        let sextant = if max == r {
            (g - b) / divisor
        } else if max == g {
            (b - r) / divisor + 2.0
        } else {
            (r - g) / divisor + 4.0
        };
        let turned = sextant + shift;
        *pixel = [5.0, 3.0, 1.0].map(|n| {
            let k = modulo_six(n + turned);
            let share = larger(smaller(smaller(k, 4.0 - k), 1.0), 0.0);
            truncate((max - range * share) * TO_LEVELS)
        });
    }
}

/// Replaces every channel by the grey value `trunc(0.2989 R + 0.587 G + 0.114 B)`.
pub fn grayscale(image: &mut Image) {
    for pixel in image.pixels_mut() {
        *pixel = [luma(*pixel); 3];
    }
}

/// Inverts the bright values: `x` of at least `threshold` becomes `255 − x`.
///
/// ```
/// use twoview_pixels::{Image, solarize};
///
/// let mut image = Image::filled(1, 1, [127, 128, 255])?;
/// solarize(&mut image, 128);
/// assert_eq!(image.as_rgb8(), [127, 127, 0]);
/// # Ok::<(), twoview_pixels::ImageError>(())
/// ```
pub fn solarize(image: &mut Image, threshold: u8) {
    map_values(image, |value| if value >= threshold { 255 - value } else { value });
}

/// Grey value of a pixel. The weights are the reference's and sum to 0.9999: white becomes 254.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    truncate(0.2989 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b))
}

/// `factor · value + (1 − factor) · grey` with the roundings of the reference.
struct Blend {
    factor: f32,
    rest: f64,
}

impl Blend {
    fn new(factor: f64) -> Blend {
        Blend { factor: to_f32(factor), rest: f64::from(to_f32(1.0 - factor)) }
    }

    /// The share of a grey value, an exact product.
    fn grey(&self, grey: f32) -> f64 {
        self.rest * f64::from(grey)
    }

    /// The reference rounds the first product to f32 and fuses the second with the sum. In f64 the second product
    /// is exact and the sum nearly always, so that one rounding to f32 gives the same without a fused instruction.
    fn with(&self, value: u8, grey: f64) -> u8 {
        truncate(to_f32(f64::from(self.factor * f32::from(value)) + grey))
    }
}

/// Applies a function of a single value to all; it is evaluated once for each of the 256 values.
fn map_values(image: &mut Image, function: impl Fn(u8) -> u8) {
    let mut table = [0; 256];
    for (value, entry) in (0..=u8::MAX).zip(&mut table) {
        *entry = function(value);
    }
    for value in image.as_rgb8_mut() {
        *value = table[usize::from(*value)];
    }
}

/// The nearest f32.
#[allow(clippy::cast_possible_truncation, reason = "rounding is meant")]
fn to_f32(value: f64) -> f32 {
    value as f32
}

/// Clamped to 0 to 255 and cut towards zero; not a number becomes 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast is the definition")]
fn truncate(value: f32) -> u8 {
    value as u8
}

/// The remainder in `[0, 6]` of any number.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the quotient fits easily")]
fn modulo_six(value: f32) -> f32 {
    let rest = value - 6.0 * ((value * (1.0 / 6.0)) as i32 as f32);
    if rest < 0.0 { rest + 6.0 } else { rest }
}

/// The larger of two; a single instruction, which `f32::max` with its rules for NaN is not.
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller of two, likewise.
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every 17th value in each channel: all corners of the colour cube, its greys and 4,000 others.
    fn colours() -> Image {
        let level = |index: u32| u8::try_from(index % 16 * 17).expect("at most 255");
        let pixels = (0..4096).flat_map(|i| [level(i), level(i / 16), level(i / 256)]).collect();
        Image::from_rgb8(64, 64, pixels).expect("64x64 pixels")
    }

    #[track_caller]
    fn check(change: impl Fn(&mut Image), from: [u8; 3], want: [u8; 3]) {
        let mut image = Image::filled(3, 2, from).expect("a valid size");
        change(&mut image);
        assert_eq!(image.pixels(), [want; 6]);
    }

    #[test]
    fn neutral_parameters_change_nothing() {
        for change in [
            |image: &mut Image| brightness(image, 1.0),
            |image: &mut Image| contrast(image, 1.0),
            |image: &mut Image| saturation(image, 1.0),
            |image: &mut Image| hue(image, 0.0),
        ] {
            let mut image = colours();
            change(&mut image);
            assert!(image == colours());
        }
    }

    #[test]
    fn pure_colours_turn_around_the_circle() {
        let circle = [[255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 255, 255], [0, 0, 255], [255, 0, 255]];
        for (index, &colour) in circle.iter().enumerate() {
            for (steps, turns) in [(1, 1.0 / 6.0), (2, 1.0 / 3.0), (3, 0.5), (3, -0.5), (4, -1.0 / 3.0), (0, 1.0)] {
                check(|image| hue(image, turns), colour, circle[(index + steps) % 6]);
            }
        }
        check(|image| hue(image, 0.3), [77, 77, 77], [77, 77, 77]);
    }

    #[test]
    fn hue_keeps_the_largest_and_the_smallest_channel() {
        for turns in [-0.5, -0.217, 0.05, 0.123, 0.4, 0.5] {
            let mut image = colours();
            hue(&mut image, turns);
            for (before, after) in colours().pixels().iter().zip(image.pixels()) {
                assert_eq!(before.iter().max(), after.iter().max(), "{before:?} turned by {turns}: {after:?}");
                assert_eq!(before.iter().min(), after.iter().min(), "{before:?} turned by {turns}: {after:?}");
            }
        }
    }

    #[test]
    fn closed_forms() {
        check(|image| brightness(image, 0.0), [9, 99, 200], [0, 0, 0]);
        check(|image| contrast(image, 0.0), [255, 255, 255], [254, 254, 254]);
        check(|image| contrast(image, 2.0), [10, 200, 30], [0, 255, 0]);
        check(|image| saturation(image, 0.0), [255, 0, 0], [76, 76, 76]);
        check(grayscale, [255, 0, 0], [76, 76, 76]);
        check(grayscale, [0, 255, 0], [149, 149, 149]);
        check(grayscale, [0, 0, 255], [29, 29, 29]);
        check(|image| solarize(image, 0), [0, 1, 255], [255, 254, 0]);
    }

    #[test]
    fn nonsense_parameters_do_not_panic() {
        for factor in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, -1.0] {
            let mut image = colours();
            brightness(&mut image, factor);
            contrast(&mut image, factor);
            saturation(&mut image, factor);
            hue(&mut image, factor);
        }
    }
}
