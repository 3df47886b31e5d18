//! Schedules and the scaling of the learning rate against golden data.

use serde_json::Value;
use twoview_optim::{LarsVariant, OptimizerConfig, ScheduleConfig, Span};

mod golden;

fn number(case: &Value, key: &str) -> f64 {
    case[key].as_f64().unwrap_or_else(|| panic!("{key} of {case}"))
}

fn count(case: &Value, key: &str) -> u64 {
    case[key].as_u64().unwrap_or_else(|| panic!("{key} of {case}"))
}

#[test]
fn schedules_agree_with_golden_data() {
    let data = golden::file("optim/schedules.json");
    let cases = golden::items(&data["schedules"]);
    assert!(!cases.is_empty());
    for case in cases {
        let total_steps = count(case, "total_steps");
        let config = ScheduleConfig::WarmupCosine {
            warmup: Span::Steps(count(case, "warmup_steps")),
            variant: serde_json::from_value(case["variant"].clone()).expect("a known variant"),
            final_lr: number(case, "final_lr"),
        };
        let schedule = config.init(number(case, "base_lr"), total_steps, 1, 1).expect("valid");
        let want = golden::numbers(&case["lr"]);
        assert_eq!(want.len() as u64, total_steps, "{}", case["name"]);
        for (step, want) in (0..).zip(want) {
            let got = schedule.lr(step);
            let ok = (got - want).abs() <= 1e-12 * (1.0 + want);
            assert!(ok, "{} at step {step}: got {got}, want {want}", case["name"]);
        }
    }
}

#[test]
fn linear_scaling_agrees_with_golden_data() {
    let data = golden::file("optim/schedules.json");
    let cases: Vec<_> = golden::items(&data["lr_scaling"]).iter().filter(|case| case["rule"] == "linear").collect();
    assert!(!cases.is_empty());
    for case in cases {
        let lr_per_256 = number(case, "base_lr");
        let (momentum, nesterov, weight_decay) = (0.9, false, 0.0);
        let sgd = OptimizerConfig::Sgd { lr_per_256, momentum, nesterov, weight_decay };
        let (trust, variant) = (1e-3, LarsVariant::Google);
        let lars = OptimizerConfig::Lars { lr_per_256, momentum, nesterov, weight_decay, trust, variant };
        let adamw = OptimizerConfig::AdamW { lr: lr_per_256, betas: [0.9, 0.999], eps: 1e-8, weight_decay };
        let (batch, want) = (count(case, "batch_size"), number(case, "lr"));
        for (config, want) in [(sgd, want), (lars, want), (adamw, lr_per_256)] {
            let got = config.peak_lr(batch);
            assert!((got - want).abs() <= 1e-12 * (1.0 + want), "{config:?}, batch {batch}: got {got}, want {want}");
        }
    }
}
