//! Memory fusion network.

use crate::{
    Error, FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result,
    operator::check_positive,
};
use mm_core::{
    DType, Module, Scope, Tensor,
    nn::{Linear, LstmCell},
};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "mfn",
    description: "memory fusion network (Zadeh et al. 2018); sequences of equal length",
    takes_sequences: true,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MfnConfig {
    /// State dimension of each modality's LSTM.
    hidden_dim: i64,
    /// Dimension of the multi-view memory.
    memory_dim: i64,
    /// Whether the last state is returned, or one per position.
    pooled: bool,
}

impl Default for MfnConfig {
    fn default() -> Self {
        Self { hidden_dim: 32, memory_dim: 64, pooled: true }
    }
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let MfnConfig { hidden_dim, memory_dim, pooled } = context.options()?;
    check_positive("hidden_dim", hidden_dim)?;
    check_positive("memory_dim", memory_dim)?;
    let scope = &context.scope;
    let states_dim = hidden_dim * context.input_dims.len() as i64;
    let mut cells = Vec::new();
    for (index, dim) in context.input_dims.iter().enumerate() {
        cells.push(LstmCell::new(&scope.pp("lstm").pp(index), *dim, hidden_dim)?);
    }
    let mlp = |name: &str, input: i64, output: i64| TwoLayers::new(&scope.pp(name), input, memory_dim, output);
    Ok(Box::new(Mfn {
        cells,
        attention: mlp("attention", 2 * states_dim, 2 * states_dim)?,
        proposal: mlp("proposal", 2 * states_dim, memory_dim)?,
        retain_gate: mlp("gamma1", 2 * states_dim + memory_dim, memory_dim)?,
        update_gate: mlp("gamma2", 2 * states_dim + memory_dim, memory_dim)?,
        out_proj: Linear::new(&scope.pp("out_proj"), states_dim + memory_dim, context.dim, true)?,
        memory_dim,
        pooled,
    }))
}

struct TwoLayers {
    fc1: Linear,
    fc2: Linear,
}

impl TwoLayers {
    fn new(scope: &Scope<'_>, input: i64, hidden: i64, output: i64) -> Result<Self> {
        let fc1 = Linear::new(&scope.pp("fc1"), input, hidden, true)?;
        Ok(Self { fc1, fc2: Linear::new(&scope.pp("fc2"), hidden, output, true)? })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        Ok(self.fc2.forward(&self.fc1.forward(x, train)?.relu()?, train)?)
    }
}

/// One LSTM per modality; attention over the change of all cell states at a step decides, through two gates, what
/// enters a shared memory.
///
/// *Memory Fusion Network for Multi-view Sequential Learning* (Zadeh et al., 2018, <https://arxiv.org/abs/1802.00927>).
struct Mfn {
    cells: Vec<LstmCell>,
    attention: TwoLayers,
    proposal: TwoLayers,
    retain_gate: TwoLayers,
    update_gate: TwoLayers,
    out_proj: Linear,
    memory_dim: i64,
    pooled: bool,
}

impl Mfn {
    /// The memory after a step, given all cell states before and after it.
    fn update_memory(&self, memory: &Tensor, cell_states: &[&Tensor], train: bool) -> Result<Tensor> {
        let change = Tensor::cat(cell_states, 1)?; // [rows, 2 · states]
        let attended = self.attention.forward(&change, train)?.softmax(1)?.mul(&change)?;
        let proposed = self.proposal.forward(&attended, train)?.tanh()?;
        let both = Tensor::cat(&[&attended, memory], 1)?;
        let retain = self.retain_gate.forward(&both, train)?.sigmoid()?;
        let update = self.update_gate.forward(&both, train)?.sigmoid()?;
        Ok(retain.mul(memory)?.add(&update.mul(&proposed)?)?)
    }
}

impl FusionOperator for Mfn {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let (rows, length) = (inputs[0].values.size(0)?, inputs[0].values.size(1)?);
        let mut any = inputs[0].position_mask()?;
        for input in &inputs[1..] {
            let found = input.values.size(1)?;
            if found != length {
                let found = format!("sequences of {length} and {found} positions");
                return Err(Error::config(SPEC.kind, found, "sequences of equal length"));
            }
            any = any.logical_or(&input.position_mask()?)?;
        }
        let mut states =
            self.cells.iter().zip(inputs).map(|(c, p)| Ok(c.zero_state(&p.values)?)).collect::<Result<Vec<_>>>()?;
        let mut memory = Tensor::zeros(&[rows, self.memory_dim], DType::F32, any.device())?;
        let mut outputs = Vec::new();
        for step in 0..length {
            let previous: Vec<Tensor> = states.iter().map(|(_, cell)| cell.clone()).collect();
            for ((state, cell), input) in states.iter_mut().zip(&self.cells).zip(inputs) {
                let (hidden, cell_state) = cell.step(&input.values.select(1, step)?, (&state.0, &state.1))?;
                // Padding and missing modalities leave the state as it is.
                let valid = input.position_mask()?.select(1, step)?.unsqueeze(1)?;
                *state = (hidden.where_cond(&valid, &state.0)?, cell_state.where_cond(&valid, &state.1)?);
            }
            let cell_states: Vec<&Tensor> = previous.iter().chain(states.iter().map(|(_, cell)| cell)).collect();
            let next = self.update_memory(&memory, &cell_states, train)?;
            memory = next.where_cond(&any.select(1, step)?.unsqueeze(1)?, &memory)?;
            if !self.pooled || step == length - 1 {
                let all: Vec<&Tensor> = states.iter().map(|(hidden, _)| hidden).chain([&memory]).collect();
                outputs.push(self.out_proj.forward(&Tensor::cat(&all, 1)?, train)?);
            }
        }
        if self.pooled {
            let last = outputs.pop();
            let last = last.ok_or_else(|| Error::config(SPEC.kind, "empty sequences", "at least one position"))?;
            return Ok(OperatorOutput::new(last));
        }
        let values = Tensor::stack(&outputs.iter().collect::<Vec<_>>(), 1)?;
        Ok(OperatorOutput { mask: Some(any), ..OperatorOutput::new(values) })
    }
}
