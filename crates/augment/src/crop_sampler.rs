//! The random box of a view: torchvision's `RandomResizedCrop`.

use twoview_pixels::CropBox;

use crate::Stream;

/// Draws a box within a picture of `width` by `height` pixels.
///
/// ```text
/// up to 10 times:  a = width · height · U(area),   r = exp(U(ln aspect))
///                  w = round(sqrt(a · r)),   h = round(sqrt(a / r));   taken if it fits
/// then             top = U{0 ..= height − h},   left = U{0 ..= width − w}
/// ```
/// After ten misses it is the largest centred box whose aspect is clamped to the range. A side is at least 1 pixel.
///
/// # Source
/// torchvision 0.29, `transforms/v2/_geometry.py`, `RandomResizedCrop.make_params`; uniform numbers, `ln` and `exp`
/// in f32, the rest in f64, rounding half to even.
pub(crate) fn sample_crop(stream: &mut Stream, width: u32, height: u32, area: [f32; 2], aspect: [f32; 2]) -> CropBox {
    let (width_f64, height_f64) = (f64::from(width), f64::from(height));
    let log_aspect = aspect.map(libm::logf);
    for _ in 0..10 {
        let target = width_f64 * height_f64 * f64::from(stream.uniform(area[0], area[1]));
        let ratio = f64::from(libm::expf(stream.uniform(log_aspect[0], log_aspect[1])));
        let w = round((target * ratio).sqrt());
        let h = round((target / ratio).sqrt());
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = stream.below(height - h + 1);
            let left = stream.below(width - w + 1);
            return CropBox { top, left, height: h, width: w };
        }
    }
    let [narrowest, widest] = aspect.map(f64::from);
    let whole = width_f64 / height_f64;
    let (w, h) = if whole < narrowest {
        (width, round(width_f64 / narrowest).clamp(1, height))
    } else if whole > widest {
        (round(height_f64 * widest).clamp(1, width), height)
    } else {
        (width, height)
    };
    CropBox { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
}

/// Half to even; too large a number becomes the largest, which fits nowhere.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded, not negative; saturation is meant"
)]
fn round(value: f64) -> u32 {
    value.round_ties_even() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(seed: u64, width: u32, height: u32, area: [f32; 2], aspect: [f32; 2]) -> CropBox {
        sample_crop(&mut Stream::new(seed, 0, 0, 0, 0), width, height, area, aspect)
    }

    #[test]
    fn hopeless_shapes_get_the_largest_centred_box() {
        for (width, height, aspect, want) in [
            (40, 200, [0.75, 1.3333334], CropBox { top: 73, left: 0, height: 53, width: 40 }),
            (200, 40, [0.75, 1.3333334], CropBox { top: 0, left: 73, height: 40, width: 53 }),
            (1, 2000, [0.75, 1.3333334], CropBox { top: 999, left: 0, height: 1, width: 1 }),
            (1, 1, [0.5, 0.6], CropBox { top: 0, left: 0, height: 1, width: 1 }),
            (10, 1, [100.0, 100.0], CropBox { top: 0, left: 0, height: 1, width: 10 }),
        ] {
            assert_eq!(sample(0, width, height, [1.0, 1.0], aspect), want, "{width}x{height}");
        }
    }

    #[test]
    fn a_certain_square_is_the_whole_square() {
        let whole = CropBox { top: 0, left: 0, height: 32, width: 32 };
        assert!((0..100).all(|seed| sample(seed, 32, 32, [1.0, 1.0], [1.0, 1.0]) == whole));
    }

    proptest! {
        #[test]
        fn boxes_lie_within_their_picture(
            seed: u64,
            width in prop_oneof![1_u32..50, 1_u32..5000, Just(u32::MAX)],
            height in prop_oneof![1_u32..50, 1_u32..5000, Just(u32::MAX)],
            area in (0.001_f32..1.0, 0.001_f32..1.0),
            log_aspect in (-4.6_f32..4.6, -4.6_f32..4.6),
        ) {
            let area = [area.0.min(area.1), area.0.max(area.1)];
            let aspect = [log_aspect.0.min(log_aspect.1).exp(), log_aspect.0.max(log_aspect.1).exp()];
            let crop = sample(seed, width, height, area, aspect);
            prop_assert!(crop.width >= 1 && crop.left <= width - crop.width, "{:?}", crop);
            prop_assert!(crop.height >= 1 && crop.top <= height - crop.height, "{:?}", crop);
        }
    }
}
