//! From a source's configuration to pictures, with what was found said aloud.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use twoview_data::{
    BadFile, CifarConfig, CifarLabels, CifarSource, DetectError, DuplicateGroup, Fingerprint, FolderConfig,
    FolderError, FolderSource, IdxSource, KnownDuplicates, OnBad, PackError, PackSource, PatternsConfig,
    PatternsSource, PictureFiles, ScanReport, Source, SourceKind, Split, StlPart, StlSource, TarSource, check_source,
    escape_path, read_duplicates,
};
use twoview_pixels::{CropBox, DecodeOptions, Filter, Image, Planes, Workspace, resized_crop};
use twoview_train::RunDir;

use crate::{
    encoder_weights::{UsedAs, WeightsOrigin},
    failure::{Exit, Failure, OrExit},
    run_file::{RunFile, SourceConfig},
    run_plan::total_steps,
    terminal::{Counter, counted, note, program},
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
    /// Weights that it did not make itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) weights: Option<WeightsOrigin>,
}

impl RunManifest {
    /// Whether the run is nothing but weights that another program made.
    pub(crate) fn is_imported(&self) -> bool {
        self.weights.as_ref().is_some_and(|origin| origin.used_as == UsedAs::Imported)
    }

    /// That training is not at its end after so many steps, in words; `None` where it is.
    pub(crate) fn unfinished(&self, file: &RunFile, steps: Option<u64>) -> Option<String> {
        if self.is_imported() {
            return None;
        }
        let (steps, total) = (steps?, total_steps(file, self.data.pictures)?);
        (steps < total).then(|| format!("training has not ended; the encoder is that of step {steps} of {total}"))
    }

    /// The manifest of a run.
    ///
    /// # Errors
    /// [`Exit::Run`] where there is none.
    pub(crate) fn read(run_dir: &RunDir) -> Result<Self, Failure> {
        let path = run_dir.manifest();
        let unreadable = |error: &dyn fmt::Display| {
            let message = format!(
                "{}: {error}; it says what the run is and cannot be made again: begin a new run with the configuration beside it",
                path.display()
            );
            Failure::new(Exit::Run, message)
        };
        let text = fs::read_to_string(&path).map_err(|error| unreadable(&error))?;
        serde_json::from_str(&text).map_err(|error| unreadable(&error))
    }
}

const MIB: u64 = 1024 * 1024;
/// Where a configuration says nothing about it.
const STANDARD_CACHE_MIB: u64 = 512;
const STANDARD_FULL_SCAN_FILES: usize = 100_000;

/// Opens what `config` describes; `split` matters to the sets that have test pictures of their own.
///
/// # Errors
/// [`Exit::Data`] where the pictures cannot be used.
pub(crate) fn open(config: &SourceConfig, split: Split) -> Result<Pictures, Failure> {
    match config {
        SourceConfig::Folder { root, roots, list, labels, .. } => {
            let roots: Vec<PathBuf> = root.iter().chain(roots).cloned().collect();
            if config.is_nowhere() {
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
            let fingerprint = source.fingerprint();
            Ok(without_report(source, fingerprint))
        }
        SourceConfig::Cifar { root, labels } => {
            let source = CifarSource::open(root, CifarConfig { split, labels: *labels }).or_exit(Exit::Data)?;
            let fingerprint = source.fingerprint();
            Ok(said(root, "CIFAR files", without_report(source, fingerprint)))
        }
        SourceConfig::Stl { root, part } => {
            let part = if split == Split::Test { StlPart::Test } else { *part };
            let source = StlSource::open(root, part).or_exit(Exit::Data)?;
            let fingerprint = source.fingerprint();
            Ok(said(root, "STL-10 files", without_report(source, fingerprint)))
        }
        SourceConfig::Idx { root } => {
            let source = IdxSource::open(root, split).or_exit(Exit::Data)?;
            let fingerprint = source.fingerprint();
            Ok(said(root, "IDX files", without_report(source, fingerprint)))
        }
        SourceConfig::Tar { root, .. } => {
            let source = TarSource::open(root, split, folder_config(config).decode).or_exit(Exit::Data)?;
            let left_out = source.n_without_picture();
            if left_out > 0 {
                note(&format!("{}: {left_out} samples hold no picture and are left out", root.display()));
            }
            let fingerprint = source.fingerprint();
            Ok(said(root, "tar shards", without_report(source, fingerprint)))
        }
        SourceConfig::Parquet { root, .. } => open_parquet(root, config, split),
        SourceConfig::Pack { root, .. } => {
            let source = PackSource::open(root, folder_config(config).decode).or_exit(Exit::Data)?;
            let fingerprint = source.fingerprint();
            Ok(said(root, "a pack", without_report(source, fingerprint)))
        }
    }
}

/// What training would find.
pub(crate) struct Glance {
    pub(crate) n_pictures: usize,
    /// As [`shorter_side`].
    pub(crate) side: u32,
}

/// Looks at pictures as training does, but of a folder with more than `few` files only at the headers: how many of so many
/// are broken further in does not matter here.
///
/// # Errors
/// As [`open`].
pub(crate) fn glance(config: &SourceConfig, few: usize) -> Result<Glance, Failure> {
    let SourceConfig::Folder { root, roots, list, labels, .. } = config else {
        let pictures = open(config, Split::Train)?;
        return Ok(Glance { n_pictures: pictures.source.len(), side: shorter_side(&pictures) });
    };
    let roots = root.iter().chain(roots).cloned().collect();
    let files = PictureFiles { roots, list: list.clone(), labels: labels.clone() };
    let config = FolderConfig { full_scan_files: few, cache_mib: 0, ..folder_config(config) };
    let counter = Counter::start("reading pictures", 0);
    let source = FolderSource::open_files(&files, &config, &|done, total| counter.at(done, total)).map_err(unusable)?;
    counter.end();
    let report = source.report();
    Ok(Glance { n_pictures: source.len(), side: report.width.median.min(report.height.median) })
}

/// The preset for pictures of this size, said aloud with the command that shows it.
pub(crate) fn preset_for(side: u32) -> &'static str {
    let preset = if side < LARGE_PX { "small" } else { "photos" };
    note(&format!(
        "preset: {preset} (the pictures are about {side} px on their shorter side); \
         `{} config show --preset {preset}` shows it",
        program()
    ));
    preset
}

/// Pictures at least this large are treated as photographs.
const LARGE_PX: u32 = 64;

/// As [`open`], but of STL-10 the labelled part: what evaluation compares.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_labelled(config: &SourceConfig, split: Split) -> Result<Pictures, Failure> {
    match config {
        SourceConfig::Stl { root, .. } => open(&SourceConfig::Stl { root: root.clone(), part: StlPart::Train }, split),
        other => open(other, split),
    }
}

#[cfg(feature = "parquet")]
fn open_parquet(root: &Path, config: &SourceConfig, split: Split) -> Result<Pictures, Failure> {
    let FolderConfig { decode, cache_mib, .. } = folder_config(config);
    let source = twoview_data::ParquetSource::open(root, split, decode, cache_mib).or_exit(Exit::Data)?;
    let fingerprint = source.fingerprint();
    Ok(said(root, "Parquet files", without_report(source, fingerprint)))
}

#[cfg(not(feature = "parquet"))]
fn open_parquet(root: &Path, _: &SourceConfig, _: Split) -> Result<Pictures, Failure> {
    let message = format!(
        "{} is a set of Parquet files, and this program was built without them; build it with `--features parquet`",
        root.display()
    );
    Err(Failure::new(Exit::Usage, message))
}

/// Says what was found and hands it on.
fn said(root: &Path, form: &str, pictures: Pictures) -> Pictures {
    let classes = pictures.source.classes().len();
    note(&format!(
        "{}: {} pictures{} ({form})",
        root.display(),
        pictures.source.len(),
        if classes == 0 { ", no labels".to_owned() } else { format!(" in {}", counted(classes, "class")) },
    ));
    pictures
}

/// Pictures of a source that opens without looking at each of them.
fn without_report(source: impl Source + 'static, fingerprint: Fingerprint) -> Pictures {
    let manifest =
        Manifest { pictures: source.len(), classes: source.classes().to_vec(), fingerprint: fingerprint.to_string() };
    Pictures { source: Arc::new(source), report: None, manifest }
}

/// The set that a command line names with `flag`, else the run's own.
///
/// # Errors
/// [`Exit::Usage`] where there is neither, else as [`source_at`].
pub(crate) fn source_or_own(named: Option<&Path>, flag: &str, own: &SourceConfig) -> Result<SourceConfig, Failure> {
    match named {
        Some(path) => source_at(path, own),
        None if own.is_nowhere() => {
            let message = format!("the run has no pictures of its own, as it was imported; name some with {flag} DATA");
            Err(Failure::new(Exit::Usage, message))
        }
        None => match own.gone() {
            Some(path) => {
                let message = format!(
                    "the run's pictures are not where they were: there is no {}; say where they are with {flag} DATA, or in \
                     data.source of the run's config.resolved.toml",
                    path.display()
                );
                Err(Failure::new(Exit::Data, message))
            }
            None => Ok(own.clone()),
        },
    }
}

/// What lies at `path`, as a configuration with the limits of `config`: the kind is read off the path, which is made
/// absolute, because a run must find its pictures from wherever it is resumed.
///
/// # Errors
/// [`Exit::Data`] where there is nothing that holds pictures.
pub(crate) fn source_at(path: &Path, config: &SourceConfig) -> Result<SourceConfig, Failure> {
    let kind = SourceKind::detect(path).or_exit(Exit::Data)?;
    let root = absolute(path).map_err(|error| {
        Failure::new(Exit::Data, format!("cannot use {} as a set of pictures: {error}", path.display()))
    })?;
    let FolderConfig { decode, cache_mib, full_scan_files, on_bad, max_bad_fraction } = folder_config(config);
    let (max_file_mib, max_megapixels) = (decode.max_file_bytes / MIB, decode.max_pixels / 1_000_000);
    let exif_rotate = decode.exif_rotate;
    if kind == SourceKind::Folder {
        return Ok(SourceConfig::Folder {
            root: Some(root),
            roots: Vec::new(),
            list: None,
            labels: None,
            full_scan_files,
            on_bad,
            max_bad_fraction,
            max_file_mib,
            max_megapixels,
            exif_rotate,
            cache_mib,
        });
    }
    // The other kinds meet a bad picture only when they read it; that none may be is said with the share.
    let max_bad_fraction = if on_bad == OnBad::Fail { 0.0 } else { max_bad_fraction };
    Ok(match kind {
        SourceKind::Cifar => SourceConfig::Cifar { root, labels: CifarLabels::Fine },
        SourceKind::Stl => {
            let unlabeled = ["unlabeled_X.bin", "stl10_binary/unlabeled_X.bin"];
            let has_unlabeled = unlabeled.iter().any(|name| root.join(name).is_file());
            SourceConfig::Stl { root, part: if has_unlabeled { StlPart::TrainAndUnlabeled } else { StlPart::Train } }
        }
        SourceKind::Idx => SourceConfig::Idx { root },
        SourceKind::Tar => SourceConfig::Tar { root, max_bad_fraction, max_file_mib, max_megapixels, exif_rotate },
        SourceKind::Parquet => {
            SourceConfig::Parquet { root, max_bad_fraction, max_file_mib, max_megapixels, exif_rotate, cache_mib }
        }
        SourceKind::Pack => {
            // Pixels that were packed turned, or not, leave no choice.
            let exif_rotate = match PackSource::open(&root, decode) {
                Err(PackError::Turned { packed, .. }) => packed,
                _ => exif_rotate,
            };
            SourceConfig::Pack { root, max_bad_fraction, max_file_mib, max_megapixels, exif_rotate }
        }
        unknown => return Err(Failure::new(Exit::Bug, format!("{unknown:?} cannot be opened"))),
    })
}

/// The absolute path; of a pattern of shards that of its folder with the pattern behind it.
///
/// # Errors
/// The operating system's, where there is nothing.
pub(crate) fn absolute(path: &Path) -> io::Result<PathBuf> {
    match (path.exists(), path.parent(), path.file_name()) {
        (false, Some(parent), Some(name)) if name.to_string_lossy().contains('{') => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(fs::canonicalize(parent)?.join(name))
        }
        _ => fs::canonicalize(path),
    }
}

/// The absolute path of a list or a table, whose own paths begin at its folder: that of a link, not of where it leads.
///
/// # Errors
/// The operating system's, where there is no such file.
pub(crate) fn absolute_file(path: &Path) -> io::Result<PathBuf> {
    fs::metadata(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(fs::canonicalize(folder)?.join(name))
}

/// The shorter side that pictures have in the middle: of all where a scan knows them, else of a few.
pub(crate) fn shorter_side(pictures: &Pictures) -> u32 {
    const LOOKED_AT: usize = 15;
    if let Some(report) = &pictures.report {
        return report.width.median.min(report.height.median);
    }
    let n = pictures.source.len();
    let looked_at = (0..LOOKED_AT.min(n)).map(|k| k * n / LOOKED_AT.min(n));
    let mut sides: Vec<u32> = looked_at
        .filter_map(|i| pictures.source.image(i).ok())
        .map(|image| image.width().min(image.height()))
        .collect();
    sides.sort_unstable();
    sides.get(sides.len() / 2).copied().unwrap_or(0)
}

fn open_files(files: &PictureFiles, config: &SourceConfig) -> Result<Pictures, Failure> {
    let counter = Counter::start("reading pictures", 0);
    let opened = FolderSource::open_files(files, &folder_config(config), &|done, total| counter.at(done, total));
    let source = opened.map_err(unusable)?;
    counter.end();
    let report = source.report().clone();
    say_bad(&report.bad_files);
    note(&format!(
        "{}: {} pictures{}{}",
        report.root.display(),
        report.pictures,
        if report.labelled {
            format!(" in {}", counted(report.classes.len(), "class"))
        } else {
            ", no labels".to_owned()
        },
        match report.bad_files.len() {
            0 => String::new(),
            n => format!(", {} left out", counted(n, "unusable file")),
        },
    ));
    report.notes.iter().for_each(|remark| note(&format!("note: {remark}")));
    let manifest = Manifest {
        pictures: source.len(),
        classes: source.classes().to_vec(),
        fingerprint: report.fingerprint.to_string(),
    };
    Ok(Pictures { source: Arc::new(source), report: Some(report), manifest })
}

/// Decodes every picture, however many, and searches them for duplicates: of one set that is no folder, or of files.
///
/// # Errors
/// As [`open`].
pub(crate) fn check(
    files: &PictureFiles,
    config: &SourceConfig,
    split: Split,
    near_bits: u32,
) -> Result<(ScanReport, Vec<DuplicateGroup>), Failure> {
    let only = match (files.roots.as_slice(), &files.list, &files.labels) {
        ([root], None, None) => Some((root, SourceKind::detect(root))),
        _ => None,
    };
    if let Some((_, Err(error))) = &only
        && !matches!(error, DetectError::Missing { .. })
    {
        return Err(Failure::new(Exit::Data, error.to_string()));
    }
    if let Some((root, Ok(kind))) = only
        && kind != SourceKind::Folder
    {
        let Pictures { source, manifest, .. } = open(&source_at(root, config)?, split)?;
        let fingerprint = manifest.fingerprint.parse().or_exit(Exit::Bug)?;
        let counter = Counter::start("reading pictures", source.len());
        let checked = check_source(&*source, root, fingerprint, near_bits, &|done, total| counter.at(done, total));
        counter.end();
        return Ok(checked);
    }
    let counter = Counter::start("reading pictures", 0);
    let config = FolderConfig { cache_mib: 0, ..folder_config(config) };
    let checked = FolderSource::check(files, &config, near_bits, &|done, total| counter.at(done, total));
    let (source, groups) = checked.map_err(unusable)?;
    counter.end();
    Ok((source.report().clone(), groups))
}

/// Names the unusable files behind an error.
fn unusable(error: FolderError) -> Failure {
    if let FolderError::TooManyBad { bad_files, .. } | FolderError::NoGoodPicture { bad_files, .. } = &error {
        say_bad(bad_files);
    }
    Failure { exit: Exit::Data, error: error.into() }
}

/// Adds the remedy that commands with `--set` have against unusable files.
pub(crate) fn with_settable_limit(failure: Failure) -> Failure {
    let remedy = match failure.error.downcast_ref() {
        Some(FolderError::TooManyBad { .. }) => {
            "mend or remove them, or raise the limit with --set data.source.max_bad_fraction=SHARE"
        }
        Some(FolderError::Bad { .. }) => {
            "mend or remove it, or leave such files out with --set data.source.on_bad=skip"
        }
        _ => return failure,
    };
    Failure::new(failure.exit, format!("{:#}; {remedy}", failure.error))
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

/// A picture at `side` pixels on its longer side, or as it is where it is smaller.
///
/// # Errors
/// [`Exit::Data`] where its sides are extreme.
pub(crate) fn shrunk(image: &Image, side: u32) -> Result<Image, Failure> {
    let (width, height) = (image.width(), image.height());
    let longest = width.max(height);
    if longest <= side {
        return Ok(image.clone());
    }
    let scaled = |length: u32| {
        let scaled = u64::from(length) * u64::from(side) / u64::from(longest);
        u32::try_from(scaled).unwrap_or(side).max(1)
    };
    let whole = CropBox { top: 0, left: 0, height, width };
    let (mut planes, workspace) = (Planes::default(), &mut Workspace::default());
    resized_crop(image, whole, scaled(width), scaled(height), Filter::Bilinear, false, workspace, &mut planes)
        .or_exit(Exit::Data)?;
    Ok(planes.to_image())
}

/// How the files of a set are decoded.
pub(crate) fn decode_options(config: &SourceConfig) -> DecodeOptions {
    folder_config(config).decode
}

/// The limits of a set; those in memory have none, so the standard ones stand in when another is opened beside them.
fn folder_config(config: &SourceConfig) -> FolderConfig {
    let (full_scan_files, on_bad) = match config {
        SourceConfig::Folder { full_scan_files, on_bad, .. } => (*full_scan_files, *on_bad),
        _ => (STANDARD_FULL_SCAN_FILES, OnBad::Skip),
    };
    let (max_file_mib, max_megapixels, exif_rotate, cache_mib) = match config {
        SourceConfig::Folder { max_file_mib, max_megapixels, exif_rotate, cache_mib, .. }
        | SourceConfig::Parquet { max_file_mib, max_megapixels, exif_rotate, cache_mib, .. } => {
            (*max_file_mib, *max_megapixels, *exif_rotate, *cache_mib)
        }
        SourceConfig::Tar { max_file_mib, max_megapixels, exif_rotate, .. }
        | SourceConfig::Pack { max_file_mib, max_megapixels, exif_rotate, .. } => {
            (*max_file_mib, *max_megapixels, *exif_rotate, STANDARD_CACHE_MIB)
        }
        SourceConfig::Patterns { .. }
        | SourceConfig::Cifar { .. }
        | SourceConfig::Stl { .. }
        | SourceConfig::Idx { .. } => {
            let (decode, cache_mib) = (DecodeOptions::STANDARD, STANDARD_CACHE_MIB);
            return FolderConfig { decode, cache_mib, full_scan_files, on_bad, max_bad_fraction: 0.2 };
        }
    };
    let decode = DecodeOptions {
        max_file_bytes: max_file_mib.saturating_mul(MIB),
        max_pixels: max_megapixels.saturating_mul(1_000_000),
        exif_rotate,
    };
    FolderConfig { decode, cache_mib, full_scan_files, on_bad, max_bad_fraction: config.max_bad_fraction() }
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
