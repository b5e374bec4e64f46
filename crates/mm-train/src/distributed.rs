//! What a trainer does together with the other processes that train the same model.

use crate::{EvalMetrics, Result};
use mm_core::{Params, Tensor};
use mm_dist::{GradientReducer, Group, ReduceOp};
use std::{collections::BTreeMap, rc::Rc};

/// The other processes, where there are some.
pub(crate) struct Ranks(Option<(Rc<Group>, GradientReducer)>);

/// What the processes say about one batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchStatus {
    /// The loss; `None` where no process has one.
    pub(crate) loss: Option<f64>,
    /// Whether one of them received a request to stop.
    pub(crate) stop: bool,
    /// Number of samples of all.
    pub(crate) samples: usize,
}

impl Ranks {
    /// Joins the current group of mm-dist: all processes start with the parameters of rank 0.
    pub(crate) fn join(params: &Params, trained: Vec<Tensor>) -> Result<Self> {
        let Some(group) = mm_dist::current() else { return Ok(Self(None)) };
        for (_, parameter) in crate::ema::model_tensors(params) {
            parameter.copy_(&group.broadcast(&parameter, 0)?)?;
        }
        let reducer = GradientReducer::new(&group, trained)?;
        Ok(Self(Some((group, reducer))))
    }

    /// Number of processes.
    pub(crate) fn world_size(&self) -> usize {
        self.0.as_ref().map_or(1, |(group, _)| group.world_size())
    }

    /// Whether this process writes checkpoints and metrics.
    pub(crate) fn is_writer(&self) -> bool {
        self.rank() == 0
    }

    pub(crate) fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |(group, _)| group.rank())
    }

    /// What all say about a batch, of which each has a part or (`is_part` false) all have the whole.
    pub(crate) fn exchange(&self, loss: Option<f64>, stop: bool, samples: usize, is_part: bool) -> Result<BatchStatus> {
        let Some((group, _)) = &self.0 else { return Ok(BatchStatus { loss, stop, samples }) };
        let has_loss = f64::from(u8::from(loss.is_some()));
        let values = [has_loss, loss.unwrap_or(0.0), f64::from(u8::from(stop)), samples as f64];
        let sums = group.all_reduce_numbers(&values, ReduceOp::Sum)?;
        let world_size = group.world_size() as f64;
        // A process without a loss has a gradient of 0, and counts so.
        let loss = (sums[0] > 0.0).then_some(sums[1] / world_size);
        let samples = if is_part { sums[3] as usize } else { samples };
        Ok(BatchStatus { loss, stop: sums[2] > 0.0, samples })
    }

    /// The backward pass, after which the gradients are the means of the processes'.
    pub(crate) fn backward(&self, loss: Option<&Tensor>) -> Result<()> {
        match (&self.0, loss) {
            (Some((_, reducer)), loss) => reducer.backward(loss)?,
            (None, Some(loss)) => loss.backward()?,
            (None, None) => {}
        }
        Ok(())
    }

    /// The backward pass of the last of several losses of a batch, after those of the others, which ran without the other
    /// processes; then the gradients of all of them are the means of the processes'.
    pub(crate) fn backward_last(&self, loss: Option<&Tensor>, parameters: &[Tensor]) -> Result<()> {
        if self.0.is_none() {
            return self.backward(loss);
        }
        let mut sum = loss.cloned();
        // The reducer sends the gradients of what a loss reaches.
        for parameter in parameters.iter().filter(|parameter| parameter.grad().is_some()) {
            let zero = parameter.sum()?.mul_scalar(0.0)?;
            sum = Some(match sum {
                Some(sum) => sum.add(&zero)?,
                None => zero,
            });
        }
        self.backward(sum.as_ref())
    }

    /// Sums of logged values with their counts, over all processes.
    pub(crate) fn sum(&self, own: BTreeMap<String, (f64, u64)>) -> Result<BTreeMap<String, (f64, u64)>> {
        let Some((group, _)) = &self.0 else { return Ok(own) };
        let bits: BTreeMap<String, (u64, u64)> = own.into_iter().map(|(n, (v, c))| (n, (v.to_bits(), c))).collect();
        let mut sums: BTreeMap<String, (f64, u64)> = BTreeMap::new();
        for (name, (value, count)) in group.gather(&bits)?.into_iter().flatten() {
            let (sum, total) = sums.entry(name).or_default();
            (*sum, *total) = (*sum + f64::from_bits(value), *total + count);
        }
        Ok(sums)
    }

    /// The metrics of rank 0, bit for bit.
    pub(crate) fn metrics_of_first(&self, own: Option<EvalMetrics>) -> Result<Option<EvalMetrics>> {
        let Some((group, _)) = &self.0 else { return Ok(own) };
        let bits = own.map(|m| m.into_iter().map(|(n, v)| (n, v.to_bits())).collect::<BTreeMap<String, u64>>());
        let first = group.gather(&bits)?.into_iter().next().flatten();
        Ok(first.map(|m| m.into_iter().map(|(n, v)| (n, f64::from_bits(v))).collect()))
    }

    /// The ids of all processes' samples.
    pub(crate) fn gather_ids(&self, own: &[String]) -> Result<Vec<String>> {
        let Some((group, _)) = &self.0 else { return Ok(own.to_vec()) };
        Ok(group.gather(&own.to_vec())?.concat())
    }

    /// The bytes of all processes, by rank.
    pub(crate) fn gather_bytes(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let Some((group, _)) = &self.0 else { return Ok(vec![own.to_vec()]) };
        Ok(group.gather_bytes(own)?)
    }

    /// Checks that all processes have the same value of something.
    pub(crate) fn agree(&self, what: &str, value: &str) -> Result<()> {
        let Some((group, _)) = &self.0 else { return Ok(()) };
        Ok(group.agree(what, value)?)
    }
}
