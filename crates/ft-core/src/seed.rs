//! Hashes, and seeds for what belongs together but must not draw the same numbers: rows of a batch, repeats, workers.
//!
//! Adding a number to a seed is not enough: row 1 of seed 7 would be row 0 of seed 8. The mixing function is
//! SplitMix64 (Steele, Lea and Flood, 2014, doi:10.1145/2660193.2660195).

/// A seed of its own for each `index` below a seed.
///
/// ```
/// use ft_core::mix_seed;
///
/// assert_ne!(mix_seed(7, 1), mix_seed(8, 0));
/// // Two levels: row 2 of repeat 1.
/// let row = mix_seed(mix_seed(7, 1), 2);
/// assert_ne!(row, mix_seed(mix_seed(7, 2), 1));
/// ```
pub fn mix_seed(seed: u64, index: u64) -> u64 {
    split_mix(split_mix(seed) ^ index)
}

/// SplitMix64's function of a state.
pub fn split_mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A hash of bytes in hexadecimal: FNV-1a of 64 bits (Fowler, Noll and Vo, IETF draft-eastlake-fnv).
///
/// The same in every version, process and machine. It detects accidental changes; it is not cryptographic.
///
/// ```
/// assert_eq!(ft_core::fnv1a([]), "cbf29ce484222325");
/// assert_eq!(ft_core::fnv1a(*b"a"), "af63dc4c8601ec8c");
/// ```
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> String {
    let hash = (bytes.into_iter()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
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
    fn neighbouring_seeds_and_indices_do_not_collide() {
        let pairs = (0..64).flat_map(|seed| (0..64).map(move |index| mix_seed(seed, index)));
        assert_eq!(pairs.collect::<BTreeSet<u64>>().len(), 64 * 64);
    }
}
