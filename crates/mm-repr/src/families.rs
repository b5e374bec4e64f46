//! The registry of pretrained families, and which one a folder belongs to.

use crate::{
    Error, Result, audio,
    family::Family,
    image::{self, timm_model_type},
    joint,
    json::read_json,
    text, video,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn registry() -> impl Iterator<Item = &'static Family> {
    let modules = [text::FAMILIES, image::FAMILIES, audio::FAMILIES, video::FAMILIES, joint::FAMILIES];
    modules.into_iter().flatten().copied().flatten()
}

/// The families that [`crate::Pretrained::load`] supports, by the `model_type` of their `config.json`. `timm/…` and
/// `open_clip` are folders written by those libraries.
pub fn families() -> Vec<&'static str> {
    registry().map(|f| f.model_type).collect()
}

fn find(model_type: &str) -> Result<&'static Family> {
    let found = registry().find(|f| f.model_type == model_type);
    found.ok_or_else(|| mm_core::Error::unknown("model_type", model_type, families()).into())
}

/// The folder of the encoder: an older layout of sentence-transformers has it below that of `modules.json`.
pub(crate) fn encoder_folder(folder: &Path) -> Result<PathBuf> {
    if folder.join("config.json").exists() || folder.join("open_clip_config.json").exists() {
        return Ok(folder.to_owned());
    }
    let modules = read_json(&folder.join("modules.json"))?;
    let path = modules[0]["path"].as_str().filter(|p| !p.is_empty());
    if let Some(below) = path.map(|p| folder.join(p)).filter(|p| p.join("config.json").exists()) {
        return Ok(below);
    }
    Err(Error::folder(
        folder,
        "no config.json here, so the kind of model is unknown; expected a folder that `huggingface_hub`, `sentence-transformers`, \
         `open_clip` or `timm` wrote",
    ))
}

/// The family of a folder, and its config.
pub(crate) fn detect_family(folder: &Path) -> Result<(&'static Family, Value)> {
    let open_clip = folder.join("open_clip_config.json");
    let file = folder.join("config.json");
    if open_clip.exists() && !file.exists() {
        return Ok((find("open_clip")?, read_json(&open_clip)?));
    }
    let config = read_json(&file)?;
    if let Some(model_type) = config["model_type"].as_str().or_else(|| timm_model_type(&config)) {
        return Ok((find(model_type)?, config));
    }
    if open_clip.exists() {
        return Ok((find("open_clip")?, read_json(&open_clip)?));
    }
    Err(match config["architecture"].as_str() {
        Some(name) => mm_core::Error::unknown("timm architecture", name, image::TIMM_ARCHITECTURES).into(),
        None => Error::folder(&file, "has neither `model_type` (transformers) nor `architecture` (timm)"),
    })
}
