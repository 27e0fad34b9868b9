//! The gated product of feed-forward layers on slices: `act(gate)·up` in one pass; and `act(x)` alone.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use multiversion::multiversion;
use rayon::prelude::*;

use super::exp::{normal, sigmoid, tanh};
use super::pieces::{each, zeros};
use super::{contiguous, slice, tensor};
use crate::Activation;

/// The number of elements of a piece.
const PIECE: usize = 1 << 14;

#[backend_extension(Flex, Autodiff)]
pub(crate) trait Gated: Backend {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, act: Activation) -> FloatTensor<Self>;

    fn activated(x: FloatTensor<Self>, act: Activation) -> FloatTensor<Self>;
}

impl Gated for Flex {
    fn gated(gate: FlexTensor, up: FlexTensor, act: Activation) -> FlexTensor {
        forward(&contiguous(gate), &contiguous(up), act)
    }

    fn activated(x: FlexTensor, act: Activation) -> FlexTensor {
        activated(&contiguous(x), act)
    }
}

impl<C: CheckpointStrategy> Gated for Autodiff<Flex, C> {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, act: Activation) -> FloatTensor<Self> {
        let (gate, gate_node) = gate.into_parts();
        let (up, up_node) = up.into_parts();
        let (gate, up) = (contiguous(gate), contiguous(up));
        let y = forward(&gate, &up, act);
        match Gradient
            .prepare::<C>([gate_node, up_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((gate, up, act), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn activated(x: FloatTensor<Self>, act: Activation) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let x = contiguous(x);
        let y = activated(&x, act);
        match Slope.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, act), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

#[derive(Debug)]
struct Slope;

impl Backward<Flex, 1> for Slope {
    type State = (FlexTensor, Activation);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = contiguous(grads.consume::<Flex>(&ops.node));
        let (x, act) = ops.state;
        let [node] = ops.parents;
        if let Some(node) = node {
            let (values, dy) = (slice(&x), slice(&dy));
            let mut dx = zeros(dy.len());
            let inputs = values.par_chunks(PIECE).zip(dy.par_chunks(PIECE));
            dx.par_chunks_mut(PIECE)
                .zip(inputs)
                .for_each(|(dx, (x, dy))| slopes(x, dy, act, dx));
            grads.register::<Flex>(node.id, tensor(dx, x.shape()));
        }
    }
}

fn activated(x: &FlexTensor, act: Activation) -> FlexTensor {
    let values = slice(x);
    let mut y = zeros(values.len());
    let pieces = y.par_chunks_mut(PIECE).zip(values.par_chunks(PIECE));
    each(pieces, |(y, x)| activations(x, act, y));
    tensor(y, x.shape())
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn activations(x: &[f32], act: Activation, y: &mut [f32]) {
    match act {
        Activation::Silu => each_value(x, y, |x| silu(x).0),
        Activation::Gelu => each_value(x, y, |x| gelu(x).0),
        Activation::GeluTanh => each_value(x, y, |x| gelu_tanh(x).0),
        Activation::Relu => each_value(x, y, |x| relu(x).0),
    }
}

#[inline(always)]
fn each_value(x: &[f32], y: &mut [f32], value: impl Fn(f32) -> f32) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = value(*x);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn slopes(x: &[f32], dy: &[f32], act: Activation, dx: &mut [f32]) {
    match act {
        Activation::Silu => each_slope(x, dy, dx, |x| silu(x).1),
        Activation::Gelu => each_slope(x, dy, dx, |x| gelu(x).1),
        Activation::GeluTanh => each_slope(x, dy, dx, |x| gelu_tanh(x).1),
        Activation::Relu => each_slope(x, dy, dx, |x| relu(x).1),
    }
}

#[inline(always)]
fn each_slope(x: &[f32], dy: &[f32], dx: &mut [f32], slope: impl Fn(f32) -> f32) {
    for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
        *dx = dy * slope(*x);
    }
}

#[derive(Debug)]
struct Gradient;

impl Backward<Flex, 2> for Gradient {
    type State = (FlexTensor, FlexTensor, Activation);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = contiguous(grads.consume::<Flex>(&ops.node));
        let (gate, up, act) = ops.state;
        let shape = gate.shape();
        let (gate, up, dy) = (slice(&gate), slice(&up), slice(&dy));
        let mut d_gate = zeros(dy.len());
        let mut d_up = zeros(dy.len());
        let outputs = d_gate.par_chunks_mut(PIECE).zip(d_up.par_chunks_mut(PIECE));
        let inputs = gate.par_chunks(PIECE).zip(up.par_chunks(PIECE));
        outputs.zip(inputs.zip(dy.par_chunks(PIECE))).for_each(
            |((d_gate, d_up), ((gate, up), dy))| gradients(gate, up, dy, act, d_gate, d_up),
        );
        let [gate_node, up_node] = ops.parents;
        if let Some(node) = gate_node {
            grads.register::<Flex>(node.id, tensor(d_gate, shape.clone()));
        }
        if let Some(node) = up_node {
            grads.register::<Flex>(node.id, tensor(d_up, shape));
        }
    }
}

fn forward(gate: &FlexTensor, up: &FlexTensor, act: Activation) -> FlexTensor {
    let (gates, ups) = (slice(gate), slice(up));
    let mut y = zeros(gates.len());
    let inputs = gates.par_chunks(PIECE).zip(ups.par_chunks(PIECE));
    let pieces = y.par_chunks_mut(PIECE).zip(inputs);
    each(pieces, |(y, (gate, up))| products(gate, up, act, y));
    tensor(y, gate.shape())
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn products(gate: &[f32], up: &[f32], act: Activation, y: &mut [f32]) {
    match act {
        Activation::Silu => each_product(gate, up, y, |g| silu(g).0),
        Activation::Gelu => each_product(gate, up, y, |g| gelu(g).0),
        Activation::GeluTanh => each_product(gate, up, y, |g| gelu_tanh(g).0),
        Activation::Relu => each_product(gate, up, y, |g| relu(g).0),
    }
}

#[inline(always)]
fn each_product(gate: &[f32], up: &[f32], y: &mut [f32], value: impl Fn(f32) -> f32) {
    for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
        *y = value(*g) * u;
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn gradients(
    gate: &[f32],
    up: &[f32],
    dy: &[f32],
    act: Activation,
    d_gate: &mut [f32],
    d_up: &mut [f32],
) {
    match act {
        Activation::Silu => each_gradient(gate, up, dy, d_gate, d_up, silu),
        Activation::Gelu => each_gradient(gate, up, dy, d_gate, d_up, gelu),
        Activation::GeluTanh => each_gradient(gate, up, dy, d_gate, d_up, gelu_tanh),
        Activation::Relu => each_gradient(gate, up, dy, d_gate, d_up, relu),
    }
}

#[inline(always)]
fn each_gradient(
    gate: &[f32],
    up: &[f32],
    dy: &[f32],
    d_gate: &mut [f32],
    d_up: &mut [f32],
    value_and_slope: impl Fn(f32) -> (f32, f32),
) {
    let inputs = gate.iter().zip(up).zip(dy);
    for ((d_gate, d_up), ((g, u), dy)) in d_gate.iter_mut().zip(d_up).zip(inputs) {
        let (value, slope) = value_and_slope(*g);
        *d_up = dy * value;
        *d_gate = dy * u * slope;
    }
}

// The activations: value and slope.

/// `g·σ(g)`, `σ(g)·(1 + g·(1 − σ(g)))`
#[inline(always)]
fn silu(g: f32) -> (f32, f32) {
    let s = sigmoid(g);
    (g * s, s * (1.0 + g * (1.0 - s)))
}

/// `g·Φ(g)`, `Φ(g) + g·φ(g)` (Hendrycks and Gimpel, 2016, arXiv:1606.08415, section 2)
#[inline(always)]
fn gelu(g: f32) -> (f32, f32) {
    let (distribution, density) = normal(g);
    (g * distribution, distribution + g * density)
}

/// `g·(1 + tanh u)/2` with `u = √(2/π)·(g + 0.044715·g³)`
#[inline(always)]
fn gelu_tanh(g: f32) -> (f32, f32) {
    const ROOT: f32 = 0.797_884_6; // √(2/π)
    const CUBIC: f32 = 0.044_715;
    let t = tanh(ROOT * (g + CUBIC * g * g * g));
    let inner = ROOT * (1.0 + 3.0 * CUBIC * g * g);
    let slope = 0.5 * (1.0 + t) + 0.5 * g * (1.0 - t * t) * inner;
    (0.5 * g * (1.0 + t), slope)
}

/// `max(g, 0)`. The slope at 0 is 0, as in PyTorch; NaN stays NaN.
#[inline(always)]
fn relu(g: f32) -> (f32, f32) {
    if g <= 0.0 { (0.0, 0.0) } else { (g, 1.0) }
}
