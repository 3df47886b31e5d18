//! From a source's configuration to pictures, with what was found said aloud.

use std::{path::Path, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::json;
use twoview_data::{
    BadFile, FolderConfig, FolderError, FolderSource, PatternsConfig, PatternsSource, ScanReport, Source, Split,
    escape_path,
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

/// What identifies a set of pictures.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Manifest {
    pub(crate) pictures: usize,
    pub(crate) classes: Vec<String>,
    /// Changes when a picture is added, removed, renamed or edited.
    pub(crate) fingerprint: String,
}

/// What a run is, kept in its `manifest.json` so that it cannot go on as another one by mistake.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct RunManifest {
    /// Version of the program that began it.
    pub(crate) twoview: String,
    pub(crate) data: Manifest,
    /// [`RunFile::experiment`](crate::run_file::RunFile::experiment) when it began.
    pub(crate) experiment: serde_json::Value,
}

const MIB: u64 = 1024 * 1024;

/// Opens what `config` describes; `split` matters to the built-in sets only.
///
/// # Errors
/// [`Exit::Data`] where the pictures cannot be used.
pub(crate) fn open(config: &SourceConfig, split: Split) -> Result<Pictures, Failure> {
    match config {
        SourceConfig::Folder { root: None, .. } => {
            let message = "data.source.root: no folder of pictures was given; write root = \"path/to/pictures\" there, or run \
                           `twoview pretrain path/to/pictures --preset RUNFILE`";
            Err(Failure::new(Exit::Usage, message))
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
    let source = FolderSource::open(root, &config, &|done, total| counter.at(done, total)).map_err(|error| {
        let remedy = match &error {
            FolderError::TooManyBad { bad_files, .. } => {
                say_bad(bad_files);
                Some("mend or remove them, or raise the limit with --set data.source.max_bad_fraction=SHARE")
            }
            FolderError::NoGoodPicture { bad_files, .. } => {
                say_bad(bad_files);
                None
            }
            _ => None,
        };
        match remedy {
            Some(remedy) => Failure::new(Exit::Data, format!("{error}; {remedy}")),
            None => Failure { exit: Exit::Data, error: error.into() },
        }
    })?;
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
            limits: DecodeLimits {
                max_file_bytes: max_file_mib.saturating_mul(MIB),
                max_pixels: max_megapixels.saturating_mul(1_000_000),
            },
            cache_mib: *cache_mib,
            max_bad_fraction: *max_bad_fraction,
        },
        SourceConfig::Patterns { .. } => {
            FolderConfig { limits: DecodeLimits::STANDARD, cache_mib: 512, max_bad_fraction: 0.2 }
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

/// One line of JSON for each unusable file.
pub(crate) fn bad_files_text(bad: &[BadFile]) -> String {
    bad.iter()
        .map(|file| json!({ "path": escape_path(&file.path), "reason": file.reason }).to_string() + "\n")
        .collect()
}
