//! `Q3_K`: 256 numbers of 3 bits in groups of 16, whose scales have 6 bits, `w = d·(s − 32)·(q − 4)`.
//!
//! Bytes: 32 with the third bits, bit `k` of byte `j` for number `32k + j`; 64 with the other bits as in `Q2_K`; 12 with
//! the scales; `d` in 16 bits.

use multiversion::multiversion;

use super::bits::*;
use super::q2_k::put_pairs;
use super::q4_k::words;
use super::search::{self, Lanes, one_by_one, side_by_side};

pub(crate) const BLOCK: usize = 256;
pub(crate) const BYTES: usize = 110;

/// Scales of groups by a search whose weights are the squares of the numbers.
pub(super) fn encode(x: &[f32], out: &mut [u8]) {
    encode_blocks(x, out, |x: &[f32; BLOCK], out: &mut [u8; BYTES]| {
        let lanes: Lanes<f32, 16, 16> = side_by_side(x);
        let (scales, levels) = search::symmetric_by_level(&lanes, 4);
        let mut q = [0; BLOCK];
        one_by_one(&levels, &mut q);
        let max_scale = largest(&scales);
        out[96..].fill(0);
        if max_scale != 0.0 {
            let inverse = -32.0 / max_scale;
            put_scales(
                scales.map(|scale| (nearest(inverse * scale).clamp(-32, 31) + 32) as u8),
                out,
            );
            put_half(out, 108, 1.0 / inverse);
        }
        finish(x, &mut q, out);
    });
}

/// Scales with the least weighted error.
pub(super) fn encode_weighted(row: &[f32], importance: &[f32], out: &mut [u8]) {
    encode_weighted_blocks(row, importance, out, |x: &[f32; BLOCK], importance, out| {
        let out: &mut [u8; BYTES] = out;
        let weights = error_weights(x, importance, 2.0 * sum_of_squares(x) / BLOCK as f32);
        let lanes: Lanes<f32, 16, 16> = side_by_side(x);
        let (scales, levels) = search::symmetric(&lanes, 4, &side_by_side(&weights));
        let mut q = [0; BLOCK];
        one_by_one(&levels, &mut q);
        let sums = sums_of_groups::<16>(&weights);
        let ([d], s) = search::symmetric(&scales.map(|s| [s]), 32, &sums.map(|w| [w]));
        let s = s.map(|[s]| s);
        out[96..].fill(0);
        put_scales(s, out);
        put_half(out, 108, d);
        finish(x, &mut q, out);
    });
}

/// 6 bits each: the lower four of `s[j]` in half a byte, those of `s[j + 8]` in the other; the upper two in the last four.
fn put_scales(s: [u8; 16], out: &mut [u8; BYTES]) {
    let out = &mut out[96..108];
    for j in 0..8 {
        out[j] = (s[j] & 15) | (s[j + 8] & 15) << 4;
    }
    for (j, s) in s.iter().enumerate() {
        out[8 + j % 4] |= (s >> 4) << (j / 4 * 2);
    }
}

/// Scales of the groups, from −32 to 31, from their 12 bytes.
#[inline(always)]
pub(crate) fn scales(bytes: &[u8; 12]) -> [i8; 16] {
    // Four of them at a time, as the bytes of a word.
    let [a, b, c] = words(bytes);
    let mut scales = [0; 16];
    let low = [a, b, a >> 4, b >> 4].map(|x| x & 0x0f0f_0f0f);
    for (i, (low, four)) in low
        .into_iter()
        .zip(scales.as_chunks_mut::<4>().0)
        .enumerate()
    {
        let high = c >> (2 * i) & 0x0303_0303;
        *four = (low | high << 4)
            .to_le_bytes()
            .map(|s| s.cast_signed() - 32);
    }
    scales
}

#[inline(always)]
fn twelve(block: &[u8; BYTES]) -> &[u8; 12] {
    block[96..].first_chunk().expect("a block is longer")
}

/// Rounds the numbers with the scales as they are stored. A group with scale 0 keeps the levels of its search.
fn finish(x: &[f32; BLOCK], q: &mut [u8; BLOCK], out: &mut [u8; BYTES]) {
    let (d, scales) = (half(out, 108), scales(twelve(out)));
    for (j, scale) in scales.iter().enumerate() {
        let d = d * f32::from(*scale);
        if d != 0.0 {
            for i in 16 * j..16 * (j + 1) {
                q[i] = (nearest(x[i] / d).clamp(-4, 3) + 4) as u8;
            }
        }
    }
    out[..32].fill(0);
    for (i, q) in q.iter_mut().enumerate() {
        out[i % 32] |= (*q >> 2) << (i / 32);
        *q &= 3;
    }
    put_pairs(q, &mut out[32..96]);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |bytes: &[u8; BYTES], out: &mut [f32; BLOCK]| {
        let (d, scales) = (half(bytes, 108), scales(twelve(bytes)));
        for (j, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let d = d * f32::from(scales[j]);
            let third = &bytes[j % 2 * 16..][..16];
            let q = &bytes[32 + j / 8 * 32 + j % 2 * 16..][..16];
            let (shift, bit) = (j / 2 % 4 * 2, j / 2);
            for (out, (q, third)) in out.iter_mut().zip(q.iter().zip(third)) {
                let q = (q >> shift & 3) | (third >> bit & 1) << 2;
                *out = d * (i32::from(q) - 4) as f32;
            }
        }
    });
}
