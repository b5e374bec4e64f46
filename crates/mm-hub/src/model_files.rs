//! Which files of a model's folder mm reads.

use std::collections::BTreeSet;

/// Weights for other libraries.
const OTHER_WEIGHTS: [&str; 7] = [".h5", ".msgpack", ".ot", ".onnx", ".onnx_data", ".gguf", ".tflite"];

/// Files that a model has in its folder, and a folder of runs does not.
const ROOT_FILES: [&str; 4] = ["config.json", "modules.json", "open_clip_config.json", "adapter_config.json"];

/// Folders of a model with copies of the weights for other libraries.
const OTHER_FORMATS: [&str; 7] = ["onnx/", "openvino/", "coreml/", "tflite/", "flax/", "original/", "gguf/"];

/// States of training.
const TRAINING: [&str; 4] = ["training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt"];

/// Weights that others write with pickle, and their indices.
const PICKLED: [&str; 4] = [".bin", ".pt", ".pth", ".bin.index.json"];

/// Whether mm reads nothing of a file: weights for other libraries, those that lie next to it as safetensors as well, and
/// states of training. `all` are the files of the model's folder.
pub(crate) fn is_unused(path: &str, all: &BTreeSet<&str>) -> bool {
    let is_model = || ROOT_FILES.iter().any(|name| all.contains(name));
    if OTHER_FORMATS.iter().any(|folder| path.starts_with(folder)) && is_model() {
        return true;
    }
    if TRAINING.iter().chain(&OTHER_WEIGHTS).any(|end| path.ends_with(end)) {
        return true;
    }
    let folder_of = |path: &str| path.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
    let folder = folder_of(path);
    let is_safetensors = |other: &&&str| other.ends_with(".safetensors") && folder_of(other) == folder;
    PICKLED.iter().any(|end| path.ends_with(end)) && all.iter().any(|other| is_safetensors(&other))
}

/// Whether mm reads nothing of a file of a folder that may also be a run of training: as [`is_unused`], and hidden files,
/// checkpoints that are neither the best nor the last, and what is recorded while training.
#[cfg(feature = "storage")]
pub(crate) fn is_unused_in_run(path: &str, all: &BTreeSet<&str>) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let is_earlier = |pair: &[&str]| pair[0] == "checkpoints" && pair[1].starts_with("step-");
    is_unused(path, all)
        || parts.iter().any(|part| part.starts_with('.'))
        || parts.windows(2).any(is_earlier)
        || parts.iter().rev().skip(1).any(|folder| is_checkpoint_of_trainer(folder))
        || parts.last().is_some_and(|name| name.contains("tfevents"))
}

/// Whether a folder's name is that of a checkpoint of transformers' `Trainer`: `checkpoint-500`.
#[cfg(feature = "storage")]
fn is_checkpoint_of_trainer(folder: &str) -> bool {
    let step = folder.strip_prefix("checkpoint-").unwrap_or_default();
    !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_in_one_format_in_each_folder() {
        let all = BTreeSet::from([
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "2_Dense/pytorch_model.bin",
            "onnx/config.json",
            "model.onnx",
            "optimizer.pt",
            "rust_model.ot",
            "tf_model.h5",
        ]);
        let used: Vec<&str> = all.iter().copied().filter(|path| !is_unused(path, &all)).collect();
        assert_eq!(used, ["2_Dense/pytorch_model.bin", "config.json", "model.safetensors"]);
    }

    #[test]
    fn runs_may_be_named_as_folders_for_other_libraries_are() {
        let all = BTreeSet::from(["original/config.toml", "original/checkpoints/best.safetensors", "new/config.toml"]);
        assert!(!all.iter().any(|path| is_unused(path, &all)));
    }

    #[cfg(feature = "storage")]
    #[test]
    fn of_a_run_the_best_and_the_last_checkpoint_are_read() {
        let all = BTreeSet::from([
            ".cache/x.json",
            "checkpoint-500/model.safetensors",
            "checkpoints/best.safetensors",
            "checkpoints/last.safetensors",
            "checkpoints/step-00000100.safetensors",
            "config.toml",
            "events.out.tfevents.1",
            "members/a/checkpoints/best.safetensors",
            "weights.pth",
        ]);
        let used: Vec<&str> = all.iter().copied().filter(|path| !is_unused_in_run(path, &all)).collect();
        assert_eq!(
            used,
            [
                "checkpoints/best.safetensors",
                "checkpoints/last.safetensors",
                "config.toml",
                "members/a/checkpoints/best.safetensors",
                "weights.pth"
            ]
        );
    }
}
