//! The margin of a teacher between positive and negative (Hofstätter et al., 2020, arXiv:2010.02666, equation 8).

use burn::tensor::Tensor;

use crate::loss::similarity::{pairwise_dot, vector};

/// The mean over the negatives of `(⟨q, p⟩ − ⟨q, n⟩ − m)²`.
///
/// # Shapes
///
/// - `queries`, `positives` and each of `negatives`: `[n, dims]`
/// - `labels`: for each row either the margin of each negative, or the scores of the positive and of each negative
/// - output: `[n]`
///
/// # Panics
///
/// If a row has another number of labels.
pub fn margin_mse<L: AsRef<[f32]>>(
    queries: Tensor<2>,
    positives: Tensor<2>,
    negatives: &[Tensor<2>],
    labels: &[L],
) -> Tensor<1> {
    assert_eq!(labels.len(), queries.dims()[0], "a row of labels a row");
    assert!(!negatives.is_empty(), "there are no negatives");
    let device = queries.device();
    let count = negatives.len();
    let positive = pairwise_dot(queries.clone(), positives);
    let terms = negatives.iter().enumerate().map(|(number, negative)| {
        let margins: Vec<f32> = (labels.iter().map(AsRef::as_ref).enumerate())
            .map(|(row, labels)| match labels.len() {
                len if len == count => labels[number],
                len if len == count + 1 => labels[0] - labels[number + 1],
                len => panic!("row {row} has {len} labels for {count} negatives: {count} margins, or one score more"),
            })
            .collect();
        let margin = positive.clone() - pairwise_dot(queries.clone(), negative.clone());
        (margin - vector(&margins, &device)).square()
    });
    let sum = terms.reduce(|a, b| a + b).expect("there is a negative");
    sum / count as f64
}
