//! Elementary functions that the compiler turns into vector instructions.

/// `eˣ` within 2 units in the last place; 0 below −87.3, where `f32` ends.
///
/// Cody and Waite's reduction to `|t| ≤ ln2/2`, then the Taylor polynomial of degree 7 (error 4e-9).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5·2²³: adding it leaves the nearest integer in the low bits
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.7);
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let t = clamped - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.0 / 5040.0;
    let p = p * t + 1.0 / 720.0;
    let p = p * t + 1.0 / 120.0;
    let p = p * t + 1.0 / 24.0;
    let p = p * t + 1.0 / 6.0;
    let p = p * t + 0.5;
    let p = p * t + 1.0;
    let p = p * t + 1.0;
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.3 { 0.0 } else { p * power }
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `tanh x = 2σ(2x) − 1`.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    2.0 * sigmoid(2.0 * x) - 1.0
}

/// `Σ f(aᵢ, bᵢ)` in sixteen partial sums.
#[inline(always)]
pub(super) fn sum_of_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let (a_chunks, a_rest) = a.as_chunks::<16>();
    let (b_chunks, b_rest) = b.as_chunks::<16>();
    let mut sums = [0.0f32; 16];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for i in 0..16 {
            sums[i] += f(a[i], b[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| f(*a, *b)).sum();
    total(sums) + rest
}

/// The largest number; −∞ of none.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<16>();
    let mut most = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for i in 0..16 {
            most[i] = if chunk[i] > most[i] {
                chunk[i]
            } else {
                most[i]
            };
        }
    }
    let most = most.into_iter().fold(f32::NEG_INFINITY, f32::max);
    rest.iter().copied().fold(most, f32::max)
}

/// `xᵢ ← e^(xᵢ − shift)`; returns their sum.
#[inline(always)]
pub(super) fn exp_shifted(x: &mut [f32], shift: f32) -> f32 {
    let (chunks, rest) = x.as_chunks_mut::<16>();
    let mut sums = [0.0f32; 16];
    for chunk in chunks {
        for i in 0..16 {
            chunk[i] = exp(chunk[i] - shift);
            sums[i] += chunk[i];
        }
    }
    let mut sum = total(sums);
    for x in rest {
        *x = exp(*x - shift);
        sum += *x;
    }
    sum
}

/// The sum of sixteen partial sums.
#[inline(always)]
pub(super) fn total(sums: [f32; 16]) -> f32 {
    let mut width = 8;
    let mut sums = sums;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_the_last_places() {
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.5e-7, "exp({x}) is off by {error:e}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_of_odd_lengths() {
        for n in [0, 1, 15, 16, 17, 33, 100] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 7) % 13) as f32 - 4.0).collect();
            let expected: f32 = x.iter().map(|v| v * v).sum();
            assert_eq!(sum_of_pairs(&x, &x, |a, b| a * b), expected);
            let expected = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max(&x), expected);
        }
    }
}
