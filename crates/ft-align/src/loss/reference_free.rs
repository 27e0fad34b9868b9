//! One loss of pairs without a reference by name.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Tensor;

use super::{alphapo, cpo, hinge, ipo, orpo, simpo};
use crate::{Error, Result};

/// A loss of pairs that needs no reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceFreeLoss {
    /// [`orpo`]: of mean log-probabilities, with the likelihood of prompt and chosen answer.
    Orpo,
    /// [`cpo`]: of summed log-probabilities.
    Cpo,
    /// [`hinge`] of summed log-probabilities: `loss_type="hinge"` of TRL's CPO (SLiC).
    CpoHinge,
    /// [`ipo`] of mean log-probabilities: `loss_type="ipo"` of TRL's CPO.
    CpoIpo,
    /// [`simpo`]: of mean log-probabilities.
    Simpo,
    /// [`alphapo`]: of mean log-probabilities.
    Alphapo,
}

/// The numbers of losses without a reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReferenceFreeSettings {
    /// β; λ in ORPO's paper.
    pub beta: f64,
    /// γ, the target margin of `simpo` and `alphapo`.
    pub gamma: f64,
    /// α, the shape of `alphapo`'s rewards.
    pub alpha: f64,
    /// ε: the share of pairs whose labels are swapped. Used by `cpo`, `simpo` and `alphapo`.
    pub label_smoothing: f64,
    /// The weight of the negative log-likelihood of the chosen answers, a mean over tokens.
    pub nll_weight: f64,
}

/// Log-probabilities of pairs under the policy, `[pairs]` each.
#[derive(Clone, Debug)]
pub struct PolicyLogps {
    /// Summed, of the chosen answers.
    pub chosen: Tensor<1>,
    /// Summed, of the rejected answers.
    pub rejected: Tensor<1>,
    /// Tokens of the chosen answers.
    pub chosen_tokens: Tensor<1>,
    /// Tokens of the rejected answers.
    pub rejected_tokens: Tensor<1>,
}

impl ReferenceFreeLoss {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Orpo,
        Self::Cpo,
        Self::CpoHinge,
        Self::CpoIpo,
        Self::Simpo,
        Self::Alphapo,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Orpo => "orpo",
            Self::Cpo => "cpo",
            Self::CpoHinge => "cpo_hinge",
            Self::CpoIpo => "cpo_ipo",
            Self::Simpo => "simpo",
            Self::Alphapo => "alphapo",
        }
    }

    /// The settings that its paper or TRL starts from.
    pub fn settings(self) -> ReferenceFreeSettings {
        let plain = ReferenceFreeSettings {
            beta: 0.1,
            gamma: 0.0,
            alpha: 0.0,
            label_smoothing: 0.0,
            nll_weight: 1.0,
        };
        match self {
            Self::Orpo | Self::Cpo | Self::CpoHinge | Self::CpoIpo => plain,
            Self::Simpo => ReferenceFreeSettings {
                beta: 2.5,
                gamma: 1.375,
                nll_weight: 0.0,
                ..plain
            },
            Self::Alphapo => ReferenceFreeSettings {
                beta: 2.5,
                gamma: 0.25,
                alpha: 0.25,
                nll_weight: 0.0,
                ..plain
            },
        }
    }

    /// Whether it takes means over tokens instead of sums.
    pub fn is_of_means(self) -> bool {
        matches!(
            self,
            Self::Orpo | Self::CpoIpo | Self::Simpo | Self::Alphapo
        )
    }

    /// Whether its likelihood is also that of the prompt.
    pub fn learns_prompts(self) -> bool {
        self == Self::Orpo
    }

    /// The loss of each pair without the likelihood, `[pairs]`.
    pub fn compute(self, pairs: &PolicyLogps, settings: &ReferenceFreeSettings) -> Tensor<1> {
        let ReferenceFreeSettings {
            beta,
            gamma,
            alpha,
            label_smoothing,
            ..
        } = *settings;
        let sums = || (pairs.chosen.clone(), pairs.rejected.clone());
        let [chosen, rejected] = pairs.means();
        match self {
            Self::Orpo => orpo(chosen, rejected, beta),
            Self::Cpo => cpo(sums().0, sums().1, beta, label_smoothing),
            Self::CpoHinge => hinge(sums().0, sums().1, beta),
            Self::CpoIpo => {
                let (n_w, n_l) = (pairs.chosen_tokens.clone(), pairs.rejected_tokens.clone());
                ipo(sums().0, sums().1, n_w, n_l, beta)
            }
            Self::Simpo => simpo(chosen, rejected, beta, gamma, label_smoothing),
            Self::Alphapo => alphapo(chosen, rejected, alpha, beta, gamma, label_smoothing),
        }
    }

    /// Checks all settings.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with all mistakes.
    pub fn check(self, settings: &ReferenceFreeSettings) -> Result<()> {
        let mut mistakes = Vec::new();
        if !(settings.beta > 0.0 && settings.beta.is_finite()) {
            mistakes.push(format!(
                "the beta of {self} must be a positive number, not {}: use {}",
                settings.beta,
                self.settings().beta
            ));
        }
        if !(0.0..0.5).contains(&settings.label_smoothing) {
            mistakes.push(format!(
                "the label_smoothing must be at least 0 and less than 0.5, not {}",
                settings.label_smoothing
            ));
        }
        let smooths = matches!(self, Self::Cpo | Self::Simpo | Self::Alphapo);
        let has_margin = matches!(self, Self::Simpo | Self::Alphapo);
        for (name, value, has_effect) in [
            ("gamma", settings.gamma, has_margin),
            ("alpha", settings.alpha, self == Self::Alphapo),
            ("label_smoothing", settings.label_smoothing, smooths),
        ] {
            if !value.is_finite() {
                mistakes.push(format!("{name} must be a number, not {value}"));
            } else if value != 0.0 && !has_effect {
                mistakes.push(format!("{name} has no effect on {self}: leave it out"));
            }
        }
        if !(settings.nll_weight >= 0.0 && settings.nll_weight.is_finite()) {
            mistakes.push(format!(
                "the weight of the likelihood must be 0 or more, not {}",
                settings.nll_weight
            ));
        }
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(Error::Settings(mistakes)),
        }
    }
}

impl PolicyLogps {
    /// Mean log-probabilities of the chosen and the rejected answers' tokens; those of an answer without tokens are 0.
    pub fn means(&self) -> [Tensor<1>; 2] {
        let mean =
            |sums: &Tensor<1>, tokens: &Tensor<1>| sums.clone() / tokens.clone().clamp_min(1.0);
        [
            mean(&self.chosen, &self.chosen_tokens),
            mean(&self.rejected, &self.rejected_tokens),
        ]
    }
}

impl fmt::Display for ReferenceFreeLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ReferenceFreeLoss {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|loss| loss.name() == name);
        found.ok_or_else(|| Error::UnknownName {
            kind: "loss without a reference",
            name: name.into(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}
