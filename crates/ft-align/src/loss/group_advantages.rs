//! Advantages from the rewards of several completions of the same prompt.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// What the advantages of [`group_advantages`] are divided by. TRL's `scale_rewards`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scaling {
    /// The standard deviation of the group's rewards: GRPO.
    #[default]
    Group,
    /// The standard deviation of all rewards.
    Batch,
    /// Nothing: Dr. GRPO.
    None,
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "group",
            Self::Batch => "batch",
            Self::None => "none",
        })
    }
}

impl FromStr for Scaling {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "group" => Ok(Self::Group),
            "batch" => Ok(Self::Batch),
            "none" => Ok(Self::None),
            other => Err(Error::UnknownName {
                kind: "scaling of rewards",
                name: other.into(),
                known: "group, batch or none".into(),
            }),
        }
    }
}

/// Added to standard deviations, as TRL does.
const EPSILON: f64 = 1e-4;

/// GRPO's advantages: `(R − mean of the group) / (s + 10⁻⁴)`, with `s` of [`Scaling`].
///
/// Section 4.1 of Shao et al., 2024 (DeepSeekMath, arXiv:2402.03300); without division Liu et al., 2025 (Dr. GRPO,
/// arXiv:2503.20783). Standard deviations are unbiased (`n − 1`). A completion without a reward (`None`) counts in no
/// mean and has the advantage 0. Equal rewards have the advantage 0, and so has the only reward of a group.
///
/// ```
/// use ft_align::loss::{Scaling, group_advantages};
///
/// let rewards = [Some(1.0), Some(0.0), Some(0.5), Some(0.5)];
/// assert_eq!(group_advantages(&rewards, 2, Scaling::None), [0.5, -0.5, 0.0, 0.0]);
/// ```
///
/// # Panics
///
/// If the rewards are not whole groups, or one is not finite.
pub fn group_advantages(rewards: &[Option<f64>], group_size: usize, scaling: Scaling) -> Vec<f64> {
    check(rewards, group_size);
    let of_batch = deviation(rewards);
    let mut advantages = Vec::with_capacity(rewards.len());
    for group in rewards.chunks_exact(group_size) {
        if all_alike(group) {
            advantages.resize(advantages.len() + group.len(), 0.0);
            continue;
        }
        let mean = mean(group);
        let divisor = match scaling {
            Scaling::Group => deviation(group) + EPSILON,
            Scaling::Batch => of_batch + EPSILON,
            Scaling::None => 1.0,
        };
        advantages.extend(
            group
                .iter()
                .map(|r| r.map_or(0.0, |r| (r - mean) / divisor)),
        );
    }
    advantages
}

/// RLOO's advantages: the reward minus the mean of the group's other rewards.
///
/// Ahmadian et al., 2024 (arXiv:2402.14740), after Kool et al., 2019. A completion without a reward
/// (`None`), or with the only reward of its group, has the advantage 0.
///
/// # Panics
///
/// As [`group_advantages`].
pub fn leave_one_out(rewards: &[Option<f64>], group_size: usize) -> Vec<f64> {
    check(rewards, group_size);
    let mut advantages = Vec::with_capacity(rewards.len());
    for group in rewards.chunks_exact(group_size) {
        if all_alike(group) {
            advantages.resize(advantages.len() + group.len(), 0.0);
            continue;
        }
        let count = group.iter().flatten().count();
        let sum: f64 = group.iter().flatten().sum();
        advantages.extend(group.iter().map(|reward| match reward {
            Some(r) if count > 1 => r - (sum - r) / (count - 1) as f64,
            _ => 0.0,
        }));
    }
    advantages
}

fn check(rewards: &[Option<f64>], group_size: usize) {
    assert!(
        group_size > 0 && rewards.len().is_multiple_of(group_size),
        "{} rewards are not groups of {group_size}",
        rewards.len()
    );
    assert!(
        rewards.iter().flatten().all(|r| r.is_finite()),
        "a reward is not finite: give None for a completion that cannot be scored"
    );
}

/// Whether the rewards that there are differ by rounding at most. The mean of equal numbers need not be that number.
pub(crate) fn all_alike(rewards: &[Option<f64>]) -> bool {
    let there = || rewards.iter().flatten().copied();
    let (least, most) = (
        there().fold(f64::MAX, f64::min),
        there().fold(f64::MIN, f64::max),
    );
    most - least <= 1e-9 * least.abs().max(most.abs())
}

/// The mean of the rewards that there are, 0 if none.
fn mean(rewards: &[Option<f64>]) -> f64 {
    let count = rewards.iter().flatten().count();
    rewards.iter().flatten().sum::<f64>() / count.max(1) as f64
}

/// The unbiased standard deviation of the rewards that there are, 0 for fewer than two.
fn deviation(rewards: &[Option<f64>]) -> f64 {
    let (count, mean) = (rewards.iter().flatten().count(), mean(rewards));
    let squares: f64 = rewards.iter().flatten().map(|r| (r - mean).powi(2)).sum();
    (squares / count.saturating_sub(1).max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of eight times 0.1 is not 0.1 in floating point.
    #[test]
    fn equal_fractions_have_no_advantage() {
        for reward in [0.0, 0.1, 0.2, 0.7, -1.1] {
            for scaling in [Scaling::Group, Scaling::Batch, Scaling::None] {
                let rewards = [vec![Some(reward); 8], vec![None; 8], vec![Some(1.0); 8]].concat();
                assert!(
                    group_advantages(&rewards, 8, scaling)
                        .iter()
                        .all(|a| *a == 0.0)
                );
                assert!(leave_one_out(&rewards, 8).iter().all(|a| *a == 0.0));
            }
        }
    }
}
