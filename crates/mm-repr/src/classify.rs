//! Classes of values: a checkpoint's own, or zero-shot by the texts of candidate labels.

use crate::{Error, Pretrained, Result};
use mm_core::{Modality, Source, Tensor};

/// The score of a class.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassScore {
    /// The class's name.
    pub label: String,
    /// Its probability.
    pub score: f32,
    /// Its score before softmax or sigmoid.
    pub logit: f32,
}

/// Candidate labels of zero-shot classification, embedded once for any number of values.
///
/// Source: *[Learning Transferable Visual Models From Natural Language Supervision](https://arxiv.org/abs/2103.00020)*
/// (Radford et al., 2021).
pub struct CandidateLabels {
    labels: Vec<String>,
    /// One unit-length vector for each label, `[labels, dim]`: the mean over its prompts.
    embeddings: Tensor,
}

impl CandidateLabels {
    /// The prompt around a label where none is given, with `{}` for the label.
    pub fn default_template(modality: &Modality) -> &'static str {
        if *modality == Modality::AUDIO { "This is a sound of {}." } else { "a photo of a {}" }
    }

    /// Embeds labels in prompts, in which `{}` stands for the label; the vectors of several prompts are averaged.
    ///
    /// # Errors
    /// If the model does not embed text.
    pub fn embed(model: &Pretrained, labels: &[String], templates: &[String]) -> Result<Self> {
        let mut rows = Vec::with_capacity(labels.len());
        for label in labels {
            let texts: Vec<Source> = templates.iter().map(|t| Source::Text(t.replace("{}", label.trim()))).collect();
            rows.push(model.embed(&Modality::TEXT, &texts, None)?.mean_dim(&[0], false)?);
        }
        let embeddings = Tensor::stack(&rows.iter().collect::<Vec<_>>(), 0)?.normalize()?;
        Ok(Self { labels: labels.to_vec(), embeddings })
    }
}

impl Pretrained {
    /// The checkpoint's own classes of each value, most probable first.
    ///
    /// # Errors
    /// If the model has no classifier, or one whose scores are not of classes (regression, rerankers), or a value
    /// cannot be read.
    pub fn classify(&self, modality: &Modality, sources: &[Source]) -> Result<Vec<Vec<ClassScore>>> {
        if let Some(reason) = &self.no_classes
            && self.tower(modality)?.encoder.has_classifier()
        {
            return Err(Error::folder(self.folder().join("config.json"), reason.as_str()));
        }
        rank(&self.logits(modality, sources)?, &self.labels, self.multi_label)
    }

    /// The candidate labels of each value, most probable first.
    ///
    /// # Errors
    /// If the model does not embed text in the same space, or a value cannot be read.
    pub fn classify_zero_shot(
        &self,
        modality: &Modality,
        sources: &[Source],
        candidates: &CandidateLabels,
    ) -> Result<Vec<Vec<ClassScore>>> {
        let reason = "zero-shot classification needs a model that embeds text in the same space (CLIP, SigLIP, CLAP)";
        let head = self.contrastive_head.ok_or_else(|| Error::folder(self.folder(), reason))?;
        let cosines = self.embed(modality, sources, None)?.matmul(&candidates.embeddings.transpose(0, 1)?)?;
        let logits = cosines.mul_scalar(head.logit_scale)?.add_scalar(head.logit_bias.unwrap_or(0.0))?;
        rank(&logits, &candidates.labels, head.logit_bias.is_some())
    }
}

/// The classes of each row of `[rows, classes]`, most probable first. Labels that do not exclude each other each have a
/// probability of their own.
fn rank(logits: &Tensor, labels: &[String], multi_label: bool) -> Result<Vec<Vec<ClassScore>>> {
    let scores = if multi_label { logits.sigmoid()? } else { logits.softmax(-1)? };
    let (scores, logits) = (scores.to_vec::<f32>()?, logits.to_vec::<f32>()?);
    let classes = labels.len().max(1);
    let row = |(scores, logits): (&[f32], &[f32])| {
        let class = |((label, score), logit): ((&String, &f32), &f32)| ClassScore {
            label: label.clone(),
            score: *score,
            logit: *logit,
        };
        let mut row: Vec<ClassScore> = labels.iter().zip(scores).zip(logits).map(class).collect();
        // Stable: of equal logits the first label comes first.
        row.sort_by(|a, b| b.logit.total_cmp(&a.logit));
        row
    };
    Ok(scores.chunks(classes).zip(logits.chunks(classes)).map(row).collect())
}
