//! Grids of evenly spaced numbers: `x ≈ s·(q − z)` with a scale `s`, a zero point `z` and an integer `q` of few bits
//! (Jacob et al., 2018, arXiv:1712.05877, equation 1).

/// The integers of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// The lowest integer.
    pub lowest: i32,
    /// The highest integer.
    pub highest: i32,
}

impl Levels {
    /// `0..=2ᵇ − 1`.
    ///
    /// # Panics
    ///
    /// If the bits are not from 1 to 16.
    pub fn unsigned(bits: u32) -> Self {
        check_bits(bits);
        Self {
            lowest: 0,
            highest: (1 << bits) - 1,
        }
    }

    /// `−2ᵇ⁻¹..=2ᵇ⁻¹ − 1`.
    ///
    /// # Panics
    ///
    /// If the bits are not from 1 to 16.
    pub fn signed(bits: u32) -> Self {
        check_bits(bits);
        Self {
            lowest: -(1 << (bits - 1)),
            highest: (1 << (bits - 1)) - 1,
        }
    }

    /// `−(2ᵇ⁻¹ − 1)..=2ᵇ⁻¹ − 1`, the same number on both sides of zero.
    ///
    /// # Panics
    ///
    /// If the bits are not from 2 to 16.
    pub fn restricted(bits: u32) -> Self {
        assert!(bits > 1, "one bit has no restricted levels");
        let Self { highest, .. } = Self::signed(bits);
        Self {
            lowest: -highest,
            highest,
        }
    }
}

fn check_bits(bits: u32) {
    assert!((1..=16).contains(&bits), "{bits} bits, not from 1 to 16");
}

/// A scale, a zero point and the integers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// The distance of neighbours.
    pub scale: f32,
    /// What stands for zero. It is an integer, except where a method fits it.
    pub zero_point: f32,
    /// The integers.
    pub levels: Levels,
}

impl Grid {
    /// The grid from `min` to `max`, which are extended to include zero: `s = (max − min)/(highest − lowest)`,
    /// `z = lowest − min/s`, rounded so that zero is exact.
    ///
    /// ```
    /// use ft_quant::{Grid, Levels};
    ///
    /// let x = [5.47, 3.08, -7.59, 0.0, -1.95, -4.57, 10.8];
    /// let grid = Grid::affine(-7.59, 10.8, Levels::signed(8));
    /// // s = 18.39/255 = 0.0721, z = −128 + 7.59/0.0721 = −22.8
    /// assert_eq!(grid.zero_point, -23.0);
    /// assert_eq!(x.map(|x| grid.level(x)), [53, 20, -128, -23, -50, -86, 127]);
    /// ```
    pub fn affine(min: f32, max: f32, levels: Levels) -> Self {
        let (min, max) = (min.min(0.0), max.max(0.0));
        let scale = positive((max - min) / (levels.highest - levels.lowest) as f32);
        Self {
            scale,
            zero_point: nearest(-min / scale) + levels.lowest as f32,
            levels,
        }
    }

    /// The grid from `−most` to `most`, whose zero point is the middle of the integers: `s = 2·most/(highest − lowest)`.
    ///
    /// ```
    /// use ft_quant::{Grid, Levels};
    ///
    /// let x = [5.47, 3.08, -7.59, 0.0, -1.95, -4.57, 10.8];
    /// let grid = Grid::symmetric(10.8, Levels::restricted(8));
    /// // s = 10.8/127 = 0.085
    /// assert_eq!(x.map(|x| grid.level(x)), [64, 36, -89, 0, -23, -54, 127]);
    /// // 5.47 comes back as 64·0.085.
    /// assert!((grid.number(64) - 5.442_5).abs() < 1e-3);
    /// ```
    pub fn symmetric(most: f32, levels: Levels) -> Self {
        Self {
            scale: positive(2.0 * most / (levels.highest - levels.lowest) as f32),
            zero_point: ((levels.lowest + levels.highest + 1) / 2) as f32,
            levels,
        }
    }

    /// The integer of the nearest number of the grid: `clamp(round(x/s + z))`.
    pub fn level(&self, x: f32) -> i32 {
        let Levels { lowest, highest } = self.levels;
        let level = match nearest(self.zero_point) == self.zero_point {
            // As PyTorch computes it: half-way cases of x/s are rounded to even.
            true => nearest(x / self.scale) + self.zero_point,
            false => nearest(x / self.scale + self.zero_point),
        };
        level.clamp(lowest as f32, highest as f32) as i32
    }

    /// `s·(q − z)`.
    pub fn number(&self, level: i32) -> f32 {
        self.scale * (level as f32 - self.zero_point)
    }

    /// The nearest number of the grid.
    pub fn round(&self, x: f32) -> f32 {
        self.number(self.level(x))
    }

    /// The mean squared error of rounding.
    ///
    /// ```
    /// use ft_quant::{Grid, Levels};
    ///
    /// let grid = Grid::symmetric(7.0, Levels::restricted(4));
    /// // 1.25 becomes 1, 9 becomes 7: (1/16 + 4)/2
    /// assert_eq!(grid.mean_squared_error(&[1.25, 9.0]), 2.031_25);
    /// ```
    pub fn mean_squared_error(&self, x: &[f32]) -> f64 {
        let squares = x.iter().map(|&x| f64::from(self.round(x) - x).powi(2));
        squares.sum::<f64>() / x.len().max(1) as f64
    }
}

/// The nearest integer, the even one of two, for `|x| < 2²²`; larger numbers are on no grid and are cut.
///
/// With 1.5·2²³ added, the last bit of the mantissa is worth 1. Processors without an instruction for it take as long for
/// `round_ties_even` as for everything else here.
#[inline(always)]
pub(crate) fn nearest(x: f32) -> f32 {
    (x.clamp(-4_194_303.0, 4_194_303.0) + 12_582_912.0) - 12_582_912.0
}

/// A scale of zero would divide by zero; any other serves for numbers that are all zero.
fn positive(scale: f32) -> f32 {
    if scale > 0.0 { scale } else { 1.0 }
}

/// Which numbers of a matrix `[rows, cols]` share a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// All of them.
    Tensor,
    /// Those of a row: an output channel of a weight, or a token of activations.
    Channel,
    /// So many neighbours in a row. The last group of a row may be smaller.
    Group(usize),
}

impl Granularity {
    /// The size of a group in a row of `cols` numbers.
    pub(crate) fn width(self, cols: usize) -> usize {
        match self {
            Self::Tensor | Self::Channel => cols.max(1),
            Self::Group(size) => size.clamp(1, cols.max(1)),
        }
    }
}

/// How a matrix is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// Bits of an integer, up to 8.
    pub bits: u32,
    /// Which numbers share a grid.
    pub granularity: Granularity,
    /// Whether the zero point is in the middle. Otherwise the grid lies from the least to the greatest number.
    pub symmetric: bool,
}

impl Scheme {
    /// Groups with a zero point each, `w4g64` in short.
    pub fn grouped(bits: u32, size: usize) -> Self {
        Self {
            bits,
            granularity: Granularity::Group(size),
            symmetric: false,
        }
    }

    /// A grid for each row, whose zero point is in the middle, `w8-sym` in short.
    pub fn rows(bits: u32) -> Self {
        Self {
            bits,
            granularity: Granularity::Channel,
            symmetric: true,
        }
    }

    /// The unsigned integers that weights are stored as.
    ///
    /// # Panics
    ///
    /// If the bits are not from 1 to 8.
    pub fn levels(&self) -> Levels {
        assert!(self.bits <= 8, "{} bits, weights have up to 8", self.bits);
        Levels::unsigned(self.bits)
    }

    /// The grid of these numbers.
    pub fn grid(&self, x: &[f32]) -> Grid {
        let (min, max) = crate::ranges::min_max(x);
        match self.symmetric {
            true => Grid::symmetric(max.max(-min), self.levels()),
            false => Grid::affine(min, max, self.levels()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact_on_every_grid() {
        for bits in 2..=8 {
            for (min, max) in [(0.3, 2.0), (-2.0, -0.3), (-1.0, 3.0), (0.0, 0.0)] {
                for levels in [Levels::unsigned(bits), Levels::signed(bits)] {
                    assert_eq!(Grid::affine(min, max, levels).round(0.0), 0.0);
                    assert_eq!(Grid::symmetric(max.max(-min), levels).round(0.0), 0.0);
                }
            }
        }
    }

    #[test]
    fn a_number_of_a_grid_stays_where_it_is() {
        for levels in [
            Levels::unsigned(4),
            Levels::signed(8),
            Levels::restricted(3),
        ] {
            for grid in [
                Grid::affine(-0.7, 2.3, levels),
                Grid::symmetric(1.9, levels),
            ] {
                for level in levels.lowest..=levels.highest {
                    assert_eq!(grid.level(grid.number(level)), level);
                }
            }
        }
    }

    #[test]
    fn the_error_is_half_a_step_at_most() {
        for symmetric in [false, true] {
            for bits in [2, 3, 4, 8] {
                let x: Vec<f32> = (0..100)
                    .map(|i| (i as f32 * 0.37).sin() * 2.0 + 0.4)
                    .collect();
                let scheme = Scheme {
                    bits,
                    granularity: Granularity::Tensor,
                    symmetric,
                };
                let grid = scheme.grid(&x);
                for x in x {
                    // The bounds of an affine grid move with the rounding of its zero point.
                    let most = if symmetric { 1.001 } else { 0.501 };
                    assert!((grid.round(x) - x).abs() <= grid.scale * most, "{bits} {x}");
                }
            }
        }
    }
}
