//! `spread`: some of many, at equal distances.

/// `n` of the members, or all, at equal distances.
pub(crate) fn spread(members: &[usize], n: usize) -> Vec<usize> {
    let n = n.min(members.len());
    (0..n).map(|k| members[k * members.len() / n]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_at_is_spread_over_all() {
        assert_eq!(spread(&[5, 6, 7, 8, 9, 10], 3), [5, 7, 9]);
        assert_eq!(spread(&[5, 6], 9), [5, 6]);
        assert_eq!(spread(&[], 9), [0; 0]);
    }
}
