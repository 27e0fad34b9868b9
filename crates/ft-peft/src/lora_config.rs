//! The settings of a LoRA adapter, in PEFT's names.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::targets::ends_with_pattern;
use crate::{Error, Result, TargetModules};

/// How the factors are initialized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitLoraWeights {
    /// `A` uniform in `±1/√in_features` (Kaiming with a = √5), `B` zero: PEFT's default.
    #[default]
    Kaiming,
    /// `A` normal with standard deviation `1/r`, `B` zero.
    Gaussian,
}

/// Settings of a LoRA adapter (Hu et al., 2021, arXiv:2106.09685).
///
/// The defaults are PEFT's, except `target_modules`, which are all linear layers. With serde it is a
/// JSON object in PEFT's keys, each of which may be left out.
///
/// ```
/// let json = r#"{"r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"]}"#;
/// let config: ft_peft::LoraConfig = serde_json::from_str(json)?;
/// assert_eq!((config.r, config.lora_dropout), (16, 0.0));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct LoraConfig {
    /// Rank of the factors.
    pub r: usize,
    /// The adapter's output is scaled by `lora_alpha / r`.
    pub lora_alpha: f64,
    /// Dropout on the adapter's input while training.
    pub lora_dropout: f64,
    /// Scale by `lora_alpha / √r` instead (Kalajdzievski, 2023, arXiv:2312.03732).
    pub use_rslora: bool,
    /// Which layers get factors.
    pub target_modules: TargetModules,
    /// Which of those are left out.
    pub exclude_modules: Option<TargetModules>,
    /// How the factors are initialized.
    pub init_lora_weights: InitLoraWeights,
    /// Ranks of layers that differ; each name is a regular expression that whole parts at the end of
    /// the layer's name must match. The first match is used.
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas of layers that differ, by name in the same way.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Layers whose own weights lie beside the factors, as PEFT names them: the embedding, the output layer. They take
    /// the place of the base's when the adapter is loaded. Not for new adapters.
    pub modules_to_save: Vec<String>,
    /// Where the base model came from, for whoever loads the adapter.
    pub base_model_name_or_path: Option<String>,
    /// Other settings of the file, which do not change what the adapter computes; kept for writing it again.
    pub extra: Map<String, Value>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            use_rslora: false,
            target_modules: TargetModules::all_linear(),
            exclude_modules: None,
            init_lora_weights: InitLoraWeights::default(),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            modules_to_save: Vec::new(),
            base_model_name_or_path: None,
            extra: Map::new(),
        }
    }
}

impl LoraConfig {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with all mistakes, separated by semicolons.
    pub fn validate(&self) -> Result<()> {
        let mistakes = self.mistakes();
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(Error::Settings(mistakes.join("; ")))
        }
    }

    /// What is wrong with the settings.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let ranks = self.rank_pattern.iter().map(|(_, r)| r).chain([&self.r]);
        if ranks.into_iter().any(|r| *r == 0) {
            mistakes.push("r must be at least 1".to_string());
        }
        let alphas = self
            .alpha_pattern
            .iter()
            .map(|(_, a)| a)
            .chain([&self.lora_alpha]);
        for alpha in alphas.filter(|alpha| !alpha.is_finite() || **alpha <= 0.0) {
            mistakes.push(format!("lora_alpha must be above 0, not {alpha}"));
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            mistakes.push(format!(
                "lora_dropout must be at least 0 and below 1, not {}",
                self.lora_dropout
            ));
        }
        let ranks = self.rank_pattern.iter().map(|(name, _)| name);
        for pattern in ranks.chain(self.alpha_pattern.iter().map(|(name, _)| name)) {
            if let Err(mistake) = ends_with_pattern(pattern) {
                mistakes.push(format!("rank_pattern or alpha_pattern: {mistake}"));
            }
        }
        for targets in std::iter::once(&self.target_modules).chain(&self.exclude_modules) {
            mistakes.extend(targets.matcher("").err());
        }
        mistakes
    }

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
fn exception<T: Copy>(patterns: &[(String, T)], path: &str) -> Option<T> {
    patterns
        .iter()
        .find(|(pattern, _)| ends_with_pattern(pattern).is_ok_and(|regex| regex.is_match(path)))
        .map(|(_, value)| *value)
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
            target_modules: TargetModules::Pattern("(".into()),
            rank_pattern: vec![("[".into(), 4)],
            ..LoraConfig::default()
        };
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
