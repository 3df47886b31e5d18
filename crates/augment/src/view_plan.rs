//! Every decision about one view, as plain data.

use std::fmt;

use serde::{Deserialize, Serialize};
use twoview_pixels::{CropError, Image};

use crate::augment_config::MAX_KERNEL_PX;
use crate::{BlurMethod, Renderer, ResizeFilter};

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
    /// A box, resized to a square; see [`resized_crop`](twoview_pixels::resized_crop).
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
    /// See [`horizontal_flip`](twoview_pixels::horizontal_flip).
    HorizontalFlip,
    /// See [`vertical_flip`](twoview_pixels::vertical_flip).
    VerticalFlip,
    /// See [`quarter_turn`](twoview_pixels::quarter_turn).
    QuarterTurns {
        /// Right angles, counter-clockwise.
        turns: u32,
    },
    /// See [`ColorOp::Brightness`](twoview_pixels::ColorOp::Brightness).
    Brightness {
        /// 1 changes nothing.
        factor: f32,
    },
    /// See [`ColorOp::Contrast`](twoview_pixels::ColorOp::Contrast).
    Contrast {
        /// 1 changes nothing.
        factor: f32,
    },
    /// See [`ColorOp::Saturation`](twoview_pixels::ColorOp::Saturation).
    Saturation {
        /// 1 changes nothing.
        factor: f32,
    },
    /// See [`ColorOp::Hue`](twoview_pixels::ColorOp::Hue).
    Hue {
        /// Share of the colour circle; 0 changes nothing.
        turns: f32,
    },
    /// See [`ColorOp::Grayscale`](twoview_pixels::ColorOp::Grayscale).
    Grayscale,
    /// See [`gaussian_blur`](twoview_pixels::gaussian_blur).
    GaussianBlur {
        /// Whose blur.
        #[serde(default)]
        method: BlurMethod,
        /// Taps per side.
        kernel_px: u32,
        /// Standard deviation in pixels.
        sigma: f32,
    },
    /// See [`ColorOp::Solarize`](twoview_pixels::ColorOp::Solarize).
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
    ///
    /// # Cost
    /// Allocates its buffers; a [`Renderer`] keeps them from view to view.
    pub fn render(&self, image: &Image) -> Result<Image, RenderError> {
        Ok(Renderer::default().render(self, image)?.to_image())
    }
}

/// The plan in words, one step after the other: `crop 120x96 at (14, 3) to 32 px, flip, hue +0.04`.
impl fmt::Display for ViewPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ops.is_empty() {
            return f.write_str("nothing");
        }
        for (i, op) in self.ops.iter().enumerate() {
            write!(f, "{}{op}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Display for PlannedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            PlannedOp::ResizedCrop { top, left, height, width, size_px, filter } => {
                write!(f, "crop {width}x{height} at ({left}, {top}) to {size_px} px")?;
                if filter == ResizeFilter::Bicubic { f.write_str(" bicubic") } else { Ok(()) }
            }
            PlannedOp::HorizontalFlip => f.write_str("flip"),
            PlannedOp::VerticalFlip => f.write_str("upside down"),
            PlannedOp::QuarterTurns { turns } => write!(f, "turn {} degrees", 90 * turns),
            PlannedOp::Brightness { factor } => write!(f, "brightness x{factor:.2}"),
            PlannedOp::Contrast { factor } => write!(f, "contrast x{factor:.2}"),
            PlannedOp::Saturation { factor } => write!(f, "saturation x{factor:.2}"),
            PlannedOp::Hue { turns } => write!(f, "hue {turns:+.3}"),
            PlannedOp::Grayscale => f.write_str("gray"),
            PlannedOp::GaussianBlur { sigma, .. } => write!(f, "blur {sigma:.2} px"),
            PlannedOp::Solarize { threshold } => write!(f, "solarize from {threshold}"),
        }
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
            &[PlannedOp::GaussianBlur { method: BlurMethod::Torchvision, kernel_px: u32::MAX, sigma: 1.0 }],
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
