//! Searches of scales with a small weighted error: those of ggml's encoders, with the same arithmetic in the same order, so
//! that bytes are equal.
//!
//! With levels `q` of numbers `x` and weights `w`, the best scale is `Σ w·q·x / Σ w·q²`, whose error is less by
//! `(Σ w·q·x)² / Σ w·q²` than that of the scale 0. Levels depend on a scale in turn, so several are tried.

use super::bits::{largest, nearest};

/// Numbers below this are zero.
const TINY: f32 = 1e-15;

/// A scale `d` for `x ≈ d·(q − n)` with `q` in `0..2n`.
pub(super) fn symmetric(x: &[f32], n: i32, weights: &[f32], q: &mut [u8]) -> f32 {
    let max = largest(x);
    if max.abs() < TINY {
        q.fill(0);
        return 0.0;
    }
    let level = |inverse: f32, x: f32| nearest(inverse * x).clamp(-n, n - 1);
    let sums = |inverse: f32| {
        let (mut qx, mut q2) = (0.0, 0.0);
        for (&x, &w) in x.iter().zip(weights) {
            let l = level(inverse, x) as f32;
            qx += w * x * l;
            q2 += w * l * l;
        }
        (qx, q2)
    };
    let mut chosen = -n as f32 / max;
    let (qx, q2) = sums(chosen);
    let mut scale = if q2 == 0.0 { 0.0 } else { qx / q2 };
    let mut best = scale * qx;
    for step in (-9..=9).filter(|step| *step != 0) {
        let inverse = -(n as f32 + 0.1 * step as f32) / max;
        let (qx, q2) = sums(inverse);
        if q2 > 0.0 && qx * qx > best * q2 {
            chosen = inverse;
            scale = qx / q2;
            best = scale * qx;
        }
    }
    for (q, &x) in q.iter_mut().zip(x) {
        *q = (level(chosen, x) + n) as u8;
    }
    scale
}

/// The same from one scale, by changing one level at a time as long as the error becomes less. Weights are squares of `x`.
pub(super) fn symmetric_by_level(x: &[f32], n: i32, q: &mut [u8]) -> f32 {
    let max = largest(x);
    if max.abs() < TINY {
        q.fill(0);
        return 0.0;
    }
    let inverse = -n as f32 / max;
    let mut levels = [0; 16];
    let levels = &mut levels[..x.len()];
    let (mut qx, mut q2) = (0.0, 0.0);
    for (level, &x) in levels.iter_mut().zip(x) {
        *level = nearest(inverse * x).clamp(-n, n - 1);
        let (w, l) = (x * x, *level as f32);
        qx += w * x * l;
        q2 += w * l * l;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (level, &x) in levels.iter_mut().zip(x) {
            let (w, l) = (x * x, *level as f32);
            let mut new_qx = qx - w * x * l;
            if new_qx <= 0.0 {
                continue;
            }
            let mut new_q2 = q2 - w * l * l;
            let new = nearest(x * new_q2 / new_qx).clamp(-n, n - 1);
            if new == *level {
                continue;
            }
            let l = new as f32;
            new_qx += w * x * l;
            new_q2 += w * l * l;
            if new_q2 > 0.0 && new_qx * new_qx * q2 > qx * qx * new_q2 {
                *level = new;
                (qx, q2) = (new_qx, new_q2);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    for (q, level) in q.iter_mut().zip(levels) {
        *q = (*level + n) as u8;
    }
    if q2 > 0.0 { qx / q2 } else { 0.0 }
}

/// The reciprocal scales that [`with_minimum`] tries: `(first + i·step + n) / (max − min)`.
pub(super) struct Steps {
    pub(super) first: f32,
    pub(super) step: f32,
    pub(super) last: i32,
    /// The error is a sum of magnitudes, not of squares.
    pub(super) magnitudes: bool,
}

/// Those of the encoders that know the importance of columns.
pub(super) const STEPS: Steps = Steps {
    first: -0.9,
    step: 0.05,
    last: 36,
    magnitudes: false,
};

/// A scale `d` and a minimum `−m ≤ 0` for `x ≈ d·q − m` with `q` in `0..=n`. Returns `(d, m)`.
///
/// For given levels both follow from two linear equations.
pub(super) fn with_minimum(
    x: &[f32],
    n: i32,
    weights: &[f32],
    steps: &Steps,
    q: &mut [u8],
) -> (f32, f32) {
    let (mut min, mut max) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = (weights[0], weights[0] * x[0]);
    for (&x, &w) in x.iter().zip(weights).skip(1) {
        if x < min {
            min = x;
        }
        if x > max {
            max = x;
        }
        sum_w += w;
        sum_x += w * x;
    }
    if min > 0.0 {
        min = 0.0;
    }
    if max <= min {
        q.fill(0);
        return (0.0, -min);
    }
    let error = |scale: f32, min: f32, q: &[u8]| {
        let mut error = 0.0;
        for ((&x, &w), &q) in x.iter().zip(weights).zip(q) {
            let diff = scale * f32::from(q) + min - x;
            error += w * if steps.magnitudes {
                diff.abs()
            } else {
                diff * diff
            };
        }
        error
    };
    let inverse = n as f32 / (max - min);
    let mut scale = 1.0 / inverse;
    for (q, &x) in q.iter_mut().zip(x) {
        *q = nearest(inverse * (x - min)).clamp(0, n) as u8;
    }
    let mut best = error(scale, min, q);
    let mut levels = [0; 32];
    let levels = &mut levels[..x.len()];
    for step in 0..=steps.last {
        // The minimum is the best one so far.
        let inverse = (steps.first + steps.step * step as f32 + n as f32) / (max - min);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
        for ((level, &x), &w) in levels.iter_mut().zip(x).zip(weights) {
            *level = nearest(inverse * (x - min)).clamp(0, n) as u8;
            let l = f32::from(*level);
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * x;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant > 0.0 {
            let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut this_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if this_min > 0.0 {
                this_min = 0.0;
                this_scale = sum_xl / sum_l2;
            }
            let this = error(this_scale, this_min, levels);
            if this < best {
                q.copy_from_slice(levels);
                (best, scale, min) = (this, this_scale, this_min);
            }
        }
    }
    (scale, -min)
}

/// A scale `d` for numbers `x ≈ d·q` that are not negative, with `q` in `0..=n`: scales or minima of a block.
pub(super) fn positive(x: &[f32], n: i32, weights: &[f32], q: &mut [u8]) -> f32 {
    let max = x
        .iter()
        .fold(0.0, |max: f32, &x| if max > x { max } else { x });
    if max < TINY {
        q.fill(0);
        return 0.0;
    }
    let error = |inverse: f32| {
        let scale = 1.0 / inverse;
        let mut error = 0.0;
        for (&x, &w) in x.iter().zip(weights) {
            let diff = x - scale * nearest(inverse * x).min(n) as f32;
            error += w * diff * diff;
        }
        error
    };
    let mut inverse = n as f32 / max;
    let mut best = error(inverse);
    for step in (-4..=4).filter(|step| *step != 0) {
        let this_inverse = (0.1 * step as f32 + n as f32) / max;
        let this = error(this_inverse);
        if this < best {
            (best, inverse) = (this, this_inverse);
        }
    }
    let (mut qx, mut q2) = (0.0, 0.0);
    for ((q, &x), &w) in q.iter_mut().zip(x).zip(weights) {
        let level = nearest(inverse * x).min(n);
        *q = level as u8;
        let l = level as f32;
        qx += w * x * l;
        q2 += w * l * l;
    }
    for _ in 0..5 {
        let mut changed = false;
        for ((q, &x), &w) in q.iter_mut().zip(x).zip(weights) {
            let l = f32::from(*q);
            let mut new_qx = qx - w * x * l;
            let mut new_q2 = q2 - w * l * l;
            if new_qx > 0.0 && new_q2 > 0.0 {
                let new = nearest(x * new_q2 / new_qx).min(n);
                if new != i32::from(*q) {
                    let l = new as f32;
                    new_qx += w * x * l;
                    new_q2 += w * l * l;
                    if new_qx * new_qx * q2 > qx * qx * new_q2 {
                        *q = new as u8;
                        (qx, q2) = (new_qx, new_q2);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    if q2 > 0.0 { qx / q2 } else { 0.0 }
}
