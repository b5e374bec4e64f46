//! What a pretrained family is made of: a row in a table, the names of its parameters in checkpoints, and a function that builds it
//! on the shared blocks of mm-core.

use crate::{Error, Result};
use mm_core::{
    Checkpoint, Encoder, Features, Input, Modality, Module, Processor, Scope, Tensor,
    nn::{Linear, Transformer, TransformerConfig},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{cell::Cell, path::Path, sync::Arc};

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
pub struct Layers {
    inner: Box<dyn Network>,
    layers: Vec<usize>,
}

impl Layers {
    /// These layers of an encoder, 0 being what goes into the first.
    pub fn new(inner: Box<dyn Network>, layers: Vec<usize>) -> Self {
        Self { inner, layers }
    }
}

impl Encoder for Layers {
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

    fn width(&self) -> i64 {
        self.inner.width() * self.layers.len() as i64
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
    pub(crate) fn new(processor: impl Processor + 'static, encoder: impl Network + 'static) -> Self {
        Self { processor: Arc::new(processor), encoder: Box::new(encoder) }
    }
}

/// How a joint model scores a pair of vectors of unit length: `scale · a·b + bias`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Joint {
    /// Inverse temperature.
    pub scale: f64,
    /// Added to each score; `Some` where scores go through a sigmoid by themselves (SigLIP) instead of a softmax together.
    pub bias: Option<f64>,
}

/// What a family's builder gives.
pub(crate) struct Model {
    pub(crate) towers: Vec<Tower>,
    pub(crate) joint: Option<Joint>,
}

impl From<Tower> for Model {
    fn from(tower: Tower) -> Self {
        Self { towers: vec![tower], joint: None }
    }
}

/// A row of the table of families.
pub(crate) struct Family {
    /// `model_type` in `config.json`; timm's and open_clip's folders, which have none, are told apart by [`crate::pretrained`].
    pub(crate) kind: &'static str,
    /// Names here → names in this checkpoint.
    pub(crate) names: fn(&Checkpoint, &Value) -> Names,
    pub(crate) build: fn(&Build<'_>) -> Result<Model>,
}

/// Replacements that turn a name here into the checkpoint's, applied in order; `^` before what is replaced stands for the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    /// Only for names that begin so.
    within: String,
    from: String,
    to: String,
}

impl Names {
    /// The rules of a table.
    pub(crate) fn of(rules: &[(&str, &str)]) -> Self {
        let rule = |(from, to): &(&str, &str)| Rule { within: String::new(), from: (*from).into(), to: (*to).into() };
        Self(rules.iter().map(rule).collect())
    }

    /// One more rule, for names that begin with `within`.
    pub(crate) fn and_within(mut self, within: &str, from: &str, to: &str) -> Self {
        self.0.push(Rule { within: within.into(), from: from.into(), to: to.into() });
        self
    }

    /// More rules, after those that are there.
    pub(crate) fn and(mut self, rules: &[(&str, &str)]) -> Self {
        self.0.extend(Self::of(rules).0);
        self
    }

    /// The name in the checkpoint.
    pub(crate) fn apply(&self, name: &str) -> String {
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
pub(crate) fn prefix<'a>(checkpoint: &Checkpoint, probe: &str, prefixes: &[&'a str]) -> &'a str {
    let found = prefixes.iter().find(|p| checkpoint.shape(&format!("{p}{probe}")).is_some());
    found.or(prefixes.last()).copied().unwrap_or("")
}

/// What a builder works with.
pub(crate) struct Build<'a> {
    /// The checkpoint folder.
    pub(crate) folder: &'a Path,
    /// Its `config.json`.
    pub(crate) config: &'a Value,
    /// Its tensors' names and shapes.
    pub(crate) checkpoint: &'a Checkpoint,
    /// Where parameters go; frozen.
    pub(crate) scope: Scope<'a>,
    /// Only so many blocks, without what follows them.
    pub(crate) layer: Option<i64>,
    /// Whether a stack was built that this could cut.
    pub(crate) stacked: Cell<bool>,
}

impl Build<'_> {
    /// The config as a family's own struct; fields that it does not know are not needed for its features.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        self.parse_part(self.config, "")
    }

    /// A part of the config (`text_config`) as a struct.
    pub(crate) fn parse_part<T: DeserializeOwned>(&self, value: &Value, field: &str) -> Result<T> {
        let value = if value.is_null() { Value::Object(Default::default()) } else { without_nulls(value) };
        let place = if field.is_empty() { String::new() } else { format!("{field}: ") };
        serde_json::from_value(value).map_err(|e| Error::folder(self.folder.join("config.json"), format!("{place}{e}")))
    }

    /// A JSON file of the folder; `Null` when it is not there.
    pub(crate) fn json(&self, name: &str) -> Result<Value> {
        crate::text::json(&self.folder.join(name))
    }

    /// The shared stack of blocks, cut at the layer that was asked for: then nothing follows it.
    pub(crate) fn transformer(&self, scope: &Scope<'_>, config: TransformerConfig) -> Result<Transformer> {
        self.stacked.set(true);
        let Some(layer) = self.layer else { return Ok(Transformer::new(scope, &config)?) };
        let count = if layer < 0 { config.layers + 1 + layer } else { layer };
        if count < 0 || count > config.layers {
            return Err(
                mm_core::Error::config("--layer", layer, format!("at most the {} layers", config.layers)).into()
            );
        }
        let final_norm = config.final_norm && count == config.layers;
        Ok(Transformer::new(scope, &TransformerConfig { layers: count, final_norm, ..config })?)
    }

    /// How many classes the config names: by `num_labels` (timm: `num_classes`), else by its labels, else two (transformers' default).
    pub(crate) fn classes(&self) -> i64 {
        let labels = self.config["id2label"].as_object().map(|l| l.len() as i64);
        let plain = ["num_labels", "num_classes"].iter().find_map(|k| self.config[*k].as_i64());
        plain.or(labels).unwrap_or(2)
    }

    /// An error about the config.
    pub(crate) fn bad(&self, reason: impl std::fmt::Display) -> Error {
        Error::folder(self.folder.join("config.json"), reason)
    }
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
macro_rules! config {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty = $value:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, serde::Deserialize)]
        #[serde(default)]
        pub(crate) struct $name { $(pub(crate) $field: $kind,)* }
        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $value,)* }
            }
        }
    };
}
pub(crate) use config;
