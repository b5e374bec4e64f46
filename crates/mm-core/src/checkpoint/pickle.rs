//! Tensors out of `PyTorch`'s pickles (zipped since 1.6, legacy before), and plain objects and `NumPy`'s arrays, without executing anything.
//!
//! A pickle is a program for a small stack machine that may call any Python function. This machine knows the opcodes that build
//! dictionaries of tensors and arrays and the handful of names that they need; any other name is refused and told.

use super::Location;
use crate::{DType, Error, Result};
use memmap2::MmapMut;
use std::{cell::RefCell, collections::BTreeMap, io::Cursor, path::Path, rc::Rc, sync::Arc};

#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// Bytes that lie in the file, from here and so many: Python 2's strings too.
    Raw(usize, usize),
    /// Bytes that a pickle of an old protocol wrote as text.
    Bytes(Rc<Vec<u8>>),
    /// A `NumPy` array as far as it is told yet.
    Array(Rc<RefCell<ArrayParts>>),
    /// A `NumPy` type of numbers: `f4`, and `<`, `>` or `|`.
    Dtype(Rc<RefCell<(String, char)>>),
    Tuple(Vec<Value>),
    List(Rc<RefCell<Vec<Value>>>),
    Dict(Rc<RefCell<Vec<(Value, Value)>>>),
    Global(String),
    Storage {
        key: String,
        dtype: DType,
        count: usize,
    },
    Tensor(Box<View>),
}

/// What a pickle says of a `NumPy` array.
#[derive(Debug, Clone, Default)]
pub(super) struct ArrayParts {
    pub(super) shape: Vec<i64>,
    pub(super) dtype: Option<(String, char)>,
    pub(super) fortran: bool,
    /// Bytes, or the list of an array of objects.
    pub(super) data: Option<Value>,
}

#[derive(Debug, Clone)]
pub(super) struct View {
    key: String,
    dtype: DType,
    count: usize,
    offset: usize,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

/// Reads the names, shapes and places of all tensors in a `.bin`, `.pt` or `.pth` file.
pub(super) fn read(file: &Path, map: &Arc<MmapMut>) -> Result<BTreeMap<String, Location>> {
    let bad = |reason: String| Error::file(file, reason);
    let (root, places) = if map.starts_with(b"PK") { zipped(map) } else { legacy(map) }.map_err(bad)?;
    let mut views = Vec::new();
    flatten("", &unwrap_state(root), &mut views, 0).map_err(bad)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in views {
        let (start, bytes) =
            *places.get(&view.key).ok_or_else(|| bad(format!("{name}: its storage {} is missing", view.key)))?;
        tensors.insert(name.clone(), place(map, &view, start, bytes).map_err(|e| bad(format!("{name}: {e}")))?);
    }
    if tensors.is_empty() {
        return Err(bad("holds no tensors by name; wanted a state_dict".into()));
    }
    Ok(tensors)
}

/// Trainers wrap the weights: `{"state_dict": …, "epoch": …}`.
fn unwrap_state(root: Value) -> Value {
    if let Value::Dict(items) = &root {
        for wanted in ["state_dict", "model_state_dict", "model"] {
            for (key, value) in items.borrow().iter() {
                if matches!((key, value), (Value::Text(k), Value::Dict(_)) if k == wanted) {
                    return value.clone();
                }
            }
        }
    }
    root
}

fn flatten(prefix: &str, value: &Value, out: &mut Vec<(String, View)>, depth: usize) -> Result<(), String> {
    if depth > 64 {
        return Err("dictionaries nested deeper than 64".into());
    }
    match value {
        Value::Tensor(view) => out.push((prefix.to_owned(), (**view).clone())),
        Value::Dict(items) => {
            for (key, value) in items.borrow().iter() {
                let key = match key {
                    Value::Text(text) => text.clone(),
                    Value::Int(number) => number.to_string(),
                    _ => continue,
                };
                let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                flatten(&name, value, out, depth + 1)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn place(map: &Arc<MmapMut>, view: &View, start: usize, bytes: usize) -> Result<Location, String> {
    let size = view.dtype.size();
    let mut ordered = Vec::new();
    let mut step = 1i64;
    for length in view.shape.iter().rev() {
        ordered.insert(0, step);
        step = step.checked_mul((*length).max(1)).ok_or("its sizes overflow")?;
    }
    let empty = view.shape.contains(&0);
    // The last element that the view touches must lie inside its storage.
    let mut last = 0i64;
    for (length, stride) in view.shape.iter().zip(&view.strides) {
        if *length < 0 || *stride < 0 {
            return Err("a negative size".into());
        }
        last =
            (length - 1).max(0).checked_mul(*stride).and_then(|v| v.checked_add(last)).ok_or("its sizes overflow")?;
    }
    let touched = if empty { 0 } else { usize::try_from(last).map_err(|e| e.to_string())? + 1 };
    let end = view.offset.checked_add(touched).ok_or("its sizes overflow")?;
    if end > view.count || end.checked_mul(size).is_none_or(|b| b > bytes) {
        return Err(format!("reaches element {end} of a storage of {} ({bytes} bytes)", view.count));
    }
    // A dimension of one may have any stride.
    let strided = view.shape.iter().zip(&view.strides).zip(&ordered).any(|((n, s), o)| *n > 1 && s != o);
    Ok(Location {
        map: map.clone(),
        start: start + view.offset * size,
        bytes: touched * size,
        shape: view.shape.clone(),
        strides: strided.then(|| view.strides.clone()),
        dtype: view.dtype,
    })
}

type Places = BTreeMap<String, (usize, usize)>;

fn zipped(map: &MmapMut) -> Result<(Value, Places), String> {
    let broken = |e: zip::result::ZipError| format!("not a whole PyTorch file ({e}); fetch it again");
    let mut archive = zip::ZipArchive::new(Cursor::new(&map[..])).map_err(broken)?;
    let (mut program, mut places) = (None, Places::new());
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(broken)?;
        if entry.compression() != zip::CompressionMethod::Stored {
            return Err(format!("{} is compressed, which PyTorch never does", entry.name()));
        }
        let start = usize::try_from(entry.data_start()).map_err(|e| e.to_string())?;
        let length = usize::try_from(entry.size()).map_err(|e| e.to_string())?;
        if start.checked_add(length).is_none_or(|end| end > map.len()) {
            return Err(format!("{} reaches past the end of the file; fetch it again", entry.name()));
        }
        let name = entry.name().to_owned();
        if name.ends_with("/data.pkl") || name == "data.pkl" {
            program = Some((start, length));
        } else if let Some((_, key)) = name.split_once("data/") {
            places.insert(key.to_owned(), (start, length));
        }
    }
    let (start, length) = program.ok_or("a zip without data.pkl, so not a PyTorch file")?;
    let mut machine = Machine::new(&map[start..start + length]);
    Ok((machine.run()?, places))
}

fn legacy(map: &MmapMut) -> Result<(Value, Places), String> {
    let mut machine = Machine::new(map);
    // Magic number, protocol version, system information, then the object and the order of its storages.
    let magic = machine.run()?;
    if !matches!(magic, Value::Int(_)) {
        return Ok((magic, Places::new()));
    }
    machine.run()?;
    machine.run()?;
    let root = machine.run()?;
    let storages = machine.storages.clone();
    let Value::List(keys) = machine.run()? else {
        return Err("a legacy PyTorch file without its list of storages".into());
    };
    let mut at = machine.at;
    let mut places = Places::new();
    for key in keys.borrow().iter() {
        let key = &machine.words(key).ok_or("a storage key that is not text")?;
        let (dtype, count) = storages.get(key).ok_or_else(|| format!("storage {key} is listed but not used"))?;
        let head: [u8; 8] = map.get(at..at + 8).and_then(|b| b.try_into().ok()).ok_or("cut short; fetch it again")?;
        if u64::from_le_bytes(head) != *count as u64 {
            return Err(format!("storage {key} says {} numbers, its tensors say {count}", u64::from_le_bytes(head)));
        }
        let bytes = count.checked_mul(dtype.size()).ok_or("a size that overflows")?;
        at += 8;
        if at.checked_add(bytes).is_none_or(|end| end > map.len()) {
            return Err("cut short; fetch it again".into());
        }
        places.insert(key.clone(), (at, bytes));
        at += bytes;
    }
    Ok((root, places))
}

pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: BTreeMap<usize, Value>,
    storages: BTreeMap<String, (DType, usize)>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, stack: Vec::new(), marks: Vec::new(), memo: BTreeMap::new(), storages: BTreeMap::new() }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).ok_or("a length that overflows")?;
        let found = self.bytes.get(self.at..end).ok_or("a pickle that is cut short; fetch it again")?;
        self.at = end;
        Ok(found)
    }

    fn number<const N: usize>(&mut self) -> Result<usize, String> {
        let mut wide = [0u8; 8];
        wide[..N].copy_from_slice(self.take(N)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|e| e.to_string())
    }

    fn text(&mut self, count: usize) -> Result<Value, String> {
        Ok(Value::Text(String::from_utf8_lossy(self.take(count)?).into_owned()))
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|b| *b == b'\n').ok_or("a pickle that is cut short")?;
        let text = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.at += end + 1;
        Ok(text)
    }

    fn pop(&mut self) -> Result<Value, String> {
        self.stack.pop().ok_or_else(|| "a pickle that takes more than it has".into())
    }

    fn since_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().filter(|m| *m <= self.stack.len()).ok_or("a pickle without its mark")?;
        Ok(self.stack.split_off(mark))
    }

    /// Bytes of the file by place: Python 2's strings as text, where they are that.
    fn raw(&mut self, count: usize) -> Result<Value, String> {
        let from = self.at;
        self.take(count)?;
        Ok(Value::Raw(from, count))
    }

    /// A text, whichever way it was written.
    fn words(&self, value: &Value) -> Option<String> {
        match value {
            Value::Text(text) => Some(text.clone()),
            Value::Raw(from, count) => {
                std::str::from_utf8(self.bytes.get(*from..from.checked_add(*count)?)?).ok().map(ToOwned::to_owned)
            }
            _ => None,
        }
    }

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
                    let kept = raw.len().min(8);
                    wide[..kept].copy_from_slice(&raw[..kept]);
                    self.stack.push(Value::Int(i64::from_le_bytes(wide)));
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
                b')' => self.stack.push(Value::Tuple(Vec::new())),
                b't' => {
                    let items = self.since_mark()?;
                    self.stack.push(Value::Tuple(items));
                }
                b'l' => {
                    let items = self.since_mark()?;
                    self.stack.push(Value::List(Rc::new(RefCell::new(items))));
                }
                b'd' => {
                    let items = self.since_mark()?;
                    let items = pairs(items).map(|pair| self.keyed(pair)).collect();
                    self.stack.push(Value::Dict(Rc::new(RefCell::new(items))));
                }
                0x85..=0x87 => {
                    let count = usize::from(op - 0x84);
                    let from = self.stack.len().checked_sub(count).ok_or("a pickle that takes more than it has")?;
                    let items = self.stack.split_off(from);
                    self.stack.push(Value::Tuple(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.since_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.insert(vec![(key, value)])?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.insert(pairs(items).collect())?;
                }
                b'q' => {
                    let n = self.number::<1>()?;
                    self.remember(n)?;
                }
                b'r' => {
                    let n = self.number::<4>()?;
                    self.remember(n)?;
                }
                0x94 => self.remember(self.memo.len())?,
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
                    let (Some(module), Some(name)) = (self.words(&module), self.words(&name)) else {
                        return Err("a name that is not text".into());
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
                        "pickle opcode 0x{other:02x} at byte {} is none that tensors and arrays need; refused. Convert the file with the program that wrote it",
                        self.at - 1
                    ));
                }
            }
        }
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), String> {
        match self.stack.last() {
            Some(Value::List(list)) => list.borrow_mut().extend(items),
            _ => return Err("a pickle that appends to what is not a list".into()),
        }
        Ok(())
    }

    /// A dictionary's key and value; Python 2's strings are keys as texts are.
    fn keyed(&self, (key, value): (Value, Value)) -> (Value, Value) {
        (self.words(&key).map_or(key, Value::Text), value)
    }

    fn insert(&mut self, items: Vec<(Value, Value)>) -> Result<(), String> {
        match self.stack.last() {
            Some(Value::Dict(dict)) => dict.borrow_mut().extend(items.into_iter().map(|pair| self.keyed(pair))),
            _ => return Err("a pickle that inserts into what is not a dictionary".into()),
        }
        Ok(())
    }

    fn remember(&mut self, key: usize) -> Result<(), String> {
        let top = self.stack.last().cloned().ok_or("a pickle that takes more than it has")?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: usize) -> Result<(), String> {
        let value = self.memo.get(&key).cloned().ok_or("a pickle that recalls what it never kept")?;
        self.stack.push(value);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let known = match module {
            "collections" => name == "OrderedDict",
            "torch._utils" => ["_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_parameter"].contains(&name),
            "torch" => name.ends_with("Storage") || name == "Size" || dtype_of(name).is_some(),
            "torch.storage" => name == "_load_from_bytes" || name.ends_with("Storage"),
            "numpy.core.multiarray" | "numpy._core.multiarray" => ["_reconstruct", "scalar"].contains(&name),
            "numpy.core.numeric" | "numpy._core.numeric" => name == "_frombuffer",
            "numpy" => ["ndarray", "dtype"].contains(&name),
            "_codecs" => name == "encode",
            _ => false,
        };
        if !known || name == "_load_from_bytes" {
            return Err(format!(
                "the pickle asks for {module}.{name}, which tensors and arrays do not need; refused, and nothing was executed. Convert the file with the program that wrote it"
            ));
        }
        // What NumPy 2 renamed is the same.
        self.stack.push(Value::Global(format!("{}.{name}", module.replace("numpy._core", "numpy.core"))));
        Ok(())
    }

    fn storage(&mut self, id: Value) -> Result<(), String> {
        let Value::Tuple(parts) = id else { return Err("a storage id that is not a tuple".into()) };
        let [_, Value::Global(kind), key, _, Value::Int(count), ..] = parts.as_slice() else {
            return Err("a storage id of another form than PyTorch's".into());
        };
        let key = self.words(key).ok_or("a storage key that is not text")?;
        let kind = kind.rsplit('.').next().unwrap_or_default();
        let dtype = dtype_of(kind.trim_end_matches("Storage"))
            .ok_or_else(|| format!("{kind} is of a type mm does not read"))?;
        let count = usize::try_from(*count).map_err(|_| "a storage of negative size".to_owned())?;
        self.storages.insert(key.clone(), (dtype, count));
        self.stack.push(Value::Storage { key, dtype, count });
        Ok(())
    }

    /// Sets the state of the object below: of arrays and their types. Of others it is what their attributes are (an `OrderedDict`'s
    /// `_metadata`), which tensors do not need.
    fn build(&mut self, state: &Value) -> Result<(), String> {
        match (self.stack.last(), state) {
            (Some(Value::Dtype(dtype)), Value::Tuple(state)) => {
                let order = state.get(1).and_then(|o| self.words(o)).and_then(|o| o.chars().next());
                dtype.borrow_mut().1 = order.ok_or("a NumPy type without its order of bytes")?;
                if matches!(state.get(3), Some(Value::None)) || state.len() < 4 {
                    Ok(())
                } else {
                    Err("an array of records; wanted plain numbers or texts".into())
                }
            }
            (Some(Value::Array(array)), Value::Tuple(state)) => {
                let [_, Value::Tuple(shape), Value::Dtype(dtype), fortran, data] = state.as_slice() else {
                    return Err("the state of a NumPy array in a form that NumPy does not write".into());
                };
                let fortran = matches!(fortran, Value::Bool(true) | Value::Int(1));
                *array.borrow_mut() = ArrayParts {
                    shape: sizes(shape)?,
                    dtype: Some(dtype.borrow().clone()),
                    fortran,
                    data: Some(data.clone()),
                };
                Ok(())
            }
            (Some(_), _) => Ok(()),
            (None, _) => Err("a pickle that sets the state of nothing".into()),
        }
    }

    /// One number of a `NumPy` type.
    fn scalar(&self, dtype: &(String, char), data: &Value) -> Result<Value, String> {
        let bytes: &[u8] = match data {
            Value::Raw(from, count) => self.bytes.get(*from..from + count).ok_or("a scalar beyond the file")?,
            Value::Bytes(bytes) => bytes,
            _ => return Err("a NumPy number without its bytes".into()),
        };
        let made = super::objects::Numbers::new(&dtype.0, dtype.1)?;
        Ok(match made.read(bytes).first() {
            Some(number) if dtype.0.starts_with('b') => Value::Bool(*number != 0.0),
            Some(number) if !dtype.0.starts_with('f') => Value::Int(*number as i64),
            Some(number) => Value::Float(*number),
            None => return Err("a NumPy number without its bytes".into()),
        })
    }

    fn call(&mut self, function: Value, arguments: Value) -> Result<(), String> {
        let (Value::Global(name), Value::Tuple(arguments)) = (function, arguments) else {
            return Err("a call of what is not a name".into());
        };
        let made = match (name.as_str(), arguments.as_slice()) {
            ("collections.OrderedDict", []) => Value::Dict(Rc::default()),
            ("collections.OrderedDict", [Value::List(items)]) => {
                let items = items
                    .borrow()
                    .iter()
                    .filter_map(|i| match i {
                        Value::Tuple(p) if p.len() == 2 => Some((p[0].clone(), p[1].clone())),
                        Value::List(p) if p.borrow().len() == 2 => Some((p.borrow()[0].clone(), p.borrow()[1].clone())),
                        _ => None,
                    })
                    .map(|pair| self.keyed(pair))
                    .collect();
                Value::Dict(Rc::new(RefCell::new(items)))
            }
            ("numpy.core.multiarray._reconstruct", [Value::Global(kind), ..]) if kind == "numpy.ndarray" => {
                Value::Array(Rc::default())
            }
            ("numpy.dtype", [kind, ..]) => {
                let kind = self.words(kind).ok_or("a NumPy type without a name")?;
                Value::Dtype(Rc::new(RefCell::new((kind, '|'))))
            }
            ("numpy.core.multiarray.scalar", [Value::Dtype(dtype), data]) => self.scalar(&dtype.borrow(), data)?,
            ("numpy.core.numeric._frombuffer", [data, Value::Dtype(dtype), Value::Tuple(shape), order]) => {
                let fortran = self.words(order).is_some_and(|o| o == "F");
                let parts = ArrayParts {
                    shape: sizes(shape)?,
                    dtype: Some(dtype.borrow().clone()),
                    fortran,
                    data: Some(data.clone()),
                };
                Value::Array(Rc::new(RefCell::new(parts)))
            }
            ("_codecs.encode", [Value::Text(text), how]) if self.words(how).is_some_and(|h| h == "latin1") => {
                let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
                Value::Bytes(Rc::new(bytes.ok_or("bytes written as text that is not Latin-1")?))
            }
            ("torch._utils._rebuild_parameter", [tensor, ..]) => tensor.clone(),
            ("torch.Size", [sizes]) => sizes.clone(),
            (
                "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor",
                [
                    Value::Storage { key, dtype, count },
                    Value::Int(offset),
                    Value::Tuple(shape),
                    Value::Tuple(strides),
                    ..,
                ],
            ) => {
                let view = View {
                    key: key.clone(),
                    dtype: *dtype,
                    count: *count,
                    offset: usize::try_from(*offset).map_err(|_| "a negative offset".to_owned())?,
                    shape: sizes(shape)?,
                    strides: sizes(strides)?,
                };
                if view.shape.len() != view.strides.len() {
                    return Err("a tensor with more sizes than strides".into());
                }
                Value::Tensor(Box::new(view))
            }
            _ => return Err(format!("a call of {name} in a form that neither PyTorch nor NumPy writes; refused")),
        };
        self.stack.push(made);
        Ok(())
    }
}

fn pairs(items: Vec<Value>) -> impl Iterator<Item = (Value, Value)> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || Some((items.next()?, items.next()?)))
}

fn sizes(values: &[Value]) -> Result<Vec<i64>, String> {
    values
        .iter()
        .map(|v| if let Value::Int(n) = v { Ok(*n) } else { Err("a size that is not a number".to_owned()) })
        .collect()
}

fn dtype_of(name: &str) -> Option<DType> {
    Some(match name {
        "Float" | "float32" => DType::F32,
        "Double" | "float64" => DType::F64,
        "Half" | "float16" => DType::F16,
        "BFloat16" | "bfloat16" => DType::BF16,
        "Long" | "int64" => DType::I64,
        "Int" | "int32" => DType::I32,
        "Short" | "int16" => DType::I16,
        "Char" | "int8" => DType::I8,
        "Byte" | "uint8" => DType::U8,
        "Bool" | "bool" => DType::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_python_2_wrote_are_names() {
        // {'a': 1} by each of the ways that a dictionary is made, the key as Python 2's string.
        for program in [&b"\x80\x02}U\x01aK\x01s."[..], b"\x80\x02}(U\x01aK\x01u.", b"\x80\x02(U\x01aK\x01d."] {
            let Value::Dict(items) = Machine::new(program).run().unwrap() else { panic!("wanted a dictionary") };
            assert!(matches!(&items.borrow()[..], [(Value::Text(key), Value::Int(1))] if key == "a"));
        }
    }
}
