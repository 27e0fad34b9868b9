//! Q4_1: 32 numbers `q·d + m`, with a scale and a minimum in `f16` and 4 bits each.
//!
//! Byte `j` holds number `j` in its low half and number `j + 16` in its high half.

use burn::tensor::f16;

/// Numbers in a block.
pub(super) const BLOCK: usize = 32;
/// Bytes of a block.
pub(super) const BYTES: usize = 20;

/// The numbers of whole blocks.
pub(super) fn decode(bytes: &[u8], numbers: &mut [f32]) {
    for (block, out) in bytes
        .chunks_exact(BYTES)
        .zip(numbers.chunks_exact_mut(BLOCK))
    {
        let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
        let m = f16::from_le_bytes([block[2], block[3]]).to_f32();
        let (low, high) = out.split_at_mut(BLOCK / 2);
        for ((q, low), high) in block[4..].iter().zip(low).zip(high) {
            *low = f32::from(q & 15) * d + m;
            *high = f32::from(q >> 4) * d + m;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_at_the_minimum() {
        let mut block = [0; BYTES];
        block[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        block[2..4].copy_from_slice(&f16::from_f32(-2.0).to_le_bytes());
        block[4 + 3] = 0xf1;
        let mut numbers = [1.0; BLOCK];
        decode(&block, &mut numbers);
        let mut expected = [-2.0; BLOCK];
        // 1·0.5 − 2 and 15·0.5 − 2
        (expected[3], expected[19]) = (-1.5, 5.5);
        assert_eq!(numbers, expected);
    }
}
