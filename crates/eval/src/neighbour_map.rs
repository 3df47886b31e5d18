//! `neighbour_map`: features laid out in the plane so that neighbours stay neighbours.

use bhtsne::{Neighbor, tSNE};
use thiserror::Error;

use crate::feature_bank::narrow;
use crate::{NearestError, NearestRows, PrincipalComponents};

/// Fewer rows than this have no neighbourhoods worth the name.
const LEAST_ROWS: usize = 8;

/// The usual number of neighbours that a row is laid out by; fewer where there are not three times as many rows.
const PERPLEXITY: f64 = 30.0;

/// How coarsely far rows are taken together, from 0 (not at all) to 1. A grid would be faster for many rows, but rows that
/// coincide drive each other far apart, and its size goes with the distance.
const THETA: f32 = 0.5;

/// Why rows cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NeighbourMapError {
    /// Too few rows.
    #[error("expected at least {LEAST_ROWS} rows to lay out by their neighbours, got {0}")]
    TooFew(usize),
    /// The values are no whole rows.
    #[error(transparent)]
    Nearest(#[from] NearestError),
}

/// A place in the plane for each of `[N, F]` rows, row-major, with `F = dim`: t-SNE of the unit rows.
///
/// Distances between far groups and the sizes of groups mean nothing; who is beside whom does. It starts from the first
/// two principal components, which settles how the whole is turned, and uses the exact nearest neighbours by cosine.
///
/// # Errors
/// [`NeighbourMapError`].
/// # Cost
/// One exact neighbour search, then a thousand steps of `N log N` operations each: 3 s for 2,000 rows of 256 and 19 s for
/// 10,000 on two cores (the line `map` of `twoview report RUN --pictures N`).
/// # Source
/// Van der Maaten and Hinton, *Visualizing Data using t-SNE*, JMLR 9 (2008); van der Maaten, *Accelerating t-SNE using
/// Tree-Based Algorithms*, JMLR 15 (2014).
pub fn neighbour_map(rows: &[f32], dim: usize) -> Result<Vec<[f32; 2]>, NeighbourMapError> {
    let nearest = NearestRows::new(rows, dim)?;
    let n = rows.len() / dim;
    if n < LEAST_ROWS {
        return Err(NeighbourMapError::TooFew(n));
    }
    let perplexity = PERPLEXITY.min((n - 1) as f64 / 3.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 2 to 90")]
    let k = (3.0 * perplexity).floor() as usize;
    // One more than needed: a row finds itself.
    let found = nearest.of(rows, k + 1)?;
    let neighbours: Vec<Vec<Neighbor<f32>>> = (found.iter().enumerate())
        .map(|(row, found)| {
            let others = found.iter().filter(|neighbour| neighbour.index != row).take(k);
            // Between unit vectors: |a − b|² = 2 − 2 cos.
            let distance = |cos: f64| narrow((2.0 - 2.0 * cos).max(0.0).sqrt());
            others.map(|near| Neighbor { index: near.index, distance: distance(near.similarity) }).collect()
        })
        .collect();
    let numbers: Vec<usize> = (0..n).collect();
    let mut map: tSNE<'_, f32, usize> = tSNE::new(&numbers);
    map.perplexity(narrow(perplexity))
        .initial_embedding(start(rows, dim))
        .barnes_hut_with_neighbors(THETA, &neighbours);
    Ok(map.embedding().chunks_exact(2).map(|place| [place[0], place[1]]).collect())
}

/// The principal components at the small scale that the method starts from.
fn start(rows: &[f32], dim: usize) -> Vec<f32> {
    const SCALE: f64 = 1e-4;
    let flat = || vec![0.0; 2 * rows.len() / dim];
    let places = match PrincipalComponents::of(rows, dim, 2.min(dim)) {
        Ok(components) if components.variances.len() == 2 => components.project(rows),
        _ => flat(),
    };
    let spread = places.iter().step_by(2).fold(0.0_f64, |most, x| most.max(x.abs())).max(f64::MIN_POSITIVE);
    // Rows that coincide would stay together for ever: each gets a start of its own.
    let apart = |i: usize| 1e-3 * ((i % 97) as f64 / 97.0 - 0.5);
    places.iter().enumerate().map(|(i, x)| narrow(SCALE * (x / spread + apart(i)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::hash;

    #[test]
    fn groups_stay_together() {
        let noise = |i: usize, d: usize| (hash(d as u64, i as u64) >> 40) as f32 / (1 << 24) as f32 - 0.5;
        let rows: Vec<f32> =
            (0..150).flat_map(|i| (0..6).map(move |d| if d == i % 3 { 2.0 } else { 0.0 } + noise(i, d))).collect();
        let places = neighbour_map(&rows, 6).expect("a map");
        assert_eq!(places.len(), 150);
        let mut right = 0;
        for (i, a) in places.iter().enumerate() {
            let distance = |b: &[f32; 2]| (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2);
            let nearest =
                (0..150).filter(|&j| j != i).min_by(|&j, &k| distance(&places[j]).total_cmp(&distance(&places[k])));
            right += usize::from(nearest.is_some_and(|j| j % 3 == i % 3));
        }
        assert!(right >= 145, "{right} of 150 have a neighbour of their group beside them");
    }

    #[test]
    fn odd_sets_have_a_map_or_a_reason() {
        assert_eq!(neighbour_map(&[1.0; 14], 2), Err(NeighbourMapError::TooFew(7)));
        assert!(neighbour_map(&[1.0; 7], 2).is_err());
        for rows in [vec![1.0; 40], (0..40).map(|i| f32::from(u8::try_from(i).expect("small"))).collect()] {
            for dim in [1, 2] {
                let places = neighbour_map(&rows, dim).expect("a map");
                assert!(places.iter().flatten().all(|x| x.is_finite()), "{places:?}");
            }
        }
    }
}
