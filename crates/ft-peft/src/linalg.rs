//! Small linear algebra on the host in `f64`, for the initialisation of adapters.

mod singular;
mod tridiagonal;

use std::ops::{Index, IndexMut};

use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng;

pub(crate) use singular::{Singular, largest, largest_by_iteration};

/// A matrix, row by row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix {
    rows: usize,
    cols: usize,
    numbers: Vec<f64>,
}

impl Matrix {
    /// Zeros.
    pub(crate) fn zeros(rows: usize, cols: usize) -> Self {
        Self {
            rows,
            cols,
            numbers: vec![0.0; rows * cols],
        }
    }

    /// The numbers of a tensor.
    pub(crate) fn of(tensor: Tensor<2>) -> Self {
        let [rows, cols] = tensor.dims();
        let numbers = tensor.into_data().iter::<f64>().collect();
        Self {
            rows,
            cols,
            numbers,
        }
    }

    /// A matrix of these rows, each of `cols` numbers.
    pub(crate) fn of_rows<'a>(cols: usize, rows: impl IntoIterator<Item = &'a [f64]>) -> Self {
        let mut matrix = Self::zeros(0, cols);
        for row in rows {
            assert_eq!(row.len(), cols, "rows have the same length");
            matrix.numbers.extend_from_slice(row);
            matrix.rows += 1;
        }
        matrix
    }

    /// Standard normal numbers.
    pub(crate) fn random(rows: usize, cols: usize, rng: &mut impl Rng) -> Self {
        let numbers = (0..rows * cols).map(|_| f64::from(crate::random::normal(rng)));
        Self {
            rows,
            cols,
            numbers: numbers.collect(),
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    pub(crate) fn row(&self, i: usize) -> &[f64] {
        &self.numbers[i * self.cols..(i + 1) * self.cols]
    }

    pub(crate) fn row_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.numbers[i * self.cols..(i + 1) * self.cols]
    }

    pub(crate) fn all_rows(&self) -> impl Iterator<Item = &[f64]> {
        (0..self.rows).map(|i| self.row(i))
    }

    /// The first rows.
    pub(crate) fn first(mut self, rows: usize) -> Self {
        self.rows = self.rows.min(rows);
        self.numbers.truncate(self.rows * self.cols);
        self
    }

    pub(crate) fn transposed(&self) -> Self {
        let mut out = Self::zeros(self.cols, self.rows);
        for i in 0..self.rows {
            for (j, x) in self.row(i).iter().enumerate() {
                out.numbers[j * self.rows + i] = *x;
            }
        }
        out
    }

    pub(crate) fn scaled(mut self, factor: f64) -> Self {
        self.numbers.iter_mut().for_each(|x| *x *= factor);
        self
    }

    /// Each row times a factor of its own.
    pub(crate) fn rows_scaled(mut self, factors: impl IntoIterator<Item = f64>) -> Self {
        for (i, factor) in factors.into_iter().enumerate() {
            self.row_mut(i).iter_mut().for_each(|x| *x *= factor);
        }
        self
    }

    /// `self·x`
    pub(crate) fn times_vector(&self, x: &[f64]) -> Vec<f64> {
        self.all_rows().map(|row| dot(row, x)).collect()
    }

    /// `selfᵀ·x`
    pub(crate) fn transposed_times_vector(&self, x: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; self.cols];
        for (row, x) in self.all_rows().zip(x) {
            add_scaled(&mut out, row, *x);
        }
        out
    }

    /// `self·other`
    pub(crate) fn times(&self, other: &Self) -> Self {
        let rows: Vec<_> = self
            .all_rows()
            .map(|row| other.transposed_times_vector(row))
            .collect();
        Self::of_rows(other.cols, rows.iter().map(Vec::as_slice))
    }

    /// `self·otherᵀ`
    pub(crate) fn times_transposed(&self, other: &Self) -> Self {
        let rows: Vec<_> = self.all_rows().map(|row| other.times_vector(row)).collect();
        Self::of_rows(other.rows, rows.iter().map(Vec::as_slice))
    }

    /// The same rows made orthonormal, one after the other. A row that depends on those before it becomes zero.
    pub(crate) fn orthonormal(mut self) -> Self {
        for i in 0..self.rows {
            let (before, row) = self.numbers.split_at_mut(i * self.cols);
            let row = &mut row[..self.cols];
            let norm = norm(row);
            // Once is not enough where much of the row goes away.
            for _ in 0..2 {
                for other in before.chunks_exact(self.cols) {
                    add_scaled(row, other, -dot(row, other));
                }
            }
            normalise(row, norm * 1e-12);
        }
        self
    }

    /// The numbers as a tensor in `f32`.
    pub(crate) fn tensor(&self, device: &Device) -> Tensor<2> {
        let numbers: Vec<f32> = self.numbers.iter().map(|x| *x as f32).collect();
        Tensor::from_data(TensorData::new(numbers, [self.rows, self.cols]), device)
    }
}

impl Index<(usize, usize)> for Matrix {
    type Output = f64;

    fn index(&self, (i, j): (usize, usize)) -> &f64 {
        &self.numbers[i * self.cols + j]
    }
}

impl IndexMut<(usize, usize)> for Matrix {
    fn index_mut(&mut self, (i, j): (usize, usize)) -> &mut f64 {
        &mut self.numbers[i * self.cols + j]
    }
}

/// In 8 lanes, which the compiler can compute at once.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

pub(crate) fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

/// `x += factor·y`
pub(crate) fn add_scaled(x: &mut [f64], y: &[f64], factor: f64) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += factor * y;
    }
}

/// Gives `x` the length one, or makes it zero if it is not longer than `least`. Returns the length it had.
fn normalise(x: &mut [f64], least: f64) -> f64 {
    let length = norm(x);
    let factor = match length > least {
        true => 1.0 / length,
        false => 0.0,
    };
    x.iter_mut().for_each(|x| *x *= factor);
    length
}

/// The inverse of a square matrix, by Gauss and Jordan with pivots.
pub(crate) fn inverse(mut matrix: Matrix) -> Matrix {
    let n = matrix.rows;
    let mut inverse = Matrix::zeros(n, n);
    for i in 0..n {
        inverse[(i, i)] = 1.0;
    }
    for column in 0..n {
        let below = (column..n).max_by(|i, j| {
            let size = |i: &usize| matrix[(*i, column)].abs();
            size(i).total_cmp(&size(j))
        });
        let pivot = below.unwrap_or(column);
        for j in 0..n {
            matrix.numbers.swap(pivot * n + j, column * n + j);
            inverse.numbers.swap(pivot * n + j, column * n + j);
        }
        let scale = 1.0 / matrix[(column, column)];
        matrix.row_mut(column).iter_mut().for_each(|x| *x *= scale);
        inverse.row_mut(column).iter_mut().for_each(|x| *x *= scale);
        let (row, inverse_row) = (matrix.row(column).to_vec(), inverse.row(column).to_vec());
        for i in (0..n).filter(|i| *i != column) {
            let factor = -matrix[(i, column)];
            add_scaled(matrix.row_mut(i), &row, factor);
            add_scaled(inverse.row_mut(i), &inverse_row, factor);
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    /// The largest entry of `a − b`.
    pub(super) fn distance(a: &Matrix, b: &Matrix) -> f64 {
        assert_eq!((a.rows, a.cols), (b.rows, b.cols));
        let pairs = a.numbers.iter().zip(&b.numbers);
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    fn identity(n: usize) -> Matrix {
        let mut one = Matrix::zeros(n, n);
        (0..n).for_each(|i| one[(i, i)] = 1.0);
        one
    }

    #[test]
    fn a_matrix_times_its_inverse_is_one() {
        let matrix = Matrix::random(7, 7, &mut StdRng::seed_from_u64(1));
        let product = inverse(matrix.clone()).times(&matrix);
        assert!(distance(&product, &identity(7)) < 1e-10);
        // needs a pivot
        let swap = Matrix::of_rows(2, [&[0.0, 1.0][..], &[1.0, 0.0]]);
        assert_eq!(inverse(swap.clone()), swap);
    }

    #[test]
    fn orthonormal_rows_span_the_same_and_dependent_ones_become_zero() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut matrix = Matrix::random(4, 9, &mut rng);
        let first = matrix.row(0).to_vec();
        matrix.row_mut(2).copy_from_slice(&first);
        let rows = matrix.clone().orthonormal();
        let mut expected = identity(4);
        expected[(2, 2)] = 0.0;
        assert!(distance(&rows.times_transposed(&rows), &expected) < 1e-12);
        let within = matrix.times_transposed(&rows).times(&rows);
        assert!(distance(&within, &matrix) < 1e-12);
    }
}
