//! The training loss: of the fused head and the unimodal heads, with the regularizers of [`LossConfig`].

use super::{
    config::LossConfig,
    mixing::{Mixed, cutmix, mixup},
    network::{EncodedBatch, ForwardOptions, Network, NetworkInput, Outputs},
    target::Target,
    training_state::{FUSED, TrainingState},
};
use mm_core::{
    DType, LossOutput, Modality, Result, Tensor,
    distributed::{process_group, sum_number, with_rows_of_all},
    nn::with_math_attention,
};
use mm_fusion::training::{distillation, functional_entropy, gradient_scales};

/// Temperature of the distillation from the unimodal heads.
const DISTILLATION_TEMPERATURE: f64 = 2.0;

/// Computes the loss of batches.
pub(super) struct BatchLoss<'a> {
    pub(super) network: &'a Network,
    pub(super) target: &'a Target,
    /// Mean and standard deviation of regression targets.
    pub(super) label_stats: (f64, f64),
    pub(super) config: &'a LossConfig,
}

/// Rows with their labels.
#[derive(Clone, Copy)]
pub(super) struct RowLabels<'a> {
    /// See [`Target::to_tensor`].
    pub(super) labels: &'a Tensor,
    /// Their indices in the manifest.
    pub(super) rows: &'a [usize],
    /// The item of each.
    pub(super) items: &'a [String],
}

/// The rows of a batch with their labels.
struct LabeledRows<'a> {
    target: &'a Target,
    /// See [`Target::to_tensor`].
    labels: &'a Tensor,
    label_smoothing: f64,
    /// How the rows were mixed.
    mixed: Option<Mixed>,
    /// Their indices in the manifest.
    rows: &'a [usize],
    train: bool,
}

impl BatchLoss<'_> {
    /// The loss of rows, and values to log; `None` when none has a label. Where several processes train together, `own`
    /// are the rows of the input and `all` those of all processes, each of which computes the loss of all.
    pub(super) fn compute(
        &self,
        mut input: NetworkInput<'_>,
        own: RowLabels<'_>,
        all: RowLabels<'_>,
        state: &mut TrainingState,
        train: bool,
    ) -> Result<Option<LossOutput>> {
        let config = self.config;
        let (cutmix_alpha, mixup_alpha) = (config.cutmix_alpha.get(), config.mixup_alpha.get());
        let mut mixed = None;
        if train && cutmix_alpha > 0.0 {
            mixed = cutmix(&mut input, cutmix_alpha)?;
        }
        let options = ForwardOptions { train, ..ForwardOptions::default() };
        let mut batch = self.network.encode(&input, own.labels.device(), options)?;
        let is_gathered = self.gathers_features();
        if is_gathered {
            batch = batch.gathered(all.items)?;
        }
        if train && mixup_alpha > 0.0 && mixed.is_none() {
            mixed = Some(mixup(&mut batch, mixup_alpha)?);
        }
        let modulation = config.gradient_modulation.get();
        let mut fuse = || {
            if train && modulation > 0.0 && self.target.is_classes() {
                let labels = if is_gathered { all.labels } else { own.labels };
                modulate_gradients(&mut batch, labels, modulation)?;
            }
            let outputs = self.network.fuse(&batch, train)?;
            if process_group().is_some() { outputs.gathered() } else { Ok(outputs) }
        };
        let outputs = if is_gathered { with_rows_of_all(fuse) } else { fuse() }?;
        let (target, label_smoothing) = (self.target, config.label_smoothing.get());
        let labeled = LabeledRows { target, labels: all.labels, label_smoothing, mixed, rows: all.rows, train };
        with_rows_of_all(|| self.loss_of_outputs(&labeled, batch, &outputs, state))
    }

    /// Whether the features of the rows of all processes are fused in each, and not the outputs gathered.
    fn gathers_features(&self) -> bool {
        let config = self.config;
        let mixes = config.mixup_alpha.get() > 0.0 || config.functional_entropy_weight.get() > 0.0;
        process_group().is_some() && (mixes || self.network.depends_on_batch())
    }

    /// The loss of the outputs for rows.
    fn loss_of_outputs(
        &self,
        labeled: &LabeledRows<'_>,
        batch: EncodedBatch,
        outputs: &Outputs,
        state: &mut TrainingState,
    ) -> Result<Option<LossOutput>> {
        let (config, rows, train) = (self.config, labeled.rows, labeled.train);
        let Some(fused) = labeled.loss(&outputs.fused, None)? else { return Ok(None) };
        let mut log = vec![("loss_fused".to_owned(), fused.to_f64()?)];
        let mut total = fused.mul_scalar(self.head_weight(state, FUSED, 1.0))?;
        if let (Some(own), Some(representation), true) = (&mut state.unimodal_labels, &outputs.representation, train) {
            own.record(FUSED, rows, representation, None)?;
        }
        total = self.add_unimodal_losses(total, outputs, labeled, state, &mut log)?;
        if let (Some(blending), true) = (&mut state.gradient_blending, train) {
            for (name, value) in &log {
                if let Some(head) = name.strip_prefix("loss_") {
                    blending.record_training_loss(head, *value);
                }
            }
        }
        let operator_weight = config.operator_weight.get();
        if let (Some(operator), true) = (&outputs.operator_loss, operator_weight > 0.0) {
            log.push(("loss_operator".to_owned(), operator.to_f64()?));
            total = total.add(&operator.mul_scalar(operator_weight)?)?;
        }
        if train && self.target.is_classes() {
            total = self.add_regularizers(total, batch, outputs)?;
        }
        Ok(Some((total, log)))
    }

    /// The weight of a head's loss: `default`, or that of gradient blending, scaled so that the weights of all heads
    /// sum to as much.
    fn head_weight(&self, state: &TrainingState, head: &str, default: f64) -> f64 {
        let sum = 1.0 + self.config.unimodal_weight.get();
        state.gradient_blending.as_ref().map_or(default, |blending| blending.weight(head) * sum)
    }

    fn add_unimodal_losses(
        &self,
        mut total: Tensor,
        outputs: &Outputs,
        labeled: &LabeledRows<'_>,
        state: &mut TrainingState,
        log: &mut Vec<(String, f64)>,
    ) -> Result<Tensor> {
        let (rows, count) = (labeled.rows, outputs.unimodal.len().max(1) as f64);
        for (modality, head) in &outputs.unimodal {
            let name = modality.name();
            let loss = match &mut state.unimodal_labels {
                Some(own) if labeled.train => {
                    own.record(name, rows, &head.hidden, Some(&head.present))?;
                    log.push((format!("unimodal_label_shift_{name}"), own.mean_shift(name)));
                    own.loss(name, &head.logits, &head.present, rows, self.target, self.label_stats)?
                }
                _ => labeled.loss(&head.logits, Some(&head.present))?,
            };
            if let Some(loss) = loss {
                log.push((format!("loss_{name}"), loss.to_f64()?));
                let weight = self.head_weight(state, name, self.config.unimodal_weight.get() / count);
                total = total.add(&loss.mul_scalar(weight)?)?;
            }
        }
        Ok(total)
    }

    /// Adds distillation and functional entropy.
    fn add_regularizers(&self, mut total: Tensor, mut batch: EncodedBatch, outputs: &Outputs) -> Result<Tensor> {
        let distillation_weight = self.config.distillation_weight.get();
        if distillation_weight > 0.0 && !outputs.unimodal.is_empty() {
            let loss = distillation(&outputs.fused, &mean_unimodal_logits(outputs)?, DISTILLATION_TEMPERATURE)?;
            total = total.add(&loss.mul_scalar(distillation_weight)?)?;
        }
        let entropy_weight = self.config.functional_entropy_weight.get();
        if entropy_weight > 0.0 {
            // The term is a function of the features alone: as leaves they pass no gradient to the encoders.
            for branch in batch.branches.values_mut() {
                branch.features.values = branch.features.values.detach()?.set_requires_grad(true)?;
            }
            let again = with_math_attention(|| self.network.fuse(&batch, true))?;
            let leaves: Vec<&Tensor> = batch.branches.values().map(|b| &b.features.values).collect();
            let term = functional_entropy(&again.fused, &leaves)?;
            total = total.add(&term.mul_scalar(entropy_weight)?)?;
        }
        Ok(total)
    }
}

impl LabeledRows<'_> {
    /// The loss of outputs `[rows, outputs]` over the rows where `present` `[rows]` (all when absent) is 1. For mixed
    /// rows the losses of both labels, weighted by their shares.
    fn loss(&self, outputs: &Tensor, present: Option<&Tensor>) -> Result<Option<Tensor>> {
        let (labels, smoothing) = (self.labels, self.label_smoothing);
        let own = self.target.loss(outputs, labels, present, smoothing)?;
        let Some(Mixed { partners, share }) = &self.mixed else { return Ok(own) };
        let partners = Tensor::from_slice(partners)?.to_device(labels.device())?;
        let theirs = self.target.loss(outputs, &labels.index_select(0, &partners)?, present, smoothing)?;
        Ok(match (own, theirs) {
            (Some(own), Some(theirs)) => Some(own.mul_scalar(*share)?.add(&theirs.mul_scalar(1.0 - share)?)?),
            (own, theirs) => own.or(theirs),
        })
    }
}

/// On-the-fly gradient modulation: scales the gradient that the features of each modality get from the fused head.
fn modulate_gradients(batch: &mut EncodedBatch, labels: &Tensor, alpha: f64) -> Result<()> {
    let heads = batch.branches.iter().filter_map(|(m, b)| Some((m.clone(), b.unimodal.as_ref()?)));
    let heads: Vec<(Modality, _)> = heads.collect();
    if heads.len() < 2 {
        return Ok(());
    }
    let known = labels.gt_scalar(-0.5)?.to_dtype(DType::F32)?;
    let classes = labels.clamp_min(0.0)?.to_dtype(DType::I64)?.unsqueeze(1)?;
    let mut scores = Vec::new();
    for (_, head) in &heads {
        let correct = head.logits.detach()?.softmax(1)?.gather(1, &classes)?.squeeze(1)?;
        scores.push(sum_number(correct.mul(&known.mul(&head.present)?)?.sum()?.to_f64()?)?);
    }
    let modalities: Vec<Modality> = heads.into_iter().map(|(modality, _)| modality).collect();
    for (modality, scale) in modalities.into_iter().zip(gradient_scales(&scores, alpha)?) {
        if let Some(branch) = batch.branches.get_mut(&modality) {
            branch.features.values = branch.features.values.scale_gradient(scale)?;
        }
    }
    Ok(())
}

/// The mean logits of the unimodal heads of a row's modalities.
fn mean_unimodal_logits(outputs: &Outputs) -> Result<Tensor> {
    let mut sum = outputs.fused.zeros_like()?;
    let mut count = sum.narrow(1, 0, 1)?;
    for head in outputs.unimodal.values() {
        let flag = head.present.unsqueeze(1)?;
        sum = sum.add(&head.logits.mul(&flag)?)?;
        count = count.add(&flag)?;
    }
    sum.div(&count.clamp_min(1.0)?)
}
