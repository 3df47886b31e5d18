//! Why tar shards cannot be used.

use std::io;
use std::path::PathBuf;

use crate::escape_path;

/// A set of tar shards that cannot be opened: which file, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The operating system does not let us read the file.
    #[error("{} cannot be read: {reason}", escape_path(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// The path leads to no shard.
    #[error(
        "no .tar files for {}: expected a .tar file, a folder of them, or a pattern such as train-{{000..146}}.tar",
        escape_path(path)
    )]
    NoShards {
        /// The path or pattern as given.
        path: PathBuf,
    },
    /// The range in the braces is none, or has too many numbers.
    #[error(
        "{}: expected one range of at most {most} numbers in braces, as in train-{{000..146}}.tar",
        escape_path(path)
    )]
    Pattern {
        /// The pattern as given.
        path: PathBuf,
        /// Most shards of one set.
        most: usize,
    },
    /// Members of a compressed archive cannot be read one by one.
    #[error(
        "{} is compressed, so its members cannot be read one by one: decompress it first, pictures hardly shrink anyway",
        escape_path(path)
    )]
    Compressed {
        /// The file.
        path: PathBuf,
    },
    /// A header breaks the rules.
    #[error("{}: the member at byte {at} cannot be read: {reason}", escape_path(path))]
    Header {
        /// The file.
        path: PathBuf,
        /// Where the header begins.
        at: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The archive ends within a member or without its end mark.
    #[error("{} is truncated: it has {bytes} bytes and no end mark; is the file complete?", escape_path(path))]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// A `.cls` member holds no whole number.
    #[error("{}: expected a label as a whole number, got `{got}`", escape_path(path))]
    Label {
        /// Shard and member.
        path: PathBuf,
        /// The beginning of what it holds.
        got: String,
    },
    /// Two samples have the same name.
    #[error("two samples are called {name}: names must differ within a shard")]
    Repeated {
        /// The name, with its shard.
        name: String,
    },
    /// No sample has a picture.
    #[error("no pictures in {}: {members} members seen; expected names ending in .{}", escape_path(path), expected.join(", ."))]
    NoPictures {
        /// The path or pattern as given.
        path: PathBuf,
        /// Members of all shards.
        members: usize,
        /// Endings of pictures.
        expected: &'static [&'static str],
    },
}
