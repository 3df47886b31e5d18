//! The format of a file that is written.

use std::path::Path;

use clap::ValueEnum;

use crate::failure::{Exit, Failure};

/// The format that was asked for, else the one that the ending of `out` names, else, where it has none, `usual`.
///
/// # Errors
/// [`Exit::Usage`] where the ending names another format than the one asked for, because whoever opens the file goes by its
/// name, or one that is not known.
pub(crate) fn file_format<F: ValueEnum + PartialEq>(
    asked: Option<F>,
    out: Option<&Path>,
    usual: F,
) -> Result<F, Failure> {
    let ending = out.and_then(|out| out.extension()?.to_str());
    let named = ending.and_then(|ending| F::from_str(ending, true).ok());
    match (asked, named, out) {
        (Some(asked), Some(named), Some(out)) if asked != named => {
            let name = asked.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            let message = format!(
                "--format {name}: --out {} is named like another format; leave --format out, or name the file .{name}",
                out.display()
            );
            Err(Failure::new(Exit::Usage, message))
        }
        (None, None, Some(out)) if ending.is_some() => {
            let known =
                F::value_variants().iter().filter_map(|format| Some(format.to_possible_value()?.get_name().to_owned()));
            let message = format!(
                "--out {}: its ending names no format; say which with --format: {}",
                out.display(),
                known.collect::<Vec<_>>().join(", ")
            );
            Err(Failure::new(Exit::Usage, message))
        }
        (asked, named, _) => Ok(asked.or(named).unwrap_or(usual)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::EmbedFormat as Format;

    #[test]
    fn a_file_is_what_its_ending_says() {
        let format = |asked, out: Option<&str>| file_format(asked, out.map(Path::new), Format::Npy).ok();
        assert_eq!(format(None, None), Some(Format::Npy));
        assert_eq!(format(None, Some("a/photos.CSV")), Some(Format::Csv));
        assert_eq!(format(None, Some("a.dir/photos")), Some(Format::Npy));
        assert_eq!(format(None, Some("photos.parq")), None);
        assert_eq!(format(Some(Format::Csv), Some("photos.txt")), Some(Format::Csv));
        assert_eq!(format(Some(Format::Safetensors), Some("photos.safetensors")), Some(Format::Safetensors));
        assert_eq!(format(Some(Format::Npy), Some("photos.csv")), None);
    }
}
