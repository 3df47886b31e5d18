//! `ImageSource`: pictures that are in memory already.

use std::borrow::Cow;

use twoview_pixels::Image;

use crate::{ReadBuffers, SampleError, Source};

/// Pictures in memory, each under a name, without labels.
#[derive(Clone, Debug, Default)]
pub struct ImageSource {
    pictures: Vec<(String, Image)>,
}

impl ImageSource {
    /// These pictures in this order.
    ///
    /// # Example
    /// ```
    /// use twoview_data::{ImageSource, Source};
    /// use twoview_pixels::Image;
    /// let source = ImageSource::new([("red".to_owned(), Image::filled(4, 4, [255, 0, 0])?)]);
    /// assert_eq!((source.len(), source.name(0)), (1, "red".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(pictures: impl IntoIterator<Item = (String, Image)>) -> Self {
        Self { pictures: pictures.into_iter().collect() }
    }
}

impl Source for ImageSource {
    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn label(&self, _: usize) -> Option<u32> {
        None
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        Cow::Borrowed(&self.pictures[i].0)
    }

    fn read<'a>(&'a self, i: usize, _: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
        Ok(&self.pictures[i].1)
    }
}
