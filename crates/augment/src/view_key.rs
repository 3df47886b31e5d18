//! The name of a view: which of the infinitely many random views of a sample is meant.

use serde::{Deserialize, Serialize};

/// Everything a view depends on besides the picture and the configuration.
///
/// Threads, batch size, prefetching and resuming are not in it, so they cannot change a pixel.
///
/// # Example
/// ```
/// use twoview_augment::ViewKey;
///
/// let first = ViewKey { seed: 0, epoch: 3, sample: 1234, view: 0 };
/// let second = ViewKey { view: 1, ..first };
/// assert_ne!(first, second);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewKey {
    /// Seed of the whole run.
    pub seed: u64,
    /// Epoch, from 0.
    pub epoch: u32,
    /// Index of the sample in its source, independent of the order of the epoch.
    pub sample: u64,
    /// Which view of the sample: 0 and 1 for a pair.
    pub view: u32,
}
