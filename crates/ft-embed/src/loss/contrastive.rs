//! Pairs that are alike or not (Hadsell et al., 2006, equation 4), with cosine distances `d = 1 − cos`.

use burn::tensor::{Tensor, activation::relu};

use crate::loss::similarity::{check_labels, numbers, pairwise_cosine, vector};

/// `½·(y·d² + (1 − y)·max(0, margin − d)²)`.
///
/// # Shapes
///
/// - `a`, `b`: `[n, dims]`; `labels`: `n` numbers, 1 for pairs that are alike, 0 for others
/// - output: `[n]`
///
/// # Panics
///
/// If there are not as many labels as rows.
pub fn contrastive(a: Tensor<2>, b: Tensor<2>, labels: &[f32], margin: f64) -> Tensor<1> {
    check_labels(labels.len(), a.dims()[0]);
    let labels = vector(labels, &a.device());
    let distance = pairwise_cosine(a, b).neg() + 1.0;
    let apart = relu(distance.clone().neg() + margin).square();
    (labels.clone() * distance.square() + (labels.neg() + 1.0) * apart) * 0.5
}

/// The same on the hard pairs alone, as one number: `Σ d²` over pairs that are alike and farther apart than the nearest pair
/// that is not, and `Σ max(0, margin − d)²` over pairs that are not alike and nearer than the farthest pair that is.
///
/// If there are pairs of one kind only, those beyond their mean are hard. Pairs with other labels than 0 and 1 are
/// ignored.
///
/// # Shapes
///
/// - `a`, `b`: `[n, dims]`; `labels`: `n`
/// - output: `[1]`
///
/// # Panics
///
/// If there are not as many labels as rows.
pub fn online_contrastive(a: Tensor<2>, b: Tensor<2>, labels: &[f32], margin: f64) -> Tensor<1> {
    check_labels(labels.len(), a.dims()[0]);
    let device = a.device();
    let distance = pairwise_cosine(a, b).neg() + 1.0;
    let values = numbers(&distance);
    let of = |label: f32| -> Vec<f32> {
        let pairs = values.iter().zip(labels).filter(|(_, own)| **own == label);
        pairs.map(|(distance, _)| *distance).collect()
    };
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    let (alike, apart) = (of(1.0), of(0.0));
    let farthest = alike
        .iter()
        .copied()
        .reduce(f32::max)
        .unwrap_or_else(|| mean(&apart));
    let nearest = apart
        .iter()
        .copied()
        .reduce(f32::min)
        .unwrap_or_else(|| mean(&alike));
    let pairs = || values.iter().zip(labels);
    let hard = |chosen: fn(f32, f32, f32, f32) -> bool| -> Vec<f32> {
        let chosen = pairs().map(|(&d, &label)| chosen(d, label, nearest, farthest));
        chosen.map(|chosen| f32::from(u8::from(chosen))).collect()
    };
    let positives = hard(|d, label, nearest, _| label == 1.0 && d > nearest);
    let negatives = hard(|d, label, _, farthest| label == 0.0 && d < farthest);
    let near = (distance.clone().square() * vector(&positives, &device)).sum();
    let far = relu(distance.neg() + margin).square() * vector(&negatives, &device);
    near + far.sum()
}
