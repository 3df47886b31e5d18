//! Pictures of pictures: what a person looks at to see whether a run does what was meant.
//!
//! [`contact_sheet`] shows originals beside the views that are made of them. This crate is handed pictures and words; where
//! they come from, it does not know.

mod contact_sheet;

pub use crate::contact_sheet::{Cell, SheetError, contact_sheet};
