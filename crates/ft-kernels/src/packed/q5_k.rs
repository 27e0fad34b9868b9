//! `Q5_K`: 256 numbers of 5 bits in groups of 32, whose scales and minima have 6 bits, `w = d·s·q − m·t`.
//!
//! Bytes: 16 as in `Q4_K`; 32 with the fifth bits, bit `k` of byte `j` for number `32k + j`; the other bits as in `Q4_K`.

use multiversion::multiversion;

use super::bits::*;
use super::q4_k::{encode_groups, encode_weighted_groups, put_groups, scales, twelve};
use super::search::Steps;

pub(crate) const BLOCK: usize = 256;
pub(crate) const BYTES: usize = 176;

/// Of round to nearest.
const NEAREST: Steps = Steps {
    first: -0.5,
    step: 0.1,
    last: 15,
    magnitudes: false,
};

/// Scales and minima of groups by a search whose weights are magnitudes, added to the root of their mean square.
pub(super) fn encode(x: &[f32], out: &mut [u8]) {
    encode_blocks(x, out, |x: &[f32; BLOCK], out: &mut [u8; BYTES]| {
        let q = encode_groups(x, 31, &NEAREST, out);
        put_levels(&q, out);
    });
}

/// Scales and minima with the least weighted error.
pub(super) fn encode_weighted(row: &[f32], importance: &[f32], out: &mut [u8]) {
    encode_weighted_blocks(row, importance, out, |x: &[f32; BLOCK], importance, out| {
        let out: &mut [u8; BYTES] = out;
        let q = encode_weighted_groups(x, importance, 31, out);
        put_levels(&q, out);
    });
}

fn put_levels(q: &[u8; BLOCK], out: &mut [u8; BYTES]) {
    out[16..48].fill(0);
    for (i, q) in q.iter().enumerate() {
        out[16 + i % 32] |= (q >> 4) << (i / 32);
    }
    put_groups(q, &mut out[48..]);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |bytes: &[u8; BYTES], out: &mut [f32; BLOCK]| {
        let (d, m) = (half(bytes, 0), half(bytes, 2));
        let (s, t) = scales(twelve(bytes));
        for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (d, m) = (d * f32::from(s[j]), m * f32::from(t[j]));
            let (fifth, q) = (&bytes[16..48], &bytes[48 + j / 2 * 32..][..32]);
            let shift = j % 2 * 4;
            for (out, (q, fifth)) in out.iter_mut().zip(q.iter().zip(fifth)) {
                let q = (q >> shift & 15) | (fifth >> j & 1) << 4;
                *out = d * f32::from(q) - m;
            }
        }
    });
}
