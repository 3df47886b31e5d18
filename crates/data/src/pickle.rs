//! Reading the data in a Python pickle without ever running what a pickle can run.
//!
//! A pickle is a program for a stack machine that may import and call anything. Of its instructions only those that
//! build data are known here. Four names may be imported, which are how numpy spells an array and a byte string, and
//! they are recognised, not called. Every other name is an error, and so is every other instruction.

use std::borrow::Cow;
use std::collections::HashMap;

/// Most instructions of one pickle. The largest that is needed, CIFAR-100's `train`, has 200,000; at 100 bytes each this
/// bounds the memory to 200 MiB beside the file.
const MAX_INSTRUCTIONS: usize = 1 << 21;

/// Why a pickle is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// The pickle wants to import something that is not needed to describe data.
    #[error(
        "the pickle wants to import {name}, which is refused: it could run anything; only plain data and numpy arrays of bytes are read"
    )]
    Forbidden {
        /// Module and name.
        name: String,
    },
    /// An instruction that builds no plain data.
    #[error(
        "the pickle has the instruction {code:#04x} at byte {at}, which is refused: only plain data and numpy arrays of bytes are read"
    )]
    Instruction {
        /// The byte of the instruction.
        code: u8,
        /// Where it stands.
        at: usize,
    },
    /// The file ends within an instruction, or before the last one.
    #[error("the pickle is truncated: its end is missing after {bytes} bytes")]
    Truncated {
        /// Length of the file.
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
    /// More instructions than any data set needs.
    #[error("the pickle has more than {MAX_INSTRUCTIONS} instructions, which no known set needs")]
    TooLong,
    /// The data lacks an entry, or the entry is of another kind.
    #[error("the pickle has no entry `{key}` that is {expected}")]
    Entry {
        /// The key that was looked for.
        key: &'static str,
        /// What should be there.
        expected: &'static str,
    },
}

/// The data of a pickle whose outermost value is a dictionary.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    top: usize,
}

/// A value. Containers hold the places of their parts, so that a pickle that contains itself is no endless value.
#[derive(Debug, Clone)]
enum Node<'a> {
    /// `None`, truth values and fractions, which nobody asks for.
    Other,
    Int(i64),
    Bytes(Cow<'a, [u8]>),
    Text(&'a str),
    List(Vec<usize>),
    Tuple(Vec<usize>),
    Dict(Vec<(usize, usize)>),
    Name(Name),
    /// A numpy type: whether it is one unsigned byte.
    Dtype {
        is_u8: bool,
    },
    /// A numpy array; without a shape until its state was set.
    Array(Option<(Vec<u64>, usize)>),
}

/// What may be imported.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Name {
    Reconstruct,
    NdArray,
    Dtype,
    Encode,
}

impl<'a> Pickle<'a> {
    /// Reads a pickle of protocol 0 to 4.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, PickleError> {
        let (nodes, stack, marks, memo) = Default::default();
        Machine { bytes, at: 0, begun: 0, nodes, stack, marks, memo, encoded: 0 }.run()
    }

    fn entry(&self, key: &str) -> Option<&Node<'a>> {
        let Node::Dict(entries) = &self.nodes[self.top] else { return None };
        let found = entries.iter().rev().find(|(name, _)| self.text(*name).as_deref() == Some(key));
        found.map(|(_, value)| &self.nodes[*value])
    }

    /// Shape and bytes of an array.
    pub(crate) fn array(&self, key: &'static str) -> Result<(&[u64], &[u8]), PickleError> {
        match self.entry(key) {
            Some(Node::Array(Some((shape, data)))) => match &self.nodes[*data] {
                Node::Bytes(bytes) => Ok((shape, bytes)),
                _ => Err(PickleError::Entry { key, expected: "a numpy array of bytes" }),
            },
            _ => Err(PickleError::Entry { key, expected: "a numpy array of bytes" }),
        }
    }

    /// A list of numbers that are not negative.
    pub(crate) fn numbers(&self, key: &'static str) -> Result<Vec<u64>, PickleError> {
        let wrong = PickleError::Entry { key, expected: "a list of whole numbers" };
        let Some(Node::List(items)) = self.entry(key) else { return Err(wrong) };
        let number = |item: &usize| match self.nodes[*item] {
            Node::Int(value) => u64::try_from(value).ok(),
            _ => None,
        };
        items.iter().map(number).collect::<Option<_>>().ok_or(wrong)
    }

    /// A list of strings.
    pub(crate) fn texts(&self, key: &'static str) -> Result<Vec<String>, PickleError> {
        let wrong = PickleError::Entry { key, expected: "a list of strings" };
        let Some(Node::List(items)) = self.entry(key) else { return Err(wrong) };
        items.iter().map(|item| self.text(*item).map(Cow::into_owned)).collect::<Option<_>>().ok_or(wrong)
    }

    /// A string of either Python.
    fn text(&self, node: usize) -> Option<Cow<'_, str>> {
        match &self.nodes[node] {
            Node::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Node::Text(text) => Some((*text).into()),
            _ => None,
        }
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
    /// Length of the texts that were turned into bytes.
    encoded: usize,
}

type Step<T> = Result<T, PickleError>;

impl<'a> Machine<'a> {
    fn run(mut self) -> Step<Pickle<'a>> {
        for _ in 0..MAX_INSTRUCTIONS {
            self.begun = self.at;
            let code = self.take(1)?[0];
            if code == b'.' {
                let top = self.pop()?;
                return Ok(Pickle { nodes: self.nodes, top });
            }
            self.step(code)?;
        }
        Err(PickleError::TooLong)
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
            b'N' | 0x88 | 0x89 => self.push(Node::Other),
            b'G' => self.take(8).and_then(|_| self.push(Node::Other)),
            b'F' => self.line().and_then(|_| self.push(Node::Other)),
            b'K' | b'M' | b'J' | 0x8a | b'I' | b'L' => self.number(code),
            b'U' | b'C' | b'T' | b'B' | 0x8e | b'S' => self.byte_string(code),
            0x8c | b'X' | 0x8d | b'V' => self.text_string(code),
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
            b'e' => self.above_mark().and_then(|items| self.append(items)),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])
            }
            b'u' => self.above_mark().and_then(|items| self.set_items(&items)),
            b'q' | b'r' | 0x94 | b'p' | b'h' | b'j' | b'g' => self.memory(code),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.import(module, name)
            }
            0x93 => self.stack_global(),
            b'R' => self.reduce(),
            b'b' => self.build(),
            _ => Err(PickleError::Instruction { code, at: self.begun }),
        }
    }

    fn number(&mut self, code: u8) -> Step<()> {
        let value = match code {
            b'K' => i64::from(self.take(1)?[0]),
            b'M' => i64::from(u16::from_le_bytes(self.array()?)),
            b'J' => i64::from(i32::from_le_bytes(self.array()?)),
            0x8a => {
                let n = usize::from(self.take(1)?[0]);
                let digits = self.take(n)?;
                if n > 8 {
                    return Err(self.corrupt("a number of more than 64 bits"));
                }
                let fill = if digits.last().is_some_and(|last| *last >= 0x80) { 0xff } else { 0 };
                let mut wide = [fill; 8];
                wide[..n].copy_from_slice(digits);
                i64::from_le_bytes(wide)
            }
            _ => {
                let line = self.line()?;
                let text = std::str::from_utf8(line).unwrap_or_default().trim_end_matches('L');
                text.parse().map_err(|_| self.corrupt("a number that is none"))?
            }
        };
        self.push(Node::Int(value))
    }

    fn byte_string(&mut self, code: u8) -> Step<()> {
        let bytes = match code {
            b'S' => {
                let line = self.line()?;
                unquote(line).ok_or_else(|| self.corrupt("a string without its quotes"))?
            }
            _ => self.counted(code)?.into(),
        };
        self.push(Node::Bytes(bytes))
    }

    fn text_string(&mut self, code: u8) -> Step<()> {
        let bytes = if code == b'V' { self.line()? } else { self.counted(code)? };
        let text = std::str::from_utf8(bytes).map_err(|_| self.corrupt("a text that is not UTF-8"))?;
        self.push(Node::Text(text))
    }

    /// Bytes behind their number, which the instruction says the width of.
    fn counted(&mut self, code: u8) -> Step<&'a [u8]> {
        let n = match code {
            b'U' | b'C' | 0x8c => u64::from(self.take(1)?[0]),
            0x8e | 0x8d => u64::from_le_bytes(self.array()?),
            _ => u64::from(u32::from_le_bytes(self.array()?)),
        };
        self.take(usize::try_from(n).unwrap_or(usize::MAX))
    }

    fn memory(&mut self, code: u8) -> Step<()> {
        let place = match code {
            b'q' | b'h' => u64::from(self.take(1)?[0]),
            b'r' | b'j' => u64::from(u32::from_le_bytes(self.array()?)),
            0x94 => self.memo.len() as u64,
            _ => {
                let line = self.line()?;
                let text = std::str::from_utf8(line).unwrap_or_default();
                text.parse().map_err(|_| self.corrupt("a place that is no number"))?
            }
        };
        if matches!(code, b'h' | b'j' | b'g') {
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
        let known = match (module, name) {
            (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"_reconstruct") => Name::Reconstruct,
            (b"numpy", b"ndarray") => Name::NdArray,
            (b"numpy", b"dtype") => Name::Dtype,
            (b"_codecs", b"encode") => Name::Encode,
            _ => {
                let spelled = |text: &[u8]| {
                    let text: String = String::from_utf8_lossy(text).chars().take(80).collect();
                    text.escape_debug().to_string()
                };
                return Err(PickleError::Forbidden { name: format!("{}.{}", spelled(module), spelled(name)) });
            }
        };
        self.push(Node::Name(known))
    }

    /// The three calls that numpy's arrays are written with, answered without calling anything.
    fn reduce(&mut self) -> Step<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let Node::Tuple(arguments) = &self.nodes[arguments] else {
            return Err(self.corrupt("a call needs a tuple of arguments"));
        };
        let made = match (&self.nodes[callee], arguments.first().map(|node| &self.nodes[*node])) {
            (Node::Name(Name::Reconstruct), Some(Node::Name(Name::NdArray))) => Some(Node::Array(None)),
            (Node::Name(Name::Dtype), Some(kind)) => {
                let is_u8 = match kind {
                    Node::Text(text) => matches!(*text, "u1" | "|u1" | "uint8"),
                    Node::Bytes(text) => matches!(&**text, b"u1" | b"|u1" | b"uint8"),
                    _ => false,
                };
                Some(Node::Dtype { is_u8 })
            }
            // Python 3 writes bytes for Python 2 as a text of the same code points.
            (Node::Name(Name::Encode), Some(Node::Text(text))) => {
                // Each text is encoded once, so all of them together are no longer than the file. A pickle that encodes
                // the same one again and again wants nothing but memory.
                self.encoded += text.len();
                if self.encoded > self.bytes.len() {
                    return Err(self.corrupt("a text that was encoded before"));
                }
                let bytes = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect::<Option<Vec<u8>>>();
                bytes.map(|bytes| Node::Bytes(bytes.into()))
            }
            _ => None,
        };
        match made {
            Some(node) => self.push(node),
            None => Err(self.corrupt("a call that describes no array")),
        }
    }

    /// Gives an array its contents.
    fn build(&mut self) -> Step<()> {
        let (state, object) = (self.pop()?, self.top()?);
        match &self.nodes[object] {
            Node::Dtype { .. } => Ok(()),
            Node::Array(None) => {
                let array = self.array_state(state).ok_or_else(|| self.corrupt("an array that is not of bytes"))?;
                self.nodes[object] = Node::Array(Some(array));
                Ok(())
            }
            _ => Err(self.corrupt("a state for something that has none")),
        }
    }

    /// `(version, shape, dtype, is_fortran, data)`
    fn array_state(&self, state: usize) -> Option<(Vec<u64>, usize)> {
        let Node::Tuple(parts) = &self.nodes[state] else { return None };
        let [_, shape, dtype, _, data] = parts[..] else { return None };
        let (Node::Tuple(sides), Node::Dtype { is_u8: true }, Node::Bytes(bytes)) =
            (&self.nodes[shape], &self.nodes[dtype], &self.nodes[data])
        else {
            return None;
        };
        let side = |node: &usize| match self.nodes[*node] {
            Node::Int(side) => u64::try_from(side).ok(),
            _ => None,
        };
        if sides.len() > 8 {
            return None;
        }
        let sides: Vec<u64> = sides.iter().map(side).collect::<Option<_>>()?;
        let n = sides.iter().try_fold(1u64, |product, side| product.checked_mul(*side))?;
        (n == bytes.len() as u64).then_some((sides, data))
    }

    fn append(&mut self, mut items: Vec<usize>) -> Step<()> {
        let list = self.top()?;
        match &mut self.nodes[list] {
            Node::List(list) => {
                list.append(&mut items);
                Ok(())
            }
            _ => Err(self.corrupt("it needs a list")),
        }
    }

    fn set_items(&mut self, items: &[usize]) -> Step<()> {
        let (dict, mut more) = (self.top()?, self.pairs(items)?);
        match &mut self.nodes[dict] {
            Node::Dict(entries) => {
                entries.append(&mut more);
                Ok(())
            }
            _ => Err(self.corrupt("it needs a dictionary")),
        }
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
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..n).ok_or(PickleError::Truncated { bytes: self.bytes.len() })?;
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

/// The text between the quotes of a string of protocol 0. Names of classes need no escapes, so only they are refused.
fn unquote(line: &[u8]) -> Option<Cow<'_, [u8]>> {
    let inner = match line {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
        _ => return None,
    };
    (!inner.contains(&b'\\')).then_some(Cow::Borrowed(inner))
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
        check(b"\x80\x02}U", "truncated");
        check(b"R.", "longer stack");
        check(b"(0.", "longer stack");
        check(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "truncated");
    }

    #[test]
    fn a_list_that_holds_itself_is_finite() {
        let pickle = Pickle::read(b"}(U\x01a]q\x01h\x01au.").expect("valid");
        assert_eq!(pickle.texts("a"), Err(PickleError::Entry { key: "a", expected: "a list of strings" }));
    }
}
