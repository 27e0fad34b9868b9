//! LoRA: Low-Rank Adaptation of Large Language Models (Hu et al., 2021, arXiv:2106.09685), equation 3:
//! `h = W₀x + s·B(Ax)`, with `s = α/r`, or `α/√r` for rank-stabilised LoRA (Kalajdzievski, 2023, arXiv:2312.03732).
//!
//! It acts on activations: neither the sum `W₀ + sBA` nor its gradient, both the size of `W₀`, exists while training.

use burn::tensor::Tensor;
use ft_core::layers::{AdapterKind, AdapterTensor, At, LowRank, Merged};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::adapter_config::json_settings;
use crate::common::{Common, Pattern, pattern};
use crate::method::{Draw, Method, New, Site, method};
use crate::targets::ends_with_pattern;
use crate::{Result, TargetModules};

/// How the factors are initialized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitLoraWeights {
    /// `A` uniform in `±1/√in_features` (Kaiming with a = √5), `B` zero: PEFT's default.
    #[default]
    Kaiming,
    /// `A` normal with standard deviation `1/r`, `B` zero.
    Gaussian,
}

impl Serialize for InitLoraWeights {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Kaiming => serializer.serialize_bool(true),
            Self::Gaussian => serializer.serialize_str("gaussian"),
        }
    }
}

/// Most ways to begin are history once the adapter is saved, but some took the first factors out of the base weights, so
/// that the adapter is of use only on a base changed in the same way.
impl<'de> Deserialize<'de> for InitLoraWeights {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = match Value::deserialize(deserializer)? {
            Value::Bool(_) => return Ok(Self::Kaiming),
            Value::String(name) => name.to_ascii_lowercase(),
            other => {
                let message = format!("must be true, false or a name, not {other}");
                return Err(serde::de::Error::custom(message));
            }
        };
        match name.as_str() {
            "gaussian" => Ok(Self::Gaussian),
            "eva" | "mica" | "orthogonal" => Ok(Self::Kaiming),
            _ => Err(serde::de::Error::custom(
                "it is not supported: the adapter may need a changed base. Save it from PEFT with \
                 path_initial_model_for_weight_conversion",
            )),
        }
    }
}

/// Settings of a LoRA adapter (Hu et al., 2021, arXiv:2106.09685).
///
/// The defaults are PEFT's, except `target_modules`, which are all linear layers.
///
/// ```
/// let json = serde_json::json!({"r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"]});
/// let config = ft_peft::LoraConfig::from_settings(&json)?;
/// assert_eq!((config.r, config.lora_dropout), (16, 0.0));
/// # Ok::<(), ft_peft::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoraConfig {
    /// Rank of the factors.
    pub r: usize,
    /// The adapter's output is scaled by `lora_alpha / r`.
    pub lora_alpha: f64,
    /// Dropout on the adapter's input while training.
    pub lora_dropout: f64,
    /// Scale by `lora_alpha / √r` instead (Kalajdzievski, 2023, arXiv:2312.03732).
    pub use_rslora: bool,
    /// How the factors are initialized.
    pub init_lora_weights: InitLoraWeights,
    /// Ranks of layers that differ.
    #[serde(with = "pattern")]
    pub rank_pattern: Pattern<usize>,
    /// Alphas of layers that differ.
    #[serde(with = "pattern")]
    pub alpha_pattern: Pattern<f64>,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            use_rslora: false,
            init_lora_weights: InitLoraWeights::default(),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            common: Common {
                target_modules: Some(TargetModules::all_linear()),
                ..Common::default()
            },
        }
    }
}

json_settings!(LoraConfig);

impl LoraConfig {
    /// The rank of the layer at `path`.
    pub(crate) fn rank_of(&self, path: &str) -> usize {
        exception(&self.rank_pattern, path).unwrap_or(self.r)
    }

    /// `α/r`, or `α/√r` with rank stabilisation, of the layer at `path`.
    pub(crate) fn scaling_of(&self, path: &str) -> f64 {
        let alpha = exception(&self.alpha_pattern, path).unwrap_or(self.lora_alpha);
        let r = self.rank_of(path) as f64;
        alpha / if self.use_rslora { r.sqrt() } else { r }
    }
}

/// The value of the first pattern that matches the end of `path`.
pub(crate) fn exception<T: Copy>(patterns: &[(String, T)], path: &str) -> Option<T> {
    patterns
        .iter()
        .find(|(pattern, _)| ends_with_pattern(pattern).is_ok_and(|regex| regex.is_match(path)))
        .map(|(_, value)| *value)
}

impl Method for LoraConfig {
    method!("LORA");

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let ranks = self.rank_pattern.iter().map(|(_, r)| r).chain([&self.r]);
        if ranks.into_iter().any(|r| *r == 0) {
            mistakes.push("r must be at least 1".to_string());
        }
        let alphas = self.alpha_pattern.iter().map(|(_, a)| a);
        for alpha in alphas.chain([&self.lora_alpha]) {
            if !alpha.is_finite() || *alpha <= 0.0 {
                mistakes.push(format!("lora_alpha must be above 0, not {alpha}"));
            }
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            mistakes.push(format!(
                "lora_dropout must be at least 0 and below 1, not {}",
                self.lora_dropout
            ));
        }
        mistakes
    }

    fn patterns(&self) -> Vec<(&'static str, &str)> {
        let ranks = self.rank_pattern.iter().map(|(name, _)| ("rank_pattern", name.as_str()));
        let alphas = self.alpha_pattern.iter().map(|(name, _)| ("alpha_pattern", name.as_str()));
        ranks.chain(alphas).collect()
    }

    fn fixed(&self) -> Value {
        json!({
            "alora_invocation_tokens": null,
            "arrow_config": null,
            "corda_config": null,
            "ensure_weight_tying": false,
            "eva_config": null,
            "kasa_config": null,
            "layer_replication": null,
            "loftq_config": {},
            "lora_bias": false,
            "lora_ga_config": null,
            "megatron_config": null,
            "megatron_core": "megatron.core",
            "monteclora_config": null,
            "qalora_group_size": 16,
            "target_parameters": null,
            "trainable_token_indices": null,
            "use_bdlora": null,
            "use_dora": false,
            "use_qalora": false,
            "velora_config": null,
        })
    }

    fn tells_layout(&self) -> bool {
        true
    }

    fn bias_only(&self) -> Option<&'static str> {
        Some("lora_only")
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<New> {
        let linear = site.linear()?;
        let r = self.rank_of(site.path);
        let (inputs, outputs) = (linear.in_features(), linear.out_features());
        let a = match self.init_lora_weights {
            InitLoraWeights::Kaiming => draw.uniform([r, inputs], 1.0 / (inputs as f64).sqrt()),
            InitLoraWeights::Gaussian => draw.normal([r, inputs], 1.0 / r as f64),
        };
        let tensors = vec![
            AdapterTensor::new(A, a),
            AdapterTensor::new(B, draw.zeros([outputs, r])),
        ];
        let kind = Lora {
            scaling: self.scaling_of(site.path),
        };
        Ok(New {
            dropout: self.lora_dropout,
            ..New::new(kind, tensors)
        })
    }
}

/// `[r, in_features]`.
pub(crate) const A: &str = "lora_A.weight";
/// `[out_features, r]`.
pub(crate) const B: &str = "lora_B.weight";

/// `s·B(Ax)`, added to the product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lora {
    /// `s`.
    scaling: f64,
}

impl AdapterKind for Lora {
    fn low_rank(&self, at: &At<'_>, x: &Tensor<2>) -> Option<LowRank> {
        (!at.adapter.drops_out(x)).then(|| LowRank {
            a: at.adapter.val2(A),
            b: at.adapter.val2(B),
            scale: self.scaling,
        })
    }

    fn product(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        if at.fused {
            return y;
        }
        let x = at.adapter.dropout.forward(x.clone());
        let low = x.matmul(at.adapter.val2(A).transpose());
        y + low.matmul(at.adapter.val2(B).transpose()) * self.scaling
    }

    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        let delta = at.adapter.val2(B).matmul(at.adapter.val2(A)) * self.scaling;
        Some(Merged {
            weight: merged.weight + delta,
            ..merged
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_is_alpha_over_r_or_over_its_root() {
        let mut config = LoraConfig {
            r: 16,
            lora_alpha: 32.0,
            rank_pattern: vec![("up_proj".into(), 4)],
            ..LoraConfig::default()
        };
        assert_eq!(config.scaling_of("a.q_proj"), 2.0);
        assert_eq!(config.scaling_of("a.up_proj"), 8.0);
        config.use_rslora = true;
        assert_eq!(config.scaling_of("a.q_proj"), 8.0);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let config = LoraConfig {
            r: 0,
            lora_alpha: -1.0,
            lora_dropout: 1.0,
            rank_pattern: vec![("[".into(), 4)],
            ..LoraConfig::default()
        };
        let config = config.with_targets(TargetModules::Pattern("(".into()));
        let message = config.validate().expect_err("wrong").to_string();
        for part in [
            "r must",
            "lora_alpha",
            "lora_dropout",
            "\"(\" is",
            "\"[\" is",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }
}
