//! Positions in the tree of parameter names, from which layers get their parameters.

use super::{Entry, Init, Params, Role, TensorRef, source::Stored};
use crate::{
    DType, Device, Error, Result, Tensor, checkpoint,
    lora::{LoraPair, is_in_block},
    nf4::Nf4,
};

/// A prefix of parameter names, and how parameters below it are built.
#[derive(Clone)]
pub struct Scope<'a> {
    params: &'a Params,
    prefix: String,
    frozen: bool,
    detached: bool,
    decode_mode: bool,
}

impl Params {
    /// The root scope.
    pub fn scope(&self) -> Scope<'_> {
        Scope { params: self, prefix: String::new(), frozen: false, detached: false, decode_mode: false }
    }
}

impl<'a> Scope<'a> {
    /// The scope `name` below this one ("push prefix", as in candle).
    pub fn pp(&self, name: impl std::fmt::Display) -> Scope<'a> {
        Scope { prefix: self.path(&name.to_string()), ..self.clone() }
    }

    /// A copy of this scope in which parameters are frozen.
    pub fn frozen(&self) -> Scope<'a> {
        Scope { frozen: true, ..self.clone() }
    }

    /// The same scope for layers that are built a second time over existing parameters: the same values, now and after
    /// each step, but no gradient reaches them (a discriminator applied to a generator's output without being trained
    /// by it).
    pub fn detached(&self) -> Scope<'a> {
        Scope { detached: true, ..self.clone() }
    }

    /// The same scope for layers that process a few rows again and again (the steps of a decoder), for which packing
    /// weights pays off even then.
    pub fn decode_mode(&self) -> Scope<'a> {
        Scope { decode_mode: true, ..self.clone() }
    }

    /// Whether layers built here process a few rows again and again.
    pub fn is_decode_mode(&self) -> bool {
        self.decode_mode
    }

    /// Whether layers built here share existing parameters without gradients.
    pub fn is_detached(&self) -> bool {
        self.detached
    }

    /// Whether parameters built here are frozen.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Where parameters built here are.
    pub fn device(&self) -> Device {
        self.params.device
    }

    fn path(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// Whether the checkpoint has a tensor for this name; true for parameters that are not loaded from one.
    pub fn has(&self, name: &str) -> bool {
        let path = self.path(name);
        self.params.source.borrow().as_ref().is_none_or(|source| source.contains(&path))
    }

    /// A parameter by name: from the checkpoint if there is one, else initialized.
    ///
    /// # Errors
    /// If the name is already taken, or the checkpoint cannot be read. Missing tensors are reported by
    /// [`Params::finish`].
    pub fn param(&self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        let role = if self.frozen { Role::Frozen } else { Role::Trainable };
        self.build(name, shape, init, role)
    }

    /// A tensor that the layer updates itself (running statistics).
    ///
    /// # Errors
    /// Those of [`Scope::param`].
    pub fn buffer(&self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        self.build(name, shape, init, if self.frozen { Role::Frozen } else { Role::Buffer })
    }

    fn build(&self, name: &str, shape: &[i64], init: Init, role: Role) -> Result<Tensor> {
        let path = self.path(name);
        if self.detached {
            let entries = self.params.entries.borrow();
            let known = entries.keys().map(String::as_str);
            let entry = entries.get(&path).ok_or_else(|| Error::unknown("parameter to share", &path, known))?;
            // A detached tensor shares the memory.
            return if role == Role::Buffer { Ok(entry.tensor.clone()) } else { entry.tensor.detach() };
        }
        let (tensor, stored) = match self.load(&path, shape)? {
            Some((tensor, stored)) => (tensor, Some(stored)),
            None if self.params.source.borrow().as_ref().is_some_and(|source| source.lacks(&path)) => {
                // Params::finish reports it. Until then one value stands for all, whatever size the config states.
                let value = Tensor::zeros(&vec![1; shape.len()], self.params.dtype, self.params.device)?;
                (value.expand(shape)?, None)
            }
            None => (init.tensor(shape, self.params.dtype, self.params.device)?, None),
        };
        let tensor = if role == Role::Trainable { tensor.set_requires_grad(true)? } else { tensor };
        let entry = Entry { tensor: tensor.clone(), role, stored };
        let previous = self.params.entries.borrow_mut().insert(path.clone(), entry);
        if previous.is_some() {
            return Err(Error::config(path, "two parameters of that name", "distinct names"));
        }
        Ok(tensor)
    }

    fn load(&self, path: &str, shape: &[i64]) -> Result<Option<(Tensor, Stored)>> {
        let Params { dtype, device, .. } = *self.params;
        let mut source = self.params.source.borrow_mut();
        let Some(source) = source.as_mut() else { return Ok(None) };
        source.load(path, shape, self.frozen && device == Device::Cpu, (dtype, device))
    }

    /// The low-rank adapter of the affine layer at this scope, if it gets one.
    pub(crate) fn lora(&self, in_features: i64, out_features: i64) -> Result<Option<LoraPair>> {
        let mut plan = self.params.lora.borrow_mut();
        let Some(plan) = plan.as_mut().filter(|_| !self.detached) else { return Ok(None) };
        let path = self.path("weight");
        let source = self.params.source.borrow();
        let reference = source.as_ref().map_or_else(|| TensorRef::from(path.as_str()), |s| s.locate(&path));
        let module = reference.name.strip_suffix(".weight").unwrap_or(&reference.name).to_owned();
        if !plan.config.matches(&path, &module) {
            return Ok(None);
        }
        let Params { dtype, device, .. } = *self.params;
        let rank = plan.config.rank;
        let register = |name: &str, tensor: &Tensor, chunk: Option<(i64, i64)>| {
            let mut shape = tensor.shape();
            shape[0] *= chunk.map_or(1, |(_, count)| count);
            let tensor_ref = TensorRef { name: format!("{module}.{name}.weight"), chunk, transposed: false };
            let stored = Some(Stored { tensor: tensor_ref, shape });
            let entry = Entry { tensor: tensor.clone(), role: Role::Trainable, stored };
            self.params.entries.borrow_mut().insert(self.path(&format!("{name}.weight")), entry);
        };
        let a = if let Some(shared) = plan.shared_a.get(&module) {
            shared.clone()
        } else {
            // As PEFT: A uniform, B zero, so that nothing changes at first.
            let init = Init::Uniform(1.0 / (in_features.max(1) as f64).sqrt());
            let a = init.tensor(&[rank, in_features], dtype, device)?.set_requires_grad(true)?;
            register("lora_A", &a, None);
            plan.shared_a.insert(module.clone(), a.clone());
            a
        };
        let b = Tensor::zeros(&[out_features, rank], dtype, device)?.set_requires_grad(true)?;
        register("lora_B", &b, reference.chunk);
        plan.layers.insert(module, reference.transposed);
        Ok(Some(plan.pair(a, b)))
    }

    /// The weight of an affine layer in four bits, if the adapter config asks for it: it is read, quantized and
    /// dropped, and is no parameter.
    pub(crate) fn nf4(&self, shape: &[i64]) -> Result<Option<Nf4>> {
        let path = self.path("weight");
        let wanted = self.params.lora.borrow().as_ref().is_some_and(|p| p.config.quantize.is_some());
        if !wanted || self.detached || !is_in_block(&path) || self.params.source.borrow().is_none() {
            return Ok(None);
        }
        // A frozen weight is read in place from the mapped file.
        let Some((weight, _)) = self.frozen().load(&path, shape)? else {
            // Params::finish reports what is missing.
            return Nf4::quantize(&Tensor::zeros(shape, DType::F32, self.params.device)?).map(Some);
        };
        let packed = Nf4::quantize(&weight)?;
        checkpoint::release(&weight);
        Ok(Some(packed))
    }

    /// Adds all parameters of another set below this scope (a pretrained encoder becomes part of a model).
    pub fn merge(&self, other: &Params) {
        let mut entries = self.params.entries.borrow_mut();
        for (name, entry) in other.entries.borrow().iter() {
            entries.insert(self.path(name), entry.clone());
        }
    }
}
