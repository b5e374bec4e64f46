//! Averaging gradients over the ranks while the backward pass runs.

use crate::{
    Group, Result,
    backend::{self, Reducer},
};
use mm_core::Tensor;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

/// Size of the buckets in which gradients are sent, as in `DistributedDataParallel`.
const BUCKET_BYTES: usize = 25 * 1024 * 1024;

/// Averages the gradients of parameters over the ranks: the reducer of PyTorch's `DistributedDataParallel`, which sends
/// gradients in buckets as they become ready in the backward pass. Which become ready first is read from the graph of
/// rank 0's first loss, so that it does not matter in which order the parameters are given.
///
/// *PyTorch Distributed: Experiences on Accelerating Data Parallel Training* (Li et al., 2020),
/// <https://arxiv.org/abs/2006.15704>.
pub struct GradientReducer {
    group: Rc<Group>,
    reducer: RefCell<Reducer>,
    parameters: Vec<Tensor>,
    /// Whether the buckets are in the order of the backward pass.
    is_ordered: Cell<bool>,
}

impl GradientReducer {
    /// Registers the hooks. All ranks pass the same parameters in the same order, with the same values.
    ///
    /// # Errors
    /// When their number, shapes or dtypes differ between the ranks.
    pub fn new(group: &Rc<Group>, parameters: Vec<Tensor>) -> Result<Self> {
        // Gradients become ready roughly in the reverse order of the parameters.
        let reducer = group.reducer(&parameters.iter().rev().collect::<Vec<_>>(), BUCKET_BYTES)?;
        Ok(Self { group: group.clone(), reducer: RefCell::new(reducer), parameters, is_ordered: Cell::new(false) })
    }

    /// Fills the buckets in the order in which the backward pass completes the gradients. A bucket is sent after those
    /// before it: one that is ready last and stands first would hold up all others.
    fn order_buckets(&self, loss: Option<&Tensor>) -> Result<()> {
        let own = match loss.filter(|_| self.group.rank() == 0) {
            Some(loss) => backend::gradient_order(loss, &self.parameters).map_err(mm_core::Error::Sample)?,
            None => Vec::new(),
        };
        let Some(mut order) = self.group.gather(&own)?.into_iter().next().filter(|order| !order.is_empty()) else {
            return Ok(());
        };
        // What this loss does not reach comes last.
        let mut is_unused = vec![true; self.parameters.len()];
        order.iter().for_each(|position| is_unused[*position] = false);
        order.extend((0..self.parameters.len()).rev().filter(|position| is_unused[*position]));
        let parameters: Vec<&Tensor> = order.into_iter().map(|position| &self.parameters[position]).collect();
        *self.reducer.borrow_mut() = self.group.reducer(&parameters, BUCKET_BYTES)?;
        self.is_ordered.set(true);
        Ok(())
    }

    /// The backward pass of a loss, after which the gradient of each parameter is the mean of the ranks'. A rank whose
    /// part of the batch gives no loss passes `None` and counts as a gradient of 0. Parameters that no rank uses keep
    /// their gradient. Called again before the gradients are cleared, it accumulates.
    ///
    /// # Errors
    /// When a process ended or does not come.
    pub fn backward(&self, loss: Option<&Tensor>) -> Result<()> {
        if !self.is_ordered.get() {
            self.order_buckets(loss)?;
        }
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
            self.reducer.borrow().prepare(loss)?;
            loss.backward().map_err(|error| error.to_string())
        })
    }
}
