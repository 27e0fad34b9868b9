//! Student's t distribution: both tails and their inverse.
//!
//! The tails are the regularized incomplete beta function `I_x(ν/2, 1/2)` at `x = ν / (ν + t²)`, computed by
//!
//! - its continued fraction (Press et al., *Numerical Recipes*, 3rd edition, equation 6.4.5) by Lentz's method;
//! - if `ν` is large and `x` close to 1, where the fraction is inaccurate, the expansion around the normal
//!   distribution's tail (DiDonato & Morris, "Significant digit computation of the incomplete beta
//!   function ratios", TOMS 18, 1992, section 9; for 1/2 its incomplete gamma function is `erfc`).
//!
//! `Γ(a + 1/2) / Γ(a)` is computed as a ratio: the difference of two logarithms loses nine digits at a
//! million degrees of freedom.

use std::f64::consts::PI;

/// The probability that a t-distributed number is at least as far from 0 as `t`, with `degrees` of freedom.
///
/// The relative error is below 1e-12, also for the smallest p-values. NaN if `degrees` is not positive.
///
/// ```
/// # use ft_eval::significance::student_t_two_sided;
/// // scipy.stats.t.sf(2.0, 5) * 2
/// assert!((student_t_two_sided(2.0, 5.0) - 0.10193947882985835).abs() < 1e-14);
/// ```
pub fn student_t_two_sided(t: f64, degrees: f64) -> f64 {
    if degrees.is_nan() || degrees <= 0.0 || t.is_nan() {
        return f64::NAN;
    }
    if t == 0.0 {
        return 1.0;
    }
    if t.is_infinite() {
        return 0.0;
    }
    let (a, b) = (degrees / 2.0, 0.5);
    let u = t.abs() / degrees.sqrt();
    // x = 1 / (1 + u²), and y = 1 - x without the cancellation.
    let (x, y) = (1.0 / (1.0 + u * u), 1.0 / (1.0 + 1.0 / (u * u)));
    let ln_x = if u > 1e8 {
        -2.0 * u.ln()
    } else {
        -(u * u).ln_1p()
    };
    if a > 15.0 && x > 0.7 {
        return near_normal(a, ln_x);
    }
    // x^a y^b / B(a, b)
    let front = (a * ln_x).exp() * y.sqrt() * gamma_ratio(a) / PI.sqrt();
    if x < (a + 1.0) / (a + b + 2.0) {
        front * continued_fraction(a, b, x) / a
    } else {
        1.0 - front * continued_fraction(b, a, y) / b
    }
}

/// The `t ≥ 0` whose two tails have the probability `p`: 2.57 for 0.05 and 5 degrees of freedom.
///
/// NaN unless `0 < p ≤ 1` and `degrees > 0`.
pub fn student_t_critical(p: f64, degrees: f64) -> f64 {
    if !(p > 0.0 && p <= 1.0 && degrees > 0.0) {
        return f64::NAN;
    }
    if p == 1.0 {
        return 0.0;
    }
    // The tails are heavier than the normal ones, so the normal quantile is not above the root. ln p is concave in ln t,
    // so Newton's method overshoots once and then converges from the other side.
    let mut t = super::normal_quantile(p);
    for _ in 0..200 {
        let tail = student_t_two_sided(t, degrees);
        if tail == 0.0 {
            t /= 2.0;
            continue;
        }
        let slope = -2.0 * t * density(t, degrees) / tail;
        let step = (tail.ln() - p.ln()) / slope;
        t *= (-step).exp();
        if step.abs() < 1e-15 {
            break;
        }
    }
    t
}

fn density(t: f64, degrees: f64) -> f64 {
    let power = -(degrees + 1.0) / 2.0 * (t * t / degrees).ln_1p();
    gamma_ratio(degrees / 2.0) / (degrees * PI).sqrt() * power.exp()
}

/// `Γ(a + 1/2) / Γ(a)`: an asymptotic series (Tricomi & Erdélyi, 1951), after the recurrence has made
/// `a` large enough for it.
fn gamma_ratio(mut a: f64) -> f64 {
    let mut factor = 1.0;
    while a < 100.0 {
        factor *= a / (a + 0.5);
        a += 1.0;
    }
    let i = 1.0 / a;
    let series = 1.0
        + i * (-1.0 / 8.0
            + i * (1.0 / 128.0
                + i * (5.0 / 1024.0 + i * (-21.0 / 32768.0 - i * 399.0 / 262144.0))));
    factor * a.sqrt() * series
}

/// `I_x(a, 1/2)` for large `a` and `x` close to 1.
fn near_normal(a: f64, ln_x: f64) -> f64 {
    const TERMS: usize = 20;
    const B: f64 = 0.5;
    let t = a - 0.25;
    let u = -t * ln_x;
    let ratio = gamma_ratio(a) / t.sqrt();
    let m = ratio * (u / PI).sqrt() * (-u).exp();
    // m J_0, m J_1, .. and p_0, p_1, .. of the paper.
    let mut j = ratio * libm::erfc(u.sqrt());
    let mut sum = j;
    let mut p = [1.0; TERMS];
    let mut odd_factorials = [1.0; TERMS];
    let mut power = 1.0;
    for n in 1..TERMS {
        let k = n as f64;
        odd_factorials[n] = odd_factorials[n - 1] * (2.0 * k) * (2.0 * k + 1.0);
        let earlier: f64 = (1..n)
            .map(|i| (i as f64 * B - k) * p[n - i] / odd_factorials[i])
            .sum();
        p[n] = (B - 1.0) / odd_factorials[n] + earlier / k;
        let c = B + 2.0 * (k - 1.0);
        j = (c * (c + 1.0) * j + m * (u + c + 1.0) * power) / (4.0 * t * t);
        power *= ln_x * ln_x / 4.0;
        let term = p[n] * j;
        sum += term;
        if term.abs() < 1e-18 * sum {
            break;
        }
    }
    sum
}

/// The continued fraction of the incomplete beta function.
fn continued_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let nonzero = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    // It takes about √max(a, b) iterations.
    for m in 1..1_000_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / nonzero(1.0 + term * d);
            c = nonzero(1.0 + term / c);
            change = c * d;
            value *= change;
        }
        if (change - 1.0).abs() < 1e-16 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_two_degrees_of_freedom_have_closed_forms() {
        for t in [1e-8_f64, 0.1, 0.5, 1.0, 3.0, 50.0, 1e6, 1e12, 1e150] {
            // 1: 2 atan(1/t) / π. 2: 1 - t/√(2 + t²), written without cancellation.
            let cauchy = 2.0 / PI * (1.0 / t).atan();
            let root = (2.0 + t * t).sqrt();
            let two = 2.0 / (root * (root + t));
            for (degrees, expected) in [(1.0, cauchy), (2.0, two)] {
                let p = student_t_two_sided(t, degrees);
                assert!(
                    (p - expected).abs() <= 1e-13 * expected,
                    "{t} {degrees}: {p} {expected}"
                );
            }
        }
    }

    #[test]
    fn many_degrees_of_freedom_approach_the_normal() {
        for t in [0.3, 1.0, 2.5, 6.0] {
            let (p, normal) = (
                student_t_two_sided(t, 1e12),
                super::super::normal_two_sided(t),
            );
            assert!((p - normal).abs() < 1e-9 * normal, "{t}: {p} {normal}");
        }
    }

    #[test]
    fn critical_values_invert_the_tails() {
        for degrees in [0.5, 1.0, 2.0, 9.0, 300.0, 1e6] {
            for p in [0.999, 0.5, 0.05, 0.01, 1e-8] {
                let back = student_t_two_sided(student_t_critical(p, degrees), degrees);
                assert!((back - p).abs() < 1e-12 * p, "{degrees} {p}: {back}");
            }
        }
    }
}
