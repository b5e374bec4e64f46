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

#[cfg(test)]
mod tests {
    use crate::Checkpoint;

    #[test]
    fn a_tensor_of_an_unsupported_type_is_refused_only_where_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"scale":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[8,12]}}"#;
        let values = [1.5f32.to_le_bytes(), (-2.0f32).to_le_bytes(), [56; 4]].concat();
        let length = (header.len() as u64).to_le_bytes();
        std::fs::write(&path, [&length[..], header.as_bytes(), &values].concat()).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.get("a").unwrap().to_vec::<f32>().unwrap(), [1.5, -2.0]);
        let error = checkpoint.get("scale").unwrap_err().to_string();
        assert!(error.contains("w.safetensors") && error.contains("scale is of type F8_E4M3"), "{error}");
        assert!(checkpoint.get("scal").unwrap_err().to_string().contains("scal"));
    }
}
