//! The configuration that selects an objective.

use serde::{Deserialize, Serialize};

use crate::{
    DebiasedConfig, DecoupledConfig, DecoupledWeightedConfig, HardNegativeConfig, InBatchLogisticConfig, InfoNceConfig,
    NtXentConfig, Objective, ObjectiveError, SupConConfig, clamp_limit,
};

/// Selects an objective, e.g. `{ kind = "debiased", temperature = 0.5, tau_plus = 0.1 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ObjectiveConfig {
    /// The objective of SimCLR, [`crate::NtXent`].
    NtXent(NtXentConfig),
    /// Between the two kinds of views only, [`crate::InfoNce`].
    InfoNce(InfoNceConfig),
    /// Less the expected false negatives, [`crate::Debiased`].
    Debiased(DebiasedConfig),
    /// With weight on similar negatives, [`crate::HardNegative`].
    HardNegative(HardNegativeConfig),
    /// Without the partner in the denominator, [`crate::Decoupled`].
    Decoupled(DecoupledConfig),
    /// The same with weighted attraction.
    DecoupledWeighted(DecoupledWeightedConfig),
    /// With labels, [`crate::SupCon`].
    SupCon(SupConConfig),
    /// Every pair by itself, [`crate::InBatchLogistic`].
    InBatchLogistic(InBatchLogisticConfig),
}

impl ObjectiveConfig {
    /// Checks the configuration and builds the objective.
    ///
    /// # Errors
    /// What the selected objective's own `init` reports.
    pub fn init(&self) -> Result<Box<dyn Objective>, ObjectiveError> {
        Ok(match self {
            Self::NtXent(config) => Box::new(config.init()?),
            Self::InfoNce(config) => Box::new(config.init()?),
            Self::Debiased(config) => Box::new(config.init()?),
            Self::HardNegative(config) => Box::new(config.init()?),
            Self::Decoupled(config) => Box::new(config.init()?),
            Self::DecoupledWeighted(config) => Box::new(config.init()?),
            Self::SupCon(config) => Box::new(config.init()?),
            Self::InBatchLogistic(config) => Box::new(config.init()?),
        })
    }

    /// Temperature and class prior of an objective whose estimate has a bound.
    fn bounded(&self) -> Option<(f64, f64)> {
        let (temperature, tau_plus) = match self {
            Self::Debiased(config) => (config.temperature, config.tau_plus),
            Self::HardNegative(config) => (config.temperature, config.tau_plus),
            _ => return None,
        };
        Some((temperature, tau_plus.value().ok().filter(|tau_plus| *tau_plus > 0.0)?))
    }

    /// What a share of clamped anchors above a tenth means, in a sentence with the numbers.
    pub fn clamped_warning(&self, clamped: f64) -> Option<String> {
        let (temperature, tau_plus) = self.bounded().filter(|_| clamped > 0.1)?;
        Some(format!(
            "{:.0} % of the anchors meet the bound of the debiased estimate and get no repulsion (temperature = {temperature}, \
             tau_plus = {tau_plus}): raise the temperature or lower tau_plus",
            100.0 * clamped
        ))
    }

    /// What is allowed and yet hardly meant, in a sentence with the numbers.
    pub fn warning(&self) -> Option<String> {
        let (temperature, tau_plus) = self.bounded()?;
        let limit = clamp_limit(temperature, tau_plus);
        if limit >= TRAINED_COSINE {
            return None;
        }
        let warmer =
            USUAL_TEMPERATURES.into_iter().find(|&t| t > temperature && clamp_limit(t, tau_plus) >= TRAINED_COSINE);
        let raise = warmer.map(|t| format!("raise temperature to {t}, or ")).unwrap_or_default();
        let least = (-temperature.recip()).exp();
        let most = (1.0 - least) / ((TRAINED_COSINE / temperature).exp() - least);
        // Rounded down, so that it can be followed.
        let unit = 10_f64.powf(most.log10().floor() - 1.0);
        let most = (most / unit).floor() * unit;
        // At the lowest temperatures the power is beyond every number.
        let lower =
            if most > 0.0 { format!("lower tau_plus to {most:.1e} or less") } else { "set tau_plus to 0".into() };
        Some(format!(
            "tau_plus = {tau_plus} with temperature = {temperature}: an anchor whose partner has a cosine above {limit:.2} meets \
             the bound of the estimate and gets no repulsion; {raise}{lower}"
        ))
    }
}

/// What the cosines of trained partners reach.
const TRAINED_COSINE: f64 = 0.9;

/// Temperatures in use.
const USUAL_TEMPERATURES: [f64; 6] = [0.1, 0.2, 0.3, 0.5, 0.7, 1.0];

/// Whether a number is what its absence means.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
pub(crate) fn is_zero(n: &usize) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TauPlus;

    fn parse(text: &str) -> Result<ObjectiveConfig, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn every_kind_survives_the_round_trip() {
        for text in [
            r#"{"kind":"nt_xent","temperature":0.2}"#,
            r#"{"kind":"nt_xent","temperature":0.2,"n_cancelled":3}"#,
            r#"{"kind":"info_nce","temperature":0.2,"both_ways":true}"#,
            r#"{"kind":"debiased","temperature":0.5,"tau_plus":0.1}"#,
            r#"{"kind":"debiased","temperature":0.5,"tau_plus":{"classes":10}}"#,
            r#"{"kind":"debiased","temperature":0.5,"tau_plus":{"duplicate_rate":0.01}}"#,
            r#"{"kind":"hard_negative","temperature":0.5,"tau_plus":0.1,"beta":1.0}"#,
            r#"{"kind":"hard_negative","temperature":0.5,"tau_plus":0.1,"beta":1.0,"final_beta":0.0}"#,
            r#"{"kind":"decoupled","temperature":0.1}"#,
            r#"{"kind":"decoupled_weighted","temperature":0.1,"sigma":0.5,"detach_weight":true}"#,
            r#"{"kind":"sup_con","temperature":0.1}"#,
            r#"{"kind":"in_batch_logistic","temperature":0.1,"bias":-10.0}"#,
            r#"{"kind":"in_batch_logistic","temperature":0.1,"bias":-5.0,"corrected":true}"#,
        ] {
            let config = parse(text).expect(text);
            assert_eq!(serde_json::to_string(&config).expect("serializes"), text);
            config.init().expect(text);
        }
    }

    #[test]
    fn a_wrong_config_names_the_key() {
        let check = |text: &str, want: &str| {
            let error = parse(text).expect_err("rejected");
            assert!(error.contains(want), "{text}: {error}");
        };
        check(r#"{"kind": "nt_xent"}"#, "temperature");
        check(r#"{"kind": "nt_xent", "temperature": 0.2, "tau": 0.1}"#, "tau");
        check(r#"{"kind": "dcl", "temperature": 0.2}"#, "nt_xent");
        check(r#"{"temperature": 0.2}"#, "kind");
        for tau_plus in [r#"{"classes": 10, "duplicate_rate": 0.5}"#, r#"{"class": 10}"#, r#"{"classes": 0}"#, r#""a""#]
        {
            check(&format!(r#"{{"kind": "debiased", "temperature": 0.2, "tau_plus": {tau_plus}}}"#), "{ classes = N }");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused_with_their_value() {
        for (text, want) in [
            (r#"{"kind":"nt_xent","temperature":-1.0}"#, "-1"),
            (r#"{"kind":"sup_con","temperature":0.0}"#, "between 1e-6 and 1e6"),
            (r#"{"kind":"debiased","temperature":0.5,"tau_plus":1.0}"#, "tau_plus"),
            (r#"{"kind":"debiased","temperature":0.5,"tau_plus":{"classes":1}}"#, "got 1"),
            (r#"{"kind":"hard_negative","temperature":0.5,"tau_plus":0.1,"beta":1e9}"#, "1000000000"),
            (r#"{"kind":"debiased","temperature":0.5,"tau_plus":-0.1}"#, "-0.1"),
            (r#"{"kind":"hard_negative","temperature":0.5,"tau_plus":0.1,"beta":-1.0}"#, "beta"),
            (r#"{"kind":"hard_negative","temperature":0.5,"tau_plus":0.1,"beta":1.0,"final_beta":-2.0}"#, "-2"),
            (r#"{"kind":"in_batch_logistic","temperature":0.1,"bias":-1e7}"#, "-10000000"),
            (r#"{"kind":"decoupled_weighted","temperature":0.1,"sigma":0.0,"detach_weight":true}"#, "sigma"),
        ] {
            let error = parse(text).expect(text).init().expect_err(text).to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn a_prior_that_clamps_everything_warns_with_the_numbers() {
        let warning = |text: &str| parse(text).expect(text).warning();
        let text = warning(r#"{"kind":"debiased","temperature":0.1,"tau_plus":0.1}"#).expect("a warning");
        assert!(
            text.contains("tau_plus = 0.1") && text.contains("temperature = 0.1") && text.contains("0.23"),
            "{text}"
        );
        assert_eq!(warning(r#"{"kind":"debiased","temperature":0.5,"tau_plus":0.1}"#), None);
        assert_eq!(warning(r#"{"kind":"debiased","temperature":0.1,"tau_plus":0.0}"#), None);
        assert_eq!(warning(r#"{"kind":"nt_xent","temperature":0.1}"#), None);

        let text = warning(r#"{"kind":"debiased","temperature":0.001,"tau_plus":0.1}"#).expect("a warning");
        assert!(text.ends_with("or set tau_plus to 0"), "{text}");

        // Whoever follows the advice is not warned again.
        for (temperature, tau_plus) in [(0.1, 0.1), (0.5, 0.2), (0.05, 0.01), (0.2, 0.05), (10.0, 0.6)] {
            let of = |tau_plus: f64| {
                let tau_plus = TauPlus::Given(tau_plus);
                ObjectiveConfig::Debiased(DebiasedConfig { temperature, tau_plus, n_cancelled: 0 }).warning()
            };
            let text = of(tau_plus).expect("a warning");
            let advice = text.rsplit("lower tau_plus to ").next().and_then(|rest| rest.split(' ').next());
            assert_eq!(of(advice.and_then(|number| number.parse().ok()).expect("a number")), None, "{text}");
        }
    }

    #[test]
    fn clamping_is_a_warning_from_a_tenth_on() {
        let config = parse(r#"{"kind":"hard_negative","temperature":0.2,"tau_plus":0.1,"beta":1.0}"#).expect("valid");
        let text = config.clamped_warning(0.75).expect("a warning");
        assert!(
            text.contains("75 %") && text.contains("temperature = 0.2") && text.contains("tau_plus = 0.1"),
            "{text}"
        );
        assert_eq!(config.clamped_warning(0.05), None);
    }
}
