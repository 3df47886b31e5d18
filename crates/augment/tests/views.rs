//! What every view keeps: its address, its size, its independence of the other transforms.

use proptest::prelude::*;
use twoview_augment::{
    Augment, AugmentConfig, BlurMethod, PlannedOp, ResizeFilter, TransformConfig, ViewKey, ViewPlan,
};
use twoview_pixels::Image;

fn crop(size_px: u32) -> TransformConfig {
    TransformConfig::RandomResizedCrop {
        size_px,
        area: [0.08, 1.0],
        aspect: [0.75, 1.333_333_4],
        filter: ResizeFilter::Bilinear,
    }
}

fn jitter(p: f32, strength: f32) -> TransformConfig {
    TransformConfig::ColorJitter { p, brightness: strength, contrast: strength, saturation: strength, hue: 0.1 }
}

/// Every transform, each as likely as not.
fn everything(size_px: u32) -> Vec<TransformConfig> {
    vec![
        crop(size_px),
        TransformConfig::HorizontalFlip { p: 0.5 },
        jitter(0.5, 0.8),
        TransformConfig::Grayscale { p: 0.5 },
        TransformConfig::GaussianBlur { p: 0.5, kernel_px: 5, sigma: [0.1, 2.0], method: BlurMethod::Torchvision },
        TransformConfig::Solarize { p: 0.5, threshold: 128 },
        TransformConfig::VerticalFlip { p: 0.5 },
        TransformConfig::QuarterTurns { p: 0.5 },
    ]
}

fn augment(transforms: Vec<TransformConfig>) -> Augment {
    AugmentConfig(transforms).init().expect("a valid list")
}

fn keys(n: u64) -> impl Iterator<Item = ViewKey> {
    (0..n).map(|sample| ViewKey { seed: 11, epoch: 2, sample, view: 1 })
}

/// A picture without symmetries.
fn noise(width: u32, height: u32) -> Image {
    let pixels = (0..width * height * 3).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    Image::from_rgb8(width, height, pixels).expect("a valid size")
}

/// FNV-1a, to pin bytes in a test.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

#[test]
fn every_part_of_the_key_counts() {
    let augment = augment(everything(32));
    let key = ViewKey { seed: 0, epoch: 0, sample: 0, view: 0 };
    let plan = augment.plan(&key, 500, 375);
    assert_eq!(plan, augment.plan(&key, 500, 375));
    for other in [
        ViewKey { seed: 1, ..key },
        ViewKey { epoch: 1, ..key },
        ViewKey { sample: 1, ..key },
        ViewKey { view: 1, ..key },
    ] {
        assert_ne!(plan, augment.plan(&other, 500, 375), "{other:?}");
    }
}

/// The same bytes on every platform and in every later version; a change here changes every run.
#[test]
fn views_are_pinned() {
    let augment = augment(everything(32));
    let image = noise(61, 47);
    let mut bytes = Vec::new();
    for key in keys(64) {
        let view = augment.plan(&key, 61, 47).render(&image).expect("a plan for this picture");
        bytes.extend(view.into_rgb8());
    }
    assert_eq!(format!("{:016x}", hash(&bytes)), "1c5008fe1d5e013e");
}

#[test]
fn removing_a_transform_leaves_the_draws_of_the_others() {
    let all = everything(32);
    let belongs_to = |op: &PlannedOp| match op {
        PlannedOp::ResizedCrop { .. } => 0,
        PlannedOp::HorizontalFlip => 1,
        PlannedOp::Brightness { .. } | PlannedOp::Contrast { .. } | PlannedOp::Saturation { .. } => 2,
        PlannedOp::Hue { .. } => 2,
        PlannedOp::Grayscale => 3,
        PlannedOp::GaussianBlur { .. } => 4,
        PlannedOp::Solarize { .. } => 5,
        PlannedOp::VerticalFlip => 6,
        PlannedOp::QuarterTurns { .. } => 7,
    };
    let whole = augment(all.clone());
    for removed in 1..all.len() {
        let mut fewer = all.clone();
        fewer.remove(removed);
        let fewer = augment(fewer);
        for key in keys(50) {
            let mut want = whole.plan(&key, 200, 100);
            want.ops.retain(|op| belongs_to(op) != removed);
            assert_eq!(fewer.plan(&key, 200, 100), want, "without transform {removed}");
        }
    }
}

#[test]
fn other_values_of_a_transform_leave_the_draws_of_the_others() {
    let (some, others) = (augment(vec![crop(32), jitter(0.0, 0.4), TransformConfig::Grayscale { p: 0.3 }]), {
        augment(vec![crop(32), jitter(1.0, 0.4), TransformConfig::Grayscale { p: 0.3 }])
    });
    for key in keys(50) {
        let (some, others) = (some.plan(&key, 64, 64), others.plan(&key, 64, 64));
        assert_eq!(some.ops[0], others.ops[0]);
        assert_eq!(some.ops.contains(&PlannedOp::Grayscale), others.ops.contains(&PlannedOp::Grayscale));
        assert_eq!(others.ops.len(), some.ops.len() + 4);
    }
}

#[test]
fn transforms_of_the_same_kind_draw_apart() {
    let blur = |sigma| TransformConfig::GaussianBlur { p: 0.5, kernel_px: 3, sigma, method: BlurMethod::Torchvision };
    let plans = augment(vec![crop(32), blur([1.0, 1.0]), blur([2.0, 2.0])]);
    let mut counts = [0; 4];
    for key in keys(4000) {
        let plan = plans.plan(&key, 64, 64);
        let has = |sigma| {
            usize::from(plan.ops.contains(&PlannedOp::GaussianBlur {
                method: BlurMethod::Torchvision,
                kernel_px: 3,
                sigma,
            }))
        };
        counts[2 * has(1.0) + has(2.0)] += 1;
    }
    // Each combination with probability 1/4: 1000 with a standard deviation of 27.
    assert!(counts.iter().all(|&count| (840..=1160).contains(&count)), "{counts:?}");
}

#[test]
fn probabilities_and_ranges_hold() {
    let plans = augment(everything(32));
    let n = 8000;
    let mut counts = [0; 8];
    let mut turned = [0; 3];
    let mut first_steps = [0; 4];
    for key in keys(n) {
        let plan = plans.plan(&key, 300, 200);
        let mut is_first = true;
        for op in &plan.ops {
            let step = match *op {
                PlannedOp::ResizedCrop { size_px, .. } => {
                    assert_eq!(size_px, 32);
                    counts[0] += 1;
                    None
                }
                PlannedOp::HorizontalFlip => {
                    counts[1] += 1;
                    None
                }
                PlannedOp::Brightness { factor } => Some((0, factor)),
                PlannedOp::Contrast { factor } => Some((1, factor)),
                PlannedOp::Saturation { factor } => Some((2, factor)),
                PlannedOp::Hue { turns } => {
                    assert!((-0.1..=0.1).contains(&turns));
                    Some((3, 1.0))
                }
                PlannedOp::Grayscale => {
                    counts[3] += 1;
                    None
                }
                PlannedOp::GaussianBlur { kernel_px, sigma, .. } => {
                    assert!(kernel_px == 5 && (0.1..=2.0).contains(&sigma));
                    counts[4] += 1;
                    None
                }
                PlannedOp::Solarize { threshold } => {
                    assert_eq!(threshold, 128);
                    counts[5] += 1;
                    None
                }
                PlannedOp::VerticalFlip => {
                    counts[6] += 1;
                    None
                }
                PlannedOp::QuarterTurns { turns } => {
                    counts[7] += 1;
                    turned[turns as usize - 1] += 1;
                    None
                }
            };
            if let Some((step, factor)) = step {
                assert!((0.2 - 1e-6..=1.8).contains(&factor), "{factor}");
                counts[2] += usize::from(step == 0);
                first_steps[step] += usize::from(is_first);
                is_first = false;
            }
        }
    }
    assert_eq!(counts[0], 8000);
    // 4000 with a standard deviation of 45; of those jittered, each step is first with probability 1/4.
    assert!(counts[1..].iter().all(|&count| (3730..=4270).contains(&count)), "{counts:?}");
    assert!(turned.iter().all(|&count| (1180..=1490).contains(&count)), "{turned:?}");
    assert!(first_steps.iter().all(|&count| (830..=1170).contains(&count)), "{first_steps:?}");
}

#[test]
fn a_strength_of_zero_leaves_its_step_out_and_the_others_alone() {
    let only = |brightness, contrast, saturation, hue| {
        augment(vec![crop(8), TransformConfig::ColorJitter { p: 1.0, brightness, contrast, saturation, hue }])
    };
    let (all, without, none) = (only(0.4, 0.3, 0.2, 0.1), only(0.4, 0.0, 0.2, 0.0), only(0.0, 0.0, 0.0, 0.0));
    for key in keys(50) {
        let mut want = all.plan(&key, 20, 20);
        assert_eq!(want.ops.len(), 5);
        want.ops.retain(|op| !matches!(op, PlannedOp::Contrast { .. } | PlannedOp::Hue { .. }));
        assert_eq!(without.plan(&key, 20, 20), want);
        assert_eq!(none.plan(&key, 20, 20).ops.len(), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_picture_gives_a_view_of_the_right_size(
        (width, height) in prop_oneof![(1_u32..40, 1_u32..40), Just((1, 1)), Just((1, 2000)), Just((2000, 1))],
        size_px in 1_u32..40,
        seed: u64,
        sample: u64,
        view: u32,
    ) {
        let plan = augment(everything(size_px)).plan(&ViewKey { seed, epoch: 0, sample, view }, width, height);
        let result = plan.render(&noise(width, height)).expect("a plan for this picture");
        prop_assert_eq!((result.width(), result.height()), (size_px, size_px));

        let text = serde_json::to_string(&plan).expect("serializable");
        let replayed: ViewPlan = serde_json::from_str(&text).expect("the same plan");
        prop_assert_eq!(&replayed, &plan);
        prop_assert!(replayed.render(&noise(width, height)) == Ok(result));
    }
}
