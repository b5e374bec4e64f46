//! Plain objects and `NumPy`'s arrays out of Python's pickles, as data sets are passed around: read, never executed.

use super::pickle::{ArrayParts, Machine, Value};
use crate::{Error, Result, Tensor};
use memmap2::MmapMut;
use std::{path::Path, sync::Arc};

/// What a pickle holds.
#[derive(Debug, Clone)]
pub enum Object {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text; Python 2's strings where they are UTF-8.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list, a tuple, or an array of objects or texts (its shape is lost: one after the other).
    List(Vec<Object>),
    /// A dictionary, in its order.
    Dict(Vec<(Object, Object)>),
    /// An array of numbers.
    Array(Array),
}

/// An array of numbers whose numbers are read when asked for.
#[derive(Debug, Clone)]
pub struct Array {
    data: Data,
    shape: Vec<i64>,
    fortran: bool,
    numbers: Numbers,
}

#[derive(Debug, Clone)]
enum Data {
    /// In the file, from this byte on.
    Mapped(Arc<MmapMut>, usize),
    Owned(Arc<Vec<u8>>),
}

/// A `NumPy` type of numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    kind: char,
    size: usize,
    big: bool,
}

impl Numbers {
    pub(super) fn new(name: &str, order: char) -> std::result::Result<Self, String> {
        let mut letters = name.chars();
        let kind = letters.next().unwrap_or(' ');
        let size: usize = letters.as_str().parse().unwrap_or(0);
        let known = matches!((kind, size), ('f', 2 | 4 | 8) | ('i' | 'u', 1 | 2 | 4 | 8) | ('b', 1));
        if known {
            Ok(Self { kind, size, big: order == '>' })
        } else {
            Err(format!("an array of type `{name}`; wanted numbers or texts"))
        }
    }

    pub(super) fn read(self, bytes: &[u8]) -> Vec<f64> {
        let one = |raw: &[u8]| {
            let mut wide = [0u8; 8];
            for (n, byte) in raw.iter().enumerate() {
                wide[if self.big { self.size - 1 - n } else { n }] = *byte;
            }
            let low = u64::from_le_bytes(wide);
            match (self.kind, self.size) {
                ('f', 2) => half::f16::from_bits(low as u16).to_f64(),
                ('f', 4) => f64::from(f32::from_bits(low as u32)),
                ('f', _) => f64::from_bits(low),
                ('i', size) => {
                    let unused = 64 - 8 * size as u32;
                    ((low << unused) as i64 >> unused) as f64
                }
                _ => low as f64,
            }
        };
        bytes.chunks_exact(self.size).map(one).collect()
    }
}

impl Array {
    /// Its shape.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    fn bytes(&self) -> &[u8] {
        match &self.data {
            // AttentionStep at when it was made.
            Data::Mapped(map, start) => &map[*start..*start + self.count() * self.numbers.size],
            Data::Owned(bytes) => bytes,
        }
    }

    fn count(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }

    /// All its numbers, float64.
    pub fn all(&self) -> Result<Tensor> {
        let flat = Tensor::from_slice(&self.numbers.read(self.bytes()))?;
        if !self.fortran || self.shape.len() < 2 {
            return flat.reshape(&self.shape);
        }
        let turned: Vec<i64> = self.shape.iter().rev().copied().collect();
        let order: Vec<i64> = (0..self.shape.len() as i64).rev().collect();
        flat.reshape(&turned)?.permute(&order)?.contiguous()
    }

    /// What stands at this place of its first dimension, float64.
    pub fn row(&self, number: usize) -> Result<Tensor> {
        let rows = self.shape.first().copied().unwrap_or(0) as usize;
        if number >= rows {
            return Err(Error::Sample(format!("found an array of {rows} rows, wanted row {number}")));
        }
        if self.fortran && self.shape.len() > 1 {
            return self.all()?.select(0, number as i64)?.contiguous();
        }
        let width = self.count() / rows * self.numbers.size;
        let bytes = &self.bytes()[number * width..(number + 1) * width];
        Tensor::from_slice(&self.numbers.read(bytes))?.reshape(&self.shape[1..])
    }
}

impl Object {
    /// What a dictionary has under this key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Dict(items) = self else { return None };
        items.iter().find(|(k, _)| matches!(k, Self::Text(t) if t == key)).map(|(_, v)| v)
    }
}

/// Reads a pickle of plain objects and arrays. Names of anything else are refused; the numbers of arrays stay in the file.
pub fn read_pickle(path: &Path) -> Result<Object> {
    let map = Arc::new(super::map(path)?);
    let bad = |reason: String| Error::file(path, reason);
    let value = Machine::new(&map).run().map_err(bad)?;
    let mut left = MOST;
    object(&value, &map, 0, &mut left).map_err(bad)
}

/// Objects of one file: lists that hold each other could make any number of few bytes.
const MOST: usize = 50_000_000;

fn object(value: &Value, map: &Arc<MmapMut>, depth: usize, left: &mut usize) -> std::result::Result<Object, String> {
    if depth > 64 {
        return Err("objects nested deeper than 64".into());
    }
    *left = left.checked_sub(1).ok_or_else(|| format!("more than {MOST} objects"))?;
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
        Value::Text(text) => Object::Text(text.clone()),
        Value::Raw(from, count) => bytes(&map[*from..*from + *count]),
        Value::Bytes(all) => bytes(all),
        Value::Tuple(items) => list(items)?,
        Value::List(items) => list(&items.borrow())?,
        Value::Dict(items) => {
            let mut out = Vec::new();
            for (key, value) in items.borrow().iter() {
                out.push((object(key, map, depth + 1, left)?, object(value, map, depth + 1, left)?));
            }
            Object::Dict(out)
        }
        Value::Array(parts) => {
            let parts = parts.borrow();
            match &parts.data {
                Some(Value::List(items)) => list(&items.borrow())?,
                Some(data) => array(&parts, data, map)?,
                None => return Err("an array without numbers".into()),
            }
        }
        Value::Tensor(_) | Value::Storage { .. } => {
            return Err("holds PyTorch's tensors; wanted NumPy's arrays".into());
        }
        Value::Global(name) => return Err(format!("holds {name} itself, not an object")),
        Value::Dtype(_) => Object::None,
    })
}

fn bytes(raw: &[u8]) -> Object {
    std::str::from_utf8(raw).map_or_else(|_| Object::Bytes(raw.to_vec()), |t| Object::Text(t.to_owned()))
}

fn array(parts: &ArrayParts, data: &Value, map: &Arc<MmapMut>) -> std::result::Result<Object, String> {
    let (name, order) = parts.dtype.as_ref().ok_or("an array without a type")?;
    let count = parts
        .shape
        .iter()
        .try_fold(1usize, |all, s| all.checked_mul(usize::try_from(*s).ok()?))
        .ok_or_else(|| format!("an array of shape {:?}", parts.shape))?;
    let (found, data) = match data {
        Value::Raw(start, length) => (*length, Data::Mapped(map.clone(), *start)),
        Value::Bytes(all) => (all.len(), Data::Owned(Arc::new(all.as_ref().clone()))),
        Value::Text(text) => (text.len(), Data::Owned(Arc::new(text.clone().into_bytes()))),
        _ => return Err("an array whose numbers are no bytes".into()),
    };
    // Texts of one length, four bytes a letter or one.
    if let Some(width @ ('U' | 'S')) = name.chars().next() {
        let letters: usize = name[1..].parse().map_err(|_| format!("an array of type `{name}`"))?;
        let size =
            letters.checked_mul(if width == 'U' { 4 } else { 1 }).filter(|s| s.checked_mul(count) == Some(found));
        let size = size.ok_or_else(|| format!("an array of {count} texts of {letters} letters in {found} bytes"))?;
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
    let numbers = Numbers::new(name, *order)?;
    if count.checked_mul(numbers.size) != Some(found) {
        return Err(format!("an array of shape {:?} and type {name} in {found} bytes", parts.shape));
    }
    Ok(Object::Array(Array { data, shape: parts.shape.clone(), fortran: parts.fortran, numbers }))
}
