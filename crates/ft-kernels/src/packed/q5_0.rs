//! `Q5_0`: 32 numbers of 5 bits and a scale, `w = d·(q − 16)`.
//!
//! Bytes: `d` in 16 bits; 4 bytes with the fifth bit of each number; 16 bytes with the other bits of numbers 0 to 15 in
//! the low and 16 to 31 in the high halves.

use multiversion::multiversion;

use super::bits::*;
use super::search;

pub(crate) const BLOCK: usize = 32;
pub(crate) const BYTES: usize = 22;

/// Round to nearest. The number of the largest magnitude becomes −16.
pub(super) fn encode(x: &[f32], out: &mut [u8]) {
    encode_blocks(x, out, |x: &[f32; BLOCK], out: &mut [u8; BYTES]| {
        let d = largest(x) / -16.0;
        let inverse = inverse(d);
        put_half(out, 0, d);
        let q = x.map(|x| whole(x * inverse + 16.5).min(31));
        put_five_bits(&q, &mut out[2..]);
    });
}

/// The scale of a row's blocks with the least weighted error.
pub(super) fn encode_weighted(row: &[f32], importance: &[f32], out: &mut [u8]) {
    let variance = sum_of_squares(row) / row.len() as f32;
    encode_weighted_blocks(row, importance, out, |x: &[f32; BLOCK], importance, out| {
        let weights = error_weights(x, importance, variance);
        // One group.
        let ([d], q) = search::symmetric(&x.map(|x| [x]), 16, &weights.map(|w| [w]));
        let q = q.map(|[q]| q);
        let out: &mut [u8; BYTES] = out;
        put_half(out, 0, d);
        put_five_bits(&q, &mut out[2..]);
    });
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |bytes: &[u8; BYTES], out: &mut [f32; BLOCK]| {
        let d = half(bytes, 0);
        let q = five_bits(bytes, 2);
        for (out, q) in out.iter_mut().zip(q) {
            *out = (i32::from(q) - 16) as f32 * d;
        }
    });
}

/// 4 bytes with the fifth bits, then 16 bytes with the others.
pub(super) fn put_five_bits(q: &[u8; BLOCK], out: &mut [u8]) {
    let fifth = (0..BLOCK).fold(0, |bits, j| bits | u32::from(q[j] >> 4) << j);
    out[..4].copy_from_slice(&fifth.to_le_bytes());
    put_nibbles(q, &mut out[4..]);
}

#[inline(always)]
pub(super) fn five_bits(bytes: &[u8], at: usize) -> [u8; BLOCK] {
    let fifth = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mut q = [0; BLOCK];
    for j in 0..16 {
        let byte = bytes[at + 4 + j];
        q[j] = (byte & 15) | ((fifth >> j) as u8 & 1) << 4;
        q[j + 16] = (byte >> 4) | ((fifth >> (j + 16)) as u8 & 1) << 4;
    }
    q
}
