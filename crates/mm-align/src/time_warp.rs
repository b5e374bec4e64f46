//! Sequences that run at different speeds: dynamic time warping (Sakoe 1978), its smooth kind with gradient (soft-DTW, Cuturi 2017) and
//! divergence (Blondel 2021), and where in a sound each word of a text is (CTC forced alignment, Kürzinger 2020).

use crate::{Result, correlation::wrong};
use mm_core::{DType, Tensor};
use rayon::prelude::*;

fn costs(cost: &Tensor) -> Result<(usize, usize, usize, Vec<f64>)> {
    let shape = cost.shape();
    if shape.len() != 3 || shape.contains(&0) {
        return Err(wrong(
            "time warp",
            format!("costs {shape:?}"),
            "[pairs, length of a, length of b], none of them 0",
        ));
    }
    Ok((shape[0] as usize, shape[1] as usize, shape[2] as usize, cost.to_vec::<f64>()?))
}

/// Squared distances of the frames of pairs of sequences: `[pairs, length of a, width]` and `[pairs, length of b, width]` →
/// `[pairs, length of a, length of b]`, differentiable.
pub fn frame_costs(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let squares = |t: &Tensor| t.mul(t)?.sum_dims(&[2], true);
    let cross = a.matmul(&b.transpose(1, 2)?)?.mul_scalar(-2.0)?;
    Ok(cross.add(&squares(a)?)?.add(&squares(b)?.transpose(1, 2)?)?.clamp_min(0.0)?)
}

/// A path and what it costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// Sum of the costs on it.
    pub cost: f64,
    /// Its places, from (0, 0) to the ends.
    pub places: Vec<(usize, usize)>,
}

/// The cheapest way through `[length of a, length of b]` costs by steps down, across or both.
pub fn dtw(cost: &Tensor) -> Result<Path> {
    let (_, n, m, cost) = costs(&cost.unsqueeze(0)?)?;
    let mut sum = vec![f64::INFINITY; n * m];
    for i in 0..n {
        for j in 0..m {
            let up = if i > 0 { sum[(i - 1) * m + j] } else { f64::INFINITY };
            let left = if j > 0 { sum[i * m + j - 1] } else { f64::INFINITY };
            let both = if i > 0 && j > 0 { sum[(i - 1) * m + j - 1] } else { f64::INFINITY };
            let least = if i == 0 && j == 0 { 0.0 } else { up.min(left).min(both) };
            sum[i * m + j] = cost[i * m + j] + least;
        }
    }
    let mut places = vec![(n - 1, m - 1)];
    let (mut i, mut j) = (n - 1, m - 1);
    while (i, j) != (0, 0) {
        let at = |i: Option<usize>, j: Option<usize>| match (i, j) {
            (Some(i), Some(j)) => sum[i * m + j],
            _ => f64::INFINITY,
        };
        let (up, left) = (at(i.checked_sub(1), Some(j)), at(Some(i), j.checked_sub(1)));
        let both = at(i.checked_sub(1), j.checked_sub(1));
        (i, j) = if both <= up && both <= left {
            (i - 1, j - 1)
        } else if up <= left {
            (i - 1, j)
        } else {
            (i, j - 1)
        };
        places.push((i, j));
    }
    places.reverse();
    Ok(Path { cost: sum[n * m - 1], places })
}

/// Smooth minimum of all ways through each pair's costs `[pairs, length of a, length of b]`: `[pairs]`, differentiable. `gamma` is the
/// smoothness; towards 0 it is [`dtw`]. Pairs are computed beside each other.
pub fn soft_dtw(cost: &Tensor, gamma: f64) -> Result<Tensor> {
    if gamma.is_nan() || gamma <= 0.0 {
        return Err(wrong("soft_dtw", format!("gamma {gamma}"), "a positive number"));
    }
    let (pairs, n, m, values) = costs(cost)?;
    let single: Vec<(f64, Vec<f64>)> = values.par_chunks(n * m).map(|c| soft_path(c, n, m, gamma)).collect();
    let (ends, slopes): (Vec<f64>, Vec<Vec<f64>>) = single.into_iter().unzip();
    let dtype = cost.dtype()?;
    let like = |values: &[f64], shape: &[i64]| -> Result<Tensor> {
        Ok(Tensor::from_vec(values, shape)?.to_dtype(dtype)?.to_device(cost.device())?)
    };
    let ends = like(&ends, &[pairs as i64])?;
    let slopes = like(&slopes.concat(), &[pairs as i64, n as i64, m as i64])?;
    // The value is the recursion's, the slope in the costs is known in closed form: Σ slope · (cost − its own value) adds it alone.
    Ok(ends.add(&slopes.mul(&cost.sub(&cost.detach()?)?)?.sum_dims(&[1, 2], false)?)?)
}

/// The end value of one pair and its slope in each cost.
fn soft_path(cost: &[f64], n: usize, m: usize, gamma: f64) -> (f64, Vec<f64>) {
    let w = m + 1;
    // One row and column of walls before.
    let mut r = vec![f64::INFINITY; (n + 1) * w];
    r[0] = 0.0;
    // How much of each place comes from both before it, from above and from the left: all that the way back needs, so that it takes no
    // exponential.
    let mut shares = vec![[0f64; 3]; n * m];
    let over = 1.0 / gamma;
    for i in 1..=n {
        for j in 1..=m {
            let [a, b, c] = [r[(i - 1) * w + j - 1], r[(i - 1) * w + j], r[i * w + j - 1]];
            let least = a.min(b).min(c);
            let part = |x: f64| if x == least { 1.0 } else { ((least - x) * over).exp() };
            let (a, b, c) = (part(a), part(b), part(c));
            let sum = a + b + c;
            let each = 1.0 / sum;
            shares[(i - 1) * m + j - 1] = [a * each, b * each, c * each];
            r[i * w + j] = cost[(i - 1) * m + j - 1] + least - gamma * sum.ln();
        }
    }
    // Backwards: how much each place is passed (Cuturi 2017, algorithm 2).
    let mut passed = vec![0f64; n * m];
    passed[n * m - 1] = 1.0;
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            let own = passed[i * m + j];
            let [both, up, left] = shares[i * m + j];
            if i > 0 && j > 0 {
                passed[(i - 1) * m + j - 1] += own * both;
            }
            if i > 0 {
                passed[(i - 1) * m + j] += own * up;
            }
            if j > 0 {
                passed[i * m + j - 1] += own * left;
            }
        }
    }
    (r[n * w + m], passed)
}

/// The divergence of pairs of sequences `[pairs, length, width]`: soft-DTW less half of each with itself, never negative and zero for
/// equal ones; `[pairs]`, differentiable.
pub fn soft_dtw_divergence(a: &Tensor, b: &Tensor, gamma: f64) -> Result<Tensor> {
    let value = |x: &Tensor, y: &Tensor| -> Result<Tensor> { soft_dtw(&frame_costs(x, y)?, gamma) };
    Ok(value(a, b)?.sub(&value(a, a)?.add(&value(b, b)?)?.mul_scalar(0.5)?)?)
}

/// Where one symbol of a text lies in a sound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// The symbol.
    pub symbol: i64,
    /// First frame.
    pub start: usize,
    /// One behind its last frame.
    pub end: usize,
    /// Mean log-probability of its frames.
    pub score: f64,
}

/// The likeliest way of saying `symbols` in a sound whose frames have these log-probabilities `[frames, classes]`; `blank` is the class
/// of saying nothing.
pub fn forced_alignment(log_probabilities: &Tensor, symbols: &[i64], blank: i64) -> Result<Vec<Span>> {
    let shape = log_probabilities.shape();
    let [frames, classes] = shape.as_slice() else {
        return Err(wrong("forced_alignment", format!("{shape:?}"), "[frames, classes]"));
    };
    let (frames, classes) = (*frames as usize, *classes as usize);
    if let Some(symbol) = symbols.iter().chain([&blank]).find(|s| !(0..classes as i64).contains(s)) {
        return Err(wrong("forced_alignment", format!("symbol {symbol}"), format!("0 to {}", classes as i64 - 1)));
    }
    // A symbol that follows itself needs a blank between.
    let twice = symbols.windows(2).filter(|p| p[0] == p[1]).count();
    if symbols.is_empty() || symbols.contains(&blank) || frames < symbols.len() + twice {
        let found = format!("{} symbols in {frames} frames", symbols.len());
        return Err(wrong(
            "forced_alignment",
            found,
            "at least one symbol, none of them blank, and a frame for each (two where one follows itself)",
        ));
    }
    let logs = log_probabilities.to_dtype(DType::F64)?.to_vec::<f64>()?;
    let states = 2 * symbols.len() + 1;
    let class = |s: usize| if s.is_multiple_of(2) { blank } else { symbols[s / 2] } as usize;
    let mut best = vec![f64::NEG_INFINITY; states];
    (best[0], best[1]) = (logs[blank as usize], logs[class(1)]);
    let mut from = vec![0u8; frames * states];
    for t in 1..frames {
        let mut next = vec![f64::NEG_INFINITY; states];
        for s in 0..states {
            let skip = s >= 3 && s % 2 == 1 && class(s) != class(s - 2);
            let candidates = [
                best[s],
                if s >= 1 { best[s - 1] } else { f64::NEG_INFINITY },
                if skip { best[s - 2] } else { f64::NEG_INFINITY },
            ];
            let step = (0..3).max_by(|x, y| candidates[*x].total_cmp(&candidates[*y])).unwrap_or(0);
            next[s] = candidates[step] + logs[t * classes + class(s)];
            from[t * states + s] = step as u8;
        }
        best = next;
    }
    let mut state = if best[states - 1] >= best[states - 2] { states - 1 } else { states - 2 };
    if best[state] == f64::NEG_INFINITY {
        return Err(wrong(
            "forced_alignment",
            "no way of saying it that is possible",
            "finite log-probabilities of its symbols",
        ));
    }
    let mut path = vec![0usize; frames];
    for t in (0..frames).rev() {
        path[t] = state;
        state -= usize::from(from[t * states + state]);
    }
    let mut spans = Vec::new();
    for (place, symbol) in symbols.iter().enumerate() {
        let own: Vec<usize> = (0..frames).filter(|t| path[*t] == 2 * place + 1).collect();
        let (Some(start), Some(last)) = (own.first(), own.last()) else { continue };
        let score = own.iter().map(|t| logs[t * classes + *symbol as usize]).sum::<f64>() / own.len() as f64;
        spans.push(Span { symbol: *symbol, start: *start, end: last + 1, score });
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::seed_tensors};
    use proptest::prelude::*;

    fn rand(shape: &[i64]) -> Tensor {
        Tensor::rand(shape, DType::F64, Device::Cpu).unwrap()
    }

    /// All ways through, one by one.
    fn ways(cost: &[f64], m: usize, i: usize, j: usize) -> Vec<f64> {
        let own = cost[i * m + j];
        if (i, j) == (0, 0) {
            return vec![own];
        }
        let mut all = Vec::new();
        if i > 0 {
            all.extend(ways(cost, m, i - 1, j));
        }
        if j > 0 {
            all.extend(ways(cost, m, i, j - 1));
        }
        if i > 0 && j > 0 {
            all.extend(ways(cost, m, i - 1, j - 1));
        }
        all.into_iter().map(|w| w + own).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn the_cheapest_way_and_the_smooth_one_are_those_over_all_ways(seed in 0u64..1000, n in 1usize..5, m in 1usize..5) {
            seed_tensors(seed);
            let cost = rand(&[1, n as i64, m as i64]);
            let all = ways(&cost.to_vec::<f64>().unwrap(), m, n - 1, m - 1);
            let least = all.iter().copied().fold(f64::INFINITY, f64::min);
            let path = dtw(&cost.squeeze(0).unwrap()).unwrap();
            prop_assert!((path.cost - least).abs() < 1e-12);
            let along: f64 = path.places.iter().map(|(i, j)| cost.to_vec::<f64>().unwrap()[i * m + j]).sum();
            prop_assert!((along - least).abs() < 1e-12);
            let smooth = -0.3 * all.iter().map(|w| (-w / 0.3).exp()).sum::<f64>().ln();
            prop_assert!((soft_dtw(&cost, 0.3).unwrap().to_f64().unwrap() - smooth).abs() < 1e-9);
            prop_assert!(smooth <= least + 1e-12);
        }
    }

    #[test]
    fn the_slope_is_that_of_small_steps_and_divergence_vanishes_on_equals() {
        seed_tensors(2);
        let cost = rand(&[2, 4, 6]).requires_grad().unwrap();
        soft_dtw(&cost, 0.2)
            .unwrap()
            .mul(&Tensor::from_slice(&[1.0f64, 2.0]).unwrap())
            .unwrap()
            .sum()
            .unwrap()
            .backward()
            .unwrap();
        let grad = cost.grad().unwrap().to_vec::<f64>().unwrap();
        let base = cost.to_vec::<f64>().unwrap();
        for place in [0, 5, 13, 30, 47] {
            let at = |by: f64| {
                let mut moved = base.clone();
                moved[place] += by;
                let values =
                    soft_dtw(&Tensor::from_vec(&moved, &[2, 4, 6]).unwrap(), 0.2).unwrap().to_vec::<f64>().unwrap();
                values[0] + 2.0 * values[1]
            };
            assert!(((at(1e-5) - at(-1e-5)) / 2e-5 - grad[place]).abs() < 1e-6);
        }
        let (a, b) = (rand(&[3, 5, 2]), rand(&[3, 7, 2]));
        let none = soft_dtw_divergence(&a, &a, 0.1).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
        let some = soft_dtw_divergence(&a, &b, 0.1).unwrap().min().unwrap().to_f64().unwrap();
        assert!(none < 1e-9 && some > 0.0);
        assert!(soft_dtw(&rand(&[0, 2, 2]), 0.1).is_err() && soft_dtw(&cost, 0.0).is_err());
    }

    #[test]
    fn symbols_are_found_where_they_are_said() {
        // Frames say: blank, 1, 1, blank, 1, 2, 2.
        let said = [0usize, 1, 1, 0, 1, 2, 2];
        let mut logs = vec![(0.05f64).ln(); 7 * 3];
        said.iter().enumerate().for_each(|(t, c)| logs[t * 3 + c] = (0.9f64).ln());
        let logs = Tensor::from_vec(&logs, &[7, 3]).unwrap();
        let spans = forced_alignment(&logs, &[1, 1, 2], 0).unwrap();
        let places: Vec<(usize, usize)> = spans.iter().map(|s| (s.start, s.end)).collect();
        assert_eq!(places, [(1, 3), (4, 5), (5, 7)]);
        assert!((spans[0].score - 0.9f64.ln()).abs() < 1e-12);
        assert!(forced_alignment(&logs, &[1, 1, 1, 1, 2], 0).is_err() && forced_alignment(&logs, &[7], 0).is_err());
    }
}
