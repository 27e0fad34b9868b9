//! Factors of the nearest matrix of a rank, by singular values: `A = Vᵀ`, `B = U·diag(S)`.

use burn::tensor::{Tensor, TensorData};

use crate::truncated_svd::{Svd, truncated_svd};

/// `A` `[rank, in]` and `B` `[out, rank]` of a matrix `[out, in]`. A matrix of smaller sizes has fewer.
pub(super) fn factors(
    matrix: Tensor<2>,
    rank: usize,
    clamp: Option<f64>,
) -> Result<[Tensor<2>; 2], String> {
    truncated_svd(matrix, rank).map(|svd| split(&svd, clamp))
}

/// The same of `b·a`.
pub(super) fn factors_of_product(
    a: Tensor<2>,
    b: Tensor<2>,
    rank: usize,
    clamp: Option<f64>,
) -> Result<[Tensor<2>; 2], String> {
    factors(b.matmul(a), rank, clamp)
}

fn split(svd: &Svd, clamp: Option<f64>) -> [Tensor<2>; 2] {
    let (a, b) = (svd.vt.clone(), svd.scaled_u());
    let Some(clamp) = clamp else {
        return [a, b];
    };
    let numbers = [&b, &a]
        .into_iter()
        .flat_map(|factor| host(factor.clone().into_data()));
    let bound = quantile(numbers.collect(), clamp);
    // A quantile of mostly negative numbers is negative; as in PyTorch, all numbers are the upper bound then.
    let cut = |factor: Tensor<2>| factor.clamp_min(-bound).clamp_max(bound);
    [cut(a), cut(b)]
}

fn host(data: TensorData) -> Vec<f32> {
    data.try_to_vec().expect("decompositions are f32")
}

/// The number below which a share of the numbers lies, with linear interpolation.
fn quantile(mut numbers: Vec<f32>, share: f64) -> f32 {
    numbers.sort_by(f32::total_cmp);
    let place = share * (numbers.len() - 1) as f64;
    let (below, above) = (
        numbers[place.floor() as usize],
        numbers[place.ceil() as usize],
    );
    below + (above - below) * place.fract() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_between_its_neighbours() {
        let numbers = vec![4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(numbers.clone(), 1.0), 4.0);
        // 0.5 · 3 = 1.5: between the second and the third
        assert_eq!(quantile(numbers, 0.5), 2.5);
    }
}
