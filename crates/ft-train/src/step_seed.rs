//! Randomness that depends on where a run stands, not on how it came there.
//!
//! Before every micro-batch the device's generator is seeded from the run's seed, the step and the
//! micro-batch's place in the step, so that a resumed run draws the dropout masks that the
//! uninterrupted one draws.

use ft_core::{mix_seed, split_mix};

/// The seed of one micro-batch.
pub fn step_seed(seed: u64, step: usize, micro: usize) -> u64 {
    split_mix(mix_seed(seed, step as u64) ^ micro as u64)
}

/// The seed of one batch of an evaluation: of another stream than all steps, the same in every evaluation.
pub(crate) fn evaluation_seed(seed: u64, batch: usize) -> u64 {
    step_seed(split_mix(!seed), usize::MAX, batch)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn neighbouring_steps_and_batches_do_not_collide() {
        let mut seen = BTreeSet::new();
        for seed in 0..4 {
            for step in 0..32 {
                for micro in 0..32 {
                    seen.insert(step_seed(seed, step, micro));
                }
                seen.insert(evaluation_seed(seed, step));
            }
        }
        assert_eq!(seen.len(), 4 * 32 * 33);
    }
}
