//! The rules of the house that the compiler does not check: what may know what, and where things lie.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new("../..").canonicalize().expect("the workspace is there")
}

/// Whether package `a` depends on package `b`, however indirectly, for its users (not its tests).
fn depends(a: &str, b: &str) -> bool {
    let tree = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--offline", "--locked", "--quiet", "--edges", "normal,build", "--prefix", "none"])
        .args(["--all-features", "--package", a])
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "cargo tree -p {a}: {}", String::from_utf8_lossy(&tree.stderr));
    String::from_utf8_lossy(&tree.stdout).lines().skip(1).any(|line| line.split(' ').next() == Some(b))
}

#[test]
fn the_arrows_point_one_way() {
    for a in ["pixels", "pickle", "augment", "data", "report"] {
        assert!(!depends(&format!("twoview-{a}"), "burn-tensor"), "{a} must not know a tensor library");
    }
    assert!(depends("twoview-encoder", "burn-tensor"), "the check above must be able to fail");

    assert!(!depends("twoview-data", "ureq") && depends("twoview-fetch", "ureq"), "only fetch opens connections");

    let forbidden = [
        ("loss", ["pixels", "augment", "data", "encoder", "optim"].as_slice()),
        ("encoder", &["pixels", "augment", "data", "loss", "optim"]),
        ("optim", &["pixels", "augment", "data", "encoder", "loss"]),
        ("kernels", &["pixels", "augment", "data", "encoder", "loss", "optim"]),
        ("eval", &["loss", "train"]),
        ("pixels", &["augment"]),
        (
            "pickle",
            &["pixels", "augment", "data", "encoder", "loss", "optim", "train", "eval", "kernels", "fetch", "report"],
        ),
        ("augment", &["data"]),
        ("fetch", &["pixels", "augment", "data", "encoder", "loss", "optim", "train", "eval", "kernels"]),
        ("data", &["fetch"]),
        ("train", &["fetch"]),
        ("eval", &["fetch"]),
    ];
    for (a, bs) in forbidden {
        for b in bs {
            assert!(!depends(&format!("twoview-{a}"), &format!("twoview-{b}")), "{a} must not know {b}");
        }
    }
    for a in [
        "pixels", "pickle", "augment", "data", "fetch", "kernels", "encoder", "loss", "optim", "eval", "train",
        "report",
    ] {
        assert!(!depends(&format!("twoview-{a}"), "twoview"), "{a} must not know the program");
        let mut files = Vec::new();
        rust_files(&root().join("crates").join(a).join("src"), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).expect("UTF-8");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            assert!(
                !code.contains("std::env::") && !code.contains("env::var"),
                "{} reads its environment",
                file.display()
            );
        }
        for below_cli in ["clap", "toml", "anyhow", "indicatif"] {
            let manifest = fs::read_to_string(root().join("crates").join(a).join("Cargo.toml")).expect("a manifest");
            assert!(
                !manifest.contains(&format!("\n{below_cli}")),
                "{a} must not read arguments, files of keys or print"
            );
        }
    }
}

#[test]
fn the_top_level_holds_what_the_map_says() {
    let allowed: BTreeSet<&str> = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "configs",
        "crates",
        "datasets",
        "tests",
        // Cargo's own, never committed.
        "target",
        // What a user makes by running the program here, never committed.
        "runs",
    ]
    .into();
    let never_committed = ["target", "runs"];
    for name in allowed.iter().filter(|name| !never_committed.contains(name)) {
        assert!(root().join(name).exists(), "missing at the top level: {name}");
    }
    for entry in fs::read_dir(root()).expect("the workspace can be listed") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_string_lossy();
        assert!(name.starts_with('.') || allowed.contains(&*name), "unexpected at the top level: {name}");
    }
}

#[test]
fn evaluation_never_sees_a_head() {
    let mut files = Vec::new();
    rust_files(&root().join("crates/eval/src"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).expect("UTF-8");
        assert!(!text.contains("ProjectionHead"), "{} names the head", file.display());
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    let mut files = Vec::new();
    for folder in ["crates", "tests"] {
        rust_files(&root().join(folder), &mut files);
    }
    assert!(files.len() > 50, "found only {} files", files.len());
    for file in files {
        let text = fs::read_to_string(&file).expect("UTF-8");
        assert!(text.starts_with("//! "), "{} does not open with a `//!` line", file.display());
    }
}

#[test]
fn the_readme_and_ci_run_the_same_tests() {
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    let ci = fs::read_to_string(root().join(".ci/run")).expect("a CI script");
    let line = readme.lines().find(|line| line.starts_with("cargo test")).expect("the README names the test command");
    assert!(ci.lines().any(|ci_line| ci_line == line), ".ci/run must have the line `{line}`");
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
