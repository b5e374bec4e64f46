//! Whisper: a spectrogram encoder for windows of 30 s and a text decoder, with timestamp tokens.
//!
//! *Robust Speech Recognition via Large-Scale Weak Supervision* (Radford et al., 2022),
//! <https://arxiv.org/abs/2212.04356>.

use super::{
    decoder::load_decoder,
    tokenizer::Tokenizer,
    traits::{ConditionalGenerator, MediaEncoder, PretrainedFamily},
    types::{EncodedMedia, Prompt, Request, TimestampTokens, TrainBatch},
    whisper_languages::{LANGUAGES, language_name},
};
use crate::{
    Error, Result,
    generate::{GenerationConfig, Prefill, prefill},
};
use mm_core::{
    Encoder, Input, Modality, ProcessContext, Processor, Source, Tensor,
    nn::{
        Activation, AttentionConfig, BlockConfig, MlpConfig, TransformerConfig,
        decoder::{Decoder, DecoderConfig, DecoderState},
    },
};
use mm_repr::{
    audio::{
        SpectrogramProcessor,
        whisper::{WhisperEncoder, whisper_weight_map},
    },
    checkpoint_config,
    family::{Family, ModelBuilder, WeightMap},
};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

checkpoint_config! {
    /// The decoder's part of transformers' `WhisperConfig`.
    WhisperConfig {
        vocab_size: i64 = 51865,
        d_model: i64 = 384,
        decoder_layers: i64 = 4,
        decoder_attention_heads: i64 = 6,
        decoder_ffn_dim: i64 = 1536,
        max_source_positions: i64 = 1500,
        max_target_positions: i64 = 448,
        activation_function: Activation = Activation::Gelu,
        scale_embedding: bool = false,
        decoder_start_token_id: i64 = 50257,
    }
}

/// Positions that are reserved for the prompt's special tokens.
const PROMPT_POSITIONS: usize = 8;
/// The end token, where the checkpoint names none.
const DEFAULT_EOS: i64 = 50_256;

pub(super) const FAMILY: PretrainedFamily = PretrainedFamily {
    family: Family {
        model_type: "whisper",
        weight_map: |c, _| {
            let text = [
                ("^text.head.", "proj_out."),
                ("text.final_layer_norm.", "text.layer_norm."),
                (".layers.", ".LAYERS."),
                (".layer_norm1.", ".self_attn_layer_norm."),
                (".layer_norm2.", ".final_layer_norm."),
                (".layer_norm_cross.", ".encoder_attn_layer_norm."),
                (".cross_attn.", ".encoder_attn."),
                (".mlp.fc", ".fc"),
                (".LAYERS.", ".layers."),
                ("^text.", "model.decoder."),
            ];
            let text = text.iter().fold(WeightMap::default(), |map, (from, to)| map.and_within("text.", from, to));
            text.then(whisper_weight_map(c).only_within("encoder."))
        },
        build,
    },
    classifier_prefix: None,
};

/// Special tokens and defaults of a checkpoint's `generation_config.json`.
#[derive(Default)]
struct SpecialTokens {
    /// Tokens of languages, as `<|en|>`.
    languages: BTreeMap<String, i64>,
    /// Tokens of `transcribe` and `translate`.
    tasks: BTreeMap<String, i64>,
    no_timestamps: Option<i64>,
    /// Tokens at the start of the output; none where the model chooses.
    forced: Vec<Option<i64>>,
    task: Option<String>,
    language: Option<String>,
    /// Whether it was trained on English alone.
    is_english: bool,
    /// The latest first timestamp, in steps of 0.02 s.
    max_initial_timestamp: Option<i64>,
}

struct Whisper {
    encoder: WhisperEncoder,
    decoder: Decoder,
    processor: Arc<dyn Processor>,
    /// Returns the first window, so that batches have one shape.
    train_processor: Arc<dyn Processor>,
    special: SpecialTokens,
    decoder_start_token_id: i64,
    eos_token_id: i64,
    window_frames: i64,
}

fn build(b: &ModelBuilder<'_>) -> mm_repr::Result<Box<dyn MediaEncoder>> {
    let c: WhisperConfig = b.parse()?;
    let encoder = WhisperEncoder::new(b)?;
    let attention = AttentionConfig { key_bias: false, ..AttentionConfig::new(c.d_model, c.decoder_attention_heads) };
    let block = BlockConfig {
        cross_attention: Some(attention.clone()),
        ..BlockConfig::pre_norm(
            AttentionConfig { causal: true, ..attention },
            MlpConfig::new(c.decoder_ffn_dim, c.activation_function),
        )
    };
    let blocks = TransformerConfig::new(c.decoder_layers, block);
    let config = DecoderConfig {
        embed_scale: if c.scale_embedding { (c.d_model as f64).sqrt() } else { 1.0 },
        ..DecoderConfig::new(c.vocab_size, c.max_target_positions, blocks)
    };
    let generation = b.json("generation_config.json")?;
    let eos = |v: &Value| v["eos_token_id"].as_i64().or_else(|| v["eos_token_id"][0].as_i64());
    let processor: Arc<dyn Processor> = Arc::new(SpectrogramProcessor::whisper_untruncated(b)?);
    let window_frames = 2 * c.max_source_positions;
    Ok(Box::new(Whisper {
        encoder,
        decoder: load_decoder(b, &b.scope.pp("text"), config)?,
        train_processor: Arc::new(FirstWindow { inner: processor.clone(), frames: window_frames }),
        processor,
        special: SpecialTokens::from_json(&generation, b.config),
        decoder_start_token_id: generation["decoder_start_token_id"].as_i64().unwrap_or(c.decoder_start_token_id),
        eos_token_id: eos(&generation).or_else(|| eos(b.config)).unwrap_or(DEFAULT_EOS),
        window_frames,
    }))
}

impl SpecialTokens {
    fn from_json(generation: &Value, config: &Value) -> Self {
        let table = |key: &str| -> BTreeMap<String, i64> {
            let entries = generation[key].as_object().into_iter().flatten();
            entries.filter_map(|(name, id)| Some((name.clone(), id.as_i64()?))).collect()
        };
        let forced = if generation["forced_decoder_ids"].is_array() { generation } else { config };
        let forced = forced["forced_decoder_ids"].as_array().into_iter().flatten();
        let text = |key: &str| generation[key].as_str().map(ToOwned::to_owned);
        Self {
            languages: table("lang_to_id"),
            tasks: table("task_to_id"),
            no_timestamps: generation["no_timestamps_token_id"].as_i64(),
            forced: forced.map(|pair| pair[1].as_i64()).collect(),
            task: text("task"),
            language: text("language"),
            is_english: generation["is_multilingual"] == false,
            max_initial_timestamp: generation["max_initial_timestamp_index"].as_i64(),
        }
    }

    /// The token of a language, by its name or code.
    fn language_token(&self, name: &str) -> Result<i64> {
        let name = name.to_lowercase();
        let known = LANGUAGES.iter().find(|(long, code)| *long == name || *code == name);
        let code = known.map_or(name.as_str(), |language| language.1);
        let found = self.languages.get(&name).or_else(|| self.languages.get(&format!("<|{code}|>")));
        found.copied().ok_or_else(|| {
            let known: Vec<&str> = self.languages.keys().map(|key| key.trim_matches(['<', '|', '>'])).collect();
            if known.is_empty() {
                return Error::invalid_argument("--language", &name, "none: this model supports one language");
            }
            mm_core::Error::unknown("language", &name, known).into()
        })
    }
}

impl Whisper {
    /// The most probable language after the start token.
    fn detect_language(&self, media: &EncodedMedia) -> Result<i64> {
        let start = self.prefill_ids(media, &[self.decoder_start_token_id], 1)?;
        let scores: Vec<f32> = start.logits.select(0, 0)?.to_vec()?;
        let score = |id: i64| scores.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let ids = self.special.languages.values().copied();
        let best = ids.max_by(|a, b| score(*a).total_cmp(&score(*b)).then(b.cmp(a)));
        best.ok_or_else(|| {
            let expected = "lang_to_id in generation_config.json";
            Error::invalid_argument("language", "a model without language tokens", expected)
        })
    }

    fn prefill_ids(
        &self,
        media: &EncodedMedia,
        ids: &[i64],
        max_new_tokens: i64,
    ) -> mm_core::Result<Prefill<DecoderState>> {
        let (rows, capacity) = (media.values.size(0)?, ids.len() as i64 + max_new_tokens);
        let state = self.decoder.init_state(rows, capacity, Some((media.values.clone(), None)))?;
        prefill(&self.decoder, state, ids)
    }

    /// Start token, language, task and whether there are timestamps.
    fn prompt_ids(&self, media: &EncodedMedia, language: Option<&str>, timestamps: bool) -> Result<Vec<i64>> {
        let special = &self.special;
        let language = language.or(special.language.as_deref());
        let mut ids = vec![self.decoder_start_token_id];
        let use_forced = special.task.is_none() && language.is_none();
        let forced: &[Option<i64>] = if use_forced { &special.forced } else { &[] };
        match (language, forced.first()) {
            (Some(name), _) => ids.push(special.language_token(name)?),
            (None, Some(Some(id))) => ids.push(*id),
            (None, _) if !special.languages.is_empty() => ids.push(self.detect_language(media)?),
            _ => {}
        }
        ids.extend(forced.iter().skip(1).flatten());
        if let Some(task) = special.task.as_ref().and_then(|task| special.tasks.get(task)) {
            ids.push(*task);
        } else if language.is_some() && !ids.iter().any(|id| special.tasks.values().any(|task| task == id)) {
            ids.extend(special.tasks.get("transcribe"));
        }
        if let Some(no_timestamps) = special.no_timestamps {
            ids.retain(|id| *id != no_timestamps);
            if !timestamps {
                ids.push(no_timestamps);
            }
        } else if timestamps {
            let expected = "a model whose generation_config.json has no_timestamps_token_id";
            return Err(Error::invalid_argument("--timestamps", "a model without timestamp tokens", expected));
        }
        Ok(ids)
    }
}

/// The first window of a recording, zero-padded where it is shorter: `[mels, frames]`.
struct FirstWindow {
    inner: Arc<dyn Processor>,
    frames: i64,
}

/// Pads or crops `[…, found]` to `[…, frames]`.
fn pad_or_trim(values: &Tensor, frames: i64) -> mm_core::Result<Tensor> {
    let found = values.size(-1)?;
    if found < frames { values.pad(&[0, frames - found], 0.0) } else { values.narrow(-1, 0, frames) }
}

impl Processor for FirstWindow {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        pad_or_trim(&self.inner.process(source, context)?, self.frames)?.contiguous()
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        format!("{} of {} frames", self.inner.fingerprint(), self.frames)
    }
}

impl MediaEncoder for Whisper {
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        (*modality == Modality::AUDIO).then_some(&self.processor)
    }

    fn train_processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        (*modality == Modality::AUDIO).then_some(&self.train_processor)
    }

    fn encode(&self, _modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia> {
        let values = pad_or_trim(values, self.window_frames)?;
        Ok(EncodedMedia::new(self.encoder.encode(&Input { values, mask: None }, false)?.values))
    }

    fn prompt(&self, _tokenizer: &Tokenizer, media: Option<&EncodedMedia>, request: Request<'_>) -> Result<Prompt> {
        let (language, timestamps) = match request {
            Request::Transcribe { language, timestamps } => (language, timestamps),
            Request::Caption(None) => (None, false),
            _ => {
                let found = "a question, a conversation or the start of a caption";
                return Err(Error::invalid_argument("request to Whisper", found, "a transcription (mm transcribe)"));
            }
        };
        let media = media.ok_or_else(|| Error::invalid_argument("input of Whisper", "no audio", "audio"))?;
        Ok(Prompt { decoder_input_ids: self.prompt_ids(media, language, timestamps)?, ..Prompt::default() })
    }

    fn as_generator(&self) -> Option<&dyn ConditionalGenerator> {
        Some(self)
    }
}

impl ConditionalGenerator for Whisper {
    fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    fn prefill(
        &self,
        media: Option<&EncodedMedia>,
        prompt: &Prompt,
        max_new_tokens: i64,
    ) -> mm_core::Result<Prefill<DecoderState>> {
        let media = media.ok_or_else(|| mm_core::Error::config("input of Whisper", "no audio", "audio"))?;
        self.prefill_ids(media, &prompt.decoder_input_ids, max_new_tokens)
    }

    fn forward(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Tensor> {
        let audio = self.encode(batch.modality, batch.values)?.values;
        self.decoder.teacher_forcing(batch.decoder_input_ids()?, Some((&audio, None)), batch.train)
    }

    fn timestamp_tokens(&self) -> Option<TimestampTokens> {
        Some(TimestampTokens {
            first: self.special.no_timestamps? + 1,
            eos: self.eos_token_id,
            max_initial: self.special.max_initial_timestamp,
            window_frames: self.window_frames,
        })
    }

    fn spoken_language(&self, tokenizer: &Tokenizer, prompt: &Prompt) -> Option<&'static str> {
        let name = |id: &i64| {
            let token = tokenizer.id_to_token(*id)?;
            language_name(token.strip_prefix("<|")?.strip_suffix("|>")?)
        };
        prompt.decoder_input_ids.iter().find_map(name).or(self.special.is_english.then_some("english"))
    }

    fn adjust_config(&self, config: &mut GenerationConfig) {
        config.eos_token_id = vec![self.eos_token_id];
        let max_new_tokens = self.decoder.config().max_positions as usize - PROMPT_POSITIONS;
        config.max_new_tokens = config.max_new_tokens.min(max_new_tokens);
    }
}
