//! Task files: YAML with `include` and `!function`, read as lm-evaluation-harness reads it.
//!
//! The keys of a file take precedence over those of included files; `task_list` is not inherited. `!function utils.x`
//! becomes an object with the folder of its file, since functions are looked up there.
//!
//! The syntax is YAML 1.2, where Python's reader follows 1.1: an unquoted `yes`, `no`, `on` or `off` is a text here.
//! Settings that are true or false accept these texts too.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use yaml_serde::Value as Yaml;

use super::tasks;
use crate::{Error, Result};

/// The keys of a `!function` tag in a loaded file.
const FUNCTION: &str = "!function";
const FOLDER: &str = "folder";

/// The location of a task file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    File(PathBuf),
    BuiltIn(String),
}

impl Origin {
    /// The location in messages and in `config_source`.
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Origin::File(path) => path.clone(),
            Origin::BuiltIn(name) => Path::new("built-in").join(name),
        }
    }

    /// An error about this file.
    pub(super) fn invalid(&self, reason: impl Into<String>) -> Error {
        Error::Invalid {
            path: self.path(),
            reason: reason.into(),
        }
    }

    fn folder(&self) -> String {
        let folder = match self {
            Origin::File(path) => path.parent().and_then(Path::file_name),
            Origin::BuiltIn(name) => Path::new(name).parent().and_then(Path::file_name),
        };
        folder
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    fn read(&self) -> Result<String> {
        match self {
            Origin::File(path) => std::fs::read_to_string(path).map_err(|source| Error::Read {
                path: path.clone(),
                source,
            }),
            Origin::BuiltIn(name) => tasks::files()
                .iter()
                .find(|(file, _)| file == name)
                .map(|(_, text)| text.to_string())
                .ok_or_else(|| self.invalid("there is no such built-in task file")),
        }
    }

    /// The file that `include: name` in this file refers to.
    fn sibling(&self, name: &str) -> Origin {
        match self {
            Origin::File(path) => {
                let joined = path.parent().unwrap_or(Path::new("")).join(name);
                Origin::File(joined.canonicalize().unwrap_or(joined))
            }
            Origin::BuiltIn(file) => {
                let mut parts: Vec<&str> = file.split('/').collect();
                parts.pop();
                for part in name.split('/') {
                    match part {
                        "" | "." => {}
                        ".." => {
                            parts.pop();
                        }
                        part => parts.push(part),
                    }
                }
                Origin::BuiltIn(parts.join("/"))
            }
        }
    }
}

/// A `!function` tag: the function's name, and the folder of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FunctionTag {
    pub(super) name: String,
    pub(super) folder: String,
}

impl FunctionTag {
    /// The tag, if a loaded value is one.
    pub(super) fn of(value: &Value) -> Option<FunctionTag> {
        let fields = value.as_object()?;
        Some(FunctionTag {
            name: fields.get(FUNCTION)?.as_str()?.to_string(),
            folder: fields.get(FOLDER)?.as_str()?.to_string(),
        })
    }
}

/// Reads a task file with its included files.
pub(super) fn load(origin: &Origin) -> Result<Map<String, Value>> {
    load_within(origin, &mut Vec::new())
}

fn load_within(origin: &Origin, open: &mut Vec<Origin>) -> Result<Map<String, Value>> {
    if open.contains(origin) {
        return Err(origin.invalid("the file includes itself"));
    }
    let mut own = parse(origin)?;
    let includes = match own.shift_remove("include") {
        None => Vec::new(),
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names
            .iter()
            .map(|name| name.as_str().map(str::to_string))
            .collect::<Option<_>>()
            .ok_or_else(|| origin.invalid("'include' must be a file name or a list of them"))?,
        Some(_) => return Err(origin.invalid("'include' must be a file name or a list of them")),
    };
    let mut merged = Map::new();
    open.push(origin.clone());
    for name in includes {
        let mut included = load_within(&origin.sibling(&name), open)?;
        included.shift_remove("task_list");
        merged.extend(included);
    }
    open.pop();
    merged.extend(own);
    Ok(merged)
}

fn parse(origin: &Origin) -> Result<Map<String, Value>> {
    let text = origin.read()?;
    let mut yaml: Yaml = yaml_serde::from_str(&text)
        .map_err(|error| origin.invalid(format!("it is not valid YAML: {error}")))?;
    yaml.apply_merge()
        .map_err(|error| origin.invalid(format!("'<<' cannot be merged: {error}")))?;
    match to_json(yaml, origin)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(origin.invalid("it must be a mapping of keys to values")),
    }
}

fn to_json(yaml: Yaml, origin: &Origin) -> Result<Value> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(value),
        Yaml::Number(number) => match number.as_i64() {
            Some(whole) => Value::from(whole),
            None => Value::from(number.as_f64()),
        },
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(items) => Value::Array(
            items
                .into_iter()
                .map(|item| to_json(item, origin))
                .collect::<Result<_>>()?,
        ),
        Yaml::Mapping(fields) => {
            let mut object = Map::new();
            for (key, value) in fields {
                let key = match to_json(key, origin)? {
                    Value::String(key) => key,
                    Value::Array(_) | Value::Object(_) => {
                        return Err(origin.invalid("a key is a list or a mapping"));
                    }
                    other => other.to_string(),
                };
                object.insert(key, to_json(value, origin)?);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) if tagged.tag == "function" => match tagged.value {
            Yaml::String(name) => {
                let mut object = Map::new();
                object.insert(FUNCTION.to_string(), Value::String(name));
                object.insert(FOLDER.to_string(), Value::String(origin.folder()));
                Value::Object(object)
            }
            _ => return Err(origin.invalid("'!function' is followed by MODULE.FUNCTION")),
        },
        Yaml::Tagged(tagged) => {
            return Err(origin.invalid(format!(
                "the tag {} is not supported: only !function is",
                tagged.tag
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn own_keys_take_precedence_over_included_ones_and_functions_have_their_folder() {
        let dir = folder(&[
            ("a/task.yaml", "include: ../b/base\ntask: x\nrepeats: 2\n"),
            (
                "b/base",
                "task: y\ntask_list: [z]\nrepeats: 1\nprocess_docs: !function utils.docs\n",
            ),
        ]);
        let loaded = load(&Origin::File(dir.path().join("a/task.yaml"))).unwrap();
        assert_eq!(loaded["task"], json!("x"));
        assert_eq!(loaded["repeats"], json!(2));
        assert!(!loaded.contains_key("task_list"));
        let tag = FunctionTag::of(&loaded["process_docs"]).unwrap();
        assert_eq!(
            (tag.name.as_str(), tag.folder.as_str()),
            ("utils.docs", "b")
        );
    }

    #[test]
    fn a_file_that_includes_itself_is_an_error() {
        let dir = folder(&[
            ("a.yaml", "include: b.yaml"),
            ("b.yaml", "include: [a.yaml]"),
        ]);
        let path = dir.path().canonicalize().unwrap().join("a.yaml");
        let error = load(&Origin::File(path)).unwrap_err().to_string();
        assert!(error.contains("includes itself"), "{error}");
    }

    #[test]
    fn other_tags_are_errors() {
        let dir = folder(&[("a.yaml", "task: !python x")]);
        let error = load(&Origin::File(dir.path().join("a.yaml")))
            .unwrap_err()
            .to_string();
        assert!(error.contains("!python"), "{error}");
    }
}
