//! Random views of a picture, each a pure function of the picture, the configuration and a [`ViewKey`].
//!
//! An [`AugmentConfig`] lists transforms in the order a picture meets them; [`AugmentConfig::init`] checks it and
//! makes an [`Augment`]. [`Augment::plan`] draws every random decision of one view into a [`ViewPlan`], plain data
//! that can be printed, stored and replayed; a [`Renderer`] makes the view without further chance.
//!
//! ```text
//! AugmentConfig -> Augment --(ViewKey, width, height)--> ViewPlan --(Renderer, Image)--> Planes
//! ```
//!
//! The numbers come from a [`Stream`], a generator addressed by (seed, epoch, sample, view, op). It has no state that
//! runs from one sample to the next, so threads, batches and resuming cannot change a view, and each transform has
//! an address of its own, so adding, removing or skipping one does not shift the draws of the others.
//!
//! The transforms and their distributions are torchvision's (`transforms.v2`), which published recipes were run
//! with; only the generator differs.
//!
//! # Example
//! ```
//! use twoview_augment::{AugmentConfig, ResizeFilter, TransformConfig, ViewKey};
//! use twoview_pixels::Image;
//!
//! let crop = TransformConfig::RandomResizedCrop {
//!     size_px: 32,
//!     area: [0.08, 1.0],
//!     aspect: [0.75, 1.3333334],
//!     filter: ResizeFilter::Bilinear,
//! };
//! let augment = AugmentConfig(vec![crop, TransformConfig::HorizontalFlip { p: 0.5 }]).init()?;
//!
//! let image = Image::filled(120, 90, [200, 30, 30])?;
//! let plan = augment.plan(&ViewKey { seed: 0, epoch: 0, sample: 17, view: 0 }, 120, 90);
//! let view = plan.render(&image)?;
//! assert_eq!((view.width(), view.height()), (32, 32));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod augment;
mod augment_config;
mod crop_sampler;
mod multi_crop;
mod recipe;
mod renderer;
mod stream;
mod view_key;
mod view_plan;

pub use crate::augment::Augment;
pub use crate::augment_config::{AugmentConfig, AugmentError, BlurMethod, ResizeFilter, TransformConfig};
pub use crate::multi_crop::{MultiCrop, MultiCropConfig};
pub use crate::recipe::{NoSuchRecipe, Recipe};
pub use crate::renderer::Renderer;
pub use crate::stream::Stream;
pub use crate::view_key::ViewKey;
pub use crate::view_plan::{PlannedOp, RenderError, ViewPlan};
