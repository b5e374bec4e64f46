//! `config.json` and `preprocessor_config.json` of checkpoints: a folder with weights is loaded with another config.

use crate::bytes::{fixtures, folder, select, write};
use mm_reason::Pipeline;
use mm_repr::{LoadOptions, Pretrained};

/// The folder of a fixture, and the file of it that the input replaces.
const KINDS: [(&str, &str); 38] = [
    ("bert-gelu", "config.json"),
    ("roberta-plain", "config.json"),
    ("distilbert-sinusoidal", "config.json"),
    ("mpnet-plain", "config.json"),
    ("xlm-roberta-unigram", "config.json"),
    ("vit-classifier", "config.json"),
    ("deit-distilled", "config.json"),
    ("dinov2-registers", "config.json"),
    ("convnext-v2", "config.json"),
    ("resnet-v1", "config.json"),
    ("efficientnet-plain", "config.json"),
    ("timm-vit", "config.json"),
    ("timm-convnext", "config.json"),
    ("clip-eos-gelu", "config.json"),
    ("siglip-base", "config.json"),
    ("chinese-clip-base", "config.json"),
    ("blip-retrieval", "config.json"),
    ("clap-unfused", "config.json"),
    ("open-clip-vit", "open_clip_config.json"),
    ("wav2vec2-group", "config.json"),
    ("hubert-base", "config.json"),
    ("whisper-encoder", "config.json"),
    ("ast-overlap", "config.json"),
    ("videomae-base", "config.json"),
    ("sentence-cls-dense", "modules.json"),
    ("vit-classifier", "preprocessor_config.json"),
    ("clap-unfused", "preprocessor_config.json"),
    ("whisper-encoder", "preprocessor_config.json"),
    ("wav2vec2-group", "preprocessor_config.json"),
    ("blip-vqa", "config.json"),
    ("git-caption", "config.json"),
    ("llava-siglip-qwen2", "config.json"),
    ("qwen2_vl-image", "config.json"),
    ("vilt-vqa", "config.json"),
    ("vision-encoder-decoder-trocr", "config.json"),
    ("whisper-multilingual", "config.json"),
    ("whisper-multilingual", "generation_config.json"),
    ("adapter-gpt2", "adapter_config.json"),
];

/// Loads the model.
pub fn read(input: &[u8]) {
    let Some(((fixture, name), bytes)) = select(&KINDS, input) else { return };
    let encoder = fixtures("mm-repr/tests/fixtures/families").join(fixture);
    let is_encoder = encoder.is_dir();
    let from = if is_encoder { encoder } else { fixtures("mm-reason/tests/fixtures").join(fixture) };
    let folder = folder();
    for entry in std::fs::read_dir(&from).expect("a fixture") {
        let entry = entry.expect("a fixture");
        if entry.file_name() != **name {
            link(&entry.path(), &folder.path().join(entry.file_name()));
        }
    }
    write(folder.path(), name, bytes);
    if is_encoder {
        let _ = Pretrained::load(folder.path());
    } else {
        let _ = Pipeline::load(folder.path(), LoadOptions::default());
    }
}

/// Makes a file or folder appear at another path.
fn link(from: &std::path::Path, to: &std::path::Path) {
    #[cfg(unix)]
    std::os::unix::fs::symlink(from.canonicalize().expect("a fixture"), to).expect("a link in the temporary folder");
    #[cfg(not(unix))]
    if from.is_file() {
        std::fs::copy(from, to).expect("a file in the temporary folder");
    }
}
