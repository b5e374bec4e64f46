//! Values on the stack of the pickle reader.

use crate::DType;
use std::{cell::RefCell, rc::Rc};

/// A Python object, as far as tensors, arrays and plain objects need it.
#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// Bytes in the file, by start and length: Python 2's strings too.
    Raw(usize, usize),
    /// Bytes that an old protocol wrote as text.
    Bytes(Rc<Vec<u8>>),
    /// A `NumPy` array, whose state may still be missing.
    Array(Rc<RefCell<ArrayParts>>),
    /// A `NumPy` number type: its name (`f4`) and byte order (`<`, `>` or `|`).
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
    Tensor(Box<TensorView>),
}

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
    pub(super) key: String,
    pub(super) dtype: DType,
    pub(super) count: usize,
    pub(super) offset: usize,
    pub(super) shape: Vec<i64>,
    pub(super) strides: Vec<i64>,
}
