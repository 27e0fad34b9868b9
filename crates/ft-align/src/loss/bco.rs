//! Binary classifier optimization: completions are classified as chosen or rejected by their reward.

use burn::tensor::{Tensor, activation::log_sigmoid};
use serde::{Deserialize, Serialize};

use super::kto::{Labels, labels};

/// BCO of pairs: `−ln σ(βw) − ln σ(−βl)`.
///
/// Jung et al., 2024 (arXiv:2404.04656) without the shift of rewards, as TRL 1.16 has it.
///
/// # Shapes
///
/// - `chosen`, `rejected`: log-ratios `w` and `l`, `[pairs]`
/// - result: `[pairs]`
pub fn bco_pair(chosen: Tensor<1>, rejected: Tensor<1>, beta: f64) -> Tensor<1> {
    -log_sigmoid(chosen * beta) - log_sigmoid(rejected * -beta)
}

/// BCO of single completions: `−ln σ(βu − δ)` for a desirable one, `−ln σ(δ − βu)` for an undesirable one.
///
/// Jung et al., 2024 (arXiv:2404.04656). δ is the mean reward so far, of [`RewardShift`].
///
/// # Shapes
///
/// - `log_ratios`: `u`, `[rows]`
/// - `desirable`: one label per row
/// - result: `[rows]`
///
/// # Panics
///
/// If there are not as many labels as rows.
pub fn bco(log_ratios: Tensor<1>, desirable: &[bool], delta: f64, beta: f64) -> Tensor<1> {
    let Labels { signs, .. } = labels(&log_ratios, desirable);
    -log_sigmoid((log_ratios * beta - delta) * signs)
}

/// The shift δ of [`bco`]: the mean of all rewards `βu` so far.
///
/// ```
/// use ft_align::loss::RewardShift;
///
/// let mut shift = RewardShift::default();
/// shift.update(&[1.0, 3.0]);
/// assert_eq!(shift.update(&[-1.0]), 1.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RewardShift {
    /// The mean.
    pub mean: f64,
    /// Of how many rewards.
    pub count: u64,
}

impl RewardShift {
    /// Adds the rewards of a batch and returns the new mean.
    pub fn update(&mut self, rewards: &[f32]) -> f64 {
        for &reward in rewards {
            self.count += 1;
            self.mean += (f64::from(reward) - self.mean) / self.count as f64;
        }
        self.mean
    }
}
