//! How rotary frequencies are stretched, in the keys of transformers.

use serde::{Deserialize, Serialize};

/// How rotary frequencies are stretched for contexts longer than those of pretraining.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    Default,
    /// Every frequency divided by `factor`.
    Linear {
        /// How many times longer the context is.
        factor: f64,
    },
    /// Every pass beyond the context of pretraining gets a larger base, by the longest position of that pass.
    Dynamic {
        /// How many times longer the context is.
        factor: f64,
        /// Context of pretraining, in tokens: `max_position_embeddings` of the file.
        #[serde(skip_serializing)]
        original_max_position_embeddings: usize,
    },
    /// LongRoPE: every frequency divided by a factor of its own, of one list within the context of pretraining and of
    /// another beyond it.
    LongRope {
        /// How many times longer the context is; for the attention factor.
        factor: f64,
        /// Context of pretraining, in tokens.
        original_max_position_embeddings: usize,
        /// Divisors in passes whose longest position is within the context of pretraining.
        short_factor: Vec<f64>,
        /// Divisors in all other passes.
        long_factor: Vec<f64>,
        /// Factor on cosine and sine; computed from `factor` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attention_factor: Option<f64>,
    },
    /// Llama 3.1's smooth step between kept and divided frequencies.
    Llama3 {
        /// How many times longer the context is.
        factor: f64,
        /// Waves with fewer rotations over the original context are divided by `factor`.
        low_freq_factor: f64,
        /// Waves with more rotations over the original context are kept.
        high_freq_factor: f64,
        /// Context of pretraining, in tokens.
        original_max_position_embeddings: usize,
    },
    /// YaRN.
    Yarn {
        /// How many times longer the context is.
        factor: f64,
        /// Context of pretraining, in tokens.
        original_max_position_embeddings: usize,
        /// Waves with more rotations than this are kept.
        #[serde(default = "beta_fast")]
        beta_fast: f64,
        /// Waves with fewer rotations than this are divided by `factor`.
        #[serde(default = "beta_slow")]
        beta_slow: f64,
        /// Factor on the attention logits' square root; computed from `factor` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attention_factor: Option<f64>,
        /// DeepSeek's refinement of the attention factor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mscale: Option<f64>,
        /// The same, over all dimensions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mscale_all_dim: Option<f64>,
        /// Whether the bounds between kept and divided dimensions are rounded outwards.
        #[serde(default = "truncate")]
        truncate: bool,
    },
}

impl RopeScaling {
    /// The longest sequence of a model whose file says `max_position_embeddings`: with dynamic scaling the key is the
    /// context of pretraining, and the model is made for `factor` times as much.
    pub(crate) fn longest(&self, max_position_embeddings: usize) -> usize {
        match self {
            Self::Dynamic { factor, .. } => {
                (max_position_embeddings as f64 * factor.max(1.0)) as usize
            }
            _ => max_position_embeddings,
        }
    }

    /// Settings that would make infinite or meaningless frequencies of `rotated` features a head.
    pub(crate) fn mistakes(&self, rotated: usize) -> Vec<String> {
        let mut mistakes = Vec::new();
        if rotated == 0 || !rotated.is_multiple_of(2) {
            mistakes.push(format!(
                "{rotated} features of a head rotate: head_dim times partial_rotary_factor must be even and above 0"
            ));
        }
        if let Some(factor) = self.factor()
            && !(factor > 0.0 && factor.is_finite())
        {
            mistakes.push(format!("rope_scaling factor must be above 0, not {factor}"));
        }
        if matches!(self, Self::LongRope { .. }) && self.original_context() == Some(1) {
            mistakes.push(
                "rope_scaling original_max_position_embeddings must be above 1 for longrope".into(),
            );
        }
        if let Self::LongRope {
            attention_factor: Some(factor),
            ..
        }
        | Self::Yarn {
            attention_factor: Some(factor),
            ..
        } = self
            && !(*factor > 0.0 && factor.is_finite())
        {
            mistakes.push(format!(
                "rope_scaling attention_factor must be above 0, not {factor}"
            ));
        }
        if self.original_context() == Some(0) {
            mistakes.push("rope_scaling original_max_position_embeddings must be above 0".into());
        }
        match self {
            Self::Llama3 {
                low_freq_factor: low,
                high_freq_factor: high,
                ..
            } if *low <= 0.0 || high <= low => mistakes.push(format!(
                "rope_scaling high_freq_factor {high} must be above low_freq_factor {low}, and that above 0"
            )),
            Self::Yarn {
                beta_fast,
                beta_slow,
                ..
            } if *beta_slow <= 0.0 || *beta_fast <= 0.0 => mistakes.push(format!(
                "rope_scaling beta_fast {beta_fast} and beta_slow {beta_slow} must be above 0"
            )),
            Self::Dynamic { .. } if rotated == 2 => {
                mistakes.push("rope_scaling of type dynamic needs more than 2 rotated features".into());
            }
            Self::LongRope {
                short_factor,
                long_factor,
                ..
            } => {
                for (name, factors) in [("short_factor", short_factor), ("long_factor", long_factor)] {
                    if factors.len() != rotated / 2 {
                        mistakes.push(format!(
                            "rope_scaling {name} has {} numbers, but {rotated} rotated features of a head need {}",
                            factors.len(),
                            rotated / 2
                        ));
                    }
                    if let Some(factor) = factors.iter().find(|f| !(**f > 0.0 && f.is_finite())) {
                        mistakes.push(format!(
                            "every number of rope_scaling {name} must be above 0, not {factor}"
                        ));
                    }
                }
            }
            _ => {}
        }
        mistakes
    }

    fn factor(&self) -> Option<f64> {
        match self {
            Self::Default => None,
            Self::Linear { factor }
            | Self::Dynamic { factor, .. }
            | Self::LongRope { factor, .. }
            | Self::Llama3 { factor, .. }
            | Self::Yarn { factor, .. } => Some(*factor),
        }
    }

    /// The context of pretraining, in tokens.
    pub(crate) fn original_context(&self) -> Option<usize> {
        match self {
            Self::Default | Self::Linear { .. } => None,
            Self::Dynamic {
                original_max_position_embeddings: context,
                ..
            }
            | Self::LongRope {
                original_max_position_embeddings: context,
                ..
            }
            | Self::Llama3 {
                original_max_position_embeddings: context,
                ..
            }
            | Self::Yarn {
                original_max_position_embeddings: context,
                ..
            } => Some(*context),
        }
    }
}

fn beta_fast() -> f64 {
    32.0
}

fn beta_slow() -> f64 {
    1.0
}

fn truncate() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_factors_fit_the_rotated_features() {
        let scaling = RopeScaling::LongRope {
            factor: 2.0,
            original_max_position_embeddings: 4,
            short_factor: vec![1.0; 3],
            long_factor: vec![1.0, 0.0],
            attention_factor: None,
        };
        let mistakes = scaling.mistakes(6).join("; ");
        for expected in ["long_factor has 2 numbers", "above 0, not 0"] {
            assert!(mistakes.contains(expected), "{mistakes}");
        }
        assert!(!mistakes.contains("short_factor"), "{mistakes}");
    }
}
