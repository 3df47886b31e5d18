//! Memory that is used again instead of being returned, zeroed and faulted in anew at every step.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Elements below which the allocator is fast enough.
const SMALL: usize = 1 << 12;

/// Takes after which a vector that none of them wanted is returned to the allocator. A step makes about a hundred.
const PATIENCE: u64 = 2048;

static RETAINED: Mutex<Retained> = Mutex::new(Retained { by_capacity: BTreeMap::new(), takes: 0 });

/// Vectors that wait for their next use.
struct Retained {
    /// The newest last, with the number of takes when it was given.
    by_capacity: BTreeMap<usize, Vec<(u64, Vec<f32>)>>,
    takes: u64,
}

impl Retained {
    /// The smallest vector that holds `len` without wasting more than a quarter, and now and then those that
    /// have waited too long.
    fn take(&mut self, len: usize) -> (Option<Vec<f32>>, Vec<Vec<f32>>) {
        self.takes += 1;
        let mut found = None;
        if let Some((&capacity, vectors)) = self.by_capacity.range_mut(len..=len + len / 4).next() {
            found = vectors.pop().map(|(_, vector)| vector);
            if vectors.is_empty() {
                self.by_capacity.remove(&capacity);
            }
        }
        let stale = if self.takes.is_multiple_of(PATIENCE / 4) { self.evict(PATIENCE) } else { Vec::new() };
        (found, stale)
    }

    fn give(&mut self, vector: Vec<f32>) {
        self.by_capacity.entry(vector.capacity()).or_default().push((self.takes, vector));
    }

    /// Removes the vectors that have waited for `patience` takes or longer.
    fn evict(&mut self, patience: u64) -> Vec<Vec<f32>> {
        let mut evicted = Vec::new();
        self.by_capacity.retain(|_, vectors| {
            evicted
                .extend(vectors.extract_if(.., |(given, _)| *given + patience <= self.takes).map(|(_, vector)| vector));
            !vectors.is_empty()
        });
        evicted
    }
}

fn retained() -> MutexGuard<'static, Retained> {
    // A panic cannot leave the list half changed.
    RETAINED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A vector that is retained for the next [`Buffer::take`] when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<f32>);

impl Buffer {
    /// `len` elements with unspecified values: whoever takes them writes all of them.
    pub(crate) fn take(len: usize) -> Self {
        if len < SMALL {
            return Self(vec![0.0; len]);
        }
        let (found, stale) = retained().take(len);
        drop(stale);
        let mut vector = found.unwrap_or_else(|| vec![0.0; len]);
        // Grows within its capacity; what it held before stays.
        vector.resize(len, 0.0);
        if cfg!(debug_assertions) {
            vector.fill(f32::NAN); // An element that nobody wrote shows up in a test.
        }
        Self(vector)
    }

    /// The vector itself, which is then no longer retained.
    pub(crate) fn into_vec(mut self) -> Vec<f32> {
        std::mem::take(&mut self.0)
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(vector: Vec<f32>) -> Self {
        Self(vector)
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Self::take(self.len());
        copy.copy_from_slice(self);
        copy
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.0.len() >= SMALL {
            retained().give(std::mem::take(&mut self.0));
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Retained {
        Retained { by_capacity: BTreeMap::new(), takes: 0 }
    }

    #[test]
    fn a_vector_is_found_by_its_capacity_or_a_little_less() {
        let mut retained = list();
        retained.give(Vec::with_capacity(100));
        assert!(retained.take(101).0.is_none());
        assert!(retained.take(79).0.is_none());
        assert_eq!(retained.take(80).0.map(|vector| vector.capacity()), Some(100));
        assert!(retained.take(80).0.is_none());
    }

    #[test]
    fn what_nobody_wants_is_returned() {
        let mut retained = list();
        retained.give(vec![0.0; 10]);
        let mut stale = 0;
        for _ in 0..2 * PATIENCE {
            retained.give(vec![0.0; 20]);
            let (found, evicted) = retained.take(20);
            assert!(found.is_some());
            stale += evicted.len();
        }
        assert_eq!(stale, 1);
        assert!(retained.take(10).0.is_none());
    }
}
