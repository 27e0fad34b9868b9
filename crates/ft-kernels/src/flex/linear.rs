//! `x·Wᵀ`, and the same with a low-rank adapter, on slices.
//!
//! With an adapter the products are added to one output. `W + s·BA` is never computed, and a frozen `W` has no gradient.
//! The backward pass keeps `x·Aᵀ` and, if a gradient needs it, the input: its recipe if it has one, otherwise the
//! numbers. The adapter's dropout is computed again from its seed.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};

use super::dropout;
use super::packed::{Held, Operand};
use super::pieces::zeros;
use super::product::{Matrix, Output, product, threads_for};
use super::some_rows::add_product;
use super::weight::{SOME, Weight, with_rows};
use super::{contiguous, matrix, tensor, unreversed};
use crate::dropout::Mask;
use crate::input::Recipe;

/// Up to this many elements the factor `B` of an adapter is multiplied with a few rows by one thread.
const SMALL: usize = 1 << 16;

#[backend_extension(Flex, Autodiff)]
pub(crate) trait Linear: Backend {
    /// `x`: `[rows, in]`, `weight`: `[out, in]`.
    fn linear(
        x: FloatTensor<Self>,
        #[extension_type] weight: Operand<Self>,
        recipe: Recipe<2>,
    ) -> FloatTensor<Self>;

    /// `a`: `[r, in]`, `b`: `[out, r]`.
    fn linear_lora(
        x: FloatTensor<Self>,
        #[extension_type] weight: Operand<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scaling: Scaling,
        recipe: Recipe<2>,
    ) -> FloatTensor<Self>;
}

/// The scale of an adapter's product, and the dropout of its input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scaling {
    pub(crate) scale: f32,
    pub(crate) mask: Option<Mask>,
}

impl Linear for Flex {
    fn linear(x: FlexTensor, weight: Operand<Flex>, _: Recipe<2>) -> FlexTensor {
        let (x, weight) = (unreversed(x), Held::new(weight));
        times_transposed(&x, weight.weight(), true)
    }

    fn linear_lora(
        x: FlexTensor,
        weight: Operand<Flex>,
        a: FlexTensor,
        b: FlexTensor,
        scaling: Scaling,
        _: Recipe<2>,
    ) -> FlexTensor {
        let x = unreversed(x);
        let reduced = reduced(&x, &with_rows(a), scaling.mask);
        let (weight, b) = (Held::new(weight), with_rows(b));
        with_lora(&x, weight.weight(), &reduced, &b, scaling.scale, true)
    }
}

impl<C: CheckpointStrategy> Linear for Autodiff<Flex, C> {
    fn linear(x: FloatTensor<Self>, weight: Operand<Self>, recipe: Recipe<2>) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, wanted, weight_node) = Held::in_graph(weight);
        let x = unreversed(x);
        // A part that is computed again is not tracked the first time, and must give the same numbers.
        let y = times_transposed(&x, weight.weight(), false);
        match Plain
            .prepare::<C>([x_node, weight_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((Kept::new(x, recipe, wanted), weight), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn linear_lora(
        x: FloatTensor<Self>,
        weight: Operand<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scaling: Scaling,
        recipe: Recipe<2>,
    ) -> FloatTensor<Self> {
        let wanted_by_a = a.is_tracked();
        let (x, x_node) = x.into_parts();
        let (weight, trains, weight_node) = Held::in_graph(weight);
        let wanted = trains || wanted_by_a;
        let (a, a_node) = a.into_parts();
        let (b, b_node) = b.into_parts();
        let x = unreversed(x);
        let [a, b] = [a, b].map(with_rows);
        let reduced = reduced(&x, &a, scaling.mask);
        let y = with_lora(&x, weight.weight(), &reduced, &b, scaling.scale, false);
        match LowRank
            .prepare::<C>([x_node, weight_node, a_node, b_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let x = Kept::new(x, recipe, wanted);
                prep.finish((x, weight, [a, b, reduced], scaling), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

/// The input in the backward pass.
#[derive(Clone, Debug)]
enum Kept {
    /// No gradient needs it.
    Nothing,
    Numbers(FlexTensor),
    Recipe(Box<Recipe<2>>),
}

impl Kept {
    fn new(x: FlexTensor, recipe: Recipe<2>, wanted: bool) -> Self {
        match recipe {
            _ if !wanted => Kept::Nothing,
            Recipe::Keep => Kept::Numbers(x),
            recipe => Kept::Recipe(Box::new(recipe)),
        }
    }

    /// # Panics
    ///
    /// If the input was not kept, since no gradient needs it.
    fn input(self) -> FlexTensor {
        match self {
            Kept::Nothing => panic!("kept whenever a gradient needs it"),
            Kept::Numbers(x) => x,
            Kept::Recipe(recipe) => (recipe.make())
                .and_then(|x| x.try_into_primitive::<Flex>().ok())
                .expect("made of tensors of Flex"),
        }
    }
}

#[derive(Debug)]
struct Plain;

impl Backward<Flex, 2> for Plain {
    type State = (Kept, Held);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = contiguous(grads.consume::<Flex>(&ops.node));
        let (x, weight) = ops.state;
        let [x_node, weight_node] = ops.parents;
        if let Some(node) = weight_node {
            let x = x.input();
            grads.register::<Flex>(node.id, times(matrix(&dy).t(), matrix(&x)));
        }
        if let Some(node) = x_node {
            let [rows, _] = dy.shape().dims();
            let [_, features] = weight.dims();
            let mut dx = zeros(rows * features);
            weight.weight().backward(matrix(&dy), 1.0, &mut dx);
            grads.register::<Flex>(node.id, tensor(dx, [rows, features]));
        }
    }
}

#[derive(Debug)]
struct LowRank;

impl Backward<Flex, 4> for LowRank {
    type State = (Kept, Held, [FlexTensor; 3], Scaling);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = contiguous(grads.consume::<Flex>(&ops.node));
        let (x, weight, [a, b, reduced], Scaling { scale, mask }) = ops.state;
        let [x_node, weight_node, a_node, b_node] = ops.parents;
        let x = (weight_node.is_some() || a_node.is_some()).then(|| x.input());
        if let (Some(node), Some(x)) = (weight_node, &x) {
            grads.register::<Flex>(node.id, times(matrix(&dy).t(), matrix(x)));
        }
        if let Some(node) = b_node {
            let [rows, out] = dy.shape().dims();
            let rank = reduced.shape()[1];
            let mut d_b = vec![0.0; out * rank];
            let threads = threads_for(out, rank, rows);
            let (dy, reduced) = (matrix(&dy).t(), matrix(&reduced));
            product(dy, reduced, scale, &mut d_b, Output::Overwrite, threads);
            grads.register::<Flex>(node.id, tensor(d_b, [out, rank]));
        }
        if x_node.is_none() && a_node.is_none() {
            return;
        }
        // s·dY·B, a factor of the gradients of A and, in part, of x
        let [rows, out] = dy.shape().dims();
        let [rank, features] = a.shape().dims();
        let mut d_reduced = vec![0.0; rows * rank];
        let threads = threads_for(rows, rank, out);
        let dy = matrix(&dy);
        product(
            dy,
            matrix(&b),
            scale,
            &mut d_reduced,
            Output::Overwrite,
            threads,
        );
        let d_reduced = Matrix::new(&d_reduced, rows, rank);
        if let (Some(node), Some(x)) = (a_node, &x) {
            let d_a = match mask {
                Some(mask) => dropout::gradient_of_a(d_reduced, x, mask),
                None => times(d_reduced.t(), matrix(x)),
            };
            grads.register::<Flex>(node.id, d_a);
        }
        if let Some(node) = x_node {
            let mut dx = zeros(rows * features);
            weight.weight().backward(dy, 1.0, &mut dx);
            match mask {
                Some(mask) => dropout::add_gradient_of_input(d_reduced, &a, mask, &mut dx),
                None => {
                    let threads = threads_for(rows, features, rank);
                    product(d_reduced, matrix(&a), 1.0, &mut dx, Output::Add, threads);
                }
            }
            grads.register::<Flex>(node.id, tensor(dx, [rows, features]));
        }
    }
}

fn times(a: Matrix<'_>, b: Matrix<'_>) -> FlexTensor {
    let (m, n, k) = (a.rows(), b.cols(), a.cols());
    let mut out = zeros(m * n);
    product(a, b, 1.0, &mut out, Output::Overwrite, threads_for(m, n, k));
    tensor(out, [m, n])
}

/// `x·Wᵀ`, where `x` may be rounded if the weight has few bits.
fn times_transposed(x: &FlexTensor, weight: Weight<'_>, rounded: bool) -> FlexTensor {
    let (rows, out) = (x.shape()[0], weight.features());
    let mut y = zeros(rows * out);
    match rounded {
        true => weight.forward_rounded(matrix(x), 1.0, &mut y),
        false => weight.forward(matrix(x), 1.0, &mut y),
    }
    tensor(y, [rows, out])
}

/// `x·Aᵀ`, with dropout of `x`.
fn reduced(x: &FlexTensor, a: &FlexTensor, mask: Option<Mask>) -> FlexTensor {
    match mask {
        Some(mask) => dropout::times_transposed(x, a, mask),
        None => times_transposed(x, Weight::new(a), false),
    }
}

/// `x·Wᵀ + s·(x·Aᵀ)·Bᵀ`, where `reduced` is `x·Aᵀ`.
fn with_lora(
    x: &FlexTensor,
    weight: Weight<'_>,
    reduced: &FlexTensor,
    b: &FlexTensor,
    scale: f32,
    rounded: bool,
) -> FlexTensor {
    let rows = x.shape()[0];
    let [out, rank] = b.shape().dims();
    let mut y = zeros(rows * out);
    match rounded {
        true => weight.forward_rounded(matrix(x), 1.0, &mut y),
        false => weight.forward(matrix(x), 1.0, &mut y),
    }
    let (reduced, b) = (matrix(reduced), matrix(b));
    // For a few rows of a small model `gemm` takes longer to copy the factors into its order than to multiply them.
    if (2..=SOME).contains(&rows) && (1..=SMALL).contains(&(out * rank)) {
        add_product(&reduced.in_rows(), &b.in_rows(), rank, scale, &mut y);
    } else {
        let threads = threads_for(rows, out, rank);
        product(reduced, b.t(), scale, &mut y, Output::Add, threads);
    }
    tensor(y, [rows, out])
}
