//! Encoders out to other programs and in from them.
//!
//! Where the environment variable `TWOVIEW_PYTHON` names an interpreter with torch, torchvision, safetensors, onnx,
//! onnxruntime and Pillow, what is handed over is loaded there and gives the same features.

#![allow(clippy::print_stdout, reason = "a skipped test says so, and the distances are worth reading")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::cli::{fails, json, pretrain_args, stderr, succeeds, with_pictures};

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Python between the fences of a page.
#[track_caller]
fn python_block(page: &str) -> &str {
    page.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of Python")
}

#[test]
fn an_encoder_goes_out_and_comes_back_with_the_same_bits() {
    let dir = with_pictures(8, 4);
    let at = |path: &str| dir.path().join(path);
    let three_steps = ["--set", "length.steps=3", "--json"];
    json(dir.path(), &pretrain_args("pictures/train", "run", &three_steps));
    let exported = json(dir.path(), &["export", "run", "--format", "safetensors", "--out", "e.safetensors", "--json"]);
    assert_eq!((exported["feature_dim"].as_u64(), exported["steps"].as_u64()), (Some(32), Some(3)));

    let imported = json(dir.path(), &["import", "e.safetensors", "--out", "in", "--json"]);
    let encoder = serde_json::json!({ "arch": "resnet18", "stem": "cifar", "width": 4 });
    assert_eq!((&imported["encoder"], &imported["view"]["size_px"]), (&encoder, &32.into()));
    let manifest = read_json(&at("in/manifest.json"));
    assert_eq!(manifest["weights"]["used_as"], "imported");
    assert_eq!(manifest["weights"]["sha256"].as_str().map(str::len), Some(64));

    let mut torn = read(&at("e.safetensors"));
    let (name, other) = (b"layer2.0.conv1.weight", b"layer2.0.convX.weight");
    let place = torn.windows(name.len()).position(|bytes| bytes == name).expect("a name in the header");
    torn[place..place + name.len()].copy_from_slice(other);
    fs::write(at("torn.safetensors"), torn).expect("written");
    fails(dir.path(), &["import", "torn.safetensors"], 8, &["`layer2.0.conv1.weight` is missing"]);

    // The imported run is a run: it embeds to the same numbers, evaluates, and exports to the same file.
    for run in ["run", "in"] {
        let out = format!("{run}.npy");
        succeeds(dir.path(), &["embed", run, "pictures/test", "--format", "npy", "--out", &out]);
    }
    assert_eq!(read(&at("run.npy")), read(&at("in.npy")));
    let knn = ["eval", "knn", "in", "--train", "pictures/train", "--test", "pictures/test", "--k", "5", "--json"];
    assert!(json(dir.path(), &knn)["top1"].is_f64());
    succeeds(dir.path(), &["export", "in", "--format", "safetensors", "--out", "again.safetensors"]);
    assert_eq!(read(&at("e.safetensors")), read(&at("again.safetensors")));
    succeeds(dir.path(), &["export", "in", "--format", "onnx"]);
    assert!(at("in/export/encoder.onnx").is_file() && at("in/export/encoder.onnx.card.md").is_file());
    fails(dir.path(), &["eval", "knn", "in"], 2, &["no pictures of its own", "--train"]);
    for command in [&["cluster", "in"][..], &["dedup", "in"], &["search", "in", "pictures/test"]] {
        fails(dir.path(), command, 2, &["no pictures of its own", "--in DATA"]);
    }
    fs::write(at("some.csv"), "path,label\na.png,a\n").expect("written");
    fails(dir.path(), &["label", "in", "--labels", "some.csv", "--out", "l.csv"], 2, &["--in DATA"]);
    let page = succeeds(dir.path(), &["report", "in"]);
    assert!(String::from_utf8_lossy(&page.stderr).contains("--data DATA"));
    fails(dir.path(), &["resume", "in"], 7, &["was imported", "pretrain DATA --start in"]);

    // A card says what it is, and what the run directory says of its worth.
    fs::write(at("run/scores.json"), r#"{"knn": 0.5}"#).expect("written");
    succeeds(dir.path(), &["export", "run", "--format", "onnx", "--out", "e.onnx"]);
    let card = read_json(&at("e.onnx.card.json"));
    assert_eq!(
        (&card["steps"], &card["data"]["pictures"], &card["scores"]["knn"]),
        (&3.into(), &80.into(), &0.5.into())
    );
    assert_eq!(card["onnx"]["opset"], 17);
    assert_eq!(card["mean"], serde_json::json!([0.4914, 0.4822, 0.4465]), "as written in the preset");
    assert_eq!(card["python"], python_block(&fs::read_to_string(at("e.onnx.card.md")).expect("a page")));
}

#[test]
fn a_run_begins_with_given_weights_and_then_needs_their_file_no_more() {
    let dir = with_pictures(8, 0);
    let at = |path: &str| dir.path().join(path);
    json(dir.path(), &pretrain_args("pictures/train", "run", &["--set", "length.steps=1", "--json"]));
    succeeds(dir.path(), &["export", "run", "--format", "safetensors", "--out", "e.safetensors"]);

    // Without --set encoder the weights say what the encoder is; `small` alone would have a wider one.
    let start = |out: &'static str, more: &[&'static str]| {
        let mut args =
            vec!["pretrain", "pictures/train", "--preset", "small", "--start", "e.safetensors", "--out", out];
        args.extend(["--set", "head.hidden_dim=32", "--set", "data.batch_size=32", "--set", "length.steps=3"]);
        args.extend(["--set", "schedule.warmup.steps=0"]);
        args.extend(more);
        args
    };
    let said = stderr(&succeeds(dir.path(), &start("next", &[])));
    assert!(said.contains("width = 4"), "{said}");
    let manifest = read_json(&at("next/manifest.json"));
    assert_eq!(manifest["weights"]["used_as"], "start");
    let done = read(&at("next/export/encoder.safetensors"));
    let config = fs::read_to_string(at("next/config.resolved.toml")).expect("a configuration");
    assert!(config.contains("start = ") && config.contains("width = 4"), "{config}");

    // As after a crash before the first checkpoint, with the file gone meanwhile.
    fs::remove_file(at("e.safetensors")).expect("removed");
    fs::remove_dir_all(at("next/checkpoints/step-00000003")).expect("removed");
    fs::remove_dir_all(at("next/export")).expect("removed");
    succeeds(dir.path(), &["resume", "next"]);
    assert_eq!(read(&at("next/export/encoder.safetensors")), done);

    // Beginning with a run is beginning with its encoder.
    let mut from_run = start("third", &[]);
    from_run[5] = "run";
    succeeds(dir.path(), &from_run);
    assert_eq!(read(&at("third/export/encoder.safetensors")), done);

    // What was written down has to agree.
    let mut other = start("fourth", &["--set", "encoder.width=8"]);
    other[5] = "run";
    fails(dir.path(), &other, 2, &["width = 4", "width = 8", "--set encoder.width=8"]);
    let mine: Vec<&str> = config.lines().filter(|line| !line.starts_with("start = ")).collect();
    fs::write(at("mine.toml"), mine.join("\n").replace("width = 4", "width = 8")).expect("written");
    fails(dir.path(), &["pretrain", "mine.toml", "--start", "run"], 2, &["mine.toml", "width = 4", "width = 8"]);
}

#[test]
fn what_is_no_encoder_is_refused_with_its_exit_code() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::write(dir.path().join("page.pth"), "<!DOCTYPE html>").expect("written");
    fails(dir.path(), &["import", "page.pth"], 8, &["page.pth"]);
    fs::write(dir.path().join("old.pth"), b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.").expect("written");
    fails(dir.path(), &["import", "old.pth"], 8, &["old.pth", "PyTorch 1.6", "torch.save"]);
    fs::write(dir.path().join("empty.safetensors"), "").expect("written");
    fails(dir.path(), &["import", "empty.safetensors"], 8, &["empty.safetensors"]);
    fails(dir.path(), &["import", "none.pth"], 4, &["none.pth"]);
    fails(dir.path(), &["export", "none", "--format", "onnx"], 7, &["none", "config.resolved.toml"]);
    fails(
        dir.path(),
        &["export", "none", "--format", "onnx", "--out", "a.safetensors"],
        2,
        &["--format onnx", ".onnx"],
    );
    assert!(!dir.path().join("runs").exists(), "nothing is left behind");
}

/// A run of the preset whose card the README shows, after one step.
fn photos_run(dir: &Path, data: &str) {
    let sets = ["--set", "length.steps=1", "--set", "data.batch_size=16", "--set", "schedule.warmup.steps=0"];
    succeeds(dir, &[["pretrain", data, "--preset", "photos", "--out", "photos"].as_slice(), &sets].concat());
}

#[test]
fn the_readme_shows_the_card_of_the_photos_preset() {
    let dir = with_pictures(2, 0);
    photos_run(dir.path(), "pictures/train");
    succeeds(dir.path(), &["export", "photos", "--format", "safetensors", "--out", "encoder.safetensors"]);
    let card = fs::read_to_string(dir.path().join("encoder.safetensors.card.md")).expect("a card");
    let readme = fs::read_to_string("../../README.md").expect("a README");
    let (_, exchange) = readme.split_once("### Taking the encoder elsewhere").expect("its section");
    assert_eq!(python_block(exchange), python_block(&card));
}

/// Makes pictures of several sizes and forms, as photographs are, without any photograph: 64 of them.
///
/// None is twice as tall as wide. Of some such pictures Pillow 13.0 resamples the columns before the rows and rounds
/// between the two, where Pillow 12.0 and `twoview-pixels` take the rows first: a grey level of difference in some pixels, and up to
/// 7e-3 in the features.
const MAKE_PICTURES: &str = r#"
import os, numpy
from PIL import Image
os.makedirs("photos64/all", exist_ok=True)
random = numpy.random.default_rng(0)
for i in range(64):
    width = int(random.integers(40, 500))
    height = int(width * random.uniform(0.5, 1.7))
    coarse = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=numpy.uint8))
    picture = coarse.resize((width, height), Image.Resampling.BICUBIC)
    picture.save(f"photos64/all/{i:02}.{'png' if i % 4 == 0 else 'jpg'}")
"#;

/// Makes a torchvision network with statistics that a mistake would show in.
const MAKE_RESNET: &str = r#"
import torch, torchvision
torch.manual_seed(0)
model = torchvision.models.resnet50()
for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        module.running_mean.normal_(0, 0.1)
        module.running_var.uniform_(0.5, 1.5)
        module.weight.data.uniform_(0.5, 1.0)
        module.bias.data.normal_(0, 0.1)
        module.num_batches_tracked.fill_(1234)
torch.save({"epoch": 3, "state_dict": {"module." + name: value for name, value in model.state_dict().items()}}, "resnet50.pth")
"#;

/// After the snippet of a card: how far its features are from those of `twoview embed`.
const COMPARE: &str = r#"
import numpy
ours = numpy.load("ours.npy")
theirs = numpy.asarray(features)
far = float(numpy.abs(ours - theirs).max())
print(f"{len(paths)} pictures, {theirs.shape[1]} features up to {float(numpy.abs(ours).max()):.2f}: at most {far:.1e} apart")
assert theirs.shape == ours.shape and far <= 1e-4, far
"#;

const SAME_BITS: &str = r#"
import torch
from safetensors.torch import load_file
ours = load_file("tv.safetensors")
theirs = {name.removeprefix("module."): value for name, value in torch.load("resnet50.pth")["state_dict"].items()}
theirs = {name: value for name, value in theirs.items() if not name.startswith("fc.")}
assert set(ours) == set(theirs)
assert all(torch.equal(ours[name], value) for name, value in theirs.items())
"#;

const CHECK_ONNX: &str = r#"
import onnx, numpy, onnxruntime
onnx.checker.check_model(onnx.load("encoder.onnx"), full_check=True)
session = onnxruntime.InferenceSession("encoder.onnx")
images = numpy.random.default_rng(0).standard_normal((5, 3, 64, 48)).astype(numpy.float32)
whole, = session.run(["features"], {"images": images})
for i in range(5):  # Whatever the batch.
    one, = session.run(["features"], {"images": images[i:i + 1]})
    assert numpy.abs(one - whole[i:i + 1]).max() < 1e-4
"#;

#[track_caller]
pub(crate) fn python(interpreter: &Path, dir: &Path, script: &str) {
    let output = Command::new(interpreter)
        .current_dir(dir)
        .args(["-c", script])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("TWOVIEW_PYTHON={}: {error}", interpreter.display()));
    assert!(output.status.success(), "{script}\n{}", stderr(&output));
    println!("{}", String::from_utf8_lossy(&output.stdout).trim_end());
}

#[test]
fn python_finds_the_same_features_in_the_same_picture_files() {
    let Some(interpreter) = env::var_os("TWOVIEW_PYTHON").map(PathBuf::from) else {
        println!("skipped: TWOVIEW_PYTHON names no interpreter with torch, torchvision, onnx and onnxruntime");
        return;
    };
    let dir = with_pictures(2, 0);
    python(&interpreter, dir.path(), MAKE_PICTURES);
    python(&interpreter, dir.path(), MAKE_RESNET);
    photos_run(dir.path(), "photos64");
    succeeds(dir.path(), &["import", "resnet50.pth", "--out", "tv"]);
    let tiny = pretrain_args("photos64", "tiny", &["--set", "length.steps=2"]);
    succeeds(dir.path(), &tiny);

    let paths = "import glob\npaths = sorted(glob.glob('photos64/*/*'))\n";
    for run in ["photos", "tv", "tiny"] {
        succeeds(dir.path(), &["embed", run, "photos64", "--format", "npy", "--out", "ours.npy"]);
        for format in ["safetensors", "onnx"] {
            let file = format!("encoder.{format}");
            succeeds(dir.path(), &["export", run, "--format", format, "--out", &file]);
            let card = fs::read_to_string(dir.path().join(format!("{file}.card.md"))).expect("a card");
            println!("{run}, {format}:");
            python(&interpreter, dir.path(), &format!("{paths}{}{COMPARE}", python_block(&card)));
        }
        python(&interpreter, dir.path(), CHECK_ONNX);
    }
    succeeds(dir.path(), &["export", "tv", "--format", "safetensors", "--out", "tv.safetensors"]);
    python(&interpreter, dir.path(), SAME_BITS);
}
