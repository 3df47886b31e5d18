//! x
use std::time::Instant;
use twoview_augment::*;
use twoview_pixels::*;
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let size: u32 = std::env::args().nth(2).unwrap().parse().unwrap();
    let mut files = Vec::new();
    for e in walkdir::WalkDir::new(dir).sort_by_file_name() {
        let e = e.unwrap();
        if e.file_type().is_file() {
            files.push(std::fs::read(e.path()).unwrap());
        }
        if files.len() >= 2000 {
            break;
        }
    }
    files.retain(|f| Format::of(f).is_some());
    let cfg = if size <= 64 {
        format!(
            r#"[{{"op":"random_resized_crop","size_px":{size},"area":[0.08,1.0],"aspect":[0.75,1.3333334]}},{{"op":"horizontal_flip","p":0.5}},{{"op":"color_jitter","p":0.8,"brightness":0.4,"contrast":0.4,"saturation":0.4,"hue":0.1}},{{"op":"grayscale","p":0.2}}]"#
        )
    } else {
        format!(
            r#"[{{"op":"random_resized_crop","size_px":{size},"area":[0.08,1.0],"aspect":[0.75,1.3333334]}},{{"op":"horizontal_flip","p":0.5}},{{"op":"color_jitter","p":0.8,"brightness":0.8,"contrast":0.8,"saturation":0.8,"hue":0.2}},{{"op":"grayscale","p":0.2}},{{"op":"gaussian_blur","p":0.5,"kernel_px":23,"sigma":[0.1,2.0]}}]"#
        )
    };
    let aug: AugmentConfig = serde_json::from_str(&cfg).unwrap();
    let aug = aug.init().unwrap();
    let mut image = Image::default();
    for r in 0..3 {
        let t = Instant::now();
        for f in &files {
            decode_into(f, &DecodeLimits::STANDARD, &mut image).unwrap();
        }
        println!("decode {r} {:.1} us", t.elapsed().as_secs_f64() * 1e6 / files.len() as f64);
    }
    let images: Vec<Image> = files.iter().map(|f| decode(f, &DecodeLimits::STANDARD).unwrap()).collect();
    for ins in [Instructions::best()] {
        let mut r = Renderer::new(ins);
        let mut plan = ViewPlan { source_width: 1, source_height: 1, ops: vec![] };
        let mut out = vec![0f32; 3 * (size * size) as usize];
        let n = if size <= 64 { 20 } else { 1 };
        for _ in 0..2 {
            let mut res = Vec::new();
            for stage in 0..5 {
                let mut best = f64::MAX;
                for rep in 0..12 {
                    let t = Instant::now();
                    for e in 0..n {
                        for (i, im) in images.iter().enumerate() {
                            for view in 0..2 {
                                aug.plan_into(
                                    &ViewKey { seed: 0, epoch: e, sample: i as u64, view },
                                    im.width(),
                                    im.height(),
                                    &mut plan,
                                );
                                if stage == 0 {
                                    std::hint::black_box(&plan);
                                    continue;
                                }
                                if stage == 1 {
                                    plan.ops.retain(|o| {
                                        matches!(o, PlannedOp::ResizedCrop { .. } | PlannedOp::HorizontalFlip)
                                    });
                                }
                                if stage == 2 {
                                    plan.ops.retain(|o| !matches!(o, PlannedOp::GaussianBlur { .. }));
                                }
                                let v = r.render(&plan, im).unwrap();
                                if stage == 4 {
                                    Normalize::IMAGENET.write_chw(v, &mut out, ins).unwrap();
                                }
                            }
                        }
                    }
                    let _ = rep;
                    best = best.min(t.elapsed().as_secs_f64() * 1e6 / (n as f64 * images.len() as f64));
                }
                res.push(best);
            }
            println!(
                "{ins:?} plan {:.2} crop {:.2} color {:.2} blur {:.2} write {:.2} total {:.2} us/img = {:.0} img/s",
                res[0],
                res[1] - res[0],
                res[2] - res[1],
                res[3] - res[2],
                res[4] - res[3],
                res[4],
                1e6 / res[4]
            );
        }
    }
}
