//! Vectorizable arithmetic: one float64 value for each of several pairs, side by side in the processor's wide
//! registers.

#![allow(clippy::inline_always)]

/// Number of pairs computed side by side.
pub(super) const LANES: usize = 8;

/// One value per pair.
pub(super) type Lanes = [f64; LANES];

#[inline(always)]
pub(super) fn each(body: impl Fn(usize) -> f64) -> Lanes {
    std::array::from_fn(body)
}

/// exp(x) for x ≤ 0, relative error 1e-14; zero below −700.
#[inline(always)]
pub(super) fn exp(x: Lanes) -> Lanes {
    // Adding 1.5 · 2⁵² rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let x = each(|l| x[l].max(-700.0));
    let shifted = each(|l| x[l] * std::f64::consts::LOG2_E + ROUND);
    let integer = each(|l| shifted[l] - ROUND);
    let rest = each(|l| x[l] - integer[l] * std::f64::consts::LN_2);
    let mut sum = [1.0 / 39_916_800.0; LANES];
    for factor in [3_628_800.0, 362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        sum = each(|l| sum[l] * rest[l] + 1.0 / factor);
    }
    each(|l| sum[l] * f64::from_bits((shifted[l].to_bits() << 52).wrapping_add(1023 << 52)))
}

/// ln(x) for x in [1, 3], absolute error 1e-13: twice the inverse hyperbolic tangent about √3.
#[inline(always)]
pub(super) fn ln(x: Lanes) -> Lanes {
    const SQRT_3: f64 = 1.732_050_807_568_877_2;
    const LN_SQRT_3: f64 = 0.549_306_144_334_054_8;
    let t = each(|l| (x[l] - SQRT_3) / (x[l] + SQRT_3));
    let square = each(|l| t[l] * t[l]);
    let mut sum = [1.0 / 21.0; LANES];
    for odd in [19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        sum = each(|l| sum[l] * square[l] + 1.0 / odd);
    }
    each(|l| 2.0 * t[l] * sum[l] + LN_SQRT_3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_ln_match_the_standard_library() {
        for step in 0..4000 {
            let x = -f64::from(step) * 0.17;
            let (found, expected) = (exp([x; LANES])[3], x.exp());
            assert!((found - expected).abs() <= 2e-13 * expected, "exp({x}): {found}, {expected}");
            let x = 1.0 + f64::from(step) / 2000.0;
            assert!((ln([x; LANES])[5] - x.ln()).abs() < 1e-12);
        }
        assert_eq!(exp([0.0; LANES])[0], 1.0);
        assert!(exp([f64::NEG_INFINITY; LANES])[0] < 1e-300);
    }
}
