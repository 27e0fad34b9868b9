//! A coefficient of the KL penalty that keeps the divergence near a target.

/// The proportional controller of Ziegler et al., 2019 (arXiv:1909.08593).
///
/// ```
/// use ft_align::loss::AdaptiveKl;
///
/// let mut controller = AdaptiveKl::default();
/// // The divergence is twice the target: the error is clipped to 0.2.
/// controller.update(12.0, 100);
/// assert!((controller.coefficient - 0.2 * (1.0 + 0.2 * 100.0 / 10_000.0)).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveKl {
    /// β, the factor on the KL divergence in the rewards.
    pub coefficient: f64,
    /// The wanted divergence of a sequence, in nats.
    pub target: f64,
    /// After how many sequences the coefficient may have changed by 20%.
    pub horizon: f64,
}

impl Default for AdaptiveKl {
    /// 0.2, 6 and 10,000.
    fn default() -> Self {
        Self {
            coefficient: 0.2,
            target: 6.0,
            horizon: 10_000.0,
        }
    }
}

impl AdaptiveKl {
    /// `β ← β (1 + clip(kl/target − 1, ±0.2) · sequences/horizon)`, after sequences with the mean divergence `kl`.
    pub fn update(&mut self, kl: f64, sequences: usize) {
        let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
        self.coefficient *= 1.0 + error * sequences as f64 / self.horizon;
    }
}
