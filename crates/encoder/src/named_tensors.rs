//! Weights out of a module and into it, by name.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData};

/// Tensors with their state-dict names, in the order of the module.
pub type NamedTensors = Vec<(String, TensorData)>;

/// Why weights do not fit a module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The module has a tensor that the weights lack.
    #[error(
        "tensor `{name}` is missing, expected shape {expected:?}; the weights belong to another architecture or carry another prefix"
    )]
    Missing {
        /// State-dict name.
        name: String,
        /// Shape in the module.
        expected: Vec<usize>,
    },
    /// The weights have a tensor that the module lacks.
    #[error(
        "unexpected tensor `{name}` of shape {got:?}; the weights belong to another architecture or hold more than this module"
    )]
    Unexpected {
        /// Name among the weights.
        name: String,
        /// Shape among the weights.
        got: Vec<usize>,
    },
    /// The shapes differ.
    #[error(
        "tensor `{name}`: expected shape {expected:?}, got {got:?}; check the width, the stem and the dimensions of the head"
    )]
    Shape {
        /// State-dict name.
        name: String,
        /// Shape in the module.
        expected: Vec<usize>,
        /// Shape among the weights.
        got: Vec<usize>,
    },
    /// The element type cannot be turned into the module's without loss.
    #[error("tensor `{name}`: expected elements of type {expected:?}, got {got:?}; convert the weights first")]
    ElementType {
        /// State-dict name.
        name: String,
        /// Element type in the module.
        expected: DType,
        /// Element type among the weights.
        got: DType,
    },
    /// One name was given twice.
    #[error("tensor `{name}` is given twice")]
    Duplicate {
        /// The name.
        name: String,
    },
}

/// All parameters and running statistics of a module, copied to the host.
///
/// The name of a tensor is its path through the module, which for [`ResNet`](crate::ResNet) is torchvision's
/// state-dict key. Layouts are PyTorch's as well, so nothing needs a transpose. `num_batches_tracked` has no
/// counterpart here: PyTorch only uses it where `momentum=None`.
///
/// # Panics
/// When the device fails while it is read.
///
/// # Example
/// ```
/// use twoview_encoder::{Arch, EncoderConfig, Stem, load_named, named_tensors};
///
/// let config = EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 2 };
/// let device = burn::tensor::Device::flex();
/// let tensors = named_tensors(&config.init(1, &device)?);
/// assert_eq!(tensors[0].0, "conv1.weight");
/// let copy = load_named(config.init(2, &device)?, tensors.clone())?;
/// assert_eq!(named_tensors(&copy), tensors);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn named_tensors<M: Module>(module: &M) -> NamedTensors {
    struct Collect {
        path: Path,
        tensors: NamedTensors,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            self.path.enter(name, container_type);
        }
        fn exit_module(&mut self, _: &str, container_type: &str) {
            self.path.exit(container_type);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.tensors.push((self.path.name(), param.val().into_data()));
        }
    }
    let mut collect = Collect { path: Path::default(), tensors: Vec::new() };
    module.visit(&mut collect);
    collect.tensors
}

/// The module with every parameter and running statistic replaced by the tensor of its name.
///
/// The fit is strict and settled before anything is replaced: each tensor of the module must be given exactly
/// once, with its shape, and no other may be. Two kinds of name are passed over, since torchvision's files have them
/// and an encoder does not: those that end in `num_batches_tracked` and those that start with `fc.`, the classifier.
///
/// Elements must be of the module's floating-point type or of a smaller one that it represents exactly; half
/// precision widens, double precision does not become single by the way. Parameters keep their identity and stay on
/// their device; gradients are needed as before.
///
/// # Errors
/// [`WeightsError`] naming the first tensor that does not fit, in the order of the module, then of the names.
pub fn load_named<M: Module>(
    module: M,
    tensors: impl IntoIterator<Item = (String, TensorData)>,
) -> Result<M, WeightsError> {
    struct Replace {
        path: Path,
        tensors: BTreeMap<String, TensorData>,
    }
    impl ModuleMapper for Replace {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            self.path.enter(name, container_type);
        }
        fn exit_module(&mut self, _: &str, container_type: &str) {
            self.path.exit(container_type);
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match self.tensors.remove(&self.path.name()) {
                Some(data) => param.map(|old| {
                    let data = data.convert_dtype(old.dtype());
                    Tensor::from_data(data, (&old.device(), old.dtype())).set_require_grad(old.is_require_grad())
                }),
                None => param,
            }
        }
    }
    let mut given = BTreeMap::new();
    for (name, data) in tensors.into_iter().filter(|(name, _)| !is_passed_over(name)) {
        if given.insert(name.clone(), data).is_some() {
            return Err(WeightsError::Duplicate { name });
        }
    }
    check_fit(&slots(&module), &given)?;
    Ok(module.map(&mut Replace { path: Path::default(), tensors: given }))
}

/// The number of trainable parameters: everything but running statistics, frozen or not.
///
/// Burn's `Module::num_params` counts running statistics as well.
pub fn n_parameters<M: Module>(module: &M) -> usize {
    slots(module)
        .iter()
        .filter(|slot| !slot.name.ends_with("running_mean") && !slot.name.ends_with("running_var"))
        .map(|slot| slot.shape.iter().product::<usize>())
        .sum()
}

fn is_passed_over(name: &str) -> bool {
    name.ends_with("num_batches_tracked") || name.starts_with("fc.")
}

fn check_fit(slots: &[Slot], given: &BTreeMap<String, TensorData>) -> Result<(), WeightsError> {
    for slot in slots {
        let name = || slot.name.clone();
        let expected = || slot.shape.clone();
        let Some(data) = given.get(&slot.name) else {
            return Err(WeightsError::Missing { name: name(), expected: expected() });
        };
        let got = data.shape().as_slice();
        if got != slot.shape {
            return Err(WeightsError::Shape { name: name(), expected: expected(), got: got.to_vec() });
        }
        if !converts_exactly(data.dtype(), slot.dtype) {
            return Err(WeightsError::ElementType { name: name(), expected: slot.dtype, got: data.dtype() });
        }
    }
    let is_expected = |name: &str| slots.iter().any(|slot| slot.name == name);
    match given.iter().find(|(name, _)| !is_expected(name)) {
        Some((name, data)) => {
            Err(WeightsError::Unexpected { name: name.clone(), got: data.shape().as_slice().to_vec() })
        }
        None => Ok(()),
    }
}

fn converts_exactly(from: DType, to: DType) -> bool {
    from == to || matches!((from, to), (DType::F16 | DType::BF16, DType::F32 | DType::F64) | (DType::F32, DType::F64))
}

/// The place of one tensor in a module.
struct Slot {
    name: String,
    shape: Vec<usize>,
    dtype: DType,
}

fn slots<M: Module>(module: &M) -> Vec<Slot> {
    struct Collect {
        path: Path,
        slots: Vec<Slot>,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            self.path.enter(name, container_type);
        }
        fn exit_module(&mut self, _: &str, container_type: &str) {
            self.path.exit(container_type);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val();
            self.slots.push(Slot { name: self.path.name(), shape: value.dims().to_vec(), dtype: value.dtype() });
        }
    }
    let mut collect = Collect { path: Path::default(), slots: Vec::new() };
    module.visit(&mut collect);
    collect.slots
}

/// The names of the containers around a tensor, from the outside in.
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn enter(&mut self, name: &str, container_type: &str) {
        if Self::counts(container_type) {
            self.0.push(name.to_owned());
        }
    }

    fn exit(&mut self, container_type: &str) {
        if Self::counts(container_type) {
            self.0.pop();
        }
    }

    /// Burn reports the variant of an enum as one more level; a state dict has no such thing.
    fn counts(container_type: &str) -> bool {
        !container_type.starts_with("Enum:")
    }

    fn name(&self) -> String {
        self.0.join(".")
    }
}
