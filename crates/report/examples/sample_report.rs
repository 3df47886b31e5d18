//! Writes a page of 10,000 made pictures, and its figures, to look at.
//!
//! ```text
//! cargo run -p twoview-report --example sample_report -- OUT_FOLDER [METRICS_JSONL] [PICTURES]
//! ```
#![expect(clippy::print_stdout, clippy::cast_possible_truncation, reason = "an example with made values")]
#![expect(clippy::approx_constant, reason = "an example with made values")]

#[path = "../tests/browser/sample.rs"]
mod sample;

use std::{env, fs, io, path::PathBuf, time::Instant};

use twoview_report::{figures, html, read_steps};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let out = PathBuf::from(arguments.next().ok_or("usage: sample_report OUT_FOLDER [METRICS_JSONL] [PICTURES]")?);
    let steps = match arguments.next().as_deref() {
        None | Some("-") => sample::made_steps(400),
        Some(rows) if rows.parse::<u64>().is_ok() => sample::made_steps(rows.parse()?),
        Some(path) => read_steps(io::BufReader::new(fs::File::open(path)?))?,
    };
    let pictures = arguments.next().map_or(Ok(10_000), |count| count.parse())?;
    let report = sample::sample(pictures, steps);

    let start = Instant::now();
    let page = html(&report)?;
    println!("{pictures} pictures: {:.2} MB in {:.2} s", page.len() as f64 / 1e6, start.elapsed().as_secs_f64());
    fs::create_dir_all(&out)?;
    fs::write(out.join("report.html"), page)?;
    let start = Instant::now();
    for figure in figures(&report) {
        fs::write(out.join(figure.name).with_extension("svg"), figure.svg)?;
    }
    println!("figures in {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}
