//! RMSNorm on slices: one pass forward, one backward; only the inputs are kept.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use multiversion::multiversion;
use rayon::prelude::*;

use super::exp::sum_of_pairs;
use super::pieces::{each, zeros};
use super::{contiguous, slice, tensor};

/// The number of elements of a piece: half of a core's cache.
const PIECE: usize = 1 << 15;

#[backend_extension(Flex, Autodiff)]
pub(crate) trait RmsNorm: Backend {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32)
    -> FloatTensor<Self>;
}

impl RmsNorm for Flex {
    fn rms_norm(x: FlexTensor, weight: FlexTensor, epsilon: f32) -> FlexTensor {
        forward(&contiguous(x), &contiguous(weight), epsilon)
    }
}

impl<C: CheckpointStrategy> RmsNorm for Autodiff<Flex, C> {
    fn rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (x, weight) = (contiguous(x), contiguous(weight));
        let y = forward(&x, &weight, epsilon);
        match Gradient
            .prepare::<C>([x_node, weight_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((x, weight, epsilon), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

#[derive(Debug)]
struct Gradient;

impl Backward<Flex, 2> for Gradient {
    type State = (FlexTensor, FlexTensor, f32);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = contiguous(grads.consume::<Flex>(&ops.node));
        let (x, weight, epsilon) = ops.state;
        let [x_node, weight_node] = ops.parents;
        let (features, shape) = (slice(&weight).len(), x.shape());
        let (x, dy, w) = (slice(&x), slice(&dy), slice(&weight));
        let piece = rows_a_piece(features) * features;
        if let Some(node) = weight_node {
            let parts: Vec<Vec<f32>> = x
                .par_chunks(piece)
                .zip(dy.par_chunks(piece))
                .map(|(x, dy)| {
                    let mut dw = vec![0.0; features];
                    weight_gradient(x, dy, epsilon, &mut dw);
                    dw
                })
                .collect();
            let mut dw = vec![0.0; features];
            for part in parts {
                dw.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            }
            grads.register::<Flex>(node.id, tensor(dw, weight.shape()));
        }
        if let Some(node) = x_node {
            let mut dx = zeros(x.len());
            dx.par_chunks_mut(piece)
                .zip(x.par_chunks(piece).zip(dy.par_chunks(piece)))
                .for_each(|(dx, (x, dy))| input_gradient(x, dy, w, epsilon, dx));
            grads.register::<Flex>(node.id, tensor(dx, shape));
        }
    }
}

/// The number of rows of a piece.
pub(super) fn rows_a_piece(features: usize) -> usize {
    (PIECE / features).max(1)
}

fn forward(x: &FlexTensor, weight: &FlexTensor, epsilon: f32) -> FlexTensor {
    let (numbers, w) = (slice(x), slice(weight));
    let piece = rows_a_piece(w.len()) * w.len();
    let mut y = zeros(numbers.len());
    let rows = y.par_chunks_mut(piece).zip(numbers.par_chunks(piece));
    each(rows, |(y, x)| normalize(x, w, epsilon, y));
    tensor(y, x.shape())
}

/// `1 / √(mean(x²) + ε)`
#[inline(always)]
fn scale_of(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (sum_of_pairs(x, x, |a, b| a * b) / x.len() as f32 + epsilon).sqrt()
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn normalize(x: &[f32], w: &[f32], epsilon: f32, y: &mut [f32]) {
    for (x, y) in x.chunks_exact(w.len()).zip(y.chunks_exact_mut(w.len())) {
        let scale = scale_of(x, epsilon);
        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
            *y = x * scale * w;
        }
    }
}

/// With `r = 1/√(mean(x²) + ε)`: `dx = r·(w·dy) − x·r³·mean(w·dy·x)`.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn input_gradient(x: &[f32], dy: &[f32], w: &[f32], epsilon: f32, dx: &mut [f32]) {
    let n = w.len();
    let rows = x.chunks_exact(n).zip(dy.chunks_exact(n));
    for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(n)) {
        let scale = scale_of(x, epsilon);
        for ((dx, dy), w) in dx.iter_mut().zip(dy).zip(w) {
            *dx = dy * w;
        }
        let mean = sum_of_pairs(dx, x, |a, b| a * b) / n as f32;
        let along = scale * scale * scale * mean;
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = scale * *dx - along * x;
        }
    }
}

/// `dw += Σ dy·x·r` over the rows.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn weight_gradient(x: &[f32], dy: &[f32], epsilon: f32, dw: &mut [f32]) {
    let n = dw.len();
    for (x, dy) in x.chunks_exact(n).zip(dy.chunks_exact(n)) {
        let scale = scale_of(x, epsilon);
        for ((dw, x), dy) in dw.iter_mut().zip(x).zip(dy) {
            *dw += dy * x * scale;
        }
    }
}
