//! The configuration of a run: a preset or a TOML file, changed key by key with `--set`, checked against one schema.

use std::{
    fs,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use twoview_augment::AugmentConfig;
use twoview_data::{CifarLabels, OnBad, PixelType, StlPart};
use twoview_encoder::{EncoderConfig, HeadConfig};
use twoview_eval::{KnnConfig, LinearProbeConfig, SupervisedConfig};
use twoview_loss::ObjectiveConfig;
use twoview_optim::{OptimizerConfig, ScheduleConfig, Span};

use crate::failure::{Exit, Failure};

/// Everything that decides what a run does. Whatever can change a result is written out in every preset.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunFile {
    /// Seeds the initial weights, the order of the pictures and every view.
    pub(crate) seed: u64,
    /// A run directory or a file of weights that the encoder begins with; without it, it begins at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<PathBuf>,
    /// How long to train.
    pub(crate) length: Span,
    pub(crate) data: DataConfig,
    /// In the order a picture meets them, drawn anew for each of its two views.
    pub(crate) augment: AugmentConfig,
    pub(crate) normalize: NormalizeConfig,
    pub(crate) encoder: EncoderConfig,
    pub(crate) head: HeadConfig,
    pub(crate) loss: ObjectiveConfig,
    pub(crate) optimizer: OptimizerConfig,
    pub(crate) schedule: ScheduleConfig,
    /// Operational: changes no result.
    pub(crate) every: EveryConfig,
    pub(crate) eval: EvalConfig,
}

/// The pictures and how they are batched.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataConfig {
    pub(crate) source: SourceConfig,
    /// Source pictures in a batch; each gives two views.
    pub(crate) batch_size: usize,
    /// Threads that make views. Operational: changes no result.
    pub(crate) workers: usize,
    /// How views travel to the device: as numbers, or as bytes that it normalizes, in a quarter of the memory.
    #[serde(default)]
    pub(crate) pixels: PixelType,
    /// A list of pictures that show the same thing, as `twoview data check --duplicates FILE` writes it: they are not
    /// taken for negatives of each other. Files with the same bytes never are, with or without it, in a folder, in tar
    /// shards, or in a pack of either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) duplicates: Option<PathBuf>,
}

/// Where the pictures come from.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum SourceConfig {
    /// A folder of picture files.
    Folder {
        /// The folder; the command line fills it in.
        #[serde(skip_serializing_if = "Option::is_none")]
        root: Option<PathBuf>,
        /// More folders, read as one with the first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        roots: Vec<PathBuf>,
        /// A text file with one path per line, relative to its own folder, instead of folders.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        list: Option<PathBuf>,
        /// A CSV file with the columns path and label, instead of class folders; without folders it is the list as well.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        labels: Option<PathBuf>,
        /// Up to this many files each is decoded once before training begins; of more only the headers are read.
        full_scan_files: usize,
        /// Leave unusable files out, or stop at the first.
        on_bad: OnBad,
        /// Above this share of unusable files the folder is refused.
        max_bad_fraction: f64,
        /// A larger file is refused unread.
        max_file_mib: u64,
        /// A larger picture is refused before it is decoded.
        max_megapixels: u64,
        /// Turn pictures as their EXIF data says; otherwise they are seen as they are stored.
        #[serde(default)]
        exif_rotate: bool,
        /// Decoded pictures are kept in memory as long as they fit. Operational: changes no result.
        cache_mib: u64,
    },
    /// The built-in set of ten two-colour patterns.
    Patterns { seed: u64, train_per_class: u32, test_per_class: u32 },
    /// The files of CIFAR-10 or CIFAR-100; evaluation uses its test pictures.
    Cifar {
        /// The folder of the files.
        root: PathBuf,
        /// Which labels of CIFAR-100.
        labels: CifarLabels,
    },
    /// The files of STL-10; evaluation uses its labelled parts.
    Stl {
        /// The folder of the files.
        root: PathBuf,
        /// What is trained on.
        part: StlPart,
    },
    /// Files in the format of MNIST; evaluation uses its test pictures.
    Idx {
        /// The folder of the files.
        root: PathBuf,
    },
    /// Tar shards: a file, a folder of them, or a pattern with a range in braces.
    Tar {
        /// Where they are.
        root: PathBuf,
        /// Above this share of unusable pictures training stops.
        max_bad_fraction: f64,
        /// A larger picture file is refused unread.
        max_file_mib: u64,
        /// A larger picture is refused before it is decoded.
        max_megapixels: u64,
        /// Turn pictures as their EXIF data says; otherwise they are seen as they are stored.
        #[serde(default)]
        exif_rotate: bool,
    },
    /// Parquet files: one, or a folder of them.
    Parquet {
        /// Where they are.
        root: PathBuf,
        /// Above this share of unusable pictures training stops.
        max_bad_fraction: f64,
        /// A larger picture file is refused.
        max_file_mib: u64,
        /// A larger picture is refused before it is decoded.
        max_megapixels: u64,
        /// Turn pictures as their EXIF data says; otherwise they are seen as they are stored.
        #[serde(default)]
        exif_rotate: bool,
        /// Unpacked row groups are kept in memory as long as they fit. Operational: changes no result.
        cache_mib: u64,
    },
    /// A file that `twoview data pack` wrote.
    Pack {
        /// The file.
        root: PathBuf,
        /// Above this share of unusable pictures training stops.
        max_bad_fraction: f64,
        /// A larger picture file is refused unread.
        max_file_mib: u64,
        /// A larger picture is refused before it is decoded.
        max_megapixels: u64,
        /// Turn pictures as their EXIF data says; otherwise they are seen as they are stored.
        #[serde(default)]
        exif_rotate: bool,
    },
}

impl SourceConfig {
    /// The share of unusable pictures that is put up with; sets held in memory have none.
    pub(crate) fn max_bad_fraction(&self) -> f64 {
        match self {
            Self::Folder { max_bad_fraction, .. }
            | Self::Tar { max_bad_fraction, .. }
            | Self::Parquet { max_bad_fraction, .. }
            | Self::Pack { max_bad_fraction, .. } => *max_bad_fraction,
            Self::Patterns { .. } | Self::Cifar { .. } | Self::Stl { .. } | Self::Idx { .. } => 0.0,
        }
    }

    /// Whether the set has test pictures of its own.
    pub(crate) fn has_test(&self) -> bool {
        matches!(self, Self::Patterns { .. } | Self::Cifar { .. } | Self::Stl { .. } | Self::Idx { .. })
    }

    /// Takes labels from a table instead of class folders.
    ///
    /// # Errors
    /// [`Exit::Usage`] where the set is none of picture files, [`Exit::Data`] where there is no such table.
    pub(crate) fn set_labels(&mut self, table: &Path) -> Result<(), Failure> {
        let Self::Folder { labels, .. } = self else {
            let message = "--labels goes with a folder of pictures; this set has labels of its own or none";
            return Err(Failure::new(Exit::Usage, message));
        };
        let found = crate::pictures::absolute_file(table)
            .map_err(|error| Failure::new(Exit::Data, format!("--labels {}: {error}", table.display())))?;
        *labels = Some(found);
        Ok(())
    }

    /// Whether no place of pictures was written down, as in a preset or an imported run.
    pub(crate) fn is_nowhere(&self) -> bool {
        matches!(self, Self::Folder { root: None, roots, list: None, labels: None, .. } if roots.is_empty())
    }

    /// Where the pictures are, in words.
    pub(crate) fn place(&self) -> String {
        let paths: Vec<String> = self.paths().into_iter().map(|path| path.display().to_string()).collect();
        if paths.is_empty() { "the built-in patterns".to_owned() } else { paths.join(", ") }
    }

    /// What was written down and is not there any more.
    pub(crate) fn gone(&self) -> Option<&Path> {
        // Of shards by a pattern, the folder.
        self.paths().into_iter().find(|path| crate::pictures::absolute(path).is_err())
    }

    /// Every folder, list and table that was written down.
    fn paths(&self) -> Vec<&Path> {
        let paths: Vec<&PathBuf> = match self {
            Self::Folder { root, roots, list, labels, .. } => {
                root.iter().chain(roots).chain(list).chain(labels).collect()
            }
            Self::Patterns { .. } => Vec::new(),
            Self::Cifar { root, .. }
            | Self::Stl { root, .. }
            | Self::Idx { root }
            | Self::Tar { root, .. }
            | Self::Parquet { root, .. }
            | Self::Pack { root, .. } => vec![root],
        };
        paths.into_iter().map(PathBuf::as_path).collect()
    }

    /// Where the pictures lie, for the command line to fill in; `None` for what is made by the program.
    pub(crate) fn root_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Folder { root, .. } => root.as_mut(),
            Self::Patterns { .. } => None,
            Self::Cifar { root, .. }
            | Self::Stl { root, .. }
            | Self::Idx { root }
            | Self::Tar { root, .. }
            | Self::Parquet { root, .. }
            | Self::Pack { root, .. } => Some(root),
        }
    }
}

/// Channel means and standard deviations that views are normalized with, for pixels in `[0, 1]`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NormalizeConfig {
    pub(crate) mean: [f32; 3],
    pub(crate) std: [f32; 3],
}

/// How often something is done.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EveryConfig {
    /// Between checkpoints: what a killed run loses at most.
    pub(crate) save: Span,
    /// Between looks at the encoder by its nearest neighbours, where the pictures have labels; a span of none means never.
    #[serde(default = "never")]
    pub(crate) knn: Span,
}

fn never() -> Span {
    Span::Steps(0)
}

/// How `eval` measures.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvalConfig {
    pub(crate) knn: KnnConfig,
    pub(crate) linear: LinearProbeConfig,
    /// Pictures for the looks during training.
    #[serde(default)]
    pub(crate) online: OnlineConfig,
    /// A classifier on frozen features of random crops.
    #[serde(default = "linear_augmented")]
    pub(crate) linear_augmented: SupervisedConfig,
    /// A classifier trained together with its encoder.
    #[serde(default = "finetune")]
    pub(crate) finetune: SupervisedConfig,
}

/// Appendix B.6 of the SimCLR paper, in smaller batches.
fn linear_augmented() -> SupervisedConfig {
    SupervisedConfig { epochs: 90, min_steps: 300, batch_size: 256, lr_per_256: 0.1, momentum: 0.9, weight_decay: 0.0 }
}

/// Appendix B.5 of the SimCLR paper, in smaller batches and with four times its rate for 256 pictures: 0.05 is meant for
/// batches of 4,096, and with 400 labels of CIFAR-10 it held the network from scratch at 31 %, where 0.2 takes it to 36 %
/// (and the fine-tuned one from 43.6 to 44.3 %). A baseline that is held back would flatter what it is compared with.
fn finetune() -> SupervisedConfig {
    SupervisedConfig { epochs: 30, min_steps: 300, batch_size: 64, lr_per_256: 0.2, momentum: 0.9, weight_decay: 0.0 }
}

/// Pictures that the encoder is looked at with during training, spread over the whole set. Their features are made anew
/// every time, so more of them cost time.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OnlineConfig {
    /// Labelled ones that vote.
    pub(crate) train: usize,
    /// Those that are asked about.
    pub(crate) test: usize,
}

impl Default for OnlineConfig {
    fn default() -> Self {
        Self { train: 2000, test: 500 }
    }
}

/// A configuration that is part of the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Preset {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

macro_rules! preset {
    ($name:literal) => {
        Preset { name: $name, text: include_str!(concat!("../../../configs/", $name, ".toml")) }
    };
}

/// Every built-in configuration: the files of `configs/`.
pub(crate) const PRESETS: [Preset; 5] =
    [preset!("demo"), preset!("demo_quick"), preset!("small"), preset!("photos"), preset!("cifar10/resnet18_w16")];

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RunFileError {
    /// The file cannot be read.
    #[error("cannot read {file}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The text is not a configuration.
    #[error("{file}: {message}")]
    Invalid {
        /// The file, preset or `--set` at fault.
        file: String,
        /// Line, key, expected and got.
        message: String,
    },
    /// There is no such preset.
    #[error("--preset {got}: there is no such preset; expected one of {}{hint}", preset_names())]
    NoSuchPreset {
        /// What was asked for.
        got: String,
        /// The nearest name, if one is near.
        hint: String,
    },
}

/// The names that presets are asked for by.
pub(crate) fn preset_names() -> String {
    PRESETS.map(|preset| preset.name).join(", ")
}

impl RunFile {
    /// A built-in configuration, or the one in a file if the name ends in `.toml`, changed by `sets`.
    ///
    /// # Errors
    /// [`RunFileError`].
    pub(crate) fn from_preset(name: &str, sets: &[String]) -> Result<Self, RunFileError> {
        if name.ends_with(".toml") {
            return Self::from_path(Path::new(name), sets);
        }
        let preset = PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| RunFileError::NoSuchPreset {
            got: name.to_owned(),
            hint: did_you_mean(name, PRESETS.iter().map(|preset| preset.name)),
        })?;
        Self::parse(&format!("preset {name}"), preset.text, sets)
    }

    /// Whether a preset has this name.
    pub(crate) fn is_preset(name: &str) -> bool {
        PRESETS.iter().any(|preset| preset.name == name)
    }

    /// The configuration in a TOML file, changed by `sets`.
    ///
    /// # Errors
    /// [`RunFileError`].
    pub(crate) fn from_path(path: &Path, sets: &[String]) -> Result<Self, RunFileError> {
        let file = path.display().to_string();
        let text =
            fs::read_to_string(path).map_err(|source| RunFileError::Unreadable { file: file.clone(), source })?;
        Self::parse(&file, &text, sets)
    }

    /// The configuration in a text that is called `file` in messages.
    ///
    /// # Errors
    /// [`RunFileError`].
    pub(crate) fn from_text(file: &str, text: &str) -> Result<Self, RunFileError> {
        Self::parse(file, text, &[])
    }

    fn parse(file: &str, text: &str, sets: &[String]) -> Result<Self, RunFileError> {
        // The text is checked before the changes, so that its errors carry its lines.
        let unchanged: Self = parse_toml(file, text)?;
        if sets.is_empty() {
            return Ok(unchanged);
        }
        let mut table: toml::Table = parse_toml(file, text)?;
        let mut at_fault = None;
        for set in sets {
            apply(&mut table, set)?;
            // Several changes may only make sense together, so the first one that breaks the whole is remembered, and
            // forgotten if a later one mends it.
            let changed: Result<Self, toml::de::Error> = toml::Value::Table(table.clone()).try_into();
            match changed {
                Ok(_) => at_fault = None,
                Err(error) => at_fault = at_fault.or(Some((set, error))),
            }
        }
        if let Some((set, error)) = at_fault {
            let message = with_hint(error.to_string().trim_end().replace('\n', " "));
            return Err(RunFileError::Invalid { file: format!("--set {set}"), message });
        }
        toml::Value::Table(table)
            .try_into()
            .map_err(|error| RunFileError::Invalid { file: file.to_owned(), message: error.to_string() })
    }

    /// The part that decides the results, without what is merely operational: two runs with the same one, on the same
    /// pictures, are the same run.
    ///
    /// # Errors
    /// None known; the serializer's.
    pub(crate) fn experiment(&self) -> Result<Value, serde_json::Error> {
        let mut whole = serde_json::to_value(self)?;
        let operational = ["/every", "/eval", "/data/workers", "/data/source/cache_mib"];
        // Where the pictures, what is known of them and the first weights lie; what they are, the manifest says.
        let places = [
            "/start",
            "/data/duplicates",
            "/data/source/root",
            "/data/source/roots",
            "/data/source/list",
            "/data/source/labels",
        ];
        for operational in operational.into_iter().chain(places) {
            if let Some(value) = whole.pointer_mut(operational) {
                *value = Value::Null;
            }
        }
        Ok(whole)
    }

    /// Makes every path absolute, so that a run finds its pictures from wherever it is resumed.
    ///
    /// # Errors
    /// The path that leads nowhere, and what the operating system said.
    pub(crate) fn make_paths_absolute(&mut self) -> Result<(), (PathBuf, std::io::Error)> {
        let mut paths: Vec<&mut PathBuf> = self.start.iter_mut().chain(&mut self.data.duplicates).collect();
        let mut files: Vec<&mut PathBuf> = Vec::new();
        match &mut self.data.source {
            SourceConfig::Folder { root, roots, list, labels, .. } => {
                paths.extend(root.iter_mut().chain(roots));
                files.extend(list.iter_mut().chain(labels));
            }
            other => paths.extend(other.root_mut()),
        }
        for path in paths {
            *path = crate::pictures::absolute(path).map_err(|error| (path.clone(), error))?;
        }
        for file in files {
            *file = crate::pictures::absolute_file(file).map_err(|error| (file.clone(), error))?;
        }
        Ok(())
    }

    /// The configuration as TOML that [`RunFile::from_path`] reads back to the same value.
    ///
    /// # Errors
    /// None known: every value of this type has a TOML form. Kept as a result because the serializer has one.
    pub(crate) fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

fn parse_toml<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, RunFileError> {
    toml::from_str(text).map_err(|error| RunFileError::Invalid {
        file: file.to_owned(),
        message: with_hint(error.to_string().trim_end().to_owned()),
    })
}

/// Spans are written as exactly one of these keys, so setting one takes the place of the others.
const SPAN_KEYS: [&str; 3] = ["steps", "epochs", "examples"];

/// Changes one key of `table`: `set` is `a.b.c=value`, the value in TOML or else a bare string.
fn apply(table: &mut toml::Table, set: &str) -> Result<(), RunFileError> {
    let invalid = |message: String| RunFileError::Invalid { file: format!("--set {set}"), message };
    let (key, text) =
        set.split_once('=').ok_or_else(|| invalid("expected KEY=VALUE, as in loss.temperature=0.2".to_owned()))?;
    let value = toml::from_str::<toml::Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.trim().to_owned()));
    let mut parts: Vec<&str> = key.trim().split('.').map(str::trim).collect();
    let last = parts.pop().unwrap_or_default();
    if last.is_empty() || parts.iter().any(|part| part.is_empty()) {
        return Err(invalid(format!("`{key}` is not a key; expected one like loss.temperature")));
    }
    let mut at = table;
    for part in parts {
        let keys: Vec<String> = at.keys().cloned().collect();
        let hint = did_you_mean(part, keys.iter().map(String::as_str));
        at = match at.get_mut(part) {
            Some(toml::Value::Table(inner)) => inner,
            Some(_) => return Err(invalid(format!("`{part}` has no keys of its own"))),
            None => {
                return Err(invalid(format!("unknown key `{part}`, expected one of {}{hint}", keys.join(", "))));
            }
        };
    }
    if SPAN_KEYS.contains(&last) {
        at.retain(|key, _| !SPAN_KEYS.contains(&key));
    } else if at.keys().any(|key| SPAN_KEYS.contains(&key.as_str())) {
        let hint = did_you_mean(last, SPAN_KEYS.into_iter());
        return Err(invalid(format!("unknown key `{last}`, expected one of {}{hint}", SPAN_KEYS.join(", "))));
    }
    if let Some(toml::Value::Table(inner)) = at.get(last)
        && !value.is_table()
    {
        let keys: Vec<String> = inner.keys().map(|inner| format!("{key}.{inner}")).collect();
        return Err(invalid(format!("`{key}` has keys of its own: expected one of {}, or a table", keys.join(", "))));
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

/// Adds the nearest valid name to a message of the kind "unknown field `x`, expected one of `a`, `b`".
fn with_hint(message: String) -> String {
    // What a tagged value says that has two tags; lengths and intervals are the ones that people write.
    if message.contains("wanted exactly 1 element, more than 1 element") {
        return message + "; give one of steps, epochs and examples";
    }
    let Some(start) = message.find("unknown field").or_else(|| message.find("unknown variant")) else {
        return message;
    };
    let mut names = message[start..].split('`').skip(1).step_by(2);
    let Some(got) = names.next() else { return message };
    let hint = did_you_mean(got, names);
    message + &hint
}

/// "; did you mean `name`?" for the nearest of `names`, if one is near enough to be a slip.
pub(crate) fn did_you_mean<'a>(got: &str, names: impl Iterator<Item = &'a str>) -> String {
    names
        .map(|name| (strsim::damerau_levenshtein(got, name), name))
        .filter(|(distance, name)| *distance <= (name.len().max(got.len()) / 3).max(1))
        .min()
        .map(|(_, name)| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}
