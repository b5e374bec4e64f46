//! From the backbone's features to an embedding and to class scores.

use super::backbone::VitBackbone;
use crate::family::PretrainedEncoder;
use mm_core::{
    Encoder, Features, Input, Modality, Module, Pooling, Result, Tensor,
    nn::{Linear, Norm},
};

/// The features that a classifier receives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ClassifierPooling {
    /// The class token.
    ClassToken,
    /// Two classifiers, one on the class token and one on the distillation token, whose scores are averaged.
    TwoClassifiers,
    /// The mean of class and distillation token.
    MeanOfTwoTokens,
    /// The class token concatenated with the mean of all tokens from this index on.
    ClassTokenAndMean(i64),
    /// The mean of all tokens from this index on.
    MeanFrom(i64),
}

impl ClassifierPooling {
    /// `[batch, tokens, embed_dim]` → `[batch, dim]`.
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        let mean_from = |n: i64| x.narrow(1, n, x.size(1)? - n)?.mean_dim(&[1], false);
        match self {
            Self::ClassToken => x.select(1, 0),
            Self::TwoClassifiers | Self::MeanOfTwoTokens => x.narrow(1, 0, 2)?.mean_dim(&[1], false),
            Self::ClassTokenAndMean(n) => Tensor::cat(&[&x.select(1, 0)?, &mean_from(n)?], -1),
            Self::MeanFrom(n) => mean_from(n),
        }
    }
}

/// A backbone with its family's embedding and, where the checkpoint has them, classifiers.
pub(crate) struct VitModel {
    pub(crate) backbone: VitBackbone,
    /// How the embedding is pooled; `None` is the mean over all tokens.
    pub(crate) embedding_pooling: Option<ClassifierPooling>,
    pub(crate) classifier_pooling: ClassifierPooling,
    /// Normalizes the pooled features.
    pub(crate) norm: Option<Norm>,
    pub(crate) classifiers: Vec<Linear>,
}

impl Encoder for VitModel {
    fn encode(&self, input: &Input, train: bool) -> Result<Features> {
        self.backbone.encode(input, train)
    }

    fn embed(&self, input: &Input, train: bool) -> Result<Tensor> {
        Ok(self.encode_and_embed(input, train)?.1)
    }

    fn encode_and_embed(&self, input: &Input, train: bool) -> Result<(Features, Tensor)> {
        let features = self.backbone.encode(input, train)?;
        let embedding = match self.embedding_pooling {
            Some(pooling) => {
                let x = pooling.apply(&features.values)?;
                self.norm.as_ref().map_or_else(|| Ok(x.clone()), |n| n.forward(&x, train))?
            }
            None => features.pool(Pooling::Mean)?,
        };
        Ok((features, embedding))
    }

    fn dim(&self) -> i64 {
        self.backbone.embed_dim
    }

    fn modality(&self) -> Modality {
        self.backbone.modality()
    }
}

impl PretrainedEncoder for VitModel {
    fn has_classifier(&self) -> bool {
        !self.classifiers.is_empty()
    }

    fn logits(&self, input: &Input) -> Result<Option<Tensor>> {
        let Some(first) = self.classifiers.first() else { return Ok(None) };
        let x = self.backbone.encode(input, false)?.values;
        if let (ClassifierPooling::TwoClassifiers, Some(second)) = (self.classifier_pooling, self.classifiers.get(1)) {
            let sum = first.forward(&x.select(1, 0)?, false)?.add(&second.forward(&x.select(1, 1)?, false)?)?;
            return Ok(Some(sum.mul_scalar(0.5)?));
        }
        let mut y = self.classifier_pooling.apply(&x)?;
        if let Some(norm) = &self.norm {
            y = norm.forward(&y, false)?;
        }
        first.forward(&y, false).map(Some)
    }
}
