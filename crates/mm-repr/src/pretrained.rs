//! A checkpoint folder → encoders with their own pre-processing.

use crate::{
    Error, Result, audio,
    family::{Build, Family, Joint, Model, Tower},
    image, joint, text,
};
use mm_core::{
    Checkpoint, DType, Device, Input, Modality, Params, Pool, Role, SampleContext, Source, Tensor, without_grad,
};
use mm_data::collate;
use rayon::prelude::*;
use serde_json::Value;
use std::{
    cell::Cell,
    path::{Path, PathBuf},
};

fn table() -> impl Iterator<Item = &'static Family> {
    let pictures = image::vit::FAMILIES.iter().chain(image::resnet::FAMILIES).chain(image::convnext::FAMILIES);
    let pictures = pictures.chain(image::efficientnet::FAMILIES);
    let sounds = audio::wave::FAMILIES.iter().chain(std::iter::once(&audio::whisper::FAMILY));
    let joint = joint::clip::FAMILIES.iter().chain(std::iter::once(&joint::clap::FAMILY));
    text::transformer::FAMILIES.iter().chain(pictures).chain(sounds).chain(joint)
}

/// The families that [`Pretrained::load`] knows, by the `model_type` of their `config.json`; `timm/…` and `open_clip` stand for the
/// folders of those programs.
pub fn families() -> Vec<&'static str> {
    table().map(|f| f.kind).collect()
}

/// What programs store beside the weights though it follows from the config.
const BUFFERS: [&str; 5] =
    ["num_batches_tracked", "position_ids", "token_type_ids", "relative_position_index", "masked_spec_embed"];

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
    pub tune: Option<usize>,
}

/// A pretrained model as its folder describes it.
pub struct Pretrained {
    towers: Vec<Tower>,
    /// How it scores pairs, if it puts several modalities into one space.
    pub joint: Option<Joint>,
    /// Its weights, frozen.
    pub params: Params,
    /// Which family it is of.
    pub family: String,
    /// Names in the checkpoint that were not needed.
    pub unused: Vec<String>,
    /// Names of the classes, where it has a classifier; numbers where the folder names none.
    pub labels: Vec<String>,
    /// Whether classes do not exclude each other, so that each score is a probability by itself.
    pub multi_label: bool,
    /// Changes whenever its features would.
    pub fingerprint: String,
    folder: PathBuf,
    dtype: DType,
}

impl Pretrained {
    /// Loads a folder on the processor, in float32.
    pub fn load(folder: &Path) -> Result<Self> {
        Self::load_with(folder, LoadOptions::default())
    }

    /// Loads a folder.
    pub fn load_with(folder: &Path, options: LoadOptions) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::folder(folder, "no such folder; fetch it with `cargo xtask models pull NAME`"));
        }
        let folder = inner(folder)?;
        let folder = folder.as_path();
        let (family, config) = describe(folder)?;
        let checkpoint = Checkpoint::open(weights(folder))?;
        let names = checkpoint.clone();
        let fingerprint = fingerprint(&config, folder, checkpoint.path(), options)?;
        let map = (family.names)(&names, &config);
        let params = Params::from_checkpoint(checkpoint, options.device, options.dtype, move |n| map.apply(n));
        let scope = if options.tune.is_some() { params.scope() } else { params.scope().frozen() };
        let (layer, stacked) = (options.layer, Cell::new(false));
        let build = Build { folder, config: &config, checkpoint: &names, scope, layer, stacked };
        let Model { towers, joint } = (family.build)(&build)?;
        if layer.is_some() && !build.stacked.get() {
            return Err(
                build.bad(format!("`{}` is no stack of alike blocks, so --layer has nothing to cut", family.kind))
            );
        }
        if let Some(last) = options.tune {
            let blocks = params.named(&[Role::Trainable]).iter().filter_map(|(n, _)| block(n)).max();
            let blocks = blocks.filter(|_| build.stacked.get() && last > 0).map(|b| b + 1).ok_or_else(|| {
                build.bad(format!(
                    "`{}` with tune = {last}: wanted a stack of alike blocks, and at least one",
                    family.kind
                ))
            })?;
            params.freeze(|name| block(name).is_none_or(|b| b + last < blocks))?;
        }
        let classes = build.classes();
        let unused = params.finish()?.into_iter().filter(|n| !BUFFERS.iter().any(|b| n.ends_with(b))).collect();
        Ok(Self {
            labels: labels(&config, classes),
            multi_label: config["problem_type"] == "multi_label_classification",
            towers,
            joint,
            family: family.kind.to_owned(),
            unused,
            fingerprint,
            folder: folder.to_owned(),
            dtype: options.dtype,
            params,
        })
    }

    /// Where it was loaded from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it takes.
    pub fn modalities(&self) -> Vec<Modality> {
        self.towers.iter().map(|t| t.encoder.modality()).collect()
    }

    /// The half that takes a modality.
    pub fn tower(&self, modality: &Modality) -> Result<&Tower> {
        self.towers.iter().find(|t| t.encoder.modality() == *modality).ok_or_else(|| {
            let takes: Vec<String> = self.modalities().iter().map(ToString::to_string).collect();
            Error::folder(&self.folder, format!("this model takes {}, not {modality}", takes.join(" and ")))
        })
    }

    /// The half that takes a modality, by itself, and the weights of all; the first where none is named.
    pub fn into_tower(mut self, modality: Option<&Modality>) -> Result<(Tower, Params, String)> {
        if let Some(modality) = modality {
            self.tower(modality)?;
        }
        let place = self.towers.iter().position(|t| modality.is_none_or(|m| t.encoder.modality() == *m)).unwrap_or(0);
        Ok((self.towers.swap_remove(place), self.params, self.fingerprint))
    }

    /// One vector a source of the model's first modality, `[sources, width]`, in the order given.
    pub fn encode(&self, sources: &[Source]) -> Result<Tensor> {
        self.embed(&self.modalities()[0], sources, None)
    }

    /// One vector a source, `[sources, width]`, in the order given: the projected one of unit length of joint models, else the one
    /// that the folder asks for, else the mean over the positions that are there; `pool` chooses another.
    pub fn embed(&self, modality: &Modality, sources: &[Source], pool: Option<Pool>) -> Result<Tensor> {
        self.over(modality, sources, |samples| self.embed_samples(modality, samples, pool))
    }

    /// The same for samples that the tower's processor has made, in another thread say.
    pub fn embed_samples(&self, modality: &Modality, samples: &[Tensor], pool: Option<Pool>) -> Result<Tensor> {
        let tower = self.tower(modality)?;
        self.batched(tower, samples, |input| match pool {
            Some(pool) => tower.encoder.encode(input, false)?.pool(pool),
            None => tower.encoder.embed(input, false),
        })
    }

    /// Features of one source, `[positions, width]`.
    pub fn features(&self, modality: &Modality, source: &Source) -> Result<Tensor> {
        let tower = self.tower(modality)?;
        let sample = tower.processor.process(source, &mut SampleContext::plain())?;
        let all = self.batched(tower, &[sample], |i| Ok(tower.encoder.encode(i, false)?.values))?;
        Ok(all.select(0, 0)?)
    }

    /// Scores of the classes before softmax, `[sources, classes]`.
    pub fn logits(&self, modality: &Modality, sources: &[Source]) -> Result<Tensor> {
        let tower = self.tower(modality)?;
        let none = || mm_core::Error::Sample(format!("{}: this model has no classifier", self.folder.display()));
        self.over(modality, sources, |samples| {
            self.batched(tower, samples, |input| tower.encoder.logits(input)?.ok_or_else(none))
        })
    }

    /// Decodes in all threads, some hundred sources at a time, so that memory does not grow with their number.
    fn over(
        &self,
        modality: &Modality,
        sources: &[Source],
        run: impl Fn(&[Tensor]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        // Texts are small, and the more there are the better they sort into batches of one length.
        let at_once = if *modality == Modality::TEXT { 4096 } else { 128 };
        let processor = &self.tower(modality)?.processor;
        let make = |s: &Source| processor.process(s, &mut SampleContext::plain());
        let mut rows = Vec::new();
        for piece in sources.chunks(at_once) {
            let samples = piece.par_iter().map(make).collect::<mm_core::Result<Vec<Tensor>>>()?;
            rows.push(run(&samples)?);
        }
        Ok(Tensor::cat(&rows.iter().collect::<Vec<_>>(), 0)?)
    }

    /// Sequences go through together sorted by length, all else by shape; rows come back in order.
    fn batched(
        &self,
        tower: &Tower,
        samples: &[Tensor],
        run: impl Fn(&Input) -> mm_core::Result<Tensor>,
    ) -> Result<Tensor> {
        // A batch holds so many rows, and so many numbers at most: long sounds and videos go through by themselves. Of waves fewer
        // (sixteen seconds): their first convolution makes a hundred numbers of each.
        const ROWS: usize = 32;
        let wave = samples.first().is_some_and(|s| s.rank() == 1 && matches!(s.dtype(), Ok(DType::F32)));
        let most = if wave { 1 << 18 } else { 8 << 20 };
        let mut order: Vec<usize> = (0..samples.len()).collect();
        order.sort_by_key(|i| (samples[*i].shape(), *i));
        let together = tower.processor.is_sequence();
        let mut rows: Vec<Option<Tensor>> = vec![None; samples.len()];
        let mut from = 0;
        while from < order.len() {
            let first = samples[order[from]].shape();
            let fits = |(count, i): (usize, &usize)| {
                let sample = &samples[*i];
                (together || sample.shape() == first) && (count == 0 || (count + 1) * sample.count() <= most)
            };
            let same = order[from..].iter().take(ROWS).enumerate().take_while(|(c, i)| fits((*c, i))).count();
            let batch = &order[from..from + same];
            from += batch.len();
            let picked: Vec<Tensor> = batch.iter().map(|i| samples[*i].clone()).collect();
            let mut input: Input = collate(&picked, tower.processor.as_ref())?.to_device(self.params.device())?;
            if input.values.dtype()? == DType::F32 {
                input.values = input.values.to_dtype(self.dtype)?;
            }
            let out = without_grad(|| run(&input))?.to_dtype(DType::F32)?.to_device(Device::Cpu)?;
            for (row, place) in batch.iter().enumerate() {
                rows[*place] = Some(out.select(0, row as i64)?);
            }
        }
        let rows: Vec<Tensor> = rows.into_iter().flatten().collect();
        Ok(Tensor::stack(&rows.iter().collect::<Vec<_>>(), 0)?)
    }

    /// Writes the weights under the names that they came with, so that the program that made the folder loads them again.
    pub fn save_weights(&self, file: &Path) -> Result<()> {
        let tensors = self.params.export()?;
        Ok(mm_core::checkpoint::save(file, &tensors, &[("format", "pt".into())])?)
    }
}

/// An older layout of sentence-transformers keeps the encoder in a folder below.
fn inner(folder: &Path) -> Result<PathBuf> {
    if folder.join("config.json").exists() || folder.join("open_clip_config.json").exists() {
        return Ok(folder.to_owned());
    }
    let modules = text::json(&folder.join("modules.json"))?;
    let path = modules[0]["path"].as_str().filter(|p| !p.is_empty());
    if let Some(below) = path.map(|p| folder.join(p)).filter(|p| p.join("config.json").exists()) {
        return Ok(below);
    }
    Err(Error::folder(
        folder,
        "no config.json here, so mm cannot know what the weights are; point at the folder that `huggingface_hub`, `sentence-transformers`, `open_clip` or `timm` wrote",
    ))
}

/// Which family a folder is of, and its config.
fn describe(folder: &Path) -> Result<(&'static Family, Value)> {
    let open_clip = folder.join("open_clip_config.json");
    let file = folder.join("config.json");
    let (kind, config) = if open_clip.exists() && !file.exists() {
        ("open_clip".to_owned(), text::json(&open_clip)?)
    } else {
        let config = text::json(&file)?;
        let kind = match (config["model_type"].as_str(), image::vit::timm_kind(&config)) {
            (Some(kind), _) => kind.to_owned(),
            (None, Some(kind)) => kind.to_owned(),
            (None, None) if open_clip.exists() => return Ok((find("open_clip")?, text::json(&open_clip)?)),
            (None, None) => match config["architecture"].as_str() {
                Some(name) => return Err(mm_core::Error::unknown("timm architecture", name, TIMM).into()),
                None => {
                    return Err(Error::folder(
                        &file,
                        "has neither `model_type` (transformers) nor `architecture` (timm)",
                    ));
                }
            },
        };
        (kind, config)
    };
    Ok((find(&kind)?, config))
}

const TIMM: [&str; 5] = ["vit_…", "deit_…", "resnet…", "convnext…", "efficientnet_…"];

fn find(kind: &str) -> Result<&'static Family> {
    table().find(|f| f.kind == kind).ok_or_else(|| mm_core::Error::unknown("model_type", kind, families()).into())
}

/// The file that holds the weights, or the folder where the usual names decide.
fn weights(folder: &Path) -> PathBuf {
    let own = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"];
    let usual = folder.join("model.safetensors").exists() || folder.join("model.safetensors.index.json").exists();
    own.iter().map(|n| folder.join(n)).find(|p| !usual && p.exists()).unwrap_or_else(|| folder.to_owned())
}

/// The names of the classes by their numbers.
fn labels(config: &Value, classes: i64) -> Vec<String> {
    let named = |i: i64| config["id2label"][i.to_string()].as_str().map(ToOwned::to_owned);
    let listed = |i: i64| config["label_names"][i as usize].as_str().map(ToOwned::to_owned);
    (0..classes).map(|i| named(i).or_else(|| listed(i)).unwrap_or_else(|| format!("LABEL_{i}"))).collect()
}

/// Of the config, the pre-processing and the weights' file: the features are a function of these.
fn fingerprint(config: &Value, folder: &Path, weights: &Path, options: LoadOptions) -> Result<String> {
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

/// Where a model's folder is: `name` below `base` if that is a folder, else among those that `cargo xtask models pull` fetched, else
/// `ORG/NAME[@REVISION]` in the cache of Python's `huggingface_hub`, which `models pull` fills too.
pub fn locate(name: &Path, base: &Path) -> PathBuf {
    let here = base.join(name);
    if here.is_dir() {
        return here;
    }
    let fetched = mm_core::cache_folder().join("models").join(name);
    if name.is_relative() && fetched.is_dir() {
        return fetched;
    }
    name.to_str().and_then(snapshot).unwrap_or(here)
}

/// The snapshot of a hub's model in the cache that HF_HUB_CACHE, HF_HOME or XDG_CACHE_HOME name.
fn snapshot(name: &str) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")).or_else(|| {
        let base = variable("HF_HOME").or_else(|| Some(variable("XDG_CACHE_HOME")?.join("huggingface")));
        Some(base.or_else(|| Some(variable("HOME")?.join(".cache/huggingface")))?.join("hub"))
    })?;
    let (repository, revision) = name.split_once('@').unwrap_or((name, "main"));
    let folder = cache.join(format!("models--{}", repository.replace('/', "--")));
    let commit = std::fs::read_to_string(folder.join("refs").join(revision)).unwrap_or_else(|_| revision.to_owned());
    Some(folder.join("snapshots").join(commit.trim())).filter(|f| f.is_dir())
}
