//! The nearest matrix of a rank (Eckart and Young, 1936), as factors: `B·A`, with `B = U·diag(S)` and `A = Vᵀ` of the largest
//! singular values.
//!
//! It is computed on the host, so results are the same on every device, from the factor `R` of reflections (Householder,
//! 1958; Chan, 1982), which is small where the matrix is tall or wide or of low rank. Burn computes the singular values.

use burn::tensor::{DType, Device, Tensor, TensorData};

/// Passes that the iteration may take for each singular value; a few are enough.
const SWEEPS: usize = 100;

/// `A` `[k, columns]`, with orthonormal rows in the order of falling singular values, and `B` `[rows, k]`. `k` is the rank, or
/// the smaller of the matrix's sizes. The largest number of each column of `B` is positive.
///
/// # Errors
///
/// If a number is not finite.
pub(crate) fn factors(matrix: Tensor<2>, rank: usize) -> Result<[Tensor<2>; 2], String> {
    let [rows, columns] = matrix.dims();
    let device = matrix.device();
    let matrix = host(matrix)?;
    let svd = match rows >= columns {
        true => tall(matrix, rows, columns, rank),
        false => tall(matrix.transposed(), columns, rows, rank).transposed(),
    };
    Ok(svd.factors(&device))
}

/// The same of the matrix `b·a`, `[rows, r]·[r, columns]`, which is not formed where `r` is small.
///
/// # Errors
///
/// As [`factors`].
pub(crate) fn factors_of_product(
    b: Tensor<2>,
    a: Tensor<2>,
    rank: usize,
) -> Result<[Tensor<2>; 2], String> {
    let ([rows, r], [_, columns]) = (b.dims(), a.dims());
    if r >= rows.min(columns) {
        return factors(b.matmul(a), rank);
    }
    let device = b.device();
    let left = Reflections::of(host(b)?, rows, r);
    let right = Reflections::of(host(a.transpose())?, columns, r);
    let core = left.r().times_transposed(&right.r());
    let svd = square(core, rank);
    let svd = Svd {
        u: left.apply(svd.u),
        s: svd.s,
        v: right.apply(svd.v),
    };
    Ok(svd.factors(&device))
}

/// A decomposition `U·diag(S)·Vᵀ`.
struct Svd {
    /// `[rows, k]`.
    u: Matrix,
    /// In descending order.
    s: Vec<f32>,
    /// `[columns, k]`.
    v: Matrix,
}

impl Svd {
    fn transposed(self) -> Self {
        Self {
            u: self.v,
            v: self.u,
            ..self
        }
    }

    fn factors(self, device: &Device) -> [Tensor<2>; 2] {
        let (u, v) = (self.u.to_tensor(device), self.v.to_tensor(device));
        let signs = u.clone().gather(0, u.clone().abs().argmax(0)).sign();
        // A column without numbers has no sign.
        let signs = signs.clone().mask_fill(signs.equal_elem(0.0), 1.0);
        let s = Tensor::<1>::from_data(&self.s[..], device).unsqueeze_dim::<2>(0);
        [(v * signs.clone()).transpose(), u * signs * s]
    }
}

/// Of a matrix with at least as many rows as columns.
fn tall(matrix: Matrix, rows: usize, columns: usize, rank: usize) -> Svd {
    let reflections = Reflections::of(matrix, rows, columns);
    let svd = square(reflections.r(), rank);
    Svd {
        u: reflections.apply(svd.u),
        ..svd
    }
}

/// Of a square matrix.
fn square(matrix: Matrix, rank: usize) -> Svd {
    let size = matrix.columns;
    let data = TensorData::new(matrix.numbers, [size, size]);
    let matrix = Tensor::<2>::from_data(data, (&Device::default(), DType::F32));
    let (u, s, vt) = burn::linalg::svd::<2, 1>(matrix, SWEEPS);
    let (mut s, kept) = (numbers(s.into_data()), rank.min(size));
    s.truncate(kept);
    Svd {
        u: Matrix::from_tensor(u).left_columns(kept),
        s,
        v: Matrix::from_tensor(vt.transpose()).left_columns(kept),
    }
}

/// A matrix on the host, row by row.
#[derive(Clone, Debug)]
struct Matrix {
    columns: usize,
    numbers: Vec<f32>,
}

fn host(matrix: Tensor<2>) -> Result<Matrix, String> {
    let matrix = Matrix::from_tensor(matrix);
    match matrix.numbers.iter().all(|x| x.is_finite()) {
        true => Ok(matrix),
        false => Err("the matrix has numbers that are not finite".into()),
    }
}

fn numbers(data: TensorData) -> Vec<f32> {
    let data = data.convert_dtype(DType::F32);
    data.try_to_vec().expect("the data was converted to f32")
}

impl Matrix {
    fn from_tensor(tensor: Tensor<2>) -> Self {
        let [_, columns] = tensor.dims();
        Self {
            columns,
            numbers: numbers(tensor.into_data()),
        }
    }

    fn rows(&self) -> usize {
        self.numbers.len() / self.columns.max(1)
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.numbers[i * self.columns..][..self.columns]
    }

    fn left_columns(&self, columns: usize) -> Self {
        let rows = self.numbers.chunks_exact(self.columns);
        Self {
            columns,
            numbers: rows.flat_map(|row| row[..columns].to_vec()).collect(),
        }
    }

    fn transposed(&self) -> Self {
        let rows = self.rows();
        let columns = (0..self.columns).flat_map(|j| (0..rows).map(move |i| (i, j)));
        Self {
            columns: rows,
            numbers: columns.map(|(i, j)| self.row(i)[j]).collect(),
        }
    }

    /// `self·otherᵀ`.
    fn times_transposed(&self, other: &Self) -> Self {
        let entry = |i, j| {
            let pairs = self.row(i).iter().zip(other.row(j));
            pairs
                .map(|(x, y)| f64::from(*x) * f64::from(*y))
                .sum::<f64>() as f32
        };
        let columns = other.rows();
        let pairs = (0..self.rows()).flat_map(|i| (0..columns).map(move |j| (i, j)));
        Self {
            columns,
            numbers: pairs.map(|(i, j)| entry(i, j)).collect(),
        }
    }

    fn to_tensor(&self, device: &Device) -> Tensor<2> {
        let data = TensorData::new(self.numbers.clone(), [self.rows(), self.columns]);
        Tensor::from_data(data, (device, DType::F32))
    }
}

/// `Q` as reflections `I − τvvᵀ`, and `R`.
struct Reflections {
    rows: usize,
    /// `R`, and below its diagonal the vectors `v` without their first number, which is one.
    matrix: Matrix,
    taus: Vec<f32>,
}

impl Reflections {
    /// Reflects the columns one after the other onto the axes.
    fn of(mut matrix: Matrix, rows: usize, columns: usize) -> Self {
        let taus = (0..rows.min(columns)).map(|j| {
            let (upper, below) = matrix.numbers.split_at_mut((j + 1) * columns);
            let top = &mut upper[j * columns + j..];
            let rest = |below: &[f32]| {
                below
                    .chunks_exact(columns)
                    .map(|row| f64::from(row[j]))
                    .map(|x| x * x)
                    .sum::<f64>()
            };
            let below_norm = rest(below).sqrt();
            if below_norm == 0.0 {
                return 0.0;
            }
            let alpha = f64::from(top[0]);
            let beta = -alpha.hypot(below_norm).copysign(alpha);
            let tau = ((beta - alpha) / beta) as f32;
            let factor = (1.0 / (alpha - beta)) as f32;
            for row in below.chunks_exact_mut(columns) {
                row[j] *= factor;
            }
            top[0] = beta as f32;
            reflect(tau, &mut top[1..], below, columns, |row| {
                let (v, rest) = row[j..].split_first_mut().expect("column j exists");
                (*v, rest)
            });
            tau
        });
        let taus = taus.collect();
        Self { rows, matrix, taus }
    }

    /// `R`, `[k, columns]`.
    fn r(&self) -> Matrix {
        let k = self.taus.len();
        let mut r = Matrix {
            columns: self.matrix.columns,
            numbers: self.matrix.numbers[..k * self.matrix.columns].to_vec(),
        };
        for (i, row) in r.numbers.chunks_exact_mut(r.columns).enumerate() {
            row[..i].fill(0.0);
        }
        r
    }

    /// `Q·block` for a block `[k, width]`: `[rows, width]`.
    fn apply(&self, block: Matrix) -> Matrix {
        let Matrix {
            columns: width,
            mut numbers,
        } = block;
        numbers.resize(self.rows * width, 0.0);
        for (j, tau) in self.taus.iter().enumerate().rev() {
            let (upper, below) = numbers.split_at_mut((j + 1) * width);
            let mut vectors = (j + 1..self.rows).map(|i| self.matrix.row(i)[j]).cycle();
            reflect(*tau, &mut upper[j * width..], below, width, |row| {
                (vectors.next().unwrap_or(0.0), row)
            });
        }
        Matrix {
            columns: width,
            numbers,
        }
    }
}

/// Subtracts `τ·v·(vᵀX)` from rows `X`, of which `top` is the first, where `v` is one. `part` gives the number of `v` and
/// what belongs to `X` of each row of `below`.
fn reflect(
    tau: f32,
    top: &mut [f32],
    below: &mut [f32],
    columns: usize,
    mut part: impl FnMut(&mut [f32]) -> (f32, &mut [f32]),
) {
    let mut product = top.to_vec();
    for row in below.chunks_exact_mut(columns) {
        let (v, row) = part(row);
        product
            .iter_mut()
            .zip(row)
            .for_each(|(sum, x)| *sum += v * *x);
    }
    product.iter_mut().for_each(|x| *x *= tau);
    top.iter_mut().zip(&product).for_each(|(x, y)| *x -= y);
    for row in below.chunks_exact_mut(columns) {
        let (v, row) = part(row);
        row.iter_mut().zip(&product).for_each(|(x, y)| *x -= v * y);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, Tolerance};

    use super::*;

    fn random(shape: [usize; 2], seed: u64) -> Tensor<2> {
        let device = Device::default();
        device.seed(seed);
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device)
    }

    fn assert_close(left: Tensor<2>, right: Tensor<2>) {
        let tolerance = Tolerance::<f32>::absolute(2e-5);
        left.into_data()
            .assert_approx_eq(&right.into_data(), tolerance);
    }

    /// The lengths of the columns, the singular values, after checking that the columns are orthogonal.
    fn lengths(columns: Tensor<2>) -> Vec<f32> {
        let products = columns.clone().transpose().matmul(columns);
        let [k, _] = products.dims();
        let lengths = Tensor::<2>::eye(k, &products.device()) * products.clone();
        assert_close(products, lengths.clone());
        let lengths = lengths.sum_dim(0).sqrt();
        lengths.into_data().try_to_vec().expect("f32")
    }

    #[test]
    fn factors_of_full_rank_are_the_matrix_in_order() {
        for (i, shape) in [[7, 7], [12, 5], [5, 12], [1, 4], [4, 1]]
            .into_iter()
            .enumerate()
        {
            let matrix = random(shape, i as u64);
            let [a, b] = factors(matrix.clone(), usize::MAX).expect("finite");
            assert!(
                lengths(a.clone().transpose())
                    .iter()
                    .all(|x| (x - 1.0).abs() < 1e-5)
            );
            assert!(lengths(b.clone()).is_sorted_by(|a, b| a >= b));
            assert_close(b.matmul(a), matrix);
        }
    }

    /// `[[3, 0], [4, 5]]` has `AᵀA = [[25, 20], [20, 25]]`, so singular values √45 and √5.
    #[test]
    fn a_matrix_of_two_rows_has_its_closed_form() {
        let matrix = Tensor::<2>::from_data([[3.0f32, 0.0], [4.0, 5.0]], &Device::default());
        let values = lengths(factors(matrix, 2).expect("finite")[1].clone());
        assert!((values[0] - 45f32.sqrt()).abs() < 1e-5 && (values[1] - 5f32.sqrt()).abs() < 1e-5);
    }

    #[test]
    fn the_factors_of_a_product_are_those_of_its_matrix() {
        let (b, a) = (random([9, 3], 1), random([3, 14], 2));
        let product = factors_of_product(b.clone(), a.clone(), 2).expect("finite");
        let whole = factors(b.matmul(a), 2).expect("finite");
        for (product, whole) in product.into_iter().zip(whole) {
            assert_close(product, whole);
        }
    }

    #[test]
    fn the_error_is_the_root_of_the_squares_that_were_cut() {
        let matrix = random([8, 6], 3);
        let values = lengths(factors(matrix.clone(), 6).expect("finite")[1].clone());
        let cut: f32 = values[2..].iter().map(|s| s * s).sum();
        let [a, b] = factors(matrix.clone(), 2).expect("finite");
        assert_eq!((a.dims(), b.dims()), ([2, 6], [8, 2]));
        let error = (matrix - b.matmul(a)).square().sum().into_scalar::<f32>();
        assert!((error - cut).abs() < 1e-4 * cut, "{error} {cut}");
    }

    #[test]
    fn matrices_without_full_rank_and_without_numbers_are_decomposed() {
        let column = random([6, 1], 4);
        for matrix in [
            column.repeat_dim(1, 4),
            Tensor::zeros([6, 4], &Device::default()),
        ] {
            let [a, b] = factors(matrix.clone(), 4).expect("finite");
            assert!(lengths(b.clone())[1..].iter().all(|s| *s < 1e-5));
            assert_close(b.matmul(a), matrix);
        }
        let wrong = Tensor::<2>::from_data([[f32::NAN, 1.0]], &Device::default());
        assert!(factors(wrong, 1).is_err());
    }
}
