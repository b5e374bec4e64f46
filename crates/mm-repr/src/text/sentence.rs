//! sentence-transformers folders: an encoder, pooling, optionally linear layers and normalization, as `modules.json`
//! lists them.
//!
//! *Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks* (Reimers, Gurevych, 2019),
//! <https://arxiv.org/abs/1908.10084>.

use super::{classifier::TextClassifier, transformer::TextTransformer};
use crate::{Error, Result, family::PretrainedEncoder, json::read_json};
use mm_core::{
    Checkpoint, DType, Device, Encoder, Features, Input, Modality, Module, Params, Pooling, Tensor,
    nn::{Activation, Linear},
};
use serde_json::Value;
use std::path::Path;

/// A text encoder with the pooling of its folder.
pub struct SentenceEncoder {
    inner: TextTransformer,
    /// The results are concatenated.
    poolings: Vec<Pooling>,
    /// Whether a prompt is pooled as well; `include_prompt` of the pooling.
    pools_prompt: bool,
    /// Number of tokens at the start that are not pooled: those of the default prompt, where prompts are not pooled.
    skipped: i64,
    modules: Vec<PostModule>,
    classifier: Option<TextClassifier>,
}

/// A module after pooling.
enum PostModule {
    Dense(Box<Linear>, Activation),
    Normalize,
}

impl SentenceEncoder {
    /// Reads `modules.json` and each module's config; a folder without it is pooled by the mean. With `encoder_only`,
    /// the modules are ignored.
    /// `prompt_length` is the number of tokens of the default prompt; modules are on `device`.
    pub(crate) fn new(
        folder: &Path,
        inner: TextTransformer,
        encoder_only: bool,
        prompt_length: i64,
        device: Device,
    ) -> Result<Self> {
        let mut dim = inner.dim();
        let mut encoder = Self {
            inner,
            poolings: vec![Pooling::Mean],
            pools_prompt: true,
            skipped: 0,
            modules: Vec::new(),
            classifier: None,
        };
        // An older layout has the transformer in a folder below that of modules.json.
        let parent = folder.parent().filter(|p| p.join("modules.json").exists());
        let top = if folder.join("modules.json").exists() { Some(folder) } else { parent };
        let Some(top) = top.filter(|_| !encoder_only) else { return Ok(encoder) };
        let file = top.join("modules.json");
        for module in read_json(&file)?.as_array().into_iter().flatten() {
            let class = class_name(&module["type"], "");
            let module_folder = top.join(module["path"].as_str().unwrap_or(""));
            match class {
                "Transformer" => {}
                "Pooling" => {
                    let config = module_folder.join("config.json");
                    encoder.poolings = poolings(&config)?;
                    encoder.pools_prompt = read_json(&config)?["include_prompt"] != false;
                    encoder.skipped = if encoder.pools_prompt { 0 } else { prompt_length };
                    dim *= encoder.poolings.len() as i64;
                }
                "Dense" => {
                    let (layer, activation, output) = dense(&module_folder, dim, device)?;
                    encoder.modules.push(PostModule::Dense(Box::new(layer), activation));
                    dim = output;
                }
                "Normalize" => encoder.modules.push(PostModule::Normalize),
                other => {
                    let expected = "expected Transformer, Pooling, Dense or Normalize";
                    return Err(Error::folder(file, format!("module `{other}` is not supported; {expected}")));
                }
            }
        }
        Ok(encoder)
    }
}

impl SentenceEncoder {
    /// With the classifier of its checkpoint.
    pub(super) fn with_classifier(self, classifier: Option<TextClassifier>) -> Self {
        Self { classifier, ..self }
    }

    /// Whether the tokens of a prompt are pooled like others.
    pub(super) fn pools_prompt(&self) -> bool {
        self.pools_prompt
    }

    /// The embedding of features, of which the first `skipped` of each row are not pooled.
    fn embed_features(&self, features: &Features, skipped: i64, train: bool) -> mm_core::Result<Tensor> {
        let pooled = Self::without_prompt(features, skipped)?;
        let pooled = self.poolings.iter().map(|p| pooled.pool(*p)).collect::<mm_core::Result<Vec<_>>>()?;
        let mut x = Tensor::cat(&pooled.iter().collect::<Vec<_>>(), -1)?; // [batch, dim]
        for module in &self.modules {
            x = match module {
                PostModule::Dense(layer, activation) => {
                    // The layer's weights are in float32: they are small.
                    activation.apply(&layer.forward(&x.to_dtype(DType::F32)?, train)?)?
                }
                PostModule::Normalize => x.normalize()?,
            };
        }
        Ok(x)
    }

    /// The features that are pooled: all valid ones but those of the prompt.
    fn without_prompt(features: &Features, skipped: i64) -> mm_core::Result<Features> {
        if skipped == 0 {
            return Ok(features.clone());
        }
        let values = &features.values;
        let (rows, length) = (values.size(0)?, values.size(1)?);
        let text = Tensor::arange(0, length, values.device())?.gt_scalar(skipped as f64 - 0.5)?; // [length]
        let text = text.unsqueeze(0)?.expand(&[rows, -1])?;
        let mask = features.mask.as_ref().map_or_else(|| Ok(text.clone()), |mask| mask.logical_and(&text))?;
        Features::new(values.clone(), Some(mask))
    }
}

/// The last part of a Python class's path.
fn class_name<'a>(value: &'a Value, default: &'a str) -> &'a str {
    value.as_str().unwrap_or(default).rsplit('.').next().unwrap_or("")
}

/// A `Dense` module on `device` for inputs of dimension `dim`: the layer, its activation, and its output dimension.
fn dense(folder: &Path, dim: i64, device: Device) -> Result<(Linear, Activation, i64)> {
    let file = folder.join("config.json");
    let config = read_json(&file)?;
    let size = |key: &str| config[key].as_i64().ok_or_else(|| Error::folder(&file, format!("has no `{key}`")));
    let (input, output) = (size("in_features")?, size("out_features")?);
    if input != dim {
        let expected = format!("expected {dim}, the dimension of the previous module");
        return Err(Error::folder(&file, format!("in_features: found {input}, {expected}")));
    }
    let activation = match class_name(&config["activation_function"], "Identity") {
        "Tanh" => Activation::Tanh,
        "Identity" => Activation::Identity,
        "ReLU" => Activation::Relu,
        "GELU" => Activation::Gelu,
        "SiLU" => Activation::Silu,
        "Sigmoid" => Activation::Sigmoid,
        other => return Err(Error::folder(&file, format!("activation_function `{other}` is not supported"))),
    };
    let params = Params::from_checkpoint(Checkpoint::open(folder)?, device, DType::F32, ToOwned::to_owned);
    let bias = config["bias"].as_bool().unwrap_or(true);
    let layer = Linear::new(&params.scope().frozen().pp("linear"), input, output, bias)?;
    params.finish()?;
    Ok((layer, activation, output))
}

/// The poolings of a `Pooling` module, in the order in which their results are concatenated.
fn poolings(file: &Path) -> Result<Vec<Pooling>> {
    let config = read_json(file)?;
    let by_name = |name: &str| {
        Ok(match name {
            "mean" => Pooling::Mean,
            "cls" => Pooling::Cls,
            "max" => Pooling::Max,
            "lasttoken" => Pooling::Last,
            other => {
                let reason = format!("pooling_mode: found `{other}`, expected mean, cls, max or lasttoken");
                return Err(Error::folder(file, reason));
            }
        })
    };
    // Newer versions of sentence-transformers write names, older ones a flag for each pooling.
    match &config["pooling_mode"] {
        Value::String(name) => return Ok(vec![by_name(name)?]),
        Value::Array(names) => return names.iter().map(|n| by_name(n.as_str().unwrap_or(""))).collect(),
        _ => {}
    }
    let is_set = |key: &str| config[key].as_bool() == Some(true);
    let poolings: Vec<Pooling> = [
        ("pooling_mode_cls_token", Pooling::Cls),
        ("pooling_mode_max_tokens", Pooling::Max),
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_lasttoken", Pooling::Last),
    ]
    .into_iter()
    .filter(|(key, _)| is_set(key))
    .map(|(_, pooling)| pooling)
    .collect();
    let unsupported = ["pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens"];
    if poolings.is_empty() || unsupported.iter().any(|k| is_set(k)) {
        return Err(Error::folder(file, "expected at least one of the poolings cls, max, mean and last token"));
    }
    Ok(poolings)
}

impl Encoder for SentenceEncoder {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        self.inner.encode(input, train)
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        Ok(self.encode_and_embed(input, train)?.1)
    }

    fn encode_and_embed(&self, input: &Input, train: bool) -> mm_core::Result<(Features, Tensor)> {
        let features = self.inner.encode(input, train)?;
        let embedding = self.embed_features(&features, self.skipped, train)?;
        Ok((features, embedding))
    }

    fn dim(&self) -> i64 {
        self.inner.dim()
    }

    fn embedding_dim(&self) -> i64 {
        let dense = self.modules.iter().rev().find_map(|m| match m {
            PostModule::Dense(layer, _) => Some(layer.out_features()),
            PostModule::Normalize => None,
        });
        dense.unwrap_or(self.inner.dim() * self.poolings.len() as i64)
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}

impl PretrainedEncoder for SentenceEncoder {
    fn has_classifier(&self) -> bool {
        self.classifier.is_some()
    }

    fn logits(&self, input: &Input) -> mm_core::Result<Option<Tensor>> {
        let Some(classifier) = &self.classifier else { return Ok(None) };
        classifier.logits(&self.inner.encode(input, false)?.values).map(Some)
    }

    fn pair_logits(&self, input: &Input) -> mm_core::Result<Option<Tensor>> {
        let Some(classifier) = &self.classifier else { return Ok(None) };
        classifier.logits(&self.inner.encode_pairs(input)?.values).map(Some)
    }

    fn hidden_states(&self, input: &Input) -> mm_core::Result<Option<Vec<Features>>> {
        self.inner.hidden_states(input).map(Some)
    }

    fn skips_padding(&self) -> bool {
        true
    }

    fn embed_after_prompt(&self, input: &Input, skipped: i64) -> mm_core::Result<Tensor> {
        self.embed_features(&self.inner.encode(input, false)?, skipped, false)
    }
}
