//! Finding the transcript of speech by its character n-grams, with `[transcript_ngram]`.

use super::{model::Retrieval, transcript_ngram::TranscriptNgram};
use crate::{
    Error, Result,
    batch::{BATCH_SIZE, SampleBatch, read_all},
    metrics::{RetrievalMetrics, retrieval_metrics},
};
use mm_core::{Device, Input, Modality, Source, Tensor, no_grad};
use mm_data::{CachedProcessor, Manifest, Split};
use std::collections::BTreeMap;

/// A text and its similarity to speech.
#[derive(Debug, Clone)]
pub struct TextMatch {
    /// The id of its row.
    pub id: String,
    /// The text.
    pub text: String,
    /// Cosine of the speech and the text's n-grams.
    pub score: f64,
}

impl Retrieval {
    /// The data set with the texts of all languages.
    pub(super) fn dataset_with_all_texts(&self, transcript_ngram: &TranscriptNgram) -> Result<Manifest> {
        let modality = transcript_ngram.modality();
        let mut manifest = Manifest::open(&self.config.common.data, &self.base_dir)?;
        for row in &mut manifest.rows {
            row.retain_languages(&modality, &self.config.towers[modality.name()].languages);
        }
        Ok(manifest)
    }

    /// How well speech finds its transcript among those of its language, by language; empty without
    /// `[transcript_ngram]`.
    pub(super) fn evaluate_transcripts(&self, split: Split) -> Result<BTreeMap<String, RetrievalMetrics>> {
        let mut out = BTreeMap::new();
        let Some(transcript_ngram) = &self.transcript_ngram else { return Ok(out) };
        let manifest = self.dataset_with_all_texts(transcript_ngram)?;
        let modality = transcript_ngram.modality();
        let rows = manifest.rows_in_split(split);
        let mut speech: BTreeMap<&str, Vec<(usize, &Source)>> = BTreeMap::new();
        for row in &rows {
            for (language, source) in values_with_language(&manifest, *row, &modality) {
                speech.entry(language).or_default().push((*row, source));
            }
        }
        let texts = texts_by_language(&manifest, &rows);
        for (language, values) in speech {
            let Some(texts) = texts.get(language) else { continue };
            let Some((speech_rows, vectors)) = self.embed_speech(transcript_ngram, &values)? else { continue };
            let text_vectors = self.embed_transcripts(transcript_ngram, texts)?;
            let item = |row: usize| &manifest.rows[row].item;
            let same = |speech: usize, text: usize| item(speech_rows[speech]) == item(texts[text].0);
            if let Ok(metrics) = retrieval_metrics(&vectors, &text_vectors, same) {
                out.insert(language.to_owned(), metrics);
            }
        }
        Ok(out)
    }

    /// Ranks the texts of a language, the first of each row, by their similarity to speech, best first.
    ///
    /// # Errors
    /// When the run has no `[transcript_ngram]`, or no text in that language.
    pub fn match_transcripts(&self, speech: &Source, language: &str, splits: &[Split]) -> Result<Vec<TextMatch>> {
        let missing = || Error::invalid("transcript_ngram", "none in the config of this run", "such a table");
        let transcript_ngram = self.transcript_ngram.as_ref().ok_or_else(missing)?;
        let manifest = self.dataset_with_all_texts(transcript_ngram)?;
        let modality = transcript_ngram.modality();
        let processor = self.tower(&modality)?.input.processor.as_ref();
        let input = read_all(processor, std::slice::from_ref(speech))?;
        let speech = self.embed_speech_input(transcript_ngram, &input)?;
        let rows: Vec<usize> = splits.iter().flat_map(|split| manifest.rows_in_split(*split)).collect();
        let texts = texts_by_language(&manifest, &rows);
        let unknown = || mm_core::Error::unknown("language of the texts", language, texts.keys().copied());
        let texts = texts.get(language).ok_or_else(unknown)?;
        let scores = self.embed_transcripts(transcript_ngram, texts)?.matmul(&speech.transpose(0, 1)?)?;
        let mut out: Vec<TextMatch> = texts
            .iter()
            .zip(scores.to_vec::<f64>()?)
            .map(|((row, text), score)| TextMatch {
                id: manifest.rows[*row].id.clone(),
                text: (*text).to_owned(),
                score,
            })
            .collect();
        out.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(out)
    }

    /// Rows and vectors `[values, embed_dim]` of the speech that can be read; `None` when there is none.
    fn embed_speech(
        &self,
        transcript_ngram: &TranscriptNgram,
        values: &[(usize, &Source)],
    ) -> Result<Option<(Vec<usize>, Tensor)>> {
        let tower = self.tower(&transcript_ngram.modality())?;
        let processor = CachedProcessor::new(tower.input.processor.clone(), self.cache.clone());
        let (mut rows, mut vectors) = (Vec::new(), Vec::new());
        for chunk in values.chunks(BATCH_SIZE) {
            let batch = SampleBatch::read(&processor, &chunk.iter().map(|(_, source)| *source).collect::<Vec<_>>());
            if let Some(input) = batch.collate(&processor)? {
                vectors.push(self.embed_speech_input(transcript_ngram, &input)?);
                rows.extend(batch.indices.iter().map(|n| chunk[*n].0));
            }
        }
        if vectors.is_empty() {
            return Ok(None);
        }
        Ok(Some((rows, Tensor::cat(&vectors.iter().collect::<Vec<_>>(), 0)?)))
    }

    fn embed_speech_input(&self, transcript_ngram: &TranscriptNgram, input: &Input) -> Result<Tensor> {
        let modality = transcript_ngram.modality();
        let vectors =
            no_grad(|| transcript_ngram.embed_speech(&self.encode(&modality, input, false)?.embeddings, false))?;
        Ok(vectors.to_device(Device::Cpu)?)
    }

    /// Vectors `[texts, embed_dim]` of texts.
    fn embed_transcripts(&self, transcript_ngram: &TranscriptNgram, texts: &[(usize, &str)]) -> Result<Tensor> {
        let ngrams: Vec<Vec<i64>> = texts.iter().map(|(_, text)| transcript_ngram.ngrams(text)).collect();
        let ngrams: Vec<&[i64]> = ngrams.iter().map(Vec::as_slice).collect();
        let vectors = no_grad(|| transcript_ngram.embed_texts(&ngrams, self.params.device(), false))?;
        Ok(vectors.to_device(Device::Cpu)?)
    }
}

/// The values of a row that state their language.
fn values_with_language<'m>(
    manifest: &'m Manifest,
    row: usize,
    modality: &Modality,
) -> impl Iterator<Item = (&'m str, &'m Source)> + use<'m> {
    let row = &manifest.rows[row];
    let languages = row.languages.get(modality).into_iter().flatten();
    let values = row.values.get(modality).into_iter().flatten();
    values.zip(languages).filter_map(|(value, language)| Some((language.as_deref()?, value)))
}

/// The first text of each row, by language.
fn texts_by_language<'m>(manifest: &'m Manifest, rows: &[usize]) -> BTreeMap<&'m str, Vec<(usize, &'m str)>> {
    let mut out: BTreeMap<&str, Vec<(usize, &str)>> = BTreeMap::new();
    for row in rows {
        for (language, source) in values_with_language(manifest, *row, &Modality::TEXT) {
            let texts = out.entry(language).or_default();
            if let (Source::Text(text), false) = (source, texts.last().is_some_and(|(last, _)| last == row)) {
                texts.push((*row, text.as_str()));
            }
        }
    }
    out
}
