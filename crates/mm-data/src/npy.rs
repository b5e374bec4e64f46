//! NumPy's array files, by the crate npyz: numbers of any order and endianness; objects, strings and the like are refused.

use crate::{Error, Result};
use mm_core::Tensor;
use npyz::{DType, NpyFile, Order, TypeChar, TypeStr};
use std::{fs::File, io::BufReader, path::Path};

/// Opens an array of plain numbers whose file is as long as its header says.
fn open(path: &Path) -> Result<(NpyFile<BufReader<File>>, TypeStr)> {
    let bad = |reason: String| Error::file(path, reason);
    let file = File::open(path).map_err(|e| bad(e.to_string()))?;
    let length = file.metadata().map_err(|e| bad(e.to_string()))?.len();
    let npy = NpyFile::new(BufReader::new(file))
        .map_err(|e| bad(format!("not a NumPy array of numbers (.npy): {e}; wanted float32, float64 or whole numbers as numpy.save writes them")))?;
    let DType::Plain(kind) = npy.dtype() else {
        return Err(bad(format!("found records {}, wanted plain numbers", npy.dtype().descr())));
    };
    let (shape, size) = (npy.shape(), kind.size_field());
    // A header that promises more than the file holds must not make room for it.
    let promised = shape.iter().try_fold(size, |all, s| all.checked_mul(*s));
    if promised.is_none_or(|p| p > length) {
        return Err(bad(format!(
            "found {length} bytes, wanted the {shape:?} numbers of {size} bytes that its header says; the file is cut"
        )));
    }
    Ok((npy, kind))
}

/// An array of numbers: float32 and float64 as they are, whole numbers and booleans as int64.
pub fn read_npy(path: &Path) -> Result<Tensor> {
    let bad = |reason: String| Error::file(path, reason);
    let (npy, kind) = open(path)?;
    let shape: Vec<i64> = npy.shape().iter().map(|s| *s as i64).collect();
    let size = kind.size_field();
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

/// Some lines of an array `[lines, width]` of float32 or float64 without reading the others: `[length, width]`, float32.
pub fn read_npy_rows(path: &Path, from: usize, length: usize) -> Result<Tensor> {
    let bad = |reason: String| Error::file(path, reason);
    let (npy, kind) = open(path)?;
    let (&[lines, width], Order::C) = (npy.shape(), npy.order()) else {
        return Err(bad(format!("found shape {:?}, wanted [lines, width] in C's order", npy.shape())));
    };
    if from.checked_add(length).is_none_or(|to| to as u64 > lines) {
        return Err(bad(format!("found {lines} lines, wanted {length} from line {from} on")));
    }
    let (first, count) = (from as u64 * width, length * width as usize);
    let cut = |e: std::io::Error| bad(format!("cut short: {e}"));
    let values: Vec<f32> = match npy.try_data::<f32>() {
        Ok(mut data) => {
            data.seek_to(first).map_err(cut)?;
            data.take(count).collect::<std::io::Result<_>>().map_err(cut)?
        }
        Err(npy) => {
            let mut data = npy
                .data::<f64>()
                .map_err(|_| bad(format!("found numbers of type {kind}, wanted float32 or float64")))?;
            data.seek_to(first).map_err(cut)?;
            data.take(count).map(|v| v.map(|v| v as f32)).collect::<std::io::Result<_>>().map_err(cut)?
        }
    };
    Ok(Tensor::from_vec(&values, &[length as i64, width as i64])?)
}

fn whole<T: Into<i64>>(values: Vec<T>) -> Result<Tensor> {
    Ok(Tensor::from_slice(&values.into_iter().map(Into::into).collect::<Vec<i64>>())?)
}

/// What stands before the numbers of a `.npy` file (version 1.0) of this type, `<f4` say, and shape: padded so that they begin at a multiple
/// of 64.
pub fn npy_header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let sizes = shape.iter().map(ToString::to_string).collect::<Vec<_>>();
    let tuple = if let [one] = sizes.as_slice() { format!("({one},)") } else { format!("({})", sizes.join(", ")) };
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple}, }}");
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{text:<width$}\n", width = length - 1).as_bytes());
    bytes
}

/// Writes an array of numbers (float32 or float64) as NumPy does.
pub fn write_npy(path: &Path, array: &Tensor) -> Result<()> {
    let descr = match array.dtype()? {
        mm_core::DType::F64 => "<f8",
        mm_core::DType::F32 => "<f4",
        other => return Err(Error::file(path, format!("found an array of {other:?}, wanted float32 or float64"))),
    };
    let shape: Vec<usize> = array.shape().iter().map(|s| *s as usize).collect();
    let bytes = [npy_header(descr, &shape), array.to_bytes()?].concat();
    Ok(mm_core::checkpoint::write_atomic(path, &bytes)?)
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
