//! Parameters by the names that the field's checkpoints use: initialized or loaded, saved under the same names.

mod init;
mod scope;
mod source;
mod tensor_ref;

pub use init::Init;
pub use scope::Scope;
pub use tensor_ref::TensorRef;

use crate::{
    Checkpoint, DType, Device, Error, LoraConfig, Result, Tensor, checkpoint,
    lora::{ADAPTER_CONFIG, LoraPlan, PEFT_PREFIX, is_lora},
};
use source::{CheckpointSource, Stored};
use std::{cell::RefCell, collections::BTreeMap, path::Path};

/// The role of a parameter in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Updated by the optimizer.
    Trainable,
    /// Never changed, and not in a run's checkpoint, which names its source instead.
    Frozen,
    /// Updated by the layer itself (running statistics).
    Buffer,
}

#[derive(Clone)]
struct Entry {
    tensor: Tensor,
    role: Role,
    stored: Option<Stored>,
}

/// A model's parameters and buffers, by dotted name.
///
/// ```
/// use mm_core::{Device, Init, Params, Role};
/// # fn main() -> mm_core::Result<()> {
/// let params = Params::new(Device::Cpu);
/// let weight = params.scope().pp("proj").param("weight", &[4, 8], Init::Normal(0.02))?;
/// assert!(weight.requires_grad());
/// assert_eq!(params.num_elements(&[Role::Trainable]), 32);
/// # Ok(())
/// # }
/// ```
pub struct Params {
    device: Device,
    dtype: DType,
    entries: RefCell<BTreeMap<String, Entry>>,
    source: RefCell<Option<CheckpointSource>>,
    lora: RefCell<Option<LoraPlan>>,
}

impl Params {
    /// Parameters that are initialized, by libtorch's seeded generator.
    pub fn new(device: Device) -> Self {
        Self::with_source(device, DType::F32, None)
    }

    /// Parameters that are loaded from a checkpoint; `rename` maps the name of a parameter to the tensor that holds it
    /// ([`TensorRef`], or its text form). Dimensions of size one may differ.
    pub fn from_checkpoint<R: Into<TensorRef>>(
        checkpoint: Checkpoint,
        device: Device,
        dtype: DType,
        rename: impl Fn(&str) -> R + Send + 'static,
    ) -> Self {
        let rename = Box::new(move |name: &str| rename(name).into());
        Self::with_source(device, dtype, Some(CheckpointSource::new(checkpoint, rename)))
    }

    fn with_source(device: Device, dtype: DType, source: Option<CheckpointSource>) -> Self {
        let (source, lora) = (RefCell::new(source), RefCell::new(None));
        Self { device, dtype, entries: RefCell::default(), source, lora }
    }

    /// Gives layers that are built from now on low-rank adapters where the config matches. Weights stay trainable; see
    /// [`Params::freeze_except_adapters`].
    ///
    /// # Errors
    /// If the config is invalid.
    pub fn add_adapters(&self, config: LoraConfig) -> Result<()> {
        config.check()?;
        self.lora.replace(Some(LoraPlan::new(config)));
        Ok(())
    }

    /// Initializes parameters whose name in the checkpoint starts with one of `prefixes` instead of loading them (a
    /// head for other labels).
    pub fn reinitialize(&self, prefixes: &[String]) {
        if let Some(source) = self.source.borrow_mut().as_mut() {
            source.reinitialize(prefixes);
        }
    }

    /// Freezes all parameters but adapters and those whose name in the checkpoint starts with one of `trainable`; call
    /// it before [`Params::finish`].
    ///
    /// # Errors
    /// If libtorch cannot change a tensor's gradient flag.
    pub fn freeze_except_adapters(&self, trainable: &[String]) -> Result<()> {
        let source = self.source.borrow();
        let stored = |path: &str| source.as_ref().map_or_else(|| path.to_owned(), |s| s.locate(path).name);
        self.freeze(|name| !is_lora(name) && !trainable.iter().any(|t| stored(name).starts_with(t.as_str())))
    }

    /// Number of layers of the checkpoint that have an adapter.
    pub fn num_adapters(&self) -> usize {
        self.lora.borrow().as_ref().map_or(0, |plan| plan.layers.len())
    }

    /// Writes the adapters of `base_model` in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.
    /// Layers whose names start with one of `modules_to_save` were trained in full and are saved with them.
    ///
    /// # Errors
    /// If the model has no adapters, or a file cannot be written.
    pub fn save_adapter(&self, folder: &Path, base_model: &str, modules_to_save: &[String]) -> Result<()> {
        let plan = self.lora.borrow();
        let Some(plan) = plan.as_ref() else {
            return Err(Error::config("adapter", "a model without adapters", "one that was built with them"));
        };
        let mut tensors = self.export_where(is_lora)?;
        if !modules_to_save.is_empty() {
            let full = self.export_where(|path| !is_lora(path))?;
            let saved = |name: &str| modules_to_save.iter().any(|m| name.starts_with(m.as_str()));
            tensors.extend(full.into_iter().filter(|(name, _)| saved(name)));
        }
        for (name, tensor) in &mut tensors {
            *name = format!("{PEFT_PREFIX}{name}");
            *tensor = tensor.detach()?.contiguous()?;
        }
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        checkpoint::save(&folder.join("adapter_model.safetensors"), &tensors, &[("format", "pt".into())])?;
        let modules: Vec<String> = modules_to_save.iter().map(|m| m.trim_end_matches('.').to_owned()).collect();
        let text = format!("{:#}\n", plan.peft_config(base_model, &modules));
        checkpoint::write_atomic(&folder.join(ADAPTER_CONFIG), text.as_bytes())
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Ends loading from the checkpoint and returns the names in it that no parameter asked for.
    ///
    /// # Errors
    /// If tensors were missing or had another shape: one error that lists them all by name.
    pub fn finish(&self) -> Result<Vec<String>> {
        self.source.borrow_mut().take().map_or_else(|| Ok(Vec::new()), CheckpointSource::finish)
    }

    /// All parameters but adapters, named and shaped as in the checkpoint that they were loaded from: chunks joined,
    /// transpositions undone.
    ///
    /// # Errors
    /// If tensors cannot be joined.
    pub fn export(&self) -> Result<Vec<(String, Tensor)>> {
        self.export_where(|path| !is_lora(path))
    }

    fn export_where(&self, select: impl Fn(&str) -> bool) -> Result<Vec<(String, Tensor)>> {
        let entries = self.entries.borrow();
        let mut chunks: BTreeMap<&str, Vec<(i64, &Stored, &Tensor)>> = BTreeMap::new();
        let mut out = Vec::new();
        for (path, entry) in entries.iter().filter(|(path, _)| select(path)) {
            let Some(stored) = &entry.stored else {
                out.push((path.clone(), entry.tensor.clone()));
                continue;
            };
            let index = stored.tensor.chunk.map_or(0, |(index, _)| index);
            chunks.entry(stored.tensor.name.as_str()).or_default().push((index, stored, &entry.tensor));
        }
        for (name, mut parts) in chunks {
            parts.sort_by_key(|(index, ..)| *index);
            let stored = parts[0].1;
            let tensors: Vec<&Tensor> = parts.iter().map(|(.., t)| *t).collect();
            let joined = match tensors.as_slice() {
                [one] => (*one).clone(),
                // Two names of one tensor (tied weights) are no chunks.
                [one, ..] if stored.tensor.chunk.is_none() => (*one).clone(),
                many => Tensor::cat(many, 0)?,
            };
            let joined = if stored.tensor.transposed && joined.rank() == 2 { joined.transpose(0, 1)? } else { joined };
            out.push((name.to_owned(), joined.reshape(&stored.shape)?));
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
    }

    /// Names and tensors of the given roles, sorted by name.
    pub fn named(&self, roles: &[Role]) -> Vec<(String, Tensor)> {
        let entries = self.entries.borrow();
        entries.iter().filter(|(_, e)| roles.contains(&e.role)).map(|(n, e)| (n.clone(), e.tensor.clone())).collect()
    }

    /// Number of values in the parameters of the given roles.
    pub fn num_elements(&self, roles: &[Role]) -> usize {
        self.named(roles).iter().map(|(_, t)| t.numel()).sum()
    }

    /// Freezes the trainable parameters whose name `select` picks; they are not in a run's checkpoint either.
    ///
    /// # Errors
    /// If libtorch cannot change a tensor's gradient flag.
    pub fn freeze(&self, select: impl Fn(&str) -> bool) -> Result<()> {
        for (name, entry) in self.entries.borrow_mut().iter_mut() {
            if entry.role == Role::Trainable && select(name) {
                entry.tensor.set_requires_grad(false)?;
                entry.role = Role::Frozen;
            }
        }
        Ok(())
    }

    /// Overwrites trainable parameters and buffers with the tensors that a checkpoint has under `prefix` and their
    /// names.
    ///
    /// # Errors
    /// If tensors are missing, unexpected or of another shape: one error that lists them all, and nothing is
    /// overwritten.
    pub fn load(&self, checkpoint: &Checkpoint, prefix: &str) -> Result<()> {
        let own = self.named(&[Role::Trainable, Role::Buffer]);
        let mut problems = Vec::new();
        for (name, tensor) in &own {
            match checkpoint.shape(&format!("{prefix}{name}")) {
                None => problems.push(format!("  missing {prefix}{name} {:?}", tensor.shape())),
                Some(shape) if shape != tensor.shape() => {
                    problems.push(format!("  {prefix}{name}: found {shape:?}, expected {:?}", tensor.shape()));
                }
                Some(_) => {}
            }
        }
        let stored = checkpoint.names().filter_map(|n| n.strip_prefix(prefix));
        let unexpected = stored.filter(|n| !own.iter().any(|(name, _)| name == n));
        problems.extend(unexpected.map(|n| format!("  unexpected {prefix}{n}")));
        if !problems.is_empty() {
            return Err(Error::Checkpoint { path: checkpoint.path().into(), problems: problems.join("\n") });
        }
        for (name, tensor) in &own {
            tensor.copy_(&checkpoint.get(&format!("{prefix}{name}"))?)?;
        }
        Ok(())
    }
}
