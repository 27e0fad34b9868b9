//! `rope_scaling` (transformers 4) and `rope_parameters` (transformers 5).

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::layers::rope_scaling::RopeScaling;
use crate::{Error, Result};

/// How many features of a head of `head_dim` features rotate.
pub(super) fn rotated(head_dim: usize, partial_rotary_factor: f64) -> usize {
    (head_dim as f64 * partial_rotary_factor) as usize
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
}
