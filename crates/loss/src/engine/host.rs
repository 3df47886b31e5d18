//! The engine on the processor: tiles of logits that never leave the cache, over all threads.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use rayon::prelude::*;

use super::{
    Grid, Partials, RowStatistics,
    product::{Operand, multiply},
    roles::Roles,
    tile::{AnchorSums, AnchorWeights, Summands, sum_of_all},
};

/// Rows and columns of the largest tile: its logits, 256 KiB, stay in a core's second level cache.
const LARGEST_BLOCK: usize = 256;

/// Below this a product does not pay for its call.
const SMALLEST_BLOCK: usize = 32;

/// Blocks a side is cut into at least, where its size allows: pairs of them are what threads share.
const BLOCKS: usize = 16;

/// The unit rows of all views, and what is asked of them.
pub(super) struct Host<'a> {
    /// `[2N, D]`.
    pub(super) views: Vec<f32>,
    pub(super) n_dims: usize,
    pub(super) inv_temperature: f32,
    pub(super) roles: &'a Roles,
    scratch: Mutex<Vec<Scratch>>,
}

#[derive(Default)]
struct Scratch {
    logits: Vec<f32>,
    of_rows: Vec<f32>,
    of_columns: Vec<f32>,
    slopes: Vec<f32>,
}

/// A tile of logits, as its anchors see it.
struct Tile<'a> {
    rows: &'a Range<usize>,
    columns: &'a Range<usize>,
    width: usize,
    /// The logits of the candidates of the rows, −∞ elsewhere.
    of_rows: &'a [f32],
    /// The same for the columns, where they are anchors too.
    of_columns: Option<&'a [f32]>,
    /// Whether every column is a candidate of every row, and no positive.
    strangers: bool,
    slopes: &'a mut Vec<f32>,
}

/// The logit and column from which on an anchor's most similar candidates are cancelled.
pub(super) type Threshold = (f32, usize);

/// What was cancelled, per anchor.
#[derive(Clone, Debug, Default)]
pub(super) struct Cancelled(Vec<Threshold>);

impl Cancelled {
    pub(super) fn new(thresholds: Vec<Threshold>) -> Self {
        Self(thresholds)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a candidate is at or beyond the anchor's threshold.
    pub(super) fn covers(&self, anchor: usize, logit: f32, other: usize) -> bool {
        self.0.get(anchor).is_some_and(|threshold| is_nearer(&(logit, other), threshold))
    }
}

impl<'a> Host<'a> {
    pub(super) fn new(views: Vec<f32>, n_dims: usize, inv_temperature: f32, roles: &'a Roles) -> Self {
        Self { views, n_dims, inv_temperature, roles, scratch: Mutex::default() }
    }

    /// The unit rows of some views.
    fn unit_rows(&self, views: &Range<usize>) -> &[f32] {
        &self.views[views.start * self.n_dims..views.end * self.n_dims]
    }

    /// Finds for every anchor the threshold of its `n` most similar candidates; one candidate is always left.
    pub(super) fn cancel(&self, grids: &[Grid], n: usize) -> Cancelled {
        let mut thresholds = Vec::new();
        for grid in grids {
            let states = self.for_each_tile(
                grid,
                &Cancelled::default(),
                |anchors| vec![Nearest::default(); anchors.len()],
                |_| (),
                |tile, rows, mut columns| {
                    for ((row, nearest), anchor) in rows.iter_mut().enumerate().zip(tile.rows.clone()) {
                        let others = tile.columns.clone();
                        nearest.add(self.strangers_of(anchor, tile.row(row).zip(others)), n);
                    }
                    if let (Some(columns), Some(of_columns)) = (columns.anchors(), tile.of_columns) {
                        for ((column, nearest), anchor) in columns.iter_mut().enumerate().zip(tile.columns.clone()) {
                            let logits = of_columns.iter().skip(column).step_by(tile.width);
                            nearest.add(self.strangers_of(anchor, logits.zip(tile.rows.clone())), n);
                        }
                    }
                },
            );
            thresholds.extend(states.0.into_iter().flatten().map(|nearest| nearest.threshold(n)));
        }
        Cancelled(thresholds)
    }

    /// The candidates of an anchor that are not its positives.
    fn strangers_of<'x>(
        &self,
        anchor: usize,
        candidates: impl Iterator<Item = (&'x f32, usize)>,
    ) -> impl Iterator<Item = Threshold> {
        candidates
            .map(|(&logit, other)| (logit, other))
            .filter(move |&(logit, other)| logit != f32::NEG_INFINITY && !self.roles.is_positive(anchor, other))
    }

    pub(super) fn statistics(&self, grids: &[Grid], summands: &Summands, cancelled: &Cancelled) -> RowStatistics {
        let mut statistics = RowStatistics::empty(summands);
        for grid in grids {
            let (sums, _) = self.for_each_tile(
                grid,
                cancelled,
                |anchors| AnchorSums::new(anchors.len(), summands),
                |_| (),
                |tile, rows, mut columns| {
                    rows.add_rows(tile.of_rows, tile.width, summands);
                    let evenness = |logits| sum_of_all(logits, 4.0 / self.inv_temperature, -4.0);
                    let of_rows = evenness(tile.of_rows);
                    rows.evenness += of_rows;
                    // Rows and columns mostly see the same.
                    rows.evenness += tile.of_columns.map_or(0.0, |logits| {
                        if std::ptr::eq(logits, tile.of_rows) { of_rows } else { evenness(logits) }
                    });
                    self.count(tile, rows);
                    if let (Some(columns), Some(logits)) = (columns.anchors(), tile.of_columns) {
                        columns.add_columns(logits, summands);
                        self.count_columns(tile, logits, columns);
                    }
                },
            );
            for sums in sums {
                statistics.extend(&sums, summands);
            }
        }
        statistics
    }

    fn count(&self, tile: &Tile<'_>, sums: &mut AnchorSums) {
        if tile.strangers {
            sums.n_candidates.iter_mut().for_each(|n| *n += tile.width as u64);
            return;
        }
        for (row, anchor) in tile.rows.clone().enumerate() {
            self.count_anchor(anchor, row, tile.row(row), tile.columns, sums);
        }
    }

    fn count_columns(&self, tile: &Tile<'_>, logits: &[f32], sums: &mut AnchorSums) {
        if tile.strangers {
            let height = tile.rows.len() as u64;
            sums.n_candidates.iter_mut().for_each(|n| *n += height);
            return;
        }
        for (column, anchor) in tile.columns.clone().enumerate() {
            let logits = logits.iter().skip(column).step_by(tile.width);
            self.count_anchor(anchor, column, logits, tile.rows, sums);
        }
    }

    fn count_anchor<'x>(
        &self,
        anchor: usize,
        at: usize,
        logits: impl Iterator<Item = &'x f32>,
        others: &Range<usize>,
        sums: &mut AnchorSums,
    ) {
        for (&logit, other) in logits.zip(others.clone()) {
            if logit != f32::NEG_INFINITY {
                sums.n_candidates[at] += 1;
                if self.roles.is_positive(anchor, other) {
                    sums.positives[at].0 += f64::from(logit);
                    sums.positives[at].1 += 1;
                }
            }
        }
    }

    /// `dL/du` of all views through their logits with candidates and other positives.
    pub(super) fn gradient(
        &self,
        grids: &[Grid],
        summands: &Summands,
        cancelled: &Cancelled,
        statistics: &RowStatistics,
        partials: &Partials,
    ) -> Vec<f32> {
        let mut d_views = vec![0.0; self.views.len()];
        let mut add = |views: &Range<usize>, parts: &mut dyn Iterator<Item = Vec<f32>>| {
            let to = &mut d_views[views.start * self.n_dims..views.end * self.n_dims];
            to.iter_mut().zip(parts.flatten()).for_each(|(to, part)| *to += part);
        };
        for grid in grids {
            let (of_rows, of_columns) = self.for_each_tile(
                grid,
                cancelled,
                |rows| Sloped {
                    d: vec![0.0; rows.len() * self.n_dims],
                    weights: partials.weights(statistics, summands, grid.anchors_of(&rows)),
                },
                |columns| vec![0.0; columns.len() * self.n_dims],
                |tile, rows, mut columns| self.differentiate(tile, summands, rows, &mut columns),
            );
            add(&grid.rows, &mut of_rows.into_iter().map(|sloped| sloped.d));
            add(&grid.columns, &mut of_columns.into_iter());
        }
        d_views
    }

    /// Adds the gradient of the views through the logits of their pairs.
    pub(super) fn add_pairs(&self, of_pairs: &[f64], inv_temperature: f64, d_views: &mut [f32]) {
        let half = of_pairs.len() * self.n_dims;
        let (first, second) = self.views.split_at(half);
        let (d_first, d_second) = d_views.split_at_mut(half);
        for (d, partners) in [(d_first, second), (d_second, first)] {
            let rows = d.chunks_exact_mut(self.n_dims).zip(partners.chunks_exact(self.n_dims));
            for ((d, partner), slope) in rows.zip(of_pairs) {
                let slope = super::round(slope * inv_temperature);
                d.iter_mut().zip(partner).for_each(|(d, partner)| *d += slope * partner);
            }
        }
    }

    /// Adds a tile's part of `dL/du` to its rows and columns.
    fn differentiate(
        &self,
        tile: &mut Tile<'_>,
        summands: &Summands,
        rows: &mut Sloped,
        columns: &mut Columns<'_, Sloped, Vec<f32>>,
    ) {
        let slopes = resized(tile.slopes, tile.of_rows.len());
        rows.weights.write_rows(tile.of_rows, tile.width, summands, slopes);
        if !rows.weights.positives.is_empty() {
            self.add_positives(tile.rows, tile.columns, tile.of_rows, &rows.weights.positives, slopes, false);
        }
        if let (Some(columns), Some(logits)) = (columns.anchors(), tile.of_columns) {
            columns.weights.add_columns(logits, tile.width, summands, slopes);
            let positives = &columns.weights.positives;
            if !positives.is_empty() {
                self.add_positives(tile.rows, tile.columns, logits, positives, slopes, true);
            }
        }
        let slopes = Operand::new(slopes, tile.width);
        let [of_rows, of_columns] =
            [tile.rows, tile.columns].map(|views| Operand::new(self.unit_rows(views), self.n_dims));
        multiply(self.inv_temperature, slopes, of_columns, true, &mut rows.d);
        let transposed = slopes.transposed();
        match columns {
            Columns::Anchors(columns) => multiply(self.inv_temperature, transposed, of_rows, true, &mut columns.d),
            Columns::Others(d) => multiply(self.inv_temperature, transposed, of_rows, true, d),
            Columns::Rows => multiply(self.inv_temperature, transposed, of_rows, true, &mut rows.d),
        }
    }

    fn add_positives(
        &self,
        rows: &Range<usize>,
        columns: &Range<usize>,
        logits: &[f32],
        slopes_of: &[f32],
        slopes: &mut [f32],
        by_column: bool,
    ) {
        let width = columns.len();
        for (i, row) in rows.clone().enumerate() {
            for (k, column) in columns.clone().enumerate() {
                let at = i * width + k;
                let (anchor, number, other) = if by_column { (column, k, row) } else { (row, i, column) };
                if logits[at] != f32::NEG_INFINITY && self.roles.is_positive(anchor, other) {
                    slopes[at] += slopes_of[number];
                }
            }
        }
    }

    /// Visits every tile of a grid once, or one of each two that mirror each other, and returns what was gathered per
    /// block of rows and of columns.
    ///
    /// Tiles of one round share no block, so each is worked on by one thread, and the rounds' order is fixed: results do
    /// not depend on the number of threads.
    fn for_each_tile<R: Send, C: Send>(
        &self,
        grid: &Grid,
        cancelled: &Cancelled,
        of_rows: impl Fn(Range<usize>) -> R,
        of_columns: impl Fn(Range<usize>) -> C,
        visit: impl Fn(&mut Tile<'_>, &mut R, Columns<'_, R, C>) + Sync,
    ) -> (Vec<R>, Vec<C>) {
        let row_blocks = blocks(&grid.rows);
        let column_blocks = if grid.is_symmetric { row_blocks.clone() } else { blocks(&grid.columns) };
        let row_states: Vec<_> = row_blocks.iter().map(|block| Mutex::new(of_rows(block.clone()))).collect();
        let column_states: Vec<_> = if grid.is_symmetric {
            Vec::new()
        } else {
            column_blocks.iter().map(|block| Mutex::new(of_columns(block.clone()))).collect()
        };
        let rounds = if grid.is_symmetric {
            tournament(row_blocks.len())
        } else {
            shifts(row_blocks.len(), column_blocks.len())
        };
        for round in rounds {
            round.into_par_iter().for_each(|(i, k)| {
                let mut scratch = lock(&self.scratch).pop().unwrap_or_default();
                let mut rows = lock(&row_states[i]);
                let mirrored = grid.is_symmetric && i != k;
                self.with_tile(grid, &row_blocks[i], &column_blocks[k], mirrored, cancelled, &mut scratch, |tile| {
                    if mirrored {
                        visit(tile, &mut rows, Columns::Anchors(&mut lock(&row_states[k])));
                    } else if grid.is_symmetric {
                        visit(tile, &mut rows, Columns::Rows);
                    } else {
                        visit(tile, &mut rows, Columns::Others(&mut lock(&column_states[k])));
                    }
                });
                lock(&self.scratch).push(scratch);
            });
        }
        (unlocked(row_states), unlocked(column_states))
    }

    #[allow(clippy::too_many_arguments, reason = "they say which tile")]
    fn with_tile(
        &self,
        grid: &Grid,
        rows: &Range<usize>,
        columns: &Range<usize>,
        mirrored: bool,
        cancelled: &Cancelled,
        scratch: &mut Scratch,
        visit: impl FnOnce(&mut Tile<'_>),
    ) {
        let width = columns.len();
        let Scratch { logits, of_rows: masked, of_columns: masked_columns, slopes } = scratch;
        let logits = resized(logits, rows.len() * width);
        let [left, right] = [rows, columns].map(|views| Operand::new(self.unit_rows(views), self.n_dims));
        multiply(self.inv_temperature, left, right.transposed(), false, logits);

        let strangers = cancelled.is_empty() && self.roles.are_strangers(rows, columns);
        let (seen_by_rows, seen_by_columns): (&[f32], Option<&[f32]>) = if strangers {
            (logits, mirrored.then_some(&*logits))
        } else {
            let masked = resized(masked, logits.len());
            let anchors = rows.clone().zip(masked.chunks_exact_mut(width).zip(logits.chunks_exact(width)));
            for (anchor, (out, logits)) in anchors {
                self.see(grid, cancelled, anchor, columns, logits, out);
            }
            let of_columns: Option<&[f32]> = if !mirrored {
                None
            } else if self.roles.is_symmetric() && cancelled.0.is_empty() {
                Some(masked)
            } else {
                let height = rows.len();
                let out = resized(masked_columns, logits.len());
                let (mut column, mut kept) = (vec![0.0; height], vec![0.0; height]);
                for (k, anchor) in columns.clone().enumerate() {
                    column.iter_mut().zip(logits.iter().skip(k).step_by(width)).for_each(|(to, from)| *to = *from);
                    self.see(grid, cancelled, anchor, rows, &column, &mut kept);
                    out.iter_mut().skip(k).step_by(width).zip(&kept).for_each(|(to, from)| *to = *from);
                }
                Some(out)
            };
            (masked, of_columns)
        };
        visit(&mut Tile {
            rows,
            columns,
            width,
            of_rows: seen_by_rows,
            of_columns: seen_by_columns,
            strangers,
            slopes,
        });
    }

    /// Writes the logits of an anchor's candidates that are not cancelled to `out`, and −∞ for the others.
    fn see(
        &self,
        grid: &Grid,
        cancelled: &Cancelled,
        anchor: usize,
        others: &Range<usize>,
        logits: &[f32],
        out: &mut [f32],
    ) {
        self.roles.keep_candidates(anchor, others, logits, out);
        if cancelled.is_empty() {
            return;
        }
        let number = grid.anchor_of(anchor);
        for (logit, other) in out.iter_mut().zip(others.clone()) {
            // Positives by label are known; cancellation is for what is not.
            if cancelled.covers(number, *logit, other) && !self.roles.is_positive(anchor, other) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

impl Tile<'_> {
    /// What the anchor in a row sees.
    fn row(&self, row: usize) -> std::slice::Iter<'_, f32> {
        self.of_rows[row * self.width..][..self.width].iter()
    }
}

/// The columns of a tile, as something is gathered for them.
enum Columns<'a, R, C> {
    /// They are anchors as the rows are, of another block.
    Anchors(&'a mut R),
    /// They are the rows themselves.
    Rows,
    /// They are candidates only.
    Others(&'a mut C),
}

impl<R, C> Columns<'_, R, C> {
    fn anchors(&mut self) -> Option<&mut R> {
        match self {
            Self::Anchors(anchors) => Some(anchors),
            _ => None,
        }
    }
}

/// Gradient and weights of a block of anchors.
struct Sloped {
    d: Vec<f32>,
    weights: AnchorWeights,
}

/// The most similar candidates of an anchor, most similar first; of equal ones the first column is.
#[derive(Clone, Debug, Default)]
pub(super) struct Nearest {
    found: Vec<Threshold>,
    n_candidates: usize,
}

/// Whether `a` comes at or before `b` among the most similar.
fn is_nearer(a: &Threshold, b: &Threshold) -> bool {
    a.0 > b.0 || (a.0 == b.0 && a.1 <= b.1)
}

impl Nearest {
    pub(super) fn add(&mut self, candidates: impl Iterator<Item = Threshold>, n: usize) {
        for found in candidates {
            self.n_candidates += 1;
            if self.found.len() < n || self.found.last().is_some_and(|last| is_nearer(&found, last)) {
                let at = self.found.partition_point(|before| is_nearer(before, &found));
                self.found.insert(at, found);
                self.found.truncate(n);
            }
        }
    }

    pub(super) fn threshold(&self, n: usize) -> Threshold {
        let n = n.min(self.n_candidates.saturating_sub(1));
        n.checked_sub(1).and_then(|last| self.found.get(last)).copied().unwrap_or((f32::INFINITY, 0))
    }
}

fn unlocked<T>(states: Vec<Mutex<T>>) -> Vec<T> {
    states.into_iter().map(|state| state.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

fn lock<T>(state: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn resized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// Cuts a range into blocks whose size follows from its length alone.
fn blocks(range: &Range<usize>) -> Vec<Range<usize>> {
    let size = range.len().div_ceil(BLOCKS).next_multiple_of(16).clamp(SMALLEST_BLOCK, LARGEST_BLOCK);
    range.clone().step_by(size).map(|start| start..(start + size).min(range.end)).collect()
}

/// Every pair `i ≤ k` of `n` blocks once, in rounds that use each block at most once: the diagonal, then the rounds of a
/// tournament by the circle method.
fn tournament(n: usize) -> Vec<Vec<(usize, usize)>> {
    let mut rounds = vec![(0..n).map(|i| (i, i)).collect::<Vec<_>>()];
    let players = n.next_multiple_of(2);
    for round in 0..players.saturating_sub(1) {
        // The last player stays; the others turn.
        let seat = |at: usize| if at == 0 { players - 1 } else { (round + at) % (players - 1) };
        let pairs = (0..players / 2).map(|at| (seat(at), seat(players - 1 - at)));
        let pairs = pairs.map(|(a, b)| (a.min(b), a.max(b)));
        rounds.push(pairs.filter(|&(_, b)| b < n).collect());
    }
    rounds
}

/// Every pair of `rows` and `columns` blocks once, in rounds that use each at most once.
fn shifts(rows: usize, columns: usize) -> Vec<Vec<(usize, usize)>> {
    let n = rows.max(columns);
    let round = |shift: usize| {
        (0..rows).map(move |row| (row, (row + shift) % n)).filter(|&(_, column)| column < columns).collect()
    };
    (0..n).map(round).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn rounds_hold_every_pair_once_and_no_block_twice() {
        for n in 1..9 {
            let mut pairs = BTreeSet::new();
            for round in tournament(n) {
                let mut used = BTreeSet::new();
                for (i, k) in round {
                    assert!(i <= k && pairs.insert((i, k)), "{n}: {i}, {k}");
                    assert!(used.insert(i) && (i == k || used.insert(k)), "{n}: {i}, {k}");
                }
            }
            assert_eq!(pairs.len(), n * (n + 1) / 2, "{n}");
        }
        for (rows, columns) in [(1, 1), (1, 5), (5, 1), (3, 4)] {
            let mut pairs = BTreeSet::new();
            for round in shifts(rows, columns) {
                let (mut is, mut ks) = (BTreeSet::new(), BTreeSet::new());
                for (i, k) in round {
                    assert!(pairs.insert((i, k)) && is.insert(i) && ks.insert(k), "{rows}, {columns}: {i}, {k}");
                }
            }
            assert_eq!(pairs.len(), rows * columns);
        }
    }

    #[test]
    fn blocks_cover_a_range_once() {
        for range in [0..1, 3..40, 100..612, 0..8192] {
            let covered: Vec<usize> = blocks(&range).into_iter().flatten().collect();
            assert_eq!(covered, range.collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_nearest_are_cancelled_but_not_the_last_candidate() {
        let threshold = |n: usize| {
            let mut nearest = Nearest::default();
            nearest.add([(1.0, 0), (3.0, 1)].into_iter(), n);
            nearest.add([(3.0, 3), (2.0, 4)].into_iter(), n);
            nearest.threshold(n)
        };
        assert_eq!(threshold(1), (3.0, 1));
        assert_eq!(threshold(2), (3.0, 3));
        assert_eq!(threshold(9), (2.0, 4));
        assert_eq!(Nearest::default().threshold(3), (f32::INFINITY, 0));
    }
}
