//! Products with rows of 8 bits whose other factor is rounded to 8 bits, forward and backward: sums of products of integers
//! (Dettmers et al., 2022, "LLM.int8()", arXiv:2208.07339, sections 3.1 and 3.2).
//!
//! `y[i, j] = s[i]·t[j]·Σ level[i, k]·(q[j, k] − 128)`, where `s` is the scale of a row of the input and `t` that of a row of the
//! weight. Backward the sum is over the rows of the weight, so their scales go into the gradient first:
//! `dx[i, k] = s[i]·Σ level[i, j]·(q[j, k] − 128)` with levels of `dy[i, j]·t[j]`. Outliers of a row are multiplied in `f32`.
//! Unlike in LLM.int8 they are single numbers and not whole columns, and gradients are rounded, too.
//!
//! A row of the output depends on its row of the input only. Integers are exact, so results are equal on all processors, to the
//! bit.

mod few;
mod inputs;
mod panel;
mod tile;

use std::ops::Range;

use rayon::prelude::*;

use super::columns::Columns;
use super::one_row::Outputs;
use super::packed::Blocks;
use super::pieces::each;
pub(super) use inputs::Inputs;
use panel::{Fours, LANES, Levels, Lines};
use tile::{Instructions, Portable, Tile};

/// The most numbers that a sum of products of integers of 8 bits has in 32 bits.
const MOST: usize = 1 << 17;
/// The number of bytes of panels that a task multiplies: a part of a second-level cache.
const CACHED: usize = 1 << 17;
/// Tasks for each thread, at least, if there are as many panels.
const TASKS: usize = 4;
/// The least number of rows of a task where there are few panels.
const ROWS: usize = 256;
/// The number of integers of the weight for each task of a product with a few rows.
const PIECE: usize = 1 << 16;

/// Whether sums over so many numbers fit in 32 bits.
pub(super) fn supports(terms: usize) -> bool {
    terms <= MOST
}

/// `out = x·Wᵀ`; `x` is `[rows, in]`, `out` is `[rows, out]`.
///
/// # Panics
///
/// If the sizes do not match, or the sums have too many terms, see [`supports`].
pub(super) fn times_transposed(weight: &Blocks<'_>, x: &[f32], out: &mut [f32]) {
    product(best(), weight, Lines::Rows, x, out);
}

/// `out = dy·W`; `dy` is `[rows, out]`, `out` is `[rows, in]`.
///
/// # Panics
///
/// If the sizes do not match, or the sums have too many terms, see [`supports`].
pub(super) fn times(weight: &Blocks<'_>, dy: &[f32], out: &mut [f32]) {
    product(best(), weight, Lines::Columns, dy, out);
}

/// The instructions that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

fn best() -> Kind {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            let vnni = is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw");
            return if vnni { Kind::Vnni } else { Kind::Avx2 };
        }
    }
    Kind::Portable
}

fn product(kind: Kind, weight: &Blocks<'_>, lines: Lines, x: &[f32], out: &mut [f32]) {
    let weight = Levels::new(weight);
    let features = weight.lines(lines);
    let (terms, factors) = match lines {
        Lines::Rows => (weight.cols, None),
        // What is summed over has these scales.
        Lines::Columns => {
            let scales: Vec<f32> = (0..weight.rows).map(|row| weight.scale(row)).collect();
            (weight.rows, Some(scales))
        }
    };
    assert!(supports(terms), "see `supports`");
    if terms == 0 || out.is_empty() {
        out.fill(0.0);
        return;
    }
    assert_eq!(x.len() % terms, 0, "whole rows");
    assert_eq!(
        x.len() / terms * features,
        out.len(),
        "the output has another size"
    );
    let x = Inputs::new(x, terms, factors.as_deref());
    let out = Columns::new(out, features);
    if lines == Lines::Rows && x.rows() <= few::MOST {
        return few_rows(kind, weight, &x, &out);
    }
    let threads = rayon::current_num_threads();
    let panels = features.div_ceil(LANES);
    let group = (CACHED / (x.fours() * size_of::<Fours>()))
        .min(panels.div_ceil(TASKS * threads))
        .max(1);
    let groups = panels.div_ceil(group);
    // Each part of the rows fills the panels again.
    let parts = (2 * threads).div_ceil(groups).min(x.rows() / ROWS).max(1);
    let rows = x.rows().div_ceil(parts);
    let task = Task {
        weight,
        lines,
        x: &x,
        out: &out,
    };
    let tasks = (0..groups * parts).into_par_iter();
    each(tasks, |i| {
        let (part, first) = (i / groups * rows, i % groups * group);
        let rows = part.min(x.rows())..(part + rows).min(x.rows());
        let panels = first..(first + group).min(panels);
        // SAFETY: the instructions are there, as was asked, and other tasks write to other columns or rows.
        unsafe {
            match kind {
                Kind::Portable => task.run::<Portable>(panels, rows),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => task.run_avx2(panels, rows),
                #[cfg(target_arch = "x86_64")]
                Kind::Vnni => task.run_vnni(panels, rows),
            }
        }
    });
}

/// `out = x·Wᵀ` for a few rows of `x`, reading the weight once.
fn few_rows(kind: Kind, weight: Levels<'_>, x: &Inputs, out: &Columns<'_>) {
    let size = (PIECE / weight.cols).max(1).next_multiple_of(few::TOGETHER);
    let firsts = (0..weight.rows.div_ceil(size)).into_par_iter();
    each(firsts, |piece| {
        let features = piece * size..((piece + 1) * size).min(weight.rows);
        few::products(kind, weight, features, x, |row, first, numbers| {
            // SAFETY: columns of a piece are written by its thread alone.
            unsafe { out.write(row, first, numbers) };
        });
    });
}

/// What computes some products of a row of the input, from the first, into a slice.
pub(super) fn outputs<'a>(weight: Blocks<'a>, x: &'a Inputs) -> Outputs<'a> {
    let (kind, weight) = (best(), Levels::new(&weight));
    Box::new(move |first, out| {
        let features = first..first + out.len();
        few::products(kind, weight, features, x, |_, feature, numbers| {
            out[feature - first..][..numbers.len()].copy_from_slice(numbers);
        });
    })
}

/// A product, of which threads compute parts.
struct Task<'a> {
    weight: Levels<'a>,
    lines: Lines,
    x: &'a Inputs,
    out: &'a Columns<'a>,
}

impl Task<'_> {
    /// # Safety
    ///
    /// The processor has AVX2 and FMA, and no other thread writes to these columns and rows of the output.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn run_avx2(&self, panels: Range<usize>, rows: Range<usize>) {
        // SAFETY: as for this function.
        unsafe { self.run::<tile::Avx2>(panels, rows) }
    }

    /// # Safety
    ///
    /// As [`run_avx2`](Self::run_avx2), and the processor has AVX-512 VNNI, BW and VL.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn run_vnni(&self, panels: Range<usize>, rows: Range<usize>) {
        // SAFETY: as for this function.
        unsafe { self.run::<tile::Vnni>(panels, rows) }
    }

    /// Multiplies some rows of the input with some panels.
    ///
    /// # Safety
    ///
    /// The processor has the instructions, and no other thread writes to these columns and rows of the output.
    #[inline(always)]
    unsafe fn run<I: Instructions>(&self, panels: Range<usize>, rows: Range<usize>) {
        let (first, fours) = (panels.start * LANES, self.x.fours());
        let mut levels = vec![[[0; 4]; LANES]; panels.len() * fours];
        // SAFETY: as for this function.
        unsafe { (self.weight).fill::<I>(self.lines, first, fours, &mut levels) };
        let features = self.weight.lines(self.lines);
        let mut tiles = Vec::with_capacity(panels.len());
        for (i, panel) in levels.chunks_exact(fours).enumerate() {
            let first = first + i * LANES;
            let lanes = LANES.min(features - first);
            let mut scales = [1.0; LANES];
            if self.lines == Lines::Rows {
                for (lane, scale) in scales[..lanes].iter_mut().enumerate() {
                    *scale = self.weight.scale(first + lane);
                }
            }
            tiles.push(Tile {
                panel,
                scales,
                first,
                lanes,
            });
        }
        let mut row = rows.start;
        while row < rows.end {
            // SAFETY: as for this function.
            row += unsafe {
                match rows.end - row {
                    8.. if I::EIGHT_ROWS => self.rows::<I, 8>(&tiles, row),
                    4.. => self.rows::<I, 4>(&tiles, row),
                    _ => self.rows::<I, 1>(&tiles, row),
                }
            };
        }
    }

    /// Multiplies `N` rows, and returns how many these are.
    ///
    /// # Safety
    ///
    /// As for [`run`](Self::run).
    #[inline(always)]
    unsafe fn rows<I: Instructions, const N: usize>(
        &self,
        tiles: &[Tile<'_>],
        row: usize,
    ) -> usize {
        for tile in tiles {
            // SAFETY: as for this function.
            unsafe { tile.times::<I, N>(self.x, row, self.out) };
        }
        N
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PackedFormat;

    fn kinds() -> Vec<Kind> {
        #[allow(unused_mut)]
        let mut kinds = vec![Kind::Portable];
        #[cfg(target_arch = "x86_64")]
        match best() {
            Kind::Portable => {}
            Kind::Avx2 => kinds.push(Kind::Avx2),
            Kind::Vnni => kinds.extend([Kind::Avx2, Kind::Vnni]),
        }
        kinds
    }

    /// Numbers that look random, with a few large ones.
    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let numbers = (0..count).map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
            if i % 97 == 5 { 30.0 * x } else { x }
        });
        numbers.collect()
    }

    fn encoded(weight: &[f32], shape: [usize; 2]) -> Vec<u8> {
        let size = PackedFormat::INT8.bytes_of(shape[1]);
        let mut bytes = vec![0; size * shape[0]];
        for (row, bytes) in weight
            .chunks_exact(shape[1])
            .zip(bytes.chunks_exact_mut(size))
        {
            PackedFormat::INT8
                .encode(row, bytes)
                .expect("finite numbers");
        }
        bytes
    }

    /// Rows, outputs and inputs: whole panels and parts of them, whole fours and parts.
    const SIZES: [[usize; 3]; 12] = [
        [1, 1, 1],
        [3, 33, 70],
        [8, 32, 32],
        [13, 64, 129],
        [21, 95, 259],
        [5, 200, 36],
        [600, 40, 64],
        [33, 33, 70],
        [45, 95, 259],
        [50, 1, 1],
        // Several pieces of the weight.
        [3, 700, 130],
        [16, 1001, 70],
    ];

    #[test]
    fn all_instructions_give_the_same_bits() {
        for (i, [rows, out, features]) in SIZES.into_iter().enumerate() {
            let mut bytes = encoded(&noise(out * features, i as u32), [out, features]);
            // The lowest level is not written by the encoder, but a file may have it.
            let last = bytes.len() - 1;
            bytes[last] = 0;
            let weight = Blocks {
                format: PackedFormat::INT8,
                bytes: &bytes,
                shape: [out, features],
            };
            for lines in [Lines::Rows, Lines::Columns] {
                let (terms, width) = match lines {
                    Lines::Rows => (features, out),
                    Lines::Columns => (out, features),
                };
                let x = noise(rows * terms, 77);
                let bits = |kind| {
                    let mut y = vec![f32::NAN; rows * width];
                    product(kind, &weight, lines, &x, &mut y);
                    y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                let expected = bits(Kind::Portable);
                assert!(expected.iter().all(|y| f32::from_bits(*y).is_finite()));
                for kind in kinds() {
                    assert!(bits(kind) == expected, "{kind:?} {rows} {out} {features}");
                }
            }
        }
    }

    /// `Σ level·(q − 128)` of the largest magnitudes, which must not leave 32 bits on the way.
    #[test]
    fn the_largest_sums_fit() {
        let terms = MOST;
        let mut bytes = vec![255; PackedFormat::INT8.bytes_of(terms)];
        bytes[..4].copy_from_slice(&1.0f32.to_le_bytes());
        for (sign, level) in [(1.0, 255), (-1.0, 255), (1.0, 0), (-1.0, 0)] {
            bytes[4..].fill(level);
            let weight = Blocks {
                format: PackedFormat::INT8,
                bytes: &bytes,
                shape: [1, terms],
            };
            let expected = sign * terms as f32 * (f32::from(level) - 128.0);
            for kind in kinds() {
                // Without panels, and with them.
                for rows in [1, few::MOST + 1] {
                    let mut y = vec![0.0; rows];
                    let x = vec![sign; rows * terms];
                    product(kind, &weight, Lines::Rows, &x, &mut y);
                    let right = |y: &f32| (y / expected - 1.0).abs() < 1e-6;
                    assert!(y.iter().all(right), "{kind:?} {rows} {y:?} {expected}");
                }
            }
        }
    }

    /// All rows are multiplied with panels, and one without.
    #[test]
    fn a_row_does_not_depend_on_others() {
        for [rows, out, features] in [[37, 70, 90], [33, 7, 64], [40, 97, 130]] {
            assert!(rows > few::MOST);
            let bytes = encoded(&noise(out * features, 1), [out, features]);
            let weight = Blocks {
                format: PackedFormat::INT8,
                bytes: &bytes,
                shape: [out, features],
            };
            let x = noise(rows * features, 2);
            for kind in kinds() {
                let mut all = vec![0.0; rows * out];
                product(kind, &weight, Lines::Rows, &x, &mut all);
                for (x, y) in x.chunks_exact(features).zip(all.chunks_exact(out)) {
                    let mut alone = vec![0.0; out];
                    product(kind, &weight, Lines::Rows, x, &mut alone);
                    assert_eq!(alone, y, "{kind:?} {rows} {out} {features}");
                }
            }
        }
    }

    #[test]
    fn without_terms_sums_are_zero() {
        let bytes = 1.0f32.to_le_bytes();
        let weight = Blocks {
            format: PackedFormat::INT8,
            bytes: &bytes,
            shape: [1, 0],
        };
        let mut y = [1.0; 3];
        times_transposed(&weight, &[], &mut y);
        assert_eq!(y, [0.0; 3]);
        times(&weight, &[1.0; 3], &mut []);
    }
}
