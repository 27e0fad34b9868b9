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
    /// Settings that would make infinite or meaningless frequencies.
    pub(super) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if let Self::Linear { factor } | Self::Llama3 { factor, .. } | Self::Yarn { factor, .. } =
            self
            && !(*factor > 0.0 && factor.is_finite())
        {
            mistakes.push(format!("rope_scaling factor must be above 0, not {factor}"));
        }
        if let Self::Llama3 {
            original_max_position_embeddings,
            ..
        }
        | Self::Yarn {
            original_max_position_embeddings,
            ..
        } = self
            && *original_max_position_embeddings == 0
        {
            mistakes.push("rope_scaling original_max_position_embeddings must be above 0".into());
        }
        if let Self::Llama3 {
            low_freq_factor: low,
            high_freq_factor: high,
            ..
        } = self
            && (*low <= 0.0 || high <= low)
        {
            mistakes.push(format!(
                "rope_scaling high_freq_factor {high} must be above low_freq_factor {low}, and that above 0"
            ));
        }
        mistakes
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

/// Brings the rotary settings of a `config.json` into one form, whichever transformers wrote it: `rope_theta`, and
/// `rope_scaling` with its type and all that it needs.
pub(super) fn take(config: &mut Map<String, Value>, default_theta: f64) -> Result<()> {
    normalize(config, default_theta).map_err(Error::Settings)
}

fn normalize(config: &mut Map<String, Value>, default_theta: f64) -> Result<(), String> {
    let old_theta = config.remove("rope_theta");
    let old = config.remove("rope_scaling");
    let given = |value: Option<Value>| value.filter(|value| !value.is_null());
    let scaling = match (given(config.remove("rope_parameters")), given(old)) {
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
    let theta = match scaling.remove("rope_theta").or(old_theta) {
        None | Some(Value::Null) => default_theta,
        Some(value) => value
            .as_f64()
            .filter(|theta| *theta > 0.0)
            .ok_or_else(|| format!("rope_theta must be a positive number, not {value}"))?,
    };
    if let Some(old_name) = scaling.remove("type") {
        scaling.entry("rope_type").or_insert(old_name);
    }
    let kind = scaling
        .entry("rope_type")
        .or_insert(json!("default"))
        .clone();
    if let Some(part) = scaling.remove("partial_rotary_factor")
        && part.as_f64() != Some(1.0)
    {
        return Err(format!("partial_rotary_factor {part} is not supported"));
    }
    if kind == "yarn"
        && !scaling.contains_key("original_max_position_embeddings")
        && let Some(context) = config.get("max_position_embeddings")
    {
        scaling.insert("original_max_position_embeddings".into(), context.clone());
    }
    let known = ["default", "linear", "llama3", "yarn"];
    if !known.iter().any(|name| kind == *name) {
        return Err(format!(
            "rope_type {kind} is not supported; it must be one of {}",
            known.join(", ")
        ));
    }
    let scaling = Value::Object(scaling);
    RopeScaling::deserialize(&scaling).map_err(|e| format!("rope_scaling of type {kind}: {e}"))?;
    config.insert("rope_theta".into(), theta.into());
    config.insert("rope_scaling".into(), scaling);
    Ok(())
}
