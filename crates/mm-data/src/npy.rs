//! NumPy's array files (`.npy`), by the crate npyz: numbers in C or Fortran order and any endianness, but no objects or
//! strings.

use crate::{Error, Result};
use mm_core::Tensor;
use npyz::{DType, NpyFile, Order, TypeChar, TypeStr};
use std::{
    fs::File,
    io::{BufReader, Read, Seek},
    path::Path,
};

/// Opens an array of numbers and checks that the file is as long as its header states.
fn open(path: &Path) -> Result<(NpyFile<BufReader<File>>, TypeStr)> {
    let bad = |reason: String| Error::file(path, reason);
    let mut file = File::open(path).map_err(|e| bad(e.to_string()))?;
    let length = file.metadata().map_err(|e| bad(e.to_string()))?.len();
    check_header(&mut file).map_err(bad)?;
    let npy = NpyFile::new(BufReader::new(file)).map_err(|e| {
        bad(format!("not a NumPy array of numbers (.npy): {e}; expected floats or integers as numpy.save writes them"))
    })?;
    let DType::Plain(kind) = npy.dtype() else {
        return Err(bad(format!("found records {}, expected an array of numbers", npy.dtype().descr())));
    };
    let (shape, size) = (npy.shape(), kind.size_field());
    // A damaged header must not cause a large allocation.
    let expected = shape.iter().try_fold(size.max(1), |all, s| all.checked_mul(*s));
    if expected.is_none_or(|e| e > length) {
        return Err(bad(format!(
            "found {length} bytes, expected an array {shape:?} of {size}-byte values; the file is truncated"
        )));
    }
    Ok((npy, kind))
}

/// Brackets in brackets in a header; those of an array of numbers are two deep.
const MAX_DEPTH: usize = 8;
/// Bytes of a header.
const MAX_HEADER: usize = 1 << 16;

/// Refuses a header with deeply nested brackets, for which npyz needs time exponential in their depth. What is no header
/// is left to npyz. Afterwards the file is at its start.
fn check_header(file: &mut File) -> Result<(), String> {
    let mut head = Vec::new();
    file.take(MAX_HEADER as u64 + 12).read_to_end(&mut head).map_err(|e| e.to_string())?;
    file.rewind().map_err(|e| e.to_string())?;
    let end = match head.get(6..12) {
        Some(&[1, _, low, high, ..]) => 10 + usize::from(u16::from_le_bytes([low, high])),
        Some(&[_, _, a, b, c, d]) => 12usize.saturating_add(u32::from_le_bytes([a, b, c, d]) as usize),
        _ => return Ok(()),
    };
    if end > MAX_HEADER + 12 {
        return Err(format!("found a header of {end} bytes, expected at most {MAX_HEADER}"));
    }
    let mut depth = 0usize;
    for byte in head.get(..end).unwrap_or(&head) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(format!(
                "found brackets nested more than {MAX_DEPTH} deep in the header, expected at most that"
            ));
        }
    }
    Ok(())
}

/// The shape of an array, by its header.
///
/// # Errors
/// When the file cannot be read, or is shorter than its header states.
pub fn npy_shape(path: &Path) -> Result<Vec<usize>> {
    Ok(open(path)?.0.shape().iter().map(|size| *size as usize).collect())
}

/// Reads an array of numbers: float32 and float64 keep their type, float16 becomes float32, integers and booleans
/// become int64.
///
/// # Errors
/// When the file cannot be read, is truncated, or holds another type.
pub fn read_npy(path: &Path) -> Result<Tensor> {
    let bad = |reason: String| Error::file(path, reason);
    let (npy, kind) = open(path)?;
    let shape: Vec<i64> = npy.shape().iter().map(|s| *s as i64).collect();
    let size = kind.size_field();
    let order = npy.order();
    let failed = |e: std::io::Error| bad(format!("cannot be read as an array of {kind}: {e}"));
    let flat = match (kind.type_char(), size) {
        (TypeChar::Float, 2) => {
            let values = npy.into_vec::<half::f16>().map_err(failed)?;
            Tensor::from_slice(&values.into_iter().map(f32::from).collect::<Vec<f32>>())?
        }
        (TypeChar::Float, 4) => Tensor::from_slice(&npy.into_vec::<f32>().map_err(failed)?)?,
        (TypeChar::Float, 8) => Tensor::from_slice(&npy.into_vec::<f64>().map_err(failed)?)?,
        (TypeChar::Int, 8) => Tensor::from_slice(&npy.into_vec::<i64>().map_err(failed)?)?,
        (TypeChar::Int, 4) => to_i64(npy.into_vec::<i32>().map_err(failed)?)?,
        (TypeChar::Int, 2) => to_i64(npy.into_vec::<i16>().map_err(failed)?)?,
        (TypeChar::Int, 1) => to_i64(npy.into_vec::<i8>().map_err(failed)?)?,
        (TypeChar::Uint, 4) => to_i64(npy.into_vec::<u32>().map_err(failed)?)?,
        (TypeChar::Uint, 2) => to_i64(npy.into_vec::<u16>().map_err(failed)?)?,
        (TypeChar::Uint, 1) => to_i64(npy.into_vec::<u8>().map_err(failed)?)?,
        (TypeChar::Bool, _) => to_i64(npy.into_vec::<bool>().map_err(failed)?)?,
        _ => {
            return Err(bad(format!(
                "found an array of {kind}, expected float16, float32, float64 or integers (array.astype(\"float32\"))"
            )));
        }
    };
    // An array in Fortran order is the transpose of one in C order.
    if order == Order::Fortran && shape.len() > 1 {
        let reversed: Vec<i64> = shape.iter().rev().copied().collect();
        let dims: Vec<i64> = (0..shape.len() as i64).rev().collect();
        return Ok(flat.reshape(&reversed)?.permute(&dims)?.contiguous()?);
    }
    Ok(flat.reshape(&shape)?)
}

/// Reads `length` rows of an array `[rows, dim]` of float16, float32 or float64, from row `from` on, without reading
/// the others: `[length, dim]` float32.
///
/// # Errors
/// When the array has another type or number of dimensions, is in Fortran order, or has fewer rows.
pub fn read_npy_rows(path: &Path, from: usize, length: usize) -> Result<Tensor> {
    let bad = |reason: String| Error::file(path, reason);
    let (npy, kind) = open(path)?;
    let (&[rows, dim], Order::C) = (npy.shape(), npy.order()) else {
        return Err(bad(format!("found shape {:?}, expected [rows, dim] in C order", npy.shape())));
    };
    if from.checked_add(length).is_none_or(|to| to as u64 > rows) {
        return Err(bad(format!("found {rows} rows, expected {length} from row {from} on")));
    }
    let (first, count) = (from as u64 * dim, length * dim as usize);
    let wrong_type = || bad(format!("found an array of {kind}, expected float16, float32 or float64"));
    let truncated = |e: std::io::Error| bad(format!("the file is truncated: {e}"));
    let values: Vec<f32> = match npy.try_data::<f32>() {
        Ok(mut data) => {
            data.seek_to(first).map_err(truncated)?;
            data.take(count).collect::<std::io::Result<_>>().map_err(truncated)?
        }
        Err(npy) if kind.size_field() == 2 => {
            let mut data = npy.data::<half::f16>().map_err(|_| wrong_type())?;
            data.seek_to(first).map_err(truncated)?;
            data.take(count).map(|v| v.map(f32::from)).collect::<std::io::Result<_>>().map_err(truncated)?
        }
        Err(npy) => {
            let mut data = npy.data::<f64>().map_err(|_| wrong_type())?;
            data.seek_to(first).map_err(truncated)?;
            data.take(count).map(|v| v.map(|v| v as f32)).collect::<std::io::Result<_>>().map_err(truncated)?
        }
    };
    Ok(Tensor::from_vec(&values, &[length as i64, dim as i64])?)
}

/// A vector of integers or booleans as int64.
fn to_i64<T: Into<i64>>(values: Vec<T>) -> Result<Tensor> {
    Ok(Tensor::from_slice(&values.into_iter().map(Into::into).collect::<Vec<i64>>())?)
}

/// The header of a `.npy` file (version 1.0) with this type, such as `<f4`, and shape. It is padded so that the values
/// start at a multiple of 64 bytes.
pub fn npy_header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let sizes = shape.iter().map(ToString::to_string).collect::<Vec<_>>();
    let tuple = if let [size] = sizes.as_slice() { format!("({size},)") } else { format!("({})", sizes.join(", ")) };
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple}, }}");
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{text:<width$}\n", width = length - 1).as_bytes());
    bytes
}

/// Writes an array of float32 or float64, as `numpy.save` does.
///
/// # Errors
/// When the array has another type or the file cannot be written.
pub fn write_npy(path: &Path, array: &Tensor) -> Result<()> {
    let descr = match array.dtype()? {
        mm_core::DType::F64 => "<f8",
        mm_core::DType::F32 => "<f4",
        other => return Err(Error::file(path, format!("found an array of {other:?}, expected float32 or float64"))),
    };
    let shape: Vec<usize> = array.shape().iter().map(|s| *s as usize).collect();
    let bytes = [npy_header(descr, &shape), array.to_bytes()?].concat();
    Ok(mm_core::checkpoint::write_atomic(path, &bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_file(
        folder: &tempfile::TempDir,
        descr: &str,
        fortran: bool,
        shape: &str,
        bytes: &[u8],
    ) -> std::path::PathBuf {
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
    fn a_header_of_nested_brackets_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let shape = "[".repeat(40);
        let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}5,), }}\n");
        let head = [b"\x93NUMPY\x01\0".as_slice(), &(text.len() as u16).to_le_bytes(), text.as_bytes()].concat();
        std::fs::write(&path, head).unwrap();
        assert!(read_npy(&path).unwrap_err().to_string().contains("nested more than 8 deep"));
        std::fs::write(&path, b"\x93NUMPY\x02\0\xff\xff\xff\x7f{").unwrap();
        assert!(read_npy(&path).unwrap_err().to_string().contains("expected at most 65536"));
    }

    #[test]
    fn arrays_in_any_order_and_endianness_are_read_and_other_types_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let little: Vec<u8> = (0..6).flat_map(|v| (v as f32).to_le_bytes()).collect();
        let big: Vec<u8> = (0..6).flat_map(|v| f64::from(v).to_be_bytes()).collect();
        let read = |path: &Path| read_npy(path).unwrap().to_vec::<f64>().unwrap();
        assert_eq!(read(&write_file(&folder, "<f4", false, "(2, 3)", &little)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(read(&write_file(&folder, ">f8", false, "(2, 3)", &big)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(read(&write_file(&folder, "<f4", true, "(2, 3)", &little)), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        let half: Vec<u8> = [0x3e00u16, 0xc000].iter().flat_map(|v| v.to_le_bytes()).collect();
        let path = write_file(&folder, "<f2", false, "(1, 2)", &half);
        let halves = read_npy(&path).unwrap();
        assert_eq!((halves.dtype().unwrap(), halves.to_vec::<f32>().unwrap()), (mm_core::DType::F32, vec![1.5, -2.0]));
        assert_eq!(read_npy_rows(&path, 0, 1).unwrap().to_vec::<f32>().unwrap(), [1.5, -2.0]);
        let integers: Vec<u8> = [1i64, -2].iter().flat_map(|v| v.to_le_bytes()).collect();
        let labels = read_npy(&write_file(&folder, "<i8", false, "(2,)", &integers)).unwrap();
        assert_eq!((labels.dtype().unwrap(), labels.shape()), (mm_core::DType::I64, vec![2]));
        for (descr, shape, expected) in [
            ("<f4", "(9, 9)", "the file is truncated"),
            ("<f4", "(999999999999, 999999999999)", "the file is truncated"),
            ("|O", "(2,)", "expected"),
            ("<U3", "(2,)", "expected"),
            ("<c8", "(2,)", "expected"),
        ] {
            let error = read_npy(&write_file(&folder, descr, false, shape, &little)).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("x.npy"), "{descr} {shape}: {error}");
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
