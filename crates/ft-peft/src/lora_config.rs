//! The settings of a LoRA adapter, in the keys of PEFT's `adapter_config.json`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::TargetModules;

/// How the factors begin.
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
/// The defaults are PEFT's, but for `target_modules`, which are all linear layers.
#[derive(Clone, Debug, PartialEq)]
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
    /// Which of those do not after all.
    pub exclude_modules: Option<TargetModules>,
    /// How the factors begin.
    pub init_lora_weights: InitLoraWeights,
    /// Ranks of layers that differ, by name as in [`TargetModules::Names`].
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas of layers that differ, by name.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Where the base model came from, for whoever loads the adapter.
    pub base_model_name_or_path: Option<String>,
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
            base_model_name_or_path: None,
        }
    }
}

/// `adapter_config.json` as far as it matters here.
#[derive(Serialize, Deserialize)]
struct AdapterConfigFile {
    peft_type: String,
    #[serde(default = "default_rank")]
    r: usize,
    #[serde(default = "default_alpha")]
    lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    #[serde(default)]
    use_rslora: bool,
    target_modules: Option<TargetModules>,
    #[serde(default)]
    exclude_modules: Option<TargetModules>,
    #[serde(default)]
    init_lora_weights: Value,
    #[serde(default)]
    rank_pattern: Map<String, Value>,
    #[serde(default)]
    alpha_pattern: Map<String, Value>,
    #[serde(default)]
    base_model_name_or_path: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

fn default_rank() -> usize {
    8
}

fn default_alpha() -> f64 {
    8.0
}

/// Settings whose other values change what the adapter computes or which tensors it has, with the
/// values that stand for "not used".
const UNUSED: [&str; 14] = [
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layers_to_transform",
    "layers_pattern",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "monteclora_config",
    "velora_config",
];

impl LoraConfig {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// All mistakes, separated by semicolons.
    pub fn validate(&self) -> Result<(), String> {
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
        for targets in std::iter::once(&self.target_modules).chain(&self.exclude_modules) {
            mistakes.extend(targets.matcher().err());
        }
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(mistakes.join("; "))
        }
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

    /// Reads a parsed `adapter_config.json`.
    ///
    /// # Errors
    ///
    /// If it is not of a LoRA adapter, or uses what is not supported here; the message names the
    /// settings.
    pub fn from_json(json: Value) -> Result<Self, String> {
        if let Some(kind) = json.get("peft_type").and_then(Value::as_str)
            && kind != "LORA"
        {
            return Err(format!("peft_type {kind} is not supported, only LORA is"));
        }
        let file: AdapterConfigFile = serde_json::from_value(json).map_err(|e| e.to_string())?;
        let mut mistakes = Vec::new();
        for name in UNUSED {
            let value = file.others.get(name).unwrap_or(&Value::Null);
            let empty = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(items) => items.is_empty(),
                _ => false,
            };
            if !empty {
                mistakes.push(format!("{name} = {value} is not supported"));
            }
        }
        if let Some(bias) = file.others.get("bias").filter(|bias| **bias != "none") {
            mistakes.push(format!("bias = {bias} is not supported, only \"none\" is"));
        }
        if file.target_modules.is_none() {
            mistakes.push("target_modules is null".to_string());
        }
        let init_lora_weights = match &file.init_lora_weights {
            Value::String(name) if name == "gaussian" => InitLoraWeights::Gaussian,
            // What the factors began with is of no matter once they are trained and saved.
            _ => InitLoraWeights::Kaiming,
        };
        let numbers = |map: &Map<String, Value>| {
            let pairs = map.iter();
            pairs
                .map(|(name, value)| Some((name.clone(), value.as_f64()?)))
                .collect::<Option<Vec<_>>>()
        };
        let ranks = numbers(&file.rank_pattern);
        let alphas = numbers(&file.alpha_pattern);
        if ranks.is_none() || alphas.is_none() {
            mistakes.push("rank_pattern and alpha_pattern must map names to numbers".to_string());
        }
        if !mistakes.is_empty() {
            return Err(mistakes.join("; "));
        }
        let config = Self {
            r: file.r,
            lora_alpha: file.lora_alpha,
            lora_dropout: file.lora_dropout,
            use_rslora: file.use_rslora,
            target_modules: file.target_modules.unwrap_or(TargetModules::all_linear()),
            exclude_modules: file.exclude_modules,
            init_lora_weights,
            rank_pattern: ranks
                .unwrap_or_default()
                .into_iter()
                .map(|(name, r)| (name, r as usize))
                .collect(),
            alpha_pattern: alphas.unwrap_or_default(),
            base_model_name_or_path: file.base_model_name_or_path,
        };
        config.validate()?;
        Ok(config)
    }

    /// `adapter_config.json` as PEFT reads it; `fan_in_fan_out` tells that the base weights are
    /// `[in, out]`.
    pub fn to_json(&self, fan_in_fan_out: bool) -> Value {
        let file = AdapterConfigFile {
            peft_type: "LORA".into(),
            r: self.r,
            lora_alpha: self.lora_alpha,
            lora_dropout: self.lora_dropout,
            use_rslora: self.use_rslora,
            target_modules: Some(self.target_modules.clone()),
            exclude_modules: self.exclude_modules.clone(),
            init_lora_weights: match self.init_lora_weights {
                InitLoraWeights::Kaiming => Value::Bool(true),
                InitLoraWeights::Gaussian => "gaussian".into(),
            },
            rank_pattern: self
                .rank_pattern
                .iter()
                .map(|(name, r)| (name.clone(), (*r).into()))
                .collect(),
            alpha_pattern: self
                .alpha_pattern
                .iter()
                .map(|(name, alpha)| (name.clone(), whole(*alpha)))
                .collect(),
            base_model_name_or_path: self.base_model_name_or_path.clone(),
            others: Map::from_iter([
                ("task_type".into(), "CAUSAL_LM".into()),
                ("inference_mode".into(), true.into()),
                ("bias".into(), "none".into()),
                ("fan_in_fan_out".into(), fan_in_fan_out.into()),
                ("use_dora".into(), false.into()),
                ("modules_to_save".into(), Value::Null),
                ("revision".into(), Value::Null),
            ]),
        };
        let mut json = serde_json::to_value(file).unwrap_or_default();
        json["lora_alpha"] = whole(self.lora_alpha);
        json
    }
}

/// PEFT writes whole numbers as integers.
fn whole(x: f64) -> Value {
    if x.fract() == 0.0 && x.abs() < 1e15 {
        (x as i64).into()
    } else {
        x.into()
    }
}

/// The value of the first pattern that `path` ends with; patterns are regular expressions for
/// whole name parts at the end, as in PEFT.
fn exception<T: Copy>(patterns: &[(String, T)], path: &str) -> Option<T> {
    patterns
        .iter()
        .find(|(pattern, _)| {
            regex::Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$"))
                .is_ok_and(|regex| regex.is_match(path))
        })
        .map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read_again() {
        let config = LoraConfig {
            r: 16,
            lora_alpha: 32.0,
            lora_dropout: 0.05,
            use_rslora: true,
            target_modules: TargetModules::names(["q_proj"]),
            exclude_modules: Some(TargetModules::Pattern(".*0.*".into())),
            init_lora_weights: InitLoraWeights::Gaussian,
            rank_pattern: vec![("k_proj".into(), 4)],
            alpha_pattern: vec![("k_proj".into(), 1.5)],
            base_model_name_or_path: Some("org/name".into()),
        };
        assert_eq!(LoraConfig::from_json(config.to_json(false)), Ok(config));
    }

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
    fn mistakes_are_said_all_at_once() {
        let config = LoraConfig {
            r: 0,
            lora_alpha: -1.0,
            lora_dropout: 1.0,
            target_modules: TargetModules::Pattern("(".into()),
            ..LoraConfig::default()
        };
        let message = config.validate().expect_err("wrong");
        for part in ["r must", "lora_alpha", "lora_dropout", "regular expression"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn settings_that_would_be_lost_are_errors() {
        let base = LoraConfig::default().to_json(false);
        for (name, value) in [
            ("use_dora", json!(true)),
            ("modules_to_save", json!(["lm_head"])),
            ("bias", json!("all")),
            ("peft_type", json!("IA3")),
        ] {
            let mut json = base.clone();
            json[name] = value;
            let message = LoraConfig::from_json(json).expect_err("refused");
            assert!(message.contains(name), "{message}");
        }
    }
}
