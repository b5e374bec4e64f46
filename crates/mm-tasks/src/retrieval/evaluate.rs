//! Evaluation of a retrieval model: recall, median rank and mean average precision between all modalities.

use super::{
    cross_attention::{BLOCK, CrossAttention, Role},
    embed::{EmbeddedSplit, Entry},
    model::Retrieval,
};
use crate::{
    Error, ProgressFn, Result,
    batch::SampleBatch,
    metrics::{Metric, Metrics, RetrievalMetrics, retrieval_metrics, score_metrics},
};
use mm_align::diagnose;
use mm_core::{Device, Features, Modality, Processor, Source, Tensor, no_grad};
use mm_data::{FailedSample, Manifest, Split};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

/// The result of an evaluation. Directions are named `image_to_text`.
#[derive(Debug, Clone)]
pub struct RetrievalEvaluation {
    /// The split that was evaluated.
    pub split: Split,
    /// By direction.
    pub directions: BTreeMap<String, RetrievalMetrics>,
    /// By direction, with candidates of an equal text counted as matches.
    pub equal_text_directions: BTreeMap<String, RetrievalMetrics>,
    /// Queries of one language each, by direction and language; only where there are several.
    pub languages: BTreeMap<String, BTreeMap<String, RetrievalMetrics>>,
    /// Distance between the centroids of two modalities, by pair (`image_text`).
    pub modality_gaps: BTreeMap<String, f64>,
    /// Speech to its transcript among those of its language, by language; with `[transcript_ngram]`.
    pub transcripts: BTreeMap<String, RetrievalMetrics>,
    /// Pairs ranked by cross attention, by direction; with `[cross_attention]`.
    pub cross_attention: BTreeMap<String, RetrievalMetrics>,
    /// Pairs ranked by the sum of cross attention and the cosine of the vectors, by direction.
    pub cross_attention_and_cosine: BTreeMap<String, RetrievalMetrics>,
    /// Values that could not be read, which are neither queries nor candidates.
    pub failed: Vec<FailedSample>,
}

impl RetrievalEvaluation {
    /// Mean of recall at 10 over all directions, and that of a random ranking.
    pub fn mean_recall_at_10(&self) -> (f64, f64) {
        let mean = |f: fn(&RetrievalMetrics) -> f64| {
            self.directions.values().map(f).sum::<f64>() / self.directions.len().max(1) as f64
        };
        (mean(|m| m.recall[2]), mean(|m| m.chance[2]))
    }

    /// All metrics. The scope is the direction, with a suffix for the kind of ranking or the language:
    /// `audio_to_text/language=de`.
    pub fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::new();
        let mut add = |directions: &BTreeMap<String, RetrievalMetrics>, suffix: &str| {
            metrics.extend(directions.iter().flat_map(|(scope, m)| m.metrics(&format!("{scope}{suffix}"))));
        };
        add(&self.directions, "");
        if self.equal_text_directions != self.directions {
            add(&self.equal_text_directions, "/equal_texts_match");
        }
        add(&self.cross_attention, "/cross_attention");
        add(&self.cross_attention_and_cosine, "/cross_attention_and_cosine");
        for (direction, languages) in &self.languages {
            let scoped =
                |(language, m): (&String, &RetrievalMetrics)| (format!("{direction}/language={language}"), m.clone());
            add(&languages.iter().map(scoped).collect(), "");
        }
        let scoped = |(language, m): (&String, &RetrievalMetrics)| {
            (format!("speech_to_transcript/language={language}"), m.clone())
        };
        add(&self.transcripts.iter().map(scoped).collect(), "");
        let gaps = self.modality_gaps.iter();
        metrics.extend(gaps.map(|(pair, gap)| Metric::new("modality_gap", *gap).with_scope(pair).lower_is_better()));
        metrics
    }

    /// A table with one row per direction; the first row is the header.
    pub fn table(&self) -> Vec<Vec<String>> {
        let header = ["direction", "R@1", "R@5", "R@10", "median rank", "mAP", "chance R@10", "queries", "candidates"];
        let mut rows = vec![header.map(ToOwned::to_owned).to_vec()];
        let named = |map: &BTreeMap<String, RetrievalMetrics>, suffix: &str| {
            map.iter().map(|(name, m)| (format!("{name}{suffix}"), m.clone())).collect::<Vec<_>>()
        };
        let all = [
            named(&self.directions, ""),
            named(&self.cross_attention, ", cross attention"),
            named(&self.cross_attention_and_cosine, ", cross attention + cosine"),
            self.transcripts.iter().map(|(l, m)| (format!("speech_to_transcript, {l}"), m.clone())).collect(),
        ];
        for (direction, m) in all.into_iter().flatten() {
            let [at_1, at_5, at_10] = m.recall.map(|v| format!("{v:.3}"));
            let (rank, map, chance) =
                (format!("{:.1}", m.median_rank), format!("{:.3}", m.map), format!("{:.3}", m.chance[2]));
            rows.push(vec![
                direction,
                at_1,
                at_5,
                at_10,
                rank,
                map,
                chance,
                m.queries.to_string(),
                m.gallery.to_string(),
            ]);
        }
        rows
    }
}

/// Metrics of embedded modalities, each against every other.
///
/// # Errors
/// When no two modalities have rows in common.
pub fn direction_metrics(embedded: &BTreeMap<Modality, EmbeddedSplit>, split: Split) -> Result<RetrievalEvaluation> {
    let mut out = RetrievalEvaluation {
        split,
        directions: BTreeMap::new(),
        equal_text_directions: BTreeMap::new(),
        languages: BTreeMap::new(),
        modality_gaps: BTreeMap::new(),
        transcripts: BTreeMap::new(),
        cross_attention: BTreeMap::new(),
        cross_attention_and_cosine: BTreeMap::new(),
        failed: Vec::new(),
    };
    for (from, queries) in embedded {
        for (to, gallery) in embedded.iter().filter(|(to, _)| *to != from) {
            let direction = format!("{from}_to_{to}");
            let (q, g) = (&queries.entries, &gallery.entries);
            let same_item = |a: usize, b: usize| q[a].item == g[b].item;
            // There is nothing to measure where no query has a match.
            let Ok(metrics) = retrieval_metrics(&queries.vectors, &gallery.vectors, same_item) else { continue };
            let same_text = |a: usize, b: usize| same_item(a, b) || q[a].text == g[b].text;
            let by_text = retrieval_metrics(&queries.vectors, &gallery.vectors, same_text)?;
            let languages = language_metrics(queries, gallery)?;
            if !languages.is_empty() {
                out.languages.insert(direction.clone(), languages);
            }
            if let Some(gap) = modality_gap(queries, gallery)?.filter(|_| from < to) {
                out.modality_gaps.insert(format!("{from}_{to}"), gap);
            }
            out.directions.insert(direction.clone(), metrics);
            out.equal_text_directions.insert(direction, by_text);
        }
    }
    if out.directions.is_empty() {
        let found = format!("no row of the {split} split with two modalities");
        return Err(Error::invalid("data.split", found, "at least one"));
    }
    Ok(out)
}

/// Metrics of the queries of each language, where there are several.
fn language_metrics(queries: &EmbeddedSplit, gallery: &EmbeddedSplit) -> Result<BTreeMap<String, RetrievalMetrics>> {
    let mut by_language: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (index, entry) in queries.entries.iter().enumerate() {
        if let Some(language) = &entry.language {
            by_language.entry(language).or_default().push(index as i64);
        }
    }
    let mut out = BTreeMap::new();
    if by_language.len() < 2 {
        return Ok(out);
    }
    for (language, indices) in by_language {
        let vectors = queries.vectors.index_select(0, &Tensor::from_slice(&indices)?)?;
        let same = |a: usize, b: usize| queries.entries[indices[a] as usize].item == gallery.entries[b].item;
        if let Ok(metrics) = retrieval_metrics(&vectors, &gallery.vectors, same) {
            out.insert(language.to_owned(), metrics);
        }
    }
    Ok(out)
}

/// Distance between the centroids of matching values; `None` for fewer than two matches.
fn modality_gap(a: &EmbeddedSplit, b: &EmbeddedSplit) -> Result<Option<f64>> {
    let mut index_of_item = BTreeMap::new();
    for (index, entry) in b.entries.iter().enumerate() {
        index_of_item.entry(entry.item.as_str()).or_insert(index as i64);
    }
    let pairs = a.entries.iter().enumerate();
    let pairs = pairs.filter_map(|(n, e)| Some((n as i64, *index_of_item.get(e.item.as_str())?)));
    let (left, right): (Vec<i64>, Vec<i64>) = pairs.unzip();
    if left.len() < 2 {
        return Ok(None);
    }
    let select = |x: &Tensor, indices: &[i64]| x.index_select(0, &Tensor::from_slice(indices)?);
    let gap = diagnose::modality_gap(&select(&a.vectors, &left)?, &select(&b.vectors, &right)?)?;
    Ok(Some(gap.centroid_distance))
}

impl Retrieval {
    /// Embeds a split and evaluates it.
    pub fn evaluate_split(
        &self,
        manifest: &Manifest,
        split: Split,
        on_progress: ProgressFn<'_>,
    ) -> Result<(BTreeMap<Modality, EmbeddedSplit>, RetrievalEvaluation)> {
        let processors = self.prepare(manifest, &AtomicBool::new(false), on_progress)?;
        let mut failed = Vec::new();
        let embedded = self.embed_split_with(manifest, split, &processors, &mut failed)?;
        let mut evaluation = direction_metrics(&embedded, split)?;
        evaluation.failed = failed;
        evaluation.transcripts = self.evaluate_transcripts(split)?;
        if let Some(attention) = &self.cross_attention {
            self.evaluate_attention(attention, &embedded, &processors, &mut evaluation)?;
        }
        Ok((embedded, evaluation))
    }

    /// Adds how well cross attention ranks pairs, alone and with the cosine of the vectors.
    fn evaluate_attention(
        &self,
        attention: &CrossAttention,
        embedded: &BTreeMap<Modality, EmbeddedSplit>,
        processors: &BTreeMap<Modality, Arc<dyn Processor>>,
        evaluation: &mut RetrievalEvaluation,
    ) -> Result<()> {
        let [from, to] = attention.modalities();
        let (Some(queries), Some(keys)) = (embedded.get(from), embedded.get(to)) else { return Ok(()) };
        let (left, right) = (
            self.positions(attention, Role::Query, processors[from].as_ref(), &queries.entries)?,
            self.positions(attention, Role::Key, processors[to].as_ref(), &keys.entries)?,
        );
        let similarity = no_grad(|| attention.similarity(&left, &right))?.to_device(Device::Cpu)?;
        let with_cosine = similarity.add(&queries.vectors.matmul(&keys.vectors.transpose(0, 1)?)?)?;
        let same_item = |q: usize, k: usize| queries.entries[q].item == keys.entries[k].item;
        let rank = |scores: &Tensor| -> Result<BTreeMap<String, RetrievalMetrics>> {
            let directions = [
                (format!("{from}_to_{to}"), score_metrics(scores, same_item)),
                (format!("{to}_to_{from}"), score_metrics(&scores.transpose(0, 1)?, |k, q| same_item(q, k))),
            ];
            Ok(directions.into_iter().filter_map(|(name, found)| Some((name, found.ok()?))).collect())
        };
        evaluation.cross_attention = rank(&similarity)?;
        evaluation.cross_attention_and_cosine = rank(&with_cosine)?;
        Ok(())
    }

    /// Projected positions of values, in blocks of [`BLOCK`].
    fn positions(
        &self,
        attention: &CrossAttention,
        role: Role,
        processor: &dyn Processor,
        entries: &[Entry],
    ) -> Result<Vec<Features>> {
        let [query, key] = attention.modalities();
        let modality = if role == Role::Query { query } else { key };
        let block = |entries: &[Entry]| -> Result<Features> {
            let sources: Vec<&Source> = entries.iter().map(|e| &e.source).collect();
            let mut batch = SampleBatch::read(processor, &sources);
            if let Some((_, error)) = batch.failed.pop() {
                return Err(error.into());
            }
            let input = mm_data::collate(&batch.samples, processor)?;
            no_grad(|| {
                let positions = self.encode(modality, &input, false)?.positions;
                let missing = || Error::invalid("cross_attention", format!("no positions of {modality}"), "some");
                Ok(attention.project(role, &positions.ok_or_else(missing)?, false)?)
            })
        };
        entries.chunks(BLOCK).map(block).collect()
    }
}
