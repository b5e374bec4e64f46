//! Robustness curves: accuracy while one modality is missing or noisy, at ten strengths.

use super::{inference::InferenceOptions, predictor::Predictor};
use crate::{
    Result,
    report::{
        Report,
        chart::{Line, lines},
        curves::Chart,
        page::render,
    },
};
use mm_core::{
    Modality,
    seed::{Rng, manual_seed},
};
use mm_data::Manifest;
use serde::Serialize;
use serde_json::json;

/// Number of strengths above 0.
const STEPS: i32 = 10;

/// The strongest noise, in standard deviations of the features.
const MAX_NOISE_STD: f64 = 2.0;

/// How inputs are corrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Corruption {
    /// A share of the rows lacks the modality.
    Missing,
    /// Gaussian noise on the features, in their standard deviations.
    Noise,
}

impl Corruption {
    /// The name in JSON and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Noise => "noise",
        }
    }
}

/// The metric of a predictor while one modality is corrupted more and more.
///
/// From *MultiBench: Multiscale Benchmarks for Multimodal Representation Learning* (Liang et al., 2021,
/// <https://arxiv.org/abs/2107.07502>).
#[derive(Debug, Clone, Serialize)]
pub struct RobustnessCurve {
    /// The modality.
    pub modality: String,
    /// How it is corrupted.
    pub corruption: Corruption,
    /// Strength, and accuracy or R².
    pub points: Vec<(f64, f64)>,
    /// Area under the curve over strengths scaled to [0, 1]: the mean metric.
    pub area: f64,
}

/// Curves of each modality and corruption.
///
/// # Errors
/// When the rows cannot be evaluated.
pub fn robustness(
    predictor: &Predictor,
    manifest: &Manifest,
    rows: &[usize],
    seed: u64,
) -> Result<Vec<RobustnessCurve>> {
    let mut curves = Vec::new();
    for modality in predictor.modalities() {
        for corruption in [Corruption::Missing, Corruption::Noise] {
            let mut points = Vec::new();
            for step in 0..=STEPS {
                let share = f64::from(step) / f64::from(STEPS);
                points.push(match corruption {
                    Corruption::Missing => {
                        (share, metric_with_missing(predictor, manifest, rows, &modality, share, seed)?)
                    }
                    Corruption::Noise => {
                        manual_seed(seed);
                        let std = share * MAX_NOISE_STD;
                        (std, metric(predictor, manifest, rows, Some((&modality, std)))?)
                    }
                });
            }
            let area = points.windows(2).map(|w| f64::midpoint(w[0].1, w[1].1)).sum::<f64>() / f64::from(STEPS);
            curves.push(RobustnessCurve { modality: modality.to_string(), corruption, points, area });
        }
    }
    Ok(curves)
}

/// Accuracy, or R² of a regression.
fn metric(
    predictor: &Predictor,
    manifest: &Manifest,
    rows: &[usize],
    feature_noise: Option<(&Modality, f64)>,
) -> Result<f64> {
    let options = InferenceOptions { feature_noise, ..InferenceOptions::default() };
    let metrics = predictor.evaluate_with(manifest, rows, options)?.metrics;
    Ok(metrics.get("accuracy").or(metrics.get("r2")).unwrap_or(0.0))
}

/// The metric while a share of the rows lacks a modality.
fn metric_with_missing(
    predictor: &Predictor,
    manifest: &Manifest,
    rows: &[usize],
    modality: &Modality,
    share: f64,
    seed: u64,
) -> Result<f64> {
    let mut manifest = manifest.clone();
    for row in rows {
        // A row that lacks the modality at one strength lacks it at every greater one.
        if Rng::new(&[seed, *row as u64]).uniform() < share {
            manifest.rows[*row].values.remove(modality);
        }
    }
    metric(predictor, &manifest, rows, None)
}

/// The curves as a page.
///
/// # Errors
/// When the page cannot be rendered.
pub fn robustness_report(curves: &[RobustnessCurve]) -> Result<Report> {
    let mut charts = Vec::new();
    for (corruption, axis) in
        [(Corruption::Missing, "share of rows without the modality"), (Corruption::Noise, "noise, standard deviations")]
    {
        let own = curves.iter().filter(|c| c.corruption == corruption);
        let series: Vec<Line> = own.map(|c| Line { name: c.modality.clone(), points: c.points.clone() }).collect();
        charts.push(Chart { svg: lines(&series, axis, "accuracy")?, caption: corruption.name().to_owned() });
    }
    let mut rows = vec![["modality", "corruption", "clean", "strongest", "area"].map(ToOwned::to_owned).to_vec()];
    for curve in curves {
        let value = |point: Option<&(f64, f64)>| format!("{:.4}", point.map_or(0.0, |p| p.1));
        rows.push(vec![
            curve.modality.clone(),
            curve.corruption.name().into(),
            value(curve.points.first()),
            value(curve.points.last()),
            format!("{:.4}", curve.area),
        ]);
    }
    let html = render("robustness.html", json!({"title": "Robustness", "charts": charts, "curves": rows}))?;
    Ok(Report { html, evaluations: curves.iter().map(|c| json!(c)).collect() })
}
