//! DARE: drop and rescale (Yu et al., 2023, arXiv:2311.03099, equation 2).

use burn::tensor::{Tensor, TensorData};
use rand::Rng;

/// The task with each number kept with probability `density`, and divided by it, so that the mean is that of the task.
pub(super) fn drop(task: Tensor<2>, density: f64, rng: &mut impl Rng) -> Tensor<2> {
    let shape = task.dims();
    let factor = |kept| if kept { (1.0 / density) as f32 } else { 0.0 };
    let mask = (0..shape[0] * shape[1]).map(|_| factor(rng.random_bool(density)));
    let mask = TensorData::new(mask.collect::<Vec<f32>>(), shape);
    let mask = Tensor::from_data(mask, &task.device());
    task * mask
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn the_mean_stays_and_kept_numbers_are_scaled() {
        let ones = Tensor::<2>::ones([100, 100], &Device::default());
        let dropped = |seed| drop(ones.clone(), 0.25, &mut StdRng::seed_from_u64(seed)).into_data();
        let numbers: Vec<f32> = dropped(1).try_to_vec().expect("f32");
        assert!(numbers.iter().all(|x| *x == 0.0 || *x == 4.0));
        // standard deviation of the mean: √(3/10000) = 0.017
        let mean = numbers.iter().sum::<f32>() / 10_000.0;
        assert!((mean - 1.0).abs() < 0.07, "{mean}");
        assert_eq!(dropped(1), dropped(1));
        assert_ne!(dropped(1), dropped(2));
    }
}
