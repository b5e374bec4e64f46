//! The folders of a model: one, or an adapter's and its base model's.

use crate::{Error, Result, locate::locate};
use mm_core::{ADAPTER_CONFIG, Adapter, Checkpoint, checkpoint};
use std::path::{Path, PathBuf};

/// The folders of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPaths {
    /// Folder of the config, the tokenizer and the preprocessing.
    pub files: PathBuf,
    /// Folder of the weights.
    pub weights: PathBuf,
    /// Folder of an adapter (PEFT's layout) that is applied to the weights.
    pub adapter: Option<PathBuf>,
}

impl ModelPaths {
    /// Resolves a model folder. If it holds an adapter, the base model is found by its `base_model_name_or_path`: a
    /// folder, relative to the adapter's or to the working directory, or a fetched model. A `config.json` next to the
    /// adapter replaces the base model's.
    ///
    /// # Errors
    /// If the base model is not found.
    pub fn resolve(folder: &Path) -> Result<Self> {
        let Some(base) = Adapter::base_model(folder)? else {
            return Ok(Self { files: folder.to_owned(), weights: folder.to_owned(), adapter: None });
        };
        let weights = [locate(&base, folder), locate(&base, Path::new("."))];
        let weights = weights.into_iter().find(|f| f.is_dir() && f != folder).ok_or_else(|| {
            let base = base.display();
            Error::folder(
                folder.join(ADAPTER_CONFIG),
                format!(
                    "base_model_name_or_path: found `{base}`, expected a folder or a fetched model; fetch it with \
                     `cargo xtask models pull {base}`"
                ),
            )
        })?;
        let files = if folder.join("config.json").exists() { folder.to_owned() } else { weights.clone() };
        Ok(Self { files, weights, adapter: Some(folder.to_owned()) })
    }

    /// Opens the weights, with the adapter's updates merged.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let checkpoint = Checkpoint::open(weights_file(&self.weights))?;
        Ok(match &self.adapter {
            Some(adapter) => Adapter::apply_to(adapter, checkpoint)?,
            None => checkpoint,
        })
    }
}

/// The file of open_clip's weights, or the folder itself, in which [`Checkpoint::open`] looks for the usual names.
fn weights_file(folder: &Path) -> PathBuf {
    let open_clip = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"];
    let usual = folder.join("model.safetensors").exists() || folder.join("model.safetensors.index.json").exists();
    open_clip.iter().map(|n| folder.join(n)).find(|p| !usual && p.exists()).unwrap_or_else(|| folder.to_owned())
}

/// Maximum size of a weight file that is written, in bytes.
const SHARD_SIZE: usize = 5 << 30;

/// Merges the adapter in `folder` into its base model and writes the result to `out`, a model folder that needs
/// neither. Returns the number of tensors.
///
/// # Errors
/// If `folder` holds no adapter or `out` already holds a model.
pub fn merge_adapter(folder: &Path, out: &Path) -> Result<usize> {
    let paths = ModelPaths::resolve(folder)?;
    if paths.adapter.is_none() {
        return Err(Error::folder(folder, "holds no adapter_config.json, so there is nothing to merge"));
    }
    if out.join("config.json").exists() {
        return Err(Error::folder(out, "already holds a model; choose a new folder"));
    }
    std::fs::create_dir_all(out).map_err(|e| Error::folder(out, e))?;
    copy_model_files(&paths.weights, out)?;
    copy_model_files(&paths.files, out)?;
    let checkpoint = paths.checkpoint()?;
    let names: Vec<String> = checkpoint.names().map(ToOwned::to_owned).collect();
    let tensors = names.into_iter().map(|n| Ok((n.clone(), checkpoint.get(&n)?))).collect::<Result<Vec<_>>>()?;
    checkpoint::save_sharded(out, &tensors, SHARD_SIZE)?;
    Ok(tensors.len())
}

/// Copies a model's files other than its weights: config, tokenizer, preprocessing, templates. Subfolders are not
/// copied.
pub fn copy_model_files(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).map_err(|e| Error::folder(from, e))? {
        let path = entry.map_err(|e| Error::folder(from, e))?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let known = ["json", "txt", "model", "jinja"].iter().any(|e| path.extension().is_some_and(|x| x == *e));
        let about_weights = name.starts_with("adapter_") || name.ends_with(".index.json");
        if path.is_file() && known && !about_weights {
            std::fs::copy(&path, to.join(&name)).map_err(|e| Error::folder(to.join(&name), e))?;
        }
    }
    Ok(())
}
