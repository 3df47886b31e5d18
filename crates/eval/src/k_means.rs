//! `KMeans`: groups of features that point the same way.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::NearestRows;
use crate::feature_bank::narrow;
use crate::split::hash;

/// The settings of [`KMeans::fit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KMeansConfig {
    /// How many groups, at least 1.
    pub k: usize,
    /// Seeds the first centres.
    pub seed: u64,
    /// Independent starts, at least 1, of which the tightest grouping is kept.
    pub starts: u64,
    /// Steps after which a start ends even if rows still change their group.
    pub max_iterations: usize,
}

/// A grouping of rows around `k` centres, by cosine similarity.
#[derive(Clone, Debug, PartialEq)]
pub struct KMeans {
    /// `[k, F]` centres of unit length.
    pub centres: Vec<f32>,
    /// The group of each row.
    pub groups: Vec<usize>,
    /// Cosine similarity of each row with its centre.
    pub similarities: Vec<f64>,
    /// The mean of those: what was maximized.
    pub cohesion: f64,
    /// Steps of the start that was kept.
    pub iterations: usize,
    /// Whether it ended because no row changed its group.
    pub converged: bool,
}

/// Why rows cannot be grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KMeansError {
    /// There are no rows, or the values are no whole rows.
    #[error("expected whole rows of {dim} values, at least one, got {values} values")]
    Shape {
        /// How many values.
        values: usize,
        /// How many make a row.
        dim: usize,
    },
    /// More groups than rows, or none.
    #[error("expected from 1 to {rows} groups, one row each at least, got {k}")]
    Groups {
        /// What was asked for.
        k: usize,
        /// How many rows there are.
        rows: usize,
    },
    /// No start.
    #[error("expected at least one start")]
    Starts,
}

impl KMeans {
    /// Groups `[N, F]` rows, row-major, with `F = dim`.
    ///
    /// Spherical k-means: rows and centres have unit length, a row belongs to the most similar centre, a centre is the
    /// direction of the sum of its rows. A group that lost all rows takes the row that is least like its centre. First
    /// centres are drawn like k-means++ does, with `1 − cos` for the squared distance. The result is a function of the
    /// rows and the settings alone, whatever the number of threads.
    ///
    /// # Errors
    /// [`KMeansError`].
    /// # Cost
    /// `2·N·k·F` operations a step, on all threads, and `12·N` bytes beside the rows.
    /// # Source
    /// Dhillon and Modha, *Concept Decompositions for Large Sparse Text Data Using Clustering*, Machine Learning 42 (2001);
    /// Arthur and Vassilvitskii, *k-means++: The Advantages of Careful Seeding*, SODA 2007.
    /// # Example
    /// ```
    /// use twoview_eval::{KMeans, KMeansConfig};
    /// let rows = [1.0, 0.1, 2.0, 0.0, 0.0, 1.0, 0.2, 3.0];
    /// let config = KMeansConfig { k: 2, seed: 0, starts: 2, max_iterations: 50 };
    /// let found = KMeans::fit(&rows, 2, config)?;
    /// assert_eq!(found.groups[0], found.groups[1]);
    /// assert_ne!(found.groups[0], found.groups[2]);
    /// # Ok::<(), twoview_eval::KMeansError>(())
    /// ```
    pub fn fit(rows: &[f32], dim: usize, config: KMeansConfig) -> Result<Self, KMeansError> {
        if dim == 0 || rows.is_empty() || !rows.len().is_multiple_of(dim) {
            return Err(KMeansError::Shape { values: rows.len(), dim });
        }
        let n = rows.len() / dim;
        if !(1..=n).contains(&config.k) {
            return Err(KMeansError::Groups { k: config.k, rows: n });
        }
        if config.starts == 0 {
            return Err(KMeansError::Starts);
        }
        let starts = (0..config.starts).map(|start| Self::start(rows, dim, config, hash(config.seed, start)));
        // Of equally tight ones the first.
        let best = starts.reduce(|best, next| if next.cohesion > best.cohesion { next } else { best });
        best.ok_or(KMeansError::Starts)
    }

    fn start(rows: &[f32], dim: usize, config: KMeansConfig, seed: u64) -> Self {
        let n = rows.len() / dim;
        let mut centres = first_centres(rows, dim, config.k, seed);
        let mut found = assign(rows, dim, &centres);
        let (mut iterations, mut converged) = (0, false);
        while iterations < config.max_iterations && !converged {
            iterations += 1;
            centres = centres_of(rows, dim, config.k, &mut found);
            let next = assign(rows, dim, &centres);
            converged = next.iter().zip(&found).all(|(next, found)| next.0 == found.0);
            found = next;
        }
        let similarities: Vec<f64> = found.iter().map(|(_, similarity)| *similarity).collect();
        let cohesion = similarities.iter().sum::<f64>() / n as f64;
        let groups = found.into_iter().map(|(group, _)| group).collect();
        Self { centres, groups, similarities, cohesion, iterations, converged }
    }
}

/// The most similar centre of each row, with the similarity.
fn assign(rows: &[f32], dim: usize, centres: &[f32]) -> Vec<(usize, f64)> {
    let centres = NearestRows::new(centres, dim).expect("centres are whole rows");
    centres.search(rows, 1, |near| (near[0].index, near[0].similarity))
}

/// The direction of the sum of each group's unit rows; an empty group takes over the row least like its centre.
fn centres_of(rows: &[f32], dim: usize, k: usize, found: &mut [(usize, f64)]) -> Vec<f32> {
    let mut counts = vec![0_usize; k];
    found.iter().for_each(|(group, _)| counts[*group] += 1);
    for group in 0..k {
        if counts[group] > 0 {
            continue;
        }
        let worst = (0..found.len())
            .filter(|&row| counts[found[row].0] > 1)
            .min_by(|&a, &b| found[a].1.total_cmp(&found[b].1).then(a.cmp(&b)));
        if let Some(row) = worst {
            counts[found[row].0] -= 1;
            counts[group] = 1;
            found[row] = (group, 1.0);
        }
    }
    let mut members = vec![Vec::new(); k];
    found.iter().enumerate().for_each(|(row, (group, _))| members[*group].push(row));
    // One thread for each group: sums in a fixed order.
    let centres: Vec<Vec<f32>> = members
        .par_iter()
        .map(|members| {
            let mut sum = vec![0.0_f64; dim];
            for &row in members {
                let row = &rows[row * dim..(row + 1) * dim];
                let inverse = 1.0 / norm(row.iter().map(|&v| f64::from(v)));
                sum.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v) * inverse);
            }
            let inverse = 1.0 / norm(sum.iter().copied());
            sum.into_iter().map(|v| narrow(v * inverse)).collect()
        })
        .collect();
    centres.concat()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    // A row of zeros points nowhere, and stays zero.
    values.map(|v| v * v).sum::<f64>().sqrt().max(1e-12)
}

/// `k` rows as centres, each drawn with a probability proportional to how unlike it is to those drawn before.
fn first_centres(rows: &[f32], dim: usize, k: usize, seed: u64) -> Vec<f32> {
    let n = rows.len() / dim;
    let uniform = |draw: u64| (hash(seed, draw) >> 11) as f64 / (1_u64 << 53) as f64;
    let row = |i: usize| &rows[i * dim..(i + 1) * dim];
    let first = usize::try_from(hash(seed, 0) % n as u64).unwrap_or(0);
    let mut centres = row(first).to_vec();
    let mut is_drawn = vec![false; n];
    is_drawn[first] = true;
    let mut distances = vec![f64::INFINITY; n];
    for draw in 1..k {
        let newest = &centres[centres.len() - dim..];
        let to_newest = assign(rows, dim, newest);
        distances.iter_mut().zip(to_newest).for_each(|(distance, (_, cos))| *distance = distance.min(1.0 - cos));
        let weight = |i: usize| if is_drawn[i] { 0.0 } else { distances[i].max(0.0) };
        let total: f64 = (0..n).map(weight).sum();
        let mut left = uniform(draw as u64) * total;
        let drawn = (0..n).filter(|&i| weight(i) > 0.0).find(|&i| {
            left -= weight(i);
            left < 0.0
        });
        // Where all rows coincide with a centre, any that is not one will do.
        let drawn = drawn.or_else(|| (0..n).rev().find(|&i| !is_drawn[i])).unwrap_or(first);
        is_drawn[drawn] = true;
        centres.extend_from_slice(row(drawn));
    }
    centres
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: KMeansConfig = KMeansConfig { k: 4, seed: 3, starts: 4, max_iterations: 100 };

    /// Rows in four directions of eight dimensions, of any length, with some noise.
    fn rows(n: usize) -> Vec<f32> {
        let noise = |i: usize, d: usize| (hash(d as u64, i as u64) >> 40) as f32 / (1 << 24) as f32 - 0.5;
        (0..n)
            .flat_map(|i| (0..8).map(move |d| (if d == i % 4 { 2.0 } else { 0.0 } + noise(i, d)) * (1.0 + i as f32)))
            .collect()
    }

    #[test]
    fn finds_the_directions_that_are_there() {
        let rows = rows(200);
        let found = KMeans::fit(&rows, 8, CONFIG).expect("a grouping");
        assert!(found.converged && found.cohesion > 0.8, "{} {}", found.converged, found.cohesion);
        for i in 0..200 {
            assert_eq!(found.groups[i], found.groups[i % 4], "row {i}");
        }
        assert_eq!(found, KMeans::fit(&rows, 8, CONFIG).expect("a grouping"), "a function of rows and settings");
        let mean: f64 = found.similarities.iter().sum::<f64>() / 200.0;
        assert!((mean - found.cohesion).abs() < 1e-12);
        let lengths = found.centres.chunks_exact(8).map(|centre| norm(centre.iter().map(|&v| f64::from(v))));
        assert!(lengths.into_iter().all(|length| (length - 1.0).abs() < 1e-6));
    }

    #[test]
    fn every_group_keeps_a_row() {
        // Three distinct rows in seven copies, and as many groups as rows.
        let rows = [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [-1.0, 0.0], [-1.0, 0.0]].concat();
        let found = KMeans::fit(&rows, 2, KMeansConfig { k: 3, ..CONFIG }).expect("a grouping");
        assert!((found.cohesion - 1.0).abs() < 1e-6);
        let mut one_each = found.groups.clone();
        one_each.sort_unstable();
        one_each.dedup();
        assert_eq!(one_each.len(), 3);
        assert!(KMeans::fit(&rows, 2, KMeansConfig { k: 7, ..CONFIG }).is_ok());
    }

    #[test]
    fn impossible_groupings_are_refused() {
        let fit =
            |rows: &[f32], dim, k, starts| KMeans::fit(rows, dim, KMeansConfig { k, starts, ..CONFIG }).map(|_| ());
        assert_eq!(fit(&[], 2, 1, 1), Err(KMeansError::Shape { values: 0, dim: 2 }));
        assert_eq!(fit(&[1.0; 3], 2, 1, 1), Err(KMeansError::Shape { values: 3, dim: 2 }));
        assert_eq!(fit(&[1.0; 4], 2, 3, 1), Err(KMeansError::Groups { k: 3, rows: 2 }));
        assert_eq!(fit(&[1.0; 4], 2, 0, 1), Err(KMeansError::Groups { k: 0, rows: 2 }));
        assert_eq!(fit(&[1.0; 4], 2, 1, 0), Err(KMeansError::Starts));
    }
}
