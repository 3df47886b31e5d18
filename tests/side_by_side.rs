//! The answers and tables of the program beside those of the Python programs that people know.
//!
//! Where the environment variable `TWOVIEW_PYTHON` names an interpreter with numpy, scikit-learn, pandas and tensorboard.

#![allow(clippy::print_stdout, reason = "a skipped test says so, and the scores are worth reading")]

use std::{env, fs, path::PathBuf};

use crate::{
    cli::{json, pretrain_args, with_pictures},
    exchange::python,
};

/// Asks scikit-learn the questions of `eval knn` and `eval linear` on the same features.
const SCIKIT_LEARN: &str = "
import csv, json
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

def read(stem):
    return np.load(stem + '.npy').astype(np.float64), np.array([row['label'] for row in csv.DictReader(open(stem + '.npy.names.csv'))])

def confusions(predicted):
    pairs, counts = np.unique(np.stack([t, predicted])[:, t != predicted], axis=1, return_counts=True)
    return {(a, b): int(n) for (a, b), n in zip(pairs.T, counts)}

def same(name, ours, predicted):
    theirs, top1 = confusions(predicted), float((predicted == t).mean())
    mine = {(c['class'], c['predicted']): c['n'] for c in ours['confusions']}
    print(name, 'twoview', ours['top1'], 'scikit-learn', top1, 'confusions differ in', len(set(theirs.items()) ^ set(mine.items())))
    assert abs(ours['top1'] - top1) <= 0.001, name
    return theirs == mine

(x, y), (q, t) = read('train'), read('test')
knn = json.load(open('knn.json'))
neighbours = KNeighborsClassifier(knn['k'], algorithm='brute', metric='cosine', weights=lambda d: np.exp((1 - d) / knn['temperature']))
assert same('kNN', knn, neighbours.fit(x, y).predict(q)), 'not the same predictions'

linear = json.load(open('linear.json'))
mean, std = x.mean(axis=0), x.std(axis=0)
std[std == 0] = 1
probe = LogisticRegression(C=1 / (linear['l2'] * len(x)), tol=1e-9, max_iter=10000)
assert same('linear', linear, probe.fit((x - mean) / std, y).predict((q - mean) / std)), 'not the same predictions'
";

/// Reads what a run wrote with the programs it was written for.
const READERS: &str = "
import json
import pandas
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

rows = [json.loads(line) for line in open('run/metrics.jsonl')]
events = EventAccumulator('run/tb').Reload()
for tag, key in [('loss/loss', 'loss'), ('embeddings/effective_rank', 'effective_rank'), ('optimizer/lr', 'lr')]:
    scalars = events.Scalars(tag)
    assert [s.step for s in scalars] == [row['step'] for row in rows], tag
    assert all(abs(s.value - row[key]) <= 1e-6 * abs(row[key]) for s, row in zip(scalars, rows)), tag
assert [s.step for s in events.Scalars('knn/top1')] == [row['step'] for row in rows if row['knn']]
table = pandas.read_csv('run/metrics.csv')
assert all(abs(a - row['loss']) <= 1e-15 * a for a, row in zip(table['loss'], rows, strict=True))
looks = [row['knn']['top1'] for row in rows if row['knn']]
assert all(abs(a - b) <= 1e-15 for a, b in zip(table['knn.top1'].dropna(), looks, strict=True))
features = pandas.read_csv('test.csv')
assert features.shape == (300, 34) and set(features['label']) == set(features['path'].str.split('/').str[0]), features
print('TensorBoard', len(events.Tags()['scalars']), 'curves; pandas', table.shape, features.shape)
";

#[test]
fn python_answers_the_same_and_reads_what_a_run_writes() {
    let Some(interpreter) = env::var_os("TWOVIEW_PYTHON").map(PathBuf::from) else {
        println!("skipped: TWOVIEW_PYTHON names no interpreter with numpy, scikit-learn, pandas and tensorboard");
        return;
    };
    let dir = with_pictures(60, 30);
    let dir = dir.path();
    let more = ["--set", "length.epochs=4", "--set", "every.knn.steps=30"];
    json(dir, &pretrain_args("pictures/train", "run", &[more.as_slice(), &["--tensorboard", "--json"]].concat()));
    for part in ["train", "test"] {
        let (pictures, out) = (format!("pictures/{part}"), format!("{part}.npy"));
        json(dir, &["embed", "run", &pictures, "--out", &out, "--json"]);
    }
    json(dir, &["embed", "run", "pictures/test", "--format", "csv", "--out", "test.csv", "--json"]);
    json(dir, &["report", "run", "--pictures", "0", "--csv", "--json"]);
    let data = ["--train", "pictures/train", "--test", "pictures/test", "--json"];
    for (probe, more) in [("knn", ["--k", "20"].as_slice()), ("linear", &[])] {
        let answer = json(dir, &[&["eval", probe, "run"], data.as_slice(), more].concat());
        fs::write(dir.join(format!("{probe}.json")), answer.to_string()).expect("written");
    }
    python(&interpreter, dir, SCIKIT_LEARN);
    python(&interpreter, dir, READERS);
}
