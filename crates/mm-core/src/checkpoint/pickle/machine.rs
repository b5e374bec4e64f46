//! The pickle reader: a stack machine that executes nothing.
//!
//! A pickle is a program that may call any Python function. This machine knows the opcodes that build dictionaries of
//! tensors and arrays, and the few names that these need (`globals.rs`); any other is an error.

use super::value::{Items, Pairs, Value};
use crate::DType;
use std::{collections::BTreeMap, rc::Rc};

/// A stack machine that knows the opcodes which build dictionaries of tensors and arrays.
pub(super) struct Machine<'a> {
    pub(super) bytes: &'a [u8],
    /// Position in the bytes.
    pub(super) at: usize,
    pub(super) stack: Vec<Value>,
    marks: Vec<usize>,
    memo: BTreeMap<usize, Value>,
    /// Type and number of elements of the storages that were referred to.
    pub(super) storages: BTreeMap<Rc<str>, (DType, usize)>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, stack: Vec::new(), marks: Vec::new(), memo: BTreeMap::new(), storages: BTreeMap::new() }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).ok_or("a length that overflows")?;
        let found = self.bytes.get(self.at..end).ok_or("the pickle is truncated; download it again")?;
        self.at = end;
        Ok(found)
    }

    fn number<const N: usize>(&mut self) -> Result<usize, String> {
        let mut wide = [0u8; 8];
        wide[..N].copy_from_slice(self.take(N)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|e| e.to_string())
    }

    fn text(&mut self, count: usize) -> Result<Value, String> {
        Ok(Value::Text(String::from_utf8_lossy(self.take(count)?).into()))
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|b| *b == b'\n').ok_or("the pickle is truncated")?;
        let text = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.at += end + 1;
        Ok(text)
    }

    fn pop(&mut self) -> Result<Value, String> {
        self.stack.pop().ok_or_else(|| "the pickle pops from an empty stack".into())
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().filter(|m| *m <= self.stack.len()).ok_or("the pickle lacks a mark")?;
        Ok(self.stack.split_off(mark))
    }

    /// The next bytes of the file, by position: Python 2's strings and bytes.
    fn raw(&mut self, count: usize) -> Result<Value, String> {
        let from = self.at;
        self.take(count)?;
        Ok(Value::Raw(from, count))
    }

    /// The text of a value, however it was written.
    pub(super) fn text_of(&self, value: &Value) -> Option<Rc<str>> {
        match value {
            Value::Text(text) => Some(text.clone()),
            Value::Raw(from, count) => {
                std::str::from_utf8(self.bytes.get(*from..from.checked_add(*count)?)?).ok().map(Rc::from)
            }
            _ => None,
        }
    }

    /// Runs the next pickle in the bytes and returns its object.
    pub(super) fn run(&mut self) -> Result<Value, String> {
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        loop {
            let op = self.take(1)?[0];
            match op {
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.marks.push(self.stack.len()),
                b'.' => return self.pop(),
                b'0' => drop(self.pop()?),
                b'N' => self.stack.push(Value::None),
                0x88 | 0x89 => self.stack.push(Value::Bool(op == 0x88)),
                b'K' => {
                    let n = self.number::<1>()?;
                    self.stack.push(Value::Int(n as i64));
                }
                b'M' => {
                    let n = self.number::<2>()?;
                    self.stack.push(Value::Int(n as i64));
                }
                b'J' => {
                    let n = self.number::<4>()?;
                    self.stack.push(Value::Int(i64::from(n as u32 as i32)));
                }
                0x8a => {
                    let count = self.number::<1>()?;
                    let raw = self.take(count)?;
                    let mut wide = if raw.last().is_some_and(|b| *b >= 0x80) { [0xffu8; 8] } else { [0u8; 8] };
                    let length = raw.len().min(8);
                    wide[..length].copy_from_slice(&raw[..length]);
                    // Bytes beyond the eighth only repeat the sign.
                    let sign = if wide[7] >= 0x80 { 0xff } else { 0 };
                    let fits = raw[length..].iter().all(|b| *b == sign);
                    self.stack.push(if fits { Value::Int(i64::from_le_bytes(wide)) } else { Value::LongInt });
                }
                b'G' => {
                    let mut wide = [0u8; 8];
                    wide.copy_from_slice(self.take(8)?);
                    self.stack.push(Value::Float(f64::from_be_bytes(wide)));
                }
                b'X' => {
                    let n = self.number::<4>()?;
                    let v = self.text(n)?;
                    self.stack.push(v);
                }
                0x8c => {
                    let n = self.number::<1>()?;
                    let v = self.text(n)?;
                    self.stack.push(v);
                }
                0x8d => {
                    let n = self.number::<8>()?;
                    let v = self.text(n)?;
                    self.stack.push(v);
                }
                b'U' | b'C' => {
                    let n = self.number::<1>()?;
                    let v = self.raw(n)?;
                    self.stack.push(v);
                }
                b'T' | b'B' => {
                    let n = self.number::<4>()?;
                    let v = self.raw(n)?;
                    self.stack.push(v);
                }
                0x8e | 0x96 => {
                    let n = self.number::<8>()?;
                    let v = self.raw(n)?;
                    self.stack.push(v);
                }
                b']' => self.stack.push(Value::List(Rc::default())),
                b'}' => self.stack.push(Value::Dict(Rc::default())),
                b')' => self.stack.push(Value::Tuple(Rc::default())),
                b't' => {
                    let items = self.pop_mark()?;
                    self.stack.push(Value::Tuple(Items::new(items)));
                }
                b'l' => {
                    let items = self.pop_mark()?;
                    self.stack.push(Value::List(Items::new(items)));
                }
                b'd' => {
                    let items = self.pop_mark()?;
                    let items = pairs(items).map(|pair| self.keyed(pair)).collect();
                    self.stack.push(Value::Dict(Pairs::new(items)));
                }
                0x85..=0x87 => {
                    let count = usize::from(op - 0x84);
                    let from = self.stack.len().checked_sub(count).ok_or("the pickle pops from an empty stack")?;
                    let items = self.stack.split_off(from);
                    self.stack.push(Value::Tuple(Items::new(items)));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.insert(vec![(key, value)])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.insert(pairs(items).collect())?;
                }
                b'q' => {
                    let n = self.number::<1>()?;
                    self.memoize(n)?;
                }
                b'r' => {
                    let n = self.number::<4>()?;
                    self.memoize(n)?;
                }
                0x94 => self.memoize(self.memo.len())?,
                b'h' => {
                    let n = self.number::<1>()?;
                    self.recall(n)?;
                }
                b'j' => {
                    let n = self.number::<4>()?;
                    self.recall(n)?;
                }
                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.global(&module, &name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Some(module), Some(name)) = (self.text_of(&module), self.text_of(&name)) else {
                        return Err("the pickle asks for a name that is not text".into());
                    };
                    self.global(&module, &name)?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.storage(id)?;
                }
                b'R' => {
                    let arguments = self.pop()?;
                    let function = self.pop()?;
                    self.call(function, arguments)?;
                }
                b'b' => {
                    let state = self.pop()?;
                    self.build(&state)?;
                }
                other => {
                    return Err(format!(
                        "pickle opcode 0x{other:02x} at byte {} is not needed by tensors and arrays and was refused; convert the file with the program that wrote it",
                        self.at - 1
                    ));
                }
            }
        }
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), String> {
        match self.stack.last() {
            Some(Value::List(list)) => list.extend(items),
            _ => return Err("the pickle appends to something that is not a list".into()),
        }
        Ok(())
    }

    /// A dictionary's key and value, with a Python 2 string as key turned into text.
    pub(super) fn keyed(&self, (key, value): (Value, Value)) -> (Value, Value) {
        (self.text_of(&key).map_or(key, Value::Text), value)
    }

    fn insert(&mut self, items: Vec<(Value, Value)>) -> Result<(), String> {
        match self.stack.last() {
            Some(Value::Dict(dict)) => dict.extend(items.into_iter().map(|pair| self.keyed(pair))),
            _ => return Err("the pickle inserts into something that is not a dictionary".into()),
        }
        Ok(())
    }

    fn memoize(&mut self, key: usize) -> Result<(), String> {
        let top = self.stack.last().cloned().ok_or("the pickle pops from an empty stack")?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: usize) -> Result<(), String> {
        let value = self.memo.get(&key).cloned().ok_or("the pickle recalls a value that it did not memoize")?;
        self.stack.push(value);
        Ok(())
    }
}

fn pairs(items: Vec<Value>) -> impl Iterator<Item = (Value, Value)> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || Some((items.next()?, items.next()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_2_strings_are_keys() {
        // {'a': 1} by each opcode that builds a dictionary, the key as a Python 2 string.
        for program in [&b"\x80\x02}U\x01aK\x01s."[..], b"\x80\x02}(U\x01aK\x01u.", b"\x80\x02(U\x01aK\x01d."] {
            let Value::Dict(items) = Machine::new(program).run().unwrap() else { panic!("expected a dictionary") };
            assert!(matches!(&items.get()[..], [(Value::Text(key), Value::Int(1))] if &**key == "a"));
        }
    }

    #[test]
    fn long_integers_are_distinguished_from_those_that_fit() {
        let read = |bytes: &[u8]| {
            let program = [&[0x8a, bytes.len() as u8], bytes, b"."].concat();
            Machine::new(&program).run().unwrap()
        };
        assert!(matches!(read(&[]), Value::Int(0)));
        assert!(matches!(read(&[0xff]), Value::Int(-1)));
        assert!(matches!(read(&[0xff; 9]), Value::Int(-1)));
        assert!(matches!(read(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0xff]), Value::Int(i64::MIN)));
        // 2⁶³ and 2⁶⁴ do not fit.
        assert!(matches!(read(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0]), Value::LongInt));
        assert!(matches!(read(&[0, 0, 0, 0, 0, 0, 0, 0, 1]), Value::LongInt));
    }
}
