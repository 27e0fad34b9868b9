//! The normal distribution's two tails and their inverse.

/// The probability that a standard normal number is at least as far from 0 as `z`: `erfc(|z| / √2)`.
///
/// ```
/// # use ft_eval::significance::normal_two_sided;
/// assert!((normal_two_sided(1.959963984540054) - 0.05).abs() < 1e-15);
/// ```
pub fn normal_two_sided(z: f64) -> f64 {
    libm::erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// The `z ≥ 0` with [`normal_two_sided`]`(z) = p`: 1.96 for 0.05. NaN unless `0 ≤ p ≤ 1`.
///
/// Newton's method on `ln erfc`, which is concave, so that it converges from one side.
pub fn normal_quantile(p: f64) -> f64 {
    if p == 0.0 {
        return f64::INFINITY;
    }
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    if p > 0.9 {
        return near_zero(p);
    }
    // erfc(z / √2) < exp(-z² / 2), so this start is not below the root.
    let mut z = (-2.0 * p.ln()).sqrt();
    for _ in 0..100 {
        let tail = normal_two_sided(z);
        let slope = -2.0 * density(z) / tail;
        let step = (tail.ln() - p.ln()) / slope;
        z -= step;
        if step.abs() <= 1e-15 * z.abs() {
            break;
        }
    }
    z
}

/// The same where `ln erfc` is inaccurate: Newton's method on `1 - p`.
fn near_zero(p: f64) -> f64 {
    let mut z = (1.0 - p) / (2.0 * density(0.0));
    for _ in 0..20 {
        let inside = libm::erf(z / std::f64::consts::SQRT_2);
        z -= (inside - (1.0 - p)) / (2.0 * density(z));
    }
    z
}

pub(super) fn density(z: f64) -> f64 {
    const INV_SQRT_2PI: f64 = 0.398_942_280_401_432_7;
    INV_SQRT_2PI * (-0.5 * z * z).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_invert_the_tails_from_one_to_the_smallest() {
        for p in [
            1.0, 0.999999, 0.95, 0.9, 0.5, 0.05, 1e-3, 1e-10, 1e-100, 1e-300,
        ] {
            let back = normal_two_sided(normal_quantile(p));
            assert!((back - p).abs() <= 1e-12 * p, "{p}: {back}");
        }
        assert_eq!(normal_quantile(0.0), f64::INFINITY);
        assert!(normal_quantile(1.1).is_nan());
    }
}
