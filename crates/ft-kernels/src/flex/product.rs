//! Matrix products of slices: a checked interface to the `gemm` crate, and to products in `bf16` if they are asked for.

use std::borrow::Cow;

use gemm::Parallelism;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::bf16_product;

/// A thread with at least so many rows of a product multiplies them alone, with its own copy of the other factor in `gemm`'s order.
/// Products of 1,024 rows by two threads are 4 to 9% faster so than one product by both.
const ROWS: usize = 256;

/// A matrix in a slice: element `(i, j)` is at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix.
    pub(super) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols, 1)
    }

    /// # Panics
    ///
    /// If the last element is outside `data`.
    pub(super) fn strided(
        data: &'a [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
        if rows > 0 && cols > 0 {
            let last = (rows - 1) * row_stride + (cols - 1) * col_stride;
            assert!(last < data.len(), "the matrix leaves its slice");
        }
        Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// The numbers row by row.
    pub(super) fn in_rows(&self) -> Cow<'a, [f32]> {
        if let Some(rows) = self.as_rows() {
            return Cow::Borrowed(rows);
        }
        let rows = (0..self.rows).flat_map(|row| {
            let start = row * self.row_stride;
            (0..self.cols).map(move |col| self.data[start + col * self.col_stride])
        });
        Cow::Owned(rows.collect())
    }

    /// A row, if its numbers are contiguous.
    pub(super) fn row(&self, row: usize) -> Option<&'a [f32]> {
        let start = row * self.row_stride;
        (self.col_stride == 1).then(|| &self.data[start..start + self.cols])
    }

    /// The numbers row by row, if they are contiguous.
    pub(super) fn as_rows(&self) -> Option<&'a [f32]> {
        let dense = self.col_stride == 1 && (self.row_stride == self.cols || self.rows == 1);
        dense.then(|| &self.data[..self.rows * self.cols])
    }

    /// Some of the columns.
    pub(super) fn columns(self, range: std::ops::Range<usize>) -> Self {
        assert!(range.end <= self.cols, "the matrix has fewer columns");
        let start = if self.rows == 0 {
            0
        } else {
            range.start * self.col_stride
        };
        Self {
            data: &self.data[start..],
            cols: range.len(),
            ..self
        }
    }

    /// Some of the rows.
    fn some_rows(self, range: std::ops::Range<usize>) -> Self {
        assert!(range.end <= self.rows, "the matrix has fewer rows");
        let start = if self.cols == 0 {
            0
        } else {
            range.start * self.row_stride
        };
        Self {
            data: &self.data[start..],
            rows: range.len(),
            ..self
        }
    }

    /// The same matrix, copied if numbers are beside each other neither in rows nor in columns.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn in_lines(&self) -> Contiguous<'a> {
        match [self.row_stride, self.col_stride].contains(&1) {
            true => Contiguous::Same(*self),
            false => Contiguous::Copied(self.in_rows().into_owned(), self.rows, self.cols),
        }
    }

    /// The slice, from the first element on.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn numbers(&self) -> &'a [f32] {
        self.data
    }

    /// From a row to the next, and from a column to the next.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn strides(&self) -> [usize; 2] {
        [self.row_stride, self.col_stride]
    }

    /// The transposed matrix, the same numbers.
    pub(super) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// See [`Matrix::in_lines`].
#[cfg(target_arch = "x86_64")]
pub(super) enum Contiguous<'a> {
    Same(Matrix<'a>),
    Copied(Vec<f32>, usize, usize),
}

#[cfg(target_arch = "x86_64")]
impl Contiguous<'_> {
    pub(super) fn matrix(&self) -> Matrix<'_> {
        match self {
            Self::Same(matrix) => *matrix,
            Self::Copied(numbers, rows, cols) => Matrix::new(numbers, *rows, *cols),
        }
    }
}

/// What happens to the numbers that are already in the output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Overwrite,
    Add,
}

/// `out = scale·a·b`, or `out += scale·a·b`; `out` is row-major, `[a.rows, b.cols]`.
///
/// # Panics
///
/// If the sizes do not fit.
pub(super) fn product(
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
    out: &mut [f32],
    mode: Output,
    parallelism: Parallelism,
) {
    let width = b.cols;
    assert_eq!(out.len(), a.rows * width, "the output has another size");
    product_in_rows(a, b, scale, out, width, mode, parallelism);
}

/// [`product`] into the first `b.cols` numbers of every row of `out`, whose rows begin `row_stride`
/// apart.
///
/// # Panics
///
/// If the sizes do not fit.
pub(super) fn product_in_rows(
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
    out: &mut [f32],
    row_stride: usize,
    mode: Output,
    parallelism: Parallelism,
) {
    assert_eq!(a.cols, b.rows, "inner sizes differ");
    let (m, n, k) = (a.rows, b.cols, a.cols);
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        n <= row_stride && (m - 1) * row_stride + n <= out.len(),
        "the output has another size"
    );
    #[cfg(target_arch = "x86_64")]
    if bf16_product::rounds(m, n, k) {
        return bf16_product::product(a, b, scale, out, row_stride, mode, parallelism);
    }
    if let Parallelism::Rayon(_) = parallelism {
        let rows = m
            .div_ceil(rayon::current_num_threads())
            .next_multiple_of(16);
        if rows < m && rows >= ROWS {
            let parts = out.par_chunks_mut(rows * row_stride).enumerate();
            return parts.for_each(|(part, out)| {
                let first = part * rows;
                if first < m {
                    let a = a.some_rows(first..m.min(first + rows));
                    product_in_rows(a, b, scale, out, row_stride, mode, Parallelism::None);
                }
            });
        }
    }
    // SAFETY: `Matrix::strided` has checked that every element of `a` and `b` lies in its slice, and
    // the assertion above that every element of the output does. `out` is borrowed mutably, so it
    // overlaps with neither, and its rows do not overlap since `n <= row_stride`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            row_stride as isize,
            mode == Output::Add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The type of [`product_in_rows`].
pub(super) type ProductInRows =
    fn(Matrix<'_>, Matrix<'_>, f32, &mut [f32], usize, Output, Parallelism);

/// Uses all threads if there is enough work.
pub(super) fn threads_for(m: usize, n: usize, k: usize) -> Parallelism {
    // Below 96³ one thread is faster.
    if m * n * k >= 96 * 96 * 96 {
        Parallelism::Rayon(0)
    } else {
        Parallelism::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_scaled_and_added() {
        // [[1, 2], [3, 4]] · [[5, 7], [6, 8]]ᵀ = [[19, 22], [43, 50]]
        let a = Matrix::new(&[1.0, 2.0, 3.0, 4.0], 2, 2);
        let b = Matrix::new(&[5.0, 7.0, 6.0, 8.0], 2, 2).t();
        let mut out = vec![1.0; 4];
        product(a, b, 1.0, &mut out, Output::Overwrite, Parallelism::None);
        assert_eq!(out, [19.0, 22.0, 43.0, 50.0]);
        product(a, b, 0.5, &mut out, Output::Add, Parallelism::None);
        assert_eq!(out, [28.5, 33.0, 64.5, 75.0]);
    }

    #[test]
    fn many_rows_by_several_threads_into_a_part_of_every_row() {
        let (m, n, k) = (2 * ROWS + 37, 3, 5);
        let number = |i: usize| ((i * 37) % 11) as f32 - 5.0;
        let a: Vec<f32> = (0..m * k).map(number).collect();
        let b: Vec<f32> = (0..k * n).map(number).collect();
        let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
        let run = |parallelism| {
            let mut out = vec![1.0; m * 4 - 1];
            product_in_rows(a, b, 0.5, &mut out, 4, Output::Add, parallelism);
            out
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
        let by_two = pool.expect("a pool").install(|| run(Parallelism::Rayon(0)));
        assert_eq!(by_two, run(Parallelism::None));
    }

    #[test]
    fn into_a_part_of_every_row() {
        let a = Matrix::new(&[1.0, 2.0], 2, 1);
        let b = Matrix::new(&[3.0, 4.0], 1, 2);
        let mut out = vec![0.0; 8];
        let none = Parallelism::None;
        product_in_rows(a, b, 1.0, &mut out[1..], 4, Output::Overwrite, none);
        assert_eq!(out, [0.0, 3.0, 4.0, 0.0, 0.0, 6.0, 8.0, 0.0]);
    }

    #[test]
    #[should_panic(expected = "another size")]
    fn a_product_stays_in_its_output() {
        let a = Matrix::new(&[1.0, 2.0], 2, 1);
        let b = Matrix::new(&[3.0, 4.0], 1, 2);
        let none = Parallelism::None;
        product_in_rows(a, b, 1.0, &mut [0.0; 5], 4, Output::Overwrite, none);
    }

    #[test]
    #[should_panic(expected = "leaves its slice")]
    fn a_matrix_stays_in_its_slice() {
        Matrix::strided(&[0.0; 5], 2, 3, 3, 1);
    }
}
