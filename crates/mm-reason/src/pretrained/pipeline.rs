//! Loading a model with its tokenizer, and encoding media.

use super::{
    families::family,
    tokenizer::Tokenizer,
    traits::{ConditionalGenerator, MediaEncoder},
    types::{EncodedMedia, Prompt, Request, TrainBatch},
};
use crate::{
    Error, Result,
    generate::{GenerationConfig, GrammarConstraint, OutputConstraint},
};
use mm_core::{
    DType, LoraConfig, Modality, Params, ProcessContext, Processor, Source, Tensor, no_grad, parallel_tensors,
};
use mm_data::process_catching_panics;
use mm_repr::{
    LoadOptions, ModelPaths,
    family::{FineTuneOptions, Loaded, labels, load_for_fine_tuning, num_labels},
    read_json,
};
use serde_json::Value;
use std::{cell::RefCell, path::Path, sync::Arc};

/// A pretrained model that answers questions, captions or transcribes, with its tokenizer and generation options.
///
/// # Examples
/// ```no_run
/// use mm_core::{Modality, Source};
/// use mm_reason::{Pipeline, Request, generate::LogitsProcessors};
///
/// let pipeline = Pipeline::load("models/blip-image-captioning-base".as_ref(), Default::default())?;
/// let image = pipeline.encode_media(&Modality::IMAGE, &[Source::Path("dog.jpg".into())])?;
/// let (config, processors) = (&pipeline.generation, LogitsProcessors::default());
/// let captions =
///     pipeline.generate_text(Some(&image), Request::Caption(None), config, &processors, &mut |_row, _token| {})?;
/// println!("{}", captions[0][0].text);
/// # Ok::<(), mm_reason::Error>(())
/// ```
pub struct Pipeline {
    pub(super) model: Box<dyn MediaEncoder>,
    /// Parameters of the model.
    pub params: Params,
    /// The `model_type`.
    pub family: &'static str,
    /// Generation options of the checkpoint.
    pub generation: GenerationConfig,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Labels of its answer classifier.
    pub labels: Vec<String>,
    /// Names of tensors in the checkpoint that the model has no parameters for.
    pub unexpected_keys: Vec<String>,
    dtype: DType,
    /// The constraint of the last generation, compiled for the tokenizer.
    pub(super) compiled_constraint: RefCell<Option<(OutputConstraint, Arc<GrammarConstraint>)>>,
}

/// Options of [`Pipeline::load_for_training`]; by default all weights are trained, with the checkpoint's labels.
#[derive(Debug, Clone, Default)]
pub struct TrainingOptions<'a> {
    /// Trains low-rank adapters only.
    pub adapter: Option<LoraConfig>,
    /// The labels of a classifier, which gets a new head where they are not the checkpoint's.
    pub labels: Option<&'a [String]>,
}

/// A pipeline to be fine-tuned.
pub struct TrainablePipeline {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// The checkpoint's config, with the labels that the model has now.
    pub config: Value,
    /// Prefixes of the weights that were reinitialized.
    pub reinitialized: Vec<String>,
}

impl Pipeline {
    /// Loads a checkpoint folder, or a folder with an adapter in PEFT's format.
    ///
    /// # Errors
    /// If the folder has no `config.json`, the family is not supported, or weights are missing.
    pub fn load(folder: &Path, options: LoadOptions) -> Result<Self> {
        Ok(Self::open(folder, options, None, None)?.pipeline)
    }

    /// Loads a checkpoint folder for fine-tuning, of all weights or of a LoRA adapter.
    ///
    /// # Errors
    /// Those of [`Self::load`]; also if no layer matches the adapter's targets.
    pub fn load_for_training(
        folder: &Path,
        options: LoadOptions,
        training: TrainingOptions<'_>,
    ) -> Result<TrainablePipeline> {
        let fine_tuning = FineTuneOptions { adapter: training.adapter, reinitialized: Vec::new() };
        Self::open(folder, options, Some(fine_tuning), training.labels)
    }

    fn open(
        folder: &Path,
        options: LoadOptions,
        mut fine_tuning: Option<FineTuneOptions>,
        wanted_labels: Option<&[String]>,
    ) -> Result<TrainablePipeline> {
        if !folder.is_dir() {
            return Err(Error::checkpoint(folder, "no such folder; download it with `mm models pull NAME`"));
        }
        let paths = ModelPaths::resolve(folder)?;
        let folder = paths.files.as_path();
        let file = folder.join("config.json");
        if !file.exists() {
            return Err(Error::checkpoint(folder, "found no config.json, which names the model's family"));
        }
        let mut config = read_json(&file)?;
        let known = family(config["model_type"].as_str().unwrap_or_default())?;
        if let (Some(wanted), Some(fine_tuning), Some(prefix)) =
            (wanted_labels, &mut fine_tuning, known.classifier_prefix)
            && labels(&config, num_labels(&config)) != wanted
        {
            set_labels(&mut config, wanted);
            fine_tuning.reinitialized.push(prefix.to_owned());
        }
        let Loaded { model, params, unexpected_keys, .. } =
            load_for_fine_tuning(&paths, &config, &known.family, options, fine_tuning.as_ref())?;
        let pipeline = Self {
            generation: generation_config(folder, &config, model.as_generator())?,
            model,
            params,
            family: known.family.model_type,
            tokenizer: Tokenizer::open_with_template(&paths.tokenizer, folder)?,
            labels: labels(&config, num_labels(&config)),
            unexpected_keys,
            dtype: options.dtype,
            compiled_constraint: RefCell::new(None),
        };
        let reinitialized = fine_tuning.map(|f| f.reinitialized).unwrap_or_default();
        Ok(TrainablePipeline { pipeline, config, reinitialized })
    }

    /// The labels of a checkpoint folder whose family classifies answers; none where it generates them.
    pub fn checkpoint_labels(folder: &Path) -> Result<Option<Vec<String>>> {
        let config = read_json(&ModelPaths::resolve(folder)?.files.join("config.json"))?;
        let model_type = config["model_type"].as_str().unwrap_or_default();
        let classifies = family(model_type).is_ok_and(|known| known.classifier_prefix.is_some());
        Ok(classifies.then(|| labels(&config, num_labels(&config))))
    }

    /// Whether the model generates text. Others classify answers.
    pub fn can_generate(&self) -> bool {
        self.model.as_generator().is_some()
    }

    /// A request as token ids.
    ///
    /// # Errors
    /// If the model does not support such requests.
    pub fn prompt(&self, media: Option<&EncodedMedia>, request: Request<'_>) -> Result<Prompt> {
        let prompt = self.model.prompt(&self.tokenizer, media, request)?;
        if let Some(generator) = self.model.as_generator() {
            let vocab_size = generator.decoder().config().vocab_size;
            if let Some(id) = prompt.decoder_input_ids.iter().find(|id| !(0..vocab_size).contains(*id)) {
                let token = self.tokenizer.id_to_token(*id).unwrap_or_default();
                let expected = format!("0 to {}, the rows of the model's token embeddings", vocab_size - 1);
                return Err(Error::invalid_argument("token of the prompt", format!("{id} `{token}`"), expected));
            }
        }
        Ok(prompt)
    }

    /// Logits for training: `[rows, tokens, vocab]` after each of the batch's `decoder_input_ids`, or `[rows, labels]`.
    ///
    /// # Errors
    /// If the checkpoint has neither a decoder nor a classifier.
    pub fn forward(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Tensor> {
        match (self.model.as_generator(), self.model.as_classifier()) {
            (Some(generator), _) => generator.forward(batch),
            (None, Some(classifier)) => classifier.forward(batch),
            (None, None) => {
                let found = format!("a checkpoint of family {} with neither", self.family);
                Err(mm_core::Error::config("model", found, "one with a decoder or an answer classifier"))
            }
        }
    }

    /// The processor of a modality.
    ///
    /// # Errors
    /// If the model does not take the modality.
    pub fn processor(&self, modality: &Modality) -> Result<&Arc<dyn Processor>> {
        self.model.processor(modality).ok_or_else(|| self.unsupported(modality))
    }

    /// The processor of a modality for training, where batches need a fixed shape (of audio, the first window).
    ///
    /// # Errors
    /// If the model does not take the modality.
    pub fn train_processor(&self, modality: &Modality) -> Result<&Arc<dyn Processor>> {
        self.model.train_processor(modality).ok_or_else(|| self.unsupported(modality))
    }

    fn unsupported(&self, modality: &Modality) -> Error {
        let known = [Modality::IMAGE, Modality::AUDIO, Modality::VIDEO];
        let accepted = known.iter().filter(|m| self.model.processor(m).is_some()).map(Modality::name);
        let accepted = accepted.collect::<Vec<_>>().join(" or ");
        Error::invalid_argument(format!("input of a model of family {}", self.family), modality, accepted)
    }

    /// Encodes inputs of a modality, one row each; processed, they must have one shape.
    pub fn encode_media(&self, modality: &Modality, sources: &[Source]) -> Result<EncodedMedia> {
        self.process_and_encode(self.processor(modality)?, modality, sources)
    }

    /// Like [`Self::encode_media`], but with the processor for training, so that audio of any length has one shape.
    pub fn encode_media_for_training(&self, modality: &Modality, sources: &[Source]) -> Result<EncodedMedia> {
        self.process_and_encode(self.train_processor(modality)?, modality, sources)
    }

    /// Encodes the images and videos of a conversation, in the order in which its messages have them; `None` where there
    /// are none.
    ///
    /// # Errors
    /// If one cannot be read, or there are several and the model takes one.
    pub fn encode_conversation(&self, media: &[(Modality, Source)]) -> Result<Option<EncodedMedia>> {
        self.encode_several(media, |(modality, source)| self.encode_media(modality, std::slice::from_ref(source)))
    }

    /// Like [`Self::encode_conversation`], for samples that [`Self::processor`] returned.
    ///
    /// # Errors
    /// If there are several and the model takes one.
    pub fn encode_conversation_samples(&self, media: &[(&Modality, &Tensor)]) -> Result<Option<EncodedMedia>> {
        self.encode_several(media, |(modality, sample)| self.encode_samples(modality, std::slice::from_ref(*sample)))
    }

    fn encode_several<T>(
        &self,
        media: &[T],
        encode: impl Fn(&T) -> Result<EncodedMedia>,
    ) -> Result<Option<EncodedMedia>> {
        if media.len() > 1 && !self.model.supports_several_media() {
            let what = format!("images and videos for a model of family {}", self.family);
            return Err(Error::invalid_argument(what, media.len(), "one"));
        }
        let mut encoded = media.iter().map(encode).collect::<Result<Vec<_>>>()?;
        Ok(match encoded.len() {
            0 | 1 => encoded.pop(),
            _ => Some(EncodedMedia::join(encoded)?),
        })
    }

    fn process_and_encode(
        &self,
        processor: &Arc<dyn Processor>,
        modality: &Modality,
        sources: &[Source],
    ) -> Result<EncodedMedia> {
        let samples = process(processor, sources).into_iter().collect::<mm_core::Result<Vec<_>>>()?;
        self.encode_samples(modality, &samples)
    }

    /// Encodes each input on its own: one that cannot be read is an error of that input alone. Inputs of one shape are
    /// encoded as a batch.
    pub fn encode_media_each(&self, modality: &Modality, sources: &[Source]) -> Result<Vec<Result<EncodedMedia>>> {
        self.process_and_encode_each(self.processor(modality)?, modality, sources)
    }

    /// Like [`Self::encode_media_each`], but with the processor for training.
    pub fn encode_media_each_for_training(
        &self,
        modality: &Modality,
        sources: &[Source],
    ) -> Result<Vec<Result<EncodedMedia>>> {
        self.process_and_encode_each(self.train_processor(modality)?, modality, sources)
    }

    fn process_and_encode_each(
        &self,
        processor: &Arc<dyn Processor>,
        modality: &Modality,
        sources: &[Source],
    ) -> Result<Vec<Result<EncodedMedia>>> {
        let samples = process(processor, sources);
        let valid: Vec<&Tensor> = samples.iter().filter_map(|s| s.as_ref().ok()).collect();
        let one_shape = valid.windows(2).all(|w| w[0].shape() == w[1].shape());
        if valid.len() > 1 && one_shape && self.model.supports_batches() {
            let batch = Tensor::stack(&valid, 0)?.to_device(self.params.device())?.to_dtype(self.dtype)?;
            let media = no_grad(|| self.model.encode(modality, &batch))?;
            let mut rows = 0..;
            let mut next = |_| {
                let row = rows.next().unwrap_or_default();
                let values = media.values.narrow(0, row, 1)?;
                Ok(EncodedMedia { items: media.items.clone(), ..EncodedMedia::new(values) })
            };
            return Ok(samples.into_iter().map(|s| s.map_err(Error::from).and_then(&mut next)).collect());
        }
        Ok(samples.into_iter().map(|s| self.encode_samples(modality, std::slice::from_ref(&s?))).collect())
    }

    /// Encodes samples that [`Self::processor`] returned.
    pub fn encode_samples(&self, modality: &Modality, samples: &[Tensor]) -> Result<EncodedMedia> {
        let batch = Tensor::stack(&samples.iter().collect::<Vec<_>>(), 0)?.to_device(self.params.device())?;
        Ok(no_grad(|| self.model.encode(modality, &batch.to_dtype(self.dtype)?))?)
    }
}

fn process(processor: &Arc<dyn Processor>, sources: &[Source]) -> Vec<mm_core::Result<Tensor>> {
    parallel_tensors(sources, |s| process_catching_panics(processor.as_ref(), s, &mut ProcessContext::eval()))
}

/// Writes the labels into a checkpoint's config, as transformers does.
fn set_labels(config: &mut Value, labels: &[String]) {
    let id_to_label = labels.iter().enumerate().map(|(id, label)| (id.to_string(), Value::from(label.clone())));
    let label_to_id = labels.iter().enumerate().map(|(id, label)| (label.clone(), Value::from(id)));
    config["id2label"] = Value::Object(id_to_label.collect());
    config["label2id"] = Value::Object(label_to_id.collect());
    config["num_labels"] = labels.len().into();
}

/// The generation options of a checkpoint folder.
fn generation_config(
    folder: &Path,
    config: &Value,
    generator: Option<&dyn ConditionalGenerator>,
) -> Result<GenerationConfig> {
    let own = read_json(&folder.join("generation_config.json"))?;
    let mut files = vec![&own, config];
    files.extend(["decoder", "text_config"].iter().map(|key| &config[*key]).filter(|v| !v.is_null()));
    let mut generation = GenerationConfig::from_json(&files);
    if let Some(generator) = generator {
        generator.adjust_config(&mut generation);
    }
    Ok(generation)
}
