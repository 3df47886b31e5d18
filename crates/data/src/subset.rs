//! `Subset`: some of the pictures of a source.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use twoview_pixels::Image;

use crate::{ReadBuffers, SampleError, Source};

/// Some pictures of a source, in an order of their own, under their names.
pub struct Subset {
    source: Arc<dyn Source>,
    members: Vec<usize>,
}

impl Subset {
    /// The pictures `members` of `source`, numbered from 0 in that order; each is below the source's length.
    pub fn new(source: Arc<dyn Source>, members: Vec<usize>) -> Self {
        Self { source, members }
    }
}

impl Source for Subset {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn classes(&self) -> &[String] {
        self.source.classes()
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.source.label(self.members[i])
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
}
