//! Loss and gradient of NT-Xent beside PyTorch's, alternating in one run: prints a report in Markdown.
//!
//! ```sh
//! cargo build --release -p twoview
//! cargo bench -p twoview-loss --profile dev --bench pytorch -- PYTHON simclr_torch.py target/release/twoview
//! ```
//! The first argument is a Python with the packages of the second, a program whose `loss` command times two implementations
//! and prints JSON: the textbook's full matrix, and lightly's. Each runs with glibc's allocator as it is and told to keep its
//! memory; the better stands for it. A figure is the median of three rounds' medians.

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

/// Milliseconds of one implementation, in the better of both allocator settings.
fn pytorch(python: &str, program: &str, implementation: &str, pairs: usize, threads: usize) -> f64 {
    let run = |keeps: bool| {
        let mut command = Command::new(python);
        command.args([program, "loss", "--impl", implementation, "--dim", "128", "--repeats", "5"]);
        command.args(["--pairs", &pairs.to_string(), "--threads", &threads.to_string()]);
        if keeps {
            command.envs(KEEP);
        }
        number(&json(&mut command)["ms"]["median"])
    };
    run(false).min(run(true))
}

/// Milliseconds, and the most memory held in MiB.
fn twoview(program: &str, pairs: usize, threads: usize) -> (f64, f64) {
    let mut command = Command::new(program);
    command.args(["bench", "loss", "--device", "flex", "--json", "--dim", "128", "--repeats", "5"]);
    command.args(["--pairs", &pairs.to_string()]).env("RAYON_NUM_THREADS", threads.to_string());
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
    println!("| images | threads | twoview ms | full matrix ms | factor | lightly ms | factor | twoview MiB |");
    println!("|---|---|---|---|---|---|---|---|");
    for threads in [2, 1] {
        for pairs in PAIRS {
            let (mut ours, mut memory, mut naive, mut lightly) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let (ms, mib) = twoview(program, pairs, threads);
                ours.push(ms);
                memory.push(mib);
                naive.push(pytorch(python, peer, "naive", pairs, threads));
                lightly.push(pytorch(python, peer, "lightly", pairs, threads));
            }
            let [ours, memory, naive, lightly] = [ours, memory, naive, lightly].map(median);
            println!(
                "| {pairs} | {threads} | {ours:.1} | {naive:.1} | **{:.2}** | {lightly:.1} | **{:.2}** | {memory:.0} |",
                naive / ours,
                lightly / ours
            );
        }
    }
}
