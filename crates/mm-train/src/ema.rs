//! Exponential moving average of the weights.

use crate::{Result, flatten};
use mm_core::{Checkpoint, Params, Role, Tensor};

/// Exponential moving average of parameters and buffers: *Acceleration of Stochastic Approximation by Averaging*
/// (Polyak and Juditsky, 1992), with timm's warm-up of the decay.
pub struct Ema {
    decay: f64,
    /// The averages, by parameter name.
    averages: Vec<(String, Tensor)>,
    /// One tensor of which all `averages` are views, on devices where that is faster.
    flat: Option<Tensor>,
}

impl Ema {
    /// Initializes the averages with the parameters' current values. `decay` is in [0, 1).
    pub fn new(decay: f64, params: &Params) -> Result<Self> {
        let weights = model_tensors(params);
        let one_dtype = weights.windows(2).all(|pair| pair[0].1.dtype().ok() == pair[1].1.dtype().ok());
        if flatten::is_faster_on(params.device()) && one_dtype && !weights.is_empty() {
            let (flat, views) = flatten::copy(&weights.iter().map(|(_, t)| t).collect::<Vec<_>>())?;
            let averages = weights.into_iter().map(|(name, _)| name).zip(views).collect();
            return Ok(Self { decay, averages, flat: Some(flat) });
        }
        let averages = weights.into_iter().map(|(n, t)| Ok((n, t.detach()?.copy()?))).collect::<Result<_>>()?;
        Ok(Self { decay, averages, flat: None })
    }

    /// Updates the averages with the current parameters, after optimizer step `step` (from 0).
    pub fn update(&self, params: &Params, step: u64) -> Result<()> {
        // A smaller decay in the first steps lets the average follow the weights closely, as timm's ModelEmaV2 does.
        let decay = self.decay.min((1.0 + step as f64) / (10.0 + step as f64));
        if let Some(flat) = &self.flat {
            let weights = flatten::concat(&model_tensors(params).iter().map(|(_, t)| t).collect::<Vec<_>>())?;
            return Ok(flat.scale_add_(decay, &weights, 1.0 - decay)?);
        }
        for ((_, average), (_, weight)) in self.averages.iter().zip(model_tensors(params)) {
            average.scale_add_(decay, &weight.detach()?, 1.0 - decay)?;
        }
        Ok(())
    }

    /// Swaps averages and parameters: called before an evaluation of the average, and again before training continues.
    pub fn swap(&mut self, params: &Params) -> Result<()> {
        for ((_, average), (_, weight)) in self.averages.iter().zip(model_tensors(params)) {
            let previous = weight.detach()?.copy()?;
            weight.copy_(average)?;
            average.copy_(&previous)?;
        }
        Ok(())
    }

    /// The averages by name, for a checkpoint.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.averages.iter().map(|(n, t)| (format!("ema.{n}"), t.clone())).collect()
    }

    /// Restores the averages that [`Ema::state`] returned from a checkpoint.
    ///
    /// # Errors
    /// When the checkpoint lacks an average, or its shape differs.
    pub fn load_state(&self, checkpoint: &Checkpoint) -> Result<()> {
        for (name, tensor) in self.state() {
            tensor.copy_(&checkpoint.get(&name)?)?;
        }
        Ok(())
    }
}

/// Parameters and buffers: what makes up the model.
pub(crate) fn model_tensors(params: &Params) -> Vec<(String, Tensor)> {
    params.named(&[Role::Trainable, Role::Buffer])
}
