//! The program from its users' side: commands in, files and exit codes out, on real picture files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

fn twoview(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().expect("the program starts")
}

pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twoview"));
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command
}

#[track_caller]
pub(crate) fn succeeds(dir: &Path, args: &[&str]) -> Output {
    let output = twoview(dir, args);
    assert!(output.status.success(), "twoview {}: {}\n{}", args.join(" "), output.status, stderr(&output));
    output
}

/// The last line of stdout, which `--json` promises to be one value.
#[track_caller]
pub(crate) fn json(dir: &Path, args: &[&str]) -> Value {
    let output = succeeds(dir, args);
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let line = stdout.lines().last().unwrap_or_else(|| panic!("twoview {} printed nothing", args.join(" ")));
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[track_caller]
pub(crate) fn fails(dir: &Path, args: &[&str], exit: i32, words: &[&str]) {
    let output = twoview(dir, args);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(exit), "twoview {}\n{said}", args.join(" "));
    for word in words {
        assert!(said.contains(word), "twoview {}: expected `{word}` in\n{said}", args.join(" "));
    }
    assert!(output.stdout.is_empty(), "an error leaves stdout to results");
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder with the built-in pictures in `pictures/train` and `pictures/test`.
pub(crate) fn with_pictures(train_per_class: u32, test_per_class: u32) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    make_pictures(dir.path(), train_per_class, test_per_class);
    dir
}

/// The same in a folder that is there.
pub(crate) fn make_pictures(dir: &Path, train_per_class: u32, test_per_class: u32) {
    let (train, test) = (train_per_class.to_string(), test_per_class.to_string());
    let args = ["data", "make", "patterns", "pictures", "--train-per-class", &train, "--test-per-class", &test];
    succeeds(dir, &args);
}

/// A net that trains in moments, on any folder.
const TINY: [&str; 12] = [
    "--preset",
    "small",
    "--set",
    "encoder.width=4",
    "--set",
    "head.hidden_dim=32",
    "--set",
    "data.batch_size=32",
    "--set",
    "every.save.steps=4",
    "--set",
    "schedule.warmup.steps=0",
];

pub(crate) fn pretrain_args<'a>(data: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["pretrain", data, "--out", out], TINY.as_slice(), more].concat()
}

fn metrics(run: &Path) -> Vec<Value> {
    fs::read_to_string(run.join("metrics.jsonl"))
        .expect("metrics")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

#[test]
fn the_quick_demo_learns_the_patterns() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let report = json(dir.path(), &["demo", "--quick", "--json"]);
    let knn = |rung: &str| report["knn"][rung].as_f64().unwrap_or_else(|| panic!("knn.{rung} in {report}"));
    assert!((knn("chance") - 0.1).abs() < 1e-9);
    for lower in ["chance", "raw_pixels", "centred_pixels", "untrained"] {
        assert!(knn("trained") > knn(lower) + 0.05, "trained does not beat {lower}: {report}");
    }
    assert!(report["linear"]["trained"].as_f64() > report["linear"]["untrained"].as_f64(), "{report}");
    let run = dir.path().join(report["run"].as_str().expect("a path"));
    for file in ["config.resolved.toml", "manifest.json", "metrics.jsonl", "export/encoder.safetensors"] {
        assert!(run.join(file).is_file(), "{file} is missing");
    }
}

#[test]
fn a_folder_becomes_an_encoder_and_features() {
    let dir = with_pictures(12, 6);
    let trained = json(dir.path(), &pretrain_args("pictures/train", "run", &["--set", "length.epochs=2", "--json"]));
    assert_eq!(trained["steps"], 6, "120 pictures in batches of 32, twice");

    // No run is named here: the only one below runs/ would be taken, and there is none.
    fails(dir.path(), &["eval", "knn"], 2, &["runs/"]);

    let test = ["run", "--test", "pictures/test", "--json"];
    let knn = json(dir.path(), &[&["eval", "knn", "--k", "5"], test.as_slice()].concat());
    for key in ["top1", "temperature", "raw_pixels", "centred_pixels", "untrained", "chance"] {
        assert!(knn[key].is_f64(), "{key} in {knn}");
    }
    assert_eq!(knn["k"], 5);
    assert!(knn["ci95"][0].as_f64() < knn["top1"].as_f64() && knn["top1"].as_f64() < knn["ci95"][1].as_f64());
    let linear = json(dir.path(), &[&["eval", "linear"], test.as_slice()].concat());
    assert!(linear["top1"].is_f64() && linear["l2"].is_f64(), "{linear}");
    // Without test pictures a part of the labelled ones is held out: 20 % of 12 in each class.
    assert_eq!(json(dir.path(), &["eval", "knn", "run", "--json"])["n"], 20);

    let npy = json(dir.path(), &["embed", "run", "pictures/test", "--format", "npy", "--out", "e.npy", "--json"]);
    assert_eq!((npy["pictures"].as_u64(), npy["dim"].as_u64()), (Some(60), Some(32)));
    let bytes = fs::read(dir.path().join("e.npy")).expect("an array");
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    let array: Vec<f32> =
        bytes[bytes.len() - 60 * 32 * 4..].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    succeeds(dir.path(), &["embed", "run", "pictures/test", "--format", "csv", "--out", "e.csv"]);
    let csv = fs::read_to_string(dir.path().join("e.csv")).expect("a table");
    let names = fs::read_to_string(dir.path().join("e.npy.names.csv")).expect("names");
    for (i, (row, name)) in csv.lines().skip(1).zip(names.lines().skip(1)).enumerate() {
        let fields: Vec<&str> = row.split(',').collect();
        assert_eq!(fields.len(), 2 + 32);
        assert_eq!(fields[..2].join(","), name);
        assert!(fields[0].starts_with(fields[1]), "the label is the folder: {name}");
        assert_eq!(fields[2].parse::<f32>().expect("a number"), array[i * 32], "row {i}");
    }
    assert_eq!(names.lines().count(), 61);
}

#[test]
fn broken_files_are_named_and_training_goes_on() {
    let dir = with_pictures(10, 0);
    let class = dir.path().join("pictures/train/checks");
    let good = fs::read(class.join("0000.png")).expect("a picture");
    fs::write(class.join("cut.png"), &good[..good.len() / 2]).expect("written");
    fs::write(class.join("empty.jpg"), b"").expect("written");
    fs::write(class.join("text.jpg"), b"this is not a picture\n").expect("written");

    let strict = ["--set", "data.source.max_bad_fraction=0.02"];
    let words = ["cut.png", "--set data.source.max_bad_fraction"];
    fails(dir.path(), &pretrain_args("pictures/train", "run", &strict), 3, &words);
    assert!(!dir.path().join("run").exists(), "nothing is left behind");

    let more = ["--set", "length.steps=3"];
    let output = succeeds(dir.path(), &pretrain_args("pictures/train", "run", &more));
    let said = stderr(&output);
    for name in ["cut.png", "empty.jpg", "text.jpg", "3 unusable"] {
        assert!(said.contains(name), "expected `{name}` in\n{said}");
    }
    let bad = fs::read_to_string(dir.path().join("run/bad_files.jsonl")).expect("a list");
    assert_eq!(bad.lines().count(), 3);

    let report = json(dir.path(), &["data", "check", "pictures/train", "--json"]);
    assert_eq!((report["pictures"].as_u64(), report["bad_files"].as_array().map(Vec::len)), (Some(100), Some(3)));
}

#[test]
fn duplicates_are_found_written_and_heeded() {
    let dir = with_pictures(10, 0);
    let class = dir.path().join("pictures/train/checks");
    fs::copy(class.join("0000.png"), class.join("copy.png")).expect("copied");
    fs::write(class.join("empty.jpg"), b"").expect("written");
    let report = json(dir.path(), &["data", "check", "pictures/train", "--out", "found", "--near", "0", "--json"]);
    assert_eq!(report["duplicates"], 1);
    let groups = fs::read_to_string(dir.path().join("found/duplicates.jsonl")).expect("a list");
    let first: Value = serde_json::from_str(groups.lines().next().expect("a group")).expect("JSON");
    assert_eq!(first, report["duplicate_groups"][0]);
    assert_eq!(first["kind"], "exact");
    assert_eq!(first["paths"], serde_json::json!(["checks/0000.png", "checks/copy.png"]));
    let bad = fs::read_to_string(dir.path().join("found/bad_files.jsonl")).expect("a list");
    assert!(bad.lines().count() == 1 && bad.contains("empty.jpg"), "{bad}");
    let said = String::from_utf8(succeeds(dir.path(), &["data", "check", "pictures/train"]).stdout).expect("UTF-8");
    assert!(said.contains("1 byte for byte like another") && said.contains("look alike"), "{said}");
    fails(dir.path(), &["data", "check", "pictures/train", "--near", "8"], 2, &["--near", "0..=7"]);
    fails(dir.path(), &["data", "check"], 2, &["DATA"]);

    let list = ["--set", "data.duplicates=found/duplicates.jsonl", "--set", "length.steps=1"];
    let output = succeeds(dir.path(), &pretrain_args("pictures/train", "run", &list));
    assert!(stderr(&output).contains("pictures show what another one shows"), "{}", stderr(&output));
    // What is known of the pictures is part of what the run is, wherever the list lies.
    succeeds(dir.path(), &["resume", "run"]);
    fs::write(dir.path().join("found/duplicates.jsonl"), "").expect("written");
    fs::remove_file(class.join("copy.png")).expect("removed");
    fails(dir.path(), &["resume", "run"], 7, &["--accept-data-change"]);
    fs::write(dir.path().join("found/duplicates.jsonl"), "no JSON\n").expect("written");
    fails(dir.path(), &["resume", "run"], 3, &["duplicates.jsonl, line 1"]);
}

#[test]
fn folders_lists_and_tables_are_read_as_one_set() {
    let dir = with_pictures(3, 2);
    let both = json(dir.path(), &["data", "check", "pictures/train", "pictures/test", "--json"]);
    assert_eq!((both["pictures"].as_u64(), both["classes"].as_array().map(Vec::len)), (Some(50), Some(10)));
    fs::write(dir.path().join("list.txt"), "pictures/train/dots/0000.png\npictures/test/checks/0001.png\ngone.png\n")
        .expect("written");
    let listed = json(dir.path(), &["data", "check", "--list", "list.txt", "--json"]);
    assert_eq!((listed["pictures"].as_u64(), listed["bad_files"].as_array().map(Vec::len)), (Some(2), Some(1)));
    fs::write(dir.path().join("labels.csv"), "path,label\ndots/0000.png,round\nchecks/0000.png,square\n")
        .expect("written");
    let args = ["data", "check", "pictures/train", "--labels", "labels.csv", "--json"];
    let labelled = json(dir.path(), &args);
    assert_eq!((labelled["classes"][0]["name"].as_str(), labelled["unlabelled"].as_u64()), (Some("round"), Some(28)));
    fs::write(dir.path().join("labels.csv"), "path,label\ndots/0000.png\n").expect("written");
    fails(dir.path(), &args, 3, &["labels.csv, line 2"]);
    // A run finds a list again after its folder has been left.
    let shown = succeeds(dir.path(), &["config", "show", "--preset", "small", "--set", "data.source.list=list.txt"]);
    fs::write(dir.path().join("mine.toml"), shown.stdout).expect("written");
    let args = [
        &["pretrain", "mine.toml", "--out", "run"],
        &TINY[2..],
        &["--set", "data.batch_size=2", "--set", "length.steps=1"],
    ]
    .concat();
    succeeds(dir.path(), &[&args[..], &["--set", "data.source.max_bad_fraction=0.5"]].concat());
    fs::create_dir(dir.path().join("elsewhere")).expect("made");
    succeeds(&dir.path().join("elsewhere"), &["resume", "../run"]);
}

#[test]
fn a_strict_run_stops_at_the_first_bad_file() {
    let dir = with_pictures(4, 0);
    let strict = ["--set", "data.source.on_bad=fail", "--set", "length.steps=2", "--set", "data.source.cache_mib=0"];
    succeeds(dir.path(), &pretrain_args("pictures/train", "good", &strict));
    let picture = dir.path().join("pictures/train/dots/0001.png");
    let whole = fs::read(&picture).expect("a picture");
    fs::write(&picture, b"").expect("written");
    fails(dir.path(), &pretrain_args("pictures/train", "run", &strict), 3, &["0001.png", "on_bad=skip"]);
    assert!(!dir.path().join("run").exists(), "nothing is left behind");

    // Broken behind its header, it shows only when it is read.
    fs::write(&picture, &whole[..whole.len() - 30]).expect("written");
    let headers = ["--set", "data.source.full_scan_files=0", "--set", "length.epochs=2"];
    let args = pretrain_args("pictures/train", "run", &[&strict[..2], &headers].concat());
    fails(dir.path(), &args, 3, &["0001.png", "no longer be read"]);
    let lenient = pretrain_args("pictures/train", "lenient", &headers);
    let output = succeeds(dir.path(), &lenient);
    assert!(stderr(&output).contains("only their headers were read"), "{}", stderr(&output));
    let bad = fs::read_to_string(dir.path().join("lenient/bad_files.jsonl")).expect("a list");
    assert!(bad.contains("0001.png") && bad.contains("replaced_by"), "{bad}");
}

#[test]
fn unusable_data_say_what_was_found() {
    let dir = with_pictures(2, 0);
    fs::create_dir(dir.path().join("nothing")).expect("made");
    fails(dir.path(), &["pretrain", "nothing"], 3, &["nothing"]);
    fails(dir.path(), &["pretrain", "missing"], 3, &["missing"]);
    fails(dir.path(), &["data", "check", "missing"], 3, &["missing"]);
    let batch = ["--set", "data.batch_size=64"];
    fails(dir.path(), &pretrain_args("pictures/train", "run", &batch), 2, &["64", "20"]);
    assert!(!dir.path().join("runs").exists() && !dir.path().join("run").exists());
    fails(dir.path(), &["data", "make", "patterns", "pictures"], 2, &["not an empty folder"]);
    // Pictures directly in the folder carry no labels, so there is nothing to evaluate against.
    let flat = dir.path().join("pictures/train/dots");
    succeeds(
        dir.path(),
        &pretrain_args("pictures/train", "run", &["--set", "data.batch_size=8", "--set", "length.steps=1"]),
    );
    fails(dir.path(), &["eval", "knn", "run", "--train", flat.to_str().expect("UTF-8")], 3, &["labels"]);
}

#[test]
fn a_wrong_configuration_names_the_key_and_the_nearest_one() {
    let dir = with_pictures(4, 0);
    let wrong = |set: &str, words: &[&str]| {
        fails(dir.path(), &pretrain_args("pictures/train", "run", &["--set", set]), 2, words);
    };
    wrong("loss.temprature=0.2", &["temprature", "did you mean `temperature`"]);
    wrong("los.temperature=0.2", &["unknown key `los`", "did you mean `loss`"]);
    wrong("loss.temperature=-1", &["temperature", "-1"]);
    wrong("data.batch_size=many", &["invalid type: string \"many\", expected usize"]);
    wrong("length.epoch=2", &["unknown key `epoch`", "did you mean `epochs`"]);
    wrong("length=2", &["`length` has keys of its own", "length.epochs"]);
    wrong("eval.knn.k=0", &["eval.knn: expected k of at least 1"]);
    wrong("every.save.steps=0", &["every.save: expected at least one step"]);
    wrong("data.source.max_bad_fraction=nan", &["data.source.max_bad_fraction: expected a number from 0 to 1"]);
    wrong("encoder.arch=resnet19", &["resnet19", "resnet18"]);
    wrong("optimizer.kind=sdg", &["sdg", "did you mean `sgd`"]);
    wrong("nonsense", &["KEY=VALUE"]);
    fails(dir.path(), &["config", "show", "--preset", "smal"], 2, &["did you mean `small`"]);
    if !cfg!(feature = "cuda") {
        fails(dir.path(), &["pretrain", "pictures/train", "--device", "cuda"], 2, &["--features cuda"]);
    }

    let shown = succeeds(dir.path(), &["config", "show", "--preset", "demo"]).stdout;
    let text = String::from_utf8(shown).expect("UTF-8");
    let file = dir.path().join("mine.toml");
    fs::write(&file, text.replace("temperature", "temperatur")).expect("written");
    fails(dir.path(), &["pretrain", "mine.toml"], 2, &["mine.toml", "line", "temperatur"]);
}

#[test]
fn every_objective_trains() {
    let dir = with_pictures(4, 1);
    for (run, loss) in [
        ("nt_xent", ""),
        ("info_nce", ", both_ways = true"),
        ("debiased", ", tau_plus = { classes = 10 }"),
        ("hard_negative", ", tau_plus = 0.1, beta = 1.0, final_beta = 0.0"),
        ("decoupled", ", n_cancelled = 2"),
        ("decoupled_weighted", ", sigma = 0.5, detach_weight = true"),
        ("sup_con", ""),
        ("in_batch_logistic", ", bias = -4.0, corrected = true, n_cancelled = 1"),
    ] {
        let loss = format!(r#"loss={{kind = "{run}", temperature = 0.5{loss}}}"#);
        succeeds(dir.path(), &pretrain_args("pictures/train", run, &["--set", &loss, "--set", "length.steps=2"]));
        for step in metrics(&dir.path().join(run)) {
            let loss = step["loss"].as_f64().expect("a finite loss");
            let chance = step["chance"].as_f64().expect("a finite chance line");
            assert!((loss - chance).abs() < 3.0, "{run}: {loss} at the beginning, chance {chance}");
            assert!(step["gradient_norm"].as_f64().expect("finite") > 0.0, "{run}");
        }
    }
}

#[test]
fn two_runs_never_share_a_directory() {
    let dir = with_pictures(4, 0);
    let args = pretrain_args("pictures/train", "run", &["--set", "length.steps=1"]);
    succeeds(dir.path(), &args);
    fails(dir.path(), &args, 7, &["not empty", "twoview resume"]);
    fails(dir.path(), &["resume", "pictures"], 7, &["not a run directory"]);
}

#[test]
fn pictures_that_changed_stop_a_resume() {
    let dir = with_pictures(4, 0);
    succeeds(dir.path(), &pretrain_args("pictures/train", "run", &["--set", "length.steps=5"]));
    // As if it had been killed after the checkpoint of step 4.
    fs::remove_dir_all(dir.path().join("run/checkpoints/step-00000005")).expect("removed");
    fs::remove_file(dir.path().join("pictures/train/dots/0000.png")).expect("removed");
    fails(dir.path(), &["resume", "run"], 7, &["40 then, 39 now", "--accept-data-change"]);
    succeeds(dir.path(), &["resume", "run", "--accept-data-change"]);
    assert_eq!(metrics(&dir.path().join("run")).len(), 5);
    // Accepted once, they are the run's pictures; an edit that keeps name and size is a change again.
    succeeds(dir.path(), &["resume", "run"]);
    let picture = dir.path().join("pictures/train/dots/0001.png");
    let other = fs::read(dir.path().join("pictures/train/dots/0002.png")).expect("a picture");
    fs::write(&picture, other).expect("written");
    fails(dir.path(), &["resume", "run"], 7, &["39 then, 39 now", "edited"]);
}

#[test]
fn a_run_does_not_go_on_as_another_experiment() {
    let dir = with_pictures(4, 0);
    succeeds(dir.path(), &pretrain_args("pictures/train", "run", &["--set", "length.steps=2"]));
    let config = dir.path().join("run/config.resolved.toml");
    let text = fs::read_to_string(&config).expect("a configuration");
    fs::write(&config, text.replace("temperature = 0.2", "temperature = 0.3")).expect("written");
    fails(dir.path(), &["resume", "run"], 7, &["loss.temperature was 0.2 and is 0.3"]);
    // How often it saves is not part of what it computes.
    fs::write(&config, text.replace("steps = 4", "steps = 3")).expect("written");
    succeeds(dir.path(), &["resume", "run"]);
}

#[test]
fn numbers_that_are_not_finite_end_a_run_before_they_are_saved() {
    let dir = with_pictures(4, 0);
    let more = ["--set", "length.steps=6", "--set", "every.save.steps=1", "--set", "optimizer.lr_per_256=1e30"];
    fails(dir.path(), &pretrain_args("pictures/train", "run", &more), 5, &["the last checkpoint is good"]);
    assert!(!dir.path().join("run/export").exists());
}

/// What has to be equal, bit for bit, between a run that was stopped and one that was not.
fn outcome(run: &Path) -> (Vec<u8>, BTreeMap<u64, (u64, u64)>) {
    let steps = metrics(run).iter().map(|m| m["step"].as_u64().expect("a step")).collect::<Vec<_>>();
    assert_eq!(steps, (1..=steps.len() as u64).collect::<Vec<_>>(), "each step once, in order");
    let numbers = metrics(run)
        .iter()
        .map(|m| {
            let bits = |key: &str| m[key].as_f64().expect("a number").to_bits();
            (m["step"].as_u64().expect("a step"), (bits("loss"), bits("gradient_norm")))
        })
        .collect();
    (fs::read(run.join("export/encoder.safetensors")).expect("an encoder"), numbers)
}

// Long enough that a run never ends between two looks at it.
const LONG: [&str; 2] = ["--set", "length.epochs=20"];

#[test]
#[cfg(unix)]
fn a_killed_run_resumes_to_the_same_bits() {
    let dir = with_pictures(20, 0);
    succeeds(dir.path(), &pretrain_args("pictures/train", "whole", &LONG));
    let whole = outcome(&dir.path().join("whole"));
    assert_eq!(whole.1.len(), 120);

    // Once before the first checkpoint, once between two of them, in the middle of an epoch.
    for (name, kill_after) in [("early", 2), ("late", 40)] {
        let run = dir.path().join(name);
        let mut child = command(dir.path(), &pretrain_args("pictures/train", name, &LONG))
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let begun = Instant::now();
        while fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().lines().count() < kill_after {
            assert!(begun.elapsed() < Duration::from_secs(120), "the run makes no steps");
            assert!(child.try_wait().expect("a status").is_none(), "the run ended before it could be killed");
            thread::sleep(Duration::from_millis(2));
        }
        child.kill().expect("killed");
        child.wait().expect("a status");
        assert!(!run.join("export").exists(), "killed before its end");
        succeeds(dir.path(), &["resume", name]);
        assert!(outcome(&run) == whole, "{name}: the resumed run differs from the whole one");
    }
}

#[test]
#[cfg(unix)]
fn an_interrupt_saves_and_says_how_to_go_on() {
    let dir = with_pictures(20, 0);
    for (signal, exit) in [("INT", 130), ("TERM", 143)] {
        let child = command(dir.path(), &pretrain_args("pictures/train", signal, &["--set", "length.epochs=200"]))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log: PathBuf = dir.path().join(signal).join("metrics.jsonl");
        let begun = Instant::now();
        while fs::metadata(&log).map_or(0, |log| log.len()) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(120), "the run makes no steps");
            thread::sleep(Duration::from_millis(2));
        }
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        let output = child.wait_with_output().expect("a status");
        assert_eq!(output.status.code(), Some(exit), "{}", stderr(&output));
        assert!(stderr(&output).contains(&format!("twoview resume {signal}")), "{}", stderr(&output));
        // Nothing was lost: the checkpoint is of the last step that was made.
        let steps = metrics(&dir.path().join(signal)).len();
        assert!(dir.path().join(signal).join(format!("checkpoints/step-{steps:08}/COMMIT")).is_file());
    }
}

#[test]
fn lost_measurements_lose_no_training() {
    let dir = with_pictures(20, 0);
    succeeds(dir.path(), &pretrain_args("pictures/train", "run", &["--set", "length.steps=10"]));
    let run = dir.path().join("run");
    let (encoder, steps) = outcome(&run);
    fs::remove_file(run.join("metrics.jsonl")).expect("removed");
    fs::remove_dir_all(run.join("checkpoints/step-00000010")).expect("removed");
    fs::remove_dir_all(run.join("export")).expect("removed");
    let output = succeeds(dir.path(), &["resume", "run"]);
    assert!(stderr(&output).contains("metrics.jsonl lacks"), "{}", stderr(&output));
    assert!(fs::read(run.join("export/encoder.safetensors")).expect("an encoder") == encoder, "the same bits");
    let again = metrics(&run);
    assert_eq!(again.iter().map(|m| m["step"].as_u64()).collect::<Vec<_>>(), [Some(9), Some(10)]);
    assert!(
        again
            .iter()
            .all(|m| m["loss"].as_f64().map(f64::to_bits) == Some(steps[&m["step"].as_u64().expect("a step")].0))
    );
    succeeds(dir.path(), &["report", "run", "--pictures", "0"]);
}

#[test]
fn a_run_without_its_checkpoints_is_not_trained_over() {
    let dir = with_pictures(6, 2);
    succeeds(dir.path(), &pretrain_args("pictures/train", "run", &["--set", "length.steps=6"]));
    let run = dir.path().join("run");
    let eval = ["eval", "knn", "run", "--test", "pictures/test"];
    let whole = json(dir.path(), &[eval.as_slice(), &["--json"]].concat());
    fs::remove_dir_all(run.join("checkpoints")).expect("removed");
    fails(dir.path(), &["resume", "run"], 7, &["no checkpoint left", "export", "pretrain run/config.resolved.toml"]);
    let output = succeeds(dir.path(), &[eval.as_slice(), &["--json"]].concat());
    assert!(stderr(&output).contains("warning: run has no checkpoint"), "{}", stderr(&output));
    let scores: Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    assert_eq!(scores["top1"], whole["top1"], "the exported encoder is the same");
    fs::remove_dir_all(run.join("export")).expect("removed");
    fails(dir.path(), &["resume", "run"], 7, &["6 steps have been measured"]);
    fails(dir.path(), &eval, 7, &["run has no checkpoint", "resume run"]);
    assert_eq!(metrics(&run).len(), 6, "nothing is lost");
}

#[test]
fn pictures_that_were_moved_can_be_named() {
    let dir = with_pictures(6, 2);
    succeeds(dir.path(), &pretrain_args("pictures/train", "run", &["--set", "length.steps=6"]));
    fs::rename(dir.path().join("pictures"), dir.path().join("moved")).expect("moved");
    fails(dir.path(), &["eval", "knn", "run"], 3, &["not where they were", "--train DATA", "data.source"]);
    fails(dir.path(), &["search", "run", "moved/test/dots/0000.png"], 3, &["--in DATA"]);
    fails(dir.path(), &["resume", "run"], 3, &["data.source of run/config.resolved.toml"]);
    let config = dir.path().join("run/config.resolved.toml");
    let text = fs::read_to_string(&config).expect("a configuration");
    fs::write(&config, text.replace("pictures/train", "moved/train")).expect("written");
    succeeds(dir.path(), &["resume", "run"]);
    succeeds(dir.path(), &["eval", "knn", "run"]);
}

#[test]
fn a_resumed_run_ends_with_the_loss_of_one_that_was_not_stopped() {
    let dir = with_pictures(20, 0);
    let more = ["--set", "length.steps=10", "--json"];
    let whole = json(dir.path(), &pretrain_args("pictures/train", "run", &more));
    fs::remove_dir_all(dir.path().join("run/checkpoints/step-00000010")).expect("removed");
    let loss = |summary: &Value| summary["loss"].as_f64().expect("a loss");
    let resumed = json(dir.path(), &["resume", "run", "--json"]);
    // What was before is averaged from the report's single precision.
    assert!((loss(&resumed) - loss(&whole)).abs() < 1e-6, "{resumed} {whole}");

    // Measurements that cannot be read cost a warning.
    fs::remove_dir_all(dir.path().join("run/checkpoints/step-00000010")).expect("removed");
    let text = fs::read_to_string(dir.path().join("run/metrics.jsonl")).expect("metrics");
    let damaged = text.replacen("{\"step\":3", "{?step\":3", 1).replacen("{\"step\":5", "{?step\":5", 1);
    fs::write(dir.path().join("run/metrics.jsonl"), damaged).expect("written");
    let output = succeeds(dir.path(), &["resume", "run", "--tensorboard"]);
    let said = stderr(&output);
    assert!(said.contains("metrics.jsonl: lines 3, 5 cannot be read"), "{said}");
    succeeds(dir.path(), &["report", "run", "--pictures", "0"]);
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let dir = with_pictures(20, 0);
    succeeds(dir.path(), &pretrain_args("pictures/train", "run", &["--set", "length.steps=10"]));
    let whole = outcome(&dir.path().join("run"));
    let newest = dir.path().join("run/checkpoints/step-00000010/encoder.safetensors");
    let mut bytes = fs::read(&newest).expect("weights");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, &bytes).expect("written");
    fs::remove_dir_all(dir.path().join("run/export")).expect("removed");
    let output = succeeds(dir.path(), &["resume", "run"]);
    assert!(stderr(&output).contains("damaged") && stderr(&output).contains("step-00000010"), "{}", stderr(&output));
    assert!(outcome(&dir.path().join("run")) == whole, "the same bits again");
}

#[test]
fn the_step_benchmark_reports_what_it_promises() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let args = [
        "bench", "step", "--device", "flex", "--width", "4", "--batch", "8", "--image", "16", "--steps", "2", "--json",
    ];
    let report = json(dir.path(), &args);
    assert!(report["images_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{report}");
    assert_eq!(report["device"], "flex");
    fails(dir.path(), &["bench", "step", "--batch", "18446744073709551615"], 2, &["from 2 to 65536"]);
    if cfg!(target_os = "linux") {
        assert!(report["peak_rss_mib"].as_f64().is_some_and(|mib| mib > 1.0), "{report}");
    }
}

#[test]
fn the_view_benchmarks_report_what_they_promise() {
    let dir = with_pictures(4, 1);
    let views = ["bench", "views", "--data", "pictures/train", "--image", "24", "--recipe", "imagenet"];
    let report = json(dir.path(), &[views.as_slice(), &["--threads", "2", "--seconds", "0.2", "--json"]].concat());
    assert!(report["images_per_s"].as_f64().expect("a number") > 0.0, "{report}");
    assert!(report["peak_rss_mib"].as_f64().is_none_or(|mib| mib > 1.0), "{report}");
    for stage in ["read", "decode", "plan", "crop", "color", "blur", "write"] {
        assert!(report["stages_us"][stage].as_f64().is_some(), "{stage} in {report}");
    }
    let report = json(dir.path(), &["bench", "load", "--workers", "0", "--batch", "8", "--seconds", "0.2", "--json"]);
    assert!(report["images_per_s"].as_f64().expect("a number") > 0.0, "{report}");
    fails(dir.path(), &["bench", "views", "--recipe", "imagnet"], 2, &["imagnet", "cifar_weak"]);
    fails(dir.path(), &["bench", "views", "--image", "0"], 2, &["size_px must be from 1 to 4096, got 0"]);
}

#[test]
fn a_preview_shows_the_views_that_training_makes() {
    let dir = with_pictures(4, 1);
    let of = |more: &[&str]| json(dir.path(), &[&["preview", "pictures/train", "--json"], more].concat());
    let report = of(&["--grid", "3x2", "--out", "one.png"]);
    let plans = report["plans"].as_array().expect("plans");
    assert_eq!(plans.len(), 6);
    assert!(plans[0]["words"].as_str().expect("words").starts_with("crop "), "{report}");
    assert!(fs::read(dir.path().join("one.png")).expect("a file").starts_with(b"\x89PNG"));
    assert_eq!(of(&["--grid", "3x2", "--out", "same.png"])["plans"], report["plans"]);
    assert_ne!(of(&["--grid", "3x2", "--seed", "9", "--out", "other.png"])["plans"], report["plans"]);
    let turned = of(&["--grid", "40x2", "--preset", "overhead", "--out", "turned.png"]);
    assert!(turned["plans"].to_string().contains("quarter_turns"), "{turned}");
    let crops = of(&["--grid", "2x6", "--preset", "multi_crop", "--out", "crops.png"]);
    let sizes: Vec<u64> = crops["plans"].as_array().expect("plans")[..6]
        .iter()
        .map(|plan| plan["plan"]["ops"][0]["size_px"].as_u64().expect("a size"))
        .collect();
    assert_eq!(sizes, [32, 32, 13, 13, 13, 13]);
    fails(dir.path(), &["preview", "pictures/train", "--grid", "6"], 2, &["PICTURESxVIEWS"]);
    fails(dir.path(), &["preview", "nowhere"], 3, &["nowhere"]);
}

#[test]
fn a_set_in_one_file_is_the_set() {
    let dir = with_pictures(8, 2);
    // A copy, which is no negative of its original, and batches of the whole set, so that the two always meet.
    let stripes = dir.path().join("pictures/train/stripes");
    fs::copy(stripes.join("0000.png"), stripes.join("0001.png")).expect("a copy");
    let report = json(dir.path(), &["data", "pack", "pictures/train", "--out", "set.pack", "--json"]);
    assert_eq!(report["pictures"], 80, "{report}");
    let more = ["--set", "data.batch_size=80", "--set", "length.steps=2", "--json"];
    let from_files = json(dir.path(), &pretrain_args("pictures/train", "files", &more));
    let from_pack = json(dir.path(), &pretrain_args("set.pack", "pack", &more));
    let last = |report: &Value| metrics(&dir.path().join(report["run"].as_str().expect("a run"))).pop();
    let loss = |report: &Value| last(report).map(|line| line["loss"].clone());
    assert!(loss(&from_files).is_some_and(|loss| loss.is_number()));
    assert_eq!(loss(&from_files), loss(&from_pack));
    let bytes = [&["--set", "data.pixels=u8"], more.as_slice()].concat();
    let from_bytes = json(dir.path(), &pretrain_args("set.pack", "bytes", &bytes));
    assert_eq!(loss(&from_files), loss(&from_bytes));

    let [files, pack] = ["pictures/train", "set.pack"].map(|set| json(dir.path(), &["data", "check", set, "--json"]));
    for key in ["pictures", "classes", "formats", "width", "duplicates", "duplicate_groups", "total_bytes"] {
        assert_eq!(files[key], pack[key], "{key}");
    }
    assert_eq!((&pack["bad_files"], &pack["duplicates"]), (&serde_json::json!([]), &serde_json::json!(1)));
    let bench = ["bench", "views", "--data", "set.pack", "--seconds", "0.05", "--json"];
    let bench = json(dir.path(), &bench);
    assert!(bench["images_per_s"].as_f64() > Some(0.0) && bench["stages_us"]["decode"].is_f64(), "{bench}");
}

#[test]
fn help_and_a_closed_pipe_are_no_errors() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let help = String::from_utf8(succeeds(dir.path(), &["--help"]).stdout).expect("UTF-8");
    for verb in ["demo", "pretrain", "resume", "eval", "embed", "data", "config", "bench", "Exit codes"] {
        assert!(help.contains(verb), "{verb} in\n{help}");
    }
    let mut child = command(dir.path(), &["config", "show", "--preset", "demo"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("a status");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
}
