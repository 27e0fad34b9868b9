//! HQQ: zero points of groups that are fitted to the weight without data, with errors that may be large in a few places (Badri
//! and Shaji, 2023, "Half-quadratic quantization of large machine learning models").
//!
//! It minimizes `φ(W − s·(Q − z))` over `z`, where `φ` is the `l_p` norm with `p = 0.7`, by half-quadratic splitting: the errors
//! `E` are shrunk, `E ← sign(E)·max(|E| − |E|^(p−1)/β, 0)`, then `z ← mean(Q − (W − E)/s)`, while `β` grows.
//!
//! The package `hqq` takes any zero point. Here it is 500 at most, so that 16 bits hold it: groups far from zero whose numbers are
//! almost the same get a larger scale.

use multiversion::multiversion;
use rayon::prelude::*;

use crate::error::check_finite;
use crate::grid::nearest;
use crate::rounded::zeros;
use crate::{Granularity, Result, Rounded, Scheme, ranges::min_max};

/// The largest magnitude of a first zero point. From 512 on neighbours in 16 bits are half a step apart.
const MOST_ZERO_POINT: f32 = 500.0;

/// Settings of [`hqq`]; the defaults are those of the package `hqq`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HqqConfig {
    /// The exponent `p` of the norm, at most 1.
    pub p: f32,
    /// The first `β`.
    pub beta: f32,
    /// The factor of `β` after each iteration.
    pub kappa: f32,
    /// The most iterations. They end when the mean error of the matrix does not become less.
    pub iterations: usize,
}

impl Default for HqqConfig {
    fn default() -> Self {
        Self {
            p: 0.7,
            beta: 10.0,
            kappa: 1.01,
            iterations: 20,
        }
    }
}

/// Rounds a weight `[rows, cols]` with fitted zero points, which are not integers.
///
/// # Errors
///
/// [`Error::Weight`](crate::Error::Weight) if a number is not finite.
///
/// # Panics
///
/// If the size does not match, the scheme is symmetric, or its grid is that of a whole tensor.
pub fn hqq(
    weight: &[f32],
    shape: [usize; 2],
    scheme: &Scheme,
    config: &HqqConfig,
) -> Result<Rounded> {
    let [rows, cols] = shape;
    assert_eq!(weight.len(), rows * cols, "numbers of {shape:?}");
    assert!(
        !scheme.symmetric,
        "HQQ fits a zero point, which a symmetric scheme does not have"
    );
    assert!(
        scheme.granularity != Granularity::Tensor,
        "HQQ fits channels or groups"
    );
    check_finite(weight, cols)?;
    let mut rounded = zeros(shape, scheme);
    if weight.is_empty() {
        return Ok(rounded);
    }
    let (width, groups) = (scheme.granularity.width(cols), rounded.groups());
    let top = scheme.levels().highest as f32;
    // All groups, row by row.
    let parts: Vec<&[f32]> = weight
        .chunks_exact(cols)
        .flat_map(|row| row.chunks(width))
        .collect();
    let mut grids: Vec<(f32, f32)> = (parts.iter())
        .map(|part| {
            let (min, max) = min_max(part);
            // The reciprocal of the scale.
            let inverse = (top / (max - min))
                .min(2e4)
                .min(MOST_ZERO_POINT / min.abs());
            (inverse, -min * inverse)
        })
        .collect();
    let (mut beta, mut best) = (config.beta, f64::INFINITY);
    for _ in 0..config.iterations {
        let errors: Vec<f64> = (parts.par_iter().zip(&mut grids))
            .with_min_len(64)
            .map(|(part, grid)| {
                let (error, sum) = fit(part, *grid, top, beta, config.p);
                grid.1 = sum / part.len() as f32;
                f64::from(error)
            })
            .collect();
        // In the order of groups, so that threads change nothing.
        let error = errors.iter().sum();
        beta *= config.kappa;
        if error >= best {
            break;
        }
        best = error;
    }
    for (at, (inverse, zero)) in grids.iter().enumerate() {
        (rounded.scales[at], rounded.zero_points[at]) = (1.0 / inverse, *zero);
    }
    let rows = (rounded.levels.par_chunks_exact_mut(cols)).zip(weight.par_chunks_exact(cols));
    rows.enumerate().for_each(|(row, (levels, weight))| {
        let grids = &grids[row * groups..][..groups];
        for ((levels, weight), grid) in levels
            .chunks_mut(width)
            .zip(weight.chunks(width))
            .zip(grids)
        {
            for (q, w) in levels.iter_mut().zip(weight) {
                *q = level(*w, *grid, top) as u8;
            }
        }
    });
    Ok(rounded)
}

/// The integer of a number, given the reciprocal scale and the zero point.
#[inline(always)]
fn level(w: f32, (inverse, zero): (f32, f32), top: f32) -> f32 {
    nearest(w * inverse + zero).clamp(0.0, top)
}

/// The sums over a group of `|E|` before it is shrunk, and of `Q − (W − E)/s` after it.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn fit(part: &[f32], grid: (f32, f32), top: f32, beta: f32, p: f32) -> (f32, f32) {
    let (inverse, zero) = grid;
    let (scale, less) = (1.0 / inverse, 1.0 / beta);
    let one = |w: f32| {
        let q = level(w, grid, top);
        let e = w - (q - zero) * scale;
        let size = e.abs();
        let shrunk = (size - less * power(size, p - 1.0)).max(0.0).copysign(e);
        (size, q - (w - shrunk) * inverse)
    };
    let (chunks, rest) = part.as_chunks::<16>();
    let (mut errors, mut sums) = ([0.0; 16], [0.0; 16]);
    for chunk in chunks {
        for i in 0..16 {
            let (error, new) = one(chunk[i]);
            errors[i] += error;
            sums[i] += new;
        }
    }
    let (mut error, mut sum) = (errors.iter().sum::<f32>(), sums.iter().sum::<f32>());
    for w in rest {
        let (one_error, new) = one(*w);
        error += one_error;
        sum += new;
    }
    (error, sum)
}

/// `xᶜ` for `x ≥ 0`, with a relative error of about 10⁻⁶: `2^(c·log₂ x)`, by series of the artanh and the exponential. For
/// `x = 0` it is about `2^(−127·c)`.
#[inline(always)]
fn power(x: f32, c: f32) -> f32 {
    // x = 2ᵉ·m with m from 1/√2 to √2
    let bits = x.to_bits();
    let exponent = (bits.wrapping_sub(0x3f35_04f3) & 0xff80_0000).cast_signed();
    let m = f32::from_bits(bits.wrapping_sub(exponent.cast_unsigned()));
    // ln m = 2·artanh((m − 1)/(m + 1))
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let series = 1.0 + s2 * (1.0 / 3.0 + s2 * (0.2 + s2 * (1.0 / 7.0 + s2 / 9.0)));
    let log2 = (exponent >> 23) as f32 + 2.0 * std::f32::consts::LOG2_E * s * series;
    // The nearest integer is in the lowest bits.
    let y = (c * log2).clamp(-126.0, 126.0);
    let shifted = y + 12_582_912.0;
    let t = (y - (shifted - 12_582_912.0)) * std::f32::consts::LN_2;
    let series = 1.0
        + t * (1.0
            + t * (0.5 + t * (1.0 / 6.0 + t * (1.0 / 24.0 + t * (1.0 / 120.0 + t / 720.0)))));
    series * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_far_from_zero_has_a_zero_point_that_16_bits_hold() {
        // Constant, almost constant, and of both signs.
        for (middle, step) in [
            (5.0, 0.0),
            (5.0, 1e-5),
            (-300.0, 1e-3),
            (0.0, 0.0),
            (-0.1, 0.02),
        ] {
            let weight: Vec<f32> = (0..64).map(|i| middle + step * (i % 32) as f32).collect();
            let scheme = Scheme::grouped(4, 64);
            let found = hqq(&weight, [1, 64], &scheme, &HqqConfig::default()).expect("finite");
            assert!(
                found.format().is_some(),
                "{middle} {step}: {:?}",
                found.zero_points
            );
            let error = crate::relative_error(&weight, &found.as_held().dequantize());
            assert!(error < 0.06, "{middle} {step}: {error}");
        }
    }

    #[test]
    fn powers_are_those_of_the_standard_library() {
        for i in 1..4000 {
            let x = (i as f32 * 0.013).exp() * 1e-12;
            for c in [-0.3, -0.5, 0.0, -0.95] {
                let (found, expected) = (power(x, c), x.powf(c));
                assert!(
                    (found / expected - 1.0).abs() < 1e-5,
                    "{x}^{c}: {found} {expected}"
                );
            }
        }
        // Nothing is left of an error of 0.
        assert!(power(0.0, -0.3) > 1e10);
    }
}
