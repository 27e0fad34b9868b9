//! What the configurations of encoders have in common.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::positive;
use crate::{Error, Result};

/// Reads a configuration and checks it.
pub(super) fn read<C: DeserializeOwned>(
    json: Value,
    model: &str,
    validate: impl Fn(&C) -> Result<()>,
) -> Result<C> {
    let config: C = serde_json::from_value(json)
        .map_err(|e| Error::Settings(format!("not the configuration of a {model}: {e}")))?;
    validate(&config)?;
    Ok(config)
}

/// The configuration as transformers reads it, of the bare encoder.
pub(super) fn written(config: &impl Serialize, architecture: &str) -> Value {
    let mut json = super::to_json(config);
    json["architectures"] = Value::from(vec![architecture]);
    json
}

/// Checks sizes, that heads divide the width, and `more`.
pub(super) fn check(
    sizes: &[(&str, usize)],
    (width, heads): (usize, usize),
    more: impl IntoIterator<Item = Option<String>>,
) -> Result<()> {
    let mut mistakes = Vec::new();
    for (name, value) in sizes {
        positive(&mut mistakes, name, *value);
    }
    if heads > 0 && !width.is_multiple_of(heads) {
        mistakes.push(format!(
            "a width of {width} must be a multiple of the number of heads, {heads}"
        ));
    }
    mistakes.extend(more.into_iter().flatten());
    match mistakes.is_empty() {
        true => Ok(()),
        false => Err(Error::Settings(mistakes.join("; "))),
    }
}
