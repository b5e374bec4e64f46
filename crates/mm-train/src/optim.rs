//! Optimisers: SGD with momentum, Adam (Kingma 2015), `AdamW` (Loshchilov 2019), Lion (Chen 2023).

use crate::{Error, Result, flat};
use mm_core::{AdamStep, Checkpoint, Params, Role, Tensor};
use serde::{Deserialize, Serialize};

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum OptimizerKind {
    #[default]
    AdamW,
    Adam,
    Sgd,
    Lion,
}

/// Parameters whose names begin alike and are learned differently.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamGroup {
    /// What their names begin with.
    pub prefix: String,
    /// What the rate is multiplied by; 0 freezes them.
    #[serde(default = "default_lr_scale")]
    pub lr_scale: f64,
    /// Their weight decay, when it is another.
    #[serde(default)]
    pub weight_decay: Option<f64>,
}

fn default_lr_scale() -> f64 {
    1.0
}

/// Settings of an [`Optimizer`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Which one.
    pub kind: OptimizerKind,
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean of gradients (momentum).
    pub beta1: f64,
    /// Decay of the mean of squares.
    pub beta2: f64,
    /// Added to the root of the mean of squares.
    pub eps: f64,
    /// Pull towards zero; not on biases and scales (tensors of fewer than two dimensions).
    pub weight_decay: f64,
    /// What each layer's rate is multiplied by for every layer above it (`….layers.N.…`); 1 for none.
    pub layer_decay: f64,
    /// Groups; the first whose prefix fits counts.
    pub param_groups: Vec<ParamGroup>,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::AdamW,
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            layer_decay: 1.0,
            param_groups: Vec::new(),
        }
    }
}

impl OptimizerConfig {
    /// Whether the settings make sense.
    pub fn check(&self) -> Result<()> {
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return Err(Error::config("train.optimizer.lr", self.lr, "a positive number"));
        }
        if !(0.0..1.0).contains(&self.beta1) || !(0.0..1.0).contains(&self.beta2) {
            return Err(Error::config(
                "train.optimizer.beta1, beta2",
                format!("{}, {}", self.beta1, self.beta2),
                "numbers in [0, 1)",
            ));
        }
        if self.weight_decay < 0.0 || self.param_groups.iter().any(|g| g.lr_scale < 0.0) {
            return Err(Error::config(
                "train.optimizer.weight_decay, param_groups.lr_scale",
                "a negative number",
                "numbers of at least 0",
            ));
        }
        Ok(())
    }
}

struct Slot {
    name: String,
    tensor: Tensor,
    rate: f64,
    decay: f64,
    first: Tensor,
    second: Option<Tensor>,
}

/// Slots of one rate and one decay whose means lie side by side in one piece of memory each.
struct Joined {
    slots: Vec<usize>,
    first: Tensor,
    second: Tensor,
}

/// Moves parameters against their gradients.
pub struct Optimizer {
    config: OptimizerConfig,
    slots: Vec<Slot>,
    joined: Vec<Joined>,
    steps: u64,
}

impl Optimizer {
    /// An optimiser of the trainable parameters.
    pub fn new(config: &OptimizerConfig, params: &Params) -> Result<Self> {
        config.check()?;
        let named = params.named(&[Role::Trainable]);
        let deepest = named.iter().filter_map(|(n, _)| layer(n)).max();
        let mut slots = Vec::new();
        for (name, tensor) in named {
            let group = config.param_groups.iter().find(|g| name.starts_with(&g.prefix));
            let depth = deepest.map_or(0, |d| d - layer(&name).unwrap_or(d));
            let rate = group.map_or(1.0, |g| g.lr_scale) * config.layer_decay.powi(depth);
            if rate == 0.0 {
                continue;
            }
            let decay = group.and_then(|g| g.weight_decay).unwrap_or(config.weight_decay);
            let decay = if tensor.rank() < 2 { 0.0 } else { decay };
            let zeros = || tensor.detach()?.zeros_like();
            let second = matches!(config.kind, OptimizerKind::Adam | OptimizerKind::AdamW).then(zeros).transpose()?;
            slots.push(Slot { first: zeros()?, second, name, rate, decay, tensor });
        }
        if slots.is_empty() {
            return Err(Error::config(
                "train.optimizer",
                "no parameter to learn",
                "a model with something that is not frozen",
            ));
        }
        let mut all = Self { config: config.clone(), slots, joined: Vec::new(), steps: 0 };
        if flat::worth(params.device()) {
            all.join()?;
        }
        Ok(all)
    }

    /// Lays Adam's means of like slots side by side, so that one step is a few operators for all and not for each.
    fn join(&mut self) -> Result<()> {
        let mut kinds: Vec<(f64, f64, Vec<usize>)> = Vec::new();
        for (number, slot) in self.slots.iter().enumerate().filter(|(_, s)| s.second.is_some()) {
            match kinds.iter_mut().find(|k| k.0 == slot.rate && k.1 == slot.decay) {
                Some(kind) => kind.2.push(number),
                None => kinds.push((slot.rate, slot.decay, vec![number])),
            }
        }
        for (.., slots) in kinds {
            let like: Vec<&Tensor> = slots.iter().map(|n| &self.slots[*n].first).collect();
            // They are zeros still.
            let (first, firsts) = flat::copy(&like)?;
            let (second, seconds) = flat::copy(&like)?;
            for ((number, first), second) in slots.iter().zip(firsts).zip(seconds) {
                (self.slots[*number].first, self.slots[*number].second) = (first, Some(second));
            }
            self.joined.push(Joined { slots, first, second });
        }
        Ok(())
    }

    /// The length of all gradients together.
    pub fn grad_norm(&self) -> Result<f64> {
        if !self.joined.is_empty() {
            let all: Vec<Tensor> = self.slots.iter().filter_map(|s| s.tensor.grad()).collect();
            if all.is_empty() {
                return Ok(0.0);
            }
            return Ok(flat::join(&all.iter().collect::<Vec<_>>())?.norm_all()?.to_f64()?);
        }
        let squares =
            self.slots.iter().filter_map(|s| s.tensor.grad()).map(|g| g.norm_all()).collect::<Result<Vec<_>, _>>()?;
        if squares.is_empty() {
            return Ok(0.0);
        }
        Ok(Tensor::stack(&squares.iter().collect::<Vec<_>>(), 0)?.norm(0, false)?.to_f64()?)
    }

    /// Forgets the gradients.
    pub fn zero_grad(&self) {
        self.slots.iter().for_each(|s| s.tensor.zero_grad());
    }

    /// One step at `factor` times the rate, the gradients multiplied by `scale` first (clipping).
    pub fn step(&mut self, factor: f64, scale: f64) -> Result<()> {
        self.steps += 1;
        let mut alone = vec![true; self.slots.len()];
        for joined in &self.joined {
            if self.step_joined(joined, factor, scale)? {
                joined.slots.iter().for_each(|n| alone[*n] = false);
            }
        }
        let c = &self.config;
        for (slot, _) in self.slots.iter().zip(alone).filter(|(_, alone)| *alone) {
            let Some(grad) = slot.tensor.grad() else { continue };
            let rate = c.lr * factor * slot.rate;
            let decoupled = matches!(c.kind, OptimizerKind::AdamW | OptimizerKind::Lion);
            // Adam's one pass takes gradients as they are; for the others, and for a pull that belongs to the gradient, they are made.
            let plain = decoupled || slot.decay == 0.0;
            let (grad, scale) = match &slot.second {
                Some(_) if plain => (grad, scale),
                _ => (grad.detach()?.mul_scalar(scale)?, 1.0),
            };
            let grad = if plain { grad } else { grad.add(&slot.tensor.detach()?.mul_scalar(slot.decay)?)? };
            let weight_decay = if decoupled { slot.decay } else { 0.0 };
            match (c.kind, &slot.second) {
                (_, Some(second)) => {
                    let step = self.adam(rate, weight_decay, scale);
                    slot.tensor.adam_(&grad, &slot.first, second, &step)?;
                }
                (OptimizerKind::Lion, _) => {
                    slot.tensor.scale_(1.0 - rate * weight_decay)?;
                    let direction = slot.first.mul_scalar(c.beta1)?.add(&grad.mul_scalar(1.0 - c.beta1)?)?.sign()?;
                    slot.tensor.scale_add_(1.0, &direction, -rate)?;
                    slot.first.scale_add_(c.beta2, &grad, 1.0 - c.beta2)?;
                }
                _ => {
                    slot.first.scale_add_(c.beta1, &grad, 1.0)?;
                    slot.tensor.scale_add_(1.0, &slot.first, -rate)?;
                }
            }
        }
        Ok(())
    }

    fn adam(&self, rate: f64, weight_decay: f64, scale: f64) -> AdamStep {
        let OptimizerConfig { beta1, beta2, eps: epsilon, .. } = self.config;
        AdamStep { rate, beta1, beta2, epsilon, weight_decay, scale, step: self.steps }
    }

    /// Adam's step for slots that lie side by side; false where they must go one by one: a slot has no gradient, or the decay belongs to
    /// the gradient.
    fn step_joined(&self, joined: &Joined, factor: f64, scale: f64) -> Result<bool> {
        let slots: Vec<&Slot> = joined.slots.iter().map(|n| &self.slots[*n]).collect();
        let (rate, decay) = (self.config.lr * factor * slots[0].rate, slots[0].decay);
        let Some(gradients) = slots.iter().map(|s| s.tensor.grad()).collect::<Option<Vec<_>>>() else {
            return Ok(false);
        };
        if self.config.kind == OptimizerKind::Adam && decay != 0.0 {
            return Ok(false);
        }
        let weights: Vec<Tensor> = slots.iter().map(|s| s.tensor.detach()).collect::<Result<_, _>>()?;
        let (all, each) = flat::copy(&weights.iter().collect::<Vec<_>>())?;
        let gradient = flat::join(&gradients.iter().collect::<Vec<_>>())?;
        all.adam_(&gradient, &joined.first, &joined.second, &self.adam(rate, decay, scale))?;
        slots.iter().zip(&each).try_for_each(|(slot, moved)| slot.tensor.copy_(moved))?;
        Ok(true)
    }

    /// What it remembers, by name, for a checkpoint.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut out = Vec::new();
        for slot in &self.slots {
            out.push((format!("optimizer.first.{}", slot.name), slot.first.clone()));
            out.extend(slot.second.iter().map(|s| (format!("optimizer.second.{}", slot.name), s.clone())));
        }
        out
    }

    /// Takes up again what [`Optimizer::state`] gave.
    pub fn load_state(&mut self, checkpoint: &Checkpoint, steps: u64) -> Result<()> {
        self.steps = steps;
        for (name, tensor) in self.state() {
            tensor.copy_(&checkpoint.get(&name)?)?;
        }
        Ok(())
    }
}

/// N of `….layers.N.…`.
fn layer(name: &str) -> Option<i32> {
    name.split_once("layers.")?.1.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, Init};

    /// PyTorch 2.11's answers for three steps on w = [[1, −2], [3, 4]] with gradients 2w·[1, ½, ¼] and the settings below:
    /// `torch.optim.{AdamW,Adam,SGD}(lr=0.1, weight_decay=0.1)`, SGD with momentum 0.9.
    #[test]
    fn three_steps_equal_those_of_pytorch() {
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

    /// Side by side as one by one: two rates, decay on matrices alone, one parameter without a gradient in some steps.
    #[test]
    fn joined_slots_make_the_same_steps() {
        let run = |joined: bool| {
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
            if joined {
                optimizer.join().unwrap();
                assert_eq!(optimizer.joined.len(), 4);
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
            let numbers = all.into_iter().chain(state).flat_map(|t| t.to_vec::<f32>().unwrap());
            numbers.chain(norms).collect::<Vec<f32>>()
        };
        let (one, other) = (run(false), run(true));
        assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-6), "{one:?}\n{other:?}");
    }

    #[test]
    fn groups_freeze_and_settings_that_make_no_sense_are_errors() {
        let params = Params::new(Device::Cpu);
        params.scope().param("a.w", &[1, 1], Init::Ones).unwrap();
        let frozen = ParamGroup { prefix: "a.".into(), lr_scale: 0.0, weight_decay: None };
        let config = OptimizerConfig { param_groups: vec![frozen], ..OptimizerConfig::default() };
        assert!(Optimizer::new(&config, &params).map(drop).unwrap_err().to_string().contains("no parameter"));
        assert!(Optimizer::new(&OptimizerConfig { lr: -1.0, ..OptimizerConfig::default() }, &params).is_err());
    }
}
