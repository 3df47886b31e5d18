//! From a source's configuration to pictures, with what was found said aloud.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use twoview_data::{
    BadFile, FolderConfig, FolderSource, PatternsConfig, PatternsSource, ScanReport, Source, Split, escape_path,
};
use twoview_pixels::DecodeLimits;

use crate::{
    failure::{Exit, Failure, OrExit},
    run_file::SourceConfig,
    terminal::{Counter, note},
};

/// Pictures with what is known about them as a whole.
pub(crate) struct Pictures {
    pub(crate) source: Arc<dyn Source>,
    /// What the scan of a folder found; built-in sets have nothing to scan.
    pub(crate) report: Option<ScanReport>,
    pub(crate) manifest: Manifest,
}

/// What identifies a run's pictures, kept in its `manifest.json`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Manifest {
    pub(crate) pictures: usize,
    pub(crate) classes: Vec<String>,
    /// Changes when a picture is added, removed, renamed or resized.
    pub(crate) fingerprint: String,
}

const MIB: u64 = 1024 * 1024;

/// Opens what `config` describes; `split` matters to the built-in sets only.
///
/// # Errors
/// [`Exit::Data`] where the pictures cannot be used.
pub(crate) fn open(config: &SourceConfig, split: Split) -> Result<Pictures, Failure> {
    match config {
        SourceConfig::Folder { root: None, .. } => {
            Err(Failure::new(Exit::Usage, "data.source.root: no folder of pictures was given"))
        }
        SourceConfig::Folder { root: Some(root), .. } => open_folder(root, config),
        SourceConfig::Patterns { seed, train_per_class, test_per_class } => {
            let per_class = match split {
                Split::Train => *train_per_class,
                Split::Test => *test_per_class,
            };
            let source = PatternsSource::new(PatternsConfig { seed: *seed, split, per_class }).or_exit(Exit::Usage)?;
            let manifest = Manifest {
                pictures: source.len(),
                classes: source.classes().to_vec(),
                fingerprint: source.fingerprint().to_string(),
            };
            Ok(Pictures { source: Arc::new(source), report: None, manifest })
        }
    }
}

/// Opens a folder with the limits of `config`; its `root`, if any, is not looked at.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_folder(root: &Path, config: &SourceConfig) -> Result<Pictures, Failure> {
    let pictures = open_folder_quietly(root, config)?;
    let classes = pictures.source.classes().len();
    let bad = pictures.report.as_ref().map(|report| report.bad_files.as_slice()).unwrap_or_default();
    say_bad(bad);
    note(&format!(
        "{}: {} pictures{}{}",
        root.display(),
        pictures.source.len(),
        if classes == 0 { ", no labels".to_owned() } else { format!(" in {classes} classes") },
        if bad.is_empty() { String::new() } else { format!(", {} unusable files left out", bad.len()) },
    ));
    Ok(pictures)
}

/// Opens a folder as [`open_folder`] does, without saying what was found.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_folder_quietly(root: &Path, config: &SourceConfig) -> Result<Pictures, Failure> {
    let config = folder_config(config);
    let counter = Counter::start("reading pictures", 0);
    let opened = FolderSource::open(root, &config, &|done, total| counter.at(done, total));
    let source = match opened {
        Ok(source) => source,
        Err(error) => return Err(error).or_exit(Exit::Data),
    };
    counter.end();
    let report = source.report().clone();
    let manifest = Manifest {
        pictures: source.len(),
        classes: source.classes().to_vec(),
        fingerprint: report.fingerprint.to_string(),
    };
    Ok(Pictures { source: Arc::new(source), report: Some(report), manifest })
}

/// The limits of a folder; built-in sets have none, so the standard ones stand in when a folder is opened beside them.
fn folder_config(config: &SourceConfig) -> FolderConfig {
    match config {
        SourceConfig::Folder { max_bad_fraction, max_file_mib, max_megapixels, cache_mib, .. } => FolderConfig {
            limits: DecodeLimits { max_file_bytes: max_file_mib * MIB, max_pixels: max_megapixels * 1_000_000 },
            cache_mib: *cache_mib,
            max_bad_fraction: *max_bad_fraction,
        },
        SourceConfig::Patterns { .. } => {
            FolderConfig { limits: DecodeLimits::STANDARD, cache_mib: 512, max_bad_fraction: 0.01 }
        }
    }
}

/// Names the unusable files; all of them are in the run's bad_files.jsonl, the first few on the terminal.
fn say_bad(bad: &[BadFile]) {
    const SHOWN: usize = 10;
    for file in bad.iter().take(SHOWN) {
        note(&format!("unusable: {}: {}", escape_path(&file.path), file.reason));
    }
    if bad.len() > SHOWN {
        note(&format!("unusable: {} more; `twoview data check` lists them all", bad.len() - SHOWN));
    }
}

/// Writes one line of JSON for each unusable file.
///
/// # Errors
/// Where the file cannot be written.
pub(crate) fn write_bad_files(path: &Path, bad: &[BadFile]) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    for file in bad {
        serde_json::to_writer(&mut out, file)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}
