//! Every kernel against reference pictures made by Pillow and torchvision.
//!
//! `tests/golden/augment/cases.json` lists the cases; another set in the same form is tried by setting
//! `TWOVIEW_GOLDEN` to the folder that holds its `augment` folder.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use twoview_pixels::{
    BlurKind, ColorOp, CropBox, DecodeOptions, Filter, Image, Instructions, Normalize, Planes, Workspace, apply_colors,
    decode, gaussian_blur, horizontal_flip, resize_center_crop, resized_crop,
};

fn folder() -> PathBuf {
    std::env::var_os("TWOVIEW_GOLDEN")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from("../../tests/golden"))
        .join("augment")
}

fn cases() -> Vec<Value> {
    let text = fs::read_to_string(folder().join("cases.json")).expect("the list of cases");
    serde_json::from_str(&text).expect("a JSON list")
}

fn picture(path: &Value) -> Image {
    let path = folder().join(path.as_str().expect("a path"));
    decode(&fs::read(&path).expect("a readable file"), &DecodeOptions::STANDARD)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text<'a>(params: &'a Value, key: &str) -> &'a str {
    params[key].as_str().unwrap_or_else(|| panic!("{key} in {params}"))
}

fn float(params: &Value, key: &str) -> f64 {
    params[key].as_f64().unwrap_or_else(|| panic!("{key} in {params}"))
}

fn whole<T: TryFrom<u64>>(params: &Value, key: &str) -> T {
    let value = params[key].as_u64().unwrap_or_else(|| panic!("{key} in {params}"));
    T::try_from(value).unwrap_or_else(|_| panic!("{key} = {value} is too large"))
}

fn filter(params: &Value) -> Filter {
    match text(params, "interpolation") {
        "bilinear" => Filter::Bilinear,
        "bicubic" => Filter::Bicubic,
        other => panic!("unknown filter {other}"),
    }
}

/// The result of one operation of the list, by every available variant.
fn apply(op: &str, params: &Value, image: &Image) -> Image {
    let of = |instructions| {
        let mut planes = Planes::from(image);
        apply_by(op, params, &mut planes, &mut Workspace::new(instructions));
        planes.to_image()
    };
    let want = of(Instructions::BASELINE);
    for instructions in Instructions::available() {
        assert!(of(instructions) == want, "{op} {params} by {instructions:?}");
    }
    want
}

fn jitter(name: &str, params: &Value) -> ColorOp {
    let op = match name {
        "brightness" => ColorOp::Brightness,
        "contrast" => ColorOp::Contrast,
        "saturation" => ColorOp::Saturation,
        "hue" => ColorOp::Hue,
        other => panic!("unknown jitter {other}"),
    };
    op(float(params, if params.get(name).is_some() { name } else { "factor" }))
}

fn apply_by(op: &str, params: &Value, planes: &mut Planes, workspace: &mut Workspace) {
    let mut colors = Vec::new();
    match op {
        "resized_crop" => {
            let crop = CropBox {
                top: whole(params, "top"),
                left: whole(params, "left"),
                height: whole(params, "height"),
                width: whole(params, "width"),
            };
            let (width, height) = (whole(params, "out_width"), whole(params, "out_height"));
            resized_crop(&planes.to_image(), crop, width, height, filter(params), false, workspace, planes)
                .expect("a valid crop");
        }
        "resize_center_crop" => {
            let (resize_px, crop_px) = (whole(params, "resize"), whole(params, "crop"));
            resize_center_crop(&planes.to_image(), resize_px, crop_px, filter(params), workspace, planes)
                .expect("a valid crop");
        }
        "hflip" => horizontal_flip(planes),
        "grayscale" => colors.push(ColorOp::Grayscale),
        "solarize" => colors.push(ColorOp::Solarize(whole(params, "threshold"))),
        "gaussian_blur" => {
            let (kernel_px, sigma) = (whole(params, "kernel_size"), float(params, "sigma"));
            gaussian_blur(planes, BlurKind::Torchvision, kernel_px, sigma, workspace);
        }
        "color_jitter" => {
            let order = params["order"].as_array().expect("a list of names");
            colors.extend(order.iter().map(|step| jitter(step.as_str().expect("a name"), params)));
        }
        "compose" => {
            for step in params["steps"].as_array().expect("a list of steps") {
                apply_by(text(step, "op"), &step["params"], planes, workspace);
            }
        }
        other => colors.push(jitter(other, params)),
    }
    apply_colors(planes, &colors, workspace.instructions());
}

/// Largest and mean difference in grey levels, for pictures of the same sides.
fn difference(got: &Image, want: &Image) -> (u8, f64) {
    assert_eq!((got.width(), got.height()), (want.width(), want.height()));
    let differences = got.as_rgb8().iter().zip(want.as_rgb8()).map(|(a, b)| a.abs_diff(*b));
    let sum: u64 = differences.clone().map(u64::from).sum();
    (differences.max().unwrap_or(0), sum as f64 / got.as_rgb8().len() as f64)
}

/// The differences to the accepted picture that comes closest: there may be more than one.
fn closest(case: &Value, got: &Image) -> (u8, f64) {
    let alternatives = case["expected_alternatives"].as_array().into_iter().flatten();
    std::iter::once(case)
        .chain(alternatives)
        .map(|accepted| difference(got, &picture(&accepted["expected"])))
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .expect("at least one picture")
}

#[test]
fn pictures_agree_within_their_tolerances() {
    let mut failures = Vec::new();
    let mut n_checked = 0;
    for case in cases().iter().filter(|case| case["op"] != "normalize") {
        let got = apply(text(case, "op"), &case["params"], &picture(&case["input"]));
        let (max, mean) = closest(case, &got);
        let (max_allowed, mean_allowed) = (float(case, "tolerance_max"), float(case, "tolerance_mean"));
        if f64::from(max) > max_allowed || mean > mean_allowed {
            failures.push(format!(
                "{}: differs by at most {max} (allowed {max_allowed}), {mean:.4} on average (allowed {mean_allowed})",
                text(case, "name")
            ));
        }
        n_checked += 1;
    }
    assert!(n_checked > 0, "no case was found");
    assert!(failures.is_empty(), "{} of {n_checked} cases:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn crops_are_pillows_bytes() {
    let mut n_checked = 0;
    for case in cases().iter().filter(|case| matches!(text(case, "op"), "resized_crop" | "resize_center_crop")) {
        let got = apply(text(case, "op"), &case["params"], &picture(&case["input"]));
        assert_eq!(closest(case, &got), (0, 0.0), "{}", text(case, "name"));
        n_checked += 1;
    }
    assert!(n_checked > 0, "no crop among the cases");
}

#[test]
fn numbers_agree_within_their_tolerances() {
    let mut n_checked = 0;
    for case in cases().iter().filter(|case| case["op"] == "normalize") {
        let path = folder().join(text(case, "expected"));
        let want: Value =
            serde_json::from_str(&fs::read_to_string(path).expect("a readable file")).expect("a JSON object");
        let want: Vec<f64> = serde_json::from_value(want["values_f64"].clone()).expect("a list of numbers");
        let planes = Planes::from(&picture(&case["input"]));
        let constants = |key: &str| -> [f32; 3] {
            serde_json::from_value(case["params"][key].clone()).expect("a number per channel")
        };
        let normalize = Normalize { mean: constants("mean"), std: constants("std") };
        let of = |instructions| {
            let mut got = vec![f32::NAN; want.len()];
            normalize.write_chw(&planes, &mut got, instructions).expect("a buffer of the right length");
            got
        };
        let got = of(Instructions::BASELINE);
        let worst = got.iter().zip(&want).map(|(got, want)| (f64::from(*got) - want).abs()).fold(0.0, f64::max);
        assert!(worst <= float(case, "tolerance_max"), "{}: differs by {worst}", text(case, "name"));
        assert!(Instructions::available().into_iter().all(|instructions| of(instructions) == got));
        n_checked += 1;
    }
    assert!(n_checked > 0, "no case was found");
}
