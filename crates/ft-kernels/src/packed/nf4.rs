//! `NF4` and `FP4` of bitsandbytes: 64 numbers of 4 bits that stand for the numbers of a table, and their largest magnitude,
//! `w = absmax·table[q]` (Dettmers et al., 2023, arXiv:2305.14314, section 3).
//!
//! Bytes: `absmax` in 32 bits; 32 bytes as bitsandbytes has them, each with an even number in the high and the next one in the
//! low half. There the magnitudes are a tensor of their own, possibly in 8 bits again ("double quantization"); here they are
//! next to their numbers, as they decode.

use super::bits::{decode_blocks, encode_blocks};

pub(crate) const BLOCK: usize = 64;
pub(crate) const BYTES: usize = 36;

/// Quantiles of a normal distribution, relative to the largest, with zero.
pub(crate) const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Floats with a sign, two bits of exponent and one of mantissa, relative to the largest: twelfths.
pub(crate) const FP4: [f32; 16] = [
    0.0,
    0.0625 / 12.0,
    8.0 / 12.0,
    1.0,
    4.0 / 12.0,
    6.0 / 12.0,
    2.0 / 12.0,
    3.0 / 12.0,
    -0.0,
    -0.0625 / 12.0,
    -8.0 / 12.0,
    -1.0,
    -4.0 / 12.0,
    -6.0 / 12.0,
    -2.0 / 12.0,
    -3.0 / 12.0,
];

/// The codes of [`FP4`] in the order of their numbers. Zero has two codes; the second is for positive numbers near it.
const FP4_ORDER: [u8; 16] = [11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3];

/// The nearest number of the table, the lower of two.
pub(super) fn encode_nf4(x: &[f32], out: &mut [u8]) {
    let bounds: [f32; 15] = std::array::from_fn(|i| f32::midpoint(NF4[i], NF4[i + 1]));
    encode_with(x, out, |x| {
        bounds.iter().filter(|bound| **bound < x).count() as u8
    });
}

/// The same for [`FP4`].
pub(super) fn encode_fp4(x: &[f32], out: &mut [u8]) {
    let number = |i: usize| FP4[usize::from(FP4_ORDER[i])];
    let bounds: [f32; 15] = std::array::from_fn(|i| f32::midpoint(number(i), number(i + 1)));
    encode_with(x, out, |x| {
        FP4_ORDER[bounds.iter().filter(|bound| **bound < x).count()]
    });
}

fn encode_with(x: &[f32], out: &mut [u8], code: impl Fn(f32) -> u8) {
    encode_blocks(x, out, |x: &[f32; BLOCK], out: &mut [u8; BYTES]| {
        let absmax = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        out[..4].copy_from_slice(&absmax.to_le_bytes());
        let inverse = 1.0 / absmax.max(1e-38);
        for (out, [high, low]) in out[4..].iter_mut().zip(x.as_chunks::<2>().0) {
            let code = |x: f32| code((x * inverse).clamp(-1.0, 1.0));
            *out = code(*high) << 4 | code(*low);
        }
    });
}

pub(super) fn decode_nf4(bytes: &[u8], out: &mut [f32]) {
    decode_with(bytes, out, &NF4);
}

pub(super) fn decode_fp4(bytes: &[u8], out: &mut [f32]) {
    decode_with(bytes, out, &FP4);
}

fn decode_with(bytes: &[u8], out: &mut [f32], table: &[f32; 16]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the instructions are there, as was just asked.
        return decode_blocks(bytes, out, |bytes, out| unsafe {
            x86::decode(bytes, out, table)
        });
    }
    decode_blocks(bytes, out, |bytes, out| decode_block(bytes, out, table));
}

fn decode_block(bytes: &[u8; BYTES], out: &mut [f32; BLOCK], table: &[f32; 16]) {
    let absmax = absmax(bytes);
    for (byte, [high, low]) in bytes[4..].iter().zip(out.as_chunks_mut::<2>().0) {
        *high = table[usize::from(byte >> 4)] * absmax;
        *low = table[usize::from(byte & 15)] * absmax;
    }
}

fn absmax(bytes: &[u8; BYTES]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The table in two registers.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK, BYTES, absmax};

    /// # Safety
    ///
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn decode(bytes: &[u8; BYTES], out: &mut [f32; BLOCK], table: &[f32; 16]) {
        let scale = _mm256_set1_ps(absmax(bytes));
        let mask = _mm_set1_epi8(15);
        // SAFETY: loads and stores are of parts of arrays, and need no alignment.
        unsafe {
            let lower = _mm256_loadu_ps(table.as_ptr());
            let upper = _mm256_loadu_ps(table[8..].as_ptr());
            for (bytes, out) in bytes[4..]
                .as_chunks::<16>()
                .0
                .iter()
                .zip(out.as_chunks_mut::<32>().0)
            {
                let both = _mm_loadu_si128(bytes.as_ptr().cast());
                let (low, high) = (
                    _mm_and_si128(both, mask),
                    _mm_and_si128(_mm_srli_epi16(both, 4), mask),
                );
                let codes = [_mm_unpacklo_epi8(high, low), _mm_unpackhi_epi8(high, low)];
                for (codes, out) in codes.into_iter().zip(out.as_chunks_mut::<16>().0) {
                    let parts = [codes, _mm_srli_si128(codes, 8)];
                    for (codes, out) in parts.into_iter().zip(out.as_chunks_mut::<8>().0) {
                        let codes = _mm256_cvtepu8_epi32(codes);
                        // The fourth bit chooses the half of the table.
                        let is_upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes));
                        let numbers = _mm256_blendv_ps(
                            _mm256_permutevar8x32_ps(lower, codes),
                            _mm256_permutevar8x32_ps(upper, codes),
                            is_upper,
                        );
                        _mm256_storeu_ps(out.as_mut_ptr(), _mm256_mul_ps(numbers, scale));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_decoded_alike_with_and_without_vectors() {
        let mut bytes = [0; BYTES];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = (i * 37 % 256) as u8;
        }
        bytes[..4].copy_from_slice(&0.75f32.to_le_bytes());
        for table in [&NF4, &FP4] {
            let (mut found, mut expected) = ([f32::NAN; BLOCK], [0.0; BLOCK]);
            decode_with(&bytes, &mut found, table);
            decode_block(&bytes, &mut expected, table);
            assert_eq!(found.map(f32::to_bits), expected.map(f32::to_bits));
        }
    }

    #[test]
    fn codes_of_fp4_are_in_order() {
        let numbers = FP4_ORDER.map(|code| FP4[usize::from(code)]);
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
}
