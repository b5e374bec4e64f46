//! The forward and the backward pass of a batch, whole or in chunks.
//!
//! Gradient caching is from *Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup* (Gao et al., 2021,
//! <https://arxiv.org/abs/2101.06983>).

use crate::{Result, distributed::Ranks};
use mm_core::{
    ChunkedLoss, Device, LossOutput, Tensor, TrainingObjective, autocast,
    distributed::with_process_group,
    no_grad,
    seed::{derive_seed, manual_seed},
};

/// How the passes of a batch are run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passes {
    /// The seed of what is random in them, dropout for instance.
    pub(crate) seed: u64,
    /// The device on which matrix products are in bfloat16; `None` where all is float32.
    pub(crate) autocast: Option<Device>,
    /// Whether other processes have the other rows of the batch.
    pub(crate) is_part: bool,
}

/// A forward pass, of which the backward pass is still to run.
pub(crate) struct Forward<'b> {
    /// The loss and values to be logged.
    pub(crate) output: Option<LossOutput>,
    chunked: Option<Chunked<'b>>,
}

/// A forward pass in chunks.
struct Chunked<'b> {
    passes: Passes,
    chunks: Box<dyn ChunkedLoss + 'b>,
    /// The embeddings of each chunk, at which the graph of the loss begins: their gradients are the cached ones.
    embeddings: Vec<Vec<Tensor>>,
}

impl Passes {
    fn run<T>(self, seed: u64, body: impl FnOnce() -> T) -> T {
        manual_seed(seed);
        // Leaving autocast drops its copies of the weights: those that were made without gradients have none.
        let body = || match self.autocast {
            Some(device) => autocast(device, body),
            None => body(),
        };
        if self.is_part { body() } else { with_process_group(None, body) }
    }

    /// The loss of a batch, in training.
    pub(crate) fn forward<'b, B>(self, objective: &'b dyn TrainingObjective<B>, batch: &'b B) -> Result<Forward<'b>> {
        let Some(chunks) = self.run(self.seed, || objective.chunks(batch))? else {
            return Ok(Forward { output: self.run(self.seed, || objective.loss(batch, true))?, chunked: None });
        };
        let mut embeddings = Vec::with_capacity(chunks.num_chunks());
        for chunk in 0..chunks.num_chunks() {
            let values = no_grad(|| self.embed(chunks.as_ref(), chunk))?;
            let leaves = values.iter().map(|value| value.detach()?.set_requires_grad(true));
            embeddings.push(leaves.collect::<mm_core::Result<Vec<_>>>()?);
        }
        let output = self.run(self.chunk_seed(embeddings.len()), || chunks.loss(&embeddings))?;
        Ok(Forward { output, chunked: Some(Chunked { passes: self, chunks, embeddings }) })
    }

    fn chunk_seed(self, chunk: usize) -> u64 {
        derive_seed(&[self.seed, chunk as u64])
    }

    fn embed(self, chunks: &dyn ChunkedLoss, chunk: usize) -> Result<Vec<Tensor>> {
        // The process of another rank may have no such chunk.
        let alone = || with_process_group(None, || chunks.embed(chunk));
        Ok(self.run(self.chunk_seed(chunk), alone)?)
    }
}

impl Forward<'_> {
    /// The backward pass of the loss times `scale`, after which the gradients of the parameters are the means of the
    /// processes'.
    pub(crate) fn backward(&self, scale: f64, ranks: &Ranks, parameters: &[Tensor]) -> Result<()> {
        let loss = self.output.as_ref().map(|(loss, _)| loss.mul_scalar(scale)).transpose()?;
        match (&self.chunked, loss) {
            (Some(chunked), Some(loss)) => chunked.backward(&loss, ranks, parameters),
            (_, loss) => ranks.backward(loss.as_ref()),
        }
    }
}

impl Chunked<'_> {
    fn backward(&self, loss: &Tensor, ranks: &Ranks, parameters: &[Tensor]) -> Result<()> {
        loss.backward()?;
        let is_reached = |chunk: &usize| self.embeddings[*chunk].iter().any(|e| e.grad().is_some());
        let reached: Vec<usize> = (0..self.embeddings.len()).filter(is_reached).collect();
        let Some((last, others)) = reached.split_last() else { return ranks.backward_last(None, parameters) };
        for chunk in others {
            if let Some(product) = self.product(*chunk)? {
                product.backward()?;
            }
        }
        ranks.backward_last(self.product(*last)?.as_ref(), parameters)
    }

    /// The product of a chunk's embeddings with their cached gradients: its gradient is that of the loss. None where no
    /// parameter changes the embeddings.
    fn product(&self, chunk: usize) -> Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None;
        let again = self.passes.embed(self.chunks.as_ref(), chunk)?;
        for (value, leaf) in again.iter().zip(&self.embeddings[chunk]) {
            let Some(gradient) = leaf.grad().filter(|_| value.requires_grad()) else { continue };
            let product = value.mul(&gradient)?.sum()?;
            sum = Some(match sum {
                Some(sum) => sum.add(&product)?,
                None => product,
            });
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Optimizer, OptimizerConfig};
    use mm_core::{DType, Init, Params};
    use std::cell::Cell;

    const ROWS: i64 = 12;
    const CHUNK_ROWS: i64 = 4;

    /// Two towers with dropout and a learned temperature.
    struct Pairs {
        towers: [Tensor; 2],
        log_scale: Tensor,
        in_chunks: bool,
        /// The seed of the next pass.
        seed: Cell<u64>,
    }

    type Batch = [Tensor; 2];

    struct PairChunks<'b>(&'b Pairs, &'b Batch);

    impl ChunkedLoss for PairChunks<'_> {
        fn num_chunks(&self) -> usize {
            (2 * ROWS / CHUNK_ROWS) as usize
        }

        fn embed(&self, chunk: usize) -> mm_core::Result<Vec<Tensor>> {
            let (side, first) = (chunk % 2, (chunk / 2) as i64 * CHUNK_ROWS);
            let rows = self.1[side].narrow(0, first, CHUNK_ROWS)?;
            Ok(vec![rows.linear(&self.0.towers[side], None)?.dropout(0.4, true)?.tanh()?])
        }

        fn loss(&self, embeddings: &[Vec<Tensor>]) -> mm_core::Result<Option<LossOutput>> {
            let side = |side: usize| Tensor::cat(embeddings.iter().skip(side).step_by(2).flatten(), 0);
            let logits = side(0)?.matmul(&side(1)?.transpose(0, 1)?)?.mul(&self.0.log_scale.exp()?)?;
            let labels = Tensor::arange(0, ROWS, Device::Cpu)?;
            Ok(Some((logits.to_dtype(DType::F32)?.cross_entropy(&labels, -100, 0.0)?, Vec::new())))
        }
    }

    impl TrainingObjective<Batch> for Pairs {
        /// Embeds the same chunks with the same dropout, and keeps the graphs of all.
        fn loss(&self, batch: &Batch, _train: bool) -> mm_core::Result<Option<LossOutput>> {
            let chunks = PairChunks(self, batch);
            let embed = |chunk: usize| {
                manual_seed(derive_seed(&[self.seed.get(), chunk as u64]));
                chunks.embed(chunk)
            };
            chunks.loss(&(0..chunks.num_chunks()).map(embed).collect::<mm_core::Result<Vec<_>>>()?)
        }

        fn chunks<'b>(&'b self, batch: &'b Batch) -> mm_core::Result<Option<Box<dyn ChunkedLoss + 'b>>> {
            Ok(self.in_chunks.then(|| Box::new(PairChunks(self, batch)) as Box<dyn ChunkedLoss>))
        }
    }

    /// The parameters after some steps, and the gradients of the last one.
    fn train(in_chunks: bool, steps: u64, autocast: Option<Device>) -> [Vec<Vec<f64>>; 2] {
        manual_seed(1);
        let params = Params::new(Device::Cpu);
        let root = params.scope();
        let tower = |name: &str| root.param(name, &[5, 7], Init::Normal(0.5)).unwrap();
        let towers = [tower("a"), tower("b")];
        let log_scale = root.param("log_scale", &[1], Init::Constant(1.0)).unwrap();
        let pairs = Pairs { towers, log_scale, in_chunks, seed: Cell::new(0) };
        let inputs = || Tensor::randn(&[ROWS, 7], DType::F32, Device::Cpu).unwrap();
        let batch = [inputs(), inputs()];
        let config = OptimizerConfig { lr: 1e-2, eps: 1e-6, ..OptimizerConfig::default() };
        let mut optimizer = Optimizer::new(&config, &params).unwrap();
        let ranks = Ranks::join(&params, optimizer.parameters()).unwrap();
        for seed in 0..steps {
            pairs.seed.set(seed);
            optimizer.zero_grad();
            let passes = Passes { seed, autocast, is_part: true };
            let forward = passes.forward(&pairs, &batch).unwrap();
            forward.backward(0.5, &ranks, &optimizer.parameters()).unwrap();
            optimizer.step(1.0, 1.0).unwrap();
        }
        let values = |t: &Tensor| t.to_vec::<f64>().unwrap();
        let trained = optimizer.parameters();
        let gradients = trained.iter().filter_map(Tensor::grad);
        [trained.iter().map(values).collect(), gradients.map(|t| values(&t)).collect()]
    }

    fn difference(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn parameters_trained_in_chunks_are_those_of_the_whole_batch() {
        let ([whole, _], [chunked, _]) = (train(false, 50, None), train(true, 50, None));
        let [start, _] = train(false, 0, None);
        for ((whole, chunked), start) in whole.iter().zip(&chunked).zip(&start) {
            assert!(difference(whole, chunked) < 1e-5, "{whole:?} {chunked:?}");
            assert!(difference(whole, start) > 0.1, "it learns: {whole:?}");
        }
    }

    /// Gradients reach the weights through the copies that autocast makes of them, which the pass without gradients made
    /// too.
    #[test]
    fn gradients_in_bfloat16_are_those_of_the_whole_batch() {
        let ([_, whole], [_, chunked]) = (train(false, 1, Some(Device::Cpu)), train(true, 1, Some(Device::Cpu)));
        for (whole, chunked) in whole.iter().zip(&chunked) {
            let norm = difference(whole, &vec![0.0; whole.len()]);
            assert!(norm > 1e-3 && difference(whole, chunked) < 0.02 * norm, "{whole:?} {chunked:?}");
        }
    }
}
