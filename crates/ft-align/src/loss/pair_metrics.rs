//! What is logged about pairs, under TRL's names.

use burn::tensor::Tensor;

use super::PairLogps;

/// Numbers of each pair, `[pairs]`, constants. TRL logs their means.
#[derive(Clone, Debug)]
pub struct PairMetrics {
    /// `rewards/chosen`: `β (lp_w − rlp_w)`, whatever the loss.
    pub rewards_chosen: Tensor<1>,
    /// `rewards/rejected`: `β (lp_l − rlp_l)`.
    pub rewards_rejected: Tensor<1>,
    /// `rewards/margins`: their difference.
    pub rewards_margins: Tensor<1>,
    /// `rewards/accuracies`: 1 if the chosen reward is greater than the rejected one, otherwise 0, also if both are
    /// equal: a new adapter begins with 0. Rewards that differ by less than 10⁻⁶ of their log-probabilities are equal, since
    /// the numbers are `f32`.
    pub rewards_accuracies: Tensor<1>,
    /// `logps/chosen`: `lp_w`.
    pub logps_chosen: Tensor<1>,
    /// `logps/rejected`: `lp_l`.
    pub logps_rejected: Tensor<1>,
}

impl PairMetrics {
    /// The metrics of pairs.
    pub fn new(pairs: &PairLogps, beta: f64) -> Self {
        let rewards_chosen = pairs.chosen_log_ratios().detach() * beta;
        let rewards_rejected = pairs.rejected_log_ratios().detach() * beta;
        let sizes = pairs.chosen.clone().abs() + pairs.rejected.clone().abs();
        let rounding = sizes.detach() * (1e-6 * beta);
        let rewards_margins = rewards_chosen.clone() - rewards_rejected.clone();
        Self {
            rewards_accuracies: rewards_margins.clone().greater(rounding).float(),
            rewards_margins,
            rewards_chosen,
            rewards_rejected,
            logps_chosen: pairs.chosen.clone().detach(),
            logps_rejected: pairs.rejected.clone().detach(),
        }
    }

    /// The numbers with their names.
    pub fn named(self) -> [(&'static str, Tensor<1>); 6] {
        [
            ("rewards/chosen", self.rewards_chosen),
            ("rewards/rejected", self.rewards_rejected),
            ("rewards/margins", self.rewards_margins),
            ("rewards/accuracies", self.rewards_accuracies),
            ("logps/chosen", self.logps_chosen),
            ("logps/rejected", self.logps_rejected),
        ]
    }
}
