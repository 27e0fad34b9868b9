//! Head and cross-entropy on slices: logits of a few hundred rows at a time, turned into their own
//! gradient where they lie.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::exp::{exp_shifted, max};
use super::product::{Matrix, Output, product, threads_for};
use super::{contiguous, matrix, slice, tensor};

/// The loss of every row, and the gradients of their sum that were asked for.
pub(crate) struct LossAndGradients {
    pub(crate) losses: Vec<f32>,
    pub(crate) hidden: Option<FlexTensor>,
    pub(crate) weight: Option<FlexTensor>,
}

/// `hidden`: `[rows, width]`, `weight`: `[vocab, width]`, `targets`: `[rows]`, all in the vocabulary.
pub(crate) fn cross_entropy(
    hidden: FlexTensor,
    weight: &FlexTensor,
    targets: &[i64],
    chunk: usize,
    want_hidden: bool,
    want_weight: bool,
) -> LossAndGradients {
    let hidden = contiguous(hidden);
    let [rows, width] = hidden.shape().dims();
    let vocab = weight.shape()[0];
    let head = matrix(weight);
    let mut losses = vec![0.0; rows];
    let mut d_hidden = vec![0.0; if want_hidden { rows * width } else { 0 }];
    let mut d_weight = vec![0.0; if want_weight { vocab * width } else { 0 }];
    let mut logits = vec![0.0; chunk.min(rows) * vocab];
    for start in (0..rows).step_by(chunk) {
        let size = chunk.min(rows - start);
        let part = Matrix::new(
            &slice(&hidden)[start * width..][..size * width],
            size,
            width,
        );
        let logits = &mut logits[..size * vocab];
        let threads = threads_for(size, vocab, width);
        product(part, head.t(), 1.0, logits, Output::Overwrite, threads);
        logits
            .par_chunks_mut(vocab)
            .zip(&targets[start..])
            .zip(&mut losses[start..])
            .for_each(|((logits, target), loss)| *loss = loss_of_row(logits, *target as usize));
        let gradient = Matrix::new(logits, size, vocab);
        if want_hidden {
            let out = &mut d_hidden[start * width..][..size * width];
            product(gradient, head, 1.0, out, Output::Overwrite, threads);
        }
        if want_weight {
            product(gradient.t(), part, 1.0, &mut d_weight, Output::Add, threads);
        }
    }
    LossAndGradients {
        losses,
        hidden: want_hidden.then(|| tensor(d_hidden, [rows, width])),
        weight: want_weight.then(|| tensor(d_weight, [vocab, width])),
    }
}

/// `−log softmax(z)[target]`; leaves `softmax(z) − onehot(target)` in `z`.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn loss_of_row(z: &mut [f32], target: usize) -> f32 {
    let most = max(z);
    let shifted = z[target] - most;
    // Large vocabularies have millions of small terms: sums of 4096 of them are added in f64.
    let total: f64 = (z.chunks_mut(4096))
        .map(|part| f64::from(exp_shifted(part, most)))
        .sum();
    let scale = (1.0 / total) as f32;
    for z in z.iter_mut() {
        *z *= scale;
    }
    z[target] -= 1.0;
    total.ln() as f32 - shifted
}
