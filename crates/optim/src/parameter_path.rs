//! The dotted name of the parameter that a walk over a module is at, e.g. `encoder.layer1.0.conv1.weight`.

/// The stack of field names and indices between a module and one of its parameters.
#[derive(Debug, Default)]
pub(crate) struct ParameterPath(Vec<String>);

impl ParameterPath {
    /// Goes down into a field or element.
    pub(crate) fn enter(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    /// Comes back up.
    pub(crate) fn exit(&mut self) {
        self.0.pop();
    }

    /// The dotted name.
    pub(crate) fn name(&self) -> String {
        self.0.join(".")
    }
}
