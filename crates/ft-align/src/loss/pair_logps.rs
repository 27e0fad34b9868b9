//! What the losses of pairs are computed from.

use burn::tensor::Tensor;
use ft_core::TokenLogps;

use super::length_desensitized::length_desensitized_logps;
use super::row_logps::{row_sums, sum_logps};

/// Log-probabilities of the completions of pairs, each tensor `[pairs]`.
#[derive(Clone, Debug)]
pub struct PairLogps {
    /// `lp_w`: of the chosen completion under the policy.
    pub chosen: Tensor<1>,
    /// `lp_l`: of the rejected completion under the policy.
    pub rejected: Tensor<1>,
    /// `rlp_w`: of the chosen completion under the reference, a constant.
    pub ref_chosen: Tensor<1>,
    /// `rlp_l`: of the rejected completion under the reference, a constant.
    pub ref_rejected: Tensor<1>,
    /// `n_w`: counted tokens of the chosen completion.
    pub chosen_tokens: Tensor<1>,
    /// `n_l`: counted tokens of the rejected completion.
    pub rejected_tokens: Tensor<1>,
    /// Negative log-likelihood of the chosen completion: `−chosen`, unless that is length-desensitized.
    pub chosen_nll: Tensor<1>,
    /// Factor on each pair's loss, a constant: WPO's ([`wpo_weights`](super::wpo_weights)) or one of your own.
    pub weights: Option<Tensor<1>>,
}

impl PairLogps {
    /// From the log-probabilities of a batch of chosen completions followed by as many rejected ones.
    ///
    /// # Shapes
    ///
    /// - `policy`: `[2 · pairs, tokens]`
    /// - `reference`: log-probabilities of the completions under the reference, `[2 · pairs]`, as
    ///   [`pair_logps`] gives them
    ///
    /// # Panics
    ///
    /// If the number of rows is odd or 0.
    #[must_use]
    pub fn new(policy: &TokenLogps, reference: Tensor<1>, ld_alpha: f64) -> Self {
        let TokenLogps { logps, mask } = policy;
        let [chosen, rejected] = halves(pair_logps(policy, ld_alpha));
        let [ref_chosen, ref_rejected] = halves(reference.detach());
        let [chosen_tokens, rejected_tokens] = halves(row_sums(mask.clone()));
        let chosen_nll = match ld_alpha {
            1.0 => -chosen.clone(),
            _ => -halves(sum_logps(logps.clone(), mask))[0].clone(),
        };
        Self {
            chosen,
            rejected,
            ref_chosen,
            ref_rejected,
            chosen_tokens,
            rejected_tokens,
            chosen_nll,
            weights: None,
        }
    }

    /// `w`: the log-ratios of the chosen completions.
    pub fn chosen_log_ratios(&self) -> Tensor<1> {
        self.chosen.clone() - self.ref_chosen.clone()
    }

    /// `l`: the log-ratios of the rejected completions.
    pub fn rejected_log_ratios(&self) -> Tensor<1> {
        self.rejected.clone() - self.ref_rejected.clone()
    }
}

/// The log-probability of each completion of a batch of chosen completions followed by as many rejected ones: the sum
/// over
/// its tokens, of which those beyond the shorter completion of the pair count `ld_alpha` times
/// ([`length_desensitized_logps`]).
///
/// # Shapes
///
/// - `tokens`: `[2 · pairs, tokens]`
/// - result: `[2 · pairs]`
///
/// # Panics
///
/// If the number of rows is odd or 0.
pub fn pair_logps(tokens: &TokenLogps, ld_alpha: f64) -> Tensor<1> {
    let TokenLogps { logps, mask } = tokens;
    let [chosen, rejected] = halves(row_sums(mask.clone()));
    if ld_alpha == 1.0 {
        return sum_logps(logps.clone(), mask);
    }
    let shared = chosen.min_pair(rejected);
    let shared = Tensor::cat(vec![shared.clone(), shared], 0);
    length_desensitized_logps(logps.clone(), mask, shared, ld_alpha)
}

/// The first and the second half of the rows.
fn halves(rows: Tensor<1>) -> [Tensor<1>; 2] {
    let [count] = rows.dims();
    assert!(
        count > 0 && count.is_multiple_of(2),
        "{count} rows are not chosen completions and as many rejected ones"
    );
    [
        rows.clone().narrow(0, 0, count / 2),
        rows.narrow(0, count / 2, count / 2),
    ]
}
