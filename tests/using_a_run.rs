//! What can be done with a trained encoder, from its users' side: look, search, group, label, compare.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::cli::{command, fails, json, make_pictures, pretrain_args, stderr, succeeds, with_pictures};
use serde_json::Value;

/// A folder with pictures and a run on them, made once for all tests of this file, which only add files of their own.
fn trained() -> &'static Path {
    static TRAINED: OnceLock<PathBuf> = OnceLock::new();
    TRAINED.get_or_init(|| {
        // What is static is never dropped, so the folder of the last time is removed before this one is made.
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("using_a_run");
        if dir.exists() {
            fs::remove_dir_all(&dir).expect("removed");
        }
        fs::create_dir_all(&dir).expect("a folder");
        make_pictures(&dir, 12, 6);
        let more = ["--set", "length.epochs=2", "--set", "every.knn.steps=3", "--json"];
        json(&dir, &pretrain_args("pictures/train", "run", &more));
        dir
    })
}

fn stdout(dir: &Path, args: &[&str]) -> String {
    String::from_utf8(succeeds(dir, args).stdout).expect("UTF-8")
}

/// The rows of a table without quotes, after its head.
fn rows(table: &Path) -> impl Iterator<Item = Vec<String>> {
    let text = fs::read_to_string(table).expect("a table");
    let rows: Vec<Vec<String>> =
        text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect();
    rows.into_iter()
}

#[test]
fn the_encoder_is_looked_at_while_it_trains() {
    let text = fs::read_to_string(trained().join("run/metrics.jsonl")).expect("metrics");
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let looked: Vec<u64> =
        rows.iter().filter(|row| row["knn"]["top1"].is_f64()).filter_map(|row| row["step"].as_u64()).collect();
    assert_eq!(looked, [3, 6], "every third step and after the last one");
    assert!(
        rows.iter().all(|row| row["knn"].is_null() || row["knn"]["n"] == 20),
        "a fifth of the pictures is asked about"
    );
    // The lines that the curve is drawn beside are of the same pictures: those that `eval knn` holds out of so few.
    let online = fs::read_to_string(trained().join("run/online.json")).expect("what it is compared with");
    let online: Value = serde_json::from_str(&online).expect("JSON");
    let scores = json(trained(), &["eval", "knn", "run", "--json"]);
    assert_eq!((&online["untrained"], &online["raw_pixels"]), (&scores["untrained"], &scores["raw_pixels"]));
    assert_eq!(rows[5]["knn"]["top1"], scores["top1"]);
}

#[test]
fn a_run_becomes_a_page_figures_and_events() {
    let dir = trained();
    json(dir, &["eval", "knn", "run", "--k", "3", "--json"]);
    let args =
        ["report", "run", "--pictures", "60", "--out", "page.html", "--figures", "--tensorboard", "--csv", "--json"];
    let made = json(dir, &args);
    let page = fs::read_to_string(dir.join("page.html")).expect("a page");
    assert_eq!(made["bytes"], page.len());
    for word in ["<!doctype html>", "kNN", "t-SNE", "PCA", "rings/", "Look the same", "length"] {
        assert!(page.contains(word), "{word} is not on the page");
    }
    for beyond in ["http://", "https://"] {
        let links: Vec<&str> = page.match_indices(beyond).map(|(at, _)| &page[at..page.len().min(at + 40)]).collect();
        assert!(links.iter().all(|link| link.contains("www.w3.org/")), "the page reaches out: {links:?}");
    }
    assert!(dir.join("run/figures").read_dir().expect("figures").count() >= 5);
    let events = fs::read_dir(dir.join("run/tb")).expect("events").next().expect("one file").expect("readable");
    assert!(events.metadata().expect("readable").len() > 500);
    let table = fs::read_to_string(dir.join("run/metrics.csv")).expect("a table");
    assert!(table.starts_with("step,") && table.lines().count() == 7, "a head and six steps:\n{table}");
}

#[test]
fn events_are_written_while_it_trains_as_they_are_afterwards() {
    let dir = trained();
    let more = ["--set", "length.steps=3", "--tensorboard", "--json"];
    json(dir, &pretrain_args("pictures/train", "events", &more));
    let path = dir.join("events/tb/events.out.tfevents.0.twoview");
    let live = fs::metadata(&path).expect("events").len();
    json(dir, &["report", "events", "--pictures", "0", "--tensorboard", "--json"]);
    // The times differ, and nothing else.
    assert_eq!(fs::metadata(&path).expect("events").len(), live);

    // Whoever trains holds this lock, and writes the events itself.
    let before = fs::read(&path).expect("events");
    let held = fs::File::open(dir.join("events/lock")).expect("a lock");
    held.lock().expect("nobody trains");
    let output = succeeds(dir, &["report", "events", "--pictures", "0", "--tensorboard"]);
    assert!(stderr(&output).contains("events are left as they are"), "{}", stderr(&output));
    assert!(fs::read(&path).expect("events") == before);
}

#[test]
fn damaged_scores_are_set_aside_and_new_ones_kept() {
    let dir = trained();
    json(dir, &pretrain_args("pictures/train", "scored", &["--set", "length.steps=1", "--json"]));
    let (scores, damaged) = (dir.join("scored/scores.json"), dir.join("scored/scores.json.damaged"));
    fs::write(&scores, "{\"knn\": ").expect("written");
    let output = succeeds(dir, &["eval", "knn", "scored", "--k", "3"]);
    assert!(stderr(&output).contains("scores.json.damaged"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(damaged).expect("kept"), "{\"knn\": ");
    let kept: Value = serde_json::from_str(&fs::read_to_string(scores).expect("scores")).expect("JSON");
    assert!(kept["knn"]["top1"].is_f64(), "{kept}");
}

#[test]
#[cfg(unix)]
fn an_interrupted_classifier_keeps_what_was_measured_before() {
    let dir = trained();
    json(dir, &pretrain_args("pictures/train", "stopped", &["--set", "length.steps=1", "--json"]));
    // Sent as soon as the program has said `words`.
    let interrupted = |args: &[&str], words: &str| {
        let mut child = command(dir, args).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut said = String::new();
        let mut sent = false;
        for line in lines.map(|line| line.expect("UTF-8")) {
            if line.contains(words) && !sent {
                let kill = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
                sent = kill.expect("kill runs").success();
            }
            said += &(line + "\n");
        }
        let output = child.wait_with_output().expect("a status");
        assert!(sent && output.status.code() == Some(130), "{}: {said}", output.status);
        (String::from_utf8(output.stdout).expect("UTF-8"), said)
    };
    // Two views of twenty pictures are a step in no time, those of a hundred and twenty five slow ones.
    let finetune = ["eval", "finetune", "stopped", "--train", "pictures/train", "--test", "pictures/test"];
    let more = ["--batch-size", "24", "--epochs", "100", "--fractions", "0.2,1", "--json"];
    let (found, said) = interrupted(&[&finetune[..], &more].concat(), "fine-tuned, 20 labels, steps 100 in");
    assert!(said.contains("1 of 2 shares of the labels are measured and kept"), "{said}");
    let found: Value = serde_json::from_str(&found).expect("JSON");
    assert_eq!(found["fractions"].as_array().map(Vec::len), Some(1), "{found}");
    let kept = fs::read_to_string(dir.join("stopped/scores.json")).expect("scores");
    assert_eq!(serde_json::from_str::<Value>(&kept).expect("JSON")["finetune"], found);

    let more = ["--batch-size", "24", "--epochs", "100", "--fractions", "1", "--json"];
    let (found, said) = interrupted(&[&finetune[..], &more].concat(), "from scratch, 120 labels");
    assert!(found.is_empty() && said.contains("stopped after step"), "{found}{said}");
}

#[test]
fn what_cannot_be_done_names_what_can() {
    let dir = trained();
    let few = "path,label\nrings/0000.png,a\nrings/0001.png,a\ndots/0000.png,b\n";
    fs::write(dir.join("three.csv"), few).expect("written");
    let labels = ["run", "--labels", "three.csv"];
    let with = |command: &[&'static str], more: &[&'static str]| [command, labels.as_slice(), more].concat();
    // Two of the three are left to learn from, one of either class.
    fails(dir, &with(&["eval", "linear"], &[]), 3, &["eval.linear.l2", "--l2"]);
    assert!(json(dir, &with(&["eval", "linear"], &["--l2", "0.01", "--json"]))["top1"].is_f64());
    fails(dir, &with(&["eval", "linear"], &["--l2", "0"]), 2, &["--l2", "positive"]);
    fails(dir, &["eval", "linear", "run", "--l2", "0.1", "--augmented"], 2, &["--l2", "--augmented"]);
    let usual = json(dir, &with(&["eval", "fewshot"], &["--json"]));
    assert_eq!(usual["trained"].as_array().map(Vec::len), Some(1), "as many as there are: {usual}");
    fails(dir, &with(&["eval", "fewshot"], &["--shots", "2"]), 3, &["--shots 2", "class a", "--shots 1"]);
    let knn = json(dir, &with(&["eval", "knn"], &["--json"]));
    assert!(knn["protocol"].as_str().is_some_and(|text| text.contains("all 2 there are")), "{knn}");

    // Test pictures without class folders have a table of their own.
    fs::create_dir_all(dir.join("flat")).expect("a folder");
    for (i, class) in ["rings", "dots"].into_iter().enumerate() {
        fs::copy(dir.join(format!("pictures/test/{class}/0000.png")), dir.join(format!("flat/{i}.png")))
            .expect("copied");
    }
    fs::write(dir.join("flat.csv"), "picture,breed\n0.png,a\n1.png,b\n").expect("written");
    let flat = ["eval", "knn", "run", "--labels", "gaps2.csv", "--test", "flat"];
    let rows: String = (0..8).map(|i| format!("rings/000{i}.png,a\ndots/000{i}.png,b\n")).collect();
    fs::write(dir.join("gaps2.csv"), rows).expect("written");
    fails(dir, &flat, 3, &["test pictures have no labels", "--test-labels"]);
    assert_eq!(json(dir, &[&flat[..], &["--test-labels", "flat.csv", "--json"]].concat())["n"], 2);
    fails(dir, &["eval", "knn", "run", "--test-labels", "flat.csv"], 2, &["--test"]);

    // The paths of a table that is a link begin where the link is, for every command.
    #[cfg(unix)]
    {
        fs::create_dir_all(dir.join("store")).expect("a folder");
        let row = |i: u32| format!("pictures/train/rings/000{i}.png,a\npictures/train/dots/000{i}.png,b\n");
        fs::write(dir.join("store/table"), (0..8).map(row).collect::<String>()).expect("written");
        std::os::unix::fs::symlink("store/table", dir.join("linked.csv")).expect("a link");
        let checked = json(dir, &["data", "check", "pictures/train", "--labels", "linked.csv", "--json"]);
        assert_eq!(checked["bad_files"].as_array().map(Vec::len), Some(0), "{checked}");
        assert!(json(dir, &["eval", "knn", "run", "--labels", "linked.csv", "--json"])["top1"].is_f64());
    }
    fs::write(dir.join("other.csv"), "elsewhere/0000.png,a\nelsewhere/0001.png,b\n").expect("written");
    let far = ["eval", "knn", "run", "--train", "flat", "--labels", "other.csv"];
    fails(dir, &far, 3, &["other.csv"]);

    fs::write(dir.join("words.txt"), "not a picture").expect("written");
    fails(dir, &["search", "run", "words.txt"], 3, &["words.txt: expected a picture"]);
    fs::create_dir_all(dir.join("broken")).expect("a folder");
    fs::write(dir.join("broken/a.png"), "not a picture").expect("written");
    fs::copy(dir.join("flat/0.png"), dir.join("broken/b.png")).expect("copied");
    let said = stderr(&command(dir, &["search", "run", "broken"]).output().expect("starts"));
    assert!(said.contains("a.png") && !said.contains("--set"), "search has no --set:\n{said}");
    fails(dir, &["import", "run/export/encoder.safetensors", "--out", "run"], 7, &["--out"]);
}

#[test]
fn classifiers_are_trained_on_some_labels_with_the_encoder_and_without() {
    let dir = trained();
    let data = ["--train", "pictures/train", "--test", "pictures/test"];
    let finetune = ["eval", "finetune", "run", "--fractions", "0.2,1", "--epochs", "2", "--batch-size", "24", "--json"];
    let tuned = json(dir, &[finetune.as_slice(), &data].concat());
    assert_eq!((&tuned["fractions"][0]["labels"], &tuned["fractions"][1]["labels"]), (&20.into(), &120.into()));
    assert_eq!(tuned["top1"], tuned["fractions"][1]["trained"]["top1"], "the largest share is the answer");
    assert_eq!(tuned["scratch"], tuned["fractions"][1]["scratch"]["top1"]);
    assert_eq!(json(dir, &[finetune.as_slice(), &data].concat()), tuned, "the same command finds the same");
    let augmented = ["eval", "linear", "run", "--augmented", "--epochs", "2", "--json"];
    let on_top = json(dir, &[augmented.as_slice(), &data].concat());
    assert!(on_top["top1"].is_f64() && on_top["untrained"].is_f64() && on_top["chance"] == 0.1, "{on_top}");
    let scores: Value =
        serde_json::from_str(&fs::read_to_string(dir.join("run/scores.json")).expect("scores")).expect("JSON");
    assert_eq!((&scores["finetune"], &scores["linear_augmented"]), (&tuned, &on_top));

    fails(dir, &["eval", "linear", "run", "--epochs", "2"], 2, &["--epochs", "--augmented"]);
    fails(dir, &["eval", "finetune", "run", "--fractions", "0"], 2, &["above 0 and at most 1, got 0"]);
    fails(dir, &["eval", "finetune", "run", "--lr-per-256", "0"], 2, &["lr_per_256"]);
}

#[test]
fn features_come_in_every_form() {
    let dir = trained();
    let embed = |format: &str, out: &str| {
        json(dir, &["embed", "run", "pictures/test", "--format", format, "--out", out, "--json"])
    };
    assert_eq!(embed("npy", "a.npy")["pictures"], 60);
    let whole = fs::read(dir.join("a.npy")).expect("features");
    let values = &whole[whole.len() - 60 * 32 * 4..];
    assert_eq!(embed("safetensors", "a.safetensors")["dim"], 32);
    assert!(fs::read(dir.join("a.safetensors")).expect("features").ends_with(values));
    embed("csv", "a.csv");
    let table = fs::read_to_string(dir.join("a.csv")).expect("features");
    let first: Vec<&str> = table.lines().nth(1).expect("a row").split(',').collect();
    assert_eq!((first.len(), first[0], first[1]), (34, "bricks/0000.png", "bricks"));
    assert_eq!(first[2].parse::<f32>().expect("a number").to_le_bytes(), values[..4]);

    // Rows of other pictures, as an interrupted command leaves them, are not mistaken for these.
    let (rows, identity) = (dir.join("b.npy.rows"), dir.join("b.npy.rows.json"));
    fs::write(&rows, [7; 3 * 32 * 4]).expect("written");
    fs::write(&identity, "{}").expect("written");
    embed("npy", "b.npy");
    assert_eq!(fs::read(dir.join("b.npy")).expect("features"), whole);
    assert!(!rows.exists() && !identity.exists(), "nothing is left behind");
    fails(dir, &["embed", "run", "pictures/test", "--format", "npy", "--out", "nowhere/b.npy"], 4, &["nowhere"]);

    // The ending says what a file is.
    succeeds(dir, &["embed", "run", "pictures/test", "--out", "c.csv"]);
    assert_eq!(fs::read_to_string(dir.join("c.csv")).expect("features"), table);
    fails(dir, &["embed", "run", "pictures/test", "--format", "npy", "--out", "c.csv"], 2, &["--format npy", ".npy"]);
    succeeds(dir, &["export", "run", "--out", "e.onnx"]);
    let card = fs::read_to_string(dir.join("e.onnx.card.json")).expect("a card");
    assert_eq!(serde_json::from_str::<Value>(&card).expect("JSON")["format"], "onnx");
}

#[test]
fn nothing_is_written_over_what_a_run_goes_on_from() {
    let dir = trained();
    let config = fs::read_to_string(dir.join("run/config.resolved.toml")).expect("a configuration");
    let over = "run/config.resolved.toml";
    fails(dir, &["embed", "run", "pictures/test", "--format", "csv", "--out", over], 2, &[over, "another file"]);
    fails(dir, &["dedup", "run", "--out", "run/metrics.jsonl"], 2, &["run/metrics.jsonl"]);
    fails(dir, &["report", "run", "--out", over], 2, &[over]);
    fails(dir, &["export", "run", "--format", "onnx", "--out", "run/manifest.json"], 2, &["run/manifest.json"]);
    fails(dir, &["init", "pictures/train", "--force", "--out", over], 2, &[over]);
    fails(dir, &["embed", "run", "pictures/test", "--out", "pictures"], 2, &["pictures", "a folder"]);
    fails(dir, &["search", "run", "pictures/test", "--sheet", "pictures/test/dots/0000.jpg"], 2, &[".png"]);
    fails(dir, &["embed", "run", "pictures/test", "--out", "run/export/encoder.safetensors"], 2, &["of its own"]);
    fails(dir, &["embed", "run", "pictures/test", "--out", "features.parq"], 2, &["features.parq", "--format: npy"]);
    #[cfg(unix)]
    {
        fails(dir, &["dedup", "run", "--out", "/dev/null"], 2, &["/dev/null", "device"]);
        // A link is written through, and is no way around.
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, dir.join(name)).expect("a link");
        link("run/manifest.json", "to-manifest.csv");
        fails(dir, &["embed", "run", "pictures/test", "--out", "to-manifest.csv"], 2, &["to-manifest.csv"]);
        fs::write(dir.join("target.safetensors"), "").expect("written");
        link("target.safetensors", "to-target.safetensors");
        succeeds(dir, &["export", "run", "--out", "to-target.safetensors"]);
        assert!(fs::metadata(dir.join("target.safetensors")).expect("a file").len() > 0);
    }
    fails(dir, &["dedup", "run", "--out", "run/scores.json"], 2, &["run/scores.json"]);
    assert_eq!(fs::read_to_string(dir.join(over)).expect("a configuration"), config);
}

#[test]
fn features_of_another_encoder_and_pictures_of_both_sides_are_noticed() {
    let dir = trained();
    succeeds(dir, &["embed", "run", "pictures/train", "--out", "own.npy"]);
    let own = ["search", "run", "pictures/test/dots/0000.png", "--embeddings", "own.npy"];
    succeeds(dir, &own);
    let mut bytes = fs::read(dir.join("own.npy")).expect("features");
    let header = bytes.len() - 120 * 32 * 4;
    bytes[header..].rotate_left(32 * 4);
    fs::write(dir.join("own.npy"), bytes).expect("written");
    fails(dir, &own, 3, &["own.npy", "another encoder", "embed run"]);

    let test = |test| json(dir, &["eval", "knn", "run", "--train", "pictures/train", "--test", test, "--json"]);
    assert_eq!(test("pictures/test")["n_in_train"], 0);
    let same = test("pictures/train");
    // A test set may lack a class, and none may have one that nothing was learned of.
    fs::create_dir_all(dir.join("two/test")).expect("a folder");
    fs::create_dir_all(dir.join("two/train")).expect("a folder");
    for (part, classes) in [("test", ["dots", "rings"]), ("train", ["dots", "bricks"])] {
        for class in classes {
            let folder = dir.join("two").join(part).join(class);
            fs::create_dir_all(&folder).expect("a folder");
            for i in 0..5 {
                let name = format!("000{i}.png");
                fs::copy(dir.join(format!("pictures/{part}/{class}")).join(&name), folder.join(name)).expect("copied");
            }
        }
    }
    let whole = test("pictures/test");
    let recall = |scores: &Value, class: &str| {
        let rows = scores["classes"].as_array().expect("classes").iter();
        rows.filter(|row| row["class"] == class).map(|row| row["recall"].clone()).collect::<Vec<_>>()
    };
    let two = test("two/test");
    assert_eq!((&two["n"], two["classes"].as_array().map(Vec::len)), (&10.into(), Some(2)), "{two}");
    let right =
        recall(&two, "dots")[0].as_f64().expect("a share") + recall(&two, "rings")[0].as_f64().expect("a share");
    assert!((two["top1"].as_f64().expect("a share") - right / 2.0).abs() < 1e-12, "{two}");
    assert!(recall(&whole, "bricks")[0].is_f64());
    let knn = ["eval", "knn", "run", "--train", "two/train", "--test", "two/test"];
    fails(dir, &knn, 3, &["no training picture is of the class rings", "--train"]);
    assert_eq!(same["step"], 6);
    assert_eq!(same["data"].as_array().map(Vec::len), Some(2), "both sides by place and fingerprint: {same}");
    assert!(same["protocol"].as_str().is_some_and(|text| text.contains("pictures/train (")), "{same}");
    assert_eq!((&same["n_in_train"], &same["n"]), (&120.into(), &120.into()));
    assert!(same["protocol"].as_str().is_some_and(|text| text.contains("120 of them training pictures too")), "{same}");
}

#[test]
fn similar_pictures_are_found_grouped_and_labelled() {
    let dir = trained();
    json(dir, &["embed", "run", "pictures/train", "--out", "train.npy", "--json"]);
    let search = |more: &[&str]| {
        let args = ["search", "run", "pictures/train/rings/0003.png", "--in", "pictures/train", "-k", "4", "--json"];
        json(dir, &[args.as_slice(), more].concat())
    };
    let found = search(&["--sheet", "found.png"]);
    let names: Vec<&str> =
        found["found"].as_array().expect("a list").iter().filter_map(|near| near["name"].as_str()).collect();
    assert_eq!(names.len(), 4);
    assert!(!names.contains(&"rings/0003.png"), "a picture is not its own neighbour: {names:?}");
    let cosines: Vec<f64> =
        found["found"].as_array().expect("a list").iter().filter_map(|near| near["cosine"].as_f64()).collect();
    assert!(cosines.is_sorted_by(|a, b| a >= b) && cosines[0] <= 1.0 + 1e-9, "{cosines:?}");
    assert!(dir.join("found.png").is_file());
    assert_eq!(search(&["--embeddings", "train.npy"]), found, "kept features find the same");
    fails(
        dir,
        &["search", "run", "pictures/test/rings", "--in", "pictures/test", "--embeddings", "train.npy"],
        3,
        &["train.npy", "embed"],
    );

    let clusters = json(
        dir,
        &["cluster", "run", "-k", "5", "--out", "c.csv", "--folders", "groups", "--sheet", "c.png", "--json"],
    );
    let sizes: Vec<u64> = clusters["clusters"].as_array().expect("sizes").iter().filter_map(Value::as_u64).collect();
    assert_eq!((sizes.len(), sizes.iter().sum::<u64>()), (5, 120));
    assert_eq!(fs::read_to_string(dir.join("c.csv")).expect("a table").lines().count(), 121);
    assert_eq!(fs::read_dir(dir.join("groups/cluster-0")).expect("a folder").count() as u64, sizes[0]);
    fails(dir, &["cluster", "run", "--folders", "groups"], 2, &["groups", "something in it"]);
    fails(dir, &["cluster", "run", "-k", "121"], 2, &["120", "121"]);

    // Every picture is as alike as that to itself; from -0.999 on, nearly everything is one group.
    let dedup = |cosine: &str| json(dir, &["dedup", "run", "--cosine", cosine, "--out", "d.jsonl", "--json"]);
    assert!(dedup("1")["alike"].as_u64() < Some(120));
    assert_eq!((dedup("-0.999")["alike"].as_u64(), dedup("-0.999")["groups"].as_u64()), (Some(120), Some(1)));
    let list: Value =
        serde_json::from_str(&fs::read_to_string(dir.join("d.jsonl")).expect("a list")).expect("one group");
    assert_eq!((&list["kind"], list["paths"].as_array().map(Vec::len)), (&"embedding".into(), Some(120)));
    fails(dir, &["dedup", "run", "--cosine", "2"], 2, &["--cosine"]);

    fs::write(dir.join("few.csv"), "path,label\nrings/0000.png,round\nchecks/0000.png,square\ndots/0001.png,round\n")
        .expect("written");
    let args = ["label", "run", "--labels", "few.csv", "--out", "all.csv", "-k", "1", "--min-share", "0", "--json"];
    let labelled = json(dir, &args);
    assert_eq!((&labelled["given"], &labelled["labelled"], &labelled["unsure"]), (&3.into(), &117.into(), &0.into()));
    let table = fs::read_to_string(dir.join("all.csv")).expect("a table");
    assert!(table.contains("rings/0000.png,round,1.0000,given"), "{table}");
    assert!(table.lines().skip(1).all(|row| row.contains(",round,") || row.contains(",square,")));
    let by_cluster = ["label", "run", "--labels", "few.csv", "--clusters", "c.csv", "--out", "groups.csv", "--json"];
    let labelled = json(dir, &[by_cluster.as_slice(), &["--min-share", "0.6"]].concat());
    let n = |key: &str| labelled[key].as_u64().expect("a number");
    assert!(n("given") == 3 && n("labelled") > 0 && n("given") + n("labelled") + n("unsure") == 120, "{labelled}");
    let cluster_of: BTreeMap<String, String> =
        rows(&dir.join("c.csv")).map(|row| (row[0].clone(), row[1].clone())).collect();
    let mut labels_of = BTreeMap::<&str, Vec<String>>::new();
    for row in rows(&dir.join("groups.csv")).filter(|row| row[3] == "cluster") {
        labels_of.entry(&cluster_of[&row[0]]).or_default().push(row[1].clone());
    }
    assert!(labels_of.values().all(|labels| labels.iter().all(|label| *label == labels[0])), "{labels_of:?}");
    fails(dir, &["label", "run", "--labels", "few.csv", "--clusters", "few.csv", "--out", "x.csv"], 3, &["cluster"]);
    let label = |more: &[&'static str]| [&["label", "run", "--labels", "few.csv"], more].concat();
    fails(dir, &label(&["--out", "few.csv"]), 2, &["few.csv", "name another"]);
    fails(dir, &label(&["--out", "x.csv", "-k", "0"]), 2, &["whole number from 1"]);
    fails(dir, &label(&["--out", "x.csv", "--min-share", "2"]), 2, &["from 0 to 1"]);
    // What was made is a table of labels.
    assert_eq!(json(dir, &["eval", "knn", "run", "--labels", "all.csv", "--k", "1", "--json"])["n"], 24);
}

#[test]
fn evaluations_say_what_they_chose() {
    let dir = trained();
    let knn = json(
        dir,
        &["eval", "knn", "run", "--test", "pictures/test", "--k", "1,5", "--temperature", "0.05,0.5", "--json"],
    );
    assert_eq!(knn["tried"].as_array().map(Vec::len), Some(4), "{knn}");
    assert!(knn["protocol"].as_str().is_some_and(|text| text.contains("best of 4")), "{knn}");
    let classes = knn["classes"].as_array().expect("a table");
    assert_eq!(classes.len(), 10);
    let hits: f64 = classes.iter().map(|class| class["recall"].as_f64().unwrap_or(f64::NAN) * 6.0).sum();
    assert!((hits / 60.0 - knn["top1"].as_f64().expect("a share")).abs() < 1e-9, "classes add up to the whole");
    let kept: Value =
        serde_json::from_str(&fs::read_to_string(dir.join("run/scores.json")).expect("kept")).expect("JSON");
    assert!(kept["knn"]["protocol"].is_string());

    let few = json(dir, &["eval", "fewshot", "run", "--shots", "1,3", "--draws", "3", "--json"]);
    assert_eq!(few["trained"][1]["shots"], 3);
    assert_eq!(few["untrained"][0]["draws"].as_array().map(Vec::len), Some(3));
    fails(dir, &["eval", "fewshot", "run", "--shots", "50"], 3, &["labelled pictures", "50"]);

    let same = json(dir, &["eval", "compare", "run", "run", "--json"]);
    assert_eq!((same["difference"].as_f64(), same["p_value"].as_f64()), (Some(0.0), Some(1.0)));
    // A table with gaps: who has no label takes no part.
    let rows: String = (0..8).map(|i| format!("rings/000{i}.png,a\ndots/000{i}.png,b\n")).collect();
    fs::write(dir.join("gaps.csv"), format!("path,label\n{rows}")).expect("written");
    assert_eq!(json(dir, &["eval", "knn", "run", "--labels", "gaps.csv", "--k", "3", "--json"])["n"], 4);
}

#[test]
fn beginners_get_a_run_file_and_an_account_of_the_machine() {
    let dir = with_pictures(4, 1);
    succeeds(dir.path(), &["init", "pictures/train", "--out", "mine.toml"]);
    let text = fs::read_to_string(dir.path().join("mine.toml")).expect("a run file");
    assert!(text.starts_with('#') && text.contains("pictures/train"), "{text}");
    let shown = json(dir.path(), &["config", "show", "mine.toml", "--json"]);
    assert!(shown["data"]["source"]["root"].as_str().is_some_and(|root| root.ends_with("pictures/train")), "{shown}");
    assert_eq!(shown["data"]["batch_size"], 40, "all pictures there are, so that it can be trained with");
    // The preset is the one that training would take: small pictures need no large crops.
    let init = |preset: &[&str]| {
        json(dir.path(), &[["init", "pictures/train", "--force", "--json"].as_slice(), preset].concat())["preset"]
            .clone()
    };
    assert_eq!((init(&[]), init(&["--preset", "photos"])), ("small".into(), "photos".into()));
    fails(dir.path(), &["init", "--out", "mine.toml"], 2, &["mine.toml", "--force"]);
    fails(dir.path(), &["init", "--preset", "smal"], 2, &["small"]);

    let doctor = json(dir.path(), &["doctor", "--json"]);
    let flex = doctor["devices"].as_array().expect("devices").iter().find(|device| device["device"] == "flex").cloned();
    assert_eq!(flex.map(|device| (device["compiled"].clone(), device["found"].clone())), Some((true.into(), 1.into())));
    assert!(stdout(dir.path(), &["doctor"]).contains("--features"));
    assert!(stdout(dir.path(), &["list"]).contains("cifar10/resnet18_w16"));
    assert!(stdout(dir.path(), &["completions", "bash"]).contains("pretrain"));
    succeeds(dir.path(), &["man", "pages"]);
    assert!(fs::read_to_string(dir.path().join("pages/twoview.1")).expect("a page").contains("twoview"));
    assert!(dir.path().join("pages/twoview-eval-knn.1").is_file());
}
