//! TIES: trim, elect a sign, merge what agrees with it (Yadav et al., 2023, arXiv:2306.01708, algorithm 1).

use burn::tensor::Tensor;

use super::MajoritySign;

/// The mean of `wᵢTᵢ` over the tasks whose number has the elected sign. The tasks are trimmed already; weights have no part
/// in the election, as in PEFT.
pub(super) fn merge(tasks: Vec<Tensor<2>>, weights: &[f64], method: MajoritySign) -> Tensor<2> {
    let tasks: Tensor<3> = Tensor::stack(tasks, 0);
    let signs = tasks.clone().sign();
    let votes = match method {
        MajoritySign::Total => tasks.clone().sum_dim(0),
        MajoritySign::Frequency => signs.clone().sum_dim(0),
    };
    // Without a majority it is the positive one.
    let elected = votes
        .clone()
        .ones_like()
        .mask_fill(votes.lower_elem(0.0), -1.0);
    let agree = signs.equal(elected.expand(tasks.dims())).float();
    let weights: Vec<f32> = weights.iter().map(|weight| *weight as f32).collect();
    let weights = Tensor::<1>::from_data(&weights[..], &tasks.device());
    let weights = weights.reshape([-1, 1, 1]);
    let sum = (tasks * weights * agree.clone()).sum_dim(0);
    (sum / agree.sum_dim(0).clamp_min(1.0)).squeeze_dim(0)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    /// Columns: both positive; the larger is negative; a tie, where positive wins; one of two is pruned.
    #[test]
    fn numbers_with_the_elected_sign_are_averaged() {
        let device = Device::default();
        let task = |numbers: [f32; 4]| Tensor::<2>::from_data([numbers], &device);
        let tasks = || vec![task([1.0, 1.0, 2.0, 0.0]), task([3.0, -2.0, -2.0, -5.0])];
        let total = merge(tasks(), &[1.0, 0.5], MajoritySign::Total);
        // (1 + 1.5)/2, -2·0.5, 2, -5·0.5
        assert_eq!(
            total.into_data(),
            TensorData::from([[1.25f32, -1.0, 2.0, -2.5]])
        );
        let most = merge(tasks(), &[1.0, 0.5], MajoritySign::Frequency);
        assert_eq!(
            most.into_data(),
            TensorData::from([[1.25f32, 1.0, 2.0, -2.5]])
        );
    }
}
