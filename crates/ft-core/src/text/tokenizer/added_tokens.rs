//! Tokens that stand in files beside `tokenizer.json`, put together as transformers does.
//!
//! `tokenizer_config.json` may list tokens with ids and flags (`added_tokens_decoder`), name special ones
//! (`eos_token`, or `image_token` of a model's own) and list special ones without a name
//! (`extra_special_tokens`, formerly `additional_special_tokens`). Only where it has no `added_tokens_decoder`, the
//! older files count too: `special_tokens_map.json`, which wins, and `added_tokens.json`. A token with
//! other flags replaces the one of `tokenizer.json`; one that is nowhere else is added behind the vocabulary.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::NAMED;
use crate::{Error, Result};

/// The contents of a folder's files, an empty object for a file that is not there.
pub(super) struct Files<'a> {
    pub(super) config: &'a Map<String, Value>,
    pub(super) config_path: &'a Path,
    pub(super) special_tokens_map: &'a Map<String, Value>,
    pub(super) added_tokens: &'a Map<String, Value>,
    pub(super) added_tokens_path: &'a Path,
}

/// What they say together.
pub(super) struct SpecialTokens {
    /// Names and tokens: the seven of transformers first, then the model's own.
    pub(super) named: Vec<(String, String)>,
    /// Special tokens without a name.
    pub(super) extra: Vec<String>,
}

/// A token as a file gives it: a string is special without saying so.
#[derive(Clone)]
enum Given {
    Text(String),
    Token(AddedToken),
}

impl Given {
    /// A string, or an object of flags. Anything else is none.
    fn read(value: &Value, is_special: bool) -> Option<Self> {
        match value {
            Value::String(content) => Some(Self::Text(content.clone())),
            Value::Object(_) => token(value, is_special).map(Self::Token),
            _ => None,
        }
    }

    fn content(&self) -> &str {
        match self {
            Self::Text(content) => content,
            Self::Token(token) => &token.content,
        }
    }
}

/// An object of flags; what it leaves out is as in transformers.
fn token(value: &Value, is_special: bool) -> Option<AddedToken> {
    let flag = |name: &str| value[name].as_bool();
    let special = is_special || flag("special").unwrap_or(false);
    Some(
        AddedToken::from(value["content"].as_str()?, special)
            .single_word(flag("single_word").unwrap_or(false))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!special)),
    )
}

/// Adds what `inner` lacks, and returns the special tokens.
pub(super) fn add(
    inner: &mut tokenizers::Tokenizer,
    padding: Option<&str>,
    files: &Files<'_>,
) -> Result<SpecialTokens> {
    let is_old = !files.config.contains_key("added_tokens_decoder");
    let map = files.special_tokens_map;
    let value = |name: &str| match map.get(name) {
        Some(value) if is_old => Some((value, true)),
        _ => files.config.get(name).map(|value| (value, false)),
    };
    let mut named: Vec<(String, Given)> = Vec::new();
    for name in NAMED {
        let given =
            value(name).map(|(value, of_map)| Given::read(value, of_map && value.is_object()));
        let given = match (given, padding) {
            // Padding that tokenizer.json asks for names its token, unless the name is taken.
            (None, Some(padding)) if name == "pad_token" => Some(Given::Text(padding.to_string())),
            (given, _) => given.flatten(),
        };
        named.extend(given.map(|given| (name.to_string(), given)));
    }
    let extra = extra_tokens(files.config, if is_old { Some(map) } else { None });
    let own = own_names(files.config, if is_old { Some(map) } else { None });
    named.extend(own);

    let listed = if is_old {
        let special = |content: &str| {
            let mut named = named
                .iter()
                .filter(|(name, _)| NAMED.contains(&name.as_str()));
            named.any(|(_, given)| given.content() == content)
                || extra.iter().any(|given| given.content() == content)
        };
        listed_by_content(files.added_tokens, files.added_tokens_path, special)?
    } else {
        listed_by_id(&files.config["added_tokens_decoder"], files.config_path)?
    };
    let present: Vec<AddedToken> = inner.get_added_tokens_decoder().into_values().collect();
    let mut added: Vec<AddedToken> = Vec::new();
    for (id, token) in &listed {
        // An entry of tokenizer.json wins over one of added_tokens.json at its id.
        let wins = inner
            .get_added_tokens_decoder()
            .get(id)
            .cloned()
            .filter(|_| is_old);
        let token = wins.as_ref().unwrap_or(token);
        if !present.contains(token) {
            added.push(token.clone());
        }
    }
    for given in named.iter().map(|(_, given)| given).chain(&extra) {
        let content = given.content();
        if present
            .iter()
            .chain(&added)
            .all(|token| token.content != content)
        {
            added.push(match given {
                Given::Text(content) => AddedToken::from(content.clone(), true),
                Given::Token(token) => token.clone(),
            });
        }
    }
    for token in &mut added {
        token.special |= named
            .iter()
            .any(|(_, given)| given.content() == token.content);
    }
    inner
        .add_tokens(added)
        .map_err(|error| Error::Tokenizer(error.to_string()))?;
    let path = if is_old {
        files.added_tokens_path
    } else {
        files.config_path
    };
    check_ids(inner, &listed, path)?;
    Ok(SpecialTokens {
        named: named
            .into_iter()
            .map(|(name, given)| (name, given.content().to_string()))
            .collect(),
        extra: extra
            .iter()
            .map(|given| given.content().to_string())
            .collect(),
    })
}

/// Special tokens without a name; a list of the older file joins that of the configuration.
fn extra_tokens(config: &Map<String, Value>, map: Option<&Map<String, Value>>) -> Vec<Given> {
    let list = |fields: &Map<String, Value>, name: &str, special: bool| {
        let values = fields.get(name).and_then(Value::as_array);
        let given = values
            .into_iter()
            .flatten()
            .filter_map(move |value| Given::read(value, special));
        given.collect::<Vec<_>>()
    };
    const NAME: &str = "extra_special_tokens";
    const OLD_NAME: &str = "additional_special_tokens";
    let is_given =
        |fields: &Map<String, Value>| fields.get(NAME).is_some_and(|value| !is_empty(value));
    let mut extra = list(
        config,
        if is_given(config) { NAME } else { OLD_NAME },
        false,
    );
    if let Some(map) = map {
        for given in list(map, NAME, true) {
            if extra.iter().all(|known| known.content() != given.content()) {
                extra.push(given);
            }
        }
        if extra.is_empty() && !is_given(config) {
            extra = list(map, OLD_NAME, true);
        }
    }
    extra
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        value => value.is_null(),
    }
}

/// Names that a model has beyond the seven: keys that end in `_token`, and an object in place of the list.
fn own_names(
    config: &Map<String, Value>,
    map: Option<&Map<String, Value>>,
) -> Vec<(String, Given)> {
    let is_own = |name: &str| name.ends_with("_token") && !NAMED.contains(&name);
    let mut found: Vec<(String, Given)> = Vec::new();
    let mut set = |name: &str, value: &Value, special: bool| {
        if let Some(given) = Given::read(value, special) {
            match found.iter_mut().find(|(known, _)| known == name) {
                Some(entry) => entry.1 = given,
                None => found.push((name.to_string(), given)),
            }
        }
    };
    for (name, value) in map.into_iter().flatten().filter(|(name, _)| is_own(name)) {
        set(name, value, true);
    }
    for (name, value) in config.iter().filter(|(name, _)| is_own(name)) {
        set(name, value, false);
    }
    for fields in [Some(config), map].into_iter().flatten() {
        let names = fields
            .get("extra_special_tokens")
            .and_then(Value::as_object);
        for (name, value) in names.into_iter().flatten() {
            set(name, value, false);
        }
    }
    found
}

/// The tokens of `added_tokens_decoder`.
fn listed_by_id(value: &Value, path: &Path) -> Result<BTreeMap<u32, AddedToken>> {
    let entries = value.as_object().into_iter().flatten();
    entries
        .map(|(id, entry)| match (id.parse::<u32>(), token(entry, false)) {
            (Ok(id), Some(token)) => Ok((id, token)),
            _ => Err(Error::invalid(
                path,
                format!(
                    "added_tokens_decoder has an entry `{id}` that is not an id with a `content`"
                ),
            )),
        })
        .collect()
}

/// The tokens of `added_tokens.json`.
fn listed_by_content(
    fields: &Map<String, Value>,
    path: &Path,
    is_special: impl Fn(&str) -> bool,
) -> Result<BTreeMap<u32, AddedToken>> {
    fields
        .iter()
        .map(|(content, id)| {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| Error::invalid(path, format!("`{content}` has no id")))?;
            Ok((id, AddedToken::from(content.clone(), is_special(content))))
        })
        .collect()
}

/// transformers gives a token the next free id, whatever the file says; a model is trained with the file's.
fn check_ids(
    inner: &tokenizers::Tokenizer,
    listed: &BTreeMap<u32, AddedToken>,
    path: &Path,
) -> Result<()> {
    for (&id, token) in listed {
        let actual = inner.token_to_id(&token.content);
        if actual != Some(id) {
            return Err(Error::invalid(
                path,
                format!(
                    "it gives `{}` the id {id}, tokenizer.json {}; the two files are of different tokenizers: \
                     take both from one place",
                    token.content,
                    actual.map_or("none".to_string(), |id| id.to_string())
                ),
            ));
        }
    }
    Ok(())
}
