//! What a pretrained family is made of: a row in a table, the names of its parameters in checkpoints, and a function that builds it
//! on the shared blocks of mm-core.

use crate::{Error, ModelPaths, Result};
use mm_core::{
    Checkpoint, DType, Device, Encoder, Features, Input, LoraConfig, Modality, Module, Params, Processor, Role, Scope,
    Tensor,
    nn::{Linear, Transformer, TransformerConfig},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    cell::Cell,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A pretrained network: an encoder, and a classifier on it where the checkpoint has one.
pub trait Network: Encoder {
    /// What maps the pooled vector to scores of the classes, where there is such a layer.
    fn classifier(&self) -> Option<&Linear> {
        None
    }

    /// Scores of the classes `[batch, classes]` before softmax; `None` where there is no classifier.
    fn logits(&self, input: &Input) -> mm_core::Result<Option<Tensor>> {
        self.classifier().map(|c| c.forward(&self.embed(input, false)?, false)).transpose()
    }

    /// What goes into the first layer and what comes out of each; `None` where the family does not tell.
    fn hidden_states(&self, _input: &Input) -> mm_core::Result<Option<Vec<Features>>> {
        Ok(None)
    }
}

/// An encoder whose vector is the means of some of its layers side by side: what a layer before the last knows of a text (how it feels, how it
/// is built) the last, which was trained to tell meanings apart, may have let go (Tenney 2019).
pub struct ConcatLayers {
    inner: Box<dyn Network>,
    layers: Vec<usize>,
}

impl ConcatLayers {
    /// These layers of an encoder, 0 being what goes into the first.
    pub fn new(inner: Box<dyn Network>, layers: Vec<usize>) -> Self {
        Self { inner, layers }
    }
}

impl Encoder for ConcatLayers {
    fn encode(&self, input: &Input, _train: bool) -> mm_core::Result<Features> {
        let wanted = "a family that tells what each of its layers says (so far: text encoders)";
        let states = self
            .inner
            .hidden_states(input)?
            .ok_or_else(|| mm_core::Error::config("encoder.layers", "a family without", wanted))?;
        let mut chosen = Vec::new();
        for layer in &self.layers {
            let last = states.len() - 1;
            let state = states.get(*layer);
            chosen.push(
                &state.ok_or_else(|| mm_core::Error::config("encoder.layers", layer, format!("0 to {last}")))?.values,
            );
        }
        Features::new(Tensor::cat(&chosen, -1)?, states[0].mask.clone())
    }

    fn dim(&self) -> i64 {
        self.inner.dim() * self.layers.len() as i64
    }

    fn modality(&self) -> Modality {
        self.inner.modality()
    }
}

/// One modality of a pretrained model: how raw values become numbers, and numbers features.
pub struct Tower {
    /// Raw value → numbers.
    pub processor: Arc<dyn Processor>,
    /// Numbers → features.
    pub encoder: Box<dyn Network>,
}

impl Tower {
    /// Both halves.
    pub fn new(processor: impl Processor + 'static, encoder: impl Network + 'static) -> Self {
        Self { processor: Arc::new(processor), encoder: Box::new(encoder) }
    }
}

/// How a joint model scores a pair of vectors of unit length: `scale · a·b + bias`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ContrastiveHead {
    /// Inverse temperature.
    pub scale: f64,
    /// Added to each score; `Some` where scores go through a sigmoid by themselves (SigLIP) instead of a softmax together.
    pub bias: Option<f64>,
}

/// What a family's builder gives.
pub struct Model {
    /// One a modality.
    pub towers: Vec<Tower>,
    /// How it scores pairs, where it puts several modalities into one space.
    pub contrastive_head: Option<ContrastiveHead>,
}

impl From<Tower> for Model {
    fn from(tower: Tower) -> Self {
        Self { towers: vec![tower], contrastive_head: None }
    }
}

/// A row of a table of families, whose builder makes an `M`.
pub struct Family<M = Model> {
    /// `model_type` in `config.json`; timm's and open_clip's folders, which have none, are told apart by [`crate::Pretrained`].
    pub model_type: &'static str,
    /// Names here → names in this checkpoint.
    pub weight_map: fn(&Checkpoint, &Value) -> WeightMap,
    /// Makes the model.
    pub build: fn(&ModelBuilder<'_>) -> Result<M>,
}

/// How a folder is loaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// Where to compute.
    pub device: Device,
    /// What the weights are converted to.
    pub dtype: DType,
    /// Only so many blocks, and no projection after them: features of a layer, 0 for what goes into the first, negative from the end.
    pub layer: Option<i64>,
    /// So many of the last blocks go on learning (transformers only); none when absent.
    pub trainable_layers: Option<usize>,
}

/// What a folder became.
pub struct Loaded<M> {
    /// The model.
    pub model: M,
    /// Its weights.
    pub params: Params,
    /// Names in the checkpoint that were not needed.
    pub unexpected_keys: Vec<String>,
    /// Changes whenever its numbers would.
    pub fingerprint: String,
}

/// What programs store beside the weights though it follows from the config.
const BUFFERS: [&str; 5] =
    ["num_batches_tracked", "position_ids", "token_type_ids", "relative_position_index", "masked_spec_embed"];

/// What is learned further of a model.
#[derive(Debug, Clone, Default)]
pub struct FineTuneOptions {
    /// Low-rank adapters beside its layers, and nothing else; without them all of it.
    pub adapter: Option<LoraConfig>,
    /// Beginnings of the checkpoint's names whose tensors are made anew (a head for other labels); they are learned whole.
    pub reinitialized: Vec<String>,
}

/// Builds what `family` makes of a model whose config is known.
pub fn load<M>(place: &ModelPaths, config: &Value, family: &Family<M>, options: LoadOptions) -> Result<Loaded<M>> {
    load_for_fine_tuning(place, config, family, options, None)
}

/// The same of a model that goes on learning.
pub fn load_for_fine_tuning<M>(
    place: &ModelPaths,
    config: &Value,
    family: &Family<M>,
    options: LoadOptions,
    further: Option<&FineTuneOptions>,
) -> Result<Loaded<M>> {
    let folder = place.files.as_path();
    let checkpoint = place.checkpoint()?;
    let names = checkpoint.clone();
    let fingerprint = fingerprint(config, place, checkpoint.path(), options)?;
    let map = (family.weight_map)(&names, config);
    let params = Params::from_checkpoint(checkpoint, options.device, options.dtype, move |n| map.apply(n));
    if let Some(further) = further {
        params.reinitialize(&further.reinitialized);
        further.adapter.clone().map(|a| params.add_adapters(a)).transpose()?;
    }
    let learning = options.trainable_layers.is_some() || further.is_some();
    let scope = if learning { params.scope() } else { params.scope().frozen() };
    let (layer, stacked) = (options.layer, Cell::new(false));
    let build = ModelBuilder { folder, config, checkpoint: &names, scope, layer, stacked };
    let model = (family.build)(&build)?;
    if layer.is_some() && !build.stacked.get() {
        return Err(build.config_error(format!(
            "`{}` is no stack of alike blocks, so --layer has nothing to cut",
            family.model_type
        )));
    }
    if let Some(last) = options.trainable_layers {
        let blocks = params.named(&[Role::Trainable]).iter().filter_map(|(n, _)| block(n)).max();
        let blocks = blocks.filter(|_| build.stacked.get() && last > 0).map(|b| b + 1).ok_or_else(|| {
            let wanted = "wanted a stack of alike blocks, and at least one";
            build.config_error(format!("`{}` with trainable_layers = {last}: {wanted}", family.model_type))
        })?;
        params.freeze(|name| block(name).is_none_or(|b| b + last < blocks))?;
    }
    if let Some(further) = further.filter(|f| f.adapter.is_some()) {
        if params.num_adapters() == 0 {
            let targets = further.adapter.as_ref().map(|a| a.target_modules.join(", ")).unwrap_or_default();
            return Err(build.config_error(format!(
                "adapter.target_modules: no layer of `{}` is called {targets}",
                family.model_type
            )));
        }
        params.freeze_except_adapters(&further.reinitialized)?;
    }
    let unexpected_keys = params.finish()?.into_iter().filter(|n| !BUFFERS.iter().any(|b| n.ends_with(b))).collect();
    Ok(Loaded { model, params, unexpected_keys, fingerprint })
}

/// The file that holds the weights, or the folder where the usual names decide.
pub(crate) fn weights(folder: &Path) -> PathBuf {
    let own = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"];
    let usual = folder.join("model.safetensors").exists() || folder.join("model.safetensors.index.json").exists();
    own.iter().map(|n| folder.join(n)).find(|p| !usual && p.exists()).unwrap_or_else(|| folder.to_owned())
}

/// Of the config, the pre-processing and the weights' file: the features are a function of these.
fn fingerprint(config: &Value, place: &ModelPaths, weights: &Path, options: LoadOptions) -> Result<String> {
    let folder = &place.files;
    let mut hasher = blake3::Hasher::new();
    hasher.update(config.to_string().as_bytes()).update(format!("{:?}{:?}", options.dtype, options.layer).as_bytes());
    for name in [
        "preprocessor_config.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "tokenizer_config.json",
    ] {
        hasher.update(&std::fs::read(folder.join(name)).unwrap_or_default()).update(&[0]);
    }
    for name in
        place.adapter.iter().flat_map(|a| [mm_core::ADAPTER_CONFIG, "adapter_model.safetensors"].map(|n| a.join(n)))
    {
        hasher.update(&std::fs::read(name).unwrap_or_default()).update(&[0]);
    }
    // A file that was not written since has the same numbers: reading a gigabyte to be sure would cost more than loading it.
    let about = std::fs::metadata(weights).map_err(|e| Error::folder(weights, e))?;
    if about.len() <= 64 << 20 {
        let file = std::fs::File::open(weights).map_err(|e| Error::folder(weights, e))?;
        hasher.update_reader(file).map_err(|e| Error::folder(weights, e))?;
    } else {
        hasher.update(format!("{} {:?}", about.len(), about.modified().ok()).as_bytes());
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

/// Which block of its stack a parameter is of.
fn block(name: &str) -> Option<usize> {
    let mut parts = name.split('.');
    parts.find(|p| *p == "layers")?;
    parts.next()?.parse().ok()
}

/// Replacements that turn a name here into the checkpoint's, applied in order; `^` before what is replaced stands for the start.
#[derive(Debug, Clone, Default)]
pub struct WeightMap(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    /// Only for names that begin so.
    within: String,
    from: String,
    to: String,
}

impl WeightMap {
    /// The rules of a table.
    pub fn new(rules: &[(&str, &str)]) -> Self {
        let rule = |(from, to): &(&str, &str)| Rule { within: String::new(), from: (*from).into(), to: (*to).into() };
        Self(rules.iter().map(rule).collect())
    }

    /// One more rule, for names that begin with `within`.
    pub fn and_within(mut self, within: &str, from: &str, to: &str) -> Self {
        self.0.push(Rule { within: within.into(), from: from.into(), to: to.into() });
        self
    }

    /// More rules, after those that are there.
    pub fn and(mut self, rules: &[(&str, &str)]) -> Self {
        self.0.extend(Self::new(rules).0);
        self
    }

    /// The same rules, for names that begin with `place` alone.
    pub fn only_within(mut self, place: &str) -> Self {
        for rule in &mut self.0 {
            if rule.within.is_empty() {
                place.clone_into(&mut rule.within);
            }
        }
        self
    }

    /// More rules, after those that are there.
    pub fn then(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The name in the checkpoint.
    pub fn apply(&self, name: &str) -> String {
        let mut name = name.to_owned();
        for Rule { within, from, to } in &self.0 {
            if !name.starts_with(within.as_str()) {
                continue;
            }
            match from.strip_prefix('^') {
                Some(start) => {
                    if let Some(rest) = name.strip_prefix(start) {
                        name = format!("{to}{rest}");
                    }
                }
                None if name.contains(from.as_str()) => name = name.replace(from.as_str(), to),
                None => {}
            }
        }
        name
    }
}

/// The first of `prefixes` under which the checkpoint has `probe`; the last when none has it, for its name in the error.
pub fn prefix<'a>(checkpoint: &Checkpoint, probe: &str, prefixes: &[&'a str]) -> &'a str {
    let found = prefixes.iter().find(|p| checkpoint.shape(&format!("{p}{probe}")).is_some());
    found.or(prefixes.last()).copied().unwrap_or("")
}

/// What a builder works with.
pub struct ModelBuilder<'a> {
    /// The checkpoint folder.
    pub folder: &'a Path,
    /// Its `config.json`.
    pub config: &'a Value,
    /// Its tensors' names and shapes.
    pub checkpoint: &'a Checkpoint,
    /// Where parameters go; frozen.
    pub scope: Scope<'a>,
    /// Only so many blocks, without what follows them.
    pub layer: Option<i64>,
    /// Whether a stack was built that this could cut.
    pub stacked: Cell<bool>,
}

impl ModelBuilder<'_> {
    /// The config as a family's own struct; fields that it does not know are not needed for its features.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        self.parse_part(self.config, "")
    }

    /// A part of the config (`text_config`) as a struct.
    pub fn parse_part<T: DeserializeOwned>(&self, value: &Value, field: &str) -> Result<T> {
        let value = if value.is_null() { Value::Object(Default::default()) } else { without_nulls(value) };
        let place = if field.is_empty() { String::new() } else { format!("{field}: ") };
        serde_json::from_value(value).map_err(|e| Error::folder(self.folder.join("config.json"), format!("{place}{e}")))
    }

    /// A JSON file of the folder; `Null` when it is not there.
    pub fn json(&self, name: &str) -> Result<Value> {
        crate::text::read_json(&self.folder.join(name))
    }

    /// A part of the folder's model, with its own config, as if it were the whole.
    pub fn part<'b>(&'b self, config: &'b Value) -> ModelBuilder<'b> {
        let (folder, checkpoint, scope) = (self.folder, self.checkpoint, self.scope.clone());
        ModelBuilder { folder, config, checkpoint, scope, layer: self.layer, stacked: Cell::new(false) }
    }

    /// The shared stack of blocks, cut at the layer that was asked for: then nothing follows it.
    pub fn transformer(&self, scope: &Scope<'_>, config: TransformerConfig) -> Result<Transformer> {
        self.stacked.set(true);
        let Some(layer) = self.layer else { return Ok(Transformer::new(scope, &config)?) };
        let count = if layer < 0 { config.num_layers + 1 + layer } else { layer };
        if count < 0 || count > config.num_layers {
            return Err(
                mm_core::Error::config("--layer", layer, format!("at most the {} layers", config.num_layers)).into()
            );
        }
        let final_norm = config.final_norm && count == config.num_layers;
        Ok(Transformer::new(scope, &TransformerConfig { num_layers: count, final_norm, ..config })?)
    }

    /// How many classes the config names.
    pub fn num_labels(&self) -> i64 {
        num_labels(self.config)
    }

    /// An error about the config.
    pub fn config_error(&self, reason: impl std::fmt::Display) -> Error {
        Error::folder(self.folder.join("config.json"), reason)
    }
}

/// How many classes a config names: by `num_labels` (timm: `num_classes`), else by its labels, else two (transformers' default).
pub fn num_labels(config: &Value) -> i64 {
    let labels = config["id2label"].as_object().map(|l| l.len() as i64);
    let plain = ["num_labels", "num_classes"].iter().find_map(|k| config[*k].as_i64());
    plain.or(labels).unwrap_or(2)
}

/// The names of the classes by their numbers.
pub fn labels(config: &Value, classes: i64) -> Vec<String> {
    let named = |i: i64| config["id2label"][i.to_string()].as_str().map(ToOwned::to_owned);
    let listed = |i: i64| config["label_names"][i as usize].as_str().map(ToOwned::to_owned);
    (0..classes).map(|i| named(i).or_else(|| listed(i)).unwrap_or_else(|| format!("LABEL_{i}"))).collect()
}

/// `null` says the same as nothing.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect())
        }
        other => other.clone(),
    }
}

/// A config struct whose fields have the defaults of the reference program, for what a `config.json` leaves out.
#[macro_export]
macro_rules! checkpoint_config {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty = $value:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, serde::Deserialize)]
        #[serde(default)]
        #[allow(missing_docs)]
        pub struct $name { $(pub $field: $kind,)* }
        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $value,)* }
            }
        }
    };
}
pub(crate) use checkpoint_config as config;
