//! The memory fusion network (MFN, Zadeh 2018): each modality has its own long short-term memory; attention on how all their states changed
//! at a step says what goes into a common memory, through gates that keep or renew it.

use crate::{
    Error, Result,
    inputs::Part,
    operator::{Body, Combined, Sizes},
};
use mm_core::{
    DType, Module, Scope, Tensor,
    nn::{Linear, LstmCell},
};

pub(crate) struct Memory {
    cells: Vec<LstmCell>,
    attention: [Linear; 2],
    proposal: [Linear; 2],
    keep: [Linear; 2],
    renew: [Linear; 2],
    last: Linear,
    common: i64,
    pooled: bool,
}

impl Memory {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>, hidden: i64, memory: i64, pooled: bool) -> Result<Self> {
        let states = hidden * sizes.parts.len() as i64;
        let mut cells = Vec::new();
        for (number, width) in sizes.parts.iter().enumerate() {
            cells.push(LstmCell::new(&scope.pp("lstm").pp(number), *width, hidden)?);
        }
        let two = |name: &str, input: i64, output: i64| -> Result<[Linear; 2]> {
            let place = scope.pp(name);
            Ok([
                Linear::new(&place.pp("fc1"), input, memory, true)?,
                Linear::new(&place.pp("fc2"), memory, output, true)?,
            ])
        };
        Ok(Self {
            cells,
            attention: two("attention", 2 * states, 2 * states)?,
            proposal: two("proposal", 2 * states, memory)?,
            keep: two("gamma1", 2 * states + memory, memory)?,
            renew: two("gamma2", 2 * states + memory, memory)?,
            last: Linear::new(&scope.pp("out_proj"), states + memory, sizes.width, true)?,
            common: memory,
            pooled,
        })
    }
}

impl Body for Memory {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let (rows, length) = (parts[0].values.size(0)?, parts[0].values.size(1)?);
        let mut any = parts[0].positions()?;
        for part in &parts[1..] {
            let found = part.values.shape();
            if found[1] != length {
                let text = format!("sequences of {length} and {} positions", found[1]);
                return Err(Error::config("mfn", text, "sequences of one length"));
            }
            any = any.logical_or(&part.positions()?)?;
        }
        let through = |layers: &[Linear; 2], x: &Tensor| -> Result<Tensor> {
            Ok(layers[1].forward(&layers[0].forward(x, train)?.relu()?, train)?)
        };
        let mut states =
            self.cells.iter().zip(parts).map(|(c, p)| Ok(c.start(&p.values)?)).collect::<Result<Vec<_>>>()?;
        let mut memory = Tensor::zeros(&[rows, self.common], DType::F32, any.device())?;
        let mut steps = Vec::new();
        for step in 0..length {
            let here = any.select(1, step)?.unsqueeze(1)?; // [rows, 1]
            let before: Vec<Tensor> = states.iter().map(|(_, cell)| cell.clone()).collect();
            for ((state, cell), part) in states.iter_mut().zip(&self.cells).zip(parts) {
                let (hidden, kept) = cell.step(&part.values.select(1, step)?, (&state.0, &state.1))?;
                // Where there is no position, and where this modality has none, nothing changes.
                let own = part.positions()?.select(1, step)?.unsqueeze(1)?;
                *state = (hidden.where_cond(&own, &state.0)?, kept.where_cond(&own, &state.1)?);
            }
            let now: Vec<&Tensor> = before.iter().chain(states.iter().map(|(_, cell)| cell)).collect();
            let change = Tensor::cat(&now, 1)?; // [rows, 2 · states]
            let attended = through(&self.attention, &change)?.softmax(1)?.mul(&change)?;
            let proposed = through(&self.proposal, &attended)?.tanh()?;
            let both = Tensor::cat(&[&attended, &memory], 1)?;
            let (keep, renew) = (through(&self.keep, &both)?.sigmoid()?, through(&self.renew, &both)?.sigmoid()?);
            let next = keep.mul(&memory)?.add(&renew.mul(&proposed)?)?;
            memory = next.where_cond(&here, &memory)?;
            if !self.pooled || step == length - 1 {
                let all: Vec<&Tensor> = states.iter().map(|(h, _)| h).chain([&memory]).collect();
                steps.push(self.last.forward(&Tensor::cat(&all, 1)?, train)?);
            }
        }
        if self.pooled {
            let last = steps.pop().ok_or_else(|| Error::config("mfn", "sequences of no position", "at least one"))?;
            return Ok(Combined::of(last));
        }
        let values = Tensor::stack(&steps.iter().collect::<Vec<_>>(), 1)?;
        Ok(Combined { mask: Some(any), ..Combined::of(values) })
    }
}
