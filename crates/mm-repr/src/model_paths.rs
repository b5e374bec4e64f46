//! The folders of a model: one, or an adapter's and its base model's.

use crate::{Error, Result, json::read_json, locate::locate};
use mm_core::{ADAPTER_CONFIG, Adapter, Checkpoint, checkpoint};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The folders of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPaths {
    /// Folder of the config and the preprocessing.
    pub files: PathBuf,
    /// Folder of the tokenizer: an adapter's own where it has one, else that of the config.
    pub tokenizer: PathBuf,
    /// Folder of the weights.
    pub weights: PathBuf,
    /// Folder of an adapter (PEFT's layout) that is applied to the weights.
    pub adapter: Option<PathBuf>,
}

impl ModelPaths {
    /// A folder that holds everything.
    pub(crate) fn of_folder(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self { files: folder.clone(), tokenizer: folder.clone(), weights: folder, adapter: None }
    }

    /// The folder of a model on this machine: that of its name ([`locate`]), or a copy of the one at a URL (`s3://`,
    /// `gs://`, `az://`, `hf://`), which stays as it is as long as the process lives.
    ///
    /// # Errors
    /// When the folder at a URL cannot be copied. What has no folder on this machine is no error.
    pub fn locate(name: &Path, base: &Path) -> Result<PathBuf> {
        Ok(mm_data::local_folder(&locate(name, base))?)
    }

    /// Resolves a model folder. If it holds an adapter, the base model is found by its `base_model_name_or_path`: a
    /// folder, relative to the adapter's or to the working directory, a fetched model, or a URL. A `config.json` next to the
    /// adapter replaces the base model's, and so does a tokenizer.
    ///
    /// # Errors
    /// If the base model is not found.
    pub fn resolve(folder: &Path) -> Result<Self> {
        let Some(base) = Adapter::base_model(folder)? else {
            return Ok(Self::of_folder(folder));
        };
        let weights = [Self::locate(&base, folder)?, Self::locate(&base, Path::new("."))?];
        let weights = weights.into_iter().find(|f| f.is_dir() && f != folder).ok_or_else(|| {
            let base = base.display();
            Error::folder(
                folder.join(ADAPTER_CONFIG),
                format!(
                    "base_model_name_or_path: found `{base}`, expected a folder or a fetched model; fetch it with \
                     `mm models pull {base}`"
                ),
            )
        })?;
        let files = if folder.join("config.json").exists() { folder.to_owned() } else { weights.clone() };
        let tokenizer = if has_tokenizer(folder) { folder.to_owned() } else { files.clone() };
        Ok(Self { files, tokenizer, weights, adapter: Some(folder.to_owned()) })
    }

    /// Opens the weights, with the adapter's updates merged.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        Ok(self.checkpoint_and_config(&Value::Null)?.0)
    }

    /// Opens the weights, with the adapter's updates merged, and gives the config the vocabulary sizes of embeddings
    /// that the adapter replaced by tables with more rows.
    pub(crate) fn checkpoint_and_config(&self, config: &Value) -> Result<(Checkpoint, Value)> {
        let base = Checkpoint::open(weights_file(&self.weights))?;
        let Some(adapter) = &self.adapter else { return Ok((base, config.clone())) };
        let merged = Adapter::apply_to(adapter, base.clone())?;
        let mut config = config.clone();
        for (before, after) in resized_embeddings(&base, &merged) {
            set_vocab_size(&mut config, before, after);
        }
        Ok((merged, config))
    }
}

/// Whether a folder holds a tokenizer.
fn has_tokenizer(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).exists();
    let single = ["tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model"];
    single.into_iter().any(has) || (has("vocab.json") && has("merges.txt"))
}

/// Numbers of rows, before and after, of the token embeddings whose rows differ.
fn resized_embeddings(base: &Checkpoint, merged: &Checkpoint) -> Vec<(i64, i64)> {
    let is_table = |name: &&str| {
        ["embeddings.weight", "embed_tokens.weight", "wte.weight", "token_embedding.weight"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    let rows = |name: &str| match (base.shape(name)?, merged.shape(name)?) {
        ([before, dim], [after, new_dim]) if before != after && dim == new_dim => Some((*before, *after)),
        _ => None,
    };
    base.names().filter(is_table).filter_map(rows).collect()
}

/// Replaces every `vocab_size` of `before` entries in a config.
fn set_vocab_size(config: &mut Value, before: i64, after: i64) {
    let Some(fields) = config.as_object_mut() else { return };
    for (key, value) in fields {
        if key == "vocab_size" && value.as_i64() == Some(before) {
            *value = after.into();
        } else {
            set_vocab_size(value, before, after);
        }
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
    if paths.tokenizer != paths.files {
        copy_model_files(&paths.tokenizer, out)?;
    }
    let file = out.join("config.json");
    let config = read_json(&file)?;
    let (checkpoint, resized) = paths.checkpoint_and_config(&config)?;
    if resized != config {
        checkpoint::write_atomic(&file, format!("{resized:#}\n").as_bytes())?;
    }
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
