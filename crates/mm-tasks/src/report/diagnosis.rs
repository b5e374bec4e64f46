//! Diagnosis of a joint embedding space: its geometry, hubness, and the effect of each correction of the scores.

use super::{
    chart::scatter,
    html::{escape, page, table},
    tsne::tsne,
};
use crate::Result;
use mm_align::{
    diagnose::{
        ConfidenceInterval, check_embeddings, cone_angle, effective_rank, modality_gap, ranks,
        recall_confidence_interval,
    },
    hubness::{HubnessCorrection, hubness},
};
use mm_core::{DType, Tensor};
use serde::Serialize;
use std::fmt::Write;

/// Neighborhood size of the hubness measures.
const HUBNESS_K: i64 = 10;

/// Retrieval and hubness in one direction.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct DirectionMetrics {
    /// Recall at 1 with its 95 % confidence interval.
    pub recall_at_1: ConfidenceInterval,
    /// Recall at 5.
    pub recall_at_5: ConfidenceInterval,
    /// Recall at 10.
    pub recall_at_10: ConfidenceInterval,
    /// Skewness of the 10-occurrence.
    pub hubness_skewness: f64,
    /// Fraction of candidates that are among the ten nearest neighbors of no query.
    pub antihub_fraction: f64,
}

impl DirectionMetrics {
    fn new(scores: &Tensor) -> Result<Self> {
        let ranks = ranks(scores)?;
        let recall = |k: usize| recall_confidence_interval(&ranks, k, 0);
        let hubs = hubness(scores, HUBNESS_K)?;
        Ok(Self {
            recall_at_1: recall(1),
            recall_at_5: recall(5),
            recall_at_10: recall(10),
            hubness_skewness: hubs.skewness,
            antihub_fraction: hubs.antihub_fraction,
        })
    }
}

/// Metrics with a correction of the scores.
#[derive(Debug, Clone, Serialize)]
pub struct CorrectionResult {
    /// Name of the [`HubnessCorrection`]; `none` is plain cosine similarity.
    pub name: String,
    /// b retrieved from a.
    pub a_to_b: DirectionMetrics,
    /// a retrieved from b.
    pub b_to_a: DirectionMetrics,
}

impl CorrectionResult {
    fn mean_recall_at_1(&self) -> f64 {
        f64::midpoint(self.a_to_b.recall_at_1.value, self.b_to_a.recall_at_1.value)
    }
}

/// Measures of two sets of paired embeddings.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    /// Number of pairs.
    pub rows: i64,
    /// Distance of the modalities' centroids on the unit sphere.
    pub centroid_distance: f64,
    /// Mean angle of each modality's rows (a, b) with its centroid, in degrees.
    pub cone_angle_degrees: [f64; 2],
    /// Mean squared distance of partners.
    pub alignment: f64,
    /// Logarithm of the mean Gaussian potential; lower is more uniform.
    pub uniformity: f64,
    /// Effective rank of each modality (a, b).
    pub effective_rank: [f64; 2],
    /// Embedding dimension.
    pub dim: i64,
    /// One entry per correction; the first is `none`.
    pub corrections: Vec<CorrectionResult>,
    /// Findings, as text.
    pub findings: Vec<String>,
}

/// Diagnoses paired embeddings `a` and `b` `[rows, dim]`.
///
/// # Errors
/// When they are not paired, not finite or of different dimension.
pub fn diagnose(a: &Tensor, b: &Tensor) -> Result<Diagnosis> {
    check_embeddings(a, b)?;
    let gap = modality_gap(a, b)?;
    let mut corrections = Vec::new();
    for correction in HubnessCorrection::ALL {
        corrections.push(CorrectionResult {
            name: correction.name().into(),
            a_to_b: DirectionMetrics::new(&correction.scores(a, b, None)?)?,
            b_to_a: DirectionMetrics::new(&correction.scores(b, a, None)?)?,
        });
    }
    let mut diagnosis = Diagnosis {
        rows: a.size(0)?,
        centroid_distance: gap.centroid_distance,
        cone_angle_degrees: [cone_angle(a)?, cone_angle(b)?],
        alignment: gap.alignment,
        uniformity: gap.uniformity,
        effective_rank: [effective_rank(a)?, effective_rank(b)?],
        dim: a.size(1)?,
        corrections,
        findings: Vec::new(),
    };
    diagnosis.findings = findings(&diagnosis);
    Ok(diagnosis)
}

const LARGE_GAP: f64 = 0.3;
const HUBNESS_THRESHOLD: f64 = 1.0;
const COLLAPSED_RANK_FRACTION: f64 = 0.1;

fn findings(d: &Diagnosis) -> Vec<String> {
    let mut found = Vec::new();
    if d.centroid_distance > LARGE_GAP {
        let narrower = d.cone_angle_degrees[0].min(d.cone_angle_degrees[1]);
        found.push(format!(
            "Modality gap: the centroids are {:.2} apart (0 together, 2 opposite); the narrower cone opens {narrower:.0}°. Mean centering removes the gap.",
            d.centroid_distance
        ));
    }
    let plain = &d.corrections[0];
    let skewness = plain.a_to_b.hubness_skewness.max(plain.b_to_a.hubness_skewness);
    if skewness > HUBNESS_THRESHOLD {
        let antihubs = plain.a_to_b.antihub_fraction.max(plain.b_to_a.antihub_fraction) * 100.0;
        found.push(format!(
            "Hubness: skewness {skewness:.1}, and {antihubs:.0} % of the candidates are among nobody's ten nearest. CSLS or a query bank reduces it."
        ));
    }
    for (name, rank) in [("a", d.effective_rank[0]), ("b", d.effective_rank[1])] {
        if rank < COLLAPSED_RANK_FRACTION * d.dim as f64 {
            found.push(format!("Collapse: the effective rank of set {name} is {rank:.1} of {} dimensions.", d.dim));
        }
    }
    let best = d.corrections.iter().max_by(|x, y| x.mean_recall_at_1().total_cmp(&y.mean_recall_at_1()));
    if let Some(best) = best
        && best.mean_recall_at_1() > plain.mean_recall_at_1() + 1e-9
    {
        found.push(format!(
            "Best correction: {} (recall at 1, mean of both directions: {:.3} instead of {:.3}).",
            best.name,
            best.mean_recall_at_1(),
            plain.mean_recall_at_1()
        ));
    }
    if found.is_empty() {
        found.push("Nothing remarkable.".into());
    }
    found
}

/// The corrections as a table, header first.
pub fn correction_table(d: &Diagnosis) -> Vec<Vec<String>> {
    let header =
        ["correction", "a → b R@1", "a → b R@10", "b → a R@1", "b → a R@10", "hubness skewness", "antihub fraction"];
    let mut rows = vec![header.map(ToOwned::to_owned).to_vec()];
    let interval = |c: ConfidenceInterval| format!("{:.3} ({:.3}–{:.3})", c.value, c.low, c.high);
    for CorrectionResult { name, a_to_b, b_to_a } in &d.corrections {
        rows.push(vec![
            name.clone(),
            interval(a_to_b.recall_at_1),
            interval(a_to_b.recall_at_10),
            interval(b_to_a.recall_at_1),
            interval(b_to_a.recall_at_10),
            format!("{:.2} / {:.2}", a_to_b.hubness_skewness, b_to_a.hubness_skewness),
            format!("{:.2} / {:.2}", a_to_b.antihub_fraction, b_to_a.antihub_fraction),
        ]);
    }
    rows
}

/// The diagnosis as an HTML page, with t-SNE maps of both modalities before and after mean centering.
pub fn diagnosis_page(d: &Diagnosis, a: &Tensor, b: &Tensor) -> Result<String> {
    let mut body = String::new();
    let _ = write!(body, "<h2>Findings</h2><ul>");
    for finding in &d.findings {
        let _ = write!(body, "<li>{}</li>", escape(finding));
    }
    let _ = write!(body, "</ul><h2>Embedding space</h2>{}", table(&space_table(d)));
    let _ = write!(
        body,
        "<h2>Corrections</h2><p class=\"soft\">Recall with 95 % bootstrap intervals. Hubness is the skewness of how often a candidate is among the ten nearest, in both directions.</p>{}",
        table(&correction_table(d))
    );
    body.push_str("<h2>t-SNE</h2><div class=\"charts\">");
    write_maps(&mut body, d, a, b)?;
    body.push_str("</div>");
    page("Diagnosis of two modalities", &body)
}

fn space_table(d: &Diagnosis) -> Vec<Vec<String>> {
    let [cone_a, cone_b] = d.cone_angle_degrees;
    let [rank_a, rank_b] = d.effective_rank;
    let measures = [
        ("pairs", d.rows.to_string()),
        ("centroid distance", format!("{:.3}", d.centroid_distance)),
        ("cone angle of a, b", format!("{cone_a:.0}°, {cone_b:.0}°")),
        ("alignment (mean squared distance of partners)", format!("{:.3}", d.alignment)),
        ("uniformity (lower is more uniform)", format!("{:.3}", d.uniformity)),
        ("effective rank of a, b", format!("{rank_a:.1}, {rank_b:.1} of {}", d.dim)),
    ];
    let mut rows = vec![vec!["measure".to_owned(), "value".to_owned()]];
    rows.extend(measures.into_iter().map(|(name, value)| vec![name.to_owned(), value]));
    rows
}

const TSNE_ROWS: i64 = 300;
const TSNE_PERPLEXITY: f64 = 30.0;
const TSNE_ITERATIONS: usize = 400;

fn write_maps(body: &mut String, d: &Diagnosis, a: &Tensor, b: &Tensor) -> Result<()> {
    let count = d.rows.min(TSNE_ROWS);
    let head = |x: &Tensor| x.narrow(0, 0, count)?.to_dtype(DType::F32)?.normalize();
    let centered = |x: &Tensor| x.sub(&x.mean_dim(&[0], true)?)?.normalize();
    let (a, b) = (head(a)?, head(b)?);
    let variants = [("as given", a.clone(), b.clone()), ("mean-centered", centered(&a)?, centered(&b)?)];
    for (title, x, y) in variants {
        let points = tsne(&Tensor::cat(&[&x, &y], 0)?, TSNE_PERPLEXITY, TSNE_ITERATIONS)?;
        let (left, right) = points.split_at(count as usize);
        let links: Vec<([f64; 2], [f64; 2])> = left.iter().copied().zip(right.iter().copied()).collect();
        let chart = scatter(&[("a".into(), left.to_vec()), ("b".into(), right.to_vec())], &links)?;
        let _ = write!(
            body,
            "<figure>{chart}<figcaption>t-SNE of {count} pairs, {title}; lines connect partners</figcaption></figure>"
        );
    }
    Ok(())
}
