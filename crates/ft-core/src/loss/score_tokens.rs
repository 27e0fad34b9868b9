//! How probable given tokens are, and whether the model would have chosen them itself.

use burn::tensor::Tensor;
use ft_kernels::TokenScore;

use crate::Head;
use crate::loss::chunked_head::rows_a_chunk;

/// The score of each row's target, without gradients and without the logits of more than a few rows at a
/// time.
///
/// `hidden` is `[rows, width]`: of what [`CausalLm::hidden_states`](crate::CausalLm::hidden_states) returns
/// the positions before the targets.
///
/// # Panics
///
/// If there are no rows, or a target is not in the vocabulary.
pub fn score_tokens(hidden: Tensor<2>, head: Head<'_>, targets: &[i64]) -> Vec<TokenScore> {
    if let Some(weight) = head.matrix() {
        return ft_kernels::score_tokens(hidden, weight, targets, head.logits);
    }
    // A head with a bias or an adapter.
    let rows_a_chunk = rows_a_chunk(head);
    (targets.chunks(rows_a_chunk).enumerate())
        .flat_map(|(i, targets)| {
            let part = hidden.clone().narrow(0, i * rows_a_chunk, targets.len());
            let logits = head.forward(part.unsqueeze()).squeeze_dim::<2>(0);
            ft_kernels::score_logits(logits.inner(), targets)
        })
        .collect()
}
