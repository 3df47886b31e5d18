//! Loss and gradient of NT-Xent beside PyTorch's, alternating in one run: prints a report in Markdown.
//!
//! ```sh
//! cargo build --release -p twoview
//! cargo bench -p twoview-loss --profile dev --bench pytorch -- PYTHON simclr_torch.py target/release/twoview
//! ```
//! The first argument is a Python with the packages of the second, a program whose `loss` command times the textbook's full
//! matrix and prints JSON. It runs with glibc's allocator as it is and told to keep its memory. A figure is the median of three
//! rounds' medians.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is the purpose")]

use std::process::{Command, Stdio};

use serde_json::Value;

const ROUNDS: usize = 3;

const PAIRS: [usize; 3] = [1024, 2048, 4096];

/// Makes glibc keep what it got from the system.
const KEEP: [(&str, &str); 3] =
    [("MALLOC_MMAP_MAX_", "0"), ("MALLOC_TRIM_THRESHOLD_", "100000000000"), ("MALLOC_TOP_PAD_", "268435456")];

fn json(command: &mut Command) -> Value {
    let output = command.stderr(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let line = text.lines().last().unwrap_or_else(|| panic!("{command:?} printed nothing"));
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// Milliseconds of the full matrix.
fn pytorch(python: &str, program: &str, pairs: usize, keeps: bool) -> f64 {
    let mut command = Command::new(python);
    command.args([program, "loss", "--impl", "naive", "--dim", "128", "--repeats", "5", "--pairs", &pairs.to_string()]);
    if keeps {
        command.envs(KEEP);
    }
    number(&json(&mut command)["ms"]["median"])
}

/// Milliseconds, and the most memory held in MiB.
fn twoview(program: &str, pairs: usize) -> (f64, f64) {
    let mut command = Command::new(program);
    command.args(["bench", "loss", "--device", "flex", "--json", "--dim", "128", "--repeats", "5"]);
    command.args(["--pairs", &pairs.to_string()]);
    let report = json(&mut command);
    (number(&report["forward_backward_ms"]), number(&report["peak_rss_mib"]))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    // Cargo passes `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [python, peer, program] = arguments.as_slice() else {
        eprintln!("arguments: PYTHON simclr_torch.py twoview; see the head of this file");
        return;
    };
    println!("| images | twoview ms | full matrix ms | factor | memory kept, ms | factor | twoview MiB |");
    println!("|---|---|---|---|---|---|---|");
    for pairs in PAIRS {
        let (mut ours, mut memory, mut default, mut kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (ms, mib) = twoview(program, pairs);
            ours.push(ms);
            memory.push(mib);
            default.push(pytorch(python, peer, pairs, false));
            kept.push(pytorch(python, peer, pairs, true));
        }
        let [ours, memory, default, kept] = [ours, memory, default, kept].map(median);
        println!(
            "| {pairs} | {ours:.1} | {default:.1} | **{:.2}** | {kept:.1} | **{:.2}** | {memory:.0} |",
            default / ours,
            kept / ours
        );
    }
}
