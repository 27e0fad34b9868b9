//! Products with a few rows of the input, as when text is generated: rows of the weight are multiplied where they are, since
//! panels would take longer to fill than their products take.

use std::ops::Range;

use super::super::prefetch::prefetch;
use super::Kind;
use super::inputs::Inputs;
use super::panel::Levels;
use super::tile::Instructions;
#[cfg(target_arch = "x86_64")]
use super::tile::{Avx2, Vnni};
use super::tile::{Portable, finished};
use crate::packed::int8_rows::ZERO;

/// Up to this many rows of the input there are no panels.
pub(super) const MOST: usize = 16;
/// Rows of the weight that are multiplied together.
pub(super) const TOGETHER: usize = 4;

/// The distance of the prefetch in rows of the weight.
const AHEAD: usize = 2 * TOGETHER;

/// Calls `put(row, first, products)` with the products of a row of the input and a few rows of the weight from `first`.
pub(super) fn products(
    kind: Kind,
    weight: Levels<'_>,
    features: Range<usize>,
    x: &Inputs,
    put: impl FnMut(usize, usize, &[f32]),
) {
    assert!(features.end <= weight.rows && x.fours() == weight.cols.div_ceil(4));
    let task = Task { weight, x };
    // SAFETY: the instructions are there, see `best`.
    unsafe {
        match kind {
            Kind::Portable => task.run::<Portable>(features, put),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => task.run_avx2(features, put),
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni => task.run_vnni(features, put),
        }
    }
}

struct Task<'a> {
    weight: Levels<'a>,
    x: &'a Inputs,
}

impl Task<'_> {
    /// # Safety
    ///
    /// The processor has AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn run_avx2(&self, features: Range<usize>, put: impl FnMut(usize, usize, &[f32])) {
        // SAFETY: as for this function.
        unsafe { self.run::<Avx2>(features, put) }
    }

    /// # Safety
    ///
    /// As [`run_avx2`](Self::run_avx2), and the processor has AVX-512 VNNI, BW and VL.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn run_vnni(&self, features: Range<usize>, put: impl FnMut(usize, usize, &[f32])) {
        // SAFETY: as for this function.
        unsafe { self.run::<Vnni>(features, put) }
    }

    /// # Safety
    ///
    /// The processor has the instructions.
    #[inline(always)]
    unsafe fn run<I: Instructions>(
        &self,
        features: Range<usize>,
        mut put: impl FnMut(usize, usize, &[f32]),
    ) {
        for first in features.clone().step_by(TOGETHER) {
            let count = TOGETHER.min(features.end - first);
            // Rows that are missing are the last one again.
            let places = std::array::from_fn(|i| first + i.min(count - 1));
            let next = self
                .weight
                .bytes_of(first + AHEAD..first + AHEAD + TOGETHER);
            let part = next.len().div_ceil(self.x.rows().div_ceil(4)).max(1);
            let mut next = next.chunks(part);
            let mut row = 0;
            while row < self.x.rows() {
                let next = next.next().unwrap_or_default();
                prefetch(next.as_ptr(), next.len());
                // SAFETY: as for this function.
                row += unsafe {
                    match self.x.rows() - row {
                        4.. => self.rows::<I, 4>(places, count, row, &mut put),
                        _ => self.rows::<I, 1>(places, count, row, &mut put),
                    }
                };
            }
        }
    }

    /// Multiplies `N` rows of the input, and returns how many these are.
    ///
    /// # Safety
    ///
    /// As for [`run`](Self::run).
    #[inline(always)]
    unsafe fn rows<I: Instructions, const N: usize>(
        &self,
        places: [usize; TOGETHER],
        count: usize,
        row: usize,
        put: &mut impl FnMut(usize, usize, &[f32]),
    ) -> usize {
        let weights = places.map(|place| self.weight.row(place));
        let scales = places.map(|place| self.weight.scale(place));
        let levels = std::array::from_fn(|n| self.x.levels(row + n));
        let sums = std::array::from_fn(|n| self.x.sum(row + n));
        // SAFETY: as for this function.
        let dots: [[i32; TOGETHER]; N] = unsafe { I::row_dots(weights, levels, sums) };
        for (n, dots) in dots.iter().enumerate() {
            let mut beside = [0.0; TOGETHER];
            for outlier in self.x.outliers(row + n) {
                for (sum, weight) in beside.iter_mut().zip(weights) {
                    let q = i32::from(weight[outlier.col]) - i32::from(ZERO);
                    *sum += outlier.number * q as f32;
                }
            }
            let numbers = finished(dots, self.x.scale(row + n), &beside, &scales);
            put(row + n, places[0], &numbers[..count]);
        }
        N
    }
}
