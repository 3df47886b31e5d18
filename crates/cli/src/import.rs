//! `import`: a ResNet of another program becomes a run directory.

use std::{fs, path::Path};

use serde_json::json;
use twoview_augment::{Recipe, TransformConfig};
use twoview_data::escape_path;
use twoview_encoder::{Stem, named_tensors, save_safetensors, with_batch_counters};
use twoview_train::RunDir;

use crate::{
    args::ImportArgs,
    device,
    encoder_weights::{EncoderWeights, UsedAs, View, as_written, described},
    export::file_metadata,
    failure::{Exit, Failure, OrExit, at},
    pictures::{Manifest, RunManifest},
    pretrain::no_run_dir,
    run_file::RunFile,
    run_plan::check,
    terminal::{note, program, quoted, result, result_json},
};

/// What networks with ImageNet's stem are trained on.
const IMAGENET_PX: u32 = 224;

/// `twoview import`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn import(args: &ImportArgs) -> Result<(), Failure> {
    let (_, device) = device::open(&args.device.device)?;
    let weights = EncoderWeights::of_file(&args.file, args.prefix.as_deref(), &device)?;
    weights.say();
    let file = run_file(args, &weights)?;
    check(&file).or_exit(Exit::Usage)?;
    let view = View { size_px: file.augment.init().or_exit(Exit::Usage)?.size_px(), normalize: file.normalize.clone() };
    note(&format!(
        "pictures: {} px, normalized by mean = {:?}, std = {:?}; if the weights were trained on others, say so with --set",
        view.size_px, view.normalize.mean, view.normalize.std
    ));
    let origin = weights.origin(UsedAs::Imported, &args.file)?;
    let manifest = RunManifest {
        twoview: env!("CARGO_PKG_VERSION").to_owned(),
        // No picture was ever looked at.
        data: Manifest { pictures: 0, classes: Vec::new(), fingerprint: String::new() },
        experiment: file.experiment().or_exit(Exit::Bug)?,
        weights: Some(origin),
    };
    let manifest = serde_json::to_string_pretty(&manifest).or_exit(Exit::Bug)?;
    let config = file.to_toml().or_exit(Exit::Usage)?;

    let run_dir = match &args.out {
        Some(path) => RunDir::create(path),
        None => RunDir::create_next(Path::new("runs"), &name(&args.file)),
    }
    .map_err(no_run_dir)?;
    let exported = run_dir.exported_encoder();
    if let Some(folder) = exported.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let tensors = with_batch_counters(named_tensors(&weights.encoder), &weights.counters, 0);
    save_safetensors(&exported, &tensors, &file_metadata(&file.encoder, &view, weights.steps)?).or_exit(Exit::Io)?;
    // The weights come first: a directory with a configuration is a run, and this run is its weights.
    run_dir.begin(&config, &manifest, "").map_err(no_run_dir)?;

    let run = escape_path(run_dir.path());
    if args.json {
        return result_json(&json!({
            "run": run,
            "encoder": file.encoder,
            "feature_dim": weights.encoder.feature_dim(),
            "prefix": weights.prefix,
            "ignored": weights.ignored,
            "view": as_written(&view)?,
        }));
    }
    let dim = weights.encoder.feature_dim();
    result(&format!("encoder  {}, {dim} features", described(&file.encoder)))?;
    result(&format!("run      {run}"))?;
    result(&format!("next     {} eval knn {} --train path/to/labelled/pictures", program(), quoted(run_dir.path())))
}

/// The configuration of a run with these weights: a preset, with what the weights say of themselves, changed by `--set`.
fn run_file(args: &ImportArgs, weights: &EncoderWeights) -> Result<RunFile, Failure> {
    let config = *weights.encoder.config();
    let fitting = if config.stem == Stem::Imagenet { "photos" } else { "small" };
    let preset = args.preset.as_deref().unwrap_or(fitting);
    let mut file = RunFile::from_preset(preset, &args.set).or_exit(Exit::Usage)?;
    let is_set = |key: &str| args.set.iter().any(|set| set.trim_start().starts_with(key));
    if is_set("encoder") && file.encoder != config {
        let message =
            format!("{} holds encoder = {}; leave --set encoder away", args.file.display(), described(&config));
        return Err(Failure::new(Exit::Usage, message));
    }
    file.encoder = config;
    if args.preset.is_none() {
        let view = weights.view.as_ref();
        if !is_set("augment") && config.stem == Stem::Imagenet {
            file.augment = Recipe::Imagenet.config(view.map_or(IMAGENET_PX, |view| view.size_px));
        } else if let (Some(view), Some(TransformConfig::RandomResizedCrop { size_px, .. }), false) =
            (view, file.augment.0.first_mut(), is_set("augment"))
        {
            *size_px = view.size_px;
        }
        if let (Some(view), false) = (view, is_set("normalize")) {
            file.normalize = view.normalize.clone();
        }
    }
    Ok(file)
}

/// The name that runs of `file` are called by.
fn name(file: &Path) -> String {
    file.file_stem().map_or_else(|| "import".to_owned(), |stem| stem.to_string_lossy().into_owned())
}
