//! The teacher's distribution at a temperature.

use burn::tensor::Tensor;
use ft_kernels::Divergence;

use super::divergence::divergence;

/// `T² KL(p‖q)` of each row, with `p = softmax(teacher / T)` and `q = softmax(student / T)`.
///
/// Hinton et al., 2015 (arXiv:1503.02531, section 2). With `T²` the gradient keeps its size when the temperature changes, so
/// that the loss mixes with a cross-entropy as `α · soft_targets + (1 − α) · cross_entropy`.
///
/// # Shapes
///
/// - `student`, `teacher`: logits, `[rows, classes]`
/// - result: `[rows]`
///
/// # Panics
///
/// If the shapes differ or the temperature is not above 0.
pub fn soft_targets(student: Tensor<2>, teacher: Tensor<2>, temperature: f64) -> Tensor<1> {
    assert!(temperature > 0.0, "a temperature of {temperature}");
    let (student, teacher) = (student / temperature, teacher / temperature);
    divergence(student, teacher, Divergence::Forward) * (temperature * temperature)
}
