//! Rotary embedding on slices. The gradient is the inverse rotation, so only the angles are kept.

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
use super::{contiguous, slice, tensor, unreversed};

/// The number of elements of a piece.
const PIECE: usize = 1 << 14;

#[backend_extension(Flex, Autodiff)]
pub(crate) trait Rotary: Backend {
    fn rotary(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl Rotary for Flex {
    fn rotary(x: FlexTensor, cos: FlexTensor, sin: FlexTensor) -> FlexTensor {
        rotate(&x, &contiguous(cos), &contiguous(sin), 1.0)
    }
}

impl<C: CheckpointStrategy> Rotary for Autodiff<Flex, C> {
    /// The angles are constants of the graph.
    fn rotary(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let (cos, sin) = (
            contiguous(cos.into_primitive()),
            contiguous(sin.into_primitive()),
        );
        let y = rotate(&x, &cos, &sin, 1.0);
        match Gradient.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((cos, sin), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

#[derive(Debug)]
struct Gradient;

impl Backward<Flex, 1> for Gradient {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        let (cos, sin) = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<Flex>(node.id, rotate(&dy, &cos, &sin, -1.0));
        }
    }
}

/// `x` is `[batch, heads, seq, width]` with any strides whose last is 1; `direction` is 1 or −1.
fn rotate(x: &FlexTensor, cos: &FlexTensor, sin: &FlexTensor, direction: f32) -> FlexTensor {
    let x = match x.layout().strides()[3] {
        1 => unreversed(x.clone()),
        _ => x.to_contiguous(),
    };
    let [batch, heads, seq, width] = x.shape().dims();
    let [angle_batch, _, _, half] = cos.shape().dims();
    let strides = x.layout().strides();
    let (by_batch, by_head, by_position) = (
        strides[0] as usize,
        strides[1] as usize,
        strides[2] as usize,
    );
    let numbers = &x.storage::<f32>()[x.layout().start_offset()..];
    let (cos, sin) = (slice(cos), slice(sin));
    let mut y = zeros(batch * heads * seq * width);
    if y.is_empty() {
        return tensor(y, [batch, heads, seq, width]);
    }
    let head_size = seq * width;
    let heads_a_piece = (PIECE / head_size).max(1);
    let pieces = y.par_chunks_mut(heads_a_piece * head_size).enumerate();
    each(pieces, |(piece, y)| {
        for (i, y) in y.chunks_exact_mut(head_size).enumerate() {
            let head = piece * heads_a_piece + i;
            let (b, h) = (head / heads, head % heads);
            let angles = b.min(angle_batch - 1) * seq * half;
            let x = &numbers[b * by_batch + h * by_head..];
            let (cos, sin) = (&cos[angles..], &sin[angles..]);
            rotate_head(x, by_position, cos, sin, half, direction, y);
        }
    });
    tensor(y, [batch, heads, seq, width])
}

/// `(a·cos − b·sin, b·cos + a·sin)` for the halves `(a, b)` of every position.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn rotate_head(
    x: &[f32],
    by_position: usize,
    cos: &[f32],
    sin: &[f32],
    half: usize,
    direction: f32,
    y: &mut [f32],
) {
    for (t, y) in y.chunks_exact_mut(2 * half).enumerate() {
        let (real, imaginary) = y.split_at_mut(half);
        let (a, b) = x[t * by_position..][..2 * half].split_at(half);
        let cos = &cos[t * half..][..half];
        let sin = &sin[t * half..][..half];
        for i in 0..half {
            let sin = sin[i] * direction;
            real[i] = a[i] * cos[i] - b[i] * sin;
            imaginary[i] = b[i] * cos[i] + a[i] * sin;
        }
    }
}
