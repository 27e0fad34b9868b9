//! A head that is more than a matrix (it has a bias, or adapters), a chunk of rows at a time.
//!
//! The graph keeps the hidden states and a few numbers per row. The backward pass computes the logits of each chunk again,
//! so those of all rows never exist at once. This costs one more product with the head.

use burn::tensor::{Int, Tensor};

use crate::layers::blocks::drop_out;
use crate::layers::dropout_seed::{draw_seed, seeded};
use crate::layers::{Embedding, Projection};
use crate::{Head, Linear, mix_seed};

/// The largest number of logits at a time. A chunk's graph has about six tensors of this size, 16 MiB each in `f32`.
const CHUNK_LOGITS: usize = 1 << 22;

/// The largest number of rows at a time.
pub(super) fn rows_a_chunk(head: Head<'_>) -> usize {
    (CHUNK_LOGITS / head.vocab_size().max(1)).max(1)
}

/// What `outputs` makes of the logits and the targets of all rows, `[rows]` each.
///
/// `outputs` gets those of a chunk, `[rows, vocab]` and `[rows, 1]`, and returns numbers for each row, `[rows, 1]`.
pub(super) fn in_chunks<const N: usize>(
    hidden: Tensor<2>,
    head: Head<'_>,
    targets: &[i64],
    outputs: impl Fn(Tensor<2>, Tensor<2, Int>) -> [Tensor<2>; N] + Clone + Send + 'static,
) -> [Tensor<1>; N] {
    let device = hidden.device();
    let drops = device.is_autodiff()
        && match head.projection {
            Projection::Tied(embedding) => drop_out(std::slice::from_ref(embedding)),
            Projection::Linear(linear) => drop_out(std::slice::from_ref(linear)),
        };
    let seed = drops.then(|| draw_seed(&device));
    let size = rows_a_chunk(head);
    let chunks = targets.chunks(size).enumerate().map(|(i, targets)| {
        let part = hidden.clone().narrow(0, i * size, targets.len());
        let targets = Tensor::<1, Int>::from_data(targets, &device).unsqueeze_dim::<2>(1);
        let seed = seed.map(|seed| mix_seed(seed, i as u64));
        let (outputs, device, options) = (outputs.clone(), device.clone(), head.logits);
        let run = move |head: Head<'_>, x: Tensor<3>| {
            let logits = seeded(&device, seed, || head.with_logits(options).forward(x));
            let found = outputs(logits.squeeze_dim::<2>(0), targets.clone());
            Tensor::cat(found.to_vec(), 1).unsqueeze::<3>()
        };
        let part = part.unsqueeze::<3>();
        match head.projection {
            Projection::Tied(embedding) => {
                ft_kernels::recompute(embedding, part, move |embedding: &Embedding, x| {
                    run(Head::tied(embedding), x)
                })
            }
            Projection::Linear(linear) => {
                ft_kernels::recompute(linear, part, move |linear: &Linear, x| {
                    run(Head::linear(linear), x)
                })
            }
        }
    });
    let all = Tensor::cat(chunks.collect(), 1).squeeze_dim::<2>(0);
    std::array::from_fn(|column| all.clone().narrow(1, column, 1).squeeze_dim(1))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use burn::tensor::{Device, TensorData, Tolerance, activation};

    use super::*;
    use crate::Layout;

    /// Two rows of logits at a time, and the numbers and gradients of all at once.
    #[test]
    fn there_are_never_more_logits_than_those_of_a_chunk() {
        let (rows, vocab) = (5, CHUNK_LOGITS / 2);
        let device = Device::default().autodiff();
        let numbers = |count: usize, step: f32| -> Vec<f32> {
            (1..=count).map(|i| (step * i as f32).sin()).collect()
        };
        let mut linear = Linear::new(1, vocab, true, Layout::OutIn, 1.0, &device);
        let weight = TensorData::new(numbers(vocab, 0.7), [vocab, 1]);
        linear.weight = burn::module::Param::from_tensor(Tensor::from_data(weight, &device)).into();
        let hidden = TensorData::new(numbers(rows, 1.3), [rows, 1]);
        let hidden = Tensor::<2>::from_data(hidden, &device).require_grad();
        let head = Head::linear(&linear);
        let targets: Vec<i64> = (0..rows as i64).map(|row| row * 300_001).collect();
        let most = Arc::new(AtomicUsize::new(0));
        let seen = most.clone();
        let [found] = in_chunks(hidden.clone(), head, &targets, move |logits, targets| {
            seen.fetch_max(logits.dims()[0], Ordering::Relaxed);
            [activation::log_softmax(logits, 1).gather(1, targets)]
        });
        let whole = head.forward(hidden.clone().unsqueeze()).squeeze_dim::<2>(0);
        let targets = Tensor::<1, Int>::from_data(targets.as_slice(), &device).unsqueeze_dim(1);
        let expected = activation::log_softmax(whole, 1)
            .gather(1, targets)
            .squeeze_dim::<1>(1);
        let tolerance = Tolerance::absolute(1e-4);
        found
            .to_data()
            .assert_approx_eq::<f32>(&expected.to_data(), tolerance);
        let weights = Tensor::<1>::from_data([1.0, -2.0, 0.5, 3.0, 0.1], &device);
        let gradients = |y: Tensor<1>| {
            let grads = (y * weights.clone()).sum().backward();
            let bias = linear.bias.as_ref().expect("a bias").val();
            let all = [
                hidden.grad(&grads).map(Tensor::into_data),
                bias.grad(&grads).map(Tensor::into_data),
            ];
            all.map(|gradient| gradient.expect("a gradient"))
        };
        for (found, expected) in gradients(found).iter().zip(&gradients(expected)) {
            found.assert_approx_eq::<f32>(expected, tolerance);
        }
        assert_eq!(most.load(Ordering::Relaxed), 2);
    }
}
