//! `LinearProbe`: multinomial logistic regression on frozen features.
//!
//! `N` pictures, `C` classes, `F` feature dimensions.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::lbfgs::{Limits, Minimum, minimize};
use crate::preconditioner::SecondMoments;
use crate::softmax_regression::{SoftmaxRegression, Standardizer, classify};
use crate::{FeatureBank, Score, Split, SplitError};

/// The seed of the slice of train on which the regularization is chosen. One value for all encoders, so that they are
/// compared on the same slice.
const HELD_OUT_SEED: u64 = 0;

/// The settings of a [`LinearProbe`].
///
/// # Example
/// A common choice: standardized features, seven strengths, one of them chosen on a tenth of train.
/// ```
/// use twoview_eval::LinearProbeConfig;
/// let config = LinearProbeConfig {
///     l2: vec![1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6],
///     held_out: 0.1,
///     standardize: true,
///     tolerance: 1e-5,
///     max_iterations: 200,
/// };
/// assert!(config.init().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LinearProbeConfig {
    /// Candidate strengths of the penalty `l2/2 · ‖W‖²`, all positive, in any order. A single one is used as it is,
    /// without holding anything out.
    pub l2: Vec<f64>,
    /// The share of every train class on which the strength is chosen, strictly between 0 and 1.
    pub held_out: f64,
    /// Whether each dimension is brought to mean 0 and variance 1, by the train features' statistics, before the fit.
    /// The penalty then treats dimensions of any scale alike, and the fit takes far fewer steps.
    pub standardize: bool,
    /// A fit has converged when no entry of the gradient exceeds this.
    pub tolerance: f64,
    /// Steps after which a fit stops all the same; reported as `converged: false`.
    pub max_iterations: usize,
}

/// Fits a linear classifier to the features of a train bank.
///
/// ```text
/// minimize over W, b:  1/N Σ_i −ln softmax(W x_i + b)[y_i]  +  l2/2 · ‖W‖²
/// ```
/// # Conventions
/// Full batch, in f64, by L-BFGS in the metric of the features' second moments: no learning rate and no seed, the result
/// is a pure function of the bank and the configuration. The bias is free, and shifted to mean 0. scikit-learn's
/// `LogisticRegression(C)` has the same minimum at `l2 = 1 / (C·N)`.
///
/// The strength is chosen by accuracy on a stratified slice of *train* after a fit to the rest of it (equals go to the
/// stronger), and the final fit sees all of train; no test picture has a say in anything. Because the bias is free,
/// subtracting one vector from all features changes nothing: raw and centred pixels get the same classifier.
/// # Cost
/// `4·N·C·F` operations in f64 per step, on all threads, and some ten to twenty steps per strength. Up to 4096 dimensions
/// also `F³/3` operations in f32 per strength, and `2·F²·min(N, 16384)` once; beyond, the metric is left out and a fit may
/// take hundreds of steps. Memory beside the bank: about `30·C·F` numbers for the optimizer, `8·F²` bytes for the metric,
/// and at most 256 MiB (or `C·F` numbers) for partial gradients.
/// # Source
/// Linear probes as a measure of representations: Zhang, Isola, Efros, *Colorful Image Colorization*, ECCV 2016. L-BFGS
/// with the strength chosen on held-out training data: Kornblith, Shlens, Le, *Do Better ImageNet Models Transfer
/// Better?*, CVPR 2019.
/// # Example
/// ```
/// use twoview_eval::{FeatureBank, LinearProbeConfig};
/// let train = FeatureBank::new(vec![-2.0, -1.0, 1.0, 2.0], 1, vec![0, 0, 1, 1])?;
/// let test = FeatureBank::new(vec![-5.0, 0.5], 1, vec![0, 1])?;
/// let config = LinearProbeConfig { l2: vec![0.01], held_out: 0.1, standardize: true, tolerance: 1e-6, max_iterations: 100 };
/// let classifier = config.init()?.fit(&train)?;
/// assert!(classifier.fit().converged);
/// assert_eq!(classifier.evaluate(&test)?.top1, 1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct LinearProbe {
    config: LinearProbeConfig,
}

/// How a [`LinearClassifier`] came about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinearFit {
    /// The strength of the penalty.
    pub l2: f64,
    /// The minimum found, in nats: mean cross-entropy plus penalty.
    pub objective: f64,
    /// The mean cross-entropy on train, in nats.
    pub cross_entropy: f64,
    /// The steps of the final fit.
    pub iterations: usize,
    /// Whether the final fit reached the tolerance. If not, the classifier is what the last step left.
    pub converged: bool,
    /// The largest absolute entry of the gradient where it stopped.
    pub gradient_max_abs: f64,
    /// The strengths that were tried, strongest first; empty if there was no choice.
    pub held_out: Vec<HeldOutFit>,
}

/// One strength on the way to the chosen one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HeldOutFit {
    /// The strength of the penalty.
    pub l2: f64,
    /// Accuracy on the held-out slice of train, in `[0, 1]`.
    pub accuracy: f64,
    /// The steps of this fit, which started where the stronger one ended.
    pub iterations: usize,
    /// Whether it reached the tolerance.
    pub converged: bool,
}

/// A linear classifier over features, the outcome of [`LinearProbe::fit`].
#[derive(Clone, Debug)]
pub struct LinearClassifier {
    standardizer: Standardizer,
    parameters: Vec<f64>, // weights [C, F], then biases [C]
    n_classes: usize,
    dim: usize,
    fit: LinearFit,
}

/// Why a linear probe cannot be set up, fitted or evaluated.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum LinearProbeError {
    /// No strength to choose from.
    #[error("the list of l2 strengths is empty: expected at least one, such as 0.001")]
    NoStrength,
    /// A strength is unusable.
    #[error(
        "every l2 strength must be positive and finite, got {0}: without a penalty separable data have no best fit"
    )]
    Strength(f64),
    /// The tolerance is unusable.
    #[error("the gradient tolerance must be positive and finite, got {0}")]
    Tolerance(f64),
    /// The fit may not take a step.
    #[error("max_iterations must be at least 1, got 0")]
    NoIterations,
    /// Nothing can be held out of train.
    #[error("no slice of train to choose the l2 strength on; give a single strength instead")]
    HeldOut(#[from] SplitError),
    /// Every answer would be right.
    #[error("all {rows} train pictures have the same label {label}: accuracy over one class is meaningless")]
    OneClass {
        /// The number of train pictures.
        rows: usize,
        /// Their label.
        label: u32,
    },
    /// A class number below the largest one has no train picture.
    #[error(
        "class {class} of 0..={largest} has no train picture: expected some of every class; remove the class or add pictures"
    )]
    MissingClass {
        /// The first class without a picture.
        class: u32,
        /// The largest label in train.
        largest: u32,
    },
    /// A test picture has a class that train does not have.
    #[error("class {class} occurs in the test set, but train has only the classes 0..{n_classes}")]
    UnseenClass {
        /// The label of the test picture.
        class: u32,
        /// The number of train classes.
        n_classes: usize,
    },
    /// Train and test features come from different encoders.
    #[error("the classifier was fitted to {expected} dimensions, got {got}: both sets must come from the same encoder")]
    Dimension {
        /// The dimensions of the train bank.
        expected: usize,
        /// The dimensions of the other bank.
        got: usize,
    },
}

impl LinearProbeConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`LinearProbeError`] for an empty list of strengths, a value out of range, or a held-out share outside (0, 1).
    pub fn init(mut self) -> Result<LinearProbe, LinearProbeError> {
        let positive = |value: f64| value > 0.0 && value.is_finite();
        if self.l2.is_empty() {
            return Err(LinearProbeError::NoStrength);
        }
        if let Some(&bad) = self.l2.iter().find(|&&l2| !positive(l2)) {
            return Err(LinearProbeError::Strength(bad));
        }
        if !positive(self.tolerance) {
            return Err(LinearProbeError::Tolerance(self.tolerance));
        }
        if self.max_iterations == 0 {
            return Err(LinearProbeError::NoIterations);
        }
        if !(self.held_out > 0.0 && self.held_out < 1.0) {
            return Err(SplitError::Fraction(self.held_out).into());
        }
        self.l2.sort_by(|a, b| b.total_cmp(a));
        self.l2.dedup();
        Ok(LinearProbe { config: self })
    }
}

impl LinearProbe {
    /// Chooses the strength on a slice of `train` and fits a classifier to all of it.
    ///
    /// # Errors
    /// [`LinearProbeError`] if `train` holds one class only, misses a class below its largest label, or is too small
    /// to hold anything out.
    pub fn fit(&self, train: &FeatureBank) -> Result<LinearClassifier, LinearProbeError> {
        let n_classes = count_classes(train)?;
        let rows: Vec<usize> = (0..train.len()).collect();
        let standardizer = self.standardizer(train, &rows);
        let moments = SecondMoments::of(train, &standardizer);
        let (l2, start, held_out) = match self.config.l2[..] {
            [l2] => (l2, None, Vec::new()),
            _ => self.choose_l2(train, n_classes, moments.as_ref())?,
        };
        let problem = SoftmaxRegression { bank: train, rows: &rows, standardizer: &standardizer, n_classes };
        let start = start.unwrap_or_else(|| vec![0.0; problem.n_parameters()]);
        let minimum = self.minimize(&problem, moments.as_ref(), l2, start);

        let mut parameters = minimum.x;
        // Softmax does not see a common shift of the biases, so the objective is the same.
        let biases = &mut parameters[n_classes * train.dim()..];
        let mean = biases.iter().sum::<f64>() / n_classes as f64;
        biases.iter_mut().for_each(|b| *b -= mean);
        let (cross_entropy, _) = classify(train, &rows, &standardizer, &parameters, n_classes);
        let fit = LinearFit {
            l2,
            objective: minimum.value,
            cross_entropy,
            iterations: minimum.iterations,
            converged: minimum.converged,
            gradient_max_abs: minimum.gradient_max_abs,
            held_out,
        };
        Ok(LinearClassifier { standardizer, parameters, n_classes, dim: train.dim(), fit })
    }

    /// The best strength, the parameters fitted with it, and the record of all.
    #[expect(clippy::type_complexity, reason = "three results of one search, taken apart at its only call")]
    fn choose_l2(
        &self,
        train: &FeatureBank,
        n_classes: usize,
        moments: Option<&SecondMoments>,
    ) -> Result<(f64, Option<Vec<f64>>, Vec<HeldOutFit>), LinearProbeError> {
        let Split { train: rows, test: held_out } =
            Split::stratified(train.labels(), self.config.held_out, HELD_OUT_SEED)?;
        let standardizer = self.standardizer(train, &rows);
        let problem = SoftmaxRegression { bank: train, rows: &rows, standardizer: &standardizer, n_classes };
        let labels: Vec<u32> = held_out.iter().map(|&row| train.labels()[row]).collect();
        let mut parameters = vec![0.0; problem.n_parameters()];
        let (mut best_l2, mut best_accuracy, mut best_parameters) = (self.config.l2[0], -1.0, None);
        let mut record = Vec::with_capacity(self.config.l2.len());
        for &l2 in &self.config.l2 {
            // From the strongest to the weakest, each fit begins at the last one's minimum, which is near.
            let minimum = self.minimize(&problem, moments, l2, parameters);
            let (_, predicted) = classify(train, &held_out, &standardizer, &minimum.x, n_classes);
            let accuracy = Score::tally(&predicted, &labels).top1;
            record.push(HeldOutFit { l2, accuracy, iterations: minimum.iterations, converged: minimum.converged });
            if accuracy > best_accuracy {
                (best_l2, best_accuracy, best_parameters) = (l2, accuracy, Some(minimum.x.clone()));
            }
            parameters = minimum.x;
        }
        Ok((best_l2, best_parameters, record))
    }

    fn minimize(
        &self,
        problem: &SoftmaxRegression<'_>,
        moments: Option<&SecondMoments>,
        l2: f64,
        start: Vec<f64>,
    ) -> Minimum {
        let limits = Limits { tolerance: self.config.tolerance, max_iterations: self.config.max_iterations };
        let preconditioner = moments.and_then(|moments| moments.factor(l2, problem.n_classes));
        minimize(
            |parameters, gradient| problem.evaluate(parameters, l2, gradient),
            |gradient| preconditioner.iter().for_each(|p| p.apply(gradient)),
            start,
            limits,
        )
    }

    fn standardizer(&self, train: &FeatureBank, rows: &[usize]) -> Standardizer {
        if self.config.standardize { Standardizer::fit(train, rows) } else { Standardizer::identity(train.dim()) }
    }
}

impl LinearClassifier {
    /// How the fit went.
    pub fn fit(&self) -> &LinearFit {
        &self.fit
    }

    /// The weights `[C, F]`, row-major; for standardized features if the configuration asked for them.
    pub fn weight(&self) -> &[f64] {
        &self.parameters[..self.n_classes * self.dim]
    }

    /// The biases `[C]`, of mean 0.
    pub fn bias(&self) -> &[f64] {
        &self.parameters[self.n_classes * self.dim..]
    }

    /// The most probable class of each row; of equal logits the smaller class. The labels of `bank` are not looked at.
    ///
    /// # Errors
    /// [`LinearProbeError::Dimension`].
    pub fn predict(&self, bank: &FeatureBank) -> Result<Vec<u32>, LinearProbeError> {
        Ok(self.classify(bank)?.1)
    }

    /// The share of rows whose label is the most probable class.
    ///
    /// # Errors
    /// [`LinearProbeError::Dimension`]; [`LinearProbeError::UnseenClass`] if a label was not in train.
    pub fn evaluate(&self, test: &FeatureBank) -> Result<Score, LinearProbeError> {
        self.check_labels(test)?;
        Ok(Score::tally(&self.predict(test)?, test.labels()))
    }

    /// The mean cross-entropy of the rows' labels, in nats, without the penalty.
    ///
    /// # Errors
    /// [`LinearProbeError::Dimension`]; [`LinearProbeError::UnseenClass`] if a label was not in train.
    pub fn cross_entropy(&self, test: &FeatureBank) -> Result<f64, LinearProbeError> {
        self.check_labels(test)?;
        Ok(self.classify(test)?.0)
    }

    fn classify(&self, bank: &FeatureBank) -> Result<(f64, Vec<u32>), LinearProbeError> {
        if bank.dim() != self.dim {
            return Err(LinearProbeError::Dimension { expected: self.dim, got: bank.dim() });
        }
        let rows: Vec<usize> = (0..bank.len()).collect();
        Ok(classify(bank, &rows, &self.standardizer, &self.parameters, self.n_classes))
    }

    fn check_labels(&self, test: &FeatureBank) -> Result<(), LinearProbeError> {
        match test.labels().iter().find(|&&label| label as usize >= self.n_classes) {
            Some(&class) => Err(LinearProbeError::UnseenClass { class, n_classes: self.n_classes }),
            None => Ok(()),
        }
    }
}

/// The number of classes, all of which occur, at least two.
fn count_classes(train: &FeatureBank) -> Result<usize, LinearProbeError> {
    if !train.has_two_classes() {
        return Err(LinearProbeError::OneClass { rows: train.len(), label: train.labels()[0] });
    }
    let mut classes = train.labels().to_vec();
    classes.sort_unstable();
    classes.dedup();
    let largest = classes[classes.len() - 1];
    match (0_u32..).zip(&classes).find(|(expected, class)| *expected != **class) {
        Some((class, _)) => Err(LinearProbeError::MissingClass { class, largest }),
        None => Ok(classes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feature_bank::narrow;

    fn config(l2: &[f64]) -> LinearProbeConfig {
        LinearProbeConfig { l2: l2.to_vec(), held_out: 0.2, standardize: true, tolerance: 1e-7, max_iterations: 500 }
    }

    /// `n` points around one centre per class on the unit circle; `spread` is the noise's half width.
    fn clusters(n: u32, n_classes: u32, spread: f64) -> FeatureBank {
        let mut features = Vec::new();
        for i in 0..n {
            let angle = f64::from(i % n_classes) / f64::from(n_classes) * std::f64::consts::TAU;
            let noise = |salt: u32| f64::from((i * 7919 + salt * 104_729) % 2003) / 1001.0 - 1.0;
            features.push(narrow(angle.cos() + spread * noise(1)));
            features.push(narrow(angle.sin() + spread * noise(2)));
            features.push(narrow(noise(3)));
        }
        FeatureBank::new(features, 3, (0..n).map(|i| i % n_classes).collect()).expect("valid")
    }

    #[test]
    fn separates_what_can_be_separated() {
        let classifier = config(&[1e-4]).init().expect("valid").fit(&clusters(400, 5, 0.3)).expect("five classes");
        assert!(classifier.fit().converged);
        assert_eq!(classifier.evaluate(&clusters(1000, 5, 0.3)).expect("same classes").top1, 1.0);
        let bias_mean = classifier.bias().iter().sum::<f64>() / 5.0;
        assert!(bias_mean.abs() < 1e-15);
    }

    #[test]
    fn two_opposite_points_have_a_closed_form() {
        // x = ±1, y = ±: w₀ = −w₁ = −a, b = 0, and the derivative of ln(1 + e^(−2a)) + l2·a² vanishes:
        // a·l2 = 1 / (1 + e^(2a)). At a = 1: l2 = 1 / (1 + e²).
        let bank = FeatureBank::new(vec![-1.0, 1.0], 1, vec![0, 1]).expect("valid");
        let mut config = config(&[1.0 / (1.0 + 2_f64.exp())]);
        config.tolerance = 1e-12;
        let classifier = config.init().expect("valid").fit(&bank).expect("two classes");
        assert!((classifier.weight()[0] + 1.0).abs() < 1e-10 && (classifier.weight()[1] - 1.0).abs() < 1e-10);
        assert!((classifier.fit().cross_entropy - (-2_f64).exp().ln_1p()).abs() < 1e-10);
    }

    #[test]
    fn scale_and_offset_of_a_dimension_do_not_matter_when_standardized() {
        let bank = clusters(300, 3, 1.5);
        let moved: Vec<f32> = bank.features().chunks(3).flat_map(|r| [r[0] * 64.0, r[1] / 32.0 + 4.0, r[2]]).collect();
        let moved = FeatureBank::new(moved, 3, bank.labels().to_vec()).expect("valid");
        let fit = |bank| config(&[1e-2]).init().expect("valid").fit(bank).expect("three classes");
        let (original, moved) = (fit(&bank), fit(&moved));
        // The offset costs features a few bits of f32.
        assert!((original.fit().objective - moved.fit().objective).abs() < 1e-6);
        assert!(original.weight().iter().zip(moved.weight()).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn the_strength_is_chosen_on_train_and_ties_go_to_the_stronger() {
        // Clearly separated: every strength but the absurd one classifies the slice perfectly.
        let train = clusters(300, 3, 0.2);
        let classifier = config(&[1e-3, 1e6, 1e-2]).init().expect("valid").fit(&train).expect("three classes");
        let fit = classifier.fit();
        assert_eq!(fit.held_out.iter().map(|h| h.l2).collect::<Vec<_>>(), [1e6, 1e-2, 1e-3]);
        let best = fit.held_out.iter().map(|h| h.accuracy).fold(0.0, f64::max);
        let strongest_best = fit.held_out.iter().find(|h| h.accuracy == best).expect("a maximum");
        assert_eq!(fit.l2, strongest_best.l2);
        // The final fit is the minimum over all of train, wherever it started.
        let direct = config(&[fit.l2]).init().expect("valid").fit(&train).expect("three classes");
        assert!(direct.fit().held_out.is_empty());
        assert!((direct.fit().objective - fit.objective).abs() < 1e-9);
    }

    #[test]
    fn says_when_it_did_not_converge() {
        let mut config = config(&[1e-6]);
        config.max_iterations = 2;
        let classifier = config.init().expect("valid").fit(&clusters(60, 3, 1.0)).expect("three classes");
        assert_eq!((classifier.fit().converged, classifier.fit().iterations), (false, 2));
    }

    #[test]
    fn threads_change_no_bit() {
        let train = clusters(700, 4, 1.0);
        let fit_with = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a pool");
            let classifier = pool.install(|| config(&[1e-1, 1e-3]).init().expect("valid").fit(&train));
            let classifier = classifier.expect("four classes");
            (classifier.parameters.clone(), classifier.fit.clone())
        };
        assert_eq!(fit_with(1), fit_with(3));
    }

    #[test]
    fn refuses_meaningless_questions() {
        use LinearProbeError as E;
        let probe = config(&[0.1]).init().expect("valid");
        let bank = |labels: &[u32]| {
            let features = (0..labels.len()).map(|i| narrow(i as f64)).collect();
            FeatureBank::new(features, 1, labels.to_vec()).expect("valid")
        };
        let fit = |labels: &[u32]| probe.fit(&bank(labels)).map(|_| ());
        assert_eq!(fit(&[2, 2, 2]), Err(E::OneClass { rows: 3, label: 2 }));
        assert_eq!(fit(&[0, 3, 1]), Err(E::MissingClass { class: 2, largest: 3 }));
        assert_eq!(fit(&[1, u32::MAX]), Err(E::MissingClass { class: 0, largest: u32::MAX }));
        let classifier = probe.fit(&bank(&[0, 1])).expect("two classes");
        assert_eq!(classifier.evaluate(&bank(&[0, 2])), Err(E::UnseenClass { class: 2, n_classes: 2 }));
        assert_eq!(classifier.predict(&bank(&[0, 2])), Ok(vec![0, 1]));
        let wide = FeatureBank::new(vec![0.0; 2], 2, vec![0]).expect("valid");
        assert_eq!(classifier.predict(&wide), Err(E::Dimension { expected: 1, got: 2 }));
        // Nothing to hold out of two single pictures.
        let choosing = config(&[0.1, 0.2]).init().expect("valid");
        assert_eq!(choosing.fit(&bank(&[0, 1])).map(|_| ()), Err(E::HeldOut(SplitError::NothingToHoldOut { rows: 2 })));
    }

    #[test]
    fn refuses_settings_out_of_range() {
        use LinearProbeError as E;
        let init = |change: &dyn Fn(&mut LinearProbeConfig)| {
            let mut config = config(&[0.1]);
            change(&mut config);
            config.init().map(|_| ())
        };
        assert_eq!(init(&|c| c.l2.clear()), Err(E::NoStrength));
        assert_eq!(init(&|c| c.l2.push(0.0)), Err(E::Strength(0.0)));
        assert!(init(&|c| c.l2.push(f64::NAN)).is_err());
        assert_eq!(init(&|c| c.tolerance = 0.0), Err(E::Tolerance(0.0)));
        assert_eq!(init(&|c| c.max_iterations = 0), Err(E::NoIterations));
        assert_eq!(init(&|c| c.held_out = 1.0), Err(E::HeldOut(SplitError::Fraction(1.0))));
    }
}
