//! `IQ4_NL`: 32 numbers of 4 bits that stand for the numbers of a table, and a scale, `w = d·table[q]`.
//!
//! Bytes: `d` in 16 bits; 16 bytes with numbers 0 to 15 in the low and 16 to 31 in the high halves.

use multiversion::multiversion;

use super::bits::*;

pub(crate) const BLOCK: usize = 32;
pub(crate) const BYTES: usize = 18;

/// The numbers of the codes.
pub(crate) const TABLE: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// Scales in each direction that the search tries.
const TRIES: i32 = 7;

/// The scale with the least error, weighted by the squares of the numbers.
pub(super) fn encode(x: &[f32], out: &mut [u8]) {
    encode_blocks(x, out, |x: &[f32; BLOCK], out: &mut [u8; BYTES]| {
        encode_block(x, &x.map(|x| x * x), out);
    });
}

/// The scale of a row's blocks with the least weighted error.
pub(super) fn encode_weighted(row: &[f32], importance: &[f32], out: &mut [u8]) {
    encode_weighted_blocks(row, importance, out, |x: &[f32; BLOCK], importance, out| {
        let variance = sum_of_squares(x) * (2.0 / BLOCK as f32);
        encode_block(x, &error_weights(x, importance, variance), out);
    });
}

fn encode_block(x: &[f32; BLOCK], weights: &[f32; BLOCK], out: &mut [u8; BYTES]) {
    let max = largest(x);
    if max.abs() < 1e-15 {
        out.fill(0);
        // The code whose number is nearest to 0.
        out[2..].fill(0x88);
        return;
    }
    let lowest = f32::from(TABLE[0]);
    // Sums of w·q·x and w·q² of the codes for a reciprocal scale.
    let sums = |inverse: f32| {
        let (mut qx, mut q2) = (0.0, 0.0);
        for (x, w) in x.iter().zip(weights) {
            let q = f32::from(TABLE[usize::from(code(inverse * x))]);
            qx += w * q * x;
            q2 += w * q * q;
        }
        (qx, q2)
    };
    let (qx, q2) = sums(1.0 / (-max / lowest));
    let mut d = if q2 > 0.0 { qx / q2 } else { 0.0 };
    let mut best = d * qx;
    for step in -TRIES..=TRIES {
        let (qx, q2) = sums((step as f32 + lowest) / max);
        if q2 > 0.0 && qx * qx > best * q2 {
            d = qx / q2;
            best = d * qx;
        }
    }
    put_half(out, 0, d);
    let inverse = inverse(d);
    put_nibbles(&x.map(|x| code(inverse * x)), &mut out[2..]);
}

/// The code of the nearest number of the table, the higher of two.
fn code(x: f32) -> u8 {
    let mut code = 0;
    for step in [8, 4, 2, 1] {
        let middle = i32::from(TABLE[code + step - 1]) + i32::from(TABLE[code + step]);
        if x + x >= middle as f32 {
            code += step;
        }
    }
    code as u8
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |bytes: &[u8; BYTES], out: &mut [f32; BLOCK]| {
        let d = half(bytes, 0);
        for j in 0..16 {
            let q = bytes[2 + j];
            out[j] = d * f32::from(TABLE[usize::from(q & 15)]);
            out[j + 16] = d * f32::from(TABLE[usize::from(q >> 4)]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_code() {
        for (expected, x) in TABLE.iter().enumerate() {
            assert_eq!(usize::from(code(f32::from(*x))), expected);
        }
        assert_eq!([-1e9, 0.0, 7.0, 1e9].map(code), [0, 8, 9, 15]);
    }
}
