//! Searches of scales with a small weighted error: those of ggml's encoders, with the same arithmetic in the same order, so
//! that bytes are equal.
//!
//! With levels `q` of numbers `x` and weights `w`, the best scale is `Σ w·q·x / Σ w·q²`, whose error is less by
//! `(Σ w·q·x)² / Σ w·q²` than that of the scale 0. Levels depend on a scale in turn, so several are tried.
//!
//! `L` groups of `N` numbers are searched at the same time, one in each lane of a vector: sums in the order of a group's numbers
//! leave nothing else to do in parallel.

use multiversion::multiversion;

use super::bits::nearest;

/// Numbers below this are zero.
const TINY: f32 = 1e-15;

/// Numbers of `L` groups: entry `i` of all groups lies together.
pub(super) type Lanes<T, const L: usize, const N: usize> = [[T; L]; N];

/// Groups that follow each other, side by side.
pub(super) fn side_by_side<const L: usize, const N: usize>(groups: &[f32]) -> Lanes<f32, L, N> {
    std::array::from_fn(|i| std::array::from_fn(|lane| groups[lane * N + i]))
}

/// The reverse.
pub(super) fn one_by_one<const L: usize, const N: usize>(q: &Lanes<u8, L, N>, groups: &mut [u8]) {
    for (lane, group) in groups.chunks_exact_mut(N).enumerate() {
        for (to, q) in group.iter_mut().zip(q) {
            *to = q[lane];
        }
    }
}

/// For each group the number of the largest magnitude, the first if there are several.
#[inline(always)]
fn largest<const L: usize, const N: usize>(x: &Lanes<f32, L, N>) -> [f32; L] {
    let mut most = [0.0f32; L];
    for x in x {
        for lane in 0..L {
            most[lane] = if most[lane].abs() < x[lane].abs() {
                x[lane]
            } else {
                most[lane]
            };
        }
    }
    most
}

/// Scales `d` for `x ≈ d·(q − n)` with `q` in `0..2n`, and the levels.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn symmetric<const L: usize, const N: usize>(
    x: &Lanes<f32, L, N>,
    n: i32,
    weights: &Lanes<f32, L, N>,
) -> ([f32; L], Lanes<u8, L, N>) {
    let max = largest(x);
    let mut chosen = max.map(|max| -n as f32 / max);
    let (qx, q2) = sums(x, n, weights, &chosen);
    let (mut scale, mut best) = ([0.0; L], [0.0; L]);
    for lane in 0..L {
        scale[lane] = if q2[lane] == 0.0 {
            0.0
        } else {
            qx[lane] / q2[lane]
        };
        best[lane] = scale[lane] * qx[lane];
    }
    for step in (-9..=9).filter(|step| *step != 0) {
        let inverse = max.map(|max| -(n as f32 + 0.1 * step as f32) / max);
        let (qx, q2) = sums(x, n, weights, &inverse);
        for lane in 0..L {
            let better = q2[lane] > 0.0 && qx[lane] * qx[lane] > best[lane] * q2[lane];
            let this = qx[lane] / q2[lane];
            chosen[lane] = if better { inverse[lane] } else { chosen[lane] };
            scale[lane] = if better { this } else { scale[lane] };
            best[lane] = if better { this * qx[lane] } else { best[lane] };
        }
    }
    let mut q = [[0; L]; N];
    for (q, x) in q.iter_mut().zip(x) {
        for lane in 0..L {
            q[lane] = (nearest(chosen[lane] * x[lane]).clamp(-n, n - 1) + n) as u8;
        }
    }
    zero_tiny(&max, &mut scale, &mut q);
    (scale, q)
}

/// `Σ w·q·x` and `Σ w·q²` of the levels that reciprocal scales give.
#[inline(always)]
fn sums<const L: usize, const N: usize>(
    x: &Lanes<f32, L, N>,
    n: i32,
    weights: &Lanes<f32, L, N>,
    inverse: &[f32; L],
) -> ([f32; L], [f32; L]) {
    let (mut qx, mut q2) = ([0.0; L], [0.0; L]);
    for (x, w) in x.iter().zip(weights) {
        for lane in 0..L {
            let l = nearest(inverse[lane] * x[lane]).clamp(-n, n - 1) as f32;
            qx[lane] += w[lane] * x[lane] * l;
            q2[lane] += w[lane] * l * l;
        }
    }
    (qx, q2)
}

/// Groups of zeros have the scale 0 and the levels 0.
#[inline(always)]
fn zero_tiny<const L: usize, const N: usize>(
    max: &[f32; L],
    scale: &mut [f32; L],
    q: &mut Lanes<u8, L, N>,
) {
    for lane in 0..L {
        if max[lane].abs() < TINY {
            scale[lane] = 0.0;
            q.iter_mut().for_each(|q| q[lane] = 0);
        }
    }
}

/// The same from one scale, by changing one level at a time as long as the error becomes less. Weights are squares of `x`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn symmetric_by_level<const L: usize, const N: usize>(
    x: &Lanes<f32, L, N>,
    n: i32,
) -> ([f32; L], Lanes<u8, L, N>) {
    let max = largest(x);
    let inverse = max.map(|max| -n as f32 / max);
    let mut levels = [[0; L]; N];
    let (mut qx, mut q2) = ([0.0f32; L], [0.0f32; L]);
    for (level, x) in levels.iter_mut().zip(x) {
        for lane in 0..L {
            level[lane] = nearest(inverse[lane] * x[lane]).clamp(-n, n - 1);
            let (w, l) = (x[lane] * x[lane], level[lane] as f32);
            qx[lane] += w * x[lane] * l;
            q2[lane] += w * l * l;
        }
    }
    for _ in 0..5 {
        let mut changes = 0;
        for (level, x) in levels.iter_mut().zip(x) {
            for lane in 0..L {
                let (w, l) = (x[lane] * x[lane], level[lane] as f32);
                let rest_qx = qx[lane] - w * x[lane] * l;
                let rest_q2 = q2[lane] - w * l * l;
                let new = nearest(x[lane] * rest_q2 / rest_qx).clamp(-n, n - 1);
                let l = new as f32;
                let new_qx = rest_qx + w * x[lane] * l;
                let new_q2 = rest_q2 + w * l * l;
                let better = rest_qx > 0.0
                    && new != level[lane]
                    && new_q2 > 0.0
                    && new_qx * new_qx * q2[lane] > qx[lane] * qx[lane] * new_q2;
                level[lane] = if better { new } else { level[lane] };
                qx[lane] = if better { new_qx } else { qx[lane] };
                q2[lane] = if better { new_q2 } else { q2[lane] };
                changes += i32::from(better);
            }
        }
        if changes == 0 {
            break;
        }
    }
    let mut q = levels.map(|levels| levels.map(|level| (level + n) as u8));
    let mut scale = [0.0; L];
    for lane in 0..L {
        scale[lane] = if q2[lane] > 0.0 {
            qx[lane] / q2[lane]
        } else {
            0.0
        };
    }
    zero_tiny(&max, &mut scale, &mut q);
    (scale, q)
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

/// What [`with_minimum`] finds.
pub(super) struct Fit<const L: usize, const N: usize> {
    /// `d`
    pub(super) scales: [f32; L],
    /// `m`, not negative.
    pub(super) minima: [f32; L],
    pub(super) q: Lanes<u8, L, N>,
}

/// Scales `d` and minima `−m ≤ 0` for `x ≈ d·q − m` with `q` in `0..=n`.
///
/// For given levels both follow from two linear equations.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn with_minimum<const L: usize, const N: usize>(
    x: &Lanes<f32, L, N>,
    n: i32,
    weights: &Lanes<f32, L, N>,
    steps: &Steps,
) -> Fit<L, N> {
    let (mut min, mut max) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x = [0.0; L];
    for lane in 0..L {
        sum_x[lane] = sum_w[lane] * x[0][lane];
    }
    for (x, w) in x.iter().zip(weights).skip(1) {
        for lane in 0..L {
            min[lane] = if x[lane] < min[lane] {
                x[lane]
            } else {
                min[lane]
            };
            max[lane] = if x[lane] > max[lane] {
                x[lane]
            } else {
                max[lane]
            };
            sum_w[lane] += w[lane];
            sum_x[lane] += w[lane] * x[lane];
        }
    }
    let min = min.map(|min| if min > 0.0 { 0.0 } else { min });
    let mut fit = Fit {
        scales: [0.0; L],
        minima: min,
        q: [[0; L]; N],
    };
    let mut inverse = [0.0; L];
    for lane in 0..L {
        inverse[lane] = n as f32 / (max[lane] - min[lane]);
        fit.scales[lane] = 1.0 / inverse[lane];
    }
    for (q, x) in fit.q.iter_mut().zip(x) {
        for lane in 0..L {
            q[lane] = nearest(inverse[lane] * (x[lane] - min[lane])).clamp(0, n) as u8;
        }
    }
    let mut best = error(x, weights, &fit.scales, &min, &fit.q, steps.magnitudes);
    for step in 0..=steps.last {
        // The minimum is the best one so far.
        let low = fit.minima;
        for lane in 0..L {
            let levels = steps.first + steps.step * step as f32 + n as f32;
            inverse[lane] = levels / (max[lane] - low[lane]);
        }
        let mut q = [[0; L]; N];
        let (mut sum_l, mut sum_l2, mut sum_xl) = ([0.0; L], [0.0; L], [0.0; L]);
        for ((q, x), w) in q.iter_mut().zip(x).zip(weights) {
            for lane in 0..L {
                let level = nearest(inverse[lane] * (x[lane] - low[lane])).clamp(0, n);
                q[lane] = level as u8;
                let (w, l) = (w[lane], level as f32);
                sum_l[lane] += w * l;
                sum_l2[lane] += w * l * l;
                sum_xl[lane] += w * l * x[lane];
            }
        }
        let (mut scale, mut minimum) = ([0.0; L], [0.0; L]);
        let mut solved = [false; L];
        for lane in 0..L {
            let determinant = sum_w[lane] * sum_l2[lane] - sum_l[lane] * sum_l[lane];
            solved[lane] = determinant > 0.0;
            let this_scale = (sum_w[lane] * sum_xl[lane] - sum_x[lane] * sum_l[lane]) / determinant;
            let this_min = (sum_l2[lane] * sum_x[lane] - sum_l[lane] * sum_xl[lane]) / determinant;
            let above = this_min > 0.0;
            minimum[lane] = if above { 0.0 } else { this_min };
            scale[lane] = if above {
                sum_xl[lane] / sum_l2[lane]
            } else {
                this_scale
            };
        }
        let this = error(x, weights, &scale, &minimum, &q, steps.magnitudes);
        let mut better = [false; L];
        for lane in 0..L {
            better[lane] = solved[lane] && this[lane] < best[lane];
            best[lane] = if better[lane] { this[lane] } else { best[lane] };
            fit.scales[lane] = if better[lane] {
                scale[lane]
            } else {
                fit.scales[lane]
            };
            fit.minima[lane] = if better[lane] {
                minimum[lane]
            } else {
                fit.minima[lane]
            };
        }
        if better.contains(&true) {
            for (to, q) in fit.q.iter_mut().zip(&q) {
                for lane in 0..L {
                    to[lane] = if better[lane] { q[lane] } else { to[lane] };
                }
            }
        }
    }
    for lane in 0..L {
        // All numbers are the same, and not positive.
        if max[lane] <= min[lane] {
            (fit.scales[lane], fit.minima[lane]) = (0.0, min[lane]);
            fit.q.iter_mut().for_each(|q| q[lane] = 0);
        }
    }
    fit.minima = fit.minima.map(|min| -min);
    fit
}

/// The weighted error of levels.
#[inline(always)]
fn error<const L: usize, const N: usize>(
    x: &Lanes<f32, L, N>,
    weights: &Lanes<f32, L, N>,
    scale: &[f32; L],
    min: &[f32; L],
    q: &Lanes<u8, L, N>,
    magnitudes: bool,
) -> [f32; L] {
    let mut error = [0.0; L];
    for ((x, w), q) in x.iter().zip(weights).zip(q) {
        for lane in 0..L {
            let difference = scale[lane] * f32::from(q[lane]) + min[lane] - x[lane];
            let size = if magnitudes {
                difference.abs()
            } else {
                difference * difference
            };
            error[lane] += w[lane] * size;
        }
    }
    error
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
