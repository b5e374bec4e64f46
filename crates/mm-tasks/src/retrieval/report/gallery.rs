//! Values as a retrieval report shows them, attention maps, confusions.

use super::super::{EmbeddedSplit, Entry, Retrieval};
use crate::{Result, report::html};
use mm_core::{Modality, Source, Tensor, seed::Rng};
use mm_data::source_name;
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

/// Characters of a value of another modality, which may be long.
const MAX_VALUE_CHARS: usize = 80;

/// A value as a page shows it.
#[derive(Serialize)]
pub(super) struct Shown {
    text: String,
    /// An `<img>` element.
    image: Option<String>,
    /// The language of a recording.
    language: Option<String>,
}

impl Shown {
    pub(super) fn of(entry: &Entry) -> Self {
        let text = |text: String| Self { text, image: None, language: None };
        match &entry.source {
            Source::Text(words) => text(words.clone()),
            file @ (Source::Path(_) | Source::Bytes(_)) if entry.language.is_some() => {
                let name = source_name(file);
                let stem =
                    || Path::new(&name).file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
                let words = if entry.text.is_empty() { stem() } else { entry.text.clone() };
                Self { language: entry.language.clone(), ..text(words) }
            }
            image @ (Source::Path(_) | Source::Bytes(_)) => {
                Self { image: Some(html::thumbnail(image, &entry.text)), ..text(String::new()) }
            }
            other => text(source_name(other).chars().take(MAX_VALUE_CHARS).collect()),
        }
    }
}

fn top(query: &Tensor, gallery: &EmbeddedSplit, count: i64) -> Result<Vec<(usize, f64)>> {
    let scores = gallery.vectors.matmul(&query.unsqueeze(1)?)?.squeeze(1)?;
    let (values, indices) = scores.topk(count.min(gallery.entries.len() as i64))?;
    Ok(indices.to_vec::<i64>()?.into_iter().map(|p| p as usize).zip(values.to_vec::<f64>()?).collect())
}

#[derive(Serialize)]
struct ShownMap {
    image: String,
    query: Shown,
}

#[derive(Serialize)]
pub(super) struct AttentionExamples {
    query_modality: String,
    key_modality: String,
    maps: Vec<ShownMap>,
}

/// Attention maps of random pairs; `None` without `[cross_attention]`.
pub(super) fn attention(
    model: &Retrieval,
    embedded: &BTreeMap<Modality, EmbeddedSplit>,
) -> Result<Option<AttentionExamples>> {
    let Some([query_modality, key_modality]) = model.attention_modalities() else { return Ok(None) };
    let (Some(queries), Some(keys)) = (embedded.get(query_modality), embedded.get(key_modality)) else {
        return Ok(None);
    };
    let mut indices: Vec<usize> = (0..queries.entries.len()).collect();
    Rng::new(&[2026]).shuffle(&mut indices);
    let pairs = indices.into_iter().filter_map(|index| {
        let entry = &queries.entries[index];
        Some((entry, keys.entries.iter().find(|k| k.item == entry.item)?))
    });
    let mut maps = Vec::new();
    for (query, key) in pairs.take(6) {
        if let Some(map) = model.attention_map(&query.source, &key.source)? {
            let image = html::inline(&map.image()?, "attention of each word");
            maps.push(ShownMap { image: image.unwrap_or_default(), query: Shown::of(query) });
        }
    }
    let (query_modality, key_modality) = (query_modality.to_string(), key_modality.to_string());
    Ok(Some(AttentionExamples { query_modality, key_modality, maps }))
}

#[derive(Serialize)]
pub(super) struct Confusion {
    query: Shown,
    result: Shown,
    text: String,
    score: String,
}

/// The ten wrong first results of images among texts with the highest scores.
pub(super) fn confusions(embedded: &BTreeMap<Modality, EmbeddedSplit>) -> Result<Vec<Confusion>> {
    let (Some(queries), Some(gallery)) = (embedded.get(&Modality::IMAGE), embedded.get(&Modality::TEXT)) else {
        return Ok(Vec::new());
    };
    let mut wrong = Vec::new();
    for (index, entry) in queries.entries.iter().enumerate() {
        let hits = top(&queries.vectors.select(0, index as i64)?, gallery, 1)?;
        let differs = |hit: usize| gallery.entries[hit].item != entry.item && gallery.entries[hit].text != entry.text;
        wrong.extend(hits.first().filter(|(hit, _)| differs(*hit)).map(|(hit, score)| (*score, index, *hit)));
    }
    wrong.sort_by(|a, b| b.0.total_cmp(&a.0));
    let confusion = |(score, index, hit): (f64, usize, usize)| {
        let entry = &queries.entries[index];
        let (query, result) = (Shown::of(entry), Shown::of(&gallery.entries[hit]));
        Confusion { query, result, text: entry.text.clone(), score: format!("{score:.2}") }
    };
    Ok(wrong.into_iter().take(10).map(confusion).collect())
}
