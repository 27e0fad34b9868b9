//! The nearest matrix of a rank (Eckart and Young, 1936), by its largest singular values.

use burn::tensor::{DType, Tensor};

use crate::linalg::{Matrix, Singular, largest};

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
}
