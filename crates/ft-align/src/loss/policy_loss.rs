//! One loss of policies by name.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Tensor;

use super::row_logps::{masked, row_sums};
use super::{
    Clip, Reduction, Scaling, cispo, clipped_surrogate, group_advantages, importance_ratio,
    leave_one_out, sapo, sequence_log_ratios,
};
use crate::Error;

/// A loss of sampled completions, spelled as TRL's `loss_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyLoss {
    /// [`clipped_surrogate`] per token, mean over completions: Shao et al., 2024 (arXiv:2402.03300).
    Grpo,
    /// The same, mean over the tokens of a batch.
    Bnpo,
    /// The same, divided by the largest length: Liu et al., 2025 (arXiv:2503.20783).
    DrGrpo,
    /// The same, mean over the tokens of an update: Yu et al., 2025 (arXiv:2503.14476).
    Dapo,
    /// [`cispo`], mean over the tokens of an update.
    Cispo,
    /// [`clipped_surrogate`] with a ratio per completion: Zheng et al., 2025 (arXiv:2507.18071).
    Gspo,
    /// [`sapo`], mean over completions.
    Sapo,
    /// [`clipped_surrogate`] with the ratio of whole completions and advantages of [`leave_one_out`]: Ahmadian et al., 2024
    /// (arXiv:2402.14740).
    Rloo,
}

/// The numbers of policy losses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicySettings {
    /// How far ratios may leave 1. `sapo` has its own bounds, and `cispo` its cap.
    pub clip: Clip,
    /// The largest ratio of `cispo`.
    pub cispo_cap: f64,
    /// The temperatures of `sapo` for advantages above 0 and for others.
    pub sapo_tau: [f64; 2],
    /// The largest length of a completion, for `dr_grpo`.
    pub max_completion_length: usize,
}

impl Default for PolicySettings {
    /// Ratios from 0.8 to 1.2, at most 5 for `cispo`, temperatures 1 and 1.05, 256 tokens.
    fn default() -> Self {
        Self {
            clip: Clip::default(),
            cispo_cap: 5.0,
            sapo_tau: [1.0, 1.05],
            max_completion_length: 256,
        }
    }
}

/// What a policy loss is computed from.
#[derive(Clone, Debug)]
pub struct PolicyTokens {
    /// Log-probabilities under the policy, `[rows, tokens]`.
    pub logps: Tensor<2>,
    /// Those when the completions were sampled, a constant, `[rows, tokens]`.
    pub old_logps: Tensor<2>,
    /// `[rows, 1]`.
    pub advantages: Tensor<2>,
    /// `[rows, tokens]`.
    pub mask: Tensor<2>,
}

impl PolicyLoss {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Grpo,
        Self::Bnpo,
        Self::DrGrpo,
        Self::Dapo,
        Self::Cispo,
        Self::Gspo,
        Self::Sapo,
        Self::Rloo,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpo => "grpo",
            Self::Bnpo => "bnpo",
            Self::DrGrpo => "dr_grpo",
            Self::Dapo => "dapo",
            Self::Cispo => "cispo",
            Self::Gspo => "gspo",
            Self::Sapo => "sapo",
            Self::Rloo => "rloo",
        }
    }

    /// The settings that its paper or TRL starts from: the default, and for `gspo`, whose ratios are those of whole completions,
    /// ratios from 1 − 3e-4 to 1 + 4e-4 (section 5.1 of its paper).
    pub fn settings(self) -> PolicySettings {
        let plain = PolicySettings::default();
        match self {
            Self::Gspo => PolicySettings {
                clip: Clip {
                    low: 3e-4,
                    high: 4e-4,
                    two_sided: None,
                },
                ..plain
            },
            _ => plain,
        }
    }

    /// Whether it is a [`clipped_surrogate`], whose ratios have the bounds of [`PolicySettings::clip`].
    pub fn clips(self) -> bool {
        !matches!(self, Self::Cispo | Self::Sapo)
    }

    /// The ratio of policy and sampling policy: `[rows, tokens]`, or `[rows, 1]` for `gspo` and `rloo`.
    pub fn ratio(self, tokens: &PolicyTokens) -> Tensor<2> {
        let log_ratios = tokens.logps.clone() - tokens.old_logps.clone().detach();
        importance_ratio(match self {
            Self::Gspo => sequence_log_ratios(log_ratios, &tokens.mask),
            Self::Rloo => row_sums(masked(log_ratios, &tokens.mask)).unsqueeze_dim(1),
            _ => log_ratios,
        })
    }

    /// The term of each token, `[rows, tokens]`, or of each row, `[rows, 1]`.
    pub fn terms(
        self,
        tokens: &PolicyTokens,
        ratio: Tensor<2>,
        settings: &PolicySettings,
    ) -> Tensor<2> {
        let advantages = tokens.advantages.clone();
        match self {
            Self::Cispo => cispo(tokens.logps.clone(), ratio, advantages, settings.cispo_cap),
            Self::Sapo => {
                let [positive, negative] = settings.sapo_tau;
                sapo(ratio, advantages, positive, negative)
            }
            _ => clipped_surrogate(ratio, advantages, settings.clip),
        }
    }

    /// How terms become the loss of a batch with so many counted tokens, and what the loss is a mean over: batches of one
    /// update are weighted with it.
    pub fn reduction(
        self,
        rows: usize,
        tokens: usize,
        settings: &PolicySettings,
    ) -> (Reduction, usize) {
        match self {
            Self::Grpo | Self::Gspo | Self::Sapo | Self::Rloo => (Reduction::Grpo, rows),
            Self::Bnpo => (Reduction::Bnpo, rows),
            Self::DrGrpo => {
                let max_completion_length = settings.max_completion_length;
                let reduction = Reduction::DrGrpo {
                    max_completion_length,
                };
                (reduction, rows * max_completion_length)
            }
            Self::Dapo | Self::Cispo => (Reduction::Dapo { tokens }, tokens),
        }
    }

    /// The advantages of completions, group by group.
    ///
    /// # Panics
    ///
    /// If the rewards are not whole groups, or one is not finite.
    pub fn advantages(
        self,
        rewards: &[Option<f64>],
        group_size: usize,
        scaling: Scaling,
    ) -> Vec<f64> {
        match self {
            Self::Rloo => leave_one_out(rewards, group_size),
            _ => group_advantages(rewards, group_size, scaling),
        }
    }
}

impl fmt::Display for PolicyLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PolicyLoss {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|loss| loss.name() == name);
        found.ok_or_else(|| Error::UnknownName {
            kind: "loss of policies",
            name: name.into(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}
