//! `dedup`: pictures that an encoder finds nearly the same.

use serde_json::json;
use twoview_data::{DuplicateGroup, Likeness, duplicates_text, escape_path};
use twoview_eval::NearestRows;

use crate::{
    args::DedupArgs,
    embeddings::Embeddings,
    failure::{Exit, Failure, OrExit},
    subject::Subject,
    terminal::{Counter, counted, listed, quoted, result, result_json},
    unfinished::{Unfinished, may_write},
};

/// Queries that are searched together.
const QUERIES: usize = 1024;

/// Neighbours that a picture is asked for at first; where all of them are alike, more.
const NEIGHBOURS: usize = 16;

/// Groups that are named on the terminal.
const SHOWN: usize = 20;

/// `twoview dedup`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn dedup(args: &DedupArgs) -> Result<(), Failure> {
    if !(args.cosine > -1.0 && args.cosine <= 1.0) {
        let message = format!("--cosine {}: expected a number above -1 and at most 1", args.cosine);
        return Err(Failure::new(Exit::Usage, message));
    }
    let subject = Subject::open(Some(&args.run), &args.device.device)?;
    let out = args.out.clone().unwrap_or_else(|| subject.run_dir.path().join("duplicates.jsonl"));
    may_write(&out)?;
    let embeddings = Embeddings::open(&args.pictures, &subject)?;
    let pairs = pairs(&embeddings, args.cosine)?;
    let source = embeddings.source.as_ref();
    let groups = DuplicateGroup::of_pairs(source, Likeness::Embedding, pairs);
    Unfinished::write(&out, duplicates_text(&groups))?;
    let n: usize = groups.iter().map(|group| group.paths.len()).sum();
    if args.json {
        return result_json(&json!({
            "pictures": embeddings.len(), "alike": n, "groups": groups.len(), "cosine": args.cosine, "file": escape_path(&out),
        }));
    }
    result(&format!(
        "{n} of {} pictures are alike, in {} (cosine from {})",
        embeddings.len(),
        counted(groups.len(), "group"),
        args.cosine
    ))?;
    for group in groups.iter().take(SHOWN) {
        result(&format!("  {}", listed(&group.paths, 3)))?;
    }
    if groups.len() > SHOWN {
        result(&format!("  {} more", counted(groups.len() - SHOWN, "group")))?;
    }
    result(&format!("list     {}", out.display()))?;
    if groups.is_empty() {
        return Ok(());
    }
    result(&format!("use      --set data.duplicates={} keeps a run from contrasting them", quoted(&out)))
}

/// Every pair of pictures whose features have at least this cosine.
fn pairs(embeddings: &Embeddings, cosine: f64) -> Result<Vec<(usize, usize)>, Failure> {
    let (rows, dim, n) = (&embeddings.rows, embeddings.dim, embeddings.len());
    let nearest = NearestRows::new(rows, dim).or_exit(Exit::Bug)?;
    let counter = Counter::start("comparing", n);
    let mut pairs = Vec::new();
    let mut asked: Vec<usize> = (0..n).collect();
    let mut k = NEIGHBOURS.min(n);
    // Whoever has only likes among its neighbours may have more of them.
    while !asked.is_empty() {
        let mut again = Vec::new();
        for some in asked.chunks(QUERIES) {
            let queries: Vec<f32> = some.iter().flat_map(|&i| &rows[i * dim..(i + 1) * dim]).copied().collect();
            for (&own, found) in some.iter().zip(nearest.of(&queries, k).or_exit(Exit::Bug)?) {
                if k < n && found.last().is_some_and(|last| last.similarity >= cosine) {
                    again.push(own);
                    continue;
                }
                let alike = found.iter().take_while(|near| near.similarity >= cosine);
                pairs.extend(alike.filter(|near| near.index > own).map(|near| (own, near.index)));
            }
            counter.at(n - again.len(), n);
        }
        asked = again;
        k = (8 * k).min(n);
    }
    counter.end();
    Ok(pairs)
}
