//! What can happen to a picture on its way to a view: the list of transforms, as written in a run file.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Augment, Recipe};

/// One transform and the ranges its parameters are drawn from.
///
/// `p` is the probability that the transform happens at all. Every value is written out: none of them has a default
/// except the filter and whose blur it is, because each changes the result.
///
/// # Example
/// ```
/// use twoview_augment::{BlurMethod, TransformConfig};
///
/// let blur_of = |kernel_px| TransformConfig::GaussianBlur {
///     p: 0.5,
///     kernel_px,
///     sigma: [0.1, 2.0],
///     method: BlurMethod::Torchvision,
/// };
/// let blur: TransformConfig =
///     serde_json::from_str(r#"{"op": "gaussian_blur", "p": 0.5, "kernel_px": 23, "sigma": [0.1, 2.0]}"#)?;
/// assert_eq!(blur, blur_of(23));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum TransformConfig {
    /// Cuts a random box and resizes it to a square. Every list begins with this one and has no second.
    RandomResizedCrop {
        /// Side of the view in pixels, 1 to 4096.
        size_px: u32,
        /// Share of the picture's area that the box covers, `[low, high]` within 0 to 1; uniform.
        area: [f32; 2],
        /// Width over height of the box, `[low, high]` within 0.01 to 100; uniform in the logarithm.
        aspect: [f32; 2],
        /// How the box is resized.
        #[serde(default)]
        filter: ResizeFilter,
    },
    /// Mirrors left and right.
    HorizontalFlip {
        /// Probability.
        p: f32,
    },
    /// Turns the picture upside down: for pictures without an up and a down, seen from above or through a microscope.
    VerticalFlip {
        /// Probability.
        p: f32,
    },
    /// Turns the picture by one, two or three right angles, equally likely; for the same pictures. No pixel is computed.
    QuarterTurns {
        /// Probability that it is turned at all; 0.75 makes the four positions equally likely.
        p: f32,
    },
    /// Changes brightness, contrast, saturation and hue, in random order.
    ///
    /// A strength `x` means a factor uniform in `[max(0, 1 − x), 1 + x]`; a strength of 0 leaves that step out.
    ColorJitter {
        /// Probability of the whole transform.
        p: f32,
        /// Strength of the brightness factor, at least 0.
        brightness: f32,
        /// Strength of the contrast factor, at least 0.
        contrast: f32,
        /// Strength of the saturation factor, at least 0.
        saturation: f32,
        /// The hue turns by a share of the circle that is uniform in `[−hue, hue]`; 0 to 0.5.
        hue: f32,
    },
    /// Replaces the colours by their grey value.
    Grayscale {
        /// Probability.
        p: f32,
    },
    /// Blurs with a Gaussian.
    GaussianBlur {
        /// Probability.
        p: f32,
        /// Taps of the kernel per side, odd, 3 to 511. The recipe: a tenth of the view.
        kernel_px: u32,
        /// Standard deviation in pixels, `[low, high]`, above 0 and at most 1000; uniform.
        sigma: [f32; 2],
        /// Whose blur; that of Pillow has no use for `kernel_px`.
        #[serde(default)]
        method: BlurMethod,
    },
    /// Inverts the values of at least `threshold`.
    Solarize {
        /// Probability.
        p: f32,
        /// 0 inverts everything, 255 only the white.
        threshold: u8,
    },
}

/// The filter of a crop, as written in a run file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ResizeFilter {
    /// Antialiased triangle. The default, as in torchvision.
    #[default]
    Bilinear,
    /// Antialiased cubic with `a = −1/2`.
    Bicubic,
}

/// Whose blur, as written in a run file; see [`BlurKind`](twoview_pixels::BlurKind).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BlurMethod {
    /// torchvision's. The default.
    #[default]
    Torchvision,
    /// That of the SimCLR authors' code.
    Simclr,
    /// Pillow's three boxes, which lightly and solo-learn use.
    Pillow,
}

/// The transforms in the order a picture meets them, drawn anew for each view.
///
/// # Example
/// ```
/// use twoview_augment::AugmentConfig;
///
/// let config: AugmentConfig = serde_json::from_str(
///     r#"[
///         {"op": "random_resized_crop", "size_px": 32, "area": [0.08, 1.0], "aspect": [0.75, 1.3333334]},
///         {"op": "horizontal_flip", "p": 0.5},
///         {"op": "color_jitter", "p": 1.5, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
///     ]"#,
/// )?;
/// let error = config.init().unwrap_err();
/// assert_eq!(error.to_string(), "augment[2] (color_jitter): p must be a number from 0 to 1, got 1.5");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct AugmentConfig(pub Vec<TransformConfig>);

/// Reads a list of transforms, or the name of a [`Recipe`] with the size of its views, which stands for its list.
impl<'de> Deserialize<'de> for AugmentConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListOrRecipe;

        impl<'de> Visitor<'de> for ListOrRecipe {
            type Value = AugmentConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of transforms, or { recipe = NAME, size_px = N }")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<AugmentConfig, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(AugmentConfig)
            }

            fn visit_map<A: MapAccess<'de>>(self, keys: A) -> Result<AugmentConfig, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Named {
                    recipe: Recipe,
                    size_px: u32,
                }
                let Named { recipe, size_px } = Named::deserialize(MapAccessDeserializer::new(keys))?;
                Ok(recipe.config(size_px))
            }
        }

        deserializer.deserialize_any(ListOrRecipe)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for AugmentConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AugmentConfig".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let list = generator.subschema_for::<Vec<TransformConfig>>();
        let recipe = generator.subschema_for::<Recipe>();
        schemars::json_schema!({
            "description": "a list of transforms, or a recipe that stands for its list",
            "anyOf": [list, {
                "type": "object",
                "properties": { "recipe": recipe, "size_px": { "type": "integer", "minimum": 1, "maximum": 4096 } },
                "required": ["recipe", "size_px"],
                "additionalProperties": false,
            }],
        })
    }
}

/// Why a list of transforms is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AugmentError {
    /// The list is empty.
    #[error("augment is empty: its first op must be random_resized_crop, which gives views their size")]
    Empty,
    /// The first transform is not the crop, so views would have no common size.
    #[error("augment[0]: the first op must be random_resized_crop, which gives views their size, got {got}")]
    FirstIsNotACrop {
        /// The first transform.
        got: &'static str,
    },
    /// A second crop.
    #[error("augment[{index}]: only augment[0] can be random_resized_crop; remove this one")]
    SecondCrop {
        /// Place in the list, from 0.
        index: usize,
    },
    /// More transforms of a kind than there are random streams for.
    #[error("augment[{index}]: {op} can be listed at most {limit} times; remove this one")]
    TooMany {
        /// Place in the list, from 0.
        index: usize,
        /// Kind of the transform.
        op: &'static str,
        /// How many are possible.
        limit: usize,
    },
    /// A value outside its range.
    #[error("augment[{index}] ({op}): {key} must be {expected}, got {got}")]
    OutOfRange {
        /// Place in the list, from 0.
        index: usize,
        /// Kind of the transform.
        op: &'static str,
        /// Name of the value.
        key: &'static str,
        /// What the value may be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
}

/// Streams per kind of transform: the second half of the op byte.
const MAX_OCCURRENCES: usize = 16;

/// Longest kernel of a blur, in taps per side.
pub(crate) const MAX_KERNEL_PX: u32 = 511;

impl AugmentConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`AugmentError`], which names the place in the list, the key, what was expected and what was found.
    pub fn init(&self) -> Result<Augment, AugmentError> {
        let Some(first) = self.0.first() else { return Err(AugmentError::Empty) };
        let &TransformConfig::RandomResizedCrop { size_px, .. } = first else {
            return Err(AugmentError::FirstIsNotACrop { got: first.name() });
        };
        let mut transforms = Vec::new();
        let mut occurrences = [0_u8; 16];
        for (index, transform) in self.0.iter().enumerate() {
            if index > 0 && matches!(transform, TransformConfig::RandomResizedCrop { .. }) {
                return Err(AugmentError::SecondCrop { index });
            }
            transform.check(index)?;
            let kind = transform.kind();
            let occurrence = &mut occurrences[usize::from(kind)];
            if usize::from(*occurrence) == MAX_OCCURRENCES {
                return Err(AugmentError::TooMany { index, op: transform.name(), limit: MAX_OCCURRENCES });
            }
            transforms.push((kind << 4 | *occurrence, transform.clone()));
            *occurrence += 1;
        }
        Ok(Augment::from_checked(size_px, transforms))
    }
}

impl TransformConfig {
    /// Its name in a run file.
    fn name(&self) -> &'static str {
        match self {
            TransformConfig::RandomResizedCrop { .. } => "random_resized_crop",
            TransformConfig::HorizontalFlip { .. } => "horizontal_flip",
            TransformConfig::VerticalFlip { .. } => "vertical_flip",
            TransformConfig::QuarterTurns { .. } => "quarter_turns",
            TransformConfig::ColorJitter { .. } => "color_jitter",
            TransformConfig::Grayscale { .. } => "grayscale",
            TransformConfig::GaussianBlur { .. } => "gaussian_blur",
            TransformConfig::Solarize { .. } => "solarize",
        }
    }

    /// The first half of the op byte of its random stream, below 8. Another number is another run.
    fn kind(&self) -> u8 {
        match self {
            TransformConfig::RandomResizedCrop { .. } => 0,
            TransformConfig::HorizontalFlip { .. } => 1,
            TransformConfig::ColorJitter { .. } => 2,
            TransformConfig::Grayscale { .. } => 3,
            TransformConfig::GaussianBlur { .. } => 4,
            TransformConfig::Solarize { .. } => 5,
            TransformConfig::VerticalFlip { .. } => 6,
            TransformConfig::QuarterTurns { .. } => 7,
        }
    }

    /// Checks the values of the transform at a place of the list.
    fn check(&self, index: usize) -> Result<(), AugmentError> {
        // Written so that a value that is not a number fails.
        let require = |key, holds: bool, expected, got: String| match holds {
            true => Ok(()),
            false => Err(AugmentError::OutOfRange { index, op: self.name(), key, expected, got }),
        };
        let probability = |p: f32| require("p", (0.0..=1.0).contains(&p), "a number from 0 to 1", p.to_string());
        let strength = |key, x: f32| {
            require(key, (0.0..=f32::MAX).contains(&x), "a number of at least 0; 0 leaves the step out", x.to_string())
        };
        match *self {
            TransformConfig::RandomResizedCrop { size_px, area, aspect, filter: _ } => {
                require("size_px", (1..=4096).contains(&size_px), "from 1 to 4096", size_px.to_string())?;
                let expected = "[low, high] with 0 < low <= high <= 1";
                require("area", area[0] > 0.0 && is_range(area, 0.0, 1.0), expected, format!("{area:?}"))?;
                let expected = "[low, high] with 0.01 <= low <= high <= 100";
                require("aspect", is_range(aspect, 0.01, 100.0), expected, format!("{aspect:?}"))
            }
            TransformConfig::ColorJitter { p, brightness, contrast, saturation, hue } => {
                probability(p)?;
                strength("brightness", brightness)?;
                strength("contrast", contrast)?;
                strength("saturation", saturation)?;
                let expected = "a number from 0 to 0.5; 0 leaves the step out";
                require("hue", (0.0..=0.5).contains(&hue), expected, hue.to_string())
            }
            TransformConfig::GaussianBlur { p, kernel_px, sigma, method: _ } => {
                probability(p)?;
                let holds = (3..=MAX_KERNEL_PX).contains(&kernel_px) && kernel_px % 2 == 1;
                require("kernel_px", holds, "an odd number from 3 to 511", kernel_px.to_string())?;
                let expected = "[low, high] with 0 < low <= high <= 1000";
                require("sigma", sigma[0] > 0.0 && is_range(sigma, 0.0, 1000.0), expected, format!("{sigma:?}"))
            }
            TransformConfig::HorizontalFlip { p }
            | TransformConfig::VerticalFlip { p }
            | TransformConfig::QuarterTurns { p }
            | TransformConfig::Grayscale { p }
            | TransformConfig::Solarize { p, threshold: _ } => probability(p),
        }
    }
}

/// Whether `lowest <= low <= high <= highest`.
fn is_range([low, high]: [f32; 2], lowest: f32, highest: f32) -> bool {
    lowest <= low && low <= high && high <= highest
}

#[cfg(test)]
mod tests {
    use super::*;

    const CROP: TransformConfig = TransformConfig::RandomResizedCrop {
        size_px: 8,
        area: [0.5, 1.0],
        aspect: [1.0, 1.0],
        filter: ResizeFilter::Bilinear,
    };

    #[track_caller]
    fn check(transforms: Vec<TransformConfig>, want: &str) {
        let error = AugmentConfig(transforms).init().expect_err("a refused list");
        assert_eq!(error.to_string(), want);
    }

    #[test]
    fn errors_name_place_key_expected_and_got() {
        use TransformConfig::*;
        let crop = |size_px, area, aspect| RandomResizedCrop { size_px, area, aspect, filter: ResizeFilter::Bicubic };
        check(vec![], "augment is empty: its first op must be random_resized_crop, which gives views their size");
        check(
            vec![Grayscale { p: 0.2 }, CROP],
            "augment[0]: the first op must be random_resized_crop, which gives views their size, got grayscale",
        );
        check(vec![CROP, CROP], "augment[1]: only augment[0] can be random_resized_crop; remove this one");
        check(
            vec![crop(0, [0.1, 1.0], [1.0, 1.0])],
            "augment[0] (random_resized_crop): size_px must be from 1 to 4096, got 0",
        );
        check(
            vec![crop(8, [0.0, 1.0], [1.0, 1.0])],
            "augment[0] (random_resized_crop): area must be [low, high] with 0 < low <= high <= 1, got [0.0, 1.0]",
        );
        check(
            vec![crop(8, [0.1, 1.0], [2.0, 1.0])],
            "augment[0] (random_resized_crop): aspect must be [low, high] with 0.01 <= low <= high <= 100, got [2.0, 1.0]",
        );
        check(
            vec![CROP, HorizontalFlip { p: f32::NAN }],
            "augment[1] (horizontal_flip): p must be a number from 0 to 1, got NaN",
        );
        let jitter = |saturation, hue| ColorJitter { p: 0.8, brightness: 0.4, contrast: 0.4, saturation, hue };
        check(
            vec![CROP, jitter(-0.4, 0.1)],
            "augment[1] (color_jitter): saturation must be a number of at least 0; 0 leaves the step out, got -0.4",
        );
        check(
            vec![CROP, jitter(0.4, 0.6)],
            "augment[1] (color_jitter): hue must be a number from 0 to 0.5; 0 leaves the step out, got 0.6",
        );
        let blur = |kernel_px, sigma| GaussianBlur { p: 0.5, kernel_px, sigma, method: BlurMethod::Torchvision };
        check(
            vec![CROP, blur(22, [0.1, 2.0])],
            "augment[1] (gaussian_blur): kernel_px must be an odd number from 3 to 511, got 22",
        );
        check(
            vec![CROP, blur(23, [0.1, f32::INFINITY])],
            "augment[1] (gaussian_blur): sigma must be [low, high] with 0 < low <= high <= 1000, got [0.1, inf]",
        );
        let many = std::iter::once(CROP).chain((0..17).map(|_| Grayscale { p: 0.1 })).collect();
        check(many, "augment[17]: grayscale can be listed at most 16 times; remove this one");
    }

    #[test]
    fn survives_serialization() {
        let config = AugmentConfig(vec![
            CROP,
            TransformConfig::ColorJitter { p: 0.8, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 },
            TransformConfig::Solarize { p: 0.2, threshold: 128 },
        ]);
        let text = serde_json::to_string(&config).expect("serializable");
        assert!(text.starts_with(r#"[{"op":"random_resized_crop","size_px":8,"area":[0.5,1.0]"#), "{text}");
        assert_eq!(serde_json::from_str::<AugmentConfig>(&text).expect("the same list"), config);
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = serde_json::from_str::<TransformConfig>(r#"{"op": "grayscale", "p": 0.2, "q": 1}"#)
            .expect_err("an unknown key");
        assert!(error.to_string().contains("unknown field `q`, expected `p`"), "{error}");
    }
}
