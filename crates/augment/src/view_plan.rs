//! Every decision about one view, as plain data.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use twoview_pixels::{
    CropBox, CropError, Filter, Image, brightness, contrast, gaussian_blur, grayscale, horizontal_flip, hue,
    resized_crop, saturation, solarize,
};

use crate::ResizeFilter;
use crate::augment_config::MAX_KERNEL_PX;

/// What happens to a picture to become one view, drawn by [`Augment::plan`](crate::Augment::plan).
///
/// Nothing in it is random any more, so a plan that was stored makes the same view again.
///
/// # Example
/// ```
/// use twoview_augment::ViewPlan;
/// use twoview_pixels::Image;
///
/// let plan: ViewPlan = serde_json::from_str(
///     r#"{"source_width": 2, "source_height": 1, "ops": [{"op": "horizontal_flip"}, {"op": "solarize", "threshold": 5}]}"#,
/// )?;
/// let image = Image::from_rgb8(2, 1, vec![1, 2, 3, 4, 5, 6])?;
/// assert_eq!(plan.render(&image)?.as_rgb8(), [4, 250, 249, 1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewPlan {
    /// Width in pixels of the picture the plan was drawn for.
    pub source_width: u32,
    /// Height in pixels of the picture the plan was drawn for.
    pub source_height: u32,
    /// In the order of execution.
    pub ops: Vec<PlannedOp>,
}

/// One step with all its parameters. Steps that were drawn not to happen are absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum PlannedOp {
    /// A box, resized to a square; see [`resized_crop`].
    ResizedCrop {
        /// Rows above the box.
        top: u32,
        /// Columns to the left of it.
        left: u32,
        /// Its rows.
        height: u32,
        /// Its columns.
        width: u32,
        /// Side of the result in pixels.
        size_px: u32,
        /// How it is resized.
        filter: ResizeFilter,
    },
    /// See [`horizontal_flip`].
    HorizontalFlip,
    /// See [`brightness`].
    Brightness {
        /// 1 changes nothing.
        factor: f32,
    },
    /// See [`contrast`].
    Contrast {
        /// 1 changes nothing.
        factor: f32,
    },
    /// See [`saturation`].
    Saturation {
        /// 1 changes nothing.
        factor: f32,
    },
    /// See [`hue`].
    Hue {
        /// Share of the colour circle; 0 changes nothing.
        turns: f32,
    },
    /// See [`grayscale`].
    Grayscale,
    /// See [`gaussian_blur`].
    GaussianBlur {
        /// Taps per side.
        kernel_px: u32,
        /// Standard deviation in pixels.
        sigma: f32,
    },
    /// See [`solarize`].
    Solarize {
        /// Smallest value that is inverted.
        threshold: u8,
    },
}

/// Why a plan cannot be carried out. A plan just drawn for the same picture can; a stored one may have been changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// The picture has other sides than the one the plan was drawn for.
    #[error("the plan was drawn for a {expected_width}x{expected_height} picture, got {width}x{height}")]
    OtherSize {
        /// Width of the picture the plan was drawn for.
        expected_width: u32,
        /// Its height.
        expected_height: u32,
        /// Width of the picture handed over.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// The crop is impossible.
    #[error(transparent)]
    Crop(#[from] CropError),
    /// The kernel of a blur is even or longer than any configuration allows.
    #[error("kernel_px of a planned gaussian_blur must be an odd number up to {MAX_KERNEL_PX}, got {kernel_px}")]
    Kernel {
        /// Taps per side in the plan.
        kernel_px: u32,
    },
}

impl ViewPlan {
    /// Makes the view: a pure function of the plan and the picture.
    ///
    /// # Errors
    /// [`RenderError`] if the plan was drawn for a picture of another size or holds impossible parameters.
    pub fn render(&self, image: &Image) -> Result<Image, RenderError> {
        let (width, height) = (image.width(), image.height());
        if (width, height) != (self.source_width, self.source_height) {
            let (expected_width, expected_height) = (self.source_width, self.source_height);
            return Err(RenderError::OtherSize { expected_width, expected_height, width, height });
        }
        // A crop makes a new picture; only a plan that begins without one needs a copy.
        let mut view = Cow::Borrowed(image);
        for op in &self.ops {
            op.apply(&mut view)?;
        }
        Ok(view.into_owned())
    }
}

impl PlannedOp {
    fn apply(&self, view: &mut Cow<'_, Image>) -> Result<(), RenderError> {
        match *self {
            PlannedOp::ResizedCrop { top, left, height, width, size_px, filter } => {
                let crop = CropBox { top, left, height, width };
                let filter = match filter {
                    ResizeFilter::Bilinear => Filter::Bilinear,
                    ResizeFilter::Bicubic => Filter::Bicubic,
                };
                *view = Cow::Owned(resized_crop(view, crop, size_px, size_px, filter)?);
            }
            PlannedOp::HorizontalFlip => horizontal_flip(view.to_mut()),
            PlannedOp::Brightness { factor } => brightness(view.to_mut(), factor.into()),
            PlannedOp::Contrast { factor } => contrast(view.to_mut(), factor.into()),
            PlannedOp::Saturation { factor } => saturation(view.to_mut(), factor.into()),
            PlannedOp::Hue { turns } => hue(view.to_mut(), turns.into()),
            PlannedOp::Grayscale => grayscale(view.to_mut()),
            PlannedOp::GaussianBlur { kernel_px, sigma } => {
                if kernel_px % 2 == 0 || kernel_px > MAX_KERNEL_PX {
                    return Err(RenderError::Kernel { kernel_px });
                }
                gaussian_blur(view.to_mut(), kernel_px, sigma.into());
            }
            PlannedOp::Solarize { threshold } => solarize(view.to_mut(), threshold),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ops: &[PlannedOp], want: &str) {
        let image = Image::filled(4, 3, [1, 2, 3]).expect("a valid size");
        let plan = ViewPlan { source_width: 4, source_height: 3, ops: ops.to_vec() };
        assert_eq!(plan.render(&image).expect_err("an impossible plan").to_string(), want);
    }

    #[test]
    fn impossible_plans_are_errors() {
        check(
            &[PlannedOp::GaussianBlur { kernel_px: u32::MAX, sigma: 1.0 }],
            "kernel_px of a planned gaussian_blur must be an odd number up to 511, got 4294967295",
        );
        let crop =
            PlannedOp::ResizedCrop { top: 0, left: 2, height: 3, width: 3, size_px: 8, filter: ResizeFilter::Bilinear };
        check(
            &[PlannedOp::HorizontalFlip, crop],
            "the crop CropBox { top: 0, left: 2, height: 3, width: 3 } does not lie within the 4x3 picture",
        );
        let other = ViewPlan { source_width: 3, source_height: 4, ops: Vec::new() };
        let error = other.render(&Image::filled(4, 3, [0; 3]).expect("a valid size")).expect_err("another size");
        assert_eq!(error.to_string(), "the plan was drawn for a 3x4 picture, got 4x3");
    }

    #[test]
    fn an_empty_plan_is_a_copy() {
        let image = Image::filled(4, 3, [1, 2, 3]).expect("a valid size");
        let plan = ViewPlan { source_width: 4, source_height: 3, ops: Vec::new() };
        assert!(plan.render(&image) == Ok(image));
    }
}
