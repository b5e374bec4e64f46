//! The network: an encoder for each modality, maybe a network over the rows of an item, a fusion, a head; and a head on each modality alone.

use super::{
    config::{ContextConfig, LossConfig, PredictionConfig},
    keeping::{FUSED, Keeping},
    target::Target,
};
use crate::{Error, Result};
use mm_core::{
    AttentionStep, BuildContext, DType, Device, Encoder, FeatureSet, Features, Init, Input, Modality, Module, Params,
    Pooling, Processor, Reasoner, Registry, Scope, Tensor, enable_grad,
    nn::{
        Activation, AttentionConfig, BlockConfig, ForwardArgs, Linear, Lstm, LstmConfig, Mask, MlpConfig, Transformer,
        TransformerConfig, sinusoidal_positions, with_math_attention,
    },
    seed::Rng,
};
use mm_fusion::training::{distillation, functional_entropy, gradient_scales, scale_gradient};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::Path,
    sync::Arc,
};

/// Over the rows of an item.
enum Context {
    Lstm(Lstm, f64),
    Transformer(Linear, Transformer, f64),
}

impl Context {
    fn new(scope: &Scope<'_>, input: i64, config: &ContextConfig) -> Result<Self> {
        Ok(match *config {
            ContextConfig::Lstm { hidden_dim, num_layers, dropout } => {
                let config = LstmConfig {
                    input_dim: input,
                    hidden_dim: hidden_dim.dim(),
                    num_layers: num_layers.dim(),
                    bidirectional: true,
                    dropout: dropout.get(),
                };
                Self::Lstm(Lstm::new(scope, config)?, dropout.get())
            }
            ContextConfig::Transformer { dim, num_layers, num_heads, dropout } => {
                let (width, dropout) = (dim.dim(), dropout.get());
                let block = BlockConfig {
                    norm_first: true,
                    dropout,
                    ..BlockConfig::new(
                        AttentionConfig { dropout, ..AttentionConfig::new(width, num_heads.dim()) },
                        MlpConfig::new(2 * width, Activation::Gelu),
                    )
                };
                let config = TransformerConfig { num_layers: num_layers.dim(), block, final_norm: true };
                Self::Transformer(
                    Linear::new(&scope.pp("projection"), input, width, true)?,
                    Transformer::new(&scope.pp("encoder"), &config)?,
                    dropout,
                )
            }
        })
    }

    fn dim(&self) -> mm_core::Result<i64> {
        match self {
            Self::Lstm(lstm, _) => Ok(lstm.dim()),
            Self::Transformer(linear, ..) => linear.weight().size(0),
        }
    }

    /// `[items, rows, input]` → `[items, rows, width]`; `mask` says where there are rows.
    fn forward(&self, x: &Tensor, mask: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        match self {
            Self::Lstm(lstm, dropout) => {
                lstm.forward(&x.dropout(*dropout, train)?, Some(mask), train)?.dropout(*dropout, train)
            }
            Self::Transformer(linear, transformer, dropout) => {
                let x = linear.forward(&x.dropout(*dropout, train)?, train)?;
                let x = x.add(&sinusoidal_positions(x.size(1)?, x.size(2)?, true, x.device())?)?;
                transformer.forward(
                    &x,
                    ForwardArgs { mask: Some(&Mask::Padding(mask.clone())), train, ..ForwardArgs::default() },
                )
            }
        }
    }
}

pub(crate) struct Way {
    pub(crate) encoder: Box<dyn Encoder>,
    pub(crate) processor: Arc<dyn Processor>,
    /// Whether its vectors are made once and kept.
    pub(crate) frozen: bool,
    pub(crate) fingerprint: String,
    sequence: bool,
    /// Mean and deviation of the training rows' features.
    pub(crate) level: Option<(Tensor, Tensor)>,
    dropout: f64,
    noise: f64,
    context: Option<Context>,
    head: Option<(Linear, Linear)>,
}

/// The rows of a batch by their items: for each item and place in it which row stands there.
struct Items {
    /// `[items · longest]` int64, the number of rows where there is none.
    rows: Tensor,
    /// `[items, longest]` bool.
    mask: Tensor,
    /// `[rows]` int64: where each row stands in `items · longest`.
    places: Tensor,
    count: i64,
    longest: i64,
}

impl Items {
    /// Rows of one item stand beside each other.
    fn new(names: &[String], device: Device) -> mm_core::Result<Self> {
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for row in 0..names.len() {
            match spans.last_mut() {
                Some((first, length)) if names[*first] == names[row] => *length += 1,
                _ => spans.push((row, 1)),
            }
        }
        let longest = spans.iter().map(|s| s.1).max().unwrap_or(1);
        let mut rows = vec![names.len() as i64; spans.len() * longest];
        let mut places = vec![0i64; names.len()];
        for (item, (first, length)) in spans.iter().enumerate() {
            for step in 0..*length {
                rows[item * longest + step] = (first + step) as i64;
                places[first + step] = (item * longest + step) as i64;
            }
        }
        let mask: Vec<bool> = rows.iter().map(|r| *r < names.len() as i64).collect();
        let (items, longest) = (spans.len() as i64, longest as i64);
        Ok(Self {
            rows: Tensor::from_slice(&rows)?.to_device(device)?,
            mask: Tensor::from_vec(&mask, &[items, longest])?.to_device(device)?,
            places: Tensor::from_slice(&places)?.to_device(device)?,
            count: items,
            longest,
        })
    }

    /// `[rows, width]` → `[items, longest, width]`, zeros where there is no row.
    fn gather(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        let padded = x.pad(&[0, 0, 0, 1], 0.0)?;
        padded.index_select(0, &self.rows)?.reshape(&[self.count, self.longest, x.size(1)?])
    }

    /// And back.
    fn scatter(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        x.flatten(0, 1)?.index_select(0, &self.places)
    }
}

/// What goes in: for each modality the numbers of the rows that have it, and which those are.
pub(crate) type Parts<'a> = BTreeMap<&'a Modality, (Input, Vec<usize>)>;

/// Features of a batch, before they are fused.
pub(super) struct Stage {
    /// Of each modality, and `[rows]` bool which rows have it.
    set: BTreeMap<Modality, (Features, Tensor)>,
    /// What each modality says alone: `[rows, outputs]`, and `[rows]` f32 which rows have it.
    own: BTreeMap<Modality, (Tensor, Tensor)>,
    /// What that was said from: `[rows, width]`.
    hidden: BTreeMap<Modality, Tensor>,
    items: Option<Items>,
    rows: i64,
}

/// What comes out.
pub(crate) struct Answer {
    /// `[rows, outputs]`.
    pub(crate) fused: Tensor,
    /// What that was said from, `[rows, width]`; none where there was nothing.
    joint: Option<Tensor>,
    /// Of each modality alone: `[rows, outputs]`, and `[rows]` f32 which rows have it.
    pub(crate) own: BTreeMap<Modality, (Tensor, Tensor)>,
    /// What the operator itself wants.
    operator: Option<Tensor>,
    /// How much each modality counted, where the operator says: `[rows]` each.
    pub(crate) weights: BTreeMap<Modality, Tensor>,
    /// Where a reasoning network looked.
    pub(super) looked: Vec<AttentionStep>,
    /// How much each position counted for the answer, where that was asked for.
    pub(super) heat: Vec<AttentionStep>,
}

impl Answer {
    /// Of a head that was given nothing.
    pub(crate) fn empty(fused: Tensor) -> Self {
        Self {
            fused,
            joint: None,
            own: BTreeMap::new(),
            operator: None,
            weights: BTreeMap::new(),
            looked: Vec::new(),
            heat: Vec::new(),
        }
    }

    /// What counted in each of its rows.
    pub(super) fn looks(&self, rows: usize) -> mm_core::Result<Vec<Look>> {
        let mut all = vec![Look::default(); rows];
        for look in &self.heat {
            for (row, weights) in all.iter_mut().zip(by_row(look)?) {
                row.heat.insert(look.modality.clone(), weights);
            }
        }
        for look in &self.looked {
            for (row, weights) in all.iter_mut().zip(by_row(look)?) {
                row.steps.resize_with(row.steps.len().max(look.step + 1), BTreeMap::new);
                row.steps[look.step].insert(look.modality.clone(), weights);
            }
        }
        Ok(all)
    }
}

/// Weights `[rows, positions]`, row by row.
fn by_row(look: &AttentionStep) -> mm_core::Result<Vec<Vec<f32>>> {
    let width = look.weights.size(1)?.max(1) as usize;
    let all = look.weights.to_device(Device::Cpu)?.to_vec::<f32>()?;
    Ok(all.chunks(width).map(<[f32]>::to_vec).collect())
}

/// How much each position of what a row has counted for its answer.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// By the gradient of the answer's logit, of each modality.
    pub heat: BTreeMap<Modality, Vec<f32>>,
    /// Where a reasoning network looked at each of its steps.
    pub steps: Vec<BTreeMap<Modality, Vec<f32>>>,
}

/// What makes one of all.
enum Joint {
    Fusion(mm_fusion::Fusion),
    Reason(Box<dyn Reasoner>),
}

pub(crate) struct Network {
    pub(crate) ways: BTreeMap<Modality, Way>,
    joint: Joint,
    head: Linear,
    dropout: f64,
    by_items: bool,
    fuse_items: bool,
    /// Noise on a modality's features outside training, in their own deviations: to see what it costs.
    pub(crate) disturbed: RefCell<BTreeMap<Modality, f64>>,
    /// Whether answers come with what counted for them.
    pub(crate) explained: Cell<bool>,
}

impl Network {
    pub(crate) fn new(
        params: &Params,
        config: &PredictionConfig,
        target: &Target,
        base: &Path,
        registry: &Registry,
    ) -> Result<Self> {
        let root = params.scope();
        let mut ways = BTreeMap::new();
        let mut widths = Vec::new();
        for (name, input) in &config.inputs {
            let scope = root.pp("inputs").pp(name);
            let encoder = input.encoder.as_ref().ok_or_else(|| {
                Error::Config(format!("inputs.{name}.encoder: found none, wanted the settings of an encoder"))
            })?;
            let field = format!("inputs.{name}.encoder");
            let context =
                BuildContext { scope: scope.pp("encoder"), base_dir: base.to_owned(), field: field.clone(), registry };
            let built = registry.build(encoder, &context)?;
            let found = built.encoder.modality();
            if found.name() != name {
                return Err(Error::Config(format!("{field}: found an encoder of {found}, wanted one of {name}")));
            }
            let sequence = input.sequence || config.reasoning.is_some();
            let width = if sequence { built.encoder.dim() } else { built.encoder.embedding_dim() };
            let level = input
                .standardize
                .unwrap_or(false)
                .then(|| {
                    Ok::<_, mm_core::Error>((
                        scope.buffer("mean", &[width], Init::Zeros)?,
                        scope.buffer("deviation", &[width], Init::Ones)?,
                    ))
                })
                .transpose()?;
            let context = config.context.as_ref().map(|c| Context::new(&scope.pp("context"), width, c)).transpose()?;
            let wide = context.as_ref().map_or(Ok(width), Context::dim)?;
            let hidden = config.fusion.dim.clamp(8, 256);
            let head = (config.has_unimodal_heads())
                .then(|| {
                    Ok::<_, mm_core::Error>((
                        Linear::new(&scope.pp("head").pp("fc1"), wide, hidden, true)?,
                        Linear::new(&scope.pp("head").pp("fc2"), hidden, target.outputs(), true)?,
                    ))
                })
                .transpose()?;
            let modality = Modality::from(name.as_str());
            widths.push((modality.clone(), wide));
            let way = Way {
                encoder: built.encoder,
                processor: built.processor,
                frozen: built.frozen && !sequence,
                fingerprint: built.fingerprint,
                sequence,
                level,
                dropout: input.dropout.get(),
                noise: input.noise_std.get(),
                context,
                head,
            };
            ways.insert(modality, way);
        }
        let (joint, width) = if let Some(reason) = &config.reasoning {
            let reasoner = mm_reason::reasoning::build(&root.pp("reasoning"), reason, &widths)?;
            let width = reasoner.dim();
            (Joint::Reason(reasoner), width)
        } else {
            let fusion = mm_fusion::Fusion::new(&root.pp("fusion"), &config.fusion, &widths)?;
            let width = fusion.dim();
            (Joint::Fusion(fusion), width)
        };
        let head = Linear::new(&root.pp("head"), width, target.outputs(), true)?;
        let by_items = config.groups_items();
        Ok(Self {
            ways,
            joint,
            head,
            dropout: config.dropout.get(),
            by_items,
            fuse_items: config.fuse_items,
            disturbed: RefCell::default(),
            explained: Cell::new(false),
        })
    }

    /// Whether it wants the rows of an item together, in their order.
    pub(crate) fn by_items(&self) -> bool {
        self.by_items
    }

    /// Vectors or features of one modality's rows, before anything is learned from them: `[rows, length, width]`.
    pub(crate) fn encode(way: &Way, input: &Input, made: bool, train: bool) -> mm_core::Result<Features> {
        if made {
            return Features::from_pooled(&input.values);
        }
        if way.sequence {
            way.encoder.encode(input, train)
        } else {
            Features::from_pooled(&way.encoder.embed(input, train)?)
        }
    }

    /// Answers for the rows of a batch; `made` says of which modalities the parts hold the encoder's vectors already.
    pub(crate) fn forward(
        &self,
        parts: &Parts<'_>,
        made: &dyn Fn(&Modality) -> bool,
        items: &[String],
        device: Device,
        train: bool,
    ) -> mm_core::Result<Answer> {
        let stage = self.stage(parts, made, items, device, train)?;
        let mut answer = self.fuse(&stage, train)?;
        if self.explained.get() && !train {
            answer.heat = self.heat(stage)?;
        }
        Ok(answer)
    }

    /// How much each position of each modality speaks for each row's likeliest answer, summing to one: features weighted by the gradient of its
    /// logit, as far as that is positive (Grad-CAM, Selvaraju 2017).
    fn heat(&self, mut stage: Stage) -> mm_core::Result<Vec<AttentionStep>> {
        for (features, _) in stage.set.values_mut() {
            features.values = features.values.detach()?.set_requires_grad(true)?;
        }
        let gradients = enable_grad(|| {
            let leaves: Vec<&Tensor> = stage.set.values().map(|(f, _)| &f.values).collect();
            // Rows do not see each other, so the sum's gradient is that of each.
            self.fuse(&stage, false)?.fused.amax(1, false)?.sum()?.autograd_grad(&leaves)
        })?;
        let mut looked = Vec::new();
        for ((modality, (features, _)), gradient) in stage.set.iter().zip(&gradients) {
            if features.values.size(1)? < 2 {
                continue;
            }
            // Over a grid the channels' mean gradients say what speaks for the answer wherever it is; each word has its own.
            let own = *modality == Modality::TEXT;
            let gradient = if own { gradient.clone() } else { gradient.mean_dim(&[1], true)? };
            let each = gradient.mul(&features.values)?.detach()?.sum_dim(&[2], false)?; // [rows, positions]
            // Where nothing speaks for the answer, what speaks against the others' counts as well.
            let heat = each.relu()?;
            let none = heat.sum_dim(&[1], true)?.gt_scalar(1e-9)?.logical_not()?.to_dtype(DType::F32)?;
            let mut heat = heat.add(&each.abs()?.mul(&none)?)?;
            if let Some(mask) = &features.mask {
                heat = heat.mul(&mask.to_dtype(DType::F32)?)?;
            }
            let weights = heat.div(&heat.sum_dim(&[1], true)?.clamp_min(1e-12)?)?;
            looked.push(AttentionStep { step: 0, modality: modality.clone(), weights });
        }
        Ok(looked)
    }

    pub(super) fn stage(
        &self,
        parts: &Parts<'_>,
        made: &dyn Fn(&Modality) -> bool,
        names: &[String],
        device: Device,
        train: bool,
    ) -> mm_core::Result<Stage> {
        let rows = names.len();
        let items = self.by_items.then(|| Items::new(names, device)).transpose()?;
        let (mut set, mut own, mut hidden) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (modality, (input, which)) in parts {
            let Some(way) = self.ways.get(modality) else { continue };
            let features = Self::encode(way, &input.to_device(device)?, made(modality), train)?;
            let mut values = features.values;
            if let Some((mean, deviation)) = &way.level {
                values = values.sub(mean)?.div(deviation)?.clamp(-10.0, 10.0)?;
            }
            if train && way.noise > 0.0 {
                values = values.add(&Tensor::randn(&values.shape(), DType::F32, device)?.mul_scalar(way.noise)?)?;
            }
            if let (false, Some(strength)) = (train, self.disturbed.borrow().get(*modality).filter(|s| **s > 0.0)) {
                let spread = values.std_dim(&[0, 1], false, true)?.mul_scalar(*strength)?; // [1, 1, width]
                values = values.add(&Tensor::randn(&values.shape(), DType::F32, device)?.mul(&spread)?)?;
            }
            values = values.dropout(way.dropout, train)?;
            // Every row gets its place; those without the modality a row of zeros.
            let mut place = vec![which.len() as i64; rows];
            which.iter().enumerate().for_each(|(n, row)| place[*row] = n as i64);
            let present: Vec<bool> = place.iter().map(|p| *p < which.len() as i64).collect();
            let present = Tensor::from_slice(&present)?.to_device(device)?;
            let place = Tensor::from_slice(&place)?.to_device(device)?;
            let values = values.pad(&[0, 0, 0, 0, 0, 1], 0.0)?.index_select(0, &place)?; // [rows, length, width]
            let mask = features.mask.map(|m| m.pad(&[0, 0, 0, 1], 0.0)?.index_select(0, &place)).transpose()?;
            let mut features = Features::new(values, mask)?;
            if let (Some(context), Some(items)) = (&way.context, &items) {
                let x = items.gather(&features.values.squeeze(1)?)?;
                features = Features::from_pooled(&items.scatter(&context.forward(&x, &items.mask, train)?)?)?;
            }
            if let Some((first, last)) = &way.head {
                let x = features.pool(Pooling::Mean)?.dropout(self.dropout, train)?;
                let x = first.forward(&x, train)?.gelu()?;
                let said = last.forward(&x.dropout(self.dropout, train)?, train)?;
                own.insert((*modality).clone(), (said, present.to_dtype(DType::F32)?));
                hidden.insert((*modality).clone(), x);
            }
            set.insert((*modality).clone(), (features, present));
        }
        Ok(Stage { set, own, hidden, items, rows: rows as i64 })
    }

    pub(super) fn fuse(&self, stage: &Stage, train: bool) -> mm_core::Result<Answer> {
        let whole = stage.items.as_ref().filter(|_| self.fuse_items);
        let mut all = FeatureSet::new(whole.map_or(stage.rows, |i| i.count));
        for (modality, (features, present)) in &stage.set {
            match whole {
                None => all.insert(modality.clone(), features.clone(), Some(present.clone()))?,
                Some(items) => {
                    let x = items.gather(&features.values.squeeze(1)?)?;
                    let flags = present.to_dtype(DType::F32)?.unsqueeze(1)?;
                    let mask = items.gather(&flags)?.squeeze(2)?; // [items, longest]
                    let any = mask.amax(1, false)?.gt_scalar(0.5)?;
                    all.insert(modality.clone(), Features::new(x, Some(mask.gt_scalar(0.5)?))?, Some(any))?;
                }
            }
        }
        let fusion = match &self.joint {
            Joint::Fusion(fusion) => fusion,
            Joint::Reason(reasoner) => {
                let out = reasoner.reason(&all, train)?;
                let joint = out.features.pool(Pooling::Mean)?;
                let fused = self.head.forward(&joint.dropout(self.dropout, train)?, train)?;
                let empty = Answer::empty(fused);
                return Ok(Answer { own: stage.own.clone(), looked: out.attention, joint: Some(joint), ..empty });
            }
        };
        let out = fusion.fuse(&all, train)?;
        let fused = match whole {
            None => out.features.pool(Pooling::Mean)?,
            Some(items) => {
                let found = out.features.values.shape();
                if found[1] != items.longest {
                    let wanted =
                        "an operator that gives a vector for each position (fusion.aligned, or pooled = false)";
                    return Err(mm_core::Error::config("fuse_items", format!("features of shape {found:?}"), wanted));
                }
                items.scatter(&out.features.values)?
            }
        };
        Ok(Answer {
            fused: self.head.forward(&fused.dropout(self.dropout, train)?, train)?,
            joint: Some(fused),
            own: stage.own.clone(),
            operator: out.aux_loss,
            weights: if whole.is_none() { out.modality_weights } else { BTreeMap::new() },
            looked: Vec::new(),
            heat: Vec::new(),
        })
    }

    /// The loss of a batch of rows with these labels ([`Target::tensor`]) and these numbers in the manifest, and figures beside it; none when
    /// no row has a label.
    pub(crate) fn loss(
        &self,
        (parts, made, items): (&Parts<'_>, &dyn Fn(&Modality) -> bool, &[String]),
        labels: &Tensor,
        (target, level): (&Target, (f64, f64)),
        weights: &LossConfig,
        train: bool,
        (keeping, numbers): (&mut Keeping, &[usize]),
    ) -> mm_core::Result<Option<(Tensor, Vec<(String, f64)>)>> {
        let mut mixed: Option<Mixed> = None;
        let blended;
        let parts = match weights.cutmix_alpha.get() {
            alpha if train && alpha > 0.0 => {
                (blended, mixed) = rectangles(parts, made, items.len(), alpha)?;
                &blended
            }
            _ => parts,
        };
        let mut stage = self.stage(parts, made, items, labels.device(), train)?;
        if train && weights.mixup_alpha.get() > 0.0 && mixed.is_none() {
            mixed = Some(blend(&mut stage, weights.mixup_alpha.get())?);
        }
        if train && weights.gradient_modulation.get() > 0.0 && target.is_classes() && stage.own.len() > 1 {
            // Who is ahead learns slower: the gradient of its features on the way back from the fused head is held back.
            for (modality, scale) in scales(&stage, labels, weights.gradient_modulation.get())? {
                if let Some((features, _)) = stage.set.get_mut(&modality) {
                    features.values = scale_gradient(&features.values, scale)?;
                }
            }
        }
        let answer = self.fuse(&stage, train)?;
        // Of blended rows both labels count, each as far as it is there.
        let judge = |outputs: &Tensor, counts: Option<&Tensor>| -> mm_core::Result<Option<Tensor>> {
            let own = target.loss(outputs, labels, counts, weights.label_smoothing.get())?;
            let Some((partners, share)) = &mixed else { return Ok(own) };
            let partners = Tensor::from_slice(partners)?.to_device(labels.device())?;
            let theirs =
                target.loss(outputs, &labels.index_select(0, &partners)?, counts, weights.label_smoothing.get())?;
            Ok(match (own, theirs) {
                (Some(own), Some(theirs)) => Some(own.mul_scalar(*share)?.add(&theirs.mul_scalar(1.0 - share)?)?),
                (own, theirs) => own.or(theirs),
            })
        };
        let Some(main) = judge(&answer.fused, None)? else { return Ok(None) };
        let mut figures = vec![("loss_fused".to_owned(), main.to_f64()?)];
        let count = answer.own.len().max(1) as f64;
        // Blended, the heads' weights sum to as much as they do otherwise.
        let whole = 1.0 + weights.unimodal_weight.get();
        let share = |keeping: &Keeping, head: &str, plain: f64| match &keeping.blending {
            Some(blending) => blending.weight(head) * whole,
            None => plain,
        };
        let mut total = main.mul_scalar(share(keeping, FUSED, 1.0))?;
        if let (Some(own), Some(joint), true) = (&mut keeping.own, &answer.joint, train) {
            own.record(FUSED, numbers, joint, None)?;
        }
        for (modality, (logits, present)) in &answer.own {
            let name = modality.name();
            let judged = match &mut keeping.own {
                Some(own) if train => {
                    if let Some(hidden) = stage.hidden.get(modality) {
                        own.record(name, numbers, hidden, Some(present))?;
                    }
                    figures.push((format!("unimodal_label_shift_{name}"), own.moved(name)));
                    own.loss(name, logits, present, numbers, target, level)?
                }
                _ => judge(logits, Some(present))?,
            };
            if let Some(own) = judged {
                figures.push((format!("loss_{name}"), own.to_f64()?));
                total = total.add(&own.mul_scalar(share(keeping, name, weights.unimodal_weight.get() / count))?)?;
            }
        }
        if let (Some(blending), true) = (&mut keeping.blending, train) {
            for (name, value) in &figures {
                if let Some(head) = name.strip_prefix("loss_") {
                    blending.trained(head, *value);
                }
            }
        }
        if let (Some(operator), true) = (&answer.operator, weights.operator_weight.get() > 0.0) {
            figures.push(("loss_operator".to_owned(), operator.to_f64()?));
            total = total.add(&operator.mul_scalar(weights.operator_weight.get())?)?;
        }
        if !train || !target.is_classes() {
            return Ok(Some((total, figures)));
        }
        if weights.distillation_weight.get() > 0.0 && !answer.own.is_empty() {
            let off = distillation(&answer.fused, &teacher(&answer)?, 2.0)?;
            total = total.add(&off.mul_scalar(weights.distillation_weight.get())?)?;
        }
        if weights.functional_entropy_weight.get() > 0.0 {
            // It is about features as they are: they must be leaves, so that nothing flows past them.
            for (features, _) in stage.set.values_mut() {
                features.values = features.values.detach()?.set_requires_grad(true)?;
            }
            let again = with_math_attention(|| self.fuse(&stage, train))?;
            let leaves: Vec<&Tensor> = stage.set.values().map(|(f, _)| &f.values).collect();
            let term = functional_entropy(&again.fused, &leaves)?;
            total = total.add(&term.mul_scalar(weights.functional_entropy_weight.get())?)?;
        }
        Ok(Some((total, figures)))
    }
}

/// The rows that rows were blended with, and the share of their own that is left.
type Mixed = (Vec<i64>, f64);

/// A generator that is a function of libtorch's, and so of the run's seed and step.
fn drawn() -> mm_core::Result<Rng> {
    let bits = Tensor::rand(&[1], DType::F64, Device::Cpu)?.to_vec::<f64>()?;
    Ok(Rng::new(&[bits[0].to_bits()]))
}

/// Blends the features of rows that have the same modalities (manifold mixup).
fn blend(stage: &mut Stage, alpha: f64) -> mm_core::Result<Mixed> {
    let mut random = drawn()?;
    let mut partners: Vec<i64> = (0..stage.rows).collect();
    random.shuffle(&mut partners);
    let share = mm_data::augment::sample_beta(alpha, &mut random);
    let device = stage.set.values().next().map_or(Device::Cpu, |(f, _)| f.values.device());
    let other = Tensor::from_slice(&partners)?.to_device(device)?;
    for (features, present) in stage.set.values_mut() {
        let both = present.logical_and(&present.index_select(0, &other)?)?;
        let part = both.to_dtype(DType::F32)?.mul_scalar(1.0 - share)?.reshape(&[-1, 1, 1])?;
        let theirs = features.values.index_select(0, &other)?;
        features.values = features.values.add(&theirs.sub(&features.values)?.mul(&part)?)?;
        if let Some(mask) = &features.mask {
            features.mask = Some(mask.logical_or(&mask.index_select(0, &other)?)?);
        }
    }
    Ok((partners, share))
}

/// Puts rectangles of other rows' pictures into a batch of pictures alone.
fn rectangles<'a>(
    parts: &Parts<'a>,
    made: &dyn Fn(&Modality) -> bool,
    rows: usize,
    alpha: f64,
) -> mm_core::Result<(Parts<'a>, Option<Mixed>)> {
    let mut out = parts.clone();
    let [(modality, (input, which))] = parts.iter().collect::<Vec<_>>()[..] else { return Ok((out, None)) };
    if made(modality) || input.values.rank() != 4 || which.len() != rows {
        return Ok((out, None));
    }
    let (values, partners, share) =
        mm_data::augment::cutmix(&input.values, alpha, &mut drawn()?).map_err(mm_core::Error::from)?;
    // Pictures lie in the batch as their rows came; partners are told by row.
    let mut by_row = vec![0i64; rows];
    which.iter().zip(&partners).for_each(|(row, partner)| by_row[*row] = which[*partner as usize] as i64);
    out.insert(modality, (Input { values, mask: input.mask.clone() }, which.clone()));
    Ok((out, Some((by_row, share))))
}

/// How much of its gradient each modality keeps.
fn scales(stage: &Stage, labels: &Tensor, strength: f64) -> mm_core::Result<Vec<(Modality, f64)>> {
    let known = labels.gt_scalar(-0.5)?.to_dtype(DType::F32)?;
    let truth = labels.clamp_min(0.0)?.to_dtype(DType::I64)?.unsqueeze(1)?;
    let mut scores = Vec::new();
    for (logits, present) in stage.own.values() {
        let right = logits.detach()?.softmax(1)?.gather(1, &truth)?.squeeze(1)?;
        scores.push(right.mul(&known.mul(present)?)?.sum()?.to_f64()?);
    }
    Ok(stage.own.keys().cloned().zip(gradient_scales(&scores, strength)?).collect())
}

/// The mean of what the modalities of a row say.
fn teacher(answer: &Answer) -> mm_core::Result<Tensor> {
    let mut sum = answer.fused.zeros_like()?;
    let mut count = sum.narrow(1, 0, 1)?;
    for (logits, present) in answer.own.values() {
        let flag = present.unsqueeze(1)?;
        sum = sum.add(&logits.mul(&flag)?)?;
        count = count.add(&flag)?;
    }
    sum.div(&count.clamp_min(1.0)?)
}
