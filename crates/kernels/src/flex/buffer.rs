//! Memory that is used again instead of being returned, zeroed and faulted in anew at every step.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Elements below which the allocator is fast enough.
const SMALL: usize = 1 << 12;

static RETAINED: Mutex<Retained> = Mutex::new(Retained { by_len: BTreeMap::new(), elements: 0 });

/// Vectors that wait for their next use.
struct Retained {
    by_len: BTreeMap<usize, Vec<Vec<f32>>>,
    elements: usize,
}

impl Retained {
    /// The shortest vector that holds `len` without wasting more than a quarter.
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        let (&found, vectors) = self.by_len.range_mut(len..=len + len / 4).next()?;
        let vector = vectors.pop();
        if vectors.is_empty() {
            self.by_len.remove(&found);
        }
        self.elements -= found;
        vector
    }

    fn give(&mut self, vector: Vec<f32>) {
        self.elements += vector.len();
        self.by_len.entry(vector.len()).or_default().push(vector);
    }

    /// Removes vectors, the longest first, until `elements` are gone or nothing is left.
    fn evict(&mut self, elements: usize) -> Vec<Vec<f32>> {
        let keep = self.elements.saturating_sub(elements);
        let mut evicted = Vec::new();
        while self.elements > keep {
            let Some(len) = self.by_len.keys().next_back().copied() else { break };
            evicted.extend(self.take(len));
        }
        evicted
    }
}

fn retained() -> MutexGuard<'static, Retained> {
    // A panic cannot leave the list half changed.
    RETAINED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns all retained memory to the allocator.
pub(crate) fn release() {
    let all = retained().evict(usize::MAX);
    drop(all);
}

/// A vector that is retained for the next [`Buffer::take`] when it is dropped.
///
/// A miss first gives as much retained memory back to the allocator as it asks for, so the memory held
/// never exceeds the most that was in use at once by much, whatever the sequence of sizes.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<f32>);

impl Buffer {
    /// `len` elements with unspecified values: whoever takes them writes all of them.
    pub(crate) fn take(len: usize) -> Self {
        if len < SMALL {
            return Self(vec![0.0; len]);
        }
        let found = retained().take(len);
        let mut vector = found.unwrap_or_else(|| {
            let evicted = retained().evict(len);
            drop(evicted);
            vec![0.0; len]
        });
        vector.truncate(len);
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
        Retained { by_len: BTreeMap::new(), elements: 0 }
    }

    #[test]
    fn a_vector_is_found_by_its_length_or_a_little_less() {
        let mut retained = list();
        retained.give(vec![1.0; 100]);
        assert!(retained.take(101).is_none());
        assert!(retained.take(79).is_none());
        assert_eq!(retained.take(80).map(|vector| vector.len()), Some(100));
        assert!(retained.take(80).is_none());
        assert_eq!(retained.elements, 0);
    }

    #[test]
    fn a_miss_evicts_what_it_asks_for_and_not_much_more() {
        let mut retained = list();
        for len in [10, 20, 30] {
            retained.give(vec![0.0; len]);
        }
        let lens = |evicted: Vec<Vec<f32>>| evicted.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lens(retained.evict(35)), [30, 20]);
        assert_eq!(retained.elements, 10);
        assert_eq!(lens(retained.evict(usize::MAX)), [10]);
        assert_eq!(lens(retained.evict(1)), [0; 0]);
    }
}
