//! Metrics of captions against several references each, as COCO's evaluation computes them. SPICE is left out: it needs
//! a parser in Java.

mod clip_score;
mod meteor;
mod ngrams;
mod tokenize;
mod word_error_rate;

pub use clip_score::clip_score;
pub use meteor::{Synonyms, meteor};
pub use ngrams::{CaptionPair, Cider, bleu, cider_d, rouge_l};
pub use tokenize::caption_tokens;
pub use word_error_rate::word_error_rate;

use super::metric::Metrics;
use mm_repr::Pretrained;

/// Models and data for metrics of captions that need more than the references.
#[derive(Clone, Copy, Default)]
pub struct CaptionScorers<'a> {
    /// A dual encoder of images and texts, for [`clip_score`].
    pub clip: Option<&'a Pretrained>,
    /// Synonyms, for [`meteor`].
    pub synonyms: Option<&'a Synonyms>,
}

/// BLEU-1 to BLEU-4, CIDEr-D, ROUGE-L and METEOR of captions and their references, given as texts.
pub fn caption_metrics(captions: &[String], references: &[Vec<String>], synonyms: Option<&Synonyms>) -> Metrics {
    let tokens = |texts: &Vec<String>| texts.iter().map(|t| caption_tokens(t)).collect::<Vec<_>>();
    let pairs: Vec<CaptionPair> =
        captions.iter().zip(references).map(|(c, r)| (caption_tokens(c), tokens(r))).collect();
    let mut metrics = Metrics::new();
    for (n, value) in bleu(&pairs).into_iter().enumerate() {
        metrics.insert(&format!("bleu_{}", n + 1), value);
    }
    let cider = cider_d(&pairs);
    metrics.insert("cider_d", cider.iter().sum::<f64>() / cider.len().max(1) as f64);
    metrics.insert("rouge_l", rouge_l(&pairs));
    metrics.insert("meteor_exact_stem", meteor(&pairs, None));
    if synonyms.is_some() {
        metrics.insert("meteor_exact_stem_synonym", meteor(&pairs, synonyms));
    }
    metrics
}
