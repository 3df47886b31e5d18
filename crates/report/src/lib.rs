//! What was seen and learned, to look at.
//!
//! [`html`] makes one page of a run that opens offline in any browser, [`figures`] makes its curves as files of their
//! own, and [`contact_sheet`] shows originals beside the views that are made of them. [`read_steps`] reads what a run
//! measured.
//!
//! This crate is handed plain values, pictures and words ([`Report`]) and returns text: it opens no file, knows no
//! run directory and no tensor library.

mod atlas;
mod axis;
mod confusion_table;
mod contact_sheet;
mod curves;
mod escape;
mod event_file;
#[cfg(feature = "png")]
mod figure_png;
mod figures;
mod ladder_plot;
mod map_data;
mod page;
mod palette;
mod plot;
mod report;
mod shrink;
mod steps;
mod thin;

pub use crate::contact_sheet::{Cell, SheetError, contact_sheet};
pub use crate::event_file::EventFile;
#[cfg(feature = "png")]
pub use crate::figure_png::{FigurePngError, figure_png};
pub use crate::figures::{Figure, figures};
pub use crate::page::html;
pub use crate::report::{
    Confusion, EmbeddingMap, Fact, GalleryRow, MapNeighbour, MapPicture, Pair, PairList, Picture, Projection,
    Reference, Report, ReportError, Rung, ScoreLadder, Section,
};
pub use crate::steps::{KnnRow, StepRow, StepsError, read_steps};
