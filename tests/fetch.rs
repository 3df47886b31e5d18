//! `twoview data fetch` from its users' side, from a server on this machine.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;
use tar::{Builder, Header};

use crate::http_server::{HttpServer, Reply};

/// Runs `twoview data fetch` with these arguments, without the proxy of whoever runs the tests.
fn fetch(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().expect("the program starts")
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twoview"));
    command.current_dir(dir).args(["data", "fetch"]).args(args).stdin(Stdio::null());
    for proxy in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    command
}

#[track_caller]
fn check(output: &Output, exit: i32, words: &[&str]) -> String {
    let said = [output.stderr.as_slice(), &output.stdout].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.code(), Some(exit), "{said}");
    for word in words {
        assert!(said.contains(word), "expected `{word}` in\n{said}");
    }
    said
}

/// Twenty pictures of the built-in set, and noise beside them that makes the archive large enough to be cut.
fn archive(dir: &Path) -> Vec<u8> {
    let made = Command::new(env!("CARGO_BIN_EXE_twoview"))
        .current_dir(dir)
        .args(["data", "make", "patterns", "made", "--train-per-class", "1", "--test-per-class", "1"])
        .output()
        .expect("the program starts");
    assert!(made.status.success());
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    builder.append_dir_all("set", dir.join("made")).expect("packed");
    let mut state = 1_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    let noise: Vec<u8> = (0..200_000).map(|_| byte()).collect();
    let mut header = Header::new_gnu();
    header.set_size(noise.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "set/noise.bin", noise.as_slice()).expect("packed");
    builder.into_inner().expect("packed").finish().expect("packed")
}

fn recipe(dir: &Path, archive: &[u8], sha256: &str) {
    let text = format!(
        r#"
name = "own"
title = "a set of one's own"
homepage = "https://example.org"
licence = "any use you like"
citation = "this test"
archive = {{ urls = ["https://example.invalid/own.tar.gz"], sha256 = "{sha256}", bytes = {}, unpacked = {{ max_files = 100, max_bytes = 1_000_000 }} }}
layout = {{ kind = "class_folders", train = "set/train", test = "set/test" }}
"#,
        archive.len()
    );
    fs::write(dir.join("own.toml"), text).expect("written");
}

#[test]
fn a_set_is_fetched_checked_resumed_and_ready_to_train_on() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let dir = root.path();
    let archive = archive(dir);
    let server = HttpServer::start({
        let archive = archive.clone();
        move |request| match request.number {
            2 => Reply::ranged(request, &archive, "\"1\"").cut_at(50_000),
            // Silence in the middle of a set, for the signal below.
            3 => Reply::ranged(request, &archive, "\"1\"").after(Duration::from_secs(5)),
            _ => Reply::ranged(request, &archive, "\"1\""),
        }
    });
    let mirror = server.url("");

    // Another file than the recipe's: nothing is unpacked, and both checksums are named.
    let expected = "0".repeat(64);
    recipe(dir, &archive, &expected);
    let said = check(&fetch(dir, &["own.toml", "--mirror", &mirror]), 3, &[&expected, "nothing of it was unpacked"]);
    assert!(!dir.join("own").exists());
    let got = said.split("has sha256 ").nth(1).and_then(|rest| rest.get(..64)).expect("the checksum it got");
    recipe(dir, &archive, got);

    // All at once, into another folder.
    let done = fetch(dir, &["own.toml", "--mirror", &mirror, "--to", "there", "--json"]);
    check(&done, 0, &["any use you like", "this test"]);
    let report: Value = serde_json::from_slice(&done.stdout).expect("one line of JSON");
    assert_eq!((report["was_there"].as_bool(), report["received"].as_u64()), (Some(false), Some(archive.len() as u64)));

    // Killed while it waits for a server that dropped the connection; what came is used by the next call.
    let mut child = command(dir, &["own.toml", "--mirror", &mirror]).stderr(Stdio::null()).spawn().expect("starts");
    let part = dir.join("own.part/own.tar.gz.part");
    while part.metadata().map_or(0, |metadata| metadata.len()) < 50_000 {
        assert!(child.try_wait().expect("a child").is_none(), "it ended before it was killed");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(!dir.join("own").exists());
    let words = ["fetched", "any use you like", "next", "pretrain own/set/train"];
    check(&fetch(dir, &["own.toml", "--mirror", &mirror]), 0, &words);
    let ranges: Vec<_> = server.requests().iter().filter_map(|request| request.first_byte()).collect();
    assert!(ranges.contains(&50_000), "{ranges:?}");
    assert!(!dir.join("own.part").exists());

    // There already, and then no longer as it was.
    let n_requests = server.requests().len();
    check(&fetch(dir, &["own.toml", "--mirror", &mirror]), 0, &["present", "nothing was downloaded"]);
    assert_eq!(server.requests().len(), n_requests);
    fs::remove_file(dir.join("own/set/noise.bin")).expect("removed");
    check(&fetch(dir, &["own.toml", "--mirror", &mirror]), 3, &["noise.bin", "remove the folder"]);

    let checked = Command::new(env!("CARGO_BIN_EXE_twoview"))
        .current_dir(dir)
        .args(["data", "check", "there/set/train", "--json"])
        .output()
        .expect("the program starts");
    let report: Value = serde_json::from_slice(&checked.stdout).expect("one line of JSON");
    assert_eq!(report["pictures"], 10);
}

#[test]
fn what_cannot_be_fetched_says_why() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let dir = root.path();
    let gone = HttpServer::start(|_| Reply::status("404 Not Found", b"no"));
    let gone = gone.url("");
    check(&fetch(dir, &["cifar10", "--mirror", &gone]), 4, &["404", "cifar-10-binary.tar.gz"]);
    check(&fetch(dir, &["cifar-10"]), 2, &["did you mean cifar10?"]);
    check(&fetch(dir, &["missing.toml"]), 2, &["missing.toml"]);
    check(&fetch(dir, &[]), 2, &["--list", "cifar10"]);
    fs::write(dir.join("bad.toml"), "name = \"bad\"\ntitel = \"\"\n").expect("written");
    check(&fetch(dir, &["bad.toml"]), 2, &["bad.toml", "titel"]);
    fs::create_dir_all(dir.join("cifar10")).expect("made");
    fs::write(dir.join("cifar10/mine.txt"), b"mine").expect("written");
    check(&fetch(dir, &["cifar10", "--mirror", &gone]), 2, &["was not fetched as `cifar10`", "--to"]);

    let listed = fetch(dir, &["--list"]);
    check(&listed, 0, &["cifar10", "cifar100", "stl10", "imagenette", "terms"]);
    let listed: Value = serde_json::from_slice(&fetch(dir, &["--list", "--json"]).stdout).expect("one line of JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(4));
}
