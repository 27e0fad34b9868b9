//! Q4_0: 32 numbers `(q − 8)·d`, with a scale in `f16` and 4 bits each.
//!
//! Byte `j` holds number `j` in its low half and number `j + 16` in its high half.

use burn::tensor::f16;

/// Numbers in a block.
pub(super) const BLOCK: usize = 32;
/// Bytes of a block.
pub(super) const BYTES: usize = 18;

/// The numbers of whole blocks.
pub(super) fn decode(bytes: &[u8], numbers: &mut [f32]) {
    for (block, out) in bytes
        .chunks_exact(BYTES)
        .zip(numbers.chunks_exact_mut(BLOCK))
    {
        let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
        let (low, high) = out.split_at_mut(BLOCK / 2);
        for ((q, low), high) in block[2..].iter().zip(low).zip(high) {
            *low = (f32::from(q & 15) - 8.0) * d;
            *high = (f32::from(q >> 4) - 8.0) * d;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_of_a_byte_are_16_numbers_apart() {
        let mut block = [0x88; BYTES];
        block[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        block[2 + 3] = 0xf1;
        let mut numbers = [1.0; BLOCK];
        decode(&block, &mut numbers);
        let mut expected = [0.0; BLOCK];
        // (1 − 8)·0.5 and (15 − 8)·0.5
        (expected[3], expected[19]) = (-3.5, 3.5);
        assert_eq!(numbers, expected);
    }
}
