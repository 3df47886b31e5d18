//! Two views of every picture beside torchvision's and lightly's, alternating in one run: prints a report in Markdown.
//!
//! ```sh
//! cargo build --release -p twoview
//! cargo bench -p twoview --profile dev --bench views -- PYTHON simclr_torch.py $PWD/target/release/twoview PHOTOS SMALL
//! ```
//! Cargo runs it in its own directory: give full paths. The first argument is a Python with the packages of the second, a
//! program whose `views` command times the same recipe in three ways and prints JSON. PHOTOS is a folder of JPEG
//! photographs, read from files at 224 pixels and, decoded before, from memory; a copy of each at 500x375 pixels and
//! quality 96 is read from files as well. SMALL is a folder of 32-pixel pictures, from memory. Everything runs on one
//! thread. A figure is the median of three rounds' medians, with the least and the largest of twoview's; the factor is that
//! beside the fastest of the three.
//!
//! A second table has twoview alone, on one thread and on all: *efficiency* is the gain divided by the number of threads,
//! *kept* what a program gets out of the loader as a share of what as many threads make without it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is the purpose")]

use std::process::{Command, Stdio};

use serde_json::Value;

const ROUNDS: usize = 3;

const PEERS: [&str; 3] = ["torchvision-v1", "torchvision-v2", "lightly"];

/// What is measured: a name, which folder, the side of a view, whether from memory, and how many pictures a peer goes
/// through.
const SUBJECTS: [(&str, Folder, &str, bool, &str); 4] = [
    ("32 px, from memory", Folder::Small, "32", true, "1024"),
    ("224 px, from JPEG files", Folder::Photos, "224", false, "96"),
    ("224 px, from JPEG files of quality 96", Folder::Heavy, "224", false, "96"),
    ("224 px, from memory", Folder::Photos, "224", true, "96"),
];

#[derive(Clone, Copy)]
enum Folder {
    Small,
    Photos,
    Heavy,
}

/// Saves the first 200 pictures below one folder in another, at 500x375 pixels and quality 96.
const MAKE_HEAVY: &str = "
import pathlib, sys
from PIL import Image
files = sorted(p for p in pathlib.Path(sys.argv[1]).rglob('*') if p.suffix.lower() in ('.jpg', '.jpeg'))[:200]
for i, file in enumerate(files):
    Image.open(file).convert('RGB').resize((500, 375), Image.BICUBIC).save(f'{sys.argv[2]}/{i:03}.jpg', quality=96)
";

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

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The command `twoview bench WHAT` on one of the [`SUBJECTS`].
fn ours(program: &str, what: &str, data: &str, size: &str, from_memory: bool) -> Command {
    let mut command = Command::new(program);
    command.args(["bench", what, "--json", "--seconds", "3", "--image", size, "--data", data]);
    if from_memory {
        command.arg("--decoded");
    }
    command
}

fn main() {
    // Cargo passes `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [python, peer, program, photos, small] = arguments.as_slice() else {
        eprintln!("arguments: PYTHON simclr_torch.py twoview PHOTOS SMALL; see the head of this file");
        return;
    };
    let heavy = tempfile::tempdir().expect("a temporary folder");
    let heavy = heavy.path().to_str().expect("UTF-8");
    let made = Command::new(python).args(["-c", MAKE_HEAVY, photos, heavy]).status().expect("a Python");
    assert!(made.success(), "no pictures of quality 96 were made");
    let place = |folder: Folder| match folder {
        Folder::Small => small.as_str(),
        Folder::Photos => photos.as_str(),
        Folder::Heavy => heavy,
    };
    println!("| views | twoview img/s | {} | factor beside the fastest | MiB |", PEERS.join(" | "));
    println!("|---|---|---|---|---|---|---|");
    for (name, folder, size, from_memory, images) in SUBJECTS {
        let data = place(folder);
        let mut rates = Vec::new();
        let mut memory = 0.0_f64;
        let mut theirs = [const { Vec::new() }; PEERS.len()];
        for _ in 0..ROUNDS {
            let report = json(ours(program, "views", data, size, from_memory).args(["--threads", "1"]));
            rates.push(number(&report["images_per_s"]));
            memory = memory.max(number(&report["peak_rss_mib"]));
            for (implementation, figures) in PEERS.iter().zip(&mut theirs) {
                let source = if from_memory { "memory" } else { "folder" };
                let mut command = Command::new(python);
                command.args([peer, "views", "--impl", implementation, "--data", data, "--size", size]);
                command.args(["--source", source, "--images", images, "--limit", "200", "--batch", "32"]);
                command.args(["--workers", "0", "--threads", "1", "--repeats", "3"]);
                figures.push(number(&json(&mut command)["img_per_s"]["median"]));
            }
        }
        let (least, most) = rates.iter().fold((f64::MAX, f64::MIN), |(least, most), &x| (least.min(x), most.max(x)));
        let rate = median(rates);
        let theirs = theirs.map(median);
        let fastest = theirs.iter().copied().fold(f64::MIN, f64::max);
        let cells: Vec<String> = theirs.iter().map(|figure| format!("{figure:.0}")).collect();
        println!(
            "| {name} | {rate:.0} ({least:.0} to {most:.0}) | {} | {:.1} | {memory:.0} |",
            cells.join(" | "),
            rate / fastest
        );
    }

    let threads = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    println!("\n| views | 1 thread, img/s | {threads} threads | efficiency | loader, {threads} workers | kept |");
    println!("|---|---|---|---|---|---|");
    for (name, folder, size, from_memory, _) in SUBJECTS {
        let data = place(folder);
        let [mut one, mut all, mut loaded] = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            let [first, second] = ["1", &threads].map(|threads| {
                let report = json(ours(program, "views", data, size, from_memory).args(["--threads", threads]));
                number(&report["images_per_s"])
            });
            let load = json(ours(program, "load", data, size, from_memory).args(["--workers", &threads]));
            one.push(first);
            all.push(second);
            loaded.push(number(&load["images_per_s"]));
        }
        let [one, all, loaded] = [one, all, loaded].map(median);
        let efficiency = all / one / threads.parse::<f64>().expect("a number");
        println!("| {name} | {one:.0} | {all:.0} | {efficiency:.2} | {loaded:.0} | {:.2} |", loaded / all);
    }
}
