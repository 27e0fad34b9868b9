//! Dropout (Srivastava et al., 2014, JMLR 15, section 4) whose mask is computed from a seed and the place of a number,
//! so that it is not stored: the backward pass computes it again.
//!
//! The generator is a Feistel network (Luby and Rackoff, 1988, doi:10.1137/0217022) of four rounds over the two halves of
//! the place. Its numbers stay below 2³¹, so that integers of 32 bits with a sign suffice on every device, and the mask is
//! the same on all of them.

use burn::tensor::{Int, Tensor};

use crate::graph::constant;

/// A dropout: how probable it is that a number becomes zero, and the seed of the mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// At least 0 and below 1. What is left is divided by `1 − probability`.
    pub probability: f64,
    /// Another seed gives another mask.
    pub seed: u64,
}

/// The odd factors of the rounds, below 2¹⁴.
const FACTORS: [u32; 4] = [14989, 13809, 15471, 12043];

/// What decides on each number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    keys: [u32; 4],
    /// Places whose random number of 31 bits is below it are dropped.
    threshold: u32,
    /// What the others are multiplied by.
    pub(crate) scale: f32,
}

impl Dropout {
    /// # Panics
    ///
    /// If the probability is not at least 0 and below 1.
    pub(crate) fn mask(self) -> Mask {
        let p = self.probability;
        assert!(
            (0.0..1.0).contains(&p),
            "a dropout of {p}, not from 0 to below 1"
        );
        Mask {
            keys: std::array::from_fn(|round| {
                split_mix(self.seed.wrapping_add(round as u64)) as u32 >> 2
            }),
            threshold: (p * f64::from(1u32 << 31)) as u32,
            scale: (1.0 / (1.0 - p)) as f32,
        }
    }

    /// `x` with the numbers of the mask set to zero, by Burn's operations.
    pub(crate) fn apply(self, x: Tensor<2>) -> Tensor<2> {
        let mask = self.mask();
        let [rows, features] = x.dims();
        let device = x.device().inner();
        let place = Tensor::<1, Int>::arange(0..(rows * features) as i64, &device);
        let mut left = place
            .clone()
            .bitwise_right_shift_scalar(16)
            .bitwise_and_scalar(0xffff);
        let mut right = place.bitwise_and_scalar(0xffff);
        for (key, factor) in mask.keys.into_iter().zip(FACTORS) {
            let t = right.clone() * i64::from(factor) + i64::from(key);
            let mixed = t
                .clone()
                .bitwise_right_shift_scalar(14)
                .bitwise_xor(t)
                .bitwise_and_scalar(0xffff);
            (left, right) = (right, left.bitwise_xor(mixed));
        }
        let random = right * 32768 + left.bitwise_right_shift_scalar(1);
        let kept = random.greater_equal_elem(i64::from(mask.threshold)).float() * mask.scale;
        x.clone() * constant(kept.reshape([rows, features]), &x)
    }
}

impl Mask {
    /// Whether the number at a place is kept. Places count row by row.
    #[inline(always)]
    pub(crate) fn keeps(&self, place: u32) -> bool {
        let (mut left, mut right) = (place >> 16, place & 0xffff);
        for (key, factor) in self.keys.into_iter().zip(FACTORS) {
            let t = right * factor + key;
            (left, right) = (right, left ^ ((t >> 14 ^ t) & 0xffff));
        }
        right << 15 | left >> 1 >= self.threshold
    }
}

/// SplitMix64's function of a state (Steele, Lea and Flood, 2014, doi:10.1145/2660193.2660195).
fn split_mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u32 = 1 << 18;

    /// The numbers of a mask, standardized: mean 0 and variance 1 of independent draws.
    fn standardized(probability: f64, seed: u64) -> Vec<f64> {
        let mask = Dropout { probability, seed }.mask();
        let deviation = (probability * (1.0 - probability)).sqrt();
        (0..COUNT)
            .map(|place| (f64::from(u8::from(mask.keeps(place))) - 1.0 + probability) / deviation)
            .collect()
    }

    /// The mean of `n` products of independent standardized numbers has the deviation `1/√n`; 6 of them are allowed.
    fn assert_small(what: &str, mean: f64) {
        let deviations = mean * f64::from(COUNT).sqrt();
        assert!(deviations.abs() < 6.0, "{what}: {deviations} deviations");
    }

    #[test]
    fn masks_have_the_probability_and_no_pattern() {
        for probability in [0.05, 0.5] {
            for seed in [0, 1, u64::MAX] {
                let numbers = standardized(probability, seed);
                let mean = |of: &dyn Fn(usize) -> f64| {
                    (0..numbers.len()).map(of).sum::<f64>() / f64::from(COUNT)
                };
                assert_small("mean", mean(&|i| numbers[i]));
                for distance in [1, 2, 3, 4, 8, 16, 64, 576, 1024, 65536] {
                    let product = mean(&|i| numbers[i] * numbers[(i + distance) % numbers.len()]);
                    assert_small(&format!("distance {distance}"), product);
                }
                let other = standardized(probability, seed.wrapping_add(1));
                assert_small("other seed", mean(&|i| numbers[i] * other[i]));
            }
        }
    }
}
