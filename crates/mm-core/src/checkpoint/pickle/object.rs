//! Plain objects and `NumPy` arrays in Python's pickles, as data sets are distributed: read, never executed.

use super::{
    super::mmap::MappedFile,
    machine::Machine,
    numpy::NumberType,
    value::{ArrayParts, Value},
};
use crate::{Error, Result, Tensor};
use std::{path::Path, sync::Arc};

/// An object in a pickle.
#[derive(Debug, Clone)]
pub enum Object {
    /// `None`.
    None,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Text, including Python 2 strings that are UTF-8.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list, a tuple, or an array of objects or strings, flattened.
    List(Vec<Object>),
    /// A dictionary, in insertion order.
    Dict(Vec<(Object, Object)>),
    /// An array of numbers.
    Array(Array),
}

/// An array of numbers, which are read on demand.
#[derive(Debug, Clone)]
pub struct Array {
    data: Data,
    shape: Vec<i64>,
    fortran: bool,
    number_type: NumberType,
}

#[derive(Debug, Clone)]
enum Data {
    /// In the file, from this byte on.
    Mapped(Arc<MappedFile>, usize),
    Owned(Arc<Vec<u8>>),
}

impl Array {
    /// The shape.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    fn bytes(&self) -> &[u8] {
        match &self.data {
            // The range was checked when the array was read.
            Data::Mapped(map, start) => &map[*start..*start + self.numel() * self.number_type.size],
            Data::Owned(bytes) => bytes,
        }
    }

    fn numel(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }

    /// All values, as float64.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let flat = Tensor::from_slice(&self.number_type.read(self.bytes()))?;
        if !self.fortran || self.shape.len() < 2 {
            return flat.reshape(&self.shape);
        }
        let reversed: Vec<i64> = self.shape.iter().rev().copied().collect();
        let order: Vec<i64> = (0..self.shape.len() as i64).rev().collect();
        flat.reshape(&reversed)?.permute(&order)?.contiguous()
    }

    /// The values at an index of the first dimension, as float64.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn row(&self, index: usize) -> Result<Tensor> {
        let rows = self.shape.first().copied().unwrap_or(0) as usize;
        if index >= rows {
            return Err(Error::Sample(format!("index {index} is out of range for an array of {rows} rows")));
        }
        if self.fortran && self.shape.len() > 1 {
            return self.to_tensor()?.select(0, index as i64)?.contiguous();
        }
        let width = self.numel() / rows * self.number_type.size;
        let bytes = &self.bytes()[index * width..(index + 1) * width];
        Tensor::from_slice(&self.number_type.read(bytes))?.reshape(&self.shape[1..])
    }
}

impl Object {
    /// The value of a dictionary under a text key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Dict(items) = self else { return None };
        items.iter().find(|(k, _)| matches!(k, Self::Text(t) if t == key)).map(|(_, v)| v)
    }
}

/// Reads a pickle of plain objects and arrays; the values of arrays stay in the file.
///
/// # Errors
/// If the pickle is incomplete or refers to any other Python name.
pub fn read_pickle(path: &Path) -> Result<Object> {
    let map = Arc::new(MappedFile::open(path)?);
    let invalid = |reason: String| Error::file(path, reason);
    let value = Machine::new(&map).run().map_err(invalid)?;
    let mut left = Budget::new(map.len());
    object(&value, &map, 0, &mut left).map_err(invalid)
}

/// Limit on the objects of a file of this many bytes. Values may be referred to any number of times, so that lists of
/// lists could expand a few bytes without bound; what programs write shares much less.
pub(super) fn max_objects(bytes: usize) -> usize {
    bytes.saturating_mul(16).saturating_add(1 << 18)
}

/// What may still be expanded.
struct Budget {
    objects: usize,
    /// Bytes of text.
    text: usize,
}

impl Budget {
    fn new(file: usize) -> Self {
        Self { objects: max_objects(file), text: file.saturating_mul(64).saturating_add(1 << 26) }
    }

    fn take(&mut self, value: &Value) -> std::result::Result<(), String> {
        let text = match value {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::Raw(_, count) => *count,
            _ => 0,
        };
        let left = self.objects.checked_sub(1).zip(self.text.checked_sub(text));
        (self.objects, self.text) =
            left.ok_or("its values refer to each other so often that they expand to far more than the file")?;
        Ok(())
    }
}

fn object(
    value: &Value,
    map: &Arc<MappedFile>,
    depth: usize,
    left: &mut Budget,
) -> std::result::Result<Object, String> {
    if depth > 64 {
        return Err("objects nested deeper than 64".into());
    }
    left.take(value)?;
    let mut list = |items: &[Value]| {
        items
            .iter()
            .map(|i| object(i, map, depth + 1, left))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map(Object::List)
    };
    Ok(match value {
        Value::None => Object::None,
        Value::Bool(b) => Object::Bool(*b),
        Value::Int(n) => Object::Int(*n),
        Value::Float(n) => Object::Float(*n),
        Value::LongInt => return Err("an integer of more than 64 bits".into()),
        Value::Text(text) => Object::Text(text.to_string()),
        Value::Raw(from, count) => bytes(&map[*from..*from + *count]),
        Value::Bytes(all) => bytes(all),
        Value::Tuple(items) | Value::List(items) => list(&items.get())?,
        Value::Dict(items) => {
            let mut out = Vec::new();
            for (key, value) in items.get().iter() {
                out.push((object(key, map, depth + 1, left)?, object(value, map, depth + 1, left)?));
            }
            Object::Dict(out)
        }
        Value::Array(parts) => {
            let parts = parts.borrow();
            match &parts.data {
                Some(Value::List(items)) => list(&items.get())?,
                Some(data) => array(&parts, data, map)?,
                None => return Err("an array without values".into()),
            }
        }
        Value::Tensor(_) | Value::Storage { .. } => {
            return Err("found PyTorch tensors, expected NumPy arrays".into());
        }
        Value::Global(name) => return Err(format!("found the name {name}, expected an object")),
        Value::Dtype(_) => Object::None,
    })
}

fn bytes(raw: &[u8]) -> Object {
    std::str::from_utf8(raw).map_or_else(|_| Object::Bytes(raw.to_vec()), |t| Object::Text(t.to_owned()))
}

fn array(parts: &ArrayParts, data: &Value, map: &Arc<MappedFile>) -> std::result::Result<Object, String> {
    let (name, order) = parts.dtype.as_ref().ok_or("an array without a type")?;
    let count = parts
        .shape
        .iter()
        .try_fold(1usize, |all, s| all.checked_mul(usize::try_from(*s).ok()?))
        .ok_or_else(|| format!("an array of shape {:?}", parts.shape))?;
    let (found, data) = match data {
        Value::Raw(start, length) => (*length, Data::Mapped(map.clone(), *start)),
        Value::Bytes(all) => (all.len(), Data::Owned(Arc::new(all.as_ref().clone()))),
        Value::Text(text) => (text.len(), Data::Owned(Arc::new(text.as_bytes().to_vec()))),
        _ => return Err("an array whose values are not bytes".into()),
    };
    // Strings of one length, with four bytes per character or one.
    if let Some(width @ ('U' | 'S')) = name.chars().next() {
        let letters: usize = name[1..].parse().map_err(|_| format!("an array of type `{name}`"))?;
        let size =
            letters.checked_mul(if width == 'U' { 4 } else { 1 }).filter(|s| s.checked_mul(count) == Some(found));
        let size =
            size.ok_or_else(|| format!("an array of {count} strings of {letters} characters in {found} bytes"))?;
        let all: &[u8] = match &data {
            Data::Mapped(map, start) => &map[*start..*start + found],
            Data::Owned(all) => all,
        };
        let one = |raw: &[u8]| {
            let letter = |c: &[u8]| {
                let four = [c[0], c[1], c[2], c[3]];
                char::from_u32(if *order == '>' { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
            };
            let text: String = if width == 'U' {
                raw.chunks_exact(4).map(|c| letter(c).unwrap_or('\u{fffd}')).collect()
            } else {
                String::from_utf8_lossy(raw).into_owned()
            };
            Object::Text(text.trim_end_matches('\0').to_owned())
        };
        let texts = if size == 0 {
            vec![Object::Text(String::new()); count]
        } else {
            all.chunks_exact(size).map(one).collect()
        };
        return Ok(Object::List(texts));
    }
    let number_type = NumberType::new(name, *order)?;
    if count.checked_mul(number_type.size) != Some(found) {
        return Err(format!("an array of shape {:?} and type {name} in {found} bytes", parts.shape));
    }
    Ok(Object::Array(Array { data, shape: parts.shape.clone(), fortran: parts.fortran, number_type }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Checkpoint;

    /// A pickle of a value that refers to itself twice, `levels` times over.
    fn doubling(start: &[u8], twice: impl Fn(u8) -> Vec<u8>, levels: u8) -> Vec<u8> {
        let mut program = [b"\x80\x02", start].concat();
        for level in 0..levels {
            program.extend([b'q', level]);
            program.extend(twice(level));
        }
        program.push(b'.');
        program
    }

    #[test]
    fn shared_values_do_not_expand_beyond_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str, program: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, program).unwrap();
            (read_pickle(&path).map(drop), Checkpoint::open(&path).map(drop))
        };
        // Tuples `(x, x)`, lists `[x, x]` and dictionaries `{"a": x, "b": x}`, 40 levels deep: 2⁴⁰ values.
        let tuple = doubling(b")", |level| vec![b'h', level, 0x86], 40);
        let list = doubling(b"]", |level| vec![b'0', b']', b'h', level, b'a', b'h', level, b'a'], 40);
        let key = |name: u8, level: u8| [b"X\x01\0\0\0".as_slice(), &[name, b'h', level, b's']].concat();
        let dict = doubling(b"}", |level| [b"0}".as_slice(), &key(b'a', level), &key(b'b', level)].concat(), 40);
        for (name, program) in [("tuple.bin", &tuple), ("list.bin", &list), ("dict.bin", &dict)] {
            let (object, checkpoint) = read(name, program);
            assert!(object.unwrap_err().to_string().contains("expand"), "{name}");
            assert!(checkpoint.is_err(), "{name}");
        }
        // A text of a megabyte that is recalled a thousand times.
        let mut text = b"\x80\x02]q\x01(X\0\0\x10\0".to_vec();
        text.resize(text.len() + (1 << 20), b'x');
        text.extend(b"q\x00");
        text.extend(b"h\x00".repeat(1000));
        text.extend(b"e.");
        assert!(read("text.bin", &text).0.unwrap_err().to_string().contains("expand"));
    }

    #[test]
    fn any_depth_of_nesting_is_an_error_and_not_an_overflow() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep.bin");
        // Tuples of one item, lists that are appended to, dictionaries.
        for (before, after) in [("", "\u{85}"), ("]", "a"), ("}K\u{1}", "s")] {
            let bytes = |text: &str| text.chars().map(|c| c as u8).collect::<Vec<u8>>();
            let program =
                [b"\x80\x02".to_vec(), bytes(before).repeat(100_000), vec![b'N'], bytes(after).repeat(100_000)];
            std::fs::write(&path, [program.concat(), vec![b'.']].concat()).unwrap();
            assert!(read_pickle(&path).unwrap_err().to_string().contains("deeper than 64"));
            assert!(Checkpoint::open(&path).is_err());
        }
    }
}
