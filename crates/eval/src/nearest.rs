//! `NearestRows`: exact nearest neighbours by cosine similarity.
//!
//! `N` rows, `Q` queries, `F` feature dimensions, `k` neighbours.
//!
//! The search has two stages. A single-precision matrix product over blocks of queries and rows proposes every row
//! whose similarity is within the product's rounding bound of the k-th best. The proposals, few more than `k`, are
//! then compared by dot products in f64 in a fixed order. So the neighbours are exactly those of a brute-force search
//! in f64: no block size, number of threads or SIMD width can change one, at the price of the fast product.

use rayon::prelude::*;
use thiserror::Error;

use crate::feature_bank::narrow;
use crate::matrix::MatrixView;

/// Rows with a smaller norm count as zero vectors: their cosine with anything is 0, not 0/0.
const MIN_NORM: f64 = 1e-12;

/// A row near a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Its number.
    pub index: usize,
    /// Its cosine similarity with the query.
    pub similarity: f64,
}

/// Why neighbours cannot be searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NearestError {
    /// The values are no whole rows.
    #[error("{values} values are not a whole number of rows of {dim} dimensions")]
    Shape {
        /// How many values.
        values: usize,
        /// How many make a row.
        dim: usize,
    },
}

/// Rows that are searched for the nearest of a query, by cosine similarity.
///
/// # Conventions
/// Rows are raw; both sides are normalized here (norm floor 1e-12). Of equally similar rows the one with the smaller
/// number is nearer: the result is a pure function of rows and queries. Values must be finite.
/// # Cost
/// `2·N·Q·F` operations in f32 on all threads, plus about `k·Q·F` in f64. Memory beside rows and queries: `8·N` bytes and
/// per thread about 10 MiB. If nearly all rows coincide (a collapsed encoder), every row is a proposal and the search runs
/// at the speed of f64.
/// # Example
/// ```
/// use twoview_eval::NearestRows;
/// let rows = [1.0, 0.0, 0.9, 0.1, 0.0, 1.0];
/// let found = NearestRows::new(&rows, 2)?.of(&[2.0, 0.1], 2)?;
/// assert_eq!(found[0].iter().map(|neighbour| neighbour.index).collect::<Vec<_>>(), [0, 1]);
/// # Ok::<(), twoview_eval::NearestError>(())
/// ```
#[derive(Clone, Debug)]
pub struct NearestRows<'a> {
    rows: &'a [f32], // [N, F]
    dim: usize,
    inverse_norms: Vec<f64>, // [N]
    blocks: Blocks,
}

/// How the search is cut; changes its speed and memory, never its result.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    n_queries: usize,
    n_rows: usize,
}

impl Blocks {
    /// 256 queries amortize the packing of a block of rows; a block of 4 MiB stays in a cache between its two uses.
    fn for_dim(dim: usize) -> Self {
        Self { n_queries: 256, n_rows: ((1 << 20) / dim).clamp(128, 4096) }
    }
}

impl<'a> NearestRows<'a> {
    /// Prepares `[N, F]` rows, row-major, with `F = dim`.
    ///
    /// # Errors
    /// [`NearestError::Shape`] where the values are no whole rows.
    pub fn new(rows: &'a [f32], dim: usize) -> Result<Self, NearestError> {
        whole_rows(rows, dim)?;
        let inverse_norms = rows.par_chunks_exact(dim).map(inverse_norm).collect();
        Ok(Self { rows, dim, inverse_norms, blocks: Blocks::for_dim(dim) })
    }

    /// The `k` nearest rows of each of the `[Q, F]` queries, nearest first; all rows where there are fewer.
    ///
    /// # Errors
    /// [`NearestError::Shape`] where the values are no whole rows.
    pub fn of(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<Neighbour>>, NearestError> {
        whole_rows(queries, self.dim)?;
        Ok(self.search(queries, k, |neighbours| neighbours))
    }

    /// What `finish` makes of the neighbours of each query. The queries are whole rows.
    pub(crate) fn search<T: Send>(
        &self,
        queries: &[f32],
        k: usize,
        finish: impl Fn(Vec<Neighbour>) -> T + Sync,
    ) -> Vec<T> {
        let chunks = queries.par_chunks(self.blocks.n_queries * self.dim);
        chunks.flat_map_iter(|chunk| self.search_chunk(chunk, k).into_iter().map(&finish)).collect()
    }

    /// The neighbours of a few queries (`[q, F]`), on the calling thread.
    fn search_chunk(&self, queries: &[f32], k: usize) -> Vec<Vec<Neighbour>> {
        let (dim, n) = (self.dim, queries.len() / self.dim);
        let n_rows = self.inverse_norms.len();
        let inverse_norms: Vec<f64> = queries.chunks_exact(dim).map(inverse_norm).collect();
        let mut unit_queries = Vec::new();
        write_unit_rows(&mut unit_queries, queries, &inverse_norms, dim);

        let mut shortlists: Vec<Shortlist> = (0..n).map(|_| Shortlist::new(k, dim)).collect();
        let (mut unit_rows, mut similarities) = (Vec::new(), Vec::new());
        for start in (0..n_rows).step_by(self.blocks.n_rows) {
            let end = (start + self.blocks.n_rows).min(n_rows);
            let rows = &self.rows[start * dim..end * dim];
            write_unit_rows(&mut unit_rows, rows, &self.inverse_norms[start..end], dim);
            similarities.resize(n * (end - start), 0.0_f32);
            let block = MatrixView::new(&unit_rows, end - start, dim);
            MatrixView::new(&unit_queries, n, dim).multiply_into(block.transposed(), &mut similarities);
            for (shortlist, row) in shortlists.iter_mut().zip(similarities.chunks_exact(end - start)) {
                shortlist.extend(start, row);
            }
        }

        shortlists
            .into_iter()
            .zip(queries.chunks_exact(dim).zip(inverse_norms))
            .map(|(shortlist, (query, inverse_norm))| self.settle(shortlist, query, inverse_norm, k))
            .collect()
    }

    /// Orders the proposals by their similarity in f64 and keeps the `k` nearest.
    fn settle(&self, shortlist: Shortlist, query: &[f32], inverse_norm: f64, k: usize) -> Vec<Neighbour> {
        let mut neighbours: Vec<Neighbour> = shortlist
            .into_indices()
            .map(|index| {
                let similarity = dot(query, self.row(index)) * inverse_norm * self.inverse_norms[index];
                Neighbour { index, similarity }
            })
            .collect();
        neighbours.sort_unstable_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.index.cmp(&b.index)));
        neighbours.truncate(k);
        neighbours
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.rows[i * self.dim..(i + 1) * self.dim]
    }
}

fn whole_rows(values: &[f32], dim: usize) -> Result<(), NearestError> {
    if dim > 0 && values.len().is_multiple_of(dim) {
        return Ok(());
    }
    Err(NearestError::Shape { values: values.len(), dim })
}

/// Rows that may be among the `k` nearest of one query, judged by similarities with bounded rounding errors.
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
    fn rows(n: std::ops::Range<usize>, dim: usize, levels: i8) -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(prop::collection::vec(-levels..=levels, dim), n)
            .prop_map(|rows| rows.iter().flatten().map(|&v| f32::from(v)).collect())
    }

    /// The definition, one query at a time: every similarity, one stable sort.
    fn brute_force(rows: &[f32], query: &[f32], k: usize) -> Vec<Neighbour> {
        let norm = |row: &[f32]| row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt().max(MIN_NORM);
        let mut all: Vec<Neighbour> = (rows.chunks_exact(query.len()).enumerate())
            .map(|(index, row)| {
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
            (dim, bank, queries) in (1_usize..20, 1_i8..4)
                .prop_flat_map(|(d, l)| (Just(d), rows(2..300, d, l), rows(1..30, d, l))),
            k in 1_usize..40,
        ) {
            let found = NearestRows::new(&bank, dim).expect("whole rows").of(&queries, k).expect("whole rows");
            for (query, found) in queries.chunks_exact(dim).zip(&found) {
                // Integer entries: both dot products are exact, so that ties are ties in both.
                prop_assert_eq!(found, &brute_force(&bank, query, k));
            }
        }

        #[test]
        fn blocks_change_nothing(
            (dim, bank, queries) in (1_usize..20)
                .prop_flat_map(|d| (Just(d), rows(2..300, d, 100), rows(1..30, d, 100))),
            k in 1_usize..40, n_queries in 1_usize..9, n_rows in 1_usize..70,
        ) {
            let mut nearest = NearestRows::new(&bank, dim).expect("whole rows");
            let whole = nearest.of(&queries, k).expect("whole rows");
            nearest.blocks = Blocks { n_queries, n_rows };
            prop_assert_eq!(nearest.of(&queries, k).expect("whole rows"), whole);
        }
    }

    #[test]
    fn similarities_closer_than_single_precision_are_told_apart() {
        // 1 + i·2⁻²⁰ in one of 512 coordinates moves the cosine by about 1e-9·i, far below f32's 6e-8.
        let dim = 512;
        let row = |i: u16| (0..dim).map(move |d| if d == 0 { 1.0 + f32::from(i) / 1_048_576.0 } else { 1.0 });
        let order: [u16; 6] = [3, 1, 5, 0, 4, 2];
        let bank: Vec<f32> = order.iter().flat_map(|&i| row(i)).collect();
        let query: Vec<f32> = (0..dim).map(|d| if d == 0 { 1.0 } else { 0.0 }).collect();
        let found = NearestRows::new(&bank, dim).expect("whole rows").of(&query, 6).expect("whole rows");
        assert_eq!(found[0].iter().map(|n| order[n.index]).collect::<Vec<_>>(), [5, 4, 3, 2, 1, 0]);
    }

    #[test]
    fn a_zero_row_is_similar_to_nothing() {
        let bank = [0.0, 0.0, -1.0, 0.0, 1e-30, 0.0];
        let found = &NearestRows::new(&bank, 2).expect("whole rows").of(&[1.0, 1.0], 3).expect("whole rows")[0];
        assert_eq!(found.iter().map(|n| n.index).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(found[1].similarity, 0.0);
        assert!(found[0].similarity < 1e-17, "a row below the norm floor is not blown up to unit length");
    }

    #[test]
    fn refuses_what_are_no_rows() {
        assert_eq!(NearestRows::new(&[1.0; 5], 2).map(|_| ()), Err(NearestError::Shape { values: 5, dim: 2 }));
        assert_eq!(NearestRows::new(&[], 0).map(|_| ()), Err(NearestError::Shape { values: 0, dim: 0 }));
        let bank = [1.0, 2.0];
        let refused = NearestRows::new(&bank, 2).expect("whole rows").of(&[1.0], 1);
        assert_eq!(refused, Err(NearestError::Shape { values: 1, dim: 2 }));
    }
}
