//! The gated product of feed-forward layers on slices: `act(gate)·up` in one pass.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use multiversion::multiversion;
use rayon::prelude::*;

use super::exp::{sigmoid, tanh};
use super::{contiguous, slice, tensor};

/// Numbers a piece.
const PIECE: usize = 1 << 14;

/// The activations that have a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Silu,
    GeluTanh,
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait Gated: Backend {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, act: Gate) -> FloatTensor<Self>;
}

impl Gated for Flex {
    fn gated(gate: FlexTensor, up: FlexTensor, act: Gate) -> FlexTensor {
        forward(&contiguous(gate), &contiguous(up), act)
    }
}

impl<C: CheckpointStrategy> Gated for Autodiff<Flex, C> {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, act: Gate) -> FloatTensor<Self> {
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
}

#[derive(Debug)]
struct Gradient;

impl Backward<Flex, 2> for Gradient {
    type State = (FlexTensor, FlexTensor, Gate);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = contiguous(grads.consume::<Flex>(&ops.node));
        let (gate, up, act) = ops.state;
        let shape = gate.shape();
        let (gate, up, dy) = (slice(&gate), slice(&up), slice(&dy));
        let mut d_gate = vec![0.0; dy.len()];
        let mut d_up = vec![0.0; dy.len()];
        let outputs = d_gate.par_chunks_mut(PIECE).zip(d_up.par_chunks_mut(PIECE));
        let inputs = gate.par_chunks(PIECE).zip(up.par_chunks(PIECE));
        outputs.zip(inputs.zip(dy.par_chunks(PIECE))).for_each(
            |((d_gate, d_up), ((gate, up), dy))| match act {
                Gate::Silu => silu_gradient(gate, up, dy, d_gate, d_up),
                Gate::GeluTanh => gelu_gradient(gate, up, dy, d_gate, d_up),
            },
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

fn forward(gate: &FlexTensor, up: &FlexTensor, act: Gate) -> FlexTensor {
    assert_eq!(gate.shape(), up.shape(), "gate and up have the same shape");
    let (gates, ups) = (slice(gate), slice(up));
    let mut y = vec![0.0; gates.len()];
    let inputs = gates.par_chunks(PIECE).zip(ups.par_chunks(PIECE));
    y.par_chunks_mut(PIECE)
        .zip(inputs)
        .for_each(|(y, (gate, up))| match act {
            Gate::Silu => silu(gate, up, y),
            Gate::GeluTanh => gelu(gate, up, y),
        });
    tensor(y, gate.shape())
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn silu(gate: &[f32], up: &[f32], y: &mut [f32]) {
    for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
        *y = g * sigmoid(*g) * u;
    }
}

/// `d/dg g·σ(g) = σ(g)·(1 + g·(1 − σ(g)))`
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn silu_gradient(gate: &[f32], up: &[f32], dy: &[f32], d_gate: &mut [f32], d_up: &mut [f32]) {
    let inputs = gate.iter().zip(up).zip(dy);
    for ((d_gate, d_up), ((g, u), dy)) in d_gate.iter_mut().zip(d_up).zip(inputs) {
        let s = sigmoid(*g);
        *d_up = dy * g * s;
        *d_gate = dy * u * s * (1.0 + g * (1.0 - s));
    }
}

/// √(2/π)
const ROOT: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn gelu(gate: &[f32], up: &[f32], y: &mut [f32]) {
    for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
        let t = tanh(ROOT * (g + CUBIC * g * g * g));
        *y = 0.5 * g * (1.0 + t) * u;
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn gelu_gradient(gate: &[f32], up: &[f32], dy: &[f32], d_gate: &mut [f32], d_up: &mut [f32]) {
    let inputs = gate.iter().zip(up).zip(dy);
    for ((d_gate, d_up), ((g, u), dy)) in d_gate.iter_mut().zip(d_up).zip(inputs) {
        let t = tanh(ROOT * (g + CUBIC * g * g * g));
        *d_up = dy * 0.5 * g * (1.0 + t);
        let inner = ROOT * (1.0 + 3.0 * CUBIC * g * g);
        *d_gate = dy * u * (0.5 * (1.0 + t) + 0.5 * g * (1.0 - t * t) * inner);
    }
}
