//! The largest singular values of a matrix and their vectors.
//!
//! Exactly, by the method of Lanczos on `MMᵀ` with full reorthogonalisation (Golub and Van Loan, Matrix Computations,
//! section 10.3): of a matrix of thousands of rows some hundred products with a vector give what an adapter needs. Or
//! roughly, by a few products with a random block (Halko et al., 2011, arXiv:0909.4061, algorithm 4.4).

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::tridiagonal::eigen;
use super::{Matrix, add_scaled, dot, normalise};

/// Singular values in falling order, with their vectors as rows.
#[derive(Clone, Debug)]
pub(crate) struct Singular {
    pub(crate) values: Vec<f64>,
    /// `[count, rows of the matrix]`; zeros beside a value of zero, unless the matrix has fewer rows than columns.
    pub(crate) left: Matrix,
    /// `[count, columns of the matrix]`; zeros beside a value of zero, unless it has fewer columns than rows.
    pub(crate) right: Matrix,
}

/// How exactly a vector has to be an eigenvector of `MMᵀ`, relative to the largest eigenvalue.
const EXACT: f64 = 1e-13;
/// Extra columns of the random block.
const OVERSAMPLING: usize = 8;

/// The `count` largest, exact up to rounding. The same matrix has the same result, signs included.
pub(crate) fn largest(matrix: &Matrix, count: usize) -> Singular {
    match matrix.rows() <= matrix.cols() {
        true => of_wide(matrix, count),
        false => swapped(of_wide(&matrix.transposed(), count)),
    }
}

/// The `count` largest, after `iterations` improvements of a random block.
pub(crate) fn largest_by_iteration(
    matrix: &Matrix,
    count: usize,
    iterations: usize,
    rng: &mut impl Rng,
) -> Singular {
    let width = (count + OVERSAMPLING).min(matrix.rows()).min(matrix.cols());
    let random = Matrix::random(width, matrix.cols(), rng);
    let mut block = random.times_transposed(matrix).orthonormal();
    for _ in 0..iterations {
        let right = block.times(matrix).orthonormal();
        block = right.times_transposed(matrix).orthonormal();
    }
    let within = largest(&block.times(matrix), count);
    Singular {
        left: within.left.times(&block),
        ..within
    }
}

fn swapped(found: Singular) -> Singular {
    Singular {
        values: found.values,
        left: found.right,
        right: found.left,
    }
}

/// Of a matrix with at most as many rows as columns.
fn of_wide(matrix: &Matrix, count: usize) -> Singular {
    let n = matrix.rows();
    let count = count.min(n);
    let mut space = Space::new(matrix);
    let mut size = (2 * count + 16).min(n);
    let vectors = loop {
        space.grow(size);
        let (values, vectors) = eigen(&space.diagonal, &space.beside);
        let rest = space.beside[size - 1];
        let allowed = EXACT * values[0].abs();
        let exact = (0..count).all(|i| (rest * vectors[(i, size - 1)]).abs() <= allowed);
        // After a rest of zero another space begins, whose values are not computed yet.
        if exact && rest > 0.0 || size == n || values[0] == 0.0 {
            break vectors.first(count);
        }
        size = (size + size / 2).min(n);
    };
    let basis = space.basis[..size].iter().map(Vec::as_slice);
    let basis = Matrix::of_rows(n, basis);
    let left = vectors.times(&basis);
    let mut right = left.times(matrix);
    let mut values: Vec<f64> = Vec::new();
    for i in 0..count {
        let least = values.first().map_or(0.0, |largest| largest * 1e-14);
        values.push(normalise(right.row_mut(i), least));
    }
    Singular {
        values,
        left,
        right,
    }
}

/// An orthonormal basis in which `MMᵀ` is tridiagonal.
struct Space<'a> {
    matrix: &'a Matrix,
    /// One more vector than numbers on the diagonal, until the space is whole.
    basis: Vec<Vec<f64>>,
    diagonal: Vec<f64>,
    beside: Vec<f64>,
    rng: StdRng,
}

impl<'a> Space<'a> {
    fn new(matrix: &'a Matrix) -> Self {
        let mut space = Self {
            matrix,
            basis: Vec::new(),
            diagonal: Vec::new(),
            beside: Vec::new(),
            rng: StdRng::seed_from_u64(0),
        };
        space.add_random();
        space
    }

    /// Adds dimensions until there are `size`.
    fn grow(&mut self, size: usize) {
        while self.diagonal.len() < size {
            let last = &self.basis[self.diagonal.len()];
            let right = self.matrix.transposed_times_vector(last);
            let mut next = self.matrix.times_vector(&right);
            let value = dot(&next, last);
            self.diagonal.push(value);
            self.clear(&mut next);
            let largest = self.diagonal.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
            let least = largest * 1e-14;
            let length = normalise(&mut next, least);
            // The products stay in the space found so far: another one begins beside it.
            let closed = length <= least;
            self.beside.push(if closed { 0.0 } else { length });
            if self.basis.len() == self.matrix.rows() {
                continue;
            }
            match closed {
                true => self.add_random(),
                false => self.basis.push(next),
            }
        }
    }

    /// Takes off what lies in the space.
    fn clear(&self, vector: &mut [f64]) {
        for _ in 0..2 {
            for other in &self.basis {
                let along = dot(vector, other);
                add_scaled(vector, other, -along);
            }
        }
    }

    fn add_random(&mut self) {
        let n = self.matrix.rows();
        loop {
            let mut vector = Matrix::random(1, n, &mut self.rng).numbers;
            normalise(&mut vector, 0.0);
            self.clear(&mut vector);
            if normalise(&mut vector, 1e-8) > 1e-8 {
                self.clear(&mut vector);
                normalise(&mut vector, 0.0);
                self.basis.push(vector);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::distance;
    use super::*;

    /// A matrix with these singular values.
    fn with_values(values: &[f64], rows: usize, cols: usize) -> Matrix {
        let mut rng = StdRng::seed_from_u64(3);
        let left = Matrix::random(values.len(), rows, &mut rng).orthonormal();
        let right = Matrix::random(values.len(), cols, &mut rng).orthonormal();
        let right = right.rows_scaled(values.iter().copied());
        left.transposed().times(&right)
    }

    fn product(found: &Singular) -> Matrix {
        let right = found
            .right
            .clone()
            .rows_scaled(found.values.iter().copied());
        found.left.transposed().times(&right)
    }

    #[test]
    fn the_largest_values_and_their_product_are_exact() {
        let values: Vec<f64> = (0..40).map(|i| 3.0 * 0.93f64.powi(i)).collect();
        for (rows, cols) in [(40, 90), (90, 40), (40, 40)] {
            let found = largest(&with_values(&values, rows, cols), 6);
            for (found, expected) in found.values.iter().zip(&values) {
                assert!((found - expected).abs() < 1e-12, "{found} {expected}");
            }
            let whole = with_values(&values, rows, cols);
            // the part that is left has the next value as its norm
            let left = largest(&minus(&whole, &product(&found)), 1);
            assert!((left.values[0] - values[6]).abs() < 1e-10);
        }
    }

    fn minus(a: &Matrix, b: &Matrix) -> Matrix {
        let mut out = a.clone();
        for i in 0..a.rows() {
            add_scaled(out.row_mut(i), b.row(i), -1.0);
        }
        out
    }

    /// Lanczos' space closes at once, or has values of zero.
    #[test]
    fn equal_values_and_values_of_zero_are_found() {
        let found = largest(&with_values(&[2.0; 9], 9, 20), 4);
        for value in &found.values {
            assert!((value - 2.0).abs() < 1e-12);
        }
        let of_rank_two = with_values(&[2.0, 1.0], 12, 15);
        let found = largest(&of_rank_two, 5);
        assert!(found.values[2].abs() < 1e-12);
        assert!(distance(&product(&found), &of_rank_two) < 1e-12);
        let nothing = largest(&Matrix::zeros(5, 8), 3);
        assert_eq!(nothing.values, [0.0; 3]);
    }

    #[test]
    fn iterations_bring_a_random_block_to_the_largest_values() {
        let values: Vec<f64> = (0..40).map(|i| 0.8f64.powi(i)).collect();
        let matrix = with_values(&values, 40, 60);
        let mut rng = StdRng::seed_from_u64(5);
        let rough = largest_by_iteration(&matrix, 4, 0, &mut rng);
        let good = largest_by_iteration(&matrix, 4, 6, &mut rng);
        let exact = product(&largest(&matrix, 4));
        let error = |found: &Singular| distance(&product(found), &exact);
        assert!(error(&good) < 1e-8 && error(&good) < error(&rough));
    }
}
