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

/// The text of a request with a placeholder for each of the media of these kinds: by the checkpoint's chat template, or
/// by `default` (of the question).
pub(super) fn prompt_text(
    tokenizer: &Tokenizer,
    kinds: &[&str],
    request: Request<'_>,
    default: impl Fn(&str) -> String,
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
        return Ok(default(text));
    }
    let mut content: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
    content.push(json!({"type": "text", "text": text}));
    tokenizer.apply_chat_template(&json!([{"role": "user", "content": content}]))
}

/// The placeholder of an image or a video, and the number of its features.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placeholder {
    pub(super) token: i64,
    pub(super) features: i64,
}

/// Token ids of a prompt text, with each placeholder repeated once for each of its features; `tokens` are those that can
/// be placeholders.
///
/// # Errors
/// If the text does not have these placeholders in this order.
pub(super) fn prompt_ids(
    tokenizer: &Tokenizer,
    text: &str,
    tokens: &[i64],
    expected: &[Placeholder],
) -> Result<Vec<i64>> {
    let bos = tokenizer.special_token_id("bos_token").and_then(|id| tokenizer.id_to_token(id));
    let has_bos = bos.is_some_and(|bos| text.starts_with(&bos));
    let (mut ids, mut found) = (Vec::new(), 0);
    for id in tokenizer.encode(text, !has_bos)? {
        if !tokens.contains(&id) {
            ids.push(id);
            continue;
        }
        if let Some(placeholder) = expected.get(found) {
            if placeholder.token != id {
                let name = |id: i64| tokenizer.id_to_token(id).unwrap_or_else(|| id.to_string());
                let what = format!("image or video {} of the prompt", found + 1);
                return Err(Error::invalid_argument(what, name(id), name(placeholder.token)));
            }
            ids.extend(std::iter::repeat_n(id, placeholder.features as usize));
        }
        found += 1;
    }
    if found != expected.len() {
        let expected = format!("{}, as many as are given", expected.len());
        return Err(Error::invalid_argument("images and videos in the prompt", found, expected));
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
    placeholders: &'a [i64],
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
        let features = media.values.to_dtype(x.dtype()?)?;
        let count = features.size(1)?;
        let is_placeholder = |id: &i64| self.placeholders.contains(id);
        let found = self.ids[..end as usize].iter().filter(|id| is_placeholder(id)).count() as i64;
        if found != count {
            let found = format!("{found} placeholders");
            return Err(mm_core::Error::config(
                "images in the prompt",
                found,
                format!("{count}, one for each feature"),
            ));
        }
        let (mut parts, mut at, mut used) = (Vec::new(), 0, 0);
        for run in self.ids[..end as usize].chunk_by(|a, b| is_placeholder(a) == is_placeholder(b)) {
            let length = run.len() as i64;
            if is_placeholder(&run[0]) {
                parts.push(features.narrow(1, used, length)?);
                used += length;
            } else {
                parts.push(x.narrow(1, at, length)?);
            }
            at += length;
        }
        Tensor::cat(&parts.iter().collect::<Vec<_>>(), 1)
    }
}

/// Feeds a prompt in which `placeholders` stand for the image features. `positions` are those of its tokens, where they
/// do not simply increase. The caches up to the end of the last image are kept in `media`; a later prompt that starts with
/// the same tokens continues from there.
pub(super) fn prefill(
    decoder: &Decoder,
    media: Option<&EncodedMedia>,
    ids: &[i64],
    placeholders: &[i64],
    max_new_tokens: i64,
    positions: Option<Positions>,
) -> mm_core::Result<Prefill<DecoderState>> {
    let rows = media.map_or(Ok(1), |m| m.values.size(0))?;
    let length = ids.len() as i64;
    let image_end = ids.iter().rposition(|id| placeholders.contains(id)).map_or(0, |index| index as i64 + 1);
    let rotary = match &positions {
        Some((positions, _)) => decoder.rotary_cos_sin(&positions.to_device(decoder.device())?)?,
        None => None,
    };
    let prompt = ImagePrompt { decoder, media, ids, placeholders, rows, rotary };
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
