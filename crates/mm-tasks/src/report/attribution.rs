//! What some answers rest on, drawn: words on coloured ground, pictures and spectrograms under heat.

use super::{
    heatmap::{merge_subwords, overlay_heatmap},
    html::{escape, inline},
    image_grid::{resize, to_image},
};
use crate::{
    Result,
    prediction::{Attribution, Contribution, Predicted, Predictor},
};
use mm_core::{Modality, Tensor};
use mm_data::Manifest;
use std::{collections::BTreeMap, fmt::Write};

/// Rows that are shown.
const SHOWN: usize = 6;
/// Places of a picture or a spectrogram down and across: single pixels flicker.
const PLACES: usize = 16;
/// Terms of a bag of words that are shown.
const TERMS: usize = 12;

/// The surest wrong answers and some right ones, as many of each as there are.
fn chosen<'a>(answers: &'a [Predicted], truth: &[Option<&str>]) -> Vec<&'a Predicted> {
    let sure = |a: &Predicted| a.probabilities.iter().map(|p| p.1).fold(0.0, f64::max);
    let (mut right, mut wrong): (Vec<&Predicted>, Vec<&Predicted>) = (Vec::new(), Vec::new());
    for (answer, truth) in answers.iter().zip(truth) {
        let hit = answer.prediction.as_str().zip(*truth).is_some_and(|(said, truth)| said == truth);
        if hit { right.push(answer) } else { wrong.push(answer) }
    }
    wrong.sort_by(|a, b| sure(b).total_cmp(&sure(a)));
    let step = right.len().div_ceil(SHOWN / 2).max(1);
    let mut out: Vec<&Predicted> = right.into_iter().step_by(step).take(SHOWN / 2).collect();
    out.extend(wrong.into_iter().take(SHOWN - out.len()));
    out
}

pub(super) fn section(
    body: &mut String,
    predictor: &Predictor,
    manifest: &Manifest,
    answers: &[Predicted],
    truth: &[Option<&str>],
) -> Result<()> {
    let places: BTreeMap<&str, usize> = manifest.rows.iter().enumerate().map(|(n, r)| (r.id.as_str(), n)).collect();
    let mut shown = String::new();
    let mut gaps = Vec::new();
    for answer in chosen(answers, truth) {
        let Some(row) = places.get(answer.id.as_str()) else { continue };
        let found = match predictor.attribute(manifest, *row) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            // A report is worth having without it.
            Err(error) => {
                let _ = write!(
                    body,
                    "<p class=\"soft\">What the answers rest on was not found out: {}.</p>",
                    escape(&error.to_string())
                );
                return Ok(());
            }
        };
        gaps.push(found.gap()?);
        shown.push_str(&one(&found, answer, manifest.rows[*row].cells.get(predictor.label()).map(String::as_str))?);
    }
    if shown.is_empty() {
        return Ok(());
    }
    gaps.sort_by(f64::total_cmp);
    let _ = write!(
        body,
        "<h2>What its answers rest on</h2><p class=\"soft\">Integrated gradients (Sundararajan 2017) of the fused head's score: on the way from an \
         input that says nothing (words without meaning, a grey picture, silence) to the row's own, how much the score of its answer grew by each word and \
         each place. Green words and bright places speak for the answer, red words against it. What they leave of the growth, in the middle of these rows: \
         {:.1} %.</p>{shown}",
        100.0 * gaps[gaps.len() / 2]
    );
    Ok(())
}

fn one(found: &Attribution, answer: &Predicted, truth: Option<&str>) -> Result<String> {
    let mut out = format!(
        "<h3>{}</h3><p>says <b>{}</b>{}: its score grew from {:.2} to {:.2}",
        escape(&answer.id),
        escape(&found.answer),
        truth.map_or(String::new(), |t| format!(", is {}", escape(t))),
        found.ground,
        found.score
    );
    for (modality, contribution) in &found.contributions {
        let _ = write!(out, "; {} {:+.2}", escape(modality.name()), contribution.parts.sum()?.to_f64()?);
    }
    out.push_str("</p>");
    for (modality, contribution) in &found.contributions {
        out.push_str(&shown(modality, contribution)?);
    }
    Ok(out)
}

fn shown(modality: &Modality, own: &Contribution) -> Result<String> {
    let shape = own.parts.shape();
    let values = || own.parts.to_vec::<f32>();
    if !own.names.is_empty() && shape.len() == 1 {
        let pieces = own.names.iter().map(String::as_str).zip(values()?);
        let mut words = if own.names.len() == shape[0] as usize
            && own.sample.shape() == shape
            && own.sample.dtype()? == mm_core::DType::F32
        {
            // Terms of a bag: the strongest, in no order of their own.
            let mut terms: Vec<(String, f32)> =
                pieces.filter(|(_, v)| *v != 0.0).map(|(n, v)| (n.to_owned(), v)).collect();
            terms.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
            terms.truncate(TERMS);
            terms
        } else {
            merge_subwords(pieces, |sum, more| *sum += more)
        };
        let most = words.iter().map(|w| w.1.abs()).fold(1e-9, f32::max);
        words.iter_mut().for_each(|w| w.1 /= most);
        let spans: String = words
            .iter()
            .map(|(word, share)| {
                let ground = if *share >= 0.0 { "46,160,67" } else { "218,54,51" };
                format!(
                    "<span style=\"background:rgba({ground},{:.2});padding:0 .15em\">{}</span> ",
                    share.abs() * 0.8,
                    escape(word)
                )
            })
            .collect();
        return Ok(format!("<p class=\"text\">{spans}</p>"));
    }
    let heat = match (own.sample.shape().as_slice(), shape.as_slice()) {
        // A picture, or steps of a sound by bands, as they are drawn: low bands below, time to the right.
        ([3, _, _], [3, _, _]) => own.parts.sum_dim(&[0], false)?,
        ([_, _], [_, _]) if *modality == Modality::AUDIO => own.parts.transpose(0, 1)?.flip(&[0])?,
        _ => return Ok(String::new()),
    };
    let plain = resize(&to_image(&own.sample)?, 240.0, [48, 480]);
    let (patches, places) = blocks(&heat)?;
    let over = overlay_heatmap(&plain, &patches, places);
    let both = [inline(&plain, modality.name()), inline(&over, "what counted")];
    Ok(format!("<p>{}</p>", both.into_iter().flatten().collect::<Vec<_>>().join(" ")))
}

/// What speaks for the answer in each of some places down and across.
fn blocks(heat: &Tensor) -> Result<(Vec<f32>, [usize; 2])> {
    let (down, across) = (heat.size(0)? as usize, heat.size(1)? as usize);
    let places = [down.min(PLACES), across.min(PLACES)];
    let values = heat.to_vec::<f32>()?;
    let mut out = vec![0f32; places[0] * places[1]];
    for (n, value) in values.iter().enumerate() {
        let (row, column) = (n / across * places[0] / down, n % across * places[1] / across);
        out[row * places[1] + column] += value;
    }
    out.iter_mut().for_each(|v| *v = v.max(0.0));
    Ok((out, places))
}
