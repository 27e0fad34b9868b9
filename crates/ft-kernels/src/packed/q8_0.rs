//! `Q8_0`: 32 numbers of 8 bits and a scale, `w = d·q`.
//!
//! Bytes: `d` in 16 bits; 32 signed bytes.

use multiversion::multiversion;

use super::bits::*;

pub(crate) const BLOCK: usize = 32;
pub(crate) const BYTES: usize = 34;

/// Round to nearest. The number of the largest magnitude becomes 127 or −127.
pub(super) fn encode(x: &[f32], out: &mut [u8]) {
    encode_blocks(x, out, |x: &[f32; BLOCK], out: &mut [u8; BYTES]| {
        let d = largest(x).abs() / 127.0;
        let inverse = inverse(d);
        put_half(out, 0, d);
        for (out, x) in out[2..].iter_mut().zip(x) {
            *out = whole((x * inverse).round());
        }
    });
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |bytes: &[u8; BYTES], out: &mut [f32; BLOCK]| {
        let d = half(bytes, 0);
        for (out, q) in out.iter_mut().zip(&bytes[2..]) {
            *out = f32::from(q.cast_signed()) * d;
        }
    });
}
