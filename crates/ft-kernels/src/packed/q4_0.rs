//! `Q4_0`: 32 numbers of 4 bits and a scale, `w = d·(q − 8)`.
//!
//! Bytes: `d` in 16 bits; 16 bytes with numbers 0 to 15 in the low and 16 to 31 in the high halves.

use multiversion::multiversion;

use super::bits::*;
use super::search;

pub(crate) const BLOCK: usize = 32;
pub(crate) const BYTES: usize = 18;

/// Round to nearest. The number of the largest magnitude becomes −8.
pub(super) fn encode(x: &[f32], out: &mut [u8]) {
    encode_blocks(x, out, |x: &[f32; BLOCK], out: &mut [u8; BYTES]| {
        let d = largest(x) / -8.0;
        let inverse = inverse(d);
        put_half(out, 0, d);
        let q = x.map(|x| whole(x * inverse + 8.5).min(15));
        put_nibbles(&q, &mut out[2..]);
    });
}

/// The scale of a row's blocks with the least weighted error.
pub(super) fn encode_weighted(row: &[f32], importance: &[f32], out: &mut [u8]) {
    let variance = sum_of_squares(row) / row.len() as f32;
    encode_weighted_blocks(row, importance, out, |x: &[f32; BLOCK], importance, out| {
        let weights = error_weights(x, importance, variance);
        // One group.
        let ([d], q) = search::symmetric(&x.map(|x| [x]), 8, &weights.map(|w| [w]));
        let q = q.map(|[q]| q);
        let out: &mut [u8; BYTES] = out;
        put_half(out, 0, d);
        put_nibbles(&q, &mut out[2..]);
    });
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |bytes: &[u8; BYTES], out: &mut [f32; BLOCK]| {
        let d = half(bytes, 0);
        for j in 0..16 {
            let q = bytes[2 + j];
            out[j] = (i32::from(q & 15) - 8) as f32 * d;
            out[j + 16] = (i32::from(q >> 4) - 8) as f32 * d;
        }
    });
}
