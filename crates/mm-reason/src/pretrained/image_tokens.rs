//! Image features among the tokens of a language model, in place of placeholder tokens (LLaVA, Qwen2-VL).

use super::{
    tokenizer::Tokenizer,
    types::{EncodedMedia, Request},
};
use crate::{Error, Result, generate::Prefill};
use mm_core::{
    Tensor,
    nn::{
        ForwardArgs,
        decoder::{Decoder, DecoderArgs, DecoderState},
    },
};
use serde_json::{Value, json};

/// The question of a caption request without a start.
const CAPTION_QUESTION: &str = "Describe the picture.";

/// The text of a request with a placeholder for the media of `kind`: by the checkpoint's chat template, or by `default`
/// (the question, and whether there is media).
pub(super) fn prompt_text(
    tokenizer: &Tokenizer,
    kind: Option<&str>,
    request: Request<'_>,
    default: impl Fn(&str, bool) -> String,
) -> Result<String> {
    let text = match request {
        Request::Chat(messages) => return tokenizer.apply_chat_template(messages),
        Request::Question(question) => question,
        Request::Caption(start) => start.unwrap_or(CAPTION_QUESTION),
        Request::Transcribe { .. } => {
            return Err(Error::invalid_argument("request to this model", "a transcription", "an image or a video"));
        }
    };
    if !tokenizer.has_chat_template() {
        return Ok(default(text, kind.is_some()));
    }
    let mut content: Vec<Value> = kind.iter().map(|kind| json!({"type": kind})).collect();
    content.push(json!({"type": "text", "text": text}));
    tokenizer.apply_chat_template(&json!([{"role": "user", "content": content}]))
}

/// Token ids of a prompt text, with its placeholder repeated once for each image feature.
///
/// # Errors
/// If there are features and not exactly one placeholder.
pub(super) fn prompt_ids(tokenizer: &Tokenizer, text: &str, placeholder: i64, features: i64) -> Result<Vec<i64>> {
    let bos = tokenizer.special_token_id("bos_token").and_then(|id| tokenizer.id_to_token(id));
    let has_bos = bos.is_some_and(|bos| text.starts_with(&bos));
    let tokens = tokenizer.encode(text, !has_bos)?;
    let mut ids = Vec::with_capacity(tokens.len() + features as usize);
    let mut found = 0;
    for id in tokens {
        if id == placeholder {
            found += 1;
            ids.extend(std::iter::repeat_n(id, features as usize));
        } else {
            ids.push(id);
        }
    }
    if found != 1 && features > 0 {
        return Err(Error::invalid_argument("images in the prompt", found, "one: a question is about one image"));
    }
    Ok(ids)
}

/// Positions of the tokens of a prompt, of time, row and column `[3, length]`, and the position after them.
pub(super) type Positions = (Tensor, i64);

/// A prompt with image features in place of its placeholders.
struct ImagePrompt<'a> {
    decoder: &'a Decoder,
    media: Option<&'a EncodedMedia>,
    ids: &'a [i64],
    placeholder: i64,
    rows: i64,
    rotary: Option<(Tensor, Tensor)>,
}

impl ImagePrompt<'_> {
    /// Feeds the tokens from `start` to `end` to the decoder, which has cached those before.
    fn forward(&self, start: i64, end: i64, state: &mut DecoderState) -> mm_core::Result<Tensor> {
        let ids = Tensor::from_slice(&self.ids[start as usize..end as usize])?.unsqueeze(0)?;
        let x = self.decoder.embed_tokens(&ids.to_device(self.decoder.device())?)?.expand(&[self.rows, -1, -1])?;
        let x = match self.media.filter(|_| start == 0) {
            Some(media) => self.insert_features(&x, media, end)?,
            None => x,
        };
        let part = |t: &Tensor| t.narrow(0, start, end - start);
        let rotary = self.rotary.as_ref().map(|(cos, sin)| Ok::<_, mm_core::Error>((part(cos)?, part(sin)?)));
        let rotary = rotary.transpose()?;
        let rotary_cos_sin = rotary.as_ref().map(|(cos, sin)| (cos, sin));
        self.decoder.forward(&x, state, DecoderArgs { rotary_cos_sin, ..DecoderArgs::default() })
    }

    /// Token embeddings of the first `end` tokens with the features in place of the placeholders' embeddings.
    fn insert_features(&self, x: &Tensor, media: &EncodedMedia, end: i64) -> mm_core::Result<Tensor> {
        let start = self.ids.iter().position(|id| *id == self.placeholder).unwrap_or(0);
        let count = media.values.size(1)?;
        let placeholders = self.ids[start..].iter().take_while(|id| **id == self.placeholder).count() as i64;
        if placeholders != count {
            return Err(mm_core::Error::config("images in the prompt", "none, or several", "one"));
        }
        let (before, after) = (start as i64, end - start as i64 - count);
        let features = media.values.to_dtype(x.dtype()?)?;
        Tensor::cat(&[&x.narrow(1, 0, before)?, &features, &x.narrow(1, before + count, after)?], 1)
    }
}

/// Feeds a prompt in which `placeholder` stands for each image feature. `positions` are those of its tokens, where they
/// do not simply increase. The caches up to the end of the image are kept in `media`; a later prompt that starts with
/// the same tokens continues from there.
pub(super) fn prefill(
    decoder: &Decoder,
    media: Option<&EncodedMedia>,
    ids: &[i64],
    placeholder: i64,
    max_new_tokens: i64,
    positions: Option<Positions>,
) -> mm_core::Result<Prefill<DecoderState>> {
    let rows = media.map_or(Ok(1), |m| m.values.size(0))?;
    let length = ids.len() as i64;
    let image_end = ids.iter().rposition(|id| *id == placeholder).map_or(0, |index| index as i64 + 1);
    let rotary = match &positions {
        Some((positions, _)) => decoder.rotary_cos_sin(&positions.to_device(decoder.device())?)?,
        None => None,
    };
    let prompt = ImagePrompt { decoder, media, ids, placeholder, rows, rotary };
    let prefix = &ids[..image_end as usize];
    let cached = match media {
        Some(media) if image_end > 0 => match &*media.prefix.borrow() {
            Some((known, state)) if known == prefix => Some(state.fork()?),
            _ => None,
        },
        _ => None,
    };
    let hidden;
    let mut state;
    match (cached, media) {
        (Some(prefix_state), _) => {
            state = prefix_state;
            hidden = prompt.forward(image_end, length, &mut state)?;
        }
        (None, Some(media)) if image_end > 0 && image_end < length => {
            state = decoder.init_state(rows, length + max_new_tokens, None)?;
            prompt.forward(0, image_end, &mut state)?;
            *media.prefix.borrow_mut() = Some((prefix.to_vec(), state.fork()?));
            hidden = prompt.forward(image_end, length, &mut state)?;
        }
        _ => {
            state = decoder.init_state(rows, length + max_new_tokens, None)?;
            hidden = prompt.forward(0, length, &mut state)?;
        }
    }
    if let Some((_, next)) = positions {
        state.set_position(next);
    }
    Ok(Prefill { state, logits: decoder.last_logits(&hidden)?, prompts: vec![ids.to_vec(); rows as usize] })
}

/// Image features among the tokens of one row of a training batch.
pub(super) struct ImageSpan {
    /// Tokens of the row, with the placeholder repeated once for each feature.
    pub(super) expanded_ids: Vec<i64>,
    /// Features `[count, dim]`.
    features: Tensor,
    /// Where the placeholders of the row start and end.
    placeholders: [i64; 2],
}

impl ImageSpan {
    /// Features in place of the placeholders of a row, however many these are.
    ///
    /// # Errors
    /// If the placeholders are missing or not adjacent.
    pub(super) fn new(ids: &[i64], placeholder: i64, features: Tensor) -> mm_core::Result<Self> {
        let start = ids.iter().take_while(|id| **id != placeholder).count();
        let end = start + ids[start..].iter().take_while(|id| **id == placeholder).count();
        if end == start || ids[end..].contains(&placeholder) {
            return Err(mm_core::Error::Sample("found a prompt without exactly one placeholder for the image".into()));
        }
        let count = features.size(0)? as usize;
        let expanded_ids = [&ids[..start], &vec![placeholder; count], &ids[end..]].concat();
        Ok(Self { expanded_ids, features, placeholders: [start as i64, end as i64] })
    }
}

/// Logits after each of `ids` `[rows, tokens]` with an image in each row; `rows` are these images and the positions of
/// the rows' expanded tokens (`[length]` or `[3, length]`). Rows may have more or fewer image features than
/// placeholders: padding is at the end, where causal attention ignores it, and all placeholders get the logits after
/// the image.
pub(super) fn forward(
    decoder: &Decoder,
    ids: &Tensor,
    rows: Vec<(ImageSpan, Tensor)>,
    train: bool,
) -> mm_core::Result<Tensor> {
    let (device, length, embedded) = (ids.device(), ids.size(1)?, decoder.embed_tokens(ids)?);
    let longest = rows.iter().map(|(span, _)| span.expanded_ids.len()).max().unwrap_or(0) as i64;
    let (mut inputs, mut all_positions) = (Vec::new(), Vec::new());
    for (row, (span, positions)) in rows.iter().enumerate() {
        let [start, end] = span.placeholders;
        let tokens = embedded.select(0, row as i64)?;
        let features = span.features.to_dtype(tokens.dtype()?)?;
        let (before, after) = (tokens.narrow(0, 0, start)?, tokens.narrow(0, end, length - end)?);
        let x = Tensor::cat(&[&before, &features, &after], 0)?;
        let missing = longest - span.expanded_ids.len() as i64;
        inputs.push(x.pad(&[0, 0, 0, missing], 0.0)?);
        all_positions.push(positions.pad(&[0, missing], 0.0)?);
    }
    let positions = Tensor::cat(&all_positions.iter().collect::<Vec<_>>(), -1)?.to_device(device)?;
    let by_row = |t: &Tensor| t.reshape(&[rows.len() as i64, 1, longest, t.size(-1)?]);
    let rotary = decoder.rotary_cos_sin(&positions)?;
    let rotary = rotary.map(|(cos, sin)| Ok::<_, mm_core::Error>((by_row(&cos)?, by_row(&sin)?))).transpose()?;
    let pass = ForwardArgs { rotary: rotary.as_ref().map(|(cos, sin)| (cos, sin)), train, ..ForwardArgs::default() };
    let hidden = decoder.forward_uncached(&Tensor::stack(&inputs.iter().collect::<Vec<_>>(), 0)?, pass)?;
    let mut aligned = Vec::new();
    for (row, (span, _)) in rows.iter().enumerate() {
        let [start, end] = span.placeholders;
        let (own, image_end) = (hidden.select(0, row as i64)?, start + span.features.size(0)?);
        let last = own.narrow(0, image_end - 1, 1)?.expand(&[end - start, -1])?;
        let after = own.narrow(0, image_end, length - end)?;
        aligned.push(Tensor::cat(&[&own.narrow(0, 0, start)?, &last, &after], 0)?);
    }
    decoder.logits(&Tensor::stack(&aligned.iter().collect::<Vec<_>>(), 0)?)
}
