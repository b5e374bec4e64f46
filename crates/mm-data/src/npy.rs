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
        .map_err(|e| bad(format!("not a NumPy array of numbers (.npy): {e}; wanted float32, float64 or whole numbers as numpy.save writes them")))?;
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

/// Writes an array of numbers (float32 or float64) as NumPy does.
pub fn write_npy(path: &Path, array: &Tensor) -> Result<()> {
    let shape = array.shape();
    let sizes = shape.iter().map(ToString::to_string).collect::<Vec<_>>();
    let tuple = if let [one] = sizes.as_slice() { format!("({one},)") } else { format!("({})", sizes.join(", ")) };
    let kind = match array.dtype()? {
        mm_core::DType::F64 => "<f8",
        mm_core::DType::F32 => "<f4",
        other => return Err(Error::file(path, format!("found an array of {other:?}, wanted float32 or float64"))),
    };
    // The header as numpy.lib.format writes version 1.0: padded so that the numbers begin at a multiple of 64.
    let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {tuple}, }}");
    let whole = (10 + text.len() + 1).next_multiple_of(64);
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(((whole - 10) as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(whole - 1, b' ');
    bytes.push(b'\n');
    bytes.extend(array.to_bytes()?);
    Ok(mm_core::checkpoint::write_file(path, &bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir, descr: &str, fortran: bool, shape: &str, bytes: &[u8]) -> std::path::PathBuf {
        let order = if fortran { "True" } else { "False" };
        let mut text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
        text.push_str(&" ".repeat((64 - (text.len() + 11) % 64) % 64));
        text.push('\n');
        let mut all = b"\x93NUMPY\x01\x00".to_vec();
        all.extend((text.len() as u16).to_le_bytes());
        all.extend(text.as_bytes());
        all.extend(bytes);
        let path = folder.path().join("x.npy");
        std::fs::write(&path, all).unwrap();
        path
    }

    #[test]
    fn arrays_of_any_order_and_endianness_are_read_and_what_is_no_numbers_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let little: Vec<u8> = (0..6).flat_map(|v| (v as f32).to_le_bytes()).collect();
        let big: Vec<u8> = (0..6).flat_map(|v| f64::from(v).to_be_bytes()).collect();
        let read = |path: &Path| read_npy(path).unwrap().to_vec::<f64>().unwrap();
        assert_eq!(read(&file(&folder, "<f4", false, "(2, 3)", &little)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(read(&file(&folder, ">f8", false, "(2, 3)", &big)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(read(&file(&folder, "<f4", true, "(2, 3)", &little)), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        let whole: Vec<u8> = [1i64, -2].iter().flat_map(|v| v.to_le_bytes()).collect();
        let labels = read_npy(&file(&folder, "<i8", false, "(2,)", &whole)).unwrap();
        assert_eq!((labels.dtype().unwrap(), labels.shape()), (mm_core::DType::I64, vec![2]));
        for (descr, shape, wanted) in [
            ("<f4", "(9, 9)", "the file is cut"),
            ("<f4", "(999999999999, 999999999999)", "the file is cut"),
            ("|O", "(2,)", "wanted"),
            ("<U3", "(2,)", "wanted"),
            ("<c8", "(2,)", "wanted"),
        ] {
            let error = read_npy(&file(&folder, descr, false, shape, &little)).unwrap_err().to_string();
            assert!(error.contains(wanted) && error.contains("x.npy"), "{descr} {shape}: {error}");
        }
        std::fs::write(folder.path().join("y.npy"), "hello").unwrap();
        assert!(read_npy(&folder.path().join("y.npy")).unwrap_err().to_string().contains("not a NumPy array"));
        let array = Tensor::from_vec(&[1.5f32, 2.0, -3.0], &[3, 1]).unwrap();
        let path = folder.path().join("z.npy");
        write_npy(&path, &array).unwrap();
        let back = read_npy(&path).unwrap();
        assert_eq!((back.shape(), back.to_vec::<f32>().unwrap()), (vec![3, 1], vec![1.5, 2.0, -3.0]));
    }
}
