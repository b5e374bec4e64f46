//! Merging a saved adapter into the weights of a checkpoint as they are read.

use super::{ADAPTER_CONFIG, PEFT_PREFIX, has_suffix, scale};
use crate::{Checkpoint, DType, Error, Result, Tensor, checkpoint::TensorOverlay};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What an adapter changes of one weight.
#[derive(Debug, Clone)]
struct Change {
    /// Names of both matrices in the adapter.
    a: String,
    b: String,
    /// Magnitudes of the rows, where those are trained by themselves (DoRA, Liu et al., 2024,
    /// <https://arxiv.org/abs/2402.09353>).
    magnitude: Option<String>,
    scale: f64,
}

/// A saved adapter, and what it changes of a checkpoint.
pub struct Adapter {
    tensors: Checkpoint,
    changes: BTreeMap<String, Change>,
}

/// The settings of `adapter_config.json` that matter for merging.
#[derive(Debug, Deserialize)]
struct PeftConfig {
    peft_type: Option<String>,
    base_model_name_or_path: Option<String>,
    lora_alpha: Option<f64>,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    alpha_pattern: Option<BTreeMap<String, f64>>,
}

impl PeftConfig {
    fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(ADAPTER_CONFIG);
        let text = std::fs::read_to_string(&file).map_err(|e| Error::file(&file, e))?;
        let config: Self = serde_json::from_str(&text).map_err(|e| Error::file(&file, e))?;
        match config.peft_type.as_deref() {
            Some("LORA") => Ok(config),
            other => {
                let found = other.unwrap_or("nothing");
                Err(Error::file(file, format!("peft_type: found {found}, expected LORA, the supported kind")))
            }
        }
    }

    fn scale(&self, module: &str, rank: i64) -> f64 {
        let alpha = self.alpha_pattern.iter().flatten().find(|(k, _)| has_suffix(module, k)).map(|(_, a)| *a);
        scale(alpha.or(self.lora_alpha).unwrap_or(8.0), rank, self.use_rslora)
    }
}

/// A tensor of an adapter's file, by what it is for.
enum Role<'a> {
    /// The A matrix of a module, and the marker of its kind.
    A { module: &'a str, marker: &'static str },
    /// A layer that was trained in full, by its name in the model.
    Replacement(String),
    /// Found through its A matrix.
    Companion,
}

fn role(bare_name: &str) -> Role<'_> {
    if ["lora_magnitude_vector", "lora_B", "lora_embedding_B"].iter().any(|part| bare_name.contains(part)) {
        return Role::Companion;
    }
    for marker in [".lora_A", ".lora_embedding_A"] {
        if let Some((module, _)) = bare_name.split_once(marker) {
            return Role::A { module, marker };
        }
    }
    Role::Replacement(bare_name.replace(".modules_to_save.", ".").replace(".base_layer.", "."))
}

impl Adapter {
    /// The model that the adapter in a folder was trained for, by name or path; none where the folder holds no adapter.
    ///
    /// # Errors
    /// If the config cannot be read, is not LoRA's, or names no model.
    pub fn base_model(folder: &Path) -> Result<Option<PathBuf>> {
        let file = folder.join(ADAPTER_CONFIG);
        if !file.exists() {
            return Ok(None);
        }
        let base = PeftConfig::read(folder)?.base_model_name_or_path.filter(|b| !b.is_empty());
        let reason =
            "base_model_name_or_path: found none, expected the folder or name of the model that it was trained for";
        base.map(|b| Some(PathBuf::from(b))).ok_or_else(|| Error::file(file, reason))
    }

    /// A checkpoint whose weights include the adapter of a folder (`adapter_config.json`, `adapter_model.safetensors`
    /// or `.bin`).
    ///
    /// # Errors
    /// If files are missing, or tensors do not fit the checkpoint: one error that lists them all.
    pub fn apply_to(folder: &Path, mut checkpoint: Checkpoint) -> Result<Checkpoint> {
        let config = PeftConfig::read(folder)?;
        let file = ["adapter_model.safetensors", "adapter_model.bin"].map(|n| folder.join(n));
        let file = file.iter().find(|f| f.exists()).ok_or_else(|| {
            Error::file(folder, "found adapter_config.json only, expected adapter_model.safetensors or .bin as well")
        })?;
        let tensors = Checkpoint::open(file)?;
        let names: Vec<String> = checkpoint.names().map(ToOwned::to_owned).collect();
        let (mut changes, mut replaced, mut problems) = (BTreeMap::new(), Vec::new(), Vec::new());
        for name in tensors.names() {
            let bare = name.strip_prefix(PEFT_PREFIX).unwrap_or(name).replace(".default.", ".");
            match role(&bare) {
                Role::Companion => {}
                Role::Replacement(target) => match nearest_name(&names, &target) {
                    Some(found) => replaced.push((found, name.to_owned())),
                    None => problems.push(format!("  {name}: the model has no such tensor")),
                },
                Role::A { module, marker } => match change(&checkpoint, &tensors, &names, (name, module, marker)) {
                    Ok((target, change, rank)) => {
                        changes.insert(target, Change { scale: config.scale(module, rank), ..change });
                    }
                    Err(problem) => problems.push(problem),
                },
            }
        }
        if !problems.is_empty() {
            return Err(Error::Checkpoint { path: file.clone(), problems: problems.join("\n") });
        }
        for (name, source) in replaced {
            checkpoint.replace(&name, &tensors, &source);
        }
        Ok(checkpoint.with_overlay(Arc::new(Self { tensors, changes })))
    }
}

/// The weight that an A matrix changes, how (its scale still to be set), and its rank; or what does not fit.
fn change(
    checkpoint: &Checkpoint,
    tensors: &Checkpoint,
    names: &[String],
    (name, module, marker): (&str, &str, &str),
) -> std::result::Result<(String, Change, i64), String> {
    let b_name = name.replace(marker, &marker.replace('A', "B"));
    let target = nearest_name(names, &format!("{module}.weight"))
        .ok_or_else(|| format!("  {name}: the model has no {module}.weight"))?;
    let (Some(a), Some(b)) = (tensors.shape(name), tensors.shape(&b_name)) else {
        return Err(format!("  {b_name} is missing"));
    };
    let rank = if marker == ".lora_A" { a.first() } else { b.last() }.copied().unwrap_or(0);
    let shape = checkpoint.shape(&target).unwrap_or_default();
    let numel = |s: &[i64]| s.iter().product::<i64>();
    if rank < 1 || numel(a) / rank * (numel(b) / rank) != numel(shape) {
        return Err(format!("  {name}: matrices {a:?} and {b:?} do not fit {target} {shape:?}"));
    }
    let prefix = name.split(marker).next().unwrap_or_default();
    let magnitude = ["", ".weight", ".default.weight"]
        .iter()
        .map(|end| format!("{prefix}.lora_magnitude_vector{end}"))
        .find(|n| tensors.shape(n).is_some());
    Ok((target, Change { a: name.to_owned(), b: b_name, magnitude, scale: 1.0 }, rank))
}

impl TensorOverlay for Adapter {
    fn changes(&self, name: &str) -> bool {
        self.changes.contains_key(name)
    }

    fn apply(&self, name: &str, weight: &Tensor) -> Result<Tensor> {
        let Some(change) = self.changes.get(name) else { return Ok(weight.clone()) };
        let read = |n: &str| self.tensors.get(n)?.to_dtype(DType::F32);
        let (a, b) = (read(&change.a)?, read(&change.b)?);
        let shape = weight.shape();
        let original = weight.to_dtype(DType::F32)?;
        let delta = b.reshape(&[b.size(0)?, -1])?.matmul(&a.reshape(&[a.size(0)?, -1])?)?.mul_scalar(change.scale)?;
        let matrix = [shape[0], shape[1..].iter().product()];
        // A weight of another shape than [output, input] is stored transposed; for a square one the name decides
        // (GPT-2's `c_proj`).
        let layer = name.strip_suffix(".weight").and_then(|n| n.rsplit('.').next()).unwrap_or_default();
        let square = matrix[0] == matrix[1] && (layer.starts_with("c_") || layer == "q_attn");
        let transposed = change.a.contains("embedding") || square || delta.shape() != matrix;
        let delta = if transposed { delta.transpose(0, 1)? } else { delta };
        let mut sum = original.add(&delta.reshape(&shape)?)?;
        if let Some(magnitude) = &change.magnitude {
            // Of the rows of [output, input], whichever way they are stored.
            let (dim, broadcast) = if transposed { (0, [1, -1]) } else { (1, [-1, 1]) };
            let norm = sum.pow(2.0)?.sum_dim(&[dim], true)?.sqrt()?;
            sum = sum.div(&norm)?.mul(&read(magnitude)?.reshape(&broadcast)?)?;
        }
        sum.to_dtype(weight.dtype()?)
    }
}

/// The tensor of a checkpoint that an adapter means by a name: the one of that name, else the only one that shares the
/// longest suffix with it (libraries nest models: `model.layers…`, `language_model.model.layers…`).
pub(super) fn nearest_name(names: &[String], wanted: &str) -> Option<String> {
    if let Some(found) = names.iter().find(|n| *n == wanted) {
        return Some(found.clone());
    }
    // Number of parts that agree at the end (at least the layer's index and what follows it), then anywhere.
    let parts: Vec<&str> = wanted.split('.').collect();
    let agreement = |n: &str| {
        let end = n.rsplit('.').zip(parts.iter().rev()).take_while(|(a, b)| a == *b).count();
        (end, n.split('.').filter(|p| parts.contains(p)).count())
    };
    let most = names.iter().map(|n| agreement(n)).max()?;
    let mut best = names.iter().filter(|n| agreement(n) == most);
    let found = best.next().filter(|_| most.0 >= 3.min(parts.len()))?;
    best.next().is_none().then(|| found.clone())
}
