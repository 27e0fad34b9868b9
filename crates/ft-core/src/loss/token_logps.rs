//! Per-token log-probabilities of a model, and entropies, without the logits: what preference, policy
//! and distillation losses start from.
//!
//! Rows whose label is −100 are left out before the head is applied; the rest is
//! [`ft_kernels::token_logps`], a chunk of rows at a time, forward and backward. A head with a bias or an active adapter
//! is computed in chunks too.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, activation};

use crate::Head;
use crate::loss::chunked_head::in_chunks;
use crate::loss::linear_cross_entropy::{Counted, next_labels};

/// Log-probabilities of labels, position for position.
#[derive(Clone, Debug)]
pub struct TokenLogps {
    /// `[batch, seq − 1]`, where column `t` is `ln p(labels[t + 1])`, and 0 where that label is
    /// [`IGNORE_INDEX`](crate::IGNORE_INDEX): `logps.sum_dim(1)` is the log-probability of a row's
    /// labels.
    pub logps: Tensor<2>,
    /// `[batch, seq − 1]`: 1 where a label counts, 0 elsewhere; `mask.sum_dim(1)` counts them. A
    /// constant.
    pub mask: Tensor<2>,
}

/// Log-probabilities of the next tokens: position `t` is scored on `labels[t + 1]`.
///
/// Differentiable in the hidden states and the head, each number with a gradient of its own. The logits are
/// divided by `temperature`, after what the model does to them; 1 changes nothing.
///
/// # Shapes
///
/// - `hidden`: `[batch, seq, width]`, what [`CausalLm::hidden_states`](crate::CausalLm::hidden_states)
///   returns
/// - `labels`: `batch · seq` numbers, row by row, aligned with the input ids;
///   [`IGNORE_INDEX`](crate::IGNORE_INDEX) where masked
///
/// # Panics
///
/// If there are less than two positions or not as many labels as positions, or a label is neither
/// [`IGNORE_INDEX`](crate::IGNORE_INDEX) nor in the vocabulary.
pub fn token_logps(
    hidden: Tensor<3>,
    head: Head<'_>,
    labels: &[i64],
    temperature: f64,
) -> TokenLogps {
    let head = head.with_logits(head.logits.at_temperature(temperature));
    let options = head.logits;
    let (next, mask) = columns(hidden, head, labels, |hidden, matrix, targets| {
        if let Some(weight) = matrix {
            return [ft_kernels::token_logps(hidden, weight, targets, options)];
        }
        in_chunks(hidden, head, targets, |logits, targets| {
            [activation::log_softmax(logits, 1).gather(1, targets)]
        })
    });
    let [logps] = next;
    TokenLogps { logps, mask }
}

/// [`token_logps`], and the entropy of each counted position's distribution, `[batch, seq − 1]`, in
/// nats, 0 where the label does not count.
pub fn token_logps_and_entropy(
    hidden: Tensor<3>,
    head: Head<'_>,
    labels: &[i64],
    temperature: f64,
) -> (TokenLogps, Tensor<2>) {
    let head = head.with_logits(head.logits.at_temperature(temperature));
    let options = head.logits;
    let (next, mask) = columns(hidden, head, labels, |hidden, matrix, targets| {
        if let Some(weight) = matrix {
            return ft_kernels::token_logps_and_entropy(hidden, weight, targets, options);
        }
        in_chunks(hidden, head, targets, |logits, targets| {
            let log_p = activation::log_softmax(logits, 1);
            let entropy = -(log_p.clone().exp() * log_p.clone()).sum_dim(1);
            [log_p.gather(1, targets), entropy]
        })
    });
    let [logps, entropy] = next;
    (TokenLogps { logps, mask }, entropy)
}

/// What `compute` finds for the rows that count, put back where they are, and the mask.
///
/// `compute` gets these rows of the hidden states, the head's matrix where that is all of it, and
/// the targets.
fn columns<const N: usize>(
    hidden: Tensor<3>,
    head: Head<'_>,
    labels: &[i64],
    compute: impl Fn(Tensor<2>, Option<Tensor<2>>, &[i64]) -> [Tensor<1>; N],
) -> ([Tensor<2>; N], Tensor<2>) {
    let device = hidden.device();
    let [batch, seq, width] = hidden.dims();
    assert!(seq > 1, "no next token in {seq} positions");
    let (next, rows) = (seq - 1, batch * (seq - 1));
    let counted = Counted::new(&next_labels(labels, batch, seq), head.vocab_size());
    let zeros = Tensor::<1>::zeros([rows], &device);
    if counted.targets.is_empty() {
        let zeros = zeros.reshape([batch, next]);
        return (std::array::from_fn(|_| zeros.clone()), zeros);
    }
    let hidden = counted.select(hidden.narrow(1, 0, next).reshape([rows, width]));
    let found = compute(hidden, head.matrix(), &counted.targets);
    let places = Tensor::<1, Int>::from_data(counted.rows.as_slice(), &device);
    let put = |values: Tensor<1>| {
        let all = zeros.clone();
        let all = all.select_assign(0, places.clone(), values, IndexingUpdateOp::Add);
        all.reshape([batch, next])
    };
    let ones = Tensor::ones([counted.targets.len()], &device);
    (found.map(put), put(ones))
}
