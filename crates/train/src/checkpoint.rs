//! Checkpoints: folders that are whole or absent.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use burn::tensor::TensorData;
use serde::{Deserialize, Serialize};
use twoview_encoder::{
    NamedTensors, SafetensorsError, WeightsError, load_named, load_safetensors, named_tensors, save_safetensors,
};
use twoview_optim::OptimizerStateError;

use crate::{Network, RunDir, TrainState};

/// A saved training state that was found whole.
///
/// ```text
/// checkpoints/step-00001200/
///   encoder.safetensors     torchvision's names
///   head.safetensors
///   optimizer.safetensors   parameter name / kind of state
///   state.json              the step, and how much of metrics.jsonl belongs to it
///   COMMIT                  length and checksum of each of the others, written last
/// ```
///
/// The folder is written under another name, every file is synced, and then it is renamed: whatever kills the program, a
/// `step-*` folder is complete. Damage from elsewhere (a bad disk, an editor) is caught by the checksums, and the checkpoint
/// before it is used. The two newest are kept.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    progress: Progress,
}

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refused.
    #[error("cannot use {}", .path.display())]
    Io {
        /// The path of the failed operation.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The run has no checkpoint yet.
    #[error("{} has no checkpoint", .0.display())]
    None(PathBuf),
    /// Every checkpoint is damaged.
    #[error("no checkpoint in {} is whole: {}", .dir.display(), .damaged.join("; "))]
    AllDamaged {
        /// The folder of checkpoints.
        dir: PathBuf,
        /// Each checkpoint with what is wrong with it.
        damaged: Vec<String>,
    },
    /// A weight or a number of the optimizer's memory is not finite. Nothing was written.
    #[error(
        "`{tensor}` is not finite after step {step}; the last checkpoint is good. Lower optimizer.lr_per_256 or weight_decay"
    )]
    NonFinite {
        /// Name of the tensor.
        tensor: String,
        /// Steps done.
        step: u64,
    },
    /// A tensor file cannot be written or read.
    #[error(transparent)]
    Tensors(#[from] SafetensorsError),
    /// The checkpoint belongs to another network.
    #[error("{}", .path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: WeightsError,
    },
    /// The checkpoint belongs to another kind of optimizer. Its memory alone need not show that: plain SGD has none.
    #[error("{}: the run was trained with optimizer.kind = {expected}, got {got}", .path.display())]
    OtherOptimizer {
        /// The file.
        path: PathBuf,
        /// The kind that was saved.
        expected: String,
        /// The kind it should be loaded into.
        got: &'static str,
    },
    /// The optimizer's memory does not fit.
    #[error("{}", .path.display())]
    Optimizer {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: OptimizerStateError,
    },
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Progress {
    /// Version of this layout.
    version: u32,
    step: u64,
    metrics_bytes: u64,
    /// The kind of the optimizer.
    optimizer: String,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Digest {
    bytes: u64,
    crc32: u32,
}

const VERSION: u32 = 1;
const ENCODER: &str = "encoder.safetensors";
const HEAD: &str = "head.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const FILES: [&str; 4] = [ENCODER, HEAD, OPTIMIZER, STATE];
const COMMIT: &str = "COMMIT";
const KEPT: usize = 2;

impl Checkpoint {
    /// Saves `state` and removes all but the two newest checkpoints.
    ///
    /// `metrics_bytes` says how much of the metrics file belongs to the steps done so far.
    ///
    /// # Errors
    /// [`CheckpointError::NonFinite`] or [`CheckpointError::Io`]; what was there before is untouched then.
    pub fn save(run_dir: &RunDir, state: &TrainState, metrics_bytes: u64) -> Result<Self, CheckpointError> {
        let parent = run_dir.checkpoints();
        let optimizer = state.optimizer.kind().to_owned();
        let progress = Progress { version: VERSION, step: state.step, metrics_bytes, optimizer };
        let dir = parent.join(format!("step-{:08}", state.step));
        let unfinished = parent.join(".unfinished");
        let io = |source| io_error(&unfinished, source);

        let files = [
            (ENCODER, named_tensors(&state.network.encoder)),
            (HEAD, named_tensors(&state.network.head)),
            (OPTIMIZER, state.optimizer.named_state()),
        ];
        // A step checks its gradient; what the update made of it shows here.
        if let Some((name, _)) = files.iter().flat_map(|(_, tensors)| tensors).find(|(_, data)| !is_finite(data)) {
            return Err(CheckpointError::NonFinite { tensor: name.clone(), step: state.step });
        }
        remove_if_there(&unfinished).map_err(io)?;
        fs::create_dir_all(&unfinished).map_err(io)?;
        for (name, tensors) in files {
            save_safetensors(&unfinished.join(name), &tensors, &BTreeMap::new())?;
        }
        write_synced(&unfinished.join(STATE), &serde_json::to_vec(&progress).map_err(|e| io(e.into()))?).map_err(io)?;
        commit(&unfinished, &dir).map_err(io)?;
        prune(&parent).map_err(|source| io_error(&parent, source))?;
        Ok(Self { dir, progress })
    }

    /// The newest checkpoint that is whole, with a line for each newer one that is not.
    ///
    /// # Errors
    /// [`CheckpointError::None`], [`CheckpointError::AllDamaged`] or [`CheckpointError::Io`].
    pub fn latest(run_dir: &RunDir) -> Result<(Self, Vec<String>), CheckpointError> {
        let parent = run_dir.checkpoints();
        let mut dirs = match step_dirs(&parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(|source| io_error(&parent, source))?,
        };
        let mut damaged = Vec::new();
        while let Some(dir) = dirs.pop() {
            match verify(&dir) {
                Ok(progress) => return Ok((Self { dir, progress }, damaged)),
                Err(reason) => damaged.push(format!("{}: {reason}", dir.display())),
            }
        }
        if damaged.is_empty() {
            Err(CheckpointError::None(run_dir.path().to_owned()))
        } else {
            Err(CheckpointError::AllDamaged { dir: parent, damaged })
        }
    }

    /// Puts the saved state in the place of a fresh one of the same shape.
    ///
    /// # Errors
    /// [`CheckpointError::Weights`] or [`CheckpointError::Optimizer`] where the shapes differ,
    /// [`CheckpointError::OtherOptimizer`] where the kinds do.
    pub fn load(&self, fresh: TrainState) -> Result<TrainState, CheckpointError> {
        let TrainState { network: Network { encoder, head }, mut optimizer, .. } = fresh;
        let weights = |name| move |source| CheckpointError::Weights { path: self.dir.join(name), source };
        let encoder = load_named(encoder, self.tensors(ENCODER)?).map_err(weights(ENCODER))?;
        let head = load_named(head, self.tensors(HEAD)?).map_err(weights(HEAD))?;
        let network = Network { encoder, head };
        if optimizer.kind() != self.progress.optimizer {
            return Err(CheckpointError::OtherOptimizer {
                path: self.dir.join(OPTIMIZER),
                expected: self.progress.optimizer.clone(),
                got: optimizer.kind(),
            });
        }
        optimizer
            .load_named_state(&network, self.tensors(OPTIMIZER)?)
            .map_err(|source| CheckpointError::Optimizer { path: self.dir.join(OPTIMIZER), source })?;
        Ok(TrainState { network, optimizer, step: self.progress.step })
    }

    /// The encoder's weights.
    #[must_use]
    pub fn encoder(&self) -> PathBuf {
        self.dir.join(ENCODER)
    }

    /// Steps done when it was saved.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.progress.step
    }

    /// How much of the metrics file belongs to those steps, in bytes.
    #[must_use]
    pub fn metrics_bytes(&self) -> u64 {
        self.progress.metrics_bytes
    }

    fn tensors(&self, name: &str) -> Result<NamedTensors, CheckpointError> {
        Ok(load_safetensors(&self.dir.join(name))?.tensors)
    }
}

/// Whether every number is finite; integers always are.
fn is_finite(data: &TensorData) -> bool {
    !data.dtype().is_float() || data.iter::<f64>().all(f64::is_finite)
}

fn io_error(path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Io { path: path.to_owned(), source }
}

/// Writes `COMMIT` for the files in `unfinished` and renames the folder to `dir`.
fn commit(unfinished: &Path, dir: &Path) -> io::Result<()> {
    let mut commit = BTreeMap::new();
    for name in FILES {
        commit.insert(name, digest(&fs::read(unfinished.join(name))?));
    }
    write_synced(&unfinished.join(COMMIT), &serde_json::to_vec(&commit)?)?;
    sync_dir(unfinished)?;
    // A run that was resumed from an older checkpoint comes past this step again.
    remove_if_there(dir)?;
    fs::rename(unfinished, dir)?;
    dir.parent().map_or(Ok(()), sync_dir)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a rename inside `dir` durable, where the system can.
fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

fn remove_if_there(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The checkpoint folders of a run, oldest first.
fn step_dirs(parent: &Path) -> io::Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(parent)? {
        let name = entry?.file_name();
        if let Some(step) = name.to_str().and_then(|name| name.strip_prefix("step-")?.parse::<u64>().ok()) {
            dirs.push((step, parent.join(name)));
        }
    }
    dirs.sort();
    Ok(dirs.into_iter().map(|(_, dir)| dir).collect())
}

fn prune(parent: &Path) -> io::Result<()> {
    let mut dirs = step_dirs(parent)?;
    dirs.truncate(dirs.len().saturating_sub(KEPT));
    dirs.iter().try_for_each(|dir| remove_if_there(dir))
}

fn digest(bytes: &[u8]) -> Digest {
    Digest { bytes: bytes.len() as u64, crc32: crc32fast::hash(bytes) }
}

/// The progress saved in `dir`, if every file is what `COMMIT` says.
fn verify(dir: &Path) -> Result<Progress, String> {
    let read = |name: &str| fs::read(dir.join(name)).map_err(|error| format!("{name}: {error}"));
    let commit: BTreeMap<String, Digest> =
        serde_json::from_slice(&read(COMMIT)?).map_err(|error| format!("{COMMIT}: {error}"))?;
    for name in FILES {
        let promised = commit.get(name).ok_or_else(|| format!("{COMMIT} does not list {name}"))?;
        if digest(&read(name)?) != *promised {
            return Err(format!("{name} is not what was written: its length or checksum differs"));
        }
    }
    let progress: Progress = serde_json::from_slice(&read(STATE)?).map_err(|error| format!("{STATE}: {error}"))?;
    if progress.version == VERSION {
        Ok(progress)
    } else {
        Err(format!("{STATE}: expected version {VERSION}, got {}; it was written by another twoview", progress.version))
    }
}
