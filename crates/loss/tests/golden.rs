//! Every contrastive objective and every diagnostic against golden data computed in f64.

use burn::tensor::Device;
use serde_json::Value;
use twoview_loss::{
    ContrastStats, InfoNceConfig, NtXentConfig, Objective, ObjectiveConfig, PairedViews, Spectrum, chance_line, floor,
    simplex_floor,
};

mod support;

use support::{ask, ask_plainly, check_near, golden, norm, tensor};

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

/// The objective of a case, by way of the configuration that users write.
fn objective(case: &Value) -> Box<dyn Objective> {
    let kind = match case["kind"].as_str().expect("kind") {
        "nt_xent_masked" => "nt_xent",
        "supcon" => "sup_con",
        kind => kind,
    };
    let mut config = serde_json::json!({ "kind": kind });
    for key in ["temperature", "tau_plus", "beta", "sigma", "detach_weight"] {
        if let Some(value) = case["params"].get(key) {
            config[key] = value.clone();
        }
    }
    serde_json::from_value::<ObjectiveConfig>(config).expect("a configuration").init().expect("in range")
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id")).collect()
}

/// What a case says of its images.
fn know(case: &Value, views: PairedViews) -> PairedViews {
    if case["labels"].is_array() {
        return views.with_labels(&ids(&case["labels"])).expect("one per image");
    }
    if let Some(mask) = case["exclude_mask"].as_array() {
        let of_row = |row: &Value| row.as_array().expect("a row").iter().map(|flag| flag == true).collect();
        let mask: Vec<Vec<bool>> = mask.iter().map(of_row).collect();
        return views.leaving_out(move |anchor, candidate| mask[anchor][candidate]);
    }
    views
}

/// The tolerances of the golden data for f32, with the anchors held to those of their mean.
fn check(case: &Value) -> ContrastStats {
    let name = case["name"].as_str().expect("name");
    let temperature = number(&case["params"]["temperature"]);
    let (z1, z2) = (golden::rows(&case["z1"]), golden::rows(&case["z2"]));
    let rows_are_unit = case["normalized"] == true;
    let got = ask(&*objective(case), &z1, &z2, &|views| know(case, views), rows_are_unit);
    let stats = got.contrast.stats;

    let want = number(&case["loss"]);
    let guidance = &case["f32_guidance"];
    let loss_tolerance =
        |want: f64| 20.0 * number(&guidance["loss_abs_err"]) + 2e-6 * (1.0 + want.abs() + 1.0 / temperature);
    check_near(&[got.loss, stats.loss], &[want, want], loss_tolerance(want), &format!("{name}: loss"));
    let want = golden::numbers(&case["anchor_loss"]);
    let largest = want.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    check_near(&got.contrast.anchor_losses, &want, loss_tolerance(largest), &format!("{name}: anchor loss"));
    if let Some(want) = case["closed_form"].as_f64() {
        check_near(&[got.loss], &[want], loss_tolerance(want), &format!("{name}: closed form"));
    }

    let want = [golden::numbers(&case["grad_z1"]), golden::numbers(&case["grad_z2"])].concat();
    let shortest = z1.iter().chain(&z2).map(|row| norm(row)).fold(f64::INFINITY, f64::min);
    let tolerance =
        20.0 * number(&guidance["grad_max_abs_err"]) + 1e-5 * number(&case["grad_max_abs"]) + 1e-6 / shortest;
    check_near(&got.by_formula, &want, tolerance, &format!("{name}: gradient by formula"));
    check_near(&got.by_autodiff, &want, tolerance, &format!("{name}: gradient by autodiff"));

    // Groups are another way to say the same mask.
    if case["groups"].is_array() {
        let of_groups = |views: PairedViews| views.with_sources(&ids(&case["groups"])).expect("one per image");
        let by_groups = ask(&*objective(case), &z1, &z2, &of_groups, rows_are_unit);
        assert_eq!(by_groups.contrast.stats.loss, stats.loss, "{name}");
        assert_eq!(by_groups.by_formula, got.by_formula, "{name}");
    }
    stats
}

#[test]
fn objectives_agree() {
    for kind in ["nt_xent", "nt_xent_masked", "debiased", "hard_negative", "decoupled", "decoupled_weighted", "supcon"]
    {
        let cases = golden::cases(&format!("losses/{kind}.json"));
        assert!(!cases.is_empty(), "{kind}");
        for case in cases {
            let stats = check(&case);
            // Away from the extremes no anchor is near its bound, so that rounding cannot decide.
            if let Some(want) = case["clamped_fraction"].as_f64() {
                assert_eq!(stats.clamped, Some(want), "{}: clamped", case["name"]);
            }
        }
    }
}

#[test]
fn objectives_agree_at_the_extremes() {
    let cases = golden::cases("losses/extreme.json");
    let contrastive = cases.iter().filter(|case| case["z1"].is_array());
    let checked = contrastive.map(check).count();
    assert!(checked > 0);
}

#[test]
fn the_lines_agree() {
    let cases = golden::cases("losses/metrics.json");
    let mut checked = 0;
    for case in cases.iter().filter(|case| case["kind"] == "loss_floor") {
        let n = usize::try_from(case["params"]["n"].as_u64().expect("n")).expect("fits");
        let temperature = number(&case["params"]["temperature"]);
        let objective = NtXentConfig::new(temperature).init().expect("in range");
        for (got, want) in [
            (chance_line(n), "chance"),
            (floor(n, temperature), "floor_orthogonal"),
            (simplex_floor(n, temperature), "floor_simplex"),
            (objective.chance(n), "chance"),
            (objective.floor(n).expect("no labels"), "floor_orthogonal"),
        ] {
            let want = number(&case["values"][want]);
            assert!((got - want).abs() <= 1e-12 * (1.0 + want), "{}: got {got}, want {want}", case["name"]);
        }
        checked += 1;
    }
    assert!(checked > 0);
}

#[test]
fn the_diagnostics_agree() {
    let cases = golden::cases("losses/metrics.json");
    let mut checked = 0;
    for case in cases.iter().filter(|case| case["kind"] == "metrics") {
        let temperature = number(&case["params"]["temperature"]);
        let (z1, z2) = (golden::rows(&case["z1"]), golden::rows(&case["z2"]));
        let stats = |objective: &dyn Objective, z1: &support::Rows, z2: &support::Rows| {
            ask_plainly(objective, z1, z2).contrast.stats
        };
        let nt_xent = NtXentConfig::new(temperature).init().expect("in range");
        let one_way = InfoNceConfig { temperature, both_ways: false, n_cancelled: 0 }.init().expect("in range");
        let all = stats(&nt_xent, &z1, &z2);
        let (there, back) = (stats(&one_way, &z1, &z2), stats(&one_way, &z2, &z1));
        // A batch against itself: its partners are its own rows, so all that differ are its pairs.
        let of_view = |z: &support::Rows| stats(&nt_xent, z, z);
        let within = |z: &support::Rows| {
            let n = z.len() as f64;
            // Of the n(2n − 1) pairs of a doubled batch, n are equal rows and the others come four at a time.
            let sum = (of_view(z).uniformity.expect("all pairs count").exp() * (2.0 * n - 1.0) - 1.0) / 2.0;
            (sum / (n - 1.0)).ln()
        };
        let stacked = tensor(&[z1.clone(), z2.clone()].concat(), &Device::flex());
        let (spectrum, centered) = (Spectrum::of(&stacked), Spectrum::centered(&stacked));
        for (got, name) in [
            (all.loss, "nt_xent"),
            (all.info_nce, "nt_xent"),
            (all.mutual_information.expect("valid"), "mi_lower_bound"),
            (all.top1, "top1_all"),
            (all.positive_similarity, "positive_similarity_mean"),
            (all.alignment, "alignment"),
            (all.uniformity.expect("all pairs count"), "uniformity_all"),
            (all.feature_std, "feature_std_mean"),
            (within(&z1), "uniformity_z1"),
            (within(&z2), "uniformity_z2"),
            (f64::midpoint(within(&z1), within(&z2)), "uniformity_mean"),
            (there.loss, "info_nce_12"),
            (back.loss, "info_nce_21"),
            (there.mutual_information.expect("valid"), "mi_lower_bound_12"),
            (there.top1, "top1_z1_to_z2"),
            (spectrum.rank_me(), "rankme"),
            (spectrum.effective_rank(), "effective_rank"),
            (centered.effective_rank(), "effective_rank_centered"),
            (centered.effective_rank_of_covariance(), "effective_rank_covariance"),
        ] {
            let want = number(&case["values"][name]);
            let tolerance = if name.contains("rank") { 1e-4 * want } else { 1e-5 * (1.0 + want.abs()) };
            assert!((got - want).abs() <= tolerance, "{}, {name}: got {got}, want {want}", case["name"]);
        }
        checked += 1;
    }
    assert!(checked > 0);
}
