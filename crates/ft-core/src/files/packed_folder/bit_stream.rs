//! Integers of a few bits, one after the other in words of 32 bits, lowest bits first and over the borders of words.

/// The number of words of so many integers.
pub(super) fn words_of(count: usize, bits: u32) -> usize {
    (count * bits as usize).div_ceil(32)
}

/// Reads `out.len()` integers of 1 to 8 bits.
///
/// # Panics
///
/// If there are too few words.
pub(super) fn unpack(words: &[u32], bits: u32, out: &mut [u8]) {
    let mask = (1u64 << bits) - 1;
    let mut at = 0;
    for level in out {
        let (word, shift) = (at / 32, at % 32);
        let high = match shift + bits as usize > 32 {
            true => u64::from(words[word + 1]) << 32,
            false => 0,
        };
        *level = ((high | u64::from(words[word])) >> shift & mask) as u8;
        at += bits as usize;
    }
}

/// Writes integers of 1 to 8 bits.
pub(super) fn pack(levels: impl Iterator<Item = u8>, count: usize, bits: u32) -> Vec<u32> {
    let mut words = vec![0u32; words_of(count, bits)];
    let mut at = 0;
    for level in levels.take(count) {
        let (word, shift) = (at / 32, at % 32);
        let wide = u64::from(level) << shift;
        words[word] |= wide as u32;
        if shift + bits as usize > 32 {
            words[word + 1] |= (wide >> 32) as u32;
        }
        at += bits as usize;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_come_back_over_the_borders_of_words() {
        for bits in 1..=8 {
            let levels: Vec<u8> = (0..77u32).map(|i| (i * 37 % (1 << bits)) as u8).collect();
            let words = pack(levels.iter().copied(), levels.len(), bits);
            let mut found = vec![0; levels.len()];
            unpack(&words, bits, &mut found);
            assert_eq!(found, levels, "{bits} bits");
        }
        // The eleventh integer of 3 bits has two bits in the first word.
        assert_eq!(pack([0; 10].into_iter().chain([7]), 11, 3), [3 << 30, 1]);
    }
}
