//! A matrix of small integers with a grid for every group, and rounding to nearest.

use burn::tensor::{Bytes, Device};
use ft_kernels::{Packed, PackedFormat};
use rayon::prelude::*;

use crate::error::check_finite;
use crate::{Grid, Result, Scheme};

/// A matrix `[rows, cols]` as `w[i, j] = s[i, g]·(q[i, j] − z[i, g])`, where `g` is the group of column `j`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded {
    /// `[rows, cols]`
    pub shape: [usize; 2],
    /// Bits of an integer.
    pub bits: u32,
    /// The integers, `[rows, cols]`.
    pub levels: Vec<u8>,
    /// `[rows, groups]`
    pub scales: Vec<f32>,
    /// `[rows, groups]`
    pub zero_points: Vec<f32>,
    /// The group of each column, `[cols]`.
    pub group_of: Vec<usize>,
}

impl Rounded {
    /// Zeros, whose grids are not set.
    pub(crate) fn new(shape: [usize; 2], scheme: &Scheme) -> Self {
        let [rows, cols] = shape;
        let width = scheme.granularity.width(cols);
        let groups = cols.div_ceil(width);
        Self {
            shape,
            bits: scheme.bits,
            levels: vec![0; rows * cols],
            scales: vec![1.0; rows * groups],
            zero_points: vec![0.0; rows * groups],
            group_of: (0..cols).map(|col| col / width).collect(),
        }
    }

    /// The number of groups of a row.
    pub fn groups(&self) -> usize {
        match self.shape[0] {
            0 => 0,
            rows => self.scales.len() / rows,
        }
    }

    /// The grid of a group.
    pub fn grid(&self, row: usize, group: usize) -> Grid {
        let at = row * self.groups() + group;
        Grid {
            scale: self.scales[at],
            zero_point: self.zero_points[at],
            levels: crate::Levels::unsigned(self.bits),
        }
    }

    /// The numbers, `[rows, cols]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let (cols, groups) = (self.shape[1], self.groups());
        let mut out = vec![0.0; self.levels.len()];
        let rows =
            (out.par_chunks_exact_mut(cols.max(1))).zip(self.levels.par_chunks_exact(cols.max(1)));
        rows.enumerate().for_each(|(row, (out, levels))| {
            let scales = &self.scales[row * groups..][..groups];
            let zero_points = &self.zero_points[row * groups..][..groups];
            for ((out, level), group) in out.iter_mut().zip(levels).zip(&self.group_of) {
                *out = scales[*group] * (f32::from(*level) - zero_points[*group]);
            }
        });
        out
    }

    /// The format of its blocks in memory: the largest whose blocks lie within groups. Integers of less than 4 bits take 4 there.
    ///
    /// None if there is no such format: the columns are not whole blocks, or groups follow an order of their own.
    pub fn format(&self) -> Option<PackedFormat> {
        let bits = if self.bits <= 4 { 4 } else { 8 };
        let group = [128, 64, 32].into_iter().find(|size| {
            let same = |block: &[usize]| block.iter().all(|group| *group == block[0]);
            self.shape[1].is_multiple_of(*size) && self.group_of.chunks_exact(*size).all(same)
        });
        PackedFormat::integers(bits, group?)
    }

    /// The same numbers in blocks, which products read where they are. Zero points are rounded to 16 bits, which changes only
    /// fitted ones.
    ///
    /// None without a [`format`](Self::format).
    pub fn packed(&self, device: &Device) -> Option<Packed> {
        let format = self.format()?;
        let (cols, size) = (self.shape[1], format.block());
        let mut bytes = vec![0; format.bytes_of(self.levels.len())];
        let blocks = bytes
            .chunks_exact_mut(format.block_bytes())
            .zip(self.levels.chunks_exact(size));
        for (i, (block, levels)) in blocks.enumerate() {
            let first = i * size;
            let grid = self.grid(first / cols, self.group_of[first % cols]);
            format.put_integers(grid.scale, grid.zero_point, levels, block);
        }
        Some(Packed::from_bytes(
            format,
            Bytes::from_bytes_vec(bytes),
            self.shape,
            device,
        ))
    }

    /// Bits for each number: those of the integers, and of scales of 16 bits and zero points of as many as the integers.
    pub fn bits_per_weight(&self) -> f64 {
        let grids = self.scales.len() as f64 * (16.0 + f64::from(self.bits));
        f64::from(self.bits) + grids / self.levels.len().max(1) as f64
    }
}

/// Rounds every number to the nearest of its group's grid, which lies from the least to the greatest number.
///
/// `weight` is `[rows, cols]`.
///
/// # Errors
///
/// [`Error::Weight`](crate::Error::Weight) if a number is not finite.
///
/// # Panics
///
/// If the size does not match, or the bits are not from 1 to 8.
///
/// ```
/// use ft_quant::{Scheme, round_to_nearest};
///
/// let weight = [0.0, 1.0, 2.0, 3.0, -1.0, 0.4, 0.0, 2.0];
/// let rounded = round_to_nearest(&weight, [1, 8], &Scheme::grouped(2, 4))?;
/// assert_eq!(rounded.levels, [0, 1, 2, 3, 0, 1, 1, 3]);
/// assert_eq!(rounded.dequantize()[4..], [-1.0, 0.0, 0.0, 2.0]);
/// # Ok::<(), ft_quant::Error>(())
/// ```
pub fn round_to_nearest(weight: &[f32], shape: [usize; 2], scheme: &Scheme) -> Result<Rounded> {
    let [rows, cols] = shape;
    assert_eq!(weight.len(), rows * cols, "numbers of {shape:?}");
    check_finite(weight, cols)?;
    let mut rounded = Rounded::new(shape, scheme);
    let groups = rounded.groups();
    if weight.is_empty() {
        return Ok(rounded);
    }
    let width = scheme.granularity.width(cols);
    let whole =
        matches!(scheme.granularity, crate::Granularity::Tensor).then(|| scheme.grid(weight));
    (weight.par_chunks_exact(cols))
        .zip(rounded.levels.par_chunks_exact_mut(cols))
        .zip(rounded.scales.par_chunks_exact_mut(groups))
        .zip(rounded.zero_points.par_chunks_exact_mut(groups))
        .for_each(|(((weight, levels), scales), zero_points)| {
            let parts = weight.chunks(width).zip(levels.chunks_mut(width));
            for ((weight, levels), (scale, zero_point)) in
                parts.zip(scales.iter_mut().zip(zero_points))
            {
                let grid = whole.unwrap_or_else(|| scheme.grid(weight));
                (*scale, *zero_point) = (grid.scale, grid.zero_point);
                for (level, weight) in levels.iter_mut().zip(weight) {
                    *level = grid.level(*weight) as u8;
                }
            }
        });
    Ok(rounded)
}

/// `‖found − weight‖ / ‖weight‖`, the relative error of a matrix.
pub fn relative_error(weight: &[f32], found: &[f32]) -> f64 {
    assert_eq!(weight.len(), found.len(), "matrices of the same size");
    let squares = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
    let difference = squares(&mut weight.iter().zip(found).map(|(w, f)| f64::from(w - f)));
    let size = squares(&mut weight.iter().map(|w| f64::from(*w)));
    if size > 0.0 {
        (difference / size).sqrt()
    } else {
        difference.sqrt()
    }
}
