//! The nearest matrix of a rank (Eckart and Young, 1936), by its largest singular values.

use burn::tensor::{DType, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::linalg::{Matrix, Singular, largest, largest_by_iteration};
use crate::{Error, Result as OwnResult};

/// `U·diag(S)·Vᵀ`, with the singular values in falling order.
///
/// Signs are fixed: the largest number of each column of `U` is positive.
#[derive(Clone, Debug)]
pub(crate) struct Svd {
    /// `[rows, k]`; columns are orthonormal, or zero beside a value of zero.
    pub(crate) u: Tensor<2>,
    /// `[k]`.
    pub(crate) s: Vec<f32>,
    /// `[k, columns]`; rows are orthonormal, or zero beside a value of zero.
    pub(crate) vt: Tensor<2>,
}

/// The decomposition of a matrix cut to the `rank` largest singular values.
///
/// # Errors
///
/// If a number is not finite.
pub(crate) fn truncated_svd(matrix: Tensor<2>, rank: usize) -> Result<Svd, String> {
    let device = matrix.device();
    let host = Matrix::of(matrix.cast(DType::F32));
    if host.all_rows().flatten().any(|x| !x.is_finite()) {
        return Err("the matrix has numbers that are not finite".into());
    }
    let rank = rank.min(host.rows()).min(host.cols());
    let Singular {
        values,
        left,
        right,
    } = largest(&host, rank);
    let signs: Vec<f64> = left.all_rows().map(sign_of_largest).collect();
    let u = left.rows_scaled(signs.iter().copied()).transposed();
    let vt = right.rows_scaled(signs);
    Ok(Svd {
        u: u.tensor(&device),
        s: values.into_iter().map(|value| value as f32).collect(),
        vt: vt.tensor(&device),
    })
}

fn sign_of_largest(row: &[f64]) -> f64 {
    let largest = row.iter().max_by(|a, b| a.abs().total_cmp(&b.abs()));
    largest.map_or(1.0, |x| if *x < 0.0 { -1.0 } else { 1.0 })
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
}

/// Factors `A` `[r, in]` and `B` `[out, r]` whose product `BA` is near the nearest matrix of rank `r` to `matrix`, `[out, in]`:
/// `√S·Vᵀ` and `U·√S` of its largest singular values, after eight improvements of a random block (Halko et al., 2011,
/// arXiv:0909.4061, algorithm 4.4). `‖matrix − BA‖` is never above `‖matrix‖`. The same matrix has the same factors.
///
/// # Errors
///
/// [`Error::Settings`] if `r` is 0 or more than the smaller side, or a number is not finite.
pub fn low_rank_factors(matrix: Tensor<2>, r: usize) -> OwnResult<[Tensor<2>; 2]> {
    let [outputs, inputs] = matrix.dims();
    if r == 0 || r > outputs.min(inputs) {
        return Err(Error::Settings(format!(
            "r = {r}: a matrix of {outputs} times {inputs} has ranks from 1 to {}",
            outputs.min(inputs)
        )));
    }
    let device = matrix.device();
    let host = Matrix::of(matrix.cast(DType::F32));
    if host.all_rows().flatten().any(|x| !x.is_finite()) {
        return Err(Error::Settings(
            "a matrix with numbers that are not finite has no factors".into(),
        ));
    }
    let found = largest_by_iteration(&host, r, 8, &mut StdRng::seed_from_u64(0));
    let roots: Vec<f64> = found
        .values
        .iter()
        .map(|value| value.max(0.0).sqrt())
        .collect();
    let a = found.right.rows_scaled(roots.iter().copied());
    let b = found.left.rows_scaled(roots).transposed();
    Ok([a.tensor(&device), b.tensor(&device)])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    /// A matrix of rank 3 is found again, and its factors are orthonormal.
    #[test]
    fn a_matrix_of_low_rank_is_found_again() {
        let device = Device::default();
        let draw =
            |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let matrix = draw([20, 3]).matmul(draw([3, 12]));
        let svd = truncated_svd(matrix.clone(), 3).expect("finite");
        assert!(svd.s.is_sorted_by(|a, b| a >= b));
        let largest = |x: Tensor<2>| x.abs().max().into_scalar::<f32>();
        assert!(largest(svd.scaled_u().matmul(svd.vt.clone()) - matrix.clone()) < 1e-4);
        let eye = Tensor::<2>::eye(3, &device);
        assert!(largest(svd.u.clone().transpose().matmul(svd.u) - eye) < 1e-5);
        assert!(truncated_svd(matrix / 0.0, 2).is_err());
    }

    /// The error is that of the exact decomposition but for some percent, also where no singular value stands out.
    #[test]
    fn factors_of_noise_are_near_the_nearest() {
        let device = Device::default();
        device.seed(3);
        let matrix = Tensor::<2>::random([24, 40], Distribution::Normal(0.0, 1.0), &device);
        let [a, b] = low_rank_factors(matrix.clone(), 6).expect("finite");
        assert_eq!((a.dims(), b.dims()), ([6, 40], [24, 6]));
        let exact = truncated_svd(matrix.clone(), 6).expect("finite");
        let error = |near: Tensor<2>| {
            let off = matrix.clone() - near;
            off.square().sum().sqrt().into_scalar::<f32>()
        };
        let nearest = error(exact.scaled_u().matmul(exact.vt));
        assert!(error(b.matmul(a)) < 1.02 * nearest);
        let zero = Tensor::<2>::zeros([3, 4], &device);
        let [a, b] = low_rank_factors(zero.clone(), 2).expect("finite");
        b.matmul(a).into_data().assert_eq(&zero.into_data(), true);
        assert!(low_rank_factors(matrix, 25).is_err());
    }
}
