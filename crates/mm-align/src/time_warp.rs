//! Sequences that run at different speeds: dynamic time warping (Sakoe 1978), its smooth kind with gradient (soft-DTW, Cuturi 2017) and
//! divergence (Blondel 2021), and where in a sound each word of a text is (CTC forced alignment, Kürzinger 2020).

// What is computed in lanes must be inlined into the functions that are compiled for wider registers.
#![allow(clippy::inline_always)]

use crate::{Result, correlation::wrong};
use mm_core::{DType, Element, Tensor};
use rayon::prelude::*;

fn sizes(cost: &Tensor) -> Result<[usize; 3]> {
    let shape = cost.shape();
    if shape.len() != 3 || shape.contains(&0) {
        return Err(wrong(
            "time warp",
            format!("costs {shape:?}"),
            "[pairs, length of a, length of b], none of them 0",
        ));
    }
    Ok([shape[0], shape[1], shape[2]].map(|n| n as usize))
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
    let [_, n, m] = sizes(&cost.unsqueeze(0)?)?;
    let cost = cost.to_vec::<f64>()?;
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
    let sizes = sizes(cost)?;
    let (ends, slopes) = match cost.dtype()? {
        DType::F64 => soft_pairs::<f64>(cost, sizes, gamma)?,
        _ => soft_pairs::<f32>(cost, sizes, gamma)?,
    };
    let like = |x: &Tensor| -> Result<Tensor> { Ok(x.to_dtype(cost.dtype()?)?.to_device(cost.device())?) };
    let (ends, slopes) = (like(&ends)?, like(&slopes)?);
    // The value is the recursion's, the slope in the costs is known in closed form: Σ slope · cost less its own value adds it alone.
    let sloped = slopes.mul(cost)?.sum_dims(&[1, 2], false)?;
    Ok(ends.add(&sloped.sub(&sloped.detach()?)?)?)
}

/// Costs and slopes as they lie in memory: most of the time goes into moving them.
trait Stored: Element + Send + Sync {
    fn wide(self) -> f64;
    fn narrow(x: f64) -> Self;
}

impl Stored for f32 {
    #[inline(always)]
    fn wide(self) -> f64 {
        self.into()
    }
    #[inline(always)]
    fn narrow(x: f64) -> Self {
        x as Self
    }
}

impl Stored for f64 {
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    #[inline(always)]
    fn narrow(x: f64) -> Self {
        x
    }
}

/// End values `[pairs]`, float64, and slopes of all pairs.
fn soft_pairs<T: Stored>(cost: &Tensor, [pairs, n, m]: [usize; 3], gamma: f64) -> Result<(Tensor, Tensor)> {
    let values = cost.to_vec::<T>()?;
    let mut ends = vec![0f64; pairs];
    let mut slopes = vec![T::narrow(0.0); pairs * n * m];
    let some = LANES * n * m;
    let jobs = values.par_chunks(some).zip(slopes.par_chunks_mut(some)).zip(ends.par_chunks_mut(LANES));
    jobs.for_each(|((cost, slopes), ends)| soft_paths(cost, n, m, gamma, ends, slopes));
    let shape = [pairs, n, m].map(|n| n as i64);
    Ok((Tensor::from_slice(&ends)?, Tensor::from_vec(&slopes, &shape)?))
}

/// Pairs that are computed side by side, each in a lane of the processor's wide registers.
const LANES: usize = 8;

/// One number of each pair.
type Lanes = [f64; LANES];

#[inline(always)]
fn each(body: impl Fn(usize) -> f64) -> Lanes {
    std::array::from_fn(body)
}

/// exp(x) for x of at most zero, to 1e-14; zero below −700.
#[inline(always)]
fn exp(x: Lanes) -> Lanes {
    // Adding this leaves the nearest whole number in the low bits.
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    let x = each(|l| x[l].max(-700.0));
    let shifted = each(|l| x[l] * std::f64::consts::LOG2_E + WHOLE);
    let whole = each(|l| shifted[l] - WHOLE);
    let rest = each(|l| x[l] - whole[l] * std::f64::consts::LN_2);
    let mut sum = [1.0 / 39_916_800.0; LANES];
    for factor in [3_628_800.0, 362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        sum = each(|l| sum[l] * rest[l] + 1.0 / factor);
    }
    each(|l| sum[l] * f64::from_bits((shifted[l].to_bits() << 52).wrapping_add(1023 << 52)))
}

/// ln(x) for x in [1, 3], to 1e-13: twice the inverse hyperbolic tangent about the square root of three.
#[inline(always)]
fn ln(x: Lanes) -> Lanes {
    const MIDDLE: f64 = 1.732_050_807_568_877_2;
    let t = each(|l| (x[l] - MIDDLE) / (x[l] + MIDDLE));
    let square = each(|l| t[l] * t[l]);
    let mut sum = [1.0 / 21.0; LANES];
    for odd in [19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        sum = each(|l| sum[l] * square[l] + 1.0 / odd);
    }
    each(|l| 2.0 * t[l] * sum[l] + 0.549_306_144_334_054_8)
}

/// The end values of up to [`LANES`] pairs of costs `[n, m]` and their slopes in each cost.
fn soft_paths<T: Stored>(cost: &[T], n: usize, m: usize, gamma: f64, ends: &mut [f64], slopes: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512dq")]
        fn widest<T: Stored>(cost: &[T], n: usize, m: usize, gamma: f64, ends: &mut [f64], slopes: &mut [T]) {
            soft_lanes(cost, n, m, gamma, ends, slopes);
        }
        #[target_feature(enable = "avx2")]
        fn wide<T: Stored>(cost: &[T], n: usize, m: usize, gamma: f64, ends: &mut [f64], slopes: &mut [T]) {
            soft_lanes(cost, n, m, gamma, ends, slopes);
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
            // SAFETY: the processor has what the function was compiled for.
            return unsafe { widest(cost, n, m, gamma, ends, slopes) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { wide(cost, n, m, gamma, ends, slopes) };
        }
    }
    soft_lanes(cost, n, m, gamma, ends, slopes);
}

#[inline(always)]
fn soft_lanes<T: Stored>(cost: &[T], n: usize, m: usize, gamma: f64, ends: &mut [f64], slopes: &mut [T]) {
    let cells = n * m;
    // Where there are fewer pairs than lanes, the last is computed more than once.
    let lane: [usize; LANES] = std::array::from_fn(|l| l.min(ends.len() - 1) * cells);
    let over = 1.0 / gamma;
    // Two rows of values, a wall before each.
    let mut above = vec![[f64::INFINITY; LANES]; m + 1];
    let mut row = vec![[f64::INFINITY; LANES]; m + 1];
    above[0] = [0.0; LANES];
    // How much of each place comes from both before it, from above and from the left: all that the way back needs, so that it takes no
    // exponential.
    let mut shares = vec![[[0f32; LANES]; 3]; cells];
    for i in 0..n {
        row[0] = [f64::INFINITY; LANES];
        for j in 0..m {
            let (both, up, left) = (above[j], above[j + 1], row[j]);
            // The least of the three is e⁰ of itself: two exponentials are left, of the middle and of the largest.
            let (low, high) = (each(|l| both[l].min(up[l])), each(|l| both[l].max(up[l])));
            let least = each(|l| low[l].min(left[l]));
            let largest = each(|l| high[l].max(left[l]));
            let middle = each(|l| low[l].max(high[l].min(left[l])));
            let second = exp(each(|l| (least[l] - middle[l]) * over));
            let third = exp(each(|l| (least[l] - largest[l]) * over));
            let sum = each(|l| 1.0 + second[l] + third[l]);
            let log = ln(sum);
            let part = each(|l| 1.0 / sum[l]);
            let (second, third) = (each(|l| second[l] * part[l]), each(|l| third[l] * part[l]));
            let share = |from: &Lanes| -> [f32; LANES] {
                std::array::from_fn(|l| {
                    let rest = if from[l] == middle[l] { second[l] } else { third[l] };
                    (if from[l] == least[l] { part[l] } else { rest }) as f32
                })
            };
            shares[i * m + j] = [share(&both), share(&up), share(&left)];
            row[j + 1] = each(|l| cost[lane[l] + i * m + j].wide() + least[l] - gamma * log[l]);
        }
        std::mem::swap(&mut above, &mut row);
    }
    for (l, end) in ends.iter_mut().enumerate() {
        *end = above[m][l];
    }
    // Backwards: how much each place is passed (Cuturi 2017, algorithm 2). What comes from below, and from the right.
    let mut below = vec![[0f64; LANES]; m + 1];
    let mut next = vec![[0f64; LANES]; m + 1];
    below[m - 1] = [1.0; LANES];
    for i in (0..n).rev() {
        next.fill([0.0; LANES]);
        let mut right = [0f64; LANES];
        for j in (0..m).rev() {
            let own = each(|l| below[j][l] + right[l]);
            let [both, up, left] = &shares[i * m + j];
            if j > 0 {
                next[j - 1] = each(|l| next[j - 1][l] + own[l] * f64::from(both[l]));
            }
            next[j] = each(|l| next[j][l] + own[l] * f64::from(up[l]));
            right = each(|l| own[l] * f64::from(left[l]));
            for (l, from) in lane.iter().enumerate().take(ends.len()) {
                slopes[from + i * m + j] = T::narrow(own[l]);
            }
        }
        std::mem::swap(&mut below, &mut next);
    }
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
    use mm_core::{Device, seed::manual_seed};
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
            manual_seed(seed);
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
        manual_seed(2);
        let cost = rand(&[2, 4, 6]).set_requires_grad(true).unwrap();
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
        // Side by side as one by one, whatever the number of pairs.
        let many = rand(&[11, 9, 7]).mul_scalar(40.0).unwrap();
        let all = soft_dtw(&many, 0.2).unwrap().to_vec::<f64>().unwrap();
        for (pair, value) in all.iter().enumerate() {
            let alone = soft_dtw(&many.narrow(0, pair as i64, 1).unwrap(), 0.2).unwrap().to_f64().unwrap();
            assert_eq!(alone, *value);
        }
        let (a, b) = (rand(&[3, 5, 2]), rand(&[3, 7, 2]));
        let none = soft_dtw_divergence(&a, &a, 0.1).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
        let some = soft_dtw_divergence(&a, &b, 0.1).unwrap().min().unwrap().to_f64().unwrap();
        assert!(none < 1e-9 && some > 0.0);
        assert!(soft_dtw(&rand(&[0, 2, 2]), 0.1).is_err() && soft_dtw(&cost, 0.0).is_err());
    }

    #[test]
    fn exponentials_and_logarithms_of_lanes_are_exact() {
        for step in 0..4000 {
            let x = -f64::from(step) * 0.17;
            let (found, wanted) = (exp([x; LANES])[3], x.exp());
            assert!((found - wanted).abs() <= 2e-13 * wanted, "exp({x}): {found}, {wanted}");
            let x = 1.0 + f64::from(step) / 2000.0;
            assert!((ln([x; LANES])[5] - x.ln()).abs() < 1e-12);
        }
        assert_eq!(exp([0.0; LANES])[0], 1.0);
        assert!(exp([f64::NEG_INFINITY; LANES])[0] < 1e-300);
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
