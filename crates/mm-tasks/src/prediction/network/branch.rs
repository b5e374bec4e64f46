//! The branch of one modality: encoder, standardization, noise, context network, and its unimodal head.

use super::{
    super::config::{InputConfig, PredictionConfig},
    context::ContextNetwork,
    input::ForwardOptions,
    items::ItemLayout,
};
use crate::{
    Error, Result,
    inputs::{InputBranch, Standardizer},
};
use mm_core::{
    BuildContext, DType, Features, Input, Modality, Module, Pooling, Registry, Scope, Tensor,
    distributed::{gather_rows, randn_rows},
    nn::Linear,
};
use std::path::Path;

/// Standardized features are clamped to this many standard deviations.
const MAX_STANDARDIZED: f64 = 10.0;

/// The branch of one modality.
pub(in super::super) struct ModalityBranch {
    /// The encoder with its processor.
    pub(in super::super) input: InputBranch,
    /// Standardizes features with the statistics of the training rows.
    pub(in super::super) standardizer: Option<Standardizer>,
    /// Whether all positions of the encoder's features are used.
    sequence: bool,
    dropout: f64,
    noise_std: f64,
    context: Option<ContextNetwork>,
    head: Option<UnimodalHead>,
}

/// A head on one modality alone: two layers with GELU between them.
struct UnimodalHead {
    fc1: Linear,
    fc2: Linear,
}

/// The output of a unimodal head.
#[derive(Clone)]
pub(in super::super) struct UnimodalOutput {
    /// `[rows, outputs]`.
    pub(in super::super) logits: Tensor,
    /// `[rows]` f32: 1 where a row has the modality.
    pub(in super::super) present: Tensor,
    /// The hidden layer `[rows, hidden_dim]`.
    pub(in super::super) hidden: Tensor,
}

impl UnimodalOutput {
    /// The outputs for the rows of all processes.
    pub(super) fn gathered(self) -> mm_core::Result<Self> {
        Ok(Self {
            logits: gather_rows(&self.logits)?,
            present: gather_rows(&self.present)?,
            hidden: gather_rows(&self.hidden)?,
        })
    }
}

/// The features of one modality in a batch.
pub(in super::super) struct BranchOutput {
    /// `[rows, length, dim]`, zeros for rows without the modality.
    pub(in super::super) features: Features,
    /// `[rows]` bool: which rows have the modality.
    pub(in super::super) present: Tensor,
    /// The output of the head, where there is one.
    pub(in super::super) unimodal: Option<UnimodalOutput>,
}

impl ModalityBranch {
    /// Builds the branch in `scope`; returns its feature dimension as well.
    pub(super) fn new(
        scope: &Scope<'_>,
        modality: &Modality,
        input: &InputConfig,
        config: &PredictionConfig,
        num_outputs: i64,
        (base_dir, registry): (&Path, &Registry),
    ) -> Result<(Self, i64)> {
        let field = format!("inputs.{modality}.encoder");
        let Some(settings) = &input.encoder else {
            return Err(Error::invalid(field, "nothing", "an encoder"));
        };
        let context = BuildContext { scope: scope.pp("encoder"), base_dir: base_dir.to_owned(), field, registry };
        let mut built = InputBranch::build(settings, modality, registry, &context)?;
        let sequence = input.sequence || config.reasoning.is_some();
        built.frozen &= !sequence;
        built.num_views = input.num_views;
        let encoder = built.encoder()?;
        let encoder_dim = if sequence { encoder.dim() } else { encoder.embedding_dim() };
        let standardize = input.standardize.unwrap_or(false);
        let standardizer = standardize.then(|| Standardizer::new(scope, encoder_dim)).transpose()?;
        let context = config.context.as_ref();
        let context = context.map(|c| ContextNetwork::new(&scope.pp("context"), encoder_dim, c)).transpose()?;
        let dim = context.as_ref().map_or(encoder_dim, ContextNetwork::dim);
        let hidden_dim = config.fusion.dim.clamp(8, 256);
        let head =
            config.has_unimodal_heads().then(|| UnimodalHead::new(&scope.pp("head"), [dim, hidden_dim, num_outputs]));
        let branch = Self {
            input: built,
            standardizer,
            sequence,
            dropout: input.dropout.get(),
            noise_std: input.noise_std.get(),
            context,
            head: head.transpose()?,
        };
        Ok((branch, dim))
    }

    /// The encoder's features `[rows, length, dim]`; `input` holds the embeddings themselves when `is_precomputed`.
    pub(in super::super) fn encode(
        &self,
        input: &Input,
        is_precomputed: bool,
        train: bool,
    ) -> mm_core::Result<Features> {
        if is_precomputed {
            return Features::from_pooled(&input.values);
        }
        let encoder = self.input.encoder()?;
        if self.sequence { encoder.encode(input, train) } else { Features::from_pooled(&encoder.embed(input, train)?) }
    }

    /// Standardizes features, then adds noise and dropout.
    pub(super) fn perturb(
        &self,
        values: Tensor,
        modality: &Modality,
        options: ForwardOptions<'_>,
    ) -> mm_core::Result<Tensor> {
        let (train, device) = (options.train, values.device());
        let mut values = match &self.standardizer {
            Some(standardizer) => standardizer.apply(&values)?.clamp(-MAX_STANDARDIZED, MAX_STANDARDIZED)?,
            None => values,
        };
        if train && self.noise_std > 0.0 {
            let noise = randn_rows(&values.shape(), device)?;
            values = values.add(&noise.mul_scalar(self.noise_std)?)?;
        }
        let noise = options.feature_noise.filter(|(noisy, strength)| !train && *noisy == modality && *strength > 0.0);
        if let Some((_, strength)) = noise {
            let std = values.std_dim(&[0, 1], false, true)?.mul_scalar(strength)?; // [1, 1, dim]
            values = values.add(&Tensor::randn(&values.shape(), DType::F32, device)?.mul(&std)?)?;
        }
        values.dropout(self.dropout, train)
    }

    /// Applies the context network to one vector per row.
    pub(super) fn contextualize(
        &self,
        features: Features,
        items: Option<&ItemLayout>,
        train: bool,
    ) -> mm_core::Result<Features> {
        let (Some(context), Some(items)) = (&self.context, items) else { return Ok(features) };
        let x = items.gather(&features.values.squeeze(1)?)?;
        Features::from_pooled(&items.scatter(&context.forward(&x, &items.mask, train)?)?)
    }

    /// The output of the unimodal head; `None` without one.
    pub(super) fn predict(
        &self,
        features: &Features,
        present: &Tensor,
        dropout: f64,
        train: bool,
    ) -> mm_core::Result<Option<UnimodalOutput>> {
        let Some(UnimodalHead { fc1, fc2 }) = &self.head else { return Ok(None) };
        let x = features.pool(Pooling::Mean)?.dropout(dropout, train)?;
        let hidden = fc1.forward(&x, train)?.gelu()?;
        let logits = fc2.forward(&hidden.dropout(dropout, train)?, train)?;
        Ok(Some(UnimodalOutput { logits, present: present.to_dtype(DType::F32)?, hidden }))
    }
}

impl UnimodalHead {
    fn new(scope: &Scope<'_>, [dim, hidden_dim, num_outputs]: [i64; 3]) -> mm_core::Result<Self> {
        let fc1 = Linear::new(&scope.pp("fc1"), dim, hidden_dim, true)?;
        Ok(Self { fc1, fc2: Linear::new(&scope.pp("fc2"), hidden_dim, num_outputs, true)? })
    }
}
