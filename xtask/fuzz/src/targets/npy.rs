//! NumPy's arrays.

use crate::bytes::{folder, write};
use mm_core::DType;
use mm_data::{read_npy, read_npy_rows, write_npy};

/// Reads an array. One of floats is written again and read back the same.
pub fn read(input: &[u8]) {
    let folder = folder();
    let path = write(folder.path(), "x.npy", input);
    let _ = read_npy_rows(&path, 0, 1);
    let _ = read_npy_rows(&path, 1, 2);
    let Ok(array) = read_npy(&path) else { return };
    if !matches!(array.dtype(), Ok(DType::F32 | DType::F64)) {
        return;
    }
    let copy = folder.path().join("copy.npy");
    write_npy(&copy, &array).expect("an array that was read can be written");
    let again = read_npy(&copy).expect("a written array can be read");
    assert_eq!((again.shape(), again.to_bytes().ok()), (array.shape(), array.to_bytes().ok()));
}
