//! Head and cross-entropy in one, a chunk of tokens at a time.
//!
//! The loss of a language model reduces the `[tokens, vocab]` logits to one number per token and to one gradient of
//! the size of the hidden states. Both are computed chunk by chunk in the forward pass, outside the graph. The graph
//! contains a scalar with the correct value and gradient: with the gradient `g = ∂L/∂h`, `⟨h, g⟩ − ⟨h, g⟩ + L`, whose
//! second and third terms are constants. If the head trains, tied or not, the same term for its weight is added. The
//! idea is that of Liger's fused linear cross-entropy (arXiv:2410.10989, section 3.2).

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use crate::graph::{check_trainable, constant, in_type_of};
use crate::{LogitOptions, Weight};

/// The maximum number of logits at a time (32 MiB of `f32`).
const CHUNK_LOGITS: usize = 1 << 23;

/// Options of the loss. The default is the plain cross-entropy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossOptions {
    /// The part `ε` of each target's weight that is distributed over all classes, including the target (Szegedy
    /// et al., 2015, arXiv:1512.00567, section 7; `label_smoothing` of PyTorch's `cross_entropy`).
    pub label_smoothing: f64,
    /// The model's function of its logits.
    pub logits: LogitOptions,
}

/// The sum of the losses and its gradients with respect to the hidden states and the weight, outside the graph.
struct Parts {
    loss: Tensor<1>,
    gradients: [Option<Tensor<2>>; 2],
}

/// `Σ −log softmax(z)[target]` over the rows, a tensor of one element, with `z` the logits `h·Wᵀ`
/// after their options.
///
/// With label smoothing `ε` of `V` classes, a row's loss is
/// `−(1 − ε)·log softmax(z)[target] − ε/V·Σ log softmax(z)`.
///
/// # Shapes
///
/// - `hidden`: `[rows, width]`, `weight`: `[vocab, width]`, a tensor or [`Packed`](crate::Packed); `targets`: one id a row
///
/// # Panics
///
/// If there are no rows, a target is not in the vocabulary, or an option is invalid.
pub fn cross_entropy_sum(
    hidden: Tensor<2>,
    weight: impl Into<Weight>,
    targets: &[i64],
    options: LossOptions,
) -> Tensor<1> {
    let weight = weight.into();
    #[cfg(feature = "cpu")]
    if crate::flex::takes(&hidden) && crate::flex::takes_operand(&weight) {
        let chunk = rows_a_chunk(&weight);
        return in_graph(hidden, weight, targets, options, chunk, on_flex);
    }
    let weight = weight.dense(&hidden);
    portable(hidden, weight, targets, options)
}

/// [`cross_entropy_sum`] with Burn's operations.
pub fn portable(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: &[i64],
    options: LossOptions,
) -> Tensor<1> {
    let weight = Weight::Dense(in_type_of(weight, &hidden));
    let chunk = rows_a_chunk(&weight);
    in_graph(hidden, weight, targets, options, chunk, of_burn_operations)
}

/// Checks the arguments and returns the maximum number of rows of logits at a time.
pub(crate) fn rows_a_chunk(weight: &Weight) -> usize {
    (CHUNK_LOGITS / weight.rows().max(1)).max(1)
}

/// # Panics
///
/// If there are no rows, the number of targets is another one, a target is not in the vocabulary, or the weight trains
/// in 16 bits.
pub(crate) fn check_targets(hidden: &Tensor<2>, weight: &Weight, targets: &[i64]) {
    check_trainable(weight, hidden);
    let (rows, vocab) = (hidden.dims()[0], weight.rows());
    assert!(rows > 0, "a loss of no rows");
    assert_eq!(rows, targets.len(), "a target a row");
    if let Some(bad) = targets.iter().find(|t| !(0..vocab as i64).contains(t)) {
        panic!("label {bad} is not in the vocabulary of {vocab} tokens");
    }
}

/// `compute` receives hidden states and weight, the rows of a chunk, and which gradients are needed. It computes outside
/// the graph.
fn in_graph(
    hidden: Tensor<2>,
    weight: Weight,
    targets: &[i64],
    options: LossOptions,
    chunk: usize,
    compute: impl Fn(Tensor<2>, Weight, &[i64], LossOptions, usize, [bool; 2]) -> Parts,
) -> Tensor<1> {
    let smoothing = options.label_smoothing;
    let valid = (0.0..=1.0).contains(&smoothing);
    assert!(valid, "a label smoothing of {smoothing}, not from 0 to 1");
    options.logits.check();
    check_targets(&hidden, &weight, targets);
    let wanted = [hidden.is_tracked(), weight.is_tracked()];
    let parts = compute(
        hidden.clone().inner(),
        weight.clone(),
        targets,
        options,
        chunk,
        wanted,
    );
    if wanted == [false; 2] {
        return parts.loss;
    }
    let mut sum = constant(parts.loss, &hidden);
    let [d_hidden, d_weight] = parts.gradients;
    if let Some(gradient) = d_hidden {
        sum = sum + zero_with_gradient(hidden, gradient);
    }
    if let (Weight::Dense(weight), Some(gradient)) = (weight, d_weight) {
        sum = sum + zero_with_gradient(weight, gradient);
    }
    sum
}

/// A scalar of value zero whose gradient with respect to `x` is `gradient`.
pub(crate) fn zero_with_gradient(x: Tensor<2>, gradient: Tensor<2>) -> Tensor<1> {
    let gradient = constant(gradient, &x);
    let product = (x * gradient).sum();
    product.clone() - product.detach()
}

#[cfg(feature = "cpu")]
fn on_flex(
    hidden: Tensor<2>,
    weight: Weight,
    targets: &[i64],
    options: LossOptions,
    chunk: usize,
    wanted: [bool; 2],
) -> Parts {
    use crate::flex::cross_entropy::cross_entropy;
    use burn::backend::Flex;
    let device = hidden.device();
    let hidden = (hidden.try_into_primitive::<Flex>()).expect("a tensor of Flex, as was checked");
    let weight = crate::flex::packed::Held::outside(weight);
    let found = cross_entropy(hidden, weight, targets, options, chunk, wanted);
    // Summed in f64: there are thousands of losses of similar size.
    let loss: f64 = found.losses.iter().copied().map(f64::from).sum();
    Parts {
        loss: Tensor::from_data([loss as f32], &device),
        gradients: (found.gradients).map(|gradient| gradient.map(Tensor::from_primitive::<Flex>)),
    }
}

fn of_burn_operations(
    h: Tensor<2>,
    weight: Weight,
    targets: &[i64],
    options: LossOptions,
    chunk: usize,
    [want_hidden, want_weight]: [bool; 2],
) -> Parts {
    let w = weight.dense(&h).inner();
    let (rows, vocab) = (h.dims()[0], w.dims()[0]);
    let smoothing = options.label_smoothing;
    let targets = Tensor::<1, Int>::from_data(targets, &h.device());
    let mut losses = Vec::new();
    let mut hidden_grads = Vec::new();
    let mut weight_grad: Option<Tensor<2>> = None;
    for start in (0..rows).step_by(chunk) {
        let size = chunk.min(rows - start);
        let part = h.clone().narrow(0, start, size);
        let target = targets.clone().narrow(0, start, size).reshape([size, 1]);
        let logits = part.clone().matmul(w.clone().transpose());
        let logits = options.logits.apply(logits);
        let slope_of_cap = options.logits.slope_of_cap(&logits);
        let max = logits.clone().max_dim(1);
        let picked = logits.clone().gather(1, target.clone());
        let mut expected = (picked - max.clone()) * (1.0 - smoothing);
        let shifted = logits - max;
        if smoothing > 0.0 {
            expected = expected + shifted.clone().mean_dim(1) * smoothing;
        }
        let exp = shifted.exp();
        let total = exp.clone().sum_dim(1);
        losses.push((total.clone().log() - expected).sum());
        if !(want_hidden || want_weight) {
            continue;
        }
        // ∂L/∂z = softmax(z) − (1 − ε)·onehot(target) − ε/V
        let minus = Tensor::full([size, 1], smoothing - 1.0, &part.device());
        let mut grad = (exp / total).scatter(1, target, minus, IndexingUpdateOp::Add);
        if smoothing > 0.0 {
            grad = grad - smoothing / vocab as f64;
        }
        if let Some(slope) = slope_of_cap {
            grad = grad * slope;
        }
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
    let hidden_grad = want_hidden.then(|| Tensor::cat(hidden_grads, 0));
    Parts {
        loss: Tensor::cat(losses, 0).sum(),
        gradients: [hidden_grad, weight_grad]
            .map(|gradient| gradient.map(|gradient| options.logits.scaled(gradient))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData, Tolerance};

    #[test]
    fn the_size_of_chunks_does_not_change_the_result() {
        let device = Device::default().autodiff();
        let numbers = |rows: usize, step: f32| {
            let numbers: Vec<f32> = (1..=rows * 3).map(|i| (step * i as f32).sin()).collect();
            Tensor::<2>::from_data(TensorData::new(numbers, [rows, 3]), &device).require_grad()
        };
        let (hidden, weight) = (numbers(7, 1.3), numbers(5, 0.7));
        let options = LossOptions {
            label_smoothing: 0.1,
            logits: LogitOptions {
                scale: 2.0,
                softcap: Some(1.5),
            },
        };
        let run = |kernel: bool, chunk: usize| {
            let (h, w) = (hidden.clone(), weight.clone().into());
            let targets = [0, 4, 2, 2, 1, 3, 0];
            let loss = match kernel {
                true => in_graph(h, w, &targets, options, chunk, on_flex),
                false => in_graph(h, w, &targets, options, chunk, of_burn_operations),
            };
            let grads = loss.backward();
            let of = |x: &Tensor<2>| x.grad(&grads).expect("a gradient").into_data();
            [loss.into_data(), of(&hidden), of(&weight)]
        };
        let whole = run(true, 7);
        for kernel in [true, false] {
            for chunk in [1, 2, 3, 6, 7, 100] {
                for (found, expected) in run(kernel, chunk).iter().zip(&whole) {
                    found.assert_approx_eq::<f32>(expected, Tolerance::absolute(2e-6));
                }
            }
        }
    }
}
