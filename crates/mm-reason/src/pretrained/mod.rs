//! A checkpoint folder → a model that answers, describes, transcribes.

mod bert;
mod blip;
mod encoder_decoder;
mod git;
mod heat;
mod language;
mod languages;
mod llava;
mod patches;
mod qwen2_vl;
mod tokens;
mod transcribe;
mod vilt;
mod whisper;

pub use tokens::Tokenizer;
pub use transcribe::{Segment, Transcript};

use crate::{
    Error, Result,
    decoder::{Decoder, State},
    generate::{
        self, GeneratedSequence, GenerationConfig, GrammarConstraint, LogitsProcessors, OnToken, OutputConstraint,
        Prefill, TokenConstraint,
    },
};
use mm_core::{DType, Device, Input, LoraConfig, Modality, Params, ProcessContext, Processor, Source, Tensor, no_grad};
use mm_data::process_catching_panics;
use mm_repr::{
    LoadOptions, ModelPaths,
    family::{Family, FineTuneOptions, Loaded, labels, load_for_fine_tuning},
    text::read_json,
};
use rayon::prelude::*;
use serde_json::Value;
use std::{cell::RefCell, path::Path, sync::Arc};

/// What is asked of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// To describe, going on from these words.
    Caption(Option<&'a str>),
    /// To answer a question.
    Question(&'a str),
    /// To go on with a conversation: messages as chat templates take them.
    Chat(&'a Value),
    /// To write down what is said: in this language, with its times.
    Transcribe {
        /// The spoken language, as a code or name; detected when absent.
        language: Option<&'a str>,
        /// Whether to generate timestamps.
        timestamps: bool,
    },
}

/// What a model makes of a picture, a sound, a video before it is asked anything; made once, used for each question.
pub struct EncodedMedia {
    /// Features, or what will become features together with a text: `[rows, …]`.
    pub(crate) values: Tensor,
    /// How many patches (time, down, across) there are, where that differs from picture to picture.
    pub(crate) grid: Option<[i64; 3]>,
    /// What a decoder remembers after the picture, and the tokens that it has read until there: the next question goes on from it.
    pub(crate) prefix: RefCell<Option<(Vec<i64>, State)>>,
}

impl EncodedMedia {
    pub(crate) fn of(values: Tensor) -> Self {
        Self { values, grid: None, prefix: RefCell::new(None) }
    }
}

/// A prompt that has been written out in tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Prompt {
    /// Read by the decoder before it speaks.
    pub(crate) ids: Vec<i64>,
    /// Read by an encoder of its own (a question).
    pub(crate) question: Vec<i64>,
    /// Whether what is said goes on from the prompt's own words, so that these belong to it.
    pub(crate) goes_on: bool,
}

/// One family's model: what a builder gives.
pub(crate) trait Voice: Send {
    /// How raw values of a modality become numbers; none where it does not take it.
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>>;

    /// Numbers `[rows, …]` → what is seen.
    fn see(&self, modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia>;

    /// Whether [`Voice::see`] takes one row only.
    fn one_by_one(&self) -> bool {
        false
    }

    /// What is asked, in tokens; an error where this model does not do such a thing.
    fn prompt(&self, tokens: &Tokenizer, seen: Option<&EncodedMedia>, asked: Request<'_>) -> Result<Prompt>;

    /// Reads a prompt (the same for each row of what is seen); `room` is how many tokens may be added.
    fn begin(&self, seen: Option<&EncodedMedia>, prompt: &Prompt, room: i64) -> mm_core::Result<Prefill<State>>;

    /// What it speaks with; none for models that choose among labels.
    fn decoder(&self) -> Option<&Decoder>;

    /// Scores of its labels for one question about each row, `[rows, labels]`; none for models that speak.
    fn choose(&self, _seen: &EncodedMedia, _prompt: &Prompt) -> mm_core::Result<Option<Tensor>> {
        Ok(None)
    }

    /// Score that the text belongs to the picture, as a probability; none for models without such a head.
    fn matches(&self, _seen: &EncodedMedia, _prompt: &Prompt) -> mm_core::Result<Option<f64>> {
        Ok(None)
    }

    /// How strongly each patch (row by row, `[down, across]`) and each token of the text counted; none where the family does not tell.
    fn explain(
        &self,
        _tokens: &Tokenizer,
        _seen: &EncodedMedia,
        _prompt: &Prompt,
        _said: &[i64],
    ) -> Result<Option<Attribution>> {
        Ok(None)
    }

    /// Scores of the tokens after each of `batch.ids` (`[rows, tokens, vocabulary]`), or of its labels (`[rows, labels]`); none where the
    /// checkpoint has neither a decoder nor labels.
    fn learn(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Option<Tensor>>;

    /// Its time tokens, where it has such.
    fn times(&self) -> Option<Times> {
        None
    }

    /// What makes numbers of raw values that are learned from in batches, where that is not what they are looked at by.
    fn train_processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        self.processor(modality)
    }

    /// Changes the settings of generation where the family has words of its own for them.
    fn settle(&self, _config: &mut GenerationConfig) {}
}

/// A batch to learn from.
#[derive(Debug)]
pub struct TrainBatch<'a> {
    /// Of what its values are.
    pub modality: &'a Modality,
    /// Numbers of pictures or sounds, `[rows, …]`.
    pub values: &'a Tensor,
    /// Tokenizer of the questions `[rows, tokens]`, and which of them are there.
    pub question: Option<&'a Input>,
    /// What was said so far, `[rows, tokens]`; not needed by models that choose among labels.
    pub decoder_input_ids: Option<&'a Tensor>,
    /// Whether this is training.
    pub train: bool,
}

impl TrainBatch<'_> {
    fn decoder_input_ids(&self) -> mm_core::Result<&Tensor> {
        self.decoder_input_ids
            .ok_or_else(|| mm_core::Error::Sample("a model that speaks, and nothing to be said".into()))
    }
}

/// Time tokens of a model that writes down what is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// The token of second 0; each that follows is a step later.
    pub(crate) first: i64,
    /// The end token; all before the times are text but for those from here on.
    pub(crate) end: i64,
    /// The latest that a window's first time may be, in steps.
    pub(crate) latest: Option<i64>,
    /// Frames of the spectrogram in a window.
    pub(crate) frames: i64,
}

/// What counted, and how much.
#[derive(Debug, Clone)]
pub struct Attribution {
    /// Patches `[down, across]`, row by row; not negative.
    pub patches: Vec<f32>,
    /// How many lie (down, across).
    pub grid: [usize; 2],
    /// Tokenizer of the text and how much each counted.
    pub words: Vec<(String, f32)>,
    /// Where a reasoning network looked at each of its steps, patch by patch, and what the step is called.
    pub steps: Vec<(String, Vec<f32>)>,
}

/// How the names of the layers that give the labels' scores begin in a family's checkpoints: made anew for other labels.
fn head(kind: &str) -> &'static str {
    match kind {
        "vilt" => "classifier.",
        _ => "",
    }
}

fn table() -> impl Iterator<Item = &'static Family<Box<dyn Voice>>> {
    [
        &vilt::FAMILY,
        &blip::FAMILY,
        &git::FAMILY,
        &encoder_decoder::FAMILY,
        &whisper::FAMILY,
        &llava::FAMILY,
        &qwen2_vl::FAMILY,
    ]
    .into_iter()
}

/// The families that [`Pipeline::load`] knows, by the `model_type` of their `config.json`.
pub fn families() -> Vec<&'static str> {
    table().map(|f| f.model_type).collect()
}

/// A pretrained model that answers, describes or transcribes.
pub struct Pipeline {
    voice: Box<dyn Voice>,
    /// Its weights.
    pub params: Params,
    /// Which family it is of.
    pub family: &'static str,
    /// Settings of generation that the folder asks for.
    pub generation: GenerationConfig,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Names of its labels, where it chooses among such.
    pub labels: Vec<String>,
    /// Names in the checkpoint that were not needed.
    pub unused: Vec<String>,
    dtype: DType,
    form: RefCell<Option<(OutputConstraint, Arc<GrammarConstraint>)>>,
}

/// One answer among several.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredAnswer {
    /// The answer.
    pub answer: String,
    /// A probability: of the label by itself, or among the choices; of a text that was generated, that of its tokens (their geometric
    /// mean).
    pub score: f64,
    /// The score before that: the label's logit, or the log-probability of the text.
    pub logit: f64,
}

/// A text that was said.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The text, with the words that it was asked to go on from.
    pub text: String,
    /// Sum of the log-probabilities of its tokens over their number to the power of the length penalty.
    pub score: f64,
    /// That sum.
    pub log_prob: f64,
    /// Whether it ended by itself, and not at the limit.
    pub finished: bool,
    /// Number of its tokens.
    pub num_tokens: usize,
}

impl Pipeline {
    /// Loads a folder: of a model, or of an adapter in PEFT's layout.
    pub fn load(folder: &Path, options: LoadOptions) -> Result<Self> {
        Ok(Self::open(folder, options, None, None)?.0)
    }

    /// Loads a folder to be learned further, all of it or adapters beside it. A model that chooses among labels gets these where they are
    /// not its own, and a head for them. The config that it then has comes back.
    pub fn load_for_training(
        folder: &Path,
        options: LoadOptions,
        adapter: Option<LoraConfig>,
        labels: Option<&[String]>,
    ) -> Result<(Self, Value, Vec<String>)> {
        Self::open(folder, options, Some(FineTuneOptions { adapter, reinitialized: Vec::new() }), labels)
    }

    fn open(
        folder: &Path,
        options: LoadOptions,
        mut further: Option<FineTuneOptions>,
        wanted: Option<&[String]>,
    ) -> Result<(Self, Value, Vec<String>)> {
        if !folder.is_dir() {
            return Err(Error::checkpoint(folder, "no such folder; fetch it with `cargo xtask models pull NAME`"));
        }
        let place = ModelPaths::resolve(folder)?;
        let folder = place.files.as_path();
        let file = folder.join("config.json");
        if !file.exists() {
            return Err(Error::checkpoint(folder, "no config.json here, so mm cannot know what the weights are"));
        }
        let mut config = read_json(&file)?;
        let kind = config["model_type"].as_str().unwrap_or_default().to_owned();
        let family = table()
            .find(|f| f.model_type == kind)
            .ok_or_else(|| mm_core::Error::unknown("model_type", &kind, families()))?;
        let head = head(&kind);
        if let (Some(wanted), Some(further)) = (wanted, &mut further)
            && !head.is_empty()
            && labels(&config, mm_repr::family::num_labels(&config)) != wanted
        {
            let named = |(n, l): (usize, &String)| (n.to_string(), Value::from(l.clone()));
            let numbered = |(n, l): (usize, &String)| (l.clone(), Value::from(n));
            config["id2label"] = Value::Object(wanted.iter().enumerate().map(named).collect());
            config["label2id"] = Value::Object(wanted.iter().enumerate().map(numbered).collect());
            config["num_labels"] = wanted.len().into();
            further.reinitialized.push(head.to_owned());
        }
        let Loaded { model: voice, params, unexpected_keys: unused, .. } =
            load_for_fine_tuning(&place, &config, family, options, further.as_ref())?;
        let own = read_json(&folder.join("generation_config.json"))?;
        let mut files = vec![&own, &config];
        files.extend(["decoder", "text_config"].iter().map(|k| &config[*k]).filter(|v| !v.is_null()));
        let mut generation = GenerationConfig::from_json(&files);
        voice.settle(&mut generation);
        let classes = mm_repr::family::num_labels(&config);
        let speaker = Self {
            voice,
            params,
            family: family.model_type,
            generation,
            tokenizer: Tokenizer::open(folder)?,
            labels: labels(&config, classes),
            unused,
            dtype: options.dtype,
            form: RefCell::new(None),
        };
        Ok((speaker, config, further.map(|f| f.reinitialized).unwrap_or_default()))
    }

    /// What is asked as tokens: those of a question that is read by itself, and those that the decoder begins with.
    pub fn tokenize_request(&self, seen: Option<&EncodedMedia>, asked: Request<'_>) -> Result<(Vec<i64>, Vec<i64>)> {
        let prompt = self.voice.prompt(&self.tokenizer, seen, asked)?;
        Ok((prompt.question, prompt.ids))
    }

    /// Scores of the tokens after each of what was said, or of its labels, from which a gradient flows into its weights.
    pub fn forward(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Tensor> {
        self.voice.learn(batch)?.ok_or_else(|| {
            let found = format!("a checkpoint of family {} with neither", self.family);
            mm_core::Error::config("model", found, "one that has a decoder or labels to learn")
        })
    }

    /// Whether it speaks, and does not choose among labels.
    pub fn can_generate(&self) -> bool {
        self.voice.decoder().is_some()
    }

    /// Looks at files of a modality, one row each; they must become numbers of one shape.
    pub fn encode_media(&self, modality: &Modality, sources: &[Source]) -> Result<EncodedMedia> {
        self.look_by(self.processor(modality)?, modality, sources)
    }

    /// The same as they are learned from in batches ([`Pipeline::train_processor`]), so that sounds of any length are of one shape.
    pub fn encode_media_for_training(&self, modality: &Modality, sources: &[Source]) -> Result<EncodedMedia> {
        self.look_by(self.train_processor(modality)?, modality, sources)
    }

    fn look_by(&self, processor: &Arc<dyn Processor>, modality: &Modality, sources: &[Source]) -> Result<EncodedMedia> {
        let samples = sources
            .par_iter()
            .map(|s| process_catching_panics(processor.as_ref(), s, &mut ProcessContext::eval()))
            .collect::<mm_core::Result<Vec<_>>>()?;
        self.encode_samples(modality, &samples)
    }

    /// Looks at each of several files by itself; what cannot be read is that file's error alone. Those of one shape are looked at together.
    pub fn encode_media_each(&self, modality: &Modality, sources: &[Source]) -> Result<Vec<Result<EncodedMedia>>> {
        self.look_each_by(self.processor(modality)?, modality, sources)
    }

    /// The same as they are learned from in batches ([`Pipeline::train_processor`]).
    pub fn encode_media_each_for_training(
        &self,
        modality: &Modality,
        sources: &[Source],
    ) -> Result<Vec<Result<EncodedMedia>>> {
        self.look_each_by(self.train_processor(modality)?, modality, sources)
    }

    fn look_each_by(
        &self,
        processor: &Arc<dyn Processor>,
        modality: &Modality,
        sources: &[Source],
    ) -> Result<Vec<Result<EncodedMedia>>> {
        let samples: Vec<mm_core::Result<Tensor>> = sources
            .par_iter()
            .map(|s| process_catching_panics(processor.as_ref(), s, &mut ProcessContext::eval()))
            .collect();
        let good: Vec<&Tensor> = samples.iter().filter_map(|s| s.as_ref().ok()).collect();
        let alike = good.windows(2).all(|w| w[0].shape() == w[1].shape());
        if good.len() > 1 && alike && !self.voice.one_by_one() {
            let all = Tensor::stack(&good, 0)?.to_device(self.params.device())?.to_dtype(self.dtype)?;
            let seen = no_grad(|| self.voice.see(modality, &all))?;
            let mut row = 0;
            let mut next = |_| {
                row += 1;
                let own = EncodedMedia::of(seen.values.narrow(0, row - 1, 1)?);
                Ok(EncodedMedia { grid: seen.grid, ..own })
            };
            return Ok(samples.into_iter().map(|s| s.map_err(Error::from).and_then(&mut next)).collect());
        }
        Ok(samples.into_iter().map(|s| self.encode_samples(modality, std::slice::from_ref(&s?))).collect())
    }

    /// The same for samples that [`Pipeline::processor`] has made.
    pub fn encode_samples(&self, modality: &Modality, samples: &[Tensor]) -> Result<EncodedMedia> {
        let all = Tensor::stack(&samples.iter().collect::<Vec<_>>(), 0)?.to_device(self.params.device())?;
        Ok(no_grad(|| self.voice.see(modality, &all.to_dtype(self.dtype)?))?)
    }

    /// How raw values of a modality become numbers.
    pub fn processor(&self, modality: &Modality) -> Result<&Arc<dyn Processor>> {
        self.takes(modality, self.voice.processor(modality))
    }

    /// The same for values that are learned from in batches: of sounds the first window.
    pub fn train_processor(&self, modality: &Modality) -> Result<&Arc<dyn Processor>> {
        self.takes(modality, self.voice.train_processor(modality))
    }

    fn takes<'a>(&self, modality: &Modality, found: Option<&'a Arc<dyn Processor>>) -> Result<&'a Arc<dyn Processor>> {
        found.ok_or_else(|| {
            let takes = [Modality::IMAGE, Modality::AUDIO, Modality::VIDEO];
            let takes: Vec<&str> =
                takes.iter().filter(|m| self.voice.processor(m).is_some()).map(Modality::name).collect();
            Error::invalid_argument(format!("a model of family {}", self.family), modality, takes.join(" or "))
        })
    }

    /// Says what it is asked, about what it sees (one prompt for all rows): for each row the best texts, best first.
    pub fn generate_text(
        &self,
        seen: Option<&EncodedMedia>,
        asked: Request<'_>,
        config: &GenerationConfig,
        rules: &LogitsProcessors<'_>,
        on_token: OnToken<'_>,
    ) -> Result<Vec<Vec<Generation>>> {
        let prompt = self.voice.prompt(&self.tokenizer, seen, asked)?;
        let before: &[i64] = if prompt.goes_on { &prompt.ids } else { &[] };
        let make = |g: GeneratedSequence| {
            let text = config.truncate_at_stop(self.tokenizer.decode(&[before, &g.token_ids].concat())?);
            Ok(Generation {
                text,
                score: g.score,
                log_prob: g.log_prob,
                finished: g.finished,
                num_tokens: g.token_ids.len(),
            })
        };
        let found = self.go_on(&[(seen, &prompt)], config, rules, on_token)?;
        found.into_iter().map(|row| row.into_iter().map(make).collect()).collect()
    }

    /// The same as tokens.
    pub fn generate(
        &self,
        seen: Option<&EncodedMedia>,
        asked: Request<'_>,
        config: &GenerationConfig,
        rules: &LogitsProcessors<'_>,
        on_token: OnToken<'_>,
    ) -> Result<Vec<Vec<GeneratedSequence>>> {
        self.go_on(&[(seen, &self.voice.prompt(&self.tokenizer, seen, asked)?)], config, rules, on_token)
    }

    /// The same of several rows that are each asked something of their own, in one batch whatever the prompts' lengths; a row that cannot be
    /// asked is that row's error alone. Where tokens are drawn each row is by itself, so that it does not depend on its neighbours.
    pub fn generate_batch(
        &self,
        rows: &[(Option<&EncodedMedia>, Request<'_>)],
        config: &GenerationConfig,
    ) -> Vec<Result<Vec<GeneratedSequence>>> {
        let alone = |(seen, asked): &(Option<&EncodedMedia>, Request<'_>)| {
            let found = self.generate(*seen, *asked, config, &LogitsProcessors::default(), &mut |_, _| {})?;
            Ok(found.into_iter().next().unwrap_or_default())
        };
        if config.do_sample || rows.len() < 2 {
            return rows.iter().map(alone).collect();
        }
        let written: Vec<Result<Prompt>> = rows
            .iter()
            .map(|(seen, asked)| {
                let prompt = self.voice.prompt(&self.tokenizer, *seen, *asked)?;
                self.fits(&prompt, config).map(|()| prompt)
            })
            .collect();
        let good: Vec<_> =
            rows.iter().zip(&written).filter_map(|((seen, _), p)| Some((*seen, p.as_ref().ok()?))).collect();
        if good.is_empty() {
            return written.into_iter().map(|p| p.map(|_| Vec::new())).collect();
        }
        match self.go_on(&good, config, &LogitsProcessors::default(), &mut |_, _| {}) {
            Ok(found) => {
                let mut found = found.into_iter();
                written.into_iter().map(|p| p.map(|_| found.next().unwrap_or_default())).collect()
            }
            Err(_) => rows.iter().map(alone).collect(),
        }
    }

    /// How many rows may be asked at once, at most sixteen: what is remembered of a thousand positions of each stays within a gigabyte.
    pub fn max_batch_size(&self) -> usize {
        let row = self.voice.decoder().map_or(1, |d| d.memory() * 1000);
        (1_000_000_000 / row.max(1)).clamp(1, 16) as usize
    }

    /// What speaks; an error where it chooses among labels.
    fn decoder(&self) -> Result<&Decoder> {
        self.voice.decoder().ok_or_else(|| {
            Error::invalid_argument(
                format!("a model of family {}", self.family),
                "a wish for text",
                "a question: it chooses among labels",
            )
        })
    }

    /// Whether there are positions for a prompt and what is said after it.
    fn fits(&self, prompt: &Prompt, config: &GenerationConfig) -> Result<()> {
        let longest = self.decoder()?.config().longest;
        if prompt.ids.len() as i64 + config.max_new_tokens as i64 > longest {
            let found = format!("a prompt of {} tokens and {} more", prompt.ids.len(), config.max_new_tokens);
            return Err(Error::invalid_argument(
                "length of the text",
                found,
                format!("at most {longest} positions of the model"),
            ));
        }
        Ok(())
    }

    /// The same from prompts that have been written out, of any lengths, all at once.
    fn go_on(
        &self,
        prompts: &[(Option<&EncodedMedia>, &Prompt)],
        config: &GenerationConfig,
        rules: &LogitsProcessors<'_>,
        on_token: OnToken<'_>,
    ) -> Result<Vec<Vec<GeneratedSequence>>> {
        let decoder = self.decoder()?;
        for (_, prompt) in prompts {
            self.fits(prompt, config)?;
        }
        let grammar = self.grammar(config)?;
        let stops = |said: &[i64]| {
            rules.stops(said)
                || (!config.stop_strings.is_empty()
                    && self
                        .tokenizer
                        .decode(said)
                        .is_ok_and(|text| config.stop_strings.iter().any(|s| text.contains(s.as_str()))))
        };
        let allowed = rules.allowed.or(grammar.as_deref().map(|g| g as &dyn TokenConstraint));
        let rules = LogitsProcessors { allowed, stop: Some(&stops), ..*rules };
        no_grad(|| {
            let room = config.max_new_tokens as i64;
            let mut starts = prompts
                .iter()
                .map(|(seen, prompt)| self.voice.begin(*seen, prompt, room))
                .collect::<mm_core::Result<Vec<_>>>()?;
            let start = if starts.len() == 1 { starts.remove(0) } else { decoder.together(starts)? };
            generate::generate(decoder, start, config, &rules, on_token)
        })
    }

    /// The form that texts take, read for this tokenizer once.
    fn grammar(&self, config: &GenerationConfig) -> Result<Option<Arc<GrammarConstraint>>> {
        let (Some(form), Some(decoder)) = (&config.constraint, self.voice.decoder()) else { return Ok(None) };
        let mut held = self.form.borrow_mut();
        if let Some((_, grammar)) = held.as_ref().filter(|(known, _)| known == form) {
            return Ok(Some(grammar.clone()));
        }
        let Some(end) = config.eos_token_id.first() else {
            return Err(Error::invalid_argument(
                "a form of the text",
                "a model without an end token",
                "one that has such",
            ));
        };
        let bytes = self.tokenizer.bytes(decoder.config().vocabulary as usize)?;
        let grammar = Arc::new(GrammarConstraint::new(form, &bytes, *end)?);
        *held = Some((form.clone(), grammar.clone()));
        Ok(Some(grammar))
    }

    /// Answers a question about what it sees (one row): the `config.num_return_sequences` best answers, or `choices` in the order of their likelihood.
    pub fn answer(
        &self,
        seen: Option<&EncodedMedia>,
        asked: Request<'_>,
        choices: &[String],
        config: &GenerationConfig,
    ) -> Result<Vec<ScoredAnswer>> {
        let Some(decoder) = self.voice.decoder() else {
            return self.choose(seen, asked, choices);
        };
        if choices.is_empty() {
            let found = self.generate(seen, asked, config, &LogitsProcessors::default(), &mut |_, _| {})?;
            return found.first().into_iter().flatten().map(|g| self.scored(g, config)).collect();
        }
        let prompt = self.voice.prompt(&self.tokenizer, seen, asked)?;
        // An answer that follows words needs the space before it, where the tokenizer keeps spaces.
        let ids = choices.iter().map(|c| self.tokenizer.encode(c, false)).collect::<Result<Vec<_>>>()?;
        let longest = ids.iter().map(Vec::len).max().unwrap_or(0) as i64;
        let logits = no_grad(|| {
            let start = self.voice.begin(seen, &prompt, longest + 1)?;
            generate::likelihoods(decoder, &start, &ids, config.eos_token_id.first().copied())
        })?;
        let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logits.iter().map(|l| (l - highest).exp()).sum();
        let mut scored: Vec<ScoredAnswer> = choices
            .iter()
            .zip(&logits)
            .map(|(c, l)| ScoredAnswer { answer: c.clone(), score: (l - highest).exp() / total, logit: *l })
            .collect();
        scored.sort_by(|a, b| b.logit.total_cmp(&a.logit));
        Ok(scored)
    }

    /// The same for several questions at once, each about what its own row sees; what cannot be asked is that question's error alone.
    pub fn answer_batch(
        &self,
        questions: &[(Option<&EncodedMedia>, Request<'_>)],
        choices: &[String],
        config: &GenerationConfig,
    ) -> Vec<Result<Vec<ScoredAnswer>>> {
        if !self.can_generate() || !choices.is_empty() {
            return questions.iter().map(|(seen, asked)| self.answer(*seen, *asked, choices, config)).collect();
        }
        let said = self.generate_batch(questions, config).into_iter();
        said.map(|found| found?.iter().map(|g| self.scored(g, config)).collect()).collect()
    }

    /// What was generated as an answer.
    fn scored(&self, g: &GeneratedSequence, config: &GenerationConfig) -> Result<ScoredAnswer> {
        let tokens = (g.token_ids.len() + usize::from(g.finished)).max(1) as f64;
        let answer = config.truncate_at_stop(self.tokenizer.decode(&g.token_ids)?).trim().to_owned();
        Ok(ScoredAnswer { answer, score: (g.log_prob / tokens).exp(), logit: g.log_prob })
    }

    /// Scores of its labels for one question about each row of what it sees, `[rows, labels]`.
    pub fn answer_logits(&self, seen: &EncodedMedia, asked: Request<'_>) -> Result<Tensor> {
        let prompt = self.voice.prompt(&self.tokenizer, Some(seen), asked)?;
        no_grad(|| self.voice.choose(seen, &prompt))?.ok_or_else(|| {
            let wanted = "a checkpoint with labels or a decoder: this one has neither";
            Error::invalid_argument(format!("a model of family {}", self.family), "a question", wanted)
        })
    }

    /// The labels of a folder whose family chooses among such; none where it speaks.
    pub fn checkpoint_labels(folder: &Path) -> Result<Option<Vec<String>>> {
        let config = read_json(&ModelPaths::resolve(folder)?.files.join("config.json"))?;
        let kind = config["model_type"].as_str().unwrap_or_default();
        Ok((!head(kind).is_empty()).then(|| labels(&config, mm_repr::family::num_labels(&config))))
    }

    fn choose(&self, seen: Option<&EncodedMedia>, asked: Request<'_>, choices: &[String]) -> Result<Vec<ScoredAnswer>> {
        let none = || Error::invalid_argument(format!("a model of family {}", self.family), "no picture", "a picture");
        let logits = self.answer_logits(seen.ok_or_else(none)?, asked)?.select(0, 0)?;
        let logits = logits.to_dtype(DType::F64)?.to_device(Device::Cpu)?.to_vec::<f64>()?;
        if let Some(unknown) = choices.iter().find(|c| !self.labels.contains(c)) {
            return Err(mm_core::Error::unknown(
                "label of this model",
                unknown,
                self.labels.iter().map(String::as_str),
            )
            .into());
        }
        let sigmoid = |l: f64| 1.0 / (1.0 + (-l).exp());
        let all = self.labels.iter().zip(&logits).filter(|(label, _)| choices.is_empty() || choices.contains(label));
        let mut scored: Vec<ScoredAnswer> =
            all.map(|(label, l)| ScoredAnswer { answer: label.clone(), score: sigmoid(*l), logit: *l }).collect();
        scored.sort_by(|a, b| b.logit.total_cmp(&a.logit));
        Ok(scored)
    }

    /// The probability that a text belongs to a picture.
    pub fn itm_score(&self, seen: &EncodedMedia, text: &str) -> Result<f64> {
        let prompt = self.voice.prompt(&self.tokenizer, Some(seen), Request::Question(text))?;
        no_grad(|| self.voice.matches(seen, &prompt))?.ok_or_else(|| {
            Error::invalid_argument(
                format!("a model of family {}", self.family),
                "a picture and a text to be matched",
                "a checkpoint with a matching head",
            )
        })
    }

    /// What of the picture and of the question counted for an answer.
    pub fn explain(&self, seen: &EncodedMedia, asked: Request<'_>, said: &str) -> Result<Attribution> {
        let prompt = self.voice.prompt(&self.tokenizer, Some(seen), asked)?;
        let said = self.tokenizer.encode(said, false)?;
        no_grad(|| self.voice.explain(&self.tokenizer, seen, &prompt, &said))?.ok_or_else(|| {
            Error::invalid_argument(
                "--explain",
                format!("a model of family {}", self.family),
                "vilt, blip, git, llava or qwen2_vl, or a run",
            )
        })
    }
}
