//! Mirroring and turning by right angles: nothing is computed, only moved.

use crate::Planes;

/// Mirrors the picture: the left column becomes the right one.
///
/// ```
/// use twoview_pixels::{Image, Planes, horizontal_flip};
///
/// let mut planes = Planes::from(&Image::from_rgb8(2, 1, vec![1, 2, 3, 4, 5, 6])?);
/// horizontal_flip(&mut planes);
/// assert_eq!(planes.to_image().as_rgb8(), [4, 5, 6, 1, 2, 3]);
/// # Ok::<(), twoview_pixels::ImageError>(())
/// ```
pub fn horizontal_flip(planes: &mut Planes) {
    let width = planes.width() as usize;
    for plane in planes.channels_mut() {
        plane.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
}

/// Turns the picture upside down without turning it: the top row becomes the bottom one.
pub fn vertical_flip(planes: &mut Planes) {
    let (width, height) = (planes.width() as usize, planes.height() as usize);
    for plane in planes.channels_mut() {
        let (upper, lower) = plane.split_at_mut(height / 2 * width);
        let lower = lower.rchunks_exact_mut(width);
        upper.chunks_exact_mut(width).zip(lower).for_each(|(one, other)| one.swap_with_slice(other));
    }
}

/// Turns a square picture by `turns` right angles, counter-clockwise as `torch.rot90` and `numpy.rot90` do.
///
/// A picture that is not square is turned by an even number of right angles only and otherwise left as it is: its views
/// would have other sides.
///
/// ```
/// use twoview_pixels::{Planes, Image, quarter_turn};
///
/// let grey = |levels: [u8; 4]| Image::from_rgb8(2, 2, levels.into_iter().flat_map(|v| [v; 3]).collect());
/// let mut planes = Planes::from(&grey([1, 2, 3, 4])?);
/// quarter_turn(&mut planes, 1);
/// assert_eq!(planes.to_image(), grey([2, 4, 1, 3])?);
/// # Ok::<(), twoview_pixels::ImageError>(())
/// ```
pub fn quarter_turn(planes: &mut Planes, turns: u32) {
    let side = planes.width() as usize;
    match turns % 4 {
        0 => {}
        2 => planes.channels_mut().into_iter().for_each(<[u8]>::reverse),
        odd if planes.width() == planes.height() => {
            for plane in planes.channels_mut() {
                for row in 0..side {
                    for column in 0..row {
                        plane.swap(row * side + column, column * side + row);
                    }
                }
            }
            if odd == 1 { vertical_flip(planes) } else { horizontal_flip(planes) }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Image;

    #[test]
    fn turns_add_up() {
        let image = Image::from_rgb8(5, 5, (0..75).collect()).expect("5x5 pixels");
        let turned = |turns| {
            let mut planes = Planes::from(&image);
            quarter_turn(&mut planes, turns);
            planes
        };
        let mut step = Planes::from(&image);
        for turns in 1..=4 {
            quarter_turn(&mut step, 1);
            assert!(step == turned(turns), "{turns}");
        }
        let mut both = Planes::from(&image);
        horizontal_flip(&mut both);
        vertical_flip(&mut both);
        assert!(both == turned(2));
    }

    #[test]
    fn a_flip_undoes_itself_on_any_sides() {
        for (width, height) in [(3, 4), (4, 3), (1, 5), (5, 1)] {
            let image = Image::from_rgb8(width, height, (0..=u8::MAX).take((3 * width * height) as usize).collect());
            let planes = Planes::from(&image.expect("the right length"));
            let mut flipped = planes.clone();
            vertical_flip(&mut flipped);
            assert!(height == 1 || flipped != planes);
            vertical_flip(&mut flipped);
            assert!(flipped == planes);
        }
    }
}
