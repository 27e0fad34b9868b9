//! Elementary functions that the compiler vectorizes.

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

/// The normal distribution function `Φ(x)` and its density `φ(x)`, with one exponential for both.
///
/// `Φ(−|x|) = e^(−x²/2)·t·R(t)` with `t = 1 / (1 + 0.35·|x|)` and a polynomial `R` of degree 8, the form
/// of Abramowitz and Stegun, 7.1.26. Its coefficients were fitted here for the smallest relative error
/// (below 1e-7) over `|x| ≤ 14`, where `f32` ends, so that the left tail keeps its digits, which
/// `(1 + erf(x/√2)) / 2` in `f32` loses.
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    const ROOT: f32 = 0.398_942_3; // 1/√(2π)
    let e = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.35 * x.abs());
    let r = -0.029_145_77;
    let r = r * t + 0.143_971_12;
    let r = r * t - 0.255_713_17;
    let r = r * t + 0.159_173_05;
    let r = r * t - 0.023_109_154;
    let r = r * t + 0.105_507_75;
    let r = r * t + 0.119_832_92;
    let r = r * t + 0.139_861_86;
    let r = r * t + 0.139_621_4;
    let tail = e * t * r;
    (if x > 0.0 { 1.0 - tail } else { tail }, ROOT * e)
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

/// The largest number; −∞ if there is none.
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

    /// `Φ` in f64: a series of positive terms in the middle, the continued fraction of Mills' ratio in
    /// the tail (Abramowitz and Stegun, 26.2.11 and 26.2.14).
    fn normal_in_f64(x: f64) -> f64 {
        let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        if x.abs() < 2.5 {
            let (mut term, mut sum) = (x, 0.0);
            for k in 1..100 {
                sum += term;
                term *= x * x / (2 * k + 1) as f64;
            }
            return 0.5 + density * sum;
        }
        let tail = density / (1..300).rev().fold(x.abs(), |f, k| x.abs() + k as f64 / f);
        if x > 0.0 { 1.0 - tail } else { tail }
    }

    #[test]
    fn the_normal_distribution_and_its_density() {
        // Two numbers of tables: Φ(1.96) and Φ(−6)
        assert!((normal_in_f64(1.96) - 0.975_002_104_851_779_5).abs() < 1e-15);
        assert!((normal_in_f64(-6.0) / 9.865_876_450_376_946e-10 - 1.0).abs() < 1e-13);
        for i in -1_300_000..=1_300_000 {
            let x = i as f32 * 1e-5;
            let (distribution, density) = normal(x);
            let exact = f64::from(x);
            // The argument of e^(−x²/2) is rounded to f32, which grows towards the end of the tail.
            let allowed = if x.abs() <= 5.0 { 1e-6 } else { 6e-6 };
            let expected = normal_in_f64(exact);
            let error = (f64::from(distribution) - expected).abs() / expected;
            assert!(error < allowed, "Φ({x}) is off by {error:e}");
            let expected = (-0.5 * exact * exact).exp() * 0.398_942_280_401_432_7;
            let error = (f64::from(density) - expected).abs() / expected;
            assert!(error < allowed, "φ({x}) is off by {error:e}");
        }
        assert_eq!(normal(0.0).0, 0.5);
        assert_eq!(normal(-100.0), (0.0, 0.0));
        assert_eq!(normal(1e30), (1.0, 0.0));
        assert!(normal(f32::NAN).0.is_nan());
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
