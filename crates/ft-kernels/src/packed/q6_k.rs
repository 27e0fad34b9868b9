//! `Q6_K`: 256 numbers of 6 bits in groups of 16, whose scales have 8 bits, `w = d·s·(q − 32)`.
//!
//! Bytes: 128 with the lower four bits, of which each 64 hold 128 numbers, the first 64 in the low halves; 64 with the
//! upper two bits as in `Q2_K`; 16 signed scales; `d` in 16 bits.

use multiversion::multiversion;

use super::bits::*;
use super::q2_k::put_pairs;
use super::search::{self, Lanes, one_by_one, side_by_side};

pub(crate) const BLOCK: usize = 256;
pub(crate) const BYTES: usize = 210;

/// Scales of groups by a search whose weights are the squares of the numbers.
pub(super) fn encode(x: &[f32], out: &mut [u8]) {
    encode_blocks(x, out, |x: &[f32; BLOCK], out: &mut [u8; BYTES]| {
        encode_block(x, &x.map(|x| x * x), out);
    });
}

/// The same with the importance of columns as weights.
pub(super) fn encode_weighted(row: &[f32], importance: &[f32], out: &mut [u8]) {
    encode_weighted_blocks(row, importance, out, encode_block);
}

fn encode_block(x: &[f32; BLOCK], weights: &[f32; BLOCK], out: &mut [u8; BYTES]) {
    let lanes: Lanes<f32, 16, 16> = side_by_side(x);
    let (scales, levels) = search::symmetric(&lanes, 32, &side_by_side(weights));
    let mut q = [0; BLOCK];
    one_by_one(&levels, &mut q);
    let max_scale = largest(&scales);
    out.fill(0);
    if max_scale.abs() < 1e-15 {
        return;
    }
    let inverse = -128.0 / max_scale;
    let d = put_half(out, 208, 1.0 / inverse);
    for (j, scale) in scales.iter().enumerate() {
        let scale = nearest(inverse * scale).min(127) as i8;
        out[192 + j] = scale.cast_unsigned();
        let d = d * f32::from(scale);
        if d != 0.0 {
            for i in 16 * j..16 * (j + 1) {
                q[i] = (nearest(x[i] / d).clamp(-32, 31) + 32) as u8;
            }
        }
    }
    for (q, out) in q
        .as_chunks::<128>()
        .0
        .iter()
        .zip(out[..128].chunks_exact_mut(64))
    {
        put_nibbles(q, out);
    }
    put_pairs(&q.map(|q| q >> 4), &mut out[128..192]);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |bytes: &[u8; BYTES], out: &mut [f32; BLOCK]| {
        let d = half(bytes, 208);
        for (j, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let d = d * f32::from(bytes[192 + j].cast_signed());
            let low = &bytes[j / 8 * 64 + j % 4 * 16..][..16];
            let high = &bytes[128 + j / 8 * 32 + j % 2 * 16..][..16];
            let (low_shift, high_shift) = (j / 4 % 2 * 4, j / 2 % 4 * 2);
            for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
                let q = (low >> low_shift & 15) | (high >> high_shift & 3) << 4;
                *out = d * (i32::from(q) - 32) as f32;
            }
        }
    });
}
