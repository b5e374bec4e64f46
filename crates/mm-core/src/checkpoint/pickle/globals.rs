//! The names that a pickle may ask for, and what calling them builds.

use super::{
    machine::Machine,
    numpy::NumberType,
    value::{ArrayParts, Pairs, TensorView, Value},
};
use crate::DType;
use std::{cell::RefCell, rc::Rc};

impl Machine<'_> {
    pub(super) fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
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
                "the pickle asks for {module}.{name}, which tensors and arrays do not need; it was refused and nothing was executed. Convert the file with the program that wrote it"
            ));
        }
        // NumPy 2 renamed its modules.
        self.stack.push(Value::Global(format!("{}.{name}", module.replace("numpy._core", "numpy.core")).into()));
        Ok(())
    }

    pub(super) fn storage(&mut self, id: Value) -> Result<(), String> {
        let Value::Tuple(parts) = id else { return Err("a storage id that is not a tuple".into()) };
        let parts = parts.get();
        let [_, Value::Global(kind), key, _, Value::Int(count), ..] = &parts[..] else {
            return Err("a storage id that PyTorch does not write".into());
        };
        let key = self.text_of(key).ok_or("a storage key that is not text")?;
        let kind = kind.rsplit('.').next().unwrap_or_default();
        let dtype =
            dtype_of(kind.trim_end_matches("Storage")).ok_or_else(|| format!("{kind} is not a supported type"))?;
        let count = usize::try_from(*count).map_err(|_| "a storage of negative size".to_owned())?;
        self.storages.insert(key.clone(), (dtype, count));
        self.stack.push(Value::Storage { key, dtype, count });
        Ok(())
    }

    /// Sets the state of the object below: arrays and their types. For other objects it holds attributes (the
    /// `_metadata` of an `OrderedDict`), which are ignored.
    pub(super) fn build(&mut self, state: &Value) -> Result<(), String> {
        match (self.stack.last(), state) {
            (Some(Value::Dtype(dtype)), Value::Tuple(state)) => {
                let state = state.get();
                let order = state.get(1).and_then(|o| self.text_of(o)).and_then(|o| o.chars().next());
                dtype.borrow_mut().1 = order.ok_or("a NumPy type without its byte order")?;
                if matches!(state.get(3), Some(Value::None)) || state.len() < 4 {
                    Ok(())
                } else {
                    Err("found an array of records, expected numbers or text".into())
                }
            }
            (Some(Value::Array(array)), Value::Tuple(state)) => {
                let state = state.get();
                let [_, Value::Tuple(shape), Value::Dtype(dtype), fortran, data] = &state[..] else {
                    return Err("the state of a NumPy array has an unknown form".into());
                };
                let fortran = matches!(fortran, Value::Bool(true) | Value::Int(1));
                *array.borrow_mut() = ArrayParts {
                    shape: sizes(&shape.get())?,
                    dtype: Some(dtype.borrow().clone()),
                    fortran,
                    data: Some(data.clone()),
                };
                Ok(())
            }
            (Some(_), _) => Ok(()),
            (None, _) => Err("the pickle sets the state of nothing".into()),
        }
    }

    /// A `NumPy` scalar.
    fn scalar(&self, dtype: &(String, char), data: &Value) -> Result<Value, String> {
        let bytes: &[u8] = match data {
            Value::Raw(from, count) => {
                self.bytes.get(*from..from + count).ok_or("a NumPy scalar reaches past the end of the file")?
            }
            Value::Bytes(bytes) => bytes,
            _ => return Err("a NumPy scalar without its bytes".into()),
        };
        let number_type = NumberType::new(&dtype.0, dtype.1)?;
        Ok(match number_type.read(bytes).first() {
            Some(number) if dtype.0.starts_with('b') => Value::Bool(*number != 0.0),
            Some(number) if !dtype.0.starts_with('f') => Value::Int(*number as i64),
            Some(number) => Value::Float(*number),
            None => return Err("a NumPy scalar without its bytes".into()),
        })
    }

    pub(super) fn call(&mut self, function: Value, arguments: Value) -> Result<(), String> {
        let (Value::Global(name), Value::Tuple(arguments)) = (function, arguments) else {
            return Err("the pickle calls something that is not a name".into());
        };
        let arguments = arguments.get();
        let value = match (&*name, &arguments[..]) {
            ("collections.OrderedDict", []) => Value::Dict(Rc::default()),
            ("collections.OrderedDict", [Value::List(items)]) => {
                let pair = |item: &Value| match item {
                    Value::Tuple(pair) | Value::List(pair) => match &pair.get()[..] {
                        [key, value] => Some(self.keyed((key.clone(), value.clone()))),
                        _ => None,
                    },
                    _ => None,
                };
                Value::Dict(Pairs::new(items.get().iter().filter_map(pair).collect()))
            }
            ("numpy.core.multiarray._reconstruct", [Value::Global(kind), ..]) if &**kind == "numpy.ndarray" => {
                Value::Array(Rc::default())
            }
            ("numpy.dtype", [kind, ..]) => {
                let kind = self.text_of(kind).ok_or("a NumPy type without a name")?;
                Value::Dtype(Rc::new(RefCell::new((kind.to_string(), '|'))))
            }
            ("numpy.core.multiarray.scalar", [Value::Dtype(dtype), data]) => self.scalar(&dtype.borrow(), data)?,
            ("numpy.core.numeric._frombuffer", [data, Value::Dtype(dtype), Value::Tuple(shape), order]) => {
                let fortran = self.text_of(order).is_some_and(|o| &*o == "F");
                let parts = ArrayParts {
                    shape: sizes(&shape.get())?,
                    dtype: Some(dtype.borrow().clone()),
                    fortran,
                    data: Some(data.clone()),
                };
                Value::Array(Rc::new(RefCell::new(parts)))
            }
            ("_codecs.encode", [Value::Text(text), how]) if self.text_of(how).is_some_and(|h| &*h == "latin1") => {
                let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
                Value::Bytes(Rc::new(bytes.ok_or("bytes are written as text that is not Latin-1")?))
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
                let view = TensorView {
                    key: key.clone(),
                    dtype: *dtype,
                    count: *count,
                    offset: usize::try_from(*offset).map_err(|_| "a negative offset".to_owned())?,
                    shape: sizes(&shape.get())?,
                    strides: sizes(&strides.get())?,
                };
                if view.shape.len() != view.strides.len() {
                    return Err("a tensor has different numbers of sizes and strides".into());
                }
                Value::Tensor(Rc::new(view))
            }
            _ => {
                return Err(format!(
                    "the pickle calls {name} in a form that neither PyTorch nor NumPy writes; it was refused"
                ));
            }
        };
        self.stack.push(value);
        Ok(())
    }
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
