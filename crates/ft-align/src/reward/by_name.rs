//! Rewards by name.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

#[cfg(unix)]
use super::CodeTests;
use super::{
    ExactAnswer, FormatTags, JsonSchema, NumericAnswer, RegexMatch, Reward, SoftOverlong,
    TargetLength, named,
};
use crate::{Error, Result};

/// A reward that has a name.
struct Known {
    name: &'static str,
    /// The setting that stands after the name and a colon.
    argument: Option<Argument>,
    make: fn(Value) -> serde_json::Result<Arc<dyn Reward>>,
}

/// How the text after a colon becomes a setting.
#[derive(Clone, Copy)]
enum Argument {
    Text(&'static str),
    Number(&'static str),
    /// Words with commas between them.
    List(&'static str),
}

fn known() -> Vec<Known> {
    let entry = |name, argument, make| Known {
        name,
        argument,
        make,
    };
    vec![
        entry("exact", None, make::<ExactAnswer>),
        entry("gsm8k", None, |settings| {
            make::<NumericAnswer>(settings).map(|reward| named("gsm8k", reward))
        }),
        entry("numeric", None, make::<NumericAnswer>),
        entry("regex", Some(Argument::Text("pattern")), make::<RegexMatch>),
        entry("format", Some(Argument::List("tags")), make::<FormatTags>),
        entry(
            "length",
            Some(Argument::Number("tokens")),
            make::<TargetLength>,
        ),
        entry(
            "overlong",
            Some(Argument::Number("max")),
            make::<SoftOverlong>,
        ),
        entry("json", None, make::<JsonSchema>),
        #[cfg(unix)]
        entry("code", None, make::<CodeTests>),
    ]
}

fn make<R: Reward + DeserializeOwned + 'static>(
    settings: Value,
) -> serde_json::Result<Arc<dyn Reward>> {
    Ok(Arc::new(serde_json::from_value::<R>(settings)?))
}

impl Known {
    fn usage(&self) -> String {
        match self.argument {
            None => self.name.to_string(),
            Some(Argument::Text(key) | Argument::Number(key) | Argument::List(key)) => {
                format!("{}:{}", self.name, key.to_uppercase())
            }
        }
    }
}

/// The rewards of a list of names with commas between them, each as [`by_name`] reads it: `gsm8k,format:think,answer,length:100`.
///
/// Settings of `regex` and `format` may contain commas. A comma ends them where a name of a reward follows, and a colon, a comma or
/// the end.
///
/// # Errors
///
/// As [`by_name`], and if a word behind `format:` may be a tag or a reward.
pub fn by_names(text: &str) -> Result<Vec<Arc<dyn Reward>>> {
    let known = known();
    let mut parts: Vec<String> = Vec::new();
    for piece in text.split(',') {
        let name = piece.split(':').next().unwrap_or_default().trim();
        let begins = known.iter().any(|known| known.name == name);
        let Some(last) = parts.last_mut() else {
            parts.push(piece.to_string());
            continue;
        };
        let of = last.split(':').next().unwrap_or_default().trim();
        let setting = known
            .iter()
            .find(|known| known.name == of && last.contains(':'));
        let has_commas = match setting.and_then(|known| known.argument) {
            Some(Argument::Text(_)) => true,
            Some(Argument::List(_)) if begins && !piece.contains(':') => {
                let reason = format!(
                    "`{name}` behind `{last}` may be a tag or a reward: write the reward before it, as in `{name},{last}`, or \
                     give a JSON file"
                );
                return Err(error(of, reason));
            }
            Some(Argument::List(_)) => true,
            _ => false,
        };
        match has_commas && !begins {
            true => *last += &format!(",{piece}"),
            false => parts.push(piece.to_string()),
        }
    }
    parts.iter().map(|part| by_name(part)).collect()
}

/// The reward of a name, with one setting after a colon: `gsm8k`, `regex:PATTERN`, `format:think,answer`, `length:TOKENS`.
/// The documentation of [`reward`](super) lists the names. All other settings have their defaults.
///
/// # Errors
///
/// If the name is not known, or the setting is missing or wrong.
pub fn by_name(text: &str) -> Result<Arc<dyn Reward>> {
    let (name, value) = match text.split_once(':') {
        Some((name, value)) => (name.trim(), Some(value)),
        None => (text.trim(), None),
    };
    let known = find(name)?;
    let mut settings = Map::new();
    if let Some(value) = value {
        let (key, value) = match known.argument {
            Some(Argument::Text(key)) => (key, Value::from(value)),
            Some(Argument::List(key)) => (key, value.split(',').map(str::trim).collect()),
            Some(Argument::Number(key)) => match value.trim().parse::<usize>() {
                Ok(number) => (key, Value::from(number)),
                Err(_) => {
                    return Err(error(
                        name,
                        format!("`{value}` is no whole number: write `{}`", known.usage()),
                    ));
                }
            },
            None => {
                return Err(error(
                    name,
                    format!("nothing can follow its name, so `{text}` is not known"),
                ));
            }
        };
        settings.insert(key.to_string(), value);
    }
    (known.make)(Value::Object(settings)).map_err(|cause| {
        error(
            name,
            format!(
                "{cause}: write `{}`, or set it in a JSON file",
                known.usage()
            ),
        )
    })
}

/// The reward of a name with settings.
pub(super) fn from_settings(name: &str, settings: Map<String, Value>) -> Result<Arc<dyn Reward>> {
    let known = find(name)?;
    (known.make)(Value::Object(settings)).map_err(|cause| error(name, cause.to_string()))
}

fn find(name: &str) -> Result<Known> {
    let mut all = known();
    match all.iter().position(|known| known.name == name) {
        Some(index) => Ok(all.swap_remove(index)),
        None => Err(Error::UnknownName {
            kind: "reward",
            name: name.to_string(),
            known: all.iter().map(Known::usage).collect::<Vec<_>>().join(", "),
        }),
    }
}

fn error(reward: &str, reason: String) -> Error {
    Error::Reward {
        reward: reward.to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::completion::score_of;
    use super::*;

    #[test]
    fn lists_have_commas_and_some_settings_too() {
        let names = |text: &str| {
            let rewards = by_names(text).expect("rewards");
            rewards
                .iter()
                .map(|reward| reward.name().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names("exact, gsm8k"), ["exact", "gsm8k"]);
        assert_eq!(names("regex:\\d{1,3}").len(), 1);
        assert_eq!(names("format:think,answer").len(), 1);
        assert!(by_names("exact,nothing").is_err());
        // What stands behind a setting with commas is not lost.
        assert_eq!(names("regex:\\d+,gsm8k"), ["regex", "gsm8k"]);
        assert_eq!(
            names("gsm8k,regex:a{1,3},length:9"),
            ["gsm8k", "regex", "length"]
        );
        assert_eq!(
            names("gsm8k, format:think, answer ,overlong:5"),
            ["gsm8k", "format", "overlong"]
        );
    }

    #[test]
    fn a_pattern_ends_before_the_next_reward() {
        let rewards = by_names("regex:^a{1,3}$,exact").expect("rewards");
        let score = |text| score_of(&*rewards[0], text, json!({}));
        assert_eq!(score("aaa"), Ok(Some(1.0)));
        assert_eq!(score("aaaa"), Ok(Some(0.0)));
    }

    #[test]
    fn a_word_that_is_a_tag_or_a_reward_is_refused() {
        let error = by_names("format:think,json").expect_err("ambiguous");
        let text = error.to_string();
        assert!(text.contains("`json,format:think`"), "{text}");
    }
}
