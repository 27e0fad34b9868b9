//! Randomness that depends on where a run stands, not on how it came there.
//!
//! Before every micro-batch the device's generator is seeded from the run's seed, the step and the
//! micro-batch's place in the step, so that a resumed run draws the dropout masks that the
//! uninterrupted one draws. The mixing function is SplitMix64 (Steele, Lea and Flood, 2014,
//! doi:10.1145/2660193.2660195).

/// The seed of one micro-batch.
pub fn step_seed(seed: u64, step: usize, micro: usize) -> u64 {
    let mixed = split_mix(split_mix(seed) ^ step as u64);
    split_mix(mixed ^ micro as u64)
}

/// The seed of one batch of an evaluation: of another stream than all steps, the same in every evaluation.
pub(crate) fn evaluation_seed(seed: u64, batch: usize) -> u64 {
    step_seed(split_mix(!seed), usize::MAX, batch)
}

fn split_mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The first output of the reference implementation for seed 1234567.
    #[test]
    fn the_mixing_function_is_the_published_one() {
        assert_eq!(split_mix(1_234_567), 6_457_827_717_110_365_317);
    }

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
