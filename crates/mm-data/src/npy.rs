//! NumPy's array files, by the crate npyz: numbers of any order and endianness; objects, strings and the like are refused.

use crate::{Error, Result};
use mm_core::Tensor;
use npyz::{DType, NpyFile, Order, TypeChar};
use std::{fs::File, io::BufReader, path::Path};

/// An array of numbers: float32 and float64 as they are, whole numbers and booleans as int64.
pub fn read_npy(path: &Path) -> Result<Tensor> {
    let bad = |reason: String| Error::file(path, reason);
    let file = File::open(path).map_err(|e| bad(e.to_string()))?;
    let length = file.metadata().map_err(|e| bad(e.to_string()))?.len();
    let npy = NpyFile::new(BufReader::new(file))
        .map_err(|e| bad(format!("not a NumPy array (.npy): {e}; numpy.save writes one")))?;
    let shape: Vec<i64> = npy.shape().iter().map(|s| *s as i64).collect();
    let DType::Plain(kind) = npy.dtype() else {
        return Err(bad(format!("found records {}, wanted plain numbers", npy.dtype().descr())));
    };
    let size = kind.size_field();
    // A header that promises more than the file holds must not make room for it.
    let promised = npy.shape().iter().try_fold(size, |all, s| all.checked_mul(*s));
    if promised.is_none_or(|p| p > length) {
        return Err(bad(format!(
            "found {length} bytes, wanted the {shape:?} numbers of {size} bytes that its header says; the file is cut"
        )));
    }
    let order = npy.order();
    let wrong = |e: std::io::Error| bad(format!("cannot be read as an array of {kind}: {e}"));
    let flat = match (kind.type_char(), size) {
        (TypeChar::Float, 4) => Tensor::from_slice(&npy.into_vec::<f32>().map_err(wrong)?)?,
        (TypeChar::Float, 8) => Tensor::from_slice(&npy.into_vec::<f64>().map_err(wrong)?)?,
        (TypeChar::Int, 8) => Tensor::from_slice(&npy.into_vec::<i64>().map_err(wrong)?)?,
        (TypeChar::Int, 4) => whole(npy.into_vec::<i32>().map_err(wrong)?)?,
        (TypeChar::Int, 2) => whole(npy.into_vec::<i16>().map_err(wrong)?)?,
        (TypeChar::Int, 1) => whole(npy.into_vec::<i8>().map_err(wrong)?)?,
        (TypeChar::Uint, 4) => whole(npy.into_vec::<u32>().map_err(wrong)?)?,
        (TypeChar::Uint, 2) => whole(npy.into_vec::<u16>().map_err(wrong)?)?,
        (TypeChar::Uint, 1) => whole(npy.into_vec::<u8>().map_err(wrong)?)?,
        (TypeChar::Bool, _) => whole(npy.into_vec::<bool>().map_err(wrong)?)?,
        _ => {
            return Err(bad(format!(
                "found an array of {kind}, wanted float32, float64 or whole numbers (array.astype(\"float32\"))"
            )));
        }
    };
    // Fortran's order is the transposition's.
    if order == Order::Fortran && shape.len() > 1 {
        let turned: Vec<i64> = shape.iter().rev().copied().collect();
        let dims: Vec<i64> = (0..shape.len() as i64).rev().collect();
        return Ok(flat.reshape(&turned)?.permute(&dims)?.contiguous()?);
    }
    Ok(flat.reshape(&shape)?)
}

fn whole<T: Into<i64>>(values: Vec<T>) -> Result<Tensor> {
    Ok(Tensor::from_slice(&values.into_iter().map(Into::into).collect::<Vec<i64>>())?)
}
