//! Rows of an input in 8 bits with one scale a row, and their outliers, which are kept as they are.
//!
//! A number is an outlier if its magnitude is more than [`OUTLIER`] times the root mean square of its row. Behind a norm, where
//! that is about 1, this is the threshold of LLM.int8 (section 3.2). Since it is relative, it serves gradients, too, and a row
//! is rounded the same way whatever other rows are there. By Chebyshev's inequality at most a 36th of a row is outliers.

use multiversion::multiversion;
use rayon::prelude::*;

use super::super::pieces::each;

/// How many times the root mean square of its row an outlier is, at least.
const OUTLIER: f32 = 6.0;
/// Numbers that a task rounds.
const PIECE: usize = 1 << 14;
/// The least sum of squares that still has the precision of its terms.
const LEAST_SQUARES: f32 = 1e-30;

/// `x ≈ scale·level` or an outlier, whose level is 0; `[rows, cols]`.
pub(in super::super) struct Inputs {
    /// `cols`, rounded up to whole fours; the levels behind a row are 0.
    stride: usize,
    /// `[rows, stride]`, from −127 to 127.
    levels: Vec<i8>,
    /// `[rows]`
    scales: Vec<f32>,
    /// Sums of the levels of a row, `[rows]`.
    sums: Vec<i32>,
    /// Row by row, in the order of columns.
    outliers: Vec<Outlier>,
    /// Where the outliers of a row begin, `[rows + 1]`.
    starts: Vec<usize>,
}

/// A number that is not rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outlier {
    row: usize,
    pub(super) col: usize,
    pub(super) number: f32,
}

impl Inputs {
    /// `x` is `[rows, cols]`. With `factors`, `[cols]`, every row is multiplied by them first.
    ///
    /// # Panics
    ///
    /// If the sizes do not match, or `cols` is 0.
    pub(in super::super) fn new(x: &[f32], cols: usize, factors: Option<&[f32]>) -> Self {
        assert!(cols > 0 && x.len().is_multiple_of(cols), "whole rows");
        assert!(
            factors.is_none_or(|factors| factors.len() == cols),
            "a factor for each column"
        );
        let (rows, stride) = (x.len() / cols, cols.next_multiple_of(4));
        let mut this = Self {
            stride,
            levels: vec![0; rows * stride],
            scales: vec![0.0; rows],
            sums: vec![0; rows],
            outliers: Vec::new(),
            starts: Vec::with_capacity(rows + 1),
        };
        let piece = (PIECE / cols).max(1);
        let mut found = vec![Vec::new(); rows.div_ceil(piece)];
        let pieces = (x.par_chunks(piece * cols))
            .zip(this.levels.par_chunks_mut(piece * stride))
            .zip(this.scales.par_chunks_mut(piece))
            .zip(this.sums.par_chunks_mut(piece))
            .zip(found.par_iter_mut())
            .enumerate();
        each(pieces, |(i, ((((x, levels), scales), sums), found))| {
            let mut product = Vec::new();
            let rows = x.chunks_exact(cols).zip(levels.chunks_exact_mut(stride));
            let rows = rows.zip(scales.iter_mut().zip(sums));
            for (row, ((x, levels), (scale, sum))) in rows.enumerate() {
                let x = match factors {
                    None => x,
                    Some(factors) => {
                        product.clear();
                        product.extend(x.iter().zip(factors).map(|(x, factor)| x * factor));
                        &product[..]
                    }
                };
                (*scale, *sum) = round(i * piece + row, x, &mut levels[..cols], found);
            }
        });
        this.outliers = found.concat();
        let mut outliers = this.outliers.iter().enumerate().peekable();
        for row in 0..=rows {
            while outliers.next_if(|(_, outlier)| outlier.row < row).is_some() {}
            let next = outliers.peek().map(|(place, _)| *place);
            this.starts.push(next.unwrap_or(this.outliers.len()));
        }
        this
    }

    pub(super) fn rows(&self) -> usize {
        self.scales.len()
    }

    /// The number of fours of levels of a row.
    pub(super) fn fours(&self) -> usize {
        self.stride / 4
    }

    /// The levels of a row, whole fours.
    pub(super) fn levels(&self, row: usize) -> &[i8] {
        &self.levels[row * self.stride..][..self.stride]
    }

    /// The scale of a row's levels; none if a number of the row is none or infinite.
    pub(super) fn scale(&self, row: usize) -> f32 {
        self.scales[row]
    }

    /// The sum of a row's levels.
    pub(super) fn sum(&self, row: usize) -> i32 {
        self.sums[row]
    }

    pub(super) fn outliers(&self, row: usize) -> &[Outlier] {
        &self.outliers[self.starts[row]..self.starts[row + 1]]
    }
}

/// Rounds a row, and returns the scale and the sum of its levels.
fn round(row: usize, x: &[f32], levels: &mut [i8], outliers: &mut Vec<Outlier>) -> (f32, i32) {
    let (mut most, squares) = largest_and_squares(x);
    let mut limit = f32::INFINITY;
    if squares.is_finite() {
        if squares > LEAST_SQUARES {
            limit = OUTLIER * (squares / x.len() as f32).sqrt();
        }
        if most > limit {
            most = largest_up_to(x, limit);
            keep_above(row, x, limit, outliers);
        }
    } else if x.iter().any(|x| !x.is_finite()) {
        levels.fill(0);
        return (f32::NAN, 0);
    }
    // The reciprocal of less is infinite.
    let (scale, inverse) = match most > 1e-35 {
        true => (most / 127.0, 127.0 / most),
        false => (0.0, 0.0),
    };
    (scale, round_up_to(x, limit, inverse, levels))
}

/// Numbers that are looked through together.
const CHUNK: usize = 64;
/// Sums that are computed side by side, so that they do not depend on the processor.
const LANES: usize = 16;

/// The largest magnitude, and the sum of squares.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn largest_and_squares(x: &[f32]) -> (f32, f32) {
    let (mut most, mut squares) = ([0.0f32; LANES], [0.0f32; LANES]);
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for i in 0..LANES {
            let size = x[i].abs();
            most[i] = if size > most[i] { size } else { most[i] };
            squares[i] += x[i] * x[i];
        }
    }
    for (i, x) in rest.iter().enumerate() {
        most[i] = most[i].max(x.abs());
        squares[i] += x * x;
    }
    let largest = most.into_iter().fold(0.0, f32::max);
    (largest, squares.into_iter().sum())
}

/// The largest magnitude that is not above the limit.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn largest_up_to(x: &[f32], limit: f32) -> f32 {
    let mut most = [0.0f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for i in 0..LANES {
            let size = x[i].abs();
            let size = if size > limit { 0.0 } else { size };
            most[i] = if size > most[i] { size } else { most[i] };
        }
    }
    let rest = rest.iter().map(|x| x.abs()).filter(|size| *size <= limit);
    most.into_iter().chain(rest).fold(0.0, f32::max)
}

/// The numbers of a row above the limit.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn keep_above(row: usize, x: &[f32], limit: f32, outliers: &mut Vec<Outlier>) {
    for (chunk, part) in x.chunks(CHUNK).enumerate() {
        let count: u32 = part.iter().map(|x| u32::from(x.abs() > limit)).sum();
        if count > 0 {
            let above = part.iter().enumerate().filter(|(_, x)| x.abs() > limit);
            outliers.extend(above.map(|(i, number)| Outlier {
                row,
                col: chunk * CHUNK + i,
                number: *number,
            }));
        }
    }
}

/// Multiples of `1 / inverse`, to nearest, or 0 above the limit. Returns their sum.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn round_up_to(x: &[f32], limit: f32, inverse: f32, levels: &mut [i8]) -> i32 {
    let mut sum = 0;
    for (level, x) in levels.iter_mut().zip(x) {
        let part = if x.abs() > limit { 0.0 } else { x * inverse };
        // The nearest integer is in the lowest bits, see `packed::bits::nearest`.
        *level = (part + 12_582_912.0).to_bits() as i8;
        sum += i32::from(*level);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 0.7).sin()).collect()
    }

    #[test]
    fn outliers_are_kept_and_do_not_widen_the_steps_of_others() {
        let cols = 203;
        let mut x = numbers(3 * cols);
        x[cols + 17] = 40.0;
        x[cols + 200] = -30.0;
        let found = Inputs::new(&x, cols, None);
        assert_eq!((found.rows(), found.fours()), (3, 51));
        let outlier = |col, number| Outlier {
            row: 1,
            col,
            number,
        };
        assert_eq!(found.outliers(1), [outlier(17, 40.0), outlier(200, -30.0)]);
        for row in 0..3 {
            assert!(row == 1 || found.outliers(row).is_empty());
            assert!(found.scale(row) <= 1.0 / 127.0);
            let (levels, padding) = found.levels(row).split_at(cols);
            assert_eq!(padding, [0]);
            let sum: i32 = levels.iter().map(|level| i32::from(*level)).sum();
            assert_eq!(found.sum(row), sum);
            for (i, level) in levels.iter().enumerate() {
                match x[row * cols + i] {
                    x if x.abs() > 2.0 => assert_eq!(*level, 0),
                    x => {
                        let number = f32::from(*level) * found.scale(row);
                        assert!((number - x).abs() <= 0.5001 * found.scale(row));
                    }
                }
            }
        }
        assert_eq!(
            found.levels(0).iter().map(|level| level.abs()).max(),
            Some(127)
        );
    }

    #[test]
    fn factors_come_before_rounding() {
        let (x, cols) = (numbers(40 * 64), 64);
        let factors: Vec<f32> = (0..cols).map(|col| 0.1 + col as f32).collect();
        let scaled: Vec<f32> = (x.iter().zip(factors.iter().cycle()))
            .map(|(x, factor)| x * factor)
            .collect();
        let (found, expected) = (
            Inputs::new(&x, cols, Some(&factors)),
            Inputs::new(&scaled, cols, None),
        );
        assert_eq!(found.levels, expected.levels);
        assert_eq!(found.scales, expected.scales);
    }

    #[test]
    fn very_small_and_very_large_rows_have_levels() {
        for size in [1e-30f32, 1e-18, 1e18, 1e38] {
            let x: Vec<f32> = numbers(100).iter().map(|x| x * size).collect();
            let found = Inputs::new(&x, 100, None);
            assert!(found.outliers(0).is_empty());
            for (level, x) in found.levels(0).iter().zip(&x) {
                let number = f32::from(*level) * found.scale(0);
                assert!((number - x).abs() <= 0.51 * found.scale(0), "{number} {x}");
            }
        }
        assert_eq!(Inputs::new(&[1e-40; 8], 8, None).levels(0), [0; 8]);
    }

    #[test]
    fn what_is_no_number_has_no_scale() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = numbers(2 * 70);
            x[80] = wrong;
            let found = Inputs::new(&x, 70, None);
            assert!(found.scale(0).is_finite() && found.scale(1).is_nan());
        }
    }
}
