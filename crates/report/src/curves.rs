//! The curves of a run: which quantities share a plot, and how each is to be read.

use crate::axis::Unit;
use crate::plot::{Plot, Series};
use crate::report::Reference;
use crate::steps::StepRow;

/// All plots for which something was measured, in the order in which to read them.
pub(crate) fn curves(rows: &[StepRow], knn_references: &[Reference]) -> Vec<Plot> {
    let of = |value: fn(&StepRow) -> Option<f32>| -> Vec<f32> {
        rows.iter().map(|row| value(row).filter(|value| value.is_finite()).unwrap_or(f32::NAN)).collect()
    };
    let constant = |value: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "a share of 1, for a curve")]
        let value = value as f32;
        vec![value; rows.len()]
    };
    let level = |label: &str, values| Series::Level { label: label.to_owned(), values };
    let mut knn = vec![Series::Dots { label: "kNN", values: of(|row| row.knn.and_then(|knn| knn.top1)) }];
    let chance = rows.iter().find_map(|row| row.knn.and_then(|knn| knn.chance));
    if let Some(chance) = chance {
        knn.push(level("chance", constant(chance.into())));
    }
    knn.extend(knn_references.iter().map(|reference| level(&reference.label, constant(reference.value))));

    let plots = [
        Plot {
            id: "loss",
            title: "Loss",
            measure: "nats",
            reading: "Below the chance line the encoder tells pictures apart; it cannot go below the floor, which batch \
                      size and temperature set.",
            unit: Unit::Plain,
            from_zero: false,
            may_be_logarithmic: false,
            series: vec![
                Series::Smoothed { label: "loss", values: of(|row| row.loss) },
                level("chance", of(|row| row.chance)),
                level("floor", of(|row| row.floor)),
            ],
        },
        Plot {
            id: "knn",
            title: "kNN accuracy",
            measure: "right of all",
            reading: "The share of held-out pictures whose nearest neighbours have their class: what training has \
                      added is the distance to the dashed lines.",
            unit: Unit::Percent,
            from_zero: true,
            may_be_logarithmic: false,
            series: knn,
        },
        Plot {
            id: "similarity",
            title: "Similarity of pairs",
            measure: "cosine",
            reading: "Two views of a picture should come out close to 1 and views of different pictures lower; the \
                      further apart the bands, the better pictures are told apart.",
            unit: Unit::Plain,
            from_zero: false,
            may_be_logarithmic: false,
            series: vec![
                band("two views of a picture", of_percentiles(rows, |row| row.positive_percentiles)),
                band("different pictures", of_percentiles(rows, |row| row.negative_percentiles)),
            ],
        },
        Plot {
            id: "effective-rank",
            title: "Effective rank",
            measure: "directions",
            reading: "How many directions the embeddings of a batch use: a fall towards 1 is collapse.",
            unit: Unit::Plain,
            from_zero: true,
            may_be_logarithmic: false,
            series: vec![Series::Smoothed { label: "effective rank", values: of(|row| row.effective_rank) }],
        },
        Plot {
            id: "alignment-uniformity",
            title: "Alignment and uniformity",
            measure: "",
            reading: "Less is better for both: alignment is the squared distance of the two views of a picture, \
                      uniformity is 0 where all embeddings coincide and falls as they spread.",
            unit: Unit::Plain,
            from_zero: false,
            may_be_logarithmic: false,
            series: vec![
                Series::Smoothed { label: "alignment", values: of(|row| row.alignment) },
                Series::Smoothed { label: "uniformity", values: of(|row| row.uniformity) },
            ],
        },
        Plot {
            id: "top1",
            title: "Retrieval in the batch",
            measure: "partner found",
            reading: "The share of views whose nearest view in the batch is their partner; it depends on the batch \
                      size, so compare it within a run only.",
            unit: Unit::Percent,
            from_zero: true,
            may_be_logarithmic: false,
            series: vec![Series::Smoothed { label: "partner found", values: of(|row| row.top1) }],
        },
        Plot {
            id: "clamped",
            title: "Clamped anchors",
            measure: "of all anchors",
            reading: "The share of anchors whose debiased estimate hit its bound; near 100 % the assumed class \
                      prior is too large.",
            unit: Unit::Percent,
            from_zero: true,
            may_be_logarithmic: false,
            series: vec![Series::Smoothed { label: "clamped", values: of(|row| row.clamped) }],
        },
        Plot {
            id: "learning-rate",
            title: "Learning rate",
            measure: "",
            reading: "What the schedule set at each step.",
            unit: Unit::Plain,
            from_zero: true,
            may_be_logarithmic: false,
            series: vec![Series::Exact { label: "learning rate", values: of(|row| row.lr) }],
        },
        Plot {
            id: "gradient-norm",
            title: "Gradient norm",
            measure: "Euclidean norm",
            reading: "Before any clipping: sudden peaks that the loss follows ask for a lower learning rate or a \
                      longer warm-up.",
            unit: Unit::Plain,
            from_zero: true,
            may_be_logarithmic: true,
            series: vec![Series::Smoothed { label: "gradient norm", values: of(|row| row.gradient_norm) }],
        },
        Plot {
            id: "throughput",
            title: "Throughput",
            measure: "pictures per second",
            reading: "How fast the run went; dips are evaluations, checkpoints, or something else on the machine.",
            unit: Unit::Plain,
            from_zero: true,
            may_be_logarithmic: false,
            series: vec![Series::Smoothed { label: "pictures per second", values: of(|row| row.images_per_s) }],
        },
    ];
    plots.into_iter().filter_map(Plot::measured).collect()
}

fn of_percentiles(rows: &[StepRow], percentiles: fn(&StepRow) -> Option<[Option<f32>; 3]>) -> [Vec<f32>; 3] {
    [0, 1, 2].map(|at| {
        let value = |row| percentiles(row).and_then(|three| three[at]).filter(|value| value.is_finite());
        rows.iter().map(|row| value(row).unwrap_or(f32::NAN)).collect()
    })
}

fn band(label: &'static str, [low, middle, high]: [Vec<f32>; 3]) -> Series {
    Series::Band { label, low, middle, high }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_measured_is_not_promised() {
        let rows = [StepRow { step: 1, alignment: Some(0.4), ..StepRow::default() }];
        let plots = curves(&rows, &[]);
        assert_eq!(plots.iter().map(|plot| plot.id).collect::<Vec<_>>(), ["alignment-uniformity"]);
        assert_eq!(plots[0].series.len(), 1, "no line of uniformity");
    }

    #[test]
    fn looks_during_training_stand_beside_chance() {
        let knn = crate::KnnRow { top1: Some(0.3), chance: Some(0.1) };
        let rows = [StepRow { step: 1, knn: Some(knn), ..StepRow::default() }];
        let labels = |references: &[Reference]| -> Vec<String> {
            let levels = curves(&rows, references).remove(0).series.into_iter();
            levels
                .filter_map(|series| if let Series::Level { label, .. } = series { Some(label) } else { None })
                .collect()
        };
        assert_eq!(labels(&[]), ["chance"]);
        let untrained = Reference { label: "untrained".to_owned(), value: 0.2 };
        assert_eq!(labels(&[untrained]), ["chance", "untrained"]);
    }
}
