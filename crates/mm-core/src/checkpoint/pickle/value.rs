//! Values on the stack of the pickle reader. All of them are cheap to clone, since a pickle may recall a value any
//! number of times, and nothing is dropped recursively, since it may nest them to any depth.

use crate::DType;
use std::{
    cell::{Ref, RefCell},
    rc::Rc,
};

/// A Python object, as far as tensors, arrays and plain objects need it.
#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits.
    LongInt,
    Float(f64),
    Text(Rc<str>),
    /// Bytes in the file, by start and length: Python 2's strings too.
    Raw(usize, usize),
    /// Bytes that an old protocol wrote as text.
    Bytes(Rc<Vec<u8>>),
    /// A `NumPy` array, whose state may still be missing.
    Array(Rc<RefCell<ArrayParts>>),
    /// A `NumPy` number type: its name (`f4`) and byte order (`<`, `>` or `|`).
    Dtype(Rc<RefCell<(String, char)>>),
    Tuple(Rc<Items>),
    List(Rc<Items>),
    Dict(Rc<Pairs>),
    Global(Rc<str>),
    Storage {
        key: Rc<str>,
        dtype: DType,
        count: usize,
    },
    Tensor(Rc<TensorView>),
}

/// The items of a list or tuple.
#[derive(Debug, Default)]
pub(super) struct Items(RefCell<Vec<Value>>);

/// The keys and values of a dictionary, in insertion order.
#[derive(Debug, Default)]
pub(super) struct Pairs(RefCell<Vec<(Value, Value)>>);

/// The state of a `NumPy` array.
#[derive(Debug, Clone, Default)]
pub(super) struct ArrayParts {
    pub(super) shape: Vec<i64>,
    pub(super) dtype: Option<(String, char)>,
    pub(super) fortran: bool,
    /// Bytes, or the list of an array of objects.
    pub(super) data: Option<Value>,
}

/// A tensor as a view of a storage.
#[derive(Debug, Clone)]
pub(super) struct TensorView {
    pub(super) key: Rc<str>,
    pub(super) dtype: DType,
    pub(super) count: usize,
    pub(super) offset: usize,
    pub(super) shape: Vec<i64>,
    pub(super) strides: Vec<i64>,
}

impl Items {
    pub(super) fn new(items: Vec<Value>) -> Rc<Self> {
        Rc::new(Self(RefCell::new(items)))
    }

    pub(super) fn get(&self) -> Ref<'_, [Value]> {
        Ref::map(self.0.borrow(), Vec::as_slice)
    }

    pub(super) fn extend(&self, items: Vec<Value>) {
        self.0.borrow_mut().extend(items);
    }
}

impl Pairs {
    pub(super) fn new(pairs: Vec<(Value, Value)>) -> Rc<Self> {
        Rc::new(Self(RefCell::new(pairs)))
    }

    pub(super) fn get(&self) -> Ref<'_, [(Value, Value)]> {
        Ref::map(self.0.borrow(), Vec::as_slice)
    }

    pub(super) fn extend(&self, pairs: impl Iterator<Item = (Value, Value)>) {
        self.0.borrow_mut().extend(pairs);
    }
}

impl Drop for Items {
    fn drop(&mut self) {
        drop_all(self.0.take());
    }
}

impl Drop for Pairs {
    fn drop(&mut self) {
        drop_all(flat(self.0.take()));
    }
}

fn flat(pairs: Vec<(Value, Value)>) -> Vec<Value> {
    pairs.into_iter().flat_map(|(key, value)| [key, value]).collect()
}

/// Drops values with all that only they refer to: a loop, where the recursion of a deeply nested one would overflow the
/// stack.
fn drop_all(mut pending: Vec<Value>) {
    while let Some(value) = pending.pop() {
        match value {
            Value::Tuple(items) | Value::List(items) => {
                pending.extend(Rc::try_unwrap(items).iter().flat_map(|items| items.0.take()));
            }
            Value::Dict(pairs) => pending.extend(Rc::try_unwrap(pairs).iter().flat_map(|pairs| flat(pairs.0.take()))),
            Value::Array(array) => {
                pending.extend(Rc::try_unwrap(array).iter().filter_map(|a| a.borrow_mut().data.take()))
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeply_nested_values_are_dropped_without_recursion() {
        let mut value = Value::None;
        for depth in 0..if cfg!(miri) { 200 } else { 300_000 } {
            value = match depth % 4 {
                0 => Value::List(Items::new(vec![value])),
                1 => Value::Tuple(Items::new(vec![Value::None, value])),
                2 => Value::Dict(Pairs::new(vec![(Value::Int(1), value)])),
                _ => Value::Array(Rc::new(RefCell::new(ArrayParts { data: Some(value), ..ArrayParts::default() }))),
            };
        }
        let kept = value.clone();
        drop(value);
        drop(kept);
    }
}
