//! `embed`: the features of every picture of a folder, in its order.

use std::io::{self, Write};

use serde_json::json;
use twoview_data::{Source, escape_path};
use twoview_eval::extract_features;
use twoview_train::RunDir;

use crate::{
    args::{EmbedArgs, EmbedFormat},
    device,
    evaluate::trained_encoder,
    failure::{Exit, Failure, OrExit},
    labelled::look,
    npy::write_npy,
    pictures,
    run_file::RunFile,
    terminal::{Counter, result, result_json},
    unfinished::Unfinished,
};

/// `twoview embed`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn embed(args: &EmbedArgs) -> Result<(), Failure> {
    let run_dir = RunDir::read_only(&args.run).or_exit(Exit::Run)?;
    let file = RunFile::from_path(&run_dir.config(), &[]).or_exit(Exit::Usage)?;
    let (_, device) = device::open(&args.device.device)?;
    let encoder = trained_encoder(&run_dir, &file.encoder, &device)?;
    let config = pictures::source_at(&args.data, &file.data.source)?;
    let source = pictures::open(&config, args.split.into())?.source;
    let look = look(&file)?;
    let out = args.out.clone().unwrap_or_else(|| {
        run_dir.path().join(match args.format {
            EmbedFormat::Npy => "embeddings.npy",
            EmbedFormat::Csv => "embeddings.csv",
        })
    });
    let names = (args.format == EmbedFormat::Npy).then(|| out.with_extension("names.csv"));
    // Before the work, so that a path that cannot be written costs no waiting.
    let unfinished = Unfinished::create(&out)?;
    let unfinished_names = names.as_deref().map(Unfinished::create).transpose()?;

    let counter = Counter::start("embedding", source.len());
    let rows = extract_features(source.as_ref(), &encoder, look.size_px, look.normalize, &|done, total| {
        counter.at(done, total);
    })
    .or_exit(Exit::Data)?;
    counter.end();

    let dim = encoder.feature_dim();
    match args.format {
        EmbedFormat::Npy => unfinished.finish(|file| write_npy(file, &rows, dim))?,
        EmbedFormat::Csv => unfinished.finish(|file| write_csv(file, source.as_ref(), &rows, dim))?,
    }
    if let Some(unfinished) = unfinished_names {
        unfinished.finish(|file| write_csv(file, source.as_ref(), &[], 0))?;
    }
    if args.json {
        return result_json(
            &json!({ "pictures": source.len(), "dim": dim, "file": escape_path(&out), "names": names.as_deref().map(escape_path) }),
        );
    }
    result(&format!("wrote    {} pictures x {dim} features to {}", source.len(), out.display()))?;
    match names {
        Some(names) => result(&format!("names    {}", names.display())),
        None => Ok(()),
    }
}

/// Path, label and features of each picture; without features only the first two.
fn write_csv(out: &mut impl Write, source: &dyn Source, rows: &[f32], dim: usize) -> io::Result<()> {
    write!(out, "path,label")?;
    (0..dim).try_for_each(|column| write!(out, ",f{column}"))?;
    writeln!(out)?;
    for i in 0..source.len() {
        let label = source.label(i).and_then(|label| source.classes().get(label as usize));
        write!(out, "{},{}", quoted(&source.name(i)), quoted(label.map_or("", String::as_str)))?;
        rows.iter().skip(i * dim).take(dim).try_for_each(|value| write!(out, ",{value}"))?;
        writeln!(out)?;
    }
    out.flush()
}

/// A field as RFC 4180 wants it.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_would_break_a_row_are_quoted() {
        assert_eq!(quoted("a/b.jpg"), "a/b.jpg");
        assert_eq!(quoted("a,\"b\".jpg"), "\"a,\"\"b\"\".jpg\"");
        assert_eq!(quoted("two\nlines"), "\"two\nlines\"");
    }
}
