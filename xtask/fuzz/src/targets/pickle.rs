//! Pickles: PyTorch's checkpoints (zipped and legacy) and plain objects with NumPy's arrays.

use super::safetensors::read_and_write_again;
use crate::bytes::{folder, select, write};
use mm_core::checkpoint::{Object, read_pickle};

enum Kind {
    Checkpoint,
    Objects,
}

/// Reads a checkpoint or a pickle.
pub fn read(input: &[u8]) {
    let Some((kind, bytes)) = select(&[Kind::Checkpoint, Kind::Objects], input) else { return };
    let folder = folder();
    match kind {
        Kind::Checkpoint => read_and_write_again(&write(folder.path(), "x.pt", bytes)),
        Kind::Objects => {
            if let Ok(object) = read_pickle(&write(folder.path(), "x.pkl", bytes)) {
                visit(&object);
            }
        }
    }
}

/// Reads all arrays.
fn visit(object: &Object) {
    match object {
        Object::List(items) => items.iter().for_each(visit),
        Object::Dict(items) => items.iter().for_each(|(key, value)| {
            visit(key);
            visit(value);
        }),
        Object::Array(array) => {
            let _ = array.row(0);
            if let Ok(tensor) = array.to_tensor() {
                assert_eq!(tensor.shape(), array.shape());
            }
        }
        _ => {}
    }
}
