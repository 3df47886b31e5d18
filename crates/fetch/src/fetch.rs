//! From a recipe to a folder of pictures, or to a state from which the same call goes on.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::checksum::sha256_of;
use crate::download::Download;
use crate::http::{Http, HttpError};
use crate::recipe::file_name;
use crate::sums_file::{self, Checked};
use crate::{DownloadError, Event, Patience, Recipe, RecipeError, UnpackError, unpack_tar_gz};

/// How to reach the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchConfig {
    /// An address to take the archive from instead of the recipe's; the archive's file name is put behind it.
    pub mirror: Option<String>,
    /// The address of a proxy for everything that is asked for over HTTPS.
    pub proxy: Option<String>,
    /// Timeouts and retries.
    pub patience: Patience,
}

/// What lies in the folder now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Whether all of it was there already, in which case nothing was done.
    pub was_there: bool,
    /// Files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes that came over the network in this call.
    pub received: u64,
}

/// Why there is no folder of pictures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The recipe is none.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The destination has no name of its own, such as `..`.
    #[error("{} does not name a folder", dest.display())]
    NoName {
        /// The destination as given.
        dest: PathBuf,
    },
    /// Something else lies there.
    #[error("{} exists and was not fetched as `{name}`; name another folder with --to", dest.display())]
    Occupied {
        /// The destination.
        dest: PathBuf,
        /// The set that was asked for.
        name: String,
    },
    /// The set lies there and was changed.
    #[error("{} was fetched, but its file `{file}` is missing or has changed; remove the folder and fetch again", dest.display())]
    Damaged {
        /// The destination.
        dest: PathBuf,
        /// The first file that differs.
        file: String,
    },
    /// Another process fetches into the same folder.
    #[error("another process is fetching into {}", dest.display())]
    Busy {
        /// The destination.
        dest: PathBuf,
    },
    /// The proxy's address is none.
    #[error("{reason}: `{proxy}`")]
    Proxy {
        /// What was given.
        proxy: String,
        /// Why not.
        reason: String,
    },
    /// The archive did not come.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The archive came whole and is another one. It was removed.
    #[error(
        "{url} has sha256 {got}, the recipe expects {expected}: it is another file, and nothing of it was unpacked"
    )]
    WrongChecksum {
        /// Where it came from.
        url: String,
        /// According to the recipe.
        expected: String,
        /// Of what came.
        got: String,
    },
    /// The archive is the right one, and cannot be unpacked.
    #[error("cannot unpack {}", archive.display())]
    Unpack {
        /// The archive.
        archive: PathBuf,
        /// Why not.
        source: UnpackError,
    },
    /// The archive does not hold the folder that the recipe names.
    #[error("the archive of `{name}` has no folder `{folder}`, which the recipe's layout names")]
    Layout {
        /// The set.
        name: String,
        /// The folder.
        folder: String,
    },
    /// The operating system refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Makes `dest` a folder with the set's files, or finds that it is one.
///
/// A folder that was fetched before is hashed file by file and left alone. Otherwise the archive is downloaded into
/// `dest.part`, checked, unpacked there, and renamed; `dest` appears complete or not at all. Set `stop` to end early.
/// Called again after any error or kill, it goes on with the bytes that are there; a checksum that is wrong after a
/// resumed download is given a second chance from the first byte.
///
/// # Errors
/// [`FetchError`]. After [`DownloadError::GaveUp`], [`DownloadError::Write`] and a stop, what came is kept.
///
/// # Cost
/// Disk for the archive and the unpacked files together, 64 KiB buffers, one pass of SHA-256 over each.
///
/// # Example
/// ```no_run
/// use std::sync::atomic::AtomicBool;
/// use twoview_fetch::{FetchConfig, FetchError, Patience, Recipe, fetch};
///
/// /// A recipe is read from a file such as those in `datasets/`.
/// fn bring(recipe: &Recipe) -> Result<u64, FetchError> {
///     let config = FetchConfig { mirror: None, proxy: None, patience: Patience::STANDARD };
///     let stop = AtomicBool::new(false);
///     let fetched = fetch(recipe, "cifar10".as_ref(), &config, &stop, &mut |event| eprintln!("{event:?}"))?;
///     Ok(fetched.files)
/// }
/// ```
pub fn fetch(
    recipe: &Recipe,
    dest: &Path,
    config: &FetchConfig,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(Event),
) -> Result<Fetched, FetchError> {
    recipe.check()?;
    let staging = Staging::beside(dest)?;
    if let Some(fetched) = already_there(recipe, dest, stop, on_event)? {
        return Ok(fetched);
    }
    let _lock = staging.lock(dest)?;
    // Another process may have finished between the look and the lock.
    if let Some(fetched) = already_there(recipe, dest, stop, on_event)? {
        return Ok(fetched);
    }
    let fetched = make(recipe, dest, &staging.folder, config, stop, on_event);
    if fetched.is_ok() {
        // The set is whole; a leftover costs disk and nothing else.
        let _ = fs::remove_dir_all(&staging.folder);
    } else {
        staging.remove_if_empty();
    }
    fetched
}

fn make(
    recipe: &Recipe,
    dest: &Path,
    staging: &Path,
    config: &FetchConfig,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(Event),
) -> Result<Fetched, FetchError> {
    let urls = addresses(recipe, config.mirror.as_deref());
    let archive = staging.join(recipe.archive.urls.first().and_then(|url| file_name(url)).unwrap_or("archive"));
    let mut received = 0;
    if !is_whole(&archive, recipe, stop, on_event)? {
        let http = Http::new(config.proxy.as_deref(), config.patience).map_err(|error| {
            let (HttpError::Passing(reason) | HttpError::Lasting(reason)) = error;
            FetchError::Proxy { proxy: config.proxy.clone().unwrap_or_default(), reason }
        })?;
        received = from_any(recipe, &urls, &http, &archive, config.patience, stop, on_event)?;
    }
    let files = staging.join("files");
    remove_folder(&files)?;
    let mut watch = |files, bytes| {
        on_event(Event::Unpacking { files, bytes });
        !stop.load(Ordering::Relaxed)
    };
    let unpacked =
        unpack_tar_gz(&archive, &files, recipe.archive.unpacked, &mut watch).map_err(|source| match source {
            UnpackError::Stopped => DownloadError::Stopped.into(),
            source => FetchError::Unpack { archive: archive.clone(), source },
        })?;
    for folder in [Some(&recipe.layout.train), recipe.layout.test.as_ref()].into_iter().flatten() {
        if !files.join(folder).is_dir() {
            return Err(FetchError::Layout { name: recipe.name.clone(), folder: folder.clone() });
        }
    }
    sums_file::write(&files, &recipe.archive.sha256, &unpacked).map_err(at(&files))?;
    // An empty folder may be in the way; a rename onto it is refused on some systems.
    match fs::remove_dir(dest) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(dest)(error)),
        _ => fs::rename(&files, dest).map_err(at(dest))?,
    }
    Ok(Fetched { was_there: false, files: unpacked.files.len() as u64, bytes: unpacked.bytes, received })
}

/// The folder beside the destination where everything happens.
struct Staging {
    folder: PathBuf,
}

impl Staging {
    fn beside(dest: &Path) -> Result<Self, FetchError> {
        let Some(name) = dest.file_name() else { return Err(FetchError::NoName { dest: dest.to_owned() }) };
        let mut part = OsString::from(name);
        part.push(".part");
        Ok(Self { folder: dest.with_file_name(part) })
    }

    /// Makes the folder and holds it for as long as the file lives; the kernel lets go when the process dies.
    fn lock(&self, dest: &Path) -> Result<File, FetchError> {
        fs::create_dir_all(&self.folder).map_err(at(&self.folder))?;
        let path = self.folder.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(FetchError::Busy { dest: dest.to_owned() }),
            Err(TryLockError::Error(source)) => Err(FetchError::Io { path, source }),
        }
    }

    /// Leaves no folder behind that nothing could go on from.
    fn remove_if_empty(&self) {
        let n_entries = fs::read_dir(&self.folder).map_or(0, Iterator::count);
        if n_entries == 1 {
            // The lock is the one; where this fails, a folder too many is all.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn addresses(recipe: &Recipe, mirror: Option<&str>) -> Vec<String> {
    let urls = &recipe.archive.urls;
    match mirror {
        None => urls.clone(),
        Some(mirror) => {
            let name = urls.first().and_then(|url| file_name(url)).unwrap_or_default();
            vec![format!("{}/{name}", mirror.trim_end_matches('/'))]
        }
    }
}

fn already_there(
    recipe: &Recipe,
    dest: &Path,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(Event),
) -> Result<Option<Fetched>, FetchError> {
    let occupied = || FetchError::Occupied { dest: dest.to_owned(), name: recipe.name.clone() };
    match fs::read_dir(dest).map(|mut entries| entries.next().is_none()) {
        Ok(true) => return Ok(None),
        Ok(false) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(occupied()),
        Err(error) => return Err(at(dest)(error)),
    }
    let mut watch = |done, total| {
        on_event(Event::Verifying { done, total });
        !stop.load(Ordering::Relaxed)
    };
    match sums_file::check(dest, &recipe.archive.sha256, &mut watch) {
        Ok(Checked::Whole { files, bytes }) => Ok(Some(Fetched { was_there: true, files, bytes, received: 0 })),
        Ok(Checked::Absent | Checked::Other(_)) => Err(occupied()),
        Ok(Checked::Damaged(file)) => Err(FetchError::Damaged { dest: dest.to_owned(), file }),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(DownloadError::Stopped.into()),
        Err(error) => Err(at(dest)(error)),
    }
}

/// Whether an archive from an earlier call is the right one.
fn is_whole(
    archive: &Path,
    recipe: &Recipe,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(Event),
) -> Result<bool, FetchError> {
    if !archive.is_file() {
        return Ok(false);
    }
    Ok(hash(archive, recipe, stop, on_event)? == recipe.archive.sha256)
}

fn hash(
    path: &Path,
    recipe: &Recipe,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(Event),
) -> Result<String, FetchError> {
    let mut done = 0;
    let total = recipe.archive.bytes;
    let got = sha256_of(path, |n| {
        done += n;
        on_event(Event::Verifying { done, total });
        !stop.load(Ordering::Relaxed)
    });
    got.map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => DownloadError::Stopped.into(),
        _ => at(path)(error),
    })
}

/// Downloads from the first address that has the file; returns how many bytes came.
fn from_any(
    recipe: &Recipe,
    urls: &[String],
    http: &Http,
    archive: &Path,
    patience: Patience,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(Event),
) -> Result<u64, FetchError> {
    let part = archive.with_added_extension("part");
    let mut urls = urls.iter().peekable();
    let mut received = 0;
    while let Some(url) = urls.next() {
        let download = Download { http, url, bytes: recipe.archive.bytes, part: &part, patience, stop };
        let error = match download.checked(recipe, &mut received, on_event) {
            Ok(()) => {
                fs::rename(&part, archive).map_err(at(archive))?;
                let _ = fs::remove_file(download.note());
                return Ok(received);
            }
            Err(error) => error,
        };
        // Only what the server is to blame for may be better elsewhere.
        let elsewhere = match &error {
            FetchError::Download(
                DownloadError::Refused { .. } | DownloadError::GaveUp { .. } | DownloadError::WrongLength { .. },
            )
            | FetchError::WrongChecksum { .. } => urls.peek(),
            _ => None,
        };
        let Some(next) = elsewhere else { return Err(error) };
        on_event(Event::NextAddress { reason: error.to_string(), url: (*next).clone() });
    }
    Ok(received)
}

impl Download<'_> {
    /// Downloads and compares the checksum. A file put together from several answers gets a second chance, in case the server
    /// had another version each time and did not say so.
    fn checked(&self, recipe: &Recipe, received: &mut u64, on_event: &mut dyn FnMut(Event)) -> Result<(), FetchError> {
        let mut second_chance = false;
        loop {
            let downloaded = self.run(on_event)?;
            *received += downloaded.received;
            let got = hash(self.part, recipe, self.stop, on_event)?;
            let expected = &recipe.archive.sha256;
            if got == *expected {
                return Ok(());
            }
            fs::remove_file(self.part).map_err(at(self.part))?;
            if downloaded.in_one_piece || second_chance {
                return Err(FetchError::WrongChecksum { url: self.url.to_owned(), expected: expected.clone(), got });
            }
            second_chance = true;
            on_event(Event::StartedOver { reason: "the checksum of the resumed download is wrong".to_owned() });
        }
    }
}

fn remove_folder(path: &Path) -> Result<(), FetchError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// Names the file in an error of the operating system, which does not.
fn at(path: &Path) -> impl Fn(io::Error) -> FetchError {
    move |source| FetchError::Io { path: path.to_owned(), source }
}
