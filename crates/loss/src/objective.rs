//! What all contrastive objectives can do.

use std::{fmt::Debug, ops::Range};

use burn::tensor::{FloatDType, Tensor};

use crate::{
    Contrast, ContrastStats, Field, PairedViews, Partials, RowStatistics,
    engine::{Contrasted, Engine},
};

/// A loss over paired views: a formula of what the engine says of every anchor.
///
/// To write one, say which log-sum-exps it reads ([`multipliers`](Self::multipliers)) and turn them into losses and partial
/// derivatives ([`partials`](Self::partials)); tiles, masks, gradients, diagnostics and the reference lines follow from
/// these two.
///
/// The contract, which one test suite holds every objective to: the value and the gradient do not depend on the order
/// of the images, on the scale of the embeddings or, unless the field goes one way, on which view comes first;
/// [`forward`](Self::forward) and [`contrast`](Self::contrast) agree with each other and with finite differences; finite
/// embeddings, zero rows among them, give finite results.
///
/// # Cost
/// Time `O(N²·D)`: each half of the similarity matrix twice, once for the statistics and once for the gradient. Memory
/// `O(N·D)` and one tile per thread; no `[2N, 2N]` matrix exists. On the processor (flex, ndarray) tiles are spread over
/// rayon's threads and results do not depend on how many there are; elsewhere they are strips of Burn's operations.
pub trait Objective: Debug + Send + Sync {
    /// The temperature τ that divides the cosines.
    fn temperature(&self) -> f64;

    /// Which views are contrasted with which.
    fn field(&self) -> Field {
        Field::AllViews
    }

    /// The multipliers `g > 0` of the log-sum-exps `ln Σ exp(g·x)` over the candidates that the formula reads.
    fn multipliers(&self) -> Vec<f64> {
        vec![1.0]
    }

    /// The bias b of the logistic sums `Σ softplus(x + b)` over the candidates that the formula reads on a batch of
    /// `n_images`; None if it reads none.
    fn logistic_bias(&self, n_images: usize) -> Option<f64> {
        let _ = n_images;
        None
    }

    /// Losses and partial derivatives of all anchors. `rows.log_sums` begins with those of
    /// [`multipliers`](Self::multipliers), in their order.
    fn partials(&self, rows: &RowStatistics) -> Partials;

    /// How many of each anchor's most similar candidates are cancelled as probable false negatives; one is always kept.
    /// Costs a third pass, and memory for that many numbers per anchor: a few are meant.
    ///
    /// # Source
    /// Huynh et al., *Boosting Contrastive Self-Supervised Learning with False Negative Cancellation*, WACV 2022.
    /// <https://arxiv.org/abs/2011.11765>. They rank by a support set of further views; here the anchor itself ranks.
    fn n_cancelled(&self) -> usize {
        0
    }

    /// Whether the formula reads [`RowStatistics::other_positives`], and so needs labels.
    fn is_supervised(&self) -> bool {
        false
    }

    /// The same objective at a point of training, from 0 at its beginning to 1 at its end; `None` where it does not change.
    fn annealed(&self, progress: f64) -> Option<Box<dyn Objective>> {
        let _ = progress;
        None
    }

    /// The loss and its exact gradient at every embedding, computed without a graph, with diagnostics.
    ///
    /// The views may live on an autodiff device; the results do not. Waits for the device between the passes.
    fn contrast(&self, views: PairedViews) -> Contrast {
        let images = 0..views.n_images();
        contrast_images(self, views, images)
    }

    /// The part of [`contrast`](Self::contrast) whose anchors show `images`: local rows against all columns.
    ///
    /// A batch that is cut over devices or machines gathers its embeddings, and each calls this with its own images. The
    /// losses are already divided by the number of all anchors: over a partition of the images, losses and gradients add up
    /// to those of the whole batch. Each gradient covers all rows, because an image is also a candidate elsewhere.
    ///
    /// In the diagnostics the loss is this share of the whole; what is said of anchors (InfoNCE, retrieval, clamping) is the mean
    /// over these, and what is said of embeddings is of the whole batch.
    ///
    /// # Errors
    /// [`ShardError`] unless `images` are some of the batch.
    fn contrast_shard(&self, views: PairedViews, images: Range<usize>) -> Result<Contrast, ShardError> {
        let n_images = views.n_images();
        if images.start >= images.end || images.end > n_images {
            return Err(ShardError { images, n_images });
        }
        Ok(contrast_images(self, views, images))
    }

    /// The loss in nats, `[1]`: the mean over the anchors. Differentiable once.
    ///
    /// The value and `dL/dz` are those of [`contrast`](Self::contrast); the graph holds one product per element of `z`.
    fn forward(&self, views: PairedViews) -> Tensor<1> {
        let [z1, z2] = views.tensors();
        let contrast = self.contrast(views);
        let slope = sloped(z1, contrast.d_z1) + sloped(z2, contrast.d_z2);
        slope.add_scalar(contrast.stats.loss)
    }

    /// The loss of an encoder that tells nothing apart on a batch of `n_images`, 2 at least, in nats: all cosines are 1. Where
    /// their common value matters, it is the best one.
    fn chance(&self, n_images: usize) -> f64 {
        loss_at(self, n_images, 1.0)
    }

    /// The loss of an ideal encoder on a batch of `n_images`, 2 at least, in nats: partners equal, other images orthogonal.
    /// None where it depends on the labels.
    fn floor(&self, n_images: usize) -> Option<f64> {
        (!self.is_supervised()).then(|| loss_at(self, n_images, 0.0))
    }
}

/// Zero, whose gradient at `x` is `d`.
pub(crate) fn sloped<const D: usize>(x: Tensor<D>, d: Tensor<D>) -> Tensor<1> {
    let d = if x.is_autodiff() { Tensor::from_inner(d) } else { d };
    let product = (x.cast(FloatDType::F32) * d.cast(FloatDType::F32)).sum();
    // The value of the sum is taken away again, exactly; its slope stays.
    product.clone() - product.detach()
}

/// The loss where partners coincide and all other cosines are `cosine`.
fn loss_at<O: Objective + ?Sized>(objective: &O, n_images: usize, cosine: f64) -> f64 {
    let n_images = n_images.max(2);
    let n_candidates = objective.field().n_candidates(n_images).saturating_sub(objective.n_cancelled()).max(1);
    let inv_temperature = objective.temperature().recip();
    let rows = RowStatistics::uniform(
        inv_temperature,
        cosine * inv_temperature,
        n_candidates as u64,
        &objective.multipliers(),
        objective.logistic_bias(n_images),
        inv_temperature,
    );
    objective.partials(&rows).losses[0]
}

/// The contrast whose anchors show some of the images.
fn contrast_images<O: Objective + ?Sized>(objective: &O, views: PairedViews, images: Range<usize>) -> Contrast {
    let views = views.without_autodiff();
    let n_images = views.n_images();
    let n_anchors = match objective.field() {
        Field::FirstToSecond => n_images,
        Field::AllViews | Field::BothWays => 2 * n_images,
    };
    let roles = views.roles().clone();
    // Labels are for those who learn from them; elsewhere they would only be in the way.
    let roles = if objective.is_supervised() { roles } else { roles.without_labels() };
    let is_complete = roles.is_complete() && objective.n_cancelled() == 0;
    let unit = views.unit_rows();
    let multipliers = Multipliers::new(objective.multipliers());
    let engine = Engine::new(unit.rows.clone(), images, objective.field(), roles, objective.temperature());
    let bias = objective.logistic_bias(n_images);
    let contrasted =
        engine.run(&multipliers.all, bias, objective.n_cancelled(), n_anchors, |rows| objective.partials(rows));
    let stats = ContrastStats::new(
        &contrasted,
        &unit.rows,
        n_anchors,
        &multipliers,
        objective.field(),
        is_complete,
        objective.is_supervised(),
    );
    let Contrasted { d_views, partials, statistics } = contrasted;
    let [d_z1, d_z2] = unit.gradient(d_views);
    Contrast { d_z1, d_z2, anchor_losses: partials.losses, rows: statistics, stats }
}

/// Images that are not some of a batch.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("a shard must be some of the {n_images} images of its batch, got {images:?}")]
pub struct ShardError {
    /// The images asked for.
    pub images: Range<usize>,
    /// Images of the batch.
    pub n_images: usize,
}

/// The multipliers of a formula, and behind them 1, which the diagnostics read.
pub(crate) struct Multipliers {
    pub(crate) all: Vec<f64>,
    /// Where `g = 1` is.
    pub(crate) plain: usize,
}

impl Multipliers {
    fn new(mut all: Vec<f64>) -> Self {
        let plain = all.iter().position(|&g| g == 1.0).unwrap_or(all.len());
        if plain == all.len() {
            all.push(1.0);
        }
        Self { all, plain }
    }
}
