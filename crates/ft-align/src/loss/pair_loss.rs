//! One loss of pairs by name.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Tensor;

use super::{
    FDivergence, PairLogps, aot, aot_unpaired, apo_down, apo_zero, bco_pair, discopop, dpo, exo,
    hinge, ipo, nca, robust_dpo, sft, sigmoid_norm, sppo,
};
use crate::Error;

/// A loss of pairs with a reference, spelled as TRL's `loss_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairLoss {
    /// [`dpo`].
    Sigmoid,
    /// [`hinge`].
    Hinge,
    /// [`ipo`].
    Ipo,
    /// [`exo`].
    ExoPair,
    /// [`nca`].
    NcaPair,
    /// [`robust_dpo`].
    Robust,
    /// [`bco_pair`].
    BcoPair,
    /// [`sppo`].
    SppoHard,
    /// [`aot`].
    Aot,
    /// [`aot_unpaired`].
    AotUnpaired,
    /// [`apo_zero`].
    ApoZero,
    /// [`apo_down`].
    ApoDown,
    /// [`discopop`].
    Discopop,
    /// [`sft`].
    Sft,
    /// [`sigmoid_norm`].
    SigmoidNorm,
}

/// The numbers that losses of pairs need.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairSettings {
    /// β: how strongly the policy is kept near the reference.
    pub beta: f64,
    /// ε: the share of pairs whose labels are swapped. Used by `sigmoid`, `robust`, `exo_pair`, `aot` and
    /// `aot_unpaired`.
    pub label_smoothing: f64,
    /// τ of `discopop`.
    pub discopop_tau: f64,
    /// The divergence from the reference.
    pub f_divergence: FDivergence,
}

impl Default for PairSettings {
    /// TRL's: β 0.1, no label smoothing, τ 0.05, reverse KL.
    fn default() -> Self {
        Self {
            beta: 0.1,
            label_smoothing: 0.0,
            discopop_tau: 0.05,
            f_divergence: FDivergence::ReverseKl,
        }
    }
}

impl PairLoss {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Sigmoid,
        Self::Hinge,
        Self::Ipo,
        Self::ExoPair,
        Self::NcaPair,
        Self::Robust,
        Self::BcoPair,
        Self::SppoHard,
        Self::Aot,
        Self::AotUnpaired,
        Self::ApoZero,
        Self::ApoDown,
        Self::Discopop,
        Self::Sft,
        Self::SigmoidNorm,
    ];

    /// TRL's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sigmoid => "sigmoid",
            Self::Hinge => "hinge",
            Self::Ipo => "ipo",
            Self::ExoPair => "exo_pair",
            Self::NcaPair => "nca_pair",
            Self::Robust => "robust",
            Self::BcoPair => "bco_pair",
            Self::SppoHard => "sppo_hard",
            Self::Aot => "aot",
            Self::AotUnpaired => "aot_unpaired",
            Self::ApoZero => "apo_zero",
            Self::ApoDown => "apo_down",
            Self::Discopop => "discopop",
            Self::Sft => "sft",
            Self::SigmoidNorm => "sigmoid_norm",
        }
    }

    /// The loss of each pair, `[pairs]`, without [`PairLogps::weights`].
    pub fn compute(self, pairs: &PairLogps, settings: &PairSettings) -> Tensor<1> {
        let PairSettings {
            beta,
            label_smoothing,
            discopop_tau,
            f_divergence,
        } = *settings;
        // Losses of rewards take log-ratios, losses of differences the scores of the divergence.
        let chosen = || pairs.chosen_log_ratios();
        let rejected = || pairs.rejected_log_ratios();
        let w = || f_divergence.scores(chosen());
        let l = || f_divergence.scores(rejected());
        let n_w = || pairs.chosen_tokens.clone();
        let n_l = || pairs.rejected_tokens.clone();
        match self {
            Self::Sigmoid => dpo(w(), l(), beta, label_smoothing),
            Self::Hinge => hinge(w(), l(), beta),
            Self::Ipo => ipo(w(), l(), n_w(), n_l(), beta),
            Self::ExoPair => exo(w(), l(), beta, label_smoothing),
            Self::NcaPair => nca(chosen(), rejected(), beta),
            Self::Robust => robust_dpo(w(), l(), beta, label_smoothing),
            Self::BcoPair => bco_pair(chosen(), rejected(), beta),
            Self::SppoHard => sppo(chosen(), rejected(), beta),
            Self::Aot => aot(
                pairs.chosen.clone() - pairs.rejected.clone(),
                pairs.ref_chosen.clone() - pairs.ref_rejected.clone(),
                beta,
                label_smoothing,
            ),
            Self::AotUnpaired => aot_unpaired(chosen(), rejected(), beta, label_smoothing),
            Self::ApoZero => apo_zero(chosen(), rejected(), beta),
            Self::ApoDown => apo_down(chosen(), rejected(), beta),
            Self::Discopop => discopop(w(), l(), beta, discopop_tau),
            Self::Sft => sft(pairs.chosen_nll.clone(), n_w()),
            Self::SigmoidNorm => sigmoid_norm(w(), l(), n_w(), n_l(), beta),
        }
    }

    /// Whether [`PairSettings::label_smoothing`] has an effect.
    pub fn smooths_labels(self) -> bool {
        matches!(
            self,
            Self::Sigmoid | Self::Aot | Self::AotUnpaired | Self::Robust | Self::ExoPair
        )
    }

    /// What is wrong with the settings for this loss.
    pub(crate) fn mistakes(self, settings: &PairSettings, weighted: bool) -> Vec<String> {
        let mut mistakes = Vec::new();
        let smoothing = settings.label_smoothing;
        let positive = |number: f64| number > 0.0 && number.is_finite();
        match self {
            Self::ExoPair if smoothing <= 0.0 => mistakes.push(
                "exo_pair needs a label_smoothing greater than 0: use 0.001, as the paper's code does"
                    .to_string(),
            ),
            _ if self.smooths_labels() && !(0.0..0.5).contains(&smoothing) => mistakes.push(format!(
                "the label_smoothing of {self} must be at least 0 and less than 0.5, not {smoothing}"
            )),
            _ => {}
        }
        if self != Self::Sft && !positive(settings.beta) {
            mistakes.push(format!(
                "the beta of {self} must be a positive number, not {}: use 0.1",
                settings.beta
            ));
        }
        if self == Self::Discopop && !positive(settings.discopop_tau) {
            mistakes.push(format!(
                "discopop_tau must be positive, not {}: use 0.05",
                settings.discopop_tau
            ));
        }
        let rewards = matches!(
            self,
            Self::NcaPair
                | Self::BcoPair
                | Self::SppoHard
                | Self::Aot
                | Self::AotUnpaired
                | Self::ApoZero
                | Self::ApoDown
        );
        if rewards && settings.f_divergence != FDivergence::ReverseKl {
            mistakes.push(format!(
                "{self} is not defined for the divergence {}: use reverse_kl, or another loss",
                settings.f_divergence
            ));
        }
        if weighted && matches!(self, Self::Aot | Self::AotUnpaired) {
            mistakes.push(format!(
                "{self} sorts the batch, so that its entries are not pairs that weights belong to: leave out the \
                 weights, or use another loss"
            ));
        }
        mistakes
    }
}

impl fmt::Display for PairLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PairLoss {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|loss| loss.name() == name);
        found.ok_or_else(|| Error::UnknownName {
            kind: "loss of pairs",
            name: name.into(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}
