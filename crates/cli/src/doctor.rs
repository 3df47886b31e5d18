//! `doctor`: what this program finds on this machine, to read and to paste into a question.

use std::{env, fs, thread};

use serde_json::{Value, json};
use twoview_pixels::Instructions;

use crate::{
    args::DoctorArgs,
    device,
    failure::Failure,
    terminal::{result, result_json},
};

/// `twoview doctor`.
///
/// # Errors
/// Where stdout cannot take the lines.
pub(crate) fn doctor(args: &DoctorArgs) -> Result<(), Failure> {
    let devices: Vec<Value> = (device::all().iter())
        .map(|(name, state)| {
            let (is_compiled, found) = match state {
                Some(found) => (true, Some(*found)),
                None => (false, None),
            };
            json!({ "device": name, "compiled": is_compiled, "found": found })
        })
        .collect();
    let features: Vec<&str> =
        [("fetch", cfg!(feature = "fetch")), ("live", cfg!(feature = "live")), ("parquet", cfg!(feature = "parquet"))]
            .iter()
            .filter(|(_, on)| *on)
            .map(|(name, _)| *name)
            .collect();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let instructions: Vec<&str> = Instructions::available().iter().map(|instructions| instructions.name()).collect();
    let memory = |key: &str| meminfo(key).map(|mib| format!("{mib:.0} MiB"));
    let disk = env::current_dir().map_or_else(|_| "unknown".to_owned(), |folder| folder.display().to_string());
    if args.json {
        return result_json(&json!({
            "twoview": env!("CARGO_PKG_VERSION"),
            "system": format!("{} {}", env::consts::OS, env::consts::ARCH),
            "threads": threads,
            "instructions": instructions,
            "memory_mib": meminfo("MemTotal"),
            "memory_free_mib": meminfo("MemAvailable"),
            "devices": devices,
            "features": features,
            "folder": disk,
        }));
    }
    result(&format!("twoview      {}", env!("CARGO_PKG_VERSION")))?;
    result(&format!("system       {} {}", env::consts::OS, env::consts::ARCH))?;
    result(&format!("processor    {threads} threads, {}", instructions.join(", ")))?;
    if let (Some(total), Some(free)) = (memory("MemTotal"), memory("MemAvailable")) {
        result(&format!("memory       {total}, {free} free"))?;
    }
    for (name, state) in device::all() {
        let state = match state {
            None => format!("not in this build; `cargo build --release -p twoview --features {name}` adds it"),
            Some(0) => "in this build, none found on this machine".to_owned(),
            Some(n) => format!("in this build, {n} found"),
        };
        result(&format!("device       {name:8} {state}"))?;
    }
    for (name, is_on, what) in [
        ("fetch", cfg!(feature = "fetch"), "downloads of known sets"),
        ("live", cfg!(feature = "live"), "curves in the terminal, `pretrain --live`"),
        ("parquet", cfg!(feature = "parquet"), "Parquet files in and out"),
    ] {
        let state = if is_on { "in this build" } else { "not in this build" };
        result(&format!("feature      {name:8} {state}: {what}"))?;
    }
    result(&format!("folder       {disk}"))
}

/// A line of the system's account of its memory, in MiB.
fn meminfo(key: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}
