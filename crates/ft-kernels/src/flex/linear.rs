//! `x·Wᵀ`, and the same with a low-rank adapter, on slices.
//!
//! With an adapter the products add into one output; `W + s·BA` exists at no time, and of a frozen
//! `W` there is no gradient. Kept for the backward pass are the inputs and `x·Aᵀ`.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};

use super::product::{Matrix, Output, product, threads_for};
use super::{contiguous, matrix, tensor};

#[backend_extension(Flex, Autodiff)]
pub(crate) trait Linear: Backend {
    /// `x`: `[rows, in]`, `weight`: `[out, in]`.
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `a`: `[r, in]`, `b`: `[out, r]`.
    fn linear_lora(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;
}

impl Linear for Flex {
    fn linear(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        times_transposed(&x, &weight)
    }

    fn linear_lora(
        x: FlexTensor,
        weight: FlexTensor,
        a: FlexTensor,
        b: FlexTensor,
        scale: f32,
    ) -> FlexTensor {
        let reduced = times_transposed(&x, &a);
        with_lora(&x, &weight, &reduced, &b, scale)
    }
}

impl<C: CheckpointStrategy> Linear for Autodiff<Flex, C> {
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let y = times_transposed(&x, &weight);
        match Plain
            .prepare::<C>([x_node, weight_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((x, weight), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn linear_lora(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (a, a_node) = a.into_parts();
        let (b, b_node) = b.into_parts();
        let reduced = times_transposed(&x, &a);
        let y = with_lora(&x, &weight, &reduced, &b, scale);
        match LowRank
            .prepare::<C>([x_node, weight_node, a_node, b_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish(([x, weight, a, b, reduced], scale), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

#[derive(Debug)]
struct Plain;

impl Backward<Flex, 2> for Plain {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = contiguous(grads.consume::<Flex>(&ops.node));
        let (x, weight) = ops.state;
        let [x_node, weight_node] = ops.parents;
        if let Some(node) = weight_node {
            grads.register::<Flex>(node.id, times(matrix(&dy).t(), matrix(&x)));
        }
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, times(matrix(&dy), matrix(&weight)));
        }
    }
}

#[derive(Debug)]
struct LowRank;

impl Backward<Flex, 4> for LowRank {
    type State = ([FlexTensor; 5], f32);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = contiguous(grads.consume::<Flex>(&ops.node));
        let ([x, weight, a, b, reduced], scale) = ops.state;
        let [x_node, weight_node, a_node, b_node] = ops.parents;
        if let Some(node) = weight_node {
            grads.register::<Flex>(node.id, times(matrix(&dy).t(), matrix(&x)));
        }
        if let Some(node) = b_node {
            let [rows, out] = dy.shape().dims();
            let rank = reduced.shape()[1];
            let mut d_b = vec![0.0; out * rank];
            let parallelism = threads_for(out, rank, rows);
            let (dy, reduced) = (matrix(&dy).t(), matrix(&reduced));
            product(dy, reduced, scale, &mut d_b, Output::Overwrite, parallelism);
            grads.register::<Flex>(node.id, tensor(d_b, [out, rank]));
        }
        if x_node.is_none() && a_node.is_none() {
            return;
        }
        // s·dY·B, through which the gradients of A and, in part, of x go
        let [rows, out] = dy.shape().dims();
        let [rank, features] = a.shape().dims();
        let mut d_reduced = vec![0.0; rows * rank];
        let parallelism = threads_for(rows, rank, out);
        let (dy_matrix, b) = (matrix(&dy), matrix(&b));
        product(
            dy_matrix,
            b,
            scale,
            &mut d_reduced,
            Output::Overwrite,
            parallelism,
        );
        let d_reduced = Matrix::new(&d_reduced, rows, rank);
        if let Some(node) = a_node {
            grads.register::<Flex>(node.id, times(d_reduced.t(), matrix(&x)));
        }
        if let Some(node) = x_node {
            let mut dx = vec![0.0; rows * features];
            let parallelism = threads_for(rows, features, out);
            let weight = matrix(&weight);
            product(
                dy_matrix,
                weight,
                1.0,
                &mut dx,
                Output::Overwrite,
                parallelism,
            );
            let parallelism = threads_for(rows, features, rank);
            product(
                d_reduced,
                matrix(&a),
                1.0,
                &mut dx,
                Output::Add,
                parallelism,
            );
            grads.register::<Flex>(node.id, tensor(dx, [rows, features]));
        }
    }
}

fn times(a: Matrix<'_>, b: Matrix<'_>) -> FlexTensor {
    let (m, n, k) = (a.rows(), b.cols(), a.cols());
    let mut out = vec![0.0; m * n];
    product(a, b, 1.0, &mut out, Output::Overwrite, threads_for(m, n, k));
    tensor(out, [m, n])
}

/// `x·Wᵀ`
fn times_transposed(x: &FlexTensor, weight: &FlexTensor) -> FlexTensor {
    times(matrix(x), matrix(weight).t())
}

/// `x·Wᵀ + s·(x·Aᵀ)·Bᵀ`, where `reduced` is `x·Aᵀ`.
fn with_lora(
    x: &FlexTensor,
    weight: &FlexTensor,
    reduced: &FlexTensor,
    b: &FlexTensor,
    scale: f32,
) -> FlexTensor {
    let [rows, features] = x.shape().dims();
    let [out, rank] = b.shape().dims();
    let mut y = vec![0.0; rows * out];
    let parallelism = threads_for(rows, out, features);
    let (x, weight) = (matrix(x), matrix(weight).t());
    product(x, weight, 1.0, &mut y, Output::Overwrite, parallelism);
    let parallelism = threads_for(rows, out, rank);
    let (reduced, b) = (matrix(reduced), matrix(b).t());
    product(reduced, b, scale, &mut y, Output::Add, parallelism);
    tensor(y, [rows, out])
}
