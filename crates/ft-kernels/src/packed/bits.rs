//! What the block formats share: whole blocks of a slice, 16-bit scales, and the roundings of ggml.

use burn::tensor::f16;

/// Calls `encode` with every block of numbers and its bytes.
///
/// # Panics
///
/// If the slices are not the same number of whole blocks.
pub(super) fn encode_blocks<const N: usize, const B: usize>(
    x: &[f32],
    out: &mut [u8],
    encode: impl Fn(&[f32; N], &mut [u8; B]),
) {
    let ((x, x_rest), (out, out_rest)) = (x.as_chunks::<N>(), out.as_chunks_mut::<B>());
    assert!(
        x_rest.is_empty() && out_rest.is_empty() && x.len() == out.len(),
        "numbers and bytes are the same number of whole blocks"
    );
    for (x, out) in x.iter().zip(out) {
        encode(x, out);
    }
}

/// The same with the importance of every number, which is that of its column.
pub(super) fn encode_weighted_blocks<const N: usize, const B: usize>(
    x: &[f32],
    importance: &[f32],
    out: &mut [u8],
    encode: impl Fn(&[f32; N], &[f32; N], &mut [u8; B]),
) {
    assert_eq!(x.len(), importance.len(), "every number has an importance");
    let (importance, _) = importance.as_chunks::<N>();
    let mut importance = importance.iter();
    let ((x, x_rest), (out, out_rest)) = (x.as_chunks::<N>(), out.as_chunks_mut::<B>());
    assert!(
        x_rest.is_empty() && out_rest.is_empty() && x.len() == out.len(),
        "numbers and bytes are the same number of whole blocks"
    );
    for (x, out) in x.iter().zip(out) {
        if let Some(importance) = importance.next() {
            encode(x, importance, out);
        }
    }
}

/// Calls `decode` with the bytes of every block and its numbers.
///
/// # Panics
///
/// If the slices are not the same number of whole blocks.
#[inline(always)]
pub(super) fn decode_blocks<const N: usize, const B: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; B], &mut [f32; N]),
) {
    let ((bytes, bytes_rest), (out, out_rest)) = (bytes.as_chunks::<B>(), out.as_chunks_mut::<N>());
    assert!(
        bytes_rest.is_empty() && out_rest.is_empty() && bytes.len() == out.len(),
        "bytes and numbers are the same number of whole blocks"
    );
    for (bytes, out) in bytes.iter().zip(out) {
        decode(bytes, out);
    }
}

/// The 16-bit float at byte `at` of a block.
#[inline(always)]
pub(crate) fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Writes a 16-bit float at byte `at`, rounded to the nearest, and returns what was written.
pub(super) fn put_half(bytes: &mut [u8], at: usize, x: f32) -> f32 {
    let x = f16::from_f32(x);
    bytes[at..at + 2].copy_from_slice(&x.to_le_bytes());
    x.to_f32()
}

/// `1/x`, or 0 for 0.
pub(super) fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The number of the largest magnitude, the first if there are several.
pub(super) fn largest(x: &[f32]) -> f32 {
    let larger = |most: f32, x: &f32| if most.abs() < x.abs() { *x } else { most };
    x.iter().fold(0.0, larger)
}

/// The least and the greatest number.
pub(super) fn bounds(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::MAX, -f32::MAX), |(min, max), &x| {
        (if x < min { x } else { min }, if x > max { x } else { max })
    })
}

/// The whole part, its lowest 8 bits. What has no `i32` is 0: the reciprocal of a subnormal scale is infinite.
pub(super) fn whole(x: f32) -> u8 {
    if x.abs() < 2_147_483_648.0 {
        x as i32 as u8
    } else {
        0
    }
}

/// The nearest integer, the even one of two that are equally near, for `|x| < 2²²`.
///
/// With 1.5·2²³ added, the last bit of the mantissa is worth 1.
#[inline(always)]
pub(super) fn nearest(x: f32) -> i32 {
    ((x + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// The sum of squares in the order of the numbers.
pub(super) fn sum_of_squares(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, x| sum + x * x)
}

/// The weight of a number's error in a search of scales that knows the importance of columns: `importance·√(σ² + x²)`.
pub(super) fn error_weights<const N: usize>(
    x: &[f32; N],
    importance: &[f32; N],
    variance: f32,
) -> [f32; N] {
    std::array::from_fn(|i| importance[i] * (variance + x[i] * x[i]).sqrt())
}

/// The sums of `G` groups of numbers that follow each other, each in the order of its numbers.
pub(super) fn sums_of_groups<const G: usize>(x: &[f32]) -> [f32; G] {
    let size = x.len() / G;
    std::array::from_fn(|j| x[size * j..][..size].iter().fold(0.0, |sum, x| sum + x))
}

/// Two numbers of 4 bits a byte: `q[j]` low, `q[j + N/2]` high.
pub(super) fn put_nibbles<const N: usize>(q: &[u8; N], out: &mut [u8]) {
    let (low, high) = q.split_at(N / 2);
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = (low & 15) | (high & 15) << 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_to_even() {
        let found: Vec<i32> = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.500_001, 63.4]
            .map(nearest)
            .into();
        assert_eq!(found, [-2, -2, 0, 0, 2, 2, 3, 63]);
    }

    #[test]
    fn what_has_no_whole_part_is_zero() {
        assert_eq!(
            [f32::NAN, f32::INFINITY, -3e9, 7.9].map(whole),
            [0, 0, 0, 7]
        );
    }
}
