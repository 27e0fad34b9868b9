//! The loss of process reward models: a class for each step of a solution.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use ft_core::IGNORE_INDEX;

/// Cross-entropy of the classes at labelled positions, which are the ends of steps, and the mask of these positions.
///
/// Lightman et al., 2023 (arXiv:2305.20050) with two classes, wrong and right. The loss is 0 where the
/// label is [`IGNORE_INDEX`]. Labels are not shifted: a position is scored on its own label.
///
/// # Shapes
///
/// - `logits`: `[rows, tokens, classes]`
/// - `labels`: `rows · tokens` classes, row by row, [`IGNORE_INDEX`] where there is none
/// - results: `[rows, tokens]`
///
/// # Panics
///
/// If there are not as many labels as positions, or a label is neither a class nor [`IGNORE_INDEX`].
pub fn process_rewards(logits: Tensor<3>, labels: &[i64]) -> (Tensor<2>, Tensor<2>) {
    let [rows, tokens, classes] = logits.dims();
    let device = logits.device();
    assert_eq!(
        labels.len(),
        rows * tokens,
        "{} labels for {rows} · {tokens} positions",
        labels.len()
    );
    let counts = |&label: &i64| label != IGNORE_INDEX;
    for label in labels.iter().filter(|l| counts(l)) {
        assert!(
            (0..classes as i64).contains(label),
            "label {label} with {classes} classes"
        );
    }
    let mask: Vec<f32> = labels
        .iter()
        .map(|l| f32::from(u8::from(counts(l))))
        .collect();
    let mask = Tensor::<2>::from_data(TensorData::new(mask, [rows, tokens]), &device);
    let targets: Vec<i64> = labels.iter().map(|&label| label.max(0)).collect();
    let targets = TensorData::new(targets, [rows, tokens, 1]);
    let targets = Tensor::<3, Int>::from_data(targets, &device);
    let losses = -log_softmax(logits, 2)
        .gather(2, targets)
        .squeeze_dim::<2>(2);
    (super::row_logps::masked(losses, &mask), mask)
}
