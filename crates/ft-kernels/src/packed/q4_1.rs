//! `Q4_1`: 32 numbers of 4 bits, a scale and a minimum, `w = d·q + m`.
//!
//! Bytes: `d` and `m` in 16 bits; 16 bytes with numbers 0 to 15 in the low and 16 to 31 in the high halves.

use multiversion::multiversion;

use super::bits::*;
use super::search::{self, STEPS};

pub(crate) const BLOCK: usize = 32;
pub(crate) const BYTES: usize = 20;

/// Round to nearest between the least and the greatest number.
pub(super) fn encode(x: &[f32], out: &mut [u8]) {
    encode_blocks(x, out, |x: &[f32; BLOCK], out: &mut [u8; BYTES]| {
        let (min, max) = bounds(x);
        let d = (max - min) / 15.0;
        let inverse = inverse(d);
        put_half(out, 0, d);
        put_half(out, 2, min);
        let q = x.map(|x| whole((x - min) * inverse + 0.5).min(15));
        put_nibbles(&q, &mut out[4..]);
    });
}

/// Scale and minimum of a row's blocks with the least weighted error.
pub(super) fn encode_weighted(row: &[f32], importance: &[f32], out: &mut [u8]) {
    let variance = sum_of_squares(row) / row.len() as f32;
    encode_weighted_blocks(row, importance, out, |x: &[f32; BLOCK], importance, out| {
        let weights = error_weights(x, importance, variance);
        // One group.
        let fit = search::with_minimum(&x.map(|x| [x]), 15, &weights.map(|w| [w]), &STEPS);
        let ([d], [min], q) = (fit.scales, fit.minima, fit.q.map(|[q]| q));
        let out: &mut [u8; BYTES] = out;
        put_half(out, 0, d);
        put_half(out, 2, -min);
        put_nibbles(&q, &mut out[4..]);
    });
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |bytes: &[u8; BYTES], out: &mut [f32; BLOCK]| {
        let (d, m) = (half(bytes, 0), half(bytes, 2));
        for j in 0..16 {
            let q = bytes[4 + j];
            out[j] = f32::from(q & 15) * d + m;
            out[j + 16] = f32::from(q >> 4) * d + m;
        }
    });
}
