//! The captioning model: an encoder and a caption decoder over a vocabulary of words.

use super::{
    config::CaptioningConfig,
    tokenizer::{CaptionTokenizer, UNKNOWN},
};
use crate::{Error, Result, TaskContext, batch::read_all, inputs::InputBranch};
use mm_core::{BuildContext, Device, Features, Input, Modality, Params, Registry, Source, no_grad, seed::manual_seed};
use mm_data::{Manifest, TensorCache};
use mm_reason::{
    Generation,
    captioner::{BOS, Captioner, EOS},
    generate::{GeneratedSequence, GenerationConfig, LogitsProcessors, generate},
};
use mm_train::Run;
use std::path::{Path, PathBuf};

/// A model that describes values of one modality in words.
pub struct Captioning {
    pub(super) params: Params,
    pub(super) input: InputBranch,
    pub(super) captioner: Captioner,
    pub(super) config: CaptioningConfig,
    base_dir: PathBuf,
    pub(super) cache: TensorCache,
    /// The modality that is described.
    pub(super) modality: Modality,
    pub(super) tokenizer: CaptionTokenizer,
}

impl Captioning {
    /// Builds the model of a resolved config.
    ///
    /// # Errors
    /// When the config has no vocabulary, or the encoder is of another modality.
    pub fn new(config: CaptioningConfig, base_dir: &Path, encoders: &Registry, device: Device) -> Result<Self> {
        let base_dir = config.common.base_dir_or(base_dir);
        if config.vocabulary.is_empty() {
            return Err(Error::invalid("vocabulary", "none", "the words of the training captions"));
        }
        manual_seed(config.common.train.seed);
        let params = Params::new(device);
        let root = params.scope();
        let modality = config.modality();
        let context = BuildContext {
            scope: root.pp("encoder"),
            base_dir: base_dir.clone(),
            field: "encoder".into(),
            registry: encoders,
        };
        let input = InputBranch::build(&config.encoder, &modality, encoders, &context)?;
        let tokenizer = new_tokenizer(&config);
        let dim = input.encoder()?.dim();
        let captioner = Captioner::new(&root.pp("captioner"), dim, tokenizer.vocab_size(), &config.model)?;
        let cache = TensorCache::open_or_default(&base_dir, config.common.cache_dir.as_deref())?;
        if let Some(run) = &config.init_from {
            Run::load_weights(&base_dir.join(run), &params)?;
        }
        Ok(Self { params, input, captioner, config, base_dir, cache, modality, tokenizer })
    }

    /// Loads the model of a run folder.
    pub fn load(run: &Path, context: &TaskContext<'_>) -> Result<Self> {
        let model = Self::new(context.run_config(run)?, run, context.encoders, context.device)?;
        Run::load_weights(run, &model.params)?;
        Ok(model)
    }

    /// The configuration.
    pub fn config(&self) -> &CaptioningConfig {
        &self.config
    }

    /// The data set: rows with a value to describe and a caption.
    pub fn dataset(&self) -> Result<Manifest> {
        self.config.open_dataset(&self.base_dir)
    }

    /// A processor of captions.
    pub(super) fn new_tokenizer(&self) -> CaptionTokenizer {
        new_tokenizer(&self.config)
    }

    /// The generation settings of its config.
    pub fn generation(&self) -> GenerationConfig {
        GenerationConfig {
            max_new_tokens: self.config.model.max_length as usize,
            num_beams: self.config.num_beams.count(),
            eos_token_id: vec![EOS],
            suppress_tokens: vec![0, UNKNOWN, BOS],
            ..GenerationConfig::default()
        }
    }

    /// Features `[rows, positions, dim]` of an input, which may be precomputed features.
    pub(super) fn encode(&self, input: &Input, precomputed: bool, train: bool) -> mm_core::Result<Features> {
        if precomputed {
            return Features::new(input.values.clone(), input.mask.clone());
        }
        self.input.encoder()?.encode(input, train)
    }

    /// The best token sequence of each row of features.
    pub(super) fn generate_tokens(
        &self,
        features: &Features,
        config: &GenerationConfig,
        processors: &LogitsProcessors<'_>,
    ) -> Result<Vec<GeneratedSequence>> {
        let found = no_grad(|| {
            let state = self.captioner.prefill(features, config.max_new_tokens as i64)?;
            generate(&self.captioner, state, config, processors, &mut |_, _| {})
        })?;
        Ok(found.into_iter().filter_map(|sequences| sequences.into_iter().next()).collect())
    }

    /// The caption of each row of features `[rows, positions, dim]`.
    pub(super) fn generate(
        &self,
        features: &Features,
        config: &GenerationConfig,
        processors: &LogitsProcessors<'_>,
    ) -> Result<Vec<Generation>> {
        let caption = |g: GeneratedSequence| Generation {
            text: self.tokenizer.decode(&g.token_ids),
            score: g.score,
            log_prob: g.log_prob,
            finished: g.finished,
            num_tokens: g.token_ids.len(),
            // The start token.
            num_prompt_tokens: 1,
        };
        Ok(self.generate_tokens(features, config, processors)?.into_iter().map(caption).collect())
    }

    /// Describes values.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn describe(
        &self,
        sources: &[Source],
        config: &GenerationConfig,
        processors: &LogitsProcessors<'_>,
    ) -> Result<Vec<Generation>> {
        let input = read_all(self.input.processor.as_ref(), sources)?.to_device(self.params.device())?;
        let features = no_grad(|| self.encode(&input, false, false))?;
        self.generate(&features, config, processors)
    }
}

fn new_tokenizer(config: &CaptioningConfig) -> CaptionTokenizer {
    // One position of `max_length` is the begin token.
    CaptionTokenizer::new(&config.vocabulary, config.model.max_length as usize - 1)
}
