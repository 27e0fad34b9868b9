//! Head and cross-entropy in one, a chunk of tokens at a time.
//!
//! The loss of a language model needs `[tokens, vocab]` logits only to reduce them at once to one
//! number a token and to one gradient of the size of the hidden states. So both are computed chunk
//! by chunk in the forward pass, outside the graph, and the graph gets a scalar with the right value
//! and the right gradient: for the gradient `g = ∂L/∂h` found on the way, `⟨h, g⟩ − ⟨h, g⟩ + L`, whose
//! second and third terms are constants. The same term for the head's weight is added when the head
//! trains, tied or not. The idea is that of Liger's fused linear cross-entropy (arXiv:2410.10989,
//! section 3.2); rows whose label is −100 are left out before the head is applied.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, activation};

use crate::Linear;
use crate::causal_lm::Head;

/// Labels of this value count for nothing.
pub const IGNORE_INDEX: i64 = -100;

/// At most this many logits exist at a time (64 MiB of `f32`).
const CHUNK_LOGITS: usize = 1 << 24;

/// A summed loss and what it was summed over.
#[derive(Clone, Debug)]
pub struct LossSum {
    /// The sum, in nats, a tensor of one element; part of the graph when anything of it trains.
    pub sum: Tensor<1>,
    /// How many labels were counted.
    pub count: usize,
}

/// Next-token loss: position `t` is scored on `labels[t + 1]`.
///
/// # Shapes
///
/// - `hidden`: `[batch, seq, width]`, what [`CausalLm::hidden_states`](crate::CausalLm::hidden_states)
///   returns
/// - `labels`: `[batch, seq]`, aligned with the input ids; [`IGNORE_INDEX`] where masked
pub fn causal_lm_loss(hidden: Tensor<3>, head: Head<'_>, labels: Tensor<2, Int>) -> LossSum {
    let [batch, seq, width] = hidden.dims();
    if seq < 2 {
        return LossSum {
            sum: Tensor::zeros([1], &hidden.device()),
            count: 0,
        };
    }
    let rows = batch * (seq - 1);
    linear_cross_entropy(
        hidden.narrow(1, 0, seq - 1).reshape([rows, width]),
        head,
        labels.narrow(1, 1, seq - 1).reshape([rows]),
    )
}

/// `Σ −log softmax(h·Wᵀ)[label]` over the rows whose label is not [`IGNORE_INDEX`].
///
/// # Shapes
///
/// - `hidden`: `[rows, width]`, `labels`: `[rows]`
///
/// # Panics
///
/// If a label is neither [`IGNORE_INDEX`] nor in the vocabulary.
pub fn linear_cross_entropy(hidden: Tensor<2>, head: Head<'_>, labels: Tensor<1, Int>) -> LossSum {
    let device = hidden.device();
    let labels = labels.into_data().convert::<i64>();
    let labels = labels.as_slice::<i64>().expect("converted to i64");
    let (rows, targets): (Vec<i64>, Vec<i64>) = labels
        .iter()
        .enumerate()
        .filter(|(_, label)| **label != IGNORE_INDEX)
        .map(|(row, label)| (row as i64, *label))
        .unzip();
    let count = targets.len();
    if count == 0 {
        return LossSum {
            sum: Tensor::zeros([1], &device),
            count,
        };
    }
    let vocab = head.vocab_size();
    if let Some(bad) = targets.iter().find(|t| !(0..vocab as i64).contains(t)) {
        panic!("label {bad} is not in the vocabulary of {vocab} tokens");
    }
    let hidden = if count < labels.len() {
        hidden.select(0, Tensor::from_data(rows.as_slice(), &device))
    } else {
        hidden
    };
    let targets = Tensor::<1, Int>::from_data(targets.as_slice(), &device.inner());
    let sum = match head {
        Head::Tied(weight) => dense(hidden, weight.val(), targets),
        Head::Linear(linear) if is_plain(linear) => dense(hidden, linear.weight.val(), targets),
        Head::Linear(linear) => through_graph(hidden, linear, targets),
    };
    LossSum { sum, count }
}

fn is_plain(linear: &Linear) -> bool {
    linear.bias.is_none()
        && linear.layout() == crate::Layout::OutIn
        && !linear.adapters.iter().any(|adapter| adapter.active)
}

/// The chunked loss with a dense head `[vocab, width]`.
fn dense(hidden: Tensor<2>, weight: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [rows, width] = hidden.dims();
    let vocab = weight.dims()[0];
    let hidden_tracks = hidden.is_tracked();
    let weight_tracks = weight.is_tracked();
    let h = hidden.clone().inner();
    let w = weight.clone().inner();
    let chunk = (CHUNK_LOGITS / vocab).clamp(1, rows);
    let mut losses = Vec::new();
    let mut hidden_grads = Vec::new();
    let mut weight_grad: Option<Tensor<2>> = None;
    for start in (0..rows).step_by(chunk) {
        let size = chunk.min(rows - start);
        let part = h.clone().narrow(0, start, size);
        let target = targets.clone().narrow(0, start, size).reshape([size, 1]);
        let logits = part.clone().matmul(w.clone().transpose());
        let max = logits.clone().max_dim(1);
        let picked = logits.clone().gather(1, target.clone());
        let exp = (logits - max.clone()).exp();
        let total = exp.clone().sum_dim(1);
        losses.push((total.clone().log() + max - picked).sum());
        if !(hidden_tracks || weight_tracks) {
            continue;
        }
        // ∂L/∂logits = softmax − onehot(label)
        let minus_one = Tensor::full([size, 1], -1.0, &part.device());
        let grad = (exp / total).scatter(1, target, minus_one, IndexingUpdateOp::Add);
        if weight_tracks {
            let new = grad.clone().transpose().matmul(part);
            weight_grad = Some(match weight_grad {
                Some(sum) => sum + new,
                None => new,
            });
        }
        if hidden_tracks {
            hidden_grads.push(grad.matmul(w.clone()));
        }
    }
    let loss = Tensor::cat(losses, 0).sum();
    let mut sum = Tensor::from_inner(loss);
    if hidden_tracks {
        let grad = Tensor::cat(hidden_grads, 0).reshape([rows, width]);
        sum = sum + zero_with_gradient(hidden, grad);
    }
    if let Some(grad) = weight_grad {
        sum = sum + zero_with_gradient(weight, grad);
    }
    if hidden_tracks || weight_tracks {
        sum
    } else {
        sum.inner()
    }
}

/// A scalar of value zero whose gradient with respect to `x` is `grad`.
fn zero_with_gradient(x: Tensor<2>, grad: Tensor<2>) -> Tensor<1> {
    let product = (x * Tensor::from_inner(grad)).sum();
    product.clone() - product.detach()
}

/// The loss of a head with bias or adapters, whose logits the graph keeps.
fn through_graph(hidden: Tensor<2>, head: &Linear, targets: Tensor<1, Int>) -> Tensor<1> {
    let logits = head.forward(hidden.unsqueeze()).squeeze_dim::<2>(0);
    let rows = logits.dims()[0];
    let targets =
        Tensor::<1, Int>::from_data(targets.into_data(), &logits.device()).reshape([rows, 1]);
    activation::log_softmax(logits, 1)
        .gather(1, targets)
        .sum()
        .neg()
}
