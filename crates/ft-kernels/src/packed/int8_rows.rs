//! `INT8`: rows `s·(q − 128)` of any length with one scale each, whose products are sums of products of integers in both
//! directions (Dettmers et al., 2022, "LLM.int8()", arXiv:2208.07339, section 3).
//!
//! Bytes of a row: `s` in 32 bits, then the integers, from 1 to 255.

use multiversion::multiversion;

/// Bytes of a row before its integers.
pub(crate) const HEAD: usize = 4;

/// The integer of 0.
pub(crate) const ZERO: u8 = 128;

/// The integers of one row: multiples of the largest magnitude divided by 127, to nearest.
pub(super) fn encode(row: &[f32], out: &mut [u8]) {
    let most = row.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let scale = match most / 127.0 {
        scale if scale >= f32::MIN_POSITIVE => scale,
        _ => 1.0,
    };
    let (head, levels) = out.split_at_mut(HEAD);
    head.copy_from_slice(&scale.to_le_bytes());
    for (level, x) in levels.iter_mut().zip(row) {
        let q = (x / scale).round_ties_even().clamp(-127.0, 127.0);
        *level = (q + f32::from(ZERO)) as u8;
    }
}

/// The numbers of one row.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn decode(row: &[u8], out: &mut [f32]) {
    let scale = scale(row);
    for (q, out) in row[HEAD..].iter().zip(out) {
        *out = scale * (f32::from(*q) - f32::from(ZERO));
    }
}

/// The scale of a row.
#[inline(always)]
pub(crate) fn scale(row: &[u8]) -> f32 {
    f32::from_le_bytes([row[0], row[1], row[2], row[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_within_half_a_step() {
        let row: Vec<f32> = (0..77).map(|i| (i as f32 * 0.7).sin() * 2.54).collect();
        let mut bytes = vec![0; row.len() + HEAD];
        encode(&row, &mut bytes);
        let mut found = vec![0.0; row.len()];
        decode(&bytes, &mut found);
        let most = row.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        assert_eq!(scale(&bytes), most / 127.0);
        for (found, x) in found.iter().zip(&row) {
            assert!((found - x).abs() <= 0.5001 * scale(&bytes), "{found} {x}");
        }
    }

    #[test]
    fn a_row_without_a_scale_is_zero() {
        for row in [[0.0; 3], [1e-43; 3]] {
            let mut bytes = [0; 3 + HEAD];
            encode(&row, &mut bytes);
            let mut found = [1.0; 3];
            decode(&bytes, &mut found);
            assert_eq!(found, [0.0; 3]);
        }
    }
}
