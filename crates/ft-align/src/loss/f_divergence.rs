//! Divergences other than the reverse KL between policy and reference.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{Tensor, activation::log_sigmoid};

use super::box_cox::box_cox;
use crate::Error;

/// Which divergence keeps the policy near the reference: how a log-ratio becomes a score.
///
/// Table 1 of Wang et al., 2023 (f-DPO, arXiv:2309.16240): the score is `f'(t)` at the ratio `t = eᵘ`, up to a constant
/// that cancels in differences. TRL's names: `reverse_kl`, `forward_kl`, `js_divergence`, `alpha_divergence`, the last
/// one
/// with its coefficient after a colon (`alpha_divergence:0.5`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum FDivergence {
    /// `u`: DPO.
    #[default]
    ReverseKl,
    /// `1 − e⁻ᵘ`.
    ForwardKl,
    /// Jensen-Shannon: `ln 2 + ln σ(u)`.
    Js,
    /// `(e^{(α − 1)u} − 1)/(α − 1)`; 0 is the forward KL, 1 the reverse KL.
    Alpha(f64),
}

/// TRL's `f_alpha_divergence_coef`.
const DEFAULT_ALPHA: f64 = 0.5;

impl FDivergence {
    /// The scores of log-ratios, which take their place in [`dpo`](super::dpo()) and others.
    ///
    /// # Shapes
    ///
    /// - `log_ratios` and result: `[pairs]`
    pub fn scores(self, log_ratios: Tensor<1>) -> Tensor<1> {
        match self {
            Self::ReverseKl => log_ratios,
            Self::ForwardKl => box_cox(log_ratios, -1.0),
            Self::Js => log_sigmoid(log_ratios) + std::f64::consts::LN_2,
            Self::Alpha(alpha) => box_cox(log_ratios, alpha - 1.0),
        }
    }
}

impl fmt::Display for FDivergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReverseKl => f.write_str("reverse_kl"),
            Self::ForwardKl => f.write_str("forward_kl"),
            Self::Js => f.write_str("js_divergence"),
            Self::Alpha(alpha) => write!(f, "alpha_divergence:{alpha}"),
        }
    }
}

impl FromStr for FDivergence {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, Some(number)),
            None => (text, None),
        };
        let divergence = match name {
            "reverse_kl" => Self::ReverseKl,
            "forward_kl" => Self::ForwardKl,
            "js_divergence" => Self::Js,
            "alpha_divergence" => {
                let alpha = number.map_or(Ok(DEFAULT_ALPHA), str::parse::<f64>);
                return match alpha {
                    Ok(alpha) if alpha.is_finite() => Ok(Self::Alpha(alpha)),
                    _ => Err(Error::Number {
                        text: text.into(),
                        reason: "the coefficient after the colon must be a finite number".into(),
                    }),
                };
            }
            _ => {
                return Err(Error::UnknownName {
                    kind: "divergence",
                    name: name.into(),
                    known: "reverse_kl, forward_kl, js_divergence, alpha_divergence or \
                            alpha_divergence:NUMBER"
                        .into(),
                });
            }
        };
        match number {
            None => Ok(divergence),
            Some(_) => Err(Error::Number {
                text: text.into(),
                reason:
                    "only alpha_divergence has a coefficient: remove the colon and what follows"
                        .into(),
            }),
        }
    }
}
