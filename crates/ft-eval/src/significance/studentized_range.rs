//! The studentized range: the largest difference among `k` means, over their standard error.
//!
//! With `φ` and `Q` the density and upper tail of the normal distribution, the range of `k` normal numbers
//! exceeds `w` with the probability
//!
//! ```text
//! S(w) = k ∫ φ(z) {Q(z)^(k-1) - [Q(z) - Q(z + w)]^(k-1)} dz
//! ```
//!
//! (`z` is the smallest of them), and the studentized range exceeds `q` with the probability
//! `∫ f(s) S(q s) ds`, where `f` is the density of `√(χ²_ν / ν)` (Lund & Lund, Algorithm AS 190, 1983, compute the
//! complement). Both integrands are positive, so small p-values have a small relative error, where
//! 1 - cdf would have an absolute error of 1e-11. Both integrals are sums over an even grid, in `z` and in `ln s`. For
//! smooth functions that vanish at both ends this rule converges faster than any power of its step
//! (Trefethen & Weideman, "The exponentially convergent trapezoidal rule", 2014).

use std::f64::consts::{LN_2, PI, SQRT_2};

use super::normal::density;
use super::{normal_quantile, student_t_critical};

/// From this number the degrees of freedom are infinite, as in SciPy. This changes p by less than 1e-5.
const INFINITE_DEGREES: f64 = 100_000.0;
/// Step in `z`.
const STEP: f64 = 1.0 / 16.0;
/// Beyond, `S(w)` is 0 in double precision.
const WIDEST: f64 = 56.0;

/// The probability that the range of `groups` means exceeds `q` standard errors, as
/// `scipy.stats.studentized_range.sf`.
///
/// The difference from SciPy is at most 1e-10. The absolute error of SciPy's quadrature is 1e-11, so smaller p-values are
/// noise there; here the relative error is about 1e-11. As in SciPy, 100,000 degrees of freedom count as infinite. NaN if
/// `q` is NaN, with fewer than two groups, or with less than one degree of freedom.
///
/// ```
/// # use ft_eval::significance::studentized_range_sf;
/// // The table's 5% point of three groups and ten degrees of freedom is 3.877.
/// assert!((studentized_range_sf(3.877, 3, 10.0) - 0.05).abs() < 1e-4);
/// ```
pub fn studentized_range_sf(q: f64, groups: usize, degrees: f64) -> f64 {
    if q.is_nan() || groups < 2 || degrees.is_nan() || degrees < 1.0 {
        return f64::NAN;
    }
    if q <= 0.0 {
        return 1.0;
    }
    if q == f64::INFINITY {
        return 0.0;
    }
    let range = Range::new(groups);
    if degrees >= INFINITE_DEGREES {
        return range.exceeds(q).min(1.0);
    }
    let log_constant = log_constant(degrees);
    let term = |u: f64| {
        let log_density = log_constant + degrees * (u - (2.0 * u).exp_m1() / 2.0);
        log_density.exp() * range.exceeds(q * u.exp())
    };
    // The maximum of f(s) exp(-(qs)²/4); its width is about 1/√(2ν).
    let middle = -0.5 * (q * q / (2.0 * degrees)).ln_1p();
    let step = (1.0 / 24.0_f64).min(1.0 / (1.5 * (2.0 * degrees).sqrt()));
    let mut sum = term(middle);
    for direction in [step, -step] {
        for i in 1.. {
            let term = term(middle + f64::from(i) * direction);
            sum += term;
            if term <= 1e-18 * sum {
                break;
            }
        }
    }
    (sum * step).min(1.0)
}

/// The `q` that the range exceeds with the probability `p`, as `scipy.stats.studentized_range.isf`. NaN unless
/// `0 < p < 1`, with at least two groups and one degree of freedom.
pub fn studentized_range_critical(p: f64, groups: usize, degrees: f64) -> f64 {
    if !(p > 0.0 && p < 1.0 && groups >= 2 && degrees >= 1.0) {
        return f64::NAN;
    }
    let two_groups = |p: f64| {
        SQRT_2
            * if degrees >= INFINITE_DEGREES {
                normal_quantile(p)
            } else {
                student_t_critical(p, degrees)
            }
    };
    // The lower bound is one pair of groups, the upper bound all pairs as if they were exclusive.
    let pairs = groups as f64 * (groups - 1) as f64 / 2.0;
    let error = |x: f64| studentized_range_sf(x.exp(), groups, degrees).ln() - p.ln();
    let (mut low, mut high) = (two_groups(p).ln(), two_groups(p / pairs).ln());
    if groups == 2 {
        return low.exp();
    }
    let (mut at_low, mut at_high) = (error(low), error(high));
    // False position (the Illinois variant) on logarithms, where the tail is nearly linear.
    let mut side = 0;
    for _ in 0..100 {
        let x = (low * at_high - high * at_low) / (at_high - at_low);
        let at_x = error(x);
        if at_x.abs() < 1e-14 || (high - low).abs() < 1e-14 || !x.is_finite() {
            return x.exp();
        }
        if at_x > 0.0 {
            (low, at_low) = (x, at_x);
            if side > 0 {
                at_high /= 2.0;
            }
            side = 1;
        } else {
            (high, at_high) = (x, at_x);
            if side < 0 {
                at_low /= 2.0;
            }
            side = -1;
        }
    }
    (0.5 * (low + high)).exp()
}

/// `ln` of the density's constant in `u = ln s`, so that the density is its exponential times
/// `exp(ν (u - (e^2u - 1) / 2))`: `ln 2 + a ln a - a - ln Γ(a)`, `a = ν/2`, by Stirling's series where the
/// terms would cancel.
fn log_constant(degrees: f64) -> f64 {
    let a = degrees / 2.0;
    if a < 16.0 {
        return LN_2 + a * a.ln() - a - libm::lgamma(a);
    }
    let i = 1.0 / (a * a);
    let series = (1.0 / 12.0 - i * (1.0 / 360.0 - i * (1.0 / 1260.0 - i / 1680.0))) / a;
    LN_2 + 0.5 * (a / (2.0 * PI)).ln() - series
}

/// The range of `k` normal numbers. The terms that do not depend on `w` are computed once.
struct Range {
    others: f64,
    /// `z`, `h k φ(z) Q(z)^(k-1)`, `Q(z)`.
    grid: Vec<(f64, f64, f64)>,
}

impl Range {
    fn new(groups: usize) -> Self {
        let others = (groups - 1) as f64;
        let grid = (-38 * 16..=9 * 16)
            .map(|i| {
                let z = f64::from(i) * STEP;
                let tail = upper_tail(z);
                let weight = STEP * (others + 1.0) * density(z) * tail.powf(others);
                (z, weight, tail)
            })
            .collect();
        Self { others, grid }
    }

    /// `S(w)`.
    fn exceeds(&self, w: f64) -> f64 {
        if w >= WIDEST {
            return 0.0;
        }
        // The integrand lies around -w/2 or to the right of it.
        let first = self.grid.partition_point(|g| g.0 < -9.0 - w / 2.0);
        self.grid[first..]
            .iter()
            .map(|&(z, weight, tail)| {
                let ratio = upper_tail(z + w) / tail;
                -weight * (self.others * (-ratio).ln_1p()).exp_m1()
            })
            .sum()
    }
}

fn upper_tail(z: f64) -> f64 {
    0.5 * libm::erfc(z / SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::significance::{normal_two_sided, student_t_two_sided};

    #[test]
    fn two_groups_are_students_t() {
        for degrees in [1.0, 2.0, 3.0, 7.0, 40.0, 1000.0, 99_999.0] {
            for t in [0.01, 0.5, 2.0, 6.0, 25.0] {
                let p = studentized_range_sf(t * SQRT_2, 2, degrees);
                let expected = student_t_two_sided(t, degrees);
                assert!(
                    (p - expected).abs() < 1e-11 * expected,
                    "{degrees} {t}: {p:e} {expected:e}"
                );
            }
        }
    }

    #[test]
    fn two_groups_with_infinite_degrees_are_normal() {
        for z in [0.1, 1.0, 5.0, 20.0] {
            let p = studentized_range_sf(z * SQRT_2, 2, 1e6);
            let expected = normal_two_sided(z);
            assert!((p - expected).abs() < 1e-12 * expected, "{z}: {p:e}");
        }
    }

    #[test]
    fn finer_grids_do_not_change_the_result() {
        // The same integral over s by another rule: Simpson's, 20,000 points.
        for (groups, degrees, q) in [(3, 4.0, 3.0), (30, 2.0, 9.0), (200, 12.0, 7.5)] {
            let range = Range::new(groups);
            let f = |s: f64| {
                if s == 0.0 {
                    return 0.0;
                }
                let u = s.ln();
                let log = log_constant(degrees) + degrees * (u - (2.0 * u).exp_m1() / 2.0) - u;
                log.exp() * range.exceeds(q * s)
            };
            let (n, end) = (4_000, 8.0);
            let h = end / f64::from(n);
            let simpson: f64 = (0..=n)
                .map(|i| {
                    let weight = match i {
                        0 => 1.0,
                        i if i == n => 1.0,
                        i if i % 2 == 1 => 4.0,
                        _ => 2.0,
                    };
                    weight * f(f64::from(i) * h)
                })
                .sum::<f64>()
                * h
                / 3.0;
            let p = studentized_range_sf(q, groups, degrees);
            assert!((p - simpson).abs() < 1e-10 * p, "{groups}: {p} {simpson}");
        }
    }

    #[test]
    fn critical_values_invert_the_tail() {
        for (groups, degrees) in [(2, 1.0), (3, 10.0), (10, 2.0), (26, 500.0), (5, 1e6)] {
            for p in [0.9, 0.05, 1e-6] {
                let q = studentized_range_critical(p, groups, degrees);
                let back = studentized_range_sf(q, groups, degrees);
                assert!(
                    (back - p).abs() < 1e-10 * p,
                    "{groups} {degrees} {p}: {back}"
                );
            }
        }
    }
}
