//! The training step beside PyTorch's, alternating in one run: prints a report in Markdown.
//!
//! ```sh
//! cargo build --release -p twoview
//! cargo bench -p twoview-kernels --profile dev --bench pytorch -- PYTHON simclr_torch.py target/release/twoview
//! ```
//! The first argument is a Python with the packages of the second, a program whose `step` command trains the same network on
//! synthetic pictures and prints JSON. PyTorch runs in both of its memory layouts, and with glibc's allocator as it
//! is and told to keep its memory; the best of the four stands for it. After a first round of all four only the best two go
//! on. A figure is the median of the rounds' medians.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is the purpose")]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::Value;

const ROUNDS: usize = 3;

/// Makes glibc keep what it got from the system.
const KEEP: [(&str, &str); 3] =
    [("MALLOC_MMAP_MAX_", "0"), ("MALLOC_TRIM_THRESHOLD_", "100000000000"), ("MALLOC_TOP_PAD_", "268435456")];

/// One row of the table.
struct Case {
    name: &'static str,
    width: usize,
    batch: usize,
    image: usize,
    /// Timed steps per round.
    steps: usize,
}

const CASES: [Case; 3] = [
    Case { name: "CIFAR stem, width 16, batch 128, 32 px", width: 16, batch: 128, image: 32, steps: 12 },
    Case { name: "CIFAR stem, width 64, batch 32, 32 px", width: 64, batch: 32, image: 32, steps: 6 },
    Case { name: "ImageNet stem, width 64, batch 8, 224 px", width: 64, batch: 8, image: 224, steps: 6 },
];

/// How PyTorch is run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Variant {
    layout: &'static str,
    keeps: bool,
}

impl Variant {
    const ALL: [Self; 4] = [
        Self { layout: "nchw", keeps: false },
        Self { layout: "nhwc", keeps: false },
        Self { layout: "nchw", keeps: true },
        Self { layout: "nhwc", keeps: true },
    ];

    fn name(self) -> String {
        format!("{}, {}", self.layout, if self.keeps { "kept" } else { "default" })
    }
}

/// Pictures per second, and the most memory held in MiB.
type Measured = (f64, f64);

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

fn pytorch(python: &str, program: &str, case: &Case, threads: usize, variant: Variant) -> Measured {
    let mut command = Command::new(python);
    command.args([program, "step", "--arch", "resnet18", "--warmup", "2", "--layout", variant.layout]);
    for (key, value) in [
        ("--width", case.width),
        ("--batch", case.batch),
        ("--image", case.image),
        ("--steps", case.steps),
        ("--threads", threads),
    ] {
        command.args([key, &value.to_string()]);
    }
    if variant.keeps {
        command.envs(KEEP);
    }
    let report = json(&mut command);
    (number(&report["img_per_s"]["median"]), number(&report["peak_rss_mib"]))
}

fn twoview(program: &str, case: &Case, threads: usize) -> Measured {
    let mut command = Command::new(program);
    command.args(["bench", "step", "--device", "flex", "--json"]).env("RAYON_NUM_THREADS", threads.to_string());
    for (key, value) in
        [("--width", case.width), ("--batch", case.batch), ("--image", case.image), ("--steps", case.steps)]
    {
        command.args([key, &value.to_string()]);
    }
    let report = json(&mut command);
    (number(&report["images_per_s"]), number(&report["peak_rss_mib"]))
}

/// Medians of both figures.
fn median(measured: &[Measured]) -> Measured {
    let of = |figure: fn(&Measured) -> f64| {
        let mut figures: Vec<f64> = measured.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    (of(|measured| measured.0), of(|measured| measured.1))
}

fn main() {
    // Cargo passes `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [python, peer, program] = arguments.as_slice() else {
        eprintln!("arguments: PYTHON simclr_torch.py twoview; see the head of this file");
        return;
    };
    println!(
        "| ResNet-18 | threads | twoview img/s | PyTorch img/s (best variant) | factor | twoview MiB | PyTorch MiB |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut all = Vec::new();
    for threads in [2, 1] {
        for case in &CASES {
            let mut ours = Vec::new();
            let mut theirs = BTreeMap::<Variant, Vec<Measured>>::new();
            for round in 0..ROUNDS {
                let mut variants = Variant::ALL.to_vec();
                if round > 0 {
                    variants.sort_by(|a, b| median(&theirs[b]).0.total_cmp(&median(&theirs[a]).0));
                    variants.truncate(2);
                }
                for variant in variants {
                    let measured = pytorch(python, peer, case, threads, variant);
                    theirs.entry(variant).or_default().push(measured);
                }
                ours.push(twoview(program, case, threads));
            }
            let ours = median(&ours);
            let complete = Variant::ALL.into_iter().filter(|variant| theirs[variant].len() == ROUNDS);
            let best = complete.max_by(|a, b| median(&theirs[a]).0.total_cmp(&median(&theirs[b]).0));
            let best = best.expect("two variants stay");
            let (rate, memory) = median(&theirs[&best]);
            println!(
                "| {} | {threads} | {:.1} | {rate:.1} ({}) | **{:.2}** | {:.0} | {memory:.0} |",
                case.name,
                ours.0,
                best.name(),
                ours.0 / rate,
                ours.1,
            );
            let variants = theirs.iter().map(|(variant, measured)| {
                let (rate, memory) = median(measured);
                format!("{} {rate:.1} img/s {memory:.0} MiB", variant.name())
            });
            all.push(format!("- {}, {threads} thread(s): {}", case.name, variants.collect::<Vec<_>>().join("; ")));
        }
    }
    println!("\nPyTorch's variants:\n\n{}", all.join("\n"));
}
