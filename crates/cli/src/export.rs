//! `export`: a run's encoder as a file that other programs load, with a card that says how.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;
use twoview_data::escape_path;
use twoview_encoder::{
    EncoderConfig, FrozenEncoder, OnnxError, named_tensors, save_onnx, save_safetensors, with_batch_counters,
};
use twoview_train::RunDir;

use crate::{
    args::{ExportArgs, ExportFormat, Naming},
    device,
    encoder_weights::{EncoderWeights, STEPS_KEY, VIEW_KEY, View},
    failure::{Exit, Failure, OrExit, at},
    file_format::file_format,
    labelled::look,
    model_card::ModelCard,
    pictures::RunManifest,
    run_file::RunFile,
    terminal::{note, result, result_json},
    unfinished::{Unfinished, may_write, resolved},
};

/// `twoview export`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn export(args: &ExportArgs) -> Result<(), Failure> {
    let format = file_format(args.format, args.out.as_deref(), ExportFormat::Safetensors)?;
    let run_dir = RunDir::read_only(&args.run).or_exit(Exit::Run)?;
    let file = RunFile::from_path(&run_dir.config(), &[]).or_exit(Exit::Usage)?;
    let (_, device) = device::open(&args.device.device)?;
    let weights = EncoderWeights::of_run(&run_dir, &file.encoder, &device)?;
    let manifest = RunManifest::read(&run_dir)?;
    if let Some(unfinished) = manifest.unfinished(&file, weights.steps) {
        note(&format!("warning: {}: {unfinished}", run_dir.path().display()));
    }
    let look = look(&file)?;
    let view = View { size_px: look.size_px, normalize: file.normalize.clone() };
    let metadata = file_metadata(&file.encoder, &view, weights.steps)?;
    let out = args.out.clone().unwrap_or_else(|| {
        run_dir.exported_encoder().with_extension(match format {
            ExportFormat::Safetensors => "safetensors",
            ExportFormat::Onnx => "onnx",
        })
    });
    let out = resolved(&out).map_err(at(&out))?;
    // The run's own encoder may be written again, from the run.
    if out != run_dir.exported_encoder() {
        may_write(&out)?;
    }
    if let (None, Some(folder)) = (&args.out, out.parent()) {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    match format {
        ExportFormat::Safetensors => {
            let tensors = with_batch_counters(
                named_tensors(&weights.encoder),
                &weights.counters,
                n_batches(weights.steps.unwrap_or(0)),
            );
            save_safetensors(&out, &tensors, &metadata).or_exit(Exit::Io)?;
        }
        ExportFormat::Onnx => save_onnx(&out, &FrozenEncoder::new(&weights.encoder), &metadata).map_err(|error| {
            let exit = if matches!(error, OnnxError::Io { .. }) { Exit::Io } else { Exit::Usage };
            Failure { exit, error: error.into() }
        })?,
    }
    if args.naming == Naming::Timm && file.encoder.width != 64 {
        note(&format!(
            "timm builds no ResNet of width {}: the card shows torchvision's loader, and the names are the same",
            file.encoder.width
        ));
    }
    let card = ModelCard::new(&run_dir, &manifest, &file, &weights, view, (format, args.naming), &out)?;
    let (card_json, card_md) = (beside(&out, "card.json"), beside(&out, "card.md"));
    Unfinished::write(&card_json, card.to_json()?)?;
    Unfinished::write(&card_md, card.to_markdown())?;
    if args.json {
        return result_json(&json!({
            "file": escape_path(&out),
            "card": escape_path(&card_json),
            "format": format.name(),
            "feature_dim": weights.encoder.feature_dim(),
            "steps": weights.steps,
        }));
    }
    result(&format!("encoder  {}", out.display()))?;
    result(&format!("card     {} (and .json): what it is, and the Python that loads it", card_md.display()))
}

/// The text metadata of every file of weights that the program leaves.
///
/// # Errors
/// None known; the serializer's.
pub(crate) fn file_metadata(
    encoder: &EncoderConfig,
    view: &View,
    steps: Option<u64>,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut metadata = BTreeMap::from([
        // What Python's loaders look for.
        ("format".to_owned(), "pt".to_owned()),
        ("twoview.encoder".to_owned(), serde_json::to_string(encoder).or_exit(Exit::Bug)?),
        (VIEW_KEY.to_owned(), serde_json::to_string(view).or_exit(Exit::Bug)?),
    ]);
    metadata.extend(steps.map(|steps| (STEPS_KEY.to_owned(), steps.to_string())));
    Ok(metadata)
}

/// What PyTorch counts in `num_batches_tracked`: a step shows the encoder both views in one batch.
pub(crate) fn n_batches(steps: u64) -> i64 {
    i64::try_from(steps).unwrap_or(i64::MAX)
}

/// `FILE.extension`
fn beside(file: &Path, extension: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}
