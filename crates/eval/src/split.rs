//! `Split`: a deterministic, stratified division of labelled pictures into train and test.

use thiserror::Error;

/// Row numbers of two disjoint parts that together are the whole, each ascending.
///
/// # Example
/// ```
/// use twoview_eval::Split;
/// let split = Split::stratified(&[0, 0, 0, 0, 1, 1, 1, 1], 0.25, 7)?;
/// assert_eq!((split.train.len(), split.test.len()), (6, 2)); // One test picture of either class.
/// # Ok::<(), twoview_eval::SplitError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The larger part: what a probe may learn from.
    pub train: Vec<usize>,
    /// The held-out part.
    pub test: Vec<usize>,
}

/// Why labels cannot be divided.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum SplitError {
    /// The share is not strictly between 0 and 1.
    #[error("expected a test fraction between 0 and 1, both exclusive, got {0}")]
    Fraction(f64),
    /// The share is not above 0 and at most 1.
    #[error("expected a share of the labels above 0 and at most 1, got {0}")]
    Share(f64),
    /// No class has two members, so that nothing can be held out.
    #[error(
        "none of the {rows} labelled pictures can be held out: expected at least one class with two pictures or more"
    )]
    NothingToHoldOut {
        /// The number of labels given.
        rows: usize,
    },
}

impl Split {
    /// Holds out about `test_fraction` of every class.
    ///
    /// A class of `n` pictures gives `round(test_fraction · n)` of them, at least one and at most `n − 1`; a class
    /// with a single picture stays whole in train, because a class never seen cannot be predicted. Which ones is
    /// decided by a hash of `(seed, row)`: the same labels, fraction and seed give the same split on every machine.
    ///
    /// # Errors
    /// [`SplitError`] if the fraction is out of range or no class has two members.
    pub fn stratified(labels: &[u32], test_fraction: f64, seed: u64) -> Result<Self, SplitError> {
        if !(test_fraction > 0.0 && test_fraction < 1.0) {
            return Err(SplitError::Fraction(test_fraction));
        }
        let order = in_random_order(labels, seed);
        let mut split = Self { train: Vec::new(), test: Vec::new() };
        for class in order.chunk_by(|&a, &b| labels[a] == labels[b]) {
            let n_test = held_out(class.len(), test_fraction);
            split.test.extend_from_slice(&class[..n_test]);
            split.train.extend_from_slice(&class[n_test..]);
        }
        if split.test.is_empty() {
            return Err(SplitError::NothingToHoldOut { rows: labels.len() });
        }
        split.train.sort_unstable();
        split.test.sort_unstable();
        Ok(split)
    }

    /// About `fraction` of every class, as if only so many pictures were labelled; ascending.
    ///
    /// A class of `n` pictures gives `round(fraction · n)` of them, at least one. Which ones is decided by a hash of
    /// `(seed, row)`, and a smaller fraction's are among a larger one's.
    ///
    /// # Errors
    /// [`SplitError::Share`] if the fraction is not above 0 and at most 1.
    /// # Example
    /// ```
    /// use twoview_eval::Split;
    /// assert_eq!(Split::few_labels(&[0, 0, 0, 0, 1, 1, 1, 1], 0.25, 7)?.len(), 2); // One picture of either class.
    /// # Ok::<(), twoview_eval::SplitError>(())
    /// ```
    pub fn few_labels(labels: &[u32], fraction: f64, seed: u64) -> Result<Vec<usize>, SplitError> {
        if !(fraction > 0.0 && fraction <= 1.0) {
            return Err(SplitError::Share(fraction));
        }
        let order = in_random_order(labels, seed);
        let by_class = order.chunk_by(|&a, &b| labels[a] == labels[b]);
        let mut rows: Vec<usize> =
            by_class.flat_map(|class| &class[..rounded(class.len(), fraction).max(1)]).copied().collect();
        rows.sort_unstable();
        Ok(rows)
    }
}

/// The rows, class by class, in an order that is a hash's.
fn in_random_order(labels: &[u32], seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_unstable_by_key(|&row| (labels[row], hash(seed, row as u64), row));
    order
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of n rounded to an integer lies in 0..=n"
)]
fn rounded(n: usize, fraction: f64) -> usize {
    (fraction * n as f64).round() as usize
}

fn held_out(n: usize, fraction: f64) -> usize {
    if n < 2 { 0 } else { rounded(n, fraction).clamp(1, n - 1) }
}

/// The finalizer of SplitMix64 over a Weyl sequence: equidistributed, and a function of its arguments alone.
pub(crate) fn hash(seed: u64, counter: u64) -> u64 {
    const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut z = mix(seed.wrapping_add(GOLDEN_GAMMA)).wrapping_add(counter.wrapping_mul(GOLDEN_GAMMA));
    z = mix(z);
    z
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn few_labels_are_nested_stratified_and_leave_no_class_out() {
        let labels: Vec<u32> = (0..1000).map(|i| if i == 7 { 9 } else { i % 4 }).collect();
        let some = |fraction| Split::few_labels(&labels, fraction, 3).expect("a share");
        let (few, more) = (some(0.01), some(0.1));
        assert!(few.iter().all(|row| more.contains(row)) && few.is_sorted());
        let of = |rows: &[usize], class| rows.iter().filter(|&&row| labels[row] == class).count();
        assert_eq!([0, 1, 2, 3, 9].map(|class| of(&more, class)), [25, 25, 25, 25, 1]);
        // 250 pictures give 2.5, rounded away from zero, 249 give 2.49.
        assert_eq!([0, 1, 2, 3, 9].map(|class| of(&few, class)), [3, 3, 3, 2, 1]);
        assert_eq!(some(1.0), (0..1000).collect::<Vec<_>>());
        assert_ne!(Split::few_labels(&labels, 0.1, 4), Ok(more));
        for bad in [0.0, -0.1, 1.1, f64::NAN] {
            assert!(matches!(Split::few_labels(&labels, bad, 0), Err(SplitError::Share(_))), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn parts_are_disjoint_complete_and_stratified(
            labels in prop::collection::vec(0_u32..5, 2..200), percent in 1_u32..100, seed: u64,
        ) {
            let fraction = f64::from(percent) / 100.0;
            let Ok(split) = Split::stratified(&labels, fraction, seed) else {
                // Only possible when every class is a singleton.
                let mut sorted = labels.clone();
                sorted.sort_unstable();
                prop_assert!(sorted.windows(2).all(|w| w[0] != w[1]));
                return Ok(());
            };
            let mut all: Vec<usize> = split.train.iter().chain(&split.test).copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..labels.len()).collect::<Vec<_>>());
            for class in 0..5 {
                let count = |rows: &[usize]| rows.iter().filter(|&&r| labels[r] == class).count();
                let (train, test) = (count(&split.train), count(&split.test));
                if train + test > 0 {
                    prop_assert!(train > 0, "class {} is missing in train", class);
                    let want = fraction * (train + test) as f64;
                    prop_assert!((test as f64 - want).abs() <= 1.0, "class {}: {} held out, want {}", class, test, want);
                }
            }
        }
    }

    #[test]
    fn depends_on_the_seed_and_on_nothing_else() {
        let labels: Vec<u32> = (0..1000).map(|i| i % 10).collect();
        let split = |seed| Split::stratified(&labels, 0.1, seed).expect("ten of each class");
        assert_eq!(split(1), split(1));
        assert_ne!(split(1), split(2));
        // About a tenth of one held-out set is in another one: the draws are independent.
        let common = split(1).test.iter().filter(|row| split(2).test.contains(row)).count();
        assert!((2..=25).contains(&common), "{common} of 100 rows are held out by both seeds");
    }

    #[test]
    fn refuses_what_cannot_be_divided() {
        assert_eq!(Split::stratified(&[0, 1, 2], 0.5, 0), Err(SplitError::NothingToHoldOut { rows: 3 }));
        for fraction in [0.0, 1.0, f64::INFINITY] {
            assert_eq!(Split::stratified(&[0, 0], fraction, 0), Err(SplitError::Fraction(fraction)));
        }
        assert!(Split::stratified(&[0, 0], f64::NAN, 0).is_err());
    }
}
