//! The outputs of a model for rows of a data set.

use super::{
    model::{Prediction, PreparedInputs},
    network::{ForwardOptions, NetworkInput, Outputs, Saliency},
};
use crate::{
    Result,
    batch::{BATCH_SIZE, RowBatch},
};
use mm_core::{
    DType, Device, Modality, Tensor,
    distributed::{SentTensor, map_over_ranks},
    no_grad,
};
use mm_data::{FailedSample, Manifest, collate, group_rows_by_item};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::atomic::AtomicBool};

/// Items that are predicted together where the network needs all rows of an item.
const BATCH_ITEMS: usize = 8;

/// Options for predicting rows.
#[derive(Clone, Copy, Default)]
pub(super) struct InferenceOptions<'a> {
    /// Modalities that are treated as missing.
    pub(super) exclude: &'a [Modality],
    /// Gaussian noise on the features of one modality, in their standard deviations.
    pub(super) feature_noise: Option<(&'a Modality, f64)>,
    /// Whether saliency is computed.
    pub(super) saliency: bool,
}

/// Outputs for some rows, on the CPU.
pub(super) struct RowOutputs {
    /// The rows, by index in [`Manifest::rows`].
    pub(super) rows: Vec<usize>,
    /// Outputs of the fused head, `[rows, outputs]`.
    pub(super) fused: Tensor,
    /// Outputs of each unimodal head, `[rows, outputs]`, and `[rows]` f32, 1 where a row has the modality.
    pub(super) unimodal: BTreeMap<Modality, (Tensor, Tensor)>,
    /// The modalities of each row.
    pub(super) present: Vec<Vec<Modality>>,
    /// The weight of each modality in each row, where the fusion operator reports it.
    pub(super) modality_weights: BTreeMap<Modality, Vec<f64>>,
    /// Values that could not be read; their rows were predicted without them.
    pub(super) failed: Vec<FailedSample>,
    /// Saliency of each row; empty unless requested.
    pub(super) saliency: Vec<Saliency>,
}

/// The rows of one batch.
struct Batch<'a> {
    input: NetworkInput<'a>,
    present: Vec<Vec<Modality>>,
    failed: Vec<FailedSample>,
}

impl Prediction {
    /// The outputs for rows of its own data set, through the cache.
    pub(super) fn predict_cached(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        options: InferenceOptions<'_>,
    ) -> Result<RowOutputs> {
        let inputs = self.prepare(manifest, rows, &AtomicBool::new(false), &mut |_, _, _| {})?;
        self.predict_rows(manifest, rows, &inputs, options)
    }

    /// The outputs for rows. Values that cannot be read are treated as missing.
    pub(super) fn predict_rows(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        inputs: &PreparedInputs,
        options: InferenceOptions<'_>,
    ) -> Result<RowOutputs> {
        let batches: Vec<Vec<usize>> = if self.network.groups_items() {
            group_rows_by_item(manifest, rows).chunks(BATCH_ITEMS).map(<[Vec<usize>]>::concat).collect()
        } else {
            rows.chunks(BATCH_SIZE).map(<[usize]>::to_vec).collect()
        };
        // Processes that train together have a part of the batches each.
        let outputs = map_over_ranks(batches, |rows| self.predict_batch(manifest, rows, inputs, options))?;
        collect(outputs, self.target.num_outputs())
    }

    fn predict_batch(
        &self,
        manifest: &Manifest,
        rows: Vec<usize>,
        inputs: &PreparedInputs,
        options: InferenceOptions<'_>,
    ) -> Result<BatchOutputs> {
        let forward = ForwardOptions { train: false, feature_noise: options.feature_noise, saliency: options.saliency };
        let items: Vec<String> = rows.iter().map(|r| manifest.rows[*r].item.clone()).collect();
        let Batch { input, present, failed } = read_batch(manifest, &rows, &items, inputs, options.exclude)?;
        let outputs = if input.parts.is_empty() {
            Outputs::without_input(rows.len(), self.target.num_outputs())?
        } else {
            no_grad(|| self.network.forward(&input, self.params.device(), forward))?
        };
        let fused = outputs.fused.to_device(Device::Cpu)?;
        let mut unimodal = BTreeMap::new();
        for modality in self.network.branches.keys().filter(|_| self.config.has_unimodal_heads()) {
            let (logits, flags) = if let Some(head) = outputs.unimodal.get(modality) {
                (head.logits.to_device(Device::Cpu)?, head.present.to_device(Device::Cpu)?)
            } else {
                // No row of the batch has the modality.
                let zeros = fused.zeros_like()?;
                let flags = zeros.select(1, 0)?;
                (zeros, flags)
            };
            unimodal.insert(modality.clone(), (SentTensor(logits), SentTensor(flags)));
        }
        let weights = outputs.modality_weights.iter().map(|(m, weights)| Ok((m.clone(), weights.to_vec::<f64>()?)));
        let modality_weights = weights.collect::<Result<_>>()?;
        let saliency = if options.saliency { outputs.saliency(rows.len())? } else { Vec::new() };
        Ok(BatchOutputs { rows, fused: SentTensor(fused), unimodal, present, modality_weights, failed, saliency })
    }
}

/// Reads the values of a batch, in parallel.
fn read_batch<'a>(
    manifest: &Manifest,
    rows: &[usize],
    items: &'a [String],
    inputs: &'a PreparedInputs,
    exclude: &[Modality],
) -> Result<Batch<'a>> {
    let mut parts = BTreeMap::new();
    let (mut present, mut failed) = (vec![Vec::new(); rows.len()], Vec::new());
    for (modality, processor) in inputs.processors.iter().filter(|(m, _)| !exclude.contains(m)) {
        let read = RowBatch::read(manifest, rows, modality, processor.as_ref());
        read.positions.iter().for_each(|position| present[*position].push(modality.clone()));
        failed.extend(read.failed);
        if !read.samples.is_empty() {
            parts.insert(modality, (collate(&read.samples, processor.as_ref())?, read.positions));
        }
    }
    Ok(Batch { input: NetworkInput { parts, precomputed: &inputs.precomputed, items }, present, failed })
}

/// The outputs for one batch, on the CPU; otherwise as [`RowOutputs`].
#[derive(Serialize, Deserialize)]
struct BatchOutputs {
    rows: Vec<usize>,
    fused: SentTensor,
    unimodal: BTreeMap<Modality, (SentTensor, SentTensor)>,
    present: Vec<Vec<Modality>>,
    modality_weights: BTreeMap<Modality, Vec<f64>>,
    failed: Vec<FailedSample>,
    saliency: Vec<Saliency>,
}

/// The outputs of several batches.
fn collect(batches: Vec<BatchOutputs>, num_outputs: i64) -> Result<RowOutputs> {
    let cat = |tensors: Vec<Tensor>| Tensor::cat(&tensors.iter().collect::<Vec<_>>(), 0);
    let (mut fused, mut unimodal) = (Vec::new(), BTreeMap::<Modality, (Vec<Tensor>, Vec<Tensor>)>::new());
    let mut all = RowOutputs {
        rows: Vec::new(),
        fused: Tensor::zeros(&[0, num_outputs], DType::F32, Device::Cpu)?,
        unimodal: BTreeMap::new(),
        present: Vec::new(),
        modality_weights: BTreeMap::new(),
        failed: Vec::new(),
        saliency: Vec::new(),
    };
    for batch in batches {
        for (modality, (logits, flags)) in batch.unimodal {
            let own = unimodal.entry(modality).or_default();
            own.0.push(logits.0);
            own.1.push(flags.0);
        }
        for (modality, weights) in batch.modality_weights {
            all.modality_weights.entry(modality).or_default().extend(weights);
        }
        fused.push(batch.fused.0);
        all.rows.extend(batch.rows);
        all.present.extend(batch.present);
        all.failed.extend(batch.failed);
        all.saliency.extend(batch.saliency);
    }
    if !fused.is_empty() {
        all.fused = cat(fused)?;
    }
    let unimodal = unimodal.into_iter().map(|(m, (logits, flags))| Ok((m, (cat(logits)?, cat(flags)?))));
    all.unimodal = unimodal.collect::<Result<_>>()?;
    Ok(all)
}
