//! Validation of feature matrices, shared by all methods.

use crate::{Error, Result};
use mm_core::{DType, Tensor};

pub(crate) fn invalid(what: &'static str, found: impl Into<String>, expected: impl Into<String>) -> Error {
    Error::InvalidInput { what, found: found.into(), expected: expected.into() }
}

/// Detached float64 copy: closed-form methods are computed in double precision.
pub(crate) fn to_f64(x: &Tensor) -> Result<Tensor> {
    Ok(x.detach()?.to_dtype(DType::F64)?)
}

/// Centers the columns of `x` `[rows, dim]`.
pub(crate) fn center(x: &Tensor) -> Result<Tensor> {
    Ok(x.sub(&x.mean_dim(&[0], true)?)?)
}

/// Checks that matrices `[rows, dim]` are paired row by row (the same number of rows, at least two) and finite. Returns
/// the row count.
pub(crate) fn check_paired(what: &'static str, sets: &[&Tensor]) -> Result<i64> {
    let shapes = || sets.iter().map(|s| format!("{:?}", s.shape())).collect::<Vec<_>>().join(" and ");
    let rows = sets.first().and_then(|s| s.size(0).ok()).unwrap_or(0);
    let fits = |s: &Tensor| s.rank() == 2 && s.size(0).ok() == Some(rows) && s.size(1).unwrap_or(0) > 0;
    if rows < 2 || !sets.iter().all(|s| fits(s)) {
        return Err(invalid(what, shapes(), "matrices [rows, dim] with the same number of rows, at least two"));
    }
    for (index, set) in sets.iter().enumerate() {
        check_finite(what, index, set)?;
    }
    Ok(rows)
}

/// Checks that two matrices have the same dimension and at least two rows each, and are finite.
pub(crate) fn check_same_dim(what: &'static str, x: &Tensor, y: &Tensor) -> Result<()> {
    let (a, b) = (x.shape(), y.shape());
    if a.len() != 2 || b.len() != 2 || a[0] < 2 || b[0] < 2 || a[1] != b[1] {
        let expected = "two matrices [rows, dim] of the same dimension with at least two rows each";
        return Err(invalid(what, format!("{a:?} and {b:?}"), expected));
    }
    check_finite(what, 0, x)?;
    check_finite(what, 1, y)
}

/// Reports the position of the first NaN in `scores` `[rows, columns]`.
pub(crate) fn check_not_nan(what: &'static str, scores: &Tensor) -> Result<()> {
    if scores.eq(scores)?.to_dtype(DType::F32)?.min()?.to_f64()? > 0.5 {
        return Ok(());
    }
    let columns = scores.size(-1)?.max(1) as usize;
    let position = scores.to_vec::<f64>()?.iter().position(|v| v.is_nan()).unwrap_or(0);
    let found = format!("NaN in row {}, column {}", position / columns, position % columns);
    Err(invalid(what, found, "numbers; impute or drop such rows first"))
}

/// Reports the position of the first NaN or infinite value; `index` is the position of the set among the arguments (0
/// is "a").
pub(crate) fn check_finite(what: &'static str, index: usize, set: &Tensor) -> Result<()> {
    if set.isfinite()?.to_dtype(DType::F32)?.min()?.to_f64()? > 0.5 {
        return Ok(());
    }
    let dim = set.size(-1)?.max(1) as usize;
    let position = set.to_vec::<f64>()?.iter().position(|v| !v.is_finite()).unwrap_or(0);
    let name = (b'a' + index as u8) as char;
    let found = format!("NaN or infinity in set {name}, row {}, column {}", position / dim, position % dim);
    Err(invalid(what, found, "finite values; impute or drop such rows first"))
}
