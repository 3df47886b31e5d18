//! What happens during a fetch, for whoever shows it.

use std::time::Duration;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// So many bytes of the archive are on the disk.
    Downloading {
        /// Bytes so far, those of earlier tries included.
        done: u64,
        /// Bytes of the archive.
        total: u64,
    },
    /// What an earlier try left cannot be used, so the download begins at its first byte.
    StartedOver {
        /// Why.
        reason: String,
    },
    /// Something failed that may pass.
    Retrying {
        /// What failed.
        reason: String,
        /// How long nothing happens now.
        pause: Duration,
    },
    /// This address failed for good and the recipe has another.
    NextAddress {
        /// What failed.
        reason: String,
        /// The address that is tried now.
        url: String,
    },
    /// So many bytes of the archive, or of the files of a folder that is there already, have been hashed.
    Verifying {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// So many bytes have been written out of the archive.
    Unpacking {
        /// Files so far.
        files: u64,
        /// Bytes so far.
        bytes: u64,
    },
}
