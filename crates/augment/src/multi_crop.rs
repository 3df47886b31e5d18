//! More than two views of a picture: a pair that shows much of it, and small ones that show a detail.

use serde::{Deserialize, Serialize};

use crate::{Augment, AugmentConfig, AugmentError, Recipe, TransformConfig, ViewKey, ViewPlan};

/// Two global views and any number of local ones, each kind with transforms of its own.
///
/// # Source
/// Caron et al., *Unsupervised Learning of Visual Features by Contrasting Cluster Assignments* (SwAV), 2020, section 3.3.
///
/// # Example
/// ```
/// use twoview_augment::{MultiCropConfig, Recipe, ViewKey};
///
/// let views = MultiCropConfig::of(Recipe::Imagenet, 224, 96, 6).init()?;
/// assert_eq!(views.n_views(), 8);
/// let sizes: Vec<u32> = (0..8).map(|view| views.of_view(view).size_px()).collect();
/// assert_eq!(sizes, [224, 224, 96, 96, 96, 96, 96, 96]);
/// # Ok::<(), twoview_augment::AugmentError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultiCropConfig {
    /// How the views 0 and 1 are made.
    pub global: AugmentConfig,
    /// How the views from 2 on are made.
    pub local: AugmentConfig,
    /// How many local views there are.
    pub n_local: u32,
}

impl MultiCropConfig {
    /// A recipe with the boxes of the paper: global ones cover 14 to 100 % of the area, local ones 5 to 14 %.
    pub fn of(recipe: Recipe, global_px: u32, local_px: u32, n_local: u32) -> MultiCropConfig {
        let with_area = |size_px, share: [f32; 2]| {
            let mut config = recipe.config(size_px);
            if let Some(TransformConfig::RandomResizedCrop { area, .. }) = config.0.first_mut() {
                *area = share;
            }
            config
        };
        MultiCropConfig { global: with_area(global_px, [0.14, 1.0]), local: with_area(local_px, [0.05, 0.14]), n_local }
    }

    /// Checks both lists.
    ///
    /// # Errors
    /// [`AugmentError`] of the first list that is not valid.
    pub fn init(&self) -> Result<MultiCrop, AugmentError> {
        Ok(MultiCrop { global: self.global.init()?, local: self.local.init()?, n_local: self.n_local })
    }
}

/// Draws the plan of any view of a multi-crop; made by [`MultiCropConfig::init`].
#[derive(Clone, Debug, PartialEq)]
pub struct MultiCrop {
    global: Augment,
    local: Augment,
    n_local: u32,
}

impl MultiCrop {
    /// Views of each picture, at least 2.
    pub fn n_views(&self) -> u32 {
        2 + self.n_local
    }

    /// What makes a view.
    pub fn of_view(&self, view: u32) -> &Augment {
        if view < 2 { &self.global } else { &self.local }
    }

    /// The plan of the view that `key` names; see [`Augment::plan`].
    pub fn plan(&self, key: &ViewKey, width: u32, height: u32) -> ViewPlan {
        self.of_view(key.view).plan(key, width, height)
    }
}
