//! The tokens at which the policy is least certain.

use burn::tensor::Tensor;

use super::gae::numbers;

/// 1 at counted tokens whose entropy is at least the quantile `1 − share` of all counted tokens, 0 elsewhere; a
/// constant.
///
/// Wang et al., 2025 (arXiv:2506.01939), with a share of 0.2. The quantile is interpolated linearly.
/// The mask is a factor of terms: the denominators of a [`Reduction`](super::Reduction) keep the whole mask.
///
/// # Shapes
///
/// - `entropy`, `mask` and result: `[rows, tokens]`
///
/// # Panics
///
/// If `share` is not in `0..=1`.
pub fn top_entropy_mask(entropy: Tensor<2>, mask: &Tensor<2>, share: f64) -> Tensor<2> {
    assert!((0.0..=1.0).contains(&share), "a share of {share}");
    let entropy = entropy.detach();
    let counted = numbers(entropy.clone())
        .into_iter()
        .zip(numbers(mask.clone()));
    let mut counted: Vec<f32> = counted.filter(|(_, m)| *m != 0.0).map(|(e, _)| e).collect();
    if counted.is_empty() {
        return mask.zeros_like();
    }
    counted.sort_by(f32::total_cmp);
    let place = (1.0 - share) * (counted.len() - 1) as f64;
    let (below, above) = (
        counted[place.floor() as usize],
        counted[place.ceil() as usize],
    );
    let threshold = below + (above - below) * place.fract() as f32;
    entropy.greater_equal_elem(threshold).float() * mask.clone()
}
