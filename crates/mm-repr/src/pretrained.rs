//! A checkpoint folder → encoders with their own pre-processing.

use crate::{
    Error, ModelPaths, Result, audio,
    family::{ContrastiveHead, Family, LoadOptions, Loaded, Model, Tower, labels, load, num_labels},
    image, joint, text,
};
use mm_core::{DType, Device, Input, Modality, Params, Pooling, ProcessContext, Source, Tensor, no_grad};
use mm_data::collate;
use rayon::prelude::*;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn table() -> impl Iterator<Item = &'static Family> {
    let pictures = image::vit::FAMILIES.iter().chain(image::resnet::FAMILIES).chain(image::convnext::FAMILIES);
    let pictures = pictures.chain(image::efficientnet::FAMILIES);
    let sounds = audio::wav2vec2::FAMILIES.iter().chain(std::iter::once(&audio::whisper::FAMILY));
    let joint = joint::clip::FAMILIES.iter().chain([&joint::clap::FAMILY, &joint::blip::FAMILY]);
    text::transformer::FAMILIES.iter().chain(pictures).chain(sounds).chain(joint)
}

/// The families that [`Pretrained::load`] knows, by the `model_type` of their `config.json`; `timm/…` and `open_clip` stand for the
/// folders of those programs.
pub fn families() -> Vec<&'static str> {
    table().map(|f| f.model_type).collect()
}

/// A pretrained model as its folder describes it.
pub struct Pretrained {
    towers: Vec<Tower>,
    /// How it scores pairs, if it puts several modalities into one space.
    pub contrastive_head: Option<ContrastiveHead>,
    /// Its weights, frozen.
    pub params: Params,
    /// Which family it is of.
    pub family: String,
    /// Names in the checkpoint that were not needed.
    pub unexpected_keys: Vec<String>,
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
        let mut place = ModelPaths::resolve(folder)?;
        if place.adapter.is_none() {
            let inner = inner(folder)?;
            place = ModelPaths { files: inner.clone(), weights: inner, adapter: None };
        }
        let folder = place.files.as_path();
        let (family, config) = describe(folder)?;
        let Loaded { model: Model { towers, contrastive_head }, params, unexpected_keys, fingerprint } =
            load(&place, &config, family, options)?;
        let classes = num_labels(&config);
        Ok(Self {
            labels: labels(&config, classes),
            multi_label: config["problem_type"] == "multi_label_classification",
            towers,
            contrastive_head,
            family: family.model_type.to_owned(),
            unexpected_keys,
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

    /// One vector a source, `[sources, width]`, in the order given: the projected one of unit length of dual-encoder models, else the one
    /// that the folder asks for, else the mean over the positions that are there; `pool` chooses another.
    pub fn embed(&self, modality: &Modality, sources: &[Source], pool: Option<Pooling>) -> Result<Tensor> {
        self.over(modality, sources, |samples| self.embed_samples(modality, samples, pool))
    }

    /// The same for samples that the tower's processor has made, in another thread say.
    pub fn embed_samples(&self, modality: &Modality, samples: &[Tensor], pool: Option<Pooling>) -> Result<Tensor> {
        let tower = self.tower(modality)?;
        self.batched(tower, samples, |input| match pool {
            Some(pool) => tower.encoder.encode(input, false)?.pool(pool),
            None => tower.encoder.embed(input, false),
        })
    }

    /// Features of one source, `[positions, width]`.
    pub fn features(&self, modality: &Modality, source: &Source) -> Result<Tensor> {
        let tower = self.tower(modality)?;
        let sample = tower.processor.process(source, &mut ProcessContext::eval())?;
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
        let make = |s: &Source| processor.process(s, &mut ProcessContext::eval());
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
                (together || sample.shape() == first) && (count == 0 || (count + 1) * sample.numel() <= most)
            };
            let same = order[from..].iter().take(ROWS).enumerate().take_while(|(c, i)| fits((*c, i))).count();
            let batch = &order[from..from + same];
            from += batch.len();
            let picked: Vec<Tensor> = batch.iter().map(|i| samples[*i].clone()).collect();
            let mut input: Input = collate(&picked, tower.processor.as_ref())?.to_device(self.params.device())?;
            if input.values.dtype()? == DType::F32 {
                input.values = input.values.to_dtype(self.dtype)?;
            }
            let out = no_grad(|| run(&input))?.to_dtype(DType::F32)?.to_device(Device::Cpu)?;
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
    let modules = text::read_json(&folder.join("modules.json"))?;
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
        ("open_clip".to_owned(), text::read_json(&open_clip)?)
    } else {
        let config = text::read_json(&file)?;
        let kind = match (config["model_type"].as_str(), image::vit::timm_kind(&config)) {
            (Some(kind), _) => kind.to_owned(),
            (None, Some(kind)) => kind.to_owned(),
            (None, None) if open_clip.exists() => return Ok((find("open_clip")?, text::read_json(&open_clip)?)),
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

/// A family by its `model_type`.
fn find(kind: &str) -> Result<&'static Family> {
    table().find(|f| f.model_type == kind).ok_or_else(|| mm_core::Error::unknown("model_type", kind, families()).into())
}

/// Where a model's folder is: `name` below `base` if that is a folder, else among those that `cargo xtask models pull` fetched, else
/// `ORG/NAME[@REVISION]` in the cache of Python's `huggingface_hub`, which `models pull` fills too.
pub fn locate(name: &Path, base: &Path) -> PathBuf {
    let here = base.join(name);
    if here.is_dir() {
        return here;
    }
    let fetched = mm_core::cache_dir().join("models").join(name);
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
