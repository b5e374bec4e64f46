//! Log-likelihoods of given continuations.

use super::model::{LanguageModel, Prefill, to_rows};
use crate::{Error, Result};
use mm_core::{DType, Device, Tensor, no_grad};

/// Log-probability of each continuation of one row's prompt, followed by the end token where the model has one.
///
/// # Errors
/// If a continuation and the end token are both empty.
pub fn log_likelihoods<M: LanguageModel>(
    model: &M,
    prefill: &Prefill<M::State>,
    continuations: &[Vec<i64>],
    eos_token_id: Option<i64>,
) -> Result<Vec<f64>> {
    no_grad(|| {
        let first = to_rows(&prefill.logits.to_dtype(DType::F32)?.log_softmax(-1)?)?;
        let mut out = Vec::new();
        for continuation in continuations {
            let mut ids = continuation.clone();
            ids.extend(eos_token_id);
            let Some(head) = ids.first() else {
                return Err(Error::invalid_argument("choice", "a text without tokens", "a text of at least one token"));
            };
            let mut sum = f64::from(first[*head as usize]);
            if ids.len() > 1 {
                let mut state = model.fork(&prefill.state)?;
                let given = Tensor::from_vec(&ids[..ids.len() - 1], &[1, ids.len() as i64 - 1])?;
                let logits = model.step_many(&given.to_device(prefill.logits.device())?, &mut state)?;
                let log_probs = logits.to_dtype(DType::F32)?.log_softmax(-1)?;
                let targets = Tensor::from_vec(&ids[1..], &[1, ids.len() as i64 - 1, 1])?;
                let chosen = log_probs.gather(2, &targets.to_device(log_probs.device())?)?;
                sum += chosen.to_dtype(DType::F64)?.sum()?.to_device(Device::Cpu)?.to_f64()?;
            }
            out.push(sum);
        }
        Ok(out)
    })
}
