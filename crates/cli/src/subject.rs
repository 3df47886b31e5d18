//! `Subject`: a run whose encoder is put to use.

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use serde_json::json;
use twoview_data::{ImageSource, Source};
use twoview_encoder::{FrozenEncoder, ResNet, load_named, named_tensors};
use twoview_eval::{Rungs, extract_features};
use twoview_pixels::Image;
use twoview_train::RunDir;

use crate::{
    device,
    encoder_weights::EncoderWeights,
    failure::{Exit, Failure, OrExit},
    labelled::{Banks, Labelled, Look, look},
    pictures::RunManifest,
    run_file::RunFile,
    terminal::note,
};

/// A run whose encoder is put to use.
pub(crate) struct Subject {
    pub(crate) run_dir: RunDir,
    pub(crate) file: RunFile,
    pub(crate) device: Device,
    /// What the device is called.
    pub(crate) device_name: String,
    /// As it was when the run was opened; a run that trains meanwhile goes on.
    encoder: ResNet,
    trained: FrozenEncoder,
    /// The step its encoder is of; `None` where no run trained it.
    step: Option<u64>,
    /// That training is not at its end, in words.
    unfinished: Option<String>,
    look: Look,
}

impl Subject {
    /// Opens a run and its encoder: a run without a checkpoint should not make anyone wait for the pictures.
    ///
    /// # Errors
    /// [`Exit::Run`] where there is no such run or it has no checkpoint, else as the parts say.
    pub(crate) fn open(run: Option<&Path>, device: &str) -> Result<Self, Failure> {
        let path = run.map_or_else(newest_run, |run| Ok(run.to_owned()))?;
        let run_dir = RunDir::read_only(&path).or_exit(Exit::Run)?;
        let file = RunFile::from_path(&run_dir.config(), &[]).or_exit(Exit::Usage)?;
        let (device_name, device) = device::open(device)?;
        let weights = EncoderWeights::of_run(&run_dir, &file.encoder, &device)?;
        let trained = FrozenEncoder::new(&weights.encoder);
        let look = look(&file)?;
        let step = weights.steps;
        let unfinished = RunManifest::read(&run_dir).ok().and_then(|manifest| manifest.unfinished(&file, step));
        if let Some(unfinished) = &unfinished {
            note(&format!("warning: {}: {unfinished}", run_dir.path().display()));
        }
        let encoder = weights.encoder;
        Ok(Self { run_dir, file, device, device_name, encoder, trained, step, unfinished, look })
    }

    /// The step that its encoder is of; `None` where no run trained it.
    pub(crate) fn step(&self) -> Option<u64> {
        self.step
    }

    /// That training is not at its end, in words; `None` where it is.
    pub(crate) fn unfinished(&self) -> Option<&str> {
        self.unfinished.as_deref()
    }

    /// The encoder as training left it.
    pub(crate) fn encoder(&self) -> &FrozenEncoder {
        &self.trained
    }

    /// `[N, F]` features of some pictures in memory.
    ///
    /// # Errors
    /// [`Exit::Data`] where there are none, or one has impossible sides.
    pub(crate) fn features_of(&self, images: Vec<Image>) -> Result<Vec<f32>, Failure> {
        let source = ImageSource::new(images.into_iter().map(|image| (String::new(), image)));
        extract_features(&source, &self.trained, self.look.size_px, self.look.normalize, &|_, _| {}).or_exit(Exit::Data)
    }

    /// How the run's own pictures are looked at.
    pub(crate) fn look(&self) -> Look {
        self.look
    }

    /// What the trained encoder makes of the pictures.
    ///
    /// # Errors
    /// As [`Labelled::features`].
    pub(crate) fn features(&self, labelled: &Labelled) -> Result<Banks, Failure> {
        labelled.features("trained encoder", &self.trained, self.look)
    }

    /// `of` for every rung of the ladder, lowest first: one kind of features at a time, because a bank of pixels can be the
    /// largest thing in memory. Also the features of the trained encoder.
    ///
    /// # Errors
    /// As the parts say.
    pub(crate) fn climb<T: Clone>(
        &self,
        labelled: &Labelled,
        centred_is_raw: bool,
        of: impl Fn(&Banks) -> Result<T, Failure>,
    ) -> Result<(Rungs<T>, Banks), Failure> {
        let untrained = untrained_encoder(&self.file, &self.device)?;
        let pixels = labelled.pixels(self.look)?;
        let raw_pixels = of(&pixels)?;
        let centred_pixels = if centred_is_raw { raw_pixels.clone() } else { of(&pixels.centred()?)? };
        drop(pixels);
        let untrained = of(&labelled.features("untrained encoder", &untrained, self.look)?)?;
        let features = self.features(labelled)?;
        let trained = of(&features)?;
        Ok((Rungs { raw_pixels, centred_pixels, untrained, trained }, features))
    }

    /// The choices that the numbers depend on, for whoever wants to compare them with others.
    ///
    /// # Errors
    /// As [`Labelled::n_in_train`].
    pub(crate) fn protocol(&self, how: &str, labelled: &Labelled) -> Result<String, Failure> {
        self.protocol_of(how, "frozen", labelled)
    }

    /// As [`Self::protocol`], for an encoder that is `frozen` or not.
    ///
    /// # Errors
    /// As [`Labelled::n_in_train`].
    pub(crate) fn protocol_of(&self, how: &str, frozen: &str, labelled: &Labelled) -> Result<String, Failure> {
        // As configurations spell it.
        let arch = json!(self.file.encoder.arch).as_str().unwrap_or_default().to_owned();
        let (n_train, n_test) = (labelled.train_pictures().len(), labelled.test_pictures().len());
        let in_train = match labelled.n_in_train(self.look)? {
            0 => String::new(),
            n => format!(", {n} of them training pictures too"),
        };
        let sides = labelled.sides().iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        let step = match self.step {
            Some(step) if self.unfinished.is_none() => format!(" after {step} steps"),
            Some(step) => format!(" after {step} steps of a run that has not ended"),
            None => String::new(),
        };
        Ok(format!(
            "{how}; {frozen} {arch} of width {}{step}, {} features before the head, tested in evaluation mode on pictures with the shorter \
             side at {px} px, centre {px}x{px}, no augmentation; {n_train} training and {n_test} test pictures{in_train}, of {sides}",
            self.file.encoder.width,
            self.trained.feature_dim(),
            px = self.look.size_px,
        ))
    }

    /// The weights of [`Self::encoder`] in an encoder that can train, on an autodiff device.
    ///
    /// # Errors
    /// [`Exit::Bug`]: the shapes are its own.
    pub(crate) fn trainable_encoder(&self, device: &Device) -> Result<ResNet, Failure> {
        let fresh = self.file.encoder.init(0, device).or_exit(Exit::Bug)?;
        load_named(fresh, named_tensors(&self.encoder)).or_exit(Exit::Bug)
    }
}

/// The same encoder with the weights that the run began with.
///
/// # Errors
/// [`Exit::Usage`] where the configuration makes no encoder.
pub(crate) fn untrained_encoder(file: &RunFile, device: &Device) -> Result<FrozenEncoder, Failure> {
    Ok(FrozenEncoder::new(&file.encoder.init(file.seed, device).or_exit(Exit::Usage)?))
}

/// The run in runs/ that was configured last.
fn newest_run() -> Result<PathBuf, Failure> {
    let runs = fs::read_dir("runs").ok().into_iter().flatten().filter_map(Result::ok).filter_map(|entry| {
        let written = fs::metadata(entry.path().join("config.resolved.toml")).ok()?.modified().ok()?;
        Some((written, entry.path()))
    });
    let (_, path) = runs.max().ok_or_else(|| {
        Failure::new(Exit::Usage, "no run was named and runs/ has none; name one, or make one with `twoview pretrain`")
    })?;
    note(&format!("run: {} (the newest in runs/)", path.display()));
    Ok(path)
}
