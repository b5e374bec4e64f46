//! Reading safetensors files.

use super::{location::Location, mmap::MappedFile};
use crate::{DType, Error, Result};
use safetensors::{Dtype as StDtype, SafeTensors};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Tensors, metadata, and the types of tensors that cannot be read.
type Contents = (BTreeMap<String, Location>, BTreeMap<String, String>, BTreeMap<String, String>);

/// Names, positions and metadata of the tensors in a safetensors file.
pub(super) fn read(file: &Path, map: &Arc<MappedFile>) -> Result<Contents> {
    let bad = |reason: String| {
        Error::file(file, format!("not a complete safetensors file: {reason}; download or save it again"))
    };
    let (_, header) = SafeTensors::read_metadata(map).map_err(|e| bad(e.to_string()))?;
    let parsed = SafeTensors::deserialize(map).map_err(|e| bad(e.to_string()))?;
    let (mut tensors, mut unsupported) = (BTreeMap::new(), BTreeMap::new());
    for (name, view) in parsed.iter() {
        let dtype = match view.dtype() {
            StDtype::F32 => DType::F32,
            StDtype::F64 => DType::F64,
            StDtype::F16 => DType::F16,
            StDtype::BF16 => DType::BF16,
            StDtype::I64 => DType::I64,
            StDtype::I32 => DType::I32,
            StDtype::I16 => DType::I16,
            StDtype::I8 => DType::I8,
            StDtype::U8 => DType::U8,
            StDtype::BOOL => DType::Bool,
            other => {
                unsupported.insert(name.to_owned(), format!("{other:?}"));
                continue;
            }
        };
        let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
        let shape = view.shape().iter().map(|s| *s as i64).collect();
        tensors.insert(
            name.to_owned(),
            Location { file: map.clone(), start, bytes: view.data().len(), shape, strides: None, dtype },
        );
    }
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok((tensors, metadata, unsupported))
}
