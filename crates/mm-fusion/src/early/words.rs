//! Word-level alignment: sound and video frames brought to the words that they go with, by timestamps (as CMU's SDK does for MOSI).

use crate::{Error, Result};
use mm_core::{Features, Tensor};

/// Mean of the frames that overlap each span, `[spans, width]`; a span that no frame overlaps takes the frame nearest to its middle.
/// `frames` is `[frames, width]`, frame i lasting from `starts[i]` to `starts[i + 1]` (the last as long as the one before it); spans are
/// (begin, end), in the same unit.
pub fn average_spans(frames: &Tensor, starts: &[f64], spans: &[(f64, f64)]) -> Result<Tensor> {
    let count = frames.size(0)?;
    if frames.rank() != 2 || count as usize != starts.len() || count == 0 {
        let found = format!("{:?} and {} times", frames.shape(), starts.len());
        return Err(Error::config("average_spans", found, "[frames, width] with a time for each frame, at least one"));
    }
    if starts.windows(2).any(|w| w[0] > w[1]) || starts.iter().any(|s| !s.is_finite()) {
        return Err(Error::config("average_spans", "times that do not grow", "the frames in their order"));
    }
    if let Some((begin, end)) = spans.iter().find(|(b, e)| !(b.is_finite() && e.is_finite() && b <= e)) {
        return Err(Error::config(
            "average_spans",
            format!("a span from {begin} to {end}"),
            "spans that end after they begin",
        ));
    }
    let last = starts.len() - 1;
    let step = if last > 0 { starts[last] - starts[last - 1] } else { 0.0 };
    let end_of = |i: usize| if i < last { starts[i + 1] } else { starts[last] + step };
    let mut weights = vec![0f32; spans.len() * starts.len()];
    for (number, (begin, end)) in spans.iter().enumerate() {
        let row = &mut weights[number * starts.len()..(number + 1) * starts.len()];
        let over: Vec<usize> = (0..starts.len()).filter(|i| starts[*i] < *end && end_of(*i) > *begin).collect();
        if over.is_empty() {
            let middle = f64::midpoint(*begin, *end);
            let nearest = (0..starts.len()).min_by(|a, b| {
                let off = |i: usize| (f64::midpoint(starts[i], end_of(i)) - middle).abs();
                off(*a).total_cmp(&off(*b))
            });
            row[nearest.unwrap_or(0)] = 1.0;
        } else {
            over.iter().for_each(|i| row[*i] = 1.0 / over.len() as f32);
        }
    }
    let weights = Tensor::from_vec(&weights, &[spans.len() as i64, count])?.to_device(frames.device())?;
    Ok(weights.matmul(frames)?)
}

/// The same as features of one row, `[1, spans, width]`.
pub fn align_to_words(frames: &Tensor, starts: &[f64], words: &[(f64, f64)]) -> Result<Features> {
    Ok(Features::new(average_spans(frames, starts, words)?.unsqueeze(0)?, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_to_the_words_they_overlap_and_a_short_word_takes_the_nearest() {
        let frames = Tensor::from_vec(&[1f32, 2.0, 4.0, 8.0], &[4, 1]).unwrap();
        let starts = [0.0, 1.0, 2.0, 3.0];
        let words = [(0.0, 2.0), (1.5, 3.5), (3.2, 3.3), (9.0, 9.5)];
        let found = average_spans(&frames, &starts, &words).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(found[0], 1.5);
        assert!((found[1] - 14.0 / 3.0).abs() < 1e-6);
        assert_eq!(found[2..], [8.0, 8.0]);
        assert!(average_spans(&frames, &starts[1..], &words).is_err());
        assert!(average_spans(&frames, &starts, &[(2.0, 1.0)]).is_err());
    }
}
