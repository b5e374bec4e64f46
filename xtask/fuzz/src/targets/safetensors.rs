//! Checkpoints: safetensors files and indices of shards.

use crate::bytes::{folder, select, write};
use mm_core::{Checkpoint, Tensor, checkpoint::save};
use std::path::Path;

enum Kind {
    File,
    Index,
}

/// Reads a checkpoint.
pub fn read(input: &[u8]) {
    let Some((kind, bytes)) = select(&[Kind::File, Kind::Index], input) else { return };
    let folder = folder();
    match kind {
        Kind::File => read_and_write_again(&write(folder.path(), "model.safetensors", bytes)),
        Kind::Index => {
            let index = write(folder.path(), "model.safetensors.index.json", bytes);
            for (shard, name) in [("model-00001-of-00002", "left"), ("model-00002-of-00002", "right")] {
                let tensor = Tensor::from_slice(&[1f32, 2.0]).expect("a tensor");
                let file = folder.path().join(format!("{shard}.safetensors"));
                save(&file, &[(name.to_owned(), tensor)], &[]).expect("a file in the temporary folder");
            }
            read_and_write_again(&index);
        }
    }
}

/// Reads all tensors of a checkpoint; they are written as safetensors and read back the same.
pub(super) fn read_and_write_again(path: &Path) {
    let Ok(checkpoint) = Checkpoint::open(path) else { return };
    let mut tensors = Vec::new();
    for name in checkpoint.names() {
        let _ = checkpoint.view(name);
        let Ok(tensor) = checkpoint.get(name) else { return };
        assert_eq!((Some(&*tensor.shape()), tensor.dtype().ok()), (checkpoint.shape(name), checkpoint.dtype(name)));
        tensors.push((name.to_owned(), tensor));
    }
    let copy = path.with_file_name("copy.safetensors");
    save(&copy, &tensors, &[]).expect("tensors that were read can be written");
    let again = Checkpoint::open(&copy).expect("a written checkpoint can be read");
    assert_eq!(again.names().count(), tensors.len());
    for (name, tensor) in &tensors {
        let copy = again.get(name).expect("a written tensor can be read");
        assert_eq!((copy.shape(), copy.to_bytes().ok()), (tensor.shape(), tensor.to_bytes().ok()), "{name}");
    }
}
