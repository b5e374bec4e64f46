//! One metric type for all tasks: a value with its direction and the baselines that it is compared with. The same `id`
//! is used in JSON, in tables, in reports and in the docs.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A metric that mm computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricInfo {
    /// The stable name, in snake case.
    pub id: &'static str,
    /// Whether a greater value is better.
    pub higher_is_better: bool,
    /// What it measures.
    pub description: &'static str,
}

const fn higher(id: &'static str, description: &'static str) -> MetricInfo {
    MetricInfo { id, higher_is_better: true, description }
}

const fn lower(id: &'static str, description: &'static str) -> MetricInfo {
    MetricInfo { id, higher_is_better: false, description }
}

/// Every metric with a fixed direction. A new metric needs one line here.
pub const METRICS: &[MetricInfo] = &[
    // Classification
    higher("accuracy", "share of rows whose prediction equals the label (multilabel: of rows whose labels all do)"),
    higher("balanced_accuracy", "mean recall over the classes"),
    higher("f1_macro", "mean F1 over the classes"),
    higher("f1_micro", "F1 over all labels of all rows together"),
    higher("f1_weighted", "mean F1 over the classes, weighted by their number of rows"),
    higher("auroc", "area under the ROC curve (several classes: mean of one against the rest)"),
    lower("log_loss", "mean negative log-likelihood of the labels"),
    lower("expected_calibration_error", "mean distance between confidence and accuracy over 15 bins"),
    lower("hamming_loss", "share of wrong labels in a multilabel problem"),
    // Regression
    lower("mae", "mean absolute error"),
    lower("rmse", "root mean squared error"),
    higher("r2", "coefficient of determination"),
    higher("pearson", "Pearson's correlation"),
    higher("spearman", "Spearman's rank correlation"),
    // Sentiment scores in [−3, 3]
    higher("acc_2_nonzero", "accuracy of negative against positive scores, rows with score 0 left out"),
    higher("f1_nonzero", "support-weighted F1 of negative against positive scores, rows with score 0 left out"),
    higher("acc_2", "accuracy of negative against nonnegative scores"),
    higher("f1_2", "support-weighted F1 of negative against nonnegative scores"),
    higher("acc_5", "accuracy of scores clamped to [−2, 2] and rounded"),
    higher("acc_7", "accuracy of scores clamped to [−3, 3] and rounded"),
    // Question answering
    higher("vqa_accuracy", "agreement with the answers of several people, as the VQA challenge counts it"),
    higher("balanced_question_accuracy", "accuracy on questions with several answers, each answer weighted alike"),
    higher("pair_accuracy", "share of pairs of rows that are both right"),
    // Captioning and transcription
    higher("bleu_1", "BLEU with unigrams"),
    higher("bleu_2", "BLEU with n-grams up to 2"),
    higher("bleu_3", "BLEU with n-grams up to 3"),
    higher("bleu_4", "BLEU with n-grams up to 4"),
    higher("cider_d", "CIDEr-D"),
    higher("rouge_l", "ROUGE-L"),
    higher("meteor_exact_stem", "METEOR with exact and stem matches"),
    higher("meteor_exact_stem_synonym", "METEOR with exact, stem and synonym matches"),
    higher("clip_score", "CLIPScore without references"),
    higher("ref_clip_score", "CLIPScore with references"),
    lower("word_error_rate", "word errors over the words of the reference"),
    higher("word_accuracy", "one minus the word error rate"),
    // Retrieval
    higher("recall_at_1", "share of queries with a match ranked first"),
    higher("recall_at_5", "share of queries with a match among the first 5"),
    higher("recall_at_10", "share of queries with a match among the first 10"),
    lower("median_rank", "median rank of the first match, counted from 1"),
    higher("mean_average_precision", "mean over queries of the average precision of the whole ranking"),
];

/// Looks a metric up by its id.
pub fn metric_info(id: &str) -> Option<&'static MetricInfo> {
    METRICS.iter().find(|m| m.id == id)
}

/// One measured value.
///
/// ```
/// use mm_tasks::metrics::Metric;
/// let metric = Metric::new("recall_at_10", 0.42).with_scope("image_to_text").with_baseline("chance", 0.01);
/// assert!(metric.higher_is_better);
/// assert_eq!(metric.label(), "recall_at_10 (image_to_text)");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// What is measured, as in [`METRICS`].
    pub id: String,
    /// The part of the data that it is about: a direction (`image_to_text`), a modality, a type of question; `None` for
    /// all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The model's value.
    pub value: f64,
    /// Whether a greater value is better.
    pub higher_is_better: bool,
    /// The values of this metric for simpler models, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub baselines: BTreeMap<String, f64>,
}

impl Metric {
    /// A metric of [`METRICS`]. The direction of an id that is not listed there is "higher is better"; see
    /// [`Metric::lower_is_better`].
    pub fn new(id: impl Into<String>, value: f64) -> Self {
        let id = id.into();
        let higher_is_better = metric_info(&id).is_none_or(|m| m.higher_is_better);
        Self { id, scope: None, value, higher_is_better, baselines: BTreeMap::new() }
    }

    /// Sets the part of the data that it is about.
    #[must_use]
    pub fn with_scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Adds the value of a simpler model.
    #[must_use]
    pub fn with_baseline(mut self, name: impl Into<String>, value: f64) -> Self {
        self.baselines.insert(name.into(), value);
        self
    }

    /// Marks a smaller value as the better one.
    #[must_use]
    pub fn lower_is_better(mut self) -> Self {
        self.higher_is_better = false;
        self
    }

    /// Id and scope as shown to people: `recall_at_10 (image_to_text)`.
    pub fn label(&self) -> String {
        self.scope.as_ref().map_or_else(|| self.id.clone(), |scope| format!("{} ({scope})", self.id))
    }

    fn is(&self, id: &str, scope: Option<&str>) -> bool {
        self.id == id && self.scope.as_deref() == scope
    }
}

/// The metrics of one evaluation, in the order in which they are shown; at most one for each id and scope.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metrics(Vec<Metric>);

impl Metrics {
    /// No metrics.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metric; one with the same id and scope is replaced.
    pub fn push(&mut self, metric: Metric) {
        match self.0.iter_mut().find(|m| m.is(&metric.id, metric.scope.as_deref())) {
            Some(old) => *old = metric,
            None => self.0.push(metric),
        }
    }

    /// Adds a metric of [`METRICS`] that is about all of the data.
    pub fn insert(&mut self, id: &str, value: f64) {
        self.push(Metric::new(id, value));
    }

    /// The metric of an id and scope.
    pub fn find(&self, id: &str, scope: Option<&str>) -> Option<&Metric> {
        self.0.iter().find(|m| m.is(id, scope))
    }

    /// The value of a metric that is about all of the data.
    pub fn get(&self, id: &str) -> Option<f64> {
        self.find(id, None).map(|m| m.value)
    }

    /// Adds a baseline to the metric of an id about all of the data; nothing happens where there is no such metric.
    pub fn set_baseline(&mut self, id: &str, name: &str, value: f64) {
        if let Some(metric) = self.0.iter_mut().find(|m| m.is(id, None)) {
            metric.baselines.insert(name.to_owned(), value);
        }
    }

    /// Adds the metrics of a simpler model as baselines of those with the same id and scope.
    pub fn set_baselines(&mut self, name: &str, baseline: &Self) {
        for metric in &mut self.0 {
            if let Some(found) = baseline.find(&metric.id, metric.scope.as_deref()) {
                metric.baselines.insert(name.to_owned(), found.value);
            }
        }
    }

    /// The metrics in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Metric> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values by label, for a training log.
    pub fn to_map(&self) -> BTreeMap<String, f64> {
        self.0.iter().map(|m| (m.label(), m.value)).collect()
    }
}

impl Extend<Metric> for Metrics {
    fn extend<T: IntoIterator<Item = Metric>>(&mut self, metrics: T) {
        metrics.into_iter().for_each(|m| self.push(m));
    }
}

impl FromIterator<Metric> for Metrics {
    fn from_iter<T: IntoIterator<Item = Metric>>(metrics: T) -> Self {
        let mut out = Self::new();
        out.extend(metrics);
        out
    }
}

impl IntoIterator for Metrics {
    type Item = Metric;
    type IntoIter = std::vec::IntoIter<Metric>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Metrics {
    type Item = &'a Metric;
    type IntoIter = std::slice::Iter<'a, Metric>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Mean and sample standard deviation (0 of a single value).
pub fn mean_and_std(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
}

/// `0.8123 ± 0.0045` over several runs, `0.8123` of one.
pub fn mean_std(values: &[f64]) -> String {
    let (mean, std) = mean_and_std(values);
    if values.len() > 1 { format!("{mean:.4} ± {std:.4}") } else { format!("{mean:.4}") }
}

/// A table of runs that differ in their seed: one row per metric of the first run with the model's value and the
/// baselines, each as mean ± sample standard deviation over the runs. The first row is the header; the column of
/// baselines is left out where there are none.
pub fn metrics_table(runs: &[Metrics]) -> Vec<Vec<String>> {
    let has_baselines = runs.iter().flatten().any(|m| !m.baselines.is_empty());
    let header = if has_baselines { &["metric", "model", "baselines"][..] } else { &["metric", "model"][..] };
    let mut table = vec![header.iter().map(|h| (*h).to_owned()).collect()];
    for metric in runs.first().into_iter().flatten() {
        let over_runs = |value: &dyn Fn(&Metric) -> Option<f64>| -> String {
            let found = runs.iter().filter_map(|run| value(run.find(&metric.id, metric.scope.as_deref())?));
            mean_std(&found.collect::<Vec<_>>())
        };
        let arrow = if metric.higher_is_better { "↑" } else { "↓" };
        let mut row = vec![format!("{} {arrow}", metric.label()), over_runs(&|m| Some(m.value))];
        if has_baselines {
            let names = metric.baselines.keys();
            let all: Vec<String> =
                names.map(|name| format!("{name} {}", over_runs(&|m| m.baselines.get(name).copied()))).collect();
            row.push(all.join(", "));
        }
        table.push(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_snake_case_words() {
        for (n, metric) in METRICS.iter().enumerate() {
            assert!(METRICS[..n].iter().all(|m| m.id != metric.id), "{}", metric.id);
            assert!(metric.id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
            assert!(!metric.description.is_empty());
        }
    }

    #[test]
    fn the_table_shows_mean_and_deviation_over_runs_and_the_baselines() {
        let run = |value: f64| -> Metrics {
            [
                Metric::new("accuracy", value).with_baseline("majority_class", 0.5),
                Metric::new("log_loss", 1.0).with_scope("text"),
            ]
            .into_iter()
            .collect()
        };
        let table = metrics_table(&[run(0.8), run(0.9)]);
        assert_eq!(table[0], ["metric", "model", "baselines"]);
        assert_eq!(table[1], ["accuracy ↑", "0.8500 ± 0.0707", "majority_class 0.5000 ± 0.0000"]);
        assert_eq!(table[2], ["log_loss (text) ↓", "1.0000 ± 0.0000", ""]);
        let plain: Metrics = [Metric::new("accuracy", 0.8)].into_iter().collect();
        assert_eq!(metrics_table(&[plain]), [vec!["metric", "model"], vec!["accuracy ↑", "0.8000"]]);
    }

    #[test]
    fn metrics_are_found_replaced_and_compared() {
        let mut metrics = Metrics::new();
        metrics.insert("accuracy", 0.1);
        metrics.insert("accuracy", 0.7);
        metrics.push(Metric::new("accuracy", 0.6).with_scope("yes/no"));
        assert_eq!((metrics.iter().count(), metrics.get("accuracy")), (2, Some(0.7)));
        let baseline: Metrics = [Metric::new("accuracy", 0.5)].into_iter().collect();
        metrics.set_baselines("majority_class", &baseline);
        assert_eq!(metrics.find("accuracy", None).unwrap().baselines["majority_class"], 0.5);
        assert!(metrics.find("accuracy", Some("yes/no")).unwrap().baselines.is_empty());
        let json = serde_json::to_value(&metrics).unwrap();
        assert_eq!(json[0]["id"], "accuracy");
        assert_eq!(serde_json::from_value::<Metrics>(json).unwrap(), metrics);
    }
}
