//! Where the parts of a model lie: in one folder, or in that of an adapter and that of the model that it was learned for.

use crate::{Error, Result, family::weights, locate};
use mm_core::{ADAPTER_CONFIG, Adapter, Checkpoint, checkpoint};
use std::path::{Path, PathBuf};

/// The folders of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPaths {
    /// Where its config, tokenizer and pre-processing are.
    pub files: PathBuf,
    /// Where its weights are.
    pub weights: PathBuf,
    /// The folder of an adapter in PEFT's layout that is laid over them.
    pub adapter: Option<PathBuf>,
}

impl ModelPaths {
    /// A folder by itself, or, where it holds an adapter, with the model that its `base_model_name_or_path` names: a folder (a relative one
    /// is sought from the adapter's folder, then from here) or a fetched model. Files that the adapter's folder brings are taken from there.
    pub fn resolve(folder: &Path) -> Result<Self> {
        let whole = |folder: &Path| Self { files: folder.to_owned(), weights: folder.to_owned(), adapter: None };
        let Some(base) = Adapter::base_model(folder)? else { return Ok(whole(folder)) };
        let weights = [locate(&base, folder), locate(&base, Path::new("."))];
        let weights = weights.into_iter().find(|f| f.is_dir() && f != folder).ok_or_else(|| {
            Error::folder(
                folder.join(ADAPTER_CONFIG),
                format!("base_model_name_or_path: found `{}`, which is no folder and was not fetched; fetch it with `cargo xtask models pull {0}`", base.display()),
            )
        })?;
        let files = if folder.join("config.json").exists() { folder.to_owned() } else { weights.clone() };
        Ok(Self { files, weights, adapter: Some(folder.to_owned()) })
    }

    /// Its weights, with what the adapter adds.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let checkpoint = Checkpoint::open(weights(&self.weights))?;
        Ok(match &self.adapter {
            Some(adapter) => Adapter::apply_to(adapter, checkpoint)?,
            None => checkpoint,
        })
    }
}

/// Most bytes of a file of weights that is written.
const SHARD: usize = 5 << 30;

/// Writes the model that an adapter's folder stands for as one folder that needs neither: its files, and weights with what was learned added.
/// The number of tensors is returned.
pub fn merge_adapter(folder: &Path, out: &Path) -> Result<usize> {
    let place = ModelPaths::resolve(folder)?;
    if place.adapter.is_none() {
        return Err(Error::folder(folder, "holds no adapter_config.json, so there is nothing to merge"));
    }
    if out.join("config.json").exists() {
        return Err(Error::folder(out, "holds a model already; name a folder that is not there yet"));
    }
    std::fs::create_dir_all(out).map_err(|e| Error::folder(out, e))?;
    copy_model_files(&place.weights, out)?;
    copy_model_files(&place.files, out)?;
    let checkpoint = place.checkpoint()?;
    let names: Vec<String> = checkpoint.names().map(ToOwned::to_owned).collect();
    let tensors = names.into_iter().map(|n| Ok((n.clone(), checkpoint.get(&n)?))).collect::<Result<Vec<_>>>()?;
    checkpoint::save_sharded(out, &tensors, SHARD)?;
    Ok(tensors.len())
}

/// Copies what is beside a model's weights (config, tokenizer, pre-processing, templates); folders stay.
pub fn copy_model_files(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).map_err(|e| Error::folder(from, e))? {
        let path = entry.map_err(|e| Error::folder(from, e))?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let known = ["json", "txt", "model", "jinja"].iter().any(|e| path.extension().is_some_and(|x| x == *e));
        let other = name.starts_with("adapter_") || name.ends_with(".index.json");
        if path.is_file() && known && !other {
            std::fs::copy(&path, to.join(&name)).map_err(|e| Error::folder(to.join(&name), e))?;
        }
    }
    Ok(())
}
