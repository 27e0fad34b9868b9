//! The loss of a language model from hidden states and head, without the logits.
//!
//! Rows whose label is −100 are left out before the head is applied; the rest is
//! [`ft_kernels::cross_entropy_sum`], a chunk of rows at a time. A head with a bias or an active adapter is computed in
//! chunks too, a second time in the backward pass. What the model does to its logits (a factor, a cap) is part of the
//! head.
//!
//! Labels are read on the host, so that is where they are taken from.

use burn::tensor::{Tensor, activation};
use ft_kernels::{LossOptions, cross_entropy_sum};

use crate::Head;
use crate::loss::chunked_head::in_chunks;

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
/// - `labels`: `batch · seq` numbers, row by row, aligned with the input ids; [`IGNORE_INDEX`] where masked
///
/// # Panics
///
/// If there are not as many labels as positions, or a label is neither [`IGNORE_INDEX`] nor in the vocabulary.
pub fn causal_lm_loss(hidden: Tensor<3>, head: Head<'_>, labels: &[i64]) -> LossSum {
    causal_lm_loss_with(hidden, head, labels, 0.0)
}

/// [`causal_lm_loss`] with label smoothing; see [`LossOptions::label_smoothing`].
///
/// # Panics
///
/// As [`causal_lm_loss`].
pub fn causal_lm_loss_with(
    hidden: Tensor<3>,
    head: Head<'_>,
    labels: &[i64],
    label_smoothing: f64,
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
        &next_labels(labels, batch, seq),
        label_smoothing,
    )
}

/// The labels of the next position for all positions but the last of each row.
///
/// # Panics
///
/// If there are not `batch · seq` labels.
pub(super) fn next_labels(labels: &[i64], batch: usize, seq: usize) -> Vec<i64> {
    assert_eq!(labels.len(), batch * seq, "a label for every position");
    let rows = labels.chunks_exact(seq.max(1));
    rows.flat_map(|row| &row[1..]).copied().collect()
}

/// `Σ −log softmax(h·Wᵀ)[label]` over the rows whose label is not [`IGNORE_INDEX`].
///
/// # Shapes
///
/// - `hidden`: `[rows, width]`, `labels`: one a row
///
/// # Panics
///
/// If there is not a label for each row, or one is neither [`IGNORE_INDEX`] nor in the vocabulary.
pub fn linear_cross_entropy(hidden: Tensor<2>, head: Head<'_>, labels: &[i64]) -> LossSum {
    linear_cross_entropy_with(hidden, head, labels, 0.0)
}

/// [`linear_cross_entropy`] with label smoothing; see [`LossOptions::label_smoothing`].
///
/// # Panics
///
/// As [`linear_cross_entropy`].
pub fn linear_cross_entropy_with(
    hidden: Tensor<2>,
    head: Head<'_>,
    labels: &[i64],
    label_smoothing: f64,
) -> LossSum {
    assert_eq!(labels.len(), hidden.dims()[0], "a label for every row");
    let counted = Counted::new(labels, head.vocab_size());
    let count = counted.targets.len();
    if count == 0 {
        return LossSum {
            sum: Tensor::zeros([1], &hidden.device()),
            count,
        };
    }
    let options = LossOptions {
        label_smoothing,
        logits: head.logits,
    };
    let hidden = counted.select(hidden);
    let sum = match head.matrix() {
        Some(weight) => cross_entropy_sum(hidden, weight, &counted.targets, options),
        None => of_adapted_head(hidden, head, &counted.targets, label_smoothing),
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
    pub(crate) fn new(labels: &[i64], vocab: usize) -> Self {
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

/// The loss of a head with bias or adapters.
fn of_adapted_head(
    hidden: Tensor<2>,
    head: Head<'_>,
    targets: &[i64],
    smoothing: f64,
) -> Tensor<1> {
    let [losses] = in_chunks(hidden, head, targets, move |logits, targets| {
        let log_p = activation::log_softmax(logits, 1);
        let loss = log_p.clone().gather(1, targets) * (smoothing - 1.0);
        [match smoothing > 0.0 {
            true => loss - log_p.mean_dim(1) * smoothing,
            false => loss,
        }]
    });
    losses.sum()
}
