//! Features times factors on slices: one pass forward, and one backward that replaces the output's gradient by the input's.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use multiversion::multiversion;
use rayon::prelude::*;

use super::pieces::{each, zeros};
use super::rms_norm::rows_a_piece;
use super::{contiguous, slice, tensor, to_change};

#[backend_extension(Flex, Autodiff)]
pub(crate) trait ScaleFeatures: Backend {
    fn scale_features(x: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl ScaleFeatures for Flex {
    fn scale_features(x: FlexTensor, factors: FlexTensor) -> FlexTensor {
        forward(&contiguous(x), &contiguous(factors))
    }
}

impl<C: CheckpointStrategy> ScaleFeatures for Autodiff<Flex, C> {
    fn scale_features(x: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self> {
        let trained = factors.is_tracked();
        let (x, x_node) = x.into_parts();
        let (factors, factors_node) = factors.into_parts();
        let (x, factors) = (contiguous(x), contiguous(factors));
        let y = forward(&x, &factors);
        match Gradient
            .prepare::<C>([x_node, factors_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((trained.then_some(x), factors), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

#[derive(Debug)]
struct Gradient;

impl Backward<Flex, 2> for Gradient {
    /// The input is kept if the factors have a gradient.
    type State = (Option<FlexTensor>, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        let (x, factors) = ops.state;
        let [x_node, factors_node] = ops.parents;
        if let (Some(node), Some(x)) = (factors_node, x) {
            let dy = contiguous(dy.clone());
            let piece = piece_of(&factors);
            let parts: Vec<Vec<f32>> = (slice(&x).par_chunks(piece))
                .zip(slice(&dy).par_chunks(piece))
                .map(|(x, dy)| products_by_feature(x, dy, slice(&factors).len()))
                .collect();
            let mut sums = vec![0.0; slice(&factors).len()];
            for part in parts {
                sums.iter_mut()
                    .zip(part)
                    .for_each(|(sum, part)| *sum += part);
            }
            grads.register::<Flex>(node.id, tensor(sums, factors.shape()));
        }
        if let Some(node) = x_node {
            let mut dx = to_change(dy);
            (dx.storage_mut::<f32>().par_chunks_mut(piece_of(&factors)))
                .for_each(|dx| scale_in_place(dx, slice(&factors)));
            grads.register::<Flex>(node.id, dx);
        }
    }
}

/// The numbers of a piece.
fn piece_of(factors: &FlexTensor) -> usize {
    let features = slice(factors).len();
    rows_a_piece(features) * features
}

fn forward(x: &FlexTensor, factors: &FlexTensor) -> FlexTensor {
    let numbers = slice(x);
    let mut y = zeros(numbers.len());
    let piece = piece_of(factors);
    each(
        y.par_chunks_mut(piece).zip(numbers.par_chunks(piece)),
        |(y, x)| scale(x, slice(factors), y),
    );
    tensor(y, x.shape())
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn scale(x: &[f32], factors: &[f32], y: &mut [f32]) {
    let rows = x
        .chunks_exact(factors.len())
        .zip(y.chunks_exact_mut(factors.len()));
    for (x, y) in rows {
        for ((y, x), factor) in y.iter_mut().zip(x).zip(factors) {
            *y = x * factor;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn scale_in_place(x: &mut [f32], factors: &[f32]) {
    for x in x.chunks_exact_mut(factors.len()) {
        for (x, factor) in x.iter_mut().zip(factors) {
            *x *= factor;
        }
    }
}

/// `Σ x·dy` over the rows.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn products_by_feature(x: &[f32], dy: &[f32], features: usize) -> Vec<f32> {
    let mut sums = vec![0.0; features];
    for (x, dy) in x.chunks_exact(features).zip(dy.chunks_exact(features)) {
        for ((sum, x), dy) in sums.iter_mut().zip(x).zip(dy) {
            *sum += x * dy;
        }
    }
    sums
}
