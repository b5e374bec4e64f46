//! How much a prediction loses when a modality is noisy or missing, at ten strengths each (as MultiBench, Liang 2021).

use super::Predictor;
use crate::{
    Result,
    report::{Line, Report, html_escape, html_page, html_table, lines},
};
use mm_core::seed::{Rng, manual_seed};
use mm_data::Manifest;
use serde::Serialize;
use serde_json::json;
use std::fmt::Write;

/// One modality disturbed in one way.
#[derive(Debug, Clone, Serialize)]
pub struct Curve {
    /// The modality.
    pub modality: String,
    /// `missing`: that share of the rows lacks it; `noise`: normal noise of so many of the features' own deviations.
    pub kind: &'static str,
    /// (strength, accuracy or R²).
    pub points: Vec<(f64, f64)>,
    /// Area under the curve, strengths brought to 0 … 1: what is held on average.
    pub area: f64,
}

/// Strengths of noise go up to this many deviations.
const NOISE: f64 = 2.0;

/// Curves of each modality, in both ways.
pub fn robustness(predictor: &Predictor, manifest: &Manifest, rows: &[usize], seed: u64) -> Result<Vec<Curve>> {
    let figure = |manifest: &Manifest| -> Result<f64> {
        let metrics = predictor.evaluate(manifest, rows, &[])?.metrics;
        Ok(metrics.get("accuracy").or(metrics.get("r2")).unwrap_or(0.0))
    };
    let mut out = Vec::new();
    for modality in predictor.modalities() {
        for kind in ["missing", "noise"] {
            let mut points = Vec::new();
            for step in 0..=10 {
                let share = f64::from(step) / 10.0;
                let value = if kind == "missing" {
                    let mut some = manifest.clone();
                    for row in rows {
                        // Whoever is missing at one strength is missing at every greater one.
                        if Rng::new(&[seed, *row as u64]).uniform() < share {
                            some.rows[*row].values.remove(&modality);
                        }
                    }
                    figure(&some)?
                } else {
                    manual_seed(seed);
                    predictor.disturb(&modality, share * NOISE);
                    let found = figure(manifest);
                    predictor.disturb(&modality, 0.0);
                    found?
                };
                points.push((if kind == "noise" { share * NOISE } else { share }, value));
            }
            let area = points.windows(2).map(|w| f64::midpoint(w[0].1, w[1].1)).sum::<f64>() / 10.0;
            out.push(Curve { modality: modality.to_string(), kind, points, area });
        }
    }
    Ok(out)
}

/// The curves as a page.
pub fn robustness_page(curves: &[Curve]) -> Result<Report> {
    let mut body = String::from(
        "<p class=\"soft\">Accuracy (R² of numbers) while one modality is withheld from a growing share of the rows, or its features are drowned in normal noise of a growing number of their own deviations. The area is what is held on average over the ten strengths.</p><div class=\"charts\">",
    );
    for (kind, name) in [("missing", "share of rows without it"), ("noise", "noise, in deviations")] {
        let drawn: Vec<Line> = curves
            .iter()
            .filter(|c| c.kind == kind)
            .map(|c| Line { name: c.modality.clone(), points: c.points.clone() })
            .collect();
        let _ = write!(body, "<figure>{}<figcaption>{kind}</figcaption></figure>", lines(&drawn, name, "accuracy")?);
    }
    body.push_str("</div>");
    let mut rows = vec![["modality", "how", "undisturbed", "at the worst", "area"].map(ToOwned::to_owned).to_vec()];
    for curve in curves {
        let (first, last) = (curve.points.first().map_or(0.0, |p| p.1), curve.points.last().map_or(0.0, |p| p.1));
        rows.push(vec![
            html_escape(&curve.modality),
            curve.kind.into(),
            format!("{first:.4}"),
            format!("{last:.4}"),
            format!("{:.4}", curve.area),
        ]);
    }
    body.push_str(&html_table(&rows));
    Ok(Report { html: html_page("Robustness", &body)?, evaluations: curves.iter().map(|c| json!(c)).collect() })
}
