//! The loss of a language model from hidden states and head, without the logits.
//!
//! Rows whose label is −100 are left out before the head is applied; the rest is
//! [`ft_kernels::cross_entropy_sum`], a chunk of rows at a time.

use burn::tensor::{Int, Tensor, activation};
use ft_kernels::cross_entropy_sum;

use crate::Linear;
use crate::causal_lm::Head;

/// Labels of this value count for nothing.
pub const IGNORE_INDEX: i64 = -100;

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
    let sum = match head {
        Head::Tied(weight) => cross_entropy_sum(hidden, weight.val(), &targets),
        Head::Linear(linear) if is_plain(linear) => {
            cross_entropy_sum(hidden, linear.weight.val(), &targets)
        }
        Head::Linear(linear) => through_graph(hidden, linear, &targets),
    };
    LossSum { sum, count }
}

fn is_plain(linear: &Linear) -> bool {
    linear.bias.is_none()
        && linear.layout() == crate::Layout::OutIn
        && !linear.adapters.iter().any(|adapter| adapter.active)
}

/// The loss of a head with bias or adapters, whose logits the graph keeps.
fn through_graph(hidden: Tensor<2>, head: &Linear, targets: &[i64]) -> Tensor<1> {
    let logits = head.forward(hidden.unsqueeze()).squeeze_dim::<2>(0);
    let rows = logits.dims()[0];
    let targets = Tensor::<1, Int>::from_data(targets, &logits.device()).reshape([rows, 1]);
    activation::log_softmax(logits, 1)
        .gather(1, targets)
        .sum()
        .neg()
}
