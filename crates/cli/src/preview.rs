//! `preview`: a contact sheet of what the augmentations do to one's own pictures.

use std::path::PathBuf;

use serde_json::json;
use twoview_augment::{Augment, MultiCrop, MultiCropConfig, Recipe, ViewKey, ViewPlan};
use twoview_data::{EpochOrder, ReadBuffers, Source};
use twoview_pixels::{Image, encode_png};
use twoview_report::{Cell, contact_sheet};

use crate::{
    args::{ConfigArgs, PreviewArgs},
    failure::{Exit, Failure, OrExit},
    pretrain::choose,
    run_file::{RunFile, did_you_mean, preset_names},
    terminal::{note, result, result_json},
    unfinished::{Unfinished, may_write},
};

/// The name of a preset that is no list but two.
/// Side of a picture on a sheet that is one figure among others, in pixels.
const SHEET_PX: u32 = 160;

const MULTI_CROP: &str = "multi_crop";

/// How views are made: as pairs, or as a pair and small ones.
enum Views {
    Pairs(Augment),
    MultiCrop(MultiCrop),
}

impl Views {
    /// Plan `place` of the views that training shows one after the other: first those of epoch 0, then of epoch 1.
    fn plan(&self, seed: u64, sample: u64, place: u32, width: u32, height: u32) -> ViewPlan {
        let per_epoch = match self {
            Views::Pairs(_) => 2,
            Views::MultiCrop(views) => views.n_views(),
        };
        let key = ViewKey { seed, epoch: place / per_epoch, sample, view: place % per_epoch };
        match self {
            Views::Pairs(augment) => augment.plan(&key, width, height),
            Views::MultiCrop(views) => views.plan(&key, width, height),
        }
    }

    fn size_px(&self) -> u32 {
        match self {
            Views::Pairs(augment) => augment.size_px(),
            Views::MultiCrop(views) => views.of_view(0).size_px(),
        }
    }
}

/// `twoview preview`.
///
/// # Errors
/// [`Exit::Usage`] where the configuration is not one, [`Exit::Data`] where no picture can be had, [`Exit::Io`] where the
/// sheet cannot be written.
pub(crate) fn preview(args: &PreviewArgs) -> Result<(), Failure> {
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from("preview.png"));
    may_write(&out)?;
    let name = args.preset.as_deref();
    let recipe = name.and_then(|name| name.parse::<Recipe>().ok());
    let is_list = recipe.is_some() || name == Some(MULTI_CROP);
    if let Some(name) = name
        && !is_list
        && !name.ends_with(".toml")
        && !RunFile::is_preset(name)
    {
        let recipes: Vec<&str> = Recipe::ALL.iter().map(|recipe| recipe.name()).chain([MULTI_CROP]).collect();
        let (presets, hint) = (preset_names(), did_you_mean(name, recipes.iter().copied()));
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "--preset {name}: there is no such preset and no such recipe of views; expected a run file (.toml), one of \
                 {presets}, or one of {}{hint}",
                recipes.join(", ")
            ),
        ));
    }
    // A recipe changes how views are made; everything else is what the folder would be trained with.
    let preset = if is_list { None } else { args.preset.clone() };
    let config = ConfigArgs { preset, set: args.set.clone() };
    let (file, pictures) = choose(&args.data, &config)?;
    let augment = file.augment.init().or_exit(Exit::Usage)?;
    let size_px = augment.size_px();
    let views = match recipe {
        Some(recipe) => Views::Pairs(recipe.config(size_px).init().or_exit(Exit::Usage)?),
        None if is_list => {
            // SwAV's ratio of sides, 96 to 224.
            let local_px = (size_px * 3 / 7).max(1);
            let config = MultiCropConfig::of(Recipe::Imagenet, size_px, local_px, 4);
            Views::MultiCrop(config.init().or_exit(Exit::Usage)?)
        }
        None => Views::Pairs(augment),
    };
    let seed = args.seed.unwrap_or(file.seed);
    let (rows, plans) = rows(&*pictures.source, &views, seed, args.grid)?;
    let sheet = contact_sheet(&rows, views.size_px()).or_exit(Exit::Data)?;
    Unfinished::write(&out, encode_png(&sheet).or_exit(Exit::Data)?)?;

    let (pictures, columns) = (rows.len(), args.grid.1);
    if args.json {
        let file = out.display().to_string();
        return result_json(&json!({
            "file": file, "pictures": pictures, "views": columns, "seed": seed, "size_px": views.size_px(), "plans": plans,
        }));
    }
    result(&format!("{}: {pictures} pictures and {columns} views of each, seed {seed}", out.display()))
}

/// A sheet of four pictures with four of the views that a run makes of each.
///
/// # Errors
/// As [`preview`].
pub(crate) fn sheet_of(source: &dyn Source, file: &RunFile) -> Result<Image, Failure> {
    let views = Views::Pairs(file.augment.clone().init().or_exit(Exit::Usage)?);
    let (rows, _) = rows(source, &views, file.seed, (4, 4))?;
    contact_sheet(&rows, views.size_px().min(SHEET_PX)).or_exit(Exit::Data)
}

/// The first pictures of the first epoch, each with its first views, and the plans of those.
fn rows(
    source: &dyn Source,
    views: &Views,
    seed: u64,
    (n_rows, n_views): (u32, u32),
) -> Result<(Vec<Vec<Cell>>, Vec<serde_json::Value>), Failure> {
    let n = u32::try_from(source.len()).or_exit(Exit::Data)?;
    let mut buffers = ReadBuffers::default();
    let (mut rows, mut plans) = (Vec::new(), Vec::new());
    for &sample in EpochOrder::new(n, seed, 0).as_slice() {
        if rows.len() >= n_rows as usize {
            break;
        }
        let name = source.name(sample as usize).into_owned();
        let image = match source.read(sample as usize, &mut buffers) {
            Ok(image) => image,
            Err(error) => {
                note(&format!("left out: {error}"));
                continue;
            }
        };
        let (width, height) = (image.width(), image.height());
        let mut row = vec![Cell { picture: image.clone(), caption: format!("{name} {width}x{height}") }];
        for place in 0..n_views {
            let plan = views.plan(seed, sample.into(), place, width, height);
            let picture = plan.render(image).or_exit(Exit::Data)?;
            row.push(Cell { picture, caption: plan.to_string() });
            plans.push(json!({ "picture": name, "place": place, "plan": plan, "words": plan.to_string() }));
        }
        rows.push(row);
    }
    Ok((rows, plans))
}
