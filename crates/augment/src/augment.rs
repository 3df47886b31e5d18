//! A checked list of transforms, ready to draw views.

use crate::crop_sampler::sample_crop;
use crate::{PlannedOp, Stream, TransformConfig, ViewKey, ViewPlan};

/// Draws the plan of any view of any picture; made by [`AugmentConfig::init`](crate::AugmentConfig::init).
///
/// # Example
/// ```
/// use twoview_augment::{AugmentConfig, PlannedOp, ResizeFilter, TransformConfig, ViewKey};
///
/// let crop = TransformConfig::RandomResizedCrop {
///     size_px: 24,
///     area: [1.0, 1.0],
///     aspect: [1.0, 1.0],
///     filter: ResizeFilter::Bilinear,
/// };
/// let augment = AugmentConfig(vec![crop, TransformConfig::Grayscale { p: 1.0 }]).init()?;
/// let key = ViewKey { seed: 0, epoch: 0, sample: 0, view: 1 };
/// let plan = augment.plan(&key, 40, 40);
/// assert_eq!(plan.ops.len(), 2);
/// assert_eq!(plan.ops[1], PlannedOp::Grayscale);
/// assert_eq!(plan, augment.plan(&key, 40, 40));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Augment {
    size_px: u32,
    /// With the op byte of the random stream of each.
    transforms: Vec<(u8, TransformConfig)>,
}

impl Augment {
    /// Takes transforms whose values were checked, the first of them the crop.
    pub(crate) fn from_checked(size_px: u32, transforms: Vec<(u8, TransformConfig)>) -> Augment {
        Augment { size_px, transforms }
    }

    /// Side of every view in pixels; views are square.
    pub fn size_px(&self) -> u32 {
        self.size_px
    }

    /// Draws all random decisions of one view of a picture of `width` by `height` pixels (a side of 0 counts as 1).
    ///
    /// # Conventions
    /// Each transform draws from its own stream, addressed by its kind and by how many of that kind precede it: first
    /// whether it happens, then its parameters. The color jitter draws its order and all four parameters whatever
    /// the strengths, as torchvision does. So a transform's draws depend on no other transform and on no other
    /// probability.
    ///
    /// # Cost
    /// A few blocks of the generator per transform, far less than rendering; nothing is allocated but the list.
    pub fn plan(&self, key: &ViewKey, width: u32, height: u32) -> ViewPlan {
        let mut plan = ViewPlan { source_width: 0, source_height: 0, ops: Vec::new() };
        self.plan_into(key, width, height, &mut plan);
        plan
    }

    /// [`plan`](Self::plan) into the memory of an earlier one.
    pub fn plan_into(&self, key: &ViewKey, width: u32, height: u32, plan: &mut ViewPlan) {
        let (width, height) = (width.max(1), height.max(1));
        (plan.source_width, plan.source_height) = (width, height);
        let ops = &mut plan.ops;
        ops.clear();
        for (lane, transform) in &self.transforms {
            let mut stream = Stream::new(key.seed, key.epoch, key.sample, key.view, *lane);
            match *transform {
                TransformConfig::RandomResizedCrop { size_px, area, aspect, filter } => {
                    let crop = sample_crop(&mut stream, width, height, area, aspect);
                    ops.push(PlannedOp::ResizedCrop {
                        top: crop.top,
                        left: crop.left,
                        height: crop.height,
                        width: crop.width,
                        size_px,
                        filter,
                    });
                }
                TransformConfig::HorizontalFlip { p } => {
                    if stream.bool(p) {
                        ops.push(PlannedOp::HorizontalFlip);
                    }
                }
                TransformConfig::VerticalFlip { p } => {
                    if stream.bool(p) {
                        ops.push(PlannedOp::VerticalFlip);
                    }
                }
                TransformConfig::QuarterTurns { p } => {
                    if stream.bool(p) {
                        ops.push(PlannedOp::QuarterTurns { turns: 1 + stream.below(3) });
                    }
                }
                TransformConfig::ColorJitter { p, brightness, contrast, saturation, hue } => {
                    if stream.bool(p) {
                        plan_jitter(&mut stream, [brightness, contrast, saturation, hue], ops);
                    }
                }
                TransformConfig::Grayscale { p } => {
                    if stream.bool(p) {
                        ops.push(PlannedOp::Grayscale);
                    }
                }
                TransformConfig::GaussianBlur { p, kernel_px, sigma, method } => {
                    if stream.bool(p) {
                        let sigma = stream.uniform(sigma[0], sigma[1]);
                        ops.push(PlannedOp::GaussianBlur { method, kernel_px, sigma });
                    }
                }
                TransformConfig::Solarize { p, threshold } => {
                    if stream.bool(p) {
                        ops.push(PlannedOp::Solarize { threshold });
                    }
                }
            }
        }
    }
}

/// Draws the order of the four steps, then their parameters in the order brightness, contrast, saturation, hue.
fn plan_jitter(stream: &mut Stream, strengths: [f32; 4], ops: &mut Vec<PlannedOp>) {
    let mut order = [0, 1, 2, 3];
    for (last, n_left) in [(3, 4), (2, 3), (1, 2)] {
        order.swap(last, stream.below(n_left) as usize);
    }
    let [brightness, contrast, saturation, hue] = strengths;
    let [brightness, contrast, saturation] =
        [brightness, contrast, saturation].map(|x| stream.uniform((1.0 - x).max(0.0), 1.0 + x));
    let turns = stream.uniform(-hue, hue);
    let steps = [
        PlannedOp::Brightness { factor: brightness },
        PlannedOp::Contrast { factor: contrast },
        PlannedOp::Saturation { factor: saturation },
        PlannedOp::Hue { turns },
    ];
    ops.extend(order.into_iter().filter(|&step| strengths[step] > 0.0).map(|step| steps[step].clone()));
}
