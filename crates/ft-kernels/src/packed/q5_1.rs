//! `Q5_1`: 32 numbers of 5 bits, a scale and a minimum, `w = d·q + m`.
//!
//! Bytes: `d` and `m` in 16 bits; then as in `Q5_0`.

use multiversion::multiversion;

use super::bits::*;
use super::q5_0::{five_bits, put_five_bits};
use super::search::{self, STEPS};

pub(crate) const BLOCK: usize = 32;
pub(crate) const BYTES: usize = 24;

/// Round to nearest between the least and the greatest number.
pub(super) fn encode(x: &[f32], out: &mut [u8]) {
    encode_blocks(x, out, |x: &[f32; BLOCK], out: &mut [u8; BYTES]| {
        let (min, max) = bounds(x);
        let d = (max - min) / 31.0;
        let inverse = inverse(d);
        put_half(out, 0, d);
        put_half(out, 2, min);
        let q = x.map(|x| whole((x - min) * inverse + 0.5) & 31);
        put_five_bits(&q, &mut out[4..]);
    });
}

/// Scale and minimum of a row's blocks with the least weighted error.
pub(super) fn encode_weighted(row: &[f32], importance: &[f32], out: &mut [u8]) {
    let variance = sum_of_squares(row) / row.len() as f32;
    encode_weighted_blocks(row, importance, out, |x: &[f32; BLOCK], importance, out| {
        let weights = error_weights(x, importance, variance);
        // One group.
        let fit = search::with_minimum(&x.map(|x| [x]), 31, &weights.map(|w| [w]), &STEPS);
        let ([d], [min], q) = (fit.scales, fit.minima, fit.q.map(|[q]| q));
        let out: &mut [u8; BYTES] = out;
        put_half(out, 0, d);
        put_half(out, 2, -min);
        put_five_bits(&q, &mut out[4..]);
    });
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |bytes: &[u8; BYTES], out: &mut [f32; BLOCK]| {
        let (d, m) = (half(bytes, 0), half(bytes, 2));
        let q = five_bits(bytes, 4);
        for (out, q) in out.iter_mut().zip(q) {
            *out = f32::from(q) * d + m;
        }
    });
}
