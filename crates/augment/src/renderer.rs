//! Carrying out plans, one view after the other, in memory that is used again.

use twoview_pixels::{
    BlurKind, ColorOp, CropBox, Filter, Image, Instructions, Planes, Workspace, apply_colors, gaussian_blur,
    horizontal_flip, quarter_turn, resized_crop, vertical_flip,
};

use crate::augment_config::MAX_KERNEL_PX;
use crate::{BlurMethod, PlannedOp, RenderError, ResizeFilter, ViewPlan};

/// Makes views from plans. One for each thread.
///
/// What it makes depends on the plan and the picture alone, not on what it made before.
///
/// # Example
/// ```
/// use twoview_augment::{PlannedOp, Renderer, ViewPlan};
/// use twoview_pixels::{Image, Planes};
///
/// let mut renderer = Renderer::default();
/// let plan = ViewPlan { source_width: 2, source_height: 1, ops: vec![PlannedOp::Solarize { threshold: 5 }] };
/// let image = Image::from_rgb8(2, 1, vec![1, 2, 3, 4, 5, 6])?;
/// assert_eq!(renderer.render(&plan, &image)?.as_chw(), [1, 4, 2, 250, 3, 249]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Renderer {
    workspace: Workspace,
    view: Planes,
    colors: Vec<ColorOp>,
}

impl Renderer {
    /// A renderer whose kernels run on these instructions, which change nothing but its speed.
    pub fn new(instructions: Instructions) -> Renderer {
        Renderer { workspace: Workspace::new(instructions), ..Renderer::default() }
    }

    /// The instructions that kernels run on.
    pub fn instructions(&self) -> Instructions {
        self.workspace.instructions()
    }

    /// Makes the view that a plan describes. It stays until the next call.
    ///
    /// # Errors
    /// [`RenderError`] if the plan was drawn for a picture of another size or holds impossible parameters.
    ///
    /// # Cost
    /// Nothing is allocated once the buffers have grown to the largest picture.
    pub fn render(&mut self, plan: &ViewPlan, image: &Image) -> Result<&Planes, RenderError> {
        let (width, height) = (image.width(), image.height());
        if (width, height) != (plan.source_width, plan.source_height) {
            let (expected_width, expected_height) = (plan.source_width, plan.source_height);
            return Err(RenderError::OtherSize { expected_width, expected_height, width, height });
        }
        self.colors.clear();
        let mut ops = plan.ops.as_slice();
        match ops {
            // The crop can mirror on its way.
            [crop @ PlannedOp::ResizedCrop { .. }, PlannedOp::HorizontalFlip, rest @ ..] => {
                self.crop(crop, image, true)?;
                ops = rest;
            }
            [crop @ PlannedOp::ResizedCrop { .. }, rest @ ..] => {
                self.crop(crop, image, false)?;
                ops = rest;
            }
            _ => self.view.copy_from(image),
        }
        for op in ops {
            if let Some(color) = op.as_color() {
                self.colors.push(color);
                continue;
            }
            self.apply_colors();
            match *op {
                PlannedOp::ResizedCrop { .. } => {
                    let image = self.view.to_image();
                    self.crop(op, &image, false)?;
                }
                PlannedOp::HorizontalFlip => horizontal_flip(&mut self.view),
                PlannedOp::VerticalFlip => vertical_flip(&mut self.view),
                PlannedOp::QuarterTurns { turns } => quarter_turn(&mut self.view, turns),
                PlannedOp::GaussianBlur { method, kernel_px, sigma } => {
                    if kernel_px % 2 == 0 || kernel_px > MAX_KERNEL_PX {
                        return Err(RenderError::Kernel { kernel_px });
                    }
                    let kind = match method {
                        BlurMethod::Torchvision => BlurKind::Torchvision,
                        BlurMethod::Simclr => BlurKind::Simclr,
                        BlurMethod::Pillow => BlurKind::Pillow,
                    };
                    gaussian_blur(&mut self.view, kind, kernel_px, sigma.into(), &mut self.workspace);
                }
                _ => {}
            }
        }
        self.apply_colors();
        Ok(&self.view)
    }

    /// The colour operations that have gathered, in one go.
    fn apply_colors(&mut self) {
        if !self.colors.is_empty() {
            apply_colors(&mut self.view, &self.colors, self.workspace.instructions());
            self.colors.clear();
        }
    }

    fn crop(&mut self, op: &PlannedOp, image: &Image, mirrored: bool) -> Result<(), RenderError> {
        if let PlannedOp::ResizedCrop { top, left, height, width, size_px, filter } = *op {
            let crop = CropBox { top, left, height, width };
            let filter = match filter {
                ResizeFilter::Bilinear => Filter::Bilinear,
                ResizeFilter::Bicubic => Filter::Bicubic,
            };
            let workspace = &mut self.workspace;
            resized_crop(image, crop, size_px, size_px, filter, mirrored, workspace, &mut self.view)?;
        }
        Ok(())
    }
}

impl PlannedOp {
    fn as_color(&self) -> Option<ColorOp> {
        Some(match *self {
            PlannedOp::Brightness { factor } => ColorOp::Brightness(factor.into()),
            PlannedOp::Contrast { factor } => ColorOp::Contrast(factor.into()),
            PlannedOp::Saturation { factor } => ColorOp::Saturation(factor.into()),
            PlannedOp::Hue { turns } => ColorOp::Hue(turns.into()),
            PlannedOp::Grayscale => ColorOp::Grayscale,
            PlannedOp::Solarize { threshold } => ColorOp::Solarize(threshold),
            _ => return None,
        })
    }
}
