//! What one kind of file spells with names, calls and states.

use crate::{Place, Value, Values};

/// The value that something becomes, or what is wrong with it, which becomes [`PickleError::Corrupt`].
///
/// [`PickleError::Corrupt`]: crate::PickleError::Corrupt
pub type Made<'a, O> = Result<Value<'a, O>, &'static str>;

/// What one kind of file spells with the instructions of a pickle that could run something.
///
/// An implementation looks at values and answers with values. It must not do what the pickle asks for: that is the whole
/// point. It must also not answer with more memory than it was given, because a pickle may ask two million times.
pub trait Dialect<'a> {
    /// What a known name, and what is made by calling it, becomes.
    type Object;

    /// What is read, and what to do with a file that holds something else: the end of every refusal.
    const RULE: &'static str;

    /// Known instructions that such files have no need of, refused like the unknown ones.
    const REFUSED: &'static [u8];

    /// A name (`GLOBAL`, `STACK_GLOBAL`), or nothing if the pickle is to be refused for it.
    fn import(&mut self, module: &[u8], name: &[u8]) -> Option<Self::Object>;

    /// A call (`REDUCE`) of whatever value stands where the callee should.
    ///
    /// # Errors
    /// What is wrong with the call.
    fn call(&mut self, values: &Values<'a, Self::Object>, callee: Place, arguments: &[Place])
    -> Made<'a, Self::Object>;

    /// The object as it is with this state (`BUILD`), or nothing if it stays as it was.
    ///
    /// # Errors
    /// What is wrong with the state.
    fn set_state(
        &mut self,
        values: &Values<'a, Self::Object>,
        object: Place,
        state: Place,
    ) -> Result<Option<Self::Object>, &'static str>;

    /// What lies outside the pickle under this id (`BINPERSID`); an error unless the dialect knows better.
    ///
    /// # Errors
    /// What is wrong with the id.
    fn outside(&mut self, _values: &Values<'a, Self::Object>, _id: Place) -> Made<'a, Self::Object> {
        Err("a reference to something outside the pickle")
    }

    /// A number that [`Value::Int`] has no room for; an error unless the dialect knows better.
    ///
    /// # Errors
    /// That there is such a number.
    fn wide_int(&mut self) -> Made<'a, Self::Object> {
        Err("a number of more than 64 bits")
    }
}
