//! The built-in pictures: ten kinds of two-colour patterns, drawn on the spot, the same bytes on every platform.

use std::borrow::Cow;
use std::f64::consts::TAU;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use twoview_augment::Stream;
use twoview_pixels::Image;

use crate::{Fingerprint, ReadBuffers, SampleError, Source, stream_ops};

/// Side of a picture in pixels.
const SIDE: u32 = 32;
/// Side at which it is drawn before each 2x2 block is averaged.
const DRAWN_SIDE: u32 = 2 * SIDE;
/// Goes up with every change to the bytes, so that sets of different making have different fingerprints.
const GENERATOR_VERSION: u8 = 1;

/// How many kinds of pattern there are.
pub(crate) const N_CLASSES: u32 = 10;

/// The classes, byte-wise sorted as a folder of them is, so that labels agree with a written-out set.
const KINDS: [(&str, Kind); N_CLASSES as usize] = [
    ("bricks", Kind::Bricks),
    ("checks", Kind::Checks),
    ("dots", Kind::Dots),
    ("grid", Kind::Grid),
    ("plus", Kind::Plus),
    ("rings", Kind::Rings),
    ("spokes", Kind::Spokes),
    ("stripes", Kind::Stripes),
    ("triangles", Kind::Triangles),
    ("zigzag", Kind::Zigzag),
];

/// Which built-in pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternsConfig {
    /// Seed of every picture.
    pub seed: u64,
    /// Training or test pictures; no picture belongs to both.
    pub split: Split,
    /// Pictures of each of the ten classes.
    pub per_class: u32,
}

/// The two disjoint halves of the built-in set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For pretraining and for fitting probes.
    Train,
    /// For scores.
    Test,
}

impl Split {
    /// `train` or `test`, as the folder of a written-out set is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

/// Ten classes of two-colour patterns at 32x32 pixels, in memory: bricks, checks, dots, grid lines, plus signs, rings,
/// spokes, stripes, triangles and zigzag.
///
/// Each picture has its own orientation, 3 to 6 periods per side, its own phase or centre, two random colours whose
/// channel sums differ by more than 200 of 765, a gradient and noise. Only the kind of pattern is the label, so neither
/// colour nor brightness nor place helps: raw pixels find the class hardly better than chance. It is drawn at 64x64 and
/// averaged over 2x2 blocks.
///
/// # Order
/// Classes take turns: picture `i` belongs to class `i mod 10`, and is a pure function of `(seed, split, i)`. A larger
/// `per_class` appends and changes nothing before.
///
/// # Reproducibility
/// Integers, exact IEEE operations and the `libm` crate only: every platform makes the same bytes. A golden hash of the
/// first 1,000 pictures holds them.
///
/// # Cost
/// 3 KiB and less than 100 µs per picture, drawn on all threads of rayon's pool.
///
/// # Lessons
/// A network trained with grayscale at probability 0.2 learned the colours instead of the patterns; at 0.5 it learned
/// the patterns. On single shapes before striped backgrounds it learned the background.
#[derive(Debug)]
pub struct PatternsSource {
    config: PatternsConfig,
    classes: Vec<String>,
    images: Vec<Image>,
}

/// Why a set of built-in pictures cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternsError {
    /// The set would be empty.
    #[error("per_class must be at least 1, got 0")]
    Empty,
    /// Pictures are numbered with 32 bits.
    #[error("per_class must be at most {}, got {got}", u32::MAX / N_CLASSES)]
    TooMany {
        /// What was configured.
        got: u32,
    },
}

impl PatternsSource {
    /// Draws the pictures.
    ///
    /// # Errors
    /// [`PatternsError`] when `per_class` is 0 or more than 32 bits can number.
    pub fn new(config: PatternsConfig) -> Result<Self, PatternsError> {
        let PatternsConfig { seed, split, per_class } = config;
        if per_class == 0 {
            return Err(PatternsError::Empty);
        }
        let n = per_class.checked_mul(N_CLASSES).ok_or(PatternsError::TooMany { got: per_class })?;
        let images = (0..n).into_par_iter().map(|i| draw_picture(seed, split, i)).collect();
        Ok(Self { config, classes: KINDS.iter().map(|(name, _)| (*name).to_owned()).collect(), images })
    }

    /// A name for this set of pictures that changes with the generator, the seed, the split and the number.
    pub fn fingerprint(&self) -> Fingerprint {
        let PatternsConfig { seed, split, per_class } = self.config;
        let text =
            format!("patterns version={GENERATOR_VERSION} seed={seed} split={} per_class={per_class}", split.name());
        Fingerprint::of(text.as_bytes())
    }
}

impl Source for PatternsSource {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, i: usize) -> Option<u32> {
        // The remainder is below 10.
        u32::try_from(i % KINDS.len()).ok()
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        file_name(i).into()
    }

    fn read<'a>(&'a self, i: usize, _: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
        Ok(&self.images[i])
    }
}

/// Where picture `i` lies in a written-out split.
pub(crate) fn file_name(i: usize) -> String {
    format!("{}/{:04}.png", KINDS[i % KINDS.len()].0, i / KINDS.len())
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Bricks,
    Checks,
    Dots,
    Grid,
    Plus,
    Rings,
    Spokes,
    Stripes,
    Triangles,
    Zigzag,
}

/// What one picture draws at random about its pattern.
struct Shape {
    kind: Kind,
    cos: f64,
    sin: f64,
    periods: f64,
    centre: [f64; 2],
    phase: [f64; 2],
    n_spokes: u32,
}

impl Shape {
    fn draw(kind: Kind, stream: &mut Stream) -> Self {
        let angle = between(stream, 0.0, TAU);
        Self {
            kind,
            cos: libm::cos(angle),
            sin: libm::sin(angle),
            periods: between(stream, 3.0, 6.0),
            centre: [between(stream, -0.5, 0.5), between(stream, -0.5, 0.5)],
            phase: [between(stream, 0.0, 1.0), between(stream, 0.0, 1.0)],
            n_spokes: 5 + stream.below(5),
        }
    }

    /// Whether the point has the first colour; the picture spans −0.5 to 0.5 both ways.
    fn covers(&self, x: f64, y: f64) -> bool {
        let u = (x * self.cos + y * self.sin) * self.periods + self.phase[0];
        let v = (y * self.cos - x * self.sin) * self.periods + self.phase[1];
        let (from_centre_x, from_centre_y) = (x - self.centre[0], y - self.centre[1]);
        // Place within a period, and its distance from the middle of the period.
        let (fu, fv) = (fraction(u), fraction(v));
        let (du, dv) = ((fu - 0.5).abs(), (fv - 0.5).abs());
        match self.kind {
            // Every other row is shifted by half a brick: the fraction of v / 2 is at least a half there.
            Kind::Bricks => fv < 0.14 || fraction(if fraction(v / 2.0) < 0.5 { u } else { u + 0.5 }) < 0.12,
            Kind::Checks => (fu < 0.5) != (fv < 0.5),
            Kind::Dots => du * du + dv * dv < 0.11,
            Kind::Grid => fu < 0.22 || fv < 0.22,
            Kind::Plus => (du < 0.13 && dv < 0.36) || (dv < 0.13 && du < 0.36),
            Kind::Rings => {
                let radius = (from_centre_x * from_centre_x + from_centre_y * from_centre_y).sqrt();
                fraction(radius * self.periods + self.phase[0]) < 0.5
            }
            Kind::Spokes => {
                let turn = libm::atan2(from_centre_y, from_centre_x) / TAU;
                fraction(turn * f64::from(self.n_spokes) + self.phase[0]) < 0.5
            }
            Kind::Stripes => fu < 0.5,
            Kind::Triangles => fu + fv < 1.0,
            Kind::Zigzag => fraction(u + 1.2 * dv) < 0.45,
        }
    }

    /// How many of the four drawn points of an output pixel have the first colour.
    fn coverage(&self, column: u32, row: u32) -> u32 {
        let place = |pixel: u32, half: u32| f64::from(2 * pixel + half) / f64::from(DRAWN_SIDE) - 0.5;
        let corners = [(0, 0), (1, 0), (0, 1), (1, 1)];
        corners.iter().map(|&(right, down)| u32::from(self.covers(place(column, right), place(row, down)))).sum()
    }
}

/// Picture `i` of a split, whatever the size of the set.
pub(crate) fn draw_picture(seed: u64, split: Split, i: u32) -> Image {
    let split = match split {
        Split::Train => 0,
        Split::Test => 1,
    };
    let mut stream = Stream::new(seed, 0, i.into(), split, stream_ops::PATTERN);
    let mut noise = Stream::new(seed, 0, i.into(), split, stream_ops::PATTERN_NOISE);
    let shape = Shape::draw(KINDS[i as usize % KINDS.len()].1, &mut stream);
    let [first, second] = two_colours(&mut stream);
    let (down, across) = (between(&mut stream, -40.0, 40.0), between(&mut stream, -40.0, 40.0));
    let noise_std = between(&mut stream, 5.0, 20.0);

    let mut pixels = Vec::with_capacity((SIDE * SIDE * 3) as usize);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let covered = shape.coverage(column, row);
            let gradient = down * ramp(row) + across * ramp(column);
            for (first, second) in first.iter().zip(second) {
                let mean = (covered * first + (4 - covered) * second + 2) / 4;
                let value = f64::from(mean) + gradient + noise_std * bell(&mut noise);
                pixels.push(cut(value));
            }
        }
    }
    Image::from_rgb8(SIDE, SIDE, pixels).expect("one byte was pushed for every channel of every pixel")
}

/// Two colours whose channel sums differ by more than 200, so that the pattern shows in grey as well.
fn two_colours(stream: &mut Stream) -> [[u32; 3]; 2] {
    loop {
        let mut colour = || [stream.below(256), stream.below(256), stream.below(256)];
        let (first, second): ([u32; 3], [u32; 3]) = (colour(), colour());
        if first.iter().sum::<u32>().abs_diff(second.iter().sum()) > 200 {
            return [first, second];
        }
    }
}

/// Uniform between two numbers with 32 random bits.
fn between(stream: &mut Stream, low: f64, high: f64) -> f64 {
    low + (high - low) * (f64::from(stream.next_u32()) / 4_294_967_296.0)
}

/// A bell-shaped number of mean 0 and standard deviation 1: the sum of eight random bytes.
///
/// Its kurtosis is 2.85 (a normal number's is 3) and it ends at ±4.9. It stands in for a normal number because it needs
/// no logarithm.
fn bell(stream: &mut Stream) -> f64 {
    const EVERY_OTHER_BYTE: u64 = 0x00FF_00FF_00FF_00FF;
    /// `sqrt(8 · (256² − 1) / 12)`
    const STD: f64 = 209.021_529_991_338_55;
    let bytes = stream.next_u64();
    let four_sums = (bytes & EVERY_OTHER_BYTE) + ((bytes >> 8) & EVERY_OTHER_BYTE);
    // The product gathers all four 16-bit lanes in the highest one.
    let sum = four_sums.wrapping_mul(0x0001_0001_0001_0001) >> 48;
    #[allow(clippy::cast_precision_loss, reason = "the sum is at most 2040")]
    let sum = sum as f64;
    (sum - 8.0 * 127.5) / STD
}

/// From −1 at the first row or column to 1 at the last.
fn ramp(place: u32) -> f64 {
    2.0 * f64::from(place) / f64::from(SIDE - 1) - 1.0
}

/// The part above the integer below, for numbers above −64.
///
/// An integer conversion, because `floor` is a function call on processors without an instruction for it.
#[allow(clippy::cast_possible_truncation, reason = "cutting off the fraction is the purpose")]
fn fraction(value: f64) -> f64 {
    let positive = value + 64.0;
    positive - f64::from(positive as i32)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte, then cut down to it")]
fn cut(value: f64) -> u8 {
    value.clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(seed: u64, split: Split, per_class: u32) -> PatternsSource {
        PatternsSource::new(PatternsConfig { seed, split, per_class }).expect("valid config")
    }

    fn bytes_of(source: &PatternsSource) -> Vec<u8> {
        source.images.iter().flat_map(|image| image.as_rgb8().iter().copied()).collect()
    }

    /// The bytes every platform must make. A change here changes the results of every demo: raise
    /// `GENERATOR_VERSION` with it.
    #[test]
    fn first_thousand_pictures_are_golden() {
        let hash = Fingerprint::of(&bytes_of(&patterns(0, Split::Train, 100)));
        assert_eq!(hash.to_string(), "642622811cc8b865383598aa85dad950");
    }

    #[test]
    fn a_larger_set_only_appends() {
        let (small, large) = (patterns(3, Split::Train, 2), patterns(3, Split::Train, 5));
        assert_eq!(small.images, large.images[..20]);
        assert_ne!(small.fingerprint(), large.fingerprint());
    }

    #[test]
    fn splits_and_seeds_share_no_picture() {
        let sets = [patterns(3, Split::Train, 20), patterns(3, Split::Test, 20), patterns(4, Split::Train, 20)];
        let mut pictures: Vec<&[u8]> = sets.iter().flat_map(|set| set.images.iter().map(Image::as_rgb8)).collect();
        pictures.sort();
        pictures.dedup();
        assert_eq!(pictures.len(), 600);
    }

    #[test]
    fn classes_take_turns_and_are_sorted() {
        let source = patterns(0, Split::Test, 2);
        assert_eq!(source.len(), 20);
        assert!(source.classes().is_sorted());
        assert_eq!((source.label(0), source.label(17)), (Some(0), Some(7)));
        assert_eq!(source.name(17), "stripes/0001.png");
    }

    /// Half covered on average, to within sampling error: both colours are there in every class.
    #[test]
    fn both_colours_are_present_in_every_picture() {
        for (name, kind) in KINDS {
            for sample in 0..50 {
                let mut stream = Stream::new(9, 0, sample, 0, stream_ops::PATTERN);
                let shape = Shape::draw(kind, &mut stream);
                let covered: u32 = (0..SIDE)
                    .flat_map(|row| (0..SIDE).map(move |column| (column, row)))
                    .map(|(column, row)| shape.coverage(column, row))
                    .sum();
                let share = f64::from(covered) / f64::from(DRAWN_SIDE * DRAWN_SIDE);
                assert!((0.15..0.85).contains(&share), "{name} {sample}: {share}");
            }
        }
    }

    #[test]
    fn bell_has_the_promised_moments() {
        let mut stream = Stream::new(1, 0, 0, 0, stream_ops::PATTERN_NOISE);
        let n = 200_000;
        let draws: Vec<f64> = (0..n).map(|_| bell(&mut stream)).collect();
        let moment = |power| draws.iter().map(|draw| draw.powi(power)).sum::<f64>() / f64::from(n);
        // Five standard errors of each sample moment.
        assert!(moment(1).abs() < 0.012, "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.016, "variance {}", moment(2));
        assert!((moment(4) - 2.85).abs() < 0.1, "kurtosis {}", moment(4));
        assert!(draws.iter().all(|draw| draw.abs() <= 4.9));
    }

    #[test]
    fn empty_and_oversized_sets_are_refused() {
        let new = |per_class| PatternsSource::new(PatternsConfig { seed: 0, split: Split::Train, per_class });
        assert_eq!(new(0).err(), Some(PatternsError::Empty));
        assert_eq!(new(u32::MAX).err(), Some(PatternsError::TooMany { got: u32::MAX }));
    }
}
