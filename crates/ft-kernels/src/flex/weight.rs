//! Products with a stored weight: in `f32`, or in 16 bits or blocks of few bits, which are widened during the product.
//!
//! Every number of `f16` and `bf16` is a number of `f32`, so widening is exact and the mathematics are those of `f32`. For
//! many rows, panels of the weight are widened into the cache and multiplied by `gemm`. For few rows, as in decoding, the
//! time is that of reading the weight once, so one pass over its rows widens them in registers; for some more a pass over
//! them multiplies each with 16 rows at a time. Rows of 8 bits with one scale are not widened: see `vector_wise`.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, bf16, f16};
use gemm::Parallelism;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::bf16_product;
use super::columns::Columns;
use super::half::{dot, dot_bf16, dot_f16, widen_bf16, widen_f16};
use super::int8;
use super::one_row::Outputs;
use super::packed::Blocks;
use super::pieces::{each, zeros};
use super::product::{Matrix, Output, ProductInRows, product, product_in_rows, threads_for};
use super::some_rows::{Memory, SideBySide, SomeRows};
use super::vector_wise;
use crate::PackedFormat;
use crate::exact::is_exact;

/// The number of elements of a widened panel: 1 MiB of `f32`.
const PANEL: usize = 1 << 18;
/// Up to this many rows, a pass over the weight's rows is fastest.
const FEW: usize = 4;
/// Up to this many rows, a pass over the weight's rows with 16 rows at a time is faster than `gemm`.
pub(super) const SOME: usize = 48;
/// The number of elements of the weight for each task of such a pass.
const PIECE: usize = 1 << 16;
/// Up to this many rows, as in a prompt, each thread has panels of its own: copying a panel into `gemm`'s order takes long beside
/// its product, and is done by one thread.
const MANY: usize = 512;

/// A matrix `[rows, cols]` with contiguous rows.
#[derive(Clone, Copy)]
struct Stored<'a> {
    numbers: Numbers<'a>,
    rows: usize,
    cols: usize,
    row_stride: usize,
}

#[derive(Clone, Copy)]
enum Numbers<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
    Packed(Blocks<'a>),
}

/// A weight `[out, in]`, which may be stored as its transpose, as in GPT-2.
#[derive(Clone, Copy)]
pub(super) struct Weight<'a> {
    stored: Stored<'a>,
    transposed: bool,
}

/// Converts a tensor of rank 2 to one that [`Weight::new`] accepts. Most need no change.
pub(super) fn with_rows(tensor: FlexTensor) -> FlexTensor {
    let strides = tensor.layout().strides();
    let along = |row: usize, col: usize| strides[col] == 1 && strides[row] >= 0;
    if along(0, 1) || along(1, 0) {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

impl<'a> Weight<'a> {
    /// # Panics
    ///
    /// If neither rows nor columns are contiguous, or the numbers are not floats of 16 or 32 bits.
    pub(super) fn new(tensor: &'a FlexTensor) -> Self {
        let [rows, cols] = tensor.shape().dims();
        let strides = tensor.layout().strides();
        let transposed = strides[1] != 1;
        let (rows, cols, row_stride, col_stride) = if transposed {
            (cols, rows, strides[1], strides[0])
        } else {
            (rows, cols, strides[0], strides[1])
        };
        assert!(col_stride == 1 && row_stride >= 0, "see `with_rows`");
        let start = tensor.layout().start_offset();
        let numbers = match tensor.dtype() {
            DType::F32 => Numbers::F32(&tensor.storage()[start..]),
            DType::F16 => Numbers::F16(&tensor.storage()[start..]),
            DType::BF16 => Numbers::Bf16(&tensor.storage()[start..]),
            other => panic!("a weight of {other:?}"),
        };
        let row_stride = row_stride as usize;
        Self {
            stored: Stored {
                numbers,
                rows,
                cols,
                row_stride,
            },
            transposed,
        }
    }

    /// The number of its output's features.
    pub(super) fn features(&self) -> usize {
        match self.transposed {
            true => self.stored.cols,
            false => self.stored.rows,
        }
    }

    /// Blocks of few bits.
    pub(super) fn packed(blocks: Blocks<'a>) -> Self {
        let [rows, cols] = blocks.shape;
        Self {
            stored: Stored {
                numbers: Numbers::Packed(blocks),
                rows,
                cols,
                row_stride: 0,
            },
            transposed: false,
        }
    }

    /// [`forward`](Self::forward), but an input that is multiplied with blocks may be rounded to 8 bits: for results that
    /// need no gradient.
    pub(super) fn forward_rounded(&self, x: Matrix<'_>, scale: f32, out: &mut [f32]) {
        match self.rounds() {
            Some(blocks) if !out.is_empty() => {
                int8::times_transposed(&blocks, &x.in_rows(), out);
                scale_by(scale, out);
            }
            _ => self.forward(x, scale, out),
        }
    }

    /// The blocks whose products without a gradient round their input.
    pub(super) fn rounds(&self) -> Option<Blocks<'a>> {
        match self.stored.numbers {
            Numbers::Packed(blocks)
                if int8::supports(blocks.format) && self.stored.cols > 0 && !is_exact() =>
            {
                Some(blocks)
            }
            _ => None,
        }
    }

    /// The blocks whose products round a row of the input as a whole.
    pub(super) fn rounds_rows(&self) -> Option<Blocks<'a>> {
        self.stored.vector_wise(self.stored.cols)
    }

    /// Whether the outputs are products with rows of what is stored.
    pub(super) fn is_by_row(&self) -> bool {
        !self.transposed
    }

    /// What computes some outputs for one row. The outputs are products with rows of what is stored.
    pub(super) fn outputs(&self, x: &'a [f32]) -> Outputs<'a> {
        let stored = self.stored;
        Box::new(move |first, out| {
            let mut wide = vec![0.0; stored.cols];
            for (row, out) in (first..).zip(out.chunks_exact_mut(1)) {
                stored.dot_row(row, x, &mut wide, out);
            }
        })
    }

    /// `out = scale·x·Wᵀ`, `[rows, out]`.
    pub(super) fn forward(&self, x: Matrix<'_>, scale: f32, out: &mut [f32]) {
        if self.transposed {
            self.stored.times(x, scale, out);
        } else {
            self.stored.times_transposed(x, scale, out);
        }
    }

    /// `out = scale·dy·W`, `[rows, in]`: from the gradient of the output to that of the input.
    pub(super) fn backward(&self, dy: Matrix<'_>, scale: f32, out: &mut [f32]) {
        if self.transposed {
            self.stored.times_transposed(dy, scale, out);
        } else {
            self.stored.times(dy, scale, out);
        }
    }
}

impl<'a> Stored<'a> {
    /// `out = scale·x·Sᵀ`, `[x.rows, rows]`.
    fn times_transposed(&self, x: Matrix<'_>, scale: f32, out: &mut [f32]) {
        assert_eq!(x.cols(), self.cols, "inner sizes differ");
        assert_eq!(
            out.len(),
            x.rows() * self.rows,
            "the output has another size"
        );
        if out.is_empty() || self.cols == 0 {
            out.fill(0.0);
            return;
        }
        if let Some(blocks) = self.vector_wise(self.cols) {
            vector_wise::times_transposed(&blocks, &x.in_rows(), out);
            return scale_by(scale, out);
        }
        if x.rows() <= SOME {
            let numbers = x.in_rows();
            match x.rows() {
                ..=FEW => self.dot_rows(&numbers, out),
                #[cfg(target_arch = "x86_64")]
                _ if bf16_product::is_on() => {
                    let fill =
                        |row, pairs: &mut [u32], wide: &mut _| self.round_row(row, pairs, wide);
                    self.times_some_rows::<bf16_product::SideBySide>(&numbers, out, fill);
                }
                _ => self.times_some_rows::<SideBySide>(&numbers, out, |row, wide, _| {
                    self.widen_row(row, wide);
                }),
            }
            return scale_by(scale, out);
        }
        let rounded = rounds(x.rows(), self.rows, self.cols);
        #[cfg(target_arch = "x86_64")]
        if rounded && self.times_rounded(x, false, scale, out) {
            return;
        }
        match self.numbers {
            Numbers::F32(numbers) => {
                let weight = Matrix::strided(numbers, self.rows, self.cols, self.row_stride, 1);
                let threads = threads_for(x.rows(), self.rows, self.cols);
                product(x, weight.t(), scale, out, Output::Overwrite, threads);
            }
            _ if x.rows() <= MANY && !rounded => self.panels_side_by_side(x, scale, out),
            _ => self.for_each_panel(rounded, |first, panel| {
                let (out, stride) = (&mut out[first..], self.rows);
                let threads = threads_for(x.rows(), panel.rows(), self.cols);
                let product = product_with(rounded);
                product(x, panel.t(), scale, out, stride, Output::Overwrite, threads);
            }),
        }
    }

    /// `out = scale·x·S`, `[x.rows, cols]`.
    fn times(&self, x: Matrix<'_>, scale: f32, out: &mut [f32]) {
        assert_eq!(x.cols(), self.rows, "inner sizes differ");
        assert_eq!(
            out.len(),
            x.rows() * self.cols,
            "the output has another size"
        );
        if let Some(blocks) = self.vector_wise(self.rows) {
            vector_wise::times(&blocks, &x.in_rows(), out);
            return scale_by(scale, out);
        }
        let rounded = rounds(x.rows(), self.cols, self.rows);
        #[cfg(target_arch = "x86_64")]
        if rounded && self.times_rounded(x, true, scale, out) {
            return;
        }
        match self.numbers {
            Numbers::F32(numbers) => {
                let weight = Matrix::strided(numbers, self.rows, self.cols, self.row_stride, 1);
                let threads = threads_for(x.rows(), self.cols, self.rows);
                product(x, weight, scale, out, Output::Overwrite, threads);
            }
            _ => {
                out.fill(0.0);
                self.for_each_panel(rounded, |first, panel| {
                    let x = x.columns(first..first + panel.rows());
                    let threads = threads_for(x.rows(), self.cols, panel.rows());
                    let product = product_with(rounded);
                    product(x, panel, scale, out, self.cols, Output::Add, threads);
                });
            }
        }
    }

    /// Rounds a row to pairs of `bf16`.
    #[cfg(target_arch = "x86_64")]
    fn round_row(&self, row: usize, pairs: &mut [u32], wide: &mut Vec<f32>) {
        let here = row * self.row_stride..row * self.row_stride + self.cols;
        match self.numbers {
            Numbers::F32(numbers) => bf16_product::round(&numbers[here], pairs),
            Numbers::F16(numbers) => bf16_product::round(&numbers[here], pairs),
            Numbers::Bf16(numbers) => bf16_product::round(&numbers[here], pairs),
            Numbers::Packed(_) => {
                wide.resize(self.cols, 0.0);
                self.widen_row(row, wide);
                bf16_product::round(wide, pairs);
            }
        }
    }

    /// `out = scale·x·Sᵀ` or, with `transposed`, `scale·x·S` in `bf16`. Returns false for blocks, which are decoded first.
    #[cfg(target_arch = "x86_64")]
    fn times_rounded(&self, x: Matrix<'_>, transposed: bool, scale: f32, out: &mut [f32]) -> bool {
        match self.numbers {
            Numbers::F32(numbers) => self.times_lines(numbers, x, transposed, scale, out),
            Numbers::F16(numbers) => self.times_lines(numbers, x, transposed, scale, out),
            Numbers::Bf16(numbers) => self.times_lines(numbers, x, transposed, scale, out),
            Numbers::Packed(_) => return false,
        }
        true
    }

    #[cfg(target_arch = "x86_64")]
    fn times_lines<T: bf16_product::Number>(
        &self,
        numbers: &[T],
        x: Matrix<'_>,
        transposed: bool,
        scale: f32,
        out: &mut [f32],
    ) {
        let (count, strides) = match transposed {
            true => (self.cols, [1, self.row_stride]),
            false => (self.rows, [self.row_stride, 1]),
        };
        let lines = bf16_product::Terms { numbers, strides };
        let columns = bf16_product::Factor {
            count,
            pack: &|columns, terms, to| bf16_product::pack_columns(lines, columns, terms, to),
        };
        let threads = threads_for(x.rows(), count, x.cols());
        bf16_product::product_with(x, columns, scale, out, count, Output::Overwrite, threads);
    }

    /// Blocks whose products round both factors, if sums of so many terms fit.
    fn vector_wise(&self, terms: usize) -> Option<Blocks<'a>> {
        match self.numbers {
            Numbers::Packed(blocks)
                if blocks.format == PackedFormat::INT8 && vector_wise::supports(terms) =>
            {
                Some(blocks)
            }
            _ => None,
        }
    }

    /// Calls `f` with a few rows at a time in `f32`, and the index of the first. If products are rounded, each rounds the other
    /// factor again, so there are more rows.
    fn for_each_panel(&self, rounded: bool, mut f: impl FnMut(usize, Matrix<'_>)) {
        if self.rows == 0 || self.cols == 0 {
            return;
        }
        let size = if rounded { 4 * PANEL } else { PANEL };
        let most = (size / self.cols).clamp(1, self.rows);
        let mut panel = vec![0.0; most * self.cols];
        for first in (0..self.rows).step_by(most) {
            let rows = most.min(self.rows - first);
            let panel = &mut panel[..rows * self.cols];
            panel
                .par_chunks_mut(self.cols)
                .enumerate()
                .with_min_len(16)
                .for_each(|(row, wide)| self.widen_row(first + row, wide));
            f(first, Matrix::new(panel, rows, self.cols));
        }
    }

    /// The same with a panel for each thread.
    fn panels_side_by_side(&self, x: Matrix<'_>, scale: f32, out: &mut [f32]) {
        let (rows, cols) = (x.rows(), self.cols);
        let most = (PANEL / 2 / cols).clamp(1, self.rows.div_ceil(rayon::current_num_threads()));
        let out = Columns::new(out, self.rows);
        let scratch = || (vec![0.0; most * cols], vec![0.0; rows * most]);
        let firsts = (0..self.rows).into_par_iter().step_by(most);
        firsts.for_each_init(scratch, |(panel, part), first| {
            let count = most.min(self.rows - first);
            let (panel, part) = (&mut panel[..count * cols], &mut part[..rows * count]);
            for (row, wide) in panel.chunks_exact_mut(cols).enumerate() {
                self.widen_row(first + row, wide);
            }
            let panel = Matrix::new(panel, count, cols).t();
            product(x, panel, scale, part, Output::Overwrite, Parallelism::None);
            for (row, numbers) in part.chunks_exact(count).enumerate() {
                // SAFETY: the columns of a panel are written to by its thread alone.
                unsafe { out.write(row, first, numbers) };
            }
        });
    }

    fn widen_row(&self, row: usize, wide: &mut [f32]) {
        let here = row * self.row_stride..row * self.row_stride + self.cols;
        match self.numbers {
            Numbers::F32(numbers) => wide.copy_from_slice(&numbers[here]),
            Numbers::F16(numbers) => widen_f16(&numbers[here], wide),
            Numbers::Bf16(numbers) => widen_bf16(&numbers[here], wide),
            Numbers::Packed(blocks) => blocks.format.decode(blocks.row(row), wide),
        }
    }

    /// `out[i, j] = ⟨xᵢ, Sⱼ⟩` for a few rows `x`, reading the weight once.
    fn dot_rows(&self, x: &[f32], out: &mut [f32]) {
        let count = x.len() / self.cols;
        let rows = (PIECE / self.cols).clamp(1, self.rows);
        let dot_piece = |first: usize, piece: &mut [f32]| {
            // `piece` is `[rows here, count]`.
            let mut wide = vec![0.0; self.cols];
            for (row, piece) in piece.chunks_exact_mut(count).enumerate() {
                self.dot_row(first + row, x, &mut wide, piece);
            }
        };
        if count == 1 {
            let pieces = out.par_chunks_mut(rows).enumerate();
            return each(pieces, |(i, piece)| dot_piece(i * rows, piece));
        }
        let mut by_row = zeros(out.len());
        let pieces = by_row.par_chunks_mut(rows * count).enumerate();
        each(pieces, |(i, piece)| dot_piece(i * rows, piece));
        self.transpose(&by_row, out);
    }

    /// The same for more rows. `fill` writes a row of the weight, and may use a vector.
    fn times_some_rows<X: SomeRows>(
        &self,
        x: &[f32],
        out: &mut [f32],
        fill: impl Fn(usize, &mut [X::Number], &mut Vec<f32>) + Sync,
    ) {
        let count = x.len() / self.cols;
        let (x, width) = (X::new(x, self.cols), X::width(self.cols));
        // Whole groups of rows in each piece.
        let rows = (PIECE / self.cols)
            .clamp(1, self.rows)
            .next_multiple_of(X::TOGETHER);
        let mut by_row = zeros(out.len());
        let pieces = by_row.par_chunks_mut(rows * count).enumerate();
        each(pieces, |(i, piece)| {
            let mut w = vec![X::Number::default(); X::TOGETHER * width];
            let mut scratch = Vec::new();
            for (group, out) in piece.chunks_mut(X::TOGETHER * count).enumerate() {
                let first = i * rows + group * X::TOGETHER;
                // The last group may have fewer rows; what lies in the others is not used.
                let here = out.len() / count;
                for (row, w) in w.chunks_exact_mut(width).take(here).enumerate() {
                    fill(first + row, w, &mut scratch);
                }
                let next = self.memory_of(first + X::TOGETHER, X::TOGETHER);
                x.times(&w, here, &next, out);
            }
        });
        self.transpose(&by_row, out);
    }

    /// Where the next group of rows lies, if there is one.
    fn memory_of(&self, first: usize, count: usize) -> Memory {
        let last = (first + count).min(self.rows);
        if first >= last {
            return Memory::NONE;
        }
        let here = first * self.row_stride..(last - 1) * self.row_stride + self.cols;
        match self.numbers {
            Numbers::F32(numbers) => Memory::of(&numbers[here]),
            Numbers::F16(numbers) => Memory::of(&numbers[here]),
            Numbers::Bf16(numbers) => Memory::of(&numbers[here]),
            // Decoding takes longer than reading.
            Numbers::Packed(_) => Memory::NONE,
        }
    }

    /// From `[rows, count]` to `[count, rows]`.
    fn transpose(&self, by_row: &[f32], out: &mut [f32]) {
        let count = out.len() / self.rows;
        let copy = |(i, out): (usize, &mut [f32])| {
            for (out, row) in out.iter_mut().zip(by_row.chunks_exact(count)) {
                *out = row[i];
            }
        };
        if by_row.len() > PIECE {
            each(out.par_chunks_exact_mut(self.rows).enumerate(), copy);
        } else {
            out.chunks_exact_mut(self.rows).enumerate().for_each(copy);
        }
    }

    fn dot_row(&self, row: usize, x: &[f32], wide: &mut [f32], out: &mut [f32]) {
        let here = row * self.row_stride..row * self.row_stride + self.cols;
        match (self.numbers, out) {
            (Numbers::F32(numbers), out) => {
                for (x, out) in x.chunks_exact(self.cols).zip(out) {
                    *out = dot(&numbers[here.clone()], x);
                }
            }
            (Numbers::F16(numbers), [out]) => *out = dot_f16(&numbers[here], x),
            (Numbers::Bf16(numbers), [out]) => *out = dot_bf16(&numbers[here], x),
            (_, out) => {
                self.widen_row(row, wide);
                for (x, out) in x.chunks_exact(self.cols).zip(out) {
                    *out = dot(wide, x);
                }
            }
        }
    }
}

/// Whether a product is rounded to `bf16`.
fn rounds(rows: usize, cols: usize, terms: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    return bf16_product::rounds(rows, cols, terms);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (rows, cols, terms);
        false
    }
}

/// What computes a part of a product: it is rounded if the whole is, also if it is small.
fn product_with(rounded: bool) -> ProductInRows {
    match rounded {
        #[cfg(target_arch = "x86_64")]
        true => bf16_product::product,
        _ => product_in_rows,
    }
}

fn scale_by(scale: f32, out: &mut [f32]) {
    if scale != 1.0 {
        out.iter_mut().for_each(|out| *out *= scale);
    }
}
