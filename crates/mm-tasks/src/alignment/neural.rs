//! Alignment by two small networks trained with a loss on batches of pairs.

use mm_align::{
    Affine, Alignment, AlignmentMethod, Error, FitOptions, PairedFeatures, Projection, Requirements, Result, Transform,
    contrastive::Similarity, correlation::cca,
};
use mm_core::{
    DType, Device, Init, Module, Params, Scope, Tensor,
    nn::Linear,
    no_grad,
    seed::{Rng, derive_seed, manual_seed},
};
use mm_train::{Optimizer, OptimizerConfig};

const EPOCHS: usize = 60;
const BATCH_SIZE: usize = 256;
/// Deep CCA estimates covariances, which takes more rows.
const DEEP_CCA_BATCH_SIZE: usize = 512;
const HIDDEN_DIM: i64 = 256;
const DROPOUT: f64 = 0.3;
const LEARNING_RATE: f64 = 1e-3;
const MIN_LR_RATIO: f64 = 0.01;
const WEIGHT_DECAY: f64 = 0.05;
const MAX_GRAD_NORM: f64 = 1.0;
/// Default and smallest dimension of the shared space.
const DEFAULT_DIM: i64 = 128;
const MIN_DIM: i64 = 8;
/// Ridge of the CCA that follows deep CCA.
const CANONICAL_RIDGE: f64 = 0.1;
/// Weight of the reconstruction error, which is a mean, next to the sum of the correlations.
const RECONSTRUCTION_WEIGHT: f64 = 10.0;

/// Both embeddings of a batch, and the other inputs of the losses.
pub(super) struct Batch<'a> {
    /// Embeddings `[rows, dim]` of modality a and b.
    pub a: &'a Tensor,
    pub b: &'a Tensor,
    pub similarity: &'a Similarity,
    /// Learned inverse temperature `[1]` and, for the sigmoid loss, bias `[1]`.
    pub scale: &'a Tensor,
    pub bias: &'a Tensor,
    /// Class indices `[rows]`, where there are labels.
    pub labels: Option<Vec<i64>>,
}

/// How deep CCA is completed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DeepCca {
    /// Not a deep CCA.
    No,
    /// Linear CCA on the trained embeddings, since the loss is invariant to linear maps of either.
    Plain,
    /// [`DeepCca::Plain`] with linear decoders that reconstruct each modality from its embedding.
    Autoencoder,
}

/// A method that trains one network per modality: standardized input, two layers and a linear skip connection, 60
/// epochs of AdamW.
pub struct NeuralAlignment {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) needs_labels: bool,
    pub(super) deep_cca: DeepCca,
    pub(super) loss: fn(&Batch<'_>) -> Result<Tensor>,
}

impl AlignmentMethod for NeuralAlignment {
    fn name(&self) -> &'static str {
        self.name
    }

    fn description(&self) -> &'static str {
        self.description
    }

    fn requirements(&self) -> Requirements {
        Requirements { labels: self.needs_labels, training: true, max_search_rows: None }
    }

    fn searches_dim(&self) -> bool {
        self.deep_cca != DeepCca::No
    }

    fn fit(&self, pairs: &PairedFeatures, options: &FitOptions) -> Result<Alignment> {
        let (a, b) = (&pairs.a, &pairs.b);
        let default_dim = || -> Result<i64> { Ok(DEFAULT_DIM.min(a.size(1)?).min(b.size(1)?).max(MIN_DIM)) };
        let dim = options.dim.map_or_else(default_dim, Ok)?;
        let [tower_a, tower_b] = self.train(pairs, dim, options.seed)?;
        if self.deep_cca == DeepCca::No {
            return Ok(Alignment::new(Projection::new(tower_a), Projection::new(tower_b), dim));
        }
        let fit = cca(&tower_a.apply(a)?, &tower_b.apply(b)?, None, [CANONICAL_RIDGE; 2])?.scale_by_values(1.0)?;
        let canonical =
            |set: usize| fit.sets.get(set).map(|(mean, map)| Affine { mean: mean.clone(), map: map.clone() });
        let (Some(canonical_a), Some(canonical_b)) = (canonical(0), canonical(1)) else {
            return Err(Error::Method("CCA returned fewer than two sets".into()));
        };
        let project_a = Projection::new(tower_a).then(canonical_a);
        let project_b = Projection::new(tower_b).then(canonical_b);
        Ok(Alignment { project_a, project_b, dim, sorted: true })
    }
}

impl NeuralAlignment {
    fn train(&self, pairs: &PairedFeatures, dim: i64, seed: u64) -> Result<[Tower; 2]> {
        manual_seed(seed);
        let params = Params::new(Device::Cpu);
        let root = params.scope();
        let (a, b) = (pairs.a.to_dtype(DType::F32)?, pairs.b.to_dtype(DType::F32)?);
        let towers = [Tower::new(&root.pp("a"), &pairs.a, dim)?, Tower::new(&root.pp("b"), &pairs.b, dim)?];
        let mut decoders = Vec::new();
        if self.deep_cca == DeepCca::Autoencoder {
            for (name, x) in [("a", &a), ("b", &b)] {
                decoders.push(Linear::new(&root.pp("decoder").pp(name), dim, x.size(1)?, true)?);
            }
        }
        let log_scale = root.param("logit_scale", &[1], Init::Constant((1.0f64 / 0.07).ln()))?;
        let bias = root.param("logit_bias", &[1], Init::Constant(-10.0))?;
        let config = OptimizerConfig { lr: LEARNING_RATE, weight_decay: WEIGHT_DECAY, ..OptimizerConfig::default() };
        let mut optimizer = Optimizer::new(&config, &params).map_err(training_error)?;
        let rows = a.size(0)? as usize;
        let batch_size = if self.deep_cca == DeepCca::No { BATCH_SIZE } else { DEEP_CCA_BATCH_SIZE }.min(rows);
        let steps = (EPOCHS * rows / batch_size).max(1);
        let mut order: Vec<i64> = (0..rows as i64).collect();
        let mut step = 0;
        for epoch in 0..EPOCHS as u64 {
            Rng::new(&[seed, epoch]).shuffle(&mut order);
            for batch_rows in order.chunks(batch_size) {
                if batch_rows.len() < 2 || step >= steps {
                    continue;
                }
                manual_seed(derive_seed(&[seed, epoch, step as u64]));
                let index = Tensor::from_slice(batch_rows)?;
                let inputs = [a.index_select(0, &index)?, b.index_select(0, &index)?];
                let x = towers[0].forward(&inputs[0], true)?;
                let y = towers[1].forward(&inputs[1], true)?;
                let mut loss = (self.loss)(&Batch {
                    a: &x,
                    b: &y,
                    similarity: &Similarity::cosine(&x, &y)?,
                    scale: &log_scale.clamp(0.0, 100f64.ln())?.exp()?,
                    bias: &bias,
                    labels: pairs.labels.as_ref().map(|l| batch_rows.iter().map(|r| l[*r as usize]).collect()),
                })?;
                for ((tower, decoder), (code, input)) in
                    towers.iter().zip(&decoders).zip([&x, &y].into_iter().zip(&inputs))
                {
                    let error = decoder.forward(code, true)?.sub(&tower.standardize(input)?)?.pow(2.0)?.mean()?;
                    loss = loss.add(&error.mul_scalar(RECONSTRUCTION_WEIGHT)?)?;
                }
                optimizer.zero_grad();
                loss.backward()?;
                let cosine_schedule = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos());
                optimizer.step(cosine_schedule.max(MIN_LR_RATIO), MAX_GRAD_NORM).map_err(training_error)?;
                step += 1;
            }
        }
        Ok(towers)
    }
}

fn training_error(error: mm_train::Error) -> Error {
    Error::Method(Box::new(error))
}

/// The network of one modality.
struct Tower {
    mean: Tensor,
    std: Tensor,
    fc1: Linear,
    fc2: Linear,
    skip: Linear,
}

impl Tower {
    fn new(scope: &Scope<'_>, x: &Tensor, dim: i64) -> Result<Self> {
        let input_dim = x.size(1)?;
        Ok(Self {
            mean: x.mean_dim(&[0], true)?.to_dtype(DType::F32)?,
            std: x.std_dim(&[0], false, true)?.add_scalar(1e-6)?.to_dtype(DType::F32)?,
            fc1: Linear::new(&scope.pp("fc1"), input_dim, HIDDEN_DIM, true)?,
            fc2: Linear::new(&scope.pp("fc2"), HIDDEN_DIM, dim, true)?,
            skip: Linear::new(&scope.pp("skip"), input_dim, dim, false)?,
        })
    }

    /// Standardizes by the training rows.
    fn standardize(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        x.to_dtype(DType::F32)?.sub(&self.mean)?.div(&self.std)
    }

    fn forward(&self, x: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        let x = self.standardize(x)?.dropout(DROPOUT, train)?;
        let hidden = self.fc1.forward(&x, train)?.gelu()?.dropout(DROPOUT, train)?;
        self.fc2.forward(&hidden, train)?.add(&self.skip.forward(&x, train)?)
    }
}

impl Transform for Tower {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(no_grad(|| self.forward(x, false))?.to_dtype(DType::F64)?)
    }
}
