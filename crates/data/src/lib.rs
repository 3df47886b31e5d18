//! Where pictures come from and how they reach the training loop: sources, epoch order, batches of two views.
//!
//! A [`Source`] answers `image(i)`, and nothing but `i` decides the answer. [`FolderSource`] reads a folder of
//! image files, [`PatternsSource`] draws the built-in set; [`CifarSource`], [`StlSource`], [`IdxSource`], [`TarSource`],
//! [`PackSource`] and, with the feature `parquet`, `ParquetSource` read sets where they lie, and [`SourceKind`] tells from a
//! path which of them it is. [`write_pack`] puts any of them into one file. A [`Loader`] takes a source through one epoch after
//! another: [`EpochOrder`] says which picture stands at which place, threads decode and augment ahead, and
//! [`ViewBatch`]es come out in order. [`image_batches`] is the same road without chance, for evaluation.
//!
//! ```text
//! FolderSource | TarSource | .. -> Source -> EpochOrder -> Loader -> ViewBatch (host memory, f32 NCHW)
//! ```
//!
//! What a batch holds depends on the seed, the epoch and the pictures. The number of threads, the prefetch depth and
//! the place where an epoch was entered cannot change a byte. A file that cannot be used is named and counted
//! ([`BadFile`], [`Replaced`]), never dropped in silence. This crate knows no tensor library and prints nothing.
//!
//! # Example
//! ```
//! use std::sync::Arc;
//! use twoview_augment::{AugmentConfig, ResizeFilter, TransformConfig};
//! use twoview_data::{Loader, LoaderConfig, PatternsConfig, PatternsSource, PixelType, Split};
//! use twoview_pixels::Normalize;
//!
//! let pictures = PatternsSource::new(PatternsConfig { seed: 0, split: Split::Train, per_class: 2 })?;
//! let crop = TransformConfig::RandomResizedCrop {
//!     size_px: 32,
//!     area: [0.3, 1.0],
//!     aspect: [0.75, 1.3333334],
//!     filter: ResizeFilter::Bilinear,
//! };
//! let augment = AugmentConfig(vec![crop]).init()?;
//! let config =
//!     LoaderConfig { batch_size: 8, drop_last: true, workers: 2, prefetch: 2, pixels: PixelType::F32 };
//! let loader = Loader::new(Arc::new(pictures), Arc::new(augment), Normalize::NONE, 0, config)?;
//!
//! assert_eq!(loader.batches_per_epoch(), 2); // 20 pictures, the last 4 sit this epoch out
//! for batch in loader.epoch(0, 0) {
//!     let batch = batch?;
//!     assert_eq!(batch.views.len(), 2 * 8 * 3 * 32 * 32);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod check_source;
mod cifar_source;
mod class_names;
mod duplicates;
mod epoch_order;
mod escaped_path;
mod file_table;
mod fingerprint;
mod fixed_file;
mod folder_listing;
mod folder_source;
mod idx_source;
mod image_batches;
mod image_source;
mod label_table;
mod loader;
mod pack_format;
mod pack_source;
#[cfg(feature = "parquet")]
mod parquet_source;
mod pattern_folder;
mod patterns;
mod perceptual_hash;
mod pickle;
mod picture_at;
mod picture_files;
mod pixel_set;
mod record_error;
mod record_files;
mod scan_report;
mod shard_files;
mod source;
mod source_kind;
mod stl_source;
mod stream_ops;
mod subset;
mod tar_error;
mod tar_index;
mod tar_source;
mod view_batch;
mod write_pack;

pub use check_source::check_source;
pub use cifar_source::{CifarConfig, CifarLabels, CifarSource};
pub use duplicates::{
    DuplicateGroup, DuplicatesError, KnownDuplicates, Likeness, MAX_NEAR_BITS, NEAR_BITS, duplicates_text,
    read_duplicates,
};
pub use epoch_order::EpochOrder;
pub use escaped_path::escape_path;
pub use fingerprint::Fingerprint;
pub use folder_source::{FolderConfig, FolderError, FolderSource, OnBad};
pub use idx_source::IdxSource;
pub use image_batches::{ImageBatch, ImageBatches, image_batches};
pub use image_source::ImageSource;
pub use label_table::{RowProblem, TableError};
pub use loader::{EpochBatches, LoadError, Loader, LoaderConfig, LoaderError};
pub use pack_source::{PackError, PackMeta, PackSource};
#[cfg(feature = "parquet")]
pub use parquet_source::{ParquetError, ParquetSource};
pub use pattern_folder::{PatternFolder, PatternFolderConfig, PatternFolderError, write_pattern_folder};
pub use patterns::{PatternsConfig, PatternsError, PatternsSource, Split};
pub use picture_files::PictureFiles;
pub use record_error::RecordError;
pub use scan_report::{BadFile, ClassCount, ScanReport, SizeRange};
pub use source::{Problem, ReadBuffers, SampleError, Source};
pub use source_kind::{DetectError, SourceKind};
pub use stl_source::{StlPart, StlSource};
pub use subset::Subset;
pub use tar_error::TarError;
pub use tar_source::TarSource;
/// Why a pickle is not read, named here because [`RecordError`] holds one.
pub use twoview_pickle::PickleError;
/// How pixels become numbers, named here because [`image_batches`] and [`Loader`] take one.
pub use twoview_pixels::Normalize;
pub use view_batch::{PixelType, Replaced, ViewBatch, ViewPixels};
pub use write_pack::{PackForm, PackReport, WritePackError, write_pack};
