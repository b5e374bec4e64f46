//! One modality of a model: its encoder, the processor in front of it, and how its values are prepared for training.

pub(crate) use crate::features::Resources;
use crate::{Error, ProgressFn, Result, features::FrozenEncoder};
use mm_core::{BuildContext, Encoder, Init, Modality, Processor, Registry, Scope, Source, Tensor};
use mm_data::{CachedProcessor, Manifest, Split};
use std::{collections::BTreeMap, sync::Arc};

/// The input branch of one modality.
pub(crate) struct InputBranch {
    /// The encoder; `None` where the model takes the processed values themselves.
    pub(crate) encoder: Option<Box<dyn Encoder>>,
    /// Turns raw values into samples.
    pub(crate) processor: Arc<dyn Processor>,
    /// Whether the encoder's weights are fixed, so that its features can be cached.
    pub(crate) frozen: bool,
    /// Changes whenever the features of a frozen encoder would.
    pub(crate) fingerprint: String,
    /// Augmented views of each value that are cached next to the plain one.
    pub(crate) num_views: usize,
    /// Whether the features of each position are cached below the vector.
    pub(crate) positions: bool,
}

impl InputBranch {
    /// Builds the encoder that `settings` name.
    ///
    /// # Errors
    /// When it is not an encoder of `modality`.
    pub(crate) fn build(
        settings: &toml::Value,
        modality: &Modality,
        encoders: &Registry,
        context: &BuildContext<'_>,
    ) -> Result<Self> {
        let built = encoders.build(settings, context)?;
        let found = built.encoder.modality();
        if found != *modality {
            let expected = format!("an encoder of {modality}");
            return Err(Error::invalid(context.field.clone(), format!("an encoder of {found}"), expected));
        }
        Ok(Self {
            encoder: Some(built.encoder),
            processor: built.processor,
            frozen: built.frozen,
            fingerprint: built.fingerprint,
            num_views: 0,
            positions: false,
        })
    }

    /// The encoder.
    ///
    /// # Errors
    /// When the model takes processed values without one.
    pub(crate) fn encoder(&self) -> mm_core::Result<&dyn Encoder> {
        self.encoder.as_deref().ok_or_else(|| mm_core::Error::config("encoder", "none", "an encoder"))
    }

    /// The frozen encoder with its processor; `None` when its weights are trained.
    pub(crate) fn frozen_encoder(&self) -> Option<FrozenEncoder<'_>> {
        let encoder = self.encoder.as_deref().filter(|_| self.frozen)?;
        Some(FrozenEncoder {
            encoder,
            processor: &self.processor,
            fingerprint: format!("{} {}", self.fingerprint, self.processor.fingerprint()),
            num_views: self.num_views,
            positions: self.positions,
        })
    }

    /// The processor that a loader needs. Values that a frozen encoder has not seen yet are encoded into the cache, and
    /// the processor reads the features from there; without a frozen encoder, decoded files are cached.
    pub(crate) fn prepare<'s>(
        &self,
        modality: &Modality,
        sources: impl Iterator<Item = &'s Source> + Clone,
        resources: &Resources<'_>,
        on_progress: ProgressFn<'_>,
    ) -> Result<Arc<dyn Processor>> {
        match self.frozen_encoder() {
            Some(encoder) => Ok(Arc::new(encoder.encode_missing(modality, sources, resources, on_progress)?)),
            None if sources.clone().any(|s| matches!(s, Source::Path(_) | Source::Bytes(_))) => {
                Ok(Arc::new(CachedProcessor::new(self.processor.clone(), resources.cache.clone())))
            }
            None => Ok(self.processor.clone()),
        }
    }
}

/// Adds the setting of an encoder that is derived from the training values of its modality, where the config leaves it
/// out.
///
/// # Errors
/// When the values are unsuitable.
pub(crate) fn complete_encoder(
    settings: &mut toml::Value,
    modality: &Modality,
    manifest: &Manifest,
    encoders: &Registry,
) -> Result<()> {
    let train = manifest.rows_in_split(Split::Train);
    let values: Vec<&Source> = train.iter().filter_map(|r| manifest.rows[*r].values.get(modality)?.first()).collect();
    Ok(encoders.complete(settings, &values)?)
}

/// The processors of several branches, for all values of a data set.
pub(crate) fn prepare_inputs<'b>(
    branches: impl Iterator<Item = (&'b Modality, &'b InputBranch)>,
    manifest: &Manifest,
    resources: &Resources<'_>,
    on_progress: ProgressFn<'_>,
) -> Result<BTreeMap<Modality, Arc<dyn Processor>>> {
    let mut processors = BTreeMap::new();
    for (modality, branch) in branches {
        let sources = manifest.rows.iter().filter_map(|r| r.values.get(modality)).flatten();
        let processor = branch.prepare(modality, sources, resources, &mut *on_progress)?;
        processors.insert(modality.clone(), processor);
    }
    Ok(processors)
}

/// Mean and standard deviation that features are standardized by: buffers, fitted on training rows.
pub(crate) struct Standardizer {
    mean: Tensor,
    std: Tensor,
}

impl Standardizer {
    /// Buffers of `dim` values (1 for one mean of all elements).
    pub(crate) fn new(scope: &Scope<'_>, dim: i64) -> Result<Self> {
        let mean = scope.buffer("mean", &[dim], Init::Zeros)?;
        Ok(Self { mean, std: scope.buffer("std", &[dim], Init::Ones)? })
    }

    /// `(x - mean) / std`.
    pub(crate) fn apply(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        x.sub(&self.mean)?.div(&self.std)
    }

    /// Computes mean and standard deviation of `[rows, dim]`, or of all elements where the buffers hold one value.
    pub(crate) fn fit(&self, values: &Tensor) -> Result<()> {
        if self.mean.numel() > 1 {
            self.mean.copy_(&values.mean_dim(&[0], false)?)?;
            self.std.copy_(&values.std_dim(&[0], false, false)?.clamp_min(1e-4)?)?;
        } else {
            let mean = values.mean()?;
            let std = values.sub(&mean)?.pow(2.0)?.mean()?.sqrt()?.clamp_min(1e-4)?;
            self.mean.copy_(&mean.reshape(&[1])?)?;
            self.std.copy_(&std.reshape(&[1])?)?;
        }
        Ok(())
    }

    /// Sets mean and standard deviation `[dim]`.
    pub(crate) fn set_stats(&self, mean: &Tensor, std: &Tensor) -> Result<()> {
        self.mean.copy_(mean)?;
        self.std.copy_(std)?;
        Ok(())
    }

    /// Takes mean and standard deviation from another standardizer.
    pub(crate) fn copy_stats(&self, other: &Self) -> Result<()> {
        self.set_stats(&other.mean, &other.std)
    }
}
