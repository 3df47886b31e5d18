//! `init`: a commented run file to begin from.

use std::path::PathBuf;

use serde_json::json;

use crate::{
    args::InitArgs,
    failure::{Exit, Failure, OrExit, at},
    pictures,
    run_file::{PRESETS, RunFile, SourceConfig, preset_names},
    terminal::{note, program, quoted, result, result_json},
    unfinished::Unfinished,
};

/// `twoview init`.
///
/// # Errors
/// [`Exit::Usage`] where the file exists or there is no such preset, [`Exit::Data`] where the pictures are not there.
pub(crate) fn init(args: &InitArgs) -> Result<(), Failure> {
    let named = |name: &str| {
        PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
            let message = format!("--preset {name}: there is no such preset; expected one of {}", preset_names());
            Failure::new(Exit::Usage, message)
        })
    };
    let mut preset = named(args.preset.as_deref().unwrap_or("small"))?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from("run.toml"));
    if out.exists() && !args.force {
        let message =
            format!("{} exists already; name another file with --out, or replace it with --force", out.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut text = preset.text.to_owned();
    if let Some(data) = &args.data {
        let mut file = RunFile::from_preset(preset.name, &[]).or_exit(Exit::Bug)?;
        if matches!(file.data.source, SourceConfig::Patterns { .. }) {
            let message = format!("--preset {} makes its own pictures; choose small or photos for yours", preset.name);
            return Err(Failure::new(Exit::Usage, message));
        }
        let mut found = pictures::source_at(data, &file.data.source)?;
        let glance = pictures::glance(&found, FEW)?;
        if args.preset.is_none() {
            preset = named(pictures::preset_for(glance.side))?;
            preset.text.clone_into(&mut text);
            file = RunFile::from_preset(preset.name, &[]).or_exit(Exit::Bug)?;
            found = pictures::source_at(data, &file.data.source)?;
        }
        // One line of the text says where the pictures are; everything else, comments too, stays as it is.
        let source = toml::Value::try_from(&found).or_exit(Exit::Usage)?;
        let line = text.lines().find(|line| line.starts_with("source = ")).map(str::to_owned);
        let line = line.ok_or_else(|| Failure::new(Exit::Bug, "the preset has no line for its source"))?;
        text = text.replacen(&line, &format!("source = {}", inline(&source)), 1);
        text = with_fitting_batch(text, glance.n_pictures, file.data.batch_size);
    }
    // What is written can be read.
    RunFile::from_text(&out.display().to_string(), &text).or_exit(Exit::Bug)?;
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder).map_err(at(folder))?;
    }
    Unfinished::write(&out, &text)?;
    if args.json {
        return result_json(&json!({ "file": out.display().to_string(), "preset": preset.name }));
    }
    result(&format!("wrote    {} (preset {})", out.display(), preset.name))?;
    let folder =
        if args.data.is_some() { "" } else { ", after writing data.source.root = \"path/to/pictures\" into it" };
    result(&format!("next     {} pretrain {}{folder}", program(), quoted(&out)))
}

/// So many pictures are decoded to see which of them training would leave out; more are enough for a batch either way.
const FEW: usize = 1024;

/// The text with all `n` pictures as the batch where they are fewer than a batch of the preset, so that it can be trained
/// with as it is.
fn with_fitting_batch(text: String, n: usize, batch_size: usize) -> String {
    if n >= batch_size || n < 2 {
        return text;
    }
    note(&format!("data.batch_size = {n}, all pictures there are, where the preset has {batch_size}"));
    text.replacen(&format!("\nbatch_size = {batch_size}\n"), &format!("\nbatch_size = {n}\n"), 1)
}

/// A table on one line.
fn inline(value: &toml::Value) -> String {
    match value {
        toml::Value::Table(table) => {
            let fields: Vec<String> = table.iter().map(|(key, value)| format!("{key} = {}", inline(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        other => other.to_string(),
    }
}
