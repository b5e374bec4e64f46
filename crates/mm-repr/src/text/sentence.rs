//! sentence-transformers folders: an encoder, a pooling, maybe a normalisation, as `modules.json` lists them (Reimers 2019).

use super::{Bert, tokenizer::json};
use crate::{Error, Result};
use mm_core::{Encoder, Features, Input, Modality, Pool, Tensor};
use std::path::Path;

/// An encoder with the pooling that its folder asks for.
pub struct SentenceEncoder {
    inner: Bert,
    pool: Pool,
    normalize: bool,
}

impl SentenceEncoder {
    /// Reads `modules.json` and each module's own config; a plain encoder folder pools by mean.
    pub fn new(folder: &Path, inner: Bert) -> Result<Self> {
        let modules = json(&folder.join("modules.json"))?;
        let mut encoder = Self { inner, pool: Pool::Mean, normalize: false };
        for module in modules.as_array().into_iter().flatten() {
            let kind = module["type"].as_str().unwrap_or("").rsplit('.').next().unwrap_or("");
            let at = folder.join(module["path"].as_str().unwrap_or(""));
            match kind {
                "Transformer" => {}
                "Pooling" => encoder.pool = pooling(&at.join("config.json"))?,
                "Normalize" => encoder.normalize = true,
                other => {
                    return Err(Error::folder(
                        folder.join("modules.json"),
                        format!("module `{other}` is none that mm knows (Transformer, Pooling, Normalize)"),
                    ));
                }
            }
        }
        Ok(encoder)
    }
}

fn pooling(file: &Path) -> Result<Pool> {
    let settings = json(file)?;
    // Newer releases of sentence-transformers write one word instead of one flag a kind.
    if let Some(word) = settings["pooling_mode"].as_str() {
        return match word {
            "mean" => Ok(Pool::Mean),
            "cls" => Ok(Pool::Cls),
            "max" => Ok(Pool::Max),
            "lasttoken" => Ok(Pool::Last),
            other => Err(Error::folder(file, format!("pooling_mode `{other}` is none of mean, cls, max, lasttoken"))),
        };
    }
    let flags = [
        ("pooling_mode_mean_tokens", Pool::Mean),
        ("pooling_mode_cls_token", Pool::Cls),
        ("pooling_mode_max_tokens", Pool::Max),
        ("pooling_mode_lasttoken", Pool::Last),
    ];
    let on: Vec<Pool> = flags.iter().filter(|(k, _)| settings[*k].as_bool() == Some(true)).map(|(_, p)| *p).collect();
    match on.as_slice() {
        [one] => Ok(*one),
        found => Err(Error::folder(
            file,
            format!("{} of its poolings are on, wanted exactly one of mean, cls, max, lasttoken", found.len()),
        )),
    }
}

impl Encoder for SentenceEncoder {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        self.inner.encode(input, train)
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        let pooled = self.inner.encode(input, train)?.pool(self.pool)?; // [batch, width]
        if self.normalize { pooled.normalize() } else { Ok(pooled) }
    }

    fn width(&self) -> i64 {
        self.inner.width()
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}
