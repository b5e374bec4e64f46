//! How jobs that wait become one batch.

use super::job::{EncodeJob, Job, Pending};
use crate::config::Limits;
use std::collections::VecDeque;

/// Rows that are computed together; the model divides them into batches of similar length.
const MAX_ROWS: usize = 256;

/// What values cost that are computed together: each is padded to the largest.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cost {
    /// Their number.
    pub(crate) rows: usize,
    /// Tokens (patches, frames) of the longest.
    pub(crate) tokens: usize,
    /// Pixels of the largest image, or of all frames of the largest video.
    pub(crate) pixels: usize,
    /// Seconds of the longest recording.
    pub(crate) seconds: f64,
}

impl Cost {
    /// That of two together.
    pub(crate) fn with(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            tokens: self.tokens.max(other.tokens),
            pixels: self.pixels.max(other.pixels),
            seconds: self.seconds.max(other.seconds),
        }
    }
}

/// What one batch may hold, with padding: rows × the largest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    rows: usize,
    tokens: usize,
    pixels: usize,
    seconds: f64,
}

impl Budget {
    /// That of a server's settings.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            rows: MAX_ROWS,
            tokens: limits.max_batch_tokens,
            pixels: limits.max_batch_pixels,
            seconds: limits.max_batch_audio_seconds,
        }
    }

    fn holds(&self, cost: Cost) -> bool {
        let Cost { rows, tokens, pixels, seconds } = cost;
        rows <= self.rows
            && rows.saturating_mul(tokens) <= self.tokens
            && rows.saturating_mul(pixels) <= self.pixels
            && rows as f64 * seconds <= self.seconds
    }
}

/// Offers each waiting job to `take`; those that it gives back keep their places.
fn offer(waiting: &mut VecDeque<Job>, take: impl FnMut(Job) -> Option<Job>) {
    *waiting = std::mem::take(waiting).into_iter().filter_map(take).collect();
}

/// The first job with those behind it that fit: of the same modality and for the same output, within the budget. A job
/// that alone exceeds the budget is a batch of its own, which the model divides.
pub(super) fn complete(first: EncodeJob, waiting: &mut VecDeque<Job>, budget: Budget) -> Vec<EncodeJob> {
    let mut cost = first.cost;
    let mut batch = vec![first];
    offer(waiting, |job| match job {
        Job::Encode(job)
            if job.modality == batch[0].modality
                && job.output == batch[0].output
                && budget.holds(cost.with(job.cost)) =>
        {
            cost = cost.with(job.cost);
            batch.push(job);
            None
        }
        job => Some(job),
    });
    batch
}

/// Texts that are generated together.
const MAX_TEXTS: usize = 16;

/// The first job with those behind it that `take` takes, which gives back those of another kind, within the budget.
pub(super) fn texts<I, O>(
    first: Pending<I, O>,
    waiting: &mut VecDeque<Job>,
    budget: Budget,
    take: fn(Job) -> Result<Pending<I, O>, Job>,
) -> Vec<Pending<I, O>> {
    let mut cost = first.cost;
    let mut batch = vec![first];
    offer(waiting, |job| {
        let together = cost.with(job.cost());
        if batch.len() >= MAX_TEXTS || !budget.holds(together) {
            return Some(job);
        }
        match take(job) {
            Ok(job) => {
                cost = together;
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
    use super::{
        super::job::{Output, Speech, TranscribeJob},
        *,
    };
    use mm_core::{DType, Device, Modality, Source, Tensor};
    use tokio::sync::oneshot;

    const BUDGET: Budget = Budget { rows: 8, tokens: 100, pixels: 1000, seconds: 60.0 };

    fn job(modality: &Modality, cost: Cost) -> EncodeJob {
        let sample = |_| Tensor::zeros(&[1], DType::I64, Device::Cpu).unwrap().into_send().unwrap();
        EncodeJob {
            generation: 0,
            modality: modality.clone(),
            output: Output::Embedding { skipped: None },
            samples: (0..cost.rows).map(sample).collect(),
            cost,
            reply: oneshot::channel().0,
        }
    }

    fn texts_of(lengths: &[usize]) -> Cost {
        let tokens = lengths.iter().copied().max().unwrap_or(0);
        Cost { rows: lengths.len(), tokens, ..Cost::default() }
    }

    /// Jobs of the batch, and jobs that still wait.
    fn batched(modality: &Modality, first: Cost, others: Vec<(&Modality, Cost)>) -> (usize, usize) {
        let mut waiting: VecDeque<Job> = others.into_iter().map(|(m, cost)| Job::Encode(job(m, cost))).collect();
        let batch = complete(job(modality, first), &mut waiting, BUDGET);
        (batch.len(), waiting.len())
    }

    fn lengths(first: &[usize], others: &[(&Modality, &[usize])]) -> (usize, usize) {
        let others = others.iter().map(|(modality, lengths)| (*modality, texts_of(lengths))).collect();
        batched(&Modality::TEXT, texts_of(first), others)
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
    fn images_are_batched_by_pixels_and_recordings_by_seconds() {
        let (image, audio) = (&Modality::IMAGE, &Modality::AUDIO);
        let pixels = |rows: usize, pixels: usize| Cost { rows, tokens: 1, pixels, seconds: 0.0 };
        let seconds = |seconds: f64| Cost { rows: 1, tokens: 1, pixels: 0, seconds };
        // 3 rows × 300 are within 1000, 4 are not; a small one does not fit together with a large one.
        let small = vec![(image, pixels(1, 300)), (image, pixels(1, 300)), (image, pixels(1, 300))];
        assert_eq!(batched(image, pixels(1, 300), small), (3, 1));
        assert_eq!(batched(image, pixels(2, 100), vec![(image, pixels(1, 400)), (image, pixels(1, 1))]), (2, 1));
        assert_eq!(batched(image, pixels(1, 5000), vec![(image, pixels(1, 1))]), (1, 1));
        let recordings = vec![(audio, seconds(20.0)), (audio, seconds(5.0)), (audio, seconds(20.0))];
        assert_eq!(batched(audio, seconds(20.0), recordings), (3, 1));
    }

    #[test]
    fn transcripts_are_batched_by_seconds() {
        let pending = |seconds: f64| {
            let source = Source::Value(serde_json::Value::Null);
            let input = Speech { source, seconds, language: None, timestamps: false, temperature: None, permit: None };
            let cost = Cost { rows: 1, seconds, ..Cost::default() };
            TranscribeJob { input, cost, reply: oneshot::channel().0 }
        };
        let take = |job| if let Job::Transcribe(job) = job { Ok(*job) } else { Err(job) };
        let mut waiting: VecDeque<Job> =
            [10.0, 40.0, 10.0].map(|seconds| Job::Transcribe(Box::new(pending(seconds)))).into();
        assert_eq!(texts(pending(10.0), &mut waiting, BUDGET, take).len(), 3);
        assert_eq!(waiting.len(), 1);
    }

    #[test]
    fn other_outputs_are_other_batches() {
        let of = |output| EncodeJob { output, ..job(&Modality::TEXT, texts_of(&[3])) };
        let outputs = [Output::Embedding { skipped: None }, Output::Embedding { skipped: Some(2) }, Output::Classes];
        let mut waiting: VecDeque<Job> = outputs.into_iter().map(|output| Job::Encode(of(output))).collect();
        assert_eq!(complete(of(Output::Relevance), &mut waiting, BUDGET).len(), 1);
        assert_eq!(complete(of(Output::Classes), &mut waiting, BUDGET).len(), 2);
        assert_eq!(waiting.len(), 2);
    }
}
