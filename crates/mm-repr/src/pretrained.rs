//! A checkpoint folder → an encoder with its own pre-processing.

use crate::{
    Error, Result,
    image::{EfficientNet, EfficientNetConfig},
    text::{Bert, BertConfig, SentenceEncoder, TextProcessor, json},
};
use mm_core::{
    Checkpoint, DType, Device, Encoder, Input, Params, Processor, SampleContext, Source, Tensor, without_grad,
};
use mm_data::{
    ImageProcessor, ImageProcessorConfig, collate,
    transform::{ImageTransform, Interpolation, Resize},
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// The families that [`Pretrained::load`] knows, by the `model_type` of their `config.json`.
pub const FAMILIES: &[&str] = &["bert", "efficientnet"];

/// A pretrained encoder as its folder describes it.
pub struct Pretrained {
    /// Raw value → numbers.
    pub processor: Arc<dyn Processor>,
    /// Numbers → features.
    pub encoder: Box<dyn Encoder>,
    /// Its weights, frozen.
    pub params: Params,
    /// Which family it is of.
    pub family: String,
    /// Names in the checkpoint that were not needed.
    pub unused: Vec<String>,
    /// Changes whenever its features would.
    pub fingerprint: String,
    folder: PathBuf,
}

impl Pretrained {
    /// Loads a folder on the processor, in float32.
    pub fn load(folder: &Path) -> Result<Self> {
        Self::load_on(folder, Device::Cpu, DType::F32)
    }

    /// Loads a folder on a device, its weights converted to a dtype.
    pub fn load_on(folder: &Path, device: Device, dtype: DType) -> Result<Self> {
        let file = folder.join("config.json");
        if !folder.is_dir() {
            return Err(Error::folder(folder, "no such folder; fetch it with `cargo xtask models pull NAME`"));
        }
        if !file.exists() {
            return Err(Error::folder(folder, "no config.json here, so mm cannot know what the weights are"));
        }
        let config = json(&file)?;
        let family =
            config["model_type"].as_str().ok_or_else(|| Error::folder(&file, "has no `model_type`"))?.to_owned();
        let checkpoint = Checkpoint::open(folder)?;
        let fingerprint = fingerprint(&config, folder, checkpoint.path(), dtype)?;
        let (processor, encoder, params): (Arc<dyn Processor>, Box<dyn Encoder>, Params) = match family.as_str() {
            "bert" => {
                let parsed: BertConfig = parse(&file, &config)?;
                // BertModel saves bare names, heads on top of it save theirs below `bert.`.
                let prefix = if checkpoint.shape("embeddings.word_embeddings.weight").is_some() { "" } else { "bert." };
                let params =
                    Params::from_checkpoint(checkpoint, device, dtype, move |n| format!("{prefix}{}", Bert::rename(n)));
                let bert = Bert::new(&params.scope().frozen(), &parsed)?;
                let processor = TextProcessor::from_folder(folder, longest(folder, &parsed)?)?;
                if processor.entries() as i64 > parsed.vocab_size {
                    return Err(Error::folder(
                        folder,
                        format!(
                            "the tokenizer has {} entries, the word table only {}",
                            processor.entries(),
                            parsed.vocab_size
                        ),
                    ));
                }
                (Arc::new(processor), Box::new(SentenceEncoder::new(folder, bert)?), params)
            }
            "efficientnet" => {
                let parsed: EfficientNetConfig = parse(&file, &config)?;
                let params = Params::from_checkpoint(checkpoint, device, dtype, ToOwned::to_owned);
                let network = EfficientNet::new(&params.scope().frozen(), &parsed)?;
                (Arc::new(ImageProcessor::new(image_processor(folder)?)), Box::new(network), params)
            }
            other => return Err(mm_core::Error::unknown("model_type", other, FAMILIES.iter().copied()).into()),
        };
        let unused = params
            .finish()?
            .into_iter()
            .filter(|n| !n.ends_with("num_batches_tracked") && !n.ends_with("position_ids"))
            .collect();
        Ok(Self { processor, encoder, params, family, unused, fingerprint, folder: folder.to_owned() })
    }

    /// Where it was loaded from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One vector a source, `[sources, width]`, in the order given. Sources of a batch are padded to the longest: sort long lists.
    pub fn encode(&self, sources: &[Source]) -> Result<Tensor> {
        let samples = sources
            .iter()
            .map(|s| self.processor.process(s, &mut SampleContext::plain()))
            .collect::<Result<Vec<_>, _>>()?;
        let input: Input = collate(&samples, self.processor.as_ref())?.to_device(self.params.device())?;
        Ok(without_grad(|| self.encoder.embed(&input, false))?)
    }
}

fn parse<T: serde::de::DeserializeOwned>(file: &Path, config: &Value) -> Result<T> {
    serde_json::from_value(config.clone()).map_err(|e| Error::folder(file, e))
}

/// sentence-transformers' own limit, else the tokenizer's, never above the position table.
fn longest(folder: &Path, config: &BertConfig) -> Result<usize> {
    let table = config.max_position_embeddings as u64;
    let own = json(&folder.join("sentence_bert_config.json"))?["max_seq_length"].as_u64();
    let tokenizer = json(&folder.join("tokenizer_config.json"))?["model_max_length"].as_u64();
    Ok(own.or(tokenizer).unwrap_or(table).min(table) as usize)
}

/// `preprocessor_config.json` in transformers' words.
fn image_processor(folder: &Path) -> Result<ImageProcessorConfig> {
    let file = folder.join("preprocessor_config.json");
    let c = json(&file)?;
    if c.is_null() {
        return Err(Error::folder(
            folder,
            "no preprocessor_config.json here, so mm cannot know what the pixels must be",
        ));
    }
    let size = |v: &Value| -> Option<Resize> {
        if let Some(edge) = v.as_u64().or_else(|| v["shortest_edge"].as_u64()) {
            return Some(Resize::ShortestEdge(edge as u32));
        }
        Some(Resize::Exact(v["height"].as_u64()? as u32, v["width"].as_u64()? as u32))
    };
    let triple = |key: &str, otherwise: [f32; 3]| -> Result<[f32; 3]> {
        match c[key].as_array() {
            None => Ok(otherwise),
            Some(list) => {
                let values: Vec<f32> = list.iter().filter_map(Value::as_f64).map(|v| v as f32).collect();
                values.try_into().map_err(|_| Error::folder(&file, format!("{key}: wanted three numbers")))
            }
        }
    };
    let resize = if c["do_resize"].as_bool().unwrap_or(true) { size(&c["size"]) } else { None };
    let crop = if c["do_center_crop"].as_bool().unwrap_or(!c["crop_size"].is_null()) {
        match size(&c["crop_size"]) {
            Some(Resize::ShortestEdge(edge)) => Some((edge, edge)),
            Some(Resize::Exact(height, width)) => Some((height, width)),
            None => None,
        }
    } else {
        None
    };
    if let Some(factor) = c["rescale_factor"].as_f64()
        && (factor * 255.0 - 1.0).abs() > 1e-3
    {
        return Err(Error::folder(&file, format!("rescale_factor: found {factor}, wanted 1/255")));
    }
    let normalize = c["do_normalize"].as_bool().unwrap_or(true);
    let (mean, std) = if normalize {
        (triple("image_mean", [0.5; 3])?, triple("image_std", [0.5; 3])?)
    } else {
        ([0.0; 3], [1.0; 3])
    };
    let interpolation = match c["resample"].as_u64() {
        None => Interpolation::Bilinear,
        Some(code) => Interpolation::from_pillow(code)
            .ok_or_else(|| Error::folder(&file, format!("resample: {code} is none of Pillow's 0 to 3")))?,
    };
    let transform = ImageTransform { resize, interpolation, crop, mean, std };
    // Read only while training: the views of a picture that are encoded beside the plain one.
    let random_crop = transform.crop.map(|_| 0.4);
    Ok(ImageProcessorConfig { transform, random_crop, ..ImageProcessorConfig::default() })
}

/// Of the config, the pre-processing and the weights' file: the features are a function of these.
fn fingerprint(config: &Value, folder: &Path, weights: &Path, dtype: DType) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(config.to_string().as_bytes()).update(format!("{dtype:?}").as_bytes());
    for name in [
        "preprocessor_config.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "tokenizer_config.json",
    ] {
        hasher.update(&std::fs::read(folder.join(name)).unwrap_or_default()).update(&[0]);
    }
    let file = std::fs::File::open(weights).map_err(|e| Error::folder(weights, e))?;
    hasher.update_reader(file).map_err(|e| Error::folder(weights, e))?;
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

/// Where a model's folder is: `name` below `base` if that is a folder, else among those that `cargo xtask models pull` fetched.
pub fn locate(name: &Path, base: &Path) -> PathBuf {
    let here = base.join(name);
    let fetched = mm_core::cache_folder().join("models").join(name);
    if here.is_dir() || !fetched.is_dir() { here } else { fetched }
}
