//! Products of a weight with some rows, as when many sequences are decoded together.

use super::super::product::Matrix;
use super::super::some_rows::{Memory, SomeRows};
use super::pack::{Terms, pack_columns};
use super::supported;
use super::tile::{COLS, LANES, Out, ROWS, tile};

/// Some rows side by side, rounded.
pub(in super::super) struct SideBySide {
    /// `[rows / 16, pairs, 16]`
    packed: Vec<u32>,
    rows: usize,
    pairs: usize,
}

impl SomeRows for SideBySide {
    const TOGETHER: usize = ROWS;
    /// A pair, see [`round`](super::round).
    type Number = u32;

    fn new(x: &[f32], cols: usize) -> Self {
        let (rows, pairs) = (x.len() / cols, Self::width(cols));
        let mut packed = vec![0; rows.next_multiple_of(LANES) * pairs];
        let lines = Terms::of_rows(Matrix::new(x, rows, cols));
        pack_columns(lines, 0..rows, 0..cols, &mut packed);
        Self {
            packed,
            rows,
            pairs,
        }
    }

    fn width(cols: usize) -> usize {
        cols.div_ceil(2)
    }

    fn times(&self, w: &[u32], count: usize, next: &Memory, out: &mut [f32]) {
        assert!(supported(), "see `supported`");
        for (j, columns) in self.packed.chunks(COLS * self.pairs).enumerate() {
            let col = j * COLS;
            let size = [count, COLS.min(self.rows - col)];
            let out = Out {
                numbers: &mut out[col..],
                row_stride: self.rows,
                scale: 1.0,
                add: false,
            };
            let next = if j == 0 { next } else { &Memory::NONE };
            // SAFETY: the processor has the instructions, as was just asked.
            unsafe { tile::<false>(w, columns, self.pairs, next, size, out) };
        }
    }
}
