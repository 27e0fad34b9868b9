//! Losses of a cross-encoder's scores, pair by pair.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax, activation::softplus};

use crate::loss::similarity::{check_labels, vector};

/// `−(w·y·ln σ(x) + (1 − y)·ln(1 − σ(x)))`, where `w` is the weight of positives.
///
/// # Shapes
///
/// - `logits`: `[n]`; `labels`: `n` numbers from 0 to 1
/// - output: `[n]`
///
/// # Panics
///
/// If there are not as many labels as rows.
pub fn binary_cross_entropy(logits: Tensor<1>, labels: &[f32], positive_weight: f64) -> Tensor<1> {
    check_labels(labels.len(), logits.dims()[0]);
    let labels = vector(labels, &logits.device());
    let positive = softplus(logits.clone().neg(), 1.0) * labels.clone() * positive_weight;
    positive + softplus(logits, 1.0) * (labels.neg() + 1.0)
}

/// `−ln softmax(x)_y`.
///
/// # Shapes
///
/// - `logits`: `[n, classes]`; `labels`: `n` classes
/// - output: `[n]`
///
/// # Panics
///
/// If there are not as many labels as rows.
pub fn cross_entropy(logits: Tensor<2>, labels: &[i64]) -> Tensor<1> {
    check_labels(labels.len(), logits.dims()[0]);
    let labels = TensorData::new(labels.to_vec(), [labels.len(), 1]);
    let labels = Tensor::<2, Int>::from_data(labels, &logits.device());
    log_softmax(logits, 1)
        .gather(1, labels)
        .squeeze_dim(1)
        .neg()
}
