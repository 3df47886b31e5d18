//! `list`: the names that configurations and command lines choose from.

use serde_json::json;
use twoview_augment::Recipe;

use crate::{
    args::ListArgs,
    device,
    failure::Failure,
    run_file::PRESETS,
    terminal::{result, result_json},
};

/// `twoview list`.
///
/// # Errors
/// Where stdout cannot take the lines.
pub(crate) fn list(args: &ListArgs) -> Result<(), Failure> {
    let presets: Vec<(&str, &str)> = PRESETS.iter().map(|preset| (preset.name, about(preset.text))).collect();
    let recipes: Vec<&str> = Recipe::ALL.iter().map(|recipe| recipe.name()).collect();
    let devices = device::compiled();
    if args.json {
        let presets: Vec<_> = presets.iter().map(|(name, about)| json!({ "name": name, "about": about })).collect();
        return result_json(&json!({ "presets": presets, "recipes": recipes, "devices": devices }));
    }
    result("presets, for --preset")?;
    let width = presets.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    presets.iter().try_for_each(|(name, about)| result(&format!("  {name:width$}  {about}")))?;
    result(&format!("recipes of views, for preview --preset and bench views --recipe\n  {}", recipes.join(", ")))?;
    result(&format!("devices in this build, for --device\n  {}", devices.join(", ")))
}

/// The first line of a preset's text, which says what it is.
fn about(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_start_matches('#').trim()
}
