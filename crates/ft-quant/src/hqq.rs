//! HQQ: zero points of groups that are fitted to the weight without data, with errors that may be large in a few places (Badri
//! and Shaji, 2023, "Half-quadratic quantization of large machine learning models").
//!
//! It minimizes `φ(W − s·(Q − z))` over `z`, where `φ` is the `l_p` norm with `p = 0.7`, by half-quadratic splitting: the errors
//! `E` are shrunk, `E ← sign(E)·max(|E| − |E|^(p−1)/β, 0)`, then `z ← mean(Q − (W − E)/s)`, while `β` grows.

use rayon::prelude::*;

use crate::{Granularity, Rounded, Scheme, ranges::min_max};

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
/// # Panics
///
/// If the size does not match, the scheme is symmetric, or its grid is that of a whole tensor.
pub fn hqq(weight: &[f32], shape: [usize; 2], scheme: &Scheme, config: &HqqConfig) -> Rounded {
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
    let mut rounded = Rounded::new(shape, scheme);
    if weight.is_empty() {
        return rounded;
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
            let inverse = (top / (max - min)).min(2e4);
            (inverse, -min * inverse)
        })
        .collect();
    let level = |w: f32, (inverse, zero): (f32, f32)| {
        (w * inverse + zero).round_ties_even().clamp(0.0, top)
    };
    let (mut beta, mut best) = (config.beta, f64::INFINITY);
    for _ in 0..config.iterations {
        let error: f64 = (parts.par_iter().zip(&mut grids))
            .map(|(part, grid)| {
                let (inverse, zero) = *grid;
                let (mut error, mut sum) = (0.0f64, 0.0f64);
                for &w in *part {
                    let q = level(w, *grid);
                    let e = w - (q - zero) / inverse;
                    error += f64::from(e.abs());
                    sum += f64::from(q - (w - shrunk(e, beta, config.p)) * inverse);
                }
                grid.1 = (sum / part.len() as f64) as f32;
                error
            })
            .collect::<Vec<f64>>()
            .iter()
            .sum();
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
                *q = level(*w, *grid) as u8;
            }
        }
    });
    rounded
}

/// `sign(e)·max(|e| − |e|^(p−1)/β, 0)`
fn shrunk(e: f32, beta: f32, p: f32) -> f32 {
    let size = e.abs();
    let less = if p == 1.0 { 1.0 } else { size.powf(p - 1.0) } / beta;
    (size - less).max(0.0).copysign(e)
}
