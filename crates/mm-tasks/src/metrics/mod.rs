//! Metrics of all tasks. [`Metric`] and [`Metrics`] hold values; the functions compute them.

mod captions;
mod classification;
mod metric;
mod pca;
mod probes;
mod ranking;
mod regression;
mod retrieval;
mod sentiment;
mod vqa;

pub use captions::{
    CaptionPair, CaptionScorers, Cider, Synonyms, bleu, caption_metrics, caption_tokens, cider_d, clip_score, meteor,
    rouge_l, word_error_rate,
};
pub use classification::{argmax, classification_metrics, multilabel_metrics};
pub use metric::{METRICS, Metric, MetricInfo, Metrics, mean_and_std, mean_std, metric_info, metrics_table};
pub use pca::Pca;
pub use probes::{accuracy, linear_probe, majority_class_accuracy, ridge_regression};
pub use ranking::auroc;
pub use regression::regression_metrics;
pub use retrieval::{RetrievalMetrics, chance_recall, retrieval_metrics, score_metrics};
pub use sentiment::sentiment_metrics;
pub use vqa::{AnsweredRow, HUMAN_ANSWERS_COLUMN, PriorBaseline, answer_metrics, normalize_answer, vqa_accuracy};
