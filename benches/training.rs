//! mm's part of `training.py`: training steps per second of one model on random data. A step is what the trainer does:
//! forward and backward pass, gradient norm, clipping, AdamW.
//!
//! Usage: `training NAME STEPS [THREADS]`. In several processes (`RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`) each takes its
//! part of the rows, gradients are averaged in buckets while the backward pass runs, and the first process prints.

use mm_core::{
    DType, Device, Encoder, FeatureSet, Features, Input, InputSet, Modality, Module, Params, RepresentationLearner,
    Result, Role, Scope, Tensor,
    nn::{Linear, Lstm, LstmConfig},
};
use mm_dist::{GradientReducer, Group};
use mm_fusion::{Fusion, FusionConfig, OperatorConfig, operator_spec};
use mm_reason::reasoning::{self, ReasoningConfig};
use mm_repr::{
    adversarial::{DiscriminatorConfig, Gan, GanConfig},
    generative::{
        InputSpec, InputSpecs, MaskedAutoencoder, MaskedAutoencoderConfig, Vae, VaeConfig, ValueType,
        networks::NetworkConfig,
    },
    image::{CnnEncoder, CnnEncoderConfig},
    text::{LstmEncoder, LstmEncoderConfig},
};
use mm_train::{Optimizer, OptimizerConfig, ParamGroup};
use std::{rc::Rc, time::Instant};

/// The modalities of CMU-MOSI's utterances, with their feature dimensions.
const MOSI: [(Modality, i64); 3] = [(Modality::AUDIO, 73), (Modality::IMAGE, 100), (Modality::TEXT, 100)];
const BATCH: i64 = 32;
/// Number of batches that alternate. A single one would be overfitted, and denormal gradients, which are slow,
/// measured.
const NUM_BATCHES: usize = 64;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    mm_core::retain_freed_memory();
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, steps, threads @ ..] = arguments.as_slice() else {
        return Err("usage: training NAME STEPS [THREADS]".into());
    };
    mm_core::set_num_threads(threads.first().map_or(Ok(2), |threads| threads.parse())?);
    let steps: u32 = steps.parse()?;
    let group = Group::from_env()?.map(Rc::new);
    let params = Params::new(Device::Cpu);
    let mut loss = model(name, group.as_ref().map_or(1, |group| group.world_size()), &params)?;
    let reducer = match &group {
        Some(group) => {
            let trainable = params.named(&[Role::Trainable]);
            // The ranks begin with the weights of the first, as `DistributedDataParallel` does.
            let first = trainable.iter().map(|(_, tensor)| Ok((tensor.clone(), group.broadcast(tensor, 0)?)));
            let first: Vec<(Tensor, Tensor)> = first.collect::<mm_dist::Result<_>>()?;
            mm_core::no_grad(|| first.iter().try_for_each(|(own, first)| own.copy_(first)))?;
            Some(GradientReducer::new(group, trainable.into_iter().map(|(_, tensor)| tensor).collect())?)
        }
        None => None,
    };
    // In `reason-…` the encoders are not trained: their outputs are computed once.
    let param_groups = match name.strip_prefix("reason-") {
        Some(_) => ["see", "read"].map(|p| ParamGroup { prefix: p.into(), lr_scale: 0.0, weight_decay: None }).to_vec(),
        None => Vec::new(),
    };
    let mut optimizer =
        Optimizer::new(&OptimizerConfig { lr: 1e-3, param_groups, ..OptimizerConfig::default() }, &params)?;
    let mut step = || -> Result<()> {
        optimizer.zero_grad();
        let loss = loss()?;
        if !loss.to_f64()?.is_finite() {
            return Err(mm_core::Error::Sample("the loss is not finite".into()));
        }
        match &reducer {
            Some(reducer) => {
                reducer.backward(Some(&loss)).map_err(|e| mm_core::Error::Sample(e.to_string()))?;
            }
            None => loss.backward()?,
        }
        let norm = optimizer.grad_norm().map_err(|e| mm_core::Error::Sample(e.to_string()))?;
        optimizer.step(1.0, (1.0 / (norm + 1e-6)).min(1.0)).map_err(|e| mm_core::Error::Sample(e.to_string()))
    };
    for _ in 0..3 {
        step()?;
    }
    let start = Instant::now();
    for _ in 0..steps {
        step()?;
    }
    if group.is_none_or(|group| group.rank() == 0) {
        println!("{}", f64::from(steps) / start.elapsed().as_secs_f64());
    }
    Ok(())
}

type Loss = Box<dyn FnMut() -> Result<Tensor>>;

type ModelResult = std::result::Result<Loss, Box<dyn std::error::Error>>;

/// A model by its name, with its data, of which a process has its part: each call is the loss of one training step.
fn model(name: &str, processes: usize, params: &Params) -> ModelResult {
    let scope = params.scope();
    let (kind, variant) = name.split_once('-').unwrap_or((name, ""));
    match kind {
        "vae" | "dense_vae" | "mae" | "gan" => representation_model(kind, variant == "large", processes as i64, &scope),
        _ if processes > 1 => Err("several processes: expected a vae or a mae".into()),
        "contextual" => contextual_model(&scope),
        "vqa" | "reason" => reasoning_model(variant, kind == "reason", &scope),
        _ => fusion_model(kind, &scope),
    }
}

/// A model of `mm_repr::generative` or `adversarial` on random images.
fn representation_model(kind: &str, large: bool, processes: i64, scope: &Scope<'_>) -> ModelResult {
    let image = Modality::IMAGE;
    let (rows, size) = if large { (64, 64) } else { (BATCH, 16) };
    let channels: Vec<i64> = if large { vec![64, 128, 256] } else { vec![16, 32] };
    let values = Tensor::rand(&[rows / processes, 3, size, size], DType::F32, Device::Cpu)?;
    let spec = InputSpec { shape: vec![3, size, size], value_type: ValueType::UnitInterval };
    let set = InputSet::of(Modality::IMAGE, Input { values, mask: None })?;
    let learner: Box<dyn RepresentationLearner> = match kind {
        "vae" | "dense_vae" => {
            let channels = if kind == "vae" { channels } else { vec![] };
            let network = NetworkConfig { hidden_dims: vec![if large { 512 } else { 128 }], channels, dropout: 0.0 };
            let config = VaeConfig { latent_dim: if large { 128 } else { 32 }, network, ..VaeConfig::default() };
            Box::new(Vae::new(scope, (&image, &spec), &config)?)
        }
        "mae" => {
            let config = if large {
                let (embed_dim, num_heads, num_layers) = (384, 6, 6);
                MaskedAutoencoderConfig {
                    embed_dim,
                    num_heads,
                    num_layers,
                    decoder_embed_dim: 192,
                    ..MaskedAutoencoderConfig::default()
                }
            } else {
                MaskedAutoencoderConfig {
                    embed_dim: 64,
                    num_layers: 2,
                    decoder_embed_dim: 32,
                    decoder_num_layers: 1,
                    ..MaskedAutoencoderConfig::default()
                }
            };
            Box::new(MaskedAutoencoder::new(scope, (&image, &spec), &config)?)
        }
        _ => {
            let network = NetworkConfig { hidden_dims: vec![], channels: channels.clone(), dropout: 0.0 };
            let discriminator = DiscriminatorConfig { channels, ..DiscriminatorConfig::default() };
            let config = GanConfig { generator: network, discriminator, diff_augment: false, ..GanConfig::default() };
            Box::new(Gan::new(scope, &InputSpecs::from([(image, spec)]), &config)?)
        }
    };
    Ok(Box::new(move || {
        let found = learner.loss(&set, true)?;
        found.map(|(loss, _)| loss).ok_or_else(|| mm_core::Error::Sample("no row to train on".into()))
    }))
}

/// Utterances in the context of their video: a bidirectional LSTM over each modality's utterances, then gated fusion.
fn contextual_model(scope: &Scope<'_>) -> ModelResult {
    let (videos, utterances, hidden) = (BATCH, 24, 64);
    let mut branches = Vec::new();
    for (modality, dim) in MOSI {
        let config =
            LstmConfig { input_dim: dim, hidden_dim: hidden, num_layers: 1, bidirectional: true, dropout: 0.0 };
        let lstm = Lstm::new(&scope.pp("context").pp(&modality), config)?;
        let values = Tensor::randn(&[videos, utterances, dim], DType::F32, Device::Cpu)?;
        branches.push((modality, lstm, values));
    }
    let fusion = fusion(scope, OperatorConfig::new("gated"), branches.iter().map(|b| (b.0.clone(), 2 * hidden)))?;
    let head = Linear::new(&scope.pp("head"), fusion.dim(), 2, true)?;
    let labels = Tensor::from_vec(&alternating(videos * utterances), &[videos * utterances])?;
    Ok(Box::new(move || {
        let mut set = FeatureSet::new(videos * utterances);
        for (modality, lstm, values) in &branches {
            let features = lstm.forward(values, None, true)?.reshape(&[-1, 2 * hidden])?;
            set.insert(modality.clone(), Features::from_pooled(&features)?, None)?;
        }
        classification_loss(&fusion, &head, &set, &labels)
    }))
}

/// easy-VQA's sizes: images of 64×64, eight words, the networks of docs/configs/vqa.toml. With `frozen_encoders` only
/// the network is trained, on features that are computed once.
fn reasoning_model(network: &str, frozen_encoders: bool, scope: &Scope<'_>) -> ModelResult {
    let network = match network {
        kind @ "san" => reasoning::NetworkConfig::new(kind).with("num_steps", 2),
        kind @ "film" => reasoning::NetworkConfig::new(kind).with("num_blocks", 2),
        kind @ "mcan" => reasoning::NetworkConfig::new(kind).with("num_layers", 2).with("num_heads", 4),
        kind @ "relation_network" => reasoning::NetworkConfig::new(kind).with("num_layers", 3),
        other => return Err(format!("no network `{other}`").into()),
    };
    let rows = 128;
    let image_config = CnnEncoderConfig { channels: vec![16, 32, 48], dropout: 0.0, ..CnnEncoderConfig::default() };
    let image_encoder = CnnEncoder::new(&scope.pp("see"), &image_config)?;
    let vocabulary = (0..28).map(|n| n.to_string()).collect();
    let text_config =
        LstmEncoderConfig { vocabulary, embedding_dim: 48, hidden_dim: 96, ..LstmEncoderConfig::default() };
    let text_encoder = LstmEncoder::new(&scope.pp("read"), &text_config)?;
    let config = ReasoningConfig { network, hidden_dim: 96, ..ReasoningConfig::default() };
    let dims = [(Modality::IMAGE, image_encoder.dim()), (Modality::TEXT, text_encoder.dim())];
    let reasoner = reasoning::build(&scope.pp("reason"), &config, &dims)?;
    let head = Linear::new(&scope.pp("head"), reasoner.dim(), 13, true)?;
    let values = Tensor::randn(&[rows, 3, 64, 64], DType::F32, Device::Cpu)?;
    let images = Input { values, mask: None };
    let words: Vec<i64> = (0..rows * 8).map(|n| 2 + n * n % 28).collect();
    let questions = Input { values: Tensor::from_vec(&words, &[rows, 8])?, mask: None };
    let labels = Tensor::from_vec(&(0..rows).map(|n| n % 13).collect::<Vec<_>>(), &[rows])?;
    let features = (image_encoder.encode(&images, true)?, text_encoder.encode(&questions, true)?);
    let detach = |f: &Features| Features::new(f.values.detach()?, None);
    let cached = (detach(&features.0)?, detach(&features.1)?);
    Ok(Box::new(move || {
        let mut set = FeatureSet::new(rows);
        let (image, text) = if frozen_encoders {
            cached.clone()
        } else {
            (image_encoder.encode(&images, true)?, text_encoder.encode(&questions, true)?)
        };
        set.insert(Modality::IMAGE, image, None)?;
        set.insert(Modality::TEXT, text, None)?;
        let joint = reasoner.reason(&set, true)?.features.pool(mm_core::Pooling::Mean)?;
        head.forward(&joint, true)?.cross_entropy(&labels, -100, 0.0)
    }))
}

/// A fusion operator on one vector of each modality, or on a sequence of fifty for operators on sequences.
fn fusion_model(kind: &str, scope: &Scope<'_>) -> ModelResult {
    let length = if operator_spec(kind)?.takes_sequences { 50 } else { 1 };
    let mut sets = Vec::new();
    for _ in 0..NUM_BATCHES {
        let mut set = FeatureSet::new(BATCH);
        for (modality, dim) in MOSI {
            let values = Tensor::randn(&[BATCH, length, dim], DType::F32, Device::Cpu)?;
            set.insert(modality, Features::new(values, None)?, None)?;
        }
        sets.push(set);
    }
    let fusion = fusion(scope, OperatorConfig::new(kind), MOSI.into_iter())?;
    let head = Linear::new(&scope.pp("head"), fusion.dim(), 2, true)?;
    let labels = Tensor::from_vec(&alternating(BATCH), &[BATCH])?;
    let mut next = sets.into_iter().cycle();
    Ok(Box::new(move || match next.next() {
        Some(set) => classification_loss(&fusion, &head, &set, &labels),
        None => Err(mm_core::Error::Sample("no batch".into())),
    }))
}

fn alternating(rows: i64) -> Vec<i64> {
    (0..rows).map(|n| n % 2).collect()
}

fn fusion(
    scope: &Scope<'_>,
    operator: OperatorConfig,
    dims: impl Iterator<Item = (Modality, i64)>,
) -> std::result::Result<Fusion, mm_fusion::Error> {
    let config = FusionConfig { operator, dim: 64, ..FusionConfig::default() };
    Fusion::new(&scope.pp("fusion"), &config, &dims.collect::<Vec<_>>())
}

fn classification_loss(fusion: &Fusion, head: &Linear, set: &FeatureSet, labels: &Tensor) -> Result<Tensor> {
    let out = fusion.fuse(set, true)?;
    let logits = head.forward(&out.features.pool(mm_core::Pooling::Mean)?, true)?;
    let loss = logits.cross_entropy(labels, -100, 0.0)?;
    match out.aux_loss {
        Some(own) => loss.add(&own),
        None => Ok(loss),
    }
}
