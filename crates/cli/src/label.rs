//! `label`: labels for all pictures from a few, by the neighbours of each or by the cluster it is in.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use serde::Deserialize;
use serde_json::json;
use twoview_data::{Source, escape_path};
use twoview_eval::{FeatureBank, KnnConfig, Vote};

use crate::{
    args::{LabelArgs, PicturesArgs},
    embeddings::Embeddings,
    failure::{Exit, Failure, OrExit},
    pictures,
    subject::Subject,
    terminal::{note, result, result_json},
    unfinished::{Unfinished, may_write},
};

/// `twoview label`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn label(args: &LabelArgs) -> Result<(), Failure> {
    let is_out = |input: &Path| {
        fs::canonicalize(input).is_ok_and(|input| fs::canonicalize(&args.out).is_ok_and(|out| out == input))
    };
    if is_out(&args.labels) || args.clusters.as_deref().is_some_and(is_out) {
        let message = format!("--out {}: this is one of the tables that are read; name another", args.out.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    may_write(&args.out)?;
    let mut subject = Subject::open(Some(&args.run), &args.device.device)?;
    subject.file.data.source =
        pictures::source_or_own(args.pictures.data.as_deref(), "--in", &subject.file.data.source)?;
    subject.file.data.source.set_labels(&args.labels)?;
    let (source, guesses, by) = match &args.clusters {
        Some(table) => {
            let source = pictures::open(&subject.file.data.source, args.pictures.split.into())?.source;
            require_labels(source.as_ref(), &args.labels)?;
            let guesses = by_cluster(source.as_ref(), table)?;
            (source, guesses, "cluster")
        }
        None => {
            let own = PicturesArgs { data: None, ..args.pictures.clone() };
            let embeddings = Embeddings::open(&own, &subject)?;
            require_labels(embeddings.source.as_ref(), &args.labels)?;
            let knn = KnnConfig { k: args.k, temperature: subject.file.eval.knn.temperature };
            let guesses = by_neighbours(&embeddings, knn)?;
            (embeddings.source, guesses, "neighbours")
        }
    };

    let (mut n_known, mut n_given, mut n_unsure) = (0, 0, 0);
    let mut rows = Vec::with_capacity(source.len());
    for (i, guess) in guesses.into_iter().enumerate() {
        let (class, share, by) = match (source.label(i), guess) {
            (Some(class), _) => {
                n_known += 1;
                (class, 1.0, "given")
            }
            (None, Some(Guess { class, share })) if share >= args.min_share => {
                n_given += 1;
                (class, share, by)
            }
            (None, _) => {
                n_unsure += 1;
                continue;
            }
        };
        let class = source.classes().get(class as usize).cloned().unwrap_or_default();
        rows.push([source.name(i).into_owned(), class, format!("{share:.4}"), by.to_owned()]);
    }
    let out = args.out.clone();
    Unfinished::create(&out)?.finish(|file| {
        let mut table = csv::Writer::from_writer(file);
        table.write_record(["path", "label", "share", "by"])?;
        rows.iter().try_for_each(|row| table.write_record(row))?;
        table.flush()
    })?;
    if args.json {
        return result_json(&json!({
            "file": escape_path(&out), "given": n_known, "labelled": n_given, "unsure": n_unsure,
        }));
    }
    note(&format!(
        "labels by {by} are guesses: look at some, and at those with the smallest share, before you rely on them"
    ));
    result(&format!(
        "labelled {n_given} pictures by {n_known} given labels; {n_unsure} left out, without one or below a share of {}",
        args.min_share
    ))?;
    result(&format!("table    {}", out.display()))
}

fn require_labels(source: &dyn Source, table: &Path) -> Result<(), Failure> {
    if (0..source.len()).any(|i| source.label(i).is_some()) {
        return Ok(());
    }
    Err(Failure::new(Exit::Data, format!("none of the pictures has a label in {}", table.display())))
}

/// A class, and how much speaks for it, in `[0, 1]`.
struct Guess {
    class: u32,
    share: f64,
}

/// What the labelled neighbours of each picture vote for.
fn by_neighbours(embeddings: &Embeddings, knn: KnnConfig) -> Result<Vec<Option<Guess>>, Failure> {
    let Embeddings { source, rows, dim } = embeddings;
    let known: Vec<usize> = (0..source.len()).filter(|&i| source.label(i).is_some()).collect();
    let labels: Vec<u32> = known.iter().filter_map(|&i| source.label(i)).collect();
    let train = known.iter().flat_map(|&i| &rows[i * dim..(i + 1) * dim]).copied().collect();
    let train = FeatureBank::new(train, *dim, labels).or_exit(Exit::Data)?;
    // The labels of the queries are not looked at.
    let queries = FeatureBank::new(rows.clone(), *dim, vec![0; source.len()]).or_exit(Exit::Data)?;
    let votes = knn.init(&train).or_exit(Exit::Data)?.votes(&queries).or_exit(Exit::Bug)?;
    let guess = |vote: Vote| {
        let share = vote.shares.iter().find(|(class, _)| *class == vote.predicted).map_or(0.0, |(_, share)| *share);
        Some(Guess { class: vote.predicted, share })
    };
    Ok(votes.into_iter().map(guess).collect())
}

/// The commonest label of the cluster that each picture is in, by the table that `twoview cluster` wrote.
fn by_cluster(source: &dyn Source, table: &Path) -> Result<Vec<Option<Guess>>, Failure> {
    let refused = |why: String| {
        let message = format!("--clusters {}: {why}; expected the table of `twoview cluster`", table.display());
        Failure::new(Exit::Data, message)
    };
    let mut rows = csv::Reader::from_path(table).map_err(|error| refused(error.to_string()))?;
    let mut clusters = HashMap::new();
    for row in rows.deserialize() {
        let ClusterRow { path, cluster } = row.map_err(|error| refused(error.to_string()))?;
        clusters.insert(path, cluster);
    }
    let cluster_of = |i: usize| clusters.get(&*source.name(i));
    let mut counts: HashMap<u64, BTreeMap<u32, usize>> = HashMap::new();
    let mut n_found = 0;
    for i in 0..source.len() {
        let Some(&cluster) = cluster_of(i) else { continue };
        n_found += 1;
        if let Some(class) = source.label(i) {
            *counts.entry(cluster).or_default().entry(class).or_default() += 1;
        }
    }
    if n_found == 0 {
        return Err(refused("it has none of the pictures".to_owned()));
    }
    let guess = |i: usize| {
        let counts = counts.get(cluster_of(i)?)?;
        // Of equally common labels the first class.
        let (class, n) = counts.iter().max_by_key(|(class, n)| (**n, Reverse(**class)))?;
        Some(Guess { class: *class, share: *n as f64 / counts.values().sum::<usize>() as f64 })
    };
    Ok((0..source.len()).map(guess).collect())
}

#[derive(Deserialize)]
struct ClusterRow {
    path: String,
    cluster: u64,
}
