//! The `op` words of the random streams this crate draws from, one per kind of decision.
//!
//! `twoview_augment::Stream` leaves `0x80` and above to its callers. Two decisions under one word would share numbers,
//! and a changed word changes every run, so they are listed in one place.

/// The order of an epoch.
pub(crate) const EPOCH_ORDER: u8 = 0x80;
/// Which picture stands in for one that failed.
pub(crate) const STAND_IN: u8 = 0x81;
/// The shape and colours of a built-in picture.
pub(crate) const PATTERN: u8 = 0x82;
/// The noise on a built-in picture.
pub(crate) const PATTERN_NOISE: u8 = 0x83;
