//! Layer norm on slices: one pass forward, one backward; only the inputs are kept.
//!
//! The mean is computed in two parts, as in the corrected two-pass algorithm (Chan, Golub and LeVeque, The
//! American Statistician, 1983, equation 1.7): a rounded mean, and the mean of the distances from it, which corrects
//! the rounding. A row far from zero therefore loses no precision. A row stays in the cache, where reading it again is
//! cheap.

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
use super::rms_norm::rows_a_piece;
use super::{contiguous, slice, tensor};

#[backend_extension(Flex, Autodiff)]
pub(crate) trait FusedLayerNorm: Backend {
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;
}

impl FusedLayerNorm for Flex {
    fn fused_layer_norm(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        epsilon: f32,
    ) -> FlexTensor {
        forward(
            &contiguous(x),
            &contiguous(weight),
            &contiguous(bias),
            epsilon,
        )
    }
}

impl<C: CheckpointStrategy> FusedLayerNorm for Autodiff<Flex, C> {
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (bias, bias_node) = bias.into_parts();
        let (x, weight) = (contiguous(x), contiguous(weight));
        let y = forward(&x, &weight, &contiguous(bias), epsilon);
        match Gradient
            .prepare::<C>([x_node, weight_node, bias_node])
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

impl Backward<Flex, 3> for Gradient {
    type State = (FlexTensor, FlexTensor, f32);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = contiguous(grads.consume::<Flex>(&ops.node));
        let (x, weight, epsilon) = ops.state;
        let [x_node, weight_node, bias_node] = ops.parents;
        let (features, shape) = (slice(&weight).len(), x.shape());
        let (x, dy, w) = (slice(&x), slice(&dy), slice(&weight));
        let piece = rows_a_piece(features) * features;
        if weight_node.is_some() || bias_node.is_some() {
            // The first half is the weight's, the second the bias's.
            let parts: Vec<Vec<f32>> = x
                .par_chunks(piece)
                .zip(dy.par_chunks(piece))
                .map(|(x, dy)| {
                    let mut sums = vec![0.0; 2 * features];
                    parameter_gradients(x, dy, epsilon, &mut sums);
                    sums
                })
                .collect();
            let mut sums = vec![0.0; 2 * features];
            for part in parts {
                (sums.iter_mut().zip(part)).for_each(|(sum, part)| *sum += part);
            }
            let db = sums.split_off(features);
            for (node, gradient) in [(weight_node, sums), (bias_node, db)] {
                if let Some(node) = node {
                    grads.register::<Flex>(node.id, tensor(gradient, [features]));
                }
            }
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

fn forward(x: &FlexTensor, weight: &FlexTensor, bias: &FlexTensor, epsilon: f32) -> FlexTensor {
    let (numbers, w, b) = (slice(x), slice(weight), slice(bias));
    let piece = rows_a_piece(w.len()) * w.len();
    let mut y = zeros(numbers.len());
    let rows = y.par_chunks_mut(piece).zip(numbers.par_chunks(piece));
    each(rows, |(y, x)| normalize(x, w, b, epsilon, y));
    tensor(y, x.shape())
}

/// The numbers of `x̂ = ((x − about) − shift)·scale` for a row: the mean in two parts, and `1/√(var + ε)`.
struct Statistics {
    about: f32,
    shift: f32,
    scale: f32,
}

impl Statistics {
    #[inline(always)]
    fn of(x: &[f32], epsilon: f32) -> Self {
        let n = x.len() as f32;
        let about = sum_of_pairs(x, x, |x, _| x) / n;
        let shift = sum_of_pairs(x, x, |x, _| x - about) / n;
        let centred = |x: f32| (x - about) - shift;
        let variance = sum_of_pairs(x, x, |x, _| centred(x) * centred(x)) / n;
        Self {
            about,
            shift,
            scale: 1.0 / (variance + epsilon).sqrt(),
        }
    }

    /// `x̂`
    #[inline(always)]
    fn apply(&self, x: f32) -> f32 {
        ((x - self.about) - self.shift) * self.scale
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn normalize(x: &[f32], w: &[f32], b: &[f32], epsilon: f32, y: &mut [f32]) {
    for (x, y) in x.chunks_exact(w.len()).zip(y.chunks_exact_mut(w.len())) {
        let row = Statistics::of(x, epsilon);
        for ((y, x), (w, b)) in y.iter_mut().zip(x).zip(w.iter().zip(b)) {
            *y = row.apply(*x) * w + b;
        }
    }
}

/// With `g = w·dy`: `dx = (g − mean(g) − x̂·mean(g·x̂)) / √(var + ε)`.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn input_gradient(x: &[f32], dy: &[f32], w: &[f32], epsilon: f32, dx: &mut [f32]) {
    let n = w.len();
    let rows = x.chunks_exact(n).zip(dy.chunks_exact(n));
    for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(n)) {
        let row = Statistics::of(x, epsilon);
        for ((dx, dy), w) in dx.iter_mut().zip(dy).zip(w) {
            *dx = dy * w;
        }
        let mean = sum_of_pairs(dx, x, |g, _| g) / n as f32;
        let along = sum_of_pairs(dx, x, |g, x| g * row.apply(x)) / n as f32;
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = (*dx - mean - row.apply(*x) * along) * row.scale;
        }
    }
}

/// `dw += Σ dy·x̂` and `db += Σ dy` over the rows; `sums` holds dw, then db.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn parameter_gradients(x: &[f32], dy: &[f32], epsilon: f32, sums: &mut [f32]) {
    let n = sums.len() / 2;
    let (dw, db) = sums.split_at_mut(n);
    for (x, dy) in x.chunks_exact(n).zip(dy.chunks_exact(n)) {
        let row = Statistics::of(x, epsilon);
        for ((dw, db), (x, dy)) in dw.iter_mut().zip(db.iter_mut()).zip(x.iter().zip(dy)) {
            *dw += dy * row.apply(*x);
            *db += dy;
        }
    }
}
