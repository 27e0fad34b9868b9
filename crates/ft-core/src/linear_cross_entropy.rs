//! The loss of a language model from hidden states and head, without the logits.
//!
//! Rows whose label is −100 are left out before the head is applied; the rest is
//! [`ft_kernels::cross_entropy_sum`], a chunk of rows at a time. Only a head with a bias or an active
//! adapter goes through the graph, which then keeps the logits of all counted rows.

use burn::tensor::{Int, Tensor, activation};
use ft_kernels::{LossOptions, cross_entropy_sum};

use crate::causal_lm::Head;
use crate::{Layout, Linear};

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
    causal_lm_loss_with(hidden, head, labels, LossOptions::default())
}

/// [`causal_lm_loss`] with label smoothing, or of a model that scales or caps its logits.
pub fn causal_lm_loss_with(
    hidden: Tensor<3>,
    head: Head<'_>,
    labels: Tensor<2, Int>,
    options: LossOptions,
) -> LossSum {
    let [batch, seq, width] = hidden.dims();
    if seq < 2 {
        return LossSum {
            sum: Tensor::zeros([1], &hidden.device()),
            count: 0,
        };
    }
    let rows = batch * (seq - 1);
    linear_cross_entropy_with(
        hidden.narrow(1, 0, seq - 1).reshape([rows, width]),
        head,
        labels.narrow(1, 1, seq - 1).reshape([rows]),
        options,
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
    linear_cross_entropy_with(hidden, head, labels, LossOptions::default())
}

/// [`linear_cross_entropy`] with label smoothing, or of a model that scales or caps its logits.
pub fn linear_cross_entropy_with(
    hidden: Tensor<2>,
    head: Head<'_>,
    labels: Tensor<1, Int>,
    options: LossOptions,
) -> LossSum {
    let counted = Counted::new(labels, head.vocab_size());
    let count = counted.targets.len();
    if count == 0 {
        return LossSum {
            sum: Tensor::zeros([1], &hidden.device()),
            count,
        };
    }
    let hidden = counted.select(hidden);
    let sum = match matrix_of(head) {
        Some(weight) => cross_entropy_sum(hidden, weight, &counted.targets, options),
        None => through_graph(hidden, head, &counted.targets, options),
    };
    LossSum { sum, count }
}

/// The rows whose labels count.
pub(crate) struct Counted {
    /// Their places.
    pub(crate) rows: Vec<i64>,
    /// Their labels.
    pub(crate) targets: Vec<i64>,
    /// How many rows there are in all.
    pub(crate) of: usize,
}

impl Counted {
    /// # Panics
    ///
    /// If a label is neither [`IGNORE_INDEX`] nor in the vocabulary.
    pub(crate) fn new(labels: Tensor<1, Int>, vocab: usize) -> Self {
        let labels = labels.into_data().convert::<i64>();
        let labels = labels.as_slice::<i64>().expect("converted to i64");
        let (rows, targets): (Vec<i64>, Vec<i64>) = labels
            .iter()
            .enumerate()
            .filter(|(_, label)| **label != IGNORE_INDEX)
            .map(|(row, label)| (row as i64, *label))
            .unzip();
        if let Some(bad) = targets.iter().find(|t| !(0..vocab as i64).contains(t)) {
            panic!("label {bad} is not in the vocabulary of {vocab} tokens");
        }
        Self {
            rows,
            targets,
            of: labels.len(),
        }
    }

    /// Those rows of `hidden`.
    pub(crate) fn select(&self, hidden: Tensor<2>) -> Tensor<2> {
        if self.rows.len() == self.of {
            return hidden;
        }
        let rows = Tensor::from_data(self.rows.as_slice(), &hidden.device());
        hidden.select(0, rows)
    }
}

/// The `[vocab, width]` that is all there is to a head; none with a bias or an active adapter.
pub(crate) fn matrix_of(head: Head<'_>) -> Option<Tensor<2>> {
    match head {
        Head::Tied(weight) => Some(weight.val()),
        Head::Linear(linear) if is_plain(linear) => Some(match linear.layout() {
            Layout::OutIn => linear.weight.val(),
            Layout::InOut => linear.weight.val().transpose(),
        }),
        Head::Linear(_) => None,
    }
}

fn is_plain(linear: &Linear) -> bool {
    linear.bias.is_none() && !linear.adapters.iter().any(|adapter| adapter.active)
}

/// The loss of a head with bias or adapters, whose logits the graph keeps.
fn through_graph(
    hidden: Tensor<2>,
    head: Head<'_>,
    targets: &[i64],
    options: LossOptions,
) -> Tensor<1> {
    let logits = head.forward(hidden.unsqueeze()).squeeze_dim::<2>(0);
    let log_p = activation::log_softmax(options.logits.apply(logits), 1);
    let rows = log_p.dims()[0];
    let targets = Tensor::<1, Int>::from_data(targets, &log_p.device()).reshape([rows, 1]);
    let smoothing = options.label_smoothing;
    let mut sum = log_p.clone().gather(1, targets).sum() * (smoothing - 1.0);
    if smoothing > 0.0 {
        sum = sum - log_p.mean_dim(1).sum() * smoothing;
    }
    sum
}
