//! How rotary frequencies are stretched: as keys and tensors of a file, and as `rope_scaling` of `config.json`.
//!
//! llama.cpp has the factors of Llama 3 as the tensor `rope_freqs.weight`, one for each frequency, and those of LongRoPE as two
//! such tensors. The settings that made those of Llama 3 are not in the file. They are found again: of its settings only the
//! factor and the original context differ between models.

use serde_json::{Value as Json, json};

use super::config::Keys;
use super::{GgufFile, Metadata};
use crate::layers::rope::yarn_attention;
use crate::{Error, Result};

const LLAMA3: &str = "rope_freqs.weight";

/// `rope_scaling` of a file; null if there is none.
pub(super) fn rope_scaling(file: &GgufFile, keys: &Keys<'_>, width: u64) -> Result<Json> {
    let factors = |name: &str| -> Result<Option<Vec<f32>>> {
        let Some(tensor) = file.find(name) else {
            return Ok(None);
        };
        let numbers = file.widened(tensor)?;
        Ok(Some(numbers.iter::<f32>().collect()))
    };
    let original = keys.integer("rope.scaling.original_context_length")?;
    let factor = keys.float("rope.scaling.factor")?;
    let factor = match factor {
        None => keys.float("rope.scale_linear")?,
        some => some,
    };
    if let Some(found) = factors(LLAMA3)? {
        let theta = keys.float("rope.freq_base")?.unwrap_or(10_000.0);
        return llama3(&found, theta, width).ok_or_else(|| {
            let reason =
                format!("tensor {LLAMA3} has factors that are not those of Llama 3's scaling");
            Error::invalid(file.path(), reason)
        });
    }
    if let (Some(long), Some(short)) = (
        factors("rope_factors_long.weight")?,
        factors("rope_factors_short.weight")?,
    ) {
        let context = keys.integer("context_length")?.unwrap_or(0);
        let original = original.unwrap_or(context);
        let of_file = |factors: Vec<f32>| -> Vec<f64> {
            let shortest = |x: f32| x.to_string().parse().unwrap_or_else(|_| x.into());
            factors.into_iter().map(shortest).collect()
        };
        let mut scaling = json!({
            "rope_type": "longrope",
            "factor": context as f64 / (original as f64).max(1.0),
            "original_max_position_embeddings": original,
            "long_factor": of_file(long),
            "short_factor": of_file(short),
        });
        if let Some(factor) = keys.float("rope.scaling.attn_factor")? {
            scaling["attention_factor"] = factor.into();
        }
        return Ok(scaling);
    }
    let key = keys.of("rope.scaling.type");
    let kind = keys.metadata.string(&key)?;
    match (kind, factor) {
        (None, Some(factor)) | (Some("linear"), Some(factor)) if factor != 1.0 => {
            Ok(json!({"rope_type": "linear", "factor": factor}))
        }
        (Some("yarn"), Some(factor)) => {
            let mut scaling = json!({
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": original.unwrap_or(0),
            });
            for (ours, theirs) in YARN {
                if let Some(value) = keys.float(&format!("rope.scaling.{ours}"))? {
                    scaling[theirs] = value.into();
                }
            }
            if let Some(part) = keys.float("rope.scaling.attn_factor")?
                && part != 1.0
            {
                scaling["attention_factor"] = (part * yarn_attention(factor, None, None)).into();
            }
            Ok(scaling)
        }
        (None | Some("none" | "linear" | "longrope"), _) => Ok(Json::Null),
        (Some(other), _) => Err(keys.metadata.invalid(
            &key,
            &format!("{other:?} is not known here, or lacks its factor"),
        )),
    }
}

const YARN: [(&str, &str); 2] = [
    ("yarn_beta_fast", "beta_fast"),
    ("yarn_beta_slow", "beta_slow"),
];

/// The settings of Llama 3's scaling that give these factors.
fn llama3(found: &[f32], theta: f64, width: u64) -> Option<Json> {
    // A header may say anything: the width is that of a head only if there is a factor for each pair of its numbers.
    if found.len() as u64 != width / 2 {
        return None;
    }
    let factor = found.iter().copied().fold(1.0, f32::max);
    let (low, high) = (1.0, 4.0);
    // Powers of two, the usual one first.
    let powers = (3..=20).map(|power| 1u64 << power);
    let mut originals = std::iter::once(8192).chain(powers);
    originals.find_map(|original| {
        let made = llama3_factors(
            factor.into(),
            low,
            high,
            original as f64,
            theta,
            width as usize,
        );
        let same = made.len() == found.len()
            && made
                .iter()
                .zip(found)
                .all(|(made, found)| (made - f64::from(*found)).abs() <= 1e-4 * made);
        same.then(|| {
            json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            })
        })
    })
}

/// What each frequency is divided by (Llama 3.1; `_compute_llama3_parameters` of transformers).
fn llama3_factors(
    factor: f64,
    low: f64,
    high: f64,
    original: f64,
    theta: f64,
    width: usize,
) -> Vec<f64> {
    let of = |i: usize| {
        let wave = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / width as f64);
        let rotations = original / wave;
        if rotations > high {
            1.0
        } else if rotations < low {
            factor
        } else {
            let smooth = (rotations - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..width / 2).map(of).collect()
}

fn kind_of(scaling: &Json) -> Option<&str> {
    scaling["rope_type"].as_str().or(scaling["type"].as_str())
}

/// The context of pretraining.
fn original_context(config: &Json) -> u64 {
    const KEY: &str = "original_max_position_embeddings";
    let given = config["rope_scaling"][KEY]
        .as_u64()
        .or(config[KEY].as_u64());
    given
        .or(config["max_position_embeddings"].as_u64())
        .unwrap_or(0)
}

/// The tensors that a `rope_scaling` becomes, with their names.
pub(super) fn rope_tensors(config: &Json, width: usize) -> Vec<(&'static str, Vec<f32>)> {
    let scaling = &config["rope_scaling"];
    let list = |key: &str| -> Vec<f32> {
        let numbers = scaling[key].as_array().into_iter().flatten();
        numbers.filter_map(Json::as_f64).map(|x| x as f32).collect()
    };
    let number = |key: &str, default: f64| scaling[key].as_f64().unwrap_or(default);
    match kind_of(scaling) {
        Some("llama3") => {
            let factors = llama3_factors(
                number("factor", 8.0),
                number("low_freq_factor", 1.0),
                number("high_freq_factor", 4.0),
                number("original_max_position_embeddings", 8192.0),
                config["rope_theta"].as_f64().unwrap_or(10_000.0),
                width,
            );
            vec![(LLAMA3, factors.into_iter().map(|x| x as f32).collect())]
        }
        Some("longrope") => vec![
            ("rope_factors_long.weight", list("long_factor")),
            ("rope_factors_short.weight", list("short_factor")),
        ],
        _ => Vec::new(),
    }
}

/// The keys of a `rope_scaling`.
///
/// # Errors
///
/// If llama.cpp has no such scaling.
pub(super) fn write_rope_scaling(
    config: &Json,
    architecture: &str,
    metadata: &mut Metadata,
) -> Result<()> {
    let scaling = &config["rope_scaling"];
    let mut set = |key: &str, value: super::Value| {
        metadata.set(format!("{architecture}.rope.scaling.{key}"), value);
    };
    let number = |key: &str| scaling[key].as_f64().map(|value| value as f32);
    let original = original_context(config);
    match kind_of(scaling) {
        None | Some("default" | "llama3") => {}
        Some(kind @ ("linear" | "yarn")) => {
            set("type", kind.into());
            if let Some(factor) = number("factor") {
                set("factor", factor.into());
            }
            if kind == "yarn" {
                for (ours, theirs) in YARN {
                    if let Some(value) = number(theirs) {
                        set(ours, value.into());
                    }
                }
                if scaling["truncate"] == false {
                    return Err(Error::Settings(
                        "llama.cpp rounds the bounds of YaRN's dimensions, and rope_scaling has truncate: false".into(),
                    ));
                }
                // llama.cpp multiplies by `1 + 0.1·ln(factor)` in any case; the key is what is left of the whole factor.
                let own = |key: &str| scaling[key].as_f64();
                let factor = own("factor").unwrap_or(1.0);
                let computed = yarn_attention(factor, own("mscale"), own("mscale_all_dim"));
                let whole = own("attention_factor").unwrap_or(computed);
                let part = whole / yarn_attention(factor, None, None);
                if (part - 1.0).abs() > 1e-6 {
                    set("attn_factor", (part as f32).into());
                }
                set("original_context_length", (original as u32).into());
            }
        }
        Some("longrope") => {
            set("type", "longrope".into());
            set("original_context_length", (original as u32).into());
            // As transformers computes it where it is not given.
            let context = config["max_position_embeddings"].as_f64().unwrap_or(0.0);
            let original = original as f64;
            let factor = scaling["factor"].as_f64().unwrap_or(context / original);
            let computed = match factor > 1.0 {
                true => (1.0 + factor.ln() / original.ln()).sqrt(),
                false => 1.0,
            };
            let factor = number("attention_factor").unwrap_or(computed as f32);
            set("attn_factor", factor.into());
        }
        Some(other) => {
            return Err(Error::Settings(format!(
                "llama.cpp has no rope_scaling of type {other:?}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attention_factor_of_yarn_is_written_without_the_part_that_llama_cpp_computes() {
        let written = |scaling: Json| {
            let mut metadata = Metadata::default();
            let config = json!({"rope_scaling": scaling, "max_position_embeddings": 64});
            write_rope_scaling(&config, "llama", &mut metadata).map(|()| {
                let key = "llama.rope.scaling.attn_factor";
                metadata.float(key).expect("a number")
            })
        };
        let yarn = |others: Json| {
            let mut scaling = json!({"rope_type": "yarn", "factor": 4.0});
            for (key, value) in others.as_object().expect("keys") {
                scaling[key] = value.clone();
            }
            scaling
        };
        // 1 + 0.1·ln 4 = 1.138 63; 2 / 1.138 63 = 1.756 5
        assert_eq!(written(yarn(json!({}))).expect("writes"), None);
        let factor = written(yarn(json!({"attention_factor": 2.0})));
        let factor = factor.expect("writes").expect("is there");
        assert!((factor - 1.756_5).abs() < 1e-4, "{factor}");
        // Equal refinements cancel, so that the whole factor is 1.
        let factor = written(yarn(json!({"mscale": 1.0, "mscale_all_dim": 1.0})));
        let factor = factor.expect("writes").expect("is there");
        assert!((factor - 1.0 / 1.138_63).abs() < 1e-4, "{factor}");
        assert!(written(yarn(json!({"truncate": false}))).is_err());
    }

    #[test]
    fn a_width_that_the_factors_do_not_have_makes_no_list() {
        assert_eq!(llama3(&[1.0], 1e4, 1 << 40), None);
    }

    #[test]
    fn the_settings_of_llama_3_are_found_from_its_factors() {
        // Llama 3.2 1B.
        let factors = llama3_factors(32.0, 1.0, 4.0, 8192.0, 500_000.0, 64);
        let factors: Vec<f32> = factors.iter().map(|x| *x as f32).collect();
        let found = llama3(&factors, 500_000.0, 64).expect("found");
        assert_eq!(found["factor"], 32.0);
        assert_eq!(found["original_max_position_embeddings"], 8192);
        let mut other = factors;
        other[20] *= 1.1;
        assert!(llama3(&other, 500_000.0, 64).is_none());
    }
}
