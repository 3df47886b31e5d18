//! The arrays, numbers and texts in a pickled dictionary, such as CIFAR's Python version is made of.
//!
//! Four names may be imported, which are how numpy spells an array and a byte string, and they are recognised, not
//! called. Every other name is an error, and so are instructions that build no plain data.

use std::borrow::Cow;

use twoview_pickle::{Dialect, Made, PickleError, Place, Value, Values, read_pickle};

/// The data of a pickle whose outermost value is a dictionary.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    values: Values<'a, Object>,
    top: Place,
}

/// What numpy spells with names, calls and states.
#[derive(Debug)]
enum Object {
    Name(Name),
    /// A numpy type: whether it is one unsigned byte.
    Dtype {
        is_u8: bool,
    },
    /// A numpy array, shape and data; nothing until its state was set.
    Array(Option<(Vec<u64>, Place)>),
}

/// What may be imported.
#[derive(Debug, Clone, Copy)]
enum Name {
    Reconstruct,
    NdArray,
    Dtype,
    Encode,
}

impl<'a> Pickle<'a> {
    /// Reads a pickle of protocol 0 to 4.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, PickleError> {
        let (values, top) = read_pickle(bytes, Numpy { encodable: bytes.len() })?;
        Ok(Self { values, top })
    }

    fn entry(&self, key: &str) -> Option<&Value<'a, Object>> {
        let Value::Dict(entries) = &self.values[self.top] else { return None };
        let found = entries.iter().rev().find(|(name, _)| self.text(*name).as_deref() == Some(key));
        found.map(|(_, value)| &self.values[*value])
    }

    /// Shape and bytes of an array.
    pub(crate) fn array(&self, key: &'static str) -> Result<(&[u64], &[u8]), PickleError> {
        match self.entry(key) {
            Some(Value::Object(Object::Array(Some((shape, data))))) => match &self.values[*data] {
                Value::Bytes(bytes) => Ok((shape, bytes)),
                _ => Err(PickleError::Entry { key, expected: "a numpy array of bytes" }),
            },
            _ => Err(PickleError::Entry { key, expected: "a numpy array of bytes" }),
        }
    }

    /// A list of numbers that are not negative.
    pub(crate) fn numbers(&self, key: &'static str) -> Result<Vec<u64>, PickleError> {
        let wrong = PickleError::Entry { key, expected: "a list of whole numbers" };
        let Some(Value::List(items)) = self.entry(key) else { return Err(wrong) };
        self.values.naturals(items).ok_or(wrong)
    }

    /// A list of strings.
    pub(crate) fn texts(&self, key: &'static str) -> Result<Vec<String>, PickleError> {
        let wrong = PickleError::Entry { key, expected: "a list of strings" };
        let Some(Value::List(items)) = self.entry(key) else { return Err(wrong) };
        items.iter().map(|item| self.text(*item).map(Cow::into_owned)).collect::<Option<_>>().ok_or(wrong)
    }

    /// A string of either Python.
    fn text(&self, place: Place) -> Option<Cow<'_, str>> {
        match &self.values[place] {
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Value::Text(text) => Some((*text).into()),
            _ => None,
        }
    }
}

/// How numpy writes arrays of bytes.
struct Numpy {
    /// Bytes of texts that may still be turned into bytes.
    encodable: usize,
}

impl<'a> Dialect<'a> for Numpy {
    type Object = Object;

    const RULE: &'static str = "only plain data and numpy arrays of bytes are read";

    /// References to elsewhere, objects of any class, sets, byte arrays, and numbers of more than 255 bytes.
    const REFUSED: &'static [u8] = b"Q\x81\x92\x8f\x90\x91\x96\x8b";

    fn import(&mut self, module: &[u8], name: &[u8]) -> Option<Object> {
        Some(Object::Name(match (module, name) {
            (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"_reconstruct") => Name::Reconstruct,
            (b"numpy", b"ndarray") => Name::NdArray,
            (b"numpy", b"dtype") => Name::Dtype,
            (b"_codecs", b"encode") => Name::Encode,
            _ => return None,
        }))
    }

    /// The three calls that numpy's arrays are written with.
    fn call(&mut self, values: &Values<'a, Object>, callee: Place, arguments: &[Place]) -> Made<'a, Object> {
        const UNKNOWN: &str = "a call that describes no array";
        let Value::Object(Object::Name(callee)) = &values[callee] else { return Err(UNKNOWN) };
        match (callee, arguments.first().map(|first| &values[*first])) {
            (Name::Reconstruct, Some(Value::Object(Object::Name(Name::NdArray)))) => {
                Ok(Value::Object(Object::Array(None)))
            }
            (Name::Dtype, Some(kind)) => {
                let is_u8 = match kind {
                    Value::Text(text) => matches!(*text, "u1" | "|u1" | "uint8"),
                    Value::Bytes(text) => matches!(&**text, b"u1" | b"|u1" | b"uint8"),
                    _ => false,
                };
                Ok(Value::Object(Object::Dtype { is_u8 }))
            }
            // Python 3 writes bytes for Python 2 as a text of the same code points.
            (Name::Encode, Some(Value::Text(text))) => {
                // Each text is encoded once, so all of them together are no longer than the file. A pickle that encodes
                // the same one again and again wants nothing but memory.
                self.encodable = self.encodable.checked_sub(text.len()).ok_or("a text that was encoded before")?;
                let bytes = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect::<Option<Vec<u8>>>();
                bytes.map(|bytes| Value::Bytes(bytes.into())).ok_or(UNKNOWN)
            }
            _ => Err(UNKNOWN),
        }
    }

    /// Gives an array its contents.
    fn set_state(
        &mut self,
        values: &Values<'a, Object>,
        object: Place,
        state: Place,
    ) -> Result<Option<Object>, &'static str> {
        match &values[object] {
            Value::Object(Object::Dtype { .. }) => Ok(None),
            Value::Object(Object::Array(None)) => {
                let array = array_state(values, state).ok_or("an array that is not of bytes")?;
                Ok(Some(Object::Array(Some(array))))
            }
            _ => Err("a state for something that has none"),
        }
    }
}

/// `(version, shape, dtype, is_fortran, data)`
fn array_state(values: &Values<'_, Object>, state: Place) -> Option<(Vec<u64>, Place)> {
    let Value::Tuple(parts) = &values[state] else { return None };
    let [_, shape, dtype, _, data] = parts[..] else { return None };
    let (Value::Tuple(sides), Value::Object(Object::Dtype { is_u8: true }), Value::Bytes(bytes)) =
        (&values[shape], &values[dtype], &values[data])
    else {
        return None;
    };
    if sides.len() > 8 {
        return None;
    }
    let sides = values.naturals(sides)?;
    let n = sides.iter().try_fold(1u64, |product, side| product.checked_mul(*side))?;
    (n == bytes.len() as u64).then_some((sides, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_0_reads_like_protocol_2() {
        let old = b"(dp1\nS'num'\np2\nI10000\nsS'names'\np3\n(lp4\nS'cat'\np5\naS'dog'\np6\nas.";
        let new = b"\x80\x02}q\x01(U\x03numM\x10'U\x05names]q\x02(U\x03catU\x03doge0u.";
        assert_eq!(Pickle::read(old).and_then(|p| p.texts("names")), Ok(vec!["cat".to_owned(), "dog".to_owned()]));
        // The stray POP of the list leaves an odd number of items: a typed error and no panic.
        assert!(matches!(Pickle::read(new), Err(PickleError::Corrupt { .. })));
    }

    #[test]
    fn nothing_but_data_is_read() {
        let check = |bytes: &[u8], want: &str| {
            let error = Pickle::read(bytes).expect_err("refused").to_string();
            assert!(error.contains(want), "{error}");
        };
        check(b"cos\nsystem\n(S'echo'\ntR.", "wants to import os.system");
        check(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "wants to import builtins.eval");
        check(b"(S'echo'\nios\nsystem\n.", "instruction 0x69");
        check(b"\x80\x02c__builtin__\nset\n.", "__builtin__.set");
        check(b"\x82\x01.", "instruction 0x82");
        for code in *b"Q\x81\x92\x8f\x90\x91\x96\x8b" {
            check(&[code], &format!("instruction {code:#04x}"));
        }
        check(b"\x8a\x09\0\0\0\0\0\0\0\0\0.", "more than 64 bits");
        check(b"\x80\x02}U", "truncated");
        check(b"R.", "longer stack");
        check(b"(0.", "longer stack");
        check(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "truncated");
    }

    #[test]
    fn a_text_is_encoded_once() {
        // A text of 40 bytes, which becomes 20, in a pickle that then spends 6 bytes on each further time.
        let once =
            [b"}(X\x28\0\0\0".as_slice(), &b"\xc2\xb5".repeat(20), b"q\0c_codecs\nencode\nq\x01h\0\x85R"].concat();
        assert!(Pickle::read(&[&once[..], b"u."].concat()).is_ok());
        let again = [&once[..], &b"h\x01h\0\x85R".repeat(8), b"."].concat();
        let error = Pickle::read(&again).expect_err("refused");
        assert!(error.to_string().contains("a text that was encoded before"), "{error}");
    }

    #[test]
    fn a_list_that_holds_itself_is_finite() {
        let pickle = Pickle::read(b"}(U\x01a]q\x01h\x01au.").expect("valid");
        assert_eq!(pickle.texts("a"), Err(PickleError::Entry { key: "a", expected: "a list of strings" }));
    }
}
