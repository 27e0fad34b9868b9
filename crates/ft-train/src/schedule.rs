//! The learning rate over the steps: warmup, then constant, linear or cosine.
//!
//! Each function gives the factor on the peak learning rate for a step counted from 0, as the
//! functions `get_constant_schedule_with_warmup`, `get_linear_schedule_with_warmup` and
//! `get_cosine_schedule_with_warmup` of transformers define it. With a warmup the first step has a
//! rate of 0. Cosine decay: SGDR (Loshchilov and Hutter, 2016, arXiv:1608.03983), equation 5, half a
//! period, down to 0.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::UnknownName;

/// What the learning rate does after the warmup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls to 0 in a straight line.
    #[default]
    Linear,
    /// It falls to 0 along half a cosine.
    Cosine,
}

impl Schedule {
    /// The factor on the peak learning rate at `step`, counted from 0.
    pub fn factor(self, step: usize, warmup_steps: usize, total_steps: usize) -> f64 {
        match self {
            Self::Constant => constant_with_warmup(step, warmup_steps),
            Self::Linear => linear_with_warmup(step, warmup_steps, total_steps),
            Self::Cosine => cosine_with_warmup(step, warmup_steps, total_steps),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Constant => "constant",
            Self::Linear => "linear",
            Self::Cosine => "cosine",
        })
    }
}

impl FromStr for Schedule {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "constant" => Ok(Self::Constant),
            "linear" => Ok(Self::Linear),
            "cosine" => Ok(Self::Cosine),
            other => Err(UnknownName {
                kind: "schedule",
                name: other.to_string(),
                known: "constant, linear or cosine",
            }),
        }
    }
}

/// `step / warmup_steps` during the warmup, then 1.
///
/// ```
/// assert_eq!(ft_train::constant_with_warmup(1, 4), 0.25);
/// assert_eq!(ft_train::constant_with_warmup(9, 4), 1.0);
/// ```
pub fn constant_with_warmup(step: usize, warmup_steps: usize) -> f64 {
    if step < warmup_steps {
        step as f64 / warmup_steps as f64
    } else {
        1.0
    }
}

/// The warmup, then `(total − step) / (total − warmup)`, never below 0.
///
/// ```
/// assert_eq!(ft_train::linear_with_warmup(4, 2, 10), 0.75);
/// ```
pub fn linear_with_warmup(step: usize, warmup_steps: usize, total_steps: usize) -> f64 {
    if step < warmup_steps {
        return step as f64 / warmup_steps as f64;
    }
    let left = total_steps.saturating_sub(step);
    left as f64 / total_steps.saturating_sub(warmup_steps).max(1) as f64
}

/// The warmup, then `½·(1 + cos(π·(step − warmup) / (total − warmup)))`.
///
/// ```
/// assert!((ft_train::cosine_with_warmup(6, 2, 10) - 0.5).abs() < 1e-15);
/// ```
pub fn cosine_with_warmup(step: usize, warmup_steps: usize, total_steps: usize) -> f64 {
    if step < warmup_steps {
        return step as f64 / warmup_steps as f64;
    }
    let span = total_steps.saturating_sub(warmup_steps).max(1);
    let progress = (step - warmup_steps) as f64 / span as f64;
    (0.5 * (1.0 + (PI * progress).cos())).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[f(step) for step in range(10)]` of transformers 5.23 with 2 warmup and 10 training steps.
    #[test]
    fn ten_steps_are_those_of_transformers() {
        let linear = [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125];
        let cosine = [
            0.0,
            0.5,
            1.0,
            0.9619397662556434,
            0.8535533905932737,
            0.6913417161825449,
            0.5,
            0.30865828381745514,
            0.14644660940672627,
            0.03806023374435663,
        ];
        let constant = [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        for step in 0..10 {
            assert_eq!(Schedule::Linear.factor(step, 2, 10), linear[step]);
            assert_eq!(Schedule::Constant.factor(step, 2, 10), constant[step]);
            assert!((Schedule::Cosine.factor(step, 2, 10) - cosine[step]).abs() < 1e-15);
        }
    }

    #[test]
    fn without_warmup_the_first_step_has_the_full_rate() {
        for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
            assert_eq!(schedule.factor(0, 0, 5), 1.0);
        }
    }

    #[test]
    fn after_the_last_step_the_rate_is_zero_and_never_negative() {
        assert_eq!(linear_with_warmup(10, 2, 10), 0.0);
        assert_eq!(linear_with_warmup(12, 2, 10), 0.0);
        assert!(cosine_with_warmup(10, 2, 10).abs() < 1e-15);
    }

    #[test]
    fn a_run_that_is_all_warmup_divides_by_nothing() {
        assert_eq!(linear_with_warmup(3, 3, 3), 0.0);
        assert_eq!(cosine_with_warmup(3, 3, 3), 1.0);
    }

    #[test]
    fn names_go_both_ways() {
        for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
            assert_eq!(schedule.to_string().parse(), Ok(schedule));
        }
        assert!("sine".parse::<Schedule>().is_err());
    }
}
