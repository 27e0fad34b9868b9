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
    let places = Places::next(&hidden, labels, head.vocab_size());
    logps_at(hidden, head, &places, temperature)
}

/// [`token_logps`], and the entropy of each counted position's distribution, `[batch, seq − 1]`, in
/// nats, 0 where the label does not count.
pub fn token_logps_and_entropy(
    hidden: Tensor<3>,
    head: Head<'_>,
    labels: &[i64],
    temperature: f64,
) -> (TokenLogps, Tensor<2>) {
    let places = Places::next(&hidden, labels, head.vocab_size());
    logps_and_entropy_at(hidden, head, &places, temperature)
}

/// A token, and the position that predicts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predicted {
    /// The position among the `batch · seq` hidden states, row by row.
    pub position: usize,
    /// The token.
    pub token: i64,
}

/// Log-probabilities of completions, wherever their tokens stand in the batch: `[completions, longest]`, where column `j`
/// is that of a completion's token `j`. Two tokens may have the same position, as the first tokens of several answers to
/// one prompt have in a row of [branches](ft_kernels::branch).
///
/// The rest is as in [`token_logps`].
///
/// # Panics
///
/// If a position or a token does not exist.
pub fn predicted_logps(
    hidden: Tensor<3>,
    head: Head<'_>,
    completions: &[Vec<Predicted>],
    temperature: f64,
) -> TokenLogps {
    let places = Places::of(&hidden, completions, head.vocab_size());
    logps_at(hidden, head, &places, temperature)
}

/// [`predicted_logps`], and the entropies of the positions' distributions, `[completions, longest]`, in nats.
pub fn predicted_logps_and_entropy(
    hidden: Tensor<3>,
    head: Head<'_>,
    completions: &[Vec<Predicted>],
    temperature: f64,
) -> (TokenLogps, Tensor<2>) {
    let places = Places::of(&hidden, completions, head.vocab_size());
    logps_and_entropy_at(hidden, head, &places, temperature)
}

/// `ln Σᵥ p(v)²` of the positions' distributions, `[completions, longest]`, a constant: how concentrated they are.
pub fn predicted_log_sum_squares(
    hidden: Tensor<3>,
    head: Head<'_>,
    completions: &[Vec<Predicted>],
) -> Tensor<2> {
    let places = Places::of(&hidden, completions, head.vocab_size());
    let ([sums], _) = places.fill(hidden.detach(), |hidden, targets| {
        in_chunks(hidden, head, targets, |logits, _| {
            [activation::log_softmax(logits, 1)
                .mul_scalar(2.0)
                .exp()
                .sum_dim(1)
                .log()]
        })
    });
    sums.detach()
}

fn logps_at(hidden: Tensor<3>, head: Head<'_>, places: &Places, temperature: f64) -> TokenLogps {
    let head = head.with_logits(head.logits.at_temperature(temperature));
    let ([logps], mask) = places.fill(hidden, |hidden, targets| {
        if let Some(weight) = head.matrix() {
            return [ft_kernels::token_logps(
                hidden,
                weight,
                targets,
                head.logits,
            )];
        }
        in_chunks(hidden, head, targets, |logits, targets| {
            [activation::log_softmax(logits, 1).gather(1, targets)]
        })
    });
    TokenLogps { logps, mask }
}

fn logps_and_entropy_at(
    hidden: Tensor<3>,
    head: Head<'_>,
    places: &Places,
    temperature: f64,
) -> (TokenLogps, Tensor<2>) {
    let head = head.with_logits(head.logits.at_temperature(temperature));
    let ([logps, entropy], mask) = places.fill(hidden, |hidden, targets| {
        if let Some(weight) = head.matrix() {
            return ft_kernels::token_logps_and_entropy(hidden, weight, targets, head.logits);
        }
        in_chunks(hidden, head, targets, |logits, targets| {
            let log_p = activation::log_softmax(logits, 1);
            let entropy = -(log_p.clone().exp() * log_p.clone()).sum_dim(1);
            [log_p.gather(1, targets), entropy]
        })
    });
    (TokenLogps { logps, mask }, entropy)
}

/// Which hidden states predict which tokens, and where the numbers go.
struct Places {
    /// Positions among the hidden states.
    sources: Vec<i64>,
    targets: Vec<i64>,
    /// Positions in the result.
    cells: Vec<i64>,
    /// The shape of the result.
    shape: [usize; 2],
}

impl Places {
    /// Every position predicts the label after it: `[batch, seq − 1]`.
    fn next(hidden: &Tensor<3>, labels: &[i64], vocab: usize) -> Self {
        let [batch, seq, _] = hidden.dims();
        assert!(seq > 1, "no next token in {seq} positions");
        let counted = Counted::new(&next_labels(labels, batch, seq), vocab);
        let next = seq as i64 - 1;
        let source = |cell: &i64| cell / next * (next + 1) + cell % next;
        Self {
            sources: counted.rows.iter().map(source).collect(),
            targets: counted.targets,
            cells: counted.rows,
            shape: [batch, seq - 1],
        }
    }

    /// `[completions, longest]`, at least one column.
    fn of(hidden: &Tensor<3>, completions: &[Vec<Predicted>], vocab: usize) -> Self {
        let [batch, seq, _] = hidden.dims();
        let longest = completions.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let mut places = Self {
            sources: Vec::new(),
            targets: Vec::new(),
            cells: Vec::new(),
            shape: [completions.len(), longest],
        };
        for (row, completion) in completions.iter().enumerate() {
            for (column, &Predicted { position, token }) in completion.iter().enumerate() {
                assert!(
                    position < batch * seq && (0..vocab as i64).contains(&token),
                    "position {position} of {} or token {token} of {vocab} does not exist",
                    batch * seq
                );
                places.sources.push(position as i64);
                places.targets.push(token);
                places.cells.push((row * longest + column) as i64);
            }
        }
        places
    }

    /// What `compute` finds for these hidden states and targets, put into the result, and the mask of what is filled.
    fn fill<const N: usize>(
        &self,
        hidden: Tensor<3>,
        compute: impl Fn(Tensor<2>, &[i64]) -> [Tensor<1>; N],
    ) -> ([Tensor<2>; N], Tensor<2>) {
        let device = hidden.device();
        let [batch, seq, width] = hidden.dims();
        let zeros = Tensor::<1>::zeros([self.shape[0] * self.shape[1]], &device);
        if self.targets.is_empty() {
            let zeros = zeros.reshape(self.shape);
            return (std::array::from_fn(|_| zeros.clone()), zeros);
        }
        let index = |places: &[i64]| Tensor::<1, Int>::from_data(places, &device);
        let hidden = hidden.reshape([batch * seq, width]);
        let found = compute(hidden.select(0, index(&self.sources)), &self.targets);
        let cells = index(&self.cells);
        let put = |values: Tensor<1>| {
            let all = zeros.clone();
            let all = all.select_assign(0, cells.clone(), values, IndexingUpdateOp::Add);
            all.reshape(self.shape)
        };
        let ones = Tensor::ones([self.targets.len()], &device);
        (found.map(put), put(ones))
    }
}
