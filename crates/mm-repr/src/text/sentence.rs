//! sentence-transformers folders: an encoder, a pooling, maybe linear layers and a normalisation, as `modules.json` lists them
//! (Reimers 2019).

use super::{tokenizer::read_json, transformer::TextTransformer};
use crate::{Error, Result, family::Network};
use mm_core::{
    Checkpoint, DType, Device, Encoder, Features, Input, Modality, Module, Params, Pooling, Tensor,
    nn::{Activation, Linear},
};
use std::path::Path;

/// An encoder with the pooling that its folder asks for.
pub struct SentenceEncoder {
    inner: TextTransformer,
    pools: Vec<Pooling>,
    after: Vec<After>,
}

enum After {
    Dense(Linear, Activation),
    Normalize,
}

impl SentenceEncoder {
    /// ClassifierPooling `modules.json` and each module's own config; a plain encoder folder pools by mean. `bare` leaves out all but the mean.
    pub(crate) fn new(folder: &Path, inner: TextTransformer, bare: bool) -> Result<Self> {
        let width = inner.dim();
        let mut encoder = Self { inner, pools: vec![Pooling::Mean], after: Vec::new() };
        // An older layout keeps the transformer in a folder below that of modules.json.
        let outer = folder.parent().filter(|p| p.join("modules.json").exists());
        let top = if folder.join("modules.json").exists() { Some(folder) } else { outer };
        let Some(top) = top.filter(|_| !bare) else { return Ok(encoder) };
        let modules = read_json(&top.join("modules.json"))?;
        let mut width = width;
        for module in modules.as_array().into_iter().flatten() {
            let kind = module["type"].as_str().unwrap_or("").rsplit('.').next().unwrap_or("");
            let at = top.join(module["path"].as_str().unwrap_or(""));
            match kind {
                "Transformer" => {}
                "Pooling" => {
                    encoder.pools = pooling(&at.join("config.json"))?;
                    width *= encoder.pools.len() as i64;
                }
                "Dense" => {
                    let (layer, activation, out) = dense(&at, width)?;
                    encoder.after.push(After::Dense(layer, activation));
                    width = out;
                }
                "Normalize" => encoder.after.push(After::Normalize),
                other => {
                    return Err(Error::folder(
                        top.join("modules.json"),
                        format!("module `{other}` is none that mm knows (Transformer, Pooling, Dense, Normalize)"),
                    ));
                }
            }
        }
        Ok(encoder)
    }
}

fn dense(folder: &Path, width: i64) -> Result<(Linear, Activation, i64)> {
    let file = folder.join("config.json");
    let settings = read_json(&file)?;
    let size = |key: &str| settings[key].as_i64().ok_or_else(|| Error::folder(&file, format!("has no `{key}`")));
    let (input, output) = (size("in_features")?, size("out_features")?);
    if input != width {
        return Err(Error::folder(
            &file,
            format!("in_features: found {input}, wanted the {width} of what comes before"),
        ));
    }
    let word = settings["activation_function"].as_str().unwrap_or("Identity").rsplit('.').next().unwrap_or("");
    let activation = match word {
        "Tanh" => Activation::Tanh,
        "Identity" => Activation::Identity,
        "ReLU" => Activation::Relu,
        "GELU" => Activation::Gelu,
        "SiLU" => Activation::Silu,
        "Sigmoid" => Activation::Sigmoid,
        other => return Err(Error::folder(&file, format!("activation_function `{other}` is none that mm knows"))),
    };
    let params = Params::from_checkpoint(Checkpoint::open(folder)?, Device::Cpu, DType::F32, ToOwned::to_owned);
    let layer =
        Linear::new(&params.scope().frozen().pp("linear"), input, output, settings["bias"].as_bool().unwrap_or(true))?;
    params.finish()?;
    Ok((layer, activation, output))
}

fn pooling(file: &Path) -> Result<Vec<Pooling>> {
    let settings = read_json(file)?;
    let known = |word: &str| {
        Ok(match word {
            "mean" => Pooling::Mean,
            "cls" => Pooling::Cls,
            "max" => Pooling::Max,
            "lasttoken" => Pooling::Last,
            other => {
                let reason = format!("pooling_mode `{other}` is none of mean, cls, max, lasttoken");
                return Err(Error::folder(file, reason));
            }
        })
    };
    // Newer releases of sentence-transformers write one word (or several) instead of one flag a kind.
    match &settings["pooling_mode"] {
        serde_json::Value::String(word) => return Ok(vec![known(word)?]),
        serde_json::Value::Array(words) => {
            return words.iter().map(|w| known(w.as_str().unwrap_or(""))).collect();
        }
        _ => {}
    }
    // Several that are on are joined, in this order.
    let flags = [
        ("pooling_mode_cls_token", Pooling::Cls),
        ("pooling_mode_max_tokens", Pooling::Max),
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_lasttoken", Pooling::Last),
    ];
    let on: Vec<Pooling> =
        flags.iter().filter(|(k, _)| settings[*k].as_bool() == Some(true)).map(|(_, p)| *p).collect();
    let others = ["pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens"];
    if on.is_empty() || others.iter().any(|k| settings[*k].as_bool() == Some(true)) {
        return Err(Error::folder(file, "wanted poolings among cls, max, mean and last token, and at least one"));
    }
    Ok(on)
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
        let pooled = self.pools.iter().map(|p| features.pool(*p)).collect::<mm_core::Result<Vec<_>>>()?;
        let mut x = Tensor::cat(&pooled.iter().collect::<Vec<_>>(), -1)?; // [batch, width]
        for after in &self.after {
            x = match after {
                After::Dense(layer, activation) => {
                    // The layer's weights are kept in float32 on the processor: they are small, and folders differ.
                    let y = x.to_dtype(DType::F32)?.to_device(Device::Cpu)?;
                    activation.apply(&layer.forward(&y, train)?)?
                }
                After::Normalize => x.normalize()?,
            };
        }
        Ok((features, x))
    }

    fn dim(&self) -> i64 {
        self.inner.dim()
    }

    fn embedding_dim(&self) -> i64 {
        let dense = self.after.iter().rev().find_map(|a| match a {
            After::Dense(layer, _) => layer.weight().size(0).ok(),
            After::Normalize => None,
        });
        dense.unwrap_or(self.inner.dim() * self.pools.len() as i64)
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}

impl Network for SentenceEncoder {
    fn hidden_states(&self, input: &Input) -> mm_core::Result<Option<Vec<Features>>> {
        self.inner.hidden_states(input).map(Some)
    }
}
