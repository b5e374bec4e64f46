//! Fingerprints of checkpoints, by which cached features are found again.

use crate::{Error, ModelPaths, Result};
use serde_json::Value;
use std::path::Path;

/// Weight files up to this size are hashed; of larger ones, size and modification time are used, which is much faster.
const MAX_HASHED_BYTES: u64 = 64 << 20;

const PROCESSING_FILES: [&str; 6] = [
    "preprocessor_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
];

/// Hashes the config, the preprocessing and the weights; `options` are load options that change the features.
pub(super) fn fingerprint(config: &Value, paths: &ModelPaths, weights: &Path, options: &str) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(config.to_string().as_bytes()).update(options.as_bytes());
    let adapter_files = [mm_core::ADAPTER_CONFIG, "adapter_model.safetensors"];
    let processing = PROCESSING_FILES.iter().map(|name| paths.files.join(name));
    let adapter = paths.adapter.iter().flat_map(|folder| adapter_files.map(|name| folder.join(name)));
    for file in processing.chain(adapter) {
        hasher.update(&std::fs::read(file).unwrap_or_default()).update(&[0]);
    }
    let metadata = std::fs::metadata(weights).map_err(|e| Error::folder(weights, e))?;
    if metadata.len() <= MAX_HASHED_BYTES {
        let file = std::fs::File::open(weights).map_err(|e| Error::folder(weights, e))?;
        hasher.update_reader(file).map_err(|e| Error::folder(weights, e))?;
    } else {
        hasher.update(format!("{} {:?}", metadata.len(), metadata.modified().ok()).as_bytes());
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}
