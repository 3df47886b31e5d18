//! In which order an epoch shows the pictures.

use twoview_augment::Stream;

use crate::stream_ops;

/// A random order of the pictures `0..n`, a pure function of `(n, seed, epoch)`.
///
/// Fisher and Yates's shuffle with unbiased integers, on a stream of its own. Every epoch is shuffled anew.
///
/// # Cost
/// Four bytes per picture and one random number each; a million pictures take a few milliseconds.
///
/// # Source
/// Durstenfeld, *Algorithm 235: Random permutation*, Communications of the ACM 7(7), 1964.
///
/// # Example
/// ```
/// # use twoview_data::EpochOrder;
/// let order = EpochOrder::new(5, 0, 3);
/// let mut seen = order.as_slice().to_vec();
/// seen.sort();
/// assert_eq!(seen, [0, 1, 2, 3, 4]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochOrder(Vec<u32>);

impl EpochOrder {
    /// The order of `n` pictures in an epoch.
    pub fn new(n: u32, seed: u64, epoch: u32) -> Self {
        let mut order: Vec<u32> = (0..n).collect();
        let mut stream = Stream::new(seed, epoch, 0, 0, stream_ops::EPOCH_ORDER);
        for last in (1..n).rev() {
            order.swap(last as usize, stream.below(last + 1) as usize);
        }
        Self(order)
    }

    /// The numbers of the pictures in the order they are shown.
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn is_a_permutation(n in 0u32..2000, seed: u64, epoch: u32) {
            let mut seen = EpochOrder::new(n, seed, epoch).0;
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn seed_and_epoch_change_the_order() {
        let order = EpochOrder::new(100, 1, 1);
        assert_eq!(order, EpochOrder::new(100, 1, 1));
        assert_ne!(order, EpochOrder::new(100, 2, 1));
        assert_ne!(order, EpochOrder::new(100, 1, 2));
    }

    /// Each of the 24 orders of 4 pictures appears 500 times in 12,000 epochs, give or take five standard deviations
    /// (`sqrt(12000 · 1/24 · 23/24) = 22`).
    #[test]
    fn every_order_is_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..12_000 {
            *counts.entry(EpochOrder::new(4, 7, epoch).0).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 24);
        for (order, count) in counts {
            assert!((390..=610).contains(&count), "{order:?} came {count} times");
        }
    }
}
