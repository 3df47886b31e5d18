//! Every file in `configs/` is a preset of the program, and says what it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn configs() -> PathBuf {
    PathBuf::from("../../configs")
}

fn preset_names(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            preset_names(&path, &format!("{prefix}{stem}/"), names);
        } else {
            names.push(format!("{prefix}{stem}"));
        }
    }
}

#[test]
fn every_config_file_is_embedded_and_round_trips() {
    let mut found = Vec::new();
    preset_names(&configs(), "", &mut found);
    assert!(found.len() >= 4, "{found:?}");
    let show = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_twoview")).args(["config", "show"]).args(args).output();
        let output = output.expect("the program starts");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    for name in found {
        let file = configs().join(format!("{name}.toml"));
        let embedded = show(&["--preset", &name]);
        assert_eq!(embedded, show(&[file.to_str().expect("UTF-8")]), "{name} is embedded as it lies in configs/");
        let printed = dir.path().join("printed.toml");
        fs::write(&printed, &embedded).expect("written");
        assert_eq!(embedded, show(&[printed.to_str().expect("UTF-8")]), "{name} reads back as it was printed");
        let text = fs::read_to_string(&file).expect("UTF-8");
        assert!(text.starts_with("# ") && text.contains("# Run "), "{name} says what it is and how to run it");
    }
}
