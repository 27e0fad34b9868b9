//! Rows of an input in 8 bits, with a scale for every 32 numbers.

use multiversion::multiversion;
use rayon::prelude::*;

use super::super::pieces::each;

/// Numbers that share a scale.
pub(super) const CHUNK: usize = 32;

/// `x ≈ scale·level`, `[rows, cols]`.
pub(super) struct Activations {
    pub(super) cols: usize,
    /// `[rows, cols]`, from −127 to 127.
    pub(super) levels: Vec<i8>,
    /// `[rows, cols / 32]`
    pub(super) scales: Vec<f32>,
    /// Sums of the numbers that levels and scales stand for, `[rows, cols / group]`.
    pub(super) sums: Vec<f32>,
    /// The numbers that share a scale in the weight: 16 or 32.
    pub(super) group: usize,
    /// Sums of two levels times a factor, `[rows, cols / 2]`, if it is not 0.
    pub(super) pairs: Vec<i16>,
}

impl Activations {
    /// `x` is `[rows, cols]`.
    ///
    /// # Panics
    ///
    /// If the columns are no whole chunks, or the group is neither 16 nor 32.
    pub(super) fn new(x: &[f32], cols: usize, group: usize, factor: i16) -> Self {
        assert!(
            cols.is_multiple_of(CHUNK) && matches!(group, 16 | 32),
            "whole chunks"
        );
        let mut this = Self {
            cols,
            levels: vec![0; x.len()],
            scales: vec![0.0; x.len() / CHUNK],
            sums: vec![0.0; x.len() / group],
            group,
            pairs: vec![0; if factor == 0 { 0 } else { x.len() / 2 }],
        };
        // Whole rows, of about 16 thousand numbers.
        let piece = cols * (16384 / cols).max(1);
        let pieces = (x.par_chunks(piece))
            .zip(this.levels.par_chunks_mut(piece))
            .zip(this.scales.par_chunks_mut(piece / CHUNK))
            .zip(this.sums.par_chunks_mut(piece / group));
        each(pieces, |(((x, levels), scales), sums)| {
            round(x, levels, scales);
            match group {
                16 => sum::<16>(levels, scales, sums),
                _ => sum::<32>(levels, scales, sums),
            }
        });
        if factor != 0 {
            for (pair, levels) in this.pairs.iter_mut().zip(this.levels.as_chunks::<2>().0) {
                *pair = (i16::from(levels[0]) + i16::from(levels[1])) * factor;
            }
        }
        this
    }

    pub(super) fn rows(&self) -> usize {
        self.levels.len() / self.cols
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn round(x: &[f32], levels: &mut [i8], scales: &mut [f32]) {
    let (x, levels) = (x.as_chunks::<CHUNK>().0, levels.as_chunks_mut::<CHUNK>().0);
    for ((x, levels), scale) in x.iter().zip(levels).zip(scales) {
        let mut most = [0.0f32; 8];
        // Not 0 if a number is not finite. The product is not a number then, either.
        let mut not_finite = [0.0f32; 8];
        for x in x.as_chunks::<8>().0 {
            for i in 0..8 {
                let size = x[i].abs();
                most[i] = if size > most[i] { size } else { most[i] };
                not_finite[i] += x[i] * 0.0;
            }
        }
        for width in [4, 2, 1] {
            for i in 0..width {
                let other = most[i + width];
                most[i] = if other > most[i] { other } else { most[i] };
                not_finite[i] += not_finite[i + width];
            }
        }
        let most = most[0];
        *scale = most / 127.0 + not_finite[0];
        // The reciprocal of less is infinite; a sum of such numbers rounds to 0.
        let inverse = if most > 1e-35 { 127.0 / most } else { 0.0 };
        for (level, x) in levels.iter_mut().zip(x) {
            // The nearest integer is in the lowest bits, see `packed::bits::nearest`.
            *level = (x * inverse + 12_582_912.0).to_bits() as i8;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn sum<const GROUP: usize>(levels: &[i8], scales: &[f32], sums: &mut [f32]) {
    let sums = sums.chunks_exact_mut(CHUNK / GROUP);
    for ((levels, scale), sums) in levels.as_chunks::<CHUNK>().0.iter().zip(scales).zip(sums) {
        for (levels, sum) in levels.as_chunks::<GROUP>().0.iter().zip(sums) {
            let total: i32 = levels.iter().map(|level| i32::from(*level)).sum();
            *sum = total as f32 * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_the_nearest_and_sums_are_theirs() {
        let mut x: Vec<f32> = (0..128).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        x[..32].fill(0.0);
        x[40] = -12.7;
        for group in [16, 32] {
            let found = Activations::new(&x, 64, group, 8);
            assert_eq!(found.rows(), 2);
            let number = |i: usize| f32::from(found.levels[i]) * found.scales[i / 32];
            for (i, x) in x.iter().enumerate() {
                let step = found.scales[i / 32];
                assert!((number(i) - x).abs() <= step * 0.5001, "{i}");
            }
            assert_eq!((found.levels[40], found.scales[0]), (-127, 0.0));
            for (i, pair) in found.pairs.iter().enumerate() {
                let sum = i16::from(found.levels[2 * i]) + i16::from(found.levels[2 * i + 1]);
                assert_eq!(*pair, 8 * sum);
            }
            for (i, sum) in found.sums.iter().enumerate() {
                let expected: f32 = (i * group..(i + 1) * group).map(number).sum();
                assert!((sum - expected).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut numbers = [1.0; 64];
            numbers[3] = x;
            let found = Activations::new(&numbers, 64, 32, 0);
            assert!(found.scales[0].is_nan() && found.sums[0].is_nan());
            assert!(found.scales[1].is_finite());
        }
        let tiny = Activations::new(&[1e-40; 32], 32, 16, 0);
        assert_eq!(tiny.levels, [0; 32]);
    }
}
