//! The model that is fine-tuned.

use super::config::{FinetuningConfig, target_modality};
use crate::{Error, Result, TaskContext, batch::texts};
use mm_core::{Device, Modality, seed::manual_seed};
use mm_data::Manifest;
use mm_reason::{Request, TrainablePipeline};
use mm_repr::{LoadOptions, ModelPaths, copy_model_files, locate};
use mm_train::Run;
use std::path::{Path, PathBuf};

/// A pretrained model that is trained on pairs of inputs and texts: all of its weights, or low-rank adapters.
///
/// Adapters: *`LoRA`: Low-Rank Adaptation of Large Language Models* (Hu et al., 2021,
/// <https://arxiv.org/abs/2106.09685>).
pub struct Finetuning {
    /// The model, with its config (which contains its current labels) and the names of its reinitialized parameters.
    pub(super) loaded: TrainablePipeline,
    pub(super) config: FinetuningConfig,
    base_dir: PathBuf,
    /// The modality of the inputs.
    pub(super) modality: Modality,
}

impl Finetuning {
    /// Loads the checkpoint of a resolved config for training.
    ///
    /// # Errors
    /// When a classifier has no answer column, or the model does not take the input modality.
    pub fn new(config: FinetuningConfig, base_dir: &Path, device: Device) -> Result<Self> {
        let base_dir = config.common.base_dir_or(base_dir);
        manual_seed(config.common.train.seed);
        let options = LoadOptions { device, ..LoadOptions::default() };
        let labels = (!config.labels.is_empty()).then_some(config.labels.as_slice());
        let folder = ModelPaths::locate(&config.model, &base_dir)?;
        let training = mm_reason::TrainingOptions { adapter: config.adapter.clone(), labels };
        let loaded = mm_reason::Pipeline::load_for_training(&folder, options, training)?;
        if !loaded.pipeline.can_generate() && config.answer_column.is_none() {
            let expected = format!("the column of the answers, for a model of family {}", loaded.pipeline.family);
            return Err(Error::invalid("answer_column", "none", expected));
        }
        let modality = config.modality();
        loaded.pipeline.train_processor(&modality)?;
        Ok(Self { loaded, config, base_dir, modality })
    }

    /// Loads the model of a run folder.
    pub fn load(run: &Path, context: &TaskContext<'_>) -> Result<Self> {
        let model = Self::new(context.run_config(run)?, run, context.device)?;
        Run::load_weights(run, &model.loaded.pipeline.params)?;
        Ok(model)
    }

    /// The data set: rows with an input and a target text.
    pub fn dataset(&self) -> Result<Manifest> {
        self.config.open_dataset(&self.base_dir)
    }

    /// The request of an input: a question, a transcription or a caption.
    pub(super) fn request<'a>(&'a self, question: Option<&'a str>) -> Request<'a> {
        match question {
            Some(question) => Request::Question(question),
            None if self.modality == Modality::AUDIO => {
                Request::Transcribe { language: self.config.language.as_deref(), timestamps: false }
            }
            None => Request::Caption(None),
        }
    }

    /// Writes the trained model: an adapter in PEFT's format, or a folder in that of transformers.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let source = locate(&self.config.model, &self.base_dir);
        let paths = ModelPaths::resolve(&mm_data::local_folder(&source)?)?;
        let failed = |e: std::io::Error| Error::file(folder, e);
        std::fs::create_dir_all(folder).map_err(failed)?;
        copy_model_files(&paths.files, folder)?;
        let text = format!("{:#}\n", self.loaded.config);
        mm_core::checkpoint::write_atomic(&folder.join("config.json"), text.as_bytes())?;
        let params = &self.loaded.pipeline.params;
        if self.config.adapter.is_some() {
            let base = if source.is_dir() { std::fs::canonicalize(&source).map_err(failed)? } else { source };
            let base = base.to_string_lossy();
            // PEFT knows names of the hub and no URLs.
            let hub_name = base.strip_prefix("hf://").filter(|name| !name.contains('@'));
            params.save_adapter(folder, hub_name.unwrap_or(&base), &self.loaded.reinitialized)?;
        } else {
            let tensors = params.export()?.into_iter().map(|(name, t)| Ok((name, t.detach()?.contiguous()?)));
            let tensors = tensors.collect::<mm_core::Result<Vec<_>>>()?;
            mm_core::checkpoint::save(&folder.join("model.safetensors"), &tensors, &[("format", "pt".into())])?;
        }
        Ok(())
    }
}

/// The question of a row.
pub(super) fn question(manifest: &Manifest, row: usize) -> Option<&str> {
    texts(manifest, row, &Modality::TEXT).next()
}

/// The target texts of a row.
pub(super) fn targets(manifest: &Manifest, row: usize) -> impl Iterator<Item = &str> {
    texts(manifest, row, &target_modality())
}
