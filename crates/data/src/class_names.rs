//! Names and numbers of classes where a format has its own.

/// Puts names of classes into byte order, as every [`Source`](crate::Source) promises, and says where each one went.
///
/// `None` when a name stands twice.
pub(crate) fn in_byte_order(names: Vec<String>) -> Option<(Vec<String>, Vec<u32>)> {
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != names.len() {
        return None;
    }
    let places = names.iter().map(|name| sorted.partition_point(|other| other < name));
    let places = places.map(|place| u32::try_from(place).ok()).collect::<Option<Vec<u32>>>()?;
    Some((sorted, places))
}

/// Classes that have numbers and no names: the numbers that occur, padded with zeros so that byte order is theirs.
///
/// Every label becomes the place of its number. Numbers that do not occur make no class, so a single huge number in a
/// damaged file makes one class and not millions.
pub(crate) fn of_numbers(labels: &mut [u32]) -> Vec<String> {
    let mut numbers = labels.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    let width = numbers.last().map_or(1, |most| most.to_string().len());
    for label in labels {
        let place = numbers.partition_point(|number| number < label);
        // There are no more places than labels of 32 bits.
        *label = u32::try_from(place).unwrap_or(u32::MAX);
    }
    numbers.iter().map(|number| format!("{number:0width$}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_numbers_follow() {
        let names = ["truck", "cat", "ant"].map(str::to_owned).to_vec();
        let (sorted, places) = in_byte_order(names).expect("all different");
        assert_eq!((sorted, places), (["ant", "cat", "truck"].map(str::to_owned).to_vec(), vec![2, 1, 0]));
        assert_eq!(in_byte_order(vec!["a".to_owned(), "a".to_owned()]), None);
    }

    #[test]
    fn numbers_that_occur_are_classes() {
        let mut labels = [100, 7, 100, 0];
        assert_eq!(of_numbers(&mut labels), ["000", "007", "100"]);
        assert_eq!(labels, [2, 1, 2, 0]);
    }
}
