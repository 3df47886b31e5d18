//! `SupervisedConfig`: a classifier trained on augmented pictures, together with its encoder or on top of a frozen one.
//!
//! `N` pictures of a batch, two views each; `F` feature dimensions, `C` classes.

use std::ops::ControlFlow;

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, DataError, Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use twoview_data::{LoadError, Loader, Normalize, Source, ViewBatch};
use twoview_encoder::{FrozenEncoder, ResNet};
use twoview_optim::{OptimizerConfig, OptimizerError, ScheduleConfig, ScheduleError, Span, WarmupCosineVariant};

use crate::{ExtractError, stream_features};

/// How a classifier is trained on augmented pictures: by SGD with Nesterov's momentum, its learning rate falling from the
/// first step on along half a cosine to 0.
///
/// The published protocols are settings of it: fine-tuning (the encoder moves too) and the linear evaluation of the papers
/// (the encoder is frozen, and sees random crops). Every batch holds both views of its pictures.
///
/// # Source
/// Chen, Kornblith, Norouzi, Hinton, *A Simple Framework for Contrastive Learning of Visual Representations*, 2020, appendix
/// B.5 to B.8: crops and flips only, 0.1 · batch / 256 over 90 epochs for linear evaluation, 0.05 · batch / 256 for
/// fine-tuning on some of the labels, momentum 0.9, no weight decay. <https://arxiv.org/abs/2002.05709>
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SupervisedConfig {
    /// Passes over the labelled pictures, at least 1; each shows two views of every picture.
    pub epochs: u64,
    /// The fewest steps: a handful of labels makes epochs of a step or two, and thirty of those would teach nothing.
    pub min_steps: u64,
    /// Pictures in a batch, at most: an epoch is cut into as few batches of equal size as that allows.
    pub batch_size: usize,
    /// Learning rate per 256 pictures of a batch.
    pub lr_per_256: f64,
    /// In `[0, 1)`.
    pub momentum: f64,
    /// Of weights; biases and normalizations are spared.
    pub weight_decay: f64,
}

/// Why a [`SupervisedConfig`] is none.
#[derive(Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum SupervisedConfigError {
    /// A count is too small.
    #[error("{key}: expected at least {least}, got {got}")]
    TooSmall {
        /// Which one.
        key: &'static str,
        /// The smallest that makes sense.
        least: u64,
        /// What it is.
        got: u64,
    },
    /// A setting of the optimizer is out of range.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
}

/// Why a classifier cannot be trained.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SupervisedError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] SupervisedConfigError),
    /// There is nothing to schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A batch could not be made.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A picture cannot be had. Nothing takes its place, because that would falsify the evaluation.
    #[error("{path} cannot be used: {reason}; take it out of the labelled pictures")]
    Picture {
        /// Its file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The loader hands out bytes, or pictures without a label.
    #[error("expected batches of normalized numbers with a label for every picture")]
    Batch,
    /// A label that the classifier has no output for.
    #[error("a picture of class {class} cannot be learned by a classifier of {n_classes} classes")]
    UnknownClass {
        /// The label.
        class: u64,
        /// How many classes there are.
        n_classes: usize,
    },
    /// The loss stopped being finite.
    #[error("the loss is {loss} at step {step}; lower the learning rate")]
    NonFinite {
        /// Its value.
        loss: f32,
        /// The step, counted from 1.
        step: u64,
    },
    /// The caller did not want to go on.
    #[error("training was stopped after step {step} of {n_steps}")]
    Stopped {
        /// Steps done.
        step: u64,
        /// Steps to do.
        n_steps: u64,
    },
    /// The device did not hand a number over.
    #[error("the loss cannot be read from the device as f32: {0}")]
    Device(#[from] DataError),
}

impl SupervisedConfig {
    /// How large the batches of `pictures` labelled pictures are: as few batches as [`Self::batch_size`] allows, of equal
    /// size, so that fewer pictures sit an epoch out than there are batches; at least 2, which normalization needs.
    pub fn batch_size_for(&self, pictures: usize) -> usize {
        let n_batches = pictures.div_ceil(self.batch_size.max(1)).max(1);
        (pictures / n_batches).max(2)
    }

    /// How many steps are made with so many batches in an epoch.
    pub fn n_steps(&self, batches_per_epoch: usize) -> u64 {
        self.epochs.saturating_mul(batches_per_epoch as u64).max(self.min_steps)
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`SupervisedConfigError`].
    pub fn check(&self) -> Result<(), SupervisedConfigError> {
        let at_least = |key, least, got| {
            if got >= least { Ok(()) } else { Err(SupervisedConfigError::TooSmall { key, least, got }) }
        };
        at_least("epochs", 1, self.epochs)?;
        at_least("batch_size", 2, self.batch_size as u64)?;
        self.optimizer().init()?;
        Ok(())
    }

    fn optimizer(&self) -> OptimizerConfig {
        let Self { lr_per_256, momentum, weight_decay, .. } = *self;
        OptimizerConfig::Sgd { lr_per_256, momentum, nesterov: momentum > 0.0, weight_decay }
    }

    /// Trains `encoder` and a linear classifier on its features together.
    ///
    /// Normalization layers use the statistics of each batch and move their running ones, which the result evaluates with.
    /// The classifier starts at zero, so nothing is random but the order of the pictures and their views, which are the
    /// loader's. `encoder` has to be on an autodiff device. `progress(done, total)` is called after each step and may break
    /// off, which is [`SupervisedError::Stopped`].
    ///
    /// # Errors
    /// [`SupervisedError`].
    /// # Cost
    /// A training step of the encoder on `2N` views for each batch.
    pub fn fine_tune(
        &self,
        encoder: ResNet,
        loader: &Loader,
        n_classes: usize,
        progress: &dyn Fn(usize, usize) -> ControlFlow<()>,
    ) -> Result<Classifier, SupervisedError> {
        let device = encoder.device();
        let outputs = SoftmaxLayer::zeros(encoder.feature_dim(), n_classes, &device);
        let network = FineTuned { encoder, outputs };
        let logits = |network: &FineTuned, views| network.outputs.forward(network.encoder.forward(views));
        let FineTuned { encoder, outputs } = self.train(network, loader, n_classes, &device, logits, progress)?;
        Classifier::new(FrozenEncoder::new(&encoder), &outputs)
    }

    /// Trains a linear classifier on the features that a frozen encoder has of augmented pictures.
    ///
    /// # Errors
    /// [`SupervisedError`].
    /// # Cost
    /// A forward pass of the encoder on `2N` views for each batch: features of random crops cannot be cached.
    pub fn train_on_frozen(
        &self,
        encoder: FrozenEncoder,
        loader: &Loader,
        n_classes: usize,
        progress: &dyn Fn(usize, usize) -> ControlFlow<()>,
    ) -> Result<Classifier, SupervisedError> {
        let device = encoder.device().autodiff();
        let outputs = SoftmaxLayer::zeros(encoder.feature_dim(), n_classes, &device);
        let logits = |outputs: &SoftmaxLayer, views| outputs.forward(Tensor::from_inner(encoder.forward(views)));
        let outputs = self.train(outputs, loader, n_classes, &device, logits, progress)?;
        Classifier::new(encoder, &outputs)
    }

    fn train<M: Module>(
        &self,
        mut module: M,
        loader: &Loader,
        n_classes: usize,
        device: &Device,
        logits: impl Fn(&M, Tensor<4>) -> Tensor<2>,
        progress: &dyn Fn(usize, usize) -> ControlFlow<()>,
    ) -> Result<M, SupervisedError> {
        self.check()?;
        let (per_epoch, batch_size) = (loader.batches_per_epoch(), loader.batch_size() as u64);
        let n_steps = self.n_steps(per_epoch);
        let mut optimizer = self.optimizer().init().map_err(SupervisedConfigError::from)?;
        let falling = ScheduleConfig::WarmupCosine {
            warmup: Span::Steps(0),
            variant: WarmupCosineVariant::Google,
            final_lr: 0.0,
        };
        let schedule = falling.init(self.optimizer().peak_lr(batch_size), n_steps, per_epoch as u64, batch_size)?;
        // Counts of steps beyond the address space would run for ages; the casts saturate.
        let count = |steps| usize::try_from(steps).unwrap_or(usize::MAX);
        let (mut step, mut epoch) = (0, 0);
        while step < n_steps {
            for batch in loader.epoch(epoch, 0).take(count(n_steps - step)) {
                let batch = batch?;
                let labels = labels(&batch, n_classes, device)?;
                let loss = cross_entropy(logits(&module, views(&batch, device)?), labels);
                // The device-to-host sync.
                let value = loss.clone().inner().into_data().convert::<f32>().try_to_vec::<f32>()?[0];
                if !value.is_finite() {
                    return Err(SupervisedError::NonFinite { loss: value, step: step + 1 });
                }
                let grads = GradientsParams::from_grads(loss.backward(), &module);
                module = optimizer.step(schedule.lr(step), module, grads);
                loader.recycle(batch);
                step += 1;
                if progress(count(step), count(n_steps)).is_break() && step < n_steps {
                    return Err(SupervisedError::Stopped { step, n_steps });
                }
            }
            epoch += 1;
        }
        Ok(module)
    }
}

/// Both views of a batch, `[2N, 3, S, S]`.
fn views(batch: &ViewBatch, device: &Device) -> Result<Tensor<4>, SupervisedError> {
    let side = batch.size_px as usize;
    let values = batch.views.as_f32().ok_or(SupervisedError::Batch)?;
    let data = TensorData::new(values.to_vec(), [2 * batch.samples.len(), 3, side, side]);
    Ok(Tensor::from_data(data, device))
}

/// The classes of both views, `[2N, 1]`.
fn labels(batch: &ViewBatch, n_classes: usize, device: &Device) -> Result<Tensor<2, Int>, SupervisedError> {
    if let Some(replaced) = batch.replaced.first() {
        let path = twoview_data::escape_path(&replaced.path).to_string();
        return Err(SupervisedError::Picture { path, reason: replaced.reason.clone() });
    }
    if batch.labels.len() != batch.samples.len() {
        return Err(SupervisedError::Batch);
    }
    let of_view = batch.labels.iter().map(|&class| match i32::try_from(class) {
        Ok(label) if class < n_classes as u64 => Ok(label),
        _ => Err(SupervisedError::UnknownClass { class, n_classes }),
    });
    let of_view = of_view.collect::<Result<Vec<i32>, SupervisedError>>()?;
    let both = [of_view.as_slice(), &of_view].concat();
    let n = both.len();
    Ok(Tensor::from_data(TensorData::new(both, [n, 1]), (device, DType::I32)))
}

/// The mean over rows, in nats.
fn cross_entropy(logits: Tensor<2>, labels: Tensor<2, Int>) -> Tensor<1> {
    log_softmax(logits, 1).gather(1, labels).mean().neg()
}

/// Logits as linear functions of features.
#[derive(Module, Debug)]
struct SoftmaxLayer {
    /// `[C, F]`.
    weight: Param<Tensor<2>>,
    /// `[C]`.
    bias: Param<Tensor<1>>,
}

impl SoftmaxLayer {
    fn zeros(n_features: usize, n_classes: usize, device: &Device) -> Self {
        let zeros = |n| vec![0.0_f32; n];
        Self {
            weight: Param::from_data(TensorData::new(zeros(n_classes * n_features), [n_classes, n_features]), device),
            bias: Param::from_data(TensorData::new(zeros(n_classes), [n_classes]), device),
        }
    }

    /// `[B, F]` to `[B, C]`.
    fn forward(&self, features: Tensor<2>) -> Tensor<2> {
        features.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }
}

#[derive(Module, Debug)]
struct FineTuned {
    encoder: ResNet,
    outputs: SoftmaxLayer,
}

/// A linear classifier with the encoder whose features it reads. It cannot train any more.
#[derive(Debug)]
pub struct Classifier {
    encoder: FrozenEncoder,
    /// `[C, F]`, row-major.
    weight: Vec<f32>,
    /// `[C]`.
    bias: Vec<f32>,
}

impl Classifier {
    fn new(encoder: FrozenEncoder, outputs: &SoftmaxLayer) -> Result<Self, SupervisedError> {
        let weight = outputs.weight.val().inner().into_data().convert::<f32>().try_to_vec()?;
        let bias = outputs.bias.val().inner().into_data().convert::<f32>().try_to_vec()?;
        Ok(Self { encoder, weight, bias })
    }

    /// The encoder, as training left it.
    pub fn encoder(&self) -> &FrozenEncoder {
        &self.encoder
    }

    /// The most probable class of each picture of `source`, shown once, without augmentation; of equal logits the smaller
    /// class. `progress(done, total)` is called after each batch.
    ///
    /// # Errors
    /// [`ExtractError`] as of [`extract_features`](crate::extract_features), and [`ExtractError::NotFinite`] if training ended
    /// in weights that are no numbers. Labels are not looked at.
    pub fn predict(
        &self,
        source: &dyn Source,
        size_px: u32,
        normalize: Normalize,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Vec<u32>, ExtractError> {
        let dim = self.encoder.feature_dim();
        let mut predicted = Vec::with_capacity(source.len());
        stream_features(source, &self.encoder, size_px, normalize, |first, rows| {
            for (row, i) in rows.chunks_exact(dim).zip(first..) {
                let class = self.class_of(row);
                predicted.push(class.ok_or_else(|| ExtractError::NotFinite { name: source.name(i).into_owned() })?);
            }
            progress(predicted.len(), source.len());
            Ok::<(), ExtractError>(())
        })?;
        Ok(predicted)
    }

    /// The first of the classes with the largest logit; `None` if a logit is no number.
    fn class_of(&self, features: &[f32]) -> Option<u32> {
        let dot = |weight: &[f32]| weight.iter().zip(features).map(|(w, x)| w * x).sum::<f32>();
        let logits = self.weight.chunks_exact(features.len()).zip(&self.bias).map(|(weight, bias)| dot(weight) + bias);
        let (mut best, mut class) = (f32::NEG_INFINITY, 0);
        for (logit, i) in logits.zip(0_u32..) {
            if !logit.is_finite() {
                return None;
            }
            if logit > best {
                (best, class) = (logit, i);
            }
        }
        Some(class)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::cell::Cell;
    use std::sync::Arc;

    use twoview_data::{LoaderConfig, PatternsConfig, PatternsSource, PixelType, ReadBuffers, SampleError, Split};
    use twoview_encoder::{Arch, EncoderConfig, Stem};
    use twoview_pixels::Image;

    use super::*;
    use crate::Predictions;

    const QUICK: SupervisedConfig =
        SupervisedConfig { epochs: 6, min_steps: 0, batch_size: 20, lr_per_256: 0.8, momentum: 0.9, weight_decay: 0.0 };

    fn patterns(split: Split, per_class: u32) -> Arc<dyn Source> {
        Arc::new(PatternsSource::new(PatternsConfig { seed: 3, split, per_class }).expect("patterns"))
    }

    /// Pictures of one colour: three classes, red, green and blue, each from dark to bright.
    struct Colours;

    impl Source for Colours {
        fn len(&self) -> usize {
            60
        }
        fn classes(&self) -> &[String] {
            &[]
        }
        fn label(&self, i: usize) -> Option<u32> {
            u32::try_from(i % 3).ok()
        }
        fn name(&self, i: usize) -> Cow<'_, str> {
            i.to_string().into()
        }
        fn read<'a>(&'a self, i: usize, buffers: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
            let mut colour = [0; 3];
            colour[i % 3] = 255 - u8::try_from(2 * i).expect("fewer than 60 pictures");
            buffers.image = Image::filled(16, 16, colour).expect("16 pixels");
            Ok(&buffers.image)
        }
    }

    fn loader(pixels: PixelType) -> Loader {
        loader_of(patterns(Split::Train, 8), pixels)
    }

    fn loader_of(source: Arc<dyn Source>, pixels: PixelType) -> Loader {
        let augment = r#"[{"op": "random_resized_crop", "size_px": 16, "area": [0.5, 1.0], "aspect": [0.9, 1.1]}]"#;
        let augment: twoview_augment::AugmentConfig = serde_json::from_str(augment).expect("a list");
        let config = LoaderConfig { batch_size: 20, drop_last: true, workers: 0, prefetch: 1, pixels };
        let augment = Arc::new(augment.init().expect("valid"));
        Loader::new(source, augment, Normalize::NONE, 5, config).expect("a loader")
    }

    fn encoder(device: &Device) -> ResNet {
        let config = EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 4 };
        config.init(1, device).expect("valid")
    }

    fn on(_: usize, _: usize) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn accuracy(classifier: &Classifier) -> f64 {
        let predicted = classifier.predict(&Colours, 16, Normalize::NONE, &|_, _| {}).expect("readable");
        let labels = (0..Colours.len()).filter_map(|i| Colours.label(i)).collect();
        Predictions::new(predicted, labels).expect("as many").score().top1
    }

    #[test]
    fn both_ways_learn_and_only_fine_tuning_moves_the_encoder() {
        let device = Device::flex().autodiff();
        let before = FrozenEncoder::new(&encoder(&device));
        let weights = |encoder: &FrozenEncoder| format!("{:?}", encoder.named_tensors());
        let loader = loader_of(Arc::new(Colours), PixelType::F32);
        let config = SupervisedConfig { epochs: 20, ..QUICK };
        let steps = Cell::new((0, 0));
        let count = |done, total| {
            steps.set((done, total));
            ControlFlow::Continue(())
        };
        let tuned = config.fine_tune(encoder(&device), &loader, 3, &count).expect("trains");
        assert_eq!(steps.get(), (60, 60), "20 epochs of 3 batches");
        assert!(accuracy(&tuned) > 0.9, "{}", accuracy(&tuned));
        assert_ne!(weights(tuned.encoder()), weights(&before));

        let frozen = FrozenEncoder::new(&encoder(&device));
        let on_top = config.train_on_frozen(frozen, &loader, 3, &on).expect("trains");
        assert!(accuracy(&on_top) > 0.9, "{}", accuracy(&on_top));
        assert_eq!(weights(on_top.encoder()), weights(&before));
        assert_ne!(on_top.weight, tuned.weight);
    }

    #[test]
    fn training_can_be_broken_off() {
        let device = Device::flex().autodiff();
        let at_most = |n| move |done, _| if done < n { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        let loader = loader(PixelType::F32);
        let error = QUICK.fine_tune(encoder(&device), &loader, 10, &at_most(2)).expect_err("stopped");
        assert!(matches!(error, SupervisedError::Stopped { step: 2, .. }), "{error}");
        let last = usize::try_from(QUICK.n_steps(loader.batches_per_epoch())).expect("few");
        assert!(QUICK.fine_tune(encoder(&device), &loader, 10, &at_most(last)).is_ok(), "nothing is left to break off");
    }

    #[test]
    fn the_same_pictures_and_views_give_the_same_classifier() {
        let device = Device::flex().autodiff();
        let train = || {
            let classifier = QUICK.fine_tune(encoder(&device), &loader(PixelType::F32), 10, &on).expect("trains");
            (classifier.weight, classifier.bias)
        };
        assert_eq!(train(), train());
    }

    #[test]
    fn the_first_step_has_a_closed_form() {
        // From zero all classes are equally probable, so the bias of class c moves by lr · (share of c − 1/C), and with
        // Nesterov's momentum by (1 + m) times that. One step has the peak as its learning rate.
        let device = Device::flex();
        let config = SupervisedConfig { epochs: 1, batch_size: 80, ..QUICK };
        let augment = r#"[{"op": "random_resized_crop", "size_px": 8, "area": [1.0, 1.0], "aspect": [1.0, 1.0]}]"#;
        let augment: twoview_augment::AugmentConfig = serde_json::from_str(augment).expect("a list");
        let shape = LoaderConfig { batch_size: 80, drop_last: true, workers: 0, prefetch: 1, pixels: PixelType::F32 };
        let augment = Arc::new(augment.init().expect("valid"));
        let loader = Loader::new(patterns(Split::Train, 8), augment, Normalize::NONE, 5, shape).expect("a loader");
        let frozen = FrozenEncoder::new(&encoder(&device));
        let classifier = config.train_on_frozen(frozen, &loader, 16, &on).expect("trains");
        let lr = 0.8 * 80.0 / 256.0;
        for (class, &bias) in classifier.bias.iter().enumerate() {
            let share = if class < 10 { 0.1 } else { 0.0 };
            let want = lr * (share - 1.0 / 16.0) * 1.9;
            assert!((bias - want).abs() < 1e-6, "class {class}: {bias}, expected {want}");
        }
    }

    #[test]
    fn batches_are_even_and_few_labels_get_enough_steps() {
        let config = SupervisedConfig { batch_size: 64, epochs: 30, min_steps: 200, ..QUICK };
        assert_eq!([2, 10, 64, 65, 100, 129].map(|n| config.batch_size_for(n)), [2, 10, 64, 32, 50, 43]);
        let pairs = SupervisedConfig { batch_size: 2, ..QUICK };
        assert_eq!([2, 3, 5].map(|n| pairs.batch_size_for(n)), [2, 2, 2]);
        assert_eq!([1, 6, 7, 100].map(|batches| config.n_steps(batches)), [200, 200, 210, 3000]);
    }

    #[test]
    fn weights_that_are_no_numbers_predict_nothing() {
        let encoder = FrozenEncoder::new(&encoder(&Device::flex()));
        let weight = vec![f32::NAN; 2 * encoder.feature_dim()];
        let classifier = Classifier { encoder, weight, bias: vec![0.0; 2] };
        let error = classifier.predict(patterns(Split::Test, 1).as_ref(), 16, Normalize::NONE, &|_, _| {});
        assert!(matches!(error, Err(ExtractError::NotFinite { .. })), "{error:?}");
    }

    #[test]
    fn what_cannot_be_learned_is_refused() {
        let device = Device::flex().autodiff();
        let train = |config: SupervisedConfig, loader: &Loader, n_classes| {
            config.fine_tune(encoder(&device), loader, n_classes, &on).map(|_| ()).map_err(|error| error.to_string())
        };
        let refused = |config, wanted: &str| {
            let error = train(config, &loader(PixelType::F32), 10).expect_err(wanted);
            assert!(error.contains(wanted), "{error}");
        };
        refused(SupervisedConfig { epochs: 0, ..QUICK }, "epochs: expected at least 1, got 0");
        refused(SupervisedConfig { batch_size: 1, ..QUICK }, "batch_size: expected at least 2, got 1");
        refused(SupervisedConfig { lr_per_256: -1.0, ..QUICK }, "lr_per_256");
        refused(SupervisedConfig { lr_per_256: 1e30, ..QUICK }, "lower the learning rate");
        let error = train(QUICK, &loader(PixelType::F32), 9).expect_err("ten classes");
        assert!(error.contains("class 9 cannot be learned by a classifier of 9 classes"), "{error}");
        assert!(train(QUICK, &loader(PixelType::U8), 10).is_err(), "bytes");
    }
}
