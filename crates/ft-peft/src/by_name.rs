//! A method by its name, for settings written by hand.

use serde_json::{Map, Value};

use crate::adapter_config::Writer;
use crate::{Error, Method, Result, methods};

/// A name, the method, and settings as JSON.
type Alias = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

/// Other names of methods, and the settings that they stand for.
const ALIASES: [Alias; 12] = [
    ("dora", "LORA", &[("use_dora", "true")]),
    ("rslora", "LORA", &[("use_rslora", "true")]),
    ("pissa", "LORA", &[("init_lora_weights", "\"pissa\"")]),
    ("olora", "LORA", &[("init_lora_weights", "\"olora\"")]),
    (
        "houlsby",
        "BOTTLENECK",
        &[
            ("mh_adapter", "true"),
            ("original_ln_before", "false"),
            ("non_linearity", "\"silu\""),
        ],
    ),
    ("pfeiffer", "BOTTLENECK", &[]),
    (
        "parallel",
        "BOTTLENECK",
        &[
            ("is_parallel", "true"),
            ("original_ln_before", "false"),
            ("reduction_factor", "2"),
            ("scaling", "4"),
            ("init_weights", "\"mam_adapter\""),
        ],
    ),
    ("prefix", "PREFIX_TUNING", &[]),
    ("prompt", "PROMPT_TUNING", &[]),
    ("lntuning", "LN_TUNING", &[]),
    ("ptuning", "P_TUNING", &[]),
    ("trainabletokens", "TRAINABLE_TOKENS", &[]),
];

/// The names of all methods, and of settings of them, that [`method()`] takes.
pub fn method_names() -> Vec<String> {
    let aliases = ALIASES.iter().map(|(alias, ..)| (*alias).to_string());
    let known = methods::peft_types()
        .into_iter()
        .map(str::to_ascii_lowercase);
    let mut names: Vec<String> = known.collect();
    // Other spellings of a name are not listed again.
    let new = aliases.filter(|alias| names.iter().all(|name| name.replace('_', "") != *alias));
    let new: Vec<String> = new.collect();
    names.extend(new);
    names
}

/// PEFT's name of the method that a name stands for: `LORA` for `dora`.
///
/// # Errors
///
/// [`Error::Settings`] if there is no such method, with the names of all.
pub fn peft_type_of(name: &str) -> Result<&'static str> {
    let plain = plain(name);
    let alias = ALIASES.iter().find(|(alias, ..)| *alias == plain);
    let mut known = methods::peft_types().into_iter();
    let found = match alias {
        Some((_, stands_for, _)) => Some(*stands_for),
        None => known.find(|known| self::plain(known) == plain),
    };
    found.ok_or_else(|| {
        Error::Settings(format!(
            "no method is called {name:?}; there are: {}",
            method_names().join(", ")
        ))
    })
}

/// A name without what its spellings differ in.
fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace(['-', '_'], "")
}

/// The method of a name, in PEFT's spelling or a common one (`lora`, `dora`, `ia3`, `prefix-tuning`, ...), with these
/// settings of `adapter_config.json`; the others have their defaults.
///
/// ```
/// let settings = serde_json::json!({"r": 4, "target_modules": ["q_proj"]});
/// let method = ft_peft::method("rslora", settings.as_object().unwrap())?;
/// assert_eq!(method.peft_type(), "LORA");
/// assert_eq!(method.own()["use_rslora"], true);
/// # Ok::<(), ft_peft::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Settings`] if there is no such method, with the names of all, or with all settings that are wrong.
pub fn method(name: &str, settings: &Map<String, Value>) -> Result<Box<dyn Method>> {
    let peft_type = peft_type_of(name)?;
    let mut all = Map::new();
    if let Some((_, _, more)) = ALIASES.iter().find(|(alias, ..)| *alias == plain(name)) {
        for (key, value) in *more {
            let value =
                serde_json::from_str(value).map_err(|error| Error::Settings(error.to_string()))?;
            all.insert((*key).to_string(), value);
        }
    }
    all.insert("peft_type".into(), peft_type.into());
    all.extend(settings.clone());
    methods::parse(&Value::Object(all), Writer::Person).map_err(Error::Settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_bottleneck_adapters_are_their_settings() {
        for (name, config) in [
            ("houlsby", crate::BottleneckConfig::houlsby()),
            ("pfeiffer", crate::BottleneckConfig::pfeiffer()),
            ("parallel", crate::BottleneckConfig::parallel()),
        ] {
            assert_eq!(method(name, &Map::new()).expect(name).own(), config.own());
        }
    }

    #[test]
    fn names_are_spelled_in_several_ways() {
        for (name, peft_type) in [
            ("lora", "LORA"),
            ("IA3", "IA3"),
            ("ln-tuning", "LN_TUNING"),
            ("ln_tuning", "LN_TUNING"),
        ] {
            let method = method(name, &Map::new()).expect(name);
            assert_eq!(method.peft_type(), peft_type);
        }
        for name in method_names() {
            peft_type_of(&name).expect("a name of the list");
        }
        assert!(
            ["prefix", "prompt", "dora", "ln_tuning"]
                .iter()
                .all(|name| method_names().iter().any(|n| n == name))
        );
        assert!(!method_names().contains(&"lntuning".to_string()));
        let error = method("lore", &Map::new()).expect_err("none").to_string();
        assert!(error.contains("lora, "), "{error}");
        let settings = serde_json::json!({"rank": 3, "lora_alpha": "a"});
        let settings = settings.as_object().expect("object");
        let error = method("lora", settings).expect_err("wrong").to_string();
        assert!(error.contains("rank is not a setting of LORA"), "{error}");
        assert!(error.contains("lora_alpha"), "{error}");
    }
}
