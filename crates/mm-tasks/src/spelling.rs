//! What a voice says, as it is written: beside its place in the shared space, an encoder of speech learns to find the text of its row in
//! its own language among those of the batch, each text a bag of letter n-grams (fastText's, Bojanowski 2017). Speech of many
//! languages, matched to captions of one, is told little by each pair; letters tell it what was said. In training alone.

use crate::{
    Error, Result,
    retrieval::{Projection, ProjectionConfig, equal},
};
use mm_align::{ContrastiveConfig, ContrastiveLoss};
use mm_core::{
    Device, Modality, Module, Scope, Source, Tensor,
    nn::{Linear, Norm, NormConfig},
};
use mm_data::{Manifest, ModalityBatch};
use mm_repr::word2vec::SubwordConfig;
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, sync::OnceLock};

/// Settings of learning by what is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpellingConfig {
    /// The modality that is spoken; its values, and the texts of their rows, say their language.
    pub modality: String,
    /// Weight of this loss beside the mean of the others.
    #[serde(default = "one")]
    pub weight: f64,
    /// n-grams, shortest and longest, and how many there are to be hashed into.
    #[serde(default = "grams")]
    pub grams: SubwordConfig,
}

fn one() -> f64 {
    1.0
}

fn grams() -> SubwordConfig {
    SubwordConfig { min_n: 1, max_n: 4, bucket: 4096 }
}

/// Most buckets: each text is a row of so many numbers.
const MOST_BUCKETS: u32 = 1 << 16;

/// The two heads and their loss.
pub(crate) struct Spelling {
    config: SpellingConfig,
    spoken: Projection,
    letters: Linear,
    norm: Norm,
    loss: ContrastiveLoss,
    /// Of each row and value: the text that it says and its n-grams.
    written: OnceLock<Written>,
}

type Written = HashMap<(usize, usize), (String, Vec<i64>)>;

impl Spelling {
    /// Heads under `scope` over an encoder's embeddings of `input`.
    pub fn new(scope: &Scope<'_>, input: i64, width: i64, config: &SpellingConfig) -> Result<Self> {
        let grams = &config.grams;
        if grams.min_n < 1
            || grams.max_n < grams.min_n
            || !(1..=MOST_BUCKETS).contains(&grams.bucket)
            || config.weight < 0.0
        {
            return Err(Error::Config(format!(
                "spelling: found n-grams from {} to {} in {} buckets, weight {}; wanted 1 or more letters, the shorter first, 1 to {MOST_BUCKETS} buckets, and no negative weight",
                grams.min_n, grams.max_n, grams.bucket, config.weight
            )));
        }
        Ok(Self {
            config: config.clone(),
            spoken: Projection::new(&scope.pp("spoken"), input, width, &ProjectionConfig::default())?,
            letters: Linear::new(&scope.pp("letters"), grams.bucket.into(), width, true)?,
            norm: Norm::new(&scope.pp("norm"), width, NormConfig::default())?,
            loss: ContrastiveLoss::new(&scope.pp("loss"), &ContrastiveConfig::default())?,
            written: OnceLock::new(),
        })
    }

    pub fn weight(&self) -> f64 {
        self.config.weight
    }

    pub fn modality(&self) -> &str {
        &self.config.modality
    }

    /// Finds what each value of the modality says; `manifest` has the texts of all languages.
    pub fn read(&self, manifest: &Manifest) -> Result<()> {
        let modality = Modality::from(self.config.modality.as_str());
        let mut written = Written::new();
        for (number, row) in manifest.rows.iter().enumerate() {
            let none = Vec::new();
            let texts = row.values.get(&Modality::TEXT).unwrap_or(&none);
            let (Some(of_texts), Some(of_values)) = (row.languages.get(&Modality::TEXT), row.languages.get(&modality))
            else {
                continue;
            };
            for (place, language) in of_values.iter().enumerate() {
                let Some(language) = language else { continue };
                let said = of_texts.iter().position(|l| l.as_ref() == Some(language));
                let Some(Source::Text(text)) = said.and_then(|p| texts.get(p)) else { continue };
                let (text, grams) = (text.to_lowercase(), self.grams(text));
                if !grams.is_empty() {
                    written.insert((number, place), (text, grams));
                }
            }
        }
        if written.is_empty() {
            return Err(Error::Config(format!(
                "spelling: no value of {modality} has a language in which its row has a text; cells must say {{\"file\": …, \"language\": …}}"
            )));
        }
        tracing::info!("{} of {modality} have a text in their own language", written.len());
        self.written.set(written).ok();
        Ok(())
    }

    /// The rows of a text's n-grams.
    pub fn grams(&self, text: &str) -> Vec<i64> {
        let each = |w: String| self.config.grams.ngrams(&w).map(i64::from).collect::<Vec<_>>();
        mm_repr::text::word_tokens(text).flat_map(each).collect()
    }

    /// Texts by their n-grams, `[texts, width]`.
    pub fn letters(&self, grams: &[&[i64]], device: Device, train: bool) -> mm_core::Result<Tensor> {
        let buckets = self.config.grams.bucket as usize;
        let mut bags = vec![0f32; grams.len() * buckets];
        for (bag, grams) in bags.chunks_mut(buckets).zip(grams) {
            grams.iter().for_each(|g| bag[*g as usize] += 1.0);
        }
        let bags = Tensor::from_vec(&bags, &[grams.len() as i64, buckets as i64])?.normalize()?.to_device(device)?;
        self.norm.forward(&self.letters.forward(&bags, train)?, train)?.normalize()
    }

    /// Voices by their encoder's embeddings, `[voices, width]`.
    pub fn spoken(&self, embedded: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        self.spoken.forward(embedded, train)
    }

    /// The loss of a batch's embeddings `[rows of the part, input]`; `rows` are the manifest's, of the whole batch. `None` where fewer
    /// than two are written.
    pub fn loss(
        &self,
        embedded: &Tensor,
        part: &ModalityBatch,
        rows: &[usize],
        train: bool,
    ) -> mm_core::Result<Option<Tensor>> {
        let Some(written) = self.written.get() else { return Ok(None) };
        let (mut places, mut texts, mut grams) = (Vec::new(), Vec::new(), Vec::new());
        for (place, (row, chosen)) in part.rows.iter().zip(&part.source_index).enumerate() {
            let Some((text, own)) = written.get(&(rows[*row], *chosen)) else { continue };
            places.push(place as i64);
            texts.push(text.as_str());
            grams.push(own.as_slice());
        }
        if places.len() < 2 {
            return Ok(None);
        }
        let device = embedded.device();
        let letters = self.letters(&grams, device, train)?;
        let spoken =
            self.spoken(&embedded.index_select(0, &Tensor::from_slice(&places)?.to_device(device)?)?, train)?;
        let same = equal(&texts)?.to_device(device)?;
        Ok(Some(self.loss.forward(&spoken, &letters, Some(&same))?))
    }
}
