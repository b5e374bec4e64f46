//! Attention maps of the positions of one value over those of another, with `[cross_attention]`.

use super::{cross_attention::Role, model::Retrieval};
use crate::{Result, batch::SampleBatch, report::attention_image};
use image::RgbImage;
use mm_core::{Features, Modality, Source, Tensor, no_grad};

/// Attention of the positions of one value over the positions of another.
#[derive(Debug, Clone)]
pub struct AttentionMap {
    /// The attended value as its encoder takes it: an image `[3, height, width]`, a spectrogram `[frames, mels]`.
    pub input: Tensor,
    /// Rows and columns of the positions: a square of image patches, one row of audio frames.
    pub grid: [usize; 2],
    /// The name of each query (empty where it has none), and its weights over the grid, which sum to one.
    pub queries: Vec<(String, Vec<f32>)>,
}

impl AttentionMap {
    /// The input and, for each word, the input with its attention overlaid.
    pub fn image(&self) -> Result<RgbImage> {
        attention_image(&self.input, self.grid, &self.queries)
    }
}

impl Retrieval {
    /// The modalities of queries and keys of `[cross_attention]`.
    pub fn attention_modalities(&self) -> Option<[&Modality; 2]> {
        self.cross_attention.as_ref().map(super::cross_attention::CrossAttention::modalities)
    }

    /// Where the positions of `query` attend in `key`; `None` without `[cross_attention]`.
    pub fn attention_map(&self, query: &Source, key: &Source) -> Result<Option<AttentionMap>> {
        let Some(attention) = &self.cross_attention else { return Ok(None) };
        let [query_modality, key_modality] = attention.modalities();
        let positions = |role: Role, modality: &Modality, source: &Source| -> Result<(Tensor, Features)> {
            let input = &self.tower(modality)?.input;
            let mut batch = SampleBatch::read(input.processor.as_ref(), &[source]);
            if let Some((_, error)) = batch.failed.pop() {
                return Err(error.into());
            }
            let collated = mm_data::collate(&batch.samples, input.processor.as_ref())?;
            let collated = collated.to_device(self.params.device())?;
            let features = no_grad(|| attention.project(role, &input.encoder()?.encode(&collated, false)?, false))?;
            Ok((batch.samples.remove(0), features))
        };
        let (_, queries) = positions(Role::Query, query_modality, query)?;
        let (input, keys) = positions(Role::Key, key_modality, key)?;
        let map = no_grad(|| attention.attention_map(&queries, &keys))?; // [queries, keys]
        let columns = map.size(1)? as usize;
        let size = (columns as f64).sqrt().round() as usize;
        let is_square = *key_modality == Modality::IMAGE && size * size == columns;
        let grid = if is_square { [size, size] } else { [1, columns] };
        let weights = map.to_vec::<f32>()?;
        let names = self.tower(query_modality)?.input.processor.token_names(query)?;
        let names = names.into_iter().chain(std::iter::repeat(String::new()));
        let queries = weights.chunks(columns.max(1)).zip(names).map(|(w, name)| (name, w.to_vec())).collect();
        Ok(Some(AttentionMap { input, grid, queries }))
    }
}
