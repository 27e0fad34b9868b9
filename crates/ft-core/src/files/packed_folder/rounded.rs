//! A matrix of small integers with a grid for every group.

use burn::tensor::{Bytes, Device};
use ft_kernels::{Packed, PackedFormat};
use half::f16;
use rayon::prelude::*;

use crate::PackedBytes;

/// The largest change of a zero point by the 16 bits of a block, in steps of the grid.
const ZERO_POINT_ERROR: f32 = 0.125;

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
    /// Zeros, with groups of `width` neighbours. The last group of a row may be smaller.
    pub fn zeros(shape: [usize; 2], bits: u32, width: usize) -> Self {
        let [rows, cols] = shape;
        let width = width.max(1);
        let groups = cols.div_ceil(width);
        Self {
            shape,
            bits,
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
    /// None if there is no such format: the columns are not whole blocks, groups follow an order of their own, or a zero point
    /// is so large that the 16 bits of a block change it by more than an eighth of a step. Fitted zero points (HQQ) can be.
    pub fn format(&self) -> Option<PackedFormat> {
        let bits = if self.bits <= 4 { 4 } else { 8 };
        let group = [128, 64, 32].into_iter().find(|size| {
            let same = |block: &[usize]| block.iter().all(|group| *group == block[0]);
            self.shape[1].is_multiple_of(*size) && self.group_of.chunks_exact(*size).all(same)
        });
        let kept = |z: &f32| (f16::from_f32(*z).to_f32() - z).abs() <= ZERO_POINT_ERROR;
        let format = PackedFormat::integers(bits, group?)?;
        self.zero_points.iter().all(kept).then_some(format)
    }

    /// The same numbers in blocks, on the host. Zero points are rounded to 16 bits, which changes only fitted ones.
    ///
    /// None without a [`format`](Self::format).
    pub fn blocks(&self) -> Option<PackedBytes> {
        let format = self.format()?;
        let (cols, size, groups) = (self.shape[1], format.block(), self.groups());
        let mut bytes = vec![0; format.bytes_of(self.levels.len())];
        (bytes.par_chunks_exact_mut(format.block_bytes()))
            .zip(self.levels.par_chunks_exact(size))
            .enumerate()
            .with_min_len(256)
            .for_each(|(i, (block, levels))| {
                let first = i * size;
                let at = first / cols * groups + self.group_of[first % cols];
                format.put_integers(self.scales[at], self.zero_points[at], levels, block);
            });
        Some(PackedBytes {
            format,
            bytes: Bytes::from_bytes_vec(bytes),
            shape: self.shape,
        })
    }

    /// The same numbers in blocks, which products read where they are; see [`blocks`](Self::blocks).
    pub fn packed(&self, device: &Device) -> Option<Packed> {
        Some(self.blocks()?.on(device))
    }

    /// The same integers as rows of [`INT8`](PackedFormat::INT8), on the host: their products round inputs to 8 bits, too.
    ///
    /// None if they have other bits than 8, a row has several groups, or a zero point is not in the middle.
    pub fn row_bytes(&self) -> Option<PackedBytes> {
        let middle = self.zero_points.iter().all(|zero| *zero == 128.0);
        if self.bits != 8 || self.scales.len() != self.shape[0] || !middle {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.levels.len() + 4 * self.scales.len());
        for (scale, levels) in self
            .scales
            .iter()
            .zip(self.levels.chunks(self.shape[1].max(1)))
        {
            bytes.extend(scale.to_le_bytes());
            bytes.extend(levels);
        }
        Some(PackedBytes {
            format: PackedFormat::INT8,
            bytes: Bytes::from_bytes_vec(bytes),
            shape: self.shape,
        })
    }

    /// The integers of rows of [`INT8`](PackedFormat::INT8).
    ///
    /// # Panics
    ///
    /// If the sizes do not match.
    pub fn from_row_bytes(bytes: &[u8], shape: [usize; 2]) -> Self {
        let size = PackedFormat::INT8.bytes_of(shape[1]);
        assert_eq!(bytes.len(), size * shape[0], "bytes of INT8 of {shape:?}");
        let mut rounded = Self::zeros(shape, 8, shape[1]);
        rounded.zero_points.fill(128.0);
        let rows = bytes
            .chunks_exact(size)
            .zip(rounded.levels.chunks_mut(shape[1].max(1)));
        for ((row, levels), scale) in rows.zip(&mut rounded.scales) {
            let (head, integers) = row.split_at(4);
            *scale = f32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            levels.copy_from_slice(integers);
        }
        rounded
    }

    /// The integers of blocks; none if the format has others.
    ///
    /// # Panics
    ///
    /// If the sizes do not match.
    pub fn from_blocks(format: PackedFormat, bytes: &[u8], shape: [usize; 2]) -> Option<Self> {
        let bits = format.integer_bits()?;
        let mut rounded = Self::zeros(shape, bits, format.block());
        assert_eq!(
            bytes.len(),
            format.bytes_of(rounded.levels.len()),
            "bytes of {format} of {shape:?}"
        );
        (bytes.par_chunks_exact(format.block_bytes()))
            .zip(rounded.levels.par_chunks_exact_mut(format.block()))
            .zip(rounded.scales.par_iter_mut().zip(&mut rounded.zero_points))
            .with_min_len(256)
            .for_each(|((block, levels), (scale, zero_point))| {
                (*scale, *zero_point) = format.get_integers(block, levels);
            });
        Some(rounded)
    }

    /// The same with smaller groups of `width`, which divides the groups: each has the grid of the group around it.
    pub(crate) fn regrouped(mut self, width: usize) -> Self {
        let cols = self.shape[1];
        let (old, groups) = (self.groups(), cols.div_ceil(width));
        let of_group = |values: &[f32]| -> Vec<f32> {
            let of_row = |row: &[f32]| -> Vec<f32> {
                let group = |group: usize| row[self.group_of[group * width]];
                (0..groups).map(group).collect()
            };
            values.chunks_exact(old.max(1)).flat_map(of_row).collect()
        };
        let (scales, zero_points) = (of_group(&self.scales), of_group(&self.zero_points));
        (self.scales, self.zero_points) = (scales, zero_points);
        self.group_of = (0..cols).map(|col| col / width).collect();
        self
    }

    /// The same with zero points as blocks hold them: of 16 bits, which changes only fitted ones. Without a
    /// [`format`](Self::format) nothing changes.
    #[must_use]
    pub fn as_held(mut self) -> Self {
        if self.format().is_some() {
            for zero in &mut self.zero_points {
                *zero = f16::from_f32(*zero).to_f32();
            }
        }
        self
    }

    /// Bits for each number in a file: those of the integers, of scales of 16 bits, and of zero points of as many bits as the
    /// integers, or 16 if they are no integers.
    pub fn bits_per_weight(&self) -> f64 {
        let whole = self.zero_points.iter().all(|zero| zero.fract() == 0.0);
        let zero_point = if whole { f64::from(self.bits) } else { 16.0 };
        let grids = self.scales.len() as f64 * (16.0 + zero_point);
        f64::from(self.bits) + grids / self.levels.len().max(1) as f64
    }

    /// Bits for each number in memory: those of the blocks of its [`format`](Self::format), with 4 or 8 bits an integer, or 32
    /// if it has none and is held in `f32`.
    pub fn held_bits(&self) -> f64 {
        self.format().map_or(32.0, PackedFormat::bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(bits: u32, width: usize) -> Rounded {
        let mut rounded = Rounded::zeros([3, 128], bits, width);
        for (i, level) in rounded.levels.iter_mut().enumerate() {
            *level = (i * 7 % (1 << bits)) as u8;
        }
        for (i, scale) in rounded.scales.iter_mut().enumerate() {
            *scale = 0.25 + i as f32 / 16.0;
        }
        for (i, zero) in rounded.zero_points.iter_mut().enumerate() {
            *zero = (i % 4) as f32;
        }
        rounded
    }

    #[test]
    fn blocks_give_the_same_integers_again() {
        for bits in [4, 8] {
            for width in [32, 64, 128] {
                let rounded = example(bits, width);
                let blocks = rounded.blocks().expect("has a format");
                let again = Rounded::from_blocks(blocks.format, &blocks.bytes, blocks.shape);
                assert_eq!(again, Some(rounded));
            }
        }
        assert_eq!(Rounded::from_blocks(PackedFormat::Q4_0, &[], [0, 32]), None);
    }

    #[test]
    fn smaller_groups_have_the_same_numbers() {
        let rounded = example(4, 128);
        let smaller = rounded.clone().regrouped(32);
        assert_eq!(smaller.groups(), 4);
        assert_eq!(smaller.dequantize(), rounded.dequantize());
    }

    #[test]
    fn a_file_takes_other_bits_than_memory() {
        // In a file 16 bits of scale, and 3 of zero point; in memory 4 bits an integer, 32 of scale, 16 of zero point.
        let mut rounded = example(3, 64);
        assert_eq!(rounded.bits_per_weight(), 3.0 + 19.0 / 64.0);
        assert_eq!(rounded.held_bits(), 4.0 + 48.0 / 64.0);
        rounded.zero_points[1] = 0.3;
        assert_eq!(rounded.bits_per_weight(), 3.0 + 32.0 / 64.0);
        let held = rounded.clone().as_held();
        assert_eq!(held.zero_points[1], 0.300_048_83);
        assert_eq!(example(3, 16).held_bits(), 32.0);
        let blocks = rounded.blocks().expect("has a format");
        let again = Rounded::from_blocks(blocks.format, &blocks.bytes, blocks.shape);
        assert_eq!(again.expect("integers").dequantize(), held.dequantize());
    }

    #[test]
    fn a_zero_point_that_16_bits_do_not_hold_has_no_format() {
        let mut rounded = example(4, 32);
        // Numbers near 5 that differ by 1e-5: z = −5/1e-5·15.
        rounded.zero_points[2] = -1e5;
        assert_eq!(rounded.format(), None);
        rounded.zero_points[2] = -500.3;
        assert_eq!(rounded.format(), PackedFormat::integers(4, 32));
        rounded.zero_points[2] = f32::NAN;
        assert!(rounded.packed(&Device::default()).is_none());
    }
}
