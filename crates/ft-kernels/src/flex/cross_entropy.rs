//! Cross-entropy on slices: each row of logits gives its loss and is replaced by its gradient in place.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::exp::{exp_shifted, max, sum_of_pairs};
use super::head::{Head, capped};
use super::packed::Held;
use crate::LossOptions;

/// The loss of every row, and the requested gradients of their sum with respect to the hidden states and the weight.
pub(crate) struct LossAndGradients {
    pub(crate) losses: Vec<f32>,
    pub(crate) gradients: [Option<FlexTensor>; 2],
}

/// `hidden`: `[rows, width]`, `weight`: `[vocab, width]`, `targets`: `[rows]`, all in the vocabulary.
pub(crate) fn cross_entropy(
    hidden: FlexTensor,
    weight: Held,
    targets: &[i64],
    options: LossOptions,
    chunk: usize,
    wanted: [bool; 2],
) -> LossAndGradients {
    let head = Head::new(weight, options.logits);
    let vocab = head.vocab();
    let smoothing = options.label_smoothing as f32;
    let mut losses = vec![0.0; hidden.shape()[0]];
    let gradients = head.in_chunks(
        hidden,
        chunk,
        wanted != [false; 2],
        wanted,
        |start, logits| {
            let rows = (logits.par_chunks_mut(vocab))
                .zip(&targets[start..])
                .zip(&mut losses[start..])
                .map(|((z, target), loss)| (z, *target as usize, loss));
            match options.logits.softcap {
                None => {
                    rows.for_each(|(z, target, loss)| *loss = loss_of_row(z, target, smoothing))
                }
                Some(cap) => rows.for_each_init(
                    || vec![0.0; vocab],
                    |slopes, (z, target, loss)| {
                        cap_row(z, cap as f32, slopes);
                        *loss = loss_of_row(z, target, smoothing);
                        multiply(z, slopes);
                    },
                ),
            }
        },
    );
    LossAndGradients { losses, gradients }
}

/// With smoothing `ε` of `V` classes: `ln Σeᶻ − (1 − ε)·z[target] − ε·mean(z)`. Writes the gradient
/// `softmax(z) − (1 − ε)·onehot(target) − ε/V` to `z`.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn loss_of_row(z: &mut [f32], target: usize, smoothing: f32) -> f32 {
    let most = max(z);
    let mut expected = (1.0 - smoothing) * (z[target] - most);
    if smoothing > 0.0 {
        expected += smoothing * mean_shifted(z, most);
    }
    // Large vocabularies have millions of small terms: sums of 4096 of them are added in f64.
    let total: f64 = (z.chunks_mut(4096))
        .map(|part| f64::from(exp_shifted(part, most)))
        .sum();
    let scale = (1.0 / total) as f32;
    let everywhere = smoothing / z.len() as f32;
    for z in z.iter_mut() {
        *z = *z * scale - everywhere;
    }
    z[target] -= 1.0 - smoothing;
    total.ln() as f32 - expected
}

/// `mean(z) − most`, computed from differences, so that large logits lose no precision.
#[inline(always)]
fn mean_shifted(z: &[f32], most: f32) -> f32 {
    let sum: f64 = (z.chunks(4096))
        .map(|part| f64::from(sum_of_pairs(part, part, |z, _| z - most)))
        .sum();
    (sum / z.len() as f64) as f32
}

/// `z ← c·tanh(z)`, and its slopes, which the gradient needs after `z` is replaced by probabilities.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn cap_row(z: &mut [f32], cap: f32, slopes: &mut [f32]) {
    for (z, slope) in z.iter_mut().zip(slopes) {
        (*z, *slope) = capped(*z, cap);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn multiply(z: &mut [f32], by: &[f32]) {
    for (z, by) in z.iter_mut().zip(by) {
        *z *= by;
    }
}
