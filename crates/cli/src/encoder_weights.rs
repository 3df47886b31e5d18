//! The weights of an encoder: those a run has come to, or those in a file of another program.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use twoview_data::escape_path;
use twoview_encoder::{
    Arch, EncoderConfig, FindEncoderError, NamedTensors, ResNet, SafetensorsError, Stem, TorchFileError, WeightsFile,
    WeightsFileError, ZipError, find_encoder, load_named, load_safetensors,
};
use twoview_train::{Checkpoint, CheckpointError, RunDir};

use crate::{
    failure::{Exit, Failure, OrExit, at},
    pictures::RunManifest,
    pretrain::no_checkpoint,
    run_file::{NormalizeConfig, RunFile},
    terminal::note,
};

/// An encoder with what is known of it.
pub(crate) struct EncoderWeights {
    pub(crate) encoder: ResNet,
    /// PyTorch's `num_batches_tracked`, where the weights came with them.
    pub(crate) counters: NamedTensors,
    /// The file they were read from.
    pub(crate) path: PathBuf,
    /// Steps that a run trained them for; `None` where that is not known, or none did.
    pub(crate) steps: Option<u64>,
    /// How the pictures looked that they were made for, where that is known.
    pub(crate) view: Option<View>,
    /// What stands before the names in the file.
    pub(crate) prefix: String,
    /// How many tensors of the file were left, by the beginnings of their names.
    pub(crate) ignored: BTreeMap<String, usize>,
}

/// How an encoder sees a picture: resized and cut to a square, in `[0, 1]`, less the mean, over the deviation.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct View {
    pub(crate) size_px: u32,
    #[serde(flatten)]
    pub(crate) normalize: NormalizeConfig,
}

/// A value as JSON, its f32 with the few digits that name them. `serde_json::to_value` widens them first.
///
/// # Errors
/// None known; the serializer's.
pub(crate) fn as_written(value: &impl Serialize) -> Result<serde_json::Value, Failure> {
    serde_json::from_str(&serde_json::to_string(value).or_exit(Exit::Bug)?).or_exit(Exit::Bug)
}

/// The key that an exported file keeps its [`View`] under.
pub(crate) const VIEW_KEY: &str = "twoview.view";

/// The key that an exported file keeps the steps of its training under.
pub(crate) const STEPS_KEY: &str = "twoview.steps";

/// Where the weights of a run came from, if not from its training alone.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct WeightsOrigin {
    pub(crate) used_as: UsedAs,
    /// The file as it was named.
    pub(crate) file: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    /// What stood before the encoder's names.
    pub(crate) prefix: String,
    /// How many tensors of the file are not in the encoder, by the beginnings of their names.
    pub(crate) ignored: BTreeMap<String, usize>,
}

/// What a run does with weights from elsewhere.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UsedAs {
    /// They are all it has: it was made by `twoview import` and never trained.
    Imported,
    /// It began to train from them.
    Start,
}

impl EncoderWeights {
    /// What a run has come to: its newest checkpoint, what was imported if it never trained, or what it exported at its end
    /// where the checkpoints are gone.
    ///
    /// # Errors
    /// [`Exit::Run`] where the run has none of these, [`Exit::Model`] where the weights are damaged.
    pub(crate) fn of_run(run_dir: &RunDir, config: &EncoderConfig, device: &Device) -> Result<Self, Failure> {
        let exported = run_dir.exported_encoder();
        let (path, saved) = match Checkpoint::latest(run_dir) {
            Ok((checkpoint, damaged)) => {
                damaged.iter().for_each(|line| note(&format!("warning: damaged checkpoint passed over: {line}")));
                (checkpoint.encoder(), Some(checkpoint.step()))
            }
            Err(CheckpointError::None(_)) if is_imported(run_dir) => (exported, None),
            Err(error @ (CheckpointError::None(_) | CheckpointError::AllDamaged { .. })) if exported.is_file() => {
                note(&format!("warning: {error}; taking {}", exported.display()));
                (exported, None)
            }
            Err(error) => return Err(no_checkpoint(error, run_dir.path())),
        };
        let fresh = config.init(0, device).or_exit(Exit::Usage)?;
        let content = load_safetensors(&path).or_exit(Exit::Model)?;
        let steps = saved.or_else(|| steps_in(&content.metadata));
        let is_counter = |name: &str| name.ends_with("num_batches_tracked");
        let counters = content.tensors.iter().filter(|(name, _)| is_counter(name)).cloned().collect();
        let encoder = load_named(fresh, content.tensors).or_exit(Exit::Model)?;
        let (prefix, ignored) = Default::default();
        Ok(Self { encoder, counters, path, steps, view: None, prefix, ignored })
    }

    /// The encoder in a file of another program.
    ///
    /// # Errors
    /// [`Exit::Usage`] where `prefix` picks no encoder, [`Exit::Io`] where the file cannot be read, else [`Exit::Model`].
    pub(crate) fn of_file(path: &Path, prefix: Option<&str>, device: &Device) -> Result<Self, Failure> {
        let failed = |error: FindEncoderError| {
            let exit = match &error {
                FindEncoderError::Ambiguous { .. } | FindEncoderError::NoSuchPrefix { .. } => Exit::Usage,
                FindEncoderError::File(error) => exit_of(error),
                _ => Exit::Model,
            };
            // Errors about tensors speak of names; which file has them, this adds.
            Failure { exit, error: anyhow::Error::from(error).context(path.display().to_string()) }
        };
        let mut file =
            WeightsFile::open(path).map_err(|error| Failure { exit: exit_of(&error), error: error.into() })?;
        let found = find_encoder(&file.tensors(), prefix).map_err(failed)?;
        let view = file.metadata().get(VIEW_KEY).and_then(|text| serde_json::from_str(text).ok());
        let steps = steps_in(file.metadata());
        let (encoder, counters) = found.take_from(&mut file, device).map_err(failed)?;
        let (prefix, ignored) = (found.prefix, found.ignored);
        Ok(Self { encoder, counters, path: path.to_owned(), steps, view, prefix, ignored })
    }

    /// The encoder of a run directory or of a file, whichever `path` is.
    ///
    /// # Errors
    /// As [`of_run`](Self::of_run) and [`of_file`](Self::of_file).
    pub(crate) fn at(path: &Path, device: &Device) -> Result<Self, Failure> {
        if !path.is_dir() {
            return Self::of_file(path, None, device);
        }
        let run_dir = RunDir::read_only(path).or_exit(Exit::Run)?;
        let file = RunFile::from_path(&run_dir.config(), &[]).or_exit(Exit::Usage)?;
        let size_px = file.augment.init().or_exit(Exit::Usage)?.size_px();
        let weights = Self::of_run(&run_dir, &file.encoder, device)?;
        Ok(Self { view: Some(View { size_px, normalize: file.normalize }), ..weights })
    }

    /// Where they came from, for a manifest. `named` is the path as it was given.
    ///
    /// # Errors
    /// [`Exit::Io`] where the file cannot be read again.
    pub(crate) fn origin(&self, used_as: UsedAs, named: &Path) -> Result<WeightsOrigin, Failure> {
        let (bytes, sha256) = sha256_of(&self.path).map_err(at(&self.path))?;
        let (prefix, ignored) = (self.prefix.clone(), self.ignored.clone());
        Ok(WeightsOrigin { used_as, file: escape_path(named), bytes, sha256, prefix, ignored })
    }

    /// Says what was left in the file and what its shapes do not show.
    pub(crate) fn say(&self) {
        if !self.prefix.is_empty() {
            note(&format!("names: those under `{}`", self.prefix));
        }
        let ignored: Vec<String> = self.ignored.iter().map(|(name, n)| format!("{name} ({n})")).collect();
        if !ignored.is_empty() {
            note(&format!("ignored: tensors that are no part of the encoder: {}", ignored.join(", ")));
        }
        if self.view.is_none() && self.encoder.config().stem == Stem::Cifar {
            note(
                "stem: a first convolution of 3x3 is taken to have stride 1, a padding of 1 pixel and no pooling behind it; the weights do not \
                 say so",
            );
        }
    }
}

/// An encoder as a run file has it.
pub(crate) fn described(config: &EncoderConfig) -> String {
    let arch = match config.arch {
        Arch::Resnet18 => "resnet18",
        Arch::Resnet34 => "resnet34",
        Arch::Resnet50 => "resnet50",
    };
    let stem = match config.stem {
        Stem::Imagenet => "imagenet",
        Stem::Cifar => "cifar",
    };
    format!("{{ arch = \"{arch}\", stem = \"{stem}\", width = {} }}", config.width)
}

fn steps_in(metadata: &BTreeMap<String, String>) -> Option<u64> {
    metadata.get(STEPS_KEY)?.parse().ok()
}

fn is_imported(run_dir: &RunDir) -> bool {
    let imported = |manifest: RunManifest| manifest.weights.is_some_and(|origin| origin.used_as == UsedAs::Imported);
    RunManifest::read(run_dir).is_ok_and(imported)
}

/// Reading failed, or the file is not what it should be; one that ends too early is the latter.
fn exit_of(error: &WeightsFileError) -> Exit {
    match error {
        WeightsFileError::Io { source, .. }
        | WeightsFileError::Safetensors(SafetensorsError::Io { source, .. })
        | WeightsFileError::Torch(TorchFileError::Zip(ZipError::Io { source, .. }))
            if source.kind() != io::ErrorKind::UnexpectedEof =>
        {
            Exit::Io
        }
        _ => Exit::Model,
    }
}

/// Length and SHA-256 of a file, the latter as `sha256sum` prints it.
pub(crate) fn sha256_of(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer, mut bytes) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        bytes += n as u64;
    }
    Ok((bytes, hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}
