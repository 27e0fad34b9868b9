//! 32 lines of a weight side by side, with four numbers of a line together: the order in which the processor's dot products of
//! four bytes read them.
//!
//! A line is a row of the weight in the forward pass, and a column in the backward pass. Panels live in the cache and are made
//! for each product, so that the weight is stored once. For hundreds of rows of the input this takes a few hundredths of the
//! time of the product.

use std::ops::Range;

use super::super::packed::Blocks;
use super::tile::Instructions;
use crate::packed::int8_rows::{HEAD, scale};

/// The lines of a panel.
pub(super) const LANES: usize = 32;

/// Four numbers of each line.
pub(super) type Fours = [[u8; 4]; LANES];

/// Whose sums the products are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// `x·Wᵀ`
    Rows,
    /// `x·W`
    Columns,
}

/// A weight `[rows, cols]` in [`INT8`](crate::PackedFormat::INT8).
#[derive(Clone, Copy)]
pub(super) struct Levels<'a> {
    bytes: &'a [u8],
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl<'a> Levels<'a> {
    pub(super) fn new(weight: &Blocks<'a>) -> Self {
        let [rows, cols] = weight.shape;
        let bytes = &weight.bytes[..rows * (HEAD + cols)];
        Self { bytes, rows, cols }
    }

    /// The integers of a row.
    pub(super) fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * (HEAD + self.cols) + HEAD..][..self.cols]
    }

    /// The bytes of these rows, without those that do not exist.
    pub(super) fn bytes_of(&self, rows: Range<usize>) -> &'a [u8] {
        let size = HEAD + self.cols;
        let [start, end] = [rows.start, rows.end].map(|row| row.min(self.rows) * size);
        &self.bytes[start..end]
    }

    /// The scale of a row.
    pub(super) fn scale(&self, row: usize) -> f32 {
        scale(&self.bytes[row * (HEAD + self.cols)..])
    }

    /// The number of lines.
    pub(super) fn lines(&self, lines: Lines) -> usize {
        match lines {
            Lines::Rows => self.rows,
            Lines::Columns => self.cols,
        }
    }

    /// Fills the panels that begin with the line `first`, each of `fours` fours. Lines and numbers that are missing have any
    /// values: those lines are not written, and those numbers are multiplied by 0.
    ///
    /// # Safety
    ///
    /// The processor has the instructions.
    #[inline(always)]
    pub(super) unsafe fn fill<I: Instructions>(
        &self,
        lines: Lines,
        first: usize,
        fours: usize,
        panels: &mut [Fours],
    ) {
        let count = panels.len() / fours;
        match lines {
            Lines::Rows => {
                for (i, panel) in panels.chunks_exact_mut(fours).enumerate() {
                    let mut rows = [&[][..]; LANES];
                    for (lane, row) in rows.iter_mut().enumerate() {
                        *row = self.row((first + i * LANES + lane).min(self.rows - 1));
                    }
                    // SAFETY: as for this function.
                    unsafe { I::put_rows(&rows, panel) };
                }
            }
            Lines::Columns => {
                for four in 0..fours {
                    let mut rows = [&[][..]; 4];
                    for (i, row) in rows.iter_mut().enumerate() {
                        *row = self.row((4 * four + i).min(self.rows - 1));
                    }
                    for i in 0..count {
                        let col = first + i * LANES;
                        let out = &mut panels[i * fours + four];
                        if col + LANES <= self.cols {
                            // SAFETY: as for this function.
                            unsafe { I::put_columns(rows.map(|row| &row[col..col + LANES]), out) };
                        } else {
                            put_columns(rows.map(|row| &row[col.min(row.len())..]), out);
                        }
                    }
                }
            }
        }
    }
}

/// The levels of 32 rows from the column `first`, which is that of a four.
pub(super) fn put_rows(rows: &[&[u8]; LANES], first: usize, panel: &mut [Fours]) {
    for (lane, row) in rows.iter().enumerate() {
        let fours = row[first..].chunks(4).zip(&mut panel[first / 4..]);
        for (levels, fours) in fours {
            fours[lane][..levels.len()].copy_from_slice(levels);
        }
    }
}

/// The levels of up to 32 columns of four rows.
pub(super) fn put_columns(rows: [&[u8]; 4], out: &mut Fours) {
    for (i, row) in rows.iter().enumerate() {
        for (four, level) in out.iter_mut().zip(*row) {
            four[i] = *level;
        }
    }
}
