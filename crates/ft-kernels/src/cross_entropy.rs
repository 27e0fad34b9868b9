//! Head and cross-entropy in one, a chunk of tokens at a time.
//!
//! The loss of a language model needs `[tokens, vocab]` logits only to reduce them at once to one
//! number a token and to one gradient of the size of the hidden states. So both are computed chunk
//! by chunk in the forward pass, outside the graph, and the graph gets a scalar with the right value
//! and the right gradient: for the gradient `g = ∂L/∂h` found on the way, `⟨h, g⟩ − ⟨h, g⟩ + L`, whose
//! second and third terms are constants. The same term for the head's weight is added when the head
//! trains, tied or not. The idea is that of Liger's fused linear cross-entropy (arXiv:2410.10989,
//! section 3.2).

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

/// At most this many logits exist at a time (64 MiB of `f32`).
const CHUNK_LOGITS: usize = 1 << 24;

/// What comes out of the chunks: the sum of the losses and its gradients, outside the graph.
struct Parts {
    loss: Tensor<1>,
    hidden: Option<Tensor<2>>,
    weight: Option<Tensor<2>>,
}

/// `Σ −log softmax(h·Wᵀ)[target]` over the rows, a tensor of one element.
///
/// # Shapes
///
/// - `hidden`: `[rows, width]`, `weight`: `[vocab, width]`, `targets`: one id a row
///
/// # Panics
///
/// If there are no rows, or a target is not in the vocabulary.
pub fn cross_entropy_sum(hidden: Tensor<2>, weight: Tensor<2>, targets: &[i64]) -> Tensor<1> {
    let weight = if weight.dtype() == hidden.dtype() {
        weight
    } else {
        weight.cast(hidden.dtype())
    };
    #[cfg(feature = "cpu")]
    if crate::flex::takes(&hidden) && crate::flex::takes(&weight) {
        return in_graph(hidden, weight, targets, on_flex);
    }
    portable(hidden, weight, targets)
}

/// [`cross_entropy_sum`] of Burn's operations.
pub fn portable(hidden: Tensor<2>, weight: Tensor<2>, targets: &[i64]) -> Tensor<1> {
    in_graph(hidden, weight, targets, of_burn_operations)
}

fn in_graph(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: &[i64],
    compute: impl Fn(Tensor<2>, Tensor<2>, &[i64], usize, [bool; 2]) -> Parts,
) -> Tensor<1> {
    let rows = hidden.dims()[0];
    let vocab = weight.dims()[0];
    assert!(rows > 0, "a loss of no rows");
    assert_eq!(rows, targets.len(), "a target a row");
    if let Some(bad) = targets.iter().find(|t| !(0..vocab as i64).contains(t)) {
        panic!("label {bad} is not in the vocabulary of {vocab} tokens");
    }
    let tracked = [hidden.is_tracked(), weight.is_tracked()];
    let chunk = (CHUNK_LOGITS / vocab).clamp(1, rows);
    let (h, w) = (hidden.clone().inner(), weight.clone().inner());
    let parts = compute(h, w, targets, chunk, tracked);
    if parts.hidden.is_none() && parts.weight.is_none() {
        return parts.loss;
    }
    let mut sum = Tensor::from_inner(parts.loss);
    if let Some(gradient) = parts.hidden {
        sum = sum + zero_with_gradient(hidden, gradient);
    }
    if let Some(gradient) = parts.weight {
        sum = sum + zero_with_gradient(weight, gradient);
    }
    sum
}

/// A scalar of value zero whose gradient with respect to `x` is `gradient`.
fn zero_with_gradient(x: Tensor<2>, gradient: Tensor<2>) -> Tensor<1> {
    let product = (x * Tensor::from_inner(gradient)).sum();
    product.clone() - product.detach()
}

#[cfg(feature = "cpu")]
fn on_flex(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: &[i64],
    chunk: usize,
    [want_hidden, want_weight]: [bool; 2],
) -> Parts {
    use burn::backend::Flex;
    let device = hidden.device();
    let primitive = |tensor: Tensor<2>| {
        (tensor.try_into_primitive::<Flex>()).expect("a tensor of Flex, as was checked")
    };
    let (hidden, weight) = (primitive(hidden), primitive(weight));
    let found = crate::flex::cross_entropy::cross_entropy(
        hidden,
        &weight,
        targets,
        chunk,
        want_hidden,
        want_weight,
    );
    // Summed in f64: thousands of losses of about the same size.
    let loss: f64 = found.losses.iter().copied().map(f64::from).sum();
    let wrap = |tensor| Tensor::from_primitive::<Flex>(tensor);
    Parts {
        loss: Tensor::from_data([loss as f32], &device),
        hidden: found.hidden.map(wrap),
        weight: found.weight.map(wrap),
    }
}

fn of_burn_operations(
    h: Tensor<2>,
    w: Tensor<2>,
    targets: &[i64],
    chunk: usize,
    [want_hidden, want_weight]: [bool; 2],
) -> Parts {
    let [rows, width] = h.dims();
    let targets = Tensor::<1, Int>::from_data(targets, &h.device());
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
        if !(want_hidden || want_weight) {
            continue;
        }
        // ∂L/∂logits = softmax − onehot(label)
        let minus_one = Tensor::full([size, 1], -1.0, &part.device());
        let grad = (exp / total).scatter(1, target, minus_one, IndexingUpdateOp::Add);
        if want_weight {
            let new = grad.clone().transpose().matmul(part);
            weight_grad = Some(match weight_grad {
                Some(sum) => sum + new,
                None => new,
            });
        }
        if want_hidden {
            hidden_grads.push(grad.matmul(w.clone()));
        }
    }
    Parts {
        loss: Tensor::cat(losses, 0).sum(),
        hidden: want_hidden.then(|| Tensor::cat(hidden_grads, 0).reshape([rows, width])),
        weight: weight_grad,
    }
}
