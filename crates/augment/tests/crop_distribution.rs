//! The random boxes against a million boxes drawn by the reference for each setting.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use twoview_augment::{Augment, AugmentConfig, PlannedOp, ResizeFilter, TransformConfig, ViewKey};
use twoview_pixels::CropBox;

const N_DRAWS: u32 = 100_000;

#[derive(Deserialize)]
struct Setting {
    image_width: u32,
    image_height: u32,
    scale: [f32; 2],
    ratio: [f32; 2],
    n_draws: u32,
    fallback_count: u32,
    area_fraction: Histogram,
    log_aspect: Histogram,
    top_decile_counts: Vec<u32>,
    left_decile_counts: Vec<u32>,
}

#[derive(Deserialize)]
struct Histogram {
    mean: f64,
    std: f64,
    hist_edges: Vec<f64>,
    hist_counts: Vec<u32>,
}

impl Setting {
    fn augment(&self) -> Augment {
        let crop = TransformConfig::RandomResizedCrop {
            size_px: 1,
            area: self.scale,
            aspect: self.ratio,
            filter: ResizeFilter::Bilinear,
        };
        AugmentConfig(vec![crop]).init().expect("a valid setting")
    }

    fn draws(&self) -> Vec<CropBox> {
        let augment = self.augment();
        let draw = |sample| {
            let key = ViewKey { seed: 20_260, epoch: 1, sample, view: 0 };
            match augment.plan(&key, self.image_width, self.image_height).ops[..] {
                [PlannedOp::ResizedCrop { top, left, height, width, .. }] => CropBox { top, left, height, width },
                ref other => panic!("a single crop expected, got {other:?}"),
            }
        };
        (0..u64::from(N_DRAWS)).map(draw).collect()
    }

    /// The box after ten misses, by the definition of the reference. A regular draw may hit it too, by rare chance.
    fn fallback(&self) -> CropBox {
        let (width, height) = (f64::from(self.image_width), f64::from(self.image_height));
        let [narrowest, widest] = self.ratio.map(f64::from);
        let whole = width / height;
        let (w, h) = if whole < narrowest {
            (width, (width / narrowest).round_ties_even())
        } else if whole > widest {
            ((height * widest).round_ties_even(), height)
        } else {
            (width, height)
        };
        let integer = |value: f64| format!("{value}").parse::<u32>().expect("a whole number");
        let (w, h) = (integer(w), integer(h));
        CropBox { top: (self.image_height - h) / 2, left: (self.image_width - w) / 2, height: h, width: w }
    }

    fn name(&self) -> String {
        format!("{}x{}, area {:?}, aspect {:?}", self.image_width, self.image_height, self.scale, self.ratio)
    }
}

impl Histogram {
    /// As `np.histogram` counts: bins are closed on the left, the last one on both sides.
    fn count(&self, values: &[f64]) -> Vec<u32> {
        let mut counts = vec![0; self.hist_counts.len()];
        for value in values {
            let bin = self.hist_edges.partition_point(|edge| edge <= value).min(counts.len());
            assert!(bin > 0 && *value <= self.hist_edges[counts.len()], "{value} is outside the histogram");
            counts[bin - 1] += 1;
        }
        counts
    }
}

/// The chance of a larger chi-square between two histograms of the same distribution.
fn p_value(ours: &[u32], theirs: &[u32]) -> f64 {
    let sum = |counts: &[u32]| counts.iter().map(|&count| f64::from(count)).sum::<f64>();
    let (n_ours, n_theirs) = (sum(ours), sum(theirs));
    let mut chi_square = 0.0;
    let mut n_bins = 0.0;
    for (&a, &b) in ours.iter().zip(theirs).filter(|(a, b)| **a + **b > 0) {
        let (a, b) = (f64::from(a), f64::from(b));
        chi_square += (a * (n_theirs / n_ours).sqrt() - b * (n_ours / n_theirs).sqrt()).powi(2) / (a + b);
        n_bins += 1.0;
    }
    if n_bins < 2.0 { 1.0 } else { chi_square_survival(chi_square, n_bins - 1.0) }
}

/// Wilson and Hilferty: the cube root of chi-square is nearly normal.
fn chi_square_survival(chi_square: f64, degrees: f64) -> f64 {
    let spread = 2.0 / (9.0 * degrees);
    let z = ((chi_square / degrees).cbrt() - (1.0 - spread)) / spread.sqrt();
    0.5 * libm::erfc(z / std::f64::consts::SQRT_2)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn settings() -> Vec<Setting> {
    let folder =
        std::env::var_os("TWOVIEW_GOLDEN").map(PathBuf::from).unwrap_or_else(|| PathBuf::from("../../tests/golden"));
    let path = folder.join("augment/rrc_distribution.json");
    let settings: Vec<Setting> =
        serde_json::from_str(&fs::read_to_string(path).expect("a readable file")).expect("a list of settings");
    assert!(!settings.is_empty());
    settings
}

#[test]
fn boxes_are_distributed_as_the_references() {
    for setting in settings() {
        let name = setting.name();
        let draws = setting.draws();
        let area = f64::from(setting.image_width) * f64::from(setting.image_height);
        let areas: Vec<f64> = draws.iter().map(|c| f64::from(c.width) * f64::from(c.height) / area).collect();
        let aspects: Vec<f64> = draws.iter().map(|c| (f64::from(c.width) / f64::from(c.height)).ln()).collect();

        for (what, values, want) in
            [("area", &areas, &setting.area_fraction), ("aspect", &aspects, &setting.log_aspect)]
        {
            let slack = 5.0 * want.std * (1.0 / f64::from(N_DRAWS) + 1.0 / f64::from(setting.n_draws)).sqrt();
            let got = mean(values);
            assert!((got - want.mean).abs() <= slack + 1e-12, "{name}: mean {what} {got}, want {}", want.mean);
            let p = p_value(&want.count(values), &want.hist_counts);
            assert!(p > 1e-6, "{name}: {what} has p = {p:e}");
        }

        let fallback = setting.fallback();
        let regular: Vec<&CropBox> = draws.iter().filter(|crop| **crop != fallback).collect();
        let rate = f64::from(setting.fallback_count) / f64::from(setting.n_draws);
        let got = 1.0 - regular.len() as f64 / f64::from(N_DRAWS);
        // Chance hits of the fallback box by regular draws stay below 1 in 100 even at 32x32, where it is the whole.
        let slack = 6.0 * (rate * (1.0 - rate) / f64::from(N_DRAWS)).sqrt() + 0.01;
        assert!((got - rate).abs() <= slack, "{name}: fallback rate {got}, want {rate}");

        let deciles = |positions: Vec<(u32, u32)>| {
            let mut counts = vec![0; 10];
            for (position, n_positions) in positions {
                counts[(10 * position / n_positions) as usize] += 1;
            }
            counts
        };
        let tops = regular.iter().filter(|c| c.height < setting.image_height);
        let tops = deciles(tops.map(|c| (c.top, setting.image_height - c.height + 1)).collect());
        let lefts = regular.iter().filter(|c| c.width < setting.image_width);
        let lefts = deciles(lefts.map(|c| (c.left, setting.image_width - c.width + 1)).collect());
        for (what, got, want) in
            [("top", tops, &setting.top_decile_counts), ("left", lefts, &setting.left_decile_counts)]
        {
            if want.iter().all(|&count| count == 0) {
                assert_eq!(got, *want, "{name}: {what}");
            } else {
                let p = p_value(&got, want);
                assert!(p > 1e-6, "{name}: {what} has p = {p:e}");
            }
        }
    }
}

/// The test above would fail for a slightly different distribution.
#[test]
fn another_distribution_is_noticed() {
    let mut setting = settings().swap_remove(0);
    setting.ratio[1] *= 1.02;
    let aspects: Vec<f64> = setting.draws().iter().map(|c| (f64::from(c.width) / f64::from(c.height)).ln()).collect();
    assert!(p_value(&setting.log_aspect.count(&aspects), &setting.log_aspect.hist_counts) < 1e-6);
}

#[test]
fn the_survival_function_is_close_to_tables() {
    for (chi_square, degrees, want) in
        [(18.307, 10.0, 0.05), (29.588, 10.0, 0.001), (36.415, 24.0, 0.05), (9.342, 10.0, 0.5)]
    {
        let got = chi_square_survival(chi_square, degrees);
        assert!((got / want - 1.0).abs() < 0.1, "{chi_square} at {degrees}: {got}, want {want}");
    }
}
