//! `Subset`: some of the pictures of a source.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use twoview_pixels::Image;

use crate::{ReadBuffers, SampleError, Source};

/// Some pictures of a source, in an order of their own, under their names.
pub struct Subset {
    source: Arc<dyn Source>,
    members: Vec<usize>,
    /// Other classes, and which of them each of the source's is.
    classes: Option<(Vec<String>, Vec<u32>)>,
}

impl Subset {
    /// The pictures `members` of `source`, numbered from 0 in that order; each is below the source's length.
    pub fn new(source: Arc<dyn Source>, members: Vec<usize>) -> Self {
        Self { source, members, classes: None }
    }

    /// The same pictures, labelled by their place in `classes`, which may name more classes than they have: those of the
    /// training pictures for a test set that lacks some. `None` where one of their own is not among them.
    #[must_use]
    pub fn with_classes(self, classes: &[String]) -> Option<Self> {
        let places: HashMap<&String, u32> = classes.iter().zip(0..).collect();
        let places = self.source.classes().iter().map(|own| places.get(own).copied()).collect::<Option<Vec<u32>>>()?;
        Some(Self { classes: Some((classes.to_vec(), places)), ..self })
    }
}

impl Source for Subset {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn classes(&self) -> &[String] {
        self.classes.as_ref().map_or_else(|| self.source.classes(), |(classes, _)| classes)
    }

    fn label(&self, i: usize) -> Option<u32> {
        let label = self.source.label(self.members[i])?;
        Some(self.classes.as_ref().map_or(label, |(_, places)| places[label as usize]))
    }

    fn group(&self, i: usize) -> u64 {
        self.source.group(self.members[i])
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        self.source.name(self.members[i])
    }

    fn path(&self, i: usize) -> PathBuf {
        self.source.path(self.members[i])
    }

    fn read<'a>(&'a self, i: usize, buffers: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
        self.source.read(self.members[i], buffers)
    }

    fn read_file(&self, i: usize, buffers: &mut ReadBuffers) -> Result<bool, SampleError> {
        self.source.read_file(self.members[i], buffers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PatternsConfig, PatternsSource, Split};

    #[test]
    fn members_keep_everything_but_their_number() {
        let config = PatternsConfig { seed: 0, split: Split::Train, per_class: 2 };
        let source = Arc::new(PatternsSource::new(config).expect("a set"));
        let subset = Subset::new(source.clone(), vec![13, 4]);
        assert_eq!((subset.len(), subset.classes()), (2, source.classes()));
        for (i, member) in [13, 4].into_iter().enumerate() {
            assert_eq!((subset.name(i), subset.label(i)), (source.name(member), source.label(member)));
            assert_eq!((subset.path(i), subset.group(i)), (source.path(member), source.group(member)));
            assert_eq!(subset.image(i).expect("a picture"), source.image(member).expect("a picture"));
        }
    }

    #[test]
    fn labels_go_by_the_classes_of_another_set() {
        let config = PatternsConfig { seed: 0, split: Split::Train, per_class: 1 };
        let source = Arc::new(PatternsSource::new(config).expect("a set"));
        let more: Vec<String> = ["a"].into_iter().map(str::to_owned).chain(source.classes().to_vec()).collect();
        let subset = Subset::new(source.clone(), vec![3, 0]).with_classes(&more).expect("all are there");
        assert_eq!(subset.classes(), more);
        for (i, member) in [3, 0].into_iter().enumerate() {
            assert_eq!(subset.label(i), source.label(member).map(|label| label + 1));
        }
        assert!(Subset::new(source.clone(), vec![3]).with_classes(&source.classes()[1..]).is_none());
    }
}
