//! The tensors that a pickle of `torch.save` describes.
//!
//! The names that spell a tensor and a dictionary are recognised; a call of any other name, such as the class of a
//! training framework's settings, becomes a value without content. Names that run programs are refused all the same:
//! weights have no use for them, so whoever put one there meant harm.

use burn::tensor::DType;
use twoview_pickle::{Dialect, Made, PickleError, Place, Value, Values, read_pickle};

/// Most values that are looked at for tensors, and their deepest nesting and longest name. A dictionary may be in others many times,
/// so these are not bounded by the length of the pickle.
const MAX_VISITS: usize = 1 << 20;
const MAX_DEPTH: usize = 16;
const MAX_NAME_BYTES: usize = 1024;
const MAX_TENSORS: usize = 1 << 16;

/// Where a tensor's numbers lie.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredTensor {
    /// Name of the storage among the entries of the archive.
    pub(crate) storage: String,
    pub(crate) dtype: DType,
    /// Elements of the storage.
    pub(crate) storage_len: u64,
    /// In elements, as the strides are.
    pub(crate) offset: u64,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<u64>,
}

/// Every tensor in the dictionaries and lists of a pickle of protocol 2 to 5, its keys joined by dots.
pub(crate) fn stored_tensors(bytes: &[u8]) -> Result<Vec<(String, StoredTensor)>, PickleError> {
    let (values, top) = read_pickle(bytes, Torch)?;
    let mut walk = Walk { values: &values, visits: 0, name: String::new(), found: Vec::new() };
    walk.visit(top, 0)?;
    Ok(walk.found)
}

/// What PyTorch spells with names, calls and ids.
#[derive(Debug)]
enum Object {
    Name(Name),
    Storage(Box<Storage>),
    Tensor(Box<StoredTensor>),
}

#[derive(Debug)]
struct Storage {
    key: String,
    dtype: DType,
    len: u64,
}

/// What is recognised among the names.
#[derive(Debug, Clone, Copy)]
enum Name {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageOf(DType),
    Other,
}

/// Collects the tensors.
struct Walk<'a> {
    values: &'a Values<'a, Object>,
    visits: usize,
    name: String,
    found: Vec<(String, StoredTensor)>,
}

impl Walk<'_> {
    fn visit(&mut self, place: Place, depth: usize) -> Result<(), PickleError> {
        self.visits += 1;
        if self.visits > MAX_VISITS {
            return Err(PickleError::TooMuch { what: "values", limit: MAX_VISITS });
        }
        let values = self.values;
        match &values[place] {
            Value::Object(Object::Tensor(tensor)) => {
                if self.found.len() == MAX_TENSORS {
                    return Err(PickleError::TooMuch { what: "tensors", limit: MAX_TENSORS });
                }
                self.found.push((self.name.clone(), (**tensor).clone()));
                Ok(())
            }
            Value::Dict(_) | Value::List(_) if depth == MAX_DEPTH => {
                Err(PickleError::TooMuch { what: "levels of nesting", limit: MAX_DEPTH })
            }
            Value::Dict(entries) => entries.iter().try_for_each(|(key, value)| match &values[*key] {
                Value::Text(key) => self.below(key, *value, depth),
                Value::Int(key) => self.below(&key.to_string(), *value, depth),
                _ => Ok(()),
            }),
            Value::List(items) => {
                items.iter().enumerate().try_for_each(|(i, item)| self.below(&i.to_string(), *item, depth))
            }
            _ => Ok(()),
        }
    }

    fn below(&mut self, key: &str, value: Place, depth: usize) -> Result<(), PickleError> {
        let before = self.name.len();
        if before + key.len() > MAX_NAME_BYTES {
            return Err(PickleError::TooMuch { what: "bytes in a name", limit: MAX_NAME_BYTES });
        }
        if before > 0 {
            self.name.push('.');
        }
        self.name.push_str(key);
        let visited = self.visit(value, depth + 1);
        self.name.truncate(before);
        visited
    }
}

/// How `torch.save` writes tensors.
struct Torch;

impl<'a> Dialect<'a> for Torch {
    type Object = Object;

    const RULE: &'static str =
        "only what torch.save writes of weights is read. Do not load this file with torch.load(weights_only=False)";

    /// Those of protocols 0 and 1, whose numbers, texts and places are lines.
    const REFUSED: &'static [u8] = b"FILSVgp";

    fn import(&mut self, module: &[u8], name: &[u8]) -> Option<Object> {
        if runs_programs(module, name) {
            return None;
        }
        Some(Object::Name(match (module, name) {
            (b"collections", b"OrderedDict") => Name::OrderedDict,
            (b"torch._utils", b"_rebuild_tensor_v2") => Name::RebuildTensor,
            (b"torch._utils", b"_rebuild_parameter") => Name::RebuildParameter,
            (b"torch" | b"torch.storage", storage) => storage_dtype(storage).map_or(Name::Other, Name::StorageOf),
            _ => Name::Other,
        }))
    }

    /// Calls that make tensors and dictionaries are answered.
    fn call(&mut self, values: &Values<'a, Object>, callee: Place, arguments: &[Place]) -> Made<'a, Object> {
        let Value::Object(Object::Name(callee)) = &values[callee] else { return Ok(Value::Opaque) };
        let tensor = match (callee, arguments) {
            (Name::OrderedDict, []) => return Ok(Value::Dict(Vec::new())),
            (Name::RebuildTensor, _) => rebuilt(values, arguments),
            (Name::RebuildParameter, [data, ..]) => match &values[*data] {
                Value::Object(Object::Tensor(tensor)) => Some((**tensor).clone()),
                _ => None,
            },
            _ => None,
        };
        Ok(tensor.map_or(Value::Opaque, |tensor| Value::Object(Object::Tensor(Box::new(tensor)))))
    }

    /// Attributes, of which dictionaries of PyTorch have some and none that matter.
    fn set_state(
        &mut self,
        _values: &Values<'a, Object>,
        _object: Place,
        _state: Place,
    ) -> Result<Option<Object>, &'static str> {
        Ok(None)
    }

    /// `("storage", type, key, device, length)` becomes a storage.
    fn outside(&mut self, values: &Values<'a, Object>, id: Place) -> Made<'a, Object> {
        let storage = match &values[id] {
            Value::Tuple(parts) => storage_of(values, parts),
            _ => None,
        };
        Ok(storage.map_or(Value::Opaque, |storage| Value::Object(Object::Storage(Box::new(storage)))))
    }

    /// Seeds of random generators.
    fn wide_int(&mut self) -> Made<'a, Object> {
        Ok(Value::Opaque)
    }
}

fn storage_of(values: &Values<'_, Object>, parts: &[Place]) -> Option<Storage> {
    let [kind, dtype, key, _, len, ..] = parts else { return None };
    match [kind, dtype, key, len].map(|part| &values[*part]) {
        [
            Value::Text("storage"),
            Value::Object(Object::Name(Name::StorageOf(dtype))),
            Value::Text(key),
            Value::Int(len),
        ] => {
            // A key is a number, so that a storage is no way to any other entry.
            let is_key = !key.is_empty() && key.len() <= 20 && key.bytes().all(|byte| byte.is_ascii_digit());
            let len = u64::try_from(*len).ok()?;
            is_key.then(|| Storage { key: (*key).to_owned(), dtype: *dtype, len })
        }
        _ => None,
    }
}

/// The tensor of `_rebuild_tensor_v2(storage, offset, shape, strides, …)`.
fn rebuilt(values: &Values<'_, Object>, arguments: &[Place]) -> Option<StoredTensor> {
    let [storage, offset, shape, strides, ..] = arguments else { return None };
    let numbers = |place: &Place| match &values[*place] {
        Value::Tuple(items) if items.len() <= 8 => values.naturals(items),
        _ => None,
    };
    let (Value::Object(Object::Storage(storage)), Value::Int(offset)) = (&values[*storage], &values[*offset]) else {
        return None;
    };
    let (shape, strides) = (numbers(shape)?, numbers(strides)?);
    let shape: Vec<usize> = shape.into_iter().map(|side| usize::try_from(side).ok()).collect::<Option<_>>()?;
    (shape.len() == strides.len()).then(|| StoredTensor {
        storage: storage.key.clone(),
        dtype: storage.dtype,
        storage_len: storage.len,
        offset: u64::try_from(*offset).unwrap_or(u64::MAX),
        shape,
        strides,
    })
}

/// The element type of a storage class of PyTorch.
fn storage_dtype(name: &[u8]) -> Option<DType> {
    Some(match name {
        b"FloatStorage" => DType::F32,
        b"DoubleStorage" => DType::F64,
        b"HalfStorage" => DType::F16,
        b"BFloat16Storage" => DType::BF16,
        b"LongStorage" => DType::I64,
        b"IntStorage" => DType::I32,
        b"ShortStorage" => DType::I16,
        b"CharStorage" => DType::I8,
        b"ByteStorage" => DType::U8,
        _ => return None,
    })
}

/// Whether a name belongs to what a hostile pickle is made of. Nothing named is ever called here, so this list protects
/// whoever opens the file with something else afterwards, and need not be complete.
fn runs_programs(module: &[u8], name: &[u8]) -> bool {
    let package = module.split(|byte| *byte == b'.').next().unwrap_or_default();
    match package {
        b"os" | b"posix" | b"nt" | b"subprocess" | b"sys" | b"pty" | b"commands" | b"shutil" | b"socket"
        | b"ctypes" | b"runpy" | b"code" | b"codeop" | b"importlib" | b"imp" | b"pip" | b"webbrowser" | b"pickle"
        | b"_pickle" | b"cloudpickle" | b"dill" | b"timeit" | b"bdb" | b"pdb" | b"multiprocessing" | b"asyncio"
        | b"marshal" | b"requests" | b"urllib" | b"http" | b"smtplib" | b"ftplib" | b"tempfile" | b"platform" => true,
        b"builtins" | b"__builtin__" => !matches!(
            name,
            b"set"
                | b"frozenset"
                | b"dict"
                | b"list"
                | b"tuple"
                | b"bytearray"
                | b"bytes"
                | b"complex"
                | b"int"
                | b"float"
                | b"str"
                | b"bool"
                | b"slice"
                | b"range"
                | b"xrange"
                | b"long"
                | b"unicode"
                | b"object"
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_run_programs_are_refused_and_nothing_else_is_called() {
        let check = |bytes: &[u8], want: &str| {
            let error = stored_tensors(bytes).expect_err("refused").to_string();
            assert!(error.contains(want), "{error}");
        };
        check(b"\x80\x02cos\nsystem\nX\x04\0\0\0echo\x85R.", "wants to import os.system");
        check(b"\x80\x02cposix\nsystem\n.", "posix.system");
        check(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "wants to import builtins.eval");
        check(b"\x80\x02c__builtin__\ngetattr\n.", "__builtin__.getattr");
        check(b"\x80\x02cimportlib.util\nfind_spec\n.", "importlib.util.find_spec");
        check(b"(S'echo'\nios\nsystem\n.", "instruction 0x53");
        for code in *b"FILVgp" {
            check(&[b'(', code], &format!("instruction {code:#04x}"));
        }
        check(b"(X\x04\0\0\0echoios\nsystem\n.", "instruction 0x69");
        check(b"\x82\x01.", "instruction 0x82");
        check(b"\x80\x02}U", "truncated");
        check(b"R.", "longer stack");
        check(b"(0.", "longer stack");
        check(b"}b.", "longer stack");
        check(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "truncated");
        check(b"\x8b\xff\xff\xff\xff.", "truncated");
        // An object of an unknown class is a value without content.
        assert_eq!(stored_tensors(b"\x80\x02}X\x01\0\0\0ac__main__\nArgs\n)\x81}bs."), Ok(Vec::new()));
    }

    #[test]
    fn a_dictionary_that_holds_itself_is_an_error_and_no_endless_walk() {
        let nested = b"\x80\x02}q\0X\x01\0\0\0ah\0s.";
        assert_eq!(stored_tensors(nested), Err(PickleError::TooMuch { what: "levels of nesting", limit: MAX_DEPTH }));
        // Fourteen dictionaries, each twenty times in the next.
        let mut pickle = b"\x80\x02}q\0".to_vec();
        for _ in 0..14 {
            pickle.extend(b"}(");
            (0..20u8).for_each(|key| pickle.extend([b'K', key, b'h', 0]));
            pickle.extend(b"uq\0");
        }
        pickle.push(b'.');
        assert_eq!(stored_tensors(&pickle), Err(PickleError::TooMuch { what: "values", limit: MAX_VISITS }));
    }

    #[test]
    fn a_pickle_cut_anywhere_is_an_error() {
        let whole = b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQK\0K\x02K\x02\x86K\x02K\x01\x86\x89ccollections\nOrderedDict\n)RtRu.";
        let found = stored_tensors(whole).expect("valid");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0.as_str(), &found[0].1.shape[..]), ("a", &[2, 2][..]));
        for length in 0..whole.len() {
            assert!(stored_tensors(&whole[..length]).is_err(), "{length}");
        }
    }
}
