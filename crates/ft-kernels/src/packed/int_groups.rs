//! Groups of integers with a scale and a zero point, `w = s·(q − z)`: what GPTQ, AWQ, HQQ and compressed-tensors store, a group
//! a block.
//!
//! Bytes: `s` in 32 bits, `z` in 16 bits; then the integers, of 4 bits as in `Q4_0` for every 32 numbers, or of 8 bits. Integers
//! are not negative: formats with signed ones have a zero point that is larger by 8 or 128.

use multiversion::multiversion;

use super::bits::{bounds, decode_blocks, encode_blocks, half, put_half, put_nibbles};

/// Bytes before the integers.
pub(crate) const HEAD: usize = 6;

/// The bytes of a block with `N` integers of `BITS` bits.
pub(crate) const fn bytes(bits: usize, numbers: usize) -> usize {
    HEAD + numbers * bits / 8
}

/// Writes a group.
///
/// # Panics
///
/// If the sizes do not match, or there are not whole 32 integers.
pub(super) fn put_group(bits: usize, scale: f32, zero_point: f32, levels: &[u8], out: &mut [u8]) {
    assert_eq!(out.len(), bytes(bits, levels.len()), "bytes of a group");
    out[..4].copy_from_slice(&scale.to_le_bytes());
    put_half(out, 4, zero_point);
    let out = &mut out[HEAD..];
    match bits {
        4 => {
            let (levels, rest) = levels.as_chunks::<32>();
            assert!(rest.is_empty(), "whole 32 integers");
            for (levels, out) in levels.iter().zip(out.chunks_exact_mut(16)) {
                put_nibbles(levels, out);
            }
        }
        _ => out.copy_from_slice(levels),
    }
}

/// Reads a group: its scale and zero point.
///
/// # Panics
///
/// If the sizes do not match, or there are not whole 32 integers.
pub(super) fn get_group(bits: usize, group: &[u8], levels: &mut [u8]) -> (f32, f32) {
    assert_eq!(group.len(), bytes(bits, levels.len()), "bytes of a group");
    let integers = &group[HEAD..];
    match bits {
        4 => {
            let (levels, rest) = levels.as_chunks_mut::<32>();
            assert!(rest.is_empty(), "whole 32 integers");
            for (levels, bytes) in levels.iter_mut().zip(integers.chunks_exact(16)) {
                for (j, byte) in bytes.iter().enumerate() {
                    (levels[j], levels[j + 16]) = (byte & 15, byte >> 4);
                }
            }
        }
        _ => levels.copy_from_slice(integers),
    }
    grid(group)
}

/// Round to nearest on the grid from the least to the greatest number, which has zero.
pub(super) fn encode<const BITS: usize, const N: usize, const B: usize>(x: &[f32], out: &mut [u8]) {
    encode_blocks(x, out, |x: &[f32; N], out: &mut [u8; B]| {
        let (min, max) = bounds(x);
        let (min, max) = (min.min(0.0), max.max(0.0));
        let top = ((1 << BITS) - 1) as f32;
        let scale = match (max - min) / top {
            // The difference of the largest numbers is infinite.
            f32::INFINITY => max / top - min / top,
            scale if scale >= f32::MIN_POSITIVE => scale,
            _ => 1.0,
        };
        let zero_point = (-min / scale).round_ties_even();
        let level = |x: f32| ((x / scale).round_ties_even() + zero_point).clamp(0.0, top) as u8;
        put_group(BITS, scale, zero_point, &x.map(level), out);
    });
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn decode_4<const N: usize, const B: usize>(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |bytes: &[u8; B], out: &mut [f32; N]| {
        let (s, z) = grid(bytes);
        for (q, out) in bytes[HEAD..]
            .as_chunks::<16>()
            .0
            .iter()
            .zip(out.as_chunks_mut::<32>().0)
        {
            for j in 0..16 {
                out[j] = s * (f32::from(q[j] & 15) - z);
                out[j + 16] = s * (f32::from(q[j] >> 4) - z);
            }
        }
    });
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn decode_8<const N: usize, const B: usize>(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |bytes: &[u8; B], out: &mut [f32; N]| {
        let (s, z) = grid(bytes);
        for (q, out) in bytes[HEAD..].iter().zip(out) {
            *out = s * (f32::from(*q) - z);
        }
    });
}

#[inline(always)]
fn grid(bytes: &[u8]) -> (f32, f32) {
    let s = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    (s, half(bytes, 4))
}
