//! Memory, attention and composition (MAC, Hudson 2018): at each step a control looks at the words, a reader looks at the places under
//! control and memory, and what was read goes into the memory.

use super::{Body, Scene, Thought, at_least_one};
use crate::Result;
use mm_core::{DType, Init, Module, Scope, Tensor, nn::Linear};

pub(super) struct Mac {
    /// Each step asks the question in its own way.
    position: Vec<Linear>,
    control: [Linear; 2],
    read: [Linear; 5],
    write: Linear,
    first_control: Tensor,
    first_memory: Tensor,
    output: [Linear; 2],
    dropout: f64,
}

impl Mac {
    pub(super) fn new(scope: &Scope<'_>, width: i64, steps: i64, dropout: f64) -> Result<Self> {
        at_least_one("steps", steps)?;
        let layer = |name: &str, input: i64, output: i64| Linear::new(&scope.pp(name), input, output, true);
        let start = |name: &str| scope.param(name, &[1, width], Init::Normal(0.1));
        Ok(Self {
            position: (0..steps)
                .map(|n| Linear::new(&scope.pp("position").pp(n), width, width, true))
                .collect::<mm_core::Result<_>>()?,
            control: [layer("control_join", 2 * width, width)?, layer("control_score", width, 1)?],
            read: [
                layer("read_memory", width, width)?,
                layer("read_places", width, width)?,
                layer("read_join", 2 * width, width)?,
                layer("read_control", width, width)?,
                layer("read_score", width, 1)?,
            ],
            write: layer("write", 2 * width, width)?,
            first_control: start("first_control")?,
            first_memory: start("first_memory")?,
            output: [layer("output1", 2 * width, width)?, layer("output2", width, width)?],
            dropout,
        })
    }
}

impl Body for Mac {
    fn think(&self, s: &Scene) -> mm_core::Result<Thought> {
        let (rows, t) = (s.places.size(0)?, s.train);
        let mut control = self.first_control.expand(&[rows, -1])?;
        let mut memory = self.first_memory.expand(&[rows, -1])?;
        let known = self.read[1].forward(&s.places, t)?;
        let mut looked = Vec::new();
        for position in &self.position {
            let asked = position.forward(&s.question, t)?.tanh()?;
            let joined = self.control[0].forward(&Tensor::cat(&[&control, &asked], 1)?, t)?;
            let scores = self.control[1].forward(&joined.unsqueeze(1)?.mul(&s.words)?, t)?.squeeze(2)?;
            let hidden = s.words_mask.logical_not()?;
            let weights = scores.masked_fill(&hidden, DType::F32.lowest())?.softmax(-1)?;
            control = Scene::gather(&weights, &s.words)?;
            let held = memory.dropout(self.dropout, t)?;
            let met = self.read[0].forward(&held, t)?.unsqueeze(1)?.mul(&known)?;
            let met = self.read[2].forward(&Tensor::cat(&[&met, &s.places], 2)?, t)?.relu()?;
            let wanted = self.read[3].forward(&control, t)?.unsqueeze(1)?.mul(&met)?.relu()?;
            let weights = s.weigh(&self.read[4].forward(&wanted, t)?.squeeze(2)?)?;
            let seen = Scene::gather(&weights, &s.places)?;
            memory = self.write.forward(&Tensor::cat(&[&seen, &memory], 1)?, t)?;
            looked.push(weights);
        }
        let both = Tensor::cat(&[&memory, &s.question], 1)?;
        let y = self.output[0].forward(&both, t)?.relu()?.dropout(self.dropout, t)?;
        Ok((self.output[1].forward(&y, t)?, looked))
    }
}
