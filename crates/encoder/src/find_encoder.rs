//! Which of a file's tensors are a ResNet, and which one: for the checkpoints of other programs.

use std::collections::BTreeMap;

use burn::tensor::{Device, TensorData};

use crate::named_tensors::{NamedTensors, WeightsError, load_named};
use crate::resnet::{Arch, EncoderConfig, EncoderError, ResNet, Stem};
use crate::weights_file::{TensorInfo, WeightsFile, WeightsFileError};

/// An encoder found in a file of weights.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundEncoder {
    /// What it is, read off the shapes.
    pub config: EncoderConfig,
    /// What stands before its names, with the dot: `state_dict.backbone.`
    pub prefix: String,
    /// Encoders that were passed over as moving averages of the one found.
    pub other_prefixes: Vec<String>,
    /// How many tensors belong to something else, by the beginnings of their names.
    pub ignored: BTreeMap<String, usize>,
    /// Names in the file, each with its name in torchvision.
    names: Vec<(String, String)>,
}

/// Why a file holds no encoder that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindEncoderError {
    /// Nothing looks like a ResNet of known names.
    #[error(
        "holds no ResNet of torchvision's names (conv1, bn1, layer1 to layer4){}; only ResNet-18, -34 and -50 are read. If the file is a whole \
         module, save model.state_dict() instead",
        seen(names)
    )]
    None {
        /// Some of the names in the file.
        names: Vec<String>,
    },
    /// Several encoders, none of them evidently the trained one.
    #[error("holds {} encoders; say which one with --prefix: {}", prefixes.len(), prefixes.join(", "))]
    Ambiguous {
        /// What stands before the names of each.
        prefixes: Vec<String>,
    },
    /// The prefix asked for has no encoder.
    #[error("has no encoder under the prefix `{got}`; expected one of {}", prefixes.join(", "))]
    NoSuchPrefix {
        /// What was asked for.
        got: String,
        /// The prefixes with an encoder.
        prefixes: Vec<String>,
    },
    /// A ResNet of another depth.
    #[error(
        "is a ResNet of {blocks:?} {}: expected [2, 2, 2, 2] plain (resnet18), [3, 4, 6, 3] plain (resnet34) or [3, 4, 6, 3] \
         bottleneck blocks (resnet50)",
        if *bottlenecks { "bottleneck blocks" } else { "plain blocks" }
    )]
    Depth {
        /// Blocks of each stage.
        blocks: [usize; 4],
        /// Whether they have three convolutions.
        bottlenecks: bool,
    },
    /// The first layer is no stem of a ResNet for colour pictures.
    #[error(
        "has a first convolution `{name}` of shape {got:?}: expected [width, 3, 7, 7] (ImageNet's stem) or [width, 3, 3, 3] (CIFAR's)"
    )]
    Stem {
        /// Its name in the file.
        name: String,
        /// Its shape.
        got: Vec<usize>,
    },
    /// A weight is infinite or no number.
    #[error(
        "has the tensor `{name}` with numbers that are not finite; its training had failed, or the file is damaged"
    )]
    NotFinite {
        /// Its name in the file.
        name: String,
    },
    /// The width is impossible.
    #[error(transparent)]
    Width(#[from] EncoderError),
    /// The weights cannot be read.
    #[error(transparent)]
    File(#[from] WeightsFileError),
    /// The tensors are not those of a plain ResNet, such as one with attention, groups or wider bottlenecks, or not of its
    /// element type.
    #[error("does not fit the plain ResNet that it looks like{}", under(prefix))]
    Weights {
        /// Where the encoder was found.
        prefix: String,
        /// What does not fit, in torchvision's names.
        source: WeightsError,
    },
}

fn seen(names: &[String]) -> String {
    if names.is_empty() {
        ": it holds no named tensor at all".to_owned()
    } else {
        format!(" but {}, …", names.join(", "))
    }
}

fn under(prefix: &str) -> String {
    if prefix.is_empty() { String::new() } else { format!(" under `{prefix}`") }
}

/// How the parts of a ResNet are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// By torchvision's names.
    Named,
    /// By number, as in `Sequential(*resnet.children())`: convolution, normalization, ReLU, pooling, four stages.
    Numbered,
    /// The same without pooling, as networks for small pictures are made.
    NumberedWithoutPool,
}

impl Scheme {
    /// Stem convolution, its normalization and the stages.
    fn parts(self) -> [&'static str; 6] {
        match self {
            Self::Named => OURS,
            Self::Numbered => ["0", "1", "4", "5", "6", "7"],
            Self::NumberedWithoutPool => ["0", "1", "3", "4", "5", "6"],
        }
    }
}

const OURS: [&str; 6] = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"];
/// Words in a prefix that mark a moving average: MoCo's key encoder, BYOL's target, DINO's teacher.
const AVERAGES: [&str; 8] = ["momentum", "target", "teacher", "ema", "k", "key", "averaged", "swa"];
const SHOWN_NAMES: usize = 3;

/// Finds the one encoder among `tensors`.
///
/// The names may be torchvision's, or the numbers of a `Sequential` as lightly's models have them, behind any prefix
/// (`state_dict.module.encoder_q.`, `backbone.`, `student.`). Depth, stem and width follow from the shapes. Of several
/// encoders those whose prefix speaks of a moving average are passed over; heads, classifiers and the memory of optimizers are
/// ignored. What was passed over is in the result.
///
/// A stem of 3×3 is taken for CIFAR's, with stride 1 and no pooling: shapes do not show either.
///
/// # Errors
/// [`FindEncoderError`].
pub fn find_encoder(tensors: &[TensorInfo], prefix: Option<&str>) -> Result<FoundEncoder, FindEncoderError> {
    let shapes: BTreeMap<&str, &[usize]> = tensors.iter().map(|t| (t.name.as_str(), &t.shape[..])).collect();
    let candidates = candidates(&shapes);
    let ((prefix, scheme), others) = choose(&candidates, &shapes, prefix)?;
    let [stem, _, stages @ ..] = scheme.parts();

    let has = |name: String| shapes.contains_key(name.as_str());
    // Any tensor makes a block: one that lacks its convolution is missed by its name when the weights are taken.
    let has_block = |beginning: String| {
        shapes.range(beginning.as_str()..).next().is_some_and(|(name, _)| name.starts_with(&beginning))
    };
    let blocks = stages.map(|stage| (0..).take_while(|block| has_block(format!("{prefix}{stage}.{block}."))).count());
    let bottlenecks = has(format!("{prefix}{}.0.conv3.weight", stages[0]));
    let arch = [Arch::Resnet18, Arch::Resnet34, Arch::Resnet50]
        .into_iter()
        .find(|arch| (arch.n_blocks(), arch.has_bottlenecks()) == (blocks, bottlenecks))
        .ok_or(FindEncoderError::Depth { blocks, bottlenecks })?;
    let name = format!("{prefix}{stem}.weight");
    let (stem, width) = match shapes.get(name.as_str()).copied().unwrap_or_default() {
        &[width, 3, 7, 7] if scheme != Scheme::NumberedWithoutPool => (Stem::Imagenet, width),
        &[width, 3, 3, 3] => (Stem::Cifar, width),
        got => return Err(FindEncoderError::Stem { name, got: got.to_vec() }),
    };

    let mut ignored = BTreeMap::new();
    let mut names = Vec::new();
    for tensor in tensors {
        match tensor.name.strip_prefix(prefix).and_then(|rest| torchvision_name(rest, scheme)) {
            Some(ours) => names.push((tensor.name.clone(), ours)),
            None => *ignored.entry(beginning(&tensor.name, prefix, &others)).or_default() += 1,
        }
    }
    let config = EncoderConfig { arch, stem, width };
    Ok(FoundEncoder { config, prefix: prefix.to_owned(), other_prefixes: others, ignored, names })
}

impl FoundEncoder {
    /// Takes the encoder's weights out of the file it was found in.
    ///
    /// Beside the encoder it returns the counters `num_batches_tracked` of the file, which an encoder has no place for.
    ///
    /// # Errors
    /// [`FindEncoderError::Weights`] where the tensors are not exactly those of a ResNet, [`FindEncoderError::NotFinite`] where
    /// one has no value that counts, [`FindEncoderError::File`] where they cannot be read.
    pub fn take_from(
        &self,
        file: &mut WeightsFile,
        device: &Device,
    ) -> Result<(ResNet, NamedTensors), FindEncoderError> {
        // Before anything is allocated: the width that a file claims need not be one that it holds.
        let misfit = |source| FindEncoderError::Weights { prefix: self.prefix.clone(), source };
        let shapes: BTreeMap<String, Vec<usize>> = file.tensors().into_iter().map(|t| (t.name, t.shape)).collect();
        for (name, expected) in self.config.tensor_shapes() {
            let theirs = self.names.iter().find(|(_, ours)| *ours == name).and_then(|(theirs, _)| shapes.get(theirs));
            match theirs {
                None => return Err(misfit(WeightsError::Missing { name, expected })),
                Some(got) if *got != expected => {
                    return Err(misfit(WeightsError::Shape { name, expected, got: got.clone() }));
                }
                Some(_) => {}
            }
        }

        let mut tensors = Vec::new();
        let mut counters = Vec::new();
        for (theirs, ours) in &self.names {
            let Some(data) = file.take(theirs)? else { continue };
            // A network with such a weight has no feature that means anything.
            if data.dtype().is_float() && !data.iter::<f64>().all(f64::is_finite) {
                return Err(FindEncoderError::NotFinite { name: theirs.clone() });
            }
            let into = if is_counter(ours) { &mut counters } else { &mut tensors };
            into.push((ours.clone(), data));
        }
        let encoder = load_named(self.config.init(0, device)?, tensors).map_err(misfit)?;
        Ok((encoder, counters))
    }
}

/// Whether a name is that of a normalization's count of batches.
fn is_counter(name: &str) -> bool {
    name.ends_with("num_batches_tracked")
}

/// The tensors of an encoder with the counters `num_batches_tracked` that PyTorch's normalization layers have.
///
/// The count changes nothing where the momentum of the running statistics is a number, as it is by default. It is set to
/// `n_batches`, or to the value of the same name in `counters`.
#[must_use]
pub fn with_batch_counters(tensors: NamedTensors, counters: &[(String, TensorData)], n_batches: i64) -> NamedTensors {
    let mut all = Vec::with_capacity(tensors.len() * 6 / 5);
    for (name, data) in tensors {
        let counter = name.strip_suffix("running_var").map(|layer| format!("{layer}num_batches_tracked"));
        all.push((name, data));
        if let Some(name) = counter {
            let given = counters.iter().find(|(given, _)| *given == name).map(|(_, data)| data.clone());
            all.push((name, given.unwrap_or_else(|| TensorData::new(vec![n_batches], Vec::<usize>::new()))));
        }
    }
    all
}

/// Every prefix behind which a ResNet begins and ends.
fn candidates(shapes: &BTreeMap<&str, &[usize]>) -> BTreeMap<String, Scheme> {
    let mut found = BTreeMap::new();
    for scheme in [Scheme::Named, Scheme::Numbered, Scheme::NumberedWithoutPool] {
        let [stem, _, first, .., last] = scheme.parts();
        for name in shapes.keys() {
            let Some(prefix) = name.strip_suffix(&format!("{stem}.weight")) else { continue };
            let has = |stage: &str| shapes.contains_key(format!("{prefix}{stage}.0.conv1.weight").as_str());
            if (prefix.is_empty() || prefix.ends_with('.')) && has(first) && has(last) {
                found.entry(prefix.to_owned()).or_insert(scheme);
            }
        }
    }
    found
}

/// The prefix to take with its scheme, and the prefixes passed over.
type Chosen<'a> = ((&'a str, Scheme), Vec<String>);

fn choose<'a>(
    candidates: &'a BTreeMap<String, Scheme>,
    shapes: &BTreeMap<&str, &[usize]>,
    prefix: Option<&str>,
) -> Result<Chosen<'a>, FindEncoderError> {
    if candidates.is_empty() {
        let names = shapes.keys().take(SHOWN_NAMES).map(|name| format!("`{name}`")).collect();
        return Err(FindEncoderError::None { names });
    }
    let wanted = |found: &str| match prefix {
        Some(prefix) => found.trim_end_matches('.') == prefix.trim_end_matches('.'),
        None => candidates.len() == 1 || !is_average(found),
    };
    let mut chosen = candidates.iter().filter(|(found, _)| wanted(found));
    let prefixes = || candidates.keys().map(|prefix| format!("`{prefix}`")).collect();
    match (chosen.next(), chosen.next(), prefix) {
        (Some((chosen, scheme)), None, _) => {
            let others = candidates.keys().filter(|other| *other != chosen).cloned().collect();
            Ok(((chosen, *scheme), others))
        }
        (None, _, Some(got)) => Err(FindEncoderError::NoSuchPrefix { got: got.to_owned(), prefixes: prefixes() }),
        _ => Err(FindEncoderError::Ambiguous { prefixes: prefixes() }),
    }
}

fn is_average(prefix: &str) -> bool {
    prefix.split(['.', '_']).any(|word| AVERAGES.iter().any(|average| word.eq_ignore_ascii_case(average)))
}

/// The name in torchvision of a tensor of the encoder; `None` for what belongs to something else.
fn torchvision_name(rest: &str, scheme: Scheme) -> Option<String> {
    let (part, rest) = rest.split_once('.')?;
    let index = scheme.parts().iter().position(|theirs| *theirs == part)?;
    // Networks in the manner of kuangliu's pytorch-cifar call it so, SupContrast's among them.
    let rest = rest.replace("shortcut.", "downsample.");
    Some(format!("{}.{rest}", OURS[index]))
}

/// What an ignored tensor is counted under: another encoder's prefix, or the first word that sets it apart.
fn beginning(name: &str, prefix: &str, others: &[String]) -> String {
    if let Some(other) = others.iter().find(|other| !other.is_empty() && name.starts_with(other.as_str())) {
        return other.clone();
    }
    let (shared, rest) = match name.strip_prefix(prefix) {
        Some(rest) => (prefix, rest),
        None => {
            let shared = name.bytes().zip(prefix.bytes()).take_while(|(a, b)| a == b).count();
            name.split_at(name[..shared].rfind('.').map_or(0, |dot| dot + 1))
        }
    };
    format!("{shared}{}", rest.split('.').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::*;

    const SMALL: EncoderConfig = EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 2 };

    /// A ResNet with every name changed.
    fn named(config: EncoderConfig, name: impl Fn(&str) -> String) -> Vec<TensorInfo> {
        let info = |(own, shape): (String, Vec<usize>)| TensorInfo { name: name(&own), shape, dtype: DType::F32 };
        config.tensor_shapes().into_iter().map(info).collect()
    }

    fn other(name: &str) -> TensorInfo {
        TensorInfo { name: name.to_owned(), shape: vec![1], dtype: DType::F32 }
    }

    #[track_caller]
    fn check(tensors: &[TensorInfo], config: EncoderConfig, prefix: &str, ignored: &[(&str, usize)]) {
        let found = find_encoder(tensors, None).expect("found");
        assert_eq!((found.config, found.prefix.as_str()), (config, prefix));
        let ignored: BTreeMap<String, usize> = ignored.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        assert_eq!(found.ignored, ignored);
        let mut ours: Vec<&str> = found.names.iter().map(|(_, ours)| ours.as_str()).collect();
        let shapes = config.tensor_shapes();
        let mut expected: Vec<&str> = shapes.iter().map(|(name, _)| name.as_str()).collect();
        ours.sort_unstable();
        expected.sort_unstable();
        assert_eq!(ours, expected);
    }

    #[test]
    fn depth_stem_and_width_follow_from_the_shapes() {
        for arch in [Arch::Resnet18, Arch::Resnet34, Arch::Resnet50] {
            for (stem, width) in [(Stem::Imagenet, 64), (Stem::Cifar, 3)] {
                let config = EncoderConfig { arch, stem, width };
                check(&named(config, str::to_owned), config, "", &[]);
            }
        }
    }

    #[test]
    fn prefixes_of_other_programs_are_understood() {
        for prefix in
            ["module.", "state_dict.module.encoder_q.", "model.backbone.", "online_encoder.", "student.backbone."]
        {
            let mut tensors = named(SMALL, |name| format!("{prefix}{name}"));
            tensors.extend([other(&format!("{prefix}fc.weight")), other("epoch.x")]);
            check(&tensors, SMALL, prefix, &[(&format!("{prefix}fc"), 1), ("epoch", 1)]);
        }
    }

    #[test]
    fn the_trained_one_of_a_pair_is_taken() {
        for (trained, average) in [
            ("state_dict.module.encoder_q.", "state_dict.module.encoder_k."),
            ("backbone.", "backbone_momentum."),
            ("backbone.", "momentum_backbone."),
            ("online_encoder.net.", "target_encoder.net."),
            ("student.", "teacher."),
            ("model.", "model_ema."),
        ] {
            let mut tensors = named(SMALL, |name| format!("{average}{name}"));
            let n = tensors.len();
            tensors.extend(named(SMALL, |name| format!("{trained}{name}")));
            check(&tensors, SMALL, trained, &[(average, n)]);
            let found = find_encoder(&tensors, Some(average)).expect("asked for");
            assert_eq!((found.prefix.as_str(), found.other_prefixes), (average, vec![trained.to_owned()]));
        }
        let mut two = named(SMALL, |name| format!("a.{name}"));
        two.extend(named(SMALL, |name| format!("b.{name}")));
        let error = find_encoder(&two, None).expect_err("which?").to_string();
        assert!(error.contains("`a.`, `b.`") && error.contains("--prefix"), "{error}");
        assert_eq!(find_encoder(&two, Some("b")).expect("asked for").prefix, "b.");
        assert!(matches!(find_encoder(&two, Some("c")), Err(FindEncoderError::NoSuchPrefix { .. })));
    }

    #[test]
    fn a_numbered_sequence_and_other_shortcuts_are_understood() {
        let numbered = |parts: [&str; 6]| {
            let parts = parts.map(str::to_owned);
            move |name: &str| {
                let (part, rest) = name.split_once('.').expect("a dot");
                let index = OURS.iter().position(|ours| *ours == part).expect("one of ours");
                format!("backbone.{}.{rest}", parts[index])
            }
        };
        let imagenet = EncoderConfig { stem: Stem::Imagenet, ..SMALL };
        check(&named(imagenet, numbered(Scheme::Numbered.parts())), imagenet, "backbone.", &[]);
        check(&named(SMALL, numbered(Scheme::NumberedWithoutPool.parts())), SMALL, "backbone.", &[]);
        check(&named(SMALL, |name| name.replace("downsample", "shortcut")), SMALL, "", &[]);
    }

    #[test]
    fn what_is_no_such_resnet_is_named() {
        let says = |tensors: &[TensorInfo], words: &str| {
            let error = find_encoder(tensors, None).expect_err("refused").to_string();
            assert!(error.contains(words), "{error}");
        };
        says(&[], "no named tensor");
        says(&[other("cls_token"), other("blocks.0.attn.qkv.weight")], "`cls_token`");
        let mut deeper = named(SMALL, str::to_owned);
        deeper.push(other("layer3.2.conv1.weight"));
        says(&deeper, "[2, 2, 3, 2] plain blocks");
        let mut torn = named(SMALL, str::to_owned);
        torn.retain(|t| t.name != "layer2.0.conv1.weight");
        assert_eq!(
            find_encoder(&torn, None).map(|found| found.config).ok(),
            Some(SMALL),
            "what is missing is named later"
        );
        let mut gray = named(SMALL, str::to_owned);
        gray.iter_mut().filter(|t| t.name == "conv1.weight").for_each(|t| t.shape[1] = 1);
        says(&gray, "[2, 1, 3, 3]");
    }
}
