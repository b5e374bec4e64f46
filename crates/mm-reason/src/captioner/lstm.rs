//! An LSTM decoder with soft attention over image features.
//!
//! *Show, Attend and Tell: Neural Image Caption Generation with Visual Attention* (Xu et al., 2015),
//! <https://arxiv.org/abs/1502.03044>.

use crate::Result;
use mm_core::{
    Features, Init, Module, Pooling, Scope, Tensor,
    nn::{Embedding, Linear},
};

pub(super) struct LstmDecoder {
    embed_tokens: Embedding,
    init_hidden: Linear,
    init_cell: Linear,
    /// Input and recurrent weights, then their biases, as in `torch.nn.LSTMCell`.
    cell: [Tensor; 4],
    attention_features: Linear,
    attention_hidden: Linear,
    attention_score: Linear,
    gate: Linear,
    output: Linear,
    head: Linear,
    dropout: f64,
}

/// State of an [`LstmDecoder`].
#[derive(Clone)]
pub(super) struct LstmState {
    /// Features `[batch, positions, dim]`.
    features: Tensor,
    /// Features projected for the attention.
    projected: Tensor,
    /// True for padded positions, `[batch, positions, 1]`.
    padding: Option<Tensor>,
    hidden: Tensor,
    cell: Tensor,
}

impl LstmState {
    /// Keeps these rows, in this order.
    pub(super) fn reorder(&mut self, rows: &Tensor) -> mm_core::Result<()> {
        for tensor in [&mut self.features, &mut self.projected, &mut self.hidden, &mut self.cell] {
            *tensor = tensor.index_select(0, rows)?;
        }
        if let Some(padding) = &mut self.padding {
            *padding = padding.index_select(0, rows)?;
        }
        Ok(())
    }
}

impl LstmDecoder {
    pub(super) fn new(scope: &Scope<'_>, vocab_size: i64, dim: i64, dropout: f64) -> Result<Self> {
        let init = Init::Uniform(1.0 / (dim as f64).sqrt());
        let layer = |name: &str, input: i64, output: i64| Linear::new(&scope.pp(name), input, output, true);
        Ok(Self {
            embed_tokens: Embedding::with_std(&scope.pp("embed_tokens"), vocab_size, dim, 1.0)?,
            init_hidden: layer("init_hidden", dim, dim)?,
            init_cell: layer("init_cell", dim, dim)?,
            cell: [
                scope.param("weight_ih", &[4 * dim, 2 * dim], init)?,
                scope.param("weight_hh", &[4 * dim, dim], init)?,
                scope.param("bias_ih", &[4 * dim], init)?,
                scope.param("bias_hh", &[4 * dim], init)?,
            ],
            attention_features: layer("attention_features", dim, dim)?,
            attention_hidden: layer("attention_hidden", dim, dim)?,
            attention_score: layer("attention_score", dim, 1)?,
            gate: layer("gate", dim, dim)?,
            output: layer("output", 3 * dim, dim)?,
            head: layer("head", dim, vocab_size)?,
            dropout,
        })
    }

    /// The state before the first token: hidden and cell state computed from the mean feature.
    pub(super) fn init_state(&self, features: &Features, train: bool) -> mm_core::Result<LstmState> {
        let mean = features.pool(Pooling::Mean)?;
        let padding = |mask: &Tensor| mask.logical_not()?.unsqueeze(-1);
        Ok(LstmState {
            projected: self.attention_features.forward(&features.values, train)?,
            padding: features.mask.as_ref().map(padding).transpose()?,
            features: features.values.clone(),
            hidden: self.init_hidden.forward(&mean, train)?.tanh()?,
            cell: self.init_cell.forward(&mean, train)?.tanh()?,
        })
    }

    /// Token ids `[batch]` → logits `[batch, vocab]` of the next token.
    pub(super) fn step(&self, ids: &Tensor, state: &mut LstmState, train: bool) -> mm_core::Result<Tensor> {
        let token = self.embed_tokens.forward(ids)?.dropout(self.dropout, train)?;
        let query = self.attention_hidden.forward(&state.hidden, train)?.unsqueeze(1)?;
        let scores = self.attention_score.forward(&state.projected.add(&query)?.tanh()?, train)?;
        let scores = match &state.padding {
            Some(padding) => scores.masked_fill(padding, scores.dtype()?.mask_value())?,
            None => scores,
        };
        let weights = scores.softmax(1)?; // [batch, positions, 1]
        let context = state.features.mul(&weights)?.sum_dim(&[1], false)?;
        // The gate scales how much of the context the next token uses.
        let context = context.mul(&self.gate.forward(&state.hidden, train)?.sigmoid()?)?;
        let input = Tensor::cat(&[&token, &context], 1)?;
        (state.hidden, state.cell) = input.lstm_cell(&state.hidden, &state.cell, self.cell.each_ref())?;
        let joined = Tensor::cat(&[&state.hidden, &context, &token], 1)?;
        self.head.forward(&self.output.forward(&joined, train)?.tanh()?.dropout(self.dropout, train)?, train)
    }

    /// Token ids `[batch, tokens]` → logits `[batch, tokens, vocab]`.
    pub(super) fn teacher_forcing(&self, features: &Features, ids: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        let mut state = self.init_state(features, train)?;
        let steps = (0..ids.size(1)?).map(|n| self.step(&ids.select(1, n)?, &mut state, train));
        let logits = steps.collect::<mm_core::Result<Vec<_>>>()?;
        Tensor::stack(&logits.iter().collect::<Vec<_>>(), 1)
    }
}
