//! Classes of values: a checkpoint's own, or zero-shot by the texts of candidate labels.

use crate::{ContrastiveHead, Error, Pretrained, Result};
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

/// What the scores of a classifier are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// Their names, in the order of the scores.
    pub labels: Vec<String>,
    /// Whether a value may belong to several classes, so that each score is a probability of its own.
    pub multi_label: bool,
}

impl Classes {
    /// The classes of one value by its scores before softmax or sigmoid (one for each label), most probable first.
    pub fn rank(&self, logits: &[f32]) -> Vec<ClassScore> {
        let exp = |logit: f32, max: f32| f64::from(logit - max).exp();
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| exp(*logit, max)).sum();
        let score = |logit: f32| if self.multi_label { sigmoid(logit) } else { exp(logit, max) / sum };
        let class = |(label, logit): (&String, &f32)| ClassScore {
            label: label.clone(),
            score: score(*logit) as f32,
            logit: *logit,
        };
        let mut classes: Vec<ClassScore> = self.labels.iter().zip(logits).map(class).collect();
        // Stable: of equal logits the first label comes first.
        classes.sort_by(|a, b| b.logit.total_cmp(&a.logit));
        classes
    }

    /// Like [`Self::rank`], for each row of `[rows, classes]`.
    fn rank_rows(&self, logits: &Tensor) -> Result<Vec<Vec<ClassScore>>> {
        let logits = logits.to_vec::<f32>()?;
        Ok(logits.chunks(self.labels.len().max(1)).map(|row| self.rank(row)).collect())
    }
}

pub(crate) fn sigmoid(logit: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(logit)).exp())
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
        let texts: Vec<Source> = Self::prompts(labels, templates).into_iter().map(Source::Text).collect();
        Self::new(labels, &model.embed(&Modality::TEXT, &texts, None)?)
    }

    /// The texts to be embedded: each label in each template, in which `{}` stands for it.
    pub fn prompts(labels: &[String], templates: &[String]) -> Vec<String> {
        let prompts = |label: &String| {
            let label = label.trim().to_owned();
            templates.iter().map(move |template| template.replace("{}", &label))
        };
        labels.iter().flat_map(prompts).collect()
    }

    /// Labels of whose [`Self::prompts`] the embeddings are known, `[labels × templates, dim]`.
    ///
    /// # Errors
    /// If there are no labels, or the rows are no multiple of their number.
    pub fn new(labels: &[String], embeddings: &Tensor) -> Result<Self> {
        let prompts = embeddings.reshape(&[labels.len() as i64, -1, embeddings.size(-1)?])?;
        Ok(Self { labels: labels.to_vec(), embeddings: prompts.mean_dim(&[1], false)?.normalize()? })
    }

    /// The labels of each of the embeddings `[values, dim]` of the same model, most probable first.
    ///
    /// # Errors
    /// If the embeddings have another size than those of the labels.
    pub fn rank(&self, head: ContrastiveHead, embeddings: &Tensor) -> Result<Vec<Vec<ClassScore>>> {
        let cosines = embeddings.matmul(&self.embeddings.transpose(0, 1)?)?;
        let logits = cosines.mul_scalar(head.logit_scale)?.add_scalar(head.logit_bias.unwrap_or(0.0))?;
        Classes { labels: self.labels.clone(), multi_label: head.logit_bias.is_some() }.rank_rows(&logits)
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
        self.classes.rank_rows(&self.logits(modality, sources)?)
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
        candidates.rank(head, &self.embed(modality, sources, None)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(multi_label: bool, logits: &[f32]) -> Vec<(String, f32, f32)> {
        let labels = ["a", "b", "c"].map(str::to_owned).to_vec();
        let classes = Classes { labels, multi_label }.rank(logits);
        classes.into_iter().map(|class| (class.label, class.score, class.logit)).collect()
    }

    #[test]
    fn classes_are_ranked_by_their_probability() {
        let near = |found: f32, expected: f64| (f64::from(found) - expected).abs() < 1e-6;
        // Large logits overflow nothing.
        let all = ranked(false, &[1000.0, 1002.0, 1001.0]);
        assert_eq!(all.iter().map(|(label, ..)| label.as_str()).collect::<Vec<_>>(), ["b", "c", "a"]);
        // exp(2), exp(1) and 1, by their sum.
        assert!(near(all[0].1, 0.665_240_96) && near(all[1].1, 0.244_728_47) && near(all[2].1, 0.090_030_57));
        assert_eq!(all[0].2, 1002.0);
        let each = ranked(true, &[0.0, 2.0, 0.0]);
        // Of equal logits the first label comes first.
        assert_eq!(each.iter().map(|(label, ..)| label.as_str()).collect::<Vec<_>>(), ["b", "a", "c"]);
        assert!(near(each[0].1, 0.880_797_08) && near(each[1].1, 0.5));
    }

    #[test]
    fn prompts_of_a_label_are_averaged() {
        let labels = ["dog".to_owned(), " cat ".to_owned()];
        let templates = ["a {}".to_owned(), "the {}".to_owned()];
        assert_eq!(CandidateLabels::prompts(&labels, &templates), ["a dog", "the dog", "a cat", "the cat"]);
        let rows = Tensor::from_vec(&[1.0f32, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0], &[4, 2]).unwrap();
        let candidates = CandidateLabels::new(&labels, &rows).unwrap();
        let head = ContrastiveHead { logit_scale: 10.0, logit_bias: None };
        let value = Tensor::from_vec(&[0.0f32, 1.0], &[1, 2]).unwrap();
        let classes = candidates.rank(head, &value).unwrap();
        assert_eq!((classes[0][0].label.trim(), classes[0][0].logit, classes[0][1].logit), ("cat", 10.0, 0.0));
        // Embeddings of other prompts, or none.
        assert!(CandidateLabels::new(&labels, &rows.narrow(0, 0, 3).unwrap()).is_err());
    }
}
