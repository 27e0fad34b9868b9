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
