//! A tokenizer's files: what each of them says, and which of them wins.
//!
//! As in transformers, `tokenizer.json` has the vocabulary, `tokenizer_config.json` names the special
//! tokens and may list added tokens beyond `tokenizer.json` (see [`added_tokens`](super::added_tokens)), and
//! a chat template in a file of its own wins over one in the configuration.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::words::Words;
use super::{NamedTemplate, Tokenizer, added_tokens};
use crate::{Error, Result};

const TEMPLATE_FILE: &str = "chat_template.jinja";
const TEMPLATE_FOLDER: &str = "additional_chat_templates";

/// Reads a folder.
pub(super) fn load(folder: &Path) -> Result<Tokenizer> {
    let path = folder.join("tokenizer.json");
    let Some(bytes) = read_if_there(&path)? else {
        return Err(Error::invalid(
            &path,
            "there is no such file; if the folder has only tokenizer.model or vocab files, convert \
             them in Python with AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        ));
    };
    let inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| {
        Error::invalid(&path, format!("it is not a whole tokenizer file: {error}"))
    })?;
    let config_path = folder.join("tokenizer_config.json");
    let mut config = read_object(&config_path)?;
    let templates = templates(folder, &mut config)?;
    let added_tokens_path = folder.join("added_tokens.json");
    let files = added_tokens::Files {
        config: &config,
        config_path: &config_path,
        special_tokens_map: &read_object(&folder.join("special_tokens_map.json"))?,
        added_tokens: &read_object(&added_tokens_path)?,
        added_tokens_path: &added_tokens_path,
    };
    assemble(inner, &files, templates)
}

/// A tokenizer from what its files contain.
pub(super) fn assemble(
    mut inner: tokenizers::Tokenizer,
    files: &added_tokens::Files<'_>,
    templates: Vec<NamedTemplate>,
) -> Result<Tokenizer> {
    let truncation = inner.get_truncation().cloned();
    let padding = inner.get_padding().cloned();
    inner
        .with_truncation(None)
        .map_err(|error| Error::Tokenizer(error.to_string()))?;
    inner.with_padding(None);
    let padding_token = padding.as_ref().map(|padding| padding.pad_token.as_str());
    let special = added_tokens::add(&mut inner, padding_token, files)?;
    if files.config.get("split_special_tokens") == Some(&Value::Bool(true)) {
        inner.set_encode_special_tokens(true);
    }

    let mut special_ids: HashSet<u32> = inner
        .get_added_tokens_decoder()
        .into_iter()
        .filter_map(|(id, token)| token.special.then_some(id))
        .collect();
    let named = special.named.iter().map(|(_, token)| token);
    special_ids.extend(
        named
            .chain(&special.extra)
            .filter_map(|token| inner.token_to_id(token)),
    );

    Ok(Tokenizer {
        templates,
        words: Arc::new(Words::new(&inner)),
        inner: Arc::new(inner),
        truncation,
        padding,
        config: files.config.clone(),
        named: special.named,
        extra: special.extra,
        special_ids,
    })
}

/// Writes a folder.
pub(super) fn save(tokenizer: &Tokenizer, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::write(folder))?;
    let mut inner = (*tokenizer.inner).clone();
    inner
        .with_truncation(tokenizer.truncation.clone())
        .map_err(|error| Error::Tokenizer(error.to_string()))?;
    inner.with_padding(tokenizer.padding.clone());
    let text = inner
        .to_string(true)
        .map_err(|error| Error::Tokenizer(error.to_string()))?;
    write_whole(&folder.join("tokenizer.json"), &text)?;

    let mut config = tokenizer.config.clone();
    // Beside a model transformers takes the class of its `model_type`. Elsewhere, as beside an adapter, it needs a name.
    if !folder.join("config.json").is_file() {
        config
            .entry("tokenizer_class")
            .or_insert_with(|| "PreTrainedTokenizerFast".into());
    }
    for (name, token) in &tokenizer.named {
        let given = config.get(name);
        let content = given.map(|given| given.get("content").unwrap_or(given));
        if content.and_then(Value::as_str) != Some(token) {
            config.insert(name.clone(), token.as_str().into());
        }
    }
    // The names are written one by one; what has none stays a list.
    config.remove("additional_special_tokens");
    config.remove("extra_special_tokens");
    if !tokenizer.extra.is_empty() {
        config.insert(
            "extra_special_tokens".to_string(),
            tokenizer.extra.clone().into(),
        );
    }
    let path = folder.join("tokenizer_config.json");
    let text = serde_json::to_string_pretty(&config)
        .map_err(|error| Error::invalid(&path, error.to_string()))?;
    write_whole(&path, &text)?;

    for template in &tokenizer.templates {
        if template.name == "default" {
            write_whole(&folder.join(TEMPLATE_FILE), &template.source)?;
        } else {
            let more = folder.join(TEMPLATE_FOLDER);
            fs::create_dir_all(&more).map_err(Error::write(&more))?;
            let file = more.join(format!("{}.jinja", template.name));
            write_whole(&file, &template.source)?;
        }
    }
    Ok(())
}

/// The templates of a folder; those of the configuration are taken out of it.
fn templates(folder: &Path, config: &mut Map<String, Value>) -> Result<Vec<NamedTemplate>> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    match config.remove("chat_template") {
        Some(Value::String(source)) => {
            found.insert("default".to_string(), source);
        }
        Some(Value::Array(list)) => {
            for entry in &list {
                if let (Some(name), Some(source)) =
                    (entry["name"].as_str(), entry["template"].as_str())
                    && is_file_name(name)
                {
                    found.insert(name.to_string(), source.to_string());
                }
            }
        }
        _ => {}
    }
    let more = folder.join(TEMPLATE_FOLDER);
    if more.is_dir() {
        for entry in fs::read_dir(&more).map_err(Error::read(&more))? {
            let path = entry.map_err(Error::read(&more))?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "jinja")
                && let Some(name) = path.file_stem().and_then(|name| name.to_str())
            {
                found.insert(name.to_string(), read_text(&path)?);
            }
        }
    }
    let path = folder.join(TEMPLATE_FILE);
    if path.is_file() {
        found.insert("default".to_string(), read_text(&path)?);
    }
    Ok(found
        .iter()
        .map(|(name, source)| NamedTemplate::new(name, source))
        .collect())
}

/// Whether a template's name can be a file's name, and of this folder only.
fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::read(path)(error)),
    }
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::read(path))
}

/// A JSON object from a file; an empty one if there is no such file.
fn read_object(path: &Path) -> Result<Map<String, Value>> {
    match read_if_there(path)? {
        None => Ok(Map::new()),
        Some(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| Error::invalid(path, format!("it is not a JSON object: {error}"))),
    }
}

/// Writes a file under another name first, so that no half-written one is ever found.
fn write_whole(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Temporary files are private by default; this one will be an ordinary file.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder).map_err(Error::write(path))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.as_file().sync_all())
        .map_err(Error::write(path))?;
    file.persist(path)
        .map(|_| ())
        .map_err(|error| Error::write(path)(error.error))
}
