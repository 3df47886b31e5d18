//! The engine under every objective: row statistics of a similarity matrix that is never stored, and the way back.
//!
//! Legend: N images, D dimensions; view `i` of `[z1; z2]` shows image `i mod N`.
//!
//! ```text
//! x(i,k) = u_i·u_k / τ              LSE_g(i) = ln Σ_k exp(g·x(i,k))       over the candidates k of anchor i
//! dL/dx(i,k) = Σ_g g · dL/dLSE_g(i) · exp(g·x(i,k) − LSE_g(i))           dL/du = (dL/dx + its transpose) · U / τ
//! For logistic losses also S(i) = Σ_k softplus(x(i,k) + b), with dL/dx(i,k) = dL/dS(i) · sigmoid(x(i,k) + b).
//! ```
//! The first pass visits the matrix in tiles and keeps a few numbers per anchor. An objective turns those into losses and
//! partials, in f64 on the host. The second pass computes each tile again, turns it into slopes and multiplies them
//! with the rows. Time is `O(N²·D)`, memory `O(N·D)` and a tile.

mod exp;
mod host;
mod portable;
mod product;
mod roles;
mod tile;

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};

pub(crate) use roles::Roles;
pub use tile::LogisticSums;

use self::{
    host::{Cancelled, Host},
    portable::Portable,
    tile::{AnchorSums, AnchorWeights, Summands},
};

/// Which views are contrasted with which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// Every view with every other: `2N` anchors.
    AllViews,
    /// The first view of each image with all second views: N anchors.
    FirstToSecond,
    /// Each view of each image with all views of the other kind: `2N` anchors.
    BothWays,
}

impl Field {
    /// How many candidates an anchor has in a batch of `n_images` of which nothing more is known; its partner is none.
    pub fn n_candidates(self, n_images: usize) -> usize {
        let others = n_images.saturating_sub(1);
        match self {
            Self::AllViews => 2 * others,
            Self::FirstToSecond | Self::BothWays => others,
        }
    }
}

/// A rectangle of the similarity matrix: some views as anchors, some as their candidates.
#[derive(Clone, Debug)]
struct Grid {
    rows: Range<usize>,
    columns: Range<usize>,
    /// Whether rows and columns are the same views, so that one tile serves two.
    is_symmetric: bool,
    /// Number of the anchor in the first row.
    first_anchor: usize,
}

impl Grid {
    fn anchor_of(&self, view: usize) -> usize {
        view - self.rows.start + self.first_anchor
    }

    fn anchors_of(&self, views: &Range<usize>) -> Range<usize> {
        self.anchor_of(views.start)..self.anchor_of(views.end)
    }
}

/// What the engine says of every anchor. Logits are cosines divided by the temperature.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RowStatistics {
    /// Logit of every anchor's partner.
    pub positive: Vec<f64>,
    /// The image that every anchor shows.
    pub image: Vec<usize>,
    /// Logit of the two views of every image, also of those without anchors here.
    pub pairs: Vec<f64>,
    /// Largest logit of a candidate; −∞ without any.
    pub hardest: Vec<f64>,
    /// Number of candidates: the partner is none.
    pub n_candidates: Vec<u64>,
    /// For each multiplier `g` that was asked for, `ln Σ exp(g·x)` over the candidates; −∞ without any.
    pub log_sums: Vec<Vec<f64>>,
    /// The bias of the sums of a logistic loss, if such were asked for.
    pub logistic_bias: Option<f64>,
    /// These sums, per anchor; empty if they were not asked for.
    pub logistic: Vec<LogisticSums>,
    /// Sum and number of the logits of the other positives: candidates with the anchor's label.
    pub other_positives: Vec<(f64, u64)>,
    /// `Σ exp(4·cosine − 4)` over all anchors and their candidates: `exp(−2·‖u_i − u_k‖²)`, which uniformity sums.
    pub evenness: f64,
    /// The inverse of the temperature.
    pub inv_temperature: f64,
}

impl RowStatistics {
    fn empty(summands: &Summands) -> Self {
        Self {
            positive: Vec::new(),
            image: Vec::new(),
            pairs: Vec::new(),
            hardest: Vec::new(),
            n_candidates: Vec::new(),
            log_sums: vec![Vec::new(); summands.multipliers.len()],
            logistic_bias: None,
            logistic: Vec::new(),
            other_positives: Vec::new(),
            evenness: 0.0,
            inv_temperature: f64::NAN,
        }
    }

    /// Statistics of one image whose partner has logit `p` and whose `n` candidates all have logit `x`: what an objective
    /// is asked for its reference lines.
    pub(crate) fn uniform(
        p: f64,
        x: f64,
        n: u64,
        multipliers: &[f64],
        bias: Option<f64>,
        inv_temperature: f64,
    ) -> Self {
        Self {
            positive: vec![p; 2],
            image: vec![0; 2],
            pairs: vec![p],
            hardest: vec![x; 2],
            n_candidates: vec![n; 2],
            log_sums: multipliers.iter().map(|g| vec![(n as f64).ln() + g * x; 2]).collect(),
            logistic_bias: bias,
            logistic: bias.map(|bias| vec![LogisticSums::uniform(n as f64, x, bias); 2]).unwrap_or_default(),
            other_positives: vec![(0.0, 0); 2],
            evenness: f64::NAN,
            inv_temperature,
        }
    }

    /// Number of anchors.
    pub fn n_anchors(&self) -> usize {
        self.positive.len()
    }

    fn extend(&mut self, sums: &AnchorSums, summands: &Summands) {
        let hardest = sums.hardest.iter().copied().map(f64::from);
        for ((log_sums, of), &g) in self.log_sums.iter_mut().zip(&sums.sums).zip(&summands.multipliers) {
            log_sums.extend(of.iter().zip(hardest.clone()).map(|(&sum, hardest)| {
                if hardest == f64::NEG_INFINITY { hardest } else { sum.ln() + f64::from(g) * hardest }
            }));
        }
        self.hardest.extend(hardest);
        self.logistic.extend(&sums.logistic);
        self.evenness += sums.evenness;
        self.n_candidates.extend(&sums.n_candidates);
        self.other_positives.extend(&sums.positives);
    }
}

/// Losses of all anchors, and how their sum changes with the statistics.
#[derive(Clone, Debug, Default)]
pub struct Partials {
    /// Loss of every anchor, in nats.
    pub losses: Vec<f64>,
    /// `dL/dp` of every anchor.
    pub positive: Vec<f64>,
    /// `dL/dLSE_g` of every multiplier and anchor.
    pub log_sums: Vec<Vec<f64>>,
    /// `dL/dΣ softplus` of every anchor; empty if such sums were not asked for.
    pub logistic: Vec<f64>,
    /// `dL/dx` of each other positive, per anchor; empty if they do not matter.
    pub other_positives: Vec<f64>,
    /// `dL/dp` of every image's pair beyond what the anchors say; empty if it is nothing.
    pub pairs: Vec<f64>,
    /// Whether an estimate was replaced by its bound, per anchor; empty for objectives without one.
    pub clamped: Vec<bool>,
}

impl Partials {
    /// Multiplies all slopes, not the losses.
    fn scale(&mut self, factor: f64) {
        let others = [&mut self.positive, &mut self.logistic, &mut self.other_positives, &mut self.pairs];
        let slopes = self.log_sums.iter_mut().chain(others);
        slopes.flatten().for_each(|slope| *slope *= factor);
    }

    fn weights(&self, statistics: &RowStatistics, summands: &Summands, anchors: Range<usize>) -> AnchorWeights {
        let hardest = &statistics.hardest[anchors.clone()];
        let leads = statistics.log_sums.iter().zip(&summands.multipliers).map(|(log_sums, &g)| {
            let sums = log_sums[anchors.clone()].iter().zip(hardest);
            sums.map(|(sum, hardest)| if sum.is_finite() { round(sum - f64::from(g) * hardest) } else { 0.0 }).collect()
        });
        let sums = self.log_sums.iter().zip(&statistics.log_sums).zip(&summands.multipliers);
        let weights = sums.map(|((slopes, sums), &g)| {
            let slopes = slopes[anchors.clone()].iter().zip(&sums[anchors.clone()]);
            slopes.map(|(slope, sum)| if sum.is_finite() { round(f64::from(g) * slope) } else { 0.0 }).collect()
        });
        let of_anchors = |slopes: &[f64]| -> Vec<f32> {
            slopes.get(anchors.clone()).unwrap_or_default().iter().copied().map(round).collect()
        };
        AnchorWeights {
            weights: weights.collect(),
            leads: leads.collect(),
            origins: hardest.iter().map(|&x| if x.is_finite() { round(x) } else { 0.0 }).collect(),
            logistic: of_anchors(&self.logistic),
            positives: of_anchors(&self.other_positives),
        }
    }
}

/// The nearest f32.
#[allow(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
pub(crate) fn round(value: f64) -> f32 {
    value as f32
}

/// The unit rows that are contrasted, and where the work is done.
pub(crate) struct Engine {
    place: Place,
    n_images: usize,
    n_dims: usize,
    grids: Vec<Grid>,
    roles: Roles,
    inv_temperature: f64,
    device: Device,
}

/// The unit rows of all views, `[2N, D]`.
enum Place {
    Host(Vec<f32>),
    Device(Box<Tensor<2>>),
}

impl Engine {
    /// Contrasts unit rows `[2N, D]` in f32, without autodiff, on the processor if they are there. The anchors are views of
    /// `images`, the candidates of all.
    pub(crate) fn new(views: Tensor<2>, images: Range<usize>, field: Field, roles: Roles, temperature: f64) -> Self {
        let on_host = is_host(&views.device());
        Self::at(on_host, views, images, field, roles, temperature)
    }

    fn at(on_host: bool, views: Tensor<2>, images: Range<usize>, field: Field, roles: Roles, temperature: f64) -> Self {
        let [n_views, n_dims] = views.dims();
        let n = n_views / 2;
        let (first, second) = (images.clone(), n + images.start..n + images.end);
        let rectangles = match field {
            Field::AllViews if images == (0..n) => vec![(0..n_views, 0..n_views)],
            Field::AllViews => vec![(first, 0..n_views), (second, 0..n_views)],
            Field::FirstToSecond => vec![(first, n..n_views)],
            Field::BothWays => vec![(first, n..n_views), (second, 0..n)],
        };
        let mut first_anchor = 0;
        let mut grids = Vec::new();
        for (rows, columns) in rectangles {
            let n_anchors = rows.len();
            grids.push(Grid { is_symmetric: rows == columns, rows, columns, first_anchor });
            first_anchor += n_anchors;
        }
        let device = views.device();
        let place = if on_host { Place::Host(values(views)) } else { Place::Device(Box::new(views)) };
        Self { place, n_images: n, n_dims, grids, roles, inv_temperature: temperature.recip(), device }
    }

    /// Runs the first pass, lets the objective speak, and runs the second.
    ///
    /// `total` is the number of anchors that the loss is a mean over, here and elsewhere.
    pub(crate) fn run(
        self,
        multipliers: &[f64],
        bias: Option<f64>,
        n_cancelled: usize,
        total: usize,
        objective: impl FnOnce(&RowStatistics) -> Partials,
    ) -> Contrasted {
        let summands =
            Summands { multipliers: multipliers.iter().copied().map(round).collect(), bias: bias.map(round) };
        let pairs = self.pair_logits();
        let Self { place, n_images, n_dims, grids, roles, inv_temperature, device } = self;
        let describe = |mut statistics: RowStatistics| {
            let views = grids.iter().flat_map(|grid| grid.rows.clone());
            statistics.image = views.map(|view| view % n_images).collect();
            statistics.positive = statistics.image.iter().map(|&image| pairs[image]).collect();
            statistics.pairs = pairs;
            statistics.inv_temperature = inv_temperature;
            statistics.logistic_bias = bias;
            let partials = objective(&statistics);
            let mut slopes = partials.clone();
            slopes.scale((total as f64).recip());
            let of_pairs = slopes_of_pairs(&statistics, &slopes);
            (statistics, partials, slopes, of_pairs)
        };
        match place {
            Place::Host(views) => {
                let host = Host::new(views, n_dims, round(inv_temperature), &roles);
                let cancelled = if n_cancelled == 0 { Cancelled::default() } else { host.cancel(&grids, n_cancelled) };
                let (statistics, partials, slopes, of_pairs) = describe(host.statistics(&grids, &summands, &cancelled));
                let mut d_views = host.gradient(&grids, &summands, &cancelled, &statistics, &slopes);
                host.add_pairs(&of_pairs, inv_temperature, &mut d_views);
                let d_views = Tensor::from_data(TensorData::new(d_views, [2 * n_images, n_dims]), &device);
                Contrasted { statistics, partials, d_views }
            }
            Place::Device(views) => {
                let portable = Portable { views: *views, inv_temperature, roles: &roles };
                let cancelled =
                    if n_cancelled == 0 { Cancelled::default() } else { portable.cancel(&grids, n_cancelled) };
                let (statistics, partials, slopes, of_pairs) =
                    describe(portable.statistics(&grids, &summands, &cancelled));
                let d_views = portable.gradient(&grids, &summands, &cancelled, &statistics, &slopes);
                let d_views = d_views + portable.of_pairs(&of_pairs);
                Contrasted { statistics, partials, d_views }
            }
        }
    }

    /// Logits of the two views of every image.
    fn pair_logits(&self) -> Vec<f64> {
        match &self.place {
            Place::Host(views) => {
                let (first, second) = views.split_at(self.n_images * self.n_dims);
                let pairs = first.chunks_exact(self.n_dims).zip(second.chunks_exact(self.n_dims));
                let dot = |(a, b): (&[f32], &[f32])| -> f64 {
                    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                };
                pairs.map(|pair| dot(pair) * self.inv_temperature).collect()
            }
            Place::Device(views) => {
                let half = |view: usize| views.as_ref().clone().narrow(0, view * self.n_images, self.n_images);
                let logits = (half(0) * half(1)).sum_dim(1).into_data();
                logits.iter::<f64>().map(|cosine| cosine * self.inv_temperature).collect()
            }
        }
    }
}

/// What comes out of both passes.
pub(crate) struct Contrasted {
    pub(crate) statistics: RowStatistics,
    /// Slopes are those of the anchors' own losses, not of the mean.
    pub(crate) partials: Partials,
    /// `dL/du` of all views, `[2N, D]`.
    pub(crate) d_views: Tensor<2>,
}

/// `dL/dp` of the pair of every image.
fn slopes_of_pairs(statistics: &RowStatistics, slopes: &Partials) -> Vec<f64> {
    let mut of_pairs = if slopes.pairs.is_empty() { vec![0.0; statistics.pairs.len()] } else { slopes.pairs.clone() };
    for (&image, slope) in statistics.image.iter().zip(&slopes.positive) {
        of_pairs[image] += slope;
    }
    of_pairs
}

/// Whether tensors of a device lie in the processor's memory.
fn is_host(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    if device.clone().without_autodiff() == Device::flex() {
        return true;
    }
    #[cfg(feature = "ndarray")]
    if device.clone().without_autodiff() == Device::ndarray() {
        return true;
    }
    let _ = device;
    false
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    let data = tensor.into_data();
    data.try_to_vec::<f32>().unwrap_or_else(|_| data.iter::<f32>().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit rows and what is asked of them, at random but repeatably.
    fn views(n_images: usize, n_dims: usize) -> Tensor<2> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 24) - 0.5
        };
        let rows = (0..2 * n_images).flat_map(|_| {
            let row: Vec<f64> = (0..n_dims).map(|_| next()).collect();
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.into_iter().map(move |x| round(x / norm)).collect::<Vec<_>>()
        });
        Tensor::from_data(TensorData::new(rows.collect::<Vec<_>>(), [2 * n_images, n_dims]), &Device::flex())
    }

    /// Slopes of every kind, different for every anchor.
    fn partials(rows: &RowStatistics) -> Partials {
        let slopes = |k: f64| (0..rows.n_anchors()).map(|i| (i as f64 + k).sin()).collect::<Vec<_>>();
        Partials {
            losses: slopes(0.0),
            positive: slopes(1.0),
            log_sums: vec![slopes(2.0), slopes(3.0)],
            logistic: slopes(5.0),
            other_positives: slopes(4.0),
            pairs: (0..rows.pairs.len()).map(|i| (i as f64).cos()).collect(),
            clamped: Vec::new(),
        }
    }

    #[test]
    fn both_engines_say_the_same() {
        let n = 37;
        let images: Vec<u64> = (0..n as u64).collect();
        let labels: Vec<u64> = images.iter().map(|image| image % 4).collect();
        let sources: Vec<u64> = images.iter().map(|image| image / 2).collect();
        let of_all = || Roles::of_images(n);
        let one_way = |anchor: usize, candidate: usize| (anchor + 2 * candidate).is_multiple_of(5);
        let all_roles = [
            of_all(),
            of_all().with_labels(&labels),
            of_all().with_sources(&sources),
            of_all().with_labels(&labels).with_left_out(std::sync::Arc::new(one_way)),
        ];
        for roles in all_roles {
            for field in [Field::AllViews, Field::FirstToSecond, Field::BothWays] {
                for (images, n_cancelled) in [(0..n, 0), (5..20, 0), (0..n, 4), (5..20, 4)] {
                    let run = |on_host| {
                        Engine::at(on_host, views(n, 6), images.clone(), field, roles.clone(), 0.2).run(
                            &[1.5, 0.5],
                            Some(-2.0),
                            n_cancelled,
                            7,
                            partials,
                        )
                    };
                    let (host, portable) = (run(true), run(false));
                    let case = format!("{roles:?}, {field:?}, {images:?}, {n_cancelled} cancelled");
                    let near = |a: f64, b: f64| a == b || (a - b).abs() < 1e-5 * (1.0 + a.abs());
                    let (a, b) = (&host.statistics, &portable.statistics);
                    assert_eq!((&a.n_candidates, &a.image), (&b.n_candidates, &b.image), "{case}");
                    let sums = |s: &RowStatistics| s.other_positives.iter().map(|(sum, _)| *sum).collect::<Vec<_>>();
                    let logistic = |s: &RowStatistics| -> Vec<f64> {
                        let numbers = |of: &LogisticSums| [of.losses, of.bias_slope, of.log_scale_slope];
                        s.logistic.iter().flat_map(numbers).collect()
                    };
                    assert_eq!(logistic(a).len(), 3 * a.n_anchors(), "{case}");
                    let numbers = |s: &RowStatistics| {
                        let of_anchors = [s.positive.clone(), s.hardest.clone(), s.log_sums.concat(), sums(s)].concat();
                        [of_anchors, logistic(s), vec![s.evenness]].concat()
                    };
                    assert!(numbers(a).into_iter().zip(numbers(b)).all(|(a, b)| near(a, b)), "{case}");
                    let (a, b) = (values(host.d_views), values(portable.d_views));
                    assert!(a.into_iter().zip(b).all(|(a, b)| near(a.into(), b.into())), "{case}");
                }
            }
        }
    }

    #[test]
    fn threads_do_not_change_the_bits() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| {
                let engine = Engine::new(views(300, 16), 0..300, Field::AllViews, Roles::of_images(300), 0.1);
                let contrasted = engine.run(&[1.5, 0.5], Some(-2.0), 2, 600, partials);
                (contrasted.statistics.log_sums, contrasted.statistics.logistic, values(contrasted.d_views))
            })
        };
        let one = run(1);
        assert_eq!(one, run(2));
        assert_eq!(one, run(5));
    }
}
