//! Log-probabilities of the targets, and entropies, on slices, for any gradient of the output.
//!
//! Hidden states, weight and three numbers per row are kept. The backward pass computes the logits again. With
//! `p = softmax(z)`, `g` the gradient of a row's log-probability and `e` that of its entropy `H`, the gradient of its
//! logits is `g·(onehot − p) − e·p·(ln p + H)`.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use multiversion::multiversion;
use rayon::prelude::*;

use super::exp::{exp, max, sum_of_pairs};
use super::head::{Head, capped};
use super::packed::{Held, Operand};
use super::{contiguous, slice, tensor};
use crate::LogitOptions;

/// The arguments of the operation.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// A token of the vocabulary for each row.
    pub(crate) targets: Arc<[i64]>,
    pub(crate) options: LogitOptions,
    /// Whether entropies are a second column of the output.
    pub(crate) entropy: bool,
    /// The maximum number of rows of logits at a time.
    pub(crate) chunk: usize,
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait TokenLogps: Backend {
    /// `hidden`: `[rows, width]`, `weight`: `[vocab, width]`; gives `[rows, 1]`, or `[rows, 2]` with
    /// entropies.
    fn token_logps(
        hidden: FloatTensor<Self>,
        #[extension_type] weight: Operand<Self>,
        question: Question,
    ) -> FloatTensor<Self>;
}

impl TokenLogps for Flex {
    fn token_logps(hidden: FlexTensor, weight: Operand<Flex>, question: Question) -> FlexTensor {
        let rows = forward(hidden, Held::new(weight), &question, false);
        output(&rows, question.entropy)
    }
}

impl<C: CheckpointStrategy> TokenLogps for Autodiff<Flex, C> {
    fn token_logps(
        hidden: FloatTensor<Self>,
        weight: Operand<Self>,
        question: Question,
    ) -> FloatTensor<Self> {
        let tracked = hidden.is_tracked();
        let (hidden, hidden_node) = hidden.into_parts();
        let (weight, trains, weight_node) = Held::in_graph(weight);
        let rows = forward(hidden.clone(), weight.clone(), &question, tracked || trains);
        let out = output(&rows, question.entropy);
        match Gradient
            .prepare::<C>([hidden_node, weight_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((hidden, weight, rows.into(), question), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}

#[derive(Debug)]
struct Gradient;

impl Backward<Flex, 2> for Gradient {
    type State = (FlexTensor, Held, Arc<[Row]>, Question);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let d_out = contiguous(grads.consume::<Flex>(&ops.node));
        let (hidden, weight, rows, question) = ops.state;
        let wanted = [0, 1].map(|parent| ops.parents[parent].is_some());
        let gradients = backward(hidden, weight, &rows, &question, slice(&d_out), wanted);
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// The results of a row of logits. The largest logit and the logarithm of the sum are separate, since their sum would
/// lose precision if logits are large.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    pub(super) logp: f32,
    /// 0 if it is not needed.
    entropy: f32,
    most: f32,
    /// `ln Σ e^(z − most)`
    log_total: f32,
}

fn output(rows: &[Row], entropy: bool) -> FlexTensor {
    let columns = if entropy { 2 } else { 1 };
    let numbers = rows
        .iter()
        .flat_map(|row| [row.logp, row.entropy].into_iter().take(columns));
    tensor(numbers.collect(), [rows.len(), columns])
}

fn forward(hidden: FlexTensor, weight: Held, question: &Question, tracked: bool) -> Vec<Row> {
    let head = Head::new(weight, question.options);
    let cap = question.options.softcap.map(|cap| cap as f32);
    let mut rows = vec![Row::default(); hidden.shape()[0]];
    head.in_chunks(
        hidden,
        question.chunk,
        tracked,
        [false; 2],
        |start, logits| {
            logits
                .par_chunks_mut(head.vocab())
                .zip(&question.targets[start..])
                .zip(&mut rows[start..])
                .for_each(|((z, target), row)| {
                    *row = summary(z, *target as usize, cap, question.entropy);
                });
        },
    );
    rows
}

fn backward(
    hidden: FlexTensor,
    weight: Held,
    rows: &[Row],
    question: &Question,
    d_out: &[f32],
    wanted: [bool; 2],
) -> [Option<FlexTensor>; 2] {
    let head = Head::new(weight, question.options);
    let cap = question.options.softcap.map(|cap| cap as f32);
    let columns = if question.entropy { 2 } else { 1 };
    head.in_chunks(hidden, question.chunk, true, wanted, |start, logits| {
        logits
            .par_chunks_mut(head.vocab())
            .zip(&question.targets[start..])
            .zip(&rows[start..])
            .zip(d_out[start * columns..].par_chunks(columns))
            .for_each(|(((z, target), row), d)| {
                let (g, e) = (d[0], d.get(1).copied().unwrap_or(0.0));
                let target = *target as usize;
                match cap {
                    None => gradient(z, target, row, g, e),
                    Some(cap) => gradient_through_cap(z, target, row, g, e, cap),
                }
            });
    })
}

/// Writes the capped logits to `z`.
///
/// `H = −Σ p·ln p = ln Σeˢ − Σ s·eˢ / Σeˢ` with `s = z − max`, both terms of which are positive.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn summary(z: &mut [f32], target: usize, cap: Option<f32>, entropy: bool) -> Row {
    if let Some(cap) = cap {
        z.iter_mut().for_each(|z| *z = capped(*z, cap).0);
    }
    let most = max(z);
    // Large vocabularies have millions of small terms: sums of 4096 of them are added in f64.
    let parts = || z.chunks(4096);
    let total: f64 = parts()
        .map(|part| f64::from(sum_of_pairs(part, part, |z, _| exp(z - most))))
        .sum();
    let log_total = total.ln() as f32;
    let entropy = if entropy {
        let mean: f64 = parts()
            .map(|part| sum_of_pairs(part, part, |z, _| (z - most) * exp(z - most)))
            .map(f64::from)
            .sum();
        (total.ln() - mean / total) as f32
    } else {
        0.0
    };
    Row {
        logp: z[target] - most - log_total,
        entropy,
        most,
        log_total,
    }
}

/// `z ← g·(onehot − p) − e·p·(ln p + H)`
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn gradient(z: &mut [f32], target: usize, row: &Row, g: f32, e: f32) {
    for z in z.iter_mut() {
        *z = without_target(*z, row, g, e);
    }
    z[target] += g;
}

/// The same for the logits before the cap.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn gradient_through_cap(z: &mut [f32], target: usize, row: &Row, g: f32, e: f32, cap: f32) {
    let (_, slope_of_target) = capped(z[target], cap);
    for z in z.iter_mut() {
        let (logit, slope) = capped(*z, cap);
        *z = slope * without_target(logit, row, g, e);
    }
    z[target] += g * slope_of_target;
}

/// `−p·(g + e·(ln p + H))`
#[inline(always)]
fn without_target(z: f32, row: &Row, g: f32, e: f32) -> f32 {
    let log_p = z - row.most - row.log_total;
    -exp(log_p) * (g + e * (log_p + row.entropy))
}
