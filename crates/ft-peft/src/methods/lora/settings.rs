//! The settings of LoRA.

use serde::{Deserialize, Serialize};

use super::{EvaConfig, InitLoraWeights};
use crate::adapter_config::json_settings;
use crate::pattern::exception;
use crate::{Common, Pattern, TargetModules, TokenIndices};

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
    /// Learn the length of each row of the weight apart from its direction: DoRA (Liu et al., 2024, arXiv:2402.09353).
    pub use_dora: bool,
    /// Whether `B` has a bias, scaled like its product. Merging leaves a bias in layers that had none, which PEFT refuses. New
    /// adapters need `init_lora_weights` of `true` or `false`.
    pub lora_bias: bool,
    /// Tokens whose rows in the embedding train beside the factors.
    pub trainable_token_indices: Option<TokenIndices>,
    /// How the factors are initialized.
    pub init_lora_weights: InitLoraWeights,
    /// Settings of [`eva_initialise`](crate::eva_initialise).
    pub eva_config: Option<EvaConfig>,
    /// Ranks of layers that differ.
    #[serde(with = "crate::pattern")]
    pub rank_pattern: Pattern<usize>,
    /// Alphas of layers that differ.
    #[serde(with = "crate::pattern")]
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
            use_dora: false,
            lora_bias: false,
            trainable_token_indices: None,
            init_lora_weights: InitLoraWeights::default(),
            eva_config: None,
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

    /// The alpha of the layer at `path`.
    pub(crate) fn alpha_of(&self, path: &str) -> f64 {
        exception(&self.alpha_pattern, path).unwrap_or(self.lora_alpha)
    }

    /// Why PEFT does not load the file of such an adapter with `lora_bias`.
    pub(super) fn bias_mistake(&self) -> Option<String> {
        let plain = [InitLoraWeights::Kaiming, InitLoraWeights::Random];
        let wrong = self.lora_bias && !plain.contains(&self.init_lora_weights);
        wrong.then(|| "lora_bias needs init_lora_weights = true or false, as in PEFT".into())
    }

    /// `α/r`, or `α/√r` with rank stabilisation, of the layer at `path`.
    pub fn scaling_of(&self, path: &str) -> f64 {
        let r = self.rank_of(path) as f64;
        self.alpha_of(path) / if self.use_rslora { r.sqrt() } else { r }
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
