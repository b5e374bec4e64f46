//! mm's share of `training.py`: training steps a second of one model on made-up data, everything that the trainer does for a step (forward and
//! backward pass, the gradients' length, clipping, AdamW). Usage: training NAME STEPS

use mm_core::{
    DType, Device, Encoder, FeatureSet, Features, Input, InputSet, Modality, Module, Params, RepresentationLearner,
    Result, Tensor,
    nn::{Linear, Lstm, LstmConfig},
};
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
use std::time::Instant;

/// Utterances of CMU-MOSI: numbers of the face, the words and the voice, in the order of the modalities' names.
const MOSI: [(Modality, i64); 3] = [(Modality::AUDIO, 73), (Modality::IMAGE, 100), (Modality::TEXT, 100)];
const BATCH: i64 = 32;
/// Batches that take turns: one alone would be learned by heart, and numbers too small for the processor's fast path would be measured.
const DIFFERENT: usize = 64;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    mm_core::retain_freed_memory();
    mm_core::set_num_threads(2);
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, steps] = arguments.as_slice() else { return Err("usage: training NAME STEPS".into()) };
    let steps: u32 = steps.parse()?;
    let params = Params::new(Device::Cpu);
    let mut loss = model(name, &params)?;
    // Encoders that were asked once are no part of what learns.
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
            return Err(mm_core::Error::Sample("the loss left the numbers".into()));
        }
        loss.backward()?;
        let norm = optimizer.grad_norm().map_err(|e| mm_core::Error::Sample(e.to_string()))?;
        optimizer.step(1.0, (1.0 / (norm + 1e-6)).min(1.0)).map_err(|e| mm_core::Error::Sample(e.to_string()))
    };
    for _ in 0..3 {
        step()?;
    }
    let begun = Instant::now();
    for _ in 0..steps {
        step()?;
    }
    println!("{}", f64::from(steps) / begun.elapsed().as_secs_f64());
    Ok(())
}

type Loss = Box<dyn FnMut() -> Result<Tensor>>;

/// A model by its name, with its data: each call is the loss of one training step.
fn model(name: &str, params: &Params) -> std::result::Result<Loss, Box<dyn std::error::Error>> {
    let scope = params.scope();
    let image = Modality::IMAGE;
    let pictures = |rows: i64, side: i64| -> Result<(InputSpec, InputSet)> {
        let values = Tensor::rand(&[rows, 3, side, side], DType::F32, Device::Cpu)?;
        let spec = InputSpec { shape: vec![3, side, side], value_type: ValueType::UnitInterval };
        Ok((spec, InputSet::of(Modality::IMAGE, Input { values, mask: None })?))
    };
    let learns = |learner: Box<dyn RepresentationLearner>, set: InputSet| -> Loss {
        Box::new(move || {
            let found = learner.loss(&set, true)?;
            found.map(|(loss, _)| loss).ok_or_else(|| mm_core::Error::Sample("no row to learn from".into()))
        })
    };
    let (kind, large) = match name.split_once('-') {
        Some((kind, size)) => (kind, size == "large"),
        None => (name, false),
    };
    let (rows, side) = if large { (64, 64) } else { (BATCH, 16) };
    let channels: Vec<i64> = if large { vec![64, 128, 256] } else { vec![16, 32] };
    Ok(match kind {
        "vae" | "dense_vae" => {
            let (spec, set) = pictures(rows, side)?;
            let channels = if kind == "vae" { channels } else { vec![] };
            let network = NetworkConfig { hidden_dims: vec![if large { 512 } else { 128 }], channels, dropout: 0.0 };
            let config = VaeConfig { latent_dim: if large { 128 } else { 32 }, network, ..VaeConfig::default() };
            learns(Box::new(Vae::new(&scope, (&image, &spec), &config)?), set)
        }
        "mae" => {
            let (spec, set) = pictures(rows, side)?;
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
            learns(Box::new(MaskedAutoencoder::new(&scope, (&image, &spec), &config)?), set)
        }
        "gan" => {
            let (spec, set) = pictures(rows, side)?;
            let network = NetworkConfig { hidden_dims: vec![], channels: channels.clone(), dropout: 0.0 };
            let discriminator = DiscriminatorConfig { channels, ..DiscriminatorConfig::default() };
            let config = GanConfig { generator: network, discriminator, diff_augment: false, ..GanConfig::default() };
            learns(Box::new(Gan::new(&scope, &InputSpecs::from([(image, spec)]), &config)?), set)
        }
        // Each utterance in its video: a bidirectional network over each modality's utterances, then the gate.
        "contextual" => {
            let (videos, utterances, hidden) = (BATCH, 24, 64);
            let mut ways = Vec::new();
            for (modality, width) in MOSI {
                let config = LstmConfig {
                    input_dim: width,
                    hidden_dim: hidden,
                    num_layers: 1,
                    bidirectional: true,
                    dropout: 0.0,
                };
                let lstm = Lstm::new(&scope.pp("context").pp(&modality), config)?;
                let values = Tensor::randn(&[videos, utterances, width], DType::F32, Device::Cpu)?;
                ways.push((modality, lstm, values));
            }
            let fusion =
                fusion(&params.scope(), OperatorConfig::new("gated"), ways.iter().map(|w| (w.0.clone(), 2 * hidden)))?;
            let head = Linear::new(&scope.pp("head"), fusion.dim(), 2, true)?;
            let labels = Tensor::from_vec(&alternating(videos * utterances), &[videos * utterances])?;
            Box::new(move || {
                let mut set = FeatureSet::new(videos * utterances);
                for (modality, lstm, values) in &ways {
                    let features = lstm.forward(values, None, true)?.reshape(&[-1, 2 * hidden])?;
                    set.insert(modality.clone(), Features::from_pooled(&features)?, None)?;
                }
                judged(&fusion, &head, &set, &labels)
            })
        }
        // easy-VQA's size: pictures of 64 pixels a side, eight words, the networks of docs/configs/vqa.toml.
        "vqa" | "reason" => {
            let network = match name.split_once('-').map_or("", |n| n.1) {
                kind @ "san" => reasoning::NetworkConfig::new(kind).with("num_steps", 2),
                kind @ "film" => reasoning::NetworkConfig::new(kind).with("num_blocks", 2),
                kind @ "mcan" => reasoning::NetworkConfig::new(kind).with("num_layers", 2).with("num_heads", 4),
                kind @ "relation_network" => reasoning::NetworkConfig::new(kind).with("num_layers", 3),
                other => return Err(format!("no network `{other}`").into()),
            };
            let rows = 128;
            let tower = CnnEncoderConfig { channels: vec![16, 32, 48], dropout: 0.0, ..CnnEncoderConfig::default() };
            let see = CnnEncoder::new(&scope.pp("see"), &tower)?;
            let vocabulary = (0..28).map(|n| n.to_string()).collect();
            let reader =
                LstmEncoderConfig { vocabulary, embedding_dim: 48, hidden_dim: 96, ..LstmEncoderConfig::default() };
            let read = LstmEncoder::new(&scope.pp("read"), &reader)?;
            let config = ReasoningConfig { network, hidden_dim: 96, ..ReasoningConfig::default() };
            let alone = kind == "reason";
            let widths = [(Modality::IMAGE, see.dim()), (Modality::TEXT, read.dim())];
            let reasoner = reasoning::build(&scope.pp("reason"), &config, &widths)?;
            let head = Linear::new(&scope.pp("head"), reasoner.dim(), 13, true)?;
            let values = Tensor::randn(&[rows, 3, 64, 64], DType::F32, Device::Cpu)?;
            let pictures = Input { values, mask: None };
            let words: Vec<i64> = (0..rows * 8).map(|n| 2 + n * n % 28).collect();
            let questions = Input { values: Tensor::from_vec(&words, &[rows, 8])?, mask: None };
            let labels = Tensor::from_vec(&(0..rows).map(|n| n % 13).collect::<Vec<_>>(), &[rows])?;
            // The network that reasons alone takes what the others made of pictures and words once.
            let made = (see.encode(&pictures, true)?, read.encode(&questions, true)?);
            let given = |f: &Features| Features::new(f.values.detach()?, None);
            let given = (given(&made.0)?, given(&made.1)?);
            Box::new(move || {
                let mut set = FeatureSet::new(rows);
                let (places, words) =
                    if alone { given.clone() } else { (see.encode(&pictures, true)?, read.encode(&questions, true)?) };
                set.insert(Modality::IMAGE, places, None)?;
                set.insert(Modality::TEXT, words, None)?;
                let joint = reasoner.reason(&set, true)?.features.pool(mm_core::Pooling::Mean)?;
                head.forward(&joint, true)?.cross_entropy(&labels, -100, 0.0)
            })
        }
        // One vector, or for operators on sequences fifty positions, of each modality.
        kind => {
            let length = if operator_spec(kind)?.takes_sequences { 50 } else { 1 };
            let mut sets = Vec::new();
            for _ in 0..DIFFERENT {
                let mut set = FeatureSet::new(BATCH);
                for (modality, width) in MOSI {
                    let values = Tensor::randn(&[BATCH, length, width], DType::F32, Device::Cpu)?;
                    set.insert(modality, Features::new(values, None)?, None)?;
                }
                sets.push(set);
            }
            let fusion = fusion(&scope, OperatorConfig::new(kind), MOSI.into_iter())?;
            let head = Linear::new(&scope.pp("head"), fusion.dim(), 2, true)?;
            let labels = Tensor::from_vec(&alternating(BATCH), &[BATCH])?;
            let mut next = sets.into_iter().cycle();
            Box::new(move || match next.next() {
                Some(set) => judged(&fusion, &head, &set, &labels),
                None => Err(mm_core::Error::Sample("no batch".into())),
            })
        }
    })
}

fn alternating(rows: i64) -> Vec<i64> {
    (0..rows).map(|n| n % 2).collect()
}

fn fusion(
    scope: &mm_core::Scope<'_>,
    operator: OperatorConfig,
    widths: impl Iterator<Item = (Modality, i64)>,
) -> std::result::Result<Fusion, mm_fusion::Error> {
    let config = FusionConfig { operator, dim: 64, ..FusionConfig::default() };
    Fusion::new(&scope.pp("fusion"), &config, &widths.collect::<Vec<_>>())
}

fn judged(fusion: &Fusion, head: &Linear, set: &FeatureSet, labels: &Tensor) -> Result<Tensor> {
    let out = fusion.fuse(set, true)?;
    let logits = head.forward(&out.features.pool(mm_core::Pooling::Mean)?, true)?;
    let loss = logits.cross_entropy(labels, -100, 0.0)?;
    match out.aux_loss {
        Some(own) => loss.add(&own),
        None => Ok(loss),
    }
}
