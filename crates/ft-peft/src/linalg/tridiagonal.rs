//! Eigenvalues and eigenvectors of a symmetric tridiagonal matrix, by the QL method with implicit shifts (Golub and Van
//! Loan, Matrix Computations, section 8.3).

use super::Matrix;

/// How often a value may be improved; three times are usual.
const SWEEPS: usize = 100;

/// The eigenvalues in falling order, and the eigenvectors as rows.
///
/// `diagonal` has `n` numbers and `beside` the `n − 1` beside it.
pub(super) fn eigen(diagonal: &[f64], beside: &[f64]) -> (Vec<f64>, Matrix) {
    let n = diagonal.len();
    let mut values = diagonal.to_vec();
    let mut off = beside[..n.saturating_sub(1)].to_vec();
    off.push(0.0);
    let mut vectors = Matrix::zeros(n, n);
    for i in 0..n {
        vectors[(i, i)] = 1.0;
    }
    for first in 0..n {
        for _ in 0..SWEEPS {
            let last = (first..n - 1)
                .find(|&i| off[i].abs() <= f64::EPSILON * (values[i].abs() + values[i + 1].abs()))
                .unwrap_or(n - 1);
            if last == first {
                break;
            }
            sweep(&mut values, &mut off, &mut vectors, first, last);
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|i, j| values[*j].total_cmp(&values[*i]));
    let vectors = Matrix::of_rows(n, order.iter().map(|i| vectors.row(*i)));
    (order.iter().map(|i| values[*i]).collect(), vectors)
}

/// A sweep of rotations from the last row of a block to its first.
fn sweep(values: &mut [f64], off: &mut [f64], vectors: &mut Matrix, first: usize, last: usize) {
    // Wilkinson's shift, of the corner at the first row
    let half = (values[first + 1] - values[first]) / (2.0 * off[first]);
    let root = half.hypot(1.0).copysign(half);
    let mut along = values[last] - values[first] + off[first] / (half + root);
    let (mut sine, mut cosine, mut moved) = (1.0, 1.0, 0.0);
    for i in (first..last).rev() {
        let (bulge, next) = (sine * off[i], cosine * off[i]);
        let length = bulge.hypot(along);
        off[i + 1] = length;
        if length == 0.0 {
            values[i + 1] -= moved;
            off[last] = 0.0;
            return;
        }
        (sine, cosine) = (bulge / length, along / length);
        let rest = values[i + 1] - moved;
        let change = (values[i] - rest) * sine + 2.0 * cosine * next;
        moved = sine * change;
        values[i + 1] = rest + moved;
        along = cosine * change - next;
        rotate(vectors, i, sine, cosine);
    }
    values[first] -= moved;
    off[first] = along;
    off[last] = 0.0;
}

/// Turns the rows `i` and `i + 1`.
fn rotate(vectors: &mut Matrix, i: usize, sine: f64, cosine: f64) {
    let cols = vectors.cols;
    let (upper, lower) = vectors.numbers[i * cols..(i + 2) * cols].split_at_mut(cols);
    for (x, y) in upper.iter_mut().zip(lower) {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The eigenvalues of the matrix with 2 on the diagonal and −1 beside it are `2 − 2cos(kπ/(n + 1))`.
    #[test]
    fn values_are_those_of_the_second_difference() {
        let n = 12;
        let (values, vectors) = eigen(&[2.0; 12], &[-1.0; 11]);
        for (k, value) in values.iter().enumerate() {
            let angle = std::f64::consts::PI * (n - k) as f64 / (n as f64 + 1.0);
            assert!((value - (2.0 - 2.0 * angle.cos())).abs() < 1e-13);
            let v = vectors.row(k);
            for i in 0..n {
                let sides = i.checked_sub(1).map_or(0.0, |j| v[j]) + v.get(i + 1).unwrap_or(&0.0);
                assert!((2.0 * v[i] - sides - value * v[i]).abs() < 1e-13);
            }
        }
    }

    #[test]
    fn a_diagonal_matrix_is_sorted_only() {
        let (values, vectors) = eigen(&[1.0, 3.0, 2.0], &[0.0, 0.0]);
        assert_eq!(values, [3.0, 2.0, 1.0]);
        assert_eq!(vectors.row(0), [0.0, 1.0, 0.0]);
    }
}
