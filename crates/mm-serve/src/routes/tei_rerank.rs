//! `/rerank` of text-embeddings-inference: texts by their relevance to a query, as a reranker scores it, else by the
//! cosine of their vectors.

use super::{
    tei::{TeiResult, cosines},
    tei_input::{TextBody, TextOptions},
};
use crate::{
    cancellation::Cancellation,
    embed::check_count,
    encode::{self, Sample},
    engine::{Capability, ModelHandle, ModelInfo, Output},
    error::ApiError,
    media::read_source,
    state::{AppState, Shared},
};
use axum::{Json, extract::State};
use mm_core::Modality;
use mm_repr::{
    Relevance,
    text::{PairProcessor, TokenizedPair},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A query and the texts to be ranked.
#[derive(Deserialize, ToSchema)]
pub(crate) struct RerankRequest {
    query: String,
    texts: Vec<String>,
    /// Whether the scores of a reranker are its logits instead of their sigmoids; cosines are as they are.
    #[serde(default)]
    raw_scores: bool,
    /// Whether the texts are in the answer.
    #[serde(default)]
    return_text: bool,
    #[serde(flatten)]
    options: TextOptions,
    /// The model; when absent the first reranker, else the first that embeds texts.
    #[serde(default)]
    model: Option<String>,
}

/// A ranked text.
#[derive(Serialize, ToSchema)]
pub(crate) struct Rank {
    index: usize,
    /// Its relevance as the reranker scores it, from 0 to 1 without `raw_scores`; else the cosine of its vector and the
    /// query's.
    score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// A score, and what the texts are ordered by: the sigmoids of large logits are equal.
struct Scored {
    order: f64,
    score: f64,
}

/// Texts by their relevance to the query, best first: that of a reranker, else the cosine of their vectors with the
/// query's.
#[utoipa::path(post, path = "/rerank", tag = "text-embeddings-inference", request_body(
    content = RerankRequest, example = json!({"query": "a dog", "texts": ["a puppy", "a train"]})
), responses(
    (status = 200, description = "The texts, best first", body = Vec<Rank>),
    (status = 413, description = "More than the server takes"),
    (status = 422, description = "Not what the model takes")
))]
pub(crate) async fn rerank(
    State(state): State<Shared>,
    TextBody(request): TextBody<RerankRequest>,
) -> TeiResult<Vec<Rank>> {
    request.options.refuse_prompt()?;
    request.options.check_direction()?;
    if request.texts.is_empty() {
        return Err(ApiError::invalid("texts", "none", "at least one").into());
    }
    let capabilities = [Capability::Rerank, Capability::Embed];
    let (model, info) = state.pool.find_for_either(request.model.as_deref(), capabilities, &[Modality::TEXT])?;
    let RerankRequest { query, texts, raw_scores, return_text, options, .. } = request;
    let scores = if info.can(Capability::Rerank) {
        let relevance = relevance(&state, (model, &info), query, texts.clone(), options.truncates()).await?;
        let scored = |relevance: Relevance| {
            let logit = f64::from(relevance.logit);
            Scored { order: logit, score: if raw_scores { logit } else { relevance.score() } }
        };
        relevance.into_iter().map(scored).collect::<Vec<_>>()
    } else {
        let (of_query, of_texts) = (options.preparation(&info, "query")?, options.preparation(&info, "texts")?);
        let cosines = cosines(&state, (model, &info), (query, of_query), (texts.clone(), of_texts)).await?;
        cosines.into_iter().map(|cosine| Scored { order: cosine, score: cosine }).collect()
    };
    let mut ranked: Vec<(usize, (Scored, String))> = scores.into_iter().zip(texts).enumerate().collect();
    // Stable: of equal scores the first text comes first.
    ranked.sort_by(|(_, (a, _)), (_, (b, _))| b.order.total_cmp(&a.order));
    let rank = |(index, (scored, text)): (usize, (Scored, String))| Rank {
        index,
        score: scored.score,
        text: return_text.then_some(text),
    };
    Ok(Json(ranked.into_iter().map(rank).collect()))
}

/// The logits of texts' relevance to a query by a reranker. Longer pairs than it takes are refused unless `truncates`.
async fn relevance(
    state: &AppState,
    (model, info): (&ModelHandle, &ModelInfo),
    query: String,
    texts: Vec<String>,
    truncates: bool,
) -> Result<Vec<Relevance>, ApiError> {
    check_count(state, texts.len())?;
    read_source(state, &Modality::TEXT, &query, "query").await?;
    for text in &texts {
        read_source(state, &Modality::TEXT, text, "texts").await?;
    }
    let processor = info.pairs.clone().ok_or_else(|| ApiError::internal("a reranker without pairs"))?;
    let tokenize = move |cancellation: Cancellation<'_>| {
        tokenize(&processor, (query.as_str(), texts.as_slice()), truncates, cancellation)
    };
    let samples = state.decode(tokenize).await?;
    let pending = encode::submit(model, info.generation, (&Modality::TEXT, Output::Relevance), samples)?;
    let logits = encode::rows(pending).await?.into_iter().flatten();
    Ok(logits.map(|logit| Relevance { logit }).collect())
}

/// Texts that are tokenized between two checks whether the request is cancelled.
const TEXTS_AT_ONCE: usize = 64;

/// A sample of the query with each of the texts.
fn tokenize(
    processor: &PairProcessor,
    (query, texts): (&str, &[String]),
    truncates: bool,
    cancellation: Cancellation<'_>,
) -> Result<Vec<Sample>, ApiError> {
    let mut samples = Vec::with_capacity(texts.len());
    for part in texts.chunks(TEXTS_AT_ONCE) {
        cancellation.check()?;
        for pair in processor.pairs(query, part)? {
            samples.push(sample(samples.len(), &pair, truncates)?);
        }
    }
    Ok(samples)
}

fn sample(index: usize, pair: &TokenizedPair, truncates: bool) -> Result<Sample, ApiError> {
    let length = pair.ids.len();
    if pair.is_truncated && !truncates {
        let found = "a longer text with the query than the model takes";
        let expected = format!("at most {length} tokens together, or \"truncate\": true");
        return Err(ApiError::too_large(&format!("texts[{index}]"), found, expected));
    }
    Ok(Sample { index, length, pixels: 0, seconds: 0.0, tensor: pair.to_tensor()?.into_send()? })
}
