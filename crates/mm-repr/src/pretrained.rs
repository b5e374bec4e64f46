//! Pretrained models: a checkpoint folder as encoders with their preprocessing.

use crate::{
    Classes, Error, ModelPaths, Result,
    families::{detect_family, encoder_folder},
    family::{ContrastiveHead, Fingerprint, LoadOptions, Loaded, Model, Scores, Tower, labels, load, num_labels},
};
use mm_core::{DType, Modality, Params, Pooling, ProcessContext, Source, Tensor, parallel_tensors};
use std::path::{Path, PathBuf};

/// A pretrained model as its folder describes it.
///
/// ```no_run
/// use mm_core::{Modality, Source};
/// let model = mm_repr::Pretrained::load("clip-vit-base-patch32".as_ref())?;
/// let images = model.embed(&Modality::IMAGE, &[Source::Path("dog.jpg".into())], None)?; // [1, 512], unit length
/// # Ok::<(), mm_repr::Error>(())
/// ```
pub struct Pretrained {
    towers: Vec<Tower>,
    /// How pairs are scored, if the model embeds several modalities into one space.
    pub contrastive_head: Option<ContrastiveHead>,
    /// The weights.
    pub params: Params,
    /// `model_type` of its family.
    pub family: String,
    /// Names in the checkpoint that the model does not use.
    pub unexpected_keys: Vec<String>,
    /// The classes of its classifier, if there is one; `LABEL_i` where the folder has no names.
    pub classes: Classes,
    /// Why the scores of its classifier are not of classes, where they are not.
    pub(crate) no_classes: Option<String>,
    /// Its class in transformers, if its config says it.
    pub(crate) architecture: Option<String>,
    fingerprint: Fingerprint,
    folder: PathBuf,
    pub(crate) dtype: DType,
}

impl Pretrained {
    /// Loads a folder on the CPU in float32.
    ///
    /// # Errors
    /// If the folder does not exist, its family is unknown, or weights are missing or have other shapes than the config
    /// says.
    pub fn load(folder: &Path) -> Result<Self> {
        Self::load_with(folder, LoadOptions::default())
    }

    /// Loads a folder with options.
    ///
    /// # Errors
    /// Those of [`Self::load`].
    pub fn load_with(folder: &Path, options: LoadOptions) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::folder(folder, "no such folder; fetch it with `mm models pull NAME`"));
        }
        let mut paths = ModelPaths::resolve(folder)?;
        if paths.adapter.is_none() {
            paths = ModelPaths::of_folder(&encoder_folder(folder)?);
        }
        let folder = paths.files.as_path();
        let (family, config) = detect_family(folder)?;
        let Loaded { model: Model { towers, contrastive_head }, params, unexpected_keys, fingerprint } =
            load(&paths, &config, family, options)?;
        let scores = Scores::of(&config, num_labels(&config));
        Ok(Self {
            classes: Classes {
                labels: labels(&config, num_labels(&config)),
                multi_label: scores == Scores::MultiLabel,
            },
            no_classes: scores.no_classes(),
            architecture: config["architectures"][0].as_str().map(ToOwned::to_owned),
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

    /// Changes whenever the model's outputs would change: a hash of its files, computed at the first call.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn fingerprint(&self) -> Result<&str> {
        self.fingerprint.get()
    }

    /// The folder that it was loaded from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The modalities that it accepts.
    pub fn modalities(&self) -> Vec<Modality> {
        self.towers.iter().map(|t| t.encoder.modality()).collect()
    }

    /// Whether it has classes of its own for values of a modality.
    pub fn has_classifier(&self, modality: &Modality) -> bool {
        self.no_classes.is_none() && self.tower(modality).is_ok_and(|tower| tower.encoder.has_classifier())
    }

    /// The tower of a modality.
    ///
    /// # Errors
    /// If the model does not accept the modality.
    pub fn tower(&self, modality: &Modality) -> Result<&Tower> {
        self.towers.iter().find(|t| t.encoder.modality() == *modality).ok_or_else(|| {
            let accepted: Vec<String> = self.modalities().iter().map(ToString::to_string).collect();
            Error::folder(&self.folder, format!("this model takes {}, not {modality}", accepted.join(" and ")))
        })
    }

    /// The tower of a modality (the first if `None`), the model's weights and its fingerprint.
    ///
    /// # Errors
    /// If the model does not accept the modality, or a file of it cannot be read.
    pub fn into_tower(mut self, modality: Option<&Modality>) -> Result<(Tower, Params, String)> {
        if let Some(modality) = modality {
            self.tower(modality)?;
        }
        let index = self.towers.iter().position(|t| modality.is_none_or(|m| t.encoder.modality() == *m)).unwrap_or(0);
        let fingerprint = self.fingerprint.get()?.to_owned();
        Ok((self.towers.swap_remove(index), self.params, fingerprint))
    }

    /// Embeddings of sources of the model's first modality, `[sources, dim]`, in the order given.
    pub fn encode(&self, sources: &[Source]) -> Result<Tensor> {
        self.embed(&self.modalities()[0], sources, None)
    }

    /// Embeddings `[sources, dim]`, in the order given. With `pooling`, the features are pooled; otherwise a
    /// contrastive model gives its projected unit vector, a sentence-transformers folder what its `modules.json`
    /// describes, and other models their family's usual embedding.
    pub fn embed(&self, modality: &Modality, sources: &[Source], pooling: Option<Pooling>) -> Result<Tensor> {
        self.process_in_chunks(modality, sources, |samples| self.embed_samples(modality, samples, pooling))
    }

    /// Like [`Self::embed`], for samples that the tower's processor has already produced.
    pub fn embed_samples(&self, modality: &Modality, samples: &[Tensor], pooling: Option<Pooling>) -> Result<Tensor> {
        let tower = self.tower(modality)?;
        self.run_batched(tower, samples, |input| match pooling {
            Some(pooling) => tower.encoder.encode(input, false)?.pool(pooling),
            None => tower.encoder.embed(input, false),
        })
    }

    /// Like [`Self::embed_samples`], for texts that begin with a prompt whose tokens are not pooled; see
    /// [`NamedPrompt::skipped`](crate::NamedPrompt::skipped).
    pub fn embed_samples_after(&self, modality: &Modality, samples: &[Tensor], skipped: i64) -> Result<Tensor> {
        let tower = self.tower(modality)?;
        self.run_batched(tower, samples, |input| tower.encoder.embed_after_prompt(input, skipped))
    }

    /// Features of one source, `[positions, dim]`.
    pub fn features(&self, modality: &Modality, source: &Source) -> Result<Tensor> {
        let sample = self.tower(modality)?.processor.process(source, &mut ProcessContext::eval())?;
        Ok(self.features_of_samples(modality, &[sample])?.swap_remove(0))
    }

    /// Features of samples that one of the tower's processors has produced: of each `[positions, dim]` without padding,
    /// in the order given.
    pub fn features_of_samples(&self, modality: &Modality, samples: &[Tensor]) -> Result<Vec<Tensor>> {
        let tower = self.tower(modality)?;
        self.run_rows(tower, samples, |input| tower.encoder.encode(input, false)?.rows())
    }

    /// Class scores before softmax, `[sources, classes]`; the number or score itself where the model was trained for
    /// one.
    ///
    /// # Errors
    /// If the model has no classifier.
    pub fn logits(&self, modality: &Modality, sources: &[Source]) -> Result<Tensor> {
        self.process_in_chunks(modality, sources, |samples| self.logits_of_samples(modality, samples))
    }

    /// Like [`Self::logits`], for samples that the tower's processor has already produced.
    ///
    /// # Errors
    /// If the model has no classifier.
    pub fn logits_of_samples(&self, modality: &Modality, samples: &[Tensor]) -> Result<Tensor> {
        let tower = self.tower(modality)?;
        let none = || {
            let found = self.architecture.as_ref().map(|name| format!(" (architectures: {name})")).unwrap_or_default();
            mm_core::Error::Sample(format!("{}: this model has no classifier{found}", self.folder.display()))
        };
        self.run_batched(tower, samples, |input| tower.encoder.logits(input)?.ok_or_else(none))
    }

    /// Processes sources in parallel, one chunk at a time, so that memory does not grow with their number.
    fn process_in_chunks(
        &self,
        modality: &Modality,
        sources: &[Source],
        run: impl Fn(&[Tensor]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        // Tokenized texts are small, and larger chunks sort better into batches of similar length.
        let chunk_size = if *modality == Modality::TEXT { 4096 } else { 128 };
        let processor = &self.tower(modality)?.processor;
        let process = |s: &Source| processor.process(s, &mut ProcessContext::eval());
        let mut rows = Vec::new();
        for chunk in sources.chunks(chunk_size) {
            let samples = parallel_tensors(chunk, process).into_iter().collect::<mm_core::Result<Vec<Tensor>>>()?;
            rows.push(run(&samples)?);
        }
        Ok(Tensor::cat(&rows.iter().collect::<Vec<_>>(), 0)?)
    }

    /// Writes the weights under their original names, so that the library that wrote the folder can load them.
    pub fn save_weights(&self, file: &Path) -> Result<()> {
        let tensors = self.params.export()?;
        Ok(mm_core::checkpoint::save(file, &tensors, &[("format", "pt".into())])?)
    }
}
