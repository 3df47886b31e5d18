//! `eval compare`: which of two encoders is better, on the same pictures.

use serde_json::json;
use twoview_data::escape_path;

use crate::{
    args::{CompareArgs, EvalArgs, ProbeName},
    evaluate::{Probe, rung},
    failure::{Exit, Failure, OrExit},
    labelled::Labelled,
    subject::Subject,
    terminal::{note, result, result_json},
};

/// `twoview eval compare`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn compare(args: &CompareArgs) -> Result<(), Failure> {
    let open = |run| Subject::open(Some(run), &args.device.device);
    let (first, second) = (open(&args.first)?, open(&args.second)?);
    let eval = EvalArgs {
        run: None,
        train: args.train.clone(),
        test: args.test.clone(),
        labels: args.labels.clone(),
        test_labels: args.test_labels.clone(),
        classes: false,
        device: args.device.clone(),
        json: args.json,
    };
    // Both see the pictures of the first run, each at its own size.
    let labelled = Labelled::open(&eval, &first.file)?;
    let n_in_train = labelled.n_in_train(first.look())?;
    let probe = match args.by {
        ProbeName::Knn => Probe::Knn(args.knn.clone()),
        ProbeName::Linear => Probe::Linear(args.linear.clone()),
    };
    let ask = |subject: &Subject| probe.ask(&subject.features(&labelled)?, &subject.file, labelled.classes());
    let (a, b) = (ask(&first)?, ask(&second)?);
    if first.look().size_px != second.look().size_px {
        let (a, b) = (first.look().size_px, second.look().size_px);
        note(&format!("the first encoder sees the pictures at {a} px, the second at {b} px"));
    }
    let test = a.predictions.paired_with(&b.predictions).or_exit(Exit::Bug)?;
    let (score_a, score_b) = (a.predictions.score(), b.predictions.score());
    if args.json {
        return result_json(&json!({
            "first": { "run": escape_path(&args.first), "top1": score_a.top1, "ci95": score_a.ci95, "settings": a.how },
            "second": { "run": escape_path(&args.second), "top1": score_b.top1, "ci95": score_b.ci95, "settings": b.how },
            "n": score_a.n,
            "n_in_train": n_in_train,
            "difference": test.difference,
            "ci95": test.ci95,
            "p_value": test.p_value,
            "only_first": test.only_first,
            "only_second": test.only_second,
        }));
    }
    result(&format!("top-1 accuracy on the same {} pictures, with its 95 % interval", score_a.n))?;
    for (run, score, outcome) in [(&args.first, score_a, &a), (&args.second, score_b, &b)] {
        result(&format!("{}  ({}; {})", rung("", &score).trim(), run.display(), outcome.how))?;
    }
    let [low, high] = test.ci95;
    result(&format!(
        "difference {:+.1} points [{:+.1}, {:+.1}]; {} pictures only the first gets right, {} only the second",
        100.0 * test.difference,
        100.0 * low,
        100.0 * high,
        test.only_first,
        test.only_second
    ))?;
    let p = if test.p_value < 0.001 { format!("{:.1e}", test.p_value) } else { format!("{:.3}", test.p_value) };
    let verdict = if test.p_value < 0.05 {
        "the difference is more than chance"
    } else {
        "no difference that chance does not explain"
    };
    result(&format!(
        "McNemar's exact test: p = {p}; {verdict}, of the test pictures; another seed of the training may move both",
    ))
}
