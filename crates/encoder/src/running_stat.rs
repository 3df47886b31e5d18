//! A running statistic that is never stale and never shared.
//!
//! Burn's own `RunningState` is shared by the clones of a module and buffers each update until the next one, so
//! that a visitor, a record or an optimizer sees a value that is one step old, and a value loaded into a module
//! that has already run is overwritten by the pending update. [`RunningStat`] holds one value behind a lock:
//! an update is visible at once, loading replaces it, and a clone gets a lock of its own.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param, ParamId,
};
use burn::tensor::{Device, Tensor};

/// A per-channel statistic that a training forward updates through `&self`.
///
/// The tensor always lives on the plain, non-autodiff device: it is no target of an optimizer and must not hold
/// on to a graph. Visitors and mappers meet it as a parameter that needs no gradient.
#[derive(Debug)]
pub(crate) struct RunningStat {
    id: ParamId,
    value: Mutex<Tensor<1>>,
}

impl RunningStat {
    pub(crate) fn new(value: Tensor<1>) -> Self {
        Self::with_id(ParamId::new(), value)
    }

    fn with_id(id: ParamId, value: Tensor<1>) -> Self {
        Self { id, value: Mutex::new(value.without_autodiff()) }
    }

    /// The current value, on the plain device.
    pub(crate) fn value(&self) -> Tensor<1> {
        self.lock().clone()
    }

    /// `value ← (1 − momentum) · value + momentum · observed`, with PyTorch's meaning of momentum.
    pub(crate) fn update(&self, observed: Tensor<1>, momentum: f64) {
        let mut value = self.lock();
        let kept = value.clone().mul_scalar(1.0 - momentum);
        *value = kept.add(observed.without_autodiff().mul_scalar(momentum));
    }

    /// The same statistic with another value; the identity is kept.
    fn map_value(self, f: impl FnOnce(Tensor<1>) -> Tensor<1>) -> Self {
        let value = self.value.into_inner().unwrap_or_else(PoisonError::into_inner);
        Self::with_id(self.id, f(value))
    }

    /// A panic cannot leave the value half written, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Tensor<1>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for RunningStat {
    /// An independent copy: later updates of either do not reach the other.
    fn clone(&self) -> Self {
        Self::with_id(self.id, self.value())
    }
}

impl Module for RunningStat {
    fn collect_devices(&self, mut devices: Devices) -> Devices {
        let device = self.value().device();
        if !devices.contains(&device) {
            devices.push(device);
        }
        devices
    }

    fn fork(self, device: &Device) -> Self {
        self.to_device(device)
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_value(|value| value.to_device(device))
    }

    fn train(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        self.clone()
    }

    fn materialize(self) -> Self {
        self
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.visit_float(&Param::initialized(self.id, self.value()));
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let id = self.id;
        self.map_value(|value| mapper.map_float(Param::initialized(id, value)).into_value())
    }
}

impl ModuleDisplayDefault for RunningStat {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&format!("RunningStat {:?}", self.value().dims())).optional()
    }
}

impl ModuleDisplay for RunningStat {}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(stat: &RunningStat) -> f32 {
        stat.value().into_scalar()
    }

    fn stat(value: f32) -> RunningStat {
        RunningStat::new(Tensor::from_floats([value], &Device::flex().autodiff()))
    }

    fn observed(value: f32) -> Tensor<1> {
        Tensor::from_floats([value], &Device::flex().autodiff())
    }

    #[test]
    fn an_update_is_visible_at_once() {
        let stat = stat(1.0);
        stat.update(observed(3.0), 0.25);
        assert_eq!(scalar(&stat), 1.5);
        stat.update(observed(3.0), 0.5);
        assert_eq!(scalar(&stat), 2.25);
    }

    #[test]
    fn copies_are_independent() {
        let stat = stat(1.0);
        let (cloned, valid) = (stat.clone(), stat.valid());
        stat.update(observed(5.0), 1.0);
        cloned.update(observed(7.0), 1.0);
        assert_eq!([scalar(&stat), scalar(&cloned), scalar(&valid)], [5.0, 7.0, 1.0]);
    }

    #[test]
    fn mapping_replaces_a_value_that_was_just_updated() {
        struct Double;
        impl ModuleMapper for Double {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                assert!(!param.val().is_autodiff());
                param.map(|value| value.mul_scalar(2.0))
            }
        }
        let stat = stat(1.0);
        stat.update(observed(3.0), 1.0);
        assert_eq!(scalar(&stat.map(&mut Double)), 6.0);
    }

    #[test]
    fn it_never_needs_a_gradient_even_when_everything_is_unfrozen() {
        let stat = stat(1.0).unfreeze().train();
        assert!(!stat.value().is_autodiff());
        assert_eq!(scalar(&stat), 1.0);
    }
}
