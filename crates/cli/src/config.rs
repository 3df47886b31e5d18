//! `config show` and `config schema`: what a run would do, complete, and what can be written in a run file.

use serde_json::Value;

use crate::{
    args::ConfigShowArgs,
    failure::{Exit, Failure, OrExit},
    run_file::RunFile,
    run_plan::check,
    terminal::result,
};

/// `twoview config show`.
///
/// # Errors
/// [`Exit::Usage`] where the configuration is not one.
pub(crate) fn show(args: &ConfigShowArgs) -> Result<(), Failure> {
    let sets = &args.config.set;
    let file = match (&args.input, &args.config.preset) {
        (Some(_), Some(preset)) => {
            let message = format!("--preset {preset} and a run file are both whole configurations; give one of them");
            return Err(Failure::new(Exit::Usage, message));
        }
        (Some(input), None) if input.is_dir() => RunFile::from_path(&input.join("config.resolved.toml"), sets),
        (Some(input), None) => RunFile::from_path(input, sets),
        (None, preset) => RunFile::from_preset(preset.as_deref().unwrap_or("small"), sets),
    }
    .or_exit(Exit::Usage)?;
    check(&file).or_exit(Exit::Usage)?;
    if args.json {
        result(&serde_json::to_string(&file).or_exit(Exit::Bug)?)
    } else {
        result(file.to_toml().or_exit(Exit::Bug)?.trim_end())
    }
}

/// `twoview config schema`.
///
/// # Errors
/// [`Exit::Io`] where stdout cannot take it.
pub(crate) fn schema() -> Result<(), Failure> {
    let mut schema = schemars::schema_for!(RunFile).to_value();
    without_links(&mut schema);
    result(&serde_json::to_string_pretty(&schema).or_exit(Exit::Bug)?)
}

/// The descriptions are the doc comments of the program, whose links to its items lead nowhere in an editor.
fn without_links(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            for (key, value) in keys {
                match value {
                    Value::String(text) if key == "description" => {
                        *text = text.replace("[`crate::", "`").replace("[`", "`").replace("`]", "`");
                    }
                    value => without_links(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(without_links),
        _ => {}
    }
}
