//! Fingerprints of checkpoints, by which cached features are found again.

use crate::{Error, ModelPaths, Result, json::read_json};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Counts changes of what mm computes from the same files, so that features cached before are not used:
/// 2: the vector of ViT, DeiT and DINOv2 is the class token, not the mean over all tokens.
/// 3: weights are hashed completely, so that copies of a model on several machines have one fingerprint.
const VERSION: &str = "3";

/// Bytes of a weight file that are read and hashed at once, by all threads.
const CHUNK: usize = 16 << 20;

/// Files of a model folder that describe the preprocessing.
const PROCESSING_FILES: [&str; 17] = [
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "1_Pooling/config.json",
    "open_clip_config.json",
];

const ADAPTER_FILES: [&str; 3] = [mm_core::ADAPTER_CONFIG, "adapter_model.safetensors", "adapter_model.bin"];

/// What a model's outputs depend on. The hash of it reads all weights, so it is computed where it is asked for.
pub struct Fingerprint {
    config: Value,
    paths: ModelPaths,
    weights: PathBuf,
    /// Load options that change the features.
    options: String,
    computed: OnceLock<String>,
}

impl Fingerprint {
    pub(super) fn new(config: &Value, paths: &ModelPaths, weights: &Path, options: String) -> Self {
        let (config, paths, weights) = (config.clone(), paths.clone(), weights.to_owned());
        Self { config, paths, weights, options, computed: OnceLock::new() }
    }

    /// A hash of the config, the preprocessing, the weights and the options, which changes whenever the model's outputs
    /// would. It is computed once.
    ///
    /// # Errors
    /// When a file of the model cannot be read.
    pub fn get(&self) -> Result<&str> {
        if let Some(computed) = self.computed.get() {
            return Ok(computed);
        }
        let computed = self.compute()?;
        Ok(self.computed.get_or_init(|| computed))
    }

    fn compute(&self) -> Result<String> {
        let Self { config, paths, weights, options, .. } = self;
        let mut hasher = blake3::Hasher::new();
        hasher.update(VERSION.as_bytes()).update(config.to_string().as_bytes()).update(options.as_bytes());
        let folders = [Some(&paths.files), Some(&paths.tokenizer), paths.adapter.as_ref()];
        let processing =
            folders.into_iter().flatten().flat_map(|folder| PROCESSING_FILES.map(|name| folder.join(name)));
        let adapter = paths.adapter.iter().flat_map(|folder| ADAPTER_FILES.map(|name| folder.join(name)));
        for file in processing.chain(adapter).chain(module_files(&paths.files)?) {
            hasher.update(&std::fs::read(file).unwrap_or_default()).update(&[0]);
        }
        for file in weight_files(weights)? {
            hash_weights(&file, &mut hasher).map_err(|e| Error::folder(&file, e))?;
        }
        Ok(hasher.finalize().to_hex()[..32].to_owned())
    }
}

/// Configs and weights of the modules after a sentence-transformers encoder, whose `modules.json` is in its folder or,
/// in an older layout, in the folder above.
fn module_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let tops = [Some(folder), folder.parent()].into_iter().flatten();
    let Some(top) = tops.into_iter().find(|top| top.join("modules.json").exists()) else { return Ok(Vec::new()) };
    let modules = read_json(&top.join("modules.json"))?;
    let paths = modules.as_array().into_iter().flatten().filter_map(|m| m["path"].as_str()).filter(|p| !p.is_empty());
    let names = ["config.json", "model.safetensors", "pytorch_model.bin"];
    let below = paths.map(|path| top.join(path)).filter(|module| module != folder);
    Ok(below.flat_map(|module| names.map(|name| module.join(name))).collect())
}

/// The file of the weights, and the shards if it is an index.
fn weight_files(weights: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![weights.to_owned()];
    if weights.to_string_lossy().ends_with(".index.json") {
        let index = read_json(weights)?;
        let shards: BTreeSet<&str> =
            index["weight_map"].as_object().into_iter().flatten().filter_map(|(_, shard)| shard.as_str()).collect();
        files.extend(shards.into_iter().map(|shard| weights.with_file_name(shard)));
    }
    Ok(files)
}

/// Hashes a file of any size: nothing else says whether two are the same.
fn hash_weights(path: &Path, hasher: &mut blake3::Hasher) -> std::io::Result<()> {
    let (mut file, mut chunk) = (File::open(path)?, Vec::with_capacity(CHUNK));
    loop {
        chunk.clear();
        if (&mut file).take(CHUNK as u64).read_to_end(&mut chunk)? == 0 {
            return Ok(());
        }
        hasher.update_rayon(&chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_the_tokenizer_and_modules_after_the_encoder_are_part_of_the_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let index = path("model.safetensors.index.json");
        std::fs::create_dir(path("2_Dense")).unwrap();
        let files = [
            ("model.safetensors.index.json", r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#),
            ("one.safetensors", "first"),
            ("two.safetensors", "second"),
            ("tokenizer.json", "{}"),
            ("modules.json", r#"[{"path": ""}, {"path": "2_Dense"}]"#),
            ("2_Dense/model.safetensors", "dense"),
        ];
        for (name, text) in files {
            std::fs::write(path(name), text).unwrap();
        }
        let paths = ModelPaths::of_folder(folder.path());
        let fingerprint = || Fingerprint::new(&Value::Null, &paths, &index, String::new());
        let current = || fingerprint().get().unwrap().to_owned();
        let before = current();
        assert_eq!(before, current());
        for (name, text) in &files[1..] {
            if *name == "modules.json" {
                continue;
            }
            std::fs::write(path(name), format!("{text}!")).unwrap();
            assert_ne!(before, current(), "{name}");
            std::fs::write(path(name), text).unwrap();
        }
        assert_eq!(before, current());
        // A copy of another time has the same; a changed byte anywhere in a large file has not.
        let mut large = vec![7; 2 * CHUNK + 5];
        std::fs::write(path("two.safetensors"), &large).unwrap();
        let of_large = current();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
        File::options().write(true).open(path("two.safetensors")).unwrap().set_modified(later).unwrap();
        assert_eq!(of_large, current());
        for at in [0, CHUNK + 1, 2 * CHUNK + 4] {
            large[at] = 8;
            std::fs::write(path("two.safetensors"), &large).unwrap();
            assert_ne!(of_large, current(), "byte {at}");
            large[at] = 7;
        }
        std::fs::remove_file(path("two.safetensors")).unwrap();
        assert!(fingerprint().get().unwrap_err().to_string().contains("two.safetensors"));
    }
}
