//! `search`: the pictures that an encoder finds most like a given one.

use std::{fs, path::Path, sync::Arc};

use serde_json::json;
use twoview_data::{DetectError, ImageSource, Source, SourceKind, Split, escape_path};
use twoview_eval::NearestRows;
use twoview_pixels::{decode, encode_png};
use twoview_report::{Cell, contact_sheet};

use crate::{
    args::SearchArgs,
    embeddings::{self, Embeddings},
    failure::{Exit, Failure, OrExit, at},
    pictures,
    subject::Subject,
    terminal::{note, result, result_json},
    unfinished::{Unfinished, may_write},
};

/// Side of a picture on the sheet, in pixels.
const SHEET_PX: u32 = 160;

/// Queries on the sheet: more than anyone looks at is no help.
const SHEET_ROWS: usize = 50;

/// `twoview search`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn search(args: &SearchArgs) -> Result<(), Failure> {
    let subject = Subject::open(Some(&args.run), &args.device.device)?;
    args.sheet.as_deref().map_or(Ok(()), may_write)?;
    let queries = open_queries(&args.query, &subject)?;
    let Embeddings { source, rows, dim } = Embeddings::open(&args.pictures, &subject)?;
    let query_rows = embeddings::make(&subject, queries.as_ref())?;
    // A query that lies among the pictures would find itself; one more makes up for it.
    let nearest = NearestRows::new(&rows, dim).or_exit(Exit::Bug)?;
    let found = nearest.of(&query_rows, args.k.saturating_add(1)).or_exit(Exit::Bug)?;
    let place = |source: &dyn Source, i: usize| fs::canonicalize(source.path(i)).ok();
    let found: Vec<Vec<(usize, f64)>> = (found.into_iter().enumerate())
        .map(|(query, found)| {
            let own = place(queries.as_ref(), query);
            let others = found.into_iter().filter(|near| own.is_none() || place(source.as_ref(), near.index) != own);
            others.map(|near| (near.index, near.similarity)).take(args.k).collect()
        })
        .collect();
    if let Some(path) = &args.sheet {
        write_sheet(path, queries.as_ref(), source.as_ref(), &found)?;
    }
    for (query, found) in found.iter().enumerate() {
        let name = queries.name(query);
        if args.json {
            let found: Vec<_> =
                found.iter().map(|&(i, cosine)| json!({ "path": escape_path(&source.path(i)), "name": source.name(i), "cosine": cosine })).collect();
            result_json(&json!({ "query": name, "found": found }))?;
            continue;
        }
        result(&name)?;
        found
            .iter()
            .try_for_each(|&(i, cosine)| result(&format!("  {cosine:6.4}  {}", escape_path(&source.path(i)))))?;
    }
    match &args.sheet {
        Some(path) if !args.json => result(&format!("sheet    {}", path.display())),
        _ => Ok(()),
    }
}

/// One picture file, or every picture of a set.
fn open_queries(path: &Path, subject: &Subject) -> Result<Arc<dyn Source>, Failure> {
    let config = &subject.file.data.source;
    let is_picture = path.is_file() && fs::read(path).is_ok_and(|bytes| twoview_pixels::Format::of(&bytes).is_some());
    if !is_picture {
        return match SourceKind::detect(path) {
            Err(DetectError::UnknownFile { seen, .. }) => {
                let message = format!(
                    "{}: expected a picture, or a folder or another set of them to search for; this is {seen}",
                    escape_path(path)
                );
                Err(Failure::new(Exit::Data, message))
            }
            _ => Ok(pictures::open(&pictures::source_at(path, config)?, Split::Train)?.source),
        };
    }
    let bytes = fs::read(path).map_err(at(path))?;
    let image = decode(&bytes, &pictures::decode_options(config))
        .map_err(|error| Failure::new(Exit::Data, format!("{}: {error}", path.display())))?;
    Ok(Arc::new(ImageSource::new([(escape_path(path), image)])))
}

fn write_sheet(
    path: &Path,
    queries: &dyn Source,
    source: &dyn Source,
    found: &[Vec<(usize, f64)>],
) -> Result<(), Failure> {
    if found.len() > SHEET_ROWS {
        note(&format!("the sheet shows the first {SHEET_ROWS} of {} queries", found.len()));
    }
    let mut sheet = Vec::new();
    for (query, found) in found.iter().enumerate().take(SHEET_ROWS) {
        let cell = |source: &dyn Source, i: usize, caption: String| {
            let picture = pictures::shrunk(&source.image(i).or_exit(Exit::Data)?, SHEET_PX)?;
            Ok::<Cell, Failure>(Cell { picture, caption })
        };
        let mut row = vec![cell(queries, query, format!("query {}", queries.name(query)))?];
        for &(i, cosine) in found {
            row.push(cell(source, i, format!("{cosine:.3} {}", source.name(i)))?);
        }
        sheet.push(row);
    }
    let sheet = contact_sheet(&sheet, SHEET_PX).or_exit(Exit::Data)?;
    Unfinished::write(path, encode_png(&sheet).or_exit(Exit::Bug)?)
}
