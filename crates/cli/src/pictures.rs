//! From a source's configuration to pictures, with what was found said aloud.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use twoview_data::{
    BadFile, DuplicateGroup, FolderConfig, FolderError, FolderSource, KnownDuplicates, OnBad, PatternsConfig,
    PatternsSource, PictureFiles, ScanReport, Source, Split, escape_path, read_duplicates,
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
        SourceConfig::Folder { root, roots, list, labels, .. } => {
            let roots: Vec<PathBuf> = root.iter().chain(roots).cloned().collect();
            if roots.is_empty() && list.is_none() && labels.is_none() {
                let message = "data.source.root: no folder of pictures was given; write root = \"path/to/pictures\" there, or run \
                               `twoview pretrain path/to/pictures --preset RUNFILE`";
                return Err(Failure::new(Exit::Usage, message));
            }
            open_files(&PictureFiles { roots, list: list.clone(), labels: labels.clone() }, config)
        }
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

/// Opens a folder with the limits of `config`; where its own pictures lie is not looked at.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_folder(root: &Path, config: &SourceConfig) -> Result<Pictures, Failure> {
    open_files(&PictureFiles::below(root), config)
}

fn open_files(files: &PictureFiles, config: &SourceConfig) -> Result<Pictures, Failure> {
    let counter = Counter::start("reading pictures", 0);
    let opened = FolderSource::open_files(files, &folder_config(config), &|done, total| counter.at(done, total));
    let source = opened.map_err(unusable)?;
    counter.end();
    let report = source.report().clone();
    say_bad(&report.bad_files);
    note(&format!(
        "{}: {} pictures{}{}{}",
        report.root.display(),
        report.pictures,
        if report.labelled { format!(" in {} classes", report.classes.len()) } else { ", no labels".to_owned() },
        match report.bad_files.len() {
            0 => String::new(),
            n => format!(", {n} unusable files left out"),
        },
        if report.headers_only { "; only headers were read" } else { "" },
    ));
    let manifest = Manifest {
        pictures: source.len(),
        classes: source.classes().to_vec(),
        fingerprint: report.fingerprint.to_string(),
    };
    Ok(Pictures { source: Arc::new(source), report: Some(report), manifest })
}

/// Decodes every file, however many, and searches them for duplicates.
///
/// # Errors
/// As [`open`].
pub(crate) fn check(
    files: &PictureFiles,
    config: &SourceConfig,
    near_bits: u32,
) -> Result<(ScanReport, Vec<DuplicateGroup>), Failure> {
    let counter = Counter::start("reading pictures", 0);
    let config = FolderConfig { cache_mib: 0, ..folder_config(config) };
    let checked = FolderSource::check(files, &config, near_bits, &|done, total| counter.at(done, total));
    let (source, groups) = checked.map_err(unusable)?;
    counter.end();
    Ok((source.report().clone(), groups))
}

/// Names the unusable files behind an error, and says what can be done.
fn unusable(error: FolderError) -> Failure {
    let remedy = match &error {
        FolderError::TooManyBad { bad_files, .. } => {
            say_bad(bad_files);
            Some("mend or remove them, or raise the limit with --set data.source.max_bad_fraction=SHARE")
        }
        FolderError::NoGoodPicture { bad_files, .. } => {
            say_bad(bad_files);
            None
        }
        FolderError::Bad { .. } => {
            Some("mend or remove it, or leave such files out with --set data.source.on_bad=skip")
        }
        _ => None,
    };
    match remedy {
        Some(remedy) => Failure::new(Exit::Data, format!("{error}; {remedy}")),
        None => Failure { exit: Exit::Data, error: error.into() },
    }
}

impl Pictures {
    /// The same pictures, with what a list of duplicates knows about them.
    ///
    /// # Errors
    /// [`Exit::Data`] where the list cannot be used.
    pub(crate) fn knowing_duplicates(mut self, list: Option<&Path>) -> Result<Self, Failure> {
        let Some(list) = list else { return Ok(self) };
        let groups = read_duplicates(list).or_exit(Exit::Data)?;
        let known = KnownDuplicates::new(self.source, &groups);
        note(&format!("{}: {} pictures show what another one shows", list.display(), known.n_grouped()));
        if let [first, ..] = known.unknown() {
            note(&format!(
                "warning: {}: {} names are not in the data, such as {first}",
                list.display(),
                known.unknown().len()
            ));
        }
        // Another grouping is another loss, so a run cannot go on with it unnoticed.
        self.manifest.fingerprint += &format!("+{}", known.fingerprint());
        Ok(Self { source: Arc::new(known), ..self })
    }
}

/// The limits of a folder; built-in sets have none, so the standard ones stand in when a folder is opened beside them.
fn folder_config(config: &SourceConfig) -> FolderConfig {
    match config {
        SourceConfig::Folder {
            full_scan_files,
            on_bad,
            max_bad_fraction,
            max_file_mib,
            max_megapixels,
            cache_mib,
            ..
        } => FolderConfig {
            limits: DecodeLimits {
                max_file_bytes: max_file_mib.saturating_mul(MIB),
                max_pixels: max_megapixels.saturating_mul(1_000_000),
            },
            cache_mib: *cache_mib,
            full_scan_files: *full_scan_files,
            on_bad: *on_bad,
            max_bad_fraction: *max_bad_fraction,
        },
        SourceConfig::Patterns { .. } => FolderConfig {
            limits: DecodeLimits::STANDARD,
            cache_mib: 512,
            full_scan_files: 100_000,
            on_bad: OnBad::Skip,
            max_bad_fraction: 0.2,
        },
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
