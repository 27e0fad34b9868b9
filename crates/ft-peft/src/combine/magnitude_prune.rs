//! Trimming: the largest numbers of a task (Yadav et al., 2023, arXiv:2306.01708, section 4.1).

use burn::tensor::{Tensor, TensorData};

/// The task with the `⌊density·n⌋` of its `n` numbers that are largest in magnitude, and zeros. Of equal magnitudes the
/// first are kept.
pub(super) fn prune(task: Tensor<2>, density: f64) -> Tensor<2> {
    let (shape, device) = (task.dims(), task.device());
    let mut numbers: Vec<f32> = task.into_data().try_to_vec().expect("adapters are f32");
    let kept = (density * numbers.len() as f64) as usize;
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    if kept < numbers.len() {
        let magnitude = |i: usize| numbers[i].abs();
        order.select_nth_unstable_by(kept, |&i, &j| {
            magnitude(j).total_cmp(&magnitude(i)).then(i.cmp(&j))
        });
        for i in &order[kept..] {
            numbers[*i] = 0.0;
        }
    }
    Tensor::from_data(TensorData::new(numbers, shape), &device)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn the_largest_numbers_are_kept() {
        let task =
            Tensor::<2>::from_data([[1.0f32, -4.0, 2.0], [-3.0, 2.0, 0.5]], &Device::default());
        let pruned = |density| prune(task.clone(), density).into_data();
        // ⌊0.5 · 6⌋ = 3: of the two 2 the first
        assert_eq!(
            pruned(0.5),
            TensorData::from([[0.0f32, -4.0, 2.0], [-3.0, 0.0, 0.0]])
        );
        assert_eq!(pruned(1.0), task.to_data());
    }
}
