//! `Q2_K`: 256 numbers of 2 bits in groups of 16, whose scales and minima have 4 bits, `w = d·s·q − m·t`.
//!
//! Bytes: a byte for each group with `s` in the low and `t` in the high half; 64 bytes, of which each 32 hold 128
//! numbers, 2 bits of a byte for each 32; `d` and `m` in 16 bits.

use multiversion::multiversion;

use super::bits::*;
use super::search::{self, Lanes, STEPS, Steps, one_by_one, side_by_side};

pub(crate) const BLOCK: usize = 256;
pub(crate) const BYTES: usize = 84;

/// Of round to nearest.
const NEAREST: Steps = Steps {
    first: -0.5,
    step: 0.1,
    last: 15,
    magnitudes: true,
};

/// Scales and minima of groups by a search whose weights are the magnitudes of the numbers.
pub(super) fn encode(x: &[f32], out: &mut [u8]) {
    encode_blocks(x, out, |x: &[f32; BLOCK], out: &mut [u8; BYTES]| {
        let lanes: Lanes<f32, 16, 16> = side_by_side(x);
        let weights = lanes.map(|x| x.map(f32::abs));
        let fit = search::with_minimum(&lanes, 3, &weights, &NEAREST);
        let (scales, minima) = (fit.scales, fit.minima);
        let mut q = [0; BLOCK];
        one_by_one(&fit.q, &mut q);
        let max_scale = scales
            .iter()
            .fold(0.0, |max: f32, x| if *x > max { *x } else { max });
        let max_min = minima
            .iter()
            .fold(0.0, |max: f32, x| if *x > max { *x } else { max });
        out[..16].fill(0);
        if max_scale > 0.0 {
            let inverse = 15.0 / max_scale;
            for (out, scale) in out[..16].iter_mut().zip(scales) {
                *out = nearest(inverse * scale) as u8;
            }
        }
        if max_min > 0.0 {
            let inverse = 15.0 / max_min;
            for (out, min) in out[..16].iter_mut().zip(minima) {
                *out |= (nearest(inverse * min) << 4) as u8;
            }
        }
        put_half(
            out,
            80,
            if max_scale > 0.0 {
                max_scale / 15.0
            } else {
                0.0
            },
        );
        put_half(out, 82, if max_min > 0.0 { max_min / 15.0 } else { 0.0 });
        finish(x, &mut q, out);
    });
}

/// Scales and minima with the least weighted error.
pub(super) fn encode_weighted(row: &[f32], importance: &[f32], out: &mut [u8]) {
    encode_weighted_blocks(row, importance, out, |x: &[f32; BLOCK], importance, out| {
        let out: &mut [u8; BYTES] = out;
        let weights = error_weights(x, importance, sum_of_squares(x) / BLOCK as f32);
        let lanes: Lanes<f32, 16, 16> = side_by_side(x);
        let fit = search::with_minimum(&lanes, 3, &side_by_side(&weights), &STEPS);
        let mut q = [0; BLOCK];
        one_by_one(&fit.q, &mut q);
        let sums = sums_of_groups::<16>(&weights);
        let (mut s, mut t) = ([0; 16], [0; 16]);
        let d = search::positive(&fit.scales, 15, &sums, &mut s);
        let m = search::positive(&fit.minima, 15, &sums, &mut t);
        for (out, (s, t)) in out[..16].iter_mut().zip(s.iter().zip(t)) {
            *out = s | t << 4;
        }
        put_half(out, 80, d);
        put_half(out, 82, m);
        finish(x, &mut q, out);
    });
}

/// Rounds the numbers with the scales as they are stored. A group with scale 0 keeps the levels of its search.
fn finish(x: &[f32; BLOCK], q: &mut [u8; BLOCK], out: &mut [u8; BYTES]) {
    let (d, m) = (half(out, 80), half(out, 82));
    let groups = x.as_chunks::<16>().0.iter().zip(q.as_chunks_mut::<16>().0);
    for ((x, q), scales) in groups.zip(&out[..16]) {
        let (d, m) = (d * f32::from(scales & 15), m * f32::from(scales >> 4));
        if d != 0.0 {
            *q = x.map(|x| nearest((x + m) / d).clamp(0, 3) as u8);
        }
    }
    put_pairs(q, &mut out[16..80]);
}

/// Four numbers of 2 bits a byte: those of a byte are 32 apart.
pub(super) fn put_pairs(q: &[u8; BLOCK], out: &mut [u8]) {
    for (i, out) in out.iter_mut().enumerate() {
        let first = i / 32 * 128 + i % 32;
        *out = q[first] | q[first + 32] << 2 | q[first + 64] << 4 | q[first + 96] << 6;
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |bytes: &[u8; BYTES], out: &mut [f32; BLOCK]| {
        let (d, m) = (half(bytes, 80), half(bytes, 82));
        for (j, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (d, m) = (d * f32::from(bytes[j] & 15), m * f32::from(bytes[j] >> 4));
            // Group j is half a row of 32 bytes, of which it has two bits.
            let q = &bytes[16 + j / 8 * 32 + j % 2 * 16..][..16];
            let shift = j / 2 % 4 * 2;
            for (out, q) in out.iter_mut().zip(q) {
                *out = d * f32::from(q >> shift & 3) - m;
            }
        }
    });
}
