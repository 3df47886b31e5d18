//! `data fetch`: a published set from its makers' server, or from a mirror.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use twoview_fetch::{DownloadError, Event, FetchConfig, FetchError, Fetched, Patience, Recipe, UnpackError};

use crate::{
    args::DataFetchArgs,
    failure::{Exit, Failure, OrExit, at},
    signals::Signals,
    terminal::{ByteBar, note, program, quoted, result, result_json},
};

macro_rules! recipe {
    ($name:literal) => {
        (concat!("datasets/", $name, ".toml"), include_str!(concat!("../../../datasets/", $name, ".toml")))
    };
}

/// Every built-in recipe: the files of `datasets/`, with their names.
const RECIPES: [(&str, &str); 4] = [recipe!("cifar10"), recipe!("cifar100"), recipe!("stl10"), recipe!("imagenette")];

/// `twoview data fetch`.
///
/// # Errors
/// [`Exit::Usage`] for an unknown set, a wrong recipe or an occupied folder, [`Exit::Data`] where what came is not what the
/// recipe describes, [`Exit::Io`] where server or disk failed and the same command goes on, [`Exit::Run`] where another
/// process fetches into the same folder.
pub(crate) fn fetch(args: &DataFetchArgs) -> Result<(), Failure> {
    if args.list {
        return list(args.json);
    }
    let Some(name) = &args.name else {
        let message = format!("which set? One of {}, or a recipe (.toml); --list says more", names(&built_in()?));
        return Err(Failure::new(Exit::Usage, message));
    };
    let recipe = find(name)?;
    let dest = args.to.clone().unwrap_or_else(|| PathBuf::from(&recipe.name));
    // Before the first byte: whoever may not use the pictures need not wait for them.
    note(&format!("{}: {}", recipe.name, recipe.title));
    note(&format!("terms    {} ({})", recipe.licence, recipe.homepage));
    note(&format!("cite     {}", recipe.citation));
    let config = FetchConfig { mirror: args.mirror.clone(), proxy: proxy(), patience: Patience::STANDARD };
    let signals = Signals::listen().or_exit(Exit::Io)?;
    let mut bar = ByteBar::start();
    let (mut most, mut unpacked) = (recipe.archive.bytes, recipe.archive.unpacked.max_bytes);
    let fetched = twoview_fetch::fetch(&recipe, &dest, &config, &signals.stop, &mut |event| match event {
        Event::Downloading { done, total } => bar.at("downloading", done, total),
        Event::Verifying { done, total } => {
            most = most.max(total);
            bar.at("verifying", done, most);
        }
        Event::Unpacking { bytes, .. } => {
            unpacked = unpacked.max(bytes);
            bar.at("unpacking", bytes, unpacked);
        }
        Event::Retrying { reason, pause } => {
            bar.note(&format!("{reason}; trying again in {:.0} s", pause.as_secs_f64()))
        }
        Event::StartedOver { reason } => bar.note(&format!("starting over: {reason}")),
        Event::NextAddress { reason, url } => bar.note(&format!("{reason}; trying {url}")),
        _ => {}
    });
    bar.end();
    let fetched = fetched.map_err(|error| failure(error, &signals))?;
    say(args.json, &recipe, &dest, &fetched)
}

fn say(as_json: bool, recipe: &Recipe, dest: &Path, fetched: &Fetched) -> Result<(), Failure> {
    let train = dest.join(&recipe.layout.train);
    let test = recipe.layout.test.as_ref().map(|test| dest.join(test));
    if as_json {
        return result_json(&json!({
            "name": recipe.name,
            "dir": dest.display().to_string(),
            "was_there": fetched.was_there,
            "files": fetched.files,
            "bytes": fetched.bytes,
            "received": fetched.received,
            "train": train.display().to_string(),
            "test": test.map(|test| test.display().to_string()),
        }));
    }
    let size = fetched.bytes as f64 / 1e6;
    let done = if fetched.was_there { "present " } else { "fetched " };
    let how = if fetched.was_there { ", every one as it was unpacked; nothing was downloaded" } else { "" };
    result(&format!("{done} {}: {} files, {size:.1} MB{how}", dest.display(), fetched.files))?;
    result(&format!("terms    {}", recipe.licence))?;
    if let Some(test) = test {
        result(&format!("test     {}", quoted(&test)))?;
    }
    result(&format!("next     {} pretrain {}", program(), quoted(&train)))
}

fn list(as_json: bool) -> Result<(), Failure> {
    let recipes = built_in()?;
    if as_json {
        return result_json(&recipes.iter().map(|recipe| json!(recipe)).collect::<Value>());
    }
    for recipe in recipes {
        result(&format!("{:11} {}", recipe.name, recipe.title))?;
        result(&format!(
            "{:11} {:.0} MB to download, from {}",
            "",
            recipe.archive.bytes as f64 / 1e6,
            recipe.homepage
        ))?;
        result(&format!("{:11} terms: {}", "", recipe.licence))?;
    }
    Ok(())
}

/// A built-in recipe by its name, or the one in a file if the name ends in `.toml`.
fn find(name: &str) -> Result<Recipe, Failure> {
    if name.ends_with(".toml") {
        let path = Path::new(name);
        let text = fs::read_to_string(path).map_err(|error| Failure { exit: Exit::Usage, ..at(path)(error) })?;
        return parse(name, &text);
    }
    let recipes = built_in()?;
    recipes.iter().find(|recipe| recipe.name == name).cloned().ok_or_else(|| {
        let near = recipes.iter().map(|recipe| (strsim::jaro(&recipe.name, name), &recipe.name));
        let near = near.filter(|(near, _)| *near > 0.7).max_by(|(a, _), (b, _)| a.total_cmp(b));
        let hint = near.map(|(_, near)| format!("; did you mean {near}?")).unwrap_or_default();
        let names = names(&recipes);
        let message = format!("no set is called `{name}`; expected one of {names} or a recipe (.toml){hint}");
        Failure::new(Exit::Usage, message)
    })
}

fn built_in() -> Result<Vec<Recipe>, Failure> {
    RECIPES.iter().map(|(file, text)| parse(file, text)).collect()
}

fn names(recipes: &[Recipe]) -> String {
    recipes.iter().map(|recipe| recipe.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn parse(file: &str, text: &str) -> Result<Recipe, Failure> {
    let recipe: Recipe = toml::from_str(text)
        .map_err(|error| Failure::new(Exit::Usage, format!("{file}: {}", error.to_string().trim_end())))?;
    recipe.check().map_err(|error| Failure::new(Exit::Usage, format!("{file}: {error}")))?;
    Ok(recipe)
}

/// The proxy for HTTPS, as other programs find it.
fn proxy() -> Option<String> {
    let names = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    names.iter().filter_map(|name| env::var(name).ok()).find(|proxy| !proxy.is_empty())
}

fn failure(error: FetchError, signals: &Signals) -> Failure {
    use FetchError as E;
    let exit = match &error {
        E::Download(DownloadError::Stopped) => signals.exit(),
        E::Recipe(_) | E::NoName { .. } | E::Occupied { .. } | E::Proxy { .. } => Exit::Usage,
        E::Busy { .. } => Exit::Run,
        E::Download(DownloadError::WrongLength { .. })
        | E::WrongChecksum { .. }
        | E::Damaged { .. }
        | E::Layout { .. } => Exit::Data,
        E::Unpack { source: UnpackError::Write { .. } | UnpackError::Unreadable { .. }, .. } => Exit::Io,
        E::Unpack { .. } => Exit::Data,
        _ => Exit::Io,
    };
    Failure { exit, error: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_is_one_and_called_like_its_file() {
        for (file, text) in RECIPES {
            let recipe = parse(file, text).unwrap_or_else(|failure| panic!("{:#}", failure.error));
            assert_eq!(file, format!("datasets/{}.toml", recipe.name));
            assert!(recipe.archive.urls.iter().all(|url| url.starts_with("https://")), "{file}");
        }
    }

    #[test]
    fn an_unknown_set_names_the_nearest_one() {
        let failure = find("cifar-10").expect_err("a wrong name");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.error.to_string().contains("did you mean cifar10?"), "{}", failure.error);
    }
}
