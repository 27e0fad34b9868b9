//! Factors on the peak learning rate as functions of the step, which is counted from 0.

use std::f64::consts::PI;

use super::DecayShape;

/// `step / warmup_steps` during the warmup.
fn in_warmup(step: usize, warmup_steps: usize) -> Option<f64> {
    (step < warmup_steps).then(|| step as f64 / warmup_steps as f64)
}

/// `(step − warmup) / max(1, total − warmup)`.
fn progress(step: usize, warmup_steps: usize, total_steps: usize) -> f64 {
    let span = total_steps.saturating_sub(warmup_steps).max(1);
    (step - warmup_steps) as f64 / span as f64
}

/// `½·(1 + cos(π·p))`
fn half_cosine(progress: f64) -> f64 {
    0.5 * (1.0 + (PI * progress).cos())
}

/// `step / warmup_steps` during the warmup, then 1.
///
/// ```
/// assert_eq!(ft_train::constant_with_warmup(1, 4), 0.25);
/// assert_eq!(ft_train::constant_with_warmup(9, 4), 1.0);
/// ```
pub fn constant_with_warmup(step: usize, warmup_steps: usize) -> f64 {
    in_warmup(step, warmup_steps).unwrap_or(1.0)
}

/// The warmup, then `(total − step) / (total − warmup)`, never below 0.
///
/// ```
/// assert_eq!(ft_train::linear_with_warmup(4, 2, 10), 0.75);
/// ```
pub fn linear_with_warmup(step: usize, warmup_steps: usize, total_steps: usize) -> f64 {
    in_warmup(step, warmup_steps).unwrap_or_else(|| {
        let left = total_steps.saturating_sub(step);
        left as f64 / total_steps.saturating_sub(warmup_steps).max(1) as f64
    })
}

/// The warmup, then `½·(1 + cos(π·p))` with `p = (step − warmup) / (total − warmup)`: SGDR (Loshchilov and Hutter, 2016,
/// arXiv:1608.03983), equation 5, half a period, down to 0.
///
/// ```
/// assert!((ft_train::cosine_with_warmup(6, 2, 10) - 0.5).abs() < 1e-15);
/// ```
pub fn cosine_with_warmup(step: usize, warmup_steps: usize, total_steps: usize) -> f64 {
    in_warmup(step, warmup_steps)
        .unwrap_or_else(|| half_cosine(progress(step, warmup_steps, total_steps)).max(0.0))
}

/// The warmup, then `½·(1 + cos(π·(cycles·p mod 1)))`, and 0 after the last step.
///
/// ```
/// assert!((ft_train::cosine_with_restarts(3, 0, 12, 2) - 0.5).abs() < 1e-15);
/// assert_eq!(ft_train::cosine_with_restarts(6, 0, 12, 2), 1.0);
/// ```
pub fn cosine_with_restarts(
    step: usize,
    warmup_steps: usize,
    total_steps: usize,
    cycles: u32,
) -> f64 {
    in_warmup(step, warmup_steps).unwrap_or_else(|| {
        let progress = progress(step, warmup_steps, total_steps);
        if progress >= 1.0 {
            return 0.0;
        }
        half_cosine((f64::from(cycles) * progress) % 1.0).max(0.0)
    })
}

/// The warmup, then the cosine from 1 down to `min`.
///
/// After the last step it rises again in transformers; here it stays.
///
/// ```
/// assert!((ft_train::cosine_with_min_lr(10, 0, 10, 0.1) - 0.1).abs() < 1e-15);
/// ```
pub fn cosine_with_min_lr(step: usize, warmup_steps: usize, total_steps: usize, min: f64) -> f64 {
    in_warmup(step, warmup_steps).unwrap_or_else(|| {
        let progress = progress(step, warmup_steps, total_steps).min(1.0);
        half_cosine(progress) * (1.0 - min) + min
    })
}

/// The warmup, then `(1 − end)·(1 − p)^power + end`, and `end` after the last step.
///
/// ```
/// assert!((ft_train::polynomial_decay(5, 0, 10, 2.0, 0.2) - 0.4).abs() < 1e-15);
/// ```
pub fn polynomial_decay(
    step: usize,
    warmup_steps: usize,
    total_steps: usize,
    power: f64,
    end: f64,
) -> f64 {
    in_warmup(step, warmup_steps).unwrap_or_else(|| {
        let left = (1.0 - progress(step, warmup_steps, total_steps)).max(0.0);
        (1.0 - end) * left.powf(power) + end
    })
}

/// The warmup, then `1 / √((step + s − warmup) / s)` with `s` the time scale: the warmup, or 10,000 without one, unless it is
/// given. Attention is all you need (Vaswani et al., 2017, arXiv:1706.03762), equation 3.
///
/// ```
/// assert_eq!(ft_train::inverse_sqrt(400, 100, None), 0.5);
/// ```
pub fn inverse_sqrt(step: usize, warmup_steps: usize, timescale: Option<usize>) -> f64 {
    in_warmup(step, warmup_steps).unwrap_or_else(|| {
        let scale = match timescale {
            Some(scale) => scale,
            None if warmup_steps > 0 => warmup_steps,
            None => 10_000,
        } as f64;
        1.0 / (((step - warmup_steps) as f64 + scale) / scale).sqrt()
    })
}

/// The warmup from `min`, then 1, then in the last `decay_steps` down to `min`: MiniCPM (Hu et al., 2024, arXiv:2404.06395),
/// section 4.
///
/// ```
/// use ft_train::{DecayShape, warmup_stable_decay};
///
/// assert_eq!(warmup_stable_decay(79, 10, 100, 20, 0.0, DecayShape::Linear), 1.0);
/// assert_eq!(warmup_stable_decay(90, 10, 100, 20, 0.0, DecayShape::Linear), 0.5);
/// ```
pub fn warmup_stable_decay(
    step: usize,
    warmup_steps: usize,
    total_steps: usize,
    decay_steps: usize,
    min: f64,
    shape: DecayShape,
) -> f64 {
    if let Some(factor) = in_warmup(step, warmup_steps) {
        return factor * (1.0 - min) + min;
    }
    let stable = total_steps.saturating_sub(decay_steps).max(warmup_steps);
    if step < stable {
        return 1.0;
    }
    if step >= stable + decay_steps {
        return min;
    }
    let progress = (step - stable) as f64 / decay_steps.max(1) as f64;
    let factor = match shape {
        DecayShape::Linear => 1.0 - progress,
        DecayShape::Cosine => half_cosine(progress),
        DecayShape::OneMinusSqrt => 1.0 - progress.sqrt(),
    };
    (factor * (1.0 - min) + min).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_last_step_the_rate_is_zero_and_never_negative() {
        assert_eq!(linear_with_warmup(10, 2, 10), 0.0);
        assert_eq!(linear_with_warmup(12, 2, 10), 0.0);
        assert!(cosine_with_warmup(10, 2, 10).abs() < 1e-15);
        assert_eq!(polynomial_decay(12, 2, 10, 2.0, 0.25), 0.25);
        assert_eq!(cosine_with_min_lr(12, 2, 10, 0.25), 0.25);
    }

    #[test]
    fn a_run_that_is_all_warmup_divides_by_nothing() {
        assert_eq!(linear_with_warmup(3, 3, 3), 0.0);
        assert_eq!(cosine_with_warmup(3, 3, 3), 1.0);
        assert_eq!(polynomial_decay(3, 3, 3, 1.0, 0.0), 1.0);
        assert_eq!(
            warmup_stable_decay(3, 3, 3, 2, 0.0, DecayShape::Linear),
            1.0
        );
    }
}
