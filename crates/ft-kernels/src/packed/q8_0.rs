//! Q8_0: 32 numbers `q·d`, with a scale in `f16` and 8 bits each.

use burn::tensor::f16;

/// Numbers in a block.
pub(super) const BLOCK: usize = 32;
/// Bytes of a block.
pub(super) const BYTES: usize = 34;

/// The numbers of whole blocks.
pub(super) fn decode(bytes: &[u8], numbers: &mut [f32]) {
    for (block, out) in bytes
        .chunks_exact(BYTES)
        .zip(numbers.chunks_exact_mut(BLOCK))
    {
        let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
        for (q, out) in block[2..].iter().zip(out) {
            *out = f32::from(q.cast_signed()) * d;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_signed() {
        let mut block = [0; BYTES];
        block[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        (block[2], block[33]) = (0x81, 0x7f);
        let mut numbers = [1.0; BLOCK];
        decode(&block, &mut numbers);
        // −127·0.5 and 127·0.5
        assert_eq!((numbers[0], numbers[1], numbers[31]), (-63.5, 0.0, 63.5));
    }
}
