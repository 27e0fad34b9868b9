//! `adapter_config.json`: the settings of an adapter as PEFT writes and reads them.
//!
//! Settings are read one by one, so that all mistakes are reported at once. A setting of PEFT that is not implemented here
//! could change what an adapter computes: it is an error unless it is off, and so is an unknown setting. Settings without
//! effect on a trained adapter (which version wrote it) are kept and written again.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::adapter_hub;
use crate::method::TARGETS;
use crate::{Bias, Common, Error, Method, Result};

/// Name of the file.
pub(crate) const FILE: &str = "adapter_config.json";

/// The version of PEFT whose form the files have. PEFT refuses some files without a version.
const PEFT_VERSION: &str = "0.21.2";

/// Settings without effect on what a trained adapter computes, whatever their values. `ensure_weight_tying` is checked where
/// weights of the base are stored.
const WITHOUT_EFFECT: [&str; 13] = [
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
    "tokenizer_kwargs",
    "use_effective_conv2d",
];

/// Settings that are not kept, since they are determined again when the file is written. The layout of the weights follows
/// from the model; PEFT corrects it too.
const WRITTEN_ANEW: [&str; 4] = [
    "fan_in_fan_out",
    "inference_mode",
    "peft_type",
    "peft_version",
];

/// Where settings come from.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Writer {
    /// A file of PEFT, perhaps of a later version: required keys must be there, and an unknown key is accepted if its value
    /// means "off".
    Peft,
    /// Settings written by hand: every key has a default, and an unknown key is an error.
    Person,
}

/// Reads the `adapter_config.json` of an adapter's folder, whatever its method.
///
/// # Errors
///
/// If it cannot be read or is not JSON, or [`Error::Settings`] with everything that is wrong or not supported.
pub fn read_config(folder: &Path) -> Result<Box<dyn Method>> {
    let path = folder.join(FILE);
    let json = read_json(folder)?;
    if adapter_hub::is_of(&json) {
        let read = adapter_hub::settings(&json);
        let read = read.map_err(|mistakes| ft_core::Error::invalid(&path, mistakes))?;
        return Ok(Box::new(read));
    }
    crate::methods::parse(&json, Writer::Peft)
        .map_err(|mistakes| ft_core::Error::invalid(&path, mistakes).into())
}

/// Reads the `adapter_config.json` of an adapter's folder as it is.
pub(crate) fn read_json(folder: &Path) -> Result<Value> {
    let path = folder.join(FILE);
    let text = std::fs::read_to_string(&path).map_err(ft_core::Error::read(&path))?;
    let invalid = |e| ft_core::Error::invalid(&path, format!("not valid JSON: {e}"));
    Ok(serde_json::from_str(&text).map_err(invalid)?)
}

/// Reads settings written by hand, of the method that `peft_type` names: every other key may be left out.
///
/// ```
/// let json = serde_json::json!({"peft_type": "VERA", "r": 64});
/// assert_eq!(ft_peft::read_settings(&json)?.peft_type(), "VERA");
/// # Ok::<(), ft_peft::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Settings`] with everything that is wrong or not supported.
pub fn read_settings(json: &Value) -> Result<Box<dyn Method>> {
    crate::methods::parse(json, Writer::Person).map_err(Error::Settings)
}

/// The settings as JSON.
pub(crate) fn object(settings: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(map)) => map.into_iter().map(|(k, v)| (k, whole(v))).collect(),
        _ => unreachable!("settings are JSON objects"),
    }
}

/// PEFT writes whole numbers as integers.
fn whole(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .map(|(k, v)| (k, whole(v)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Number(number) => match number.as_f64() {
            Some(x) if x != 0.0 && x.fract() == 0.0 && x.abs() < 1e15 => (x as i64).into(),
            _ => Value::Number(number),
        },
        other => other,
    }
}

/// `adapter_config.json` with every key that PEFT 0.21 writes; `fan_in_fan_out` is whether the base weights are `[in, out]`.
pub fn to_json(method: &dyn Method, fan_in_fan_out: bool) -> Value {
    let common = method.common();
    let all = object(common);
    let mut json = json!({
        "auto_mapping": null,
        "base_model_name_or_path": common.base_model_name_or_path,
        "inference_mode": true,
        "peft_type": method.peft_type(),
        "peft_version": PEFT_VERSION,
        "revision": null,
        "task_type": "CAUSAL_LM",
    });
    for name in method.keys() {
        let value = &all[*name];
        json[*name] = match is_empty(value) {
            true => Value::Null,
            false => value.clone(),
        };
    }
    if let Some(only) = method.bias_only() {
        json["bias"] = match common.bias {
            Bias::Only => only.into(),
            _ => all["bias"].clone(),
        };
    }
    if method.tells_layout() {
        json["fan_in_fan_out"] = fan_in_fan_out.into();
    }
    let fixed = method.fixed();
    let fixed = fixed.as_object().into_iter().flatten();
    for (name, value) in fixed {
        json[name] = value.clone();
    }
    for (name, value) in method.own().into_iter().chain(common.extra.clone()) {
        json[name] = value;
    }
    if let Some(object) = json.as_object_mut() {
        object.sort_keys();
    }
    json
}

/// Reads the settings of one method; the error names all mistakes.
pub(crate) fn parse<C>(json: &Value, writer: Writer) -> Result<C, String>
where
    C: Method + Default + Serialize + DeserializeOwned,
{
    let settings = json
        .as_object()
        .ok_or("the settings are not a JSON object")?;
    let default = C::default();
    let own = default.own();
    let mut mistakes = Vec::new();
    match settings.get("peft_type") {
        Some(kind) if kind != default.peft_type() => {
            return Err(format!("peft_type {kind} is not {}", default.peft_type()));
        }
        None if writer == Writer::Peft => mistakes.push("peft_type is missing".to_string()),
        _ => {}
    }
    let (mut mine, mut common, mut extra) = (Map::new(), Map::new(), Map::new());
    let fixed = default.fixed();
    let written = to_json(&default, false);
    for (name, value) in settings {
        let key = name.as_str();
        if own.contains_key(key) {
            try_setting::<C>(name, value, &mut mine, &mut mistakes);
        } else if is_common(&default, key) {
            try_setting::<Common>(name, value, &mut common, &mut mistakes);
        } else if WRITTEN_ANEW.contains(&key) {
        } else if WITHOUT_EFFECT.contains(&key)
            || writer == Writer::Peft && default.ignored_in_files().contains(&key)
        {
            if written.get(key) != Some(value) {
                extra.insert(name.clone(), value.clone());
            }
        } else if let Some(off) = fixed.get(key) {
            if value != off && !is_empty(value) {
                mistakes.push(format!("{name} = {value} is not supported"));
            } else if value != off {
                extra.insert(name.clone(), value.clone());
            }
        } else if writer == Writer::Person {
            mistakes.push(format!(
                "{name} is not a setting of {}",
                default.peft_type()
            ));
        } else if is_empty(value) {
            extra.insert(name.clone(), value.clone());
        } else {
            mistakes.push(format!(
                "{name} = {value} is unknown and could change what the adapter computes: remove it from the file if it \
                 does not"
            ));
        }
    }
    let read = |error: serde_json::Error| error.to_string();
    if !mistakes.is_empty() {
        return Err(mistakes.join("; "));
    }
    let mut config: C = serde_json::from_value(mine.into()).map_err(read)?;
    let base = settings.get("base_model_name_or_path").cloned();
    common.extend(
        base.filter(|base| !base.is_null())
            .map(|base| ("base_model_name_or_path".into(), base)),
    );
    let mut all = object(config.common());
    all.extend(common);
    all.retain(|_, value| !value.is_null());
    *config.common_mut() = serde_json::from_value(all.into()).map_err(read)?;
    config.common_mut().extra = extra;
    let targeted = config.keys().contains(&"target_modules");
    if writer == Writer::Peft
        && targeted
        && settings.get("target_modules").is_none_or(Value::is_null)
    {
        return Err("target_modules is missing".into());
    }
    crate::method::validate(&config).map_err(|error| match error {
        Error::Settings(mistakes) => mistakes,
        other => other.to_string(),
    })?;
    Ok(config)
}

fn is_common(method: &dyn Method, key: &str) -> bool {
    key == "base_model_name_or_path"
        || TARGETS.contains(&key) && method.keys().contains(&key)
        || key == "bias" && method.bias_only().is_some()
}

/// Keeps a setting if the type has it and accepts the value.
fn try_setting<T: DeserializeOwned>(
    name: &str,
    value: &Value,
    kept: &mut Map<String, Value>,
    mistakes: &mut Vec<String>,
) {
    if value.is_null() {
        return;
    }
    let alone: Map<String, Value> = [(name.to_string(), value.clone())].into_iter().collect();
    match serde_json::from_value::<T>(alone.clone().into()) {
        Ok(_) => kept.extend(alone),
        Err(error) => mistakes.push(format!("{name} = {value}: {error}")),
    }
}

/// Whether a setting has a value that means "not used".
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    }
}

/// `from_pretrained`, `from_json` and `to_json` of the settings of a method, and settings written by hand through serde.
macro_rules! json_settings {
    ($config:ident) => {
        impl $config {
            /// Reads the `adapter_config.json` of an adapter's folder.
            ///
            /// # Errors
            ///
            /// If it cannot be read or is not JSON, and as [`from_json`](Self::from_json).
            pub fn from_pretrained(folder: &std::path::Path) -> $crate::Result<Self> {
                let read = $crate::read_config(folder)?;
                let peft_type = read.peft_type();
                let read: Box<dyn std::any::Any> = read;
                read.downcast::<Self>().map(|config| *config).map_err(|_| {
                    $crate::Error::Settings(format!(
                        "the adapter is of another method: {peft_type}"
                    ))
                })
            }

            /// Reads a parsed `adapter_config.json`.
            ///
            /// # Errors
            ///
            /// [`Error::Settings`](crate::Error::Settings) if it is of another method, or uses what is not supported here;
            /// the message names all settings that are wrong.
            pub fn from_json(json: &serde_json::Value) -> $crate::Result<Self> {
                $crate::adapter_config::parse(json, $crate::adapter_config::Writer::Peft)
                    .map_err($crate::Error::Settings)
            }

            /// Reads settings written by hand: every key may be left out.
            ///
            /// # Errors
            ///
            /// As [`from_json`](Self::from_json).
            pub fn from_settings(json: &serde_json::Value) -> $crate::Result<Self> {
                $crate::adapter_config::parse(json, $crate::adapter_config::Writer::Person)
                    .map_err($crate::Error::Settings)
            }

            /// `adapter_config.json` with every key that PEFT writes; `fan_in_fan_out` is whether the base weights are
            /// `[in, out]`.
            pub fn to_json(&self, fan_in_fan_out: bool) -> serde_json::Value {
                $crate::adapter_config::to_json(self, fan_in_fan_out)
            }

            /// Checks every setting.
            ///
            /// # Errors
            ///
            /// [`Error::Settings`](crate::Error::Settings) with all mistakes, separated by semicolons.
            pub fn validate(&self) -> $crate::Result<()> {
                $crate::method::validate(self)
            }

            /// The same settings for these layers.
            #[must_use]
            pub fn with_targets(mut self, targets: $crate::TargetModules) -> Self {
                self.common.target_modules = Some(targets);
                self
            }

            /// The same settings with the hub id or path of the base model.
            #[must_use]
            pub fn with_base(mut self, name_or_path: &str) -> Self {
                self.common.base_model_name_or_path = Some(name_or_path.to_string());
                self
            }
        }
    };
}
pub(crate) use json_settings;
