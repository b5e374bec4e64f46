//! How jobs that wait become one batch.

use super::job::{EncodeJob, Job};
use std::collections::VecDeque;

/// What one batch may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Tokens with padding: rows × the longest.
    pub(super) tokens: usize,
    pub(super) rows: usize,
}

/// Offers each waiting job to `take`; those that it gives back keep their places.
fn offer(waiting: &mut VecDeque<Job>, take: impl FnMut(Job) -> Option<Job>) {
    *waiting = std::mem::take(waiting).into_iter().filter_map(take).collect();
}

/// The first job with those behind it that fit: of the same modality and for the same output, within the budget. A job that alone exceeds the budget is a batch of its own, which the model divides.
pub(super) fn complete(first: EncodeJob, waiting: &mut VecDeque<Job>, budget: Budget) -> Vec<EncodeJob> {
    let (mut rows, mut longest) = (first.samples.len(), first.longest);
    let mut batch = vec![first];
    offer(waiting, |job| match job {
        Job::Encode(job)
            if job.modality == batch[0].modality
                && job.output == batch[0].output
                && rows + job.samples.len() <= budget.rows
                && (rows + job.samples.len()) * longest.max(job.longest) <= budget.tokens =>
        {
            rows += job.samples.len();
            longest = longest.max(job.longest);
            batch.push(job);
            None
        }
        job => Some(job),
    });
    batch
}

/// Texts that are generated together.
const MAX_TEXTS: usize = 16;

/// The first job with those behind it that `take` takes, which gives back those of another kind.
pub(super) fn texts<T>(first: T, waiting: &mut VecDeque<Job>, take: fn(Job) -> Result<T, Job>) -> Vec<T> {
    let mut batch = vec![first];
    offer(waiting, |job| {
        if batch.len() >= MAX_TEXTS {
            return Some(job);
        }
        match take(job) {
            Ok(job) => {
                batch.push(job);
                None
            }
            Err(job) => Some(job),
        }
    });
    batch
}

#[cfg(test)]
mod tests {
    use super::{super::job::Output, *};
    use mm_core::{DType, Device, Modality, Tensor};
    use tokio::sync::oneshot;

    const BUDGET: Budget = Budget { tokens: 100, rows: 8 };

    fn job(modality: &Modality, lengths: &[i64]) -> EncodeJob {
        let sample = |length: &i64| Tensor::zeros(&[*length], DType::I64, Device::Cpu).unwrap().into_send().unwrap();
        EncodeJob {
            generation: 0,
            modality: modality.clone(),
            output: Output::Embedding { skipped: None },
            samples: lengths.iter().map(sample).collect(),
            longest: lengths.iter().copied().max().unwrap_or(0) as usize,
            reply: oneshot::channel().0,
        }
    }

    fn lengths(first: &[i64], others: &[(&Modality, &[i64])]) -> (usize, usize) {
        let mut waiting: VecDeque<Job> = others.iter().map(|(m, l)| Job::Encode(job(m, l))).collect();
        let batch = complete(job(&Modality::TEXT, first), &mut waiting, BUDGET);
        (batch.len(), waiting.len())
    }

    #[test]
    fn a_batch_holds_what_fits_with_its_padding_and_leaves_the_rest_in_order() {
        let (text, image) = (&Modality::TEXT, &Modality::IMAGE);
        // 3 rows × 30 are within 100, 4 are not; a short one does not fit together with a long one.
        assert_eq!(lengths(&[30], &[(text, &[30]), (text, &[10]), (text, &[10])]), (3, 1));
        assert_eq!(lengths(&[10], &[(text, &[60]), (text, &[10, 10])]), (2, 1));
        assert_eq!(lengths(&[10], &[(image, &[10]), (text, &[10])]), (2, 1));
        assert_eq!(lengths(&[1000], &[(text, &[1])]), (1, 1));
        assert_eq!(lengths(&[1; 8], &[(text, &[1])]), (1, 1));
    }

    #[test]
    fn other_outputs_are_other_batches() {
        let of = |output| EncodeJob { output, ..job(&Modality::TEXT, &[3]) };
        let outputs = [Output::Embedding { skipped: None }, Output::Embedding { skipped: Some(2) }, Output::Classes];
        let mut waiting: VecDeque<Job> = outputs.into_iter().map(|output| Job::Encode(of(output))).collect();
        assert_eq!(complete(of(Output::Relevance), &mut waiting, BUDGET).len(), 1);
        assert_eq!(complete(of(Output::Classes), &mut waiting, BUDGET).len(), 2);
        assert_eq!(waiting.len(), 2);
    }
}
