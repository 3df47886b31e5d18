//! The stack machine whose program a pickle is.

use std::collections::HashMap;

use crate::{Dialect, PickleError, Place, Value, Values};

/// Most instructions of one pickle. The largest that is needed, CIFAR-100's `train`, has 200,000; a ResNet-50 with its
/// optimizer's memory has some 50,000.
pub const MAX_INSTRUCTIONS: usize = 1 << 21;

/// Reads a pickle of protocol 0 to 5: its values, and which of them is the outermost.
///
/// Bytes behind the last instruction are not looked at. Instructions that data need not, such as the registry of
/// extensions and buffers outside the pickle, are refused whatever the dialect.
///
/// # Errors
/// [`PickleError::Forbidden`] for a name that the dialect does not know, [`PickleError::Instruction`] for an instruction
/// that is unknown or that it refuses, [`PickleError::Truncated`], [`PickleError::Corrupt`], and [`PickleError::TooMuch`]
/// beyond [`MAX_INSTRUCTIONS`].
///
/// # Cost
/// Texts and bytes are borrowed, and at 100 bytes an instruction all else is bounded to 200 MiB, beside what the dialect
/// makes. No recursion, whatever the nesting.
pub fn read_pickle<'a, D: Dialect<'a>>(
    bytes: &'a [u8],
    dialect: D,
) -> Result<(Values<'a, D::Object>, Place), PickleError> {
    let (stack, marks, memo) = Default::default();
    Machine { bytes, dialect, at: 0, code: 0, begun: 0, values: Values::new(), stack, marks, memo }.run()
}

struct Machine<'a, D: Dialect<'a>> {
    bytes: &'a [u8],
    dialect: D,
    at: usize,
    /// The current instruction, and where it begins.
    code: u8,
    begun: usize,
    values: Values<'a, D::Object>,
    stack: Vec<Place>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Place>,
}

type Step<T> = Result<T, PickleError>;

impl<'a, D: Dialect<'a>> Machine<'a, D> {
    fn run(mut self) -> Step<(Values<'a, D::Object>, Place)> {
        for _ in 0..MAX_INSTRUCTIONS {
            self.begun = self.at;
            self.code = self.take(1)?[0];
            if self.code == b'.' {
                let top = self.pop()?;
                return Ok((self.values, top));
            }
            self.step()?;
        }
        Err(PickleError::TooMuch { what: "instructions", limit: MAX_INSTRUCTIONS })
    }

    fn step(&mut self) -> Step<()> {
        let code = self.code;
        match code {
            _ if D::REFUSED.contains(&code) => return Err(self.refused()),
            // Headers: PROTO, FRAME.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.above_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' | 0x88 | 0x89 => self.push(Value::Plain),
            b'G' => {
                self.take(8)?;
                self.push(Value::Plain);
            }
            b'F' => {
                self.line()?;
                self.push(Value::Plain);
            }
            b'K' | b'M' | b'J' | 0x8a | 0x8b | b'I' | b'L' => self.number()?,
            b'U' | b'C' | b'T' | b'B' | 0x8e | 0x96 => {
                let bytes = self.counted()?;
                self.push(Value::Bytes(bytes.into()));
            }
            b'S' => {
                let line = self.line()?;
                let bytes = unquote(line).ok_or_else(|| self.corrupt("a string without its quotes"))?;
                self.push(Value::Bytes(bytes.into()));
            }
            0x8c | b'X' | 0x8d | b'V' => {
                let bytes = if code == b'V' { self.line()? } else { self.counted()? };
                let text = std::str::from_utf8(bytes).map_err(|_| self.corrupt("a text that is not UTF-8"))?;
                self.push(Value::Text(text));
            }
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b')' => self.push(Value::Tuple(Vec::new())),
            // EMPTY_SET.
            0x8f => self.push(Value::Opaque),
            b'l' => {
                let items = self.above_mark()?;
                self.push(Value::List(items));
            }
            b't' => {
                let items = self.above_mark()?;
                self.push(Value::Tuple(items));
            }
            b'd' => {
                let items = self.above_mark()?;
                let entries = self.pairs(&items)?;
                self.push(Value::Dict(entries));
            }
            // FROZENSET.
            0x91 => {
                self.above_mark()?;
                self.push(Value::Opaque);
            }
            0x85..=0x87 => {
                let n = usize::from(code - 0x84);
                let from = self.stack.len().checked_sub(n).filter(|from| *from >= self.floor());
                let from = from.ok_or_else(|| self.corrupt("it needs a longer stack"))?;
                let items = self.stack.split_off(from);
                self.push(Value::Tuple(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            // APPENDS, and ADDITEMS for sets.
            b'e' | 0x90 => {
                let items = self.above_mark()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.above_mark()?;
                self.set_items(&items)?;
            }
            b'q' | b'r' | 0x94 | b'p' | b'h' | b'j' | b'g' => self.memory()?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.import(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (&self.values[module], &self.values[name]) else {
                    return Err(self.corrupt("it needs two texts"));
                };
                self.import(module.as_bytes(), name.as_bytes())?;
            }
            b'R' => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let Value::Tuple(arguments) = &self.values[arguments] else {
                    return Err(self.corrupt("a call needs a tuple of arguments"));
                };
                let made = self.dialect.call(&self.values, callee, arguments);
                self.push(made.map_err(|reason| self.corrupt(reason))?);
            }
            b'b' => {
                let (state, object) = (self.pop()?, self.top()?);
                let made = self.dialect.set_state(&self.values, object, state);
                if let Some(made) = made.map_err(|reason| self.corrupt(reason))? {
                    *self.values.get_mut(object) = Value::Object(made);
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let made = self.dialect.outside(&self.values, id);
                self.push(made.map_err(|reason| self.corrupt(reason))?);
            }
            // NEWOBJ and NEWOBJ_EX make an object of a class, from two and three values.
            0x81 | 0x92 => {
                for _ in 0..if code == 0x81 { 2 } else { 3 } {
                    self.pop()?;
                }
                self.push(Value::Opaque);
            }
            _ => return Err(self.refused()),
        }
        Ok(())
    }

    fn number(&mut self) -> Step<()> {
        let value = match self.code {
            b'K' => i64::from(self.take(1)?[0]),
            b'M' => i64::from(u16::from_le_bytes(self.array()?)),
            b'J' => i64::from(i32::from_le_bytes(self.array()?)),
            0x8a | 0x8b => {
                let digits = self.counted()?;
                if digits.len() > 8 {
                    let made = self.dialect.wide_int();
                    self.push(made.map_err(|reason| self.corrupt(reason))?);
                    return Ok(());
                }
                let fill = if digits.last().is_some_and(|last| *last >= 0x80) { 0xff } else { 0 };
                let mut wide = [fill; 8];
                wide[..digits.len()].copy_from_slice(digits);
                i64::from_le_bytes(wide)
            }
            _ => {
                let line = self.line()?;
                let text = std::str::from_utf8(line).unwrap_or_default().trim_end_matches('L');
                text.parse().map_err(|_| self.corrupt("a number that is none"))?
            }
        };
        self.push(Value::Int(value));
        Ok(())
    }

    /// Bytes behind their number, which the instruction says the width of.
    fn counted(&mut self) -> Step<&'a [u8]> {
        let n = match self.code {
            b'U' | b'C' | 0x8c | 0x8a => u64::from(self.take(1)?[0]),
            0x8e | 0x8d | 0x96 => u64::from_le_bytes(self.array()?),
            _ => u64::from(u32::from_le_bytes(self.array()?)),
        };
        self.take(usize::try_from(n).unwrap_or(usize::MAX))
    }

    fn memory(&mut self) -> Step<()> {
        let key = match self.code {
            b'q' | b'h' => u64::from(self.take(1)?[0]),
            b'r' | b'j' => u64::from(u32::from_le_bytes(self.array()?)),
            0x94 => self.memo.len() as u64,
            _ => {
                let line = self.line()?;
                let text = std::str::from_utf8(line).unwrap_or_default();
                text.parse().map_err(|_| self.corrupt("a place that is no number"))?
            }
        };
        if matches!(self.code, b'h' | b'j' | b'g') {
            let place = *self.memo.get(&key).ok_or_else(|| self.corrupt("a place that nothing was put in"))?;
            self.stack.push(place);
        } else {
            let place = self.top()?;
            self.memo.insert(key, place);
        }
        Ok(())
    }

    fn import(&mut self, module: &[u8], name: &[u8]) -> Step<()> {
        let Some(object) = self.dialect.import(module, name) else {
            // Names are as long and as strange as whoever wrote the pickle likes.
            let spelled = |text: &[u8]| {
                let text: String = String::from_utf8_lossy(text).chars().take(80).collect();
                text.escape_debug().to_string()
            };
            let name = format!("{}.{}", spelled(module), spelled(name));
            return Err(PickleError::Forbidden { name, at: self.begun, rule: D::RULE });
        };
        self.push(Value::Object(object));
        Ok(())
    }

    fn append(&mut self, mut items: Vec<Place>) -> Step<()> {
        let list = self.top()?;
        match self.values.get_mut(list) {
            Value::List(list) => list.append(&mut items),
            Value::Opaque => {}
            _ => return Err(self.corrupt("it needs a list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Place]) -> Step<()> {
        let (dict, mut more) = (self.top()?, self.pairs(items)?);
        match self.values.get_mut(dict) {
            Value::Dict(entries) => entries.append(&mut more),
            Value::Opaque => {}
            _ => return Err(self.corrupt("it needs a dictionary")),
        }
        Ok(())
    }

    fn pairs(&self, items: &[Place]) -> Step<Vec<(Place, Place)>> {
        match items.as_chunks() {
            (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
            _ => Err(self.corrupt("a key without a value")),
        }
    }

    fn push(&mut self, value: Value<'a, D::Object>) {
        let place = self.values.add(value);
        self.stack.push(place);
    }

    fn pop(&mut self) -> Step<Place> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Height of the last mark, which the stack never falls below.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    /// What lies on top of the stack, above the last mark.
    fn top(&self) -> Step<Place> {
        self.stack[self.floor()..].last().copied().ok_or_else(|| self.corrupt("it needs a longer stack"))
    }

    fn above_mark(&mut self) -> Step<Vec<Place>> {
        let mark = self.marks.pop().ok_or_else(|| self.corrupt("it needs a mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, n: usize) -> Step<&'a [u8]> {
        let taken = self.bytes[self.at..].get(..n).ok_or_else(|| self.truncated())?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let taken = self.bytes[self.at..].first_chunk().ok_or_else(|| self.truncated())?;
        self.at += N;
        Ok(*taken)
    }

    fn line(&mut self) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let n = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| self.truncated())?;
        self.at += n + 1;
        Ok(&rest[..n])
    }

    fn refused(&self) -> PickleError {
        PickleError::Instruction { code: self.code, at: self.begun, rule: D::RULE }
    }

    fn truncated(&self) -> PickleError {
        PickleError::Truncated { at: self.begun, bytes: self.bytes.len() }
    }

    fn corrupt(&self, reason: &'static str) -> PickleError {
        PickleError::Corrupt { code: self.code, at: self.begun, reason }
    }
}

/// The text between the quotes of a string of protocol 0. Names of classes need no escapes, so only they are refused.
fn unquote(line: &[u8]) -> Option<&[u8]> {
    let inner = match line {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
        _ => return None,
    };
    (!inner.contains(&b'\\')).then_some(inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Made;

    /// Knows the names of the module `known`, and refuses dictionaries as protocol 0 writes them.
    struct Known;

    #[derive(Debug, PartialEq)]
    enum Object {
        Name(String),
        Called(usize),
        Stated,
    }

    impl<'a> Dialect<'a> for Known {
        type Object = Object;
        const RULE: &'static str = "only the known is read";
        const REFUSED: &'static [u8] = b"d";

        fn import(&mut self, module: &[u8], name: &[u8]) -> Option<Object> {
            (module == b"known").then(|| Object::Name(String::from_utf8_lossy(name).into_owned()))
        }

        fn call(&mut self, values: &Values<'a, Object>, callee: Place, arguments: &[Place]) -> Made<'a, Object> {
            match &values[callee] {
                Value::Object(Object::Name(_)) => Ok(Value::Object(Object::Called(arguments.len()))),
                _ => Err("a call of nothing"),
            }
        }

        fn set_state(
            &mut self,
            values: &Values<'a, Object>,
            object: Place,
            _state: Place,
        ) -> Result<Option<Object>, &'static str> {
            match values[object] {
                Value::Object(Object::Called(_)) => Ok(Some(Object::Stated)),
                Value::Opaque => Ok(None),
                _ => Err("a state of nothing"),
            }
        }
    }

    /// The outermost value as Python would print it, with objects as Rust does; two levels of containers.
    fn printed(bytes: &[u8]) -> Result<String, PickleError> {
        fn print(values: &Values<'_, Object>, place: Place, depth: usize) -> String {
            let all = |places: &[Place]| {
                let places = if depth == 2 { &[] } else { places };
                places.iter().map(|place| print(values, *place, depth + 1)).collect::<Vec<_>>().join(", ")
            };
            match &values[place] {
                Value::Plain => "_".to_owned(),
                Value::Int(value) => value.to_string(),
                Value::Bytes(bytes) => format!("b'{}'", bytes.escape_ascii()),
                Value::Text(text) => format!("'{text}'"),
                Value::List(items) => format!("[{}]", all(items)),
                Value::Tuple(items) => format!("({})", all(items)),
                Value::Dict(entries) => {
                    let entries: Vec<String> =
                        entries.iter().map(|(key, value)| all(&[*key, *value]).replacen(", ", ": ", 1)).collect();
                    format!("{{{}}}", entries.join(", "))
                }
                Value::Object(object) => format!("{object:?}"),
                Value::Opaque => "?".to_owned(),
            }
        }
        read_pickle(bytes, Known).map(|(values, top)| print(&values, top, 0))
    }

    #[test]
    fn every_instruction_builds_what_python_builds() {
        let check = |bytes: &[u8], want: &str| assert_eq!(printed(bytes).as_deref(), Ok(want), "{bytes:?}");
        check(b"\x80\x04\x95\x0b\0\0\0\0\0\0\0N.", "_");
        check(b"(\x88\x89G\x3f\xf8\0\0\0\0\0\0F1.5\nt.", "(_, _, _, _)");
        check(b"(K\xffM\xff\xffJ\xff\xff\xff\xffI-7\nL9L\nt.", "(255, 65535, -1, -7, 9)");
        check(
            b"(\x8a\0\x8a\x01\x80\x8a\x02\x80\0\x8b\x08\0\0\0\0\0\0\0\0\0\0\x80t.",
            "(0, -128, 128, -9223372036854775808)",
        );
        check(b"(U\x01aC\x01bT\x01\0\0\0cB\x01\0\0\0dS'e'\nS\"f\"\nt.", "(b'a', b'b', b'c', b'd', b'e', b'f')");
        check(b"(\x8e\x01\0\0\0\0\0\0\0a\x96\x01\0\0\0\0\0\0\0bt.", "(b'a', b'b')");
        check(b"(\x8c\x01aX\x01\0\0\0b\x8d\x01\0\0\0\0\0\0\0cVd\nt.", "('a', 'b', 'c', 'd')");
        check(b"(])}t.", "([], (), {})");
        check(b"K\x01\x85K\x01K\x02\x86\x86.", "((1), (1, 2))");
        check(b"K\x01K\x02K\x03\x87.", "(1, 2, 3)");
        check(b"](K\x01K\x02eK\x03a(K\x04la.", "[1, 2, 3, [4]]");
        check(b"}(K\x01K\x02uK\x03K\x04s.", "{1: 2, 3: 4}");
        // POP, POP_MARK, DUP.
        check(b"K\x01K\x020(K\x03K\x0412\x86.", "(1, 1)");
        check(b"](K\x01q\x05h\x05r\0\x01\0\0j\0\x01\0\0p7\ng7\n\x94h\x03e.", "[1, 1, 1, 1, 1]");
        check(b"cknown\nA\n.", "Name(\"A\")");
        check(b"\x8c\x05known\x8c\x01B\x93.", "Name(\"B\")");
        check(b"cknown\nA\nK\x01K\x02\x86R.", "Called(2)");
        check(b"cknown\nA\n)RNb.", "Stated");
        // Objects and sets of which nothing is known swallow what is put into them.
        check(b"cknown\nA\n)\x81}bK\x01aK\x01K\x02s(K\x01K\x02u.", "?");
        check(b"cknown\nA\n)}\x92.", "?");
        check(b"(\x8f(K\x01\x90(K\x01\x91t.", "(?, ?)");
    }

    #[test]
    fn what_is_refused_says_where_and_why() {
        let check = |bytes: &[u8], want: &str| {
            let error = printed(bytes).expect_err("refused").to_string();
            assert!(error.contains(want), "{error}");
        };
        check(b"\x80\x02cos\nsystem\n.", "import os.system at byte 2, which is refused");
        check(b"cos\nsystem\n.", "only the known is read");
        check(b"\x8c\x02os\x8c\x06system\x93.", "import os.system at byte 12");
        check(b"cos\nsys\x1btem\n.", "os.sys\\u{1b}tem");
        check(&[b"cos\n".as_slice(), &[b'a'; 1000], b"\n."].concat(), &format!("os.{} at byte", "a".repeat(80)));
        // INST, OBJ, extensions, persistent ids of text and buffers outside build no data.
        for code in *b"io\x82\x83\x84P\x97\x98\0\xff" {
            check(&[b'(', b'N', code, b'.'], &format!("instruction {code:#04x} at byte 2, which is refused: only the"));
        }
        check(b"(d.", "instruction 0x64 at byte 1, which is refused");
        check(b"NQ.", "at byte 1, instruction 0x51: a reference to something outside the pickle");
        check(b"\x8a\x09\0\0\0\0\0\0\0\0\0.", "a number of more than 64 bits");
        check(b"N)R.", "at byte 2, instruction 0x52: a call of nothing");
        check(b"cknown\nA\nNR.", "a call needs a tuple of arguments");
        check(b"]Nb.", "a state of nothing");
        check(b"NK\x01a.", "it needs a list");
        check(b"]K\x01K\x02s.", "it needs a dictionary");
        check(b"}(K\x01u.", "a key without a value");
        check(b"h\x01.", "a place that nothing was put in");
        check(b"gone\n.", "a place that is no number");
        check(b"Ione\n.", "a number that is none");
        check(b"Sa\n.", "a string without its quotes");
        check(b"X\x01\0\0\0\xff.", "a text that is not UTF-8");
        check(b"NN\x93.", "it needs two texts");
        for bytes in
            [b".".as_slice(), b"0.", b"(0.", b"N(\x85.", b"N(2.", b"Nb.", b"R.", b"N\x81.", b"NN\x92.", b"q\0."]
        {
            check(bytes, "it needs a longer stack");
        }
        check(b"t.", "it needs a mark");
        check(b"", "byte 0 does not end within its 0 bytes");
        check(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "byte 0 does not end within its 10 bytes");
        check(b"N\x8b\xff\xff\xff\xff.", "byte 1 does not end within its 7 bytes");
        check(b"Kc", "byte 2 does not end within its 2 bytes");
    }

    #[test]
    fn the_number_of_instructions_is_bounded() {
        let mut bytes = b"N2".repeat(MAX_INSTRUCTIONS / 2);
        bytes.push(b'.');
        let want = PickleError::TooMuch { what: "instructions", limit: MAX_INSTRUCTIONS };
        assert_eq!(printed(&bytes), Err(want));
        assert_eq!(printed(&bytes[2..]).as_deref(), Ok("_"));
    }

    #[test]
    fn a_list_that_holds_itself_is_finite() {
        assert_eq!(printed(b"]q\x01h\x01a.").as_deref(), Ok("[[[]]]"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = printed(&bytes);
        }

        /// Nearly all random bytes end at once; these mostly go on.
        #[test]
        fn no_program_makes_it_panic(codes in prop::collection::vec(prop::sample::select(&b"(012NK]})ltaesuqh\x85\x86\x87\x94\x8f\x90\x91Rb"[..]), 0..200)) {
            let mut bytes = b"cknown\nA\n)".repeat(4);
            for code in codes {
                bytes.push(code);
                if matches!(code, b'K' | b'q' | b'h') {
                    bytes.push(code % 3);
                }
            }
            bytes.push(b'.');
            let _ = printed(&bytes);
        }
    }
}
