//! Averaging gradients over the ranks while the backward pass runs.

use crate::{Group, Result, backend::Reducer};
use mm_core::Tensor;
use std::rc::Rc;

/// Size of the buckets in which gradients are sent, as in `DistributedDataParallel`.
const BUCKET_BYTES: usize = 25 * 1024 * 1024;

/// Averages the gradients of parameters over the ranks: the reducer of PyTorch's `DistributedDataParallel`, which sends
/// gradients in buckets as they become ready in the backward pass.
///
/// *PyTorch Distributed: Experiences on Accelerating Data Parallel Training* (Li et al., 2020),
/// <https://arxiv.org/abs/2006.15704>.
pub struct GradientReducer {
    group: Rc<Group>,
    reducer: Reducer,
    parameters: Vec<Tensor>,
}

impl GradientReducer {
    /// Registers the hooks. All ranks pass the same parameters in the same order, with the same values.
    ///
    /// # Errors
    /// When their number, shapes or dtypes differ between the ranks.
    pub fn new(group: &Rc<Group>, parameters: Vec<Tensor>) -> Result<Self> {
        let reducer = group.reducer(&parameters, BUCKET_BYTES)?;
        Ok(Self { group: group.clone(), reducer, parameters })
    }

    /// The backward pass of a loss, after which the gradient of each parameter is the mean of the ranks'. A rank whose
    /// part of the batch gives no loss passes `None` and counts as a gradient of 0. Parameters that no rank uses keep
    /// their gradient. Called again before the gradients are cleared, it accumulates.
    ///
    /// # Errors
    /// When a process ended or does not come.
    pub fn backward(&self, loss: Option<&Tensor>) -> Result<()> {
        let zero;
        let loss = match (loss, self.parameters.first()) {
            (Some(loss), _) => loss,
            (None, Some(parameter)) => {
                zero = parameter.sum()?.mul_scalar(0.0)?;
                &zero
            }
            (None, None) => return Ok(()),
        };
        self.group.together("averaging gradients", || {
            self.reducer.prepare(loss)?;
            loss.backward().map_err(|error| error.to_string())
        })
    }
}
