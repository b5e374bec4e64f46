//! Figures of tasks.

mod answers;
mod baselines;
mod captions;
mod prediction;
mod retrieval;

pub use answers::{AnsweredRow, Blind, PEOPLE, answer_figures, normalize_answer, vqa_accuracy};
pub use baselines::{Pca, accuracy, majority, probe, ridge};
pub use captions::{
    Cider, Judges, Synonyms, bleu, caption_words, captions, cider_d, clip_score, meteor, rouge_l, word_error_rate,
};
pub use prediction::{Figures, auroc, best, classes, labels, numbers, sentiment};
pub use retrieval::{RetrievalMetrics, chance_recall, retrieval_metrics, score_metrics};
