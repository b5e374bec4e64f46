//! A loaded model and what it can do.

use super::job::Output;
use crate::error::ApiError;
use mm_core::{Device, Modality, Tensor};
use mm_reason::Pipeline;
use mm_repr::{Classes, LoadOptions, Pretrained};
use mm_tasks::{
    TaskContext, TaskModel, answering::Answerer, captioning::Captioning, embedding::Embedder, prediction::Predictor,
};
use serde::Serialize;
use std::{error::Error, path::Path};
use utoipa::ToSchema;

/// What a model can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Capability {
    /// Vectors of its modalities.
    Embed,
    /// The relevance of texts to a query.
    Rerank,
    /// Classes of its own.
    Classify,
    /// Classes by name: its modalities share a space with text.
    ZeroShot,
    /// Captions of images.
    Caption,
    /// Answers to questions about images.
    Answer,
    /// Conversations.
    Chat,
    /// Speech as text.
    Transcribe,
    /// The label column of rows.
    Predict,
}

impl Capability {
    /// The word that messages use.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::Embed => "embeds",
            Self::Rerank => "reranks",
            Self::Classify => "classifies",
            Self::ZeroShot => "classifies by candidate labels",
            Self::Caption => "captions",
            Self::Answer => "answers questions",
            Self::Chat => "chats",
            Self::Transcribe => "transcribes",
            Self::Predict => "predicts",
        }
    }
}

/// A model in the thread that owns it.
pub(crate) enum LoadedModel {
    /// A checkpoint that embeds or classifies.
    Encoder(Box<Pretrained>),
    /// A checkpoint that generates texts, or chooses among answers.
    Pipeline(Box<Pipeline>),
    /// A run that chooses among answers.
    Answerer(Box<Answerer>),
    /// A run that captions.
    Captioning(Box<Captioning>),
    /// A run that predicts a column.
    Predictor(Box<Predictor>),
    /// Any other run.
    Run(Box<dyn TaskModel>),
}

/// What loading gives.
pub(super) type LoadResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

impl LoadedModel {
    /// Loads a checkpoint folder or a run folder.
    ///
    /// # Errors
    /// When it is neither, or cannot be loaded.
    pub(super) fn load(folder: &Path, context: &TaskContext<'_>) -> LoadResult<Self> {
        let finetuned = mm_tasks::finetuning::model_dir(folder);
        let folder = finetuned.as_deref().unwrap_or(folder);
        if Predictor::is_run(folder) {
            return Self::load_run(folder, context);
        }
        let options = LoadOptions { device: context.device, stays_loaded: true, ..LoadOptions::default() };
        if generates(folder) {
            return Ok(Self::Pipeline(Box::new(Pipeline::load(folder, options)?)));
        }
        Ok(Self::Encoder(Box::new(Pretrained::load_with(folder, options)?)))
    }

    fn load_run(folder: &Path, context: &TaskContext<'_>) -> LoadResult<Self> {
        match context.tasks.of_run(folder)?.name {
            "captioning" => Ok(Self::Captioning(Box::new(Captioning::load(folder, context)?))),
            "prediction" => {
                let predictor = Predictor::open(folder, context.encoders, context.device)?;
                if predictor.answers_questions() {
                    return Ok(Self::Answerer(Box::new(Answerer::from_run(folder, predictor)?)));
                }
                Ok(Self::Predictor(Box::new(predictor)))
            }
            _ => Ok(Self::Run(context.load(folder)?)),
        }
    }

    /// What it can be asked for.
    pub(super) fn capabilities(&self) -> Vec<Capability> {
        use Capability::{Answer, Caption, Chat, Classify, Embed, Predict, Rerank, Transcribe, ZeroShot};
        match self {
            // Its encoder is trained on pairs: vectors of single texts would say little.
            Self::Encoder(model) if model.is_reranker() => vec![Rerank],
            Self::Encoder(model) => {
                let classifies = model.modalities().iter().any(|modality| model.has_classifier(modality));
                let others = [(Classify, classifies), (ZeroShot, model.contrastive_head.is_some())];
                [Embed].into_iter().chain(others.into_iter().filter(|(_, can)| *can).map(|(one, _)| one)).collect()
            }
            Self::Pipeline(model) if !model.can_generate() => vec![Answer],
            Self::Pipeline(model) if model.processor(&Modality::AUDIO).is_ok() => vec![Transcribe],
            Self::Pipeline(model) if model.tokenizer.has_chat_template() => vec![Caption, Answer, Chat],
            Self::Pipeline(_) => vec![Caption, Answer],
            Self::Answerer(_) => vec![Answer],
            Self::Captioning(_) => vec![Caption],
            Self::Predictor(_) => vec![Predict],
            Self::Run(run) if run.as_embedder().is_some() => vec![Embed],
            Self::Run(_) => Vec::new(),
        }
    }

    /// A checkpoint's own classes, or the one whose score a reranker gives; none where it has neither.
    pub(super) fn classes(&self) -> Classes {
        let classifies = |model: &Pretrained| model.modalities().iter().any(|modality| model.has_classifier(modality));
        match self {
            Self::Encoder(model) if model.is_reranker() || classifies(model) => model.classes.clone(),
            _ => Classes { labels: Vec::new(), multi_label: false },
        }
    }

    /// The modalities that it takes.
    pub(super) fn modalities(&self) -> Vec<Modality> {
        let takes = |model: &Pipeline| {
            let media = [Modality::IMAGE, Modality::AUDIO, Modality::VIDEO];
            media.into_iter().filter(|modality| model.processor(modality).is_ok()).collect()
        };
        match self {
            Self::Encoder(model) => model.modalities(),
            Self::Pipeline(model) => takes(model),
            Self::Answerer(_) | Self::Captioning(_) => vec![Modality::IMAGE],
            Self::Predictor(predictor) => predictor.modalities(),
            Self::Run(run) => run.as_embedder().map(Embedder::modalities).unwrap_or_default(),
        }
    }

    /// The name of its family or task.
    pub(super) fn family(&self) -> String {
        match self {
            Self::Encoder(model) => model.family.clone(),
            Self::Pipeline(model) => model.family.to_owned(),
            Self::Answerer(_) => "answering".into(),
            Self::Captioning(_) => "captioning".into(),
            Self::Predictor(_) => "prediction".into(),
            Self::Run(run) => run.task().to_owned(),
        }
    }

    /// Whether its own processors read the values of a request, in its thread.
    pub(super) fn reads_sources(&self) -> bool {
        matches!(self, Self::Answerer(_) | Self::Captioning(_) | Self::Predictor(_))
    }

    /// One row for each sample.
    pub(super) fn encode_samples(
        &self,
        modality: &Modality,
        samples: &[Tensor],
        output: Output,
    ) -> Result<Vec<Vec<f32>>, ApiError> {
        let encoder = || self.encoder().ok_or_else(|| ApiError::internal("a run was asked for what checkpoints give"));
        let rows = match output {
            Output::Features => {
                let found = "a run, which has one vector for a text";
                let encoder =
                    self.encoder().ok_or_else(|| ApiError::invalid("model", found, "a pretrained encoder"))?;
                let features = encoder.features_of_samples(modality, samples)?;
                return Ok(features.iter().map(Tensor::to_vec).collect::<mm_core::Result<_>>()?);
            }
            Output::Embedding { skipped: None } => self.embedder()?.embed_samples(modality, samples, None)?,
            Output::Embedding { skipped: Some(skipped) } => {
                encoder()?.embed_samples_after(modality, samples, skipped)?
            }
            Output::Classes => encoder()?.logits_of_samples(modality, samples)?,
            Output::Relevance => encoder()?.pair_logits(samples)?,
        };
        let rows = rows.to_device(Device::Cpu)?;
        let size = rows.size(-1)?.max(1) as usize;
        Ok(rows.to_vec::<f32>()?.chunks(size).map(<[f32]>::to_vec).collect())
    }

    /// As a checkpoint that embeds, classifies or reranks.
    pub(super) fn encoder(&self) -> Option<&Pretrained> {
        match self {
            Self::Encoder(encoder) => Some(encoder),
            _ => None,
        }
    }

    /// As what embeds.
    pub(crate) fn embedder(&self) -> Result<&dyn Embedder, ApiError> {
        match self {
            Self::Encoder(model) => Ok(model.as_ref()),
            Self::Run(run) => Ok(run.embedder()?),
            _ => Err(ApiError::internal("a model without embeddings was asked for some")),
        }
    }
}

/// Whether a checkpoint's family is one of those that generate or choose text.
fn generates(folder: &Path) -> bool {
    let Ok(paths) = mm_repr::ModelPaths::resolve(folder) else { return false };
    let Ok(text) = std::fs::read(paths.files.join("config.json")) else { return false };
    let config: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    config["model_type"].as_str().is_some_and(|family| mm_reason::pretrained::families().contains(&family))
}
