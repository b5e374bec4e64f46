//! The network: a branch for each modality, a fusion operator or a reasoning network, and a head on the fused
//! representation.

mod branch;
mod context;
mod grad_cam;
mod input;
mod items;
mod outputs;

use branch::UnimodalOutput;
pub(super) use branch::{BranchOutput, ModalityBranch};
pub(super) use input::{ForwardOptions, NetworkInput};
pub(super) use outputs::Outputs;
pub use outputs::Saliency;

use super::{config::PredictionConfig, target::Target};
use crate::Result;
use items::ItemLayout;
use mm_core::{
    DType, Device, FeatureSet, Features, Modality, Module, Params, Pooling, Reasoner, Registry, Tensor,
    distributed::gather_rows, nn::Linear,
};
use std::{collections::BTreeMap, path::Path};

/// The features of a batch before fusion.
pub(super) struct EncodedBatch {
    /// Output of the branch of each modality.
    pub(super) branches: BTreeMap<Modality, BranchOutput>,
    /// Number of rows.
    pub(super) rows: i64,
    items: Option<ItemLayout>,
}

/// Combines the features of all modalities.
enum Combiner {
    Fusion(mm_fusion::Fusion),
    Reasoner(Box<dyn Reasoner>),
}

/// The network.
pub(super) struct Network {
    /// The branch of each modality.
    pub(super) branches: BTreeMap<Modality, ModalityBranch>,
    combiner: Combiner,
    head: Linear,
    dropout: f64,
    groups_items: bool,
    fuse_items: bool,
}

impl Network {
    /// Builds the network of a resolved configuration.
    pub(super) fn new(
        params: &Params,
        config: &PredictionConfig,
        target: &Target,
        base_dir: &Path,
        registry: &Registry,
    ) -> Result<Self> {
        let (root, num_outputs) = (params.scope(), target.num_outputs());
        let (mut branches, mut dims) = (BTreeMap::new(), Vec::new());
        for (name, input) in &config.inputs {
            let modality = Modality::from(name.as_str());
            let scope = root.pp("inputs").pp(name);
            let (branch, dim) =
                ModalityBranch::new(&scope, &modality, input, config, num_outputs, (base_dir, registry))?;
            dims.push((modality.clone(), dim));
            branches.insert(modality, branch);
        }
        let (combiner, dim) = if let Some(reasoning) = &config.reasoning {
            let reasoner = mm_reason::reasoning::build(&root.pp("reasoning"), reasoning, &dims)?;
            let dim = reasoner.dim();
            (Combiner::Reasoner(reasoner), dim)
        } else {
            let fusion = mm_fusion::Fusion::new(&root.pp("fusion"), &config.fusion, &dims)?;
            let dim = fusion.dim();
            (Combiner::Fusion(fusion), dim)
        };
        Ok(Self {
            branches,
            combiner,
            head: Linear::new(&root.pp("head"), dim, num_outputs, true)?,
            dropout: config.dropout.get(),
            groups_items: config.groups_items(),
            fuse_items: config.fuse_items,
        })
    }

    /// Whether the rows of an item must be in one batch, in their order.
    pub(super) fn groups_items(&self) -> bool {
        self.groups_items
    }

    /// The outputs for the rows of a batch.
    pub(super) fn forward(
        &self,
        input: &NetworkInput<'_>,
        device: Device,
        options: ForwardOptions<'_>,
    ) -> mm_core::Result<Outputs> {
        let encoded = self.encode(input, device, options)?;
        let mut outputs = self.fuse(&encoded, options.train)?;
        if options.saliency && !options.train {
            outputs.grad_cam = self.grad_cam(encoded)?;
        }
        Ok(outputs)
    }

    /// The features of each modality, and the outputs of the unimodal heads.
    pub(super) fn encode(
        &self,
        input: &NetworkInput<'_>,
        device: Device,
        options: ForwardOptions<'_>,
    ) -> mm_core::Result<EncodedBatch> {
        let (rows, train) = (input.items.len(), options.train);
        let items = self.groups_items.then(|| ItemLayout::new(input.items, device)).transpose()?;
        let mut branches = BTreeMap::new();
        for (modality, (values, which)) in &input.parts {
            let Some(branch) = self.branches.get(modality) else { continue };
            let features = branch.encode(&values.to_device(device)?, input.precomputed.contains(*modality), train)?;
            let Features { values, mask } = features;
            let values = branch.perturb(values, modality, options)?;
            let (features, present) = spread(&values, mask.as_ref(), which, rows)?;
            let features = branch.contextualize(features, items.as_ref(), train)?;
            let unimodal = branch.predict(&features, &present, self.dropout, train)?;
            branches.insert((*modality).clone(), BranchOutput { features, present, unimodal });
        }
        Ok(EncodedBatch { branches, rows: rows as i64, items })
    }

    /// Whether the loss of the fusion operator, or a buffer that it updates, is a function of all rows of a batch.
    pub(super) fn depends_on_batch(&self) -> bool {
        matches!(&self.combiner, Combiner::Fusion(fusion) if fusion.depends_on_batch())
    }

    /// The outputs from the features of all modalities.
    pub(super) fn fuse(&self, batch: &EncodedBatch, train: bool) -> mm_core::Result<Outputs> {
        let items = batch.items.as_ref().filter(|_| self.fuse_items);
        let set = batch.feature_set(items)?;
        let unimodal = || {
            let outputs = batch.branches.iter().filter_map(|(m, b)| Some((m.clone(), b.unimodal.clone()?)));
            outputs.collect::<BTreeMap<_, _>>()
        };
        let head = |x: &Tensor| self.head.forward(&x.dropout(self.dropout, train)?, train);
        let fusion = match &self.combiner {
            Combiner::Fusion(fusion) => fusion,
            Combiner::Reasoner(reasoner) => {
                let out = reasoner.reason(&set, train)?;
                let representation = out.features.pool(Pooling::Mean)?;
                return Ok(Outputs {
                    unimodal: unimodal(),
                    attention: out.attention,
                    representation: Some(representation.clone()),
                    ..Outputs::of_fused(head(&representation)?)
                });
            }
        };
        let out = fusion.fuse(&set, train)?;
        let representation = match items {
            None => out.features.pool(Pooling::Mean)?,
            Some(items) => {
                let shape = out.features.values.shape();
                if shape[1] != items.length {
                    let expected = "an operator with an output for each position (fusion.aligned, or pooled = false)";
                    return Err(mm_core::Error::config("fuse_items", format!("features of shape {shape:?}"), expected));
                }
                items.scatter(&out.features.values)?
            }
        };
        Ok(Outputs {
            representation: Some(representation.clone()),
            unimodal: unimodal(),
            operator_loss: out.aux_loss,
            modality_weights: if items.is_none() { out.modality_weights } else { BTreeMap::new() },
            ..Outputs::of_fused(head(&representation)?)
        })
    }
}

impl EncodedBatch {
    /// The features of the rows of all processes; `items` are the items of these.
    pub(super) fn gathered(self, items: &[String]) -> mm_core::Result<Self> {
        let mut branches = BTreeMap::new();
        for (modality, BranchOutput { features, present, unimodal }) in self.branches {
            let mask = features.mask.as_ref().map(gather_flags).transpose()?;
            let output = BranchOutput {
                features: Features::new(gather_rows(&features.values)?, mask)?,
                present: gather_flags(&present)?,
                unimodal: unimodal.map(UnimodalOutput::gathered).transpose()?,
            };
            branches.insert(modality, output);
        }
        let device = branches.values().next().map_or(Device::Cpu, |b| b.present.device());
        let layout = self.items.is_some().then(|| ItemLayout::new(items, device)).transpose()?;
        Ok(Self { branches, rows: items.len() as i64, items: layout })
    }

    /// The features of rows, or of whole items as sequences.
    fn feature_set(&self, items: Option<&ItemLayout>) -> mm_core::Result<FeatureSet> {
        let mut set = FeatureSet::new(items.map_or(self.rows, |i| i.num_items));
        for (modality, BranchOutput { features, present, .. }) in &self.branches {
            match items {
                None => set.insert(modality.clone(), features.clone(), Some(present.clone()))?,
                Some(items) => {
                    let x = items.gather(&features.values.squeeze(1)?)?;
                    let flags = present.to_dtype(DType::F32)?.unsqueeze(1)?;
                    let mask = items.gather(&flags)?.squeeze(2)?; // [items, length]
                    let any = mask.amax(1, false)?.gt_scalar(0.5)?;
                    set.insert(modality.clone(), Features::new(x, Some(mask.gt_scalar(0.5)?))?, Some(any))?;
                }
            }
        }
        Ok(set)
    }
}

/// Booleans of the rows of all processes.
fn gather_flags(flags: &Tensor) -> mm_core::Result<Tensor> {
    gather_rows(&flags.to_dtype(DType::U8)?)?.to_dtype(DType::Bool)
}

/// Spreads features of the rows `which` over all `rows`, with zeros for the others; returns `[rows]` bool of which rows
/// have features as well.
fn spread(values: &Tensor, mask: Option<&Tensor>, which: &[usize], rows: usize) -> mm_core::Result<(Features, Tensor)> {
    let device = values.device();
    let mut index = vec![which.len() as i64; rows];
    which.iter().enumerate().for_each(|(n, row)| index[*row] = n as i64);
    let present: Vec<bool> = index.iter().map(|n| *n < which.len() as i64).collect();
    let present = Tensor::from_slice(&present)?.to_device(device)?;
    let index = Tensor::from_slice(&index)?.to_device(device)?;
    let values = values.pad(&[0, 0, 0, 0, 0, 1], 0.0)?.index_select(0, &index)?; // [rows, length, dim]
    let mask = mask.map(|m| m.pad(&[0, 0, 0, 1], 0.0)?.index_select(0, &index)).transpose()?;
    Ok((Features::new(values, mask)?, present))
}
