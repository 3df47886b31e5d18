//! The tensors that a pickle of `torch.save` describes, without ever running what a pickle can run.
//!
//! A pickle is a program for a stack machine that may import and call anything. Here nothing is imported or called.
//! The names that spell a tensor and a dictionary are recognised; a call of any other name, such as the class of a
//! training framework's settings, becomes a value without content. Names that run programs are refused all the same:
//! weights have no use for them, so whoever put one there meant harm.

use std::collections::HashMap;

use burn::tensor::DType;

/// Most instructions of one pickle. That of a ResNet-50 with its optimizer's memory has some 50,000; at 100 bytes each
/// this bounds the memory to 200 MiB beside the file.
const MAX_INSTRUCTIONS: usize = 1 << 21;
/// Most values that are looked at for tensors, and their deepest nesting and longest name. A dictionary may be in others many times,
/// so these are not bounded by the length of the pickle.
const MAX_VISITS: usize = 1 << 20;
const MAX_DEPTH: usize = 16;
const MAX_NAME_BYTES: usize = 1024;
const MAX_TENSORS: usize = 1 << 16;

/// Why a pickle is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// The pickle names something that could run a program.
    #[error(
        "the pickle wants to import {name}, which no weights need and which could run anything; nothing was run. Do not load this file \
         with torch.load(weights_only=False)"
    )]
    Forbidden {
        /// Module and name.
        name: String,
    },
    /// An instruction that weights have no need of.
    #[error("the pickle has the instruction {code:#04x} at byte {at}, which torch.save does not write")]
    Instruction {
        /// The byte of the instruction.
        code: u8,
        /// Where it stands.
        at: usize,
    },
    /// The pickle ends within an instruction, or before the last one.
    #[error("the pickle is truncated: its end is missing after {bytes} bytes")]
    Truncated {
        /// Length of the pickle.
        bytes: usize,
    },
    /// An instruction finds something else on the stack than it needs.
    #[error("the pickle is corrupt at byte {at}: {reason}")]
    Corrupt {
        /// Where the instruction stands.
        at: usize,
        /// What it needs.
        reason: &'static str,
    },
    /// More instructions, tensors or nesting than any weights have.
    #[error("the pickle has more {what} than any known weights")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
    },
}

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
    let (nodes, stack, marks, memo) = Default::default();
    let (nodes, top) = Machine { bytes, at: 0, begun: 0, nodes, stack, marks, memo }.run()?;
    let mut walk = Walk { nodes: &nodes, visits: 0, name: String::new(), found: Vec::new() };
    walk.visit(top, 0)?;
    Ok(walk.found)
}

/// A value. Containers hold the places of their parts, so that a pickle that contains itself is no endless value.
#[derive(Debug, Clone)]
enum Node<'a> {
    /// What describes no weights: settings, counters, objects of classes that are not known here.
    Other,
    Int(i64),
    Text(&'a str),
    List(Vec<usize>),
    Tuple(Vec<usize>),
    Dict(Vec<(usize, usize)>),
    Name(Name),
    Storage(Box<Storage>),
    Tensor(Box<StoredTensor>),
}

#[derive(Debug, Clone)]
struct Storage {
    key: String,
    dtype: DType,
    len: u64,
}

/// What is recognised among the names.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Name {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageOf(DType),
    Other,
}

/// Collects the tensors.
struct Walk<'a> {
    nodes: &'a [Node<'a>],
    visits: usize,
    name: String,
    found: Vec<(String, StoredTensor)>,
}

impl Walk<'_> {
    fn visit(&mut self, node: usize, depth: usize) -> Step<()> {
        self.visits += 1;
        if self.visits > MAX_VISITS {
            return Err(PickleError::TooMuch { what: "values" });
        }
        let nodes = self.nodes;
        match &nodes[node] {
            Node::Tensor(tensor) => {
                if self.found.len() == MAX_TENSORS {
                    return Err(PickleError::TooMuch { what: "tensors" });
                }
                self.found.push((self.name.clone(), (**tensor).clone()));
                Ok(())
            }
            Node::Dict(_) | Node::List(_) if depth == MAX_DEPTH => Err(PickleError::TooMuch { what: "nesting" }),
            Node::Dict(entries) => entries.iter().try_for_each(|(key, value)| match &nodes[*key] {
                Node::Text(key) => self.below(key, *value, depth),
                Node::Int(key) => self.below(&key.to_string(), *value, depth),
                _ => Ok(()),
            }),
            Node::List(items) => {
                items.iter().enumerate().try_for_each(|(i, item)| self.below(&i.to_string(), *item, depth))
            }
            _ => Ok(()),
        }
    }

    fn below(&mut self, key: &str, value: usize, depth: usize) -> Step<()> {
        let before = self.name.len();
        if before + key.len() > MAX_NAME_BYTES {
            return Err(PickleError::TooMuch { what: "letters in a name" });
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

/// The stack machine.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the current instruction begins.
    begun: usize,
    nodes: Vec<Node<'a>>,
    stack: Vec<usize>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, usize>,
}

type Step<T> = Result<T, PickleError>;

impl<'a> Machine<'a> {
    fn run(mut self) -> Step<(Vec<Node<'a>>, usize)> {
        for _ in 0..MAX_INSTRUCTIONS {
            self.begun = self.at;
            let code = self.take(1)?[0];
            if code == b'.' {
                let top = self.pop()?;
                return Ok((self.nodes, top));
            }
            self.step(code)?;
        }
        Err(PickleError::TooMuch { what: "instructions" })
    }

    fn step(&mut self, code: u8) -> Step<()> {
        match code {
            // Headers: PROTO, FRAME.
            0x80 => self.take(1).map(|_| ()),
            0x95 => self.take(8).map(|_| ()),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(|_| ()),
            b'1' => self.above_mark().map(|_| ()),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            b'N' | 0x88 | 0x89 | 0x8f => self.push(Node::Other),
            b'G' => self.take(8).and_then(|_| self.push(Node::Other)),
            b'K' | b'M' | b'J' | 0x8a | 0x8b => self.number(code),
            b'U' | b'C' | b'T' | b'B' | 0x8e | 0x96 => self.counted(code).and_then(|_| self.push(Node::Other)),
            0x8c | b'X' | 0x8d => {
                let text = std::str::from_utf8(self.counted(code)?);
                let text = text.map_err(|_| self.corrupt("a text that is not UTF-8"))?;
                self.push(Node::Text(text))
            }
            b']' => self.push(Node::List(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            b')' => self.push(Node::Tuple(Vec::new())),
            b'l' => self.above_mark().and_then(|items| self.push(Node::List(items))),
            b't' => self.above_mark().and_then(|items| self.push(Node::Tuple(items))),
            b'd' => {
                let items = self.above_mark()?;
                let entries = self.pairs(&items)?;
                self.push(Node::Dict(entries))
            }
            0x85..=0x87 => {
                let n = usize::from(code - 0x84);
                let from = self.stack.len().checked_sub(n).filter(|from| *from >= self.floor());
                let from = from.ok_or_else(|| self.corrupt("it needs a longer stack"))?;
                let items = self.stack.split_off(from);
                self.push(Node::Tuple(items))
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])
            }
            b'e' | 0x90 => self.above_mark().and_then(|items| self.append(items)),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])
            }
            b'u' => self.above_mark().and_then(|items| self.set_items(&items)),
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memory(code),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.import(module, name)
            }
            0x93 => self.stack_global(),
            b'Q' => self.storage(),
            b'R' => self.reduce(),
            // Objects: NEWOBJ and NEWOBJ_EX make one, BUILD gives the top of the stack its attributes, of which
            // dictionaries of PyTorch have some and none that matter.
            0x81 => self.pop().and_then(|_| self.pop()).and_then(|_| self.push(Node::Other)),
            0x92 => self.pop().and_then(|_| self.pop()).and_then(|_| self.pop()).and_then(|_| self.push(Node::Other)),
            b'b' => self.pop().and_then(|_| self.top()).map(|_| ()),
            0x91 => self.above_mark().and_then(|_| self.push(Node::Other)),
            _ => Err(PickleError::Instruction { code, at: self.begun }),
        }
    }

    fn number(&mut self, code: u8) -> Step<()> {
        let value = match code {
            b'K' => i64::from(self.take(1)?[0]),
            b'M' => i64::from(u16::from_le_bytes(self.array()?)),
            b'J' => i64::from(i32::from_le_bytes(self.array()?)),
            _ => {
                let n = match code {
                    0x8a => u64::from(self.take(1)?[0]),
                    _ => u64::from(u32::from_le_bytes(self.array()?)),
                };
                let digits = self.take(usize::try_from(n).unwrap_or(usize::MAX))?;
                if digits.len() > 8 {
                    // Seeds of random generators.
                    return self.push(Node::Other);
                }
                let fill = if digits.last().is_some_and(|last| *last >= 0x80) { 0xff } else { 0 };
                let mut wide = [fill; 8];
                wide[..digits.len()].copy_from_slice(digits);
                i64::from_le_bytes(wide)
            }
        };
        self.push(Node::Int(value))
    }

    /// Bytes behind their number, which the instruction says the width of.
    fn counted(&mut self, code: u8) -> Step<&'a [u8]> {
        let n = match code {
            b'U' | b'C' | 0x8c => u64::from(self.take(1)?[0]),
            0x8e | 0x8d | 0x96 => u64::from_le_bytes(self.array()?),
            _ => u64::from(u32::from_le_bytes(self.array()?)),
        };
        self.take(usize::try_from(n).unwrap_or(usize::MAX))
    }

    fn memory(&mut self, code: u8) -> Step<()> {
        let place = match code {
            b'q' | b'h' => u64::from(self.take(1)?[0]),
            b'r' | b'j' => u64::from(u32::from_le_bytes(self.array()?)),
            _ => self.memo.len() as u64,
        };
        if matches!(code, b'h' | b'j') {
            let node = *self.memo.get(&place).ok_or_else(|| self.corrupt("a place that nothing was put in"))?;
            self.stack.push(node);
        } else {
            let node = self.top()?;
            self.memo.insert(place, node);
        }
        Ok(())
    }

    fn stack_global(&mut self) -> Step<()> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (module, name) = match (&self.nodes[module], &self.nodes[name]) {
            (Node::Text(module), Node::Text(name)) => (*module, *name),
            _ => return Err(self.corrupt("it needs two texts")),
        };
        self.import(module.as_bytes(), name.as_bytes())
    }

    fn import(&mut self, module: &[u8], name: &[u8]) -> Step<()> {
        if runs_programs(module, name) {
            let spelled = |text: &[u8]| {
                let text: String = String::from_utf8_lossy(text).chars().take(80).collect();
                text.escape_debug().to_string()
            };
            return Err(PickleError::Forbidden { name: format!("{}.{}", spelled(module), spelled(name)) });
        }
        self.push(Node::Name(match (module, name) {
            (b"collections", b"OrderedDict") => Name::OrderedDict,
            (b"torch._utils", b"_rebuild_tensor_v2") => Name::RebuildTensor,
            (b"torch._utils", b"_rebuild_parameter") => Name::RebuildParameter,
            (b"torch" | b"torch.storage", storage) => storage_dtype(storage).map_or(Name::Other, Name::StorageOf),
            _ => Name::Other,
        }))
    }

    /// `("storage", type, key, device, length)` becomes a storage.
    fn storage(&mut self) -> Step<()> {
        let id = self.pop()?;
        let node = match &self.nodes[id] {
            Node::Tuple(parts) => self.storage_of(parts),
            _ => None,
        };
        self.push(node.map_or(Node::Other, |storage| Node::Storage(Box::new(storage))))
    }

    fn storage_of(&self, parts: &[usize]) -> Option<Storage> {
        let [kind, dtype, key, _, len, ..] = parts else { return None };
        match [kind, dtype, key, len].map(|part| &self.nodes[*part]) {
            [Node::Text("storage"), Node::Name(Name::StorageOf(dtype)), Node::Text(key), Node::Int(len)] => {
                // A key is a number, so that a storage is no way to any other entry.
                let is_key = !key.is_empty() && key.len() <= 20 && key.bytes().all(|byte| byte.is_ascii_digit());
                let len = u64::try_from(*len).ok()?;
                is_key.then(|| Storage { key: (*key).to_owned(), dtype: *dtype, len })
            }
            _ => None,
        }
    }

    /// A call. Those that make tensors and dictionaries are answered, without calling anything.
    fn reduce(&mut self) -> Step<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let Node::Tuple(arguments) = &self.nodes[arguments] else {
            return Err(self.corrupt("a call needs a tuple of arguments"));
        };
        let node = match &self.nodes[callee] {
            Node::Name(Name::OrderedDict) => match arguments.first().map(|node| &self.nodes[*node]) {
                None => Node::Dict(Vec::new()),
                Some(_) => Node::Other,
            },
            Node::Name(Name::RebuildTensor) => match self.tensor(arguments) {
                Some(tensor) => Node::Tensor(Box::new(tensor)),
                None => Node::Other,
            },
            Node::Name(Name::RebuildParameter) => match arguments.first().map(|node| &self.nodes[*node]) {
                Some(Node::Tensor(tensor)) => Node::Tensor(tensor.clone()),
                _ => Node::Other,
            },
            _ => Node::Other,
        };
        self.push(node)
    }

    /// `(storage, offset, shape, strides, …)`
    fn tensor(&self, arguments: &[usize]) -> Option<StoredTensor> {
        let [storage, offset, shape, strides, ..] = arguments else { return None };
        let numbers = |node: &Node<'_>| -> Option<Vec<u64>> {
            let Node::Tuple(items) = node else { return None };
            let number = |item: &usize| match self.nodes[*item] {
                Node::Int(value) => u64::try_from(value).ok(),
                _ => None,
            };
            if items.len() <= 8 { items.iter().map(number).collect() } else { None }
        };
        let (Node::Storage(storage), Node::Int(offset)) = (&self.nodes[*storage], &self.nodes[*offset]) else {
            return None;
        };
        let (shape, strides) = (numbers(&self.nodes[*shape])?, numbers(&self.nodes[*strides])?);
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

    fn append(&mut self, mut items: Vec<usize>) -> Step<()> {
        let list = self.top()?;
        match &mut self.nodes[list] {
            Node::List(list) => list.append(&mut items),
            Node::Other => {}
            _ => return Err(self.corrupt("it needs a list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[usize]) -> Step<()> {
        let (dict, mut more) = (self.top()?, self.pairs(items)?);
        match &mut self.nodes[dict] {
            Node::Dict(entries) => entries.append(&mut more),
            Node::Other => {}
            _ => return Err(self.corrupt("it needs a dictionary")),
        }
        Ok(())
    }

    fn pairs(&self, items: &[usize]) -> Step<Vec<(usize, usize)>> {
        match items.as_chunks() {
            (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
            _ => Err(self.corrupt("a key without a value")),
        }
    }

    fn push(&mut self, node: Node<'a>) -> Step<()> {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
        Ok(())
    }

    fn pop(&mut self) -> Step<usize> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Height of the last mark, which the stack never falls below.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    /// What lies on top of the stack, above the last mark.
    fn top(&self) -> Step<usize> {
        self.stack[self.floor()..].last().copied().ok_or_else(|| self.corrupt("it needs a longer stack"))
    }

    fn above_mark(&mut self) -> Step<Vec<usize>> {
        let mark = self.marks.pop().ok_or_else(|| self.corrupt("it needs a mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, n: usize) -> Step<&'a [u8]> {
        let taken = self.bytes[self.at..].get(..n).ok_or(PickleError::Truncated { bytes: self.bytes.len() })?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let truncated = PickleError::Truncated { bytes: self.bytes.len() };
        self.take(N)?.try_into().map_err(|_| truncated)
    }

    fn line(&mut self) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let n = rest.iter().position(|byte| *byte == b'\n');
        let n = n.ok_or(PickleError::Truncated { bytes: self.bytes.len() })?;
        self.at += n + 1;
        Ok(&rest[..n])
    }

    fn corrupt(&self, reason: &'static str) -> PickleError {
        PickleError::Corrupt { at: self.begun, reason }
    }
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
        assert_eq!(stored_tensors(nested), Err(PickleError::TooMuch { what: "nesting" }));
        // Fourteen dictionaries, each twenty times in the next.
        let mut pickle = b"\x80\x02}q\0".to_vec();
        for _ in 0..14 {
            pickle.extend(b"}(");
            (0..20u8).for_each(|key| pickle.extend([b'K', key, b'h', 0]));
            pickle.extend(b"uq\0");
        }
        pickle.push(b'.');
        assert_eq!(stored_tensors(&pickle), Err(PickleError::TooMuch { what: "values" }));
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
