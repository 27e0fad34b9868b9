//! AdapterHub's form of bottleneck adapters: `adapter_config.json`, whose settings are below `config`, and
//! `adapter.safetensors` with keys `<module>.adapters.<name>.<tensor>`, as its package `adapters` 1.2 writes and reads them.
//!
//! In files of BERT the module is the one before the adapter, `attention.output` or `output`. In those of other models it is
//! `attention_adapters` or `output_adapters`, as the parts of models are called here. A file may have a prefix before the
//! names of modules (`bert.`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{FloatDType, TensorData};
use ft_core::Parts;
use ft_core::safetensors_folder::{check_finite, write_tensors_and_json};
use serde_json::{Map, Value, json};

use crate::adapter_config::{FILE as CONFIG, Writer, parse};
use crate::adapter_files::{largest, read_numbers, unfit};
use crate::attach::{Numbers, put};
use crate::targets::{Chosen, Layers};
use crate::{BottleneckConfig, Features, Result};

/// The weights of an adapter.
const WEIGHTS: &str = "adapter.safetensors";
/// What old versions wrote instead.
const PICKLED: &str = "pytorch_adapter.bin";
/// The version of the form, by which `adapters` recognizes it.
const VERSION: &str = "adapters.1.2.0";

/// Settings that AdapterHub writes and that are not implemented, with the values that have no effect.
fn fixed() -> Map<String, Value> {
    let fixed = json!({
        "adapter_residual_before_ln": false,
        "cross_adapter": false,
        "factorized_phm_W": true,
        "factorized_phm_rule": false,
        "hypercomplex_nonlinearity": "glorot-uniform",
        "init_weights_seed": null,
        "inv_adapter": null,
        "inv_adapter_reduction_factor": null,
        "learn_phm": true,
        "leave_out": [],
        "ln_after": false,
        "ln_before": false,
        "original_ln_after": true,
        "phm_bias": true,
        "phm_c_init": "normal",
        "phm_dim": 4,
        "phm_init_range": 0.0001,
        "phm_layer": false,
        "phm_rank": 1,
        "residual_before_ln": true,
        "shared_W_phm": false,
        "shared_phm_rule": true,
        "stochastic_depth": 0.0,
        "use_gating": false,
    });
    match fixed {
        Value::Object(map) => map,
        _ => unreachable!("an object"),
    }
}

/// Settings that have an effect only with another one that must be off here, or only in training.
fn is_ignored(key: &str) -> bool {
    key.contains("phm") && key != "phm_layer"
        || matches!(
            key,
            "adapter_residual_before_ln"
                | "hypercomplex_nonlinearity"
                | "init_weights_seed"
                | "inv_adapter_reduction_factor"
        )
}

/// The keys that are read or written; the others have no effect on what an adapter computes, and are kept.
const KNOWN: [&str; 5] = ["config", "hidden_size", "model_name", "name", "version"];

/// Whether an `adapter_config.json` is of AdapterHub.
pub(crate) fn is_of(json: &Value) -> bool {
    json.get("peft_type").is_none() && json.get("config").is_some()
}

/// Reads the settings; the error names all mistakes.
pub(crate) fn settings(json: &Value) -> Result<BottleneckConfig, String> {
    let config = json.get("config").and_then(Value::as_object);
    let mut config = config.ok_or("config is not an object of settings")?.clone();
    if let Some(architecture) = config
        .remove("architecture")
        .filter(|value| !value.is_null())
    {
        return Err(format!(
            "architecture {architecture} is not supported: of AdapterHub only bottleneck adapters are read"
        ));
    }
    let own_sum = config.get("original_ln_before") == Some(&Value::Bool(true))
        && config.get("is_parallel") != Some(&Value::Bool(true));
    let mut mistakes = Vec::new();
    for (key, off) in fixed() {
        let matters = !(is_ignored(&key) || key == "residual_before_ln" && !own_sum);
        if let Some(value) = config.remove(&key)
            && value != off
            && !value.is_null()
            && matters
        {
            mistakes.push(format!("{key} = {value} is not supported"));
        }
    }
    let parsed = parse::<BottleneckConfig>(&config.into(), Writer::Person);
    match (parsed, mistakes.is_empty()) {
        (Ok(mut config), true) => {
            let base = json.get("model_name").and_then(Value::as_str);
            let rest = json.as_object().into_iter().flatten();
            let rest = rest.filter(|(key, _)| !KNOWN.contains(&key.as_str()));
            config.common.extra = rest.map(|(k, v)| (k.clone(), v.clone())).collect();
            config.common.base_model_name_or_path = base.map(str::to_string);
            config.common.target_modules = Some(config.targets());
            Ok(config)
        }
        (Ok(_), false) => Err(mistakes.join("; ")),
        (Err(error), _) => {
            mistakes.push(error);
            Err(mistakes.join("; "))
        }
    }
}

/// `adapter_config.json`; `name` is that of the adapter, `width` that of the model.
fn to_json(config: &BottleneckConfig, name: &str, width: usize) -> Value {
    // Numbers stay as they are: `adapters` takes a scaling of 4 for an unknown kind of scaling, and 4.0 for a number.
    let mut settings = serde_json::to_value(config).unwrap_or_default();
    for (key, value) in fixed() {
        settings[key] = value;
    }
    if let Some(settings) = settings.as_object_mut() {
        settings.sort_keys();
    }
    let mut json = json!({
        "config": settings,
        "hidden_size": width,
        "model_name": config.common.base_model_name_or_path,
        "name": name,
        "version": VERSION,
    });
    for (key, value) in &config.common.extra {
        json[key] = value.clone();
    }
    json
}

/// The names of a part in files: that of other models, and that of BERT.
fn modules(path: &str) -> [String; 2] {
    let in_bert = match path.rsplit_once('.') {
        Some((block, "attention_adapters")) => format!("{block}.attention.output"),
        Some((block, "output_adapters")) => format!("{block}.output"),
        _ => path.to_string(),
    };
    [path.to_string(), in_bert]
}

/// Writes an adapter, and returns the folder.
pub(crate) fn save<M: Parts>(
    model: &M,
    config: &BottleneckConfig,
    name: &str,
    folder: &Path,
) -> Result<PathBuf> {
    let mut linear = BTreeSet::new();
    model.for_each_linear(&mut |path, _| {
        linear.insert(path.to_string());
    });
    let (mut tensors, mut width) = (Vec::new(), 0);
    model.for_each_part(&mut |path, part| {
        for adapter in part.adapters().iter().filter(|a| a.name == name) {
            let [own, in_bert] = modules(path);
            let module = match linear.contains(&format!("{in_bert}.dense")) {
                true => in_bert,
                false => own,
            };
            width = Features::of(part).outputs;
            for tensor in &adapter.tensors {
                let key = format!("{module}.adapters.{name}.{}", tensor.name());
                tensors.push((key, tensor.data()));
            }
        }
    });
    for (key, data) in &tensors {
        check_finite(key, data, FloatDType::F32)?;
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    write_tensors_and_json(
        &folder.join(WEIGHTS),
        &tensors,
        &metadata,
        &folder.join(CONFIG),
        &to_json(config, name, width),
    )?;
    Ok(folder.to_path_buf())
}

/// Attaches the adapter in a folder with this `adapter_config.json`.
pub(crate) fn load<M: Parts>(model: M, json: &Value, name: &str, folder: &Path) -> Result<M> {
    let invalid = |file: &str, reason: String| {
        crate::Error::from(ft_core::Error::invalid(&folder.join(file), reason))
    };
    let config = settings(json).map_err(|mistakes| invalid(CONFIG, mistakes))?;
    let path = folder.join(WEIGHTS);
    if !path.is_file() && folder.join(PICKLED).is_file() {
        return Err(invalid(
            PICKLED,
            "pickled weights are not read, since they can run code: save the adapter from AdapterHub's package again, \
             with use_safetensors=True"
                .into(),
        ));
    }
    let chosen = Layers::of(&model, &config).select(&config.common)?;
    let stored_name = json.get("name").and_then(Value::as_str).unwrap_or(name);
    let tensors = read_numbers(&path)?;
    let most = largest(&tensors);
    let (mut tensors, left_over) = by_part(tensors, stored_name, &chosen);
    let mut model = model;
    put(
        &mut model,
        Arc::new(config),
        &chosen,
        name,
        Numbers::Stored { most },
    )?;
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    model.for_each_part_mut(&mut |part_path, mut part| {
        for adapter in part.adapters().iter_mut().filter(|a| a.name == name) {
            for tensor in &mut adapter.tensors {
                let key = (part_path.to_string(), tensor.name().to_string());
                let found = tensors.remove(&key);
                let key = format!("{part_path}.adapters.{stored_name}.{}", tensor.name());
                match found {
                    None => missing.push(key),
                    Some(data) if data.shape()[..] != tensor.shape()[..] => {
                        misshapen.push(format!(
                            "{key} (model {:?}, file {:?})",
                            &tensor.shape()[..],
                            &data.shape()[..]
                        ))
                    }
                    Some(data) => tensor.set(data),
                }
            }
        }
    });
    let left_over = tensors
        .into_keys()
        .map(|(path, tensor)| format!("{path}.adapters.{stored_name}.{tensor}"))
        .chain(left_over)
        .collect();
    match unfit(&path, missing, left_over, misshapen) {
        Some(error) => Err(error),
        None => Ok(model),
    }
}

/// The tensors of the adapter of this name in a file, by the path of their part and their own name, and the keys that belong
/// to no part.
fn by_part(
    tensors: BTreeMap<String, TensorData>,
    name: &str,
    parts: &Chosen,
) -> (BTreeMap<(String, String), TensorData>, Vec<String>) {
    let separator = format!(".adapters.{name}.");
    let is = |module: &str, wanted: &str| {
        (module.strip_suffix(wanted)).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let (mut found, mut left_over) = (BTreeMap::new(), Vec::new());
    for (key, data) in tensors {
        let place = key.split_once(&separator).and_then(|(module, tensor)| {
            let of = |path: &&String| modules(path).iter().any(|wanted| is(module, wanted));
            let path = parts.iter().find(of)?;
            Some((path.clone(), tensor.to_string()))
        });
        match place {
            Some(place) => {
                found.insert(place, data);
            }
            None => left_over.push(key),
        }
    }
    (found, left_over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_and_a_whole_scaling_is_written_as_a_number_with_a_point() {
        for config in [
            BottleneckConfig::houlsby(),
            BottleneckConfig::pfeiffer(),
            BottleneckConfig::parallel(),
        ] {
            let json = to_json(&config, "task", 64);
            assert!(is_of(&json) && json["name"] == "task");
            let mut read = settings(&json).expect("valid");
            read.common.target_modules = None;
            assert_eq!(read, config);
        }
        let text = to_json(&BottleneckConfig::parallel(), "task", 64).to_string();
        assert!(text.contains("\"scaling\":4.0"), "{text}");
    }

    #[test]
    fn what_is_not_implemented_is_refused_and_what_has_no_effect_is_not() {
        let with = |key: &str, value: Value| {
            let mut json = to_json(&BottleneckConfig::pfeiffer(), "task", 64);
            json["config"][key] = value;
            settings(&json)
        };
        for (key, value) in [
            ("original_ln_after", json!(false)),
            ("residual_before_ln", json!("post_add")),
            ("phm_layer", json!(true)),
            ("inv_adapter", json!("nice")),
            ("scaling", json!("learned")),
            ("non_linearity", json!("leakyrelu")),
            ("leave_out", json!([0])),
            ("architecture", json!("lora")),
            ("later", json!(1)),
        ] {
            let message = with(key, value).expect_err(key);
            assert!(message.contains(key), "{message}");
        }
        for (key, value) in [
            ("phm_dim", json!(2)),
            ("inv_adapter_reduction_factor", json!(2)),
        ] {
            with(key, value).expect(key);
        }
    }
}
