//! Random numbers that depend only on a seed, not on threads, machines or crates.
//!
//! SplitMix64 (Steele, Lea & Flood, 2014, "Fast splittable pseudorandom number generators", figure 15):
//! a counter goes through a mixing function. Each part of parallel work has its own stream, so the result
//! does not depend on the number of threads.

use rayon::prelude::*;

/// A stream of random 64-bit numbers.
pub(crate) struct SplitMix(u64);

impl SplitMix {
    /// Stream number `stream` of a seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(mix(
            mix(seed).wrapping_add(stream.wrapping_mul(0xD605_BBB5_8C8A_BC03))
        ))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number in `0..n` (the high word of a product; its bias is below `n / 2^64`).
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

/// A seed for part `part` of the work with seed `seed`: a repeat, an attempt, a batch.
///
/// Neighbouring seeds and parts give unrelated seeds, so `seed + part`, which part 1 of seed 0 and part 0 of seed 1
/// share, is never used.
#[cfg(any(feature = "harness", feature = "judges"))]
pub(crate) fn mix_seed(seed: u64, part: u64) -> u64 {
    SplitMix::new(seed, part).next()
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// `statistic` of `resamples` samples of `items` indices drawn with replacement, in their order.
pub(crate) fn resampled<T: Send>(
    items: usize,
    resamples: usize,
    seed: u64,
    statistic: impl Fn(&[usize]) -> T + Sync,
) -> Vec<T> {
    (0..resamples)
        .into_par_iter()
        .map_init(
            || vec![0; items],
            |indices, stream| {
                let mut random = SplitMix::new(seed, stream as u64);
                indices.fill_with(|| random.below(items));
                statistic(indices)
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_are_those_of_the_published_generator() {
        // Seed 0 of the reference implementation, that is, a counter of 0.
        let mut random = SplitMix(0);
        assert_eq!(random.next(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.next(), 0x6E78_9E6A_A1B9_65F4);
        assert_eq!(random.next(), 0x06C4_5D18_8009_454F);
    }

    #[test]
    fn numbers_below_n_are_equally_frequent() {
        let mut random = SplitMix::new(1, 2);
        let mut counts = [0; 7];
        (0..70_000).for_each(|_| counts[random.below(7)] += 1);
        // Standard deviation 93.
        assert!(
            counts.iter().all(|c| (9_500..10_500).contains(c)),
            "{counts:?}"
        );
    }

    #[test]
    fn streams_and_seeds_differ_and_repeat() {
        let first = |seed, stream| SplitMix::new(seed, stream).next();
        assert_eq!(first(3, 4), first(3, 4));
        assert_ne!(first(3, 4), first(3, 5));
        assert_ne!(first(3, 4), first(4, 4));
    }
}
