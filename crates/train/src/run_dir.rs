//! A run's directory: where its files lie, who holds it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// The directory of one training run.
///
/// ```text
/// config.resolved.toml   the whole experiment: reproduces the run alone
/// manifest.json          what the data were: count, classes, fingerprint
/// bad_files.jsonl        every picture left out or replaced, with its reason
/// metrics.jsonl          one line for each step
/// checkpoints/step-*/    weights and optimizer state, each folder whole or absent
/// online.json            what the looks at the encoder are compared with, where there are any
/// scores.json            what evaluations found
/// export/                the encoder, once training has ended; all there is of an imported run
/// lock                   held by the process that trains
/// ```
///
/// A directory opened for writing is locked through the operating system until the value is dropped or the process dies,
/// so a killed run never has to be unlocked by hand.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Absent where the directory is only read.
    _lock: Option<File>,
}

/// Why a run directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunDirError {
    /// The directory for a new run has something in it.
    #[error("{} exists and is not empty: a new run needs a directory of its own", .0.display())]
    NotEmpty(PathBuf),
    /// The directory does not look like a run.
    #[error("{} is not a run directory: it has no {missing}", .path.display())]
    NotARun {
        /// The directory.
        path: PathBuf,
        /// The file that every run has and this one does not.
        missing: &'static str,
    },
    /// Another process trains in this directory.
    #[error("{} is in use by process {holder}; wait for it to end, or stop it", .path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// What the holder wrote into the lock file: its process number.
        holder: String,
    },
    /// The operating system refused.
    #[error("cannot use {}", .path.display())]
    Io {
        /// The path of the failed operation.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

const CONFIG: &str = "config.resolved.toml";
const MANIFEST: &str = "manifest.json";
const BAD_FILES: &str = "bad_files.jsonl";
const LOCK: &str = "lock";
const METRICS: &str = "metrics.jsonl";
const CHECKPOINTS: &str = "checkpoints";
const EXPORTED: &str = "export/encoder.safetensors";
const UNFINISHED: &str = ".unfinished";
/// What a run keeps for itself and for whoever reads it later.
const RECORD: [&str; 9] =
    [CONFIG, MANIFEST, BAD_FILES, LOCK, METRICS, CHECKPOINTS, EXPORTED, "scores.json", "online.json"];
const BEFORE_IT_BEGAN: [&str; 4] = [LOCK, UNFINISHED, BAD_FILES, MANIFEST];

impl RunDir {
    /// Makes a new run directory, with its parents, and locks it. An existing directory is taken only when it is empty, or
    /// holds no more than a run that died before it had [begun](Self::begin).
    ///
    /// # Errors
    /// [`RunDirError::NotEmpty`], [`RunDirError::Locked`] or [`RunDirError::Io`].
    pub fn create(path: &Path) -> Result<Self, RunDirError> {
        let failed = |source| RunDirError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        for entry in fs::read_dir(path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if !BEFORE_IT_BEGAN.iter().any(|ours| name == *ours) {
                return Err(RunDirError::NotEmpty(path.to_owned()));
            }
        }
        Self::locked(path)
    }

    /// Writes down what the run is: the directory is a run from here on, and not before.
    ///
    /// # Errors
    /// [`RunDirError::Io`].
    pub fn begin(&self, config: &str, manifest: &str, bad_files: &str) -> Result<(), RunDirError> {
        // The configuration comes last: it is what makes the directory a run.
        for (path, text) in [(self.bad_files(), bad_files), (self.manifest(), manifest), (self.config(), config)] {
            self.write_whole(&path, text)?;
        }
        Ok(())
    }

    /// Puts another manifest in the place of the one the run began with.
    ///
    /// # Errors
    /// [`RunDirError::Io`].
    pub fn replace_manifest(&self, manifest: &str) -> Result<(), RunDirError> {
        self.write_whole(&self.manifest(), manifest)
    }

    /// Writes a file that is complete or as it was, whatever happens meanwhile.
    fn write_whole(&self, path: &Path, text: &str) -> Result<(), RunDirError> {
        let failed = |source| RunDirError::Io { path: path.to_owned(), source };
        let unfinished = self.path.join(UNFINISHED);
        let mut file = File::create(&unfinished).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&unfinished, path).map_err(failed)?;
        if cfg!(unix) { File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(failed) } else { Ok(()) }
    }

    /// Makes the first free of `parent/name-1`, `parent/name-2`, … and locks it.
    ///
    /// Making the directory is what claims the number, so two programs started at once get two directories.
    ///
    /// # Errors
    /// [`RunDirError::Io`].
    pub fn create_next(parent: &Path, name: &str) -> Result<Self, RunDirError> {
        fs::create_dir_all(parent).map_err(|source| RunDirError::Io { path: parent.to_owned(), source })?;
        for number in 1_u32.. {
            let path = parent.join(format!("{name}-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return Self::locked(&path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(RunDirError::Io { path, source }),
            }
        }
        unreachable!("four billion runs in one folder")
    }

    /// Opens an existing run to train on in it, and locks it.
    ///
    /// # Errors
    /// [`RunDirError::NotARun`], [`RunDirError::Locked`] or [`RunDirError::Io`].
    pub fn open(path: &Path) -> Result<Self, RunDirError> {
        Self::read_only(path)?;
        Self::locked(path)
    }

    /// Opens an existing run to read from it; it may be training meanwhile.
    ///
    /// # Errors
    /// [`RunDirError::NotARun`].
    pub fn read_only(path: &Path) -> Result<Self, RunDirError> {
        if path.join(CONFIG).is_file() {
            Ok(Self { path: path.to_owned(), _lock: None })
        } else {
            Err(RunDirError::NotARun { path: path.to_owned(), missing: CONFIG })
        }
    }

    /// Whether `path` is where a run keeps something of its own, which no other output may take the place of.
    #[must_use]
    pub fn is_record(path: &Path) -> bool {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let Ok(folder) = fs::canonicalize(folder) else { return false };
        // Where a link leads is what would be written to.
        let path = fs::canonicalize(folder.join(name)).unwrap_or_else(|_| folder.join(name));
        let is_in = |run: &Path| {
            path.strip_prefix(run).is_ok_and(|inside| RECORD.iter().any(|record| inside.starts_with(record)))
        };
        path.ancestors().skip(1).any(|run| run.join(CONFIG).is_file() && is_in(run))
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved configuration, TOML.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// What the data were when the run began, JSON.
    #[must_use]
    pub fn manifest(&self) -> PathBuf {
        self.path.join(MANIFEST)
    }

    /// Pictures left out or replaced, JSON lines.
    #[must_use]
    pub fn bad_files(&self) -> PathBuf {
        self.path.join(BAD_FILES)
    }

    /// One line for each step, JSON lines.
    #[must_use]
    pub fn metrics(&self) -> PathBuf {
        self.path.join(METRICS)
    }

    /// The folder of checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join(CHECKPOINTS)
    }

    /// The encoder after training, safetensors with torchvision's names.
    #[must_use]
    pub fn exported_encoder(&self) -> PathBuf {
        self.path.join(EXPORTED)
    }

    fn locked(path: &Path) -> Result<Self, RunDirError> {
        let lock_path = path.join(LOCK);
        let failed = |source| RunDirError::Io { path: lock_path.clone(), source };
        let mut lock =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&lock_path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                lock.read_to_string(&mut holder).map_err(failed)?;
                return Err(RunDirError::Locked { path: path.to_owned(), holder: holder.trim().to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        lock.rewind().and_then(|()| lock.set_len(0)).map_err(failed)?;
        writeln!(lock, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { path: path.to_owned(), _lock: Some(lock) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_second_writer_is_told_who_holds_the_run() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let first = RunDir::create(&path).unwrap();
        fs::write(first.config(), "").unwrap();
        match RunDir::open(&path) {
            Err(RunDirError::Locked { holder, .. }) => assert_eq!(holder, std::process::id().to_string()),
            other => panic!("expected a lock, got {other:?}"),
        }
        assert!(RunDir::read_only(&path).is_ok(), "reading needs no lock");
        drop(first);
        assert!(RunDir::open(&path).is_ok());
    }

    #[test]
    fn a_run_that_died_before_it_began_is_not_in_the_way() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let first = RunDir::create(&path).unwrap();
        fs::write(first.manifest(), "{").unwrap();
        drop(first);
        assert!(matches!(RunDir::open(&path), Err(RunDirError::NotARun { .. })));
        let second = RunDir::create(&path).unwrap();
        second.begin("seed = 0\n", "{}", "").unwrap();
        assert!(!RunDir::is_record(&path.join("report.html")) && !RunDir::is_record(&parent.path().join("lock")));
        fs::create_dir_all(second.checkpoints().join("step-1")).unwrap();
        for record in [second.config(), second.metrics(), second.checkpoints().join("step-1").join("COMMIT")] {
            assert!(RunDir::is_record(&record), "{}", record.display());
        }
        drop(second);
        assert!(RunDir::open(&path).is_ok());
        assert!(matches!(RunDir::create(&path), Err(RunDirError::NotEmpty(_))));
    }

    #[test]
    fn a_new_run_never_writes_into_something_else() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("thesis.txt"), "years of work").unwrap();
        assert!(matches!(RunDir::create(parent.path()), Err(RunDirError::NotEmpty(_))));
        assert!(matches!(RunDir::open(parent.path()), Err(RunDirError::NotARun { .. })));
        let (a, b) = (RunDir::create_next(parent.path(), "demo"), RunDir::create_next(parent.path(), "demo"));
        assert!(a.unwrap().path().ends_with("demo-1"));
        assert!(b.unwrap().path().ends_with("demo-2"));
    }
}
