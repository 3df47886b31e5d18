//! Who is a candidate of whom.
//!
//! Views are numbered as the rows of `[z1; z2]`: view `i` shows image `i mod N`.

use std::{fmt, ops::Range, sync::Arc};

/// Says of (anchor, candidate), both numbered as the rows of `[z1; z2]`, whether the candidate is to be left out.
pub(crate) type LeftOut = Arc<dyn Fn(usize, usize) -> bool + Send + Sync>;

/// Which views an anchor is contrasted with.
///
/// An anchor is never its own candidate. Its partner is accounted for apart, and is never left out.
#[derive(Clone)]
pub(crate) struct Roles {
    /// Per view. Views with one key are never candidates of each other; the two views of an image share theirs.
    sources: Arc<[u32]>,
    /// Per view, where views with one label are positives of each other.
    labels: Option<Arc<[u32]>>,
    left_out: Option<LeftOut>,
    /// Whether a key spans several images.
    grouped: bool,
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roles")
            .field("views", &self.sources.len())
            .field("grouped", &self.grouped)
            .field("labelled", &self.labels.is_some())
            .field("left_out", &self.left_out.is_some())
            .finish()
    }
}

/// For each view of `[z1; z2]` the number of the first image with the same id.
fn keys<T: PartialEq + std::hash::Hash + Eq>(ids: &[T]) -> (Arc<[u32]>, bool) {
    let mut first = std::collections::HashMap::new();
    let keys: Vec<u32> = (0_u32..).zip(ids).map(|(image, id)| *first.entry(id).or_insert(image)).collect();
    let grouped = first.len() < ids.len();
    (keys.iter().chain(&keys).copied().collect(), grouped)
}

impl Roles {
    /// Every view of another image is a candidate.
    pub(crate) fn of_images(n_images: usize) -> Self {
        let ids: Vec<usize> = (0..n_images).collect();
        Self { sources: keys(&ids).0, labels: None, left_out: None, grouped: false }
    }

    /// Leaves out the views of images with the anchor's id. `ids` are one per image.
    pub(crate) fn with_sources(mut self, ids: &[u64]) -> Self {
        (self.sources, self.grouped) = keys(ids);
        self
    }

    /// Forgets the labels.
    pub(crate) fn without_labels(self) -> Self {
        Self { labels: None, ..self }
    }

    /// Makes the views of images with the anchor's label its positives. `labels` are one per image.
    pub(crate) fn with_labels(self, labels: &[u64]) -> Self {
        Self { labels: Some(keys(labels).0), ..self }
    }

    /// Leaves out what `left_out` says of (anchor, candidate), besides what is left out already.
    pub(crate) fn with_left_out(mut self, left_out: LeftOut) -> Self {
        self.left_out = Some(match self.left_out {
            None => left_out,
            Some(before) => Arc::new(move |anchor, candidate| before(anchor, candidate) || left_out(anchor, candidate)),
        });
        self
    }

    pub(crate) fn n_images(&self) -> usize {
        self.sources.len() / 2
    }

    /// Whether every view of another image is a candidate.
    pub(crate) fn is_complete(&self) -> bool {
        !self.grouped && self.left_out.is_none()
    }

    pub(super) fn sources(&self) -> &[u32] {
        &self.sources
    }

    pub(super) fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    pub(super) fn left_out(&self) -> Option<&LeftOut> {
        self.left_out.as_ref()
    }

    /// Whether what is left out is left out both ways.
    pub(super) fn is_symmetric(&self) -> bool {
        self.left_out.is_none()
    }

    /// Whether all of these views are candidates of all of those, and positives of none.
    pub(super) fn are_strangers(&self, a: &Range<usize>, b: &Range<usize>) -> bool {
        let apart = |a: &Range<usize>, b: &Range<usize>| a.end <= b.start || b.end <= a.start;
        let (a, b) = (self.images(a), self.images(b));
        self.is_complete() && self.labels.is_none() && a.iter().all(|a| b.iter().all(|b| apart(a, b)))
    }

    /// The images that some views show, as runs.
    fn images(&self, views: &Range<usize>) -> [Range<usize>; 2] {
        let n = self.n_images();
        [0..n, n..2 * n].map(|kind| {
            let (start, end) = (views.start.max(kind.start), views.end.min(kind.end));
            if start < end { start - kind.start..end - kind.start } else { 0..0 }
        })
    }

    /// Writes the logits of an anchor's candidates to `out`, and −∞ for the others.
    #[inline(always)]
    pub(super) fn keep_candidates(&self, anchor: usize, candidates: &Range<usize>, logits: &[f32], out: &mut [f32]) {
        let key = self.sources[anchor];
        for ((out, &logit), &other) in out.iter_mut().zip(logits).zip(&self.sources[candidates.clone()]) {
            *out = if other == key { f32::NEG_INFINITY } else { logit };
        }
        if let Some(left_out) = &self.left_out {
            for (out, candidate) in out.iter_mut().zip(candidates.clone()) {
                if self.sources[candidate] != key && left_out(anchor, candidate) {
                    *out = f32::NEG_INFINITY;
                }
            }
        }
    }

    /// Whether a candidate is another positive of the anchor, besides its partner.
    pub(super) fn is_positive(&self, anchor: usize, candidate: usize) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels[anchor] == labels[candidate])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(roles: &Roles, anchor: usize, candidates: Range<usize>) -> Vec<bool> {
        let mut out = vec![0.0; candidates.len()];
        roles.keep_candidates(anchor, &candidates, &vec![1.0; candidates.len()], &mut out);
        out.into_iter().map(|logit| logit == 1.0).collect()
    }

    #[test]
    fn an_anchor_meets_everyone_but_itself_and_its_partner() {
        let roles = Roles::of_images(3);
        assert_eq!(kept(&roles, 1, 0..6), [true, false, true, true, false, true]);
        assert_eq!(kept(&roles, 0, 4..6), [true, true]);
        assert_eq!(kept(&roles, 1, 4..6), [false, true]);
    }

    #[test]
    fn known_false_negatives_are_left_out() {
        let grouped = Roles::of_images(3).with_sources(&[7, 9, 7]);
        assert_eq!(kept(&grouped, 0, 0..6), [false, true, false, false, true, false]);
        assert!(!grouped.is_complete() && grouped.is_symmetric());
        let one_way = Roles::of_images(3).with_left_out(Arc::new(|anchor, candidate| (anchor, candidate) == (0, 5)));
        assert_eq!(kept(&one_way, 0, 0..6), [false, true, true, false, true, false]);
        assert_eq!(kept(&one_way, 5, 0..6), [true, true, false, true, true, false]);
    }

    #[test]
    fn strangers_share_no_image() {
        let roles = Roles::of_images(8);
        assert!(roles.are_strangers(&(0..4), &(4..8)));
        assert!(!roles.are_strangers(&(0..4), &(8..12)), "partners");
        assert!(!roles.are_strangers(&(0..4), &(6..9)), "view 8 shows image 0");
        assert!(!roles.clone().with_labels(&[0; 8]).are_strangers(&(0..4), &(4..8)));
        assert!(!roles.with_sources(&[0; 8]).are_strangers(&(0..4), &(4..8)));
    }
}
