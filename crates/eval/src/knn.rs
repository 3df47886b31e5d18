//! `KnnProbe`: exact weighted nearest neighbours by cosine similarity.
//!
//! `N` bank rows, `Q` queries, `F` feature dimensions, `k` neighbours.
//!
//! The search has two stages. A single-precision matrix product over blocks of queries and bank rows proposes every
//! row whose similarity is within the product's rounding bound of the k-th best. The proposals, few more than `k`, are
//! then compared by dot products in f64 in a fixed order. So the neighbours are exactly those of a brute-force search
//! in f64: no block size, number of threads or SIMD width can change a vote, at the price of the fast product.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::feature_bank::narrow;
use crate::matrix::MatrixView;
use crate::{FeatureBank, Score};

/// Rows with a smaller norm count as zero vectors: their cosine with anything is 0, not 0/0.
const MIN_NORM: f64 = 1e-12;

/// The settings of a [`KnnProbe`].
///
/// Usual choices are `k = 200` and `temperature = 0.1`, or `k = 10`; both should be fixed before the test set is seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnnConfig {
    /// How many neighbours vote; more than the bank holds means all of it.
    pub k: usize,
    /// `T` in the vote `exp(cos / T)`: small values trust the nearest, large ones count heads.
    pub temperature: f64,
}

/// Classifies by a weighted vote of the `k` most similar rows of a bank.
///
/// ```text
/// score(q, c) ∝ Σ_{i in top-k(q), label_i = c} exp( cos(q, x_i) / T )        Σ_c score(q, c) = 1
/// ```
/// # Conventions
/// Features are raw; both sides are normalized here (norm floor 1e-12). Of equally similar rows the one with the
/// smaller index is nearer, of equally voted classes the smaller number wins: the result is a pure function of the two banks.
/// # Cost
/// `2·N·Q·F` operations in f32 on all threads, plus about `k·Q·F` in f64. Memory beside the banks: `8·N` bytes and
/// per thread about 10 MiB, whatever the number of classes. If nearly all rows coincide (a collapsed encoder), every
/// row is a proposal and the search runs at the speed of f64.
/// # Source
/// Wu et al., *Unsupervised Feature Learning via Non-Parametric Instance Discrimination*, CVPR 2018, section 3.4.
/// <https://arxiv.org/abs/1805.01978>
/// # Example
/// ```
/// use twoview_eval::{FeatureBank, KnnConfig};
/// let bank = FeatureBank::new(vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0], 2, vec![0, 0, 1])?;
/// let queries = FeatureBank::new(vec![2.0, 0.1, -0.1, 3.0], 2, vec![0, 1])?;
/// let probe = KnnConfig { k: 1, temperature: 0.1 }.init(&bank)?;
/// assert_eq!(probe.evaluate(&queries)?.top1, 1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct KnnProbe<'a> {
    config: KnnConfig,
    bank: &'a FeatureBank,
    inverse_norms: Vec<f64>, // [N]
    blocks: Blocks,
}

/// How the search is cut; changes its speed and memory, never its result.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    n_queries: usize,
    n_bank_rows: usize,
}

impl Blocks {
    /// 256 queries amortize the packing of a bank block; a block of 4 MiB stays in a cache between its two uses.
    fn for_dim(dim: usize) -> Self {
        Self { n_queries: 256, n_bank_rows: ((1 << 20) / dim).clamp(128, 4096) }
    }
}

/// A bank row near a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// The row of the bank.
    pub index: usize,
    /// Its cosine similarity with the query.
    pub similarity: f64,
}

/// The outcome of one vote.
#[derive(Clone, Debug, PartialEq)]
pub struct Vote {
    /// The class with the largest share.
    pub predicted: u32,
    /// The share of each class that got one, by ascending class; the shares sum to 1.
    pub shares: Vec<(u32, f64)>,
}

/// Why neighbours cannot be asked.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum KnnError {
    /// Nobody votes.
    #[error("k must be at least 1, got 0")]
    NoNeighbours,
    /// The temperature does not define a weight.
    #[error("the temperature of the vote must be positive and finite, got {0}")]
    Temperature(f64),
    /// Every answer would be right.
    #[error("all {rows} train pictures have the same label {label}: accuracy over one class is meaningless")]
    OneClass {
        /// The number of bank rows.
        rows: usize,
        /// Their label.
        label: u32,
    },
    /// Queries and bank come from different encoders.
    #[error("the bank has {expected} dimensions, the queries have {got}: both must come from the same encoder")]
    Dimension {
        /// The dimensions of the bank.
        expected: usize,
        /// The dimensions of the queries.
        got: usize,
    },
}

impl KnnConfig {
    /// A probe that asks `bank`.
    ///
    /// # Errors
    /// [`KnnError`] if `k` is 0, the temperature is not positive and finite, or the bank holds a single class.
    pub fn init(self, bank: &FeatureBank) -> Result<KnnProbe<'_>, KnnError> {
        if self.k == 0 {
            return Err(KnnError::NoNeighbours);
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(KnnError::Temperature(self.temperature));
        }
        if !bank.has_two_classes() {
            return Err(KnnError::OneClass { rows: bank.len(), label: bank.labels()[0] });
        }
        let inverse_norms = bank.features().par_chunks_exact(bank.dim()).map(inverse_norm).collect();
        Ok(KnnProbe { config: self, bank, inverse_norms, blocks: Blocks::for_dim(bank.dim()) })
    }
}

impl KnnProbe<'_> {
    /// The share of `queries` whose label wins the vote.
    ///
    /// # Errors
    /// [`KnnError::Dimension`].
    pub fn evaluate(&self, queries: &FeatureBank) -> Result<Score, KnnError> {
        let predicted: Vec<u32> = self.search(queries, |neighbours| self.vote(&neighbours).predicted)?;
        Ok(Score::tally(&predicted, queries.labels()))
    }

    /// The vote on each query, in order. The labels of `queries` are not looked at.
    ///
    /// # Errors
    /// [`KnnError::Dimension`].
    pub fn votes(&self, queries: &FeatureBank) -> Result<Vec<Vote>, KnnError> {
        self.search(queries, |neighbours| self.vote(&neighbours))
    }

    /// The `k` nearest bank rows of each query, nearest first. The labels of `queries` are not looked at.
    ///
    /// # Errors
    /// [`KnnError::Dimension`].
    pub fn neighbours(&self, queries: &FeatureBank) -> Result<Vec<Vec<Neighbour>>, KnnError> {
        self.search(queries, |neighbours| neighbours)
    }

    fn search<T: Send>(
        &self,
        queries: &FeatureBank,
        finish: impl Fn(Vec<Neighbour>) -> T + Sync,
    ) -> Result<Vec<T>, KnnError> {
        let dim = self.bank.dim();
        if queries.dim() != dim {
            return Err(KnnError::Dimension { expected: dim, got: queries.dim() });
        }
        let chunks = queries.features().par_chunks(self.blocks.n_queries * dim);
        Ok(chunks.flat_map_iter(|chunk| self.search_chunk(chunk).into_iter().map(&finish)).collect())
    }

    /// The neighbours of a few queries (`[q, F]`), on the calling thread.
    fn search_chunk(&self, queries: &[f32]) -> Vec<Vec<Neighbour>> {
        let (dim, n) = (self.bank.dim(), queries.len() / self.bank.dim());
        let inverse_norms: Vec<f64> = queries.chunks_exact(dim).map(inverse_norm).collect();
        let mut unit_queries = Vec::new();
        write_unit_rows(&mut unit_queries, queries, &inverse_norms, dim);

        let mut shortlists: Vec<Shortlist> = (0..n).map(|_| Shortlist::new(self.config.k, dim)).collect();
        let (mut unit_rows, mut similarities) = (Vec::new(), Vec::new());
        for start in (0..self.bank.len()).step_by(self.blocks.n_bank_rows) {
            let end = (start + self.blocks.n_bank_rows).min(self.bank.len());
            let rows = &self.bank.features()[start * dim..end * dim];
            write_unit_rows(&mut unit_rows, rows, &self.inverse_norms[start..end], dim);
            similarities.resize(n * (end - start), 0.0_f32);
            let bank_block = MatrixView::new(&unit_rows, end - start, dim);
            MatrixView::new(&unit_queries, n, dim).multiply_into(bank_block.transposed(), &mut similarities);
            for (shortlist, row) in shortlists.iter_mut().zip(similarities.chunks_exact(end - start)) {
                shortlist.extend(start, row);
            }
        }

        shortlists
            .into_iter()
            .zip(queries.chunks_exact(dim).zip(inverse_norms))
            .map(|(shortlist, (query, inverse_norm))| self.settle(shortlist, query, inverse_norm))
            .collect()
    }

    /// Orders the proposals by their similarity in f64 and keeps the `k` nearest.
    fn settle(&self, shortlist: Shortlist, query: &[f32], inverse_norm: f64) -> Vec<Neighbour> {
        let mut neighbours: Vec<Neighbour> = shortlist
            .into_indices()
            .map(|index| {
                let similarity = dot(query, self.bank.row(index)) * inverse_norm * self.inverse_norms[index];
                Neighbour { index, similarity }
            })
            .collect();
        neighbours.sort_unstable_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.index.cmp(&b.index)));
        neighbours.truncate(self.config.k);
        neighbours
    }

    /// Sums the weights per class over the neighbours only, so that the number of classes costs nothing.
    fn vote(&self, neighbours: &[Neighbour]) -> Vote {
        // Relative to the nearest: the shares are the same, and no temperature can overflow the exponential.
        let nearest = neighbours.first().map_or(0.0, |n| n.similarity);
        let mut votes: Vec<(u32, f64)> = neighbours
            .iter()
            .map(|n| (self.bank.labels()[n.index], ((n.similarity - nearest) / self.config.temperature).exp()))
            .collect();
        votes.sort_by_key(|&(class, _)| class);
        let mut shares: Vec<(u32, f64)> = votes
            .chunk_by(|a, b| a.0 == b.0)
            .map(|class| (class[0].0, class.iter().map(|&(_, weight)| weight).sum()))
            .collect();
        let total: f64 = shares.iter().map(|&(_, weight)| weight).sum();
        shares.iter_mut().for_each(|(_, weight)| *weight /= total);
        let winner = shares.iter().copied().reduce(|best, next| if next.1 > best.1 { next } else { best });
        Vote { predicted: winner.map_or(0, |(class, _)| class), shares }
    }
}

/// Bank rows that may be among the `k` nearest of one query, judged by similarities with bounded rounding errors.
struct Shortlist {
    k: usize,
    /// Twice the largest error of one similarity: a row this far below the k-th best may still belong to the best.
    slack: f32,
    /// Rows below this similarity are certainly not among the nearest.
    floor: f32,
    /// The length at which the list is pruned next. It doubles, so that pruning costs linear time in total.
    prune_at: usize,
    rows: Vec<(f32, usize)>,
}

impl Shortlist {
    fn new(k: usize, dim: usize) -> Self {
        // |fl(a·b) − a·b| ≤ γ_F |a|·|b| in any order of summation, γ_F = F·u / (1 − F·u), u = 2⁻²⁴ (Higham,
        // *Accuracy and Stability of Numerical Algorithms*, section 3.1). Rounding the unit rows adds about 2 u; the
        // 16 covers that and the rounding of the bound itself.
        let unit_roundoffs = (dim as f64 + 16.0) * f64::from(f32::EPSILON) / 2.0;
        let error = if unit_roundoffs < 0.5 { unit_roundoffs / (1.0 - unit_roundoffs) } else { f64::INFINITY };
        let prune_at = k.saturating_mul(2).saturating_add(64);
        Self { k, slack: narrow(2.0 * error), floor: f32::NEG_INFINITY, prune_at, rows: Vec::new() }
    }

    /// Offers the rows from `start` on, by their similarities.
    fn extend(&mut self, start: usize, similarities: &[f32]) {
        for (offset, &similarity) in similarities.iter().enumerate() {
            if similarity >= self.floor {
                self.rows.push((similarity, start + offset));
                if self.rows.len() >= self.prune_at {
                    self.prune();
                    self.prune_at = self.prune_at.max(self.rows.len().saturating_mul(2));
                }
            }
        }
    }

    fn prune(&mut self) {
        if self.rows.len() > self.k {
            let (_, kth, _) = self.rows.select_nth_unstable_by(self.k - 1, |a, b| b.0.total_cmp(&a.0));
            self.floor = kth.0 - self.slack;
            self.rows.retain(|row| row.0 >= self.floor);
        }
    }

    fn into_indices(mut self) -> impl Iterator<Item = usize> {
        self.prune();
        self.rows.into_iter().map(|(_, index)| index)
    }
}

/// Replaces `out` by `rows` (`[n, F]`), each scaled to unit length.
fn write_unit_rows(out: &mut Vec<f32>, rows: &[f32], inverse_norms: &[f64], dim: usize) {
    out.clear();
    for (row, scale) in rows.chunks_exact(dim).zip(inverse_norms) {
        out.extend(row.iter().map(|&v| narrow(f64::from(v) * scale)));
    }
}

fn inverse_norm(row: &[f32]) -> f64 {
    dot(row, row).sqrt().max(MIN_NORM).recip()
}

/// The dot product in f64, summed in eight fixed lanes: vectorizable, and the same on every machine.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 =
        a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for (lane, (&x, &y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
            *lane += f64::from(x) * f64::from(y);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Quantized features, so that ties and duplicates are common.
    fn bank(rows: std::ops::Range<usize>, dim: usize, levels: i8) -> impl Strategy<Value = FeatureBank> {
        prop::collection::vec((0_u32..4, prop::collection::vec(-levels..=levels, dim)), rows).prop_map(move |rows| {
            let features = rows.iter().flat_map(|(_, row)| row.iter().map(|&v| f32::from(v))).collect();
            FeatureBank::new(features, dim, rows.iter().map(|&(label, _)| label).collect()).expect("valid")
        })
    }

    /// The definition, one query at a time: every similarity, one stable sort.
    fn brute_force(bank: &FeatureBank, query: &[f32], k: usize) -> Vec<Neighbour> {
        let norm = |row: &[f32]| row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt().max(MIN_NORM);
        let mut all: Vec<Neighbour> = (0..bank.len())
            .map(|index| {
                let row = bank.row(index);
                // Not `sum`, which starts from −0: a total order ranks that below 0.
                let dot = query.iter().zip(row).fold(0.0, |sum, (&a, &b)| sum + f64::from(a) * f64::from(b));
                Neighbour { index, similarity: dot * norm(query).recip() * norm(row).recip() }
            })
            .collect();
        all.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
        all.truncate(k);
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn finds_what_brute_force_finds(
            (bank, queries) in (1_usize..20, 1_i8..4).prop_flat_map(|(d, l)| (bank(2..300, d, l), bank(1..30, d, l))),
            k in 1_usize..40,
        ) {
            prop_assume!(bank.has_two_classes());
            let probe = KnnConfig { k, temperature: 0.1 }.init(&bank).expect("valid");
            let found = probe.neighbours(&queries).expect("same dimension");
            for (q, found) in found.iter().enumerate() {
                // Integer entries: both dot products are exact, so that ties are ties in both.
                prop_assert_eq!(found, &brute_force(&bank, queries.row(q), k), "query {}", q);
            }
        }

        #[test]
        fn blocks_change_nothing(
            (bank, queries) in (1_usize..20).prop_flat_map(|d| (bank(2..300, d, 100), bank(1..30, d, 100))),
            k in 1_usize..40, n_queries in 1_usize..9, n_bank_rows in 1_usize..70,
        ) {
            prop_assume!(bank.has_two_classes());
            let mut probe = KnnConfig { k, temperature: 0.1 }.init(&bank).expect("valid");
            let whole = probe.neighbours(&queries).expect("same dimension");
            probe.blocks = Blocks { n_queries, n_bank_rows };
            prop_assert_eq!(probe.neighbours(&queries).expect("same dimension"), whole);
        }
    }

    #[test]
    fn similarities_closer_than_single_precision_are_told_apart() {
        // 1 + i·2⁻²⁰ in one of 512 coordinates moves the cosine by about 1e-9·i, far below f32's 6e-8.
        let dim = 512;
        let row = |i: u16| (0..dim).map(move |d| if d == 0 { 1.0 + f32::from(i) / 1_048_576.0 } else { 1.0 });
        let order: [u16; 6] = [3, 1, 5, 0, 4, 2];
        let features = order.iter().flat_map(|&i| row(i)).collect();
        let bank = FeatureBank::new(features, dim, vec![0, 0, 0, 1, 1, 1]).expect("valid");
        let query = FeatureBank::new((0..dim).map(|d| if d == 0 { 1.0 } else { 0.0 }).collect(), dim, vec![0]);
        let found = KnnConfig { k: 6, temperature: 0.1 }.init(&bank).expect("valid").neighbours(&query.expect("valid"));
        let ranks: Vec<u16> = found.expect("same dimension")[0].iter().map(|n| order[n.index]).collect();
        assert_eq!(ranks, [5, 4, 3, 2, 1, 0]);
    }

    #[test]
    fn equal_neighbours_and_equal_votes_go_to_the_smaller_number() {
        let bank = FeatureBank::new(vec![1.0, 2.0, 3.0, 4.0], 1, vec![7, 3, 3, 7]).expect("valid");
        let query = FeatureBank::new(vec![5.0], 1, vec![7]).expect("valid");
        let config = |k| KnnConfig { k, temperature: 0.5 };
        let nearest = config(1).init(&bank).expect("valid").votes(&query).expect("same dimension");
        assert_eq!(nearest, [Vote { predicted: 7, shares: vec![(7, 1.0)] }]);
        let all = config(9).init(&bank).expect("valid").votes(&query).expect("same dimension");
        assert_eq!(all, [Vote { predicted: 3, shares: vec![(3, 0.5), (7, 0.5)] }]);
    }

    #[test]
    fn the_smallest_temperature_asks_the_nearest() {
        let bank = FeatureBank::new(vec![1.0, 0.0, 0.0, 1.0], 2, vec![0, 1]).expect("valid");
        let query = FeatureBank::new(vec![0.6, 0.8], 2, vec![1]).expect("valid");
        let probe = KnnConfig { k: 2, temperature: f64::MIN_POSITIVE }.init(&bank).expect("valid");
        assert_eq!(probe.votes(&query).expect("same dimension")[0].shares, [(0, 0.0), (1, 1.0)]);
    }

    #[test]
    fn a_zero_row_is_similar_to_nothing() {
        let bank = FeatureBank::new(vec![0.0, 0.0, -1.0, 0.0, 1e-30, 0.0], 2, vec![0, 1, 2]).expect("valid");
        let query = FeatureBank::new(vec![1.0, 1.0], 2, vec![0]).expect("valid");
        let found = KnnConfig { k: 3, temperature: 0.1 }.init(&bank).expect("valid").neighbours(&query);
        let found = &found.expect("same dimension")[0];
        assert_eq!(found.iter().map(|n| n.index).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(found[1].similarity, 0.0);
        assert!(found[0].similarity < 1e-17, "a row below the norm floor is not blown up to unit length");
    }

    #[test]
    fn a_hundred_thousand_classes_cost_no_table() {
        // Row i points at the angle i·δ; a table of queries × classes would be 8 GB.
        let n = 100_000_u32;
        let angle = |i: u32| f64::from(i) * 6e-5;
        let row = |i: u32| [narrow(angle(i).cos()), narrow(angle(i).sin())];
        let features: Vec<f32> = (0..n).flat_map(row).collect();
        let bank = FeatureBank::new(features, 2, (0..n).collect()).expect("valid");
        let wanted: Vec<u32> = (0..10_000).map(|i| i * 10).collect();
        let queries = FeatureBank::new(wanted.iter().copied().flat_map(row).collect(), 2, wanted).expect("valid");
        let queries = queries.select(&(0..10_000).step_by(25).collect::<Vec<_>>()).expect("not empty");
        let score = KnnConfig { k: 20, temperature: 1e-9 }.init(&bank).expect("valid").evaluate(&queries);
        assert_eq!(score.expect("same dimension").hits, 400);
    }

    #[test]
    fn refuses_meaningless_questions() {
        let bank = FeatureBank::new(vec![1.0, 2.0], 1, vec![0, 1]).expect("valid");
        let init = |k, temperature| KnnConfig { k, temperature }.init(&bank).map(|_| ());
        assert_eq!(init(0, 0.1), Err(KnnError::NoNeighbours));
        for temperature in [0.0, -1.0, f64::INFINITY] {
            assert_eq!(init(1, temperature), Err(KnnError::Temperature(temperature)));
        }
        assert!(init(1, f64::NAN).is_err());
        let one_class = FeatureBank::new(vec![1.0, 2.0], 1, vec![4, 4]).expect("valid");
        let refused = KnnConfig { k: 1, temperature: 0.1 }.init(&one_class).map(|_| ());
        assert_eq!(refused, Err(KnnError::OneClass { rows: 2, label: 4 }));
        let wide = FeatureBank::new(vec![1.0, 2.0], 2, vec![0]).expect("valid");
        let refused = KnnConfig { k: 1, temperature: 0.1 }.init(&bank).expect("valid").evaluate(&wide);
        assert_eq!(refused, Err(KnnError::Dimension { expected: 1, got: 2 }));
    }
}
