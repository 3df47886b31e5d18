//! `pretrain --start`: an encoder that begins with weights instead of at random.

use std::path::Path;

use burn::tensor::Device;
use twoview_encoder::{ResNet, load_named, named_tensors};

use crate::{
    args::PretrainArgs,
    encoder_weights::{EncoderWeights, UsedAs, WeightsOrigin, described},
    failure::{Exit, Failure, OrExit},
    pictures::absolute,
    run_file::RunFile,
    terminal::note,
};

/// Weights to begin with.
pub(crate) struct Start {
    encoder: ResNet,
    pub(crate) origin: WeightsOrigin,
}

impl Start {
    /// The weights that the command line or else the run file begins with; `None` if neither names any.
    ///
    /// The weights say which network it is: they replace the encoder of a built-in preset. An encoder that was written
    /// down, in a run file or with `--set`, has to be the same one.
    ///
    /// # Errors
    /// [`Exit::Usage`] where another encoder was written down; else as [`EncoderWeights::at`].
    pub(crate) fn of(args: &PretrainArgs, file: &mut RunFile, device: &Device) -> Result<Option<Self>, Failure> {
        if let Some(path) = &args.start {
            let cannot = |error| Failure::new(Exit::Usage, format!("--start {}: {error}", path.display()));
            file.start = Some(absolute(path).map_err(cannot)?);
        }
        let Some(path) = file.start.clone() else { return Ok(None) };
        let weights = EncoderWeights::at(&path, device)?;
        weights.say();
        let config = *weights.encoder.config();
        if file.encoder != config {
            if let Some(place) = written_down(args) {
                return Err(Failure::new(
                    Exit::Usage,
                    format!(
                        "start: {} holds encoder = {}, and {place} says encoder = {}; make them the same",
                        path.display(),
                        described(&config),
                        described(&file.encoder)
                    ),
                ));
            }
            note(&format!("encoder = {}, as in {}", described(&config), path.display()));
            file.encoder = config;
        }
        if let Some(view) = weights.view.as_ref().filter(|view| view.normalize != file.normalize) {
            note(&format!(
                "warning: the weights were made for pictures normalized by mean = {:?}, std = {:?}; this run has mean = {:?}, std = {:?}",
                view.normalize.mean, view.normalize.std, file.normalize.mean, file.normalize.std
            ));
        }
        let origin = weights.origin(UsedAs::Start, &path)?;
        note(&format!("start: {} (sha256 {})", path.display(), origin.sha256));
        Ok(Some(Self { encoder: weights.encoder, origin }))
    }

    /// A fresh encoder of the same shape with these weights.
    ///
    /// # Errors
    /// [`Exit::Bug`]: the shapes were compared before.
    pub(crate) fn put_into(&self, fresh: ResNet) -> Result<ResNet, Failure> {
        load_named(fresh, named_tensors(&self.encoder)).or_exit(Exit::Bug)
    }
}

/// Where the user wrote an encoder down; presets of the program are nobody's decision.
fn written_down(args: &PretrainArgs) -> Option<String> {
    let is_toml = |path: &Path| path.extension().is_some_and(|extension| extension == "toml");
    if let Some(set) = args.config.set.iter().find(|set| set.trim_start().starts_with("encoder")) {
        return Some(format!("--set {set}"));
    }
    match &args.config.preset {
        Some(preset) if is_toml(Path::new(preset)) => Some(preset.clone()),
        _ => is_toml(&args.input).then(|| args.input.display().to_string()),
    }
}
