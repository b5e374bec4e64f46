//! Optimizers: SGD with momentum, Adam, `AdamW`, Lion.

mod config;
mod state;

pub use config::{OptimizerConfig, OptimizerKind, ParamGroup};

use crate::{Error, Result, flatten};
use mm_core::{AdamStep, Params, Role, Tensor};

/// A parameter with its optimizer state.
struct ParamState {
    name: String,
    param: Tensor,
    lr_scale: f64,
    weight_decay: f64,
    /// Running mean of the gradients; the momentum buffer of SGD and Lion.
    exp_avg: Tensor,
    /// Running mean of the squared gradients (Adam, `AdamW`).
    exp_avg_sq: Option<Tensor>,
}

/// Parameters with the same learning rate and weight decay. Each of their two running means is one block of memory.
struct FlatGroup {
    /// Positions in [`Optimizer::params`].
    members: Vec<usize>,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
}

/// Updates parameters from their gradients.
pub struct Optimizer {
    config: OptimizerConfig,
    params: Vec<ParamState>,
    flat_groups: Vec<FlatGroup>,
    steps: u64,
}

impl Optimizer {
    /// An optimizer of the trainable parameters.
    ///
    /// # Errors
    /// When a setting is out of range, or when no parameter is trainable.
    pub fn new(config: &OptimizerConfig, params: &Params) -> Result<Self> {
        config.check()?;
        let named = params.named(&[Role::Trainable]);
        let last_layer = named.iter().filter_map(|(n, _)| layer_index(n)).max();
        let mut states = Vec::new();
        for (name, param) in named {
            let group = config.param_groups.iter().find(|g| name.starts_with(&g.prefix));
            let layers_above = last_layer.map_or(0, |last| last - layer_index(&name).unwrap_or(last));
            let lr_scale = group.map_or(1.0, |g| g.lr_scale) * config.layer_decay.powi(layers_above);
            if lr_scale == 0.0 {
                continue;
            }
            let weight_decay = group.and_then(|g| g.weight_decay).unwrap_or(config.weight_decay);
            let weight_decay = if param.rank() < 2 { 0.0 } else { weight_decay };
            let zeros = || param.detach()?.zeros_like();
            let is_adam = matches!(config.kind, OptimizerKind::Adam | OptimizerKind::AdamW);
            let exp_avg_sq = is_adam.then(zeros).transpose()?;
            states.push(ParamState { exp_avg: zeros()?, exp_avg_sq, name, lr_scale, weight_decay, param });
        }
        if states.is_empty() {
            return Err(Error::config(
                "train.optimizer",
                "no trainable parameter",
                "a model with at least one parameter that is not frozen",
            ));
        }
        let mut optimizer = Self { config: config.clone(), params: states, flat_groups: Vec::new(), steps: 0 };
        if flatten::is_faster_on(params.device()) {
            optimizer.flatten()?;
        }
        Ok(optimizer)
    }

    /// Moves the Adam state of parameters with equal settings into one block, so that a few operators update all of
    /// them.
    fn flatten(&mut self) -> Result<()> {
        let mut groups: Vec<(f64, f64, Vec<usize>)> = Vec::new();
        for (index, state) in self.params.iter().enumerate().filter(|(_, s)| s.exp_avg_sq.is_some()) {
            match groups.iter_mut().find(|g| g.0 == state.lr_scale && g.1 == state.weight_decay) {
                Some(group) => group.2.push(index),
                None => groups.push((state.lr_scale, state.weight_decay, vec![index])),
            }
        }
        for (.., members) in groups {
            // Both running means are zeros at this point, so one template serves for both.
            let zeros: Vec<&Tensor> = members.iter().map(|n| &self.params[*n].exp_avg).collect();
            let (exp_avg, mean_views) = flatten::copy(&zeros)?;
            let (exp_avg_sq, square_views) = flatten::copy(&zeros)?;
            for ((index, mean), square) in members.iter().zip(mean_views).zip(square_views) {
                (self.params[*index].exp_avg, self.params[*index].exp_avg_sq) = (mean, Some(square));
            }
            self.flat_groups.push(FlatGroup { members, exp_avg, exp_avg_sq });
        }
        Ok(())
    }

    /// The parameters that it updates.
    pub fn parameters(&self) -> Vec<Tensor> {
        self.params.iter().map(|state| state.param.clone()).collect()
    }

    /// The global L2 norm of all gradients; 0 when there are none.
    pub fn grad_norm(&self) -> Result<f64> {
        let grads: Vec<Tensor> = self.params.iter().filter_map(|s| s.param.grad()).collect();
        if grads.is_empty() {
            return Ok(0.0);
        }
        if !self.flat_groups.is_empty() {
            return Ok(flatten::concat(&grads.iter().collect::<Vec<_>>())?.norm_all()?.to_f64()?);
        }
        let norms = grads.iter().map(Tensor::norm_all).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::stack(&norms.iter().collect::<Vec<_>>(), 0)?.norm(0, false)?.to_f64()?)
    }

    /// Clears the gradients.
    pub fn zero_grad(&self) {
        self.params.iter().for_each(|s| s.param.zero_grad());
    }

    /// One step at `lr_factor` times the learning rate, with the gradients multiplied by `grad_scale` (for clipping).
    pub fn step(&mut self, lr_factor: f64, grad_scale: f64) -> Result<()> {
        self.steps += 1;
        let mut done = vec![false; self.params.len()];
        for group in &self.flat_groups {
            if self.step_flat(group, lr_factor, grad_scale)? {
                group.members.iter().for_each(|n| done[*n] = true);
            }
        }
        for (state, _) in self.params.iter().zip(done).filter(|(_, done)| !done) {
            self.step_one(state, lr_factor, grad_scale)?;
        }
        Ok(())
    }

    fn step_one(&self, state: &ParamState, lr_factor: f64, grad_scale: f64) -> Result<()> {
        let c = &self.config;
        let Some(grad) = state.param.grad() else { return Ok(()) };
        let lr = c.lr * lr_factor * state.lr_scale;
        let decoupled = matches!(c.kind, OptimizerKind::AdamW | OptimizerKind::Lion);
        // The fused Adam kernel scales the gradient itself. The other algorithms, and weight decay that is added to the
        // gradient, need the scaled gradient as a tensor.
        let unchanged = decoupled || state.weight_decay == 0.0;
        let (grad, grad_scale) = match &state.exp_avg_sq {
            Some(_) if unchanged => (grad, grad_scale),
            _ => (grad.detach()?.mul_scalar(grad_scale)?, 1.0),
        };
        let grad = if unchanged { grad } else { grad.add(&state.param.detach()?.mul_scalar(state.weight_decay)?)? };
        let weight_decay = if decoupled { state.weight_decay } else { 0.0 };
        match (c.kind, &state.exp_avg_sq) {
            (_, Some(exp_avg_sq)) => {
                let step = self.adam_step(lr, weight_decay, grad_scale);
                state.param.adam_(&grad, &state.exp_avg, exp_avg_sq, &step)?;
            }
            (OptimizerKind::Lion, _) => {
                state.param.mul_scalar_(1.0 - lr * weight_decay)?;
                let update = state.exp_avg.mul_scalar(c.beta1)?.add(&grad.mul_scalar(1.0 - c.beta1)?)?.sign()?;
                state.param.scale_add_(1.0, &update, -lr)?;
                state.exp_avg.scale_add_(c.beta2, &grad, 1.0 - c.beta2)?;
            }
            _ => {
                state.exp_avg.scale_add_(c.beta1, &grad, 1.0)?;
                state.param.scale_add_(1.0, &state.exp_avg, -lr)?;
            }
        }
        Ok(())
    }

    fn adam_step(&self, lr: f64, weight_decay: f64, grad_scale: f64) -> AdamStep {
        let OptimizerConfig { beta1, beta2, eps, .. } = self.config;
        AdamStep { lr, beta1, beta2, eps, weight_decay, grad_scale, step: self.steps }
    }

    /// Adam's step for a whole group; false when its members must be stepped one by one, because one of them has no
    /// gradient or because the weight decay is added to the gradient.
    fn step_flat(&self, group: &FlatGroup, lr_factor: f64, grad_scale: f64) -> Result<bool> {
        let states: Vec<&ParamState> = group.members.iter().map(|n| &self.params[*n]).collect();
        let (lr, weight_decay) = (self.config.lr * lr_factor * states[0].lr_scale, states[0].weight_decay);
        let Some(grads) = states.iter().map(|s| s.param.grad()).collect::<Option<Vec<_>>>() else {
            return Ok(false);
        };
        if self.config.kind == OptimizerKind::Adam && weight_decay != 0.0 {
            return Ok(false);
        }
        let params: Vec<Tensor> = states.iter().map(|s| s.param.detach()).collect::<Result<_, _>>()?;
        let (flat, views) = flatten::copy(&params.iter().collect::<Vec<_>>())?;
        let grad = flatten::concat(&grads.iter().collect::<Vec<_>>())?;
        flat.adam_(&grad, &group.exp_avg, &group.exp_avg_sq, &self.adam_step(lr, weight_decay, grad_scale))?;
        states.iter().zip(&views).try_for_each(|(state, updated)| state.param.copy_(updated))?;
        Ok(true)
    }
}

/// The number N of a parameter in `….layers.N.…`.
fn layer_index(name: &str) -> Option<i32> {
    name.split_once("layers.")?.1.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, Init};

    /// Reference values of PyTorch 2.11 for three steps on w = [[1, −2], [3, 4]] with gradients 2w·[1, ½, ¼] and
    /// `torch.optim.{AdamW,Adam,SGD}(lr=0.1, weight_decay=0.1)`, SGD with momentum 0.9.
    #[test]
    fn three_steps_match_pytorch() {
        for (kind, wanted) in [
            (OptimizerKind::AdamW, [0.700_786_9f32, -1.668_703, 2.638_241, 3.608_166]),
            (OptimizerKind::Adam, [0.724_712_7, -1.722_305, 2.721_54, 3.721_164]),
            (OptimizerKind::Sgd, [0.234_944, -0.469_888_1, 0.704_831_8, 0.939_776_2]),
        ] {
            let params = Params::new(Device::Cpu);
            let w = params.scope().param("w", &[2, 2], Init::Zeros).unwrap();
            w.copy_(&Tensor::from_vec(&[1f32, -2.0, 3.0, 4.0], &[2, 2]).unwrap()).unwrap();
            let config = OptimizerConfig { kind, lr: 0.1, weight_decay: 0.1, ..OptimizerConfig::default() };
            let mut optimizer = Optimizer::new(&config, &params).unwrap();
            for factor in [1.0, 0.5, 0.25] {
                optimizer.zero_grad();
                w.pow(2.0).unwrap().sum().unwrap().mul_scalar(factor).unwrap().backward().unwrap();
                optimizer.step(1.0, 1.0).unwrap();
            }
            let found = w.to_vec::<f32>().unwrap();
            assert!(found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{kind:?}: {found:?}");
        }
    }

    /// Two learning rates, weight decay on matrices only, one parameter without a gradient in one of the steps.
    #[test]
    fn flat_groups_make_the_same_steps() {
        let run = |flat: bool| {
            mm_core::seed::manual_seed(3);
            let params = Params::new(Device::Cpu);
            let uniform = Init::Uniform(1.0);
            let names = ["a.w", "a.b", "b.w", "b.v"];
            let shapes: [&[i64]; 4] = [&[3, 2], &[5], &[2, 2], &[4]];
            let all: Vec<Tensor> =
                names.iter().zip(shapes).map(|(n, s)| params.scope().param(n, s, uniform).unwrap()).collect();
            let param_groups = vec![ParamGroup { prefix: "b.".into(), lr_scale: 0.5, weight_decay: None }];
            let config = OptimizerConfig { lr: 0.1, weight_decay: 0.1, param_groups, ..OptimizerConfig::default() };
            let mut optimizer = Optimizer::new(&config, &params).unwrap();
            if flat {
                optimizer.flatten().unwrap();
                assert_eq!(optimizer.flat_groups.len(), 4);
            }
            let mut norms = Vec::new();
            for step in 0..4 {
                optimizer.zero_grad();
                let used = if step == 2 { 3 } else { 4 };
                let losses: Vec<Tensor> = all[..used].iter().map(|t| t.pow(2.0).unwrap().sum().unwrap()).collect();
                Tensor::stack(&losses.iter().collect::<Vec<_>>(), 0).unwrap().sum().unwrap().backward().unwrap();
                norms.push(optimizer.grad_norm().unwrap() as f32);
                optimizer.step(1.0, 0.7).unwrap();
            }
            let state = optimizer.state().into_iter().map(|(_, t)| t);
            let values = all.into_iter().chain(state).flat_map(|t| t.to_vec::<f32>().unwrap());
            values.chain(norms).collect::<Vec<f32>>()
        };
        let (one, other) = (run(false), run(true));
        assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-6), "{one:?}\n{other:?}");
    }

    #[test]
    fn param_groups_freeze_and_invalid_settings_are_errors() {
        let params = Params::new(Device::Cpu);
        params.scope().param("a.w", &[1, 1], Init::Ones).unwrap();
        let frozen = ParamGroup { prefix: "a.".into(), lr_scale: 0.0, weight_decay: None };
        let config = OptimizerConfig { param_groups: vec![frozen], ..OptimizerConfig::default() };
        assert!(Optimizer::new(&config, &params).map(drop).unwrap_err().to_string().contains("no trainable parameter"));
        assert!(Optimizer::new(&OptimizerConfig { lr: -1.0, ..OptimizerConfig::default() }, &params).is_err());
    }
}
