//! Nearest neighbours and k-means on a million rows of 128 features in 100,000 classes: time and memory, as Markdown.
//!
//! ```sh
//! cargo bench -p twoview-eval --profile dev --bench many
//! ```
//! Rows are drawn around their class's centre. *Peak* is the most that the process ever had resident, the 512 MB of the rows
//! and the 4 MB of their labels included.

#![allow(clippy::print_stdout, reason = "the table is the purpose")]
#![allow(clippy::cast_possible_truncation, reason = "numbers drawn are cut to single precision on purpose")]

use std::{fs, time::Instant};

use twoview_eval::{FeatureBank, KMeans, KMeansConfig, KnnConfig};

const ROWS: usize = 1_000_000;
const QUERIES: usize = 2_000;
const CLASSES: u32 = 100_000;
const DIM: usize = 128;

/// A number in `[-1, 1)` that depends on its arguments alone.
fn noise(row: u64, column: u64) -> f32 {
    let mut x = row.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ column.wrapping_mul(0xD1B5_4A32_D192_ED03);
    x = (x ^ (x >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    x = (x ^ (x >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    ((x ^ (x >> 32)) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
}

fn bank(first: usize, rows: usize) -> FeatureBank {
    let class = |row: usize| (row as u64 % u64::from(CLASSES)) as u32;
    let value = |row: usize, column: usize| {
        noise(u64::from(class(row)), column as u64) + 0.9 * noise((1 << 40) + row as u64, column as u64)
    };
    let features = (first..first + rows).flat_map(|row| (0..DIM).map(move |column| value(row, column))).collect();
    FeatureBank::new(features, DIM, (first..first + rows).map(class).collect()).expect("finite rows")
}

/// Of the process, in MiB; 0 where the system does not tell.
fn peak_rss_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn main() {
    println!("| {ROWS} rows, {DIM} features, {CLASSES} classes | seconds | peak, MiB |\n|---|---|---|");
    let (train, test) = (bank(0, ROWS), bank(ROWS, QUERIES));
    println!("| the rows themselves | | {} |", peak_rss_mib());

    let begun = Instant::now();
    let probe = KnnConfig { k: 20, temperature: 0.1 }.init(&train).expect("valid");
    let score = probe.evaluate(&test).expect("as many features");
    println!(
        "| kNN of {QUERIES} queries, k = 20: {:.1} % right | {:.1} | {} |",
        100.0 * score.top1,
        begun.elapsed().as_secs_f64(),
        peak_rss_mib()
    );

    let begun = Instant::now();
    let config = KMeansConfig { k: 100, seed: 0, starts: 1, max_iterations: 5 };
    let found = KMeans::fit(train.features(), DIM, config).expect("enough rows");
    println!(
        "| k-means, k = 100, five steps: mean cosine {:.3} | {:.1} | {} |",
        found.cohesion,
        begun.elapsed().as_secs_f64(),
        peak_rss_mib()
    );
}
