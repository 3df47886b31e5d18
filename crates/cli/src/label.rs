//! `label`: labels for all pictures from a few, by the neighbours of each.

use serde_json::json;
use twoview_data::escape_path;
use twoview_eval::{FeatureBank, KnnConfig};

use crate::{
    args::LabelArgs,
    embeddings::Embeddings,
    failure::{Exit, Failure, OrExit},
    subject::Subject,
    terminal::{note, result, result_json},
    unfinished::Unfinished,
};

/// `twoview label`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn label(args: &LabelArgs) -> Result<(), Failure> {
    let mut subject = Subject::open(Some(&args.run), &args.device.device)?;
    if let Some(data) = &args.pictures.data {
        subject.file.data.source = crate::pictures::source_at(data, &subject.file.data.source)?;
    }
    subject.file.data.source.set_labels(&args.labels)?;
    let own = crate::args::PicturesArgs { data: None, ..args.pictures.clone() };
    let Embeddings { source, rows, dim } = Embeddings::open(&own, &subject)?;
    let known: Vec<usize> = (0..source.len()).filter(|&i| source.label(i).is_some()).collect();
    let labels: Vec<u32> = known.iter().filter_map(|&i| source.label(i)).collect();
    let bank = |members: &[usize], labels: Vec<u32>| {
        let rows = members.iter().flat_map(|&i| &rows[i * dim..(i + 1) * dim]).copied().collect();
        FeatureBank::new(rows, dim, labels).or_exit(Exit::Data)
    };
    let all: Vec<usize> = (0..source.len()).collect();
    let train = bank(&known, labels)?;
    // The labels of the queries are not looked at.
    let queries = bank(&all, vec![0; all.len()])?;
    let knn = KnnConfig { k: args.k, temperature: subject.file.eval.knn.temperature };
    let votes = knn.init(&train).or_exit(Exit::Data)?.votes(&queries).or_exit(Exit::Bug)?;

    let mut n_given = 0;
    let mut n_unsure = 0;
    let rows = all.iter().filter_map(|&i| {
        let own = source.label(i);
        let vote = &votes[i];
        let share = vote.shares.iter().find(|(class, _)| *class == vote.predicted).map_or(0.0, |(_, share)| *share);
        let (class, share, by) = match own {
            Some(class) => (class, 1.0, "given"),
            None if share < args.min_share => {
                n_unsure += 1;
                return None;
            }
            None => {
                n_given += 1;
                (vote.predicted, share, "neighbours")
            }
        };
        let class = source.classes().get(class as usize).cloned().unwrap_or_default();
        Some([source.name(i).into_owned(), class, format!("{share:.4}"), by.to_owned()])
    });
    let rows: Vec<[String; 4]> = rows.collect();
    let out = args.out.clone();
    Unfinished::create(&out)?.finish(|file| {
        let mut table = csv::Writer::from_writer(file);
        table.write_record(["path", "label", "share", "by"])?;
        rows.iter().try_for_each(|row| table.write_record(row))?;
        table.flush()
    })?;
    if args.json {
        return result_json(&json!({
            "file": escape_path(&out), "given": known.len(), "labelled": n_given, "unsure": n_unsure,
        }));
    }
    note(
        "labels by neighbours are guesses: look at some, and at those with the smallest share, before you rely on them",
    );
    result(&format!(
        "labelled {n_given} pictures by {} given labels; {n_unsure} left out, below a share of {}",
        known.len(),
        args.min_share
    ))?;
    result(&format!("table    {}", out.display()))
}
