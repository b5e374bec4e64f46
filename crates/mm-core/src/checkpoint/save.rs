//! Writing safetensors files, atomically.

use crate::{DType, Error, Result, Tensor};
use safetensors::{Dtype as StDtype, View};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::File,
    path::Path,
};

struct TensorView<'a>(&'a Tensor, StDtype, Vec<usize>);

impl View for &TensorView<'_> {
    fn dtype(&self) -> StDtype {
        self.1
    }
    fn shape(&self) -> &[usize] {
        &self.2
    }
    fn data(&self) -> Cow<'_, [u8]> {
        // `save` has checked that the type has bytes.
        Cow::Owned(self.0.to_bytes().unwrap_or_default())
    }
    fn data_len(&self) -> usize {
        self.2.iter().product::<usize>() * (self.1.bitsize() / 8)
    }
}

/// Writes tensors as one safetensors file, by way of a temporary file in the same folder that is flushed and then
/// renamed.
///
/// # Errors
/// If the file cannot be written; an existing file is left unchanged.
pub fn save(path: &Path, tensors: &[(String, Tensor)], metadata: &[(&str, String)]) -> Result<()> {
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let dtype = match tensor.dtype()? {
            DType::F32 => StDtype::F32,
            DType::F64 => StDtype::F64,
            DType::F16 => StDtype::F16,
            DType::BF16 => StDtype::BF16,
            DType::I64 => StDtype::I64,
            DType::I32 => StDtype::I32,
            DType::I16 => StDtype::I16,
            DType::I8 => StDtype::I8,
            DType::U8 => StDtype::U8,
            DType::Bool => StDtype::BOOL,
        };
        let shape = tensor.shape().iter().map(|s| usize::try_from(*s).unwrap_or(0)).collect();
        views.push((name.as_str(), TensorView(tensor, dtype, shape)));
    }
    let metadata: HashMap<String, String> = metadata.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    let metadata = (!metadata.is_empty()).then_some(metadata);
    replace_file(path, |temporary| {
        safetensors::serialize_to_file(views.iter().map(|(n, s)| (*n, s)), metadata, temporary)
            .map_err(|e| e.to_string())
    })
}

/// Writes tensors into a folder as shards `model-0000N-of-0000M.safetensors` of at most `shard_bytes` bytes with an
/// index, or as one `model.safetensors` when one shard suffices.
///
/// # Errors
/// If a file cannot be written.
pub fn save_sharded(folder: &Path, tensors: &[(String, Tensor)], shard_bytes: usize) -> Result<()> {
    let mut shards: Vec<Vec<(String, Tensor)>> = vec![Vec::new()];
    let (mut shard_size, mut total) = (0, 0);
    for (name, tensor) in tensors {
        let bytes = tensor.numel() * tensor.dtype()?.size();
        if shard_size > 0 && shard_size + bytes > shard_bytes {
            shards.push(Vec::new());
            shard_size = 0;
        }
        shard_size += bytes;
        total += bytes;
        if let Some(last) = shards.last_mut() {
            last.push((name.clone(), tensor.clone()));
        }
    }
    if let [only] = shards.as_slice() {
        return save(&folder.join("model.safetensors"), only, &[("format", "pt".into())]);
    }
    let mut weight_map = BTreeMap::new();
    for (index, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", index + 1, shards.len());
        save(&folder.join(&file), shard, &[("format", "pt".into())])?;
        weight_map.extend(shard.iter().map(|(n, _)| (n.clone(), file.clone())));
    }
    let text = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    write_atomic(&folder.join("model.safetensors.index.json"), text.to_string().as_bytes())
}

/// Writes a file such that a crash at any time leaves either the old file or the new one.
///
/// # Errors
/// If the file cannot be written; an existing file is left unchanged.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    replace_file(path, |temporary| std::fs::write(temporary, bytes).map_err(|e| e.to_string()))
}

fn replace_file(path: &Path, write: impl FnOnce(&Path) -> Result<(), String>) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |e: String| Error::file(path, format!("cannot be written: {e}; the previous file is unchanged"));
    let temporary = tempfile::Builder::new()
        .prefix(".mm-")
        .suffix(".partial")
        .tempfile_in(folder)
        .map_err(|e| failed(e.to_string()))?;
    write(temporary.path()).map_err(failed)?;
    File::open(temporary.path()).and_then(|f| f.sync_all()).map_err(|e| failed(e.to_string()))?;
    temporary.persist(path).map_err(|e| failed(e.error.to_string()))?;
    // The rename must reach the disk too; not every file system can sync a folder.
    let _ = File::open(folder).and_then(|f| f.sync_all());
    Ok(())
}
