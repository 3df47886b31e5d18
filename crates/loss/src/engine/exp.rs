//! An exponential that compilers vectorize.

use std::f32::consts::LOG2_E;

/// From here on down the result is zero: its power of two would be 2⁻¹²⁷, which is no normal number.
const LEAST: f32 = -88.0;

/// 1.5 · 2²³: what is added to a number below 2²² leaves its nearest integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// An f32 near ln 2 with few bits, and the rest.
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// `(eʳ − 1 − r) / r²` by powers of r, highest first: the minimax polynomial of the relative error of `eʳ` on
/// `|r| ≤ ln 2 / 2`, which is 1.1e-7, by Remez' exchange.
const COEFFICIENTS: [f32; 4] = [0.008_312_501, 0.041_890_33, 0.166_671_16, 0.499_992_3];

/// `eˣ` for `x ≤ 88`, within 3e-7 of the result; zero below −88, NaN for NaN.
///
/// `FMA` says whether the processor multiplies and adds in one instruction; without it that would be a slow call.
///
/// # Source
/// The reduction is that of Cephes' `expf` (Moshier, <https://www.netlib.org/cephes/>).
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    // A comparison in place of `max`, which would turn a NaN into the bound.
    let bounded = if x < LEAST { LEAST } else { x };
    let shifted = mul_add::<FMA>(bounded, LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FMA>(n, -LN2[1], mul_add::<FMA>(n, -LN2[0], bounded));
    let mut p = COEFFICIENTS[0];
    for coefficient in [COEFFICIENTS[1], COEFFICIENTS[2], COEFFICIENTS[3], 1.0, 1.0] {
        p = mul_add::<FMA>(p, r, coefficient);
    }
    let power_of_two = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    p * power_of_two
}

/// `a · b + c`.
#[inline(always)]
pub(super) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[cfg(test)]
mod tests {
    use super::exp;

    fn largest_error(exp: fn(f32) -> f32) -> f64 {
        let mut largest = 0.0_f64;
        for i in -870_000..=880_000 {
            #[allow(clippy::cast_precision_loss, reason = "below 2²⁴")]
            let x = i as f32 / 10_000.0;
            let want = f64::from(x).exp();
            largest = largest.max((f64::from(exp(x)) / want - 1.0).abs());
        }
        largest
    }

    #[test]
    fn agrees_with_the_library_in_double_precision() {
        for (exp, what) in [(exp::<true> as fn(f32) -> f32, "fused"), (exp::<false>, "apart")] {
            let error = largest_error(exp);
            assert!(error < 3e-7, "{what}: {error:e}");
        }
    }

    #[test]
    fn the_ends_are_exact() {
        for exp in [exp::<true>, exp::<false>] {
            assert_eq!(exp(0.0), 1.0);
            assert_eq!(exp(-88.0), 0.0);
            assert_eq!(exp(f32::NEG_INFINITY), 0.0);
            assert_eq!(exp(-1e30), 0.0);
            assert!(exp(f32::NAN).is_nan());
        }
    }
}
