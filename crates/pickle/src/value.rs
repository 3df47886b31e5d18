//! What a pickle builds.

use std::borrow::Cow;
use std::ops::Index;

/// Where a value lies among [`Values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(usize);

/// A value of a pickle, with objects `O` of its [`Dialect`](crate::Dialect).
///
/// Containers hold the places of their parts, so that a pickle that contains itself is no endless value.
#[derive(Debug)]
pub enum Value<'a, O> {
    /// `None`, a truth value or a fraction, which nobody asks for.
    Plain,
    /// A number of at most 64 bits.
    Int(i64),
    /// Bytes, or a string of Python 2, which does not tell them apart.
    Bytes(Cow<'a, [u8]>),
    /// A text.
    Text(&'a str),
    /// A list.
    List(Vec<Place>),
    /// A tuple.
    Tuple(Vec<Place>),
    /// Keys and values of a dictionary in the order they were set: of equal keys the last one counts.
    Dict(Vec<(Place, Place)>),
    /// What the dialect knows.
    Object(O),
    /// A set, or an object of a class that the dialect lets pass without knowing it. What is put into it is lost.
    Opaque,
}

/// All values of a pickle. A place is valid among the values it came from; elsewhere it may panic.
#[derive(Debug)]
pub struct Values<'a, O>(Vec<Value<'a, O>>);

impl<'a, O> Values<'a, O> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn add(&mut self, value: Value<'a, O>) -> Place {
        self.0.push(value);
        Place(self.0.len() - 1)
    }

    pub(crate) fn get_mut(&mut self, place: Place) -> &mut Value<'a, O> {
        &mut self.0[place.0]
    }

    /// The numbers at these places, if all are whole and none is negative.
    ///
    /// # Cost
    /// Eight bytes a place.
    pub fn naturals(&self, places: &[Place]) -> Option<Vec<u64>> {
        let natural = |place: &Place| match self[*place] {
            Value::Int(value) => u64::try_from(value).ok(),
            _ => None,
        };
        places.iter().map(natural).collect()
    }
}

impl<'a, O> Index<Place> for Values<'a, O> {
    type Output = Value<'a, O>;

    fn index(&self, place: Place) -> &Self::Output {
        &self.0[place.0]
    }
}
