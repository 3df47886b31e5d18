//! Pictures made to fit.

use twoview_pixels::{CropBox, Filter, Image, Planes, Workspace, resize_center_crop, resized_crop};

/// The picture with its longer side `side_px`, if it is longer.
pub(crate) fn shrunk(picture: &Image, side_px: u32, workspace: &mut Workspace) -> Image {
    let (width, height) = (picture.width(), picture.height());
    let long = width.max(height);
    if long <= side_px {
        return picture.clone();
    }
    let scaled = |side: u32| {
        let scaled = u64::from(side) * u64::from(side_px) / u64::from(long);
        u32::try_from(scaled).unwrap_or(side_px).max(1)
    };
    let whole = CropBox { top: 0, left: 0, height, width };
    let mut out = Planes::default();
    let (width, height) = (scaled(width), scaled(height));
    match resized_crop(picture, whole, width, height, Filter::Bilinear, false, workspace, &mut out) {
        Ok(()) => out.to_image(),
        // Only a picture of millions of pixels in one direction: a dot in its place.
        Err(_) => Image::default(),
    }
}

/// The central square of the picture at `side_px`.
pub(crate) fn squared(picture: &Image, side_px: u32, workspace: &mut Workspace, out: &mut Planes) -> Image {
    match resize_center_crop(picture, side_px, side_px, Filter::Bilinear, workspace, out) {
        Ok(()) => out.to_image(),
        Err(_) => Image::default(),
    }
}
