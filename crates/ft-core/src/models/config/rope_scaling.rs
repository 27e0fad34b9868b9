//! `rope_scaling` (transformers 4) and `rope_parameters` (transformers 5).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Error, Result};

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
    pub(super) fn longest(&self, max_position_embeddings: usize) -> usize {
        match self {
            Self::Dynamic { factor, .. } => {
                (max_position_embeddings as f64 * factor.max(1.0)) as usize
            }
            _ => max_position_embeddings,
        }
    }

    /// Settings that would make infinite or meaningless frequencies of `rotated` features a head.
    pub(super) fn mistakes(&self, rotated: usize) -> Vec<String> {
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
    pub(super) fn original_context(&self) -> Option<usize> {
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

/// How many features of a head of `head_dim` features rotate.
pub(super) fn rotated(head_dim: usize, partial_rotary_factor: f64) -> usize {
    (head_dim as f64 * partial_rotary_factor) as usize
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

/// Brings the rotary settings of a `config.json` into one form, whichever transformers wrote it: `rope_theta`, and
/// `rope_scaling` with its type and all that it needs. For families that rotate whole heads.
pub(super) fn take(config: &mut Map<String, Value>, default_theta: f64) -> Result<()> {
    take_partial(config, default_theta, 1.0)?;
    match config.remove("partial_rotary_factor") {
        Some(part) if part != 1.0 => Err(Error::Settings(format!(
            "partial_rotary_factor {part} is not supported by this model_type, whose heads rotate whole"
        ))),
        _ => Ok(()),
    }
}

/// [`take`] for families that rotate a part of each head; adds `partial_rotary_factor`.
pub(super) fn take_partial(
    config: &mut Map<String, Value>,
    default_theta: f64,
    default_part: f64,
) -> Result<()> {
    normalize(config, default_theta, default_part).map_err(Error::Settings)
}

fn normalize(
    config: &mut Map<String, Value>,
    default_theta: f64,
    default_part: f64,
) -> Result<(), String> {
    let mut scaling = scaling_of(config)?;
    // Settings within the scaling take precedence.
    let mut either = |key: &str, default: f64| {
        let outside = config.remove(key).filter(|value| !value.is_null());
        match scaling.remove(key).or(outside) {
            None => Ok(default),
            Some(value) => (value.as_f64().filter(|number| *number > 0.0))
                .ok_or_else(|| format!("{key} must be a positive number, not {value}")),
        }
    };
    let theta = either("rope_theta", default_theta)?;
    let part = either("partial_rotary_factor", default_part)?;
    if part > 1.0 {
        return Err(format!(
            "partial_rotary_factor must be at most 1, not {part}"
        ));
    }
    if let Some(old_name) = scaling.remove("type") {
        scaling.entry("rope_type").or_insert(old_name);
    }
    let kind = scaling
        .entry("rope_type")
        .or_insert(json!("default"))
        .clone();
    let known = ["default", "linear", "dynamic", "longrope", "llama3", "yarn"];
    let Some(kind) = known.into_iter().find(|name| kind == *name) else {
        return Err(format!(
            "rope_type {kind} is not supported; it must be one of {}",
            known.join(", ")
        ));
    };
    complete(kind, &mut scaling, config);
    let scaling = Value::Object(scaling);
    RopeScaling::deserialize(&scaling).map_err(|e| format!("rope_scaling of type {kind}: {e}"))?;
    config.insert("rope_theta".into(), theta.into());
    config.insert("partial_rotary_factor".into(), part.into());
    config.insert("rope_scaling".into(), scaling);
    Ok(())
}

/// The one of `rope_parameters` and `rope_scaling` that is given, without keys that are null.
fn scaling_of(config: &mut Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut given = |key| config.remove(key).filter(|value| !value.is_null());
    let scaling = match (given("rope_parameters"), given("rope_scaling")) {
        (Some(new), Some(old)) if new != old => {
            return Err("rope_parameters and rope_scaling are both given: keep one".into());
        }
        (new, old) => new.or(old),
    };
    let mut scaling = match scaling {
        None => Map::new(),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(format!("rope_scaling must be an object, not {other}")),
    };
    scaling.retain(|_, value| !value.is_null());
    match scaling.iter().find(|(_, value)| value.is_object()) {
        Some((layers, _)) => Err(format!(
            "rope_parameters of their own for {layers} are not supported by this model_type"
        )),
        None => Ok(scaling),
    }
}

/// Adds what `kind` needs and the file says elsewhere, as transformers does.
fn complete(kind: &str, scaling: &mut Map<String, Value>, config: &mut Map<String, Value>) {
    const ORIGINAL: &str = "original_max_position_embeddings";
    let longest = config.get("max_position_embeddings").cloned();
    match kind {
        // For these types the key beside the scaling takes precedence.
        "llama3" | "yarn" | "longrope" => {
            if let Some(context) = config.remove(ORIGINAL).filter(|value| !value.is_null()) {
                scaling.insert(ORIGINAL.into(), context);
            } else if let Some(context) = &longest {
                scaling.entry(ORIGINAL).or_insert_with(|| context.clone());
            }
        }
        "dynamic" => {
            if let Some(context) = &longest {
                scaling.insert(ORIGINAL.into(), context.clone());
            }
        }
        _ => {}
    }
    let number = |value: Option<&Value>| value.and_then(Value::as_f64);
    if matches!(kind, "yarn" | "longrope")
        && !scaling.contains_key("factor")
        && let (Some(longest), Some(original)) =
            (number(longest.as_ref()), number(scaling.get(ORIGINAL)))
    {
        scaling.insert("factor".into(), (longest / original).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: Value) -> Result<(f64, f64, RopeScaling), String> {
        let mut config = json.as_object().expect("an object").clone();
        normalize(&mut config, 10_000.0, 0.5)?;
        let number = |key: &str| config[key].as_f64().expect("a number");
        let scaling = RopeScaling::deserialize(&config["rope_scaling"]).expect("checked");
        Ok((
            number("rope_theta"),
            number("partial_rotary_factor"),
            scaling,
        ))
    }

    #[test]
    fn settings_mean_the_same_beside_the_scaling_and_within() {
        let beside = json!({
            "max_position_embeddings": 64, "original_max_position_embeddings": 16, "rope_theta": 100.0,
            "partial_rotary_factor": 0.25, "rope_scaling": {"type": "yarn", "beta_fast": null},
        });
        let within = json!({
            "max_position_embeddings": 64, "rope_parameters": {"rope_type": "yarn", "factor": 4.0,
            "original_max_position_embeddings": 16, "rope_theta": 100.0, "partial_rotary_factor": 0.25},
        });
        let beside = read(beside).expect("valid");
        assert_eq!((beside.0, beside.1), (100.0, 0.25));
        assert_eq!(beside.2.original_context(), Some(16));
        assert_eq!(beside, read(within).expect("valid"));
    }

    #[test]
    fn what_is_absent_is_the_default_of_the_family() {
        let found = read(json!({"rope_scaling": null})).expect("valid");
        assert_eq!(found, (10_000.0, 0.5, RopeScaling::Default));
    }

    #[test]
    fn settings_that_would_be_lost_are_refused() {
        for (settings, expected) in [
            (
                json!({"full_attention": {"rope_type": "yarn"}}),
                "full_attention",
            ),
            (json!({"rope_type": "proportional"}), "proportional"),
            (json!({"partial_rotary_factor": 1.5}), "at most 1"),
        ] {
            let error = read(json!({"rope_parameters": settings})).expect_err("refused");
            assert!(error.contains(expected), "{error}");
        }
        let mut config = Map::new();
        config.insert("partial_rotary_factor".into(), json!(0.5));
        let error = take(&mut config, 1.0).expect_err("refused").to_string();
        assert!(error.contains("partial_rotary_factor 0.5"), "{error}");
    }

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
