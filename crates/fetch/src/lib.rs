//! Downloads a published set of pictures over HTTPS, checks it and unpacks it: the one crate that opens a connection.
//!
//! A [`Recipe`] says where a set lies, what its archive must hash to and how large it may become; [`fetch`] makes a folder
//! of it. The folder is complete or absent: everything happens in `DEST.part` beside it, which takes the final name at the
//! very end, and whatever was interrupted goes on from there. Nothing is unpacked before its checksum is right, and
//! [`unpack_tar_gz`] lets no archive write outside its folder or beyond its limits.
//!
//! ```text
//! Recipe -> DEST.part/ARCHIVE.part (Range, If-Range) -> sha256 -> DEST.part/files -> DEST + DEST/.sha256sums
//! ```
//!
//! It knows nothing of pictures, and no other crate of the workspace but the program knows it, so that training cannot
//! reach a network by construction. It reads no environment and prints nothing: proxy, mirror and patience are values of
//! [`FetchConfig`], and what happens is told through [`Event`]s.

mod checksum;
mod download;
mod event;
mod fetch;
mod http;
mod recipe;
mod sums_file;
mod unpack;

pub use download::DownloadError;
pub use event::Event;
pub use fetch::{FetchConfig, FetchError, Fetched, fetch};
pub use http::Patience;
pub use recipe::{ArchiveConfig, Layout, LayoutConfig, Recipe, RecipeError};
pub use unpack::{UnpackError, UnpackLimits, Unpacked, unpack_tar_gz};
