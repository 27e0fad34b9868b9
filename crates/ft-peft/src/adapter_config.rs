//! `adapter_config.json`: the settings of an adapter as PEFT writes and reads them.
//!
//! A setting of PEFT that is not implemented here could change what an adapter computes. It is an error
//! unless it is off, and so is a setting that is not known. Settings that do not matter once an adapter
//! is trained (how it was initialised, which version wrote it) are kept and written again.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Error, InitLoraWeights, LoraConfig, Result, TargetModules};

/// Name of the file.
pub(crate) const FILE: &str = "adapter_config.json";

/// Settings that change what an adapter computes or which tensors it has, and are not implemented.
const NOT_IMPLEMENTED: [&str; 15] = [
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "layers_pattern",
    "layers_to_transform",
    "lora_bias",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
    "megatron_config",
];

/// Settings that say nothing about what a trained adapter computes, whatever they are. `ensure_weight_tying` is looked
/// at where weights of the base are stored.
const WITHOUT_EFFECT: [&str; 11] = [
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// Settings that are not kept since they are written anew: the layout of the weights is known from the model, as PEFT
/// corrects it too.
const WRITTEN_ANEW: [&str; 3] = ["fan_in_fan_out", "inference_mode", "peft_version"];

/// Settings that [`parse`] reads.
const READ: [&str; 13] = [
    "alpha_pattern",
    "base_model_name_or_path",
    "bias",
    "exclude_modules",
    "init_lora_weights",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "use_rslora",
];

/// Who wrote the settings.
#[derive(Clone, Copy, PartialEq)]
enum Writer {
    /// PEFT, perhaps a later version: what it must have written has to be there, and what is not known may be there if
    /// it is off.
    Peft,
    /// A person: everything has a default, and an unknown name is a typing error.
    Person,
}

impl LoraConfig {
    /// Reads the `adapter_config.json` of an adapter's folder.
    ///
    /// # Errors
    ///
    /// If it cannot be read or is not JSON, and as [`from_json`](Self::from_json).
    pub fn from_pretrained(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(ft_core::Error::read(&path))?;
        let json = serde_json::from_str(&text)
            .map_err(|e| ft_core::Error::invalid(&path, format!("not valid JSON: {e}")))?;
        Self::from_json(json)
            .map_err(|error| ft_core::Error::invalid(&path, error.to_string()).into())
    }

    /// Reads a parsed `adapter_config.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] if it is not of a LoRA adapter, or uses what is not supported here; the message names all
    /// settings that are wrong.
    pub fn from_json(json: Value) -> Result<Self> {
        parse(&json, Writer::Peft).map_err(Error::Settings)
    }

    /// `adapter_config.json` with every key that PEFT 0.21 writes; `fan_in_fan_out` tells that the
    /// base weights are `[in, out]`.
    pub fn to_json(&self, fan_in_fan_out: bool) -> Value {
        let init_lora_weights = match self.init_lora_weights {
            InitLoraWeights::Kaiming => Value::Bool(true),
            InitLoraWeights::Gaussian => "gaussian".into(),
        };
        let ranks = self.rank_pattern.iter();
        let rank_pattern: Map<_, _> = ranks.map(|(k, r)| (k.clone(), (*r).into())).collect();
        let alphas = self.alpha_pattern.iter();
        let alpha_pattern: Map<_, _> = alphas.map(|(k, a)| (k.clone(), whole(*a))).collect();
        let modules_to_save = match &self.modules_to_save[..] {
            [] => Value::Null,
            names => names.into(),
        };
        let mut json = json!({
            "alora_invocation_tokens": null,
            "alpha_pattern": alpha_pattern,
            "arrow_config": null,
            "auto_mapping": null,
            "base_model_name_or_path": self.base_model_name_or_path,
            "bias": "none",
            "corda_config": null,
            "ensure_weight_tying": false,
            "eva_config": null,
            "exclude_modules": self.exclude_modules,
            "fan_in_fan_out": fan_in_fan_out,
            "inference_mode": true,
            "init_lora_weights": init_lora_weights,
            "kasa_config": null,
            "layer_replication": null,
            "layers_pattern": null,
            "layers_to_transform": null,
            "loftq_config": {},
            "lora_alpha": whole(self.lora_alpha),
            "lora_bias": false,
            "lora_dropout": self.lora_dropout,
            "lora_ga_config": null,
            "megatron_config": null,
            "megatron_core": "megatron.core",
            "modules_to_save": modules_to_save,
            "monteclora_config": null,
            "peft_type": "LORA",
            "peft_version": null,
            "qalora_group_size": 16,
            "r": self.r,
            "rank_pattern": rank_pattern,
            "revision": null,
            "target_modules": self.target_modules,
            "target_parameters": null,
            "task_type": "CAUSAL_LM",
            "trainable_token_indices": null,
            "use_bdlora": null,
            "use_dora": false,
            "use_qalora": false,
            "use_rslora": self.use_rslora,
            "velora_config": null,
        });
        for (name, value) in &self.extra {
            json[name] = value.clone();
        }
        json
    }
}

/// Settings that a person wrote, in a file of their own: every key may be left out.
impl TryFrom<Value> for LoraConfig {
    type Error = Error;

    fn try_from(json: Value) -> Result<Self> {
        parse(&json, Writer::Person).map_err(Error::Settings)
    }
}

impl From<LoraConfig> for Value {
    fn from(config: LoraConfig) -> Self {
        config.to_json(false)
    }
}

fn parse(json: &Value, writer: Writer) -> Result<LoraConfig, String> {
    let settings = json
        .as_object()
        .ok_or("the settings are not a JSON object")?;
    if let Some(kind) = settings.get("peft_type")
        && kind != "LORA"
    {
        return Err(format!("peft_type {kind} is not supported, only LORA is"));
    }
    let mut reader = Reader {
        settings,
        mistakes: Vec::new(),
    };
    let defaults = LoraConfig::default();
    let config = LoraConfig {
        r: reader.read("r", "a positive integer", rank, defaults.r),
        lora_alpha: reader.read("lora_alpha", "a number", Value::as_f64, defaults.lora_alpha),
        lora_dropout: reader.read("lora_dropout", "a number", Value::as_f64, 0.0),
        use_rslora: reader.read("use_rslora", "true or false", Value::as_bool, false),
        target_modules: reader.read("target_modules", NAMES, targets, defaults.target_modules),
        exclude_modules: reader.read("exclude_modules", NAMES, |v| targets(v).map(Some), None),
        init_lora_weights: reader.initialisation(),
        rank_pattern: reader.pattern("rank_pattern", "positive integers", rank),
        alpha_pattern: reader.pattern("alpha_pattern", "numbers", Value::as_f64),
        modules_to_save: reader.read("modules_to_save", "a list of names", names, Vec::new()),
        base_model_name_or_path: reader.read(
            "base_model_name_or_path",
            "a string",
            |v| v.as_str().map(|name| Some(name.to_string())),
            None,
        ),
        extra: reader.extra(writer),
    };
    reader.require(writer);
    let mut mistakes = reader.mistakes;
    if mistakes.is_empty() {
        mistakes.extend(config.mistakes());
    }
    if mistakes.is_empty() {
        Ok(config)
    } else {
        Err(mistakes.join("; "))
    }
}

const NAMES: &str = "a list of names, a regular expression or \"all-linear\"";

fn rank(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|r| usize::try_from(r).ok())
}

fn names(value: &Value) -> Option<Vec<String>> {
    serde_json::from_value(value.clone()).ok()
}

fn targets(value: &Value) -> Option<TargetModules> {
    serde_json::from_value(value.clone()).ok()
}

/// Whether a setting is left at what means "not used".
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
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

/// Reads settings and collects what is wrong with them.
struct Reader<'a> {
    settings: &'a Map<String, Value>,
    mistakes: Vec<String>,
}

impl<'a> Reader<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.settings.get(name).filter(|value| !value.is_null())
    }

    fn read<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
        default: T,
    ) -> T {
        let Some(value) = self.get(name) else {
            return default;
        };
        read(value).unwrap_or_else(|| {
            self.mistakes
                .push(format!("{name} must be {expected}, not {value}"));
            default
        })
    }

    fn pattern<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Vec<(String, T)> {
        let expected = format!("an object of names and {expected}");
        let read = |value: &Value| {
            let pairs = value.as_object()?.iter();
            pairs
                .map(|(name, value)| Some((name.clone(), read(value)?)))
                .collect()
        };
        self.read(name, &expected, read, Vec::new())
    }

    /// Most ways to begin are history once the adapter is saved, but some took the first factors out
    /// of the base weights, so that the adapter is of use only on a base changed in the same way.
    fn initialisation(&mut self) -> InitLoraWeights {
        match self.get("init_lora_weights") {
            Some(Value::String(name)) => match name.to_ascii_lowercase().as_str() {
                "gaussian" => return InitLoraWeights::Gaussian,
                "eva" | "mica" | "orthogonal" => {}
                _ => self.mistakes.push(format!(
                    "init_lora_weights = {name:?} is not supported: the adapter may need a changed \
                     base. Save it from PEFT with path_initial_model_for_weight_conversion"
                )),
            },
            None | Some(Value::Bool(_)) => {}
            Some(other) => self.mistakes.push(format!(
                "init_lora_weights must be true, false or a name, not {other}"
            )),
        }
        InitLoraWeights::Kaiming
    }

    /// What has to be there, and what has to be left as it is.
    fn require(&mut self, writer: Writer) {
        if let Some(bias) = self.get("bias").filter(|bias| *bias != "none") {
            self.mistakes
                .push(format!("bias = {bias} is not supported, only \"none\" is"));
        }
        if writer == Writer::Peft {
            for name in ["peft_type", "target_modules"] {
                if self.get(name).is_none() {
                    self.mistakes.push(format!("{name} is missing"));
                }
            }
        }
    }

    /// The settings to keep that have no field of their own. What is not known must be off.
    fn extra(&mut self, writer: Writer) -> Map<String, Value> {
        let mut extra = Map::new();
        let defaults = LoraConfig::default().to_json(false);
        for (name, value) in self.settings {
            let is = |list: &[&str]| list.contains(&name.as_str());
            let known = is(&NOT_IMPLEMENTED);
            if is(&READ) || is(&WRITTEN_ANEW) {
                continue;
            }
            if is(&WITHOUT_EFFECT) || is_empty(value) && (known || writer == Writer::Peft) {
                if defaults.get(name) != Some(value) {
                    extra.insert(name.clone(), value.clone());
                }
                continue;
            }
            self.mistakes.push(match writer {
                _ if known => format!("{name} = {value} is not supported"),
                Writer::Person => format!("{name} is not a setting of LoRA"),
                Writer::Peft => format!(
                    "{name} = {value} is not known, and could change what the adapter computes: remove \
                     it from the file if it does not"
                ),
            });
        }
        extra
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            modules_to_save: vec!["embed_tokens".into()],
            base_model_name_or_path: Some("org/name".into()),
            extra: json!({"task_type": "SEQ_CLS"})
                .as_object()
                .cloned()
                .expect("object"),
        };
        let read = LoraConfig::from_json(config.to_json(false)).expect("PEFT's");
        assert_eq!(read, config);
        let read = LoraConfig::try_from(config.to_json(true)).expect("a person's");
        assert_eq!(read, config);
    }

    #[test]
    fn settings_that_would_be_lost_are_errors() {
        let base = LoraConfig::default().to_json(false);
        for (name, value) in [
            ("use_dora", json!(true)),
            ("modules_to_save", json!("lm_head")),
            ("layers_to_transform", json!(1)),
            ("layers_pattern", json!("layers")),
            ("kasa_config", json!({"beta": 0.1})),
            ("bias", json!("all")),
            ("peft_type", json!("IA3")),
            ("peft_type", json!(null)),
            ("target_modules", json!(null)),
            ("target_modules", json!(7)),
            ("r", json!("8")),
            ("lora_alpha", json!([8])),
            ("rank_pattern", json!({"q_proj": 2.5})),
            ("alpha_pattern", json!({"(": 2.5})),
            ("init_lora_weights", json!("pissa_niter_4")),
            ("init_lora_weights", json!("olora")),
            ("use_something_new", json!(true)),
            ("something_new", json!("on")),
            ("group_size_of_something_new", json!(32)),
        ] {
            let mut json = base.clone();
            json[name] = value;
            let message = LoraConfig::from_json(json).expect_err(name).to_string();
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn settings_without_effect_are_kept() {
        let mut json = LoraConfig::default().to_json(false);
        let kept = json!({
            "eva_config": {"rho": 2.0},
            "revision": "main",
            "task_type": null,
            "use_something_new": false,
            "something_new": null,
        });
        for (name, value) in kept.as_object().expect("object") {
            json[name] = value.clone();
        }
        json["peft_version"] = "0.99.0".into();
        json["init_lora_weights"] = "eva".into();
        let config = LoraConfig::from_json(json.clone()).expect("reads");
        assert_eq!(Some(&config.extra), kept.as_object());
        json["peft_version"] = Value::Null;
        json["init_lora_weights"] = true.into();
        assert_eq!(config.to_json(false), json);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let json = json!({"r": -1, "lora_dropout": "no", "use_dora": true});
        let message = LoraConfig::from_json(json).expect_err("wrong").to_string();
        for part in [
            "r must",
            "lora_dropout must",
            "use_dora",
            "target_modules is missing",
        ] {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
    }

    #[test]
    fn settings_of_a_person_have_defaults_and_no_unknown_names() {
        let config: LoraConfig =
            serde_json::from_value(json!({"r": 4, "target_modules": "all-linear"})).expect("fine");
        let expected = LoraConfig {
            r: 4,
            ..LoraConfig::default()
        };
        assert_eq!(config, expected);
        let message = serde_json::from_value::<LoraConfig>(json!({"lora_aplha": 16}))
            .expect_err("a typing error")
            .to_string();
        assert!(message.contains("lora_aplha"), "{message}");
    }
}
