//! Low-rank adapters (`LoRA`, Hu 2021) in the layout of PEFT: learned beside frozen weights, saved by themselves, and merged into the
//! weights when a checkpoint is read.

use crate::{Checkpoint, Error, Init, Result, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How frozen weights beside adapters are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantization {
    /// Four bits a number: sixteen levels at equal shares of a normal distribution, scaled by the largest of each sixty-four (NF4 of `QLoRA`,
    /// Dettmers 2023).
    Nf4,
}

/// Which layers get adapters, and how wide they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Width between the two matrices.
    #[serde(default = "eight")]
    pub rank: i64,
    /// What is added is multiplied by `alpha / rank`; twice the rank when absent.
    #[serde(default)]
    pub alpha: Option<f64>,
    /// By `alpha / √rank` instead (rank-stabilised, Kalajdzievski 2023).
    #[serde(default)]
    pub use_rslora: bool,
    /// Names of the layers as the checkpoint has them, or the ends of such names (`query`, `self_attn.q_proj`); every affine layer of the
    /// blocks when empty.
    #[serde(default)]
    pub target_modules: Vec<String>,
    /// How the weights of the blocks' affine layers are held while the adapters learn; in full when absent.
    #[serde(default)]
    pub quantize: Option<Quantization>,
}

fn eight() -> i64 {
    8
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: eight(), alpha: None, use_rslora: false, target_modules: Vec::new(), quantize: None }
    }
}

impl LoraConfig {
    /// Says what makes no sense.
    pub fn check(&self) -> Result<()> {
        if self.rank < 1 {
            return Err(Error::config("adapter.rank", self.rank, "at least 1"));
        }
        if self.alpha.is_some_and(|a| !a.is_finite() || a <= 0.0) {
            return Err(Error::config("adapter.alpha", self.alpha.unwrap_or_default(), "a number above 0"));
        }
        Ok(())
    }

    fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(2.0 * self.rank as f64)
    }

    fn scale(&self) -> f64 {
        scale(self.alpha(), self.rank, self.use_rslora)
    }

    /// Whether the layer at `path`, which the checkpoint calls `module`, gets one.
    pub(crate) fn picks(&self, path: &str, module: &str) -> bool {
        if self.target_modules.is_empty() {
            return in_block(path);
        }
        self.target_modules.iter().any(|t| ends(module, t))
    }
}

/// Whether a parameter is of a block.
pub(crate) fn in_block(path: &str) -> bool {
    path.split('.').any(|part| part == "layers")
}

fn scale(alpha: f64, rank: i64, stabilized: bool) -> f64 {
    if stabilized { alpha / (rank.max(1) as f64).sqrt() } else { alpha / rank.max(1) as f64 }
}

/// Whether a dotted name is `end`, or ends with it.
fn ends(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// What is learned beside one layer: `scale · (x · Aᵀ) · Bᵀ`.
pub(crate) struct LowRank {
    /// `[rank, input]`.
    a: Tensor,
    /// `[output, rank]`.
    b: Tensor,
    scale: f64,
}

impl LowRank {
    pub(crate) fn apply(&self, input: &Tensor) -> Result<Tensor> {
        input.linear(&self.a, None)?.linear(&self.b, None)?.mul_scalar(self.scale)
    }
}

/// Adapters that a model is built with.
pub(crate) struct Plan {
    pub(crate) config: LoraConfig,
    /// The first matrices, by layer of the checkpoint: pieces of one layer there share it.
    pub(crate) first: BTreeMap<String, Tensor>,
    /// Layers of the checkpoint that have one, and whether their weights lie transposed.
    pub(crate) layers: BTreeMap<String, bool>,
}

impl Plan {
    pub(crate) fn new(config: LoraConfig) -> Self {
        Self { config, first: BTreeMap::new(), layers: BTreeMap::new() }
    }

    pub(crate) fn pair(&self, a: Tensor, b: Tensor) -> LowRank {
        LowRank { a, b, scale: self.config.scale() }
    }

    /// `A` as PEFT begins it; `B` begins with zeros, so that nothing changes at first.
    pub(crate) fn init(input: i64) -> Init {
        Init::Uniform(1.0 / (input.max(1) as f64).sqrt())
    }

    /// `adapter_config.json` as PEFT reads it.
    pub(crate) fn describe(&self, base: &str, kept: &[String]) -> Value {
        let mut targets: Vec<String> = self.config.target_modules.clone();
        if targets.is_empty() {
            targets = self.layers.keys().cloned().collect();
        }
        json!({
            "peft_type": "LORA", "task_type": null, "base_model_name_or_path": base, "inference_mode": true,
            "r": self.config.rank, "lora_alpha": self.config.alpha(), "lora_dropout": 0.0, "bias": "none",
            "target_modules": targets, "use_rslora": self.config.use_rslora, "use_dora": false,
            "fan_in_fan_out": self.layers.values().any(|t| *t), "init_lora_weights": true, "rank_pattern": {},
            "alpha_pattern": {}, "modules_to_save": if kept.is_empty() { Value::Null } else { json!(kept) },
        })
    }
}

/// Whether a parameter of this name is of an adapter.
pub(crate) fn is_adapter(name: &str) -> bool {
    name.contains(".lora_")
}

/// How PEFT begins the names of its tensors.
pub(crate) const PREFIX: &str = "base_model.model.";

/// The file that says that a folder holds an adapter.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// What an adapter changes of one weight.
#[derive(Debug, Clone)]
struct Change {
    /// Names of both matrices in the adapter.
    a: String,
    b: String,
    /// The rows' lengths, where those are learned by themselves (`DoRA`, Liu 2024).
    lengths: Option<String>,
    scale: f64,
}

/// A saved adapter, and what it changes of a checkpoint.
pub struct Adapter {
    tensors: Checkpoint,
    changes: BTreeMap<String, Change>,
}

/// What of `adapter_config.json` counts when its weights are merged.
#[derive(Debug, Deserialize)]
struct Saved {
    peft_type: Option<String>,
    base_model_name_or_path: Option<String>,
    lora_alpha: Option<f64>,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    alpha_pattern: Option<BTreeMap<String, f64>>,
}

fn saved(folder: &Path) -> Result<Saved> {
    let file = folder.join(ADAPTER_CONFIG);
    let text = std::fs::read_to_string(&file).map_err(|e| Error::file(&file, e))?;
    let saved: Saved = serde_json::from_str(&text).map_err(|e| Error::file(&file, e))?;
    match saved.peft_type.as_deref() {
        Some("LORA") => Ok(saved),
        other => Err(Error::file(
            file,
            format!("peft_type: found {}, wanted LORA, the kind that mm reads", other.unwrap_or("nothing")),
        )),
    }
}

impl Adapter {
    /// The name of the model that an adapter's folder says it was learned for; none where the folder holds no adapter.
    pub fn base_model(folder: &Path) -> Result<Option<PathBuf>> {
        let file = folder.join(ADAPTER_CONFIG);
        if !file.exists() {
            return Ok(None);
        }
        let base = saved(folder)?.base_model_name_or_path.filter(|b| !b.is_empty());
        let wanted =
            "base_model_name_or_path: found none, wanted the folder or name of the model that it was learned for";
        base.map(|b| Some(PathBuf::from(b))).ok_or_else(|| Error::file(file, wanted))
    }

    /// The adapter of a folder (`adapter_config.json`, `adapter_model.safetensors` or `.bin`), laid over a checkpoint.
    pub fn apply_to(folder: &Path, checkpoint: Checkpoint) -> Result<Checkpoint> {
        let config = saved(folder)?;
        let file = ["adapter_model.safetensors", "adapter_model.bin"].map(|n| folder.join(n));
        let file = file.iter().find(|f| f.exists()).ok_or_else(|| {
            Error::file(folder, "an adapter_config.json and no weights; wanted adapter_model.safetensors or .bin")
        })?;
        let tensors = Checkpoint::open(file)?;
        let names: Vec<String> = checkpoint.names().map(ToOwned::to_owned).collect();
        let mut adapter = Self { changes: BTreeMap::new(), tensors };
        let (mut replaced, mut problems) = (Vec::new(), Vec::new());
        for name in adapter.tensors.names() {
            let bare = name.strip_prefix(PREFIX).unwrap_or(name).replace(".default.", ".");
            if bare.contains("lora_magnitude_vector") || bare.contains("lora_B") || bare.contains("lora_embedding_B") {
                continue;
            }
            let Some((module, kind)) =
                [".lora_A", ".lora_embedding_A"].iter().find_map(|k| Some((bare.split_once(k)?.0, *k)))
            else {
                // A layer that was learned as a whole.
                let bare = bare.replace(".modules_to_save.", ".").replace(".base_layer.", ".");
                match nearest(&names, &bare) {
                    Some(found) => replaced.push((found, name.to_owned())),
                    None => problems.push(format!("  {name}: the model has no such tensor")),
                }
                continue;
            };
            let b = name.replace(kind, &kind.replace('A', "B"));
            let Some(found) = nearest(&names, &format!("{module}.weight")) else {
                problems.push(format!("  {name}: the model has no {module}.weight"));
                continue;
            };
            let (Some(first), Some(second)) = (adapter.tensors.shape(name), adapter.tensors.shape(&b)) else {
                problems.push(format!("  {b} is missing"));
                continue;
            };
            let rank = if kind == ".lora_A" { first[0] } else { second[second.len() - 1] };
            let shape = checkpoint.shape(&found).unwrap_or_default();
            let count = |s: &[i64]| s.iter().product::<i64>();
            if rank < 1 || count(first) / rank * (count(second) / rank) != count(shape) {
                problems.push(format!("  {name}: matrices of {first:?} and {second:?} do not make {found} {shape:?}"));
                continue;
            }
            let alpha = config.alpha_pattern.iter().flatten().find(|(k, _)| ends(module, k)).map(|(_, a)| *a);
            let alpha = alpha.or(config.lora_alpha).unwrap_or(8.0);
            let lengths =
                [".lora_magnitude_vector", ".lora_magnitude_vector.weight", ".lora_magnitude_vector.default.weight"]
                    .iter()
                    .map(|end| format!("{}{end}", name.split(kind).next().unwrap_or_default()))
                    .find(|n| adapter.tensors.shape(n).is_some());
            let scale = scale(alpha, rank, config.use_rslora);
            adapter.changes.insert(found, Change { a: name.to_owned(), b, lengths, scale });
        }
        if !problems.is_empty() {
            return Err(Error::Checkpoint { path: file.clone(), problems: problems.join("\n") });
        }
        let mut changed = checkpoint;
        for (name, theirs) in replaced {
            changed.take(&name, &adapter.tensors, &theirs);
        }
        changed.adapter = Some(Arc::new(adapter));
        Ok(changed)
    }

    /// Whether a tensor is changed by it.
    pub(crate) fn touches(&self, name: &str) -> bool {
        self.changes.contains_key(name)
    }

    /// A weight with what was learned added, of the same type.
    pub(crate) fn merge(&self, name: &str, weight: &Tensor) -> Result<Tensor> {
        let Some(change) = self.changes.get(name) else { return Ok(weight.clone()) };
        let read = |n: &str| self.tensors.get(n)?.to_dtype(crate::DType::F32);
        let (a, b) = (read(&change.a)?, read(&change.b)?);
        let shape = weight.shape();
        let plain = weight.to_dtype(crate::DType::F32)?;
        let delta = b.reshape(&[b.size(0)?, -1])?.matmul(&a.reshape(&[a.size(0)?, -1])?)?.mul_scalar(change.scale)?;
        let wide = [shape[0], shape[1..].iter().product()];
        // Weights of another shape than [output, input] lie transposed; of square ones the name tells (GPT-2's `c_proj`).
        let layer = name.strip_suffix(".weight").and_then(|n| n.rsplit('.').next()).unwrap_or_default();
        let square = wide[0] == wide[1] && (layer.starts_with("c_") || layer == "q_attn");
        let turned = change.a.contains("embedding") || square || delta.shape() != wide;
        let delta = if turned { delta.transpose(0, 1)? } else { delta };
        let mut sum = plain.add(&delta.reshape(&shape)?)?;
        if let Some(lengths) = &change.lengths {
            // Rows of [output, input], whichever way they lie.
            let (along, across) = if turned { (0, [1, -1]) } else { (1, [-1, 1]) };
            let norm = sum.pow(2.0)?.sum_dim(&[along], true)?.sqrt()?;
            sum = sum.div(&norm)?.mul(&read(lengths)?.reshape(&across)?)?;
        }
        sum.to_dtype(weight.dtype()?)
    }
}

/// The tensor of a checkpoint that an adapter means by a name: the one of that name, else the one that shares the longest end with it (programs
/// put models into models: `model.layers…`, `language_model.model.layers…`).
fn nearest(names: &[String], wanted: &str) -> Option<String> {
    if let Some(found) = names.iter().find(|n| *n == wanted) {
        return Some(found.clone());
    }
    // How many parts at the end agree (a layer's number and what it is of must), then how many before.
    let parts: Vec<&str> = wanted.split('.').collect();
    let shared = |n: &str| {
        let end = n.rsplit('.').zip(parts.iter().rev()).take_while(|(a, b)| a == *b).count();
        (end, n.split('.').filter(|p| parts.contains(p)).count())
    };
    let most = names.iter().map(|n| shared(n)).max()?;
    let mut best = names.iter().filter(|n| shared(n) == most);
    let found = best.next().filter(|_| most.0 >= 3.min(parts.len()))?;
    best.next().is_none().then(|| found.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Device, Module, Params, Role, checkpoint::save, nn::Linear};

    #[test]
    fn what_is_learned_beside_a_layer_is_what_merging_adds_to_it_also_in_pieces_and_transposed() {
        let folder = std::env::temp_dir().join(format!("mm-adapter-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        crate::seed::manual_seed(3);
        let randn = |shape: &[i64]| Tensor::randn(shape, DType::F32, Device::Cpu).unwrap();
        let base = folder.join("model.safetensors");
        // `c_attn` as GPT-2 has it: three layers side by side, transposed.
        save(
            &base,
            &[
                ("h.0.c_attn.weight".into(), randn(&[5, 15])),
                ("h.0.out.weight".into(), randn(&[4, 5])),
                ("h.0.c_proj.weight".into(), randn(&[5, 5])),
            ],
            &[],
        )
        .unwrap();
        let rename = |name: &str| match name {
            "layers.0.q.weight" => "h.0.c_attn.weight#0/3^T".into(),
            "layers.0.k.weight" => "h.0.c_attn.weight#1/3^T".into(),
            "layers.0.v.weight" => "h.0.c_attn.weight#2/3^T".into(),
            "layers.0.out.weight" => "h.0.out.weight".into(),
            "layers.0.proj.weight" => "h.0.c_proj.weight^T".into(),
            other => other.to_owned(),
        };
        let build = |params: &Params| -> Vec<Linear> {
            let scope = params.scope().pp("layers").pp(0);
            let layer = |name: &str, out| Linear::new(&scope.pp(name), 5, out, false).unwrap();
            vec![layer("q", 5), layer("k", 5), layer("v", 5), layer("out", 4), layer("proj", 5)]
        };
        for use_rslora in [false, true] {
            let open = || Checkpoint::open(&base).unwrap();
            let params = Params::from_checkpoint(open(), Device::Cpu, DType::F32, rename);
            params.add_adapters(LoraConfig { rank: 2, alpha: Some(6.0), use_rslora, ..LoraConfig::default() }).unwrap();
            let layers = build(&params);
            params.finish().unwrap();
            params.freeze_except_adapters(&[]).unwrap();
            let x = randn(&[3, 5]);
            let plain = build(&Params::from_checkpoint(open(), Device::Cpu, DType::F32, rename));
            let at = |layers: &[Linear]| layers.iter().map(|l| l.forward(&x, false).unwrap()).collect::<Vec<_>>();
            let off = |a: &[Tensor], b: &[Tensor]| {
                let each =
                    a.iter().zip(b).map(|(a, b)| a.sub(b).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap());
                each.fold(0.0, f64::max)
            };
            assert!(off(&at(&layers), &at(&plain)) < 1e-7, "an adapter begins as nothing");
            for (name, tensor) in params.named(&[Role::Trainable]) {
                assert!(name.contains(".lora_"));
                crate::no_grad(|| tensor.copy_(&randn(&tensor.shape()))).unwrap();
            }
            let learned = at(&layers);
            assert!(off(&learned, &at(&plain)) > 0.1);
            params.save_adapter(&folder, "base", &[]).unwrap();
            let written = Checkpoint::open(folder.join("adapter_model.safetensors")).unwrap();
            let names: Vec<&str> = written.names().collect();
            assert_eq!(names.len(), 6, "{names:?}");
            assert_eq!(written.shape("base_model.model.h.0.c_attn.lora_B.weight"), Some(&[15, 2][..]));
            let merged =
                Params::from_checkpoint(Adapter::apply_to(&folder, open()).unwrap(), Device::Cpu, DType::F32, rename);
            assert!(off(&learned, &at(&build(&merged))) < 1e-5);
        }
        let config = std::fs::read_to_string(folder.join(ADAPTER_CONFIG)).unwrap();
        std::fs::write(folder.join(ADAPTER_CONFIG), config.replace("LORA", "LOHA")).unwrap();
        let error = Adapter::base_model(&folder).unwrap_err().to_string();
        assert!(error.contains("found LOHA, wanted LORA"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn names_are_found_where_programs_put_models_into_models() {
        let names: Vec<String> =
            ["language_model.model.layers.0.mlp.up.weight", "vision.layers.0.mlp.up.weight", "head.weight"]
                .map(Into::into)
                .into();
        assert_eq!(nearest(&names, "head.weight").as_deref(), Some("head.weight"));
        assert_eq!(nearest(&names, "model.language_model.layers.0.mlp.up.weight").as_deref(), Some(names[0].as_str()));
        assert_eq!(nearest(&names, "model.vision.layers.0.mlp.up.weight").as_deref(), Some(names[1].as_str()));
        assert_eq!(nearest(&names, "base.layers.0.mlp.up.weight"), None, "two are as near");
        assert_eq!(nearest(&names, "other.weight"), None);
    }
}
