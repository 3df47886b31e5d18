//! Lists of transforms with a name, for a view of any size.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{AugmentConfig, BlurMethod, ResizeFilter, TransformConfig};

/// A published or proven list of transforms.
///
/// A recipe is a way to write a list down; what a run keeps is the list itself.
///
/// # Example
/// ```
/// use twoview_augment::{AugmentConfig, Recipe};
///
/// let recipe: Recipe = "overhead".parse()?;
/// let config = recipe.config(96);
/// assert_eq!(config.init()?.size_px(), 96);
/// // In a run file: `augment = { recipe = "overhead", size_px = 96 }`.
/// let same: AugmentConfig = serde_json::from_str(r#"{"recipe": "overhead", "size_px": 96}"#)?;
/// assert_eq!(same, config);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Recipe {
    /// SimCLR on ImageNet: jitter at full strength, grey, blur over a tenth of the view. Chen et al. 2020, appendix A.
    Imagenet,
    /// SimCLR on CIFAR: jitter at half strength, no blur. Chen et al. 2020, appendix B.9.
    Cifar,
    /// As on CIFAR with larger boxes (at least a fifth of the area) and half as much grey: the recipe behind the best
    /// SimCLR figures on CIFAR-10 with a ResNet-18 (W-MSE, Ermolov et al. 2021; dkobak/simclr-cifar10).
    CifarWeak,
    /// For pictures without an up and a down whose colours carry meaning, from satellites and microscopes: flips both ways,
    /// quarter turns, brightness and contrast, a little blur; no hue, no saturation, no grey.
    Overhead,
    /// For grey pictures: brightness, contrast and blur only, since the other colour operations would do nothing to them.
    Gray,
}

impl Recipe {
    /// All of them.
    pub const ALL: [Recipe; 5] = [Recipe::Imagenet, Recipe::Cifar, Recipe::CifarWeak, Recipe::Overhead, Recipe::Gray];

    /// Its name in run files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Recipe::Imagenet => "imagenet",
            Recipe::Cifar => "cifar",
            Recipe::CifarWeak => "cifar_weak",
            Recipe::Overhead => "overhead",
            Recipe::Gray => "gray",
        }
    }

    /// The transforms, for views of `size_px` by `size_px` pixels.
    pub fn config(self, size_px: u32) -> AugmentConfig {
        let crop = |least: f32| TransformConfig::RandomResizedCrop {
            size_px,
            area: [least, 1.0],
            aspect: [0.75, 1.333_333_4],
            filter: ResizeFilter::Bilinear,
        };
        let flip = TransformConfig::HorizontalFlip { p: 0.5 };
        let jitter = |[brightness, contrast, saturation, hue]: [f32; 4]| TransformConfig::ColorJitter {
            p: 0.8,
            brightness,
            contrast,
            saturation,
            hue,
        };
        let gray = |p| TransformConfig::Grayscale { p };
        let blur = |p| TransformConfig::GaussianBlur {
            p,
            // A tenth of the view, odd.
            kernel_px: ((size_px / 10) | 1).clamp(3, 511),
            sigma: [0.1, 2.0],
            method: BlurMethod::Torchvision,
        };
        AugmentConfig(match self {
            Recipe::Imagenet => vec![crop(0.08), flip, jitter([0.8, 0.8, 0.8, 0.2]), gray(0.2), blur(0.5)],
            Recipe::Cifar => vec![crop(0.08), flip, jitter([0.4, 0.4, 0.4, 0.1]), gray(0.2)],
            Recipe::CifarWeak => vec![crop(0.2), flip, jitter([0.4, 0.4, 0.4, 0.1]), gray(0.1)],
            Recipe::Overhead => vec![
                crop(0.2),
                flip,
                TransformConfig::VerticalFlip { p: 0.5 },
                TransformConfig::QuarterTurns { p: 0.75 },
                jitter([0.4, 0.4, 0.0, 0.0]),
                blur(0.2),
            ],
            Recipe::Gray => vec![crop(0.08), flip, jitter([0.8, 0.8, 0.0, 0.0]), blur(0.5)],
        })
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no recipe of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no augmentation recipe is called {got:?}; there are imagenet, cifar, cifar_weak, overhead and gray")]
pub struct NoSuchRecipe {
    /// What was asked for.
    pub got: String,
}

impl FromStr for Recipe {
    type Err = NoSuchRecipe;

    fn from_str(name: &str) -> Result<Self, NoSuchRecipe> {
        let found = Recipe::ALL.into_iter().find(|recipe| recipe.name() == name);
        found.ok_or_else(|| NoSuchRecipe { got: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_is_valid_at_every_size() {
        for recipe in Recipe::ALL {
            assert_eq!(recipe.name().parse(), Ok(recipe));
            for size_px in [1, 8, 32, 96, 224, 4096] {
                assert!(recipe.config(size_px).init().is_ok(), "{recipe} at {size_px}");
            }
        }
        assert_eq!(
            "imagnet".parse::<Recipe>().expect_err("a slip").to_string(),
            "no augmentation recipe is called \"imagnet\"; there are imagenet, cifar, cifar_weak, overhead and gray"
        );
    }

    #[test]
    fn the_blur_of_a_full_view_has_the_published_kernel() {
        let config = Recipe::Imagenet.config(224);
        assert!(matches!(config.0[4], TransformConfig::GaussianBlur { kernel_px: 23, .. }));
    }
}
