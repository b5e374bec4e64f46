//! The language part of models that look at pictures: Llama's kind (Touvron 2023), as Llama, Mistral, Qwen2 have it; and how pictures stand
//! among its words.

use super::{EncodedMedia, Request, Tokenizer};
use crate::{
    Error, Result,
    decoder::{Decoder, DecoderConfig, Reading, RotaryConfig, State},
    generate::{LanguageModel, Prefill},
};
use mm_core::{
    Tensor,
    nn::{Activation, AttentionConfig, BlockConfig, ForwardArgs, MlpConfig, NormConfig, NormKind, TransformerConfig},
};
use mm_repr::{
    checkpoint_config,
    family::{ModelBuilder, WeightMap},
};
use serde_json::{Value, json};

checkpoint_config! {
    /// transformers' `LlamaConfig` and its kin.
    LanguageConfig {
        vocab_size: i64 = 32000,
        hidden_size: i64 = 4096,
        intermediate_size: i64 = 11008,
        num_hidden_layers: i64 = 32,
        num_attention_heads: i64 = 32,
        num_key_value_heads: Option<i64> = None,
        head_dim: Option<i64> = None,
        hidden_act: Activation = Activation::Silu,
        max_position_embeddings: i64 = 2048,
        rms_norm_eps: f64 = 1e-6,
        attention_bias: bool = false,
        mlp_bias: bool = false,
        rope_theta: f64 = 10_000.0,
        use_sliding_window: bool = false,
    }
}

/// Names of the shared decoder's parts, which are at `text` here and below `there` in the checkpoint, with the scores at `head`.
pub(super) fn names(there: &str, head: &str) -> WeightMap {
    let rules = [
        ("text.final_layer_norm.", "text.norm."),
        (".self_attn.out_proj.", ".self_attn.o_proj."),
        (".layer_norm1.", ".input_layernorm."),
        (".layer_norm2.", ".post_attention_layernorm."),
        (".mlp.fc1.", ".mlp.gate_proj."),
        (".mlp.gate.", ".mlp.up_proj."),
        (".mlp.fc2.", ".mlp.down_proj."),
        ("^text.head.", head),
        ("^text.", there),
    ];
    rules.iter().fold(WeightMap::default(), |n, (from, to)| n.and_within("text.", from, to))
}

/// Sizes of the decoder that a config of one of these kinds describes; `wavelength` is the base where the config names none.
pub(super) fn config(
    b: &ModelBuilder<'_>,
    text: &Value,
    kind: &str,
    wavelength: f64,
) -> mm_repr::Result<DecoderConfig> {
    let mut c: LanguageConfig = b.parse_part(text, "text_config")?;
    let silent = |key: &str| text[key].is_null();
    let qwen = kind.starts_with("qwen2");
    // What each kind's own config class takes for what is left out.
    if silent("rms_norm_eps") && qwen {
        c.rms_norm_eps = if kind == "qwen2_vl" { 1e-5 } else { 1e-6 };
    }
    if silent("max_position_embeddings") && kind != "llama" {
        c.max_position_embeddings = 32_768;
    }
    if c.use_sliding_window || (kind == "mistral" && text["sliding_window"].is_i64()) {
        return Err(b.config_error("text_config: attention in a sliding window is not read"));
    }
    let rope = if text["rope_parameters"].is_object() { &text["rope_parameters"] } else { &text["rope_scaling"] };
    let base = rope["rope_theta"].as_f64().or_else(|| text["rope_theta"].as_f64()).unwrap_or(wavelength);
    let head = c.head_dim.unwrap_or(c.hidden_size / c.num_attention_heads.max(1));
    let plain: Vec<f64> = (0..head / 2).map(|i| base.powf(-2.0 * i as f64 / head as f64)).collect();
    let number = |key: &str, otherwise: f64| rope[key].as_f64().unwrap_or(otherwise);
    let frequencies: Vec<f64> = match rope["rope_type"].as_str().or_else(|| rope["type"].as_str()) {
        None | Some("default" | "mrope") => plain,
        Some("linear") => plain.iter().map(|f| f / number("factor", 1.0)).collect(),
        Some("llama3") => {
            let (factor, low, high) =
                (number("factor", 8.0), number("low_freq_factor", 1.0), number("high_freq_factor", 4.0));
            let before = number("original_max_position_embeddings", 8192.0);
            let bend = |f: &f64| {
                let wave = 2.0 * std::f64::consts::PI / f;
                if wave < before / high {
                    *f
                } else if wave > before / low {
                    f / factor
                } else {
                    let smooth = (before / wave - low) / (high - low);
                    (1.0 - smooth) * f / factor + smooth * f
                }
            };
            plain.iter().map(bend).collect()
        }
        Some(other) => {
            return Err(b.config_error(format!(
                "text_config: rope_type `{other}` is not read; wanted default, linear or llama3"
            )));
        }
    };
    let sections = &rope["mrope_section"];
    let sections = sections.as_array().map(|list| {
        let mut out = [0i64; 3];
        list.iter().take(3).enumerate().for_each(|(i, v)| out[i] = v.as_i64().unwrap_or(0));
        out
    });
    if sections.is_some_and(|s| s.iter().sum::<i64>() != head / 2) {
        return Err(
            b.config_error(format!("text_config: mrope_section: found {sections:?}, wanted a sum of {}", head / 2))
        );
    }
    let attention = AttentionConfig {
        causal: true,
        bias: qwen || c.attention_bias,
        output_bias: !qwen && c.attention_bias,
        key_value_heads: c.num_key_value_heads,
        head_width: Some(head),
        ..AttentionConfig::new(c.hidden_size, c.num_attention_heads)
    };
    let norm = NormConfig { kind: NormKind::RootMeanSquare, epsilon: c.rms_norm_eps, bias: false };
    let mlp = MlpConfig { hidden: c.intermediate_size, activation: c.hidden_act, gated: true, bias: c.mlp_bias };
    let block = BlockConfig { norm, norm_first: true, ..BlockConfig::new(attention, mlp) };
    let blocks = TransformerConfig { layers: c.num_hidden_layers, block, final_norm: true };
    Ok(DecoderConfig {
        positions: None,
        rotary: Some(RotaryConfig { head, frequencies: frequencies.iter().map(|f| *f as f32).collect(), sections }),
        ..DecoderConfig::new(c.vocab_size, c.max_position_embeddings, blocks)
    })
}

/// What is asked as a text with the picture's placeholder in it: by the folder's chat template, else by `plain`.
pub(super) fn write(
    tokens: &Tokenizer,
    what: Option<&str>,
    asked: Request<'_>,
    plain: impl Fn(&str, bool) -> String,
) -> Result<String> {
    let text = match asked {
        Request::Chat(messages) => return tokens.apply_chat_template(messages),
        Request::Question(question) => question,
        Request::Caption(words) => words.unwrap_or("Describe the picture."),
        Request::Transcribe { .. } => {
            return Err(Error::invalid_argument("this model", "a sound", "a picture or a video"));
        }
    };
    if !tokens.has_chat_template() {
        return Ok(plain(text, what.is_some()));
    }
    let mut content: Vec<Value> = what.iter().map(|kind| json!({"type": kind})).collect();
    content.push(json!({"type": "text", "text": text}));
    tokens.apply_chat_template(&json!([{"role": "user", "content": content}]))
}

/// Ids of such a text, each placeholder standing for as many as the picture has features.
pub(super) fn ids(tokens: &Tokenizer, text: &str, placeholder: i64, features: i64) -> Result<Vec<i64>> {
    let begins = tokens
        .special_token_id("bos_token")
        .and_then(|id| tokens.id_to_token(id))
        .is_some_and(|t| text.starts_with(&t));
    let read = tokens.encode(text, !begins)?;
    let mut out = Vec::with_capacity(read.len() + features as usize);
    let mut found = 0;
    for id in read {
        if id == placeholder {
            found += 1;
            out.extend(std::iter::repeat_n(id, features as usize));
        } else {
            out.push(id);
        }
    }
    if found != 1 && features > 0 {
        let wanted = "one: a question is about one picture";
        return Err(Error::invalid_argument("pictures in the text", found, wanted));
    }
    Ok(out)
}

/// Reads a prompt in which `placeholder` stands where the picture's features go; `places` are positions of time, row and column where the
/// family has such, and the position after them. Where an earlier question began with the same picture, what was read then is not read again.
pub(super) fn begin(
    decoder: &Decoder,
    seen: Option<&EncodedMedia>,
    ids: &[i64],
    placeholder: i64,
    room: i64,
    places: Option<(Tensor, i64)>,
) -> mm_core::Result<Prefill<State>> {
    let device = decoder.device();
    let rows = seen.map_or(Ok(1), |s| s.values.size(0))?;
    let length = ids.len() as i64;
    let all = Tensor::from_vec(ids, &[1, length])?.to_device(device)?;
    let after = ids.iter().rposition(|id| *id == placeholder).map_or(0, |p| p as i64 + 1);
    let angles = match &places {
        Some((places, _)) => decoder.angles(&places.to_device(device)?)?,
        None => None,
    };
    let part = |from: i64, to: i64, state: &mut State| -> mm_core::Result<Tensor> {
        let mut x = decoder.words(&all.narrow(1, from, to - from)?)?.expand(&[rows, -1, -1])?;
        if let Some(seen) = seen.filter(|_| from == 0) {
            let first = ids.iter().position(|id| *id == placeholder).unwrap_or(0) as i64;
            let count = seen.values.size(1)?;
            if ids[first as usize..].iter().take_while(|id| **id == placeholder).count() as i64 != count {
                return Err(mm_core::Error::config("pictures in the text", "none, or several", "one"));
            }
            let (before, rest) = (first, to - first - count);
            x = Tensor::cat(
                &[&x.narrow(1, 0, before)?, &seen.values.to_dtype(x.dtype()?)?, &x.narrow(1, before + count, rest)?],
                1,
            )?;
        }
        let cut = |t: &Tensor| t.narrow(0, from, to - from);
        let mine = angles.as_ref().map(|(c, s)| Ok::<_, mm_core::Error>((cut(c)?, cut(s)?))).transpose()?;
        let angles = mine.as_ref().map(|(c, s)| (c, s));
        decoder.read(&x, state, Reading { angles, ..Reading::default() })
    };
    let kept = match seen {
        Some(seen) if after > 0 => {
            let held = seen.prefix.borrow();
            match &*held {
                Some((read, state)) if *read == ids[..after as usize] => Some(decoder.fork(state)?),
                _ => None,
            }
        }
        _ => None,
    };
    let hidden;
    let mut state;
    match (kept, seen) {
        (Some(before), _) => {
            state = before;
            hidden = part(after, length, &mut state)?;
        }
        (None, Some(seen)) if after > 0 && after < length => {
            state = decoder.state(rows, length + room, None)?;
            part(0, after, &mut state)?;
            *seen.prefix.borrow_mut() = Some((ids[..after as usize].to_vec(), decoder.fork(&state)?));
            hidden = part(after, length, &mut state)?;
        }
        _ => {
            state = decoder.state(rows, length + room, None)?;
            hidden = part(0, length, &mut state)?;
        }
    }
    if let Some((_, next)) = places {
        state.place(next);
    }
    Ok(Prefill { state, logits: decoder.last(&hidden)?, prompts: vec![ids.to_vec(); rows as usize] })
}

/// A picture among a row's words.
pub(super) struct Placed {
    /// The row's tokens, with as many placeholders as the picture has features.
    pub(super) read: Vec<i64>,
    /// The features `[count, width]`.
    seen: Tensor,
    /// Where the placeholders of the row begin, and where they end.
    stand: [i64; 2],
}

impl Placed {
    /// Features in the place of the placeholders that stand in a row, however many these are.
    pub(super) fn new(own: &[i64], placeholder: i64, seen: Tensor) -> mm_core::Result<Self> {
        let at = own.iter().take_while(|id| **id != placeholder).count();
        let after = at + own[at..].iter().take_while(|id| **id == placeholder).count();
        if after == at || own[after..].contains(&placeholder) {
            return Err(mm_core::Error::Sample("the prompt does not have one place for the picture".into()));
        }
        let count = seen.size(0)? as usize;
        let read = [&own[..at], &vec![placeholder; count], &own[after..]].concat();
        Ok(Self { read, seen, stand: [at as i64, after as i64] })
    }
}

/// Scores of the tokens after each of `ids` `[rows, tokens]` with a picture among them, which the rows have with the places of what they read
/// (running numbers `[read]`, or `[3, read]`). Rows may read more or fewer than they have tokens: padding comes last, where nothing looks back at
/// it, and all placeholders have the scores after the picture.
pub(super) fn learn(
    decoder: &Decoder,
    ids: &Tensor,
    rows: Vec<(Placed, Tensor)>,
    train: bool,
) -> mm_core::Result<Tensor> {
    let (device, length, words) = (ids.device(), ids.size(1)?, decoder.words(ids)?);
    let longest = rows.iter().map(|(p, _)| p.read.len()).max().unwrap_or(0) as i64;
    let (mut inputs, mut turns) = (Vec::new(), Vec::new());
    for (row, (Placed { read, seen, stand: [at, after] }, places)) in rows.iter().enumerate() {
        let words = words.select(0, row as i64)?;
        let seen = seen.to_dtype(words.dtype()?)?;
        let x = Tensor::cat(&[&words.narrow(0, 0, *at)?, &seen, &words.narrow(0, *after, length - after)?], 0)?;
        let lack = longest - read.len() as i64;
        inputs.push(x.pad(&[0, 0, 0, lack], 0.0)?);
        turns.push(places.pad(&[0, lack], 0.0)?);
    }
    let angles = decoder.angles(&Tensor::cat(&turns.iter().collect::<Vec<_>>(), -1)?.to_device(device)?)?;
    let by_row = |t: &Tensor| t.reshape(&[rows.len() as i64, 1, longest, t.size(-1)?]);
    let angles = angles.map(|(c, s)| Ok::<_, mm_core::Error>((by_row(&c)?, by_row(&s)?))).transpose()?;
    let pass = ForwardArgs { angles: angles.as_ref().map(|(c, s)| (c, s)), train, ..ForwardArgs::default() };
    let hidden = decoder.pass(&Tensor::stack(&inputs.iter().collect::<Vec<_>>(), 0)?, pass)?;
    let mut aligned = Vec::new();
    for (row, (Placed { seen, stand: [at, after], .. }, _)) in rows.iter().enumerate() {
        let (own, end) = (hidden.select(0, row as i64)?, at + seen.size(0)?);
        let last = own.narrow(0, end - 1, 1)?.expand(&[after - at, -1])?;
        aligned.push(Tensor::cat(&[&own.narrow(0, 0, *at)?, &last, &own.narrow(0, end, length - after)?], 0)?);
    }
    decoder.scores(&Tensor::stack(&aligned.iter().collect::<Vec<_>>(), 0)?)
}
