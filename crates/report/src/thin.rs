//! Long series made short without hiding their extremes.

use std::ops::Range;

/// The mean of the finite values among `window` neighbours around each; `NAN` where the value itself is missing.
///
/// At the ends the window is cut to what there is: half of it remains for the first and the last value.
pub(crate) fn moving_mean(values: &[f32], window: usize) -> Vec<f32> {
    let half = window / 2;
    let mut sums = Vec::with_capacity(values.len() + 1);
    sums.push((0.0, 0_u32));
    for value in values {
        let (sum, count) = sums[sums.len() - 1];
        sums.push(if value.is_finite() { (sum + f64::from(*value), count + 1) } else { (sum, count) });
    }
    let mean = |(at, value): (usize, &f32)| {
        if !value.is_finite() {
            return f32::NAN;
        }
        let (low, high) = (sums[at.saturating_sub(half)], sums[(at + half + 1).min(values.len())]);
        #[expect(clippy::cast_possible_truncation, reason = "a mean of f32 values is within their range")]
        let mean = ((high.0 - low.0) / f64::from(high.1 - low.1)) as f32;
        mean
    };
    values.iter().enumerate().map(mean).collect()
}

/// The odd number of neighbours to smooth `len` values over: a fortieth of them.
pub(crate) fn smoothing_window(len: usize) -> usize {
    (len / 40) | 1
}

/// At most `most` ranges of consecutive indices, as equal as can be, that cover `0..len`.
pub(crate) fn buckets(len: usize, most: usize) -> Vec<Range<usize>> {
    let count = len.min(most.max(1));
    (0..count).map(|at| at * len / count..(at + 1) * len / count).collect()
}

/// Indices of the least and the greatest finite value of a range, in the order in which they come.
pub(crate) fn extremes(values: &[f32], range: Range<usize>) -> Option<[usize; 2]> {
    let finite = || range.clone().filter(|at| values[*at].is_finite());
    let low = finite().min_by(|a, b| values[*a].total_cmp(&values[*b]))?;
    let high = finite().max_by(|a, b| values[*a].total_cmp(&values[*b]))?;
    Some([low.min(high), low.max(high)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_a_line_and_keeps_gaps() {
        let line: Vec<f32> = (0..20_u8).map(f32::from).collect();
        let smooth = moving_mean(&line, 5);
        assert_eq!(smooth[2..18], line[2..18]);
        assert_eq!((smooth[0], smooth[19]), (1.0, 18.0));
        let gap = moving_mean(&[1.0, f32::NAN, 4.0, f32::INFINITY, 6.0], 3);
        assert!(gap[1].is_nan() && gap[3].is_nan());
        assert_eq!((gap[0], gap[2], gap[4]), (1.0, 4.0, 6.0));
        assert!(moving_mean(&[], 3).is_empty());
    }

    #[test]
    fn buckets_cover_everything_once() {
        for (len, most) in [(0, 5), (3, 5), (10, 4), (1_000_003, 600)] {
            let buckets = buckets(len, most);
            assert!(buckets.len() <= most);
            assert!(buckets.iter().all(|bucket| !bucket.is_empty()));
            assert_eq!(buckets.iter().map(Range::len).sum::<usize>(), len);
            assert!(buckets.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }

    #[test]
    fn a_single_spike_survives() {
        let mut values = vec![1.0; 1000];
        values[700] = 9.0;
        values[701] = f32::NAN;
        assert_eq!(extremes(&values, 600..800).map(|[_, high]| values[high]), Some(9.0));
        assert_eq!(extremes(&[f32::NAN], 0..1), None);
    }
}
