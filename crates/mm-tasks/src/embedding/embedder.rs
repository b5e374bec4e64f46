//! Embedders: pretrained models and trained runs that map values to vectors.

use crate::{Error, Result, batch::SampleBatch, checkpoint::checkpoint_name};
use mm_core::{Modality, Pooling, Processor, Source, Tensor};
use mm_repr::Pretrained;
use std::{fs::File, path::Path, sync::Arc};

/// Embeds values of some modalities: a pretrained model or a trained run.
pub trait Embedder {
    /// The modalities that it takes.
    fn modalities(&self) -> Vec<Modality>;

    /// Turns raw values of a modality into samples.
    ///
    /// # Errors
    /// When it does not take the modality.
    fn processor(&self, modality: &Modality) -> Result<Arc<dyn Processor>>;

    /// Vectors `[samples, dim]` of samples.
    ///
    /// # Errors
    /// When it does not take the modality.
    fn embed_samples(&self, modality: &Modality, samples: &[Tensor], pooling: Option<Pooling>) -> Result<Tensor>;

    /// Changes whenever the vectors would.
    ///
    /// # Errors
    /// When the weights cannot be read.
    fn fingerprint(&self) -> Result<String>;

    /// Vectors `[sources, dim]` of raw values.
    ///
    /// # Errors
    /// When one of them cannot be read.
    fn embed(&self, modality: &Modality, sources: &[Source]) -> Result<Tensor> {
        let processor = self.processor(modality)?;
        let batch = SampleBatch::read(processor.as_ref(), &sources.iter().collect::<Vec<_>>());
        if let Some((_, error)) = batch.failed.into_iter().next() {
            return Err(error.into());
        }
        self.embed_samples(modality, &batch.samples, None)
    }
}

/// Hash of the weights of a run folder that are used.
pub(crate) fn run_fingerprint(run: Option<&Path>) -> Result<String> {
    let run = run.ok_or_else(|| Error::invalid("model", "one that is not trained", "one loaded from a run folder"))?;
    let weights = mm_train::Run::checkpoint_path(run, checkpoint_name(run));
    let mut hasher = blake3::Hasher::new();
    let hashed = File::open(&weights).and_then(|file| hasher.update_reader(file).map(drop));
    hashed.map_err(|e| Error::file(&weights, e))?;
    Ok(hasher.finalize().to_hex().to_string())
}

impl Embedder for Pretrained {
    fn modalities(&self) -> Vec<Modality> {
        Pretrained::modalities(self)
    }

    fn processor(&self, modality: &Modality) -> Result<Arc<dyn Processor>> {
        Ok(Arc::clone(&self.tower(modality)?.processor))
    }

    fn embed_samples(&self, modality: &Modality, samples: &[Tensor], pooling: Option<Pooling>) -> Result<Tensor> {
        Ok(Pretrained::embed_samples(self, modality, samples, pooling)?)
    }

    fn fingerprint(&self) -> Result<String> {
        Ok(Pretrained::fingerprint(self)?.to_owned())
    }
}
