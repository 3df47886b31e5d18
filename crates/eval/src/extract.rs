//! From pictures to features: [`extract_features`], and the two ways a [`FeatureBank`] is made of a source.
//!
//! `N` pictures, `F` feature dimensions, `S` side in pixels.

use burn::tensor::{DataError, Tensor, TensorData};
use thiserror::Error;
use twoview_data::{LoaderError, Normalize, SampleError, Source, image_batches};
use twoview_encoder::FrozenEncoder;

use crate::{FeatureBank, FeatureBankError};

/// Pixels that enter the encoder at once, about a megabyte as f32. The first layers need some hundred times their
/// input, so this keeps extraction below 100 MiB at any picture size without starving the cores.
const PIXELS_PER_BATCH: usize = 1 << 18;

/// Why pictures did not become features.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// The source is empty or the size impossible.
    #[error(transparent)]
    Pictures(#[from] LoaderError),
    /// A picture cannot be had; nothing takes its place, because that would falsify the evaluation.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// A picture has no label.
    #[error("{name} has no label: expected labelled pictures, one sub-folder for each class")]
    Unlabelled {
        /// The first picture without one.
        name: String,
    },
    /// A classifier has no answer.
    #[error("what the classifier says of {name} is not finite: its training went astray; lower the learning rate")]
    NotFinite {
        /// The first such picture.
        name: String,
    },
    /// The features do not form a bank.
    #[error(transparent)]
    Bank(#[from] FeatureBankError),
    /// The device did not hand the features over.
    #[error("the features cannot be read from the device as f32: {0}")]
    Device(#[from] DataError),
}

/// The features of every picture of `source`, in its order, without augmentation.
///
/// Each picture is resized (shorter side to `size_px`), its middle square cut out, normalized and shown to the encoder
/// once. Labels are not needed. `progress(done, total)` is called after each batch, on the calling thread.
///
/// # Shapes
/// - returns: `[N, F]`, row-major, `F =` [`FrozenEncoder::feature_dim`]
///
/// # Errors
/// [`ExtractError`] if the source is empty, the size is out of range, or a picture cannot be decoded.
/// # Cost
/// One forward pass per picture; memory for the result and for one batch, which shrinks as pictures grow.
/// # Example
/// ```
/// use burn::tensor::Device;
/// use twoview_data::{Normalize, PatternsConfig, PatternsSource, Split};
/// use twoview_encoder::{Arch, EncoderConfig, FrozenEncoder, Stem};
///
/// let pictures = PatternsSource::new(PatternsConfig { seed: 0, split: Split::Test, per_class: 1 })?;
/// let config = EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 2 };
/// let encoder = FrozenEncoder::new(&config.init(0, &Device::flex())?);
/// let features = twoview_eval::extract_features(&pictures, &encoder, 16, Normalize::NONE, &|_, _| {})?;
/// assert_eq!(features.len(), 10 * encoder.feature_dim());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn extract_features(
    source: &dyn Source,
    encoder: &FrozenEncoder,
    size_px: u32,
    normalize: Normalize,
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<f32>, ExtractError> {
    let mut features = Vec::with_capacity(source.len() * encoder.feature_dim());
    stream_features(source, encoder, size_px, normalize, |first, rows| {
        features.extend_from_slice(rows);
        progress(first + rows.len() / encoder.feature_dim(), source.len());
        Ok::<(), ExtractError>(())
    })?;
    Ok(features)
}

/// As [`extract_features`], batch by batch: `take(first, rows)` gets the `[b, F]` features of the pictures from `first` on,
/// in order, and may end it with an error of its own.
///
/// # Errors
/// As [`extract_features`], and what `take` returns.
/// # Cost
/// One forward pass per picture, memory for one batch.
pub fn stream_features<E: From<ExtractError>>(
    source: &dyn Source,
    encoder: &FrozenEncoder,
    size_px: u32,
    normalize: Normalize,
    mut take: impl FnMut(usize, &[f32]) -> Result<(), E>,
) -> Result<(), E> {
    let (side, device) = (size_px as usize, encoder.device());
    for batch in image_batches(source, size_px, normalize, batch_size(size_px)).map_err(ExtractError::from)? {
        let batch = batch.map_err(ExtractError::from)?;
        let data = TensorData::new(batch.pixels, [batch.len, 3, side, side]);
        let rows = encoder.forward(Tensor::<4>::from_data(data, &device)); // [b, F]
        // The device-to-host sync.
        let rows = rows.into_data().convert::<f32>().try_to_vec::<f32>().map_err(ExtractError::from)?;
        take(batch.first, &rows)?;
    }
    Ok(())
}

impl FeatureBank {
    /// The labelled features of every picture of `source`; see [`extract_features`].
    ///
    /// # Errors
    /// [`ExtractError`]; also if a picture has no label or a feature is not finite.
    pub fn from_encoder(
        source: &dyn Source,
        encoder: &FrozenEncoder,
        size_px: u32,
        normalize: Normalize,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Self, ExtractError> {
        let labels = labels(source)?;
        let features = extract_features(source, encoder, size_px, normalize, progress)?;
        Ok(Self::new(features, encoder.feature_dim(), labels)?)
    }

    /// The baseline without any encoder: the pixels themselves, in `[0, 1]`, as `[3 · S · S]` features (channel by
    /// channel), resized and cut like the pictures an encoder is shown.
    ///
    /// # Errors
    /// [`ExtractError`] if the source is empty, the size is out of range, a picture cannot be decoded or has no label.
    /// # Cost
    /// `12·S²` bytes per picture: 0.6 GB for 50,000 pictures of 32 px.
    pub fn from_pixels(
        source: &dyn Source,
        size_px: u32,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Self, ExtractError> {
        let (labels, dim) = (labels(source)?, 3 * size_px as usize * size_px as usize);
        let mut features = Vec::with_capacity(source.len().saturating_mul(dim));
        for batch in image_batches(source, size_px, Normalize::NONE, batch_size(size_px))? {
            let batch = batch?;
            features.extend(batch.pixels);
            progress(batch.first + batch.len, source.len());
        }
        Ok(Self::new(features, dim, labels)?)
    }
}

fn labels(source: &dyn Source) -> Result<Vec<u32>, ExtractError> {
    let label = |i| source.label(i).ok_or_else(|| ExtractError::Unlabelled { name: source.name(i).into_owned() });
    (0..source.len()).map(label).collect()
}

fn batch_size(size_px: u32) -> usize {
    let pixels = 3 * (size_px as usize).pow(2);
    (PIXELS_PER_BATCH / pixels.max(1)).clamp(8, 128)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::cell::RefCell;

    use burn::tensor::Device;
    use twoview_data::{Problem, ReadBuffers};
    use twoview_encoder::{Arch, EncoderConfig, Stem};
    use twoview_pixels::Image;

    use super::*;

    /// Pictures of one colour, which is their number.
    struct Greys {
        len: u8,
        classes: Vec<String>,
        broken: Option<usize>,
    }

    impl Greys {
        fn labelled(len: u8) -> Self {
            Self { len, classes: vec!["even".into(), "odd".into()], broken: None }
        }
    }

    impl Source for Greys {
        fn len(&self) -> usize {
            self.len.into()
        }
        fn classes(&self) -> &[String] {
            &self.classes
        }
        fn label(&self, i: usize) -> Option<u32> {
            (!self.classes.is_empty()).then_some(u32::from(i % 2 == 1))
        }
        fn name(&self, i: usize) -> Cow<'_, str> {
            format!("{i}.png").into()
        }
        fn read<'a>(&'a self, i: usize, buffers: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
            if self.broken == Some(i) {
                return Err(SampleError { path: self.name(i).as_ref().into(), problem: Problem::NotAFile });
            }
            let grey = u8::try_from(i).expect("fewer than 256 pictures");
            buffers.image = Image::filled(4, 4, [grey, 0, 255]).expect("16 pixels");
            Ok(&buffers.image)
        }
    }

    #[test]
    fn pixels_keep_order_range_and_labels() {
        let done = RefCell::new(Vec::new());
        // 200 pictures make two batches of at most 128.
        let bank = FeatureBank::from_pixels(&Greys::labelled(200), 4, &|d, t| done.borrow_mut().push((d, t)));
        let bank = bank.expect("labelled pictures");
        assert_eq!((bank.len(), bank.dim()), (200, 48));
        for i in 0..200_u8 {
            let row = bank.row(i.into());
            assert_eq!((row[0], row[15], row[16], row[47]), (f32::from(i) / 255.0, row[0], 0.0, 1.0));
            assert_eq!(bank.labels()[usize::from(i)], u32::from(i % 2));
        }
        assert_eq!(*done.borrow(), [(128, 200), (200, 200)]);
    }

    #[test]
    fn features_do_not_depend_on_the_neighbours_in_the_batch() {
        let config = EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 2 };
        let encoder = FrozenEncoder::new(&config.init(3, &Device::flex()).expect("a valid config"));
        let bank = |len| {
            let source = Greys::labelled(len);
            FeatureBank::from_encoder(&source, &encoder, 8, Normalize::CIFAR10, &|_, _| {}).expect("labelled pictures")
        };
        let (some, more) = (bank(9), bank(140));
        assert_eq!(some.dim(), encoder.feature_dim());
        assert_ne!(some.row(0), some.row(8));
        for i in 0..9 {
            for (a, b) in some.row(i).iter().zip(more.row(i)) {
                // Matrix products may be cut differently: rounding of sums of a few hundred terms.
                assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "picture {i}: {a} and {b}");
            }
        }
    }

    #[test]
    fn names_the_picture_that_cannot_be_used() {
        let unlabelled = Greys { classes: Vec::new(), ..Greys::labelled(3) };
        let error = FeatureBank::from_pixels(&unlabelled, 4, &|_, _| {}).expect_err("no labels");
        assert!(error.to_string().starts_with("0.png has no label"), "{error}");
        let broken = Greys { broken: Some(2), ..Greys::labelled(3) };
        let error = FeatureBank::from_pixels(&broken, 4, &|_, _| {}).expect_err("a broken picture");
        assert!(error.to_string().starts_with("2.png"), "{error}");
        let empty = FeatureBank::from_pixels(&Greys::labelled(0), 4, &|_, _| {});
        assert!(matches!(empty, Err(ExtractError::Pictures(_))), "{empty:?}");
    }

    #[test]
    fn batches_shrink_as_pictures_grow() {
        assert_eq!([1, 32, 64, 224, 4096].map(batch_size), [128, 85, 21, 8, 8]);
    }
}
