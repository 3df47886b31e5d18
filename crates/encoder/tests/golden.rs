//! The encoder against torchvision's features, running statistics and gradients.

mod support;

use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use support::{fill, filled, golden_folder, read_json, unit_values, values};
use twoview_encoder::{EncoderConfig, FrozenEncoder, ResNet, named_tensors};

/// Single precision may differ by 20 times torch's own error in single precision, plus 1e-5 of the largest entry.
#[track_caller]
fn check_array(what: &str, got: &[f32], want: &[f64], f32_error: Error) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(0.0_f64, |max, v| max.max(v.abs()));
    let f32_error = match f32_error {
        Error::Relative(error) => error * largest,
        Error::Absolute(error) => error,
    };
    let tolerance = 20.0 * f32_error + 1e-5 * largest;
    for (i, (&got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - want).abs();
        assert!(error <= tolerance, "{what}[{i}]: got {got}, want {want}, tolerance {tolerance:e}");
    }
}

/// The error of torch in single precision, as the golden files give it.
enum Error {
    /// Of the largest entry.
    Relative(f64),
    Absolute(f64),
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        other => vec![other.as_f64().unwrap_or_else(|| panic!("not a number: {other}"))],
    }
}

fn number(value: &Value) -> f64 {
    numbers(value)[0]
}

fn config(golden: &Value) -> EncoderConfig {
    let config = serde_json::json!({ "arch": golden["arch"], "stem": golden["stem"], "width": 64 });
    serde_json::from_value(config).expect("arch and stem are known")
}

/// The Euclidean norm of each gradient, by state-dict name.
fn gradient_norms(encoder: &ResNet, gradients: &GradientsParams) -> HashMap<String, f64> {
    struct Norms<'a> {
        gradients: &'a GradientsParams,
        norms: Vec<Option<f64>>,
    }
    impl ModuleVisitor for Norms<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let norm = self
                .gradients
                .get::<D>(param.id)
                .map(|gradient| values(gradient).iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt());
            self.norms.push(norm);
        }
    }
    let mut visitor = Norms { gradients, norms: Vec::new() };
    encoder.visit(&mut visitor);
    let names = named_tensors(encoder).into_iter().map(|(name, _)| name);
    names.zip(visitor.norms).filter_map(|(name, norm)| Some((name, norm?))).collect()
}

fn check_file(file: &str, path: &Path) {
    let golden = read_json(path);
    let salt = golden["salt"].as_u64().expect("salt");
    let shape: Vec<usize> = serde_json::from_value(golden["input_shape"].clone()).expect("NCHW");
    let input = fill(golden["input_name"].as_str().expect("name"), &shape, salt);

    let device = Device::flex().autodiff();
    let encoder = filled(config(&golden).init(0, &device).expect("valid"), salt);

    let frozen = FrozenEncoder::new(&encoder);
    let features = frozen.forward(Tensor::from_data(input.clone(), &frozen.device()));
    let eval = &golden["eval"];
    check_array(
        &format!("{file} eval features"),
        &values(features),
        &numbers(&eval["features"]),
        Error::Relative(number(&eval["f32_max_rel_err"])),
    );

    let features = encoder.forward(Tensor::from_data(input, &device));
    let train = &golden["train"];
    check_array(
        &format!("{file} train features"),
        &values(features.clone().inner()),
        &numbers(&train["features"]),
        Error::Relative(number(&train["f32_max_rel_err"])),
    );

    let running: HashMap<String, TensorData> = named_tensors(&encoder).into_iter().collect();
    for (name, want) in train["running_stats_after"].as_object().expect("statistics by name") {
        let got: Vec<f32> = running[name].try_to_vec().expect("f32");
        let f32_error = Error::Absolute(number(&train["running_stats_f32_max_abs_err"][name]));
        check_array(&format!("{file} {name}"), &got, &numbers(want), f32_error);
    }

    let half_sum_of_squares = features.powi_scalar(2).sum().mul_scalar(0.5);
    let mut gradients = half_sum_of_squares.backward();
    let gradients = GradientsParams::from_module(&mut gradients, &encoder);
    let norms = gradient_norms(&encoder, &gradients);
    for (name, want) in train["grad"].as_object().expect("gradients by name") {
        let (got, want, error) = (norms[name], number(&want["norm"]), number(&want["f32_norm_rel_err"]));
        let tolerance = 20.0 * error + 5e-3;
        assert!((got / want - 1.0).abs() <= tolerance, "{file} |grad {name}|: got {got}, want {want}");
    }
}

#[test]
fn agrees_with_torchvision() {
    let mut n_files = 0;
    for entry in std::fs::read_dir(golden_folder()).expect("golden folder") {
        let path = entry.expect("entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("resnet") && name.ends_with(".json") {
            check_file(name, &path);
            n_files += 1;
        }
    }
    assert!(n_files > 0, "no golden encoder files");
}

#[test]
fn the_fill_routine_agrees_with_its_samples() {
    let golden = read_json(&golden_folder().join("fill_samples.json"));
    let salt = golden["salt"].as_u64().expect("salt");
    for sample in golden["samples"].as_array().expect("samples") {
        let name = sample["name"].as_str().expect("name");
        let shape: Vec<usize> = serde_json::from_value(sample["shape"].clone()).expect("shape");
        assert_eq!(u64::from(support::crc32(name.as_bytes())), sample["crc32"].as_u64().expect("crc32"));
        let filled: Vec<f32> = fill(name, &shape, salt).try_to_vec().expect("f32");
        let first = numbers(&sample["first"]);
        let last = numbers(&sample["last"]);
        let tail = &filled[filled.len() - last.len()..];
        for (got, want) in filled.iter().zip(&first).chain(tail.iter().zip(&last)) {
            // The decimals are exact, but serde_json may parse them one f64 unit off.
            assert!((f64::from(*got) - want).abs() <= f64::EPSILON * want.abs(), "{name}: got {got}, want {want}");
        }
        let sum: f64 = filled.iter().map(|&v| f64::from(v)).sum();
        assert!((sum - number(&sample["sum"])).abs() < 1e-9 * number(&sample["sum_abs"]), "{name}");
    }
    assert!(unit_values("input", salt, 1000).iter().all(|u| (-1.0..1.0).contains(u)));
}
