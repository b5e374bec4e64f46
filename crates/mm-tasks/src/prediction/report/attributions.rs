//! Attributions of some predictions: highlighted words, images and spectrograms with overlays.

use super::{
    super::{
        attribution::{Attribution, Contribution},
        predictor::{Predictor, RowPrediction},
    },
    PredictedRow,
};
use crate::{
    Result,
    report::{
        heatmap::{merge_subwords, overlay_heatmap},
        html::inline,
        image_grid::{resize, to_image},
    },
};
use mm_core::{DType, Modality, Tensor};
use mm_data::Manifest;
use serde::Serialize;

/// Rows that are shown.
const MAX_ROWS: usize = 6;

/// Cells of an image or spectrogram in each direction; single pixels are noisy.
const GRID: usize = 16;

/// Terms of a bag of words that are shown.
const MAX_TERMS: usize = 12;

/// Background colors of positive and negative words.
const COLORS: [&str; 2] = ["46,160,67", "218,54,51"];

/// The section of the page.
#[derive(Serialize)]
pub(super) struct Attributions {
    /// Median relative error of the completeness axiom, in percent.
    median_error: String,
    examples: Vec<AttributedRow>,
    /// Why there are no (more) attributions.
    error: Option<String>,
}

/// A row with the attribution of its prediction.
#[derive(Serialize)]
struct AttributedRow {
    id: String,
    prediction: String,
    label: Option<String>,
    baseline_score: String,
    score: String,
    /// Name and sum of each modality.
    sums: Vec<(String, String)>,
    words: Vec<Vec<Word>>,
    /// `<img>` elements.
    images: Vec<String>,
}

/// A highlighted word.
#[derive(Serialize)]
struct Word {
    text: String,
    /// Red, green and blue of the background.
    color: &'static str,
    alpha: String,
}

/// How a contribution is shown.
enum Figure {
    Words(Vec<Word>),
    Images(Vec<String>),
    None,
}

/// Attributions of the most confident errors and of as many correct predictions; `None` where gradients reach no input.
pub(super) fn attributions(
    predictor: &Predictor,
    manifest: &Manifest,
    rows: &[PredictedRow<'_>],
) -> Result<Option<Attributions>> {
    let (mut examples, mut errors, mut failure) = (Vec::new(), Vec::new(), None);
    for row in choose_rows(rows) {
        match predictor.attribute(manifest, row.index) {
            Ok(Some(attribution)) => {
                errors.push(attribution.completeness_error()?);
                examples.push(AttributedRow::new(&attribution, row)?);
            }
            Ok(None) => {}
            // The rest of the report is of use without attributions.
            Err(error) => {
                (failure, examples) = (Some(error.to_string()), Vec::new());
                break;
            }
        }
    }
    if examples.is_empty() && failure.is_none() {
        return Ok(None);
    }
    errors.sort_by(f64::total_cmp);
    let median = errors.get(errors.len() / 2).copied().unwrap_or(0.0);
    Ok(Some(Attributions { median_error: format!("{:.1}", 100.0 * median), examples, error: failure }))
}

/// The most confident wrong predictions, and correct ones at regular distances.
fn choose_rows<'r, 'a>(rows: &'r [PredictedRow<'a>]) -> Vec<&'r PredictedRow<'a>> {
    let is_correct = |row: &&PredictedRow<'_>| {
        row.prediction.prediction.as_str().zip(row.label).is_some_and(|(predicted, label)| predicted == label)
    };
    let (correct, mut wrong): (Vec<_>, Vec<_>) = rows.iter().partition(is_correct);
    wrong.sort_by(|a, b| RowPrediction::confidence(b.prediction).total_cmp(&a.prediction.confidence()));
    let step = correct.len().div_ceil(MAX_ROWS / 2).max(1);
    let mut chosen: Vec<_> = correct.into_iter().step_by(step).take(MAX_ROWS / 2).collect();
    chosen.extend(wrong.into_iter().take(MAX_ROWS - chosen.len()));
    chosen
}

impl AttributedRow {
    fn new(attribution: &Attribution, row: &PredictedRow<'_>) -> Result<Self> {
        let (mut sums, mut words, mut images) = (Vec::new(), Vec::new(), Vec::new());
        for (modality, contribution) in &attribution.contributions {
            let sum = contribution.attributions.sum()?.to_f64()?;
            sums.push((modality.to_string(), format!("{sum:+.2}")));
            match figure(modality, contribution)? {
                Figure::Words(found) => words.push(found),
                Figure::Images(found) => images.extend(found),
                Figure::None => {}
            }
        }
        Ok(Self {
            id: row.prediction.id.clone(),
            prediction: attribution.prediction.clone(),
            label: row.label.map(ToOwned::to_owned),
            baseline_score: format!("{:.2}", attribution.baseline_score),
            score: format!("{:.2}", attribution.score),
            sums,
            words,
            images,
        })
    }
}

fn figure(modality: &Modality, contribution: &Contribution) -> Result<Figure> {
    let Contribution { attributions, token_names, sample } = contribution;
    let shape = attributions.shape();
    if !token_names.is_empty() && shape.len() == 1 {
        return Ok(Figure::Words(words(contribution)?));
    }
    // An image, or a spectrogram as it is shown: time to the right, low frequencies below.
    let heat = match (sample.shape().as_slice(), shape.as_slice()) {
        ([3, _, _], [3, _, _]) => attributions.sum_dim(&[0], false)?,
        ([_, _], [_, _]) if *modality == Modality::AUDIO => attributions.transpose(0, 1)?.flip(&[0])?,
        _ => return Ok(Figure::None),
    };
    let plain = resize(&to_image(sample)?, 240.0, [48, 480]);
    let (cells, grid) = sum_cells(&heat)?;
    let overlay = overlay_heatmap(&plain, &cells, grid);
    let images = [inline(&plain, modality.name()), inline(&overlay, "positive attributions")];
    Ok(Figure::Images(images.into_iter().flatten().collect()))
}

/// The words of a text, or the strongest terms of a bag of words, with their attributions relative to the largest.
fn words(contribution: &Contribution) -> Result<Vec<Word>> {
    let Contribution { attributions, token_names, sample } = contribution;
    let values = attributions.to_vec::<f32>()?;
    let shape = attributions.shape();
    let pieces = token_names.iter().map(String::as_str).zip(values);
    let is_bag = token_names.len() == shape[0] as usize && sample.shape() == shape && sample.dtype()? == DType::F32;
    let mut words = if is_bag {
        let mut terms: Vec<(String, f32)> = pieces.filter(|(_, v)| *v != 0.0).map(|(n, v)| (n.to_owned(), v)).collect();
        terms.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        terms.truncate(MAX_TERMS);
        terms
    } else {
        merge_subwords(pieces, |sum, more| *sum += more)
    };
    let largest = words.iter().map(|w| w.1.abs()).fold(1e-9, f32::max);
    words.iter_mut().for_each(|w| w.1 /= largest);
    let word = |(text, share): (String, f32)| {
        let color = COLORS[usize::from(share < 0.0)];
        Word { text, color, alpha: format!("{:.2}", share.abs() * 0.8) }
    };
    Ok(words.into_iter().map(word).collect())
}

/// Positive sums over the cells of a grid, row by row, and the numbers of rows and columns.
fn sum_cells(heat: &Tensor) -> Result<(Vec<f32>, [usize; 2])> {
    let (height, width) = (heat.size(0)? as usize, heat.size(1)? as usize);
    let grid = [height.min(GRID), width.min(GRID)];
    let mut cells = vec![0f32; grid[0] * grid[1]];
    for (n, value) in heat.to_vec::<f32>()?.iter().enumerate() {
        let (row, column) = (n / width * grid[0] / height, n % width * grid[1] / width);
        cells[row * grid[1] + column] += value;
    }
    cells.iter_mut().for_each(|v| *v = v.max(0.0));
    Ok((cells, grid))
}
