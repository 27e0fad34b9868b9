//! Log-probabilities of given tokens, and entropies, from hidden states and head, a chunk of rows at a time. They are
//! the basis of preference, policy and distillation losses.
//!
//! The gradient of [`cross_entropy_sum`](crate::cross_entropy_sum) is known up to a factor in the forward pass. These
//! outputs may have any gradient, one number per row. On the CPU the backward pass computes the logits again, which
//! costs one more product with the head and no memory. On other devices each row's derivative with respect to its
//! hidden state, `J`, is computed in the forward pass outside the graph. The graph contains `⟨h, J⟩ − ⟨h, J⟩ + value`,
//! whose second and third terms are constants. The derivative with respect to a weight that trains would be a matrix
//! per row, so in that case the graph keeps all logits.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, activation};

use crate::cross_entropy::{check_targets, rows_a_chunk};
use crate::graph::{constant, in_type_of};
use crate::{LogitOptions, Weight};

/// `ln softmax(z)[target]` of every row, with `z` the logits `h·Wᵀ` after their options.
///
/// Differentiable in `hidden` and `weight`. Without gradients it is one product with the head. A temperature is part of
/// the options: [`LogitOptions::at_temperature`].
///
/// # Shapes
///
/// - `hidden`: `[rows, width]`, `weight`: `[vocab, width]`, a tensor or [`Packed`](crate::Packed); `targets`: one id a row
/// - output: `[rows]`
///
/// # Panics
///
/// If there are no rows, a target is not in the vocabulary, or an option is invalid.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use ft_kernels::{LogitOptions, token_logps};
///
/// let device = Device::default();
/// let hidden = Tensor::<2>::from_data([[1.0]], &device);
/// let weight = Tensor::<2>::from_data([[0.0], [3f32.ln()]], &device);
/// // Logits 0 and ln 3: probabilities 1/4 and 3/4.
/// let logp = token_logps(hidden, weight, &[1], LogitOptions::default());
/// assert!((logp.into_scalar::<f32>() - 0.75f32.ln()).abs() < 1e-6);
/// ```
pub fn token_logps(
    hidden: Tensor<2>,
    weight: impl Into<Weight>,
    targets: &[i64],
    options: LogitOptions,
) -> Tensor<1> {
    let [logps] = fastest(hidden, weight.into(), targets, options);
    logps
}

/// [`token_logps`], and the entropy `−Σ p·ln p` of every row, `[rows]` as well, in nats.
pub fn token_logps_and_entropy(
    hidden: Tensor<2>,
    weight: impl Into<Weight>,
    targets: &[i64],
    options: LogitOptions,
) -> [Tensor<1>; 2] {
    fastest(hidden, weight.into(), targets, options)
}

/// [`token_logps`] with Burn's operations.
pub fn portable(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: &[i64],
    options: LogitOptions,
) -> Tensor<1> {
    let chunk = checked(&hidden, &Weight::Dense(weight.clone()), targets, options);
    let [logps] = of_burn_operations(hidden, weight, targets, options, chunk);
    logps
}

/// [`token_logps_and_entropy`] with Burn's operations.
pub fn portable_with_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: &[i64],
    options: LogitOptions,
) -> [Tensor<1>; 2] {
    let chunk = checked(&hidden, &Weight::Dense(weight.clone()), targets, options);
    of_burn_operations(hidden, weight, targets, options, chunk)
}

/// Checks the arguments and returns the maximum number of rows of logits at a time.
fn checked(hidden: &Tensor<2>, weight: &Weight, targets: &[i64], options: LogitOptions) -> usize {
    options.check();
    check_targets(hidden, weight, targets);
    rows_a_chunk(weight)
}

/// Log-probabilities, and entropies where `N` is 2.
fn fastest<const N: usize>(
    hidden: Tensor<2>,
    weight: Weight,
    targets: &[i64],
    options: LogitOptions,
) -> [Tensor<1>; N] {
    let chunk = checked(&hidden, &weight, targets, options);
    #[cfg(feature = "cpu")]
    if crate::flex::takes(&hidden) && crate::flex::takes_operand(&weight) {
        return on_flex(hidden, weight, targets, options, chunk);
    }
    let weight = weight.dense(&hidden);
    of_burn_operations(hidden, weight, targets, options, chunk)
}

#[cfg(feature = "cpu")]
fn on_flex<const N: usize>(
    hidden: Tensor<2>,
    weight: Weight,
    targets: &[i64],
    options: LogitOptions,
    chunk: usize,
) -> [Tensor<1>; N] {
    use crate::flex::token_logps::{Question, TokenLogps};
    use burn::backend::Dispatch;
    let question = Question {
        targets: targets.into(),
        options,
        entropy: N == 2,
        chunk,
    };
    let weight = crate::flex::packed::Operand::new(&weight).expect("as was checked");
    let out = Dispatch::token_logps(hidden.into_dispatch(), weight, question);
    let out = Tensor::<2>::from_dispatch(out);
    std::array::from_fn(|column| out.clone().narrow(1, column, 1).squeeze_dim(1))
}

/// In chunks outside the graph, or all rows in the graph if the weight trains.
fn of_burn_operations<const N: usize>(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: &[i64],
    options: LogitOptions,
    chunk: usize,
) -> [Tensor<1>; N] {
    let weight = in_type_of(weight, &hidden);
    let targets = Tensor::<1, Int>::from_data(targets, &hidden.device()).unsqueeze_dim::<2>(1);
    if weight.is_tracked() {
        let logits = options.apply(hidden.matmul(weight.transpose()));
        let log_p = activation::log_softmax(logits, 1);
        return std::array::from_fn(|column| output(column, &log_p, &targets).squeeze_dim(1));
    }
    let (h, w, targets) = (hidden.clone().inner(), weight.inner(), targets.inner());
    let mut values = [const { Vec::new() }; N];
    let mut derivatives = [const { Vec::new() }; N];
    let rows = h.dims()[0];
    for start in (0..rows).step_by(chunk) {
        let size = chunk.min(rows - start);
        let target = targets.clone().narrow(0, start, size);
        let part = h.clone().narrow(0, start, size);
        let logits = options.apply(part.matmul(w.clone().transpose()));
        let slope_of_cap = options.slope_of_cap(&logits);
        let log_p = activation::log_softmax(logits, 1);
        for column in 0..N {
            let value = output(column, &log_p, &target);
            if hidden.is_tracked() {
                // Derivatives with respect to the logits: onehot − p, and −p·(ln p + H).
                let minus_p = -log_p.clone().exp();
                let by_logits = if column == 0 {
                    let one = Tensor::ones([size, 1], &h.device());
                    minus_p.scatter(1, target.clone(), one, IndexingUpdateOp::Add)
                } else {
                    minus_p * (log_p.clone() + value.clone())
                };
                let by_head = match &slope_of_cap {
                    Some(slope) => by_logits * slope.clone(),
                    None => by_logits,
                };
                derivatives[column].push(options.scaled(by_head.matmul(w.clone())));
            }
            values[column].push(value);
        }
    }
    let mut columns = values.into_iter().zip(derivatives);
    std::array::from_fn(|_| {
        let (values, derivatives) = columns.next().expect("N columns");
        let value = Tensor::cat(values, 0).squeeze_dim(1);
        if derivatives.is_empty() {
            return value;
        }
        let derivative = constant(Tensor::cat(derivatives, 0), &hidden);
        let along = (hidden.clone() * derivative).sum_dim(1).squeeze_dim(1);
        constant(value, &along) + (along.clone() - along.detach())
    })
}

/// `[rows, 1]`: the targets' log-probability, or the entropy if the column is the second.
fn output(column: usize, log_p: &Tensor<2>, targets: &Tensor<2, Int>) -> Tensor<2> {
    match column {
        0 => log_p.clone().gather(1, targets.clone()),
        _ => -(log_p.clone().exp() * log_p.clone()).sum_dim(1),
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
            Tensor::<2>::from_data(TensorData::new(numbers, [rows, 3]), &device)
        };
        let hidden = numbers(7, 1.3).require_grad();
        let options = LogitOptions {
            scale: 2.0,
            softcap: Some(1.5),
        };
        let upstream = numbers(7, 0.9).narrow(1, 0, 2).swap_dims(0, 1);
        let run = |kernel: bool, chunk: usize, trains: bool| {
            let weight = numbers(5, 0.7).set_require_grad(trains);
            let (h, w, targets) = (hidden.clone(), weight.clone(), [0, 4, 2, 2, 1, 3, 0]);
            let outputs: [Tensor<1>; 2] = match kernel {
                true => on_flex(h, w.into(), &targets, options, chunk),
                false => of_burn_operations(h, w, &targets, options, chunk),
            };
            let outputs = Tensor::stack::<2>(outputs.to_vec(), 0);
            let grads = (outputs.clone() * upstream.clone()).sum().backward();
            let mut all = vec![outputs.into_data()];
            all.extend(
                [&hidden, &weight]
                    .map(|x| x.grad(&grads))
                    .into_iter()
                    .flatten()
                    .map(Tensor::into_data),
            );
            all
        };
        for trains in [true, false] {
            let whole = run(true, 7, trains);
            assert_eq!(whole.len(), if trains { 3 } else { 2 });
            for kernel in [true, false] {
                for chunk in [1, 2, 3, 6, 7, 100] {
                    let found = run(kernel, chunk, trains);
                    assert_eq!(found.len(), whole.len());
                    for (found, expected) in found.iter().zip(&whole) {
                        found.assert_approx_eq::<f32>(expected, Tolerance::absolute(2e-6));
                    }
                }
            }
        }
    }
}
