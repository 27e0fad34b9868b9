//! `Q4_K`: 256 numbers of 4 bits in groups of 32, whose scales and minima have 6 bits, `w = d·s·q − m·t`.
//!
//! Bytes: `d` and `m` in 16 bits; 12 with scales and minima; 128, of which each 32 hold two groups, one in the low and one
//! in the high halves.

use multiversion::multiversion;

use super::bits::*;
use super::search::{self, Lanes, STEPS, Steps, one_by_one, side_by_side};

pub(crate) const BLOCK: usize = 256;
pub(crate) const BYTES: usize = 144;

/// Of round to nearest.
const NEAREST: Steps = Steps {
    first: -1.0,
    step: 0.1,
    last: 20,
    magnitudes: false,
};

/// Scales and minima of groups by a search whose weights are magnitudes, added to the root of their mean square.
pub(super) fn encode(x: &[f32], out: &mut [u8]) {
    encode_blocks(x, out, |x: &[f32; BLOCK], out: &mut [u8; BYTES]| {
        let q = encode_groups(x, 15, &NEAREST, out);
        put_groups(&q, &mut out[16..]);
    });
}

/// Scales and minima with the least weighted error.
pub(super) fn encode_weighted(row: &[f32], importance: &[f32], out: &mut [u8]) {
    encode_weighted_blocks(row, importance, out, |x: &[f32; BLOCK], importance, out| {
        let out: &mut [u8; BYTES] = out;
        let q = encode_weighted_groups(x, importance, 15, out);
        put_groups(&q, &mut out[16..]);
    });
}

/// Writes the first 16 bytes, also of `Q5_K`, and returns the levels, which are at most `n`.
pub(super) fn encode_groups(
    x: &[f32; BLOCK],
    n: i32,
    steps: &Steps,
    out: &mut [u8],
) -> [u8; BLOCK] {
    let lanes: Lanes<f32, 8, 32> = side_by_side(x);
    let roots: [f32; 8] =
        std::array::from_fn(|j| (sum_of_squares(&x[32 * j..][..32]) / 32.0).sqrt());
    let weights = lanes.map(|x| std::array::from_fn(|j| roots[j] + x[j].abs()));
    let fit = search::with_minimum(&lanes, n, &weights, steps);
    let (scales, minima) = (fit.scales, fit.minima);
    let mut q = [0; BLOCK];
    one_by_one(&fit.q, &mut q);
    let max_scale = scales
        .iter()
        .fold(0.0, |max: f32, x| if *x > max { *x } else { max });
    let max_min = minima
        .iter()
        .fold(0.0, |max: f32, x| if *x > max { *x } else { max });
    let six_bits = |x: [f32; 8], max: f32| {
        let inverse = if max > 0.0 { 63.0 / max } else { 0.0 };
        x.map(|x| (nearest(inverse * x) as u8).min(63))
    };
    put_scales(
        &six_bits(scales, max_scale),
        &six_bits(minima, max_min),
        out,
    );
    put_half(out, 0, max_scale / 63.0);
    put_half(out, 2, max_min / 63.0);
    round(x, n, &mut q, out);
    q
}

/// The same with the importance of columns.
pub(super) fn encode_weighted_groups(
    x: &[f32; BLOCK],
    importance: &[f32; BLOCK],
    n: i32,
    out: &mut [u8],
) -> [u8; BLOCK] {
    let weights = error_weights(x, importance, 2.0 * sum_of_squares(x) / BLOCK as f32);
    let lanes: Lanes<f32, 8, 32> = side_by_side(x);
    let fit = search::with_minimum(&lanes, n, &side_by_side(&weights), &STEPS);
    let mut q = [0; BLOCK];
    one_by_one(&fit.q, &mut q);
    let sums = sums_of_groups::<8>(&weights);
    let (mut s, mut t) = ([0; 8], [0; 8]);
    let d = search::positive(&fit.scales, 63, &sums, &mut s);
    let m = search::positive(&fit.minima, 63, &sums, &mut t);
    put_scales(&s, &t, out);
    put_half(out, 0, d);
    put_half(out, 2, m);
    round(x, n, &mut q, out);
    q
}

/// Rounds the numbers with the scales as they are stored. A group with scale 0 keeps the levels of its search.
fn round(x: &[f32; BLOCK], n: i32, q: &mut [u8; BLOCK], out: &[u8]) {
    let (d, m) = (half(out, 0), half(out, 2));
    let (s, t) = scales(twelve(out));
    for j in 0..8 {
        let (d, m) = (d * f32::from(s[j]), m * f32::from(t[j]));
        if d != 0.0 {
            for i in 32 * j..32 * (j + 1) {
                q[i] = nearest((x[i] + m) / d).clamp(0, n) as u8;
            }
        }
    }
}

/// 6 bits each: those of the first four groups in the lower bits of a byte each; those of the others in the halves of four
/// bytes and the upper bits of the first eight.
fn put_scales(s: &[u8; 8], t: &[u8; 8], out: &mut [u8]) {
    let out = &mut out[4..16];
    for j in 0..4 {
        out[j] = s[j] | (s[j + 4] >> 4) << 6;
        out[j + 4] = t[j] | (t[j + 4] >> 4) << 6;
        out[j + 8] = (s[j + 4] & 15) | (t[j + 4] & 15) << 4;
    }
}

/// Scales and minima from their 12 bytes.
#[inline(always)]
pub(crate) fn scales(bytes: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    // Four of them at a time, as the bytes of a word.
    let [a, b, c] = words(bytes);
    let low = [a, b].map(|x| x & 0x3f3f_3f3f);
    let high = [
        (c & 0x0f0f_0f0f) | (a >> 6 & 0x0303_0303) << 4,
        (c >> 4 & 0x0f0f_0f0f) | (b >> 6 & 0x0303_0303) << 4,
    ];
    let both = |i: usize| (u64::from(low[i]) | u64::from(high[i]) << 32).to_le_bytes();
    (both(0), both(1))
}

/// Where they are in a block, also of `Q5_K`.
#[inline(always)]
pub(super) fn twelve(block: &[u8]) -> &[u8; 12] {
    block[4..].first_chunk().expect("a block is longer")
}

#[inline(always)]
pub(super) fn words(bytes: &[u8; 12]) -> [u32; 3] {
    let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    [word(0), word(4), word(8)]
}

/// The lower four bits of all numbers.
pub(super) fn put_groups(q: &[u8; BLOCK], out: &mut [u8]) {
    for (q, out) in q.as_chunks::<64>().0.iter().zip(out.chunks_exact_mut(32)) {
        put_nibbles(q, out);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |bytes: &[u8; BYTES], out: &mut [f32; BLOCK]| {
        let (d, m) = (half(bytes, 0), half(bytes, 2));
        let (s, t) = scales(twelve(bytes));
        for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (d, m) = (d * f32::from(s[j]), m * f32::from(t[j]));
            let q = &bytes[16 + j / 2 * 32..][..32];
            let shift = j % 2 * 4;
            for (out, q) in out.iter_mut().zip(q) {
                *out = d * f32::from(q >> shift & 15) - m;
            }
        }
    });
}
