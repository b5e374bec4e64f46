//! The optimizer's state in a checkpoint.

use super::{Optimizer, ParamState};
use crate::Result;
use mm_core::{Checkpoint, Tensor};

impl Optimizer {
    /// The optimizer state by name, for a checkpoint.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut out = Vec::new();
        for state in &self.params {
            out.push((format!("optimizer.exp_avg.{}", state.name), state.exp_avg.clone()));
            out.extend(state.exp_avg_sq.iter().map(|s| (format!("optimizer.exp_avg_sq.{}", state.name), s.clone())));
        }
        out
    }

    /// Restores the state that [`Optimizer::state`] returned after `steps` steps from a checkpoint.
    ///
    /// # Errors
    /// When the checkpoint lacks a tensor of the state, or its shape differs.
    pub fn load_state(&mut self, checkpoint: &Checkpoint, steps: u64) -> Result<()> {
        self.steps = steps;
        for (name, tensor) in self.state() {
            tensor.copy_(&checkpoint.get(&name)?)?;
        }
        self.params.iter().try_for_each(ParamState::restore_gradient)
    }
}

impl ParamState {
    /// Gives a parameter that was trained before a gradient of zero, which it has in a run without interruption after
    /// [`Optimizer::zero_grad`]: a step moves it also where the next loss does not reach it.
    fn restore_gradient(&self) -> Result<()> {
        let moment = self.exp_avg_sq.as_ref().unwrap_or(&self.exp_avg);
        if moment.numel() > 0 && moment.abs()?.max()?.to_f64()? > 0.0 {
            self.param.sum()?.mul_scalar(0.0)?.backward()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OptimizerConfig;
    use mm_core::{Device, Init, Params, checkpoint};

    /// Of two parameters, the loss of the third step reaches one.
    #[test]
    fn a_loaded_optimizer_moves_what_the_loss_does_not_reach_as_before() {
        let run = |steps: std::ops::Range<usize>, file: &std::path::Path| {
            let params = Params::new(Device::Cpu);
            let param = |name: &str| params.scope().param(name, &[2, 2], Init::Ones).unwrap();
            let all = [param("a"), param("b"), param("never")];
            let mut optimizer = Optimizer::new(&OptimizerConfig::default(), &params).unwrap();
            if steps.start > 0 {
                let saved = Checkpoint::open(file).unwrap();
                params.load(&saved, "model.").unwrap();
                optimizer.load_state(&saved, steps.start as u64).unwrap();
            }
            for step in steps {
                optimizer.zero_grad();
                let reached = if step == 2 { 1 } else { 2 };
                let losses = all[..reached].iter().map(|t| t.pow(2.0).unwrap().sum().unwrap());
                losses.for_each(|loss| loss.backward().unwrap());
                optimizer.step(1.0, 1.0).unwrap();
            }
            let named = ["a", "b", "never"].iter().zip(&all).map(|(n, t)| (format!("model.{n}"), t.detach().unwrap()));
            let tensors: Vec<(String, Tensor)> = named.chain(optimizer.state()).collect();
            checkpoint::save(file, &tensors, &[]).unwrap();
            tensors.iter().map(|(_, t)| t.to_vec::<f32>().unwrap()).collect::<Vec<_>>()
        };
        let folder = tempfile::tempdir().unwrap();
        let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name).with_extension("safetensors"));
        let expected = run(0..4, &whole);
        run(0..2, &parts);
        assert_eq!(run(2..4, &parts), expected);
    }
}
