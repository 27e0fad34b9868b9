//! Soft targets of logits that are brought to the same mean and deviation.

use burn::tensor::Tensor;

use super::soft_targets::soft_targets;

/// [`soft_targets`] of standardised logits: `z ← (z − mean) / (deviation + 10⁻⁷)` in each row, on both sides.
///
/// The student is free to have logits of another size than the teacher (Sun et al., 2024, arXiv:2403.01427, equation 9). The
/// deviation is unbiased (`n − 1`).
///
/// # Shapes
///
/// As [`soft_targets`]; at least two classes.
pub fn standardized(student: Tensor<2>, teacher: Tensor<2>, temperature: f64) -> Tensor<1> {
    soft_targets(z_scores(student), z_scores(teacher), temperature)
}

fn z_scores(logits: Tensor<2>) -> Tensor<2> {
    let classes = logits.dims()[1];
    let centered = logits.clone() - logits.mean_dim(1);
    let variance = centered.clone().square().sum_dim(1) / (classes - 1) as f64;
    // The slope of a root at 0 is infinite.
    centered / (variance.clamp_min(1e-20).sqrt() + 1e-7)
}
