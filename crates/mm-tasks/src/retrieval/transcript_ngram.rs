//! Matching speech to its transcript: a speech encoder is trained to find the text of its row in its own language among
//! those of the batch, each text a bag of character n-grams, as in *Enriching Word Vectors with Subword Information*
//! (Bojanowski et al., 2017, <https://arxiv.org/abs/1607.04606>). Used in training, and to rank transcripts.

use super::{
    auxiliary::{AuxiliaryLoss, EncodedBatch, equality_matrix},
    config::{ProjectionConfig, TranscriptNgramConfig},
    projection::Projection,
};
use crate::{Error, Result};
use mm_align::{ContrastiveConfig, ContrastiveLoss};
use mm_core::{
    Device, Modality, Module, Scope, Source, Tensor,
    nn::{Linear, Norm, NormConfig},
};
use mm_data::Manifest;
use std::{collections::HashMap, sync::OnceLock};

/// The transcript of a value and the indices of its n-grams.
struct Transcript {
    text: String,
    ngrams: Vec<i64>,
}

/// The heads of speech and text, and their loss.
pub(super) struct TranscriptNgram {
    config: TranscriptNgramConfig,
    speech_projection: Projection,
    text_projection: Linear,
    norm: Norm,
    loss: ContrastiveLoss,
    /// Transcripts by row and index of the value; set before training.
    transcripts: OnceLock<HashMap<(usize, usize), Transcript>>,
}

impl TranscriptNgram {
    /// Heads over speech embeddings `[rows, speech_dim]`.
    pub(super) fn new(
        scope: &Scope<'_>,
        speech_dim: i64,
        embed_dim: i64,
        config: &TranscriptNgramConfig,
    ) -> Result<Self> {
        let bucket = config.ngrams.bucket.into();
        Ok(Self {
            config: config.clone(),
            speech_projection: Projection::new(
                &scope.pp("speech"),
                speech_dim,
                embed_dim,
                &ProjectionConfig::default(),
            )?,
            text_projection: Linear::new(&scope.pp("text"), bucket, embed_dim, true)?,
            norm: Norm::new(&scope.pp("norm"), embed_dim, NormConfig::default())?,
            loss: ContrastiveLoss::new(&scope.pp("loss"), &ContrastiveConfig::default())?,
            transcripts: OnceLock::new(),
        })
    }

    /// The modality with speech.
    pub(super) fn modality(&self) -> Modality {
        Modality::from(self.config.modality.as_str())
    }

    /// Collects the transcripts of a data set that has the texts of all languages.
    ///
    /// # Errors
    /// When no value has a transcript in its language.
    pub(super) fn set_transcripts(&self, manifest: &Manifest) -> Result<()> {
        let modality = self.modality();
        let mut transcripts = HashMap::new();
        for (row_index, row) in manifest.rows.iter().enumerate() {
            let texts = row.values.get(&Modality::TEXT).map(Vec::as_slice).unwrap_or_default();
            let languages = (row.languages.get(&Modality::TEXT), row.languages.get(&modality));
            let (Some(text_languages), Some(speech_languages)) = languages else { continue };
            for (value_index, language) in speech_languages.iter().enumerate() {
                let Some(language) = language else { continue };
                let text = text_languages.iter().position(|l| l.as_ref() == Some(language));
                let Some(Source::Text(text)) = text.and_then(|n| texts.get(n)) else { continue };
                let ngrams = self.ngrams(text);
                if !ngrams.is_empty() {
                    transcripts.insert((row_index, value_index), Transcript { text: text.to_lowercase(), ngrams });
                }
            }
        }
        if transcripts.is_empty() {
            let found = format!("no value of {modality} in a language in which its row has a text");
            return Err(Error::invalid("transcript_ngram", found, "languages in the cells")
                .with_hint("write cells as {\"file\": …, \"language\": …}"));
        }
        tracing::info!("{} values of {modality} have a transcript", transcripts.len());
        self.transcripts.set(transcripts).ok();
        Ok(())
    }

    /// The indices of a text's n-grams.
    pub(super) fn ngrams(&self, text: &str) -> Vec<i64> {
        let of_word = |w: String| self.config.ngrams.ngrams(&w).map(i64::from).collect::<Vec<_>>();
        mm_repr::text::word_tokens(text).flat_map(of_word).collect()
    }

    /// Embeddings `[texts, embed_dim]` of texts by their n-grams.
    pub(super) fn embed_texts(&self, ngrams: &[&[i64]], device: Device, train: bool) -> mm_core::Result<Tensor> {
        let bucket = self.config.ngrams.bucket as usize;
        let mut bags = vec![0f32; ngrams.len() * bucket];
        for (bag, ngrams) in bags.chunks_mut(bucket).zip(ngrams) {
            ngrams.iter().for_each(|n| bag[*n as usize] += 1.0);
        }
        let bags = Tensor::from_vec(&bags, &[ngrams.len() as i64, bucket as i64])?.normalize()?.to_device(device)?;
        self.norm.forward(&self.text_projection.forward(&bags, train)?, train)?.normalize()
    }

    /// Embeddings `[rows, embed_dim]` of speech by its encoder's embeddings `[rows, speech_dim]`.
    pub(super) fn embed_speech(&self, embeddings: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        self.speech_projection.forward(embeddings, train)
    }
}

impl AuxiliaryLoss for TranscriptNgram {
    fn name(&self) -> &'static str {
        "transcript_ngram"
    }

    fn weight(&self) -> f64 {
        self.config.weight.get()
    }

    fn loss(&self, encoded: &EncodedBatch<'_>, train: bool) -> mm_core::Result<Option<Tensor>> {
        let modality = self.modality();
        let (Some(transcripts), Some(part), Some(features)) =
            (self.transcripts.get(), encoded.batch.modalities.get(&modality), encoded.features.get(&modality))
        else {
            return Ok(None);
        };
        let (mut positions, mut texts, mut ngrams) = (Vec::new(), Vec::new(), Vec::new());
        for (position, (row, value_index)) in part.rows.iter().zip(&part.source_index).enumerate() {
            let key = (encoded.batch.rows[*row], *value_index);
            let Some(transcript) = transcripts.get(&key) else { continue };
            positions.push(position as i64);
            texts.push(transcript.text.as_str());
            ngrams.push(transcript.ngrams.as_slice());
        }
        if positions.len() < 2 {
            return Ok(None);
        }
        let device = features.embeddings.device();
        let text = self.embed_texts(&ngrams, device, train)?;
        let positions = Tensor::from_slice(&positions)?.to_device(device)?;
        let speech = self.embed_speech(&features.embeddings.index_select(0, &positions)?, train)?;
        let same = equality_matrix(&texts)?.to_device(device)?;
        Ok(Some(self.loss.forward(&speech, &text, Some(&same))?))
    }
}
