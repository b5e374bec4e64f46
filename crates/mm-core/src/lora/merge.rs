//! Merging a saved adapter into the weights of a checkpoint as they are read.

use super::{
    ADAPTER_CONFIG, PEFT_PREFIX,
    names::nearest_name,
    peft_config::{BaseChange, PeftConfig},
};
use crate::{Checkpoint, DType, Error, Result, Tensor, checkpoint::TensorOverlay};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The change of one weight by an adapter.
#[derive(Debug, Clone)]
struct Change {
    /// Names of both matrices in the adapter.
    a: String,
    b: String,
    /// Magnitudes of the rows, where those are trained separately (DoRA, Liu et al., 2024,
    /// <https://arxiv.org/abs/2402.09353>).
    magnitude: Option<String>,
    scale: f64,
    rank: i64,
}

/// A saved adapter, and what it changes of a checkpoint.
pub struct Adapter {
    tensors: Checkpoint,
    changes: BTreeMap<String, Change>,
    /// What the initialization took from the base weights.
    base_change: BaseChange,
}

/// A tensor of an adapter's file, by what it is for.
enum Role {
    /// The A matrix of a module, and the marker of its kind.
    A { module: String, marker: &'static str },
    /// A layer that was trained in full, by its name in the model.
    Replacement(String),
    /// Found through its A matrix.
    Companion,
}

fn role(bare_name: &str) -> Role {
    if ["lora_magnitude_vector", "lora_B", "lora_embedding_B"].iter().any(|part| bare_name.contains(part)) {
        return Role::Companion;
    }
    for marker in [".lora_A", ".lora_embedding_A"] {
        if let Some((module, _)) = bare_name.split_once(marker) {
            return Role::A { module: module.to_owned(), marker };
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
        let config = PeftConfig::read(folder)?;
        let reason =
            "base_model_name_or_path: found none, expected the folder or name of the model that it was trained for";
        let base = config.base_model.as_ref().filter(|b| !b.is_empty());
        base.map(|b| Some(PathBuf::from(b))).ok_or_else(|| config.error(reason))
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
        let mut problems = replace_tensors(&mut checkpoint, &tensors, &config);
        let names: Vec<String> = checkpoint.names().map(ToOwned::to_owned).collect();
        let mut changes = BTreeMap::new();
        for name in tensors.names() {
            let Role::A { module, marker } = role(&bare_name(name)) else { continue };
            match change(&checkpoint, &tensors, &names, (name, &module, marker)) {
                Ok((target, change)) => {
                    changes.insert(target, Change { scale: config.scale(&module, change.rank), ..change });
                }
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(Error::Checkpoint { path: file.clone(), problems: problems.join("\n") });
        }
        Ok(checkpoint.with_overlay(Arc::new(Self { tensors, changes, base_change: config.base_change })))
    }
}

/// A tensor's name without PEFT's prefix and the adapter's name.
fn bare_name(name: &str) -> String {
    name.strip_prefix(PEFT_PREFIX).unwrap_or(name).replace(".default.", ".")
}

/// Replaces the tensors that were trained in full, among them embeddings with added rows. Returns what does not fit.
fn replace_tensors(checkpoint: &mut Checkpoint, tensors: &Checkpoint, config: &PeftConfig) -> Vec<String> {
    let names: Vec<String> = checkpoint.names().map(ToOwned::to_owned).collect();
    let (mut replaced, mut others) = (Vec::new(), Vec::new());
    for name in tensors.names() {
        let Role::Replacement(target) = role(&bare_name(name)) else { continue };
        match nearest_name(&names, &target) {
            Some(found) => replaced.push((found, name)),
            None => others.push((target, name)),
        }
    }
    let mut problems = Vec::new();
    for (target, name) in others {
        let is_module = |module: &String| target.split('.').any(|part| part == module) || target.starts_with(module);
        let same = |other: &str| {
            let bytes = |n: &str| tensors.get(n).and_then(|t| t.to_bytes()).ok();
            tensors.shape(other) == tensors.shape(name) && bytes(other).is_some_and(|b| bytes(name) == Some(b))
        };
        if config.modules_to_save.iter().any(is_module) {
            // A head that the base model does not have.
            checkpoint.replace(&target, tensors, name);
        } else if !replaced.iter().any(|(_, other)| same(other)) {
            // Not the head of a model that shares it with its embeddings.
            problems.push(format!("  {name}: the model has no such tensor"));
        }
    }
    for (target, name) in replaced {
        checkpoint.replace(&target, tensors, name);
    }
    problems
}

/// The weight that an A matrix changes, and how (its scale still to be set); or what does not fit.
fn change(
    checkpoint: &Checkpoint,
    tensors: &Checkpoint,
    names: &[String],
    (name, module, marker): (&str, &str, &str),
) -> std::result::Result<(String, Change), String> {
    let b_name = name.replace(marker, &marker.replace('A', "B"));
    let target = nearest_name(names, &format!("{module}.weight"))
        .ok_or_else(|| format!("  {name}: the model has no {module}.weight"))?;
    let (Some(a), Some(b)) = (tensors.shape(name), tensors.shape(&b_name)) else {
        return Err(format!("  {b_name} is missing"));
    };
    let shape = checkpoint.shape(&target).unwrap_or_default();
    if [a, b, shape].iter().any(|s| s.len() < 2) {
        return Err(format!("  {name}: found shapes {a:?} and {b:?} for {target} {shape:?}, expected matrices"));
    }
    let rank = if marker == ".lora_A" { a.first() } else { b.last() }.copied().unwrap_or(0);
    let numel = |s: &[i64]| s.iter().product::<i64>();
    if rank < 1 || numel(a) / rank * (numel(b) / rank) != numel(shape) {
        return Err(format!("  {name}: matrices {a:?} and {b:?} do not fit {target} {shape:?}"));
    }
    let prefix = name.split(marker).next().unwrap_or_default();
    let magnitude = ["", ".weight", ".default.weight"]
        .iter()
        .map(|end| format!("{prefix}.lora_magnitude_vector{end}"))
        .find(|n| tensors.shape(n).is_some());
    Ok((target, Change { a: name.to_owned(), b: b_name, magnitude, scale: 1.0, rank }))
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
        let mut original = weight.to_dtype(DType::F32)?;
        let delta = b.reshape(&[b.size(0)?, -1])?.matmul(&a.reshape(&[a.size(0)?, -1])?)?.mul_scalar(change.scale)?;
        let matrix = [shape[0], shape[1..].iter().product()];
        // A weight of another shape than [output, input] is stored transposed; for a square one the name decides
        // (GPT-2's `c_proj`).
        let layer = name.strip_suffix(".weight").and_then(|n| n.rsplit('.').next()).unwrap_or_default();
        let square = matrix[0] == matrix[1] && (layer.starts_with("c_") || layer == "q_attn");
        let transposed = change.a.contains("embedding") || square || delta.shape() != matrix;
        let delta = if transposed { delta.transpose(0, 1)? } else { delta };
        if self.base_change != BaseChange::None {
            let flat = original.reshape(&matrix)?;
            let taken = if transposed {
                taken_from_base(&flat.transpose(0, 1)?, self.base_change, change)?.transpose(0, 1)?
            } else {
                taken_from_base(&flat, self.base_change, change)?
            };
            original = original.sub(&taken.reshape(&shape)?)?;
        }
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

/// What an initialization took from a weight `[output, input]`, to start from it in the adapter.
fn taken_from_base(weight: &Tensor, base_change: BaseChange, change: &Change) -> Result<Tensor> {
    let rank = change.rank.min(weight.size(0)?).min(weight.size(1)?);
    match base_change {
        BaseChange::None => Tensor::zeros(&weight.shape(), DType::F32, weight.device()),
        BaseChange::Pissa => {
            let (u, s, v) = weight.svd()?;
            let (u, s, v) = (u.narrow(1, 0, rank)?, s.narrow(0, 0, rank)?, v.narrow(0, 0, rank)?);
            u.mul(&s)?.matmul(&v)
        }
        BaseChange::Olora => {
            // The first columns of Q span those of the weight, so that Q·R is the weight's projection on them.
            let (u, _, _) = weight.narrow(1, 0, rank)?.svd()?;
            u.matmul(&u.transpose(0, 1)?.matmul(weight)?)?.mul_scalar(change.scale)
        }
    }
}
