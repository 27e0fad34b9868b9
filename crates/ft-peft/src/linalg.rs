//! Decompositions of matrices: QR by reflections (Householder, 1958), and singular values.
//!
//! Both compute on the host in `f32`, so results are the same on every device. Singular values are those of the factor `R`
//! (Chan, 1982), which is small where the matrix is tall or wide or of low rank; Burn computes them.

use burn::tensor::{DType, Device, Tensor, TensorData};

/// Passes that the iteration may take for each singular value; a few are enough.
const SWEEPS: usize = 100;

/// `U·diag(S)·Vᵀ`, with the singular values in descending order.
///
/// Signs are fixed: the largest number of each column of `U` is positive.
#[derive(Clone, Debug)]
pub(crate) struct Svd {
    /// `[rows, k]`, orthonormal columns.
    pub(crate) u: Tensor<2>,
    /// `[k]`.
    pub(crate) s: Vec<f32>,
    /// `[k, columns]`, orthonormal rows.
    pub(crate) vt: Tensor<2>,
}

/// The singular value decomposition of a matrix, `k` being the smaller of its sizes.
///
/// # Errors
///
/// If a number is not finite. So do the functions below.
pub(crate) fn svd(matrix: Tensor<2>) -> Result<Svd, String> {
    truncated_svd(matrix, usize::MAX)
}

/// The decomposition of a matrix cut to the `rank` largest singular values: the nearest matrix of that rank (Eckart and
/// Young, 1936).
pub(crate) fn truncated_svd(matrix: Tensor<2>, rank: usize) -> Result<Svd, String> {
    let [rows, columns] = matrix.dims();
    if rows < columns {
        let Svd { u, s, vt } = truncated_svd(matrix.transpose(), rank)?;
        return Ok(Svd {
            u: vt.transpose(),
            s,
            vt: u.transpose(),
        }
        .with_fixed_signs());
    }
    let device = matrix.device();
    let factors = Reflections::of(host(matrix)?, rows, columns);
    let core = small_svd(factors.r(), columns, columns).truncated(rank);
    let u = factors.apply(core.u).to_tensor(&device);
    let vt = core.vt.to_tensor(&device);
    Ok(Svd { u, s: core.s, vt }.with_fixed_signs())
}

/// The decomposition of `b·a`, `[rows, r]·[r, columns]`, without forming the product where `r` is small.
pub(crate) fn truncated_svd_of_product(
    b: Tensor<2>,
    a: Tensor<2>,
    rank: usize,
) -> Result<Svd, String> {
    let ([rows, r], [_, columns]) = (b.dims(), a.dims());
    if r >= rows.min(columns) {
        return truncated_svd(b.matmul(a), rank);
    }
    let device = b.device();
    let left = Reflections::of(host(b)?, rows, r);
    let right = Reflections::of(host(a.transpose())?, columns, r);
    let core = left.r().times_transposed(&right.r());
    let core = small_svd(core, r, r).truncated(rank);
    let u = left.apply(core.u).to_tensor(&device);
    let vt = right.apply(core.vt.transposed()).transposed();
    let vt = vt.to_tensor(&device);
    Ok(Svd { u, s: core.s, vt }.with_fixed_signs())
}

/// `Q` `[rows, k]` with orthonormal columns and `R` `[k, columns]`, upper triangular, with `Q·R` the matrix. Signs are those
/// of LAPACK.
pub(crate) fn qr(matrix: Tensor<2>) -> Result<(Tensor<2>, Tensor<2>), String> {
    let [rows, columns] = matrix.dims();
    let device = matrix.device();
    let factors = Reflections::of(host(matrix)?, rows, columns);
    let q = factors.apply(Matrix::eye(rows.min(columns)));
    Ok((q.to_tensor(&device), factors.r().to_tensor(&device)))
}

impl Svd {
    /// `A = Vᵀ` and `B = U·diag(S)`, with `BA` the matrix.
    pub(crate) fn factors(&self) -> [Tensor<2>; 2] {
        [self.vt.clone(), self.scaled_u()]
    }

    /// `U·diag(S)`, `[rows, k]`.
    pub(crate) fn scaled_u(&self) -> Tensor<2> {
        let s = Tensor::<1>::from_data(&self.s[..], &self.u.device());
        self.u.clone() * s.unsqueeze_dim::<2>(0)
    }

    fn with_fixed_signs(self) -> Self {
        let largest = self.u.clone().abs().argmax(0);
        let signs = self.u.clone().gather(0, largest).sign();
        // A column without numbers has no sign.
        let signs = signs.clone().mask_fill(signs.equal_elem(0.0), 1.0);
        Self {
            u: self.u * signs.clone(),
            vt: self.vt * signs.transpose(),
            s: self.s,
        }
    }
}

/// A matrix on the host, row by row.
#[derive(Clone, Debug)]
struct Matrix {
    columns: usize,
    numbers: Vec<f32>,
}

/// The decomposition of a matrix on the host.
struct SmallSvd {
    u: Matrix,
    s: Vec<f32>,
    vt: Matrix,
}

impl SmallSvd {
    fn truncated(mut self, rank: usize) -> Self {
        if rank < self.s.len() {
            self.s.truncate(rank);
            self.u = self.u.left_columns(rank);
            self.vt.numbers.truncate(rank * self.vt.columns);
        }
        self
    }
}

fn small_svd(matrix: Matrix, rows: usize, columns: usize) -> SmallSvd {
    let data = TensorData::new(matrix.numbers, [rows, columns]);
    let matrix = Tensor::<2>::from_data(data, (&Device::default(), DType::F32));
    let (u, s, vt) = burn::linalg::svd::<2, 1>(matrix, SWEEPS);
    SmallSvd {
        u: Matrix::from_tensor(u),
        s: numbers(s.into_data()),
        vt: Matrix::from_tensor(vt),
    }
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

    fn eye(size: usize) -> Self {
        let mut numbers = vec![0.0; size * size];
        numbers.iter_mut().step_by(size + 1).for_each(|x| *x = 1.0);
        Self {
            columns: size,
            numbers,
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

    fn assert_orthonormal(columns: Tensor<2>) {
        let [_, k] = columns.dims();
        let eye = Tensor::eye(k, &columns.device());
        assert_close(columns.clone().transpose().matmul(columns), eye);
    }

    #[test]
    fn factors_are_orthonormal_and_give_the_matrix_in_order() {
        for (i, shape) in [[7, 7], [12, 5], [5, 12], [1, 4], [4, 1]]
            .into_iter()
            .enumerate()
        {
            let matrix = random(shape, i as u64);
            let svd = svd(matrix.clone()).expect("finite");
            assert_orthonormal(svd.u.clone());
            assert_orthonormal(svd.vt.clone().transpose());
            assert!(svd.s.is_sorted_by(|a, b| a >= b) && svd.s.iter().all(|s| *s >= 0.0));
            assert_close(svd.scaled_u().matmul(svd.vt), matrix.clone());
            let (q, r) = qr(matrix.clone()).expect("finite");
            assert_orthonormal(q.clone());
            assert_close(r.clone(), r.clone().triu(0));
            assert_close(q.matmul(r), matrix);
        }
    }

    /// `[[3, 0], [4, 5]]` has `AᵀA = [[25, 20], [20, 25]]`, so singular values √45 and √5; the first column has norm 5, and
    /// LAPACK makes the diagonal of `R` negative where it was positive.
    #[test]
    fn a_matrix_of_two_rows_has_its_closed_form() {
        let matrix = Tensor::<2>::from_data([[3.0f32, 0.0], [4.0, 5.0]], &Device::default());
        let values = svd(matrix.clone()).expect("finite").s;
        assert!((values[0] - 45f32.sqrt()).abs() < 1e-5 && (values[1] - 5f32.sqrt()).abs() < 1e-5);
        let (_, r) = qr(matrix).expect("finite");
        let expected = Tensor::from_data([[-5.0f32, -4.0], [0.0, 3.0]], &Device::default());
        assert_close(r, expected);
    }

    #[test]
    fn a_product_is_decomposed_as_the_matrix_it_is() {
        let (b, a) = (random([9, 3], 1), random([3, 14], 2));
        let product = truncated_svd_of_product(b.clone(), a.clone(), 2).expect("finite");
        let whole = truncated_svd(b.matmul(a), 2).expect("finite");
        assert_close(product.u.clone(), whole.u.clone());
        assert_close(
            product.scaled_u().matmul(product.vt),
            whole.scaled_u().matmul(whole.vt),
        );
    }

    #[test]
    fn the_error_of_a_truncated_matrix_is_the_root_of_what_was_cut() {
        let matrix = random([8, 6], 3);
        let cut: f32 = svd(matrix.clone()).expect("finite").s[2..]
            .iter()
            .map(|s| s * s)
            .sum();
        let near = truncated_svd(matrix.clone(), 2).expect("finite");
        assert_eq!(
            (near.u.dims(), near.s.len(), near.vt.dims()),
            ([8, 2], 2, [2, 6])
        );
        let error = (matrix - near.scaled_u().matmul(near.vt))
            .square()
            .sum()
            .into_scalar::<f32>();
        assert!((error - cut).abs() < 1e-4 * cut, "{error} {cut}");
    }

    #[test]
    fn matrices_without_full_rank_and_without_numbers_are_decomposed() {
        let column = random([6, 1], 4);
        for matrix in [
            column.repeat_dim(1, 4),
            Tensor::zeros([6, 4], &Device::default()),
        ] {
            let svd = svd(matrix.clone()).expect("finite");
            assert_orthonormal(svd.u.clone());
            assert_close(svd.scaled_u().matmul(svd.vt), matrix.clone());
            assert!(svd.s[1..].iter().all(|s| *s < 1e-5));
            let (q, r) = qr(matrix.clone()).expect("finite");
            assert_close(q.matmul(r), matrix);
        }
        let wrong = Tensor::<2>::from_data([[f32::NAN, 1.0]], &Device::default());
        assert!(svd(wrong.clone()).is_err() && qr(wrong).is_err());
    }
}
