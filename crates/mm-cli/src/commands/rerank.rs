//! `mm rerank`: texts by their relevance to a query, as a reranker scores it.

use crate::{
    args::{dtype::DtypeArgs, limit::Limit, model::ModelArgs},
    context::Context,
    output,
};
use anyhow::Result;
use mm_repr::Pretrained;
use serde_json::json;

/// Rank texts by their relevance to a query with a reranker (cross-encoder)
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm rerank --model BAAI/bge-reranker-base --query \"a dog\" --text \"a train\" --text \"a puppy\"\n  mm rerank --model cross-encoder/ms-marco-MiniLM-L6-v2 --query \"a dog\" --text \"a train\" --text \"a puppy\" --k 1 --json\n\nJSON: {\"query\": …, \"results\": [{\"rank\": 1, \"index\": …, \"text\": …, \"score\": …, \"logit\": …}]}; index is the place of the text on the command line, from 0, and score the sigmoid of logit."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    /// What is sought.
    #[arg(long, value_name = "TEXT", help_heading = "Inputs")]
    query: String,
    /// Text to be ranked; may be repeated.
    #[arg(long, value_name = "TEXT", required = true, help_heading = "Inputs")]
    text: Vec<String>,
    /// Number of texts to show, best first, or all.
    #[arg(long, value_name = "N|all", default_value = "all")]
    k: Limit,
    #[command(flatten)]
    dtype: DtypeArgs,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let Arguments { query, text: texts, .. } = arguments;
    let model = Pretrained::load_with(&arguments.model.dir()?, arguments.dtype.load_options(context)?)?;
    let pairs = model.tokenize_pairs(query, texts)?;
    let truncated: Vec<_> = pairs.iter().filter(|pair| pair.is_truncated).collect();
    if let [pair, ..] = truncated.as_slice() {
        let (cut, count, limit) = (truncated.len(), texts.len(), pair.ids.len());
        output::warning(format!("{cut} of {count} texts were truncated: with the query at most {limit} tokens"));
    }
    let mut ranked: Vec<_> = model.relevance_of_pairs(&pairs)?.into_iter().zip(texts).enumerate().collect();
    // Stable: of equal scores the first text comes first.
    ranked.sort_by(|(_, (a, _)), (_, (b, _))| b.logit.total_cmp(&a.logit));
    ranked.truncate(arguments.k.get());
    if context.json {
        let mut results = Vec::with_capacity(ranked.len());
        for ((index, (relevance, text)), rank) in ranked.iter().zip(1..) {
            let (score, logit) = (relevance.score(), relevance.logit);
            results.push(json!({"rank": rank, "index": index, "text": text, "score": score, "logit": logit}));
        }
        output::line(json!({"query": query, "results": results}));
    } else {
        for (_, (relevance, text)) in &ranked {
            output::line(format!("{:8.4}  {}", relevance.score(), output::one_line(text)));
        }
    }
    Ok(())
}
