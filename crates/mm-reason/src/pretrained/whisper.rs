//! Whisper (Radford 2022): half a minute of sound is encoded, a decoder writes it down, with times if so wished; longer sounds window by
//! window, each beginning where the one before came to an end.

use super::{EncodedMedia, Prompt, Request, Tokenizer, TrainBatch, Voice, languages::LANGUAGES};
use crate::{
    Error, Result,
    decoder::{Decoder, DecoderConfig, State},
    generate::{GenerationConfig, Prefill},
};
use mm_core::{
    Encoder, Input, Modality, ProcessContext, Processor, Source, Tensor,
    nn::{Activation, AttentionConfig, BlockConfig, MlpConfig, TransformerConfig},
};
use mm_repr::{
    audio::{
        SpectrogramProcessor,
        whisper::{Whisper as Ear, encoder, names},
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

/// The family of this file.
pub(super) const FAMILY: Family<Box<dyn Voice>> = Family {
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
        let text = text.iter().fold(WeightMap::default(), |n, (from, to)| n.and_within("text.", from, to));
        text.then(names(c).only_within("encoder."))
    },
    build,
};

/// What a folder says of its special tokens.
#[derive(Default)]
struct Special {
    languages: BTreeMap<String, i64>,
    tasks: BTreeMap<String, i64>,
    without_times: Option<i64>,
    forced: Vec<Option<i64>>,
    task: Option<String>,
    language: Option<String>,
    /// Latest first time, in steps of 0.02 s.
    first_time: Option<i64>,
}

struct Whisper {
    ear: Ear,
    decoder: Decoder,
    processor: Arc<dyn Processor>,
    /// The same for sounds that are learned from in batches: all of one window.
    window: Arc<dyn Processor>,
    special: Special,
    start: i64,
    end: i64,
    frames: i64,
}

fn build(b: &ModelBuilder<'_>) -> mm_repr::Result<Box<dyn Voice>> {
    let c: WhisperConfig = b.parse()?;
    let ear = encoder(b)?;
    let attention = AttentionConfig { key_bias: false, ..AttentionConfig::new(c.d_model, c.decoder_attention_heads) };
    let block = BlockConfig {
        cross: Some(attention.clone()),
        norm_first: true,
        ..BlockConfig::new(
            AttentionConfig { causal: true, ..attention },
            MlpConfig::new(c.decoder_ffn_dim, c.activation_function),
        )
    };
    let blocks = TransformerConfig { layers: c.decoder_layers, block, final_norm: true };
    let config = DecoderConfig {
        scale: if c.scale_embedding { (c.d_model as f64).sqrt() } else { 1.0 },
        ..DecoderConfig::new(c.vocab_size, c.max_target_positions, blocks)
    };
    let own = b.json("generation_config.json")?;
    let table = |key: &str| -> BTreeMap<String, i64> {
        let entries = own[key].as_object().into_iter().flatten();
        entries.filter_map(|(k, v)| Some((k.clone(), v.as_i64()?))).collect()
    };
    let forced = if own["forced_decoder_ids"].is_array() { &own } else { b.config };
    let forced = forced["forced_decoder_ids"].as_array().into_iter().flatten().map(|pair| pair[1].as_i64()).collect();
    let word = |key: &str| own[key].as_str().map(ToOwned::to_owned);
    let special = Special {
        languages: table("lang_to_id"),
        tasks: table("task_to_id"),
        without_times: own["no_timestamps_token_id"].as_i64(),
        forced,
        task: word("task"),
        language: word("language"),
        first_time: own["max_initial_timestamp_index"].as_i64(),
    };
    let end = |v: &Value| v["eos_token_id"].as_i64().or_else(|| v["eos_token_id"][0].as_i64());
    let processor: Arc<dyn Processor> = Arc::new(SpectrogramProcessor::whisper_whole(b)?);
    let frames = 2 * c.max_source_positions;
    Ok(Box::new(Whisper {
        ear,
        decoder: Decoder::new(b, &b.scope.pp("text"), config)?,
        window: Arc::new(Window { whole: processor.clone(), frames }),
        processor,
        special,
        start: own["decoder_start_token_id"].as_i64().unwrap_or(c.decoder_start_token_id),
        end: end(&own).or_else(|| end(b.config)).unwrap_or(50_256),
        frames,
    }))
}

impl Whisper {
    fn language(&self, name: &str) -> Result<i64> {
        let name = name.to_lowercase();
        let code =
            LANGUAGES.iter().find(|(long, short)| *long == name || *short == name).map_or(name.as_str(), |l| l.1);
        let found = self.special.languages.get(&name).or_else(|| self.special.languages.get(&format!("<|{code}|>")));
        found.copied().ok_or_else(|| {
            let known: Vec<String> =
                self.special.languages.keys().map(|k| k.trim_matches(['<', '|', '>']).to_owned()).collect();
            if known.is_empty() {
                return Error::invalid_argument("--language", &name, "nothing: this model knows one language");
            }
            mm_core::Error::unknown("language", &name, known.iter().map(String::as_str)).into()
        })
    }

    /// The likeliest language after the start token.
    fn heard(&self, seen: &EncodedMedia) -> Result<i64> {
        let start = self.read(seen, &[self.start], 1)?;
        let scores: Vec<f32> = start.logits.select(0, 0)?.to_vec()?;
        let best = self.special.languages.values().copied();
        let score = |id: i64| scores.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let best = best.max_by(|a, b| score(*a).total_cmp(&score(*b)).then(b.cmp(a)));
        best.ok_or_else(|| {
            Error::invalid_argument("language", "a model that names none", "lang_to_id in generation_config.json")
        })
    }

    fn read(&self, seen: &EncodedMedia, ids: &[i64], room: i64) -> mm_core::Result<Prefill<State>> {
        let (rows, room) = (seen.values.size(0)?, ids.len() as i64 + room);
        self.decoder.begin(self.decoder.state(rows, room, Some((seen.values.clone(), None)))?, ids)
    }
}

/// The first window of a sound, filled with nothing where it is shorter: `[bands, frames]`.
struct Window {
    whole: Arc<dyn Processor>,
    frames: i64,
}

/// So many frames of `[…, found]`.
fn window(values: &Tensor, frames: i64) -> mm_core::Result<Tensor> {
    let found = values.size(-1)?;
    if found < frames { values.pad(&[0, frames - found], 0.0) } else { values.narrow(-1, 0, frames) }
}

impl Processor for Window {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        window(&self.whole.process(source, context)?, self.frames)?.contiguous()
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        format!("{} of {} frames", self.whole.fingerprint(), self.frames)
    }
}

impl Voice for Whisper {
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        (*modality == Modality::AUDIO).then_some(&self.processor)
    }

    fn see(&self, _modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia> {
        let values = window(values, self.frames)?;
        Ok(EncodedMedia::of(self.ear.encode(&Input { values, mask: None }, false)?.values))
    }

    fn prompt(&self, _tokens: &Tokenizer, seen: Option<&EncodedMedia>, asked: Request<'_>) -> Result<Prompt> {
        let (language, times) = match asked {
            Request::Transcribe { language, timestamps: times } => (language, times),
            Request::Caption(None) => (None, false),
            _ => {
                return Err(Error::invalid_argument(
                    "a Whisper",
                    "something else than a sound to write down",
                    "mm transcribe",
                ));
            }
        };
        let seen = seen.ok_or_else(|| Error::invalid_argument("a Whisper", "no sound", "a sound"))?;
        let language = language.map(ToOwned::to_owned).or_else(|| self.special.language.clone());
        let mut ids = vec![self.start];
        let plain = self.special.task.is_none() && language.is_none();
        let forced: Vec<Option<i64>> = if plain { self.special.forced.clone() } else { Vec::new() };
        match (&language, forced.first()) {
            (Some(name), _) => ids.push(self.language(name)?),
            (None, Some(Some(id))) => ids.push(*id),
            (None, _) if !self.special.languages.is_empty() => ids.push(self.heard(seen)?),
            _ => {}
        }
        ids.extend(forced.iter().skip(1).flatten());
        if let Some(task) = self.special.task.as_ref().and_then(|t| self.special.tasks.get(t)) {
            ids.push(*task);
        } else if language.is_some() && !ids.iter().any(|id| self.special.tasks.values().any(|t| t == id)) {
            ids.extend(self.special.tasks.get("transcribe"));
        }
        if let Some(without) = self.special.without_times {
            ids.retain(|id| *id != without);
            if !times {
                ids.push(without);
            }
        } else if times {
            let wanted = "a model whose generation_config.json names no_timestamps_token_id";
            return Err(Error::invalid_argument("--timestamps", "a model without time tokens", wanted));
        }
        Ok(Prompt { ids, ..Prompt::default() })
    }

    fn begin(&self, seen: Option<&EncodedMedia>, prompt: &Prompt, room: i64) -> mm_core::Result<Prefill<State>> {
        let seen = seen.ok_or_else(|| mm_core::Error::config("a Whisper", "no sound", "a sound"))?;
        self.read(seen, &prompt.ids, room)
    }

    fn train_processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        (*modality == Modality::AUDIO).then_some(&self.window)
    }

    fn learn(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Option<Tensor>> {
        let seen = self.see(batch.modality, batch.values)?.values;
        self.decoder.teacher_forcing(batch.decoder_input_ids()?, Some((&seen, None)), batch.train).map(Some)
    }

    fn decoder(&self) -> Option<&Decoder> {
        Some(&self.decoder)
    }

    fn times(&self) -> Option<super::Times> {
        let first = self.special.without_times? + 1;
        Some(super::Times { first, end: self.end, latest: self.special.first_time, frames: self.frames })
    }

    fn settle(&self, config: &mut GenerationConfig) {
        config.eos_token_id = vec![self.end];
        config.max_new_tokens = config.max_new_tokens.min(self.decoder.config().longest as usize - 8);
    }
}
