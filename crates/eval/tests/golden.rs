//! kNN, linear probe and principal components against reference results computed in f64 (`tests/golden/eval`).

use std::path::PathBuf;

use serde_json::Value;
use twoview_eval::{FeatureBank, KnnConfig, LinearProbeConfig, PrincipalComponents, Score};

fn golden(file: &str) -> Value {
    let root = std::env::var_os("TWOVIEW_GOLDEN").map_or_else(|| PathBuf::from("../../tests/golden"), PathBuf::from);
    let path = root.join("eval").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        other => vec![number(other)],
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("expected a number, got {value}"))
}

fn integers(value: &Value) -> Vec<u32> {
    let integer = |v: &Value| v.as_u64().and_then(|v| u32::try_from(v).ok());
    let items = value.as_array().unwrap_or_else(|| panic!("expected a list, got {value}"));
    items.iter().map(|v| integer(v).unwrap_or_else(|| panic!("expected a class, got {v}"))).collect()
}

/// Features are multiples of 1/512, so that f32 holds them exactly.
#[expect(clippy::cast_possible_truncation, reason = "exact by the construction of the data, and asserted")]
fn bank(file: &Value, side: &str) -> FeatureBank {
    let values = numbers(&file[format!("{side}_features")]);
    let labels = integers(&file[format!("{side}_labels")]);
    let features: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    assert!(values.iter().zip(&features).all(|(&v, &f)| v == f64::from(f)), "a feature is not exact in f32");
    let dim = features.len() / labels.len();
    FeatureBank::new(features, dim, labels).expect("a valid bank")
}

#[track_caller]
fn assert_close(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance, "{what}[{i}]: got {got}, want {want} ± {tolerance}");
    }
}

/// Exact, but for the last bit that serde_json may lose in reading a decimal.
#[track_caller]
fn assert_top1(got: &Score, want: &Value, name: &Value) {
    assert!((got.top1 - number(want)).abs() <= f64::EPSILON, "{name}: got {}, want {want}", got.top1);
}

#[test]
fn nearest_neighbours_agree() {
    let file = golden("knn.json");
    let (train, test) = (bank(&file, "train"), bank(&file, "test"));
    let n_classes = usize::try_from(file["num_classes"].as_u64().expect("a count")).expect("a small count");
    let cases = file["cases"].as_array().expect("a list of cases");
    assert!(!cases.is_empty());
    for case in cases {
        let name = &case["name"];
        let k = usize::try_from(case["k"].as_u64().expect("a count")).expect("a small count");
        let probe = KnnConfig { k, temperature: number(&case["temperature"]) }.init(&train).expect("valid settings");
        let votes = probe.votes(&test).expect("same dimension");
        let predicted: Vec<u32> = votes.iter().map(|vote| vote.predicted).collect();
        assert_eq!(predicted, integers(&case["predicted"]), "{name}");
        let mut shares = vec![0.0; test.len() * n_classes];
        for (vote, row) in votes.iter().zip(shares.chunks_exact_mut(n_classes)) {
            for &(class, share) in &vote.shares {
                row[class as usize] = share;
            }
        }
        // Shares are in [0, 1]; cos/T carries f64's rounding times 1/T ≤ 100.
        assert_close(&shares, &numbers(&case["class_scores"]), 1e-12, &format!("{name} class_scores"));
        assert_top1(&probe.evaluate(&test).expect("same dimension"), &case["top1"], name);
    }
}

#[test]
fn linear_probes_agree() {
    let file = golden("linear_probe.json");
    let (train, test) = (bank(&file, "train"), bank(&file, "test"));
    let cases = file["cases"].as_array().expect("a list of cases");
    assert!(!cases.is_empty());
    for case in cases {
        let name = &case["name"];
        // The objective curves at least by l2 along any weight: |W − W*| ≤ |gradient| / l2.
        let config = LinearProbeConfig {
            l2: vec![number(&case["l2"])],
            held_out: 0.1,
            standardize: false,
            tolerance: 1e-11,
            max_iterations: 2000,
        };
        let classifier = config.init().expect("valid settings").fit(&train).expect("all classes");
        assert!(classifier.fit().converged, "{name}: {:?}", classifier.fit());
        let objective = classifier.fit().objective;
        assert_close(&[objective], &[number(&case["objective"])], 1e-9, &format!("{name} objective"));
        assert_close(classifier.weight(), &numbers(&case["weight"]), 1e-6, &format!("{name} weight"));
        assert_close(classifier.bias(), &numbers(&case["bias"]), 1e-6, &format!("{name} bias"));
        for (side, bank) in [("train", &train), ("test", &test)] {
            let score = classifier.evaluate(bank).expect("same classes");
            assert_top1(&score, &case[format!("accuracy_{side}")], name);
            let cross_entropy = classifier.cross_entropy(bank).expect("same classes");
            let want = number(&case[format!("cross_entropy_{side}")]);
            assert_close(&[cross_entropy], &[want], 1e-6, &format!("{name} cross_entropy_{side}"));
        }
    }
}

#[test]
#[expect(clippy::cast_possible_truncation, reason = "features are multiples of 1/512, which f32 holds exactly")]
fn principal_components_agree() {
    let file = golden("pca.json");
    let n = usize::try_from(integers(&serde_json::json!([file["n_components"]]))[0]).expect("a small number");
    let mean = numbers(&file["mean"]);
    let rows: Vec<f32> = numbers(&file["features"]).into_iter().map(|v| v as f32).collect();
    let found = PrincipalComponents::of(&rows, mean.len(), n).expect("components");
    assert_close(&found.mean, &mean, 1e-12, "mean");
    assert_close(&[found.total_variance], &[number(&file["total_variance"])], 1e-10, "total variance");
    assert_close(&found.variances, &numbers(&file["explained_variance"]), 1e-10, "variances");
    assert_close(&found.components, &numbers(&file["components"]), 1e-8, "components");
    assert_close(&found.project(&rows), &numbers(&file["projected"]), 1e-8, "projected");
}
