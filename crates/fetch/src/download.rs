//! One file from one server onto the disk, however many tries it takes.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::checksum::CHUNK;
use crate::http::{Answer, Http, HttpError, Version};
use crate::{Event, Patience};

/// Why a file did not come whole. What came stays on the disk and the next try goes on from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The server refuses, and would again.
    #[error("cannot download {url}: {reason}")]
    Refused {
        /// What was asked for.
        url: String,
        /// What the server or the connection said.
        reason: String,
    },
    /// The server or the way to it failed again and again.
    #[error("cannot download {url}: {reason} ({tries} tries); {done} of {total} bytes are kept, run the command again")]
    GaveUp {
        /// What was asked for.
        url: String,
        /// What failed last.
        reason: String,
        /// Tries that brought nothing new.
        tries: u32,
        /// Bytes on the disk.
        done: u64,
        /// Bytes of the archive.
        total: u64,
    },
    /// The server has a file of another length under this address.
    #[error("{url} has {got} bytes, the recipe expects {expected}: it is another file")]
    WrongLength {
        /// What was asked for.
        url: String,
        /// According to the recipe.
        expected: u64,
        /// According to the server.
        got: u64,
    },
    /// The disk refuses, for example because it is full.
    #[error("cannot write {}; what came is kept, run the command again", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Whoever watches wanted it to end.
    #[error("stopped; what came is kept, run the command again")]
    Stopped,
}

/// Beside the unfinished file: which version of which file its bytes belong to.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begun {
    url: String,
    version: Version,
}

/// What does not change from one try to the next.
pub(crate) struct Download<'a> {
    pub(crate) http: &'a Http,
    pub(crate) url: &'a str,
    /// Length of the file according to the recipe.
    pub(crate) bytes: u64,
    /// Where the unfinished file lies.
    pub(crate) part: &'a Path,
    pub(crate) patience: Patience,
    pub(crate) stop: &'a AtomicBool,
}

/// A file of the right length.
pub(crate) struct Downloaded {
    /// Bytes that came over the network.
    pub(crate) received: u64,
    /// Whether all of the file came in one answer, so that no seam can be to blame for what is wrong with it.
    pub(crate) in_one_piece: bool,
}

/// One try's end, short of the whole file.
enum Failed {
    Passing(String),
    For(DownloadError),
}

impl From<DownloadError> for Failed {
    fn from(error: DownloadError) -> Self {
        Self::For(error)
    }
}

impl Download<'_> {
    /// Downloads until the file has its length.
    ///
    /// # Errors
    /// [`DownloadError`]; the unfinished file and its note are left for the next call.
    pub(crate) fn run(&self, on_event: &mut dyn FnMut(Event)) -> Result<Downloaded, DownloadError> {
        let mut received = 0;
        let mut fruitless = 0;
        loop {
            let before = received;
            let reason = match self.try_once(&mut received, on_event) {
                Ok(in_one_piece) => return Ok(Downloaded { received, in_one_piece }),
                Err(Failed::For(error)) => return Err(error),
                Err(Failed::Passing(reason)) => reason,
            };
            fruitless = if received > before { 1 } else { fruitless + 1 };
            let done = self.part.metadata().map_or(0, |metadata| metadata.len());
            // Before the first byte a lasting cause is likely, such as no network at all, and nothing is lost yet.
            let retries = if done == 0 { self.patience.retries.min(2) } else { self.patience.retries };
            if fruitless > retries {
                let url = self.url.to_owned();
                return Err(DownloadError::GaveUp { url, reason, tries: fruitless, done, total: self.bytes });
            }
            let pause = self.patience.first_pause * 2_u32.saturating_pow((fruitless - 1).min(6));
            on_event(Event::Retrying { reason, pause });
            self.wait(pause)?;
        }
    }

    /// Returns whether this try began at the first byte.
    fn try_once(&self, received: &mut u64, on_event: &mut dyn FnMut(Event)) -> Result<bool, Failed> {
        let (mut done, begun) = self.left_from_before(on_event)?;
        if done == self.bytes {
            return Ok(false);
        }
        let refused = |reason| DownloadError::Refused { url: self.url.to_owned(), reason };
        let mut answer = self.http.get(self.url, done, &begun.version).map_err(|error| match error {
            HttpError::Passing(reason) => Failed::Passing(reason),
            HttpError::Lasting(reason) => Failed::For(refused(reason)),
        })?;
        if done > 0
            && let Some(reason) = self.cannot_continue(&answer, &begun.version)
        {
            on_event(Event::StartedOver { reason });
            if answer.first_byte > 0 {
                answer = match self.http.get(self.url, 0, &Version::default()) {
                    Ok(answer) => answer,
                    Err(HttpError::Passing(reason)) => return Err(Failed::Passing(reason)),
                    Err(HttpError::Lasting(reason)) => return Err(refused(reason).into()),
                };
            }
            done = 0;
        }
        if let Some(got) = answer.total.filter(|got| *got != self.bytes) {
            return Err(DownloadError::WrongLength { url: self.url.to_owned(), expected: self.bytes, got }.into());
        }
        if done == 0 {
            self.begin(&answer.version)?;
        }
        self.receive(answer.body, done, received, on_event)?;
        Ok(done == 0)
    }

    /// Bytes on the disk that belong to this file, and what they belong to.
    fn left_from_before(&self, on_event: &mut dyn FnMut(Event)) -> Result<(u64, Begun), DownloadError> {
        let nothing = || Begun { url: self.url.to_owned(), version: Version::default() };
        let done = match self.part.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(source) => return Err(DownloadError::Write { path: self.part.to_owned(), source }),
        };
        if done == 0 {
            return Ok((0, nothing()));
        }
        let note = fs::read(self.note()).ok().and_then(|text| serde_json::from_slice::<Begun>(&text).ok());
        let reason = match note {
            Some(begun) if begun.url == self.url && done <= self.bytes => return Ok((done, begun)),
            Some(begun) if begun.url != self.url => format!("it began at {}", begun.url),
            Some(_) => format!("it has {done} bytes, more than the {} of the file", self.bytes),
            None => "there is no note of what it belongs to".to_owned(),
        };
        on_event(Event::StartedOver { reason });
        self.truncate(0)?;
        Ok((0, nothing()))
    }

    /// Why an answer's bytes may not be put behind those on the disk, if they may not.
    fn cannot_continue(&self, answer: &Answer, before: &Version) -> Option<String> {
        let changed = |was: &Option<String>, is: &Option<String>| matches!((was, is), (Some(a), Some(b)) if a != b);
        let Version { etag, last_modified } = &answer.version;
        if changed(&before.etag, etag) || changed(&before.last_modified, last_modified) {
            Some("the file on the server has changed since".to_owned())
        } else if answer.first_byte == 0 {
            Some("the server cannot send a part of the file".to_owned())
        } else if answer.total.is_some_and(|total| total != self.bytes) {
            Some("the server's file has another length".to_owned())
        } else {
            None
        }
    }

    /// Makes the file empty and notes what will be in it. In this order, so that no note is ever older than the bytes.
    fn begin(&self, version: &Version) -> Result<(), DownloadError> {
        self.truncate(0)?;
        let begun = Begun { url: self.url.to_owned(), version: version.clone() };
        let text = serde_json::to_vec(&begun).map_err(io::Error::from);
        let written = text.and_then(|text| fs::write(self.note(), text));
        written.map_err(|source| DownloadError::Write { path: self.note(), source })
    }

    fn truncate(&self, len: u64) -> Result<(), DownloadError> {
        let file = File::options().create(true).truncate(false).write(true).open(self.part);
        file.and_then(|file| file.set_len(len))
            .map_err(|source| DownloadError::Write { path: self.part.to_owned(), source })
    }

    fn receive(
        &self,
        mut body: impl Read,
        mut done: u64,
        received: &mut u64,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<(), Failed> {
        let write = |source| DownloadError::Write { path: self.part.to_owned(), source };
        let mut file = File::options().write(true).open(self.part).map_err(write)?;
        file.seek(SeekFrom::Start(done)).map_err(write)?;
        let mut chunk = vec![0; CHUNK];
        while done < self.bytes {
            on_event(Event::Downloading { done, total: self.bytes });
            self.go_on()?;
            // Never more than the file has: what a server sends beyond that is nothing we asked for.
            let want = usize::try_from(self.bytes - done).map_or(CHUNK, |left| left.min(CHUNK));
            let n = match body.read(&mut chunk[..want]) {
                Ok(0) => return Err(Failed::Passing(format!("the connection ended after {done} bytes"))),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failed::Passing(error.to_string())),
            };
            file.write_all(&chunk[..n]).map_err(write)?;
            done += n as u64;
            *received += n as u64;
        }
        on_event(Event::Downloading { done, total: self.bytes });
        file.sync_all().map_err(write)?;
        Ok(())
    }

    /// The note beside the unfinished file.
    pub(crate) fn note(&self) -> PathBuf {
        self.part.with_added_extension("json")
    }

    fn go_on(&self) -> Result<(), DownloadError> {
        if self.stop.load(Ordering::Relaxed) { Err(DownloadError::Stopped) } else { Ok(()) }
    }

    fn wait(&self, pause: Duration) -> Result<(), DownloadError> {
        let begun = Instant::now();
        while begun.elapsed() < pause {
            self.go_on()?;
            thread::sleep(Duration::from_millis(50).min(pause));
        }
        self.go_on()
    }
}
