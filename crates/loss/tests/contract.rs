//! What every objective must keep: its gradient is that of its loss, and what does not matter does not matter.

use burn::tensor::{Device, FloatDType, Tensor};
use proptest::{prelude::*, test_runner::RngSeed};
use twoview_loss::{
    Collapse, Contrast, InBatchLogisticConfig, NtXentConfig, Objective, ObjectiveConfig, PairedViews, PairedViewsError,
    chance_line,
};

mod support;

use support::{Rows, ask, ask_plainly, check_near, constant, eye, norm, scaled, tensor, values};

/// Every kind of objective at a temperature, with the formula of its loss in f64.
fn objectives(temperature: f64) -> Vec<(&'static str, Box<dyn Objective>, Formula)> {
    let formula = |kind| Formula { kind, temperature };
    [
        ("nt_xent", "{}", Kind::NtXent),
        ("info_nce", r#"{"both_ways": false}"#, Kind::OneWay),
        ("info_nce", r#"{"both_ways": true}"#, Kind::BothWays),
        ("debiased", r#"{"tau_plus": 0.1}"#, Kind::Hard { tau_plus: 0.1, beta: 0.0 }),
        ("hard_negative", r#"{"tau_plus": 0.05, "beta": 0.75}"#, Kind::Hard { tau_plus: 0.05, beta: 0.75 }),
        ("decoupled", "{}", Kind::Decoupled { sigma: None }),
        ("decoupled_weighted", r#"{"sigma": 0.5, "detach_weight": false}"#, Kind::Decoupled { sigma: Some(0.5) }),
        ("sup_con", "{}", Kind::SupCon),
        ("in_batch_logistic", r#"{"bias": -3.0}"#, Kind::Logistic { bias: -3.0, corrected: false }),
        ("in_batch_logistic", r#"{"bias": 0.5, "corrected": true}"#, Kind::Logistic { bias: 0.5, corrected: true }),
    ]
    .into_iter()
    .map(|(kind, rest, of)| {
        let mut config: serde_json::Value = serde_json::from_str(rest).expect("JSON");
        config["kind"] = kind.into();
        config["temperature"] = temperature.into();
        let config: ObjectiveConfig = serde_json::from_value(config).expect(kind);
        (kind, config.init().expect(kind), formula(of))
    })
    .collect()
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    NtXent,
    OneWay,
    BothWays,
    Hard { tau_plus: f64, beta: f64 },
    Decoupled { sigma: Option<f64> },
    SupCon,
    Logistic { bias: f64, corrected: bool },
}

/// A loss in f64, written as the papers write it.
#[derive(Clone, Copy, Debug)]
struct Formula {
    kind: Kind,
    temperature: f64,
}

/// What is known of the images of a batch.
#[derive(Clone, Debug, Default)]
struct Known {
    sources: Vec<u64>,
    labels: Vec<u64>,
}

impl Known {
    fn tell(&self, views: PairedViews) -> PairedViews {
        let views =
            if self.sources.is_empty() { views } else { views.with_sources(&self.sources).expect("one per image") };
        if self.labels.is_empty() { views } else { views.with_labels(&self.labels).expect("one per image") }
    }
}

impl Formula {
    fn loss(&self, z: &[Vec<f64>], known: &Known) -> f64 {
        let n = z.len() / 2;
        let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
        let cosine =
            |i: usize, k: usize| z[i].iter().zip(&z[k]).map(|(a, b)| a * b).sum::<f64>() / norm(&z[i]) / norm(&z[k]);
        let x = |i: usize, k: usize| cosine(i, k) / self.temperature;
        let anchors = if matches!(self.kind, Kind::OneWay | Kind::Logistic { .. }) { 0..n } else { 0..2 * n };
        let loss = |i: usize| {
            let partner = (i + n) % (2 * n);
            let p = x(i, partner);
            let same = |keys: &[u64], k: usize| !keys.is_empty() && keys[i % n] == keys[k % n];
            let candidates: Vec<usize> = (0..2 * n)
                .filter(|&k| k % n != i % n && !same(&known.sources, k))
                .filter(|&k| {
                    let kinds_meet = !matches!(self.kind, Kind::OneWay | Kind::BothWays | Kind::Logistic { .. });
                    kinds_meet || (i < n) != (k < n)
                })
                .collect();
            let sum = |g: f64| candidates.iter().map(|&k| (g * x(i, k)).exp()).sum::<f64>();
            let count = candidates.len() as f64;
            if candidates.is_empty() {
                // Nothing to be told from.
                return 0.0;
            }
            match self.kind {
                Kind::NtXent | Kind::OneWay | Kind::BothWays => ((p.exp() + sum(1.0)) / p.exp()).ln(),
                Kind::Hard { tau_plus, beta } => {
                    let weighted = count * sum(beta + 1.0) / sum(beta);
                    let least = count * (-1.0 / self.temperature).exp();
                    let ng = ((weighted - tau_plus * count * p.exp()) / (1.0 - tau_plus)).max(least);
                    ((p.exp() + ng) / p.exp()).ln()
                }
                Kind::Decoupled { sigma } => {
                    let weight = sigma.map_or(1.0, |sigma| {
                        let of = |j: usize| (cosine(j, j + n) / sigma).exp();
                        2.0 - n as f64 * of(i % n) / (0..n).map(of).sum::<f64>()
                    });
                    sum(1.0).ln() - weight * p
                }
                Kind::Logistic { bias, corrected } => {
                    let correction = if corrected { (1.0 - 1.0 / n as f64).ln() } else { 0.0 };
                    let softplus = |x: f64| (1.0 + x.exp()).ln();
                    let logit = |k: usize| x(i, k) + bias - correction;
                    softplus(-logit(partner)) + candidates.iter().map(|&k| softplus(logit(k))).sum::<f64>()
                }
                Kind::SupCon => {
                    let all = (sum(1.0) + p.exp()).ln();
                    let others = candidates.iter().filter(|&&k| same(&known.labels, k)).map(|&k| x(i, k));
                    let positives: Vec<f64> = others.chain([p]).collect();
                    all - positives.iter().sum::<f64>() / positives.len() as f64
                }
            }
        };
        anchors.clone().map(loss).sum::<f64>() / anchors.len() as f64
    }

    fn of_rows(&self, z1: &Rows, z2: &Rows, known: &Known, bump: Option<(usize, usize, f64)>) -> f64 {
        let mut z: Vec<Vec<f64>> = z1.iter().chain(z2).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
        if let Some((row, column, by)) = bump {
            z[row][column] += by;
        }
        self.loss(&z, known)
    }
}

fn embeddings() -> impl Strategy<Value = (Rows, Rows, Known)> {
    (2_usize..7, 1_usize..5).prop_flat_map(|(n, d)| {
        let rows =
            || prop::collection::vec(prop::collection::vec((-64_i16..64).prop_map(|x| f32::from(x) / 16.0), d), n);
        let keys = || prop_oneof![Just(Vec::new()), prop::collection::vec(0_u64..4, n)];
        let known = (keys(), keys()).prop_map(|(sources, labels)| Known { sources, labels });
        (rows(), rows(), known)
    })
}

/// The smallest norm that is not zero: gradients, and their rounding, go as its inverse.
fn shortest(z1: &Rows, z2: &Rows) -> f64 {
    z1.iter().chain(z2).map(|row| norm(row)).filter(|norm| *norm > 0.0).fold(1.0, f64::min)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        rng_seed: RngSeed::Fixed(2020),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_gradient_is_that_of_the_loss((z1, z2, known) in embeddings(), temperature in 0.15_f64..2.0) {
        let n = z1.len();
        for (kind, objective, formula) in objectives(temperature) {
            let got = ask(&*objective, &z1, &z2, &|views| known.tell(views), false);
            let want = formula.of_rows(&z1, &z2, &known, None);
            let tolerance = 1e-5 * (1.0 + want.abs() + 1.0 / temperature);
            check_near(&[got.loss, got.contrast.stats.loss], &[want, want], tolerance, kind);
            let tolerance = 1e-6 * (1.0 + 1.0 / temperature) / shortest(&z1, &z2);
            check_near(&got.by_formula, &got.by_autodiff, tolerance, kind);

            for (row, column) in (0..2 * n).flat_map(|row| (0..z1[0].len()).map(move |column| (row, column))) {
                let z = if row < n { &z1[row] } else { &z2[row - n] };
                if norm(z) > 0.5 {
                    let step = 1e-6;
                    let side = |by| formula.of_rows(&z1, &z2, &known, Some((row, column, by)));
                    let (there, back) = ((side(step) - want) / step, (want - side(-step)) / step);
                    let got = got.by_formula[row * z1[0].len() + column];
                    // At the bound of a debiased estimate the slope jumps; either side's is right there.
                    let near = |slope: f64| (got - slope).abs() <= 2e-4 * (1.0 + 1.0 / temperature);
                    prop_assert!(near(there) || near(back), "{kind}, row {row}: got {got}, want {there} or {back}");
                }
            }
        }
    }

    #[test]
    fn order_and_scale_do_not_matter(
        (z1, z2, known) in embeddings(),
        temperature in 0.05_f64..2.0,
        by in 1_usize..5,
    ) {
        let by = by % z1.len();
        fn turned<T: Clone>(list: &[T], by: usize) -> Vec<T> {
            let mut list = list.to_vec();
            let by = by.min(list.len());
            list.rotate_left(by);
            list
        }
        let turned_known = Known { sources: turned(&known.sources, by), labels: turned(&known.labels, by) };
        for (kind, objective, _) in objectives(temperature) {
            let told = |z1: &Rows, z2: &Rows, known: &Known| {
                ask(&*objective, z1, z2, &|views| known.tell(views), false).contrast.stats.loss
            };
            let want = told(&z1, &z2, &known);
            let tolerance = 2e-5 * (1.0 + 1.0 / temperature);
            let (first, second) = (turned(&z1, by), turned(&z2, by));
            prop_assert!((told(&first, &second, &turned_known) - want).abs() <= tolerance, "{kind}: order");
            let (first, second) = (scaled(&z1, 1024.0), scaled(&z2, 1.0 / 1024.0));
            prop_assert!((told(&first, &second, &known) - want).abs() <= tolerance, "{kind}: scale");
            let looks_one_way = kind == "info_nce" && objective.field() == twoview_loss::Field::FirstToSecond;
            if !looks_one_way {
                prop_assert!((told(&z2, &z1, &known) - want).abs() <= tolerance, "{kind}: swap");
            }
        }
    }

    #[test]
    fn every_temperature_and_float_type_is_finite((z1, z2, _) in embeddings(), exponent in -2.0_f64..1.0) {
        for (kind, objective, _) in objectives(10_f64.powf(exponent)) {
            let device = Device::flex();
            let rows2 = z2.clone();
            for dtype in [FloatDType::F32, FloatDType::F16, FloatDType::BF16] {
                let [z1, z2] = [&z1, &z2].map(|z| tensor(z, &device).cast(dtype));
                let views = PairedViews::new(z1.clone(), z2).expect("paired");
                let mixed = PairedViews::new(z1, tensor(&rows2, &device)).expect("paired");
                prop_assert!(values(objective.forward(mixed))[0].is_finite(), "{kind}");
                prop_assert!(values(objective.forward(views.clone()))[0].is_finite(), "{kind}");
                let contrast = objective.contrast(views);
                prop_assert!(contrast.stats.loss.is_finite(), "{kind}");
                prop_assert_eq!(contrast.d_z1.dtype(), dtype.into());
                let d_z = [values(contrast.d_z1), values(contrast.d_z2)].concat();
                prop_assert!(d_z.iter().all(|x| x.is_finite()), "{kind}: {d_z:?}");
            }
        }
    }

    #[test]
    fn the_same_batch_gives_the_same_bits((z1, z2, known) in embeddings(), temperature in 0.05_f64..2.0) {
        for (_, objective, _) in objectives(temperature) {
            let told = || ask(&*objective, &z1, &z2, &|views| known.tell(views), false);
            let (a, b) = (told(), told());
            prop_assert_eq!(a.contrast.anchor_losses, b.contrast.anchor_losses);
            prop_assert_eq!(a.by_formula, b.by_formula);
        }
    }

    #[test]
    fn parts_of_a_batch_add_up((z1, z2, known) in embeddings(), temperature in 0.1_f64..2.0, cut in 1_usize..6) {
        let (n, device) = (z1.len(), Device::flex());
        let views = || known.tell(PairedViews::new(tensor(&z1, &device), tensor(&z2, &device)).expect("paired"));
        for (kind, objective, _) in objectives(temperature) {
            let whole = objective.contrast(views());
            let cut = 1 + cut % (n - 1);
            let parts = [0..cut, cut..n].map(|images| objective.contrast_shard(views(), images).expect("some images"));
            let loss: f64 = parts.iter().map(|part| part.stats.loss).sum();
            check_near(&[loss], &[whole.stats.loss], 1e-6 * (1.0 + 1.0 / temperature), kind);
            let of = |contrast: &Contrast| [values(contrast.d_z1.clone()), values(contrast.d_z2.clone())].concat();
            let sum: Vec<f64> = of(&parts[0]).iter().zip(of(&parts[1])).map(|(a, b)| a + b).collect();
            check_near(&sum, &of(&whole), 1e-5 * (1.0 + 1.0 / temperature) / shortest(&z1, &z2), kind);
        }
    }
}

fn size(numbers: &[f64]) -> f64 {
    numbers.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

/// Many rows, so that there are blocks, rounds and tiles of strangers.
fn many(n: usize, d: usize, seed: u32) -> Rows {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).expect("16 bits")) / 32_768.0 - 1.0
    };
    (0..n).map(|_| (0..d).map(|_| next()).collect()).collect()
}

#[test]
fn gradients_of_short_rows_stay_inside_f16() {
    let device = Device::flex();
    // Norms of a few of the smallest numbers of f16, at the lowest temperature of use.
    let rows = |numbers: [[f32; 2]; 2]| tensor(&numbers.map(|row| row.map(|x| x * 1e-7).to_vec()).to_vec(), &device);
    let z = || [rows([[1.0, 2.0], [2.0, -1.0]]), rows([[2.0, -2.0], [1.0, 3.0]])].map(|z| z.cast(FloatDType::F16));
    for (kind, objective, _) in objectives(0.01) {
        let [z1, z2] = z();
        let contrast = objective.contrast(PairedViews::new(z1, z2).expect("paired"));
        let d_z = [values(contrast.d_z1), values(contrast.d_z2)].concat();
        let largest = d_z.iter().fold(0.0_f64, |largest, d| largest.max(d.abs()));
        assert!(d_z.iter().all(|d| d.is_finite()) && largest > 1e4, "{kind}: {d_z:?}");
    }
}

#[test]
fn large_batches_agree_with_the_formulas() {
    let (z1, noise) = (many(150, 8, 1), many(150, 8, 2));
    let z2: Rows = z1.iter().zip(&noise).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + 0.3 * b).collect()).collect();
    let labelled = Known { sources: Vec::new(), labels: (0..150).map(|i| i % 7).collect() };
    let grouped = Known { sources: (0..150).map(|i| i / 3).collect(), labels: Vec::new() };
    for known in [Known::default(), labelled, grouped] {
        for (kind, objective, formula) in objectives(0.5) {
            let got = ask(&*objective, &z1, &z2, &|views| known.tell(views), false);
            let want = formula.of_rows(&z1, &z2, &known, None);
            check_near(&[got.contrast.stats.loss], &[want], 1e-5 * (1.0 + want.abs()), kind);
            for (row, column) in [(0, 0), (17, 3), (149, 7), (150, 1), (222, 5), (299, 0)] {
                let side = |by| formula.of_rows(&z1, &z2, &known, Some((row, column, by)));
                let slope = (side(1e-5) - side(-1e-5)) / 2e-5;
                let got = got.by_formula[row * 8 + column];
                assert!((got - slope).abs() <= 1e-6 + 1e-3 * slope.abs(), "{kind}, row {row}: got {got}, want {slope}");
            }
        }
    }
}

#[test]
fn limits_of_the_family_give_nt_xent() {
    let (z1, z2) = (many(40, 6, 3), many(40, 6, 4));
    for temperature in [0.02, 0.1, 0.5, 5.0] {
        let want = ask_plainly(&NtXentConfig::new(temperature).init().expect("in range"), &z1, &z2);
        let same = |config: serde_json::Value, know: &dyn Fn(PairedViews) -> PairedViews| {
            let kind = config.to_string();
            let objective = serde_json::from_value::<ObjectiveConfig>(config).expect("valid").init().expect("in range");
            let got = ask(&*objective, &z1, &z2, know, false);
            let ulps = 4.0 * f64::EPSILON * want.contrast.stats.loss.max(1.0);
            check_near(&[got.contrast.stats.loss], &[want.contrast.stats.loss], ulps, &kind);
            let largest = want.by_formula.iter().fold(0.0_f64, |largest, d| largest.max(d.abs()));
            check_near(&got.by_formula, &want.by_formula, 4e-7 * largest, &kind);
        };
        let json = |text: &str| {
            let mut config: serde_json::Value = serde_json::from_str(text).expect("JSON");
            config["temperature"] = temperature.into();
            config
        };
        let nothing = |views: PairedViews| views;
        same(json(r#"{"kind": "debiased", "tau_plus": 0.0}"#), &nothing);
        same(json(r#"{"kind": "hard_negative", "tau_plus": 0.0, "beta": 0.0}"#), &nothing);
        same(json(r#"{"kind": "sup_con"}"#), &nothing);
        same(json(r#"{"kind": "sup_con"}"#), &|views| views.with_labels(&(0..40).collect::<Vec<_>>()).expect("40"));
        same(json(r#"{"kind": "nt_xent"}"#), &|views| views.with_sources(&(5..45).collect::<Vec<_>>()).expect("40"));
        same(json(r#"{"kind": "nt_xent"}"#), &|views| views.leaving_out(|_, _| false));
    }
}

#[test]
fn cancelling_leaves_out_the_most_similar() {
    let (z1, z2) = (many(30, 5, 5), many(30, 5, 6));
    let (n, n_cancelled) = (30, 3);
    let objective = NtXentConfig { temperature: 0.3, n_cancelled }.init().expect("in range");
    let got = ask_plainly(&objective, &z1, &z2);

    let z: Rows = z1.iter().chain(&z2).cloned().collect();
    let cosine = |i: usize, k: usize| {
        z[i].iter().zip(&z[k]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / norm(&z[i]) / norm(&z[k])
    };
    let nearest = |i: usize| -> Vec<usize> {
        let mut others: Vec<usize> = (0..2 * n).filter(|k| k % n != i % n).collect();
        others.sort_by(|&a, &b| cosine(i, b).total_cmp(&cosine(i, a)));
        others[..n_cancelled].to_vec()
    };
    let nearest: Vec<Vec<usize>> = (0..2 * n).map(nearest).collect();
    let plain = NtXentConfig::new(0.3).init().expect("in range");
    let by_hand = ask(
        &plain,
        &z1,
        &z2,
        &|views| {
            let nearest = nearest.clone();
            views.leaving_out(move |anchor, candidate| nearest[anchor].contains(&candidate))
        },
        false,
    );
    assert_eq!(got.contrast.stats.loss, by_hand.contrast.stats.loss);
    assert_eq!(got.by_formula, by_hand.by_formula);
    assert_eq!(got.contrast.stats.mutual_information, None, "the bound does not hold");

    // One candidate is always left.
    let all = NtXentConfig { temperature: 0.3, n_cancelled: 1000 }.init().expect("in range");
    let got = ask_plainly(&all, &z1, &z2);
    assert!(got.loss > 0.0 && got.loss.is_finite());
}

#[test]
fn anchors_without_candidates_have_no_loss() {
    let known = Known { sources: vec![4, 4, 4], labels: Vec::new() };
    for (kind, objective, _) in objectives(0.2) {
        let got = ask(&*objective, &many(3, 4, 7), &many(3, 4, 8), &|views| known.tell(views), false);
        assert_eq!(got.loss, 0.0, "{kind}");
        assert!(got.by_formula.iter().all(|d| *d == 0.0), "{kind}");
        assert_eq!(got.contrast.stats.top1, 0.0, "{kind}: nothing was told from the partner");
    }
}

#[test]
fn the_logistic_loss_heeds_cancellation_and_predicates() {
    let (z1, z2) = (many(20, 4, 9), many(20, 4, 10));
    let config = InBatchLogisticConfig::new(0.4, -2.0);
    let cosine = |i: usize, k: usize| {
        z1[i].iter().zip(&z2[k]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / norm(&z1[i]) / norm(&z2[k])
    };
    let nearest = |i: usize| (0..20).filter(|k| *k != i).max_by(|a, b| cosine(i, *a).total_cmp(&cosine(i, *b)));
    let nearest: Vec<usize> = (0..20).map(|i| nearest(i).expect("others")).collect();
    let softplus = |x: f64| x.exp().ln_1p();
    let of = |i: usize, k: usize| softplus((cosine(i, k) / 0.4 - 2.0) * if i == k { -1.0 } else { 1.0 });
    let want = (0..20).map(|i| (0..20).filter(|k| *k != nearest[i]).map(|k| of(i, k)).sum::<f64>()).sum::<f64>() / 20.0;
    let cancelling = InBatchLogisticConfig { n_cancelled: 1, ..config.clone() }.init().expect("in range");
    let cancelled = ask_plainly(&cancelling, &z1, &z2);
    check_near(&[cancelled.loss], &[want], 1e-5, "cancelled");
    let told = |views: PairedViews| {
        let nearest = nearest.clone();
        views.leaving_out(move |anchor, candidate| candidate == 20 + nearest[anchor])
    };
    let left_out = ask(&config.init().expect("in range"), &z1, &z2, &told, false);
    assert_eq!((left_out.loss, left_out.by_formula), (cancelled.loss, cancelled.by_formula));
}

#[test]
fn a_collapsed_batch_scores_the_chance_line() {
    for (kind, objective, _) in objectives(0.1) {
        let got = ask_plainly(&*objective, &constant(7), &constant(7));
        let stats = got.contrast.stats;
        let tolerance = 2e-6 * (1.0 + 1.0 / objective.temperature());
        if kind == "in_batch_logistic" {
            assert!(stats.loss > objective.chance(7), "{kind}: another common cosine is better than 1");
        } else {
            assert!((stats.loss - objective.chance(7)).abs() < tolerance, "{kind}: {stats:?}, {}", objective.chance(7));
        }
        assert_eq!(stats.top1, 0.0, "{kind}: ties are not retrievals");
        assert!(stats.feature_std < 1e-6 && (stats.positive_similarity - 1.0).abs() < 1e-6, "{kind}: {stats:?}");
    }
    let nt_xent = NtXentConfig::new(0.1).init().expect("in range");
    assert!((nt_xent.chance(7) - chance_line(7)).abs() < 1e-12);
}

#[test]
fn no_common_cosine_beats_the_chance_of_the_logistic_loss() {
    for (temperature, bias) in [(0.1, -10.0), (0.5, -1.0), (0.2, 3.0), (0.1, 40.0)] {
        let config = InBatchLogisticConfig::new(temperature, bias);
        let chance = config.init().expect("in range").chance(64);
        let softplus = |x: f64| x.exp().ln_1p();
        let at = |cosine: f64| {
            let x = cosine / temperature + bias;
            softplus(-x) + 63.0 * softplus(x)
        };
        let least = (0..=2000).map(|i| at(f64::from(i) / 1000.0 - 1.0)).fold(f64::INFINITY, f64::min);
        assert!((chance - least).abs() < 1e-3 * least, "{temperature}, {bias}: {chance}, {least}");
    }
    let most = InBatchLogisticConfig { corrected: true, ..InBatchLogisticConfig::new(0.1, -10.0) };
    let most = most.init().expect("in range");
    assert!(most.chance(0) == most.chance(2) && most.floor(1) == most.floor(2) && most.chance(0).is_finite());
}

#[test]
fn the_lowest_temperature_keeps_the_weights_of_hard_negatives() {
    let config = |kind: &str, rest: &str| -> Box<dyn Objective> {
        let text = format!(r#"{{"kind": "{kind}", "temperature": 1e-6{rest}}}"#);
        serde_json::from_str::<ObjectiveConfig>(&text).expect("valid").init().expect("in range")
    };
    let hard = config("hard_negative", r#", "tau_plus": 0.0, "beta": 999.5"#);
    let got = ask_plainly(&*hard, &constant(7), &constant(7));
    // Logits of 1e6 are known to a sixteenth.
    check_near(&[got.loss], &[13.0_f64.ln()], 0.1, "all logits are equal");
    let (z1, z2) = (many(3, 4, 7), many(3, 4, 8));
    let got = ask_plainly(&*hard, &z1, &z2);
    let want = ask_plainly(&*config("nt_xent", ""), &z1, &z2);
    // Both see the nearest candidate alone; hard negatives as all 2N − 2 of them.
    check_near(&got.by_formula, &want.by_formula, 1e-2 * size(&want.by_formula), "the gradient");
}

#[test]
fn an_aligned_batch_scores_the_floor() {
    for temperature in [0.04, 0.1, 0.5] {
        for (kind, objective, _) in objectives(temperature) {
            let got = ask_plainly(&*objective, &eye(8), &eye(8)).contrast.stats.loss;
            let Some(want) = objective.floor(8) else {
                assert_eq!(kind, "sup_con", "only labels make a floor unknown");
                continue;
            };
            // At τ = 0.04 NT-Xent's is 1.9e-10, far below what f32 can add to 1.
            assert!((got - want).abs() <= 1e-4 * want.abs().min(1.0) + 1e-5 * want.abs(), "{kind}: {got}, {want}");
        }
    }
}

#[test]
fn zero_rows_are_finite_and_get_no_gradient() {
    let mut z1 = eye(3);
    z1[1] = vec![0.0; 3];
    for (z1, z2, zero_rows) in [(z1, eye(3), 1..2), (vec![vec![0.0; 3]; 3], vec![vec![0.0; 3]; 3], 0..6)] {
        for temperature in [1e-4, 0.5, 1e3] {
            for (kind, objective, _) in objectives(temperature) {
                let got = ask_plainly(&*objective, &z1, &z2);
                assert!(got.loss.is_finite() && got.contrast.stats.loss.is_finite(), "{kind}, τ = {temperature}");
                let size = got.by_formula.iter().fold(0.0, |size: f64, x| size.max(x.abs()));
                assert!(size.is_finite(), "{kind}, τ = {temperature}: {size}");
                let at = zero_rows.start * 3..zero_rows.end * 3;
                check_near(&got.by_formula[at.clone()], &vec![0.0; at.len()], 0.0, "gradient of a zero row");
                check_near(&got.by_autodiff[at.clone()], &vec![0.0; at.len()], 0.0, "gradient of a zero row");
            }
        }
    }
}

#[test]
fn a_shard_must_be_some_of_the_batch() {
    let objective = NtXentConfig::new(0.5).init().expect("in range");
    let views =
        || PairedViews::new(tensor(&eye(3), &Device::flex()), tensor(&eye(3), &Device::flex())).expect("paired");
    for images in [0..4, 2..2, 3..3] {
        let error = objective.contrast_shard(views(), images).expect_err("refused");
        assert!(error.to_string().contains("some of the 3 images"), "{error}");
    }
}

#[test]
fn a_collapse_is_noticed_and_health_is_not_alarming() {
    let objective = NtXentConfig::new(0.5).init().expect("in range");
    let of = |z1: &Rows, z2: &Rows| ask_plainly(&objective, z1, z2).contrast.stats.collapse();
    let wide = |n: usize| -> Rows { vec![(0..16_u8).map(|i| f32::from(i % 5) - 1.0).collect(); n] };
    assert!(matches!(of(&wide(20), &wide(20)), Some(Collapse::OneDirection { .. })));
    let nothing = vec![vec![0.0; 16]; 20];
    assert!(matches!(of(&nothing, &nothing), Some(Collapse::OneDirection { .. })), "a dead head");
    let narrow = |row: &Vec<f32>| -> Vec<f32> {
        let mut wide = vec![0.0; 16];
        (wide[0], wide[1]) = (row[0], 0.2 * row[1]);
        wide
    };
    let line: Rows = many(20, 2, 11).iter().map(narrow).collect();
    assert!(matches!(of(&line, &line), Some(Collapse::FewDimensions { .. })));
    assert_eq!(of(&many(20, 16, 12), &many(20, 16, 13)), None);
    assert_eq!(of(&many(20, 2, 12), &many(20, 2, 13)), None, "two dimensions cannot have a rank of more");
}

#[test]
fn labels_do_not_matter_to_who_does_not_learn_from_them() {
    let (z1, z2) = (many(12, 4, 14), many(12, 4, 15));
    let objective = NtXentConfig { temperature: 0.3, n_cancelled: 3 }.init().expect("in range");
    let labelled = |views: PairedViews| views.with_labels(&[1; 12]).expect("one per image");
    let (with, without) = (ask(&objective, &z1, &z2, &labelled, false), ask_plainly(&objective, &z1, &z2));
    assert_eq!(with.by_formula, without.by_formula);
}

#[test]
fn what_is_no_number_is_refused_with_its_place() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut z2 = eye(3);
        z2[1][2] = bad;
        let device = Device::flex().autodiff();
        let error = PairedViews::new(tensor(&eye(3), &device), tensor(&z2, &device)).expect_err("refused");
        let PairedViewsError::NotFinite { view: 2, row: 1, column: 2, value } = error else { panic!("{error}") };
        assert_eq!(value.to_bits(), bad.to_bits());
    }
}

#[test]
fn what_f32_cannot_hold_is_refused() {
    let large = Tensor::<2>::full([2, 2], 1.0, &Device::flex()).cast(FloatDType::F64).mul_scalar(1e300);
    let error = PairedViews::new(large.clone(), large).expect_err("refused");
    assert!(matches!(error, PairedViewsError::NotFinite { view: 1, row: 0, column: 0, .. }), "{error}");
}

#[test]
fn what_is_known_must_be_known_of_every_image() {
    let views =
        || PairedViews::new(tensor(&eye(3), &Device::flex()), tensor(&eye(3), &Device::flex())).expect("paired");
    for error in [views().with_sources(&[1, 2]).expect_err("refused"), views().with_labels(&[]).expect_err("refused")] {
        assert!(error.to_string().contains("for 3 images"), "{error}");
    }
}

#[test]
fn the_batch_may_be_sent_back_in_shards() {
    let (z1, z2) = (vec![vec![0.5, 1.0], vec![-1.0, 0.25], vec![0.125, -2.0]], eye(3));
    let z2: Rows = z2.into_iter().map(|row| row[..2].iter().map(|x| x + 0.5).collect()).collect();
    let objective = NtXentConfig::new(0.5).init().expect("in range");
    let device = Device::flex().autodiff();
    let weight = Tensor::<2>::from_data([[1.0, 0.5], [-0.25, 2.0]], &device).require_grad();
    let embed = |rows: &Rows| tensor(rows, &device).matmul(weight.clone());
    let views = || PairedViews::new(embed(&z1), embed(&z2)).expect("paired");
    let whole = weight.grad(&objective.forward(views()).backward()).expect("tracked");

    let Contrast { d_z1, d_z2, .. } = objective.contrast(views());
    assert!(!d_z1.is_autodiff(), "a graph would be kept alive");
    let mut in_shards = vec![0.0; 4];
    for (rows, d_z) in [(&z1, d_z1), (&z2, d_z2)] {
        for (at, row) in rows.iter().enumerate() {
            let shard = embed(&vec![row.clone()]) * Tensor::from_inner(d_z.clone().narrow(0, at, 1));
            let grad = weight.grad(&shard.sum().backward()).expect("tracked");
            in_shards.iter_mut().zip(values(grad)).for_each(|(sum, part)| *sum += part);
        }
    }
    check_near(&in_shards, &values(whole), 1e-6, "gradient of the weight");
}

#[test]
fn a_loss_among_others_keeps_its_share() {
    // The surrogate behind `forward` must pass on what is multiplied to it.
    let device = Device::flex().autodiff();
    let objective = NtXentConfig::new(0.5).init().expect("in range");
    let z1 = tensor(&many(4, 3, 9), &device).require_grad();
    let z2 = tensor(&many(4, 3, 10), &device);
    let views = || PairedViews::new(z1.clone(), z2.clone()).expect("paired");
    let plain = values(z1.grad(&objective.forward(views()).backward()).expect("tracked"));
    let loss = objective.forward(views()) * 3.0 + z1.clone().sum();
    let got = values(z1.grad(&loss.backward()).expect("tracked"));
    let want: Vec<f64> = plain.iter().map(|d| 3.0 * d + 1.0).collect();
    check_near(&got, &want, 1e-6, "gradient");
}
