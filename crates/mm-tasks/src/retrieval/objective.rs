//! The training objective: contrastive losses between all pairs of modalities of a batch, and auxiliary losses.

use super::{
    auxiliary::{AuxiliaryLoss, EncodedBatch, TowerOutput, common_rows, match_matrix, select_rows},
    chunks::ChunkedBatch,
    config::SoftTargetsConfig,
    model::Retrieval,
};
use mm_align::ContrastiveLoss;
use mm_core::{
    ChunkedLoss, DType, Device, Features, Input, LossOutput, Modality, Tensor, TrainingObjective,
    distributed::{gather_rows, process_group, with_process_group},
};
use mm_data::Batch;
use std::collections::BTreeMap;

impl Retrieval {
    fn auxiliary_losses(&self) -> impl Iterator<Item = &dyn AuxiliaryLoss> {
        let transcript = self.transcript_ngram.as_ref().map(|l| l as &dyn AuxiliaryLoss);
        transcript.into_iter().chain(self.cross_attention.as_ref().map(|l| l as &dyn AuxiliaryLoss))
    }

    /// The number of training steps before this one, where `[robust]` counts them.
    fn count_step(&self, train: bool) -> mm_core::Result<Option<u64>> {
        let Some(steps) = self.steps.as_ref().filter(|_| train) else { return Ok(None) };
        let step = steps.to_f64()?;
        steps.copy_(&steps.add_scalar(1.0)?)?;
        Ok(Some(step as u64))
    }

    /// The contrastive loss of rows that have both modalities.
    fn pair_loss(
        &self,
        loss: &ContrastiveLoss,
        [a, b]: [&Tensor; 2],
        batch: &Batch,
        rows: &[usize],
        step: Option<u64>,
    ) -> mm_core::Result<Tensor> {
        let same = match_matrix(batch, rows)?.to_device(a.device())?;
        let value = match (&self.config.robust, step) {
            (Some(robust), Some(step)) => loss.forward_robust(a, b, Some(&same), robust, step)?,
            _ => loss.forward(a, b, Some(&same))?,
        };
        let Some(soft) = &self.config.soft_targets else { return Ok(value) };
        let target = soft_targets(soft, batch, rows)?.to_device(a.device())?;
        let soft_value = loss.forward_soft_targets(a, b, &target)?;
        let weight = soft.weight.get();
        value.mul_scalar(1.0 - weight)?.add(&soft_value.mul_scalar(weight)?)
    }
}

/// The embeddings of a batch in the shared space.
pub(super) type Embeddings<'b> = BTreeMap<&'b Modality, Tensor>;

impl TrainingObjective<Batch> for Retrieval {
    fn loss(&self, batch: &Batch, train: bool) -> mm_core::Result<Option<LossOutput>> {
        let mut encoded = EncodedBatch { batch, features: BTreeMap::new() };
        let mut embeddings = Embeddings::new();
        for (modality, part) in &batch.modalities {
            let output = self.encode(modality, &part.input, train)?;
            let noise = if train { self.noise(modality, part.rows.len() as i64)? } else { None };
            embeddings.insert(modality, self.project(modality, output.embeddings.clone(), noise.as_ref(), train)?);
            if self.needs_features() {
                encoded.features.insert(modality, output);
            }
        }
        self.loss_of_all_rows(encoded, embeddings, train)
    }

    fn chunks<'b>(&'b self, batch: &'b Batch) -> mm_core::Result<Option<Box<dyn ChunkedLoss + 'b>>> {
        let chunked = ChunkedBatch::new(self, batch)?;
        Ok(chunked.map(|chunked| Box::new(chunked) as Box<dyn ChunkedLoss + 'b>))
    }
}

/// The features of the rows of all processes.
fn gather_features(output: &TowerOutput) -> mm_core::Result<TowerOutput> {
    let gather = |features: &Features| {
        let gather_mask = |mask: &Tensor| gather_rows(&mask.to_dtype(DType::U8)?)?.to_dtype(DType::Bool);
        Features::new(gather_rows(&features.values)?, features.mask.as_ref().map(gather_mask).transpose()?)
    };
    let positions = output.positions.as_ref().map(gather).transpose()?;
    Ok(TowerOutput { embeddings: gather_rows(&output.embeddings)?, positions })
}

impl Retrieval {
    /// Whether a loss needs the features of the encoders.
    pub(super) fn needs_features(&self) -> bool {
        self.auxiliary_losses().next().is_some()
    }

    /// The loss of a batch; every process computes that of the rows of all.
    pub(super) fn loss_of_all_rows(
        &self,
        encoded: EncodedBatch<'_>,
        mut embeddings: Embeddings<'_>,
        train: bool,
    ) -> mm_core::Result<Option<LossOutput>> {
        if process_group().is_none() {
            return self.loss_of_embeddings(&encoded, &embeddings, train);
        }
        let whole = self.gathered_batch(encoded.batch)?;
        for embedding in embeddings.values_mut() {
            *embedding = gather_rows(embedding)?;
        }
        let features = encoded.features.into_iter().map(|(m, output)| Ok((m, gather_features(&output)?)));
        let encoded = EncodedBatch { batch: &whole, features: features.collect::<mm_core::Result<_>>()? };
        with_process_group(None, || self.loss_of_embeddings(&encoded, &embeddings, train))
    }

    /// The batch of which `part` is a part, with the values that a loss reads.
    fn gathered_batch(&self, part: &Batch) -> mm_core::Result<Batch> {
        let mut whole = part.whole().clone();
        if let Some(soft) = &self.config.soft_targets {
            let modality = Modality::from(soft.modality.as_str());
            if let (Some(own), Some(all)) = (part.modalities.get(&modality), whole.modalities.get_mut(&modality)) {
                all.input = Input { values: gather_rows(&own.input.values)?, mask: None };
            }
        }
        Ok(whole)
    }

    /// The loss of the embeddings of a batch.
    fn loss_of_embeddings(
        &self,
        encoded: &EncodedBatch<'_>,
        embeddings: &Embeddings<'_>,
        train: bool,
    ) -> mm_core::Result<Option<LossOutput>> {
        let batch = encoded.batch;
        let step = self.count_step(train)?;
        let (mut total, mut weights, mut logged): (Option<Tensor>, f64, Vec<_>) = (None, 0.0, Vec::new());
        for ((a, b), (loss, weight)) in &self.losses {
            let (Some(a_values), Some(b_values)) = (embeddings.get(a), embeddings.get(b)) else { continue };
            let (a_rows, b_rows) = (&batch.modalities[a].rows, &batch.modalities[b].rows);
            let rows = common_rows(a_rows, b_rows);
            if rows.len() < 2 || *weight == 0.0 {
                continue;
            }
            let (left, right) = (select_rows(a_values, a_rows, &rows)?, select_rows(b_values, b_rows, &rows)?);
            let value = self.pair_loss(loss, [&left, &right], batch, &rows, step)?;
            logged.push((format!("loss_{a}_{b}"), value.to_f64()?));
            logged.push((format!("temperature_{a}_{b}"), loss.temperature()?));
            let term = value.mul_scalar(*weight)?;
            weights += weight;
            total = Some(match total {
                Some(sum) => sum.add(&term)?,
                None => term,
            });
        }
        let Some(total) = total else { return Ok(None) };
        let mut total = total.mul_scalar(1.0 / weights)?;
        for auxiliary in self.auxiliary_losses() {
            if let Some(value) = auxiliary.loss(encoded, train)? {
                logged.push((format!("loss_{}", auxiliary.name()), value.to_f64()?));
                total = total.add(&value.mul_scalar(auxiliary.weight())?)?;
            }
        }
        Ok(Some((total, logged)))
    }
}

/// Target distributions `[rows, rows]` from the cosines of a frozen encoder; a row without its modality is similar only
/// to itself.
fn soft_targets(config: &SoftTargetsConfig, batch: &Batch, rows: &[usize]) -> mm_core::Result<Tensor> {
    let identity = Tensor::eye(rows.len() as i64, DType::F32, Device::Cpu)?;
    let Some(part) = batch.modalities.get(&Modality::from(config.modality.as_str())) else { return Ok(identity) };
    let positions: Vec<Option<usize>> = rows.iter().map(|r| part.rows.iter().position(|o| o == r)).collect();
    let indices: Vec<i64> = positions.iter().map(|p| p.unwrap_or(0) as i64).collect();
    let present: Vec<bool> = positions.iter().map(Option::is_some).collect();
    let features = part.input.values.index_select(0, &Tensor::from_slice(&indices)?)?.normalize()?;
    let cosines = features.matmul(&features.transpose(0, 1)?)?.mul_scalar(1.0 / config.temperature.get())?;
    let present = Tensor::from_slice(&present)?;
    let known = present.unsqueeze(0)?.logical_and(&present.unsqueeze(1)?)?.logical_or(&identity.gt_scalar(0.5)?)?;
    cosines.masked_fill(&known.logical_not()?, DType::F32.mask_value())?.softmax(1)
}
