//! An optimizer of a whole module whose memory goes by the names of the parameters.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{DynOptimizer, DynState, GradientsParams, StateSink, StateSource};
use burn::tensor::{DType, Tensor, TensorData};

use crate::parameter_path::ParameterPath;

/// Under this name [`Optimizer::named_state`] counts the steps made.
const STEPS: &str = "optimizer/steps";
/// Under this name it counts the parameters that have a memory, so that a loss of some of them is noticed.
const PARAMETERS: &str = "optimizer/parameters";

/// Moves the parameters of a module against their gradient; built by [`crate::OptimizerConfig::init`].
///
/// # State
/// The memory of every parameter is kept under its path in the module, such as `encoder.layer1.0.conv1.weight`, and
/// [`named_state`](Self::named_state) hands it out as tensors named `<path>/<kind>`. Such a list fits into any file of
/// named tensors and loads into a freshly built module of another process, where a run goes on with the same bits.
/// Burn's own `ModuleOptimizer` would key it by `ParamId`, which is drawn anew for every module that is built, and
/// places what it loads on the default device, which need not be the one in use.
///
/// The arithmetic is that of PyTorch's SGD, of Burn's `AdamW` and of [`crate::Lars`]. Hyper-parameters are not part of the
/// state; they belong to the configuration.
#[derive(Clone)]
pub struct Optimizer {
    kind: &'static str,
    rule: Arc<dyn DynOptimizer>,
    states: BTreeMap<String, DynState>,
    steps: u64,
}

impl fmt::Debug for Optimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters: Vec<_> = self.states.keys().collect();
        f.debug_struct("Optimizer")
            .field("kind", &self.kind)
            .field("steps", &self.steps)
            .field("states", &parameters)
            .finish_non_exhaustive()
    }
}

/// Why saved state does not fit a module and an optimizer. Nothing has been changed then.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum OptimizerStateError {
    /// A counter is not there or is not a count.
    #[error("optimizer state has no valid `{name}`; it was cut or is not optimizer state")]
    NoCount {
        /// Name of the counter.
        name: &'static str,
    },
    /// The state of some parameters is not there.
    #[error("optimizer state is cut: it should cover {expected} parameters and covers {got}")]
    Cut {
        /// Number of parameters when it was saved.
        expected: u64,
        /// Number of parameters found.
        got: u64,
    },
    /// The module has no such parameter.
    #[error("optimizer state has `{name}`, but the module has no parameter `{parameter}`; it is of another network")]
    NoParameter {
        /// Name of the tensor.
        name: String,
        /// Path of the parameter.
        parameter: String,
    },
    /// The tensors of one parameter are not those of this optimizer.
    #[error("optimizer state of `{parameter}` has {got:?}, which this kind of optimizer does not write")]
    OtherKind {
        /// Path of the parameter.
        parameter: String,
        /// What the state consists of.
        got: Vec<String>,
    },
    /// A tensor has another shape or type than its parameter.
    #[error("optimizer state `{name}` must be {expected}, got {got}")]
    Mismatch {
        /// Name of the tensor.
        name: String,
        /// Shape and type of the parameter.
        expected: String,
        /// Shape and type of the tensor.
        got: String,
    },
}

impl Optimizer {
    pub(crate) fn new(kind: &'static str, rule: impl DynOptimizer + 'static) -> Self {
        Self { kind, rule: Arc::new(rule), states: BTreeMap::new(), steps: 0 }
    }

    /// Makes one step with learning rate `lr` and returns the moved module.
    ///
    /// Parameters without a gradient stay as they are, and so does their memory. Parameters keep their identity,
    /// their `require_grad` and their gradient-checkpointing strategy. Gradients are used as they come: check
    /// [`crate::gradient_norm`] first.
    #[must_use]
    pub fn step<M: Module>(&mut self, lr: f64, module: M, grads: GradientsParams) -> M {
        self.steps += 1;
        let Self { rule, states, .. } = self;
        module.map(&mut Step { rule: rule.as_ref(), states, lr, grads, path: ParameterPath::default() })
    }

    /// The `kind` of its configuration: `sgd`, `adamw` or `lars`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Number of steps made, over all runs whose state was loaded.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The whole memory as named tensors, sorted by parameter: `<path>/<kind>` in the type of the parameter,
    /// `<path>/<counter>` and, last, two overall counters as `i64` of shape `[1]`. Reads every tensor from the device.
    pub fn named_state(&self) -> Vec<(String, TensorData)> {
        let counter = |count: u64| TensorData::new(vec![i64::try_from(count).unwrap_or(i64::MAX)], [1]);
        let (mut named, mut n_parameters) = (Vec::new(), 0);
        for (path, state) in &self.states {
            let mut sink = StateSink::default();
            self.rule.state_flatten("", state, &mut sink);
            // Plain SGD without momentum remembers nothing.
            n_parameters += u64::from(!sink.tensors.is_empty());
            named.extend(sink.tensors.into_iter().map(|(kind, data)| (format!("{path}/{kind}"), data)));
            for (kind, value) in sink.scalars {
                let Ok(value) = u64::try_from(value) else {
                    unreachable!("`{kind}`: the rules of this crate keep no scalars but counts")
                };
                named.push((format!("{path}/{kind}"), counter(value)));
            }
        }
        named.push((PARAMETERS.to_owned(), counter(n_parameters)));
        named.push((STEPS.to_owned(), counter(self.steps)));
        named
    }

    /// Takes over what [`named_state`](Self::named_state) gave, for a module with the same parameter paths.
    ///
    /// State is placed on the device of its parameter. The next steps make the same bits as those of the optimizer
    /// that was saved, with the same module and gradients.
    ///
    /// # Errors
    /// [`OptimizerStateError`] unless every tensor belongs to a parameter of `module`, has its shape and type, is of
    /// a kind that this optimizer keeps, and none that was saved is gone. The optimizer is unchanged then.
    pub fn load_named_state<M: Module>(
        &mut self,
        module: &M,
        tensors: impl IntoIterator<Item = (String, TensorData)>,
    ) -> Result<(), OptimizerStateError> {
        let (mut steps, mut n_parameters) = (None, None);
        let mut saved = BTreeMap::<String, Vec<(String, TensorData)>>::new();
        for (name, data) in tensors {
            match name.as_str() {
                STEPS => steps = count_of(&data),
                PARAMETERS => n_parameters = count_of(&data),
                _ => {
                    let (path, kind) = name.rsplit_once('/').unwrap_or((&name, ""));
                    saved.entry(path.to_owned()).or_default().push((kind.to_owned(), data));
                }
            }
        }
        let steps = steps.ok_or(OptimizerStateError::NoCount { name: STEPS })?;
        let expected = n_parameters.ok_or(OptimizerStateError::NoCount { name: PARAMETERS })?;

        let mut load = Load {
            rule: self.rule.as_ref(),
            saved,
            states: BTreeMap::new(),
            error: None,
            path: ParameterPath::default(),
        };
        module.visit(&mut load);
        if let Some(error) = load.error {
            return Err(error);
        }
        if let Some((parameter, state)) = load.saved.pop_first() {
            let kind = state.first().map_or("", |(kind, _)| kind.as_str());
            return Err(OptimizerStateError::NoParameter { name: format!("{parameter}/{kind}"), parameter });
        }
        let got = load.states.len() as u64;
        if got != expected {
            return Err(OptimizerStateError::Cut { expected, got });
        }
        (self.states, self.steps) = (load.states, steps);
        Ok(())
    }
}

/// The count in a tensor of shape `[1]`.
fn count_of(data: &TensorData) -> Option<u64> {
    let is_counter = data.dtype() == DType::I64 && data.num_elements() == 1;
    data.iter::<i64>().next().filter(|_| is_counter).and_then(|count| u64::try_from(count).ok())
}

/// Updates each parameter that has a gradient.
struct Step<'a> {
    rule: &'a dyn DynOptimizer,
    states: &'a mut BTreeMap<String, DynState>,
    lr: f64,
    grads: GradientsParams,
    path: ParameterPath,
}

impl ModuleMapper for Step<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(grad) = self.grads.remove::<D>(param.id) else { return param };
        let (id, value, mapper) = param.consume();
        let (require_grad, checkpointing) = (value.is_require_grad(), value.gradient_checkpointing_strategy());
        let on_autodiff = value.is_autodiff();

        let path = self.path.name();
        let state = self.states.remove(&path).map(|state| self.rule.to_device_dyn(state, &grad.device()));
        let (value, state) =
            self.rule.step_dyn(D, self.lr, value.inner().into_bridge(), grad.inner().into_bridge(), state);
        if let Some(state) = state {
            self.states.insert(path, state);
        }

        // The update ran without autodiff; what the parameter was to autodiff comes back with it.
        let mut value = Tensor::<D>::from_bridge(value);
        if on_autodiff {
            value = value.autodiff();
        }
        if let Some(strategy) = checkpointing {
            value = value.with_gradient_checkpointing_strategy(strategy);
        }
        if require_grad {
            value = value.require_grad();
        }
        Param::from_mapped_value(id, value, mapper)
    }
}

/// Rebuilds the state of each parameter that has some.
struct Load<'a> {
    rule: &'a dyn DynOptimizer,
    saved: BTreeMap<String, Vec<(String, TensorData)>>,
    states: BTreeMap<String, DynState>,
    error: Option<OptimizerStateError>,
    path: ParameterPath,
}

impl Load<'_> {
    fn rebuild<const D: usize>(
        &self,
        parameter: &str,
        value: Tensor<D>,
        saved: Vec<(String, TensorData)>,
    ) -> Result<DynState, OptimizerStateError> {
        let kinds: BTreeSet<String> = saved.iter().map(|(kind, _)| kind.clone()).collect();
        let other_kind =
            || OptimizerStateError::OtherKind { parameter: parameter.to_owned(), got: kinds.iter().cloned().collect() };
        let (counters, tensors): (Vec<_>, Vec<_>) = saved.into_iter().partition(|(_, data)| data.dtype() == DType::I64);
        let mut counts = BTreeMap::new();
        for (kind, data) in counters {
            counts.insert(kind, count_of(&data).ok_or_else(other_kind)?.into());
        }
        let mut source = StateSource::new(counts);
        for (kind, data) in tensors {
            if data.shape().as_slice() != value.dims() || data.dtype() != value.dtype() {
                return Err(OptimizerStateError::Mismatch {
                    name: format!("{parameter}/{kind}"),
                    expected: format!("{:?} of {:?}", value.dtype(), value.dims()),
                    got: format!("{:?} of {:?}", data.dtype(), data.shape().as_slice()),
                });
            }
            source.insert_tensor(kind, data);
        }
        let state = self.rule.state_unflatten(D, "", &mut source, &value.inner().device()).ok_or_else(other_kind)?;

        // A rule ignores what it does not know, so what it understood is compared with what was there.
        let mut sink = StateSink::default();
        self.rule.state_flatten("", &state, &mut sink);
        let understood =
            sink.tensors.into_iter().map(|(kind, _)| kind).chain(sink.scalars.into_iter().map(|(kind, _)| kind));
        if understood.collect::<BTreeSet<_>>() == kinds { Ok(state) } else { Err(other_kind()) }
    }
}

impl ModuleVisitor for Load<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.name();
        let Some(saved) = self.saved.remove(&path) else { return };
        match self.rebuild(&path, param.val(), saved) {
            Ok(state) => drop(self.states.insert(path, state)),
            Err(error) => drop(self.error.get_or_insert(error)),
        }
    }
}
