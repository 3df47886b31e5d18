//! The live view from its users' side: on a terminal that `script` (of util-linux) makes.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::cli::{fails, pretrain_args, with_pictures};

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

/// What a shell command shows on a terminal.
fn on_a_terminal(dir: &Path, command: &str) -> (Output, String) {
    let output = Command::new("script")
        .current_dir(dir)
        .args(["--quiet", "--return", "--command", command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("script starts: it is part of util-linux");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, shown)
}

fn live(more: &[&str]) -> String {
    let args = pretrain_args("pictures/train", "run", more);
    let program = env!("CARGO_BIN_EXE_twoview");
    format!("{program} {} --live", args.join(" "))
}

#[test]
fn the_terminal_is_given_back_when_the_run_ends() {
    let dir = with_pictures(12, 1);
    let (output, shown) = on_a_terminal(dir.path(), &live(&["--set", "length.steps=6"]));
    assert!(output.status.success(), "{shown}");
    let (before, rest) = shown.split_once(ENTER).expect("the second screen is entered");
    let (drawn, after) = rest.split_once(LEAVE).expect("and left");
    assert!(before.contains("120 pictures") && !after.contains(ENTER), "{shown}");
    assert!(drawn.contains("between chance"), "{drawn}");
    assert!(!shown.contains("eta"), "the bar is not drawn as well: {shown}");
    assert!(after.contains("trained  6 steps") && after.contains("next"), "{after}");
}

#[test]
fn the_terminal_is_given_back_at_a_signal() {
    let dir = with_pictures(12, 1);
    let run = live(&["--set", "length.steps=100000"]);
    let command =
        format!("{run} & until [ -s run/metrics.jsonl ] || ! kill -0 $!; do sleep 0.1; done; kill -TERM $!; wait $!");
    let (output, shown) = on_a_terminal(dir.path(), &command);
    assert_eq!(output.status.code(), Some(143), "{shown}");
    let (_, after) = shown.split_once(LEAVE).expect("the second screen is left");
    assert!(after.contains("resume run"), "{after}");
}

/// Whoever presses Ctrl-S stops the terminal: nothing can be written to it until Ctrl-Q.
#[test]
fn a_terminal_that_takes_nothing_does_not_hold_up_the_end() {
    let dir = with_pictures(12, 1);
    let run = live(&["--set", "length.steps=100000"]);
    let command = format!("{run} & echo $! > pid; wait $!; echo $? > code");
    let mut script = Command::new("script")
        .current_dir(dir.path())
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("script starts: it is part of util-linux");
    let wait_for = |file: &str| {
        let begun = Instant::now();
        while fs::read_to_string(dir.path().join(file)).unwrap_or_default().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(120), "{file} is not written");
            thread::sleep(Duration::from_millis(10));
        }
    };
    wait_for("run/metrics.jsonl");
    let mut typed = script.stdin.take().expect("a pipe");
    typed.write_all(b"\x13").expect("typed");
    // Longer than it takes until the next drawing.
    thread::sleep(Duration::from_secs(1));
    let pid = fs::read_to_string(dir.path().join("pid")).expect("a number");
    for _ in 0..2 {
        assert!(Command::new("kill").args(["-s", "TERM", pid.trim()]).status().expect("kill runs").success());
        thread::sleep(Duration::from_millis(300));
    }
    wait_for("code");
    let code = fs::read_to_string(dir.path().join("code"));
    script.kill().expect("killed");
    script.wait().expect("a status");
    assert_eq!(code.expect("a code").trim(), "143");
}

#[test]
fn without_a_terminal_it_says_so() {
    let dir = with_pictures(12, 1);
    fails(dir.path(), &pretrain_args("pictures/train", "run", &["--live"]), 2, &["--live", "terminal"]);
    assert!(!dir.path().join("run").exists(), "nothing is left behind");
}
