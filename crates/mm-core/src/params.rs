//! Parameters by the field's own names: made fresh or taken from a checkpoint, saved and loaded under the same names.

use crate::{
    Checkpoint, DType, Device, Error, LoraConfig, Result, Tensor,
    adapter::{ADAPTER_CONFIG, LowRank, PREFIX, Plan, in_block, is_adapter},
    checkpoint,
    nf4::Nf4,
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

/// How a fresh parameter begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// One number.
    Constant(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// Uniform in ±bound.
    Uniform(f64),
}

/// What a parameter is to training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Learned by gradient.
    Trainable,
    /// Used as it is; not in a run's checkpoint, which names its source instead.
    Frozen,
    /// Kept by the layer itself (running statistics).
    Buffer,
}

#[derive(Clone)]
struct Entry {
    tensor: Tensor,
    role: Role,
    /// Where it came from, and as what.
    stored: Option<Stored>,
}

/// Where a parameter lies in a checkpoint that names or shapes it otherwise.
#[derive(Debug, Clone, PartialEq)]
struct Stored {
    name: String,
    /// Which of how many equal pieces along the first dimension (after the transposition) it is.
    part: Option<(i64, i64)>,
    /// Whether it is stored with its two dimensions swapped.
    transposed: bool,
    /// Its shape there, of the whole tensor.
    shape: Vec<i64>,
}

impl Stored {
    /// Reads `name`, `name#1/3` (the second of three pieces), `name^T` (transposed); the marks may stand anywhere in the name.
    fn parse(text: &str) -> Self {
        let mut name = text.replace("^T", "");
        let transposed = name.len() < text.len();
        let mut part = None;
        if let Some(at) = name.find('#') {
            let mark: String = name[at + 1..].chars().take_while(|c| c.is_ascii_digit() || *c == '/').collect();
            part = mark.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
            name.replace_range(at..=at + mark.len(), "");
        }
        Self { name, part, transposed, shape: Vec::new() }
    }
}

struct Origin {
    checkpoint: Checkpoint,
    rename: Box<dyn Fn(&str) -> String + Send>,
    /// Beginnings of names in the checkpoint whose tensors are made anew, whatever it has there.
    renewed: Vec<String>,
    used: BTreeSet<String>,
    problems: Vec<String>,
}

impl Origin {
    fn renews(&self, stored: &Stored) -> bool {
        self.renewed.iter().any(|r| stored.name.starts_with(r.as_str()))
    }

    fn stored(&self, path: &str) -> Stored {
        Stored::parse(&(self.rename)(path))
    }
}

/// A model's parameters and buffers, by dotted name.
pub struct Params {
    device: Device,
    dtype: DType,
    entries: RefCell<BTreeMap<String, Entry>>,
    origin: RefCell<Option<Origin>>,
    adapters: RefCell<Option<Plan>>,
}

impl Params {
    /// Parameters that begin fresh, from libtorch's seeded generator.
    pub fn new(device: Device) -> Self {
        Self {
            device,
            dtype: DType::F32,
            entries: RefCell::default(),
            origin: RefCell::new(None),
            adapters: RefCell::new(None),
        }
    }

    /// Parameters that are taken from a checkpoint; `rename` maps a name here to the name there. `name#1/3` there means the second
    /// of three equal pieces along its first dimension (packed projections), `name^T` its transposition (before the pieces); dimensions of
    /// size one may differ.
    pub fn from_checkpoint(
        checkpoint: Checkpoint,
        device: Device,
        dtype: DType,
        rename: impl Fn(&str) -> String + Send + 'static,
    ) -> Self {
        let origin = Origin {
            checkpoint,
            rename: Box::new(rename),
            renewed: Vec::new(),
            used: BTreeSet::new(),
            problems: Vec::new(),
        };
        let (origin, adapters) = (RefCell::new(Some(origin)), RefCell::new(None));
        Self { device, dtype, entries: RefCell::default(), origin, adapters }
    }

    /// Layers that are made from now on get low-rank adapters where the config says so. Weights are learned as ever: freeze what shall
    /// stay.
    pub fn add_adapters(&self, config: LoraConfig) -> Result<()> {
        config.check()?;
        self.adapters.replace(Some(Plan::new(config)));
        Ok(())
    }

    /// Parameters whose name in the checkpoint begins so are made anew, whatever it has there (a head for other labels).
    pub fn reinitialize(&self, beginnings: &[String]) {
        if let Some(origin) = self.origin.borrow_mut().as_mut() {
            origin.renewed = beginnings.to_vec();
        }
    }

    /// Adapters alone go on learning, and parameters whose names in the checkpoint begin with one of `kept`; to be called before
    /// [`Params::finish`].
    pub fn freeze_except_adapters(&self, kept: &[String]) -> Result<()> {
        let origin = self.origin.borrow();
        let stored = |path: &str| origin.as_ref().map_or_else(|| path.to_owned(), |o| o.stored(path).name);
        self.freeze(|name| !is_adapter(name) && !kept.iter().any(|k| stored(name).starts_with(k.as_str())))
    }

    /// How many layers of the checkpoint have an adapter.
    pub fn num_adapters(&self) -> usize {
        self.adapters.borrow().as_ref().map_or(0, |a| a.layers.len())
    }

    /// Writes what was learned beside the weights of `base` as PEFT does: `adapter_config.json` and `adapter_model.safetensors`. Layers whose
    /// names begin with one of `kept` were learned as a whole and go with them.
    pub fn save_adapter(&self, folder: &std::path::Path, base: &str, kept: &[String]) -> Result<()> {
        let plan = self.adapters.borrow();
        let Some(plan) = plan.as_ref() else {
            return Err(Error::config("adapter", "a model without adapters", "one that was built with them"));
        };
        let mut tensors = self.export_where(is_adapter)?;
        if !kept.is_empty() {
            let whole = self.export_where(|path| !is_adapter(path))?;
            tensors.extend(whole.into_iter().filter(|(n, _)| kept.iter().any(|k| n.starts_with(k.as_str()))));
        }
        for (name, tensor) in &mut tensors {
            *name = format!("{PREFIX}{name}");
            *tensor = tensor.detach()?.contiguous()?;
        }
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        checkpoint::save(&folder.join("adapter_model.safetensors"), &tensors, &[("format", "pt".into())])?;
        let kept: Vec<String> = kept.iter().map(|k| k.trim_end_matches('.').to_owned()).collect();
        let text = format!("{:#}\n", plan.describe(base, &kept));
        checkpoint::write_atomic(&folder.join(ADAPTER_CONFIG), text.as_bytes())
    }

    /// The root of the names.
    pub fn scope(&self) -> Scope<'_> {
        Scope { params: self, prefix: String::new(), frozen: false, detached: false, decode_mode: false }
    }

    /// Where the parameters live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Ends taking from a checkpoint: every tensor that was missing or of another shape is one error that lists them all by
    /// name; the names in the checkpoint that nothing asked for are returned.
    pub fn finish(&self) -> Result<Vec<String>> {
        let Some(origin) = self.origin.borrow_mut().take() else { return Ok(Vec::new()) };
        if !origin.problems.is_empty() {
            let problems = origin.problems.iter().map(|p| format!("  {p}")).collect::<Vec<_>>().join("\n");
            return Err(Error::Checkpoint { path: origin.checkpoint.path().into(), problems });
        }
        Ok(origin.checkpoint.names().filter(|n| !origin.used.contains(*n)).map(ToOwned::to_owned).collect())
    }

    /// All parameters as the checkpoint that they were taken from names and shapes them: pieces joined, transpositions undone. Adapters are
    /// not among them.
    pub fn export(&self) -> Result<Vec<(String, Tensor)>> {
        self.export_where(|path| !is_adapter(path))
    }

    fn export_where(&self, which: impl Fn(&str) -> bool) -> Result<Vec<(String, Tensor)>> {
        let entries = self.entries.borrow();
        let mut whole: BTreeMap<String, Vec<(i64, &Stored, Tensor)>> = BTreeMap::new();
        let mut out = Vec::new();
        for (path, entry) in entries.iter().filter(|(path, _)| which(path)) {
            let Some(stored) = &entry.stored else {
                out.push((path.clone(), entry.tensor.clone()));
                continue;
            };
            let tensor = entry.tensor.clone();
            let index = stored.part.map_or(0, |(i, _)| i);
            whole.entry(stored.name.clone()).or_default().push((index, stored, tensor));
        }
        for (name, mut pieces) in whole {
            pieces.sort_by_key(|(index, ..)| *index);
            let shape = pieces[0].1.shape.clone();
            let tensors: Vec<&Tensor> = pieces.iter().map(|(.., t)| t).collect();
            let joined = match tensors.as_slice() {
                [one] => (*one).clone(),
                // Two names for one tensor (tied weights) are no pieces.
                [one, ..] if pieces[0].1.part.is_none() => (*one).clone(),
                many => Tensor::cat(many, 0)?,
            };
            let joined = if pieces[0].1.transposed && joined.rank() == 2 { joined.transpose(0, 1)? } else { joined };
            out.push((name, joined.reshape(&shape)?));
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
    }

    /// Names and tensors of the given roles, in the order of their names.
    pub fn named(&self, roles: &[Role]) -> Vec<(String, Tensor)> {
        let entries = self.entries.borrow();
        entries.iter().filter(|(_, e)| roles.contains(&e.role)).map(|(n, e)| (n.clone(), e.tensor.clone())).collect()
    }

    /// Number of numbers in the parameters of the given roles.
    pub fn num_elements(&self, roles: &[Role]) -> usize {
        self.named(roles).iter().map(|(_, t)| t.numel()).sum()
    }

    /// Parameters whose name `which` picks are learned no more: they stay as they are, and are not in a run's checkpoint.
    pub fn freeze(&self, which: impl Fn(&str) -> bool) -> Result<()> {
        for (name, entry) in self.entries.borrow_mut().iter_mut() {
            if entry.role == Role::Trainable && which(name) {
                entry.tensor.set_requires_grad(false)?;
                entry.role = Role::Frozen;
            }
        }
        Ok(())
    }

    /// Overwrites trainable parameters and buffers with those that a checkpoint has under `prefix` and their names; what is missing,
    /// unexpected or of another shape is one error that lists it all by name, and then nothing has been overwritten.
    pub fn load(&self, checkpoint: &Checkpoint, prefix: &str) -> Result<()> {
        let mine = self.named(&[Role::Trainable, Role::Buffer]);
        let mut problems = Vec::new();
        for (name, tensor) in &mine {
            match checkpoint.shape(&format!("{prefix}{name}")) {
                None => problems.push(format!("  missing {prefix}{name} {:?}", tensor.shape())),
                Some(shape) if shape != tensor.shape() => {
                    problems.push(format!("  {prefix}{name}: found {shape:?}, wanted {:?}", tensor.shape()));
                }
                Some(_) => {}
            }
        }
        let theirs = checkpoint.names().filter_map(|n| n.strip_prefix(prefix));
        problems
            .extend(theirs.filter(|n| !mine.iter().any(|(m, _)| m == n)).map(|n| format!("  unexpected {prefix}{n}")));
        if !problems.is_empty() {
            return Err(Error::Checkpoint { path: checkpoint.path().into(), problems: problems.join("\n") });
        }
        for (name, tensor) in &mine {
            tensor.copy_(&checkpoint.get(&format!("{prefix}{name}"))?)?;
        }
        Ok(())
    }
}

/// A place in the names of [`Params`]; layers ask it for their parameters.
#[derive(Clone)]
pub struct Scope<'a> {
    params: &'a Params,
    prefix: String,
    frozen: bool,
    detached: bool,
    decode_mode: bool,
}

impl<'a> Scope<'a> {
    /// The place `name` below this one.
    pub fn pp(&self, name: impl std::fmt::Display) -> Scope<'a> {
        Scope { prefix: self.path(&name.to_string()), ..self.clone() }
    }

    /// The same place, whose parameters are not learned.
    pub fn frozen(&self) -> Scope<'a> {
        Scope { frozen: true, ..self.clone() }
    }

    /// The same place for layers that are built a second time over the parameters that are there already: same numbers, now and
    /// after each step, but no gradient reaches them. (An adversary judges what is learned without learning from it.)
    pub fn detached(&self) -> Scope<'a> {
        Scope { detached: true, ..self.clone() }
    }

    /// The same place for layers that see a few rows again and again (a decoder's steps): their weights are worth laying out anew for
    /// those too.
    pub fn decode_mode(&self) -> Scope<'a> {
        Scope { decode_mode: true, ..self.clone() }
    }

    /// Whether layers made here see a few rows again and again.
    pub fn is_decode_mode(&self) -> bool {
        self.decode_mode
    }

    /// Whether what is made here shares the tensors of parameters that are there already.
    pub fn is_detached(&self) -> bool {
        self.detached
    }

    /// Whether parameters made here are not learned.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Where parameters made here live.
    pub fn device(&self) -> Device {
        self.params.device
    }

    fn path(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// Whether the checkpoint being taken from has this name; true for fresh parameters.
    pub fn has(&self, name: &str) -> bool {
        let path = self.path(name);
        let origin = self.params.origin.borrow();
        origin.as_ref().is_none_or(|o| {
            let stored = o.stored(&path);
            o.renews(&stored) || o.checkpoint.shape(&stored.name).is_some()
        })
    }

    /// The adapter of the affine layer at this place, where it gets one.
    pub(crate) fn adapter(&self, input: i64, output: i64) -> Result<Option<LowRank>> {
        let mut plan = self.params.adapters.borrow_mut();
        let Some(plan) = plan.as_mut().filter(|_| !self.detached) else { return Ok(None) };
        let path = self.path("weight");
        let stored = self.params.origin.borrow().as_ref().map_or_else(|| Stored::parse(&path), |o| o.stored(&path));
        let module = stored.name.strip_suffix(".weight").unwrap_or(&stored.name).to_owned();
        if !plan.config.picks(&path, &module) {
            return Ok(None);
        }
        let Params { dtype, device, .. } = self.params;
        let rank = plan.config.rank;
        let enter = |name: &str, tensor: &Tensor, part: Option<(i64, i64)>| {
            let parts = part.map_or(1, |(_, n)| n);
            let mut shape = tensor.shape();
            shape[0] *= parts;
            let stored = Stored { name: format!("{module}.{name}.weight"), part, transposed: false, shape };
            let entry = Entry { tensor: tensor.clone(), role: Role::Trainable, stored: Some(stored) };
            self.params.entries.borrow_mut().insert(self.path(&format!("{name}.weight")), entry);
        };
        let a = if let Some(shared) = plan.first.get(&module) {
            shared.clone()
        } else {
            let a = fresh(&[rank, input], Plan::init(input), *dtype, *device)?.set_requires_grad(true)?;
            enter("lora_A", &a, None);
            plan.first.insert(module.clone(), a.clone());
            a
        };
        let b = Tensor::zeros(&[output, rank], *dtype, *device)?.set_requires_grad(true)?;
        enter("lora_B", &b, stored.part);
        plan.layers.insert(module, stored.transposed);
        Ok(Some(plan.pair(a, b)))
    }

    /// The weight of an affine layer in four bits, where the plan of the adapters says so: it is read, packed and let go, and is no parameter.
    pub(crate) fn four_bit(&self, shape: &[i64]) -> Result<Option<Nf4>> {
        let path = self.path("weight");
        let wanted = self.params.adapters.borrow().as_ref().is_some_and(|p| p.config.quantize.is_some());
        if !wanted || self.detached || !in_block(&path) || self.params.origin.borrow().is_none() {
            return Ok(None);
        }
        // A frozen one is looked at where it lies in the file.
        let Some((weight, _)) = self.frozen().take(&path, shape)? else {
            // What is missing is told when all parameters have been asked for.
            return Nf4::quantize(&Tensor::zeros(shape, self.params.dtype, self.params.device)?).map(Some);
        };
        let packed = Nf4::quantize(&weight)?;
        checkpoint::release(&weight);
        Ok(Some(packed))
    }

    /// A parameter by name: from the checkpoint if there is one, else fresh.
    pub fn param(&self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        let role = if self.frozen { Role::Frozen } else { Role::Trainable };
        self.make(name, shape, init, role)
    }

    /// A tensor that the layer keeps by itself.
    pub fn buffer(&self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        self.make(name, shape, init, if self.frozen { Role::Frozen } else { Role::Buffer })
    }

    fn make(&self, name: &str, shape: &[i64], init: Init, role: Role) -> Result<Tensor> {
        let path = self.path(name);
        if self.detached {
            let entries = self.params.entries.borrow();
            let known = entries.keys().map(String::as_str);
            let entry = entries.get(&path).ok_or_else(|| Error::unknown("parameter to share", &path, known))?;
            // Detached tensors share their memory.
            return if role == Role::Buffer { Ok(entry.tensor.clone()) } else { entry.tensor.detach() };
        }
        let (tensor, stored) = match self.take(&path, shape)? {
            Some((tensor, stored)) => (tensor, Some(stored)),
            None => (fresh(shape, init, self.params.dtype, self.params.device)?, None),
        };
        let tensor = if role == Role::Trainable { tensor.set_requires_grad(true)? } else { tensor };
        let entry = Entry { tensor: tensor.clone(), role, stored };
        let previous = self.params.entries.borrow_mut().insert(path.clone(), entry);
        if previous.is_some() {
            return Err(Error::config(path, "two parameters of that name", "names that differ"));
        }
        Ok(tensor)
    }

    fn take(&self, path: &str, shape: &[i64]) -> Result<Option<(Tensor, Stored)>> {
        let mut origin = self.params.origin.borrow_mut();
        let Some(origin) = origin.as_mut() else { return Ok(None) };
        let mut stored = origin.stored(path);
        if origin.renews(&stored) {
            return Ok(None);
        }
        let Some(found) = origin.checkpoint.shape(&stored.name) else {
            origin.problems.push(format!("missing {} {shape:?}", stored.name));
            return Ok(None);
        };
        stored.shape = found.to_vec();
        // What must lie there: the transposition undone, all the pieces.
        let mut wanted = shape.to_vec();
        if let (Some((_, parts)), Some(first)) = (stored.part, wanted.first_mut()) {
            *first *= parts;
        }
        if stored.transposed {
            wanted.reverse();
        }
        let bare = |shape: &[i64]| shape.iter().copied().filter(|s| *s != 1).collect::<Vec<_>>();
        if bare(found) != bare(&wanted) {
            origin.problems.push(format!("{}: found {found:?}, wanted {wanted:?}", stored.name));
            return Ok(None);
        }
        let mut tensor = if self.frozen && self.params.device == Device::Cpu {
            origin.checkpoint.view(&stored.name)?
        } else {
            origin.checkpoint.get(&stored.name)?
        };
        if stored.transposed && tensor.rank() == 2 {
            tensor = tensor.transpose(0, 1)?;
        }
        if let Some((index, parts)) = stored.part {
            let rows = tensor.size(0)? / parts.max(1);
            tensor = tensor.narrow(0, index * rows, rows)?;
        }
        let tensor = tensor.reshape(shape)?.to_dtype(self.params.dtype)?.to_device(self.params.device)?;
        origin.used.insert(stored.name.clone());
        Ok(Some((tensor, stored)))
    }

    /// Takes all parameters of another set in under this place (a pretrained encoder joins a model).
    pub fn merge(&self, other: &Params) {
        let mut entries = self.params.entries.borrow_mut();
        for (name, entry) in other.entries.borrow().iter() {
            entries.insert(self.path(name), entry.clone());
        }
    }
}

fn fresh(shape: &[i64], init: Init, dtype: DType, device: Device) -> Result<Tensor> {
    match init {
        Init::Zeros => Tensor::zeros(shape, dtype, device),
        Init::Ones => Tensor::ones(shape, dtype, device),
        Init::Constant(value) => Tensor::full(shape, value, dtype, device),
        Init::Normal(std) => Tensor::randn(shape, dtype, device)?.mul_scalar(std),
        Init::Uniform(bound) => Tensor::rand(shape, dtype, device)?.mul_scalar(2.0 * bound)?.add_scalar(-bound),
    }
}
