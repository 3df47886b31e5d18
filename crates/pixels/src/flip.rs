//! Mirroring.

use crate::Image;

/// Mirrors the picture: the left column becomes the right one.
///
/// ```
/// use twoview_pixels::{Image, horizontal_flip};
///
/// let mut image = Image::from_rgb8(2, 1, vec![1, 2, 3, 4, 5, 6])?;
/// horizontal_flip(&mut image);
/// assert_eq!(image.as_rgb8(), [4, 5, 6, 1, 2, 3]);
/// # Ok::<(), twoview_pixels::ImageError>(())
/// ```
pub fn horizontal_flip(image: &mut Image) {
    let width = image.width() as usize;
    for row in image.pixels_mut().chunks_exact_mut(width) {
        row.reverse();
    }
}
