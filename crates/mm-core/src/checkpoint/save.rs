//! Writing safetensors files, atomically.

use crate::{DType, Error, Result, Tensor};
use safetensors::{Dtype as StDtype, View};
use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fs::File,
    path::Path,
};

struct TensorView<'a> {
    tensor: &'a Tensor,
    dtype: StDtype,
    shape: Vec<usize>,
    /// Why its values could not be read: a view cannot return an error.
    error: RefCell<Option<Error>>,
}

impl View for &TensorView<'_> {
    fn dtype(&self) -> StDtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = self.tensor.to_bytes().unwrap_or_else(|error| {
            self.error.replace(Some(error));
            Vec::new()
        });
        Cow::Owned(bytes)
    }
    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * (self.dtype.bitsize() / 8)
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
        views.push((name.as_str(), TensorView { tensor, dtype, shape, error: RefCell::default() }));
    }
    let metadata: HashMap<String, String> = metadata.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    let metadata = (!metadata.is_empty()).then_some(metadata);
    replace_file(path, |temporary| {
        let written = safetensors::serialize_to_file(views.iter().map(|(n, s)| (*n, s)), metadata, temporary);
        match views.iter().find_map(|(name, view)| Some((name, view.error.take()?))) {
            Some((name, error)) => Err(format!("the values of {name} cannot be read: {error}")),
            None => written.map_err(|e| e.to_string()),
        }
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

/// A temporary file in `folder` that is to become `path`, with the permissions that a file made in place would have:
/// those of the file that it replaces, else what the process's umask leaves. (tempfile's own are the owner's only.)
///
/// # Errors
/// If it cannot be made.
pub fn shared_tempfile(folder: &Path, path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".mm-").suffix(".partial");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
        let file = builder.tempfile_in(folder)?;
        if let Ok(replaced) = std::fs::metadata(path).map(|m| m.permissions()) {
            // Not the owner of the file: the umask's permissions stay.
            let _ = file.as_file().set_permissions(replaced);
        }
        Ok(file)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        builder.tempfile_in(folder)
    }
}

fn replace_file(path: &Path, write: impl FnOnce(&Path) -> Result<(), String>) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |e: String| Error::file(path, format!("cannot be written: {e}; the previous file is unchanged"));
    let temporary = shared_tempfile(folder, path).map_err(|e| failed(e.to_string()))?;
    write(temporary.path()).map_err(failed)?;
    File::open(temporary.path()).and_then(|f| f.sync_all()).map_err(|e| failed(e.to_string()))?;
    temporary.persist(path).map_err(|e| failed(e.error.to_string()))?;
    // The rename must reach the disk too; not every file system can sync a folder.
    let _ = File::open(folder).and_then(|f| f.sync_all());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checkpoint, Device};

    fn ones(rows: i64) -> Tensor {
        Tensor::ones(&[rows], DType::F32, Device::Cpu).unwrap()
    }

    #[test]
    fn values_that_cannot_be_read_leave_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        save(&path, &[("w".into(), ones(3))], &[]).unwrap();
        let sparse = Tensor::from_tch(ones(4).as_tch().f_to_sparse_sparse_dim(1).unwrap());
        let error = save(&path, &[("a".into(), ones(2)), ("b".into(), sparse)], &[]).unwrap_err().to_string();
        assert!(error.contains("the values of b") && error.contains("previous file is unchanged"), "{error}");
        assert_eq!(Checkpoint::open(&path).unwrap().get("w").unwrap().to_vec::<f32>().unwrap(), [1.0; 3]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[cfg(unix)]
    #[test]
    fn files_have_the_permissions_of_the_umask_or_of_the_file_they_replace() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let [plain, path] = ["plain", "model.safetensors"].map(|name| folder.path().join(name));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        std::fs::write(&plain, b"x").unwrap();
        save(&path, &[("w".into(), ones(3))], &[]).unwrap();
        assert_eq!(mode(&path), mode(&plain));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        save(&path, &[("w".into(), ones(3))], &[]).unwrap();
        write_atomic(&plain, b"y").unwrap();
        assert_eq!((mode(&path), std::fs::read(&plain).unwrap()), (0o640, b"y".to_vec()));
    }
}
