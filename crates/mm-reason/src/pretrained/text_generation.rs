//! Generating text with a pipeline.

use super::{
    pipeline::Pipeline,
    traits::ConditionalGenerator,
    types::{EncodedMedia, Prompt, Request},
};
use crate::{
    Error, Result,
    generate::{
        self, GeneratedSequence, GenerationConfig, GrammarConstraint, LogitsProcessors, OnToken, TokenConstraint,
        concat_prefills,
    },
};
use mm_core::no_grad;
use std::sync::Arc;

/// A generated text.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The text; for captions, with the given start.
    pub text: String,
    /// `log_prob` divided by the number of tokens to the power of the length penalty.
    pub score: f64,
    /// Sum of the log-probabilities of its tokens.
    pub log_prob: f64,
    /// Whether it ended with an end token or a stop string, and not at the maximum length.
    pub finished: bool,
    /// Number of generated tokens.
    pub num_tokens: usize,
    /// Number of tokens of the prompt, with those that stand for image features.
    pub num_prompt_tokens: usize,
}

/// A row's media, and its prompt where the request is valid.
type PromptRow<'a> = (Option<&'a EncodedMedia>, Result<Prompt>);

/// Memory for the key-value caches of a batch, in bytes.
const CACHE_BYTES: i64 = 1_000_000_000;
/// Tokens of a row that [`CACHE_BYTES`] is divided among.
const TOKENS_PER_ROW: i64 = 1000;

impl Pipeline {
    /// Generates text for each row of `media` with one request: for each row the best texts, best first.
    ///
    /// # Errors
    /// If the model does not generate text or does not support the request, or if prompt and output exceed its maximum
    /// number of positions.
    pub fn generate_text(
        &self,
        media: Option<&EncodedMedia>,
        request: Request<'_>,
        config: &GenerationConfig,
        processors: &LogitsProcessors<'_>,
        on_token: OnToken<'_>,
    ) -> Result<Vec<Vec<Generation>>> {
        self.generate_text_from_prompt(media, &self.prompt(media, request)?, config, processors, on_token)
    }

    /// Like [`Self::generate_text`], for a prompt that [`Self::prompt`] made of a request.
    ///
    /// # Errors
    /// If the model does not generate text, or if prompt and output exceed its maximum number of positions.
    pub fn generate_text_from_prompt(
        &self,
        media: Option<&EncodedMedia>,
        prompt: &Prompt,
        config: &GenerationConfig,
        processors: &LogitsProcessors<'_>,
        on_token: OnToken<'_>,
    ) -> Result<Vec<Vec<Generation>>> {
        let sequences = self.generate_from_prompts(&[(media, prompt)], config, processors, on_token)?;
        let decode = |row: Vec<GeneratedSequence>| row.into_iter().map(|s| self.decode(prompt, s, config)).collect();
        sequences.into_iter().map(decode).collect()
    }

    /// The text of a sequence.
    fn decode(&self, prompt: &Prompt, sequence: GeneratedSequence, config: &GenerationConfig) -> Result<Generation> {
        let prefix: &[i64] = if prompt.part_of_output { &prompt.decoder_input_ids } else { &[] };
        let text = self.tokenizer.decode(&[prefix, &sequence.token_ids].concat())?;
        Ok(Generation {
            text: config.truncate_at_stop(text),
            score: sequence.score,
            log_prob: sequence.log_prob,
            finished: sequence.finished,
            num_tokens: sequence.token_ids.len(),
            num_prompt_tokens: prompt.decoder_input_ids.len(),
        })
    }

    /// Like [`Self::generate_text`], but returns token ids.
    pub fn generate(
        &self,
        media: Option<&EncodedMedia>,
        request: Request<'_>,
        config: &GenerationConfig,
        processors: &LogitsProcessors<'_>,
        on_token: OnToken<'_>,
    ) -> Result<Vec<Vec<GeneratedSequence>>> {
        self.generate_from_prompts(&[(media, &self.prompt(media, request)?)], config, processors, on_token)
    }

    /// Generates token ids for several rows, each with its own media and request, in one batch whatever the lengths of
    /// their prompts. A row whose request is invalid is an error of that row alone. Sampled rows run one by one, so
    /// that they do not depend on each other.
    pub fn generate_batch(
        &self,
        rows: &[(Option<&EncodedMedia>, Request<'_>)],
        config: &GenerationConfig,
        processors: &LogitsProcessors<'_>,
    ) -> Vec<Result<Vec<GeneratedSequence>>> {
        let found = self.generate_rows(self.prompts(rows), config, processors);
        found.into_iter().map(|row| row.map(|(_, sequences)| sequences)).collect()
    }

    /// The prompt of each row, with its media.
    fn prompts<'a>(&self, rows: &[(Option<&'a EncodedMedia>, Request<'_>)]) -> Vec<PromptRow<'a>> {
        rows.iter().map(|(media, request)| (*media, self.prompt(*media, *request))).collect()
    }

    /// Like [`Self::generate_batch`], but returns the best text of each row.
    pub fn generate_text_batch(
        &self,
        rows: &[(Option<&EncodedMedia>, Request<'_>)],
        config: &GenerationConfig,
        processors: &LogitsProcessors<'_>,
    ) -> Vec<Result<Generation>> {
        self.decode_rows(self.generate_rows(self.prompts(rows), config, processors), config)
    }

    /// Like [`Self::generate_text_batch`], for prompts that [`Self::prompt`] made of requests.
    pub fn generate_text_batch_from_prompts(
        &self,
        rows: Vec<(Option<&EncodedMedia>, Prompt)>,
        config: &GenerationConfig,
        processors: &LogitsProcessors<'_>,
    ) -> Vec<Result<Generation>> {
        let rows = rows.into_iter().map(|(media, prompt)| (media, Ok(prompt))).collect();
        self.decode_rows(self.generate_rows(rows, config, processors), config)
    }

    /// The best text of each row.
    fn decode_rows(
        &self,
        rows: Vec<Result<(Prompt, Vec<GeneratedSequence>)>>,
        config: &GenerationConfig,
    ) -> Vec<Result<Generation>> {
        let decode = |row: Result<(Prompt, Vec<GeneratedSequence>)>| {
            let (prompt, sequences) = row?;
            let Some(best) = sequences.into_iter().next() else {
                return Err(Error::invalid_argument("number of sequences", "none", "at least one"));
            };
            self.decode(&prompt, best, config)
        };
        rows.into_iter().map(decode).collect()
    }

    /// The prompt and the sequences of each row.
    fn generate_rows(
        &self,
        rows: Vec<PromptRow<'_>>,
        config: &GenerationConfig,
        processors: &LogitsProcessors<'_>,
    ) -> Vec<Result<(Prompt, Vec<GeneratedSequence>)>> {
        let check = |prompt: Prompt| self.check_length(&prompt, config).map(|()| prompt);
        let (media, prompts): (Vec<_>, Vec<Result<Prompt>>) =
            rows.into_iter().map(|(media, prompt)| (media, prompt.and_then(check))).unzip();
        let mut lengths = prompts.iter().flatten().map(|p| p.decoder_input_ids.len());
        let first = lengths.next();
        // Where lengths are limited with the prompt's, each prompt leaves another number of new tokens.
        let differ = (config.max_length.is_some() || config.min_length > 0) && lengths.any(|n| Some(n) != first);
        if media.len() > 1 && !config.do_sample && !differ {
            let valid: Vec<_> =
                media.iter().zip(&prompts).filter_map(|(media, p)| Some((*media, p.as_ref().ok()?))).collect();
            if valid.is_empty() {
                return prompts.into_iter().map(|p| p.map(|p| (p, Vec::new()))).collect();
            }
            if let Ok(sequences) = self.generate_from_prompts(&valid, config, processors, &mut |_, _| {}) {
                let mut sequences = sequences.into_iter();
                let mut next = || sequences.next().unwrap_or_default();
                return prompts.into_iter().map(|p| p.map(|p| (p, next()))).collect();
            }
            // What is wrong with one row is no error of the others.
        }
        let alone = |(media, prompt): (Option<&EncodedMedia>, Result<Prompt>)| {
            let prompt = prompt?;
            let found = self.generate_from_prompts(&[(media, &prompt)], config, processors, &mut |_, _| {})?;
            Ok((prompt, found.into_iter().next().unwrap_or_default()))
        };
        media.into_iter().zip(prompts).map(alone).collect()
    }

    /// Maximum batch size: at most 16 rows, whose key/value caches of a thousand tokens each stay within 1 GB.
    pub fn max_batch_size(&self) -> usize {
        let bytes_per_token = self.model.as_generator().map_or(0, |g| g.decoder().kv_bytes_per_token());
        (CACHE_BYTES / (bytes_per_token * TOKENS_PER_ROW).max(1)).clamp(1, 16) as usize
    }

    /// The model as a generator.
    pub(super) fn generator(&self) -> Result<&dyn ConditionalGenerator> {
        self.model.as_generator().ok_or_else(|| {
            let what = format!("request to a model of family {}", self.family);
            Error::invalid_argument(what, "one for generated text", "a question: the model classifies answers")
        })
    }

    /// Number of tokens that prompt and output may have together.
    ///
    /// # Errors
    /// If the model does not generate text.
    pub fn max_positions(&self) -> Result<usize> {
        Ok(usize::try_from(self.generator()?.decoder().config().max_positions).unwrap_or(0))
    }

    /// Checks that the model has enough positions for prompt and output.
    fn check_length(&self, prompt: &Prompt, config: &GenerationConfig) -> Result<()> {
        let max_positions = self.generator()?.decoder().config().max_positions;
        let length = prompt.decoder_input_ids.len();
        let config = config.for_prompt(length)?;
        if length as i64 + config.max_new_tokens as i64 > max_positions {
            let found = format!("{length} prompt tokens and {} new tokens", config.max_new_tokens);
            let expected = format!("at most the model's {max_positions} positions");
            return Err(Error::invalid_argument("number of tokens", found, expected));
        }
        Ok(())
    }

    /// Generates from prompts of any lengths in one batch.
    pub(super) fn generate_from_prompts(
        &self,
        prompts: &[(Option<&EncodedMedia>, &Prompt)],
        config: &GenerationConfig,
        processors: &LogitsProcessors<'_>,
        on_token: OnToken<'_>,
    ) -> Result<Vec<Vec<GeneratedSequence>>> {
        let generator = self.generator()?;
        for (_, prompt) in prompts {
            self.check_length(prompt, config)?;
        }
        let longest = prompts.iter().map(|(_, prompt)| prompt.decoder_input_ids.len()).max().unwrap_or(0);
        let config = &config.for_prompt(longest)?;
        let compiled = self.compile_constraint(config)?;
        let stops = |generated: &[i64]| {
            let contains_stop = |text: String| config.stop_strings.iter().any(|s| text.contains(s.as_str()));
            processors.should_stop(generated)
                || (!config.stop_strings.is_empty() && self.tokenizer.decode(generated).is_ok_and(contains_stop))
        };
        let token_constraint = processors.token_constraint.or(compiled.as_deref().map(|c| c as &dyn TokenConstraint));
        let processors = LogitsProcessors { token_constraint, stopping_criterion: Some(&stops), ..*processors };
        no_grad(|| {
            let max_new_tokens = config.max_new_tokens as i64;
            let prefills = prompts
                .iter()
                .map(|(media, prompt)| generator.prefill(*media, prompt, max_new_tokens))
                .collect::<mm_core::Result<Vec<_>>>()?;
            let prefill = concat_prefills(generator.decoder(), prefills)?;
            generate::generate(generator.decoder(), prefill, config, &processors, on_token)
        })
    }

    /// The constraint of the output, compiled for the tokenizer; the last one is cached.
    fn compile_constraint(&self, config: &GenerationConfig) -> Result<Option<Arc<GrammarConstraint>>> {
        let Some(constraint) = &config.constraint else { return Ok(None) };
        let mut cached = self.compiled_constraint.borrow_mut();
        if let Some((_, compiled)) = cached.as_ref().filter(|(known, _)| known == constraint) {
            return Ok(Some(compiled.clone()));
        }
        let Some(eos) = config.eos_token_id.first() else {
            let found = "a model without an end token";
            return Err(Error::invalid_argument("output constraint", found, "a model with eos_token_id"));
        };
        let vocab_size = self.generator()?.decoder().config().vocab_size;
        let tokens = self.tokenizer.token_bytes(vocab_size as usize)?;
        let compiled = Arc::new(GrammarConstraint::new(constraint, &tokens, *eos)?);
        *cached = Some((constraint.clone(), compiled.clone()));
        Ok(Some(compiled))
    }
}
