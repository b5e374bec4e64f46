//! Settings of the optimizers.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The optimization algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// [*Decoupled Weight Decay Regularization*](https://arxiv.org/abs/1711.05101) (Loshchilov and Hutter, 2019).
    #[default]
    AdamW,
    /// [*Adam: A Method for Stochastic Optimization*](https://arxiv.org/abs/1412.6980) (Kingma and Ba, 2015).
    Adam,
    /// Stochastic gradient descent with momentum `beta1`.
    Sgd,
    /// [*Symbolic Discovery of Optimization Algorithms*](https://arxiv.org/abs/2302.06675) (Chen et al., 2023).
    Lion,
}

/// Parameter group: parameters whose names start with `prefix`, with their own learning rate and weight decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamGroup {
    /// Prefix of the parameters' names.
    pub prefix: String,
    /// Factor on the learning rate; 0 freezes the parameters.
    #[serde(default = "default_lr_scale")]
    pub lr_scale: f64,
    /// Weight decay; the optimizer's when absent.
    #[serde(default)]
    pub weight_decay: Option<f64>,
}

fn default_lr_scale() -> f64 {
    1.0
}

/// Settings of an [`Optimizer`](crate::Optimizer) (`[train.optimizer]`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// The algorithm.
    pub kind: OptimizerKind,
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running mean of the gradients (Adam, `AdamW`); the momentum of SGD; for Lion the weight of the
    /// momentum in an update.
    pub beta1: f64,
    /// Decay of the running mean of the squared gradients (Adam, `AdamW`); for Lion the decay of the momentum.
    pub beta2: f64,
    /// Added to the denominator for numerical stability (Adam, `AdamW`).
    pub eps: f64,
    /// Weight decay; not applied to tensors of fewer than two dimensions (biases, normalization weights).
    pub weight_decay: f64,
    /// Layer-wise learning-rate decay: the learning rate of a parameter `….layers.N.…` is multiplied by this once for
    /// each layer after its own; 1 for none.
    pub layer_decay: f64,
    /// Parameter groups; the first one whose prefix matches a parameter applies to it.
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
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`] names the first setting that is out of range.
    pub fn check(&self) -> Result<()> {
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return Err(Error::config("train.optimizer.lr", self.lr, "a positive number"));
        }
        for (field, beta) in [("train.optimizer.beta1", self.beta1), ("train.optimizer.beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::config(field, beta, "a number in [0, 1)"));
            }
        }
        if self.weight_decay < 0.0 {
            return Err(Error::config("train.optimizer.weight_decay", self.weight_decay, "a number of at least 0"));
        }
        if let Some(group) = self.param_groups.iter().find(|g| g.lr_scale < 0.0) {
            return Err(Error::config(
                "train.optimizer.param_groups.lr_scale",
                group.lr_scale,
                "a number of at least 0",
            ));
        }
        Ok(())
    }
}
